#include "vswitchd/rpc/proto_convert_rule.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "datapath/actions/action.h"
#include "datapath/flow/flow_mask.h"
#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

// ---------------------------------------------------------------- field values

void put_number(uint64_t number, size_t n_bytes, FieldValue& out) {
  for (size_t i = n_bytes; i-- > 0 && number != 0; number >>= 8) out.bytes[i] = static_cast<uint8_t>(number);
}

uint64_t get_number(const FieldValue& value, size_t n_bytes) {
  uint64_t number = 0;
  for (size_t i = 0; i < n_bytes; ++i) number = number << 8 | value.bytes[i];
  return number;
}

Status too_wide(const Field& field, const std::string& path) {
  return invalid_argument(fmt::format("value does not fit {}, which has {} bits", field.name, field.width), path);
}

Result<FieldValue> from_number(const Field& field, uint64_t number, const std::string& path) {
  FieldValue out;
  if (field.n_bytes < 8 && (number >> (8 * field.n_bytes)) != 0) return too_wide(field, path);
  put_number(number, field.n_bytes, out);
  return out;
}

Result<FieldValue> from_data(const Field& field, const std::string& data, const std::string& path) {
  if (data.size() != field.n_bytes) {
    return invalid_argument(fmt::format("{} takes {} bytes, not {}", field.name, field.n_bytes, data.size()), path);
  }
  FieldValue out;
  std::copy(data.begin(), data.end(), out.bytes.begin());
  return out;
}

Result<FieldValue> from_number_text(const Field& field, std::string_view text, const std::string& path) {
  bool hex = text.starts_with("0x") || text.starts_with("0X");
  std::string_view digits = hex ? text.substr(2) : text;
  uint64_t number = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number, hex ? 16 : 10);
  if (error != std::errc() || end != digits.data() + digits.size() || digits.empty()) {
    return invalid_argument(
        fmt::format("\"{}\" is not a value of {}: a number is wanted, e.g. 80 or 0x50", text, field.name), path);
  }
  return from_number(field, number, path);
}

template <typename Bytes>
FieldValue from_bytes(const Bytes& bytes) {
  FieldValue out;
  std::copy(bytes.begin(), bytes.end(), out.bytes.begin());
  return out;
}

Result<FieldValue> from_text(const Field& field, const std::string& text, const std::string& path) {
  switch (field.format) {
    case FieldFormat::ethernet:
      if (auto mac = MacAddress::parse(text)) return from_bytes(mac->bytes);
      return invalid_argument(
          fmt::format("\"{}\" is not an Ethernet address, which {} takes: 0a:00:00:00:00:01", text, field.name), path);
    case FieldFormat::ipv4:
      if (auto address = parse_ipv4(text)) return from_number(field, address->host(), path);
      return invalid_argument(fmt::format("\"{}\" is not an IPv4 address, which {} takes: 192.0.2.1", text, field.name),
                              path);
    case FieldFormat::ipv6:
      if (auto address = Ipv6Address::parse(text)) return from_bytes(address->bytes);
      return invalid_argument(
          fmt::format("\"{}\" is not an IPv6 address, which {} takes: 2001:db8::1", text, field.name), path);
    case FieldFormat::decimal:
    case FieldFormat::hexadecimal:
    case FieldFormat::port:
    case FieldFormat::frag:
    case FieldFormat::tcp_flags:
    case FieldFormat::tunnel_flags:
    case FieldFormat::ct_state:
    case FieldFormat::packet_type:
      return from_number_text(field, text, path);
  }
  return internal_error("unknown field format");
}

Result<FieldValue> one_value(const Field& field, const v1::FieldValue& value, const std::string& path) {
  switch (value.kind_case()) {
    case v1::FieldValue::kNumber:
      return from_number(field, value.number(), path);
    case v1::FieldValue::kData:
      return from_data(field, value.data(), path);
    case v1::FieldValue::kText:
      return from_text(field, value.text(), path);
    case v1::FieldValue::KIND_NOT_SET:
      break;
  }
  return invalid_argument(fmt::format("{} needs a value: number, data or text", field.name), path);
}

// Splits "10.0.0.0/8" or "10.0.0.0/255.0.0.0" for the fields whose values are addresses.
struct AddressText {
  std::string address;
  std::string mask;  // "" if there is none
};
AddressText split_mask(const Field& field, const v1::FieldValue& value) {
  bool address =
      field.format == FieldFormat::ipv4 || field.format == FieldFormat::ipv6 || field.format == FieldFormat::ethernet;
  size_t slash = address ? value.text().find('/') : std::string::npos;
  if (slash == std::string::npos) return {value.text(), ""};
  return {value.text().substr(0, slash), value.text().substr(slash + 1)};
}

