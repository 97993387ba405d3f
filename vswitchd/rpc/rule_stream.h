// RuleStream: the text of a LoadRules call, chunk by chunk, to RuleMods, with the line of each error.
//
// Lines as in a file for `ofctl add-flows`: flow syntax, "#" begins a comment, empty lines mean nothing. After the
// first error parsing goes on, to report more of them (up to kMaxErrors), but no more RuleMods are kept.
// Thread-compatible.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vswitchd/rpc/failure.h"
#include "vswitchd/rpc/transaction_builder.h"
#include "vswitchd/rules/action_interner.h"
#include "vswitchd/rules/rule_provision.h"

namespace vswitch {

class RuleStream {
 public:
  static constexpr size_t kMaxErrors = 20;
  static constexpr size_t kMaxLine = 256 * 1024;  // bytes; longer is an error, not memory

  // `present`: so many of the rules to come are there already, as far as is known (rule_provision.h).
  explicit RuleStream(LazyNames& names, size_t present = 0) : names_(names), provision_(std::in_place, present) {}

  // False: enough errors, nothing more need be sent.
  bool add_text(std::string_view chunk);
  bool add_mod(const v1::RuleMod& mod);
  bool finish();  // the last line may lack its newline

  bool ok() const { return failures_.empty(); }
  const std::vector<Failure>& failures() const { return failures_; }
  uint64_t lines() const { return line_; }
  std::vector<RuleMod>& mods() { return mods_; }
  // The failure for mod `index`, as prepare() found it.
  Failure failure_of(size_t index, Status status) const;

 private:
  void add_line(std::string_view line);
  void keep(RuleMod mod, uint64_t origin);
  void fail(Status status, std::optional<size_t> mod, std::optional<uint64_t> line);

  LazyNames& names_;
  std::string rest_;  // of a line that the last chunk cut
  uint64_t line_ = 0;
  uint64_t typed_ = 0;
  std::vector<RuleMod> mods_;
  std::optional<RuleProvision> provision_;  // for those that add, as long as there are any
  ActionInterner actions_;                  // a million rules may come with a hundred different lists
  // Where each mod came from: a line (from 1), or a typed change (bit 63 and its index).
  std::vector<uint64_t> origins_;
  std::vector<Failure> failures_;
};

}  // namespace vswitch
