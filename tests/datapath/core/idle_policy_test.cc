#include "datapath/core/idle_policy.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace vswitch {
namespace {

using namespace std::chrono_literals;

// A thread that runs out of packets at `now` and gets the next one `gap` later: how long it looked, by time it wasted
// awake. *now moves on.
Nanoseconds wait(IdlePolicy& policy, Nanoseconds& now, Nanoseconds gap) {
  const Nanoseconds start = now;
  while (policy.look_again(now)) {
    if (now - start >= gap) {
      policy.found(now);
      return now - start;
    }
    now += 1us;
  }
  const Nanoseconds looked = now - start;
  now = std::max(now, start + gap);
  policy.slept();
  policy.found(now);
  return looked;
}

TEST(IdlePolicy, SleepsAtOnceToBeginWith) {
  IdlePolicy policy;
  EXPECT_FALSE(policy.look_again(5s));
}

TEST(IdlePolicy, LooksOnWhenPacketsComeSoon) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  for (int i = 0; i < 4; ++i) wait(policy, now, 60us);
  EXPECT_EQ(policy.looking_for(), IdlePolicy::kLongest);
  // From then on it is awake when they come.
  EXPECT_EQ(wait(policy, now, 60us), 60us);
}

TEST(IdlePolicy, SleepsAtOnceAgainWhenTheyComeLate) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  for (int i = 0; i < 4; ++i) wait(policy, now, 60us);
  for (int i = 0; i < 4; ++i) wait(policy, now, 5ms);
  EXPECT_EQ(wait(policy, now, 5ms), 0ns);
}

// Packets that found the thread at work tell nothing about waiting.
TEST(IdlePolicy, WorkIsNotAWait) {
  IdlePolicy policy;
  for (int i = 0; i < 100; ++i) policy.found(Nanoseconds(i));
  EXPECT_EQ(policy.looking_for(), 0ns);
}

// Many packets soon one after another, and some that come later. How long it looked for the last of these.
Nanoseconds learn_patience(IdlePolicy& policy, Nanoseconds& now) {
  Nanoseconds looked{};
  for (int late = 0; late < 6; ++late) {
    for (int i = 0; i < 1'000; ++i) wait(policy, now, 60us);
    looked = wait(policy, now, 700us);
  }
  return looked;
}

// Who slept then would be late for the next ones, too.
TEST(IdlePolicy, LearnsToStayAwakeForOneThatIsLateAmongMany) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  EXPECT_EQ(learn_patience(policy, now), 700us);
  EXPECT_EQ(wait(policy, now, 60us), 60us);
}

TEST(IdlePolicy, LearnsThatPatienceDoesNotPay) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  learn_patience(policy, now);
  for (int i = 0; i < 1'000; ++i) wait(policy, now, 60us);
  EXPECT_EQ(wait(policy, now, 20ms), IdlePolicy::kLongest + IdlePolicy::kMostPatience);
  for (int i = 0; i < 7; ++i) wait(policy, now, 20ms);
  EXPECT_EQ(wait(policy, now, 20ms), 0ns);
}

// Both ends sleep and wake each other, which takes long. Awake, they would be quick.
TEST(IdlePolicy, GetsOutOfSleepingAndBeingWoken) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  bool slept = true;
  for (int i = 0; i < 100; ++i) {
    const Nanoseconds before = now;
    const Nanoseconds looked = wait(policy, now, slept ? 600us : 30us);
    slept = looked < now - before;
  }
  EXPECT_FALSE(slept);
}

// Two ends that answer each other, on two cores that have one processor between them at first: the other end moves only
// while this one sleeps, until one of them has been awake for some milliseconds without a break. Returns how many of so
// many waits ended in sleep.
int sleeps_of_a_dialogue(IdlePolicy& policy, Nanoseconds& now, int waits, bool apart) {
  constexpr Nanoseconds kUntilMoved = 6ms;
  int sleeps = 0;
  for (int i = 0; i < waits; ++i) {
    const Nanoseconds start = now;
    bool slept = false;
    while (now - start < (apart ? Nanoseconds(25us) : kUntilMoved)) {
      if (!policy.look_again(now)) {
        policy.slept();
        slept = true;
        now += 150us;
        break;
      }
      now += 1us;
    }
    policy.found(now);
    apart = !slept;
    sleeps += slept;
  }
  return sleeps;
}