Result<FieldValue> prefix_mask(const Field& field, const std::string& text, const std::string& path) {
  unsigned length = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  bool number = error == std::errc() && end == text.data() + text.size();
  if (!number || field.format == FieldFormat::ethernet) return from_text(field, text, path);
  if (length > field.width) {
    return invalid_argument(fmt::format("prefix length {} is out of range: 0 to {}", length, field.width), path);
  }
  FieldValue out;
  for (unsigned bit = 0; bit < length; ++bit) out.bytes[bit / 8] |= static_cast<uint8_t>(0x80 >> (bit % 8));
  return out;
}

bool is_within(const FieldValue& mask, const Field& field) {
  FieldValue all = exact_field_mask(field);
  for (size_t i = 0; i < field.n_bytes; ++i) {
    if ((mask.bytes[i] & ~all.bytes[i]) != 0) return false;
  }
  return true;
}

Result<FieldValue> mask_of(const Field& field, const std::string& prefix, const v1::FieldValue* mask,
                           const std::string& path) {
  if (!prefix.empty() && mask != nullptr) {
    return invalid_argument(fmt::format("{} has two masks: one behind the / and one beside it", field.name), path);
  }
  if (!prefix.empty()) return prefix_mask(field, prefix, path);
  if (mask != nullptr) return one_value(field, *mask, path);
  return exact_field_mask(field);
}

void field_value_to_proto(const Field& field, const FieldValue& value, v1::FieldValue& out) {
  bool address =
      field.format == FieldFormat::ipv4 || field.format == FieldFormat::ipv6 || field.format == FieldFormat::ethernet;
  if (address || field.n_bytes > 8) {
    out.set_data(value.bytes.data(), field.n_bytes);
  } else {
    out.set_number(get_number(value, field.n_bytes));
  }
}

bool is_zero(const FieldValue& value) {
  return std::all_of(value.bytes.begin(), value.bytes.end(), [](uint8_t byte) { return byte == 0; });
}

// ---------------------------------------------------------------- ranges

template <typename Int>
Status check_range(uint64_t value, Int& out, const char* what, uint64_t limit = std::numeric_limits<Int>::max()) {
  if (value > limit) return invalid_argument(fmt::format("{} {} is out of range: 0 to {}", what, value, limit), what);
  out = static_cast<Int>(value);
  return {};
}

// ---------------------------------------------------------------- actions from proto

Result<RuleAction> action_from_proto(const v1::Action& action, const std::string& path);

Result<Subfield> subfield_from_proto(const v1::Subfield& subfield, const std::string& path) {
  Result<const Field*> field = field_from_proto(subfield.field(), path + ".field");
  if (!field.ok()) return field.status();
  uint32_t width = (*field)->width;
  uint32_t n_bits = subfield.n_bits() != 0 ? subfield.n_bits() : width - std::min(subfield.offset(), width);
  if (n_bits == 0 || uint64_t{subfield.offset()} + n_bits > width) {
    return invalid_argument(fmt::format("{} has {} bits: {} bits from bit {} are not in it", (*field)->name, width,
                                        subfield.n_bits(), subfield.offset()),
                            path);
  }
  return Subfield{*field, static_cast<uint16_t>(subfield.offset()), static_cast<uint16_t>(n_bits)};
}

Result<RuleAction> convert(const v1::OutputAction& in, const std::string&) {
  OutputToPort out;
  VSWITCH_RETURN_IF_ERROR(check_range(in.port(), out.port, "port"));
  out.max_len = in.max_len();
  return RuleAction(out);
}

Result<RuleAction> convert(const v1::OutputFieldAction& in, const std::string& path) {
  OutputToField out;
  Result<Subfield> source = subfield_from_proto(in.source(), path + ".source");
  if (!source.ok()) return source.status();
  out.source = *source;
  if (in.max_len() != 0) VSWITCH_RETURN_IF_ERROR(check_range(in.max_len(), out.max_len, "max_len"));
  return RuleAction(out);
}

Result<PacketInReason> reason_from_proto(v1::PacketInReason reason, const std::string& path) {
  if (reason == v1::PACKET_IN_REASON_UNSPECIFIED) return PacketInReason::action;
  if (!v1::PacketInReason_IsValid(reason)) return invalid_argument("unknown packet-in reason", path + ".reason");
  return static_cast<PacketInReason>(int{reason} - 1);
}

