// Progress: tells whether a thread that works in rounds still gets through them (health checks).
//
// The thread calls round() each time and sleeping() around blocking; anyone else asks alive(). A thread that sleeps is
// alive; one that has been in the same round for a second is not.
#pragma once

#include <atomic>
#include <cstdint>

#include "datapath/base/clock.h"

namespace vswitch {

class Progress {
 public:
  // ---- the thread itself
  void round() { rounds_.store(rounds_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }
  uint64_t rounds() const { return rounds_.load(std::memory_order_relaxed); }
  void sleeping(bool yes) { sleeping_.store(yes, std::memory_order_relaxed); }

  // ---- one caller at a time
  bool alive(Nanoseconds now) {
    const uint64_t rounds = this->rounds();
    if (rounds != rounds_seen_ || sleeping_.load(std::memory_order_relaxed)) {
      rounds_seen_ = rounds;
      seen_at_ = now;
      return true;
    }
    return now - seen_at_ < 1s;
  }

 private:
  std::atomic<uint64_t> rounds_{0};
  std::atomic<bool> sleeping_{false};
  uint64_t rounds_seen_ = ~uint64_t{0};
  Nanoseconds seen_at_{};
};

}  // namespace vswitch
