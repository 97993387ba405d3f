// RuleLineParser: parse_rule_line() and parse_rule_mod() for very many rules, which differ in their values and hardly
// in their form.
//
// A million lines are a few thousand forms: which fields stand there, which of them masked, what the actions are. Of
// each form the first line goes through these functions, with all its checks; of the next ones only the values are
// read here, and the actions are the first one's. Whether actions fit a match depends on its form only, so nothing is
// left unchecked. What this reader does not know (other fields, other spellings, anything wrong, changes and removals)
// is their business, every time: results and errors are the same, always.
//
// Thread-compatible: one per thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "vswitchd/openflow/flow_text.h"

namespace vswitch {

class RuleLineParser {
 public:
  // As parse_rule_line(). `names` may change from call to call, but not what one says.
  Result<RuleMod> parse(std::string_view text, const FlowNames* names = nullptr);
  // As parse_rule_mod().
  Result<RuleMod> parse_mod(std::string_view text, RuleCommand command, const FlowNames* names = nullptr);

  uint64_t known_forms() const { return known_.size(); }
  // Lines of which only the values were read.
  uint64_t quick_lines() const { return quick_lines_; }

 private:
  template <typename Parse>
  Result<RuleMod> parse_unless_known(std::string_view text, const FlowNames* names, Parse&& parse_whole);

  std::unordered_map<std::string, std::shared_ptr<const RuleActionList>> known_;  // forms
  const FlowNames* names_ = nullptr;  // that the actions of known_ were parsed with
  std::string form_;                  // of the line at hand
  Match match_;                       // likewise; here because it is large
  uint64_t quick_lines_ = 0;
};

}  // namespace vswitch