Result<RuleAction> convert(const v1::ControllerAction& in, const std::string& path) {
  SendToController out;
  if (in.max_len() != 0) VSWITCH_RETURN_IF_ERROR(check_range(in.max_len(), out.max_len, "max_len"));
  VSWITCH_RETURN_IF_ERROR(check_range(in.controller_id(), out.controller_id, "controller_id"));
  Result<PacketInReason> reason = reason_from_proto(in.reason(), path);
  if (!reason.ok()) return reason.status();
  out.reason = *reason;
  out.userdata.assign(in.userdata().begin(), in.userdata().end());
  return RuleAction(std::move(out));
}

Result<RuleAction> convert(const v1::SetFieldAction& in, const std::string& path) {
  Result<const Field*> field = field_from_proto(in.field(), path + ".field");
  if (!field.ok()) return field.status();
  const v1::FieldValue* mask = in.has_mask() ? &in.mask() : nullptr;
  Result<ParsedFieldValue> parsed = field_value_from_proto(**field, in.value(), mask, path);
  if (!parsed.ok()) return parsed.status();
  SetField out;
  out.field = *field;
  out.load_syntax = in.load_syntax();
  for (size_t i = 0; i < (*field)->n_bytes; ++i) {
    out.value.push_back(parsed->value.bytes[i] & parsed->mask.bytes[i]);
    out.mask.push_back(parsed->mask.bytes[i]);
  }
  return RuleAction(std::move(out));
}

Result<RuleAction> convert(const v1::MoveAction& in, const std::string& path) {
  Result<Subfield> source = subfield_from_proto(in.source(), path + ".source");
  if (!source.ok()) return source.status();
  Result<Subfield> destination = subfield_from_proto(in.destination(), path + ".destination");
  if (!destination.ok()) return destination.status();
  if (source->n_bits != destination->n_bits) {
    return invalid_argument(
        fmt::format("move copies {} bits into {} bits: the widths must be equal", source->n_bits, destination->n_bits),
        path);
  }
  return RuleAction(MoveField{*source, *destination});
}

Result<RuleAction> convert(const v1::ModFieldAction& in, const std::string& path) {
  Result<const Field*> field = field_from_proto(in.field(), path + ".field");
  if (!field.ok()) return field.status();
  constexpr std::string_view kAllowed[] = {"eth_src", "eth_dst", "ip_src", "ip_dst",  "nw_src", "nw_dst",
                                           "nw_tos",  "nw_ecn",  "nw_ttl", "tcp_src", "tcp_dst"};
  if (std::find(std::begin(kAllowed), std::end(kAllowed), (*field)->name) == std::end(kAllowed)) {
    return invalid_argument(
        fmt::format("mod_field cannot write {}: it writes eth_src, eth_dst, ip_src, ip_dst, nw_tos, "
                    "nw_ecn, nw_ttl, tcp_src and tcp_dst; use set_field",
                    (*field)->name),
        path + ".field");
  }
  if ((*field)->width < 64 && (in.value() >> (*field)->width) != 0) return too_wide(**field, path + ".value");
  return RuleAction(ModField{*field, in.value()});
}

Result<RuleAction> convert_vid(const v1::VlanVidAction& in) {
  ModVlanVid out;
  VSWITCH_RETURN_IF_ERROR(check_range(in.vid(), out.vid, "vid", 4095));
  out.push_if_needed = !in.only_if_tagged();
  return RuleAction(out);
}

Result<RuleAction> convert_pcp(const v1::VlanPcpAction& in) {
  ModVlanPcp out;
  VSWITCH_RETURN_IF_ERROR(check_range(in.pcp(), out.pcp, "pcp", 7));
  out.push_if_needed = !in.only_if_tagged();
  return RuleAction(out);
}

Result<RuleAction> convert(const v1::PushVlanAction& in, const std::string& path) {
  if (in.ethertype() != 0x8100 && in.ethertype() != 0x88a8) {
    return invalid_argument(
        fmt::format("push_vlan of 0x{:04x}: the EtherType of a VLAN tag is 0x8100 or 0x88a8", in.ethertype()),
        path + ".ethertype");
  }
  return RuleAction(PushVlan{to_be16(static_cast<uint16_t>(in.ethertype()))});
}

Result<RuleAction> convert(const v1::DecTtlAction& in, const std::string&) {
  DecTtl out;
  for (uint32_t id : in.controller_ids()) {
    out.controller_ids.emplace_back();
    VSWITCH_RETURN_IF_ERROR(check_range(id, out.controller_ids.back(), "controller_id"));
  }
  return RuleAction(std::move(out));
}

Result<RuleAction> convert(const v1::SetTunnelAction& in, const std::string& path) {
  if (!in.is_64_bit() && in.id() > 0xffffffff) {
    return invalid_argument("set_tunnel takes 32 bits: say is_64_bit for more", path + ".id");
  }
  return RuleAction(SetTunnelId{in.id(), in.is_64_bit()});
}

