// IdlePolicy: for how long a thread that has nothing to do goes on looking before it sleeps.
//
// Waking a sleeping thread takes time: on a core that has gone idle, and in a virtual machine above all, more than all
// the work on a packet (docs/performance.md). So when packets keep coming soon after the thread ran out of them, it
// waits for them awake; when they do not, it sleeps at once, and an idle switch costs nothing. It learns from each wait
// that ended in sleep: a short one (looking on would have paid) lengthens the next look, a long one shortens it.
//
// Patience is for the wait that takes longer than most. Who sleeps because the other end was late once is late itself
// then, and the other end's core goes idle meanwhile, so that both may go on sleeping and waking each other for long.
// Up to a millisecond of it is lent by the clock, and spent by looks that are longer than the above, until one of them
// ends in sleep; then it has to be lent anew. How much that may be is learned, too: a wait that ended in sleep within a
// millisecond makes it all of that, a longer one halves it. Where many waits ended awake, a quarter of the time is
// lent, elsewhere as little as a 128th. So a stream of packets that come too late for the longest look, but within a
// millisecond, takes 1 % of a core, and where they are further apart, next to nothing is wasted.
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
  static constexpr Nanoseconds kMostPatience = std::chrono::milliseconds(1);
  static constexpr Nanoseconds kLeastPatience = kMostPatience / 8;
  // Of the time, this part is lent.
  static constexpr int kQuickly = 4, kSlowly = 128;
  // So many waits that ended awake, before one that did not, show that patience pays.
  static constexpr int kMany = 16;
  // A look takes no longer. Who was kept from the core between two has not looked meanwhile.
  static constexpr Nanoseconds kOneLook = std::chrono::microseconds(20);

  // The thread looked and found nothing. True: look again; false: sleep.
  bool look_again(Nanoseconds now) {
    if (!idle_) begin_wait(now);
    looked_ += std::min(now - last_look_, kOneLook);
    last_look_ = now;
    return looked_ < looking_for_ + (patient_ ? patience_ : Nanoseconds{});
  }
  // The thread slept, as look_again() told, and was woken.
  void slept() { slept_ = true; }
  // The thread found something.
  void found(Nanoseconds now) {
    if (!idle_) return;
    idle_ = false;
    if (std::exchange(slept_, false)) {
      learn(now - idle_since_);
    } else {
      stayed_awake();
    }
  }
  Nanoseconds looking_for() const { return looking_for_; }

 private:
  void begin_wait(Nanoseconds now) {
    idle_ = true;
    idle_since_ = last_look_ = now;
    looked_ = {};
    const Nanoseconds lent = std::max(now - lent_until_, Nanoseconds{}) / share_;
    patience_ = std::min(patience_ + lent, most_patience_);
    lent_until_ = now;
    if (most_patience_ != Nanoseconds{} && patience_ == most_patience_) patient_ = true;
  }
  void stayed_awake() {
    if (awake_ < kMany) ++awake_;
    if (looked_ <= looking_for_) return;
    patience_ = std::max(patience_ - (looked_ - looking_for_), Nanoseconds{});
    if (looked_ <= kLongest) lengthen_look();
  }
  // From a wait that ended in sleep.
  void learn(Nanoseconds waited) {
    const bool was_patient = std::exchange(patient_, false);
    if (was_patient) {
      share_ = awake_ >= kMany ? kQuickly : std::min(2 * share_, kSlowly);
      patience_ = {};
    }
    awake_ = 0;
    if (waited <= kLongest) return lengthen_look();
    shorten(looking_for_, kFirst);
    if (waited <= kMostPatience) {
      most_patience_ = kMostPatience;
    } else if (was_patient) {
      shorten(most_patience_, kLeastPatience);
    }
  }
  void lengthen_look() { looking_for_ = std::clamp(2 * looking_for_, kFirst, kLongest); }
  static void shorten(Nanoseconds& time, Nanoseconds least) {
    time /= 2;
    if (time < least) time = {};
  }

  Nanoseconds looking_for_{};
  Nanoseconds patience_{}, most_patience_{}, lent_until_{};
  bool patient_ = false;  // what has been lent may be spent
  int share_ = kQuickly;
  int awake_ = 0;  // waits since the last sleep
  // Of this wait.
  Nanoseconds idle_since_{}, last_look_{}, looked_{};
  bool idle_ = false, slept_ = false;
};

}  // namespace vswitch
