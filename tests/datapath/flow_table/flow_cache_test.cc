#include "datapath/flow_table/flow_cache.h"

#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

#include "datapath/base/rcu.h"

namespace vswitch {
namespace {

constexpr uint64_t tagged(uint64_t tag, uint64_t bucket) { return tag << 48 | bucket; }

FlowKey key_to(uint32_t destination) {
  FlowKey key;
  key.eth_type = kEthTypeIpv4;
  key.nw_dst = to_be32(destination);
  return key;
}

class FlowCacheTest : public testing::Test {
 protected:
  // Of connections of one bucket: its own places and those of the bucket beside it.
  static constexpr uint32_t kPlaces = 2 * FlowCache::kWays;

  Flow* add(uint32_t destination) { return add(destination, {OutputAction{destination}}); }
  Flow* add(uint32_t destination, ActionList actions) {
    FlowMask mask;
    mask.nw_dst = to_be32(~0u);
    return *table_.insert(key_to(destination), mask, std::move(actions), {}, nullptr);
  }
  uint32_t find_batch(const uint64_t hashes[], const FlowKey* const keys[], uint32_t wanted, Flow* flows[]) {
    return cache_.confirm_batch(hashes, keys, cache_.recall_batch(hashes, wanted, flows).known, flows);
  }

