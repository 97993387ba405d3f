#include "datapath/packet/gro.h"

#include <cstring>
#include <optional>

#include "datapath/packet/checksum.h"

namespace vswitch {
namespace {

constexpr uint8_t kTcp = 6;
constexpr size_t kTcpMinHeader = 20;
constexpr size_t kIpv6Header = 40;
constexpr size_t kMaxDatagram = 65535;

// Offsets in the TCP header.
constexpr size_t kSequence = 4;
constexpr size_t kFlags = 13;
constexpr size_t kChecksum = 16;

enum TcpFlag : uint8_t { kFin = 0x01, kSyn = 0x02, kRst = 0x04, kPsh = 0x08, kAck = 0x10, kUrg = 0x20, kCwr = 0x80 };
constexpr uint8_t kEndFlags = kFin | kPsh;
constexpr uint8_t kAloneFlags = kSyn | kRst | kUrg | kCwr;

size_t ip_header_size(const uint8_t* frame, const IpLayout& ip) {
  return ip.is_v6 ? kIpv6Header : size_t{frame[ip.l3]} % 16 * 4;
}

// Whether the IP header comes right behind the Ethernet type: a frame with a length there instead would need a new one.
bool has_ethernet_type(std::span<const uint8_t> frame, size_t l3) {
  size_t type_offset = 12;
  while (type_offset + 2 < l3) {
    const uint16_t type = load_unaligned<be16>(frame.data() + type_offset).host();
    if (type != 0x8100 && type != 0x88a8) return false;
    type_offset += 4;
  }
  return type_offset + 2 == l3;
}

// An IPv4 or IPv6 TCP segment with payload and nothing behind it, whose IP header is directly in front of TCP's.
bool can_be_segment(std::span<const uint8_t> frame, const IpLayout& ip) {
  if (!ip.has_l4 || ip.fragment || ip.proto != kTcp || ip.l3_end != frame.size()) return false;
  if (!has_ethernet_type(frame, ip.l3)) return false;
  if (ip.l4 != ip.l3 + ip_header_size(frame.data(), ip) || ip.l4_size() < kTcpMinHeader) return false;
  const uint8_t* tcp = frame.data() + ip.l4;
  const size_t tcp_header = static_cast<size_t>(tcp[12] >> 4) * 4;
  return tcp_header >= kTcpMinHeader && tcp_header < ip.l4_size() && (tcp[kFlags] & kAck) != 0 &&
         (tcp[kFlags] & kAloneFlags) == 0;
}

bool equal(const uint8_t* a, const uint8_t* b, size_t begin, size_t end) {
  return std::memcmp(a + begin, b + begin, end - begin) == 0;
}

// The one of the two representations of zero that nobody computes would not come back.
bool is_computed(const uint8_t* checksum_field) { return load_unaligned<be16>(checksum_field).raw() != 0xffff; }

// Offload state that a single segment with its TCP header at `l4` may have.
bool has_segment_state(const OffloadState& offload, size_t l4) {
  if (offload.gso != GsoType::none) return false;
  return offload.checksum != ChecksumState::partial || (offload.csum_start == l4 && offload.csum_offset == kChecksum);
}

}  // namespace

bool SegmentRun::begin(std::span<const uint8_t> first, const OffloadState& offload) {
  segments_ = 0;
  if (offload.gso != GsoType::none) return false;
  const std::optional<IpLayout> ip = find_ip(first);
  if (!ip || !has_segment_state(offload, ip->l4) || !can_be_segment(first, *ip)) return false;
  first_ = first.data();
  first_offload_ = offload;
  ip_ = *ip;
  const uint8_t* tcp = first_ + ip_.l4;
  header_size_ = ip_.l4 + static_cast<size_t>(tcp[12] >> 4) * 4;
  if (header_size_ > kMaxHeaders) return false;
  size_ = first.size();
  payload_size_ = size_ - header_size_;
  segments_ = 1;
  next_sequence_ = load_unaligned<be32>(tcp + kSequence).host() + static_cast<uint32_t>(payload_size_);
  next_id_ = static_cast<uint16_t>(load_unaligned<be16>(first_ + ip_.l3 + 4).host() + 1);
  last_flags_ = tcp[kFlags];
  return true;
}

uint32_t SegmentRun::pseudo_sum(const uint8_t* frame, size_t l4_size) const {
  const uint8_t* ip = frame + ip_.l3;
  const auto length = static_cast<uint32_t>(l4_size);
  if (!ip_.is_v6) return pseudo_header_sum(load_unaligned<be32>(ip + 12), load_unaligned<be32>(ip + 16), kTcp, length);
  return pseudo_header_sum(load_unaligned<Ipv6Address>(ip + 8), load_unaligned<Ipv6Address>(ip + 24), kTcp, length);
}

bool SegmentRun::right_checksums(std::span<const uint8_t> frame, const OffloadState& offload) const {
  const uint8_t* ip = frame.data() + ip_.l3;
  if (!ip_.is_v6 && (!is_computed(ip + 10) || bool(checksum({ip, ip_.l4 - ip_.l3})))) return false;
  const std::span<const uint8_t> tcp = frame.subspan(ip_.l4);
  const uint32_t pseudo = pseudo_sum(frame.data(), tcp.size());
  if (offload.checksum == ChecksumState::partial) {
    // A partial checksum is the sum itself, not its complement.
    return load_unaligned<be16>(tcp.data() + kChecksum) == ~checksum_finish(pseudo);
  }
  return is_computed(tcp.data() + kChecksum) && !checksum_finish(checksum_partial(tcp, pseudo));
}

// All that has to be the same. REQUIRES: the frame is longer than header_size_.
bool SegmentRun::same_headers(const uint8_t* frame) const {
  const uint8_t* first = first_;
  const size_t l3 = ip_.l3, l4 = ip_.l4;
  const bool same_ip = ip_.is_v6 ? equal(first, frame, 0, l3 + 4) && equal(first, frame, l3 + 6, l4)
                                 : equal(first, frame, 0, l3 + 2) && equal(first, frame, l3 + 6, l3 + 10) &&
                                       equal(first, frame, l3 + 12, l4);
  if (!same_ip || !equal(first, frame, l4, l4 + kSequence)) return false;
  if (((first[l4 + kFlags] ^ frame[l4 + kFlags]) & ~kEndFlags) != 0) return false;
  return equal(first, frame, l4 + 8, l4 + kFlags) && equal(first, frame, l4 + kFlags + 1, l4 + kChecksum) &&
         equal(first, frame, l4 + kChecksum + 2, header_size_);
}

bool SegmentRun::append(std::span<const uint8_t> frame, const OffloadState& offload) {
  if (segments_ == 0 || (last_flags_ & kEndFlags) != 0 || frame.size() <= header_size_) return false;
  const size_t payload = frame.size() - header_size_;
  if (payload > payload_size_ || size_ != header_size_ + segments_ * payload_size_) return false;
  if (size_ - ip_.l3 + payload > kMaxDatagram || !has_segment_state(offload, ip_.l4)) return false;
  if (!same_headers(frame.data())) return false;
  const uint8_t* ip = frame.data() + ip_.l3;
  const size_t length = load_unaligned<be16>(ip + (ip_.is_v6 ? 4 : 2)).host() + (ip_.is_v6 ? kIpv6Header : 0);
  if (length != frame.size() - ip_.l3) return false;
  if (!ip_.is_v6 && load_unaligned<be16>(ip + 4).host() != next_id_) return false;
  if (load_unaligned<be32>(frame.data() + ip_.l4 + kSequence).host() != next_sequence_) return false;
  if (!right_checksums(frame, offload)) return false;
  if (segments_ == 1 && !right_checksums({first_, size_}, first_offload_)) return false;
  ++segments_;
  size_ += payload;
  next_sequence_ += static_cast<uint32_t>(payload);
  ++next_id_;
  last_flags_ = frame[ip_.l4 + kFlags];
  return true;
}

void SegmentRun::write_headers(uint8_t* headers) const {
  uint8_t* ip = headers + ip_.l3;
  const size_t length = size_ - ip_.l3;
  if (ip_.is_v6) {
    store_unaligned(ip + 4, to_be16(static_cast<uint16_t>(length - kIpv6Header)));
  } else {
    store_unaligned(ip + 2, to_be16(static_cast<uint16_t>(length)));
    store_unaligned(ip + 10, be16{});
    store_unaligned(ip + 10, checksum({ip, ip_.l4 - ip_.l3}));
  }
  uint8_t* tcp = headers + ip_.l4;
  tcp[kFlags] |= last_flags_ & kEndFlags;
  store_unaligned(tcp + kChecksum, ~checksum_finish(pseudo_sum(headers, size_ - ip_.l4)));
}

OffloadState SegmentRun::offload() const {
  return {.checksum = ChecksumState::partial,
          .gso = ip_.is_v6 ? GsoType::tcp6 : GsoType::tcp4,
          .gso_size = static_cast<uint16_t>(payload_size_),
          .csum_start = static_cast<uint16_t>(ip_.l4),
          .csum_offset = kChecksum};
}

// ---------------------------------------------------------------- Coalescer

void Coalescer::begin(Packet& packet) {
  packet_ = &packet;
  run_.begin(packet.bytes(), packet.offload);
}

bool Coalescer::append(std::span<const uint8_t> frame) {
  if (run_.segments() == 0 || frame.size() <= run_.header_size()) return false;
  const size_t payload = frame.size() - run_.header_size();
  if (payload > packet_->tailroom() || !run_.append(frame)) return false;
  const size_t size = packet_->size();
  packet_->set_size(size + payload);
  std::memcpy(packet_->data() + size, frame.data() + run_.header_size(), payload);
  return true;
}

void Coalescer::finish() {
  if (run_.segments() > 1) {
    run_.write_headers(packet_->data());
    packet_->offload = run_.offload();
    packet_->layers.l3_end = LayerOffsets::kNoLayer;
  }
  run_.end();
}

}  // namespace vswitch
