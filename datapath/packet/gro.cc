#include "datapath/packet/gro.h"

#include <cstring>
#include <optional>
#include <utility>

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

// Replaces packet `index` of the batch, with which the coalescer has just begun, by a copy in `pool`, with room behind
// it.
bool move_to(PacketPool& pool, PacketBatch& batch, size_t index, Coalescer& coalescer) {
  PacketPtr copy = clone_packet(batch[index], pool);
  if (!copy) return false;
  batch.release(index);
  coalescer.begin(*copy);
  batch.raw()[index] = copy.release();
  return true;
}

bool same_metadata(const Packet& a, const Packet& b) {
  if (a.in_port != b.in_port || a.recirc_id != b.recirc_id || a.dp_hash != b.dp_hash || a.skb_mark != b.skb_mark ||
      a.skb_priority != b.skb_priority || a.recirc_depth != b.recirc_depth || a.cutlen != b.cutlen) {
    return false;
  }
  return a.has_tunnel == b.has_tunnel && (!a.has_tunnel || a.tunnel == b.tunnel);
}

}  // namespace

void Coalescer::begin(Packet& packet) {
  packet_ = nullptr;
  const std::span<const uint8_t> frame = packet.bytes();
  if (packet.offload.checksum == ChecksumState::partial || packet.offload.gso != GsoType::none) return;
  const std::optional<IpLayout> ip = find_ip(frame);
  if (!ip || !can_be_segment(frame, *ip)) return;
  ip_ = *ip;
  const uint8_t* tcp = frame.data() + ip_.l4;
  header_size_ = ip_.l4 + static_cast<size_t>(tcp[12] >> 4) * 4;
  payload_size_ = frame.size() - header_size_;
  segments_ = 1;
  next_sequence_ = load_unaligned<be32>(tcp + kSequence).host() + static_cast<uint32_t>(payload_size_);
  next_id_ = static_cast<uint16_t>(load_unaligned<be16>(frame.data() + ip_.l3 + 4).host() + 1);
  last_flags_ = tcp[kFlags];
  packet_ = &packet;
}

uint32_t Coalescer::pseudo_sum(const uint8_t* frame, size_t l4_size) const {
  const uint8_t* ip = frame + ip_.l3;
  const auto length = static_cast<uint32_t>(l4_size);
  if (!ip_.is_v6) return pseudo_header_sum(load_unaligned<be32>(ip + 12), load_unaligned<be32>(ip + 16), kTcp, length);
  return pseudo_header_sum(load_unaligned<Ipv6Address>(ip + 8), load_unaligned<Ipv6Address>(ip + 24), kTcp, length);
}

bool Coalescer::right_checksums(std::span<const uint8_t> frame) const {
  const uint8_t* ip = frame.data() + ip_.l3;
  if (!ip_.is_v6 && (!is_computed(ip + 10) || bool(checksum({ip, ip_.l4 - ip_.l3})))) return false;
  const std::span<const uint8_t> tcp = frame.subspan(ip_.l4);
  return is_computed(tcp.data() + kChecksum) &&
         !checksum_finish(checksum_partial(tcp, pseudo_sum(frame.data(), tcp.size())));
}

// All that has to be the same. REQUIRES: the frame is longer than header_size_.
bool Coalescer::same_headers(const uint8_t* frame) const {
  const uint8_t* first = packet_->data();
  const size_t l3 = ip_.l3, l4 = ip_.l4;
  const bool same_ip = ip_.is_v6 ? equal(first, frame, 0, l3 + 4) && equal(first, frame, l3 + 6, l4)
                                 : equal(first, frame, 0, l3 + 2) && equal(first, frame, l3 + 6, l3 + 10) &&
                                       equal(first, frame, l3 + 12, l4);
  if (!same_ip || !equal(first, frame, l4, l4 + kSequence)) return false;
  if (((first[l4 + kFlags] ^ frame[l4 + kFlags]) & ~kEndFlags) != 0) return false;
  return equal(first, frame, l4 + 8, l4 + kFlags) && equal(first, frame, l4 + kFlags + 1, l4 + kChecksum) &&
         equal(first, frame, l4 + kChecksum + 2, header_size_);
}

