#include "datapath/flow_table/flow_table.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "datapath/base/rcu.h"
#include "datapath/flow/flow_mask.h"
#include "tests/support/random_match.h"

namespace vswitch {
namespace {

using test::RandomMatches;

FlowKey key_to(uint32_t destination, uint32_t in_port = 1) {
  FlowKey key;
  key.in_port = in_port;
  key.eth_type = kEthTypeIpv4;
  key.nw_dst = to_be32(destination);
  return key;
}

FlowMask mask_of(uint32_t destination_bits) {
  FlowMask mask;
  mask.in_port = ~0u;
  mask.nw_dst = to_be32(destination_bits);
  return mask;
}

class FlowTableTest : public testing::Test {
 protected:
  Flow* add(const FlowKey& key, const FlowMask& mask, uint32_t port = 1, Ufid ufid = {}) {
    Result<Flow*> flow = table_.insert(key, mask, {OutputAction{port}}, ufid, nullptr);
    return flow.ok() ? *flow : nullptr;
  }

  rcu::ReaderScope reader_;
  ManualClock clock_;
  FlowTable table_{clock_, 5};
};

TEST_F(FlowTableTest, FindsByMaskedKey) {
  Flow* flow = add(key_to(0x0a000000), mask_of(0xffffff00), 7);
  ASSERT_NE(flow, nullptr);
  uint32_t visited = 0;
  EXPECT_EQ(table_.lookup(key_to(0x0a0000fe), &visited), flow);
  EXPECT_EQ(visited, 1u);
  EXPECT_EQ(table_.lookup(key_to(0x0a0001fe)), nullptr);
  EXPECT_EQ(table_.lookup(key_to(0x0a0000fe, 2)), nullptr);
  EXPECT_EQ(flow->actions(), ActionList{OutputAction{7}});
  EXPECT_EQ(flow->mask(), mask_of(0xffffff00));
  EXPECT_EQ(flow->key(), masked(key_to(0x0a000000), mask_of(0xffffff00)));
  EXPECT_EQ(flow->created(), clock_.now());
}

TEST_F(FlowTableTest, EmptyMaskMatchesEverything) {
  Flow* flow = add(FlowKey{}, FlowMask{});
  EXPECT_EQ(table_.lookup(key_to(1)), flow);
}

TEST_F(FlowTableTest, RefusesWhatIsThere) {
  Flow* flow = add(key_to(0x0a000001), mask_of(0xffffff00));
  const auto again = table_.insert(key_to(0x0a000002), mask_of(0xffffff00), {}, {}, nullptr);
  EXPECT_EQ(again.status().code(), StatusCode::already_exists);
  const auto same_ufid = table_.insert(key_to(0x0b000002), mask_of(0xffffff00), {}, flow->ufid(), nullptr);
  EXPECT_EQ(same_ufid.status().code(), StatusCode::already_exists);
  EXPECT_EQ(table_.counters().flows, 1u);
}

TEST_F(FlowTableTest, RefusesMoreThanItMayHold) {
  for (uint32_t i = 0; i < 5; ++i) ASSERT_NE(add(key_to(i), mask_of(~0u)), nullptr);
  const auto sixth = table_.insert(key_to(6), mask_of(0xffff0000), {}, {}, nullptr);
  EXPECT_EQ(sixth.status().code(), StatusCode::resource_exhausted);
  EXPECT_EQ(table_.counters().masks, 1u);
}

TEST_F(FlowTableTest, FillsInUfidsThatDiffer) {
  Flow* one = add(key_to(1), mask_of(~0u));
  Flow* other_key = add(key_to(2), mask_of(~0u));
  Flow* other_mask = add(key_to(1), mask_of(0xff));
  EXPECT_FALSE(one->ufid().is_zero());
  EXPECT_NE(one->ufid(), other_key->ufid());
  EXPECT_NE(one->ufid(), other_mask->ufid());
  EXPECT_EQ(table_.find(one->ufid()), one);
  EXPECT_EQ(add(key_to(3), mask_of(~0u), 1, Ufid{3, 4})->ufid(), (Ufid{3, 4}));
}

TEST_F(FlowTableTest, RemovedFlowKeepsItsStatistics) {
  Flow* flow = add(key_to(1), mask_of(~0u));
  flow->count(0, 2, 200, 5s, 0x02);
  const std::shared_ptr<const Flow> removed = table_.remove(flow->ufid());
  ASSERT_EQ(removed.get(), flow);
  flow->count(0, 1, 60, 6s, 0x10);  // a packet that was in flight
  EXPECT_TRUE(removed->dead());
  EXPECT_EQ(removed->stats().packets, 3u);
  EXPECT_EQ(removed->stats().tcp_flags, 0x12);
  EXPECT_EQ(table_.lookup(key_to(1)), nullptr);
  EXPECT_EQ(table_.remove(removed->ufid()), nullptr);
  EXPECT_FALSE(table_.set_actions(removed->ufid(), {}));
  EXPECT_EQ(table_.counters().masks, 0u);
}

TEST_F(FlowTableTest, SumsTheSlotsOfThreads) {
  Flow* flow = add(key_to(1), mask_of(~0u));
  EXPECT_EQ(flow->stats().used, Nanoseconds(0));
  flow->count(3, 1, 100, 5s, 0x02);
  flow->count(7, 10, 1000, 9s, 0x10);
  flow->count(0, 100, 10000, 7s, 0);
  flow->count(7, 10, 1000, 8s, 0x01);
  EXPECT_EQ(flow->stats().packets, 121u);
  EXPECT_EQ(flow->stats().bytes, 12100u);
  EXPECT_EQ(flow->stats().used, 8s);
  EXPECT_EQ(flow->stats().tcp_flags, 0x13);
}

TEST_F(FlowTableTest, ReplacesActions) {
  Flow* flow = add(key_to(1), mask_of(~0u), 1);
  const std::shared_ptr<const ActionList> before = flow->shared_actions();
  ASSERT_TRUE(table_.set_actions(flow->ufid(), {OutputAction{2}, OutputAction{3}}));
  EXPECT_EQ(flow->actions(), (ActionList{OutputAction{2}, OutputAction{3}}));
  EXPECT_EQ(*before, ActionList{OutputAction{1}});
}

TEST_F(FlowTableTest, InstallerDataDiesWithTheFlow) {
  const auto data = std::make_shared<int>(5);
  const auto flow = table_.insert(key_to(1), mask_of(~0u), {}, {}, data);
  ASSERT_TRUE(flow.ok());
  EXPECT_EQ(data.use_count(), 2);
  table_.remove((*flow)->ufid());
  rcu::barrier();
  rcu::barrier();  // the flow itself is retired by what the first one ran
  EXPECT_EQ(data.use_count(), 1);
}

TEST_F(FlowTableTest, RerankPutsTheMostHitMaskFirst) {
  add(key_to(0x0a000001), mask_of(~0u));
  Flow* flow = add(key_to(0x0b000000), mask_of(0xff000000));
  uint32_t visited = 0;
  EXPECT_EQ(table_.lookup(key_to(0x0b010203), &visited), flow);
  EXPECT_EQ(visited, 2u);
  table_.rerank();
  visited = 0;
  EXPECT_EQ(table_.lookup(key_to(0x0b010203), &visited), flow);
  EXPECT_EQ(visited, 1u);
  const auto masks = table_.masks();
  ASSERT_EQ(masks.size(), 2u);
  EXPECT_EQ(masks[0].mask, mask_of(0xff000000));
  EXPECT_EQ(masks[0].flows, 1u);
  EXPECT_EQ(masks[0].hits, 2u);
}

TEST_F(FlowTableTest, VisitsAllUntilTold) {
  for (uint32_t i = 0; i < 5; ++i) add(key_to(i), mask_of(~0u));
  int visits = 0;
  table_.for_each([&visits](Flow&) { return ++visits > 0; });
  EXPECT_EQ(visits, 5);
  visits = 0;
  table_.for_each([&visits](Flow&) { return ++visits < 2; });
  EXPECT_EQ(visits, 2);
  table_.clear();
  EXPECT_EQ(table_.counters().flows, 0u);
}

TEST_F(FlowTableTest, CacheVerifiesWhatItRemembers) {
  FlowCache cache(table_);
  Flow* flow = add(key_to(1), mask_of(~0u));
  Flow* other = add(key_to(2), mask_of(~0u));
  EXPECT_EQ(cache.lookup(99, key_to(1)), nullptr);
  cache.insert(99, flow);
  EXPECT_EQ(cache.lookup(99, key_to(1)), flow);
  EXPECT_EQ(cache.lookup(99, key_to(2)), nullptr);  // collision
  cache.insert(99 + FlowCache::kEntries, other);    // same set
  EXPECT_EQ(cache.lookup(99, key_to(1)), flow);
  EXPECT_EQ(cache.lookup(99 + FlowCache::kEntries, key_to(2)), other);
}

TEST_F(FlowTableTest, CacheForgetsRemovedFlows) {
  const auto data = std::make_shared<int>(5);
  FlowCache cache(table_);
  const auto flow = table_.insert(key_to(1), mask_of(~0u), {}, {}, data);
  ASSERT_TRUE(flow.ok());
  cache.insert(5, *flow);
  table_.remove((*flow)->ufid());
  EXPECT_EQ(cache.lookup(5, key_to(1)), nullptr);
  for (size_t i = 0; i < FlowCache::kEntries; ++i) cache.purge_removed();
  rcu::barrier();
  rcu::barrier();
  EXPECT_EQ(data.use_count(), 1);
}

// A few hundred random changes and lookups, against a list.
void check_random_table(uint64_t seed) {
  const rcu::ReaderScope reader;
  RandomMatches random(seed);
  const ManualClock clock;
  FlowTable table(clock);
  FlowCache cache(table);
  std::vector<Flow*> present;
  std::vector<FlowKey> keys;
  for (int i = 0; i < 20; ++i) keys.push_back(random.key().packet);
  for (int step = 0; step < 200; ++step) {
    if (present.size() < 60 && random.one_in(3)) {
      const Match match = random.match();
      const bool there = std::any_of(present.begin(), present.end(), [&](const Flow* flow) {
        return flow->mask() == match.mask.packet && flow->key() == match.value.packet;
      });
      const auto flow =
          table.insert(random.agreeing(match.value, match.mask).packet, match.mask.packet, {}, {}, nullptr);
      RC_ASSERT(flow.ok() == !there);
      if (flow.ok()) present.push_back(*flow);
    } else if (!present.empty() && random.one_in(3)) {
      const size_t at = random.below(static_cast<uint32_t>(present.size()));
      const Ufid ufid = present[at]->ufid();
      present.erase(present.begin() + static_cast<ptrdiff_t>(at));
      RC_ASSERT(table.remove(ufid) != nullptr);
      RC_ASSERT(table.find(ufid) == nullptr);
    } else if (random.one_in(10)) {
      table.rerank();
    }
    const uint32_t which = random.below(20);
    const FlowKey& key = keys[which];
    const auto is_right = [&](const Flow* found) {
      const auto matching = [&](const Flow* flow) { return matches(key, flow->key(), flow->mask()); };
      if (found == nullptr) return std::none_of(present.begin(), present.end(), matching);
      return matching(found) && std::find(present.begin(), present.end(), found) != present.end();
    };
    Flow* found = table.lookup(key);
    RC_ASSERT(is_right(found));
    const uint32_t hash = random.one_in(2) ? which : 1;  // collisions
    Flow* cached = cache.lookup(hash, key);
    if (cached != nullptr) RC_ASSERT(is_right(cached));
    if (found != nullptr) cache.insert(hash, found);
    cache.purge_removed();
  }
  RC_ASSERT(table.counters().flows == present.size());
  std::vector<const FlowKey*> pointers;
  for (size_t i = 0; i < 70; ++i) pointers.push_back(&keys[i % 20]);
  std::vector<Flow*> flows(70);
  table.lookup_batch(pointers.data(), pointers.size(), flows.data());
  for (size_t i = 0; i < 70; ++i) RC_ASSERT(flows[i] == table.lookup(*pointers[i]));
}

TEST(FlowTablePropertyTest, AgreesWithAList) {
  ASSERT_TRUE(rc::check([] {
    const auto seed = *rc::gen::noShrink(rc::gen::arbitrary<uint64_t>());
    for (uint64_t i = 0; i < 5; ++i) check_random_table(seed + i);
  }));
}

// Readers with caches look up stable flows, which must always be found, and passing ones, which must be right when
// found.
TEST(FlowTableConcurrencyTest, ReadersWhileOneWrites) {
  const ManualClock clock;
  FlowTable table(clock);
  constexpr uint32_t kStable = 500, kPassing = 500;
  const FlowMask masks[] = {mask_of(~0u), mask_of(0x00ffffff), mask_of(0x0fffffff)};
  for (uint32_t i = 0; i < kStable; ++i) {
    ASSERT_TRUE(table.insert(key_to(i), masks[i % 3], {OutputAction{i}}, {}, nullptr).ok());
  }
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0}, rounds{0};
  const auto read = [&](size_t index) {
    const rcu::ThreadRegistration registration;
    FlowCache cache(table);
    while (!stop.load(std::memory_order_relaxed)) {
      for (uint32_t i = 0; i < kStable + kPassing; ++i) {
        const FlowKey key = key_to(i);
        Flow* flow = cache.lookup(i % 700, key);
        if (flow == nullptr) flow = table.lookup(key);
        if (flow != nullptr) {
          cache.insert(i % 700, flow);
          flow->count(index, 1, 64, 1s, 0);
          const ActionList& actions = flow->actions();
          if (std::get<OutputAction>(actions.at(0)).port_no % 1000 != i) wrong.fetch_add(1);
        } else if (i < kStable) {
          wrong.fetch_add(1);
        }
        if (i % 32 == 0) {
          cache.purge_removed();
          rcu::quiescent();
        }
      }
      rounds.fetch_add(1, std::memory_order_relaxed);
    }
  };
  std::thread one(read, 0), two(read, 1);
  RandomMatches random(3);
  std::map<uint32_t, Ufid> passing;
  for (int step = 0; step < 20000 || rounds.load() < 4; ++step) {
    const uint32_t i = kStable + random.below(kPassing);
    if (const auto at = passing.find(i); at == passing.end()) {
      const auto flow = table.insert(key_to(i), masks[i % 3], {OutputAction{i}}, {}, nullptr);
      ASSERT_TRUE(flow.ok());
      passing[i] = (*flow)->ufid();
    } else if (random.one_in(3)) {
      ASSERT_TRUE(table.set_actions(at->second, {OutputAction{i + 1000}}));
    } else {
      ASSERT_NE(table.remove(at->second), nullptr);
      passing.erase(at);
    }
    if (step % 1000 == 0) table.rerank();
  }
  stop = true;
  one.join();
  two.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_EQ(table.counters().flows, kStable + passing.size());
}

}  // namespace
}  // namespace vswitch
