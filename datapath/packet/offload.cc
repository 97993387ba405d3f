#include "datapath/packet/offload.h"

#include <algorithm>
#include <cstring>

#include "datapath/packet/checksum.h"
#include "datapath/packet/ip_layout.h"

namespace vswitch {

namespace {

constexpr uint8_t kIpv4InIp = 4;
constexpr uint8_t kTcp = 6;
constexpr uint8_t kUdp = 17;
constexpr uint8_t kIpv6InIp = 41;
constexpr uint8_t kGre = 47;
constexpr uint8_t kSctp = 132;
constexpr size_t kTcpSize = 20;
constexpr size_t kUdpSize = 8;
constexpr size_t kGreSize = 4;
constexpr size_t kIpv4Size = 20;
constexpr size_t kIpv4MaxSize = 60;
constexpr size_t kIpv6Size = 40;
constexpr size_t kTcpChecksum = 16;  // offsets of the checksum in its header
constexpr size_t kUdpChecksum = 6;
constexpr size_t kSctpChecksum = 8;

enum TcpFlag : uint8_t { kFin = 0x01, kPsh = 0x08, kCwr = 0x80 };

// The kernel asks for an SCTP checksum in the same way as for the others, but means a CRC32c of the datagram.
bool complete_sctp(Packet& packet) {
  const OffloadState& offload = packet.offload;
  if (offload.csum_offset != kSctpChecksum) return false;
  const auto ip = find_ip(packet.bytes());
  if (!ip || !ip->has_l4 || ip->proto != kSctp || ip->l4 != offload.csum_start) return false;
  if (ip->l4_size() < kSctpChecksum + 4) return false;
  uint8_t* field = packet.data() + ip->l4 + kSctpChecksum;
  store_unaligned(field, be32{});
  store_unaligned(field, crc32c(packet.bytes().subspan(ip->l4, ip->l4_size())));
  return true;
}

uint32_t pseudo_sum(const uint8_t* frame, const IpLayout& ip, size_t length) {
  const uint8_t* header = frame + ip.l3;
  const auto size = static_cast<uint32_t>(length);
  if (!ip.is_v6) {
    return pseudo_header_sum(load_unaligned<be32>(header + 12), load_unaligned<be32>(header + 16), ip.proto, size);
  }
  const uint8_t* dst = ip.final_destination != 0 ? frame + ip.final_destination : header + 24;
  return pseudo_header_sum(load_unaligned<Ipv6Address>(header + 8), load_unaligned<Ipv6Address>(dst), ip.proto, size);
}

// `size`: of the datagram, header included.
void fix_ip_header(uint8_t* header, bool is_v6, size_t size, size_t index) {
  if (is_v6) {
    store_unaligned(header + 4, to_be16(static_cast<uint16_t>(size - 40)));
    return;
  }
  const uint16_t id = load_unaligned<be16>(header + 4).host();
  store_unaligned(header + 2, to_be16(static_cast<uint16_t>(size)));
  store_unaligned(header + 4, to_be16(static_cast<uint16_t>(id + index)));
  store_unaligned(header + 10, be16{});
  store_unaligned(header + 10, checksum({header, size_t{header[0]} % 16 * 4}));
}

struct TcpPiece {
  uint32_t sequence_offset;
  bool first, last, ecn;
};

void fix_tcp_header(uint8_t* header, const TcpPiece& piece) {
  const uint32_t sequence = load_unaligned<be32>(header + 4).host();
  store_unaligned(header + 4, to_be32(sequence + piece.sequence_offset));
  if (!piece.last) header[13] &= static_cast<uint8_t>(~(kFin | kPsh));
  if (!piece.first && piece.ecn) header[13] &= static_cast<uint8_t>(~kCwr);
}

// `headers`: the frame's up to the end of the L4 header, an even number of bytes.
void store_l4_checksum(std::span<uint8_t> headers, std::span<const uint8_t> payload, const IpLayout& ip) {
  uint8_t* field = headers.data() + ip.l4 + (ip.proto == kTcp ? kTcpChecksum : kUdpChecksum);
  store_unaligned(field, be16{});
  const auto l4 = headers.subspan(ip.l4);
  const uint32_t pseudo = pseudo_sum(headers.data(), ip, l4.size() + payload.size());
  be16 sum = checksum_finish(checksum_partial(payload, checksum_partial(l4, pseudo)));
  if (ip.proto == kUdp && !sum) sum = to_be16(0xffff);
  store_unaligned(field, sum);
}

bool type_fits(GsoType type, const IpLayout& ip) {
  switch (type) {
    case GsoType::none:
      return false;
    case GsoType::tcp4:
      return !ip.is_v6 && ip.proto == kTcp;
    case GsoType::tcp6:
      return ip.is_v6 && ip.proto == kTcp;
    case GsoType::udp_l4:
      return ip.proto == kUdp;
  }
  return false;
}

// Bytes of the L4 header; 0 if it is not there in full.
size_t l4_header_size(const Packet& packet, const IpLayout& ip) {
  if (ip.proto == kUdp) return ip.l4_size() >= kUdpSize ? kUdpSize : 0;
  if (ip.l4_size() < kTcpSize) return 0;
  const size_t size = size_t{packet.data()[ip.l4 + 12]} / 16 * 4;
  return size >= kTcpSize && size <= ip.l4_size() ? size : 0;
}

bool is_encapsulated(const OffloadState& offload, const IpLayout& ip) {
  if (!ip.has_l4 || offload.checksum != ChecksumState::partial || offload.csum_start <= ip.l4) return false;
  return offload.gso == GsoType::udp_l4 || ip.proto != kTcp;
}

// The datagram of the super-frame's type whose L4 header is at csum_start, without extension headers in between.
std::optional<IpLayout> find_encapsulated(const Packet& packet, size_t first, size_t l3_end) {
  const GsoType type = packet.offload.gso;
  const size_t l4 = packet.offload.csum_start;
  const auto fits_at = [&](size_t header_size) -> std::optional<IpLayout> {
    if (l4 < first + header_size) return std::nullopt;
    const auto ip = parse_ip(packet.bytes(), l4 - header_size);
    if (!ip || !ip->has_l4 || ip->fragment || ip->l4 != l4 || ip->l3_end != l3_end) return std::nullopt;
    return type_fits(type, *ip) ? ip : std::nullopt;
  };
  for (size_t size = kIpv4Size; type != GsoType::tcp6 && size <= kIpv4MaxSize; size += 4) {
    if (const auto ip = fits_at(size); ip && !ip->is_v6) return ip;
  }
  const auto ip = type == GsoType::tcp4 ? std::nullopt : fits_at(kIpv6Size);
  return ip && ip->is_v6 ? ip : std::nullopt;
}

// Bytes at outer.l4 that belong to the tunnel at least; nullopt: cutting would need to know more of it than its
// lengths.
std::optional<size_t> tunnel_header_size(const uint8_t* frame, const IpLayout& outer) {
  const uint8_t* header = frame + outer.l4;
  switch (outer.proto) {
    case kUdp:
      if (outer.l4_size() < kUdpSize || load_unaligned<be16>(header + 4).host() != outer.l4_size()) return std::nullopt;
      return kUdpSize;
    case kGre: {
      constexpr uint8_t kChecksumOrSequence = 0x90, kVersion = 0x07;
      if (outer.l4_size() < kGreSize || (header[0] & kChecksumOrSequence) != 0) return std::nullopt;
      if ((header[1] & kVersion) != 0) return std::nullopt;
      return kGreSize;
    }
    case kIpv4InIp:
    case kIpv6InIp:
      return 0;
    default:
      return std::nullopt;
  }
}

// The datagram inside the tunnel that the frame's own datagram is.
std::optional<IpLayout> open_tunnel(const Packet& packet, const IpLayout& outer) {
  const auto tunnel = tunnel_header_size(packet.data(), outer);
  // The checksum of both together is made from sums of whole 16-bit words.
  if (!tunnel || (packet.offload.csum_start - outer.l4) % 2 != 0) return std::nullopt;
  return find_encapsulated(packet, outer.l4 + *tunnel, outer.l3_end);
}

bool is_atomic(const uint8_t* ipv4) {
  return !load_unaligned<be16>(ipv4 + 4) && (load_unaligned<be16>(ipv4 + 6).host() & 0x4000) != 0;
}

}  // namespace

bool is_tunnel_super_frame(const Packet& packet) {
  if (packet.offload.gso == GsoType::none) return false;
  const auto ip = find_ip(packet.bytes());
  return ip && is_encapsulated(packet.offload, *ip);
}

bool complete_checksum(Packet& packet) {
  OffloadState& offload = packet.offload;
  if (offload.checksum != ChecksumState::partial) return true;
  const size_t start = offload.csum_start;
  if (start + offload.csum_offset + 2 > packet.size()) return false;
  if (!complete_sctp(packet)) {
    be16 sum = checksum(packet.bytes().subspan(start));
    if (offload.csum_offset == kUdpChecksum && !sum) sum = to_be16(0xffff);
    store_unaligned(packet.data() + start + offload.csum_offset, sum);
  }
  offload.checksum = ChecksumState::none;
  return true;
}

Segmenter::Segmenter(const Packet& packet) : packet_(packet) {
  auto ip = find_ip(packet.bytes());
  if (!ip || !ip->has_l4 || ip->fragment) return;
  if (is_encapsulated(packet.offload, *ip)) {
    outer_ = ip;
    ip = open_tunnel(packet, *outer_);
  }
  if (!ip || !type_fits(packet.offload.gso, *ip)) return;
  const size_t l4_header = l4_header_size(packet, *ip);
  if (l4_header == 0 || packet.offload.gso_size == 0) return;
  ip_ = *ip;
  header_size_ = ip->l4 + l4_header;
  const size_t payload = ip->l3_end - header_size_;
  count_ = std::max<size_t>(1, (payload + packet.offload.gso_size - 1) / packet.offload.gso_size);
}

size_t Segmenter::segment_size(size_t index) const {
  const size_t start = header_size_ + index * packet_.offload.gso_size;
  return header_size_ + std::min<size_t>(packet_.offload.gso_size, ip_.l3_end - start);
}

std::span<const uint8_t> Segmenter::payload(size_t index) const {
  const size_t start = header_size_ + index * packet_.offload.gso_size;
  return packet_.bytes().subspan(start, segment_size(index) - header_size_);
}

PacketPtr Segmenter::build(size_t index, PacketPool& pool) const {
  const size_t size = segment_size(index);
  if (size > pool.buffer_size()) return nullptr;
  PacketPtr piece = pool.allocate(std::min(packet_.headroom(), pool.buffer_size() - size));
  if (!piece) return nullptr;
  piece->set_size(size);
  write_headers(index, piece->data());
  const std::span<const uint8_t> from = payload(index);
  std::memcpy(piece->data() + header_size_, from.data(), from.size());
  copy_metadata(packet_, *piece);
  piece->offload = {};
  if (piece->layers.l3_end != LayerOffsets::kNoLayer) piece->layers.l3_end = static_cast<uint16_t>(size);
  return piece;
}

void Segmenter::write_headers(size_t index, uint8_t* headers) const {
  std::memcpy(headers, packet_.data(), header_size_);
  const size_t size = segment_size(index);
  fix_ip_header(headers + ip_.l3, ip_.is_v6, size - ip_.l3, index);
  uint8_t* l4 = headers + ip_.l4;
  if (ip_.proto == kTcp) {
    const auto offset = static_cast<uint32_t>(index * packet_.offload.gso_size);
    fix_tcp_header(l4, {offset, index == 0, index + 1 == count_, packet_.offload.gso_ecn});
  } else {
    store_unaligned(l4 + 4, to_be16(static_cast<uint16_t>(size - ip_.l4)));
  }
  store_l4_checksum({headers, header_size_}, payload(index), ip_);
  if (outer_) write_outer_headers(index, headers);
}

// REQUIRES: the inner headers are written.
void Segmenter::write_outer_headers(size_t index, uint8_t* headers) const {
  const size_t size = segment_size(index);
  uint8_t* const ip = headers + outer_->l3;
  const bool counts_up = outer_->is_v6 || !is_atomic(ip);
  fix_ip_header(ip, outer_->is_v6, size - outer_->l3, counts_up ? index : 0);
  if (outer_->proto != kUdp) return;
  uint8_t* const udp = headers + outer_->l4;
  store_unaligned(udp + 4, to_be16(static_cast<uint16_t>(size - outer_->l4)));
  if (!load_unaligned<be16>(udp + kUdpChecksum)) return;
  store_unaligned(udp + kUdpChecksum, be16{});
  // What a right checksum covers adds up to the complement of its pseudo-header, so the payload need not be read again.
  uint8_t covered[2];
  store_unaligned(covered, checksum_finish(pseudo_sum(headers, ip_, size - ip_.l4)));
  const uint32_t inner = checksum_partial(covered, pseudo_sum(headers, *outer_, size - outer_->l4));
  be16 sum = checksum_finish(checksum_partial({udp, ip_.l4 - outer_->l4}, inner));
  if (!sum) sum = to_be16(0xffff);
  store_unaligned(udp + kUdpChecksum, sum);
}

}  // namespace vswitch