Result<RuleAction> convert(const v1::ResubmitAction& in, const std::string&) {
  Resubmit out;
  if (in.has_in_port()) VSWITCH_RETURN_IF_ERROR(check_range(in.in_port(), out.in_port, "in_port"));
  if (in.has_table()) VSWITCH_RETURN_IF_ERROR(check_range(in.table(), out.table, "table"));
  return RuleAction(out);
}

template <typename Domain>
Result<RuleAction> convert_list(const v1::ActionList& in, const std::string& path) {
  Result<RuleActionList> actions = actions_from_proto(in.actions(), path + ".actions");
  if (!actions.ok()) return actions.status();
  return RuleAction(Domain{std::make_shared<const RuleActionList>(*std::move(actions))});
}

Result<RuleAction> convert_stack(const v1::StackAction& in, bool push, const std::string& path) {
  Result<Subfield> subfield = subfield_from_proto(in.subfield(), path + ".subfield");
  if (!subfield.ok()) return subfield.status();
  return push ? RuleAction(StackPush{*subfield}) : RuleAction(StackPop{*subfield});
}

Result<RuleAction> convert_goto(uint32_t table) {
  GotoTable out;
  VSWITCH_RETURN_IF_ERROR(check_range(table, out.table, "goto_table", kTableCount - 1));
  return RuleAction(out);
}

Result<RuleAction> action_from_proto(const v1::Action& action, const std::string& path) {
  switch (action.kind_case()) {
    case v1::Action::kOutput:
      return convert(action.output(), path + ".output");
    case v1::Action::kOutputField:
      return convert(action.output_field(), path + ".output_field");
    case v1::Action::kController:
      return convert(action.controller(), path + ".controller");
    case v1::Action::kSetField:
      return convert(action.set_field(), path + ".set_field");
    case v1::Action::kMove:
      return convert(action.move(), path + ".move");
    case v1::Action::kModField:
      return convert(action.mod_field(), path + ".mod_field");
    case v1::Action::kModVlanVid:
      return convert_vid(action.mod_vlan_vid());
    case v1::Action::kModVlanPcp:
      return convert_pcp(action.mod_vlan_pcp());
    case v1::Action::kStripVlan:
      return RuleAction(StripVlan{action.strip_vlan().pop_syntax()});
    case v1::Action::kPushVlan:
      return convert(action.push_vlan(), path + ".push_vlan");
    case v1::Action::kDecTtl:
      return convert(action.dec_ttl(), path + ".dec_ttl");
    case v1::Action::kSetTunnel:
      return convert(action.set_tunnel(), path + ".set_tunnel");
    case v1::Action::kResubmit:
      return convert(action.resubmit(), path + ".resubmit");
    case v1::Action::kPush:
      return convert_stack(action.push(), true, path + ".push");
    case v1::Action::kPop:
      return convert_stack(action.pop(), false, path + ".pop");
    case v1::Action::kClone:
      return convert_list<CloneActions>(action.clone(), path + ".clone");
    case v1::Action::kExit:
      return RuleAction(Exit{});
    case v1::Action::kNote:
      return RuleAction(Note{{action.note().data().begin(), action.note().data().end()}});
    case v1::Action::kClearActions:
      return RuleAction(ClearActions{});
    case v1::Action::kWriteActions:
      return convert_list<WriteActions>(action.write_actions(), path + ".write_actions");
    case v1::Action::kWriteMetadata: {
      const v1::WriteMetadataAction& write = action.write_metadata();
      uint64_t mask = write.has_mask() ? write.mask() : ~uint64_t{0};
      return RuleAction(WriteMetadata{write.value() & mask, mask});
    }
    case v1::Action::kGotoTable:
      return convert_goto(action.goto_table());
    case v1::Action::kDebugRecirc:
      return RuleAction(DebugRecirculate{});
    case v1::Action::KIND_NOT_SET:
      break;
  }
  return invalid_argument("an action with nothing in it, or of a kind that this version does not know", path);
}

// ---------------------------------------------------------------- actions to proto

void subfield_to_proto(const Subfield& subfield, v1::Subfield& out) {
  out.set_field(std::string(subfield.field->name));
  out.set_offset(subfield.ofs);
  out.set_n_bits(subfield.n_bits);
}

void set_field_to_proto(const SetField& in, v1::SetFieldAction& out) {
  FieldValue value, mask;
  std::copy(in.value.begin(), in.value.end(), value.bytes.begin());
  std::copy(in.mask.begin(), in.mask.end(), mask.bytes.begin());
  out.set_field(std::string(in.field->name));
  field_value_to_proto(*in.field, value, *out.mutable_value());
  if (mask != exact_field_mask(*in.field)) field_value_to_proto(*in.field, mask, *out.mutable_mask());
  out.set_load_syntax(in.load_syntax);
}

