#include "datapath/vport/vxlan_senders.h"

#include <algorithm>

namespace vswitch {
namespace {

constexpr uint32_t kBindAttempts = 64;

size_t way_index(const UdpSenderOptions& way) {
  return (way.family == IpAddress::Family::v6 ? 2u : 0u) | (way.dont_fragment ? 1u : 0u);
}

}  // namespace

VxlanSenders::VxlanSenders(uint16_t port_min, uint16_t port_max)
    : port_min_(port_min),
      port_count_(port_max - port_min + 1u),
      slot_count_(std::min<size_t>(kPortsPerWay, port_count_)) {
  for (Slots& slots : ways_) {
    for (auto& slot : slots) slot.store({}, std::memory_order_relaxed);
  }
}

VxlanSenders::~VxlanSenders() {
  for (Slots& slots : ways_) {
    for (auto& slot : slots) {
      const Pair pair = slot.load(std::memory_order_relaxed);
      UniqueFd{pair.without_checksum};
      UniqueFd{pair.with_checksum};
    }
  }
}

int VxlanSenders::fd(const UdpSenderOptions& way, uint32_t flow_hash) {
  Slots& slots = ways_[way_index(way)];
  const size_t index = place(flow_hash);
  const Pair open = slots[index].load(std::memory_order_acquire);
  if (__builtin_expect(open.is_open(), 1)) return open.fd(way.checksum);
  if (const Pair opened = open_slot(way, slots[index], index); opened.is_open()) return opened.fd(way.checksum);
  // Better the port of other flows than no way out.
  for (size_t i = 0; i < slot_count_; ++i) {
    if (const Pair other = slots[i].load(std::memory_order_acquire); other.is_open()) return other.fd(way.checksum);
  }
  return -1;
}

VxlanSenders::Pair VxlanSenders::open_slot(const UdpSenderOptions& way, std::atomic<Pair>& slot, size_t index) const {
  const Pair opened = bind_in_stripe(way, index);
  if (!opened.is_open()) return {};
  Pair expected;
  if (slot.compare_exchange_strong(expected, opened, std::memory_order_acq_rel)) return opened;
  // Of two threads that open the same slot at once, the second takes the first one's sockets.
  UniqueFd{opened.without_checksum};
  UniqueFd{opened.with_checksum};
  return expected;
}

// Each slot has its own part of the range, so that slots do not get in each other's way. The ways share the range: what
// one has taken, the next steps over.
VxlanSenders::Pair VxlanSenders::bind_in_stripe(const UdpSenderOptions& way, size_t index) const {
  const auto begin = static_cast<uint32_t>(index * port_count_ / slot_count_);
  const auto end = static_cast<uint32_t>((index + 1) * port_count_ / slot_count_);
  UdpSenderOptions without = way, with = way;
  without.checksum = false;
  with.checksum = true;
  for (uint32_t offset = begin; offset < std::min(end, begin + kBindAttempts); ++offset) {
    const auto port = static_cast<uint16_t>(port_min_ + offset);
    Result<UniqueFd> first = open_udp_sender(without, port);
    if (!first.ok() && first.status().code() != StatusCode::failed_precondition) break;
    if (!first.ok()) continue;
    Result<UniqueFd> second = open_udp_sender_beside(with, port, *first);
    if (second.ok()) return {first->release(), second->release()};
  }
  return {};
}

}  // namespace vswitch
