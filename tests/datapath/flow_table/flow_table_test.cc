#include "datapath/flow_table/flow_table.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <thread>
#include <vector>

#include "datapath/base/rcu.h"
#include "datapath/flow/flow_mask.h"
#include "datapath/flow_table/flow_cache.h"
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

HotWords hot_words(const KeyWord* all) {
  HotWords hot;
  std::copy_n(all, kHotWords, hot.begin());
  return hot;
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
  const auto again = table_.insert(key_to(0x0a000002), mask_of(0xffffff00), ActionList{}, {}, nullptr);
  EXPECT_EQ(again.status().code(), StatusCode::already_exists);
  const auto same_ufid = table_.insert(key_to(0x0b000002), mask_of(0xffffff00), ActionList{}, flow->ufid(), nullptr);
  EXPECT_EQ(same_ufid.status().code(), StatusCode::already_exists);
  EXPECT_EQ(table_.counters().flows, 1u);
}

TEST_F(FlowTableTest, RefusesMoreThanItMayHold) {
  for (uint32_t i = 0; i < 5; ++i) ASSERT_NE(add(key_to(i), mask_of(~0u)), nullptr);
  const auto sixth = table_.insert(key_to(6), mask_of(0xffff0000), ActionList{}, {}, nullptr);
  EXPECT_EQ(sixth.status().code(), StatusCode::resource_exhausted);
  EXPECT_EQ(table_.counters().masks, 1u);
}

using Refusal = FlowTable::Insertion::Refusal;

// Flows to insert together, and what their insertions point at.
class Together {
 public:
  void add(const FlowKey& key, const FlowMask& mask, uint32_t port, Ufid ufid = {}, FlowStats stats = {}) {
    Parts& flow = flows_.emplace_back(
        Parts{key, mask, Flow::make_actions({OutputAction{port}}), std::make_shared<uint32_t>(port)});
    insertions_.push_back({&flow.key, &flow.mask, &flow.actions, &flow.data, static_cast<uint16_t>(port), ufid, stats});
  }
  std::vector<Refusal> insert_into(FlowTable& table) {
    table.insert(insertions_);
    std::vector<Refusal> refusals;
    for (size_t i = 0; i < insertions_.size(); ++i) {
      const FlowTable::Insertion& one = insertions_[i];
      refusals.push_back(one.refusal);
      const bool inserted = one.refusal == Refusal::none;
      EXPECT_EQ(one.flow != nullptr, inserted);
      EXPECT_EQ(flows_[i].actions == nullptr, inserted) << "the flow has them, or they are where they were";
      EXPECT_EQ(flows_[i].data == nullptr, inserted);
      if (inserted) continue;
      EXPECT_EQ(*std::static_pointer_cast<uint32_t>(flows_[i].data), one.installer_bits);
    }
    return refusals;
  }
  Flow* flow(size_t i) const { return insertions_[i].flow; }
  size_t size() const { return insertions_.size(); }

 private:
  struct Parts {
    FlowKey key;
    FlowMask mask;
    Flow::ActionsRef actions;
    std::shared_ptr<void> data;
  };
  std::deque<Parts> flows_;
  std::vector<FlowTable::Insertion> insertions_;
};

