// What a translation said is found for the flows that it holds for, and for no others.
#include "vswitchd/control/outcomes.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <random>
#include <vector>

#include "datapath/base/rcu.h"
#include "datapath/flow/flow_mask.h"
#include "tests/support/random_key.h"

namespace vswitch {
namespace {

class OutcomesTest : public ::testing::Test {
 protected:
  Flow& add(const FlowKey& key, const FlowMask& mask) {
    Result<Flow*> flow = table_.insert(key, mask, {OutputAction{1}}, {}, nullptr);
    EXPECT_TRUE(flow.ok());
    return **flow;
  }
  static FlowKey key_from(uint16_t port, uint32_t source = 1) {
    FlowKey key;
    key.in_port = 1;
    key.nw_src = to_be32(source);
    key.tp_src = to_be16(port);
    return key;
  }
  static FlowMask mask_of(uint16_t port, uint32_t source) {
    FlowMask mask;
    mask.in_port = ~0u;
    mask.nw_src = to_be32(source);
    mask.tp_src = to_be16(port);
    return mask;
  }
  static Outcome outcome(uint16_t bits) { return {.terms = nullptr, .actions = nullptr, .installer_bits = bits}; }

  rcu::ReaderScope reader_;
  ManualClock clock_;
  FlowTable table_{clock_};
  Outcomes outcomes_;
};

TEST_F(OutcomesTest, HoldForFlowsThatAgreeOnTheMask) {
  const FlowMask narrow = mask_of(0xffff, ~0u), wide = mask_of(0x0001, 0);
  Flow& one = add(key_from(1), narrow);
  Flow& three = add(key_from(3), narrow);
  Flow& two = add(key_from(2), narrow);
  EXPECT_EQ(outcomes_.find(one), nullptr);
  EXPECT_EQ(outcomes_.add(one, wide, outcome(7)).installer_bits, 7);
  ASSERT_NE(outcomes_.find(three), nullptr);
  EXPECT_EQ(outcomes_.find(three)->installer_bits, 7);
  EXPECT_EQ(outcomes_.find(two), nullptr) << "differs in the bit";
  outcomes_.forget();
  EXPECT_EQ(outcomes_.find(three), nullptr);
}

TEST_F(OutcomesTest, DoNotHoldForFlowsThatLeaveABitOpen) {
  Flow& one = add(key_from(1), mask_of(0xffff, ~0u));
  Flow& open = add(key_from(3), mask_of(0xfffe, ~0u));
  outcomes_.add(one, mask_of(0x0001, 0), outcome(7));
  EXPECT_FALSE(outcomes_.fixes(open, mask_of(0x0001, 0)));
  EXPECT_EQ(outcomes_.find(open), nullptr);
}

TEST_F(OutcomesTest, WhatLooksAtAllThatItsFlowLooksAtIsForNobodyElse) {
  const FlowMask narrow = mask_of(0xffff, ~0u);
  Flow& one = add(key_from(1), narrow);
  EXPECT_EQ(outcomes_.add(one, narrow, outcome(7)).installer_bits, 7);
  EXPECT_EQ(outcomes_.find(one), nullptr) << "not even searched for";
}

TEST_F(OutcomesTest, AreNotSearchedWhereThatHasNotPaid) {
  const FlowMask narrow = mask_of(0xffff, ~0u), wide = mask_of(0x8fff, ~0u);
  for (uint16_t port = 0; port < 0x1000; ++port) {
    Flow& flow = add(key_from(port), narrow);
    EXPECT_EQ(outcomes_.find(flow), nullptr);
    outcomes_.add(flow, wide, outcome(port));
  }
  EXPECT_EQ(outcomes_.find(add(key_from(0x1001), narrow)), nullptr) << "it would hold, but was given up";
  // Another mask is another matter, and a part that is over does not change it.
  outcomes_.forget();
  outcomes_.add(*table_.lookup(key_from(1)), mask_of(0, ~0u), outcome(5));
  ASSERT_NE(outcomes_.find(*table_.lookup(key_from(2))), nullptr);
  outcomes_.add(*table_.lookup(key_from(1)), wide, outcome(6));
  EXPECT_EQ(outcomes_.find(*table_.lookup(key_from(0x1001)))->installer_bits, 5);
}

TEST_F(OutcomesTest, EqualListsAreOne) {
  Flow& one = add(key_from(1), mask_of(0xffff, ~0u));
  const Flow::ActionsRef own = outcomes_.share(one, {OutputAction{1}});
  EXPECT_EQ(own, one.actions_ref());
  const Flow::ActionsRef other = outcomes_.share(one, {OutputAction{2}});
  EXPECT_EQ(Flow::list_of(other), ActionList{OutputAction{2}});
  EXPECT_EQ(outcomes_.share(one, {OutputAction{2}}), other);
}

// Random flows, outcomes whose masks are parts of theirs, words that are not hot included: what is found agrees.
TEST_F(OutcomesTest, WhatIsFoundAgrees) {
  size_t found = 0;
  ASSERT_TRUE(rc::check([&found](uint64_t seed) {
    test::Random random(seed);
    const rcu::ReaderScope reader;
    ManualClock clock;
    FlowTable table(clock);
    Outcomes outcomes;
    const auto part_of = [&random](FlowMask mask) {
      for (size_t i = 0; i < kFlowKeyWords; ++i) {
        words(mask)[i] &= random() % 8 != 0 ? 0 : uint64_t{0xff} << random() % 56;
      }
      return mask;
    };
    FlowMask all;
    for (size_t i = 0; i < kCommonWords; ++i) words(all)[i] = ~uint64_t{0};
    FlowMask masks[4] = {all, part_of(all), part_of(all), part_of(all)};
    std::vector<std::pair<FlowKey, FlowMask>> known;
    for (int i = 0; i < 100; ++i) {
      const FlowKey key = test::random_key(random);
      const auto flow = table.insert(key, masks[random() % 4], {OutputAction{1}}, {}, nullptr);
      if (!flow.ok()) continue;
      if (const Outcome* outcome = outcomes.find(**flow)) {
        const auto& [of, mask] = known.at(outcome->installer_bits);
        RC_ASSERT(mask_contains((*flow)->mask(), mask));
        RC_ASSERT(masked((*flow)->key(), mask) == masked(of, mask));
        ++found;
        continue;
      }
      const FlowMask& mask = masks[random() % 4];
      if (!outcomes.fixes(**flow, mask)) continue;
      RC_ASSERT(mask_contains((*flow)->mask(), mask));
      outcomes.add(**flow, mask, outcome(static_cast<uint16_t>(known.size())));
      known.emplace_back(key, mask);
    }
  }));
  EXPECT_GT(found, 300u);
}

}  // namespace
}  // namespace vswitch
