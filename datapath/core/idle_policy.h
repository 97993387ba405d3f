// IdlePolicy: for how long a thread that has nothing to do goes on looking before it sleeps.
//
// Waking a sleeping thread takes time: on a core that has gone idle, and in a virtual machine above all, more than all
// the work on a packet (docs/performance.md). So when packets keep coming soon after the thread ran out of them, it
// waits for them awake; when they do not, it sleeps at once, and an idle switch costs nothing. It learns from each wait
// that ended in sleep: a short one (looking on would have paid) lengthens the next look, a long one shortens it.
//
// Thread safety: one thread.
#pragma once

#include <algorithm>
#include <utility>

#include "datapath/base/clock.h"

namespace vswitch {

class IdlePolicy {
 public:
  static constexpr Nanoseconds kLongest = std::chrono::microseconds(100);
  static constexpr Nanoseconds kFirst = std::chrono::microseconds(25);

  // The thread looked and found nothing. True: look again; false: sleep.
  bool look_again(Nanoseconds now) {
    if (!idle_) {
      idle_ = true;
      idle_since_ = now;
    }
    return now - idle_since_ < looking_for_;
  }
  // The thread slept, as look_again() told, and was woken.
  void slept() { slept_ = true; }
  // The thread found something.
  void found(Nanoseconds now) {
    if (!idle_) return;
    idle_ = false;
    if (!std::exchange(slept_, false)) return;
    if (now - idle_since_ <= kLongest) {
      looking_for_ = std::clamp(2 * looking_for_, kFirst, kLongest);
    } else {
      looking_for_ /= 2;
      if (looking_for_ < kFirst) looking_for_ = Nanoseconds{};
    }
  }
  Nanoseconds looking_for() const { return looking_for_; }

 private:
  Nanoseconds looking_for_{};
  Nanoseconds idle_since_{};
  bool idle_ = false, slept_ = false;
};

}  // namespace vswitch
