// What translation gives beside actions: credit, learned addresses, packet-in requests; packet-out; and its limits.
#include "vswitchd/translate/translate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/switch_fixture.h"
#include "vswitchd/openflow/flow_text.h"

namespace vswitch {
namespace {

using test::SwitchFixture;
using testing::ElementsAre;
using testing::SizeIs;

class Contexts : public TranslateContexts {
 public:
  uint64_t controller_cookie(const ControllerRequest& request) override {
    requests.push_back(request);
    return requests.size();
  }
  std::vector<ControllerRequest> requests;
};

class TranslateTest : public testing::Test {
 protected:
  void setup(std::initializer_list<const char*> lines) {
    for (const char* line : lines) {
      const Status status = fixture_.apply(line);
      ASSERT_TRUE(status.ok()) << line << ": " << status.message();
    }
  }
  static FlowKey key(const char* text) {
    const auto parsed = parse_flow_key(text);
    EXPECT_TRUE(parsed.ok()) << text;
    return parsed.ok() ? parsed->key.packet : FlowKey{};
  }
  // in_port of `key` is a datapath port: fixture ports get numbers from 100.
  TranslateOutput run(const FlowKey& key, uint64_t packets = 0) {
    return translate({.view = fixture_.view(),
                      .key = key,
                      .credit_packets = packets,
                      .credit_bytes = packets * 60,
                      .now = fixture_.clock().now(),
                      .contexts = &contexts_});
  }
  std::map<uint8_t, TableStats> table_stats(const char* bridge) {
    std::map<uint8_t, TableStats> used;
    const auto all = fixture_.bridge(bridge)->tables->table_stats();
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i].lookups != 0) used[static_cast<uint8_t>(i)] = all[i];
    }
    return used;
  }

  SwitchFixture fixture_;
  Contexts contexts_;
};

TEST_F(TranslateTest, CreditsRulesTablesAndPatchPorts) {
  setup({"bridge br0", "bridge br1", "port br0 p1 1", "port br1 p2 2", "port br0 pa 10 type=patch peer=pb",
         "port br1 pb 11 type=patch peer=pa", "rule br0 actions=resubmit(,1),resubmit(,1),output:10",
         "rule br0 table=1,tcp,actions=drop", "rule br1 actions=output:2"});
  const TranslateOutput output = run(key("in_port=100,udp"), 3);
  EXPECT_THAT(output.actions, ElementsAre(Action(OutputAction{101})));
  ASSERT_THAT(output.credit.rules, SizeIs(2));
  EXPECT_EQ(3u, output.credit.rules[0]->stats().packets);
  EXPECT_EQ(180u, output.credit.rules[1]->stats().bytes);
  EXPECT_EQ(3u, table_stats("br0")[0].matches);
  EXPECT_EQ(6u, table_stats("br0")[1].lookups);
  EXPECT_EQ(0u, table_stats("br0")[1].matches);
  EXPECT_EQ(3u, table_stats("br1")[0].matches);
  EXPECT_EQ(3u, fixture_.port("pa")->patch_counters->tx_packets);
  EXPECT_EQ(180u, fixture_.port("pb")->patch_counters->rx_bytes);
  EXPECT_EQ(0u, fixture_.port("pa")->patch_counters->rx_packets);

  output.credit.count(5, 500, fixture_.clock().now());  // as the revalidator does for what the flow forwarded since
  EXPECT_EQ(8u, output.credit.rules[0]->stats().packets);
  EXPECT_EQ(16u, table_stats("br0")[1].lookups);
  EXPECT_EQ(8u, fixture_.port("pb")->patch_counters->rx_packets);
}

