// Blocks are aligned, apart from each other, used again, and may change threads.
#include "datapath/base/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <thread>
#include <vector>

namespace vswitch {
namespace {

constexpr size_t kBytes = 48;

TEST(BlockPool, GivesAlignedBlocksThatDoNotOverlap) {
  BlockPool pool(kBytes);
  std::vector<void*> blocks(10'000);
  for (size_t i = 0; i < blocks.size(); i += 40) pool.take(std::span(blocks).subspan(i, 40));
  std::ranges::sort(blocks);
  for (size_t i = 0; i < blocks.size(); ++i) {
    const auto at = reinterpret_cast<uintptr_t>(blocks[i]);
    ASSERT_EQ(at % 16, 0u);
    if (i > 0) {
      ASSERT_GE(at - reinterpret_cast<uintptr_t>(blocks[i - 1]), kBytes);
    }
    std::memset(blocks[i], 0xff, kBytes);
  }
}

TEST(BlockPool, UsesAgainWhatWasGivenBack) {
  BlockPool pool(kBytes);
  std::vector<void*> first(5000), second(5000);
  pool.take(first);
  pool.give_back(first);
  pool.take(second);
  std::ranges::sort(first), std::ranges::sort(second);
  // More than that number comes in a piece, so nearly all are the same.
  std::vector<void*> both;
  std::ranges::set_intersection(first, second, std::back_inserter(both));
  EXPECT_GE(both.size(), first.size() - 2000);
}

TEST(BlockPool, PreparesWhatIsMissing) {
  BlockPool pool(kBytes);
  pool.prepare(100'000);
  const size_t free = pool.free();
  EXPECT_GE(free * kBytes, 100'000u);
  pool.prepare(100'000);
  EXPECT_EQ(pool.free(), free);
  std::vector<void*> blocks(free - 10);
  pool.take(blocks);
  EXPECT_EQ(pool.free(), 10u);
  pool.prepare(100'000);
  EXPECT_GE(pool.free() * kBytes, 100'000u);
}

TEST(BlockMagazine, ClosedGivesAllBackButTheLast) {
  BlockPool pool(kBytes);
  BlockMagazine magazine;
  std::vector<void*> blocks(200);
  for (void*& block : blocks) block = magazine.take(pool);
  EXPECT_EQ(std::set<void*>(blocks.begin(), blocks.end()).size(), blocks.size());
  for (void* block : blocks) magazine.give_back(pool, block);
  magazine.close(pool);
  // It goes on, one by one.
  void* const one = magazine.take(pool);
  void* const other = magazine.take(pool);
  EXPECT_NE(one, other);
  magazine.give_back(pool, one);
  magazine.give_back(pool, other);
  EXPECT_EQ(magazine.take(pool), other);
}

struct Counted {
  explicit Counted(int* c) : count(c) { ++*count; }
  ~Counted() { --*count; }
  int* count;
  std::array<uint64_t, 5> more{1, 2, 3, 4, 5};
};

struct Prepared {
  uint64_t numbers[4];
};

// The library makes one block of the object and its counts: what is prepared must be for that.
TEST(BlockAllocator, SharedObjectsComeFromThePoolThatIsPrepared) {
  if (kSanitized) GTEST_SKIP() << "the library allocates each";
  EXPECT_EQ(BlockPoolOf<Prepared>::pool.load(), nullptr);
  std::vector<std::shared_ptr<Prepared>> objects;
  const auto make = [&] { objects.push_back(std::allocate_shared<Prepared>(BlockAllocator<Prepared>())); };
  make();
  BlockPool* const pool = BlockPoolOf<Prepared>::pool.load();
  ASSERT_NE(pool, nullptr);
  pool->prepare(100'000);
  const size_t free = pool->free();
  for (int i = 0; i < 1000; ++i) make();
  EXPECT_LE(pool->free() + 900, free);
}

TEST(BlockAllocator, ServesSharedPointersThatEndInOtherThreads) {
  int count = 0;
  std::vector<std::shared_ptr<Counted>> all;
  for (int i = 0; i < 1000; ++i) all.push_back(std::allocate_shared<Counted>(BlockAllocator<Counted>(), &count));
  EXPECT_EQ(count, 1000);
  std::thread([&all] { all.clear(); }).join();
  EXPECT_EQ(count, 0);
  for (int i = 0; i < 1000; ++i) all.push_back(std::allocate_shared<Counted>(BlockAllocator<Counted>(), &count));
  for (const auto& one : all) EXPECT_EQ(one->more[4], 5u);
  std::set<const Counted*> different;
  for (const auto& one : all) different.insert(one.get());
  EXPECT_EQ(different.size(), 1000u);
}

TEST(BlockAllocator, HoldsWithThreadsThatTakeAndGiveBackAtOnce) {
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      BlockAllocator<std::array<uint64_t, 4>> allocator;
      std::vector<std::array<uint64_t, 4>*> mine;
      for (uint64_t i = 0; i < 20'000; ++i) {
        if (i % 3 == 2) {
          ASSERT_EQ((*mine.back())[0], t);
          ASSERT_EQ((*mine.back())[3], mine.size());
          allocator.deallocate(mine.back(), 1);
          mine.pop_back();
        } else {
          mine.push_back(allocator.allocate(1));
          *mine.back() = {t, 0, 0, mine.size()};
        }
      }
      for (auto* block : mine) allocator.deallocate(block, 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace vswitch