void action_to_proto(const RuleAction& action, v1::Action& out) {
  std::visit(
      Overload{
          [&](const OutputToPort& a) {
            out.mutable_output()->set_port(a.port);
            out.mutable_output()->set_max_len(a.max_len);
          },
          [&](const OutputToField& a) {
            subfield_to_proto(a.source, *out.mutable_output_field()->mutable_source());
            out.mutable_output_field()->set_max_len(a.max_len);
          },
          [&](const SendToController& a) {
            v1::ControllerAction& to = *out.mutable_controller();
            to.set_max_len(a.max_len);
            to.set_controller_id(a.controller_id);
            to.set_reason(static_cast<v1::PacketInReason>(static_cast<int>(a.reason) + 1));
            to.set_userdata(a.userdata.data(), a.userdata.size());
          },
          [&](const SetField& a) { set_field_to_proto(a, *out.mutable_set_field()); },
          [&](const MoveField& a) {
            subfield_to_proto(a.source, *out.mutable_move()->mutable_source());
            subfield_to_proto(a.destination, *out.mutable_move()->mutable_destination());
          },
          [&](const ModField& a) {
            out.mutable_mod_field()->set_field(std::string(a.field->name));
            out.mutable_mod_field()->set_value(a.value);
          },
          [&](const ModVlanVid& a) {
            out.mutable_mod_vlan_vid()->set_vid(a.vid);
            out.mutable_mod_vlan_vid()->set_only_if_tagged(!a.push_if_needed);
          },
          [&](const ModVlanPcp& a) {
            out.mutable_mod_vlan_pcp()->set_pcp(a.pcp);
            out.mutable_mod_vlan_pcp()->set_only_if_tagged(!a.push_if_needed);
          },
          [&](const StripVlan& a) { out.mutable_strip_vlan()->set_pop_syntax(a.pop_syntax); },
          [&](const PushVlan& a) { out.mutable_push_vlan()->set_ethertype(a.tpid.host()); },
          [&](const DecTtl& a) {
            out.mutable_dec_ttl();
            for (uint16_t id : a.controller_ids) out.mutable_dec_ttl()->add_controller_ids(id);
          },
          [&](const SetTunnelId& a) {
            out.mutable_set_tunnel()->set_id(a.id);
            out.mutable_set_tunnel()->set_is_64_bit(a.is_64);
          },
          [&](const Resubmit& a) {
            v1::ResubmitAction& to = *out.mutable_resubmit();
            if (a.in_port != kOfPortInPort) to.set_in_port(a.in_port);
            if (a.table != kTableAll) to.set_table(a.table);
          },
          [&](const StackPush& a) { subfield_to_proto(a.source, *out.mutable_push()->mutable_subfield()); },
          [&](const StackPop& a) { subfield_to_proto(a.destination, *out.mutable_pop()->mutable_subfield()); },
          [&](const CloneActions& a) { actions_to_proto(*a.actions, *out.mutable_clone()->mutable_actions()); },
          [&](const Exit&) { out.mutable_exit(); },
          [&](const Note& a) { out.mutable_note()->set_data(a.data.data(), a.data.size()); },
          [&](const ClearActions&) { out.mutable_clear_actions(); },
          [&](const WriteActions& a) { actions_to_proto(*a.actions, *out.mutable_write_actions()->mutable_actions()); },
          [&](const WriteMetadata& a) {
            out.mutable_write_metadata()->set_value(a.value);
            if (a.mask != ~uint64_t{0}) out.mutable_write_metadata()->set_mask(a.mask);
          },
          [&](const GotoTable& a) { out.set_goto_table(a.table); },
          [&](const DebugRecirculate&) { out.mutable_debug_recirc(); },
      },
      static_cast<const RuleAction::variant&>(action));
}

// ---------------------------------------------------------------- rules

uint16_t flags_from_proto(const v1::Rule& rule) {
  return static_cast<uint16_t>(
      (rule.send_flow_removed() ? kRuleSendFlowRemoved : 0) | (rule.check_overlap() ? kRuleCheckOverlap : 0) |
      (rule.reset_counts() ? kRuleResetCounts : 0) | (rule.no_packet_counts() ? kRuleNoPacketCounts : 0) |
      (rule.no_byte_counts() ? kRuleNoByteCounts : 0));
}

