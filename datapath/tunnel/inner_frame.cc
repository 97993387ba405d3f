#include "datapath/tunnel/inner_frame.h"

#include <algorithm>
#include <optional>

#include "datapath/base/byte_order.h"
#include "datapath/flow/flow_key.h"
#include "datapath/packet/checksum.h"
#include "datapath/packet/ip_layout.h"

namespace vswitch {
namespace {

constexpr size_t kMaxInnerTags = 8;
constexpr size_t kVlanTagSize = 4;
constexpr size_t kIpv4MinHeader = 20;
constexpr size_t kIpv6Header = 40;
constexpr size_t kTcpMinHeader = 20;
constexpr size_t kTcpChecksum = 16;
constexpr size_t kUdpHeader = 8;
constexpr size_t kUdpChecksum = 6;
constexpr uint8_t kTcpCwr = 0x80;

InnerIp parse_ipv4(std::span<const uint8_t> frame, size_t offset) {
  if (frame.size() < offset + kIpv4MinHeader) return {};
  const uint8_t* ip = frame.data() + offset;
  const size_t header_size = (ip[0] & 0x0fu) * 4;
  const size_t total = load_unaligned<be16>(ip + 2).host();
  if (ip[0] >> 4 != 4 || header_size < kIpv4MinHeader || frame.size() < offset + header_size || total < header_size) {
    return {};
  }
  return {.version = 4, .tos = ip[1], .ttl = ip[8], .offset = offset, .end = offset + total};
}

InnerIp parse_ipv6(std::span<const uint8_t> frame, size_t offset) {
  if (frame.size() < offset + kIpv6Header) return {};
  const uint8_t* ip = frame.data() + offset;
  if (ip[0] >> 4 != 6) return {};
  const size_t payload = load_unaligned<be16>(ip + 4).host();
  return {.version = 6,
          .tos = static_cast<uint8_t>(ip[0] << 4 | ip[1] >> 4),
          .ttl = ip[7],
          .offset = offset,
          .end = offset + kIpv6Header + payload};
}

// The TCP or UDP header of an unfragmented packet that is there in full.
struct InnerL4 {
  IpLayout ip;
  size_t header_size = 0;
  size_t checksum_offset = 0;  // from ip.l4
  uint32_t pseudo_sum = 0;
  bool is_tcp() const { return ip.proto == kProtoTcp; }
};

uint32_t pseudo_sum(std::span<const uint8_t> frame, const IpLayout& ip) {
  const uint8_t* header = frame.data() + ip.l3;
  const auto length = static_cast<uint32_t>(ip.l4_size());
  if (!ip.is_v6) {
    const auto src = load_unaligned<be32>(header + 12), dst = load_unaligned<be32>(header + 16);
    return pseudo_header_sum(src, dst, ip.proto, length);
  }
  const uint8_t* dst = ip.final_destination != 0 ? frame.data() + ip.final_destination : header + 24;
  return pseudo_header_sum(load_unaligned<Ipv6Address>(header + 8), load_unaligned<Ipv6Address>(dst), ip.proto, length);
}

std::optional<InnerL4> find_inner_l4(std::span<const uint8_t> frame) {
  const std::optional<IpLayout> ip = find_ip(frame);
  if (!ip || !ip->has_l4 || ip->fragment || (ip->proto != kProtoTcp && ip->proto != kProtoUdp)) return std::nullopt;
  InnerL4 l4{.ip = *ip};
  const size_t min_size = l4.is_tcp() ? kTcpMinHeader : kUdpHeader;
  if (ip->l4_size() < min_size) return std::nullopt;
  l4.header_size = l4.is_tcp() ? static_cast<size_t>(frame[ip->l4 + 12] >> 4) * 4 : kUdpHeader;
  if (l4.header_size < min_size || l4.header_size > ip->l4_size()) return std::nullopt;
  l4.checksum_offset = l4.is_tcp() ? kTcpChecksum : kUdpChecksum;
  l4.pseudo_sum = pseudo_sum(frame, *ip);
  return l4;
}

bool holds_partial_checksum(std::span<const uint8_t> frame, const InnerL4& l4) {
  const be16 stored = load_unaligned<be16>(frame.data() + l4.ip.l4 + l4.checksum_offset);
  if (stored != ~checksum_finish(l4.pseudo_sum)) return false;
  // One right checksum in 65,536 looks the same; only then, and for real partial ones, is the payload summed up.
  const auto covered = frame.subspan(l4.ip.l4, l4.ip.l4_size());
  return bool(checksum_finish(checksum_partial(covered, l4.pseudo_sum)));
}

// Payload bytes per segment; 0: the packet is no super-frame.
uint16_t segment_size(const InnerL4& l4, uint16_t udp_gso_size) {
  if (!l4.is_tcp()) return udp_gso_size < l4.ip.l4_size() - l4.header_size ? udp_gso_size : 0;
  if (l4.ip.l3_end - l4.ip.l3 <= kLargestPlainIpPacket) return 0;
  const size_t headers = l4.ip.l4 + l4.header_size - l4.ip.l3;
  return static_cast<uint16_t>(kAssumedInnerMtu - std::min(headers, kAssumedInnerMtu / 2));
}

}  // namespace

InnerIp find_inner_ip(std::span<const uint8_t> frame) {
  size_t type_offset = kEthernetHeaderSize - 2;
  for (size_t tags = 0; tags <= kMaxInnerTags && frame.size() >= type_offset + 2; ++tags, type_offset += kVlanTagSize) {
    const be16 type = load_unaligned<be16>(frame.data() + type_offset);
    if (type == kEthTypeIpv4) return parse_ipv4(frame, type_offset + 2);
    if (type == kEthTypeIpv6) return parse_ipv6(frame, type_offset + 2);
    if (type != kEthTypeVlan && type != kEthTypeQinq) break;
  }
  return {};
}

void set_inner_tos(std::span<uint8_t> frame, const InnerIp& ip, uint8_t tos) {
  uint8_t* header = frame.data() + ip.offset;
  const be16 before = load_unaligned<be16>(header);
  if (ip.version == 4) {
    header[1] = tos;
    const be16 sum = load_unaligned<be16>(header + 10);
    store_unaligned(header + 10, checksum_update(sum, before, load_unaligned<be16>(header)));
  } else {
    header[0] = static_cast<uint8_t>((header[0] & 0xf0) | tos >> 4);
    header[1] = static_cast<uint8_t>((header[1] & 0x0f) | tos << 4);
  }
}

void detect_inner_offload(Packet& packet, uint16_t udp_gso_size) {
  OffloadState& offload = packet.offload;
  offload = {};
  const std::optional<InnerL4> l4 = find_inner_l4(packet.bytes());
  if (!l4 || !holds_partial_checksum(packet.bytes(), *l4)) return;
  offload.checksum = ChecksumState::partial;
  offload.csum_start = static_cast<uint16_t>(l4->ip.l4);
  offload.csum_offset = static_cast<uint16_t>(l4->checksum_offset);
  offload.gso_size = segment_size(*l4, udp_gso_size);
  if (offload.gso_size == 0) return;
  offload.gso = !l4->is_tcp() ? GsoType::udp_l4 : l4->ip.is_v6 ? GsoType::tcp6 : GsoType::tcp4;
  offload.gso_ecn = l4->is_tcp() && (packet.data()[l4->ip.l4 + 13] & kTcpCwr) != 0;
}

}  // namespace vswitch
