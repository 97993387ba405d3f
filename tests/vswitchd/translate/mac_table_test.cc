#include "vswitchd/translate/mac_table.h"

#include <gtest/gtest.h>

#include <thread>

namespace vswitch {
namespace {

MacAddress mac(uint64_t n) { return MacAddress::from_u64(0x020000000000 + n); }

TEST(MacTable, LearnsPerVlan) {
  ManualClock clock;
  MacTable table(clock);
  EXPECT_EQ(std::nullopt, table.lookup(1, mac(1)));
  EXPECT_TRUE(table.learn(1, mac(1), 5));
  EXPECT_TRUE(table.learn(2, mac(1), 6));
  EXPECT_EQ(5, table.lookup(1, mac(1)));
  EXPECT_EQ(6, table.lookup(2, mac(1)));
  EXPECT_EQ(std::nullopt, table.lookup(3, mac(1)));
  EXPECT_EQ(2u, table.counters().learned);
}

TEST(MacTable, NeverLearnsMulticast) {
  ManualClock clock;
  MacTable table(clock);
  EXPECT_FALSE(table.learn(0, MacAddress::from_u64(0x010000000001), 1));
  EXPECT_FALSE(table.learn(0, MacAddress::from_u64(0xffffffffffff), 1));
  EXPECT_TRUE(table.entries().empty());
}

TEST(MacTable, RefreshingIsNoChangeButMovingIs) {
  ManualClock clock;
  MacTable table(clock);
  table.learn(1, mac(1), 5);
  const uint64_t generation = table.generation();
  clock.advance(100s);
  EXPECT_FALSE(table.learn(1, mac(1), 5));
  EXPECT_EQ(generation, table.generation());
  EXPECT_TRUE(table.learn(1, mac(1), 6));
  EXPECT_NE(generation, table.generation());
  EXPECT_EQ(6, table.lookup(1, mac(1)));
  EXPECT_EQ(1u, table.counters().moved);
}

TEST(MacTable, AgesWhatIsNotSeen) {
  ManualClock clock;
  MacTable table(clock);
  table.learn(1, mac(1), 5);
  table.learn(1, mac(2), 5);
  clock.advance(299s);
  EXPECT_FALSE(table.expire());
  table.learn(1, mac(2), 5);
  clock.advance(1s);
  EXPECT_EQ(std::nullopt, table.lookup(1, mac(1)));  // also before expire() comes round
  EXPECT_EQ(5, table.lookup(1, mac(2)));
  const uint64_t generation = table.generation();
  EXPECT_TRUE(table.expire());
  EXPECT_NE(generation, table.generation());
  EXPECT_FALSE(table.expire());
  EXPECT_EQ(1u, table.entries().size());
  EXPECT_EQ(1u, table.counters().expired);
}

TEST(MacTable, AnExpiredEntryIsLearnedAnew) {
  ManualClock clock;
  MacTable table(clock);
  table.learn(1, mac(1), 5);
  clock.advance(301s);
  EXPECT_TRUE(table.learn(1, mac(1), 5));
  EXPECT_EQ(5, table.lookup(1, mac(1)));
}

TEST(MacTable, StaticEntriesNeitherAgeNorMove) {
  ManualClock clock;
  MacTable table(clock);
  ASSERT_TRUE(table.add_static(1, mac(1), 5).ok());
  clock.advance(10000s);
  EXPECT_FALSE(table.expire());
  EXPECT_FALSE(table.learn(1, mac(1), 6));
  EXPECT_EQ(5, table.lookup(1, mac(1)));
  table.flush();
  EXPECT_EQ(5, table.lookup(1, mac(1)));
  EXPECT_TRUE(table.remove(1, mac(1)));
  EXPECT_FALSE(table.remove(1, mac(1)));
}

TEST(MacTable, AStaticEntryReplacesALearnedOne) {
  ManualClock clock;
  MacTable table(clock);
  table.learn(1, mac(1), 5);
  ASSERT_TRUE(table.add_static(1, mac(1), 6).ok());
  EXPECT_EQ(6, table.lookup(1, mac(1)));
  EXPECT_EQ(1u, table.entries().size());
  EXPECT_EQ(StatusCode::invalid_argument, table.add_static(1, MacAddress::from_u64(0x010000000000), 1).code());
  EXPECT_EQ(StatusCode::invalid_argument, table.add_static(4096, mac(9), 1).code());
}

TEST(MacTable, AFloodFromOnePortDoesNotEvictTheOthers) {
  ManualClock clock;
  MacTable table(clock);
  table.configure(20, MacTable::kDefaultAgeing);
  for (uint64_t i = 0; i < 5; ++i) table.learn(1, mac(i), 1);
  for (uint64_t i = 100; i < 1000; ++i) {
    clock.advance(1ms);
    table.learn(1, mac(i), 2);
  }
  EXPECT_EQ(20u, table.entries().size());
  for (uint64_t i = 0; i < 5; ++i) EXPECT_EQ(1, table.lookup(1, mac(i))) << i;
  EXPECT_EQ(2, table.lookup(1, mac(999)));
  EXPECT_EQ(2, table.lookup(1, mac(985)));
  EXPECT_EQ(std::nullopt, table.lookup(1, mac(984)));
  EXPECT_EQ(885u, table.counters().evicted);
}

TEST(MacTable, TheLeastRecentlySeenGoesFirst) {
  ManualClock clock;
  MacTable table(clock);
  table.configure(10, MacTable::kDefaultAgeing);
  for (uint64_t i = 0; i < 10; ++i) table.learn(1, mac(i), 1);
  clock.advance(2s);
  table.learn(1, mac(0), 1);
  table.learn(1, mac(10), 1);
  EXPECT_EQ(1, table.lookup(1, mac(0)));
  EXPECT_EQ(std::nullopt, table.lookup(1, mac(1)));
}

TEST(MacTable, ConfigurationIsClampedAndShrinks) {
  ManualClock clock;
  MacTable table(clock);
  for (uint64_t i = 0; i < 50; ++i) table.learn(1, mac(i), 1);
  table.configure(1, 1s);  // 10 entries, 15 s
  EXPECT_EQ(10u, table.entries().size());
  clock.advance(14s);
  EXPECT_EQ(1, table.lookup(1, mac(49)));
  clock.advance(1s);
  EXPECT_EQ(std::nullopt, table.lookup(1, mac(49)));
}

TEST(MacTable, AFullTableOfStaticEntriesRefuses) {
  ManualClock clock;
  MacTable table(clock);
  table.configure(10, MacTable::kDefaultAgeing);
  for (uint64_t i = 0; i < 10; ++i) ASSERT_TRUE(table.add_static(1, mac(i), 1).ok());
  EXPECT_EQ(StatusCode::resource_exhausted, table.add_static(1, mac(10), 1).code());
  EXPECT_FALSE(table.learn(1, mac(10), 1));
}

TEST(MacTable, RemovesPorts) {
  ManualClock clock;
  MacTable table(clock);
  table.learn(1, mac(1), 5);
  table.learn(1, mac(2), 6);
  ASSERT_TRUE(table.add_static(1, mac(3), 5).ok());
  table.remove_port(5);
  ASSERT_EQ(1u, table.entries().size());
  EXPECT_EQ(6, table.entries()[0].port);
}

TEST(MacTable, IsUsedFromManyThreads) {
  ManualClock clock;
  MacTable table(clock);
  table.configure(100, MacTable::kDefaultAgeing);
  std::vector<std::thread> threads;
  for (OfPort port = 1; port <= 4; ++port) {
    threads.emplace_back([&, port] {
      for (uint64_t i = 0; i < 5000; ++i) {
        table.learn(1, mac(i % 150), port);
        table.lookup(1, mac((i * 7) % 150));
        if (i % 500 == 0) table.expire();
        clock.advance(10ms);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(table.entries().size(), 100u);
}

// A listing goes through the table in parts, and begins anew when the table grows meanwhile.
TEST(MacTable, AListingHasEachEntryOnceWhileOthersLearn) {
  constexpr uint64_t kThere = 5000, kMore = 20'000;
  ManualClock clock;
  MacTable table(clock);
  table.configure(kThere + kMore, MacTable::kDefaultAgeing);
  for (uint64_t i = 0; i < kThere; ++i) table.learn(1, mac(i), 1);
  const std::jthread learner([&] {
    for (uint64_t i = kThere; i < kThere + kMore; ++i) table.learn(1, mac(i), 2);
  });
  for (size_t listed = 0; listed < kThere + kMore;) {
    const std::vector<MacEntry> entries = table.entries();
    listed = entries.size();
    ASSERT_GE(listed, kThere);
    for (uint64_t i = 0; i < kThere; ++i) ASSERT_EQ(entries[i].mac, mac(i));  // sorted, so none is missing or twice
  }
}

TEST(MacTable, AllOfManyGo) {
  constexpr uint64_t kEach = 3000;  // several parts
  ManualClock clock;
  MacTable table(clock);
  table.configure(4 * kEach, MacTable::kDefaultAgeing);
  const auto learn_all = [&] {
    for (uint64_t i = 0; i < 2 * kEach; ++i) table.learn(1, mac(i), 1 + i % 2);
  };
  learn_all();
  ASSERT_TRUE(table.add_static(2, mac(1), 1).ok());
  clock.advance(301s);
  for (uint64_t i = 0; i < kEach; ++i) table.learn(3, mac(i), 1);
  EXPECT_TRUE(table.expire());
  EXPECT_EQ(table.counters().expired, 2 * kEach);
  EXPECT_EQ(table.entries().size(), kEach + 1);
  EXPECT_FALSE(table.expire());
  learn_all();
  table.remove_port(1);
  EXPECT_EQ(table.entries().size(), kEach) << "those of port 2";
  table.flush();
  EXPECT_TRUE(table.entries().empty());
}

}  // namespace
}  // namespace vswitch
