#include "datapath/base/thread_slice.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <thread>

namespace vswitch {
namespace {

// The words of struct sched_attr: size and policy, flags, nice and priority, runtime, ...
using Words = std::array<uint64_t, 6>;

Words attributes() {
  Words words{};
  EXPECT_EQ(::syscall(SYS_sched_getattr, 0, words.data(), sizeof words, 0), 0);
  return words;
}

TEST(ThreadSlice, IsTwiceAsLongAndNothingElseChanges) {
  std::thread([] {
    Words expected = attributes();
    if (expected[3] == 0) GTEST_SKIP() << "this kernel knows no slices";
    expected[3] *= 2;
    lengthen_thread_slice();
    EXPECT_EQ(attributes(), expected);
  }).join();
}

TEST(ThreadSlice, IsTheThreadsOwn) {
  const Words before = attributes();
  std::thread([] { lengthen_thread_slice(); }).join();
  EXPECT_EQ(attributes(), before);
}

}  // namespace
}  // namespace vswitch