Status rule_from_proto(const v1::Rule& rule, const FlowNames* names, RuleSpec& out) {
  VSWITCH_RETURN_IF_ERROR(check_range(rule.table(), out.table, "table", kTableCount - 1));
  if (rule.has_priority()) VSWITCH_RETURN_IF_ERROR(check_range(rule.priority(), out.priority, "priority"));
  Result<Match> match = match_from_proto(rule.match(), names, "rule.match");
  if (!match.ok()) return match.status();
  out.match = *match;
  Result<RuleActionList> actions = actions_from_proto(rule.actions(), "rule.actions");
  if (!actions.ok()) return actions.status();
  out.actions = std::make_shared<const RuleActionList>(*std::move(actions));
  out.cookie = rule.cookie();
  VSWITCH_RETURN_IF_ERROR(check_range(rule.idle_timeout(), out.idle_timeout, "idle_timeout"));
  VSWITCH_RETURN_IF_ERROR(check_range(rule.hard_timeout(), out.hard_timeout, "hard_timeout"));
  VSWITCH_RETURN_IF_ERROR(check_range(rule.importance(), out.importance, "importance"));
  out.flags = flags_from_proto(rule);
  return {};
}

Result<RuleCommand> command_from_proto(v1::RuleCommand command) {
  switch (command) {
    case v1::RULE_COMMAND_UNSPECIFIED:
    case v1::RULE_COMMAND_ADD:
      return RuleCommand::add;
    case v1::RULE_COMMAND_MODIFY:
      return RuleCommand::modify;
    case v1::RULE_COMMAND_MODIFY_STRICT:
      return RuleCommand::modify_strict;
    case v1::RULE_COMMAND_DELETE:
      return RuleCommand::remove;
    case v1::RULE_COMMAND_DELETE_STRICT:
      return RuleCommand::remove_strict;
    default:
      return invalid_argument("unknown command: ADD, MODIFY, MODIFY_STRICT, DELETE or DELETE_STRICT", "command");
  }
}

// prepare() may refer to a rule's own match, never to `packet_in_port`; deletions need no actions, but never null.
Result<RuleMod> typed_rule_mod(const v1::RuleMod& mod, RuleCommand command, const FlowNames* names) {
  RuleMod out;
  out.command = command;
  VSWITCH_RETURN_IF_ERROR(rule_from_proto(mod.rule(), names, out.spec));
  bool removes = command == RuleCommand::remove || command == RuleCommand::remove_strict;
  VSWITCH_RETURN_IF_ERROR(check_rule(out.spec, !removes));
  if (mod.all_tables()) {
    if (command == RuleCommand::add) return invalid_argument("a rule is added to one table, not to all", "all_tables");
    out.spec.table = kTableAll;
  }
  out.cookie = mod.cookie() & mod.cookie_mask();
  out.cookie_mask = mod.cookie_mask();
  out.modify_cookie = mod.modify_cookie();
  if (mod.has_out_port()) VSWITCH_RETURN_IF_ERROR(check_range(mod.out_port(), out.out_port, "out_port"));
  return out;
}

}  // namespace

// ---------------------------------------------------------------- fields

Result<const Field*> field_from_proto(const std::string& name, const std::string& path) {
  if (const Field* field = find_field(name)) {
    if (field->has_place()) return field;
    return unimplemented(
        fmt::format("field {} needs a table of Geneve options, which this version does not have", name), path);
  }
  std::vector<std::string_view> known;
  for (const Field& field : all_fields()) {
    known.push_back(field.name);
    if (!field.alias.empty()) known.push_back(field.alias);
  }
  std::string_view nearest = nearest_spelling(name, known);
  return invalid_argument(
      fmt::format("unknown field \"{}\"{}", name,
                  nearest.empty() ? " (ovs-fields(7) lists them)" : fmt::format("; did you mean \"{}\"?", nearest)),
      path);
}

Result<ParsedFieldValue> field_value_from_proto(const Field& field, const v1::FieldValue& value,
                                                const v1::FieldValue* mask, const std::string& path) {
  v1::FieldValue bare = value;
  std::string prefix;
  if (value.has_text()) {
    AddressText parts = split_mask(field, value);
    bare.set_text(parts.address);
    prefix = parts.mask;
  }
  Result<FieldValue> parsed = one_value(field, bare, path + ".value");
  if (!parsed.ok()) return parsed.status();
  Result<FieldValue> parsed_mask = mask_of(field, prefix, mask, path + ".mask");
  if (!parsed_mask.ok()) return parsed_mask.status();
  if (!is_within(*parsed_mask, field)) return too_wide(field, path + ".mask");
  if (!is_field_value_valid(field, *parsed)) return too_wide(field, path + ".value");
  if (*parsed_mask != exact_field_mask(field) && field.maskable == FieldMaskable::no) {
    return invalid_argument(fmt::format("{} can only be matched as a whole", field.name), path + ".mask");
  }
  return ParsedFieldValue{*parsed, *parsed_mask};
}

// ---------------------------------------------------------------- matches

