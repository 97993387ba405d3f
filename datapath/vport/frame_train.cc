#include "datapath/vport/frame_train.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "datapath/base/byte_order.h"
#include "datapath/packet/checksum.h"
#include "datapath/packet/ip_layout.h"
#include "datapath/packet/packet_pool.h"

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

// ---------------------------------------------------------------- flows

namespace {

constexpr uint8_t kTcp = 6;
constexpr uint16_t kIpv4EthType = 0x0800, kIpv6EthType = 0x86dd;

struct FlowMark {
  uint64_t flow = 0;     // equal for packets of one flow; 0: not of any that is known
  bool unknown = false;  // it may be of a flow whose other packets have a mark
};

// What is not IP, and knows it.
bool is_other(const Packet& packet) {
  const std::optional<EthernetPayload> payload = find_ethernet_payload(packet.bytes());
  return payload && payload->eth_type != kIpv4EthType && payload->eth_type != kIpv6EthType;
}

FlowMark mark_of(const Packet& packet) {
  const std::optional<IpLayout> ip = find_ip(packet.bytes());
  if (!ip) return {0, !is_other(packet)};
  if (ip->fragment) return {0, true};
  if (ip->has_l4 && ip->proto != kTcp && ip->proto != kUdp) return {};
  if (!ip->has_l4 || ip->l4_size() < kUdpHeader) return {0, true};
  const uint8_t* const addresses = packet.data() + ip->l3 + (ip->is_v6 ? 8 : 12);
  uint64_t flow = load_unaligned<uint32_t>(packet.data() + ip->l4) | uint64_t{ip->proto} << 32;
  // Flows that happen to have the same mark are neighbours of each other, no more.
  for (size_t at = 0; at < (ip->is_v6 ? 32u : 8u); at += 8) {
    flow = (flow ^ load_unaligned<uint64_t>(addresses + at)) * 0x9e3779b97f4a7c15ULL;
    flow ^= flow >> 32;
  }
  return {flow | 1, false};
}

}  // namespace

void group_flows(PacketBatch& batch) {
  const size_t size = batch.size();
  std::array<uint64_t, PacketBatch::kMaxPackets> flows;
  std::array<size_t, PacketBatch::kMaxPackets> heads;  // the first packet of the flow since one unknown
  size_t after_unknown = 0;
  bool in_order = true;
  for (size_t i = 0; i < size; ++i) {
    const FlowMark mark = mark_of(batch[i]);
    flows[i] = mark.flow;
    heads[i] = i;
    if (mark.unknown) after_unknown = i + 1;
    for (size_t j = i; mark.flow != 0 && j > after_unknown; --j) {
      if (flows[j - 1] != mark.flow) continue;
      heads[i] = heads[j - 1];
      break;
    }
    in_order = in_order && (i == 0 || heads[i] >= heads[i - 1]);
  }
  if (in_order) return;
  std::array<Packet*, PacketBatch::kMaxPackets> grouped;
  size_t count = 0;
  for (size_t head = 0; head < size; ++head) {
    for (size_t i = head; heads[head] == head && i < size; ++i) {
      if (heads[i] == head) grouped[count++] = batch.raw()[i];
    }
  }
  std::copy_n(grouped.begin(), size, batch.raw());
}

bool comes_as_on_the_wire(const PacketBatch& batch) {
  for (size_t i = 0; batch.size() > 2 && i < batch.size(); ++i) {
    if (batch[i].memory() != PacketMemory::heap) return true;
  }
  return false;
}

// ---------------------------------------------------------------- messages

TrainMessages::TrainMessages(PacketBatch& packets, VnetHeader* headers, size_t begin, TrainKinds kinds) {
  for (size_t i = begin; i < packets.size();) {
    size_t taken = 0;
    // Most packets are told apart by their sizes alone: in a train only the last may be shorter.
    if (i + 1 < packets.size() && packets[i + 1].size() <= packets[i].size()) {
      if (kinds.datagrams) taken = add_datagrams(packets, i);
      if (taken == 0 && kinds.segments) taken = add_segments(packets, i);
    }
    if (taken == 0) {
      add_frame(packets[i], headers[i]);
      taken = 1;
    }
    i += taken;
  }
}

// Adds the train that packets[begin] and those behind it make, and returns how many they are; 0: too few.
size_t TrainMessages::add_datagrams(PacketBatch& packets, size_t begin) {
  FrameTrain train;
  if (packets.size() - begin < kMinDatagrams || !train.begin(packets[begin])) return 0;
  for (size_t i = begin + 1; i < packets.size() && train.append(packets[i]);) ++i;
  if (train.count() < kMinDatagrams) return 0;
  Front& front = fronts_[trains_];
  train.write_headers(std::span(front.headers).first<FrameTrain::kMaxHeaders>(), front.vnet);
  add_train(packets, begin, train.count(), train.header_size(), false);
  return train.count();
}

size_t TrainMessages::add_segments(PacketBatch& packets, size_t begin) {
  SegmentRun run;
  if (!run.begin(packets[begin].bytes(), packets[begin].offload)) return 0;
  for (size_t i = begin + 1; i < packets.size() && run.append(packets[i].bytes(), packets[i].offload);) ++i;
  if (run.segments() < kMinSegments) return 0;
  Front& front = fronts_[trains_];
  std::memcpy(front.headers.data(), packets[begin].data(), run.header_size());
  run.write_headers(front.headers.data());
  const OffloadState offload = run.offload();
  front.vnet = {.flags = VnetHeader::kNeedsChecksum,
                .gso_type = offload.gso == GsoType::tcp6 ? VnetHeader::kGsoTcp6 : VnetHeader::kGsoTcp4,
                .hdr_len = static_cast<uint16_t>(run.header_size()),
                .gso_size = offload.gso_size,
                .csum_start = offload.csum_start,
                .csum_offset = offload.csum_offset};
  add_train(packets, begin, run.segments(), run.header_size(), true);
  return run.segments();
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
  end_message(first, 1, false);
}

// The headers are in the next front.
void TrainMessages::add_train(PacketBatch& packets, size_t begin, size_t count, size_t header_size, bool segments) {
  const size_t first = used_;
  Front& front = fronts_[trains_++];
  add_part(&front.vnet, sizeof front.vnet);
  add_part(front.headers.data(), header_size);
  for (size_t i = begin; i < begin + count; ++i) {
    add_part(packets[i].data() + header_size, packets[i].size() - header_size);
  }
  end_message(first, count, segments);
}

void TrainMessages::end_message(size_t first_part, size_t frames, bool segments) {
  messages_[count_++] = {&parts_[first_part], static_cast<uint8_t>(used_ - first_part), static_cast<uint8_t>(frames),
                         segments};
}

}  // namespace vswitch
