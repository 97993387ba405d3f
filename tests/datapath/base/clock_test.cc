#include "datapath/base/clock.h"

#include <gtest/gtest.h>

namespace vswitch {
namespace {

TEST(ManualClock, StandsStillUntilAdvanced) {
  ManualClock clock(5s);
  EXPECT_EQ(clock.now(), 5s);
  EXPECT_EQ(clock.now(), 5s);
  clock.advance(250ms);
  EXPECT_EQ(clock.now(), 5250ms);
}

TEST(MonotonicClock, NeverGoesBack) {
  const MonotonicClock clock;
  Nanoseconds last = clock.now();
  for (int i = 0; i < 1000; ++i) {
    const Nanoseconds now = clock.now();
    ASSERT_GE(now, last);
    last = now;
  }
}

}  // namespace
}  // namespace vswitch