TEST(IdlePolicy, StaysAwakeUntilBothEndsHaveAProcessor) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  EXPECT_LE(sleeps_of_a_dialogue(policy, now, 2'000, false), 2);
}

// What it has earned is enough for the next time, however often the dialogue pauses, and whatever it learns of pauses.
TEST(IdlePolicy, StaysAwakeInOneDialogueAfterAnother) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  for (int dialogue = 0; dialogue < 50; ++dialogue) {
    wait(policy, now, 40ms);
    wait(policy, now, 900ms);
    EXPECT_LE(sleeps_of_a_dialogue(policy, now, 2'000, false), 3) << dialogue;
  }
}

TEST(IdlePolicy, WhoIsKeptFromTheCoreDoesNotLook) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  for (int i = 0; i < 4; ++i) wait(policy, now, 60us);
  EXPECT_TRUE(policy.look_again(now));
  EXPECT_TRUE(policy.look_again(now + 4ms));
  policy.found(now + 4ms);
  now += 5ms;
  EXPECT_EQ(wait(policy, now, 60us), 60us);
}

// Looks that take long end late; without patience that costs it nothing.
TEST(IdlePolicy, WhoHasNoPatienceDoesNotPayForIt) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  for (int i = 0; i < 200'000; ++i) {
    const Nanoseconds packet = now + (i % 2 == 0 ? 60us : 1'500us);
    while (now < packet && policy.look_again(now)) now += IdlePolicy::kOneLook;
    policy.slept();
    now = std::max(now, packet);
    policy.found(now);
  }
  wait(policy, now, 700us);
  EXPECT_EQ(wait(policy, now, 5ms), 5ms);
}

// Waking it for something else, again and again, costs it nothing.
TEST(IdlePolicy, WhoWasWokenForNothingHasNotLooked) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  learn_patience(policy, now);
  while (policy.look_again(now)) now += 1us;
  for (int i = 0; i < 100'000; ++i) {
    policy.slept();
    now += 1us;
    EXPECT_FALSE(policy.look_again(now)) << i;
  }
  policy.found(now);
  EXPECT_EQ(wait(policy, now, 60us), 60us);
  EXPECT_EQ(wait(policy, now, 700us), 700us);
}

TEST(IdlePolicy, HasNoMorePatienceThanItIsGiven) {
  IdlePolicy policy(1ms);
  Nanoseconds now = 1s;
  learn_patience(policy, now);
  EXPECT_EQ(wait(policy, now, 20ms), IdlePolicy::kLongest + 1ms);
}

// So many packets, so far apart, and then a pause, for ever: what share of a core do looks take, in percent?
double share_of_core(int packets, Nanoseconds apart, Nanoseconds pause) {
  IdlePolicy policy;
  const Nanoseconds start = 1s;
  Nanoseconds now = start, looked{};
  while (now < start + 20s) {
    for (int i = 1; i < packets; ++i) looked += wait(policy, now, apart);
    looked += wait(policy, now, pause);
  }
  return 100.0 * static_cast<double>(looked.count()) / static_cast<double>((now - start).count());
}

TEST(IdlePolicy, TakesNextToNothingOfACoreWhenPacketsAreFewAndFarBetween) {
  for (const Nanoseconds pause : {1100us, 2000us, 5000us, 20'000us}) {
    EXPECT_LT(share_of_core(1, 0us, pause), 0.1) << pause.count();
  }
  for (const int packets : {2, 3, 4, 13, 100}) {
    for (const Nanoseconds apart : {1us, 10us, 60us}) {
      const double needed = 100.0 * static_cast<double>((packets * apart).count()) / 20e6;
      EXPECT_LT(share_of_core(packets, apart, 20ms), needed + 0.6) << packets << " " << apart.count();
    }
  }
}

TEST(IdlePolicy, TakesLittleOfACoreWhenPacketsKeepComingNotQuiteSoon) {
  for (const Nanoseconds gap : {110us, 155us, 205us, 305us, 500us, 900us, 1000us}) {
    EXPECT_LT(share_of_core(1, 0us, gap), 1.5) << gap.count();
  }
}

// What patience may cost, whatever comes: as much as looking was good for, a small part of the time, what is in the
// account to begin with, and the look that found it empty.
TEST(IdlePolicy, WastesLittleWhateverComes) {
  ASSERT_TRUE(rc::check([] {
    constexpr Nanoseconds kLongestLook = IdlePolicy::kLongest + IdlePolicy::kMostPatience;
    IdlePolicy policy;
    const Nanoseconds start = 1s;
    Nanoseconds now = start, in_patience{}, to_good_purpose{}, in_vain{};
    const auto some =
        rc::gen::oneOf(rc::gen::inRange(0, 200), rc::gen::inRange(0, 2'000), rc::gen::inRange(0, 100'000));
    const auto gaps = *rc::gen::container<std::vector<int>>(1'000, some);
    for (const int us : gaps) {
      const Nanoseconds gap = std::chrono::microseconds(us), without_patience = policy.looking_for();
      const Nanoseconds looked = wait(policy, now, gap);
      RC_ASSERT(looked <= kLongestLook);
      in_patience += std::max(looked - without_patience, Nanoseconds{});
      if (looked == gap && looked <= IdlePolicy::kLongest) to_good_purpose += looked;
      // Late ones in a row teach it to sleep at once.
      in_vain = gap > kLongestLook ? in_vain + looked : Nanoseconds{};
      RC_ASSERT(in_vain < 2 * kLongestLook);
    }
    RC_ASSERT(in_patience <=
              to_good_purpose + (now - start) / IdlePolicy::kAlways + IdlePolicy::kFullAccount + IdlePolicy::kOneLook);
  }));
}

}  // namespace
}  // namespace vswitch