Result<Match> match_from_proto(const v1::Match& match, const FlowNames* names, const std::string& path) {
  Match out;
  if (!match.text().empty()) {
    Result<RuleFilter> parsed = parse_rule_filter(match.text(), names);
    if (!parsed.ok()) return Status(parsed.status().code(), parsed.status().message(), path + ".text");
    out = parsed->match;
  }
  for (int i = 0; i < match.fields_size(); ++i) {
    const v1::FieldMatch& part = match.fields(i);
    std::string at = fmt::format("{}.fields[{}]", path, i);
    Result<const Field*> field = field_from_proto(part.field(), at + ".field");
    if (!field.ok()) return field.status();
    const v1::FieldValue* mask = part.has_mask() ? &part.mask() : nullptr;
    Result<ParsedFieldValue> parsed = field_value_from_proto(**field, part.value(), mask, at);
    if (!parsed.ok()) return parsed.status();
    if (is_zero(parsed->mask)) continue;
    write_field_masked(**field, parsed->value, parsed->mask, out.value);
    // A whole field is marked as the registry marks it, as the parser does, so that both ways give the same rule.
    if (parsed->mask == exact_field_mask(**field)) {
      mark_field(**field, out.mask);
    } else {
      write_field_masked(**field, parsed->mask, parsed->mask, out.mask);
    }
  }
  out.value = masked(out.value, out.mask);
  return out;
}

namespace {

// Fields that show bits which another field shows better are left out: registers also appear as xreg and xxreg, and so
// on. Taking fields in the registry's order and skipping those whose bits are spoken for gives each bit once.
void take_field(const Field& field, const Match& match, PipelineMask& remaining, v1::Match& out) {
  PipelineMask bits;
  mark_field(field, bits);
  PipelineMask mine = masked(bits, remaining);
  if (is_empty_mask(mine)) return;
  FieldValue mask = read_field(field, mine);
  if (is_zero(mask)) return;
  for (size_t i = 0; i < kPipelineKeyWords; ++i) words(remaining)[i] &= ~words(bits)[i];
  v1::FieldMatch& part = *out.add_fields();
  part.set_field(std::string(field.name));
  field_value_to_proto(field, read_field(field, match.value), *part.mutable_value());
  if (mask != exact_field_mask(field)) field_value_to_proto(field, mask, *part.mutable_mask());
}

// Which of several fields that share a place a packet of this match has: tcp_dst, udp_dst or icmp_type.
bool fits(const Field& field, const Match& match) {
  return field.prerequisite == FieldPrerequisite::none || prerequisite_holds(field, match.value);
}

}  // namespace

void match_to_proto(const Match& match, v1::Match& out) {
  PipelineMask remaining = match.mask;
  for (const Field& field : all_fields()) {
    if (field.has_place() && fits(field, match)) take_field(field, match, remaining, out);
  }
}

Result<PipelineKey> flow_from_proto(const v1::Match& flow, const FlowNames* names) {
  PipelineKey out;
  out.packet.in_port = kOfPortNone;
  if (!flow.text().empty()) {
    Result<ParsedFlowKey> parsed = parse_flow_key(flow.text(), names);
    if (!parsed.ok()) return Status(parsed.status().code(), parsed.status().message(), "flow.text");
    out = parsed->key;
  }
  for (int i = 0; i < flow.fields_size(); ++i) {
    std::string at = fmt::format("flow.fields[{}]", i);
    Result<const Field*> field = field_from_proto(flow.fields(i).field(), at + ".field");
    if (!field.ok()) return field.status();
    if (flow.fields(i).has_mask()) return invalid_argument("a packet's field has a value and no mask", at + ".mask");
    Result<ParsedFieldValue> parsed = field_value_from_proto(**field, flow.fields(i).value(), nullptr, at);
    if (!parsed.ok()) return parsed.status();
    write_field(**field, parsed->value, out);
  }
  return out;
}

// ---------------------------------------------------------------- actions, rules

Result<RuleActionList> actions_from_proto(const google::protobuf::RepeatedPtrField<v1::Action>& actions,
                                          const std::string& path) {
  RuleActionList out;
  for (int i = 0; i < actions.size(); ++i) {
    Result<RuleAction> action = action_from_proto(actions.Get(i), fmt::format("{}[{}]", path, i));
    if (!action.ok()) return action.status();
    out.push_back(*std::move(action));
  }
  return out;
}

void actions_to_proto(const RuleActionList& actions, google::protobuf::RepeatedPtrField<v1::Action>& out) {
  for (const RuleAction& action : actions) action_to_proto(action, *out.Add());
}

