#include "tests/support/random_match.h"

#include <cstring>

namespace vswitch::test {
namespace {

template <typename T>
T all_ones() {
  T value;
  std::memset(static_cast<void*>(&value), 0xff, sizeof value);
  return value;
}

}  // namespace

PipelineKey RandomMatches::key() {
  PipelineKey key;
  FlowKey& packet = key.packet;
  packet.in_port = 1 + below(4);
  packet.eth_dst = MacAddress::from_u64(0x020000000001 + below(3));
  packet.eth_src = MacAddress::from_u64(0x020000000001 + below(3));
  if (one_in(3))
    packet.vlan[0] = {kEthTypeVlan, to_be16(static_cast<uint16_t>(0x1000 | below(2) << 13 | (10 + below(2))))};
  if (packet.has_vlan() && one_in(4))
    packet.vlan[1] = {kEthTypeVlan, to_be16(static_cast<uint16_t>(0x1000 | (20 + below(2))))};
  choose_l3(packet);
  if (one_in(3)) choose_tunnel(packet);
  for (size_t r = 0; r < 3; ++r) {
    if (one_in(3)) key.pipeline.reg[r * 5] = below(4);
  }
  if (one_in(4)) key.pipeline.metadata = to_be64(below(3));
  if (one_in(4)) packet.skb_mark = below(3);
  return key;
}

void RandomMatches::choose_l3(FlowKey& key) {
  switch (below(6)) {
    case 0:
      key.eth_type = kEthTypeArp;
      key.nw_proto = static_cast<uint8_t>(1 + below(2));
      key.nw_src = to_be32(0x0a000000 + below(4));
      key.nw_dst = to_be32(0x0a000000 + below(4));
      key.arp_sha = MacAddress::from_u64(0x020000000001 + below(3));
      return;
    case 1:
    case 2:
      key.eth_type = kEthTypeIpv6;
      key.ipv6_src.bytes = {
          0x20, 0x01, 0x0d, 0xb8, static_cast<uint8_t>(below(2)), 0, 0, static_cast<uint8_t>(below(2))};
      key.ipv6_dst = key.ipv6_src;
      key.ipv6_dst.bytes[15] = static_cast<uint8_t>(below(4));
      key.ipv6_label = to_be32(below(2));
      break;
    case 3:
      key.eth_type = to_be16(0x88b5);
      return;
    default:
      key.eth_type = kEthTypeIpv4;
      key.nw_src = to_be32(0x0a000000 | below(2) << 8 | below(4));
      key.nw_dst = to_be32((one_in(4) ? 0xc0a80000 : 0x0a000000) | below(2) << 15 | below(4));
  }
  key.nw_ttl = one_in(4) ? 1 : 64;
  key.nw_tos = static_cast<uint8_t>(below(3) << 2);
  choose_l4(key);
}

void RandomMatches::choose_l4(FlowKey& key) {
  static constexpr uint16_t kPorts[] = {80, 81, 443, 1024, 8080, 53};
  if (one_in(8)) {
    key.nw_frag = kFragAny | kFragLater;
    key.nw_proto = kProtoUdp;
    return;
  }
  static constexpr uint8_t kProtos[] = {kProtoTcp, kProtoUdp, kProtoSctp, kProtoIcmp};
  key.nw_proto = kProtos[below(4)];
  if (key.nw_proto == kProtoIcmp) {
    if (key.eth_type == kEthTypeIpv6) key.nw_proto = kProtoIcmpv6;
    key.tp_src = to_be16(static_cast<uint16_t>(8 * below(2)));
    return;
  }
  key.tp_src = to_be16(kPorts[below(6)]);
  key.tp_dst = to_be16(kPorts[below(6)]);
  if (key.nw_proto == kProtoTcp) key.tcp_flags = to_be16(static_cast<uint16_t>(below(2) == 0 ? 0x02 : 0x10));
}

void RandomMatches::choose_tunnel(FlowKey& key) {
  key.tunnel.id = to_be64(below(2) == 0 ? 5 : 0x100 + below(4));
  key.tunnel.src = to_be32(0xac100000 + below(2));
  key.tunnel.dst = to_be32(0xac100101);
  key.tunnel.flags = kTunnelKey;
  key.tunnel.ttl = 64;
}

be32 RandomMatches::random_mask32() {
  switch (below(4)) {
    case 0:
      return to_be32(~uint32_t{0});
    case 1:
      return to_be32(static_cast<uint32_t>(random_()) & static_cast<uint32_t>(random_()));
    default:
      return to_be32(~uint32_t{0} << below(32));
  }
}

be16 RandomMatches::random_mask16() {
  if (one_in(2)) return to_be16(0xffff);
  if (one_in(4)) return to_be16(static_cast<uint16_t>(random_()));
  return to_be16(static_cast<uint16_t>(0xffff << below(16)));
}

Ipv6Address RandomMatches::random_mask128() {
  Ipv6Address mask;
  if (one_in(5)) {
    for (uint8_t& byte : mask.bytes) byte = static_cast<uint8_t>(random_());
    return mask;
  }
  const uint32_t length = one_in(2) ? 128 : below(129);
  for (uint32_t bit = 0; bit < length; ++bit) mask.bytes[bit / 8] |= static_cast<uint8_t>(0x80 >> bit % 8);
  return mask;
}

void RandomMatches::mask_metadata(PipelineMask& mask) {
  if (one_in(2)) mask.packet.in_port = ~uint32_t{0};
  if (one_in(6)) mask.packet.tunnel.id = to_be64(one_in(2) ? ~uint64_t{0} : 0xff);
  if (one_in(10)) mask.packet.tunnel.src = random_mask32();
  if (one_in(10)) mask.packet.skb_mark = one_in(2) ? ~uint32_t{0} : 1;
  if (one_in(8)) mask.pipeline.metadata = to_be64(one_in(2) ? ~uint64_t{0} : 1);
  for (size_t r = 0; r < 3; ++r) {
    if (one_in(8)) mask.pipeline.reg[r * 5] = one_in(2) ? ~uint32_t{0} : 1u << below(3);
  }
}

void RandomMatches::mask_l2(FlowMask& mask) {
  if (one_in(4)) mask.eth_dst = MacAddress::from_u64(one_in(3) ? 0x010000000000 : 0xffffffffffff);
  if (one_in(5)) mask.eth_src = MacAddress::from_u64(one_in(3) ? 0xfffffffffffe : 0xffffffffffff);
  if (one_in(4)) mask.vlan[0].tci = to_be16(one_in(2) ? 0x1fff : 0x1000);
  if (one_in(12)) mask.vlan[1].tci = to_be16(0x1fff);
}

void RandomMatches::mask_l3(const FlowKey& key, FlowMask& mask) {
  mask.eth_type = to_be16(0xffff);
  if (key.eth_type == kEthTypeIpv6) {
    if (one_in(3)) mask.ipv6_src = random_mask128();
    if (one_in(2)) mask.ipv6_dst = random_mask128();
    if (one_in(10)) mask.ipv6_label = to_be32(0xfffff);
  } else if (key.eth_type == kEthTypeIpv4 || key.eth_type == kEthTypeArp) {
    if (one_in(3)) mask.nw_src = random_mask32();
    if (one_in(2)) mask.nw_dst = random_mask32();
  }
  if (key.eth_type == kEthTypeArp) {
    if (one_in(3)) mask.nw_proto = 0xff;
    if (one_in(5)) mask.arp_sha = all_ones<MacAddress>();
    return;
  }
  if (!key.is_ip()) return;
  if (one_in(8)) mask.nw_ttl = 0xff;
  if (one_in(8)) mask.nw_tos = 0xfc;
  if (one_in(8)) mask.nw_frag = static_cast<uint8_t>(one_in(2) ? kFragAny | kFragLater : kFragLater);
  if (one_in(2)) mask_l4(key, mask);
}

void RandomMatches::mask_l4(const FlowKey& key, FlowMask& mask) {
  mask.nw_proto = 0xff;
  if (one_in(3)) mask.tp_src = random_mask16();
  if (one_in(2)) mask.tp_dst = random_mask16();
  if (key.nw_proto == kProtoTcp && one_in(5)) mask.tcp_flags = to_be16(one_in(2) ? 0xfff : 0x2);
}

Match RandomMatches::match() {
  Match match;
  const PipelineKey of = key();
  if (!one_in(3)) mask_metadata(match.mask);
  if (!one_in(3)) mask_l2(match.mask.packet);
  if (!one_in(3)) mask_l3(of.packet, match.mask.packet);
  match.value = masked(of, match.mask);
  return match;
}

PipelineKey RandomMatches::agreeing(const PipelineKey& of, const PipelineMask& mask) {
  PipelineKey other = one_in(3) ? of : key();
  const uint32_t flips = one_in(2) ? below(4) : below(200);
  for (uint32_t i = 0; i < flips; ++i) {
    words(other)[below(kPipelineKeyWords)] ^= uint64_t{1} << below(64);
  }
  if (one_in(3)) {  // nearby in the fields that have tries
    words(other)[one_in(2) ? 4 : 5] ^= uint64_t{1} << below(64);
  }
  for (size_t i = 0; i < kPipelineKeyWords; ++i) {
    words(other)[i] = (words(of)[i] & words(mask)[i]) | (words(other)[i] & ~words(mask)[i]);
  }
  return other;
}

}  // namespace vswitch::test
