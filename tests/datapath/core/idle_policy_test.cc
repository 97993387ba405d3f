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

TEST(IdlePolicy, WastesLittleWhateverComes) {
  ASSERT_TRUE(rc::check([] {
    IdlePolicy policy;
    Nanoseconds now = 1s, end = now;
    const auto gaps = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 100'000));
    size_t late = 0;
    for (const int gap : gaps) {
      const Nanoseconds looked = wait(policy, now, std::chrono::microseconds(gap));
      RC_ASSERT(looked <= IdlePolicy::kLongest);
      // Three late ones in a row at most before it stops looking.
      late = std::chrono::microseconds(gap) > IdlePolicy::kLongest ? late + 1 : 0;
      if (late > 3) RC_ASSERT(looked == 0ns);
      RC_ASSERT(now >= end);
      end = now;
    }
  }));
}

}  // namespace
}  // namespace vswitch