TEST_F(TranslateTest, CountsNothingUnlessAsked) {
  setup({"bridge br0", "port br0 p1 1", "port br0 p2 2", "rule br0 actions=normal"});
  const FlowKey packet = key("in_port=100,dl_src=00:00:00:00:00:01,dl_dst=00:00:00:00:00:02,dl_type=0x1234");
  const TranslateOutput output = translate({.view = fixture_.view(), .key = packet, .allow_side_effects = false});
  EXPECT_EQ(0u, output.credit.rules.at(0)->stats().packets);
  EXPECT_TRUE(table_stats("br0").empty());
  EXPECT_TRUE(fixture_.bridge("br0")->macs->entries().empty());
  ASSERT_THAT(output.learned, SizeIs(1));  // told, but not done
  EXPECT_EQ("br0", output.learned[0].bridge);
  EXPECT_EQ(1, output.learned[0].port);
}

TEST_F(TranslateTest, NormalLearnsOnceAndOnlyUnicast) {
  setup({"bridge br0", "port br0 p1 1 tag=7", "port br0 p2 2", "rule br0 actions=normal"});
  run(key("in_port=100,dl_src=00:00:00:00:00:01,dl_dst=00:00:00:00:00:02,dl_type=0x1234"));
  EXPECT_EQ(1, fixture_.bridge("br0")->macs->lookup(7, MacAddress::from_u64(1)));
  const TranslateOutput output =
      run(key("in_port=100,dl_src=01:00:00:00:00:01,dl_dst=00:00:00:00:00:02,dl_type=0x1234"));
  EXPECT_TRUE(output.learned.empty());
  EXPECT_EQ(1u, fixture_.bridge("br0")->macs->entries().size());
}

TEST_F(TranslateTest, PacketInRequestsHoldMetadataOnly) {
  setup({"bridge br0", "port br0 p1 1", "rule br0 cookie=0x42,actions=load:7->reg0,write_metadata:9,goto_table:3",
         "rule br0 table=3,cookie=0x43,actions=controller(max_len=99,id=4,userdata=01.02)"});
  const TranslateOutput output = run(key("in_port=100,tcp,nw_src=1.2.3.4"));
  ASSERT_THAT(contexts_.requests, SizeIs(1));
  const ControllerRequest& request = contexts_.requests[0];
  EXPECT_EQ("br0", request.bridge);
  EXPECT_EQ(0x43u, request.rule_cookie);
  EXPECT_EQ(3, request.table);
  EXPECT_EQ(4, request.action.controller_id);
  EXPECT_EQ(PacketInReason::action, request.action.reason);
  EXPECT_EQ(1u, request.key.packet.in_port);
  EXPECT_EQ(7u, request.key.pipeline.reg[0]);
  EXPECT_EQ(9u, request.key.pipeline.metadata.host());
  EXPECT_EQ(be32{}, request.key.packet.nw_src);
  EXPECT_THAT(output.actions, ElementsAre(Action(UserspaceAction{UserspaceReason::controller, 1, 99})));
}

TEST_F(TranslateTest, PacketOutRunsActionsAndMayEnterTheTable) {
  setup({"bridge br0", "port br0 p1 1", "port br0 p2 2", "rule br0 in_port=1,actions=output:2",
         "rule br0 in_port=65535,actions=output:1"});
  const RuleActionList actions = parse_actions("output:2,TABLE,CONTROLLER:65535").value();
  TranslateInput input{.view = fixture_.view(),
                       .key = key("tcp"),
                       .actions = &actions,
                       .bridge = fixture_.bridge("br0"),
                       .ofport_in = kOfPortNone,
                       .contexts = &contexts_};
  EXPECT_THAT(translate(input).actions, ElementsAre(Action(OutputAction{101}), Action(OutputAction{100}),
                                                    Action(UserspaceAction{UserspaceReason::controller, 1, 0})));
  EXPECT_EQ(PacketInReason::packet_out, contexts_.requests.at(0).action.reason);
  input.ofport_in = 1;
  EXPECT_THAT(translate(input).actions, SizeIs(3));
}

