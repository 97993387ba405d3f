#include "datapath/core/help_policy.h"

#include <gtest/gtest.h>

namespace vswitch {
namespace {

using namespace std::chrono_literals;

// A forwarding thread, in rounds of 100 us.
class HelpPolicyTest : public ::testing::Test {
 protected:
  // For so long, with so many hits and misses a round. Returns in how much of that time the thread helped.
  Nanoseconds run(Nanoseconds time, uint64_t hits, uint64_t misses, size_t waiting = HelpPolicy::kLongQueue) {
    Nanoseconds helped{};
    for (const Nanoseconds end = now_ + time; now_ < end; now_ += 100us) {
      policy_.update(now_, hits_ += hits, misses_ += misses, waiting);
      if (!policy_.helping()) continue;
      policy_.helped();
      helped += 100us;
    }
    return helped;
  }

  HelpPolicy policy_;
  Nanoseconds now_ = 1s;
  uint64_t hits_ = 0, misses_ = 0;
};

TEST_F(HelpPolicyTest, HelpsWhenNearlyAllMiss) { EXPECT_GT(run(1s, 1, 31), 990ms); }

TEST_F(HelpPolicyTest, DoesNotHelpWhileTheHandlerKeepsUp) {
  EXPECT_EQ(run(1s, 0, 32, HelpPolicy::kLongQueue - 1), 0ms);
}

TEST_F(HelpPolicyTest, DoesNotHoldUpThoseWhoHaveFlows) { EXPECT_EQ(run(1s, 8, 24), 0ms); }

TEST_F(HelpPolicyTest, StopsWhenTrafficFindsItsFlows) {
  run(1s, 0, 32);
  EXPECT_LT(run(1s, 32, 0), 2ms);
}

// What came long ago does not count.
TEST_F(HelpPolicyTest, BeginsSoonAfterTrafficWithFlows) {
  run(1s, 32, 0);
  EXPECT_GT(run(100ms, 0, 32), 95ms);
}

TEST_F(HelpPolicyTest, PatienceEnds) {
  const Nanoseconds helped = run(60s, 0, 32);
  EXPECT_GE(helped, HelpPolicy::kMostPatience);
  EXPECT_LT(helped, HelpPolicy::kMostPatience + 60s / HelpPolicy::kRecovery + 1s);
}

// Rounds with and without help, by turns, and a clock that is read every fourth round.
TEST_F(HelpPolicyTest, PatienceEndsWhateverTheClockShows) {
  int helped = 0;
  constexpr int kRounds = 600'000;
  for (int round = 0; round < kRounds; ++round) {
    const size_t waiting = HelpPolicy::kLongQueue - static_cast<size_t>(round % 2);
    policy_.update(now_ + round / 4 * 400us, 0, misses_ += 32, waiting);
    if (policy_.helping()) policy_.helped();
    helped += policy_.helping() ? 1 : 0;
  }
  EXPECT_LT(helped * 100us, 10s);
}

TEST_F(HelpPolicyTest, PatienceComesBack) {
  run(60s, 0, 32);
  run(60s, 32, 0);
  EXPECT_GT(run(4s, 0, 32), 3900ms);
}

}  // namespace
}  // namespace vswitch