TEST_F(FlowTableTest, InsertsTogetherAsOneByOne) {
  clock_.advance(5s);
  Together flows;
  flows.add(key_to(1), mask_of(~0u), 1, {}, {2, 300, 4s, 0x12});
  flows.add(key_to(2), mask_of(~0u), 2);
  flows.add(key_to(0x100), mask_of(0xff00), 3);
  EXPECT_EQ(flows.insert_into(table_), std::vector(3, Refusal::none));
  EXPECT_EQ(table_.counters().flows, 3u);
  EXPECT_EQ(table_.counters().masks, 2u);
  for (uint32_t i = 0; i < 3; ++i) {
    Flow* flow = flows.flow(i);
    EXPECT_EQ(flow->actions(), ActionList{OutputAction{i + 1}});
    EXPECT_EQ(flow->shortcut().port_no(), i + 1);
    EXPECT_EQ(flow->installer_bits(), i + 1);
    EXPECT_EQ(*std::static_pointer_cast<uint32_t>(flow->installer_data()), i + 1);
    EXPECT_EQ(flow->created(), clock_.now());
    EXPECT_EQ(table_.find(flow->ufid()), flow);
  }
  EXPECT_EQ(table_.lookup(key_to(1)), flows.flow(0));
  EXPECT_EQ(table_.lookup(key_to(2)), flows.flow(1));
  EXPECT_EQ(table_.lookup(key_to(0x177)), flows.flow(2));
  const FlowStats stats = flows.flow(0)->stats();
  EXPECT_EQ(stats.packets, 2u);
  EXPECT_EQ(stats.bytes, 300u);
  EXPECT_EQ(stats.used, 4s);
  EXPECT_EQ(stats.tcp_flags, 0x12);
  flows.flow(0)->count_in_passing(1, 1, 10, 6s, 0);
  flows.flow(0)->count(2, 1, 10, 7s, 0);
  EXPECT_EQ(flows.flow(0)->stats().packets, 4u);
  EXPECT_EQ(flows.flow(1)->stats().packets, 0u);
}

TEST_F(FlowTableTest, OfTwoThatAreTheSameTheFirstIsInserted) {
  Flow* there = add(key_to(1), mask_of(~0u));
  Together flows;
  flows.add(key_to(0xa00), mask_of(0xff00), 1);
  flows.add(key_to(0xa01), mask_of(0xff00), 2);
  flows.add(key_to(1), mask_of(~0u), 3);
  flows.add(key_to(2), mask_of(~0u), 4);
  EXPECT_EQ(flows.insert_into(table_), (std::vector{Refusal::none, Refusal::exists, Refusal::exists, Refusal::none}));
  EXPECT_EQ(table_.lookup(key_to(0xa02)), flows.flow(0));
  EXPECT_EQ(table_.lookup(key_to(1)), there);
  EXPECT_EQ(table_.counters().flows, 3u);
}

TEST_F(FlowTableTest, ThoseThatFindNoRoomAreRefused) {
  ASSERT_NE(add(key_to(100), mask_of(~0u)), nullptr);
  ASSERT_NE(add(key_to(101), mask_of(~0u)), nullptr);
  Together flows;
  for (uint32_t i = 0; i < 5; ++i) flows.add(key_to(i), mask_of(~0u), i);
  EXPECT_EQ(flows.insert_into(table_),
            (std::vector{Refusal::none, Refusal::none, Refusal::none, Refusal::full, Refusal::full}));
  Together more;
  more.add(key_to(7), mask_of(~0u), 7);
  more.add(key_to(7), mask_of(0xff), 7);
  EXPECT_EQ(more.insert_into(table_), std::vector(2, Refusal::full));
  EXPECT_EQ(table_.counters().flows, 5u);
  EXPECT_EQ(table_.counters().masks, 1u);
}

TEST_F(FlowTableTest, UfidsThatAreTakenAreRefusedAlsoTogether) {
  Together flows;
  flows.add(key_to(1), mask_of(~0u), 1, Ufid{1, 2});
  flows.add(key_to(2), mask_of(~0u), 2, Ufid{1, 2});
  flows.add(key_to(3), mask_of(0xff), 3, Ufid{1, 2});
  flows.add(key_to(4), mask_of(~0u), 4);
  EXPECT_EQ(flows.insert_into(table_),
            (std::vector{Refusal::none, Refusal::ufid_exists, Refusal::ufid_exists, Refusal::none}));
  EXPECT_EQ(table_.find(Ufid{1, 2}), flows.flow(0));
  EXPECT_EQ(table_.counters().masks, 1u) << "none is left without flows";
}

