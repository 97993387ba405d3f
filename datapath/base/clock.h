// Time is an input: everything that ages, expires or measures takes a Clock, so that tests turn it by hand.
//
// now() is monotonic time in nanoseconds since an arbitrary start (CLOCK_MONOTONIC for the real one); it never goes
// back. Clocks are thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace vswitch {

using Nanoseconds = std::chrono::nanoseconds;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;
using std::chrono_literals::operator""us;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Nanoseconds now() const = 0;
};

class MonotonicClock final : public Clock {
 public:
  Nanoseconds now() const override { return std::chrono::steady_clock::now().time_since_epoch(); }
};

// For tests: stands still until advanced.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(Nanoseconds start = 1s) : now_(start.count()) {}
  Nanoseconds now() const override { return Nanoseconds(now_.load(std::memory_order_relaxed)); }
  void advance(Nanoseconds by) { now_.fetch_add(by.count(), std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> now_;
};

}  // namespace vswitch
