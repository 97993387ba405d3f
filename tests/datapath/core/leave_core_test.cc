#include "datapath/core/leave_core.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

namespace vswitch {
namespace {

// In a thread of its own, whose cores may then be narrowed.
template <typename Function>
void in_thread(Function&& function) {
  std::thread(std::forward<Function>(function)).join();
}

cpu_set_t allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  return set;
}

TEST(LeaveCore, MayUseTheSameCoresAsBefore) {
  in_thread([] {
    cpu_set_t before = allowed_cores();
    if (CPU_COUNT(&before) < 2) GTEST_SKIP() << "one core";
    const int here = sched_getcpu();
    leave_core(here);
    cpu_set_t after = allowed_cores();
    EXPECT_TRUE(CPU_EQUAL(&before, &after));
  });
}

TEST(LeaveCore, IsOffItRightAfter) {
  in_thread([] {
    cpu_set_t before = allowed_cores();
    if (CPU_COUNT(&before) < 2) GTEST_SKIP() << "one core";
    // The scheduler may bring it back at any time, but hardly each time.
    bool left = false;
    for (int i = 0; i < 50 && !left; ++i) {
      const int here = sched_getcpu();
      leave_core(here);
      left = sched_getcpu() != here;
    }
    EXPECT_TRUE(left);
  });
}

TEST(LeaveCore, StaysWhereThereIsNoOther) {
  in_thread([] {
    const int here = sched_getcpu();
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(here), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    leave_core(here);
    EXPECT_EQ(sched_getcpu(), here);
    cpu_set_t after = allowed_cores();
    EXPECT_TRUE(CPU_EQUAL(&one, &after));
    leave_core(-1);
    after = allowed_cores();
    EXPECT_TRUE(CPU_EQUAL(&one, &after));
  });
}

}  // namespace
}  // namespace vswitch
