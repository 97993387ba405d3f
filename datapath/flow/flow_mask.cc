#include "datapath/flow/flow_mask.h"

#include <type_traits>

namespace vswitch {
namespace {

static_assert(kFlowKeyLayout == 1, "FlowKey changed: which packets can have the new members?");

template <typename T>
void set_all(T& member) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memset(static_cast<void*>(&member), 0xff, sizeof member);
}

// What a packet of any kind can have. The tunnel is here too: only its words say that there is none.
void mask_metadata(FlowMask& mask) {
  set_all(mask.in_port);
  set_all(mask.recirc_id);
  set_all(mask.skb_mark);
  set_all(mask.dp_hash);
  set_all(mask.skb_priority);
  set_all(mask.ct_state);
  set_all(mask.ct_mark);
  set_all(mask.ct_zone);
  set_all(mask.ct_label);
  set_all(mask.packet_type);
  set_all(mask.tunnel);
  set_all(mask.tun_metadata_present);
}

void mask_ethernet(FlowMask& mask) {
  set_all(mask.eth_dst);
  set_all(mask.eth_src);
  set_all(mask.eth_type);
  set_all(mask.vlan);
}

void mask_ct_tuple(const FlowKey& key, FlowMask& mask) {
  set_all(mask.ct_nw_proto);
  set_all(mask.ct_tp_src);
  set_all(mask.ct_tp_dst);
  if (key.eth_type == kEthTypeIpv4) {
    set_all(mask.ct_nw_src);
    set_all(mask.ct_nw_dst);
  } else {
    set_all(mask.ct_ipv6_src);
    set_all(mask.ct_ipv6_dst);
  }
}

void mask_l4(const FlowKey& key, FlowMask& mask) {
  set_all(mask.tp_src);
  set_all(mask.tp_dst);
  if (key.nw_proto == kProtoTcp) mask.tcp_flags = to_be16(0x0fff);
  if (key.nw_proto == kProtoIgmp) set_all(mask.igmp_group);
  if (key.nw_proto == kProtoIcmpv6) {
    set_all(mask.arp_sha);
    set_all(mask.arp_tha);
    set_all(mask.nd_target);
    set_all(mask.nd_reserved);
    set_all(mask.nd_options_type);
  }
}

void mask_ip(const FlowKey& key, FlowMask& mask) {
  if (key.eth_type == kEthTypeIpv4) {
    set_all(mask.nw_src);
    set_all(mask.nw_dst);
  } else {
    set_all(mask.ipv6_src);
    set_all(mask.ipv6_dst);
    mask.ipv6_label = to_be32(0x000fffff);
  }
  set_all(mask.nw_proto);
  set_all(mask.nw_tos);
  set_all(mask.nw_ttl);
  mask.nw_frag = kFragAny | kFragLater;
  mask_l4(key, mask);
  mask_ct_tuple(key, mask);
}

void mask_arp(FlowMask& mask) {
  set_all(mask.nw_src);
  set_all(mask.nw_dst);
  set_all(mask.nw_proto);
  set_all(mask.arp_sha);
  set_all(mask.arp_tha);
}

}  // namespace

FlowMask exact_mask_for(const FlowKey& key) {
  FlowMask mask;
  mask_metadata(mask);
  mask_ethernet(mask);
  if (key.tun_metadata_present != 0) set_all(mask.tun_metadata);
  if (key.is_ip()) {
    mask_ip(key, mask);
  } else if (key.eth_type == kEthTypeArp || key.eth_type == kEthTypeRarp) {
    mask_arp(mask);
  } else if (key.eth_type == kEthTypeMpls || key.eth_type == kEthTypeMplsMcast) {
    set_all(mask.mpls);
  } else if (key.eth_type == kEthTypeNsh) {
    set_all(mask.nsh);
  }
  std::memset(mask.tunnel.reserved, 0, sizeof mask.tunnel.reserved);
  return mask;
}

}  // namespace vswitch
