#include "vswitchd/rpc/proto_convert_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vswitch {
namespace {

using testing::HasSubstr;

constexpr size_t kDefaultMessageLimit = 4 << 20;  // what a gRPC client takes unless told otherwise

TraceSection section(uint32_t recirc_id) {
  TraceSection s;
  s.bridge = "br0";
  s.flow.packet.in_port = s.final_flow.packet.in_port = 1;
  s.megaflow_mask.in_port = ~0u;
  s.recirc_id = recirc_id;
  s.actions = {OutputAction{7}};
  return s;
}

v1::TraceResponse convert(const TraceResult& trace, const TraceTextOptions& options = {}) {
  v1::TraceResponse out;
  trace_to_proto(trace, options, out);
  return out;
}

TEST(TraceToProto, NamesPortsEverywhere) {
  TraceResult trace;
  trace.sections.push_back(section(0));
  trace.names["br0"].add_port(1, "vm1");
  TraceTextOptions options;
  options.dp_port_name = [](uint32_t port) { return port == 7 ? "vm2" : ""; };
  const v1::TraceResponse out = convert(trace, options);
  EXPECT_THAT(out.sections(0).flow(), HasSubstr("in_port=vm1"));
  EXPECT_THAT(out.sections(0).megaflow(), HasSubstr("in_port=vm1"));
  EXPECT_EQ(out.sections(0).datapath_actions(), "vm2");
}

TEST(TraceToProto, SaysWhatAPacketInCarries) {
  TraceResult trace;
  trace.sections.push_back(section(0));
  trace.sections[0].actions = {UserspaceAction{UserspaceReason::controller, 9, 0},
                               UserspaceAction{UserspaceReason::controller, 10, 0}};
  ControllerRequest request;
  request.rule_cookie = 0x77;
  request.action.controller_id = 3;
  request.action.max_len = 128;
  trace.controller_requests[9] = std::make_shared<const ControllerRequest>(request);
  EXPECT_EQ(convert(trace).sections(0).datapath_actions(),
            "userspace(pid=0,controller(reason=1,dont_send=0,continuation=0,recirc_id=9,rule_cookie=0x77,"
            "controller_id=3,max_len=128)),userspace(pid=0,controller(recirc_id=10))");
}

TEST(TraceToProto, EachPassIsASection) {
  TraceResult trace;
  trace.sections = {section(0), section(0x2a)};
  const v1::TraceResponse out = convert(trace);
  ASSERT_EQ(out.sections_size(), 2);
  EXPECT_EQ(out.sections(1).recirc_id(), 0x2au);
  EXPECT_THAT(out.text(), HasSubstr("Datapath actions: 7\n\n====="));
  EXPECT_THAT(out.text(), HasSubstr("\nrecirc(0x2a)\n"));
}

// The tree comes bounded from the tracer; the text is longer by its indentation, and datapath actions are in both.
TEST(TraceToProto, FitsIntoAMessage) {
  TraceResult trace;
  for (uint32_t i = 0; i < 8; ++i) {
    TraceSection s = section(i);
    TraceNode* parent = nullptr;
    for (int depth = 0; depth < 60; ++depth) {
      std::vector<TraceNode>& nodes = parent == nullptr ? s.nodes : parent->children;
      nodes.resize(2);  // what follows at the same depth makes the first indented
      for (TraceNode& table : nodes) table.kind = TraceNode::Kind::table;
      parent = &nodes[0];
    }
    for (int leaf = 0; leaf < 2500; ++leaf) {
      TraceNode& table = parent->children.emplace_back();
      table.kind = TraceNode::Kind::table;
      table.text = "priority 1";
    }
    SetEthernetAction set;
    set.dst_mask = MacAddress::from_u64(255);
    for (int output = 0; output < 8000; ++output) s.actions.emplace_back(set);
    trace.sections.push_back(std::move(s));
  }
  const v1::TraceResponse out = convert(trace);
  EXPECT_LT(out.ByteSizeLong(), kDefaultMessageLimit);
  EXPECT_NE(out.text().find(" >> this text is cut here"), std::string::npos);
  EXPECT_NE(out.sections(0).datapath_actions().find("... (cut: "), std::string::npos);
  EXPECT_EQ(out.sections_size(), 8);
}

}  // namespace
}  // namespace vswitch