// More than are inserted under one lock, in turns of masks, with memory that other flows have left.
TEST_F(FlowTableTest, InsertsAnyNumberTogether) {
  FlowTable table(clock_);
  for (int round = 0; round < 3; ++round) {
    Together flows;
    for (uint32_t i = 0; i < 500; ++i) {
      FlowKey key = key_to(i);
      FlowMask mask = mask_of(i % 3 == 0 ? ~0u : 0x00ffffff);
      if (i % 5 == 0) {
        key.ipv6_dst.bytes[15] = static_cast<uint8_t>(i);
        mask.ipv6_dst.bytes[15] = 0xff;
      }
      flows.add(key, mask, i + 1);
    }
    EXPECT_EQ(flows.insert_into(table), std::vector(flows.size(), Refusal::none));
    for (uint32_t i = 0; i < 500; ++i) {
      ASSERT_EQ(table.find(flows.flow(i)->ufid()), flows.flow(i));
      ASSERT_EQ(flows.flow(i)->actions(), ActionList{OutputAction{i + 1}});
      ASSERT_EQ(flows.flow(i)->stats().packets, 0u);
      flows.flow(i)->count(1, 1, 1, 1s, 0);
    }
    EXPECT_EQ(table.counters().flows, 500u);
    table.clear();
    rcu::quiescent();
    rcu::barrier();
  }
}

// Threads that insert the same flows: each is inserted once.
TEST_F(FlowTableTest, ThreadsInsertTogetherAtTheSameTime) {
  FlowTable table(clock_);
  std::atomic<size_t> inserted{0}, refused{0};
  const auto work = [&] {
    const rcu::ThreadRegistration registration;
    for (uint32_t from = 0; from < 2000; from += 20) {
      Together flows;
      for (uint32_t i = from; i < from + 20; ++i) flows.add(key_to(i), mask_of(~0u), 1, {}, {1, 60, 1s, 0});
      for (const Refusal refusal : flows.insert_into(table)) ++(refusal == Refusal::none ? inserted : refused);
      rcu::quiescent();
    }
  };
  { std::jthread one(work), other(work); }
  EXPECT_EQ(inserted, 2000u);
  EXPECT_EQ(refused, 2000u);
  EXPECT_EQ(table.counters().flows, 2000u);
  for (uint32_t i = 0; i < 2000; ++i) ASSERT_NE(table.lookup(key_to(i)), nullptr);
}

// The next, larger array is there before it is needed, made without the lock.
TEST_F(FlowTableTest, HasRoomReadyWhenItIsNearlyFull) {
  FlowTable table(clock_);
  const rcu::ReaderScope reader;
  std::vector<ptrdiff_t> growth;  // of the memory, by ten flows each
  size_t before = 0;
  for (uint32_t from = 0; from < 800; from += 10) {
    Together flows;
    for (uint32_t i = from; i < from + 10; ++i) flows.add(key_to(i), mask_of(~0u), 1, {}, {1, 60, 1s, 0});
    flows.insert_into(table);
    const size_t now = table.memory_bytes();
    growth.push_back(static_cast<ptrdiff_t>(now - before));
    before = now;
  }
  // An array for 768 flows is followed by one twice its size.
  const ptrdiff_t array = ptrdiff_t{512} * 64, flows = growth[1];
  EXPECT_GT(growth[68], flows + array);                          // when there are 680
  for (size_t i = 70; i < 80; ++i) EXPECT_LE(growth[i], flows);  // and no more when it takes the other's place
  for (uint32_t i = 0; i < 800; ++i) ASSERT_NE(table.lookup(key_to(i)), nullptr);
}

TEST_F(FlowTableTest, FillsInUfidsThatDiffer) {
  Flow* one = add(key_to(1), mask_of(~0u));
  Flow* other_key = add(key_to(2), mask_of(~0u));
  Flow* other_mask = add(key_to(1), mask_of(0xff));
  EXPECT_FALSE(one->ufid().is_zero());
  EXPECT_NE(one->ufid(), other_key->ufid());
  EXPECT_NE(one->ufid(), other_mask->ufid());
  EXPECT_EQ(table_.find(one->ufid()), one);
  EXPECT_EQ(table_.find(other_key->ufid()), other_key);
  EXPECT_EQ(table_.find(other_mask->ufid()), other_mask);
  table_.remove(one->ufid());
  EXPECT_EQ(table_.find(one->ufid()), nullptr);
  EXPECT_EQ(table_.find(other_key->ufid()), other_key);
}

