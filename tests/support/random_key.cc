#include "tests/support/random_key.h"

#include <array>

namespace vswitch::test {
namespace {

static_assert(kFlowKeyLayout == 1, "FlowKey changed: can a packet have the new members?");

bool one_in(Random& random, unsigned n) { return random() % n == 0; }

// Half of the time one of four values near `base`, else any.
template <typename T>
T number(Random& random, T base) {
  return static_cast<T>(one_in(random, 2) ? base + random() % 4 : random());
}

template <typename T, size_t n>
T pick(Random& random, const T (&values)[n]) {
  return values[random() % n];
}

MacAddress random_mac(Random& random) {
  return MacAddress::from_u64(number<uint64_t>(random, 0x020000000001) & 0xffffffffffff);
}

// An address that can stand in an option: an all-zero one cannot be told from none.
MacAddress nonzero_mac(Random& random) {
  MacAddress address = random_mac(random);
  if (address.is_zero()) address.bytes[5] = 1;
  return address;
}

Ipv6Address random_ipv6(Random& random) {
  Ipv6Address address;
  for (uint8_t& byte : address.bytes) byte = static_cast<uint8_t>(one_in(random, 2) ? 0 : random());
  return address;
}

void random_nd(Random& random, FlowKey& key) {
  key.tp_src = to_be16(pick(random, {uint16_t{135}, uint16_t{136}}));
  key.tp_dst = {};
  key.nd_target = random_ipv6(random);
  const bool source = one_in(random, 2), target = one_in(random, 2);
  if (source) key.arp_sha = nonzero_mac(random);
  if (target) key.arp_tha = nonzero_mac(random);
  if (source) key.nd_options_type = 1;
  if (target && (!source || one_in(random, 2))) key.nd_options_type = 2;
}

void random_icmpv6(Random& random, FlowKey& key) {
  key.tp_src = to_be16(pick(random, {uint16_t{1}, uint16_t{128}, uint16_t{129}, uint16_t{135}}));
  key.tp_dst = to_be16(static_cast<uint16_t>(random() % 4 + (key.tp_src == to_be16(135) ? 1 : 0)));
  if (!one_in(random, 2)) return;
  random_nd(random, key);
  key.nd_reserved = to_be32(number<uint32_t>(random, 0));
}

void random_l4(Random& random, FlowKey& key) {
  switch (key.nw_proto) {
    case kProtoTcp:
      key.tcp_flags = to_be16(static_cast<uint16_t>(random() & 0xfff));
      [[fallthrough]];
    case kProtoUdp:
    case kProtoSctp:
      key.tp_src = to_be16(number<uint16_t>(random, 1000));
      key.tp_dst = to_be16(number<uint16_t>(random, 80));
      return;
    case kProtoIcmp:
    case kProtoIgmp:
      key.tp_src = to_be16(static_cast<uint16_t>(random() % 20));
      key.tp_dst = to_be16(static_cast<uint16_t>(random() % 4));
      if (key.nw_proto == kProtoIgmp) key.igmp_group = to_be32(number<uint32_t>(random, 0xe0000001));
      return;
    case kProtoIcmpv6:
      return random_icmpv6(random, key);
    default:
      return;
  }
}

void random_ip(Random& random, FlowKey& key) {
  key.nw_tos = number<uint8_t>(random, 0);
  key.nw_ttl = number<uint8_t>(random, 62);
  key.nw_proto = pick<uint8_t>(
      random, {kProtoTcp, kProtoTcp, kProtoUdp, kProtoSctp, kProtoIcmp, kProtoIgmp, kProtoIcmpv6, kProtoGre, 200});
  key.nw_frag = one_in(random, 4) ? pick<uint8_t>(random, {kFragAny, kFragAny | kFragLater}) : uint8_t{0};
  if (key.eth_type == kEthTypeIpv4) {
    key.nw_src = to_be32(number<uint32_t>(random, 0x0a000001));
    key.nw_dst = to_be32(number<uint32_t>(random, 0x0a000001));
  } else {
    key.ipv6_src = random_ipv6(random);
    key.ipv6_dst = random_ipv6(random);
    key.ipv6_label = to_be32(number<uint32_t>(random, 0) & 0xfffff);
    if ((key.nw_frag & kFragLater) != 0) key.nw_proto = kProtoFragment;
  }
  if ((key.nw_frag & kFragLater) == 0) random_l4(random, key);
}

void random_arp(Random& random, FlowKey& key) {
  key.nw_proto = static_cast<uint8_t>(one_in(random, 2) ? 1 + random() % 2 : random());
  key.nw_src = to_be32(number<uint32_t>(random, 0x0a000001));
  key.nw_dst = to_be32(number<uint32_t>(random, 0x0a000001));
  key.arp_sha = random_mac(random);
  key.arp_tha = random_mac(random);
}

void random_mpls(Random& random, FlowKey& key) {
  const size_t labels = 1 + random() % kMaxMplsLabels;
  for (size_t i = 0; i < labels; ++i) {
    const uint32_t bottom = i + 1 == labels ? 0x100 : 0;
    key.mpls[i] = to_be32((number<uint32_t>(random, 0x00010040) & ~0x100u) | bottom);
  }
}

void random_nsh(Random& random, NshKey& nsh) {
  nsh.flags = static_cast<uint8_t>(random() & 3);
  nsh.ttl = static_cast<uint8_t>(random() & 0x3f);
  nsh.mdtype = static_cast<uint8_t>(1 + random() % 2);
  nsh.np = static_cast<uint8_t>(1 + random() % 5);
  nsh.path_hdr = to_be32(number<uint32_t>(random, 0x000123ff));
  if (nsh.mdtype != 1) return;
  for (be32& context : nsh.context) context = to_be32(number<uint32_t>(random, 0));
}

void random_tunnel(Random& random, TunnelMetadata& tunnel) {
  tunnel.id = to_be64(number<uint32_t>(random, 100) & 0xffffff);
  if (one_in(random, 2)) {
    tunnel.src = to_be32(number<uint32_t>(random, 0xac100001));
    tunnel.dst = to_be32(0xac100001 + static_cast<uint32_t>(random() % 4));
  } else {
    tunnel.src6 = random_ipv6(random);
    tunnel.dst6 = random_ipv6(random);
    tunnel.dst6.bytes[0] = 0xfd;
  }
  tunnel.flags = static_cast<uint16_t>(kTunnelKey | (random() & (kTunnelDontFragment | kTunnelChecksum)));
  tunnel.tos = number<uint8_t>(random, 0);
  tunnel.ttl = number<uint8_t>(random, 62);
  tunnel.tp_src = to_be16(static_cast<uint16_t>(random()));
  tunnel.tp_dst = to_be16(4789);
}

void random_metadata(Random& random, FlowKey& key) {
  key.in_port = 1 + static_cast<uint32_t>(random() % kRandomPorts);
  if (one_in(random, 4)) key.recirc_id = static_cast<uint32_t>(random() % 4);
  if (one_in(random, 4)) key.skb_mark = number<uint32_t>(random, 0);
  if (one_in(random, 8)) key.skb_priority = number<uint32_t>(random, 0);
  if (one_in(random, 8)) key.dp_hash = number<uint32_t>(random, 0);
  if (one_in(random, 3)) random_tunnel(random, key.tunnel);
}

void random_vlans(Random& random, FlowKey& key) {
  for (VlanTag& tag : key.vlan) {
    if (!one_in(random, 3)) return;
    tag.tpid = one_in(random, 3) ? kEthTypeQinq : kEthTypeVlan;
    tag.tci = to_be16(number<uint16_t>(random, 10)) | kVlanCfi;
  }
}

}  // namespace

FlowKey random_key(Random& random) {
  FlowKey key;
  random_metadata(random, key);
  key.eth_src = random_mac(random);
  key.eth_dst = random_mac(random);
  random_vlans(random, key);
  key.eth_type =
      pick(random, {kEthTypeIpv4, kEthTypeIpv4, kEthTypeIpv4, kEthTypeIpv6, kEthTypeIpv6, kEthTypeArp, kEthTypeRarp,
                    kEthTypeMpls, kEthTypeMplsMcast, kEthTypeNsh, kEthTypeNone, to_be16(0x88b5)});
  if (key.is_ip()) {
    random_ip(random, key);
  } else if (key.eth_type == kEthTypeArp || key.eth_type == kEthTypeRarp) {
    random_arp(random, key);
  } else if (key.eth_type == kEthTypeMpls || key.eth_type == kEthTypeMplsMcast) {
    random_mpls(random, key);
  } else if (key.eth_type == kEthTypeNsh) {
    random_nsh(random, key.nsh);
  }
  return key;
}

}  // namespace vswitch::test
