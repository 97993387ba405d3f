// IdlePolicy: for how long a thread that has nothing to do goes on looking before it sleeps.
//
// Waking a sleeping thread takes time: on a core that has gone idle, and in a virtual machine above all, more than all
// the work on a packet (docs/performance.md). So when packets keep coming soon after the thread ran out of them, it
// waits for them awake; when they do not, it sleeps at once, and an idle switch costs nothing. It learns from each wait
// that ended in sleep: a short one (looking on would have paid) lengthens the next look, a long one shortens it.
//
// Patience is for the wait that takes longer than most. Who sleeps because the other end was late once is late itself
// then, and the other end's core goes idle meanwhile. On a virtual machine that shares its processors with others it
// gets worse: the hypervisor may wake one core where the other one runs, and from then on only one of the two runs at a
// time, the other one while this one sleeps, until neither has slept for long enough to be moved apart. So patience
// goes far beyond what one wait seems worth: up to 8 ms. How far is learned from the waits that ended in sleep: one
// within a millisecond, or within 8 ms for all the patience there was, makes it 8 ms; a longer one halves it.
//
// What limits patience is an account. Looking pays as much into it as it has lasted whenever it brought a packet soon
// (within the longest look without patience), and every wait a 128th of the time; patience is paid from it. So a thread
// is awake in vain for no longer than it is awake to good purpose, plus 0.8 % of the time, plus 64 ms once. Requests
// and responses keep the account full; a stream of packets that come too late each does not.
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
  static constexpr Nanoseconds kMostPatience = std::chrono::milliseconds(8);
  static constexpr Nanoseconds kLeastPatience = kMostPatience / 64;
  // A wait within it, asleep, is one for patience.
  static constexpr Nanoseconds kNotMuchLater = std::chrono::milliseconds(1);
  // Of the time, this part is paid into the account.
  static constexpr int kAlways = 128;
  static constexpr Nanoseconds kFullAccount = 8 * kMostPatience;
  // With less, patience would end before it has brought anything.
  static constexpr Nanoseconds kWorthBeginning = std::chrono::milliseconds(2);
  // A look takes no longer. Who was kept from the core between two has not looked meanwhile.
  static constexpr Nanoseconds kOneLook = std::chrono::microseconds(20);

  // So much patience at most.
  explicit IdlePolicy(Nanoseconds most_patience = kMostPatience) : most_patience_(most_patience) {}

  // The thread looked and found nothing. True: look again; false: sleep.
  bool look_again(Nanoseconds now) {
    if (!idle_) begin_wait(now);
    // Who was woken for nothing slept until now.
    if (!slept_) looked_ += std::min(now - last_look_, kOneLook);
    last_look_ = now;
    return looked_ < looking_for_ + (patient_ ? std::clamp(account_, Nanoseconds{}, patience_) : Nanoseconds{});
  }
  // The thread slept, as look_again() told, and was woken.
  void slept() { slept_ = true; }
  // The thread found something.
  void found(Nanoseconds now) {
    if (!idle_) return;
    idle_ = false;
    // The last look of a wait without patience ends late, too; that is no patience.
    const Nanoseconds in_patience = patient_ ? std::max(looked_ - looking_for_, Nanoseconds{}) : Nanoseconds{};
    account_ -= in_patience;
    if (std::exchange(slept_, false)) {
      learn(now - idle_since_);
    } else if (looked_ <= kLongest) {
      pay_in(looked_);
      if (in_patience != Nanoseconds{}) lengthen_look();
    }
  }
  Nanoseconds looking_for() const { return looking_for_; }

 private:
  void begin_wait(Nanoseconds now) {
    idle_ = true;
    idle_since_ = last_look_ = now;
    looked_ = {};
    pay_in(std::max(now - paid_until_, Nanoseconds{}) / kAlways);
    paid_until_ = now;
    if (patience_ != Nanoseconds{} && account_ >= std::min(patience_, kWorthBeginning)) patient_ = true;
  }
  void pay_in(Nanoseconds time) { account_ = std::min(account_ + time, kFullAccount); }
  // From a wait that ended in sleep.
  void learn(Nanoseconds waited) {
    const bool was_patient = std::exchange(patient_, false);
    if (waited <= kLongest) return lengthen_look();
    shorten(looking_for_, kFirst);
    if (waited <= (was_patient ? most_patience_ : kNotMuchLater)) {
      patience_ = most_patience_;
    } else if (was_patient) {
      shorten(patience_, kLeastPatience);
    }
  }
  void lengthen_look() { looking_for_ = std::clamp(2 * looking_for_, kFirst, kLongest); }
  static void shorten(Nanoseconds& time, Nanoseconds least) {
    time /= 2;
    if (time < least) time = {};
  }

  Nanoseconds looking_for_{};
  Nanoseconds most_patience_, patience_{};
  Nanoseconds account_ = kFullAccount, paid_until_{};  // overdrawn by one look at most: only time tells when it ends
  bool patient_ = false;  // there was enough in the account to begin with, and no sleep since
  // Of this wait.
  Nanoseconds idle_since_{}, last_look_{}, looked_{};
  bool idle_ = false, slept_ = false;
};

}  // namespace vswitch
