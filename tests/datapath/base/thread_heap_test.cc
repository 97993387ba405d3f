#include "datapath/base/thread_heap.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "datapath/base/sanitizer.h"

namespace vswitch {
namespace {

long page_faults() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt;
}

// Page faults of a new thread while it makes 384 kB of small objects.
long faults_of_a_thread(bool prepared) {
  long faults = 0;
  std::thread([&] {
    if (prepared) prepare_thread_heap();
    std::vector<std::unique_ptr<std::string>> objects;
    objects.reserve(8192);
    const long before = page_faults();
    for (int i = 0; i < 8192; ++i) objects.push_back(std::make_unique<std::string>());
    faults = page_faults() - before;
  }).join();
  return faults;
}

TEST(ThreadHeap, IsThereBeforeItIsNeeded) {
#if !defined(__GLIBC__)
  GTEST_SKIP() << "a hint to glibc";
#endif
  if (kSanitized) GTEST_SKIP() << "the sanitizer has a heap of its own";
  const long as_it_comes = faults_of_a_thread(false);
  EXPECT_LT(faults_of_a_thread(true), std::max(as_it_comes / 4, 8L));
}

}  // namespace
}  // namespace vswitch
