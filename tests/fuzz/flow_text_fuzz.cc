// Anything that a person, a client or a damaged store may hand to vswitchd/openflow: the first byte says to which
// function. What is accepted must print, and what is printed must be accepted again and print the same.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>

#include "vswitchd/openflow/flow_line.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/openflow/rule_codec.h"

namespace {

using namespace vswitch;  // NOLINT

void require(bool condition) {
  if (!condition) std::abort();
}

void rule_goes_round(const RuleSpec& rule) {
  const std::string text = format_rule(rule);
  const Result<RuleMod> again = parse_rule_mod(text, RuleCommand::add);
  // A few things that can be typed have no spelling of their own when printed; what is read back must be stable,
  // though.
  if (again.ok()) require(format_rule(again->spec) == text);
  const Result<RuleSpec> decoded = decode_rule(encode_rule(rule));
  require(decoded.ok() && format_rule(*decoded) == text);
}

void fuzz_rule(std::string_view text, RuleCommand command) {
  const Result<RuleMod> mod = parse_rule_mod(text, command);
  if (mod.ok() && command == RuleCommand::add) rule_goes_round(mod->spec);
}

// Lines that are alike or not: the reader of many gives what the whole parser gives for each.
void fuzz_lines(std::string_view text) {
  RuleLineParser parser;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const Result<RuleMod> whole = parse_rule_line(line);
    for (int i = 0; i < 2; ++i) {
      const Result<RuleMod> got = parser.parse(line);
      require(got.ok() == whole.ok());
      if (!got.ok()) continue;
      require(got->command == whole->command && got->cookie == whole->cookie && got->out_port == whole->out_port);
      require(format_rule(got->spec) == format_rule(whole->spec));
    }
  }
}

void fuzz_stored(std::string_view bytes) {
  const Result<RuleSpec> rule = decode_rule(bytes);
  if (!rule.ok()) return;
  if (check_rule(*rule).ok()) require(!format_rule(*rule).empty());
  const Result<RuleSpec> again = decode_rule(encode_rule(*rule));
  require(again.ok() && again->match == rule->match && *again->actions == *rule->actions);
}

void fuzz_key(std::string_view text) {
  const Result<ParsedFlowKey> key = parse_flow_key(text);
  if (key.ok()) require(!format_flow_key(key->key).empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 8) {
    case 0:
      fuzz_rule(text, RuleCommand::add);
      break;
    case 1:
      fuzz_rule(text, RuleCommand::modify);
      break;
    case 2:
      fuzz_rule(text, RuleCommand::remove_strict);
      break;
    case 3:
      fuzz_key(text);
      break;
    case 4:
      if (const auto actions = parse_actions(text); actions.ok()) require(!format_actions(*actions).empty());
      break;
    case 5:
      if (const auto out = parse_packet_out(text); out.ok()) require(!out->packet.empty());
      break;
    case 6:
      fuzz_stored(text);
      break;
    case 7:
      fuzz_lines(text);
      break;
  }
  return 0;
}
