// Packets through the whole switch: learning, rules, counters, drops, timeouts, patch ports, recirculation.
#include <gtest/gtest.h>

#include <mutex>
#include <string>
#include <vector>

#include "tests/support/eventually.h"
#include "tests/support/running_switch.h"

namespace vswitch::test {
namespace {

TEST_F(SwitchTest, LearnsAddresses) {
  add_three_ports();
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 1));
  ASSERT_TRUE(sends("p3", 1)) << "an unknown destination is flooded";
  inject("p2", {frame(kHost2, kHost1)});
  ASSERT_TRUE(sends("p1", 1));
  // The flow that flooded is corrected without anybody asking.
  ASSERT_TRUE(eventually([&] {
    bool floods = false;
    sw_->visit_datapath_flows([&](const DatapathFlow& flow) {
      floods = floods || flow.actions.size() > 1;
      return true;
    });
    return !floods;
  }));
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 2));
  EXPECT_EQ(sent("p3"), 1u);
  const auto macs = sw_->mac_entries("br0");
  ASSERT_EQ(macs->size(), 2u);
  EXPECT_EQ((*macs)[1].port, sw_->port("p2")->ofport);
  expect_balance();
}

TEST_F(SwitchTest, AnAppliedRuleDecidesTheNextPacket) {
  add_three_ports(FailMode::secure);
  for (int i = 0; i < 50; ++i) {
    const std::string to = i % 2 == 0 ? "2" : "3";
    apply({rules("br0", {"in_port=1,actions=output:" + to})});
    const uint64_t before = sent("p" + to);
    inject("p1", {frame(kHost1, kHost2)});
    ASSERT_TRUE(sends("p" + to, before + 1)) << "change " << i;
  }
  EXPECT_EQ(sent("p2") + sent("p3"), 50u);
  EXPECT_EQ(packets_of(""), 50u) << "the rule's counts outlive its changes";
  expect_balance();
}

TEST_F(SwitchTest, CountsExactly) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"table=0,udp,tp_src=7,actions=output:2", "table=0,priority=9,udp,tp_src=8,actions=resubmit(,1)",
                       "table=1,actions=output:3"})});
  for (int i = 0; i < 40; ++i) inject("p1", {frame(kHost1, kHost2, 7), frame(kHost1, kHost2, 8)});
  ASSERT_TRUE(sends("p2", 40));
  ASSERT_TRUE(sends("p3", 40));
  EXPECT_EQ(packets_of("table=0,udp,tp_src=7"), 40u);
  EXPECT_EQ(packets_of("table=0,udp,tp_src=8"), 40u);
  EXPECT_EQ(packets_of("table=1"), 40u);
  EXPECT_EQ(sw_->aggregate("br0", {})->bytes, 120u * 60);
  const auto tables = *sw_->table_stats("br0");
  EXPECT_EQ(tables[0].lookups, 80u);
  EXPECT_EQ(tables[0].matches, 80u);
  EXPECT_EQ(tables[1].matches, 40u);
  EXPECT_EQ(sw_->delete_datapath_flows(), 2u);
  EXPECT_EQ(packets_of(""), 120u);
}

TEST_F(SwitchTest, NamesItsDrops) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"udp,tp_src=1,actions=drop"})});
  inject("p1", {frame(kHost1, kHost2, 1), frame(kHost1, kHost2, 2), Bytes(10)});
  ASSERT_TRUE(eventually([&] {
    return drops("p1", DropReason::of_pipeline) == 1 && drops("p1", DropReason::no_rule) == 1 &&
           drops("p1", DropReason::rx_invalid_packet) == 1;
  }));
  expect_balance();
}

TEST_F(SwitchTest, FlowsEndWhenIdle) {
  add_three_ports();
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(eventually([&] { return sw_->datapath_counters().flows == 1; }));
  clock_.advance(9s);
  clock_.advance(2s);
  ASSERT_TRUE(eventually([&] { return sw_->datapath_counters().flows == 0; }));
  EXPECT_EQ(packets_of(""), 1u);
}

TEST_F(SwitchTest, RulesTimeOut) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"in_port=1,idle_timeout=10,actions=output:2", "in_port=2,hard_timeout=15,actions=output:1",
                       "in_port=3,actions=output:1"})});
  std::mutex mutex;
  std::vector<RemovedReason> reasons;
  const auto watch = sw_->watch([&](const ChangeEvent& event) {
    if (event.kind != ChangeEvent::Kind::rule_removed) return;
    std::lock_guard lock(mutex);
    reasons.push_back(event.removed_reason);
  });
  const auto seen = [&] {
    std::lock_guard lock(mutex);
    return reasons.size();
  };
  clock_.advance(9s);
  inject("p1", {frame(kHost1, kHost2)});  // keeps the first alive
  ASSERT_TRUE(sends("p2", 1));
  clock_.advance(7s);
  ASSERT_TRUE(eventually([&] { return seen() == 1; }));
  EXPECT_EQ(reasons[0], RemovedReason::hard_timeout);
  clock_.advance(4s);
  ASSERT_TRUE(eventually([&] { return seen() == 2; }));
  EXPECT_EQ(reasons[1], RemovedReason::idle_timeout);
  EXPECT_EQ(rule_list().size(), 1u);
  reopen();
  EXPECT_EQ(rule_list().size(), 1u) << "what timed out does not come back";
}

