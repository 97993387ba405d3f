#include "vswitchd/rules/match.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <array>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/random_match.h"

namespace vswitch {
namespace {

TEST(MiniMatch, SaysWhatTheMatchSays) {
  ASSERT_TRUE(rc::check("expand() and value_at() give the match back", [](uint64_t seed) {
    const Match match = test::RandomMatches(seed).match();
    const MiniMatch mini = match;
    RC_ASSERT(mini.expand() == match);
    RC_ASSERT(mini.is_catch_all() == match.is_catch_all());
    for (size_t i = 0; i < kPipelineKeyWords; ++i) RC_ASSERT(mini.value_at(i) == words(match.value)[i]);
  }));
}

TEST(MiniMatch, CopiesShareAndOutliveEachOther) {
  Match match;
  match.mask.packet.in_port = ~0u;
  match.value.packet.in_port = 7;
  MiniMatch copy;
  {
    const MiniMatch first = match;
    copy = first;
    EXPECT_EQ(copy.values(), first.values());
  }
  EXPECT_EQ(copy.expand(), match);
  const MiniMatch& same = copy;
  copy = same;
  EXPECT_EQ(copy, MiniMatch(match));
  const MiniMatch moved = std::move(copy);
  EXPECT_EQ(moved.expand(), match);
  EXPECT_TRUE(copy.is_catch_all());  // NOLINT(bugprone-use-after-move): a moved-from match matches everything
}

TEST(MiniMatch, CopyAtAPlaceOfItsOwnLeavesOrdinaryCopies) {
  Match match;
  match.mask.packet.in_port = ~0u;
  match.value.packet.in_port = 7;
  match.mask.pipeline.reg[3] = 0xff;
  match.value.pipeline.reg[3] = 9;
  alignas(uint64_t) std::array<uint8_t, 128> place{};
  MiniMatch outlives;
  {
    const MiniMatch first(match);
    ASSERT_LE(first.memory_bytes(), place.size());
    const MiniMatch there = first.copied_to(place.data());
    EXPECT_EQ(there, first);
    EXPECT_EQ(there.word_count(), 2u);
    EXPECT_EQ(reinterpret_cast<const uint8_t*>(there.values()) - place.data(), 24);
    const MiniMatch copy = there;
    EXPECT_NE(copy.values(), there.values());
    outlives = copy;
  }
  place.fill(0xff);
  EXPECT_EQ(outlives.expand(), match);
  EXPECT_TRUE(MiniMatch().copied_to(place.data()).is_catch_all());
}

TEST(MiniMatch, CopiesOfOneMayGoInDifferentThreads) {
  Match match;
  match.mask.packet.in_port = ~0u;
  match.value.packet.in_port = 7;
  for (int round = 0; round < 100; ++round) {
    MiniMatch first = match;
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([copy = first] {
        const MiniMatch another = copy;
        EXPECT_EQ(another.value_at(0), copy.value_at(0));
      });
    }
    first = MiniMatch();
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace
}  // namespace vswitch
