// HelpPolicy: when a forwarding thread answers misses itself instead of queueing them.
//
// New flows may come faster than the handler thread can set them up. Then a forwarding thread that has little else to
// do helps it, which sets flows up on both cores and holds its sources up meanwhile, so that no packet is lost to a
// full queue. It must not become a way to stop others (docs/architecture.md): whoever sends nothing but new flows would
// otherwise slow down everybody on that thread to the pace of translation. So it helps only
// - while the queue is long;
// - while nearly all packets miss: there is hardly anybody to be held up;
// - for so long: helping eats up patience, which comes back eight times as slowly.
// Otherwise misses are queued, and those that have most of them lose some.
//
// Thread safety: one thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "datapath/base/clock.h"

namespace vswitch {

class HelpPolicy {
 public:
  static constexpr size_t kLongQueue = 256;     // about half a ms of the handler's time
  static constexpr uint64_t kMissesPerHit = 8;  // at least so many
  static constexpr Nanoseconds kMostPatience = std::chrono::seconds(5);
  static constexpr int kRecovery = 8;

  // Each round: how many packets have found a flow and how many have not, in all, and how many wait for the handler.
  void update(Nanoseconds now, uint64_t hits, uint64_t misses, size_t waiting) {
    if (now > updated_) spend(now - std::exchange(updated_, now));
    hits_ = hits_ / 2 + (hits - std::exchange(all_hits_, hits));
    misses_ = misses_ / 2 + (misses - std::exchange(all_misses_, misses));
    helping_ = waiting >= kLongQueue && misses_ > kMissesPerHit * hits_ && patience_ > Nanoseconds{};
  }
  bool helping() const { return helping_; }
  // The thread answered a miss, or waited for the handler.
  void helped() { helped_ = true; }
  // It waited in vain: not again in this round.
  void give_up() { helping_ = false; }

 private:
  // All of the time counts if the thread helped in part of it: the clock is read less often than this is called.
  // Patience may fall below zero: a while of help takes more than a while without gives back.
  void spend(Nanoseconds passed) {
    const bool helped = std::exchange(helped_, false);
    patience_ = helped ? patience_ - passed : std::min(kMostPatience, patience_ + passed / kRecovery);
  }

  bool helping_ = false, helped_ = false;
  Nanoseconds updated_{}, patience_ = kMostPatience;
  uint64_t all_hits_ = 0, all_misses_ = 0;
  uint64_t hits_ = 0, misses_ = 0;  // of late
};

}  // namespace vswitch
