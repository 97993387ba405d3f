#include "datapath/core/connection_sampler.h"

#include <algorithm>

namespace vswitch {

ConnectionSampler::Tracked& ConnectionSampler::known_of(uint32_t tag, Nanoseconds now) {
  auto& set = tracked_[tag % kSets];
  const auto forgotten = [now](const Tracked& tracked) { return now - tracked.since > kForget; };
  const auto known = std::ranges::find(set, tag, &Tracked::tag);
  if (known != set.end() && !forgotten(*known)) return *known;
  const auto worth = [&](const Tracked& tracked) { return forgotten(tracked) ? 0 : tracked.worth; };
  Tracked& place = known != set.end() ? *known : *std::ranges::min_element(set, {}, worth);
  return place = {.tag = tag, .since = now, .not_before = now};
}

void ConnectionSampler::consider(const Packet& packet, uint32_t out_port, Nanoseconds now) {
  if (packet.recirc_id != 0 || packet.has_tunnel || packet.in_port == out_port) return;
  const bool super_frame = packet.offload.gso != GsoType::none;
  const std::optional<ConnectionKey> key = connection_key_of(packet);
  if (!key || (key->proto != kProtoTcp && !super_frame)) return;
  Tracked& tracked = known_of(static_cast<uint32_t>(ConnectionKeyHash()(*key)) ^ packet.in_port, now);
  tracked.worth += (static_cast<uint32_t>(packet.size()) + kPacketWorth) * (super_frame ? 1 : kSampled);
  tracked.large = tracked.large || super_frame || packet.size() >= kLarge;
  if (tracked.worth < kWorthIt || now < tracked.not_before || now - last_offer_ < kBetweenOffers) return;
  tracked.worth = 0;
  tracked.since = now;
  tracked.not_before = now + kBeforeNextTry;
  if (!served(packet.in_port, out_port, tracked.large)) return;
  if (!candidates_.push({*key, packet.in_port, out_port})) return;
  last_offer_ = now;
  taker_.signal();
}

void ConnectionSampler::activate() {
  ready_.store(false, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  KernelPath::Use use{};
  while (added_.pop(use)) path_.activate(use);
}

}  // namespace vswitch
