#include "vswitchd/rules/rule_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "datapath/base/sanitizer.h"

namespace vswitch {
namespace {

struct Block {
  uint8_t* memory;
  size_t bytes;
  uint8_t mark;
};

// Of every kind: small ones of any size, tables that are powers of two, and what lies between.
size_t random_size(std::mt19937_64& random) {
  switch (random() % 8) {
    case 0:
      return size_t{1} << (random() % 22);
    case 1:
      return 1 + random() % 300'000;
    default:
      return 8 * (1 + random() % 64);
  }
}

bool is_whole(const Block& block) {
  for (size_t i = 0; i < block.bytes; i += 1 + block.bytes / 64) {
    if (block.memory[i] != block.mark) return false;
  }
  return block.memory[block.bytes - 1] == block.mark;
}

TEST(RuleMemoryTest, BlocksAreAlignedAndApart) {
  std::mt19937_64 random(1);
  std::vector<Block> blocks;
  for (int i = 0; i < 60'000; ++i) {
    // Grows, shrinks to nearly nothing, and grows again, so that what is empty is given back and used for other sizes.
    const bool grows = i / 10'000 % 2 == 0;
    if (blocks.empty() || random() % 10 < (grows ? 7u : 2u)) {
      const size_t bytes = random_size(random);
      auto* memory = static_cast<uint8_t*>(rule_memory::allocate(bytes));
      const size_t alignment = bytes % 64 == 0 ? 64 : bytes % 16 == 0 ? 16 : 8;
      ASSERT_EQ(reinterpret_cast<uintptr_t>(memory) % alignment, 0u) << bytes;
      const auto mark = static_cast<uint8_t>(random());
      std::memset(memory, mark, bytes);
      blocks.push_back({memory, bytes, mark});
    } else {
      const size_t at = random() % blocks.size();
      ASSERT_TRUE(is_whole(blocks[at]));
      rule_memory::free(blocks[at].memory, blocks[at].bytes);
      blocks[at] = blocks.back();
      blocks.pop_back();
    }
  }
  for (const Block& block : blocks) {
    ASSERT_TRUE(is_whole(block));
    rule_memory::free(block.memory, block.bytes);
  }
}

TEST(RuleMemoryTest, FreeTakesNull) { rule_memory::free(nullptr, 64); }

// Whether the kernel has given memory to all of it, which is whole pages.
bool is_present(void* memory, size_t bytes) {
  std::vector<unsigned char> pages(bytes / static_cast<size_t>(::sysconf(_SC_PAGESIZE)));
  if (::mincore(memory, bytes, pages.data()) != 0) return false;
  return std::all_of(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; });
}

TEST(RuleMemoryTest, WhatIsProvidedIsThereAndUsedFirst) {
  if (kSanitized) GTEST_SKIP() << "memory is the library's with a sanitizer";
  constexpr size_t kBytes = 256 * 1024;
  ASSERT_TRUE(rule_memory::provide_chunk());
  ASSERT_TRUE(rule_memory::provide_chunk());
  EXPECT_EQ(rule_memory::provided_chunks(), 2u);
  std::vector<void*> blocks;
  while (rule_memory::provided_chunks() == 2 && blocks.size() < 100) {
    blocks.push_back(rule_memory::allocate(kBytes));
  }
  EXPECT_EQ(rule_memory::provided_chunks(), 1u) << "after " << blocks.size() << " blocks";
  EXPECT_TRUE(is_present(blocks.back(), kBytes));
  rule_memory::give_back_chunks(5);
  EXPECT_EQ(rule_memory::provided_chunks(), 0u);
  for (void* block : blocks) rule_memory::free(block, kBytes);
}

}  // namespace
}  // namespace vswitch
