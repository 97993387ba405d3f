#include "vswitchd/control/right_of_way.h"

#include <gtest/gtest.h>

#include <functional>
#include <optional>

namespace vswitch {
namespace {

struct RightOfWayTest : ::testing::Test {
  int pauses = 0;
  std::function<void()> at_pause = [] {};
  RightOfWay right_of_way{[this] {
    ++pauses;
    at_pause();
  }};
};

TEST_F(RightOfWayTest, NobodyIsWaitedForUntilSomebodyTakesIt) {
  EXPECT_EQ(right_of_way.give(5), 0);
  EXPECT_EQ(pauses, 0);
}

TEST_F(RightOfWayTest, GivesItUntilItIsNoLongerTaken) {
  std::optional<RightOfWay::Taken> taken(std::in_place, right_of_way);
  at_pause = [&] {
    if (pauses == 2) taken.reset();
  };
  EXPECT_EQ(right_of_way.give(5), 2);
  EXPECT_EQ(pauses, 2);
}

TEST_F(RightOfWayTest, DoesNotWaitForever) {
  const RightOfWay::Taken taken = right_of_way.take();
  EXPECT_EQ(right_of_way.give(5), 5);
  EXPECT_EQ(right_of_way.give(0), 0);
  EXPECT_EQ(pauses, 5);
}

TEST_F(RightOfWayTest, SeveralMayHaveIt) {
  std::optional<RightOfWay::Taken> first(std::in_place, right_of_way), second(std::in_place, right_of_way);
  at_pause = [&] { (pauses == 1 ? first : second).reset(); };
  EXPECT_EQ(right_of_way.give(5), 2);
  EXPECT_EQ(pauses, 2);
}

}  // namespace
}  // namespace vswitch
