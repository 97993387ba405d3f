#include "vswitchd/rules/rule_provision.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "datapath/base/sanitizer.h"
#include "vswitchd/rules/rule_memory.h"

namespace vswitch {
namespace {

// Whether there are so many within ten seconds.
bool come(size_t chunks) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (rule_memory::provided_chunks() < chunks) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

void expect(RuleProvision& provision, int rules) {
  for (int i = 0; i < rules; ++i) provision.expect_one();
}

class RuleProvisionTest : public testing::Test {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "memory is the library's with a sanitizer";
  }
};

TEST_F(RuleProvisionTest, MemoryIsThereBeforeTheRules) {
  {
    RuleProvision provision;
    expect(provision, 20'000);
    EXPECT_TRUE(come(2));
    expect(provision, 20'000);
    EXPECT_TRUE(come(4));
  }
  EXPECT_EQ(rule_memory::provided_chunks(), 0u);
}

TEST_F(RuleProvisionTest, WhatWasUsedIsNotGivenBack) {
  constexpr size_t kBytes = 256 * 1024;
  std::vector<void*> blocks;
  {
    RuleProvision provision;
    expect(provision, 20'000);
    ASSERT_TRUE(come(2));
    while (rule_memory::provided_chunks() > 0 && blocks.size() < 100) {
      blocks.push_back(rule_memory::allocate(kBytes));
      std::memset(blocks.back(), 7, kBytes);
    }
    EXPECT_EQ(rule_memory::provided_chunks(), 0u);
  }
  for (void* block : blocks) {
    EXPECT_EQ(static_cast<const uint8_t*>(block)[kBytes - 1], 7);
    rule_memory::free(block, kBytes);
  }
}

TEST_F(RuleProvisionTest, EndsWhileItProvides) {
  for (int i = 0; i < 20; ++i) {
    RuleProvision provision;
    expect(provision, 1'000'000);
    if (i % 2 == 0) {
      EXPECT_TRUE(come(1));
    }
  }
  EXPECT_EQ(rule_memory::provided_chunks(), 0u);
}

TEST_F(RuleProvisionTest, RulesThatArePresentNeedNone) {
  RuleProvision one_chunk(30'000), others;
  expect(one_chunk, 41'000);
  expect(others, 100'000);
  EXPECT_TRUE(come(13));  // 12 of the others, which takes as long as more of the first would
  EXPECT_EQ(rule_memory::provided_chunks(), 13u);
}

}  // namespace
}  // namespace vswitch