// Traffic that was not credited yet when the port went must not bring its addresses back.
TEST_F(SwitchTest, AddressesOfADeletedPortStayForgotten) {
  add_three_ports();
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 1));
  inject("p1", std::vector<Bytes>(5, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p2", 6));
  apply({DeletePort{"p1"}, port("br0", "p4")});
  EXPECT_EQ(sw_->port("p4")->ofport, 1) << "the same number: traffic for the old port would go there";
  EXPECT_TRUE(sw_->mac_entries("br0")->empty());
  inject("p2", {frame(kHost2, kHost1)});
  ASSERT_TRUE(sends("p3", 7)) << "flooded";
}

TEST_F(SwitchTest, OtherVlansForgetAddresses) {
  add_three_ports();
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 1));
  UpdatePort update{sw_->port("p1")->config};
  update.config.vlan.mode = VlanMode::access;
  update.config.vlan.tag = 7;
  apply({update});
  EXPECT_TRUE(sw_->mac_entries("br0")->empty());
}

TEST_F(SwitchTest, PatchPortsJoinBridges) {
  apply({bridge("br0"), bridge("br1"), port("br0", "p1"), port("br1", "p2"),
         port("br0", "to1", "patch", {{"peer", "to0"}}), port("br1", "to0", "patch", {{"peer", "to1"}})});
  inject("p1", std::vector<Bytes>(3, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p2", 3));
  EXPECT_EQ(sw_->port("to1")->stats.tx_packets, 3u);
  EXPECT_EQ(sw_->port("to0")->stats.rx_packets, 3u);
  EXPECT_EQ(sw_->port("to0")->state.error, "");
  apply({DeletePort{"to0"}});
  EXPECT_EQ(sw_->port("to1")->state.error, "peer \"to0\" does not exist");
  expect_balance();
}

TEST_F(SwitchTest, APatchLoopIsCutAndCounted) {
  apply({bridge("br0", FailMode::secure), bridge("br1", FailMode::secure), port("br0", "p1"), port("br0", "p2"),
         port("br0", "to1", "patch", {{"peer", "to0"}}), port("br1", "to0", "patch", {{"peer", "to1"}}),
         rules("br0", {"in_port=1,actions=output:2,output:3", "in_port=3,actions=in_port"}),
         rules("br1", {"actions=in_port"})});
  inject("p1", std::vector<Bytes>(3, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p2", 3));
  EXPECT_TRUE(eventually([&] { return drops("p1", DropReason::recursion_too_deep) == 3; })) << books();
  expect_balance();
}

TEST_F(SwitchTest, RecirculatesRealPackets) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"in_port=1,actions=load:5->reg0[],mod_dl_src:02:00:00:00:00:09,debug_recirc,resubmit(,1)",
                       "table=1,reg0=5,udp,actions=debug_recirc,output:2"})});
  inject("p1", std::vector<Bytes>(5, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p2", 5));
  EXPECT_EQ(sw_->datapath_counters().flows, 3u);
  EXPECT_EQ(packets_of("table=0"), 5u);
  EXPECT_EQ(packets_of("table=1"), 5u);

  // Another rule: what was installed for the second and third pass follows.
  apply({rules("br0", {"table=1,reg0=5,udp,actions=output:3"})});
  inject("p1", std::vector<Bytes>(4, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p3", 4));
  // Another state: the packet comes back under another number.
  apply({rules("br0",
               {"in_port=1,actions=load:6->reg0[],debug_recirc,resubmit(,1)", "table=1,reg0=6,actions=output:2"})});
  inject("p1", std::vector<Bytes>(2, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p2", 7));
  EXPECT_EQ(packets_of("table=1,reg0=6"), 2u);

  // Flows keep their contexts alive, however idle the switch is otherwise; then all goes.
  for (int i = 0; i < 12; ++i) clock_.advance(1s);
  ASSERT_TRUE(eventually([&] { return sw_->datapath_counters().flows == 0; }));
  for (int i = 0; i < 3; ++i) clock_.advance(1s);
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 8));
  expect_balance();
}

TEST_F(SwitchTest, EndlessRecirculationEnds) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"in_port=1,actions=debug_recirc,resubmit(,0)"})});
  inject("p1", {frame(kHost1, kHost2)});
  EXPECT_TRUE(eventually([&] { return drops("p1", DropReason::recirculation_limit) == 1; }));
  expect_balance();
}

}  // namespace
}  // namespace vswitch::test
