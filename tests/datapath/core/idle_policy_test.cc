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

// Who slept then would be late for the next ones, too.
TEST(IdlePolicy, StaysAwakeForOneThatIsLateAmongMany) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  for (int i = 0; i < 20; ++i) wait(policy, now, 60us);
  EXPECT_EQ(wait(policy, now, 400us), 400us);
  EXPECT_EQ(wait(policy, now, 60us), 60us);
}

TEST(IdlePolicy, DoesNotStayAwakeForOneThatIsLateAmongFew) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  for (int i = 0; i < 4; ++i) wait(policy, now, 60us);
  EXPECT_LT(wait(policy, now, 3ms), 1ms);
}

// Both ends sleep and wake each other, which takes long. Awake, they would be quick.
TEST(IdlePolicy, GetsOutOfSleepingAndBeingWoken) {
  IdlePolicy policy;
  Nanoseconds now = 1s;
  bool slept = true;
  for (int i = 0; i < 10; ++i) {
    const Nanoseconds before = now;
    const Nanoseconds looked = wait(policy, now, slept ? 600us : 30us);
    slept = looked < now - before;
  }
  EXPECT_FALSE(slept);
}

TEST(IdlePolicy, WastesLittleOnWhatKeepsComingNotQuiteSoon) {
  IdlePolicy policy;
  Nanoseconds now = 1s, looked{};
  for (int i = 0; i < 10'000; ++i) looked += wait(policy, now, 500us);
  EXPECT_LT(looked, (now - 1s) / 20);
}

TEST(IdlePolicy, WastesLittleWhateverComes) {
  ASSERT_TRUE(rc::check([] {
    IdlePolicy policy;
    Nanoseconds now = 1s, end = now, all{};
    const auto some =
        rc::gen::oneOf(rc::gen::inRange(0, 200), rc::gen::inRange(0, 2'000), rc::gen::inRange(0, 100'000));
    const auto gaps = *rc::gen::container<std::vector<int>>(some);
    size_t late = 0;
    for (const int gap : gaps) {
      const Nanoseconds looked = wait(policy, now, std::chrono::microseconds(gap));
      all += looked;
      // Three late ones in a row at most before it stops looking.
      late = gap > 3'000 ? late + 1 : 0;
      if (late > 3) RC_ASSERT(looked == 0ns);
      RC_ASSERT(now >= end);
      end = now;
    }
    RC_ASSERT(all <= 2 * IdlePolicy::kLongest * gaps.size() + 8 * IdlePolicy::kMostSaved);
  }));
}

}  // namespace
}  // namespace vswitch
