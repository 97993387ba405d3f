#include "vswitchd/openflow/action_convert.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "datapath/actions/action.h"
#include "datapath/flow/field.h"

namespace vswitch::ovs {
namespace {

// libopenvswitch keeps the length of an action in 16 bits, and asserts that it fits.
constexpr size_t kMaxActionBytes = 60000;
constexpr size_t kMaxActionData = 60000;

// ---- Fields

// Our field for each of libopenvswitch's, null where the key has no place for it.
const Field* our_field(const mf_field* field) {
  static const auto table = [] {
    std::array<const Field*, MFF_N_IDS> t{};
    for (int id = 0; id < MFF_N_IDS; ++id) {
      const mf_field* f = mf_from_id(static_cast<mf_field_id>(id));
      if (!mf_is_tun_metadata(f)) t[static_cast<size_t>(id)] = find_field(f->name);
    }
    return t;
  }();
  return table[field->id];
}

const mf_field* ovs_field(const Field* field) {
  static const auto table = [] {
    std::array<const mf_field*, 256> t{};
    for (const Field& f : all_fields()) t[static_cast<size_t>(f.id)] = mf_from_name(std::string(f.name).c_str());
    return t;
  }();
  return table[static_cast<size_t>(field->id)];
}

mf_subfield ovs_subfield(const Subfield& s) { return {ovs_field(s.field), s.ofs, s.n_bits}; }
Subfield our_subfield(const mf_subfield& s) {
  return {our_field(s.field), static_cast<uint16_t>(s.ofs), static_cast<uint16_t>(s.n_bits)};
}

const Field& named(std::string_view name) { return *find_field(name); }

// The numbers by which libopenvswitch remembers that an action was spelled dec_ttl(IDS), set_tunnel64, pop_vlan are
// private to it: learned from what its parser makes of these spellings.
struct RawSpellings {
  uint8_t dec_ttl_ids, set_tunnel64, pop_vlan, reg_load;
};
uint8_t raw_of(const char* text) {
  Ofpacts ofpacts;
  ofputil_protocol protocols;
  ofpact_parse_params params{};
  params.ofpacts = ofpacts.get();
  params.usable_protocols = &protocols;
  const ErrorText error(ofpacts_parse_actions(text, &params));
  return error ? 0 : ofpacts.data()->raw;
}
const RawSpellings& raw_spellings() {
  static const RawSpellings raw{raw_of("dec_ttl(1,2)"), raw_of("set_tunnel64:1"), raw_of("pop_vlan"),
                                raw_of("load:1->NXM_NX_REG0[]")};
  return raw;
}

// ---- From ofpacts

Status unsupported(const std::string& what) {
  return unimplemented("action " + what + " is not supported yet", "actions");
}
Status unsupported_field(const mf_field* field) {
  return unimplemented("field " + std::string(field->name) + " is not supported yet", "actions");
}

template <typename T>
const T& as(const ofpact* a) {
  return *reinterpret_cast<const T*>(a);
}

// A 32-bit type there, but the numbers are those of OpenFlow 1.0.
OfPort our_port(ofp_port_t port) { return static_cast<OfPort>(port); }

// All bits of the field in `bytes`, big-endian.
void width_mask(const Field& field, uint8_t* bytes) {
  for (unsigned bit = 0; bit < field.width; ++bit) {
    bytes[field.n_bytes - 1 - bit / 8] |= static_cast<uint8_t>(1 << bit % 8);
  }
}

Result<RuleAction> set_field_from(const ofpact_set_field& a) {
  const Field* field = our_field(a.field);
  if (!field) return unsupported_field(a.field);
  SetField out{field, std::vector<uint8_t>(field->n_bytes), std::vector<uint8_t>(field->n_bytes),
               a.ofpact.raw == raw_spellings().reg_load};
  const uint8_t* value = reinterpret_cast<const uint8_t*>(a.value);
  const uint8_t* mask = value + OFPACT_ALIGN(a.field->n_bytes);
  width_mask(*field, out.mask.data());
  for (size_t i = 0; i < field->n_bytes; ++i) {
    out.mask[i] &= mask[i];
    out.value[i] = value[i] & out.mask[i];
  }
  return RuleAction(std::move(out));
}

Result<RuleAction> controller_from(const ofpact_controller& a) {
  if (a.pause) return unsupported("controller(pause)");
  if (a.meter_id != NX_CTLR_NO_METER) return unsupported("controller(meter_id)");
  if (a.reason > OFPR_PACKET_OUT) return unsupported("controller(reason)");
  const uint8_t* userdata = reinterpret_cast<const uint8_t*>(&a + 1);
  return RuleAction(SendToController{a.max_len, a.controller_id, static_cast<PacketInReason>(a.reason),
                                     std::vector<uint8_t>(userdata, userdata + a.userdata_len)});
}

Result<RuleAction> output_from(const ofpact_output& a) {
  if (a.port == kOfPortController) return RuleAction(SendToController{a.max_len, 0, PacketInReason::action, {}});
  return RuleAction(OutputToPort{our_port(a.port), 0});
}

Result<RuleAction> dec_ttl_from(const ofpact_cnt_ids& a) {
  DecTtl out;
  if (a.ofpact.raw == raw_spellings().dec_ttl_ids) {
    const auto* ids = reinterpret_cast<const uint16_t*>(&a + 1);
    out.controller_ids.assign(ids, ids + a.n_controllers);
  }
  return RuleAction(std::move(out));
}

Result<RuleAction> move_from(const ofpact_reg_move& a) {
  const MoveField out{our_subfield(a.src), our_subfield(a.dst)};
  if (!out.source.field) return unsupported_field(a.src.field);
  if (!out.destination.field) return unsupported_field(a.dst.field);
  return RuleAction(out);
}

template <typename Out>
Result<RuleAction> subfield_action_from(const mf_subfield& subfield, Out out) {
  if (!our_field(subfield.field)) return unsupported_field(subfield.field);
  return RuleAction(out);
}

Result<RuleAction> resubmit_from(const ofpact_resubmit& a) {
  if (a.with_ct_orig) return unsupported("resubmit(...,ct)");
  return RuleAction(Resubmit{our_port(a.in_port), a.table_id});
}

template <typename Nest>
Result<RuleAction> nest_from(const ofpact_nest& a) {
  Result<RuleActionList> inner =
      actions_from_ofpacts(reinterpret_cast<const ofpact*>(&a + 1), ofpact_nest_get_action_len(&a));
  if (!inner.ok()) return inner.status();
  return RuleAction(Nest{std::make_shared<const RuleActionList>(*std::move(inner))});
}

RuleAction note_from(const ofpact_note& a) {
  const uint8_t* data = reinterpret_cast<const uint8_t*>(&a) + offsetof(ofpact_note, data);
  return Note{std::vector<uint8_t>(data, data + a.length)};
}

RuleAction mod_field(std::string_view field, uint64_t value) { return ModField{&named(field), value}; }
uint64_t mac_number(const eth_addr& mac) {
  MacAddress address;
  std::memcpy(address.bytes.data(), &mac, sizeof mac);
  return address.to_u64();
}

Result<RuleAction> action_from(const ofpact* a) {
  switch (static_cast<ofpact_type>(a->type)) {
    case OFPACT_OUTPUT:
      return output_from(as<ofpact_output>(a));
    case OFPACT_OUTPUT_TRUNC:
      return RuleAction(OutputToPort{our_port(as<ofpact_output_trunc>(a).port), as<ofpact_output_trunc>(a).max_len});
    case OFPACT_OUTPUT_REG: {
      const auto& o = as<ofpact_output_reg>(a);
      return subfield_action_from(o.src, OutputToField{our_subfield(o.src), o.max_len});
    }
    case OFPACT_CONTROLLER:
      return controller_from(as<ofpact_controller>(a));
    case OFPACT_SET_FIELD:
      return set_field_from(as<ofpact_set_field>(a));
    case OFPACT_SET_VLAN_VID:
      return RuleAction(ModVlanVid{as<ofpact_vlan_vid>(a).vlan_vid, as<ofpact_vlan_vid>(a).push_vlan_if_needed});
    case OFPACT_SET_VLAN_PCP:
      return RuleAction(ModVlanPcp{as<ofpact_vlan_pcp>(a).vlan_pcp, as<ofpact_vlan_pcp>(a).push_vlan_if_needed});
    case OFPACT_STRIP_VLAN:
      return RuleAction(StripVlan{a->raw == raw_spellings().pop_vlan});
    case OFPACT_PUSH_VLAN:
      return RuleAction(PushVlan{be16::from_raw(as<ofpact_push_vlan>(a).ethertype)});
    case OFPACT_SET_ETH_SRC:
      return mod_field("eth_src", mac_number(as<ofpact_mac>(a).mac));
    case OFPACT_SET_ETH_DST:
      return mod_field("eth_dst", mac_number(as<ofpact_mac>(a).mac));
    case OFPACT_SET_IPV4_SRC:
      return mod_field("ip_src", be32::from_raw(as<ofpact_ipv4>(a).ipv4).host());
    case OFPACT_SET_IPV4_DST:
      return mod_field("ip_dst", be32::from_raw(as<ofpact_ipv4>(a).ipv4).host());
    case OFPACT_SET_IP_DSCP:
      return mod_field("nw_tos", as<ofpact_dscp>(a).dscp);
    case OFPACT_SET_IP_ECN:
      return mod_field("nw_ecn", as<ofpact_ecn>(a).ecn);
    case OFPACT_SET_IP_TTL:
      return mod_field("nw_ttl", as<ofpact_ip_ttl>(a).ttl);
    case OFPACT_SET_L4_SRC_PORT:
      return mod_field("tcp_src", as<ofpact_l4_port>(a).port);
    case OFPACT_SET_L4_DST_PORT:
      return mod_field("tcp_dst", as<ofpact_l4_port>(a).port);
    case OFPACT_REG_MOVE:
      return move_from(as<ofpact_reg_move>(a));
    case OFPACT_STACK_PUSH:
      return subfield_action_from(as<ofpact_stack>(a).subfield, StackPush{our_subfield(as<ofpact_stack>(a).subfield)});
    case OFPACT_STACK_POP:
      return subfield_action_from(as<ofpact_stack>(a).subfield, StackPop{our_subfield(as<ofpact_stack>(a).subfield)});
    case OFPACT_DEC_TTL:
      return dec_ttl_from(as<ofpact_cnt_ids>(a));
    case OFPACT_SET_TUNNEL: {
      const uint64_t id = as<ofpact_tunnel>(a).tun_id;
      return RuleAction(SetTunnelId{id, a->raw == raw_spellings().set_tunnel64 || id > UINT32_MAX});
    }
    case OFPACT_RESUBMIT:
      return resubmit_from(as<ofpact_resubmit>(a));
    case OFPACT_NOTE:
      return note_from(as<ofpact_note>(a));
    case OFPACT_EXIT:
      return RuleAction(Exit{});
    case OFPACT_CLONE:
      return nest_from<CloneActions>(as<ofpact_nest>(a));
    case OFPACT_CLEAR_ACTIONS:
      return RuleAction(ClearActions{});
    case OFPACT_WRITE_ACTIONS:
      return nest_from<WriteActions>(as<ofpact_nest>(a));
    case OFPACT_WRITE_METADATA:
      return RuleAction(WriteMetadata{be64::from_raw(as<ofpact_metadata>(a).metadata).host(),
                                      be64::from_raw(as<ofpact_metadata>(a).mask).host()});
    case OFPACT_GOTO_TABLE:
      return RuleAction(GotoTable{as<ofpact_goto_table>(a).table_id});
    case OFPACT_DEBUG_RECIRC:
      return RuleAction(DebugRecirculate{});
    case OFPACT_GROUP:
    case OFPACT_ENQUEUE:
    case OFPACT_BUNDLE:
    case OFPACT_SET_MPLS_LABEL:
    case OFPACT_SET_MPLS_TC:
    case OFPACT_SET_MPLS_TTL:
    case OFPACT_DEC_MPLS_TTL:
    case OFPACT_PUSH_MPLS:
    case OFPACT_POP_MPLS:
    case OFPACT_DEC_NSH_TTL:
    case OFPACT_DELETE_FIELD:
    case OFPACT_ENCAP:
    case OFPACT_DECAP:
    case OFPACT_SET_QUEUE:
    case OFPACT_POP_QUEUE:
    case OFPACT_FIN_TIMEOUT:
    case OFPACT_LEARN:
    case OFPACT_CONJUNCTION:
    case OFPACT_MULTIPATH:
    case OFPACT_SAMPLE:
    case OFPACT_UNROLL_XLATE:
    case OFPACT_CT:
    case OFPACT_CT_CLEAR:
    case OFPACT_NAT:
    case OFPACT_CHECK_PKT_LARGER:
    case OFPACT_DEBUG_SLOW:
    case OFPACT_METER:
      break;
  }
  return unsupported(ofpact_name(static_cast<ofpact_type>(a->type)));
}

// ---- To ofpacts

void put_set_field(const SetField& s, ofpbuf* out) {
  const mf_field* field = ovs_field(s.field);
  std::array<uint8_t, sizeof(mf_value)> value{}, mask{}, all{};
  std::copy_n(s.value.begin(), std::min<size_t>(s.value.size(), field->n_bytes), value.begin());
  std::copy_n(s.mask.begin(), std::min<size_t>(s.mask.size(), field->n_bytes), mask.begin());
  width_mask(*s.field, all.data());
  if (s.load_syntax) {
    ofpact_put_reg_load(out, field, value.data(), mask.data());
    return;
  }
  const bool exact = mask == all;
  // In OpenFlow the value of vlan_vid says "present" with a bit of its own.
  if (exact && field->id == MFF_VLAN_VID) value[0] |= 0x10;
  ofpact_put_set_field(out, field, value.data(), exact ? nullptr : mask.data());
}

void put_controller(const SendToController& c, ofpbuf* out) {
  if (c.reason == PacketInReason::action && c.controller_id == 0 && c.userdata.empty()) {
    ofpact_output* output = ofpact_put_OUTPUT(out);
    output->port = kOfPortController;
    output->max_len = c.max_len;
    return;
  }
  ofpact_controller* a = ofpact_put_CONTROLLER(out);
  a->max_len = c.max_len;
  a->controller_id = c.controller_id;
  a->reason = static_cast<ofp_packet_in_reason>(c.reason);
  a->meter_id = NX_CTLR_NO_METER;
  if (c.userdata.empty()) return;
  const size_t length = std::min(c.userdata.size(), kMaxActionData);
  ofpbuf_put(out, c.userdata.data(), length);
  a = static_cast<ofpact_controller*>(out->header);
  a->userdata_len = static_cast<uint16_t>(length);
  ofpact_finish_CONTROLLER(out, &a);
}

void put_output(const OutputToPort& o, ofpbuf* out) {
  if (o.max_len == 0) {
    ofpact_put_OUTPUT(out)->port = o.port;
    return;
  }
  ofpact_output_trunc* a = ofpact_put_OUTPUT_TRUNC(out);
  a->port = o.port;
  a->max_len = o.max_len;
}

void put_dec_ttl(const DecTtl& d, ofpbuf* out) {
  const std::vector<uint16_t> ids = d.controller_ids.empty() ? std::vector<uint16_t>{0} : d.controller_ids;
  ofpact_cnt_ids* a = ofpact_put_DEC_TTL(out);
  if (!d.controller_ids.empty()) a->ofpact.raw = raw_spellings().dec_ttl_ids;
  a->n_controllers = static_cast<unsigned>(ids.size());
  ofpbuf_put(out, ids.data(), ids.size() * sizeof ids[0]);
  a = static_cast<ofpact_cnt_ids*>(out->header);
  ofpact_finish_DEC_TTL(out, &a);
}

void put_mod_field(const ModField& m, ofpbuf* out) {
  const auto mac = [&](ofpact_mac* a) {
    const MacAddress address = MacAddress::from_u64(m.value);
    std::memcpy(&a->mac, address.bytes.data(), sizeof a->mac);
  };
  const auto ipv4 = [&] { return to_be32(static_cast<uint32_t>(m.value)).raw(); };
  const std::string_view name = m.field->name;
  if (name == "eth_src") return mac(ofpact_put_SET_ETH_SRC(out));
  if (name == "eth_dst") return mac(ofpact_put_SET_ETH_DST(out));
  if (name == "ip_src") ofpact_put_SET_IPV4_SRC(out)->ipv4 = ipv4();
  if (name == "ip_dst") ofpact_put_SET_IPV4_DST(out)->ipv4 = ipv4();
  if (name == "nw_tos") ofpact_put_SET_IP_DSCP(out)->dscp = static_cast<uint8_t>(m.value);
  if (name == "nw_ecn") ofpact_put_SET_IP_ECN(out)->ecn = static_cast<uint8_t>(m.value);
  if (name == "nw_ttl") ofpact_put_SET_IP_TTL(out)->ttl = static_cast<uint8_t>(m.value);
  if (name == "tcp_src") ofpact_put_SET_L4_SRC_PORT(out)->port = static_cast<uint16_t>(m.value);
  if (name == "tcp_dst") ofpact_put_SET_L4_DST_PORT(out)->port = static_cast<uint16_t>(m.value);
}

// `put` makes the head, the inner actions follow it in the same buffer.
void put_nest(ofpact_type type, const RuleActionList& inner, ofpbuf* out) {
  const uint32_t start = out->size;
  ofpact_put(out, type, sizeof(ofpact_nest));
  put_actions(inner, out);
  // Inner actions took over out->header; ofpact_finish() wants it back at the head of what it finishes.
  ofpact* head = reinterpret_cast<ofpact*>(static_cast<uint8_t*>(out->data) + start);
  out->header = head;
  ofpact_finish(out, head);
}

void put_note(const Note& n, ofpbuf* out) {
  ofpact_put_NOTE(out);
  const size_t length = std::min(n.data.size(), kMaxActionData);
  ofpbuf_put(out, n.data.data(), length);
  ofpact_note* a = static_cast<ofpact_note*>(out->header);
  a->length = length;
  ofpact_finish_NOTE(out, &a);
}

// Upper bound of what one action without its variable part takes.
constexpr size_t kActionHeadBytes = sizeof(ofpact_set_field) + 2 * sizeof(mf_value);
constexpr int kMaxNesting = 32;

size_t variable_bytes(const RuleAction& action, int nesting);

size_t list_bytes(const RuleActionList& actions, int nesting) {
  if (nesting > kMaxNesting) return kMaxActionBytes + 1;
  size_t bytes = 0;
  for (const RuleAction& action : actions) bytes += kActionHeadBytes + variable_bytes(action, nesting);
  return bytes;
}

size_t variable_bytes(const RuleAction& action, int nesting) {
  if (const auto* a = std::get_if<SendToController>(&action)) return a->userdata.size();
  if (const auto* a = std::get_if<Note>(&action)) return a->data.size();
  if (const auto* a = std::get_if<DecTtl>(&action)) return a->controller_ids.size() * 2;
  if (const auto* a = std::get_if<CloneActions>(&action)) return list_bytes(*a->actions, nesting + 1);
  if (const auto* a = std::get_if<WriteActions>(&action)) return list_bytes(*a->actions, nesting + 1);
  return 0;
}

}  // namespace

Result<RuleActionList> actions_from_ofpacts(const ofpact* ofpacts, size_t size) {
  RuleActionList out;
  const ofpact* end = ofpact_end(ofpacts, size);
  size_t count = 0;
  for (const ofpact* a = ofpacts; a < end; a = ofpact_next(a)) ++count;
  out.reserve(count);
  for (const ofpact* a = ofpacts; a < end; a = ofpact_next(a)) {
    Result<RuleAction> action = action_from(a);
    if (!action.ok()) return action.status();
    out.push_back(*std::move(action));
  }
  return out;
}

Status check_size(const RuleActionList& actions) {
  if (list_bytes(actions, 0) <= kMaxActionBytes) return {};
  return invalid_argument("actions are too long or nested too deep (at most " + std::to_string(kMaxActionBytes) +
                              " bytes, " + std::to_string(kMaxNesting) + " levels)",
                          "actions");
}

void put_action(const RuleAction& action, ofpbuf* out) {
  std::visit(Overload{
                 [&](const OutputToPort& a) { put_output(a, out); },
                 [&](const OutputToField& a) {
                   ofpact_output_reg* o = ofpact_put_OUTPUT_REG(out);
                   o->src = ovs_subfield(a.source);
                   o->max_len = a.max_len;
                 },
                 [&](const SendToController& a) { put_controller(a, out); },
                 [&](const SetField& a) { put_set_field(a, out); },
                 [&](const MoveField& a) {
                   ofpact_reg_move* m = ofpact_put_REG_MOVE(out);
                   m->src = ovs_subfield(a.source);
                   m->dst = ovs_subfield(a.destination);
                 },
                 [&](const ModField& a) { put_mod_field(a, out); },
                 [&](const ModVlanVid& a) {
                   ofpact_vlan_vid* v = ofpact_put_SET_VLAN_VID(out);
                   v->vlan_vid = a.vid;
                   v->push_vlan_if_needed = a.push_if_needed;
                 },
                 [&](const ModVlanPcp& a) {
                   ofpact_vlan_pcp* v = ofpact_put_SET_VLAN_PCP(out);
                   v->vlan_pcp = a.pcp;
                   v->push_vlan_if_needed = a.push_if_needed;
                 },
                 [&](const StripVlan& a) {
                   ofpact_null* n = ofpact_put_STRIP_VLAN(out);
                   if (a.pop_syntax) n->ofpact.raw = raw_spellings().pop_vlan;
                 },
                 [&](const PushVlan& a) { ofpact_put_PUSH_VLAN(out)->ethertype = a.tpid.raw(); },
                 [&](const DecTtl& a) { put_dec_ttl(a, out); },
                 [&](const SetTunnelId& a) {
                   ofpact_tunnel* t = ofpact_put_SET_TUNNEL(out);
                   t->tun_id = a.id;
                   if (a.is_64) t->ofpact.raw = raw_spellings().set_tunnel64;
                 },
                 [&](const Resubmit& a) {
                   ofpact_resubmit* r = ofpact_put_RESUBMIT(out);
                   r->in_port = a.in_port;
                   r->table_id = a.table;
                 },
                 [&](const StackPush& a) { ofpact_put_STACK_PUSH(out)->subfield = ovs_subfield(a.source); },
                 [&](const StackPop& a) { ofpact_put_STACK_POP(out)->subfield = ovs_subfield(a.destination); },
                 [&](const CloneActions& a) { put_nest(OFPACT_CLONE, *a.actions, out); },
                 [&](const Exit&) { ofpact_put_EXIT(out); },
                 [&](const Note& a) { put_note(a, out); },
                 [&](const ClearActions&) { ofpact_put_CLEAR_ACTIONS(out); },
                 [&](const WriteActions& a) { put_nest(OFPACT_WRITE_ACTIONS, *a.actions, out); },
                 [&](const WriteMetadata& a) {
                   ofpact_metadata* m = ofpact_put_WRITE_METADATA(out);
                   m->metadata = to_be64(a.value).raw();
                   m->mask = to_be64(a.mask).raw();
                 },
                 [&](const GotoTable& a) { ofpact_put_GOTO_TABLE(out)->table_id = a.table; },
                 [&](const DebugRecirculate&) { ofpact_put_DEBUG_RECIRC(out); },
             },
             static_cast<const RuleAction::variant&>(action));
}

void put_actions(const RuleActionList& actions, ofpbuf* out) {
  for (const RuleAction& action : actions) put_action(action, out);
}

}  // namespace vswitch::ovs