Result<RuleMod> rule_mod_from_proto(const v1::RuleMod& mod, const FlowNames* names, RuleLineParser& parser) {
  Result<RuleCommand> command = command_from_proto(mod.command());
  if (!command.ok()) return command.status();
  switch (mod.source_case()) {
    case v1::RuleMod::kText:
      if (mod.command() == v1::RULE_COMMAND_UNSPECIFIED) return parser.parse(mod.text(), names);
      return parser.parse_mod(mod.text(), *command, names);
    case v1::RuleMod::kRule:
      return typed_rule_mod(mod, *command, names);
    case v1::RuleMod::SOURCE_NOT_SET:
      break;
  }
  return invalid_argument("a change needs a rule or a text", "rule");
}

Result<RuleFilter> rule_filter_from_proto(const v1::RuleFilter& filter, const FlowNames* names) {
  if (!filter.text().empty()) return parse_rule_filter(filter.text(), names);
  RuleFilter out;
  if (filter.has_table()) VSWITCH_RETURN_IF_ERROR(check_range(filter.table(), out.table, "table", kTableAll));
  Result<Match> match = match_from_proto(filter.match(), names, "filter.match");
  if (!match.ok()) return match.status();
  out.match = *match;
  out.cookie = filter.cookie() & filter.cookie_mask();
  out.cookie_mask = filter.cookie_mask();
  if (filter.has_out_port()) VSWITCH_RETURN_IF_ERROR(check_range(filter.out_port(), out.out_port, "out_port"));
  out.strict = filter.strict();
  out.priority = kDefaultPriority;
  if (filter.has_priority()) VSWITCH_RETURN_IF_ERROR(check_range(filter.priority(), out.priority, "priority"));
  return out;
}

RuleMod deletion_of(const RuleFilter& filter) {
  RuleMod out;
  out.command = filter.strict ? RuleCommand::remove_strict : RuleCommand::remove;
  out.spec.table = filter.table;
  out.spec.priority = filter.priority;
  out.spec.match = filter.match;
  out.spec.actions = std::make_shared<const RuleActionList>();
  out.cookie = filter.cookie;
  out.cookie_mask = filter.cookie_mask;
  out.out_port = filter.out_port;
  return out;
}

namespace {

uint64_t milliseconds(Nanoseconds time) {
  return static_cast<uint64_t>(
      std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(time).count()));
}

uint32_t seconds(Nanoseconds time) { return static_cast<uint32_t>(milliseconds(time) / 1000); }

void rule_spec_to_proto(const RuleSpec& spec, v1::Rule& out) {
  const Match match = spec.match.expand();
  match_to_proto(match, *out.mutable_match());
  out.mutable_match()->set_text(format_match(match));
  actions_to_proto(*spec.actions, *out.mutable_actions());
  out.set_cookie(spec.cookie);
  out.set_idle_timeout(spec.idle_timeout);
  out.set_hard_timeout(spec.hard_timeout);
  out.set_importance(spec.importance);
  out.set_send_flow_removed((spec.flags & kRuleSendFlowRemoved) != 0);
  out.set_check_overlap((spec.flags & kRuleCheckOverlap) != 0);
  out.set_reset_counts((spec.flags & kRuleResetCounts) != 0);
  out.set_no_packet_counts((spec.flags & kRuleNoPacketCounts) != 0);
  out.set_no_byte_counts((spec.flags & kRuleNoByteCounts) != 0);
}

std::string rule_text(const RuleInfo& rule, const RuleViewOptions& options) {
  if (!options.statistics) return format_rule(rule.spec, nullptr, options.names);
  RuleCounters counters;
  counters.duration = rule.duration;
  counters.packets = rule.stats.packets;
  counters.bytes = rule.stats.bytes;
  counters.idle_age = seconds(rule.idle);
  counters.hard_age = seconds(rule.hard_age);
  if (seconds(rule.hard_age) == seconds(rule.duration)) counters.hard_age.reset();
  return format_rule(rule.spec, &counters, options.names);
}

}  // namespace

void rule_to_proto(const RuleInfo& rule, const RuleViewOptions& options, v1::Rule& out) {
  out.set_id(rule.id);
  out.set_table(rule.spec.table);
  out.set_priority(rule.spec.priority);
  if (options.typed) rule_spec_to_proto(rule.spec, out);
  if (options.text) out.set_text(rule_text(rule, options));
  v1::RuleStatistics& stats = *out.mutable_statistics();
  stats.set_packets(rule.stats.packets);
  stats.set_bytes(rule.stats.bytes);
  stats.set_duration_ms(milliseconds(rule.duration));
  stats.set_idle_ms(milliseconds(rule.idle));
  stats.set_hard_age_ms(milliseconds(rule.hard_age));
}

}  // namespace vswitch
