#include "datapath/vport/vxlan_senders.h"

#include <algorithm>

namespace vswitch {
namespace {

constexpr uint32_t kBindAttempts = 64;

size_t way_index(const UdpSenderOptions& way) {
  return (way.family == IpAddress::Family::v6 ? 4u : 0u) | (way.dont_fragment ? 2u : 0u) | (way.checksum ? 1u : 0u);
}

}  // namespace

VxlanSenders::VxlanSenders(uint16_t port_min, uint16_t port_max)
    : port_min_(port_min),
      port_count_(port_max - port_min + 1u),
      slot_count_(std::min<size_t>(kPortsPerWay, port_count_)) {
  for (Slots& slots : ways_) {
    for (auto& slot : slots) slot.store(-1, std::memory_order_relaxed);
  }
}

VxlanSenders::~VxlanSenders() {
  for (Slots& slots : ways_) {
    for (auto& slot : slots) UniqueFd{slot.load(std::memory_order_relaxed)};
  }
}

int VxlanSenders::fd(const UdpSenderOptions& way, uint32_t flow_hash) {
  Slots& slots = ways_[way_index(way)];
  // The multiplication spreads hashes over all slots whatever bits they differ in, and maps to any slot count.
  const size_t index = (uint64_t{flow_hash * 0x9e3779b1u} * slot_count_) >> 32;
  const int open = slots[index].load(std::memory_order_acquire);
  if (__builtin_expect(open >= 0, 1)) return open;
  if (const int opened = open_slot(way, slots, index); opened >= 0) return opened;
  // Better the port of other flows than no way out.
  for (size_t i = 0; i < slot_count_; ++i) {
    if (const int other = slots[i].load(std::memory_order_acquire); other >= 0) return other;
  }
  return -1;
}

int VxlanSenders::open_slot(const UdpSenderOptions& way, Slots& slots, size_t index) const {
  UniqueFd opened = bind_in_stripe(way, index);
  if (!opened) return -1;
  int expected = -1;
  // Of two threads that open the same slot at once, the second takes the first one's socket.
  if (!slots[index].compare_exchange_strong(expected, opened.get(), std::memory_order_acq_rel)) return expected;
  return opened.release();
}

// Each slot has its own part of the range, so that slots do not get in each other's way. The ways share the range: what
// one has taken, the next steps over.
UniqueFd VxlanSenders::bind_in_stripe(const UdpSenderOptions& way, size_t index) const {
  const auto begin = static_cast<uint32_t>(index * port_count_ / slot_count_);
  const auto end = static_cast<uint32_t>((index + 1) * port_count_ / slot_count_);
  for (uint32_t offset = begin; offset < std::min(end, begin + kBindAttempts); ++offset) {
    Result<UniqueFd> fd = open_udp_sender(way, static_cast<uint16_t>(port_min_ + offset));
    if (fd.ok()) return std::move(fd).value();
    if (fd.status().code() != StatusCode::failed_precondition) break;
  }
  return {};
}

}  // namespace vswitch
