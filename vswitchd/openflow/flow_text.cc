#include "vswitchd/openflow/flow_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "vswitchd/openflow/action_convert.h"
#include "vswitchd/openflow/flow_lint.h"
#include "vswitchd/openflow/match_convert.h"
#include "vswitchd/openflow/ovs.h"

namespace vswitch {

namespace ovs {

void initialize() {
  static const bool done = [] {
    vlog_set_levels(nullptr, VLF_ANY_DESTINATION, VLL_OFF);
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace ovs

namespace {

using namespace ovs;  // NOLINT: this file is where the two meet

// ---- Flags and commands

struct FlagPair {
  unsigned theirs;
  uint16_t ours;
};
constexpr FlagPair kFlagPairs[] = {{OFPUTIL_FF_SEND_FLOW_REM, kRuleSendFlowRemoved},
                                   {OFPUTIL_FF_CHECK_OVERLAP, kRuleCheckOverlap},
                                   {OFPUTIL_FF_RESET_COUNTS, kRuleResetCounts},
                                   {OFPUTIL_FF_NO_PKT_COUNTS, kRuleNoPacketCounts},
                                   {OFPUTIL_FF_NO_BYT_COUNTS, kRuleNoByteCounts}};

uint16_t our_flags(unsigned theirs) {
  uint16_t ours = 0;
  for (const FlagPair& flag : kFlagPairs) {
    if (theirs & flag.theirs) ours |= flag.ours;
  }
  return ours;
}

ofputil_flow_mod_flags ovs_flags(uint16_t ours) {
  unsigned theirs = 0;
  for (const FlagPair& flag : kFlagPairs) {
    if (ours & flag.ours) theirs |= flag.theirs;
  }
  return static_cast<ofputil_flow_mod_flags>(theirs);
}

constexpr int kCommandFromText = -2;  // parse_ofp_str(): the line names the command
constexpr int kFilter = -1;           // parse_ofp_str(): a request for statistics

int ovs_command(RuleCommand command) {
  switch (command) {
    case RuleCommand::add:
      return OFPFC_ADD;
    case RuleCommand::modify:
      return OFPFC_MODIFY;
    case RuleCommand::modify_strict:
      return OFPFC_MODIFY_STRICT;
    case RuleCommand::remove:
      return OFPFC_DELETE;
    case RuleCommand::remove_strict:
      return OFPFC_DELETE_STRICT;
  }
  return OFPFC_ADD;
}

RuleCommand our_command(int command) {
  for (RuleCommand c :
       {RuleCommand::modify, RuleCommand::modify_strict, RuleCommand::remove, RuleCommand::remove_strict}) {
    if (ovs_command(c) == command) return c;
  }
  return RuleCommand::add;
}

// ---- Errors

Status parse_error(const char* message) { return invalid_argument(explain_parse_error(message)); }

// Whether a table is given at all: the parser tells a missing one as 255.
bool names_table(std::string_view text) {
  for (size_t at = text.find("table="); at != text.npos; at = text.find("table=", at + 1)) {
    if (at == 0 || text[at - 1] == ',' || text[at - 1] == ' ' || text[at - 1] == '\t') return true;
    if (text.find("actions") < at) return false;
  }
  return false;
}

// The text for the parser, which wants it to end with a NUL and to have no other.
Result<std::string> c_string(std::string_view text) {
  if (text.find('\0') != text.npos) return invalid_argument("flow text contains a NUL byte");
  return std::string(text);
}

Status parse_ovs(const std::string& text, int command, const FlowNames* names, FlowMod* out) {
  ofputil_protocol usable;
  const ErrorText error(parse_ofp_str(out, command, text.c_str(), ports(names), tables(names), &usable));
  if (error) return parse_error(error.get());
  out->has_match = true;
  return {};
}

// ---- Checks of the match

// Fields that the key has a place for and nothing fills yet: a rule on one would never do what its writer wants.
Status check_supported(const Match& match) {
  const FlowMask& mask = match.mask.packet;
  const bool tracks = (mask.ct_state | mask.ct_mark | mask.ct_zone | mask.ct_nw_proto) != 0 ||
                      (mask.ct_label[0] | mask.ct_label[1]) != 0 || mask.ct_nw_src || mask.ct_nw_dst ||
                      mask.ct_tp_src || mask.ct_tp_dst || !mask.ct_ipv6_src.is_zero() || !mask.ct_ipv6_dst.is_zero();
  if (tracks) {
    return unimplemented("matching on ct_ fields is not supported yet: this version tracks no connections", "match");
  }
  if (match.mask.pipeline.conj_id != 0) {
    return unimplemented("matching on conj_id is not supported yet: this version has no conjunctions", "match");
  }
  return {};
}

// ---- Checks of actions

// Which OpenFlow versions can say that packets of the match get the first `count` actions; 0: none, or the actions do
// not go together.
ofputil_protocol protocols_for(const RuleActionList& actions, size_t count, const ::match& match, uint8_t table) {
  Ofpacts ofpacts;
  for (size_t i = 0; i < count; ++i) put_action(actions[i], ofpacts.get());
  ::match copy = match;
  ofpact_check_params params{};
  params.match = &copy;
  params.max_ports = kOfPortMax;
  params.table_id = table;
  params.n_tables = kTableAll;
  const ofperr error = ofpacts_check(ofpacts.data(), ofpacts.size(), &params);
  return error == 0 ? params.usable_protocols : ofputil_protocol{};
}

bool actions_fit(const RuleActionList& actions, size_t count, const ::match& match, uint8_t table) {
  return protocols_for(actions, count, match, table) != 0;
}

// Action `i` takes away every version but 1.0.
bool needs_openflow10(const RuleActionList& actions, size_t i, const ::match& match, uint8_t table) {
  const auto before = static_cast<unsigned>(protocols_for(actions, i, match, table));
  const auto after = static_cast<unsigned>(protocols_for(actions, i + 1, match, table));
  return (before & ~unsigned{OFPUTIL_P_OF10_ANY}) != 0 && (after & ~unsigned{OFPUTIL_P_OF10_ANY}) == 0;
}

// What packets must have for an action to work on them; "" if it works on all.
std::string action_prerequisite(const RuleAction& action) {
  const auto of_field = [](const Field* field) {
    const mf_field* theirs = field != nullptr ? mf_from_name(std::string(field->name).c_str()) : nullptr;
    return theirs != nullptr ? prerequisite_text(*theirs) : std::string();
  };
  const auto of_tag = [](bool needed) {
    return needed ? std::string("a VLAN tag (dl_vlan=N, or vlan_tci=0x1000/0x1000 for any)") : std::string();
  };
  if (const auto* a = std::get_if<SetField>(&action)) return of_field(a->field);
  if (const auto* a = std::get_if<StackPop>(&action)) return of_field(a->destination.field);
  if (const auto* a = std::get_if<StackPush>(&action)) return of_field(a->source.field);
  if (const auto* a = std::get_if<OutputToField>(&action)) return of_field(a->source.field);
  if (const auto* a = std::get_if<MoveField>(&action)) {
    const std::string source = of_field(a->source.field), destination = of_field(a->destination.field);
    if (source.empty() || source == destination) return destination;
    return destination.empty() ? source : source + ", and " + destination;
  }
  if (const auto* a = std::get_if<ModField>(&action)) {
    if (a->field->prerequisite == FieldPrerequisite::tcp) return "tcp, udp or sctp";
    return of_field(a->field);
  }
  if (std::holds_alternative<StripVlan>(action)) return of_tag(true);
  if (const auto* a = std::get_if<ModVlanVid>(&action)) return of_tag(!a->push_if_needed);
  if (const auto* a = std::get_if<ModVlanPcp>(&action)) return of_tag(!a->push_if_needed);
  return std::holds_alternative<DecTtl>(action) ? "ip or ipv6" : "";
}

// OpenFlow 1.0 lets an action do nothing to a packet without the header that it is about; later versions do not. Where
// one action is of 1.0 only in this sense and another not of 1.0 at all, it is the first that is at fault.
std::string lacking_prerequisite(const RuleActionList& actions, size_t count, const ::match& match, uint8_t table) {
  for (size_t i = 0; i < count; ++i) {
    const std::string needed = action_prerequisite(actions[i]);
    if (needed.empty() || !needs_openflow10(actions, i, match, table)) continue;
    return fmt::format("action {}: only packets of {} have what it changes, so the match must say so",
                       format_action(actions[i]), needed);
  }
  return {};
}

// Why the list does not fit, and which action it is. Empty if the actions fit.
std::string unfit_reason(const RuleActionList& actions, const ::match& match, uint8_t table);

std::string unfit_inside(const RuleAction& action, const ::match& match, uint8_t table) {
  if (const auto* a = std::get_if<CloneActions>(&action)) return unfit_reason(*a->actions, match, table);
  if (const auto* a = std::get_if<WriteActions>(&action)) return unfit_reason(*a->actions, match, table);
  return "";
}

std::string unfit_reason(const RuleActionList& actions, const ::match& match, uint8_t table) {
  for (size_t count = 1; count <= actions.size(); ++count) {
    if (actions_fit(actions, count, match, table)) continue;
    if (std::string inside = unfit_inside(actions[count - 1], match, table); !inside.empty()) return inside;
    if (std::string lacks = lacking_prerequisite(actions, count, match, table); !lacks.empty()) return lacks;
    const std::string name = format_action(actions[count - 1]);
    if (std::holds_alternative<PushVlan>(actions[count - 1])) {
      return fmt::format("action {}: a packet has {} VLAN tags at most", name, FLOW_MAX_VLAN_HEADERS);
    }
    if (std::holds_alternative<OutputToPort>(actions[count - 1])) {
      return fmt::format("action {}: there is no output to this port (1 to {}, or a reserved port that sends)", name,
                         kOfPortMax - 1);
    }
    const std::string needed = action_prerequisite(actions[count - 1]);
    if (needed.empty()) return fmt::format("action {}: its value or its place in the list is not possible", name);
    return fmt::format("action {}: only packets of {} have what it changes, so the match must say so", name, needed);
  }
  return {};
}

Status check_goto(uint8_t from, uint8_t to) {
  if (to > from && to < kTableCount) return {};
  return invalid_argument("goto_table:" + std::to_string(to) + ": a rule in table " + std::to_string(from) +
                              " can only go on to a later table, up to " + std::to_string(kTableCount - 1),
                          "actions");
}

Status check_action_tables(const RuleActionList& actions, uint8_t table) {
  for (const RuleAction& action : actions) {
    if (const auto* a = std::get_if<GotoTable>(&action)) VSWITCH_RETURN_IF_ERROR(check_goto(table, a->table));
    if (const auto* a = std::get_if<Resubmit>(&action); a && a->table == kTableInternal) {
      return invalid_argument(
          format_action(action) + ": table " + std::to_string(kTableInternal) + " is the switch's own", "actions");
    }
    if (const auto* a = std::get_if<CloneActions>(&action)) {
      VSWITCH_RETURN_IF_ERROR(check_action_tables(*a->actions, table));
    }
  }
  return {};
}

Status check_table(uint8_t table, bool all_allowed) {
  if (table < kTableCount || (all_allowed && table == kTableAll)) return {};
  return invalid_argument(
      "table " + std::to_string(table) + " is not a table for rules (0 to " + std::to_string(kTableCount - 1) + ")",
      "table");
}

// Says what the parser's "actions are invalid with specified match" leaves out: which action it is, and why. Parses the
// line again, the match with actions that fit always, and the actions without a match.
Status name_action_at_fault(const std::string& text, int command, const FlowNames* names, const Status& error) {
  if (error.message().find("actions are invalid") == std::string::npos) return error;
  std::string head = text;
  const char* actions_text = ofp_extract_actions(head.data());
  if (!actions_text) return error;
  Result<RuleActionList> actions = parse_actions(actions_text, names);
  // An action that is not there fits no match: that is the better reason.
  if (!actions.ok()) return actions.status().code() == StatusCode::unimplemented ? actions.status() : error;
  FlowMod mod;
  if (!parse_ovs(std::string(head.c_str()) + ",actions=drop", command, names, &mod).ok()) return error;
  ::match match;
  minimatch_expand(&mod.match, &match);
  const uint8_t table = mod.table_id == kTableAll ? 0 : mod.table_id;
  VSWITCH_RETURN_IF_ERROR(check_action_tables(*actions, table));
  std::string reason = unfit_reason(*actions, match, table);
  if (reason.empty()) reason = lacking_prerequisite(*actions, actions->size(), match, table);
  return reason.empty() ? error : invalid_argument(reason, "actions");
}

// ---- Rules

Status fill_rule_mod(const FlowMod& mod, const MatchWords& words, RuleMod* out) {
  out->command = our_command(mod.command);
  const bool removes = out->command == RuleCommand::remove || out->command == RuleCommand::remove_strict;
  const bool adds = out->command == RuleCommand::add;
  ::match match;
  minimatch_expand(&mod.match, &match);
  VSWITCH_RETURN_IF_ERROR(check_words(words, match));
  VSWITCH_RETURN_IF_ERROR(check_prerequisites(match));
  Result<Match> our_match = match_from_ovs(match);
  if (!our_match.ok()) return our_match.status();
  if (mod.out_group != OFPG_ANY) return unimplemented("out_group is not supported yet", "out_group");

  RuleSpec& spec = out->spec;
  spec.match = *std::move(our_match);
  spec.table = adds && mod.table_id == kTableAll ? 0 : mod.table_id;
  spec.priority = static_cast<uint16_t>(mod.priority);
  spec.idle_timeout = mod.idle_timeout;
  spec.hard_timeout = mod.hard_timeout;
  spec.flags = our_flags(mod.flags);
  spec.importance = mod.importance;
  const uint64_t new_cookie = be64::from_raw(mod.new_cookie).host();
  spec.cookie = new_cookie == UINT64_MAX ? 0 : new_cookie;
  out->modify_cookie = !adds && mod.modify_cookie;
  out->cookie_mask = be64::from_raw(mod.cookie_mask).host();
  out->cookie = be64::from_raw(mod.cookie).host() & out->cookie_mask;
  out->out_port = static_cast<OfPort>(mod.out_port);
  VSWITCH_RETURN_IF_ERROR(check_table(spec.table, !adds));

  Result<RuleActionList> actions = actions_from_ofpacts(mod.ofpacts, mod.ofpacts_len);
  if (!actions.ok()) return actions.status();
  if (!removes) VSWITCH_RETURN_IF_ERROR(check_action_tables(*actions, spec.table == kTableAll ? 0 : spec.table));
  spec.actions = std::make_shared<const RuleActionList>(*std::move(actions));
  return {};
}

// The text, for libopenvswitch, if it may see it.
Result<std::string> checked_line(std::string_view text, bool of_rule, const FlowNames* names, MatchWords* words) {
  initialize();
  Result<std::string> line = c_string(text);
  if (!line.ok()) return line;
  VSWITCH_RETURN_IF_ERROR(check_flow_text(*line, of_rule, names, words));
  return line;
}

Result<RuleMod> parse_mod(std::string_view text, int command, const FlowNames* names) {
  MatchWords words;
  const Result<std::string> line = checked_line(text, /*of_rule=*/true, names, &words);
  if (!line.ok()) return line.status();
  FlowMod mod;
  if (Status error = parse_ovs(*line, command, names, &mod); !error.ok()) {
    return name_action_at_fault(*line, command, names, error);
  }
  if (mod.command == OFPFC_ADD && mod.table_id == kTableAll && names_table(*line)) {
    return invalid_argument("table=255 stands for all tables; a rule goes into one of 0 to 253", "table");
  }
  RuleMod out;
  VSWITCH_RETURN_IF_ERROR(fill_rule_mod(mod, words, &out));
  const bool removes = out.command == RuleCommand::remove || out.command == RuleCommand::remove_strict;
  if (!removes) VSWITCH_RETURN_IF_ERROR(check_supported(out.spec.match.expand()));
  return out;
}

std::string format_ovs_match(const ::match& match, const FlowNames* names, int priority) {
  DynamicString text;
  match_format(&match, ports(names), text.get(), priority);
  return text.str();
}

std::string format_ofpact(const RuleAction& action, const FlowNames* names) {
  Ofpacts ofpacts;
  put_action(action, ofpacts.get());
  DynamicString text;
  ofpact_format_params params{};
  params.port_map = ports(names);
  params.table_map = tables(names);
  params.s = text.get();
  ofpacts_format(ofpacts.data(), ofpacts.size(), &params);
  return text.str();
}

// Metadata that a packet has only if something gave it to it: not worth a word while it is zero.
void hide_zero_metadata(const ::flow& flow, flow_wildcards* wc) {
  ::flow& mask = wc->masks;
  if (!flow.in_port.ofp_port) mask.in_port.ofp_port = 0;
  if (!flow.skb_priority) mask.skb_priority = 0;
  if (!flow.pkt_mark) mask.pkt_mark = 0;
  if (!flow.recirc_id) mask.recirc_id = 0;
  if (!flow.dp_hash) mask.dp_hash = 0;
  if (!flow.ct_state) mask.ct_state = 0;
  if (!flow.ct_zone) mask.ct_zone = 0;
  if (!flow.ct_mark) mask.ct_mark = 0;
  if (!flow.ct_label.u64.hi && !flow.ct_label.u64.lo) mask.ct_label = ovs_u128{};
  if (!flow.metadata) mask.metadata = 0;
  for (size_t i = 0; i < FLOW_N_REGS; ++i) {
    if (!flow.regs[i]) mask.regs[i] = 0;
  }
  if (!flow.ct_nw_proto) {  // no original tuple
    mask.ct_nw_proto = 0;
    mask.ct_tp_src = mask.ct_tp_dst = 0;
    mask.ct_nw_src = mask.ct_nw_dst = 0;
    mask.ct_ipv6_src = mask.ct_ipv6_dst = in6_addr{};
  }
}

}  // namespace

// ---- FlowNames

FlowNames::FlowNames() : maps_(std::make_unique<Maps>()) {}
FlowNames::~FlowNames() = default;
FlowNames::FlowNames(FlowNames&&) noexcept = default;
FlowNames& FlowNames::operator=(FlowNames&&) noexcept = default;

void FlowNames::add_port(OfPort port, std::string_view name) {
  ofputil_port_map_put(&maps_->ports, port, std::string(name).c_str());
}
void FlowNames::add_table(uint8_t table, std::string_view name) {
  ofputil_table_map_put(&maps_->tables, table, std::string(name).c_str());
}

// ---- Parsing

Result<RuleMod> parse_rule_mod(std::string_view text, RuleCommand command, const FlowNames* names) {
  return parse_mod(text, ovs_command(command), names);
}

Result<RuleMod> parse_rule_line(std::string_view text, const FlowNames* names) {
  return parse_mod(text, kCommandFromText, names);
}

Result<RuleFilter> parse_rule_filter(std::string_view text, const FlowNames* names) {
  MatchWords words;
  const Result<std::string> line = checked_line(text, /*of_rule=*/true, names, &words);
  if (!line.ok()) return line.status();
  FlowMod mod;
  VSWITCH_RETURN_IF_ERROR(parse_ovs(*line, kFilter, names, &mod));
  mod.command = OFPFC_DELETE;
  RuleMod as_mod;
  VSWITCH_RETURN_IF_ERROR(fill_rule_mod(mod, words, &as_mod));
  RuleFilter out;
  out.table = as_mod.spec.table;
  out.match = as_mod.spec.match.expand();
  out.cookie = as_mod.cookie;
  out.cookie_mask = as_mod.cookie_mask;
  out.out_port = as_mod.out_port;
  return out;
}

Result<RuleActionList> parse_actions(std::string_view text, const FlowNames* names, bool allow_instructions) {
  initialize();
  Result<std::string> line = c_string(text);
  if (!line.ok()) return line.status();
  VSWITCH_RETURN_IF_ERROR(check_action_text(*line, names));
  Ofpacts ofpacts;
  ofputil_protocol usable;
  ofpact_parse_params params{};
  params.port_map = ports(names);
  params.table_map = tables(names);
  params.ofpacts = ofpacts.get();
  params.usable_protocols = &usable;
  const auto parse = allow_instructions ? ofpacts_parse_instructions : ofpacts_parse_actions;
  const ErrorText error(parse(line->c_str(), &params));
  if (error) return parse_error(error.get());
  return actions_from_ofpacts(ofpacts.data(), ofpacts.size());
}

Result<ParsedFlowKey> parse_flow_key(std::string_view text, const FlowNames* names) {
  MatchWords words;
  const Result<std::string> line = checked_line(text, /*of_rule=*/false, names, &words);
  if (!line.ok()) return line.status();
  ::flow flow;
  flow_wildcards wc;
  const ErrorText error(parse_ofp_exact_flow(&flow, &wc, nullptr, line->c_str(), ports(names)));
  if (error) return parse_error(error.get());
  ::match match;
  match_init(&match, &flow, &wc);
  VSWITCH_RETURN_IF_ERROR(check_words(words, match));
  // Says which field is one that we have no place for.
  Result<Match> known = match_from_ovs(match);
  if (!known.ok()) return known.status();
  ParsedFlowKey parsed{key_from_flow(flow), known->mask};
  if (words.in_port_zero) parsed.key.packet.in_port = 0;
  return parsed;
}

Result<ParsedPacketOut> parse_packet_out(std::string_view text, const FlowNames* names) {
  MatchWords words;
  const Result<std::string> line = checked_line(text, /*of_rule=*/false, names, &words);
  if (!line.ok()) return line.status();
  ofputil_packet_out packet_out;
  ofputil_protocol usable;
  const ErrorText error(parse_ofp_packet_out_str(&packet_out, line->c_str(), ports(names), tables(names), &usable));
  if (error) return parse_error(error.get());
  const Malloced<ofpact> ofpacts(packet_out.ofpacts);
  const Malloced<void> packet(const_cast<void*>(packet_out.packet));  // NOLINT: ours to free
  Result<RuleActionList> actions = actions_from_ofpacts(ofpacts.get(), packet_out.ofpacts_len);
  if (!actions.ok()) return actions.status();
  Result<Match> metadata = match_from_ovs(packet_out.flow_metadata);
  if (!metadata.ok()) return metadata.status();
  const auto* bytes = static_cast<const uint8_t*>(packet.get());
  return ParsedPacketOut{metadata->value, {bytes, bytes + packet_out.packet_len}, *std::move(actions)};
}

// ---- Checking

Status check_rule(const RuleSpec& rule, bool check_actions) {
  initialize();
  VSWITCH_RETURN_IF_ERROR(check_table(rule.table, !check_actions));
  ::match match;
  rule_match_to_ovs(rule.match.expand(), &match);
  VSWITCH_RETURN_IF_ERROR(check_prerequisites(match));
  if (!check_actions) return {};
  VSWITCH_RETURN_IF_ERROR(check_supported(rule.match.expand()));
  VSWITCH_RETURN_IF_ERROR(check_size(*rule.actions));
  VSWITCH_RETURN_IF_ERROR(check_action_tables(*rule.actions, rule.table));
  if (actions_fit(*rule.actions, rule.actions->size(), match, rule.table)) return {};
  return invalid_argument(unfit_reason(*rule.actions, match, rule.table), "actions");
}

// ---- Formatting

std::string format_rule(const RuleSpec& rule, const RuleCounters* counters, const FlowNames* names) {
  initialize();
  ofputil_flow_stats stats{};
  rule_match_to_ovs(rule.match.expand(), &stats.match);
  stats.cookie = to_be64(rule.cookie).raw();
  stats.table_id = rule.table;
  stats.priority = rule.priority;
  stats.idle_timeout = rule.idle_timeout;
  stats.hard_timeout = rule.hard_timeout;
  stats.flags = ovs_flags(rule.flags);
  stats.importance = rule.importance;
  stats.idle_age = stats.hard_age = -1;
  if (counters) {
    // Milliseconds: more digits would say nothing.
    const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(counters->duration).count();
    stats.duration_sec = static_cast<uint32_t>(milliseconds / 1000);
    stats.duration_nsec = static_cast<uint32_t>(milliseconds % 1000) * 1'000'000;
    stats.packet_count = counters->packets;
    stats.byte_count = counters->bytes;
    if (counters->idle_age) stats.idle_age = static_cast<int>(*counters->idle_age);
    if (counters->hard_age) stats.hard_age = static_cast<int>(*counters->hard_age);
  }
  DynamicString text;
  ofputil_flow_stats_format(text.get(), &stats, ports(names), tables(names), counters != nullptr);
  // It was given no actions, so the line ends with "drop": ours take its place.
  std::string line = text.str();
  line.resize(line.size() - std::string_view("drop").size());
  line.insert(line.begin(), ' ');
  return line + format_actions(*rule.actions, names);
}

std::string format_match(const Match& match, const FlowNames* names, uint16_t priority) {
  initialize();
  ::match ovs_match;
  rule_match_to_ovs(match, &ovs_match);
  return format_ovs_match(ovs_match, names, priority);
}

std::string format_megaflow(const PipelineKey& key, const PipelineMask& mask, const FlowNames* names) {
  initialize();
  ::match match;
  match_to_ovs(masked(key, mask), mask, &match);
  return format_ovs_match(match, names, OFP_DEFAULT_PRIORITY);
}

std::string format_actions(const RuleActionList& actions, const FlowNames* names) {
  if (actions.empty()) return "drop";
  std::string text;
  for (const RuleAction& action : actions) {
    if (!text.empty()) text += ',';
    text += format_action(action, names);
  }
  return text;
}

std::string format_action(const RuleAction& action, const FlowNames* names) {
  initialize();
  // Lists inside are formatted here, one action at a time: however long they are, no ofpact gets too long.
  if (const auto* clone = std::get_if<CloneActions>(&action))
    return "clone(" + format_actions(*clone->actions, names) + ")";
  if (const auto* write = std::get_if<WriteActions>(&action)) {
    return "write_actions(" + format_actions(*write->actions, names) + ")";
  }
  return format_ofpact(action, names);
}

std::string format_flow_key(const PipelineKey& key, const FlowNames* names) {
  initialize();
  const ::flow flow = flow_from_key(key);
  ::match match;
  match_wc_init(&match, &flow);
  hide_zero_metadata(flow, &match.wc);
  DynamicString text;
  match_format(&match, ports(names), text.get(), OFP_DEFAULT_PRIORITY);
  return text.str();
}

}  // namespace vswitch
