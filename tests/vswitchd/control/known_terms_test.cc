// New flows that are treated alike share what they count for and do; nothing is kept alive for flows to come.
#include "vswitchd/control/known_terms.h"

#include <gtest/gtest.h>

#include <memory>

#include "tests/support/switch_fixture.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/translate/translate.h"

namespace vswitch {
namespace {

class KnownTermsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* line :
         {"bridge br0", "port br0 p1 1", "port br0 p2 2", "rule br0 udp,tp_dst=53,actions=goto_table:1",
          "rule br0 udp,actions=goto_table:1", "rule br0 table=1,udp,actions=set_field:5->nw_ttl,output:2"}) {
      const Status status = fixture_.apply(line);
      ASSERT_TRUE(status.ok()) << line << ": " << status.message();
    }
  }
  TranslateOutput translated(const char* text) {
    const auto parsed = parse_flow_key(text);
    EXPECT_TRUE(parsed.ok()) << text << ": " << parsed.status().message();
    return translate({.view = fixture_.view(), .key = parsed->key.packet, .way_only = true});
  }
  KnownTerms::Shared share(const char* text) {
    TranslateOutput output = translated(text);
    return known_.share(output);
  }

  test::SwitchFixture fixture_;
  KnownTerms known_;
};

TEST_F(KnownTermsTest, AreSharedByFlowsThatGoTheSameWay) {
  const auto one = share("in_port=100,udp,udp_src=1,udp_dst=53"), other = share("in_port=100,udp,udp_src=2,udp_dst=53");
  ASSERT_NE(one.terms, nullptr);
  EXPECT_EQ(one.terms, other.terms);
  EXPECT_EQ(one.actions, other.actions);
  EXPECT_EQ(one.terms->credit.rules.size(), 2u);
  EXPECT_EQ(one.terms->credit.lookups.size(), 2u);
}

TEST_F(KnownTermsTest, AreNotSharedByFlowsThatMeetOtherRules) {
  const auto one = share("in_port=100,udp,udp_dst=53"), other = share("in_port=100,udp,udp_dst=54");
  EXPECT_NE(one.terms, other.terms);
  EXPECT_NE(one.terms->credit.rules, other.terms->credit.rules);
  // One of a thousand times the two ways take turns.
  EXPECT_EQ(share("in_port=100,udp,udp_dst=53").terms->credit, one.terms->credit);
}

TEST_F(KnownTermsTest, TellDifferentActionsOfTheSameWayApart) {
  const auto one = share("in_port=100,udp,nw_ttl=64,udp_dst=53"), other = share("in_port=100,udp,nw_ttl=5,udp_dst=53");
  EXPECT_EQ(one.terms, other.terms);
  EXPECT_EQ(Flow::list_of(one.actions), translated("in_port=100,udp,nw_ttl=64,udp_dst=53").actions);
  EXPECT_EQ(Flow::list_of(other.actions), translated("in_port=100,udp,nw_ttl=5,udp_dst=53").actions);
  EXPECT_NE(Flow::list_of(one.actions), Flow::list_of(other.actions));
}

TEST_F(KnownTermsTest, EndWithTheLastFlow) {
  std::weak_ptr<const FlowTerms> watched;
  std::weak_ptr<Flow::ActionsRef::element_type> watched_actions;
  {
    const auto one = share("in_port=100,udp,udp_dst=53");
    watched = one.terms;
    watched_actions = one.actions;
    EXPECT_EQ(share("in_port=100,udp,udp_dst=53").terms, one.terms);
  }
  EXPECT_TRUE(watched.expired());
  EXPECT_TRUE(watched_actions.expired());
  EXPECT_NE(share("in_port=100,udp,udp_dst=53").terms, nullptr);
}

// More ways than there are entries, and each of them right.
TEST_F(KnownTermsTest, HoldAlsoWhenWaysTakeTurns) {
  for (uint16_t port = 1000; port < 1000 + 2 * KnownTerms::kEntries; ++port) {
    const std::string rule = "rule br0 priority=40000,udp,tp_dst=" + std::to_string(port) + ",actions=goto_table:1";
    ASSERT_TRUE(fixture_.apply(rule).ok());
  }
  std::vector<KnownTerms::Shared> all;
  for (uint16_t port = 1000; port < 1000 + 2 * KnownTerms::kEntries; ++port) {
    TranslateOutput output = translated(("in_port=100,udp,udp_dst=" + std::to_string(port)).c_str());
    all.push_back(known_.share(output));
    EXPECT_EQ(all.back().terms->credit, output.way);
    for (const RuleRef& rule : all.back().terms->credit.rules) EXPECT_TRUE(rule);
  }
}

}  // namespace
}  // namespace vswitch
