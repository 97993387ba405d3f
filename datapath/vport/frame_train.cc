#include "datapath/vport/frame_train.h"

#include <cstring>
#include <optional>

#include "datapath/base/byte_order.h"
#include "datapath/packet/checksum.h"
#include "datapath/packet/ip_layout.h"

namespace vswitch {
namespace {

constexpr uint8_t kUdp = 17;
constexpr size_t kUdpHeader = 8, kIpv4Header = 20, kIpv6Header = 40;
constexpr size_t kChecksumInUdp = 6;
constexpr size_t kIdInIpv4 = 4, kChecksumInIpv4 = 10;
constexpr size_t kMaxIpLength = 65535;  // of a super-frame, too

uint16_t read16(const uint8_t* at) { return load_unaligned<be16>(at).host(); }
void write16(uint8_t* at, size_t value) { store_unaligned(at, to_be16(static_cast<uint16_t>(value))); }

bool right_header_checksum(const uint8_t* ipv4) { return checksum({ipv4, kIpv4Header}).raw() == 0; }

}  // namespace

bool FrameTrain::begin(const Packet& packet) {
  count_ = 0;
  const OffloadState& offload = packet.offload;
  if (offload.checksum != ChecksumState::partial || offload.gso != GsoType::none ||
      offload.csum_offset != kChecksumInUdp) {
    return false;
  }
  const std::optional<IpLayout> ip = find_ip(packet.bytes());
  if (!ip || !ip->has_l4 || ip->proto != kUdp || ip->fragment || ip->l4 != offload.csum_start) return false;
  if (ip->l4 - ip->l3 != (ip->is_v6 ? kIpv6Header : kIpv4Header) || ip->l3_end != packet.size()) return false;
  header_size_ = ip->l4 + kUdpHeader;
  if (header_size_ > kMaxHeaders || header_size_ >= packet.size()) return false;
  first_ = packet.data();
  if (read16(first_ + ip->l4 + 4) != ip->l4_size()) return false;
  l3_ = ip->l3;
  is_v6_ = ip->is_v6;
  if (!is_v6_) {
    if (!right_header_checksum(first_ + l3_)) return false;
    next_id_ = static_cast<uint16_t>(read16(first_ + l3_ + kIdInIpv4) + 1);
  }
  payload_size_ = packet.size() - header_size_;
  count_ = 1;
  return true;
}

bool FrameTrain::append(const Packet& packet) {
  const OffloadState& offload = packet.offload;
  if (packet.size() != header_size_ + payload_size_ || offload.checksum != ChecksumState::partial ||
      offload.gso != GsoType::none || offload.csum_offset != kChecksumInUdp ||
      size_t{offload.csum_start} + kUdpHeader != header_size_) {
    return false;
  }
  if (header_size_ - l3_ + (count_ + 1) * payload_size_ > kMaxIpLength || !same_headers(packet.data())) return false;
  ++next_id_;
  ++count_;
  return true;
}

bool FrameTrain::same_headers(const uint8_t* frame) const {
  if (is_v6_) return std::memcmp(frame, first_, header_size_) == 0;
  const size_t id = l3_ + kIdInIpv4, checksum = l3_ + kChecksumInIpv4;
  return read16(frame + id) == next_id_ && std::memcmp(frame, first_, id) == 0 &&
         std::memcmp(frame + id + 2, first_ + id + 2, checksum - id - 2) == 0 &&
         std::memcmp(frame + checksum + 2, first_ + checksum + 2, header_size_ - checksum - 2) == 0 &&
         right_header_checksum(frame + l3_);
}

void FrameTrain::write_headers(std::span<uint8_t, kMaxHeaders> headers, VnetHeader& vnet) const {
  std::memcpy(headers.data(), first_, header_size_);
  const size_t more = (count_ - 1) * payload_size_;
  uint8_t* const ip = headers.data() + l3_;
  uint8_t* const udp = headers.data() + header_size_ - kUdpHeader;
  uint8_t* const length = is_v6_ ? ip + 4 : ip + 2;
  write16(length, read16(length) + more);
  if (!is_v6_) {
    write16(ip + kChecksumInIpv4, 0);
    store_unaligned(ip + kChecksumInIpv4, checksum({ip, kIpv4Header}));
  }
  write16(udp + 4, read16(udp + 4) + more);
  // The pseudo-header's sum has the length in it.
  const size_t sum = read16(udp + kChecksumInUdp) + more;
  write16(udp + kChecksumInUdp, (sum & 0xffff) + (sum >> 16));
  vnet = {};
  vnet.flags = VnetHeader::kNeedsChecksum;
  vnet.gso_type = VnetHeader::kGsoUdpL4;
  vnet.hdr_len = static_cast<uint16_t>(header_size_);
  vnet.gso_size = static_cast<uint16_t>(payload_size_);
  vnet.csum_start = static_cast<uint16_t>(header_size_ - kUdpHeader);
  vnet.csum_offset = kChecksumInUdp;
}

namespace {

// The train that packets[begin] and those behind it make; 1 if it leaves alone.
size_t find_train(const PacketBatch& packets, size_t begin, FrameTrain& train) {
  // Most packets are told apart by their sizes alone.
  if (begin + 1 == packets.size() || packets[begin + 1].size() != packets[begin].size()) return 1;
  if (!train.begin(packets[begin])) return 1;
  for (size_t i = begin + 1; i < packets.size() && train.append(packets[i]);) ++i;
  return train.count();
}

}  // namespace

TrainMessages::TrainMessages(PacketBatch& packets, VnetHeader* headers, size_t begin, bool with_trains) {
  for (size_t i = begin; i < packets.size();) {
    FrameTrain train;
    const size_t length = with_trains ? find_train(packets, i, train) : 1;
    if (length >= kMinTrain) {
      add_train(packets, i, train);
      i += length;
    } else {
      for (const size_t end = i + length; i < end; ++i) add_frame(packets[i], headers[i]);
    }
  }
}

void TrainMessages::add_frame(Packet& packet, VnetHeader& header) {
  const size_t first = used_;
  if (packet.headroom() >= sizeof header) {
    // The header goes in front of the frame: the kernel takes one buffer faster than two.
    uint8_t* const front = packet.data() - sizeof header;
    store_unaligned(front, header);
    add_part(front, sizeof header + packet.size());
  } else {
    add_part(&header, sizeof header);
    add_part(packet.data(), packet.size());
  }
  end_message(first, 1);
}

void TrainMessages::add_train(PacketBatch& packets, size_t begin, const FrameTrain& train) {
  const size_t first = used_;
  Front& front = fronts_[trains_++];
  train.write_headers(front.headers, front.vnet);
  add_part(&front.vnet, sizeof front.vnet);
  add_part(front.headers.data(), train.header_size());
  for (size_t i = begin; i < begin + train.count(); ++i) {
    add_part(packets[i].data() + train.header_size(), train.payload_size());
  }
  end_message(first, train.count());
}

void TrainMessages::end_message(size_t first_part, size_t frames) {
  messages_[count_++] = {&parts_[first_part], static_cast<uint8_t>(used_ - first_part), static_cast<uint8_t>(frames)};
}

}  // namespace vswitch
