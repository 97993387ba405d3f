// What translation gives beside actions: credit, learned addresses, packet-in requests; packet-out; and its limits.
#include "vswitchd/translate/translate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/switch_fixture.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/translate/trace_text.h"

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
  RecircRef freeze(FrozenState state) override { return recircs.freeze(std::move(state)); }
  RecircRef thaw(uint32_t recirc_id) const override { return recircs.find(recirc_id); }
  std::vector<ControllerRequest> requests;
  RecircTable recircs;
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

// Translated is now the packet, now its flow's key, which has no TPID: both must say of the tag that it was written.
TEST_F(TranslateTest, WritingATagCountsAlsoWhereItHadTheValue) {
  setup(
      {"bridge br0", "port br0 p1 1", "rule br0 actions=mod_vlan_pcp:0,goto_table:1", "rule br0 table=1,actions=drop"});
  FlowKey packet = key("in_port=100,dl_vlan=11,dl_vlan_pcp=0,dl_type=0x1234");
  for (const be16 tpid : {kEthTypeVlan, be16{}}) {
    packet.vlan[0].tpid = tpid;
    EXPECT_EQ(1 << 3, run(packet).rewritten_words & 1 << 3);
  }
  packet.vlan[0] = {};
  EXPECT_EQ(1 << 3, run(packet).rewritten_words & 1 << 3) << "a tag is added";
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

// What was done before stands, and the copy that went astray is dropped by name.
TEST_F(TranslateTest, AFailureBehindAPatchPortDropsThatCopy) {
  setup({"bridge br0", "bridge br1", "port br0 p1 1", "port br0 p2 2", "port br0 pa 10 type=patch peer=pb",
         "port br1 pb 11 type=patch peer=pa", "rule br0 in_port=1,actions=output:2,output:10,output:10,output:2",
         "rule br0 in_port=10,actions=output:2,in_port", "rule br1 actions=in_port",
         "rule br0 in_port=2,actions=output:1,output:10",
         "rule br0 in_port=2,priority=40000,udp,actions=output:10,output:10"});
  const auto dropped = [](DropReason reason) {
    return Action(CloneAction{std::make_shared<const ActionList>(ActionList{DropAction{reason}})});
  };
  const TranslateOutput output = run(key("in_port=100,tcp"));
  EXPECT_FALSE(output.failed);
  EXPECT_THAT(output.actions, testing::Contains(dropped(DropReason::recursion_too_deep)).Times(1));
  EXPECT_EQ(output.actions.back(), Action(OutputAction{101}));
  setup({"rule br0 priority=50000,in_port=10,actions=in_port"});
  EXPECT_THAT(run(key("in_port=101,tcp")).actions,
              ElementsAre(Action(OutputAction{100}), dropped(DropReason::recursion_too_deep)));
  const TranslateOutput nothing = run(key("in_port=101,udp"));
  EXPECT_TRUE(nothing.actions.empty()) << "there is no other copy";
  EXPECT_EQ(DropReason::recursion_too_deep, nothing.drop_reason);
}

TEST_F(TranslateTest, RecirculationFreezesAndThaws) {
  setup({"bridge br0", "port br0 p1 1", "port br0 p2 2",
         "rule br0 in_port=1,cookie=0x9,actions=load:3->reg0[],debug_recirc,controller,resubmit(,1)",
         "rule br0 table=1,reg0=3,actions=output:2"});
  const TranslateOutput first = run(key("in_port=100,tcp"), 1);
  ASSERT_THAT(first.recirculations, SizeIs(1));
  const Recirculation& recirculation = first.recirculations[0];
  EXPECT_THAT(first.actions, ElementsAre(Action(RecircAction{recirculation.context->id})));
  EXPECT_EQ(first.actions, run(key("in_port=100,tcp")).actions) << "the same state, the same number";
  EXPECT_EQ(100u, recirculation.key.in_port);

  const TranslateOutput second = run(recirculation.key, 1);
  EXPECT_EQ(recirculation.context, second.thawed);
  EXPECT_THAT(second.actions,
              ElementsAre(Action(UserspaceAction{UserspaceReason::controller, 1, 0}), Action(OutputAction{101})));
  EXPECT_EQ(0x9u, contexts_.requests.at(0).rule_cookie);
  EXPECT_EQ(PacketInReason::action, contexts_.requests.at(0).action.reason);
  EXPECT_THAT(second.credit.rules, SizeIs(1)) << "the first rule has counted the packet already";

  // What is done then is looked up then.
  setup({"rule br0 table=1,priority=40000,reg0=3,actions=in_port"});
  EXPECT_THAT(run(recirculation.key).actions, testing::Contains(Action(OutputAction{100})));
}

TEST_F(TranslateTest, WhatCannotBeResumedIsDroppedByName) {
  setup({"bridge br0", "bridge br1", "port br0 p1 1", "port br0 pa 10 type=patch peer=pb",
         "port br1 pb 11 type=patch peer=pa", "port br1 p2 2", "rule br0 actions=output:10",
         "rule br1 actions=debug_recirc,output:2"});
  const TranslateOutput first = run(key("in_port=100,tcp"));
  ASSERT_THAT(first.recirculations, SizeIs(1));
  FrozenState elsewhere = first.recirculations[0].context->state;
  FlowKey packet = first.recirculations[0].key;
  EXPECT_EQ("br1", elsewhere.bridge);
  EXPECT_THAT(run(packet).actions, ElementsAre(Action(OutputAction{101})));

  elsewhere.tables = std::make_shared<RuleTables>(fixture_.clock());  // a bridge of the same name, but not the same
  const RecircRef gone = contexts_.recircs.freeze(elsewhere);
  packet.recirc_id = gone->id;
  EXPECT_EQ(DropReason::bridge_not_found, run(packet).drop_reason);

  const RuleActionList actions = parse_actions("output:1").value();
  EXPECT_EQ(DropReason::recirculation_conflict, translate({.view = fixture_.view(),
                                                           .key = packet,
                                                           .actions = &actions,
                                                           .bridge = fixture_.bridge("br0"),
                                                           .ofport_in = 1,
                                                           .contexts = &contexts_})
                                                    .drop_reason);
  // Nobody there to keep the state: as when there are too many already.
  EXPECT_EQ(DropReason::no_recirculation_context,
            translate({.view = fixture_.view(), .key = key("in_port=101,tcp")}).drop_reason);
}

size_t count_nodes(const std::vector<TraceNode>& nodes) {
  size_t n = nodes.size();
  for (const TraceNode& node : nodes) n += count_nodes(node.children);
  return n;
}

TEST_F(TranslateTest, TracesAreBoundedAndNamePorts) {
  setup({"bridge br0", "bridge br1", "port br0 p1 1", "port br0 p2 2", "port br0 pa 10 type=patch peer=pb",
         "port br1 pb 11 type=patch peer=pa", "rule br0 in_port=1,actions=output:10,output:2",
         "rule br1 in_port=11,actions=write_actions(output:11)"});
  std::map<std::string, FlowNames, std::less<>> names;
  names["br0"].add_port(1, "p1");
  names["br0"].add_port(2, "p2");
  names["br0"].add_port(10, "pa");
  names["br1"].add_port(11, "pb");
  const FlowKey packet = key("in_port=100,tcp");
  std::vector<TraceNode> nodes;
  TranslateInput input{.view = fixture_.view(), .key = packet, .trace = &nodes, .contexts = &contexts_};
  input.names = [&](const BridgeView& bridge) { return &names.at(bridge.name); };
  (void)translate(input);
  const std::string text = format_trace_nodes(nodes);
  for (const char* part : {"in_port=p1, priority", "output:pa", "in_port=pb, priority", "write_actions(output:pb)",
                           "action set is: output:pb", "output:p2"}) {
    EXPECT_THAT(text, testing::HasSubstr(part));
  }

  nodes.clear();
  const ActionList whole = translate(input).actions;
  nodes.clear();
  input.max_trace_bytes = 300;
  const TranslateOutput cut = translate(input);
  EXPECT_EQ(cut.actions, whole) << "the packet itself goes on";
  EXPECT_GT(cut.trace_bytes, 300u);
  EXPECT_LT(count_nodes(nodes), 7u);
  EXPECT_THAT(format_trace_nodes(nodes), testing::HasSubstr(" >> the trace is cut here, at 300 bytes"));
}

TEST_F(TranslateTest, TheStackIsBounded) {
  setup({"bridge br0", "port br0 p1 1"});
  ASSERT_TRUE(fixture_.add_rule("br0", "actions=" + repeated("resubmit(,1)", 50)).ok());
  ASSERT_TRUE(fixture_.add_rule("br0", "table=1,actions=" + repeated("push:NXM_NX_XXREG0[]", 100)).ok());
  EXPECT_EQ(DropReason::stack_too_deep, run(key("in_port=100,tcp")).drop_reason);
}

}  // namespace
}  // namespace vswitch