TEST_F(TranslateTest, DropReasons) {
  setup({"bridge br0", "port br0 p1 1", "port br0 p2 2 config=no_forward", "rule br0 tcp,actions=drop",
         "rule br0 udp,actions=output:2"});
  EXPECT_EQ(DropReason::of_pipeline, run(key("in_port=100,tcp")).drop_reason);
  EXPECT_EQ(DropReason::no_rule, run(key("in_port=100,icmp")).drop_reason);
  EXPECT_EQ(DropReason::forwarding_disabled, run(key("in_port=100,udp")).drop_reason);
  EXPECT_EQ(DropReason::invalid_port, run(key("in_port=55,udp")).drop_reason);
  FlowKey odd = key("in_port=100,udp");
  odd.recirc_id = 9;
  EXPECT_EQ(DropReason::no_recirculation_context, run(odd).drop_reason);
  odd.recirc_id = 0;
  odd.packet_type = to_be32(0x10800);
  EXPECT_EQ(DropReason::unsupported_packet_type, run(odd).drop_reason);
}

TEST_F(TranslateTest, MaskAlwaysHasWhatTheHeaderPromises) {
  setup({"bridge br0", "port br0 p1 1", "rule br0 actions=drop"});
  const FlowMask mask = run(key("in_port=100,tcp")).mask;
  EXPECT_EQ(~0u, mask.in_port);
  EXPECT_EQ(~0u, mask.recirc_id);
  EXPECT_EQ(~be16{}, mask.eth_type);
  EXPECT_EQ(~be32{}, mask.packet_type);
  EXPECT_EQ(kFragAny | kFragLater, mask.nw_frag);
  EXPECT_EQ(0, mask.nw_proto);
}

// Each table resubmits to the next, the last back to the first: as deeply nested as translation may get.
TEST_F(TranslateTest, LongChainsOfTablesEndInALimitNotInACrash) {
  setup({"bridge br0", "port br0 p1 1"});
  for (int table = 0; table < kTableCount; ++table) {
    const int next = (table + 1) % kTableCount;
    const std::string rule =
        "table=" + std::to_string(table) + ",actions=resubmit(," + std::to_string(next) + "),output:1";
    ASSERT_TRUE(fixture_.add_rule("br0", rule).ok());
  }
  const TranslateOutput output = run(key("in_port=100,tcp"));
  EXPECT_TRUE(output.failed);
  EXPECT_TRUE(output.actions.empty());
  EXPECT_EQ(DropReason::too_many_resubmit, output.drop_reason);
  EXPECT_THAT(output.credit.rules, SizeIs(4097));
}

std::string repeated(const std::string& action, int n) {
  std::string list;
  for (int i = 0; i < n; ++i) list += (i == 0 ? "" : ",") + action;
  return list;
}

TEST_F(TranslateTest, TooManyOutputsAreRefusedAsAWhole) {
  setup({"bridge br0", "port br0 p1 1", "port br0 p2 2"});
  const std::string outputs = repeated("output:2", 100);
  ASSERT_TRUE(fixture_.add_rule("br0", "in_port=1,actions=" + repeated("resubmit(,1)", 82)).ok());
  ASSERT_TRUE(fixture_.add_rule("br0", "in_port=2,actions=" + repeated("resubmit(,1)", 80)).ok());
  ASSERT_TRUE(fixture_.add_rule("br0", "table=1,actions=" + outputs).ok());
  const TranslateOutput output = run(key("in_port=100,tcp"));
  EXPECT_TRUE(output.actions.empty());
  EXPECT_EQ(DropReason::too_many_output_actions, output.drop_reason);
  ASSERT_TRUE(fixture_.add_rule("br0", "table=1,in_port=2,priority=65535,actions=" + repeated("output:1", 100)).ok());
  EXPECT_THAT(run(key("in_port=101,tcp")).actions, SizeIs(8000));
}

TEST_F(TranslateTest, TheStackIsBounded) {
  setup({"bridge br0", "port br0 p1 1"});
  ASSERT_TRUE(fixture_.add_rule("br0", "actions=" + repeated("resubmit(,1)", 50)).ok());
  ASSERT_TRUE(fixture_.add_rule("br0", "table=1,actions=" + repeated("push:NXM_NX_XXREG0[]", 100)).ok());
  EXPECT_EQ(DropReason::stack_too_deep, run(key("in_port=100,tcp")).drop_reason);
}

}  // namespace
}  // namespace vswitch