bool Coalescer::continues(std::span<const uint8_t> frame) const {
  if (packet_ == nullptr || (last_flags_ & kEndFlags) != 0 || frame.size() <= header_size_) return false;
  const size_t payload = frame.size() - header_size_;
  if (payload > payload_size_ || packet_->size() != header_size_ + segments_ * payload_size_) return false;
  if (!same_headers(frame.data())) return false;
  const uint8_t* ip = frame.data() + ip_.l3;
  const size_t length = load_unaligned<be16>(ip + (ip_.is_v6 ? 4 : 2)).host() + (ip_.is_v6 ? kIpv6Header : 0);
  if (length != frame.size() - ip_.l3) return false;
  if (!ip_.is_v6 && load_unaligned<be16>(ip + 4).host() != next_id_) return false;
  if (load_unaligned<be32>(frame.data() + ip_.l4 + kSequence).host() != next_sequence_) return false;
  return right_checksums(frame) && (segments_ > 1 || right_checksums(packet_->bytes()));
}

bool Coalescer::append(std::span<const uint8_t> frame) {
  if (packet_ == nullptr || frame.size() <= header_size_) return false;
  const size_t payload = frame.size() - header_size_;
  const size_t size = packet_->size();
  if (payload > packet_->tailroom() || size - ip_.l3 + payload > kMaxDatagram || !continues(frame)) return false;
  packet_->set_size(size + payload);
  std::memcpy(packet_->data() + size, frame.data() + header_size_, payload);
  ++segments_;
  next_sequence_ += static_cast<uint32_t>(payload);
  ++next_id_;
  last_flags_ = frame[ip_.l4 + kFlags];
  return true;
}

void Coalescer::finish() {
  Packet* const packet = std::exchange(packet_, nullptr);
  if (packet == nullptr || segments_ < 2) return;
  uint8_t* ip = packet->data() + ip_.l3;
  const size_t size = packet->size() - ip_.l3;
  if (ip_.is_v6) {
    store_unaligned(ip + 4, to_be16(static_cast<uint16_t>(size - kIpv6Header)));
  } else {
    store_unaligned(ip + 2, to_be16(static_cast<uint16_t>(size)));
    store_unaligned(ip + 10, be16{});
    store_unaligned(ip + 10, checksum({ip, ip_.l4 - ip_.l3}));
  }
  uint8_t* tcp = packet->data() + ip_.l4;
  tcp[kFlags] |= last_flags_ & kEndFlags;
  // A partial checksum is the sum itself, not its complement.
  store_unaligned(tcp + kChecksum, ~checksum_finish(pseudo_sum(packet->data(), packet->size() - ip_.l4)));
  packet->offload = {.checksum = ChecksumState::partial,
                     .gso = ip_.is_v6 ? GsoType::tcp6 : GsoType::tcp4,
                     .gso_size = static_cast<uint16_t>(payload_size_),
                     .csum_start = static_cast<uint16_t>(ip_.l4),
                     .csum_offset = kChecksum};
  packet->layers.l3_end = LayerOffsets::kNoLayer;
}

size_t coalesce_batch(PacketBatch& batch, PacketPool& pool) {
  Coalescer coalescer;
  size_t merged = 0;
  size_t head = 0;
  bool is_copy = false;  // the head is in `pool`, with its buffer for itself
  if (!batch.empty()) coalescer.begin(batch[0]);
  for (size_t i = 1; i < batch.size(); ++i) {
    Packet& next = batch[i];
    const bool plain = next.offload.gso == GsoType::none && next.offload.checksum != ChecksumState::partial;
    if (plain && same_metadata(batch[head], next)) {
      if (!is_copy && coalescer.continues(next.bytes())) is_copy = move_to(pool, batch, head, coalescer);
      if (is_copy && coalescer.append(next.bytes())) {
        batch.release(i);
        ++merged;
        continue;
      }
    }
    coalescer.finish();
    head = i;
    is_copy = false;
    coalescer.begin(next);
  }
  coalescer.finish();
  if (merged != 0) batch.compact();
  return merged;
}

}  // namespace vswitch