TEST_F(FlowTableTest, TakesUfidsThatTheInstallerChooses) {
  Flow* flow = add(key_to(3), mask_of(~0u), 1, Ufid{3, 4});
  ASSERT_NE(flow, nullptr);
  EXPECT_EQ(flow->ufid(), (Ufid{3, 4}));
  EXPECT_EQ(table_.find(Ufid{3, 4}), flow);
  EXPECT_EQ(table_.find(Ufid{4, 4}), nullptr);
  EXPECT_EQ(add(key_to(4), mask_of(~0u), 1, Ufid{3, 4}), nullptr) << "taken";
  ASSERT_TRUE(table_.set_actions(Ufid{3, 4}, {OutputAction{2}}));
  EXPECT_EQ(flow->actions(), ActionList{OutputAction{2}});
  EXPECT_EQ(table_.remove(Ufid{3, 4}).get(), flow);
  EXPECT_EQ(table_.find(Ufid{3, 4}), nullptr);
  EXPECT_NE(add(key_to(4), mask_of(~0u), 1, Ufid{3, 4}), nullptr);
}

// Those of the table's own tell where the flow is, so what another flow is called by must not lead to it.
TEST_F(FlowTableTest, FindsAFlowWhoseChosenUfidLooksLikeTheTablesOwn) {
  Flow* one = add(key_to(1), mask_of(~0u));
  const Ufid like_it{one->ufid().high + 1, one->ufid().low};
  Flow* chosen = add(key_to(2), mask_of(0xff), 1, like_it);
  ASSERT_NE(chosen, nullptr);
  EXPECT_EQ(table_.find(like_it), chosen);
  EXPECT_EQ(table_.remove(one->ufid()).get(), one);
  EXPECT_EQ(table_.find(like_it), chosen);
  EXPECT_EQ(table_.remove(like_it).get(), chosen);
  EXPECT_EQ(table_.counters().flows, 0u);
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

TEST_F(FlowTableTest, ManyFlowsShareOneListOfActions) {
  table_.set_max_flows(200);
  std::vector<FlowTable::NewActions> changes;
  const Flow::ActionsRef shared = Flow::make_actions({OutputAction{2}, OutputAction{3}});
  for (uint32_t i = 0; i < 200; ++i) changes.push_back({add(key_to(i), mask_of(~0u), 1), shared});
  const std::shared_ptr<const ActionList> before = changes[0].flow->shared_actions();
  const std::shared_ptr<const Flow> gone = table_.remove(changes[100].flow->ufid());
  table_.set_actions(changes);
  for (uint32_t i = 0; i < 200; ++i) {
    const Flow& flow = *changes[i].flow;
    EXPECT_EQ(flow.has_actions(shared), i != 100);
    EXPECT_EQ(flow.actions_ref() == shared, i != 100) << "one that is gone stays as it was";
    if (i == 100) continue;
    EXPECT_EQ(Flow::list_of(changes[i].actions), ActionList{OutputAction{1}}) << "for who still runs it";
  }
  EXPECT_EQ(Flow::list_of(changes[0].actions).data(), before->data());
}

TEST_F(FlowTableTest, KnowsWhetherActionsComeToTheSame) {
  Flow* flow = add(key_to(1), mask_of(~0u), 1);
  const auto same = [&flow](const ActionList& list) { return flow->has_actions(Flow::make_actions(list)); };
  EXPECT_TRUE(same({OutputAction{1}}));
  EXPECT_FALSE(same({OutputAction{2}}));
  EXPECT_FALSE(same({OutputAction{1}, OutputAction{2}}));
  EXPECT_FALSE(same({DropAction{DropReason::of_pipeline}}));
  ASSERT_TRUE(table_.set_actions(flow->ufid(), {OutputAction{1}, OutputAction{2}}));
  EXPECT_TRUE(same({OutputAction{1}, OutputAction{2}}));
  EXPECT_FALSE(same({OutputAction{1}, OutputAction{3}}));
  EXPECT_FALSE(same({OutputAction{1}}));
}

// Whether packets may be looked at in part follows the actions of many flows at once, too.
TEST_F(FlowTableTest, ActionsOfManyFlowsMakeThemDeep) {
  FlowMask shallow;
  shallow.in_port = ~0u;
  Flow* flow = add(key_to(1, 1), shallow, 9);
  const auto set = [&](const ActionList& list) {
    std::vector<FlowTable::NewActions> changes{{flow, Flow::make_actions(list)}};
    table_.set_actions(changes);
  };
  for (int i = 0; i < 2; ++i) {
    set({OutputAction{2}, UserspaceAction{}});
    EXPECT_FALSE(table_.only_shallow_flows(1));
    set({UserspaceAction{}});
    EXPECT_FALSE(table_.only_shallow_flows(1));
    set({OutputAction{2}});
    EXPECT_TRUE(table_.only_shallow_flows(1));
    set({OutputAction{3}});
    EXPECT_TRUE(table_.only_shallow_flows(1));
  }
}

TEST_F(FlowTableTest, InstallerDataDiesWithTheFlow) {
  const auto data = std::make_shared<int>(5);
  const auto flow = table_.insert(key_to(1), mask_of(~0u), ActionList{}, {}, data);
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

// CVE-2019-25076: packets that each need a mask of their own. Lookups stay bounded, and every flow is found by the
// packet that it was made for, and by no packet that the mask asked for would not let in.
TEST_F(FlowTableTest, MasksAreBounded) {
  FlowTable table(clock_);
  std::vector<std::pair<FlowKey, FlowMask>> asked;
  for (int destination = 1; destination <= 32; ++destination) {
    for (int source = 1; source <= 32; ++source) {
      FlowKey key = key_to(0x0a000000u ^ 1u << (32 - destination));
      key.nw_src = to_be32(0x0b000000u ^ 1u << (32 - source));
      FlowMask mask = mask_of(~uint32_t{0} << (32 - destination));
      mask.nw_src = to_be32(~uint32_t{0} << (32 - source));
      const Result<Flow*> flow = table.insert(key, mask, {OutputAction{3}}, {}, nullptr);
      if (!flow.ok()) continue;  // another flow has it already
      EXPECT_TRUE(mask_contains((*flow)->mask(), mask));
      asked.emplace_back(key, mask);
    }
  }
  EXPECT_EQ(asked.size(), 1024u);
  EXPECT_LE(table.counters().masks, FlowTable::kMaxMasks + FlowTable::kOverflowMasks);
  EXPECT_GT(table.counters().narrowed, 0u);
  uint32_t most = 0;
  for (const auto& [key, mask] : asked) {
    uint32_t visited = 0;
    const Flow* flow = table.lookup(key, &visited);
    ASSERT_NE(flow, nullptr);
    EXPECT_TRUE(matches(key, masked(flow->key(), mask), mask) || flow->mask() != mask);
    most = std::max(most, visited);
  }
  EXPECT_LE(most, FlowTable::kMaxMasks + FlowTable::kOverflowMasks);
  table.clear();
  EXPECT_EQ(table.counters().masks, 0u);
}

// Flows that come and go for long, never many at once: a lookup of what is not there must still end, and soon.
TEST_F(FlowTableTest, ChurnLeavesNothingBehind) {
  FlowTable table(clock_);
  std::vector<Ufid> present;
  for (uint32_t i = 0; i < 20'000; ++i) {
    const auto flow = table.insert(key_to(i), mask_of(~0u), ActionList{}, {}, nullptr);
    ASSERT_TRUE(flow.ok());
    present.push_back((*flow)->ufid());
    if (present.size() > 20) {
      ASSERT_NE(table.remove(present.front()), nullptr);
      present.erase(present.begin());
    }
    ASSERT_EQ(table.lookup(key_to(i + 1'000'000)), nullptr);
    ASSERT_NE(table.lookup(key_to(i)), nullptr);
  }
  EXPECT_LT(table.memory_bytes(), 4u << 20);
}

// Memory that is there ahead of the flows: each flow is there once, in the walk through memory, too.
TEST_F(FlowTableTest, PreparedRoomIsUsed) {
  FlowTable table(clock_);
  const size_t empty = table.memory_bytes();
  table.prepare();
  table.prepare();
  constexpr uint32_t kFlows = 30'000;  // more than there is room for
  for (uint32_t i = 0; i < kFlows; ++i) {
    if (i == kFlows / 2) table.prepare();
    ASSERT_TRUE(table.insert(key_to(i), mask_of(~0u), ActionList{}, {}, nullptr).ok());
  }
  std::vector<int> seen(kFlows);
  FlowCursor cursor;
  while (table.visit(cursor, 1000, [&](Flow& flow) { ++seen[flow.key().nw_dst.host()]; })) {
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), kFlows);
  EXPECT_GT(table.memory_bytes(), empty);
}

// Those that have one of the bits, and only those, are passed over; of all others each is visited once.
TEST_F(FlowTableTest, VisitPassesOverFlowsWithTheseBits) {
  FlowTable table(clock_);
  constexpr uint32_t kFlows = 100;
  for (uint32_t i = 0; i < kFlows; ++i) {
    ASSERT_TRUE(table.insert(key_to(i), mask_of(~0u), ActionList{}, {}, nullptr).ok());
  }
  FlowKey bits;
  bits.nw_dst = key_to(0x11).nw_dst;
  HotWords without{};
  for (size_t i = 0; i < kHotWords; ++i) without[i] = words(bits)[i];
  for (const size_t most : {1, 7, 1000}) {
    std::vector<int> seen(kFlows);
    FlowCursor cursor;
    while (table.visit(
        cursor, most, [&](Flow& flow) { ++seen[flow.key().nw_dst.host()]; }, without)) {
    }
    for (uint32_t i = 0; i < kFlows; ++i) EXPECT_EQ(seen[i], (i & 0x11) == 0 ? 1 : 0) << i;
  }
}

// What a mask looks at that only the last overflow mask has.
TEST_F(FlowTableTest, AnyMaskFitsAnOverflowMask) {
  FlowTable table(clock_);
  for (uint32_t i = 0; i < FlowTable::kMaxMasks; ++i) {
    ASSERT_TRUE(table.insert(key_to(i), mask_of(i + 1), ActionList{}, {}, nullptr).ok());
  }
  FlowKey key;
  key.tun_metadata[200] = 7;
  FlowMask mask;
  mask.tun_metadata[200] = 0x0f;
  ASSERT_TRUE(table.insert(key, mask, ActionList{}, {}, nullptr).ok());
  EXPECT_NE(table.lookup(key), nullptr);
}

TEST_F(FlowTableTest, KnowsPortsWithShallowFlowsOnly) {
  FlowMask shallow;
  shallow.in_port = shallow.recirc_id = ~0u;
  shallow.eth_type = to_be16(0xffff);
  EXPECT_TRUE(table_.only_shallow_flows(1));
  add(key_to(1, 1), shallow);
  EXPECT_TRUE(table_.only_shallow_flows(1));
  Flow* deep = add(key_to(1, 1), mask_of(~0u));
  EXPECT_FALSE(table_.only_shallow_flows(1));
  EXPECT_TRUE(table_.only_shallow_flows(2));
  FlowMask of_any = shallow;
  of_any.in_port = 0;
  of_any.nw_ttl = 1;
  Flow* any = add(key_to(1), of_any);
  EXPECT_FALSE(table_.only_shallow_flows(2));
  table_.remove(any->ufid());
  EXPECT_TRUE(table_.only_shallow_flows(2));
  table_.remove(deep->ufid());
  EXPECT_TRUE(table_.only_shallow_flows(1));
}

// The slow path's thread counts the first packet; then the one that owns the flow, and now and then the slow path
// again.
TEST_F(FlowTableTest, CountsInPassingAddUp) {
  FlowMask mask;
  mask.in_port = ~0u;
  Flow* flow = add(key_to(1, 1), mask, 9);
  flow->count_in_passing(0, 1, 60, 5s, 0x02);
  flow->count_in_passing(0, 1, 70, 6s, 0x10);
  flow->count(1, 10, 600, 7s, 0x01);
  flow->count_in_passing(0, 2, 120, 8s, 0x04);
  flow->count(1, 10, 600, 7s, 0x01);
  flow->count(2, 3, 180, 4s, 0x20);
  const FlowStats stats = flow->stats();
  EXPECT_EQ(stats.packets, 27u);
  EXPECT_EQ(stats.bytes, 1630u);
  EXPECT_EQ(stats.used, 8s);
  EXPECT_EQ(stats.tcp_flags, 0x37);
}

TEST_F(FlowTableTest, CountsInPassingLoseNothingBesideTheOwner) {
  FlowMask mask;
  mask.in_port = ~0u;
  Flow* flow = add(key_to(1, 1), mask, 9);
  std::vector<std::thread> threads;
  threads.emplace_back([flow] {
    for (int i = 0; i < 20000; ++i) flow->count_in_passing(0, 1, 1, 1s, 0);
  });
  for (size_t index = 1; index < 3; ++index) {
    threads.emplace_back([flow, index] {
      for (int i = 0; i < 20000; ++i) flow->count(index, 1, 1, 1s, 0);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(flow->stats().packets, 60000u);
}

TEST_F(FlowTableTest, ShortcutSaysWhatSimpleActionsComeTo) {
  FlowMask mask;
  mask.in_port = ~0u;
  Flow* flow = add(key_to(1, 1), mask, 9);
  const auto drops = [flow](DropReason reason) {
    const Flow::Shortcut shortcut = flow->shortcut();
    return shortcut.drops() && shortcut.reason() == reason && shortcut.port_no() == 0 && !shortcut.none();
  };
  EXPECT_FALSE(flow->shortcut().drops());
  EXPECT_EQ(flow->shortcut().port_no(), 9u);
  ASSERT_TRUE(table_.set_actions(flow->ufid(), {}));
  EXPECT_TRUE(drops(DropReason::of_pipeline));
  ASSERT_TRUE(table_.set_actions(flow->ufid(), {DropAction{DropReason::ttl_exceeded}}));
  EXPECT_TRUE(drops(DropReason::ttl_exceeded));
  // The first reason there is, 0 as a number, is one as well.
  ASSERT_TRUE(table_.set_actions(flow->ufid(), {DropAction{DropReason::rx_invalid_packet}}));
  EXPECT_TRUE(drops(DropReason::rx_invalid_packet));
  for (const ActionList& others :
       {ActionList{PopVlanAction{}, OutputAction{9}}, ActionList{OutputAction{9}, DropAction{}},
        ActionList{PopVlanAction{}}, ActionList{OutputAction{kMaxPorts}}}) {
    ASSERT_TRUE(table_.set_actions(flow->ufid(), others));
    EXPECT_TRUE(flow->shortcut().none());
  }
}

// What a flow leaves open says nothing against a rule, nor does what the rule leaves open.
TEST_F(FlowTableTest, TellsWhetherPacketsOfAFlowMayMatch) {
  const Flow* flow = add(key_to(0x0a000000), mask_of(0xffffff00));
  ASSERT_NE(flow, nullptr);
  const auto disagree = [&](uint32_t destination, uint32_t bits, uint32_t in_port = 1) {
    const HotWords value = hot_words(words(key_to(destination, in_port))), mask = hot_words(words(mask_of(bits)));
    const uint32_t disagreeing = flow->disagreeing_words(value, mask);
    EXPECT_EQ(flow->may_agree(value, mask), disagreeing == 0);
    return disagreeing != 0;
  };
  EXPECT_FALSE(disagree(0x0a000000, 0xffffff00));
  EXPECT_FALSE(disagree(0x0a000007, 0xffffffff)) << "one of the flow's packets";
  EXPECT_FALSE(disagree(0x0a000107, 0xffff0000)) << "the rule does not ask";
  EXPECT_TRUE(disagree(0x0a000107, 0xffffffff));
  EXPECT_TRUE(disagree(0x0a000000, 0xffffff00, 2));
}

// Actions count too, and may change.
TEST_F(FlowTableTest, ActionsMakeAFlowDeep) {
  FlowMask shallow;
  shallow.in_port = ~0u;
  Flow* flow = add(key_to(1, 1), shallow, 9);
  EXPECT_EQ(flow->shortcut().port_no(), 9u);
  const UserspaceAction to_userspace{};
  ASSERT_TRUE(table_.set_actions(flow->ufid(), {OutputAction{2}, to_userspace}));
  EXPECT_TRUE(flow->shortcut().none());
  EXPECT_FALSE(table_.only_shallow_flows(1));
  ASSERT_TRUE(table_.set_actions(flow->ufid(), {OutputAction{2}, OutputAction{3}}));
  EXPECT_TRUE(flow->shortcut().none());
  EXPECT_TRUE(table_.only_shallow_flows(1));
  ASSERT_TRUE(table_.set_actions(flow->ufid(), {to_userspace}));
  table_.remove(flow->ufid());
  EXPECT_TRUE(table_.only_shallow_flows(1));
}

// A few hundred random changes and lookups, against a list.
void check_random_table(uint64_t seed) {
  const rcu::ReaderScope reader;
  RandomMatches random(seed);
  const ManualClock clock;
  const size_t max_masks = random.one_in(2) ? FlowTable::kMaxMasks : 1 + random.below(FlowTable::kMaxMasks);
  FlowTable table(clock, 1000, max_masks);
  FlowCache cache;
  std::vector<Flow*> present;
  std::vector<FlowKey> keys;
  for (int i = 0; i < 20; ++i) keys.push_back(random.key().packet);
  for (int step = 0; step < 200; ++step) {
    if (present.size() < 60 && random.one_in(3)) {
      const Match match = random.match();
      const FlowKey full = random.agreeing(match.value, match.mask).packet;
      const auto flow = table.insert(full, match.mask.packet, ActionList{}, {}, nullptr);
      // With many masks the flow may have got a narrower one, so only a flow that has the very packet is in the way.
      if (flow.ok()) {
        RC_ASSERT(mask_contains((*flow)->mask(), match.mask.packet));
        RC_ASSERT((*flow)->key() == masked(full, (*flow)->mask()));
      } else {
        RC_ASSERT(std::any_of(present.begin(), present.end(), [&](const Flow* there) { return there->matches(full); }));
      }
      RC_ASSERT(table.counters().masks <= max_masks + FlowTable::kOverflowMasks);
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
    const uint64_t hash = random.one_in(2) ? which : 1;  // collisions
    Flow* cached = cache.lookup(hash, key);
    if (cached != nullptr) RC_ASSERT(is_right(cached));
    if (found != nullptr) cache.insert(hash, found);
    cache.maintain();
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
    FlowCache cache;
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
          cache.maintain();
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

// Handler and helping forwarding threads insert at the same time, often the same flow, and flows go meanwhile, masks
// with them.
TEST(FlowTableConcurrencyTest, ManyInsertAtOnce) {
  const ManualClock clock;
  FlowTable table(clock);
  constexpr uint32_t kFlows = 3000;
  const FlowMask masks[] = {mask_of(~0u), mask_of(0x00ffffff), mask_of(0x0fffffff)};
  std::atomic<uint32_t> inserted{0}, removed{0}, wrong{0};
  const auto insert = [&](uint32_t step) {
    const rcu::ThreadRegistration registration;
    for (uint32_t n = 0; n < kFlows; ++n) {
      const uint32_t i = n * step % kFlows;
      const auto flow = table.insert(key_to(i), masks[i % 3], {OutputAction{i}}, {}, nullptr);
      if (flow.ok()) {
        inserted.fetch_add(1);
        // Of the last mask there is hardly ever more than one flow, so it comes and goes.
        if (i % 3 == 2 && table.remove((*flow)->ufid()) != nullptr) removed.fetch_add(1);
      } else if (flow.status().code() != StatusCode::already_exists) {
        wrong.fetch_add(1);
      }
      if (n % 8 == 0) rcu::quiescent();
    }
  };
  std::vector<std::thread> threads;
  for (const uint32_t step : {1u, 1u, 7u}) threads.emplace_back(insert, step);
  for (std::thread& thread : threads) thread.join();
  const rcu::ReaderScope reader;
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(inserted - removed, table.counters().flows);
  for (uint32_t i = 0; i < kFlows; ++i) {
    const Flow* flow = table.lookup(key_to(i));
    ASSERT_EQ(flow != nullptr, i % 3 != 2) << i;
    if (flow == nullptr) continue;
    EXPECT_EQ(flow->actions(), ActionList{OutputAction{i}});
    EXPECT_EQ(flow->mask(), masks[i % 3]);
    EXPECT_EQ(table.find(flow->ufid()), flow);
  }
}

}  // namespace
}  // namespace vswitch
