#include "vswitchd/openflow/match_convert.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <type_traits>

#include "datapath/flow/field.h"
#include "vswitchd/openflow/flow_lint.h"

namespace vswitch::ovs {
namespace {

// One copy for both directions: to our type from libopenvswitch's, or the reverse. The types must agree in size; byte
// order does, because both keep wire fields in wire order and the others in host order.
struct ToKey {
  template <typename Theirs, typename Ours>
  void operator()(const Theirs& theirs, Ours& ours) const {
    static_assert(sizeof(Theirs) == sizeof(Ours) && std::is_trivially_copyable_v<Ours>);
    std::memcpy(static_cast<void*>(&ours), &theirs, sizeof ours);
  }
};
struct ToFlow {
  template <typename Theirs, typename Ours>
  void operator()(Theirs& theirs, const Ours& ours) const {
    static_assert(sizeof(Theirs) == sizeof(Ours) && std::is_trivially_copyable_v<Theirs>);
    std::memcpy(static_cast<void*>(&theirs), &ours, sizeof theirs);
  }
};

// Every member that both sides have in the same form. kFlowKeyLayout 1: a new member of FlowKey belongs here, or below.
static_assert(kFlowKeyLayout == 1);
template <typename Flow, typename Key, typename Copy>
void copy_tunnel(Flow& f, Key& k, Copy copy) {
  copy(f.tunnel.tun_id, k.packet.tunnel.id);
  copy(f.tunnel.ip_src, k.packet.tunnel.src);
  copy(f.tunnel.ip_dst, k.packet.tunnel.dst);
  copy(f.tunnel.ipv6_src, k.packet.tunnel.src6);
  copy(f.tunnel.ipv6_dst, k.packet.tunnel.dst6);
  copy(f.tunnel.ip_tos, k.packet.tunnel.tos);
  copy(f.tunnel.ip_ttl, k.packet.tunnel.ttl);
  copy(f.tunnel.tp_src, k.packet.tunnel.tp_src);
  copy(f.tunnel.tp_dst, k.packet.tunnel.tp_dst);
  copy(f.tunnel.gbp_id, k.packet.tunnel.gbp_id);
  copy(f.tunnel.gbp_flags, k.packet.tunnel.gbp_flags);
}

template <typename Flow, typename Key, typename Copy>
void copy_metadata(Flow& f, Key& k, Copy copy) {
  copy(f.metadata, k.pipeline.metadata);
  copy(f.regs, k.pipeline.reg);
  copy(f.conj_id, k.pipeline.conj_id);
  copy(f.skb_priority, k.packet.skb_priority);
  copy(f.pkt_mark, k.packet.skb_mark);
  copy(f.dp_hash, k.packet.dp_hash);
  copy(f.recirc_id, k.packet.recirc_id);
  copy(f.packet_type, k.packet.packet_type);
  copy(f.ct_mark, k.packet.ct_mark);
  copy(f.ct_zone, k.packet.ct_zone);
  copy(f.ct_nw_proto, k.packet.ct_nw_proto);
  copy(f.ct_nw_src, k.packet.ct_nw_src);
  copy(f.ct_nw_dst, k.packet.ct_nw_dst);
  copy(f.ct_ipv6_src, k.packet.ct_ipv6_src);
  copy(f.ct_ipv6_dst, k.packet.ct_ipv6_dst);
  copy(f.ct_tp_src, k.packet.ct_tp_src);
  copy(f.ct_tp_dst, k.packet.ct_tp_dst);
  // A 128-bit number: ours starts with the most significant half, theirs with that of the machine.
  copy(f.ct_label.u64.hi, k.packet.ct_label[0]);
  copy(f.ct_label.u64.lo, k.packet.ct_label[1]);
}

template <typename Flow, typename Key, typename Copy>
void copy_headers(Flow& f, Key& k, Copy copy) {
  copy(f.dl_dst, k.packet.eth_dst);
  copy(f.dl_src, k.packet.eth_src);
  copy(f.dl_type, k.packet.eth_type);
  for (size_t i = 0; i < kMaxVlanTags; ++i) copy(f.vlans[i], k.packet.vlan[i]);
  for (size_t i = 0; i < kMaxMplsLabels; ++i) copy(f.mpls_lse[i], k.packet.mpls[i]);
  copy(f.nw_src, k.packet.nw_src);
  copy(f.nw_dst, k.packet.nw_dst);
  copy(f.ipv6_src, k.packet.ipv6_src);
  copy(f.ipv6_dst, k.packet.ipv6_dst);
  copy(f.ipv6_label, k.packet.ipv6_label);
  copy(f.nw_frag, k.packet.nw_frag);
  copy(f.nw_tos, k.packet.nw_tos);
  copy(f.nw_ttl, k.packet.nw_ttl);
  copy(f.nw_proto, k.packet.nw_proto);
  copy(f.nd_target, k.packet.nd_target);
  copy(f.arp_sha, k.packet.arp_sha);
  copy(f.arp_tha, k.packet.arp_tha);
  copy(f.nsh, k.packet.nsh);
  copy(f.tp_src, k.packet.tp_src);
  copy(f.tp_dst, k.packet.tp_dst);
}

template <typename Flow, typename Key, typename Copy>
void copy_members(Flow& f, Key& k, Copy copy) {
  copy_tunnel(f, k, copy);
  copy_metadata(f, k, copy);
  copy_headers(f, k, copy);
}

// The same four flags, numbered differently.
struct TunnelFlagPair {
  uint16_t theirs, ours;
};
constexpr TunnelFlagPair kTunnelFlagPairs[] = {{FLOW_TNL_F_OAM, kTunnelOam},
                                               {FLOW_TNL_F_DONT_FRAGMENT, kTunnelDontFragment},
                                               {FLOW_TNL_F_CSUM, kTunnelChecksum},
                                               {FLOW_TNL_F_KEY, kTunnelKey}};

// In an ICMPv6 flow, libopenvswitch keeps the ND options type in tcp_flags, and ND's reserved field in igmp_group_ip4.
bool is_icmpv6(const ::flow& f) { return f.dl_type == kEthTypeIpv6.raw() && f.nw_proto == kProtoIcmpv6; }
bool is_icmpv6(const PipelineKey& k) { return k.packet.eth_type == kEthTypeIpv6 && k.packet.nw_proto == kProtoIcmpv6; }

void from_flow(const ::flow& f, bool icmpv6, PipelineKey& k) {
  copy_members(f, k, ToKey{});
  for (const TunnelFlagPair& flag : kTunnelFlagPairs) {
    if (f.tunnel.flags & flag.theirs) k.packet.tunnel.flags |= flag.ours;
  }
  k.packet.ct_state = f.ct_state;
  k.packet.in_port = f.in_port.ofp_port;
  k.pipeline.actset_output = f.actset_output;
  if (icmpv6) {
    k.packet.nd_options_type = static_cast<uint8_t>(be16::from_raw(f.tcp_flags).host());
    k.packet.nd_reserved = be32::from_raw(f.igmp_group_ip4);
  } else {
    k.packet.tcp_flags = be16::from_raw(f.tcp_flags);
    k.packet.igmp_group = be32::from_raw(f.igmp_group_ip4);
  }
}

void to_flow(const PipelineKey& k, bool icmpv6, ::flow& f) {
  copy_members(f, k, ToFlow{});
  for (const TunnelFlagPair& flag : kTunnelFlagPairs) {
    if (k.packet.tunnel.flags & flag.ours) f.tunnel.flags |= flag.theirs;
  }
  f.ct_state = static_cast<uint8_t>(k.packet.ct_state);
  f.in_port.ofp_port = static_cast<ofp_port_t>(k.packet.in_port);
  f.actset_output = static_cast<ofp_port_t>(k.pipeline.actset_output);
  f.tcp_flags = icmpv6 ? to_be16(k.packet.nd_options_type).raw() : k.packet.tcp_flags.raw();
  f.igmp_group_ip4 = icmpv6 ? k.packet.nd_reserved.raw() : k.packet.igmp_group.raw();
}

// Ports have 16 bits in libopenvswitch and 32 in the key. The mask of a match on one is what the registry says it is,
// so that a rule from text equals one that was made through fields.
void widen_port_masks(const ::flow& mask, PipelineMask& out) {
  static const Field& in_port = *find_field("in_port");
  static const Field& actset_output = *find_field("actset_output");
  if (mask.in_port.ofp_port) mark_field(in_port, out);
  if (mask.actset_output) mark_field(actset_output, out);
}

// Fields that are narrower than their place: an exact match has all bits of the place in libopenvswitch, those of the
// field in ours.
constexpr be32 kLabelBits = to_be32(0xfffff);
constexpr be16 kTcpFlagBits = to_be16(0x0fff);

constexpr be16 kIcmpBits = to_be16(0x00ff);  // type and code, in the place of ports

bool has_icmp(const PipelineKey& value) {
  const FlowKey& key = value.packet;
  return (key.eth_type == kEthTypeIpv4 && key.nw_proto == kProtoIcmp) ||
         (key.eth_type == kEthTypeIpv6 && key.nw_proto == kProtoIcmpv6);
}

void narrow_masks(const PipelineKey& value, PipelineMask& mask) {
  mask.packet.ipv6_label &= kLabelBits;
  mask.packet.tcp_flags &= kTcpFlagBits;
  if (!has_icmp(value)) return;
  mask.packet.tp_src &= kIcmpBits;
  mask.packet.tp_dst &= kIcmpBits;
}

void widen_masks(const PipelineKey& value, ::flow& mask) {
  if (has_icmp(value)) {
    if (mask.tp_src == kIcmpBits.raw()) mask.tp_src = 0xffff;
    if (mask.tp_dst == kIcmpBits.raw()) mask.tp_dst = 0xffff;
  }
  if (mask.ipv6_label == kLabelBits.raw()) mask.ipv6_label = ~0u;
  if (mask.tcp_flags == kTcpFlagBits.raw()) mask.tcp_flags = 0xffff;
}

// Fields that only libopenvswitch has.
bool has_foreign_fields(const ::flow& mask) {
  const flow_tnl& t = mask.tunnel;
  return t.erspan_ver || t.erspan_idx || t.erspan_dir || t.erspan_hwid || t.gtpu_flags || t.gtpu_msgtype ||
         t.metadata.present.map != 0;
}

// Fields with a prerequisite, grouped by the place they share: a match on the place is right if it is right for one of
// them.
constexpr mf_field_id kPlaces[][5] = {
    {MFF_IPV4_SRC, MFF_ARP_SPA},
    {MFF_IPV4_DST, MFF_ARP_TPA},
    {MFF_IPV6_SRC},
    {MFF_IPV6_DST},
    {MFF_IPV6_LABEL},
    {MFF_IP_PROTO, MFF_ARP_OP},
    {MFF_IP_DSCP_SHIFTED},
    {MFF_IP_ECN},
    {MFF_IP_TTL},
    {MFF_IP_FRAG},
    {MFF_TCP_SRC, MFF_UDP_SRC, MFF_SCTP_SRC, MFF_ICMPV4_TYPE, MFF_ICMPV6_TYPE},
    {MFF_TCP_DST, MFF_UDP_DST, MFF_SCTP_DST, MFF_ICMPV4_CODE, MFF_ICMPV6_CODE},
    {MFF_TCP_FLAGS, MFF_ND_OPTIONS_TYPE},
    {MFF_ARP_SHA, MFF_ND_SLL},
    {MFF_ARP_THA, MFF_ND_TLL},
    {MFF_ND_TARGET},
    {MFF_ND_RESERVED},
    {MFF_MPLS_LABEL},
    {MFF_MPLS_TC},
    {MFF_MPLS_BOS},
    {MFF_MPLS_TTL},
    {MFF_CT_NW_PROTO},
    {MFF_CT_NW_SRC},
    {MFF_CT_NW_DST},
    {MFF_CT_IPV6_SRC},
    {MFF_CT_IPV6_DST},
    {MFF_CT_TP_SRC},
    {MFF_CT_TP_DST},
    {MFF_NSH_FLAGS},
    {MFF_NSH_MDTYPE},
    {MFF_NSH_NP},
    {MFF_NSH_SPI},
    {MFF_NSH_SI},
    {MFF_NSH_C1},
    {MFF_NSH_C2},
    {MFF_NSH_C3},
    {MFF_NSH_C4},
    {MFF_NSH_TTL},
};
// libopenvswitch numbers fields from 0; what a row of kPlaces leaves out is 0 as well.
static_assert(MFF_DP_HASH == 0);

const mf_field& meta_field(int id) { return *mf_from_id(static_cast<mf_field_id>(id)); }

// Which match each of the fields that share a place calls for.
std::string missing_prerequisite(const mf_field_id (&place)[5]) {
  const mf_field& first = meta_field(place[0]);
  std::string needed;
  for (mf_field_id id : place) {
    if (id == mf_field_id{}) continue;
    const std::string text = prerequisite_text(meta_field(id));
    if (needed.find(text) == std::string::npos) needed += (needed.empty() ? "" : ", ") + text;
  }
  return "match on " + std::string(first.extra_name ? first.extra_name : first.name) + ": only packets of " + needed +
         " have it, so that must be matched, too";
}

bool is_matched(const mf_field& field, const ::match& match) { return !mf_is_all_wild(&field, &match.wc); }

}  // namespace

PipelineKey key_from_flow(const ::flow& flow) {
  PipelineKey key{};
  from_flow(flow, is_icmpv6(flow), key);
  return key;
}

::flow flow_from_key(const PipelineKey& key) {
  ::flow flow{};
  to_flow(key, is_icmpv6(key), flow);
  return flow;
}

PipelineMask mask_from_flow(const ::flow& mask, const ::flow& context) {
  PipelineMask out{};
  from_flow(mask, is_icmpv6(context), out);
  widen_port_masks(mask, out);
  return out;
}

Result<Match> match_from_ovs(const ::match& match) {
  if (has_foreign_fields(match.wc.masks)) {
    for (int id = 0; id < MFF_N_IDS; ++id) {
      const mf_field& f = meta_field(id);
      const Field* ours = find_field(f.name);
      if (is_matched(f, match) && (!ours || mf_is_tun_metadata(&f))) {
        return unimplemented("field " + std::string(f.name) + " is not supported yet", "match");
      }
    }
  }
  Match out{key_from_flow(match.flow), mask_from_flow(match.wc.masks, match.flow)};
  // "An Ethernet packet" comes with every protocol word, and is true of every packet here: not worth a word of each
  // match, and rules that were given in different ways would differ by it.
  if (match_has_default_packet_type(&match)) out.mask.packet.packet_type = be32{};
  narrow_masks(out.value, out.mask);
  out.value = masked(out.value, out.mask);
  return out;
}

void match_to_ovs(const PipelineKey& value, const PipelineMask& mask, ::match* out) {
  match_init_catchall(out);
  const bool icmpv6 = is_icmpv6(value);
  to_flow(value, icmpv6, out->flow);
  to_flow(mask, icmpv6, out->wc.masks);
}

void rule_match_to_ovs(const Match& match, ::match* out) {
  match_to_ovs(match.value, match.mask, out);
  widen_masks(match.value, out->wc.masks);
}

Status check_prerequisites(const ::match& match) {
  for (const auto& place : kPlaces) {
    const mf_field& first = meta_field(place[0]);
    if (!is_matched(first, match)) continue;
    const bool met = std::any_of(std::begin(place), std::end(place), [&](mf_field_id id) {
      return id != mf_field_id{} && mf_are_match_prereqs_ok(&meta_field(id), &match);
    });
    if (met) continue;
    return invalid_argument(missing_prerequisite(place), "match");
  }
  return {};
}

}  // namespace vswitch::ovs