  rcu::ReaderScope reader_;
  ManualClock clock_;
  FlowTable table_{clock_};
  FlowCache cache_;
};

TEST_F(FlowCacheTest, VerifiesWhatItRemembers) {
  Flow* flow = add(1);
  EXPECT_EQ(cache_.lookup(tagged(7, 3), key_to(1)), nullptr);
  cache_.insert(tagged(7, 3), flow);
  EXPECT_EQ(cache_.lookup(tagged(7, 3), key_to(1)), flow);
  EXPECT_EQ(cache_.lookup(tagged(7, 3), key_to(2)), nullptr);  // collision
  EXPECT_EQ(cache_.lookup(tagged(8, 3), key_to(1)), nullptr);
  EXPECT_EQ(cache_.lookup(tagged(7, 4), key_to(1)), nullptr);
}

TEST_F(FlowCacheTest, HoldsAsManyAsTwoBucketsHaveWays) {
  std::vector<Flow*> flows;
  for (uint32_t i = 0; i < kPlaces; ++i) flows.push_back(add(i));
  for (const uint64_t bucket : {uint64_t{4}, uint64_t{5}, FlowCache::kFirstBuckets - 1}) {
    FlowCache cache;
    for (uint32_t i = 0; i < kPlaces; ++i) cache.insert(tagged(i, bucket), flows[i]);
    for (uint32_t i = 0; i < kPlaces; ++i) EXPECT_EQ(cache.lookup(tagged(i, bucket), key_to(i)), flows[i]) << bucket;
    EXPECT_EQ(cache.evictions(), 0u);
  }
}

TEST_F(FlowCacheTest, ForgetsRemovedFlowsAndReusesTheirPlace) {
  for (uint32_t i = 0; i < kPlaces; ++i) cache_.insert(tagged(i, 5), add(i));
  table_.remove(table_.lookup(key_to(2))->ufid());
  EXPECT_EQ(cache_.lookup(tagged(2, 5), key_to(2)), nullptr);
  Flow* flow = add(100);
  cache_.insert(tagged(100, 5), flow);
  EXPECT_EQ(cache_.lookup(tagged(100, 5), key_to(100)), flow);
  EXPECT_EQ(cache_.evictions(), 0u);
}

// The memory of a flow that is gone serves the next one: an old entry must not take it for what it was.
TEST_F(FlowCacheTest, IsNotFooledByRecycledFlows) {
  Flow* flow = add(1);
  cache_.insert(tagged(1, 1), flow);
  table_.remove(flow->ufid());
  rcu::barrier();
  Flow* next = add(2);
  ASSERT_EQ(next, flow) << "the memory was not used again: the test shows nothing";
  EXPECT_EQ(cache_.lookup(tagged(1, 1), key_to(1)), nullptr);
  EXPECT_EQ(next->stats().packets, 0u);
}

// A flood of connections that never come again leaves most of the others their place.
TEST_F(FlowCacheTest, ResistsAFlood) {
  for (uint32_t i = 0; i < kPlaces; ++i) cache_.insert(tagged(i, 5), add(i));
  Flow* other = add(1000);
  for (uint64_t i = 0; i < 8; ++i) cache_.insert(tagged(1000 + i, 5), other);
  size_t kept = 0;
  for (uint32_t i = 0; i < kPlaces; ++i) kept += cache_.lookup(tagged(i, 5), key_to(i)) != nullptr;
  EXPECT_EQ(kept, kPlaces - 1);
  EXPECT_EQ(cache_.evictions(), 1u);
}

TEST_F(FlowCacheTest, GrowsWhenManyFindNoPlace) {
  Flow* flow = add(1);
  const size_t before = cache_.buckets();
  cache_.maintain();
  EXPECT_EQ(cache_.buckets(), before);
  for (uint64_t i = 0; i < before * 2; ++i) cache_.insert(tagged(i, 5), flow);
  cache_.maintain();
  EXPECT_EQ(cache_.buckets(), before * 2);
  cache_.insert(tagged(1, before + 5), flow);
  EXPECT_EQ(cache_.lookup(tagged(1, before + 5), key_to(1)), flow);
}

// A table twice the size for a few connections would cost all others more.
TEST_F(FlowCacheTest, DoesNotGrowForAFew) {
  Flow* flow = add(1);
  const size_t before = cache_.buckets();
  std::array<const FlowKey*, FlowCache::kBatch> keys;
  const FlowKey key = key_to(1);
  keys.fill(&key);
  std::array<uint64_t, FlowCache::kBatch> hashes;
  for (size_t i = 0; i < hashes.size(); ++i) hashes[i] = tagged(i, i);
  Flow* flows[FlowCache::kBatch];
  const auto use = [&](size_t packets_for_each_refused) {
    uint64_t tag = 0;
    for (size_t refused = 0; refused < 2 * before; ++refused) {
      cache_.insert(tagged(1000 + ++tag, 5), flow);
      for (size_t packets = 0; packets < packets_for_each_refused; packets += FlowCache::kBatch) {
        EXPECT_EQ(find_batch(hashes.data(), keys.data(), ~uint32_t{0}, flows), 0u);
      }
      cache_.maintain();
    }
  };
  use(2048);
  EXPECT_EQ(cache_.buckets(), before);
  use(512);
  EXPECT_EQ(cache_.buckets(), before * 2) << "whatever was asked before";
}

// In batches too, those are found that are in the bucket beside theirs.
TEST_F(FlowCacheTest, FindsBatchesOfCrowdedBuckets) {
  std::vector<FlowKey> keys;
  std::vector<const FlowKey*> pointers;
  std::vector<uint64_t> hashes;
  for (uint32_t i = 0; i < kPlaces; ++i) {
    keys.push_back(key_to(i));
    hashes.push_back(tagged(i, 9));
    cache_.insert(hashes[i], add(i));
  }
  for (const FlowKey& key : keys) pointers.push_back(&key);
  Flow* flows[FlowCache::kBatch] = {};
  const uint32_t all = (uint32_t{1} << kPlaces) - 1;
  EXPECT_EQ(find_batch(hashes.data(), pointers.data(), all, flows), all);
  for (uint32_t i = 0; i < kPlaces; ++i) EXPECT_EQ(flows[i], table_.lookup(keys[i]));
  hashes[1] = tagged(1, 7);
  hashes[7] = tagged(300, 9);
  EXPECT_EQ(find_batch(hashes.data(), pointers.data(), all, flows), all & ~(1u << 1 | 1u << 7));
}

// Which flows only dropped packets when they were inserted, in whatever place they lie.
TEST_F(FlowCacheTest, RemembersDrops) {
  std::vector<uint64_t> hashes;
  uint32_t dropping = 0;
  for (uint32_t i = 0; i < kPlaces; ++i) {
    hashes.push_back(tagged(i, 9));
    if (i % 3 == 0) dropping |= uint32_t{1} << i;
    cache_.insert(hashes[i], i % 3 == 0 ? add(i, {}) : add(i));
  }
  Flow* flows[FlowCache::kBatch] = {};
  const uint32_t all = (uint32_t{1} << kPlaces) - 1;
  const auto drops = [&] { return cache_.recall_batch(hashes.data(), all, flows).drops; };
  EXPECT_EQ(drops(), dropping);
  EXPECT_EQ(cache_.recall_batch(hashes.data(), all & ~1u, flows).drops, dropping & ~1u) << "of those asked for";
  // What changes is not known until it is inserted anew: the place of one that drops, and of one that does not.
  Flow* const now_sends = table_.lookup(key_to(3));
  Flow* const now_drops = table_.lookup(key_to(7));
  ASSERT_TRUE(table_.set_actions(now_sends->ufid(), {OutputAction{3}}));
  ASSERT_TRUE(table_.set_actions(now_drops->ufid(), {DropAction{DropReason::ttl_exceeded}}));
  EXPECT_EQ(drops(), dropping);
  cache_.insert(hashes[3], now_sends);
  cache_.insert(hashes[7], now_drops);
  EXPECT_EQ(drops(), (dropping & ~(1u << 3)) | 1u << 7);
  EXPECT_EQ(flows[3], now_sends);
  EXPECT_EQ(flows[7], now_drops);
}

// Only flows of these very packets that drop now; the reason is that of now, too.
TEST_F(FlowCacheTest, ConfirmsDrops) {
  const Flow* still_drops = add(0, {});
  const Flow* for_another_reason = add(1, {});
  const Flow* sends = add(2, {});
  const Flow* gone = add(3, {});
  const Flow* of_another = add(4, {});
  ASSERT_TRUE(table_.set_actions(for_another_reason->ufid(), {DropAction{DropReason::ttl_exceeded}}));
  ASSERT_TRUE(table_.set_actions(sends->ufid(), {OutputAction{3}}));
  Flow* const flows[] = {table_.lookup(key_to(0)), table_.lookup(key_to(1)), table_.lookup(key_to(2)),
                         table_.lookup(key_to(3)), table_.lookup(key_to(4))};
  ASSERT_EQ(flows[4], of_another);
  ASSERT_TRUE(table_.remove(gone->ufid()));
  const FlowKey keys[] = {key_to(0), key_to(1), key_to(2), key_to(3), key_to(5)};
  const FlowKey* const pointers[] = {&keys[0], &keys[1], &keys[2], &keys[3], &keys[4]};
  uint32_t shortcuts[FlowCache::kBatch] = {};
  EXPECT_EQ(cache_.confirm_drops(pointers, 0b11111, flows, shortcuts), 0b00011u);
  EXPECT_EQ(shortcuts[0], still_drops->shortcut().value());
  EXPECT_EQ(Flow::Shortcut(shortcuts[0]).reason(), DropReason::of_pipeline);
  EXPECT_EQ(Flow::Shortcut(shortcuts[1]).reason(), DropReason::ttl_exceeded);
  EXPECT_EQ(cache_.confirm_drops(pointers, 0b11110, flows, shortcuts), 0b00010u) << "of those asked for";
}

TEST_F(FlowCacheTest, FindsBatches) {
  std::vector<FlowKey> keys;
  std::vector<const FlowKey*> pointers;
  std::vector<uint64_t> hashes;
  for (uint32_t i = 0; i < FlowCache::kBatch; ++i) {
    keys.push_back(key_to(i));
    hashes.push_back(tagged(i % 5, i));
    if (i % 3 != 0) cache_.insert(hashes[i], add(i));
  }
  cache_.insert(hashes[3], table_.lookup(key_to(1)));  // a collision
  for (const FlowKey& key : keys) pointers.push_back(&key);
  Flow* flows[FlowCache::kBatch] = {};
  const uint32_t wanted = ~uint32_t{0} << 2;
  const uint32_t found = find_batch(hashes.data(), pointers.data(), wanted, flows);
  for (uint32_t i = 0; i < FlowCache::kBatch; ++i) {
    EXPECT_EQ(found >> i & 1, i >= 2 && i % 3 != 0) << i;
    if ((found >> i & 1) != 0) {
      EXPECT_EQ(flows[i], table_.lookup(keys[i]));
    }
  }
}

}  // namespace
}  // namespace vswitch
