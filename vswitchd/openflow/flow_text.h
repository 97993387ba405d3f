// Flow text: the syntax of ovs-ofctl(8) and ovs-fields(7) for rules, matches, actions and flows, both ways.
//
// libopenvswitch parses and prints, so that what people typed into `ovs-ofctl` means and looks the same here; this
// file's business is the conversion to and from our own types. No libopenvswitch type leaves vswitchd/openflow.
//
// What is refused, and how:
// - what libopenvswitch cannot parse: invalid_argument with the parser's own words;
// - a match on a field whose prerequisite is not matched (`tcp_dst=80` without `tcp`): invalid_argument naming the
// field.
//   ovs-ofctl drops such a field with a log message, and so adds a rule that matches more than was asked for;
// - actions that cannot work (set_field of a field the match does not imply, goto_table backwards, output to a reserved
//   port that is none): invalid_argument naming the action at fault;
// - actions, fields and options that RuleAction or the key has no place for: unimplemented, naming them.
//
// Thread safety: every function may be called from any thread at the same time. A FlowNames may be read by many threads
// once it is filled.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/base/status.h"
#include "vswitchd/rules/rule.h"
#include "vswitchd/rules/rule_tables.h"

namespace vswitch {

// The names that ports and tables of one bridge go by. Fill it once when ports change, use it for many calls: building
// it costs more than parsing a rule. Where a function takes `names`, null means numbers only (reserved ports keep their
// keywords: LOCAL, in_port, NORMAL, ...).
class FlowNames {
 public:
  FlowNames();
  ~FlowNames();
  FlowNames(FlowNames&&) noexcept;
  FlowNames& operator=(FlowNames&&) noexcept;

  void add_port(OfPort port, std::string_view name);
  void add_table(uint8_t table, std::string_view name);

  struct Maps;  // libopenvswitch's; defined in the implementation
  const Maps& maps() const { return *maps_; }

 private:
  std::unique_ptr<Maps> maps_;
};

// ---- Parsing

// One rule as add-flow, mod-flows, del-flows take it: "table=1,priority=10,tcp,in_port=p1,actions=output:2". In an add
// the table is 0 unless given; in modify and remove it is kTableAll.
Result<RuleMod> parse_rule_mod(std::string_view text, RuleCommand command, const FlowNames* names = nullptr);
// One line of a file for add-flows: as above, where the line may begin with add, modify, modify_strict, delete or
// delete_strict; add otherwise.
Result<RuleMod> parse_rule_line(std::string_view text, const FlowNames* names = nullptr);
// The FLOW argument of dump-flows and dump-aggregate: match fields, table, cookie=V/M, out_port. "" is everything.
Result<RuleFilter> parse_rule_filter(std::string_view text, const FlowNames* names = nullptr);
// "output:1,set_field:..": what stands behind `actions=`. Instructions (goto_table, write_actions, ...) are refused
// unless `allow_instructions`. Prerequisites are not checked, for want of a match: see check_rule().
Result<RuleActionList> parse_actions(std::string_view text, const FlowNames* names = nullptr,
                                     bool allow_instructions = true);

// A packet described by its fields, as `trace` takes it: "tcp,in_port=1,dl_src=..,nw_dst=..". Each field at most once,
// after what it presupposes. in_port is kOfPortNone when not given. `given` has the bits of the fields that were named.
struct ParsedFlowKey {
  PipelineKey key;
  PipelineMask given;
};
Result<ParsedFlowKey> parse_flow_key(std::string_view text, const FlowNames* names = nullptr);

// "in_port=1, packet=HEX, actions=..": packet-out. `metadata` has in_port, tunnel fields, registers as given.
struct ParsedPacketOut {
  PipelineKey metadata;
  std::vector<uint8_t> packet;
  RuleActionList actions;
};
Result<ParsedPacketOut> parse_packet_out(std::string_view text, const FlowNames* names = nullptr);

// ---- Checking

// The checks that parse_rule_mod() makes, for rules that came in another way (typed API, store): fields and their
// prerequisites, actions against the match, tables and ports in range. With `check_actions` false only the match.
Status check_rule(const RuleSpec& rule, bool check_actions = true);

// ---- Formatting

// What dump-flows says about a rule beside its specification.
struct RuleCounters {
  Nanoseconds duration{};  // since it was added
  uint64_t packets = 0;
  uint64_t bytes = 0;
  std::optional<uint32_t> idle_age;  // seconds since the last packet; not printed if absent
  std::optional<uint32_t> hard_age;  // seconds since the last change; not printed if absent or equal to the duration
};

// The line that `ovs-ofctl dump-flows` prints, leading space included, without newline:
//   " cookie=0x0, duration=4.2s, table=0, n_packets=1, n_bytes=60, priority=1,in_port=1 actions=output:2"
// Without counters it is that of `dump-flows --no-stats`, which leaves out a zero cookie and table as well.
std::string format_rule(const RuleSpec& rule, const RuleCounters* counters = nullptr, const FlowNames* names = nullptr);

inline constexpr uint16_t kDefaultPriority = 32768;
// "priority=5,tcp,in_port=1,tp_dst=80". The default priority is not printed; a match of everything is "".
std::string format_match(const Match& match, const FlowNames* names = nullptr, uint16_t priority = kDefaultPriority);
// "resubmit(,2),output:1"; "drop" for an empty list.
std::string format_actions(const RuleActionList& actions, const FlowNames* names = nullptr);
std::string format_action(const RuleAction& action, const FlowNames* names = nullptr);
// The text behind "Flow: " in a trace: all fields that such a packet has; metadata that is zero is left out.
std::string format_flow_key(const PipelineKey& key, const FlowNames* names = nullptr);
// The text behind "Megaflow: ": the fields of `key` in which `mask` has bits.
std::string format_megaflow(const PipelineKey& key, const PipelineMask& mask, const FlowNames* names = nullptr);

}  // namespace vswitch
