// IdlePolicy: for how long a thread that has nothing to do goes on looking before it sleeps.
//
// Waking a sleeping thread takes time: on a core that has gone idle, and in a virtual machine above all, more than all
// the work on a packet (docs/performance.md). So when packets keep coming soon after the thread ran out of them, it
// waits for them awake; when they do not, it sleeps at once, and an idle switch costs nothing. It learns from each wait
// that ended in sleep: a short one (looking on would have paid) lengthens the next look, a long one shortens it.
//
// What a wait leaves of the longest look is saved, up to a millisecond, for one that takes longer than most: who sleeps
// because the other end was late once is late itself then, the other end's core goes idle meanwhile, and so both may
// go on sleeping and waking each other for long. To get out of that, a thread that is woken soon is now and then lent
// the same millisecond; if it does not pay, the next time comes after twice as many sleeps. So a wait costs hardly more
// than the longest look on average, however waits are spread.
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
  static constexpr Nanoseconds kMostSaved = std::chrono::milliseconds(1);
  // Packets keep coming to a thread that sleeps no longer.
  static constexpr Nanoseconds kSoon = std::chrono::milliseconds(1);
  static constexpr int kMostSleepsBetweenLoans = 64;

  // The thread looked and found nothing. True: look again; false: sleep.
  bool look_again(Nanoseconds now) {
    if (!idle_) {
      idle_ = true;
      idle_since_ = now;
    }
    return now - idle_since_ < looking_for_ + saved_ + lent_;
  }
  // The thread slept, as look_again() told, and was woken.
  void slept() { slept_ = true; }
  // The thread found something.
  void found(Nanoseconds now) {
    if (!idle_) return;
    idle_ = false;
    const Nanoseconds waited = now - idle_since_;
    if (std::exchange(slept_, false)) {
      learn(waited);
    } else {
      save(waited);
    }
  }
  Nanoseconds looking_for() const { return looking_for_; }

 private:
  // From a wait that ended awake.
  void save(Nanoseconds waited) {
    const Nanoseconds left = saved_ + kLongest - waited;
    if (left < Nanoseconds{}) lent_ = std::max(lent_ + left, Nanoseconds{});
    saved_ = std::clamp(left, Nanoseconds{}, kMostSaved);
    if (saved_ < kMostSaved) return;
    lent_ = {};
    sleeps_between_loans_ = sleeps_before_loan_ = 1;
  }
  // From a wait that ended in sleep.
  void learn(Nanoseconds waited) {
    saved_ = lent_ = {};
    if (waited <= kLongest) {
      looking_for_ = std::clamp(2 * looking_for_, kFirst, kLongest);
      return;
    }
    looking_for_ /= 2;
    if (looking_for_ < kFirst) looking_for_ = Nanoseconds{};
    if (waited > kSoon || --sleeps_before_loan_ > 0) return;
    lent_ = kMostSaved;
    sleeps_between_loans_ = std::min(2 * sleeps_between_loans_, kMostSleepsBetweenLoans);
    sleeps_before_loan_ = sleeps_between_loans_;
  }

  Nanoseconds looking_for_{};
  Nanoseconds saved_{};  // by waits that were shorter than the longest look
  Nanoseconds lent_{};
  int sleeps_between_loans_ = 1, sleeps_before_loan_ = 1;
  Nanoseconds idle_since_{};
  bool idle_ = false, slept_ = false;
};

}  // namespace vswitch
