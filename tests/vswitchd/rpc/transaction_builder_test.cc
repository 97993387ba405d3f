#include "vswitchd/rpc/transaction_builder.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

namespace vswitch {
namespace {

// br0 with eth1 (number 1) and vx0 (number 2), br1 with nothing.
ConfigSource some_switch() {
  ConfigSource source;
  source.bridge = [](const std::string& name) -> Result<BridgeConfig> {
    if (name != "br0" && name != "br1") return not_found(std::string("no bridge named ").append(name));
    BridgeConfig config;
    config.name = name;
    return config;
  };
  source.port = [](const std::string& name) -> Result<PortConfig> {
    if (name != "eth1" && name != "vx0") return not_found(std::string("no port named ").append(name));
    PortConfig config;
    config.bridge = "br0";
    config.vport.name = name;
    config.vport.type = name == "eth1" ? "netdev" : "vxlan";
    if (name == "vx0") config.vport.options = {{"remote_ip", "1.2.3.4"}, {"key", "flow"}};
    return config;
  };
  source.settings = [] { return Settings{}; };
  source.port_numbers = [](const std::string& bridge) {
    std::vector<std::pair<std::string, OfPort>> out;
    if (bridge == "br0") out = {{"eth1", 1}, {"vx0", 2}};
    return out;
  };
  return source;
}

v1::ApplyRequest request(const std::string& text) {
  v1::ApplyRequest out;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &out)) << text;
  return out;
}

std::optional<Failure> build(TransactionBuilder& builder, const std::string& text) {
  return builder.add_all(request(text));
}

// The port that each rule of the transaction sends to first.
std::vector<OfPort> outputs(TransactionBuilder& builder) {
  std::vector<OfPort> ports;
  for (const Operation& operation : builder.transaction().operations) {
    if (!std::holds_alternative<ModifyRules>(operation)) continue;
    for (const RuleMod& mod : std::get<ModifyRules>(operation).mods) {
      ports.push_back(std::get<OutputToPort>(mod.spec.actions->at(0)).port);
    }
  }
  return ports;
}

TEST(TransactionBuilder, AnUpdateOfWhatTheBatchCreatesIsPartOfTheCreation) {
  TransactionBuilder builder(some_switch());
  ASSERT_FALSE(build(builder, R"(
      operations { create_port { port { name: "ports/vx1" bridge: "bridges/br0" } } }
      operations { update_port {
          port { name: "vx1" type: "vxlan" options { key: "remote_ip" value: "5.6.7.8" } ofport_request: 5 }
          update_mask { paths: "type" paths: "options.remote_ip" paths: "ofport_request" } } })"));
  ASSERT_EQ(builder.transaction().operations.size(), 1u);
  const auto& create = std::get<CreatePort>(builder.transaction().operations[0]);
  EXPECT_EQ(create.config.vport.type, "vxlan");
  EXPECT_EQ(create.config.vport.options.at("remote_ip"), "5.6.7.8");
  EXPECT_EQ(create.config.ofport_request, 5);
}

TEST(TransactionBuilder, AMaskTouchesNothingElse) {
  TransactionBuilder builder(some_switch());
  ASSERT_FALSE(build(builder, R"(operations { update_port {
      port { name: "vx0" options { key: "dst_port" value: "8472" } vlan { tag: 10 } }
      update_mask { paths: "options.dst_port" paths: "options.key" paths: "vlan.tag" } } })"));
  const auto& update = std::get<UpdatePort>(builder.transaction().operations.at(0));
  std::map<std::string, std::string> expected = {{"remote_ip", "1.2.3.4"}, {"dst_port", "8472"}};  // key is removed
  EXPECT_EQ(update.config.vport.options, expected);
  EXPECT_EQ(update.config.vlan.tag, 10);
  EXPECT_EQ(update.config.vlan.mode, VlanMode::access);
  EXPECT_EQ(update.config.vport.type, "vxlan");
}

TEST(TransactionBuilder, LaterStepsSeeEarlierOnes) {
  TransactionBuilder builder(some_switch());
  ASSERT_FALSE(build(builder, R"(
      operations { create_bridge { bridge { name: "br2" } } }
      operations { update_port { port { name: "br2" mtu_request: 9000 } update_mask { paths: "mtu_request" } } }
      operations { modify_rules { bridge: "br2" mods { text: "actions=drop" } } }
      operations { delete_bridge { name: "br0" } })"));
  EXPECT_EQ(builder.transaction().operations.size(), 4u);
  std::optional<Failure> failure =
      builder.add_all(request(R"(operations { update_port { port { name: "eth1" } update_mask { paths: "mac" } } })"));
  ASSERT_TRUE(failure) << "eth1 went with br0";
  EXPECT_EQ(failure->status.code(), StatusCode::not_found);
}

TEST(TransactionBuilder, AllowExisting) {
  TransactionBuilder builder(some_switch());
  ASSERT_FALSE(build(builder, R"(
      operations { create_bridge { bridge { name: "br0" } allow_existing: true } }
      operations { create_port { port { name: "eth1" bridge: "br0" } allow_existing: true } }
      operations { delete_port { name: "nothing" allow_missing: true } })"));
  EXPECT_TRUE(builder.transaction().operations.empty());
  std::optional<Failure> failure =
      build(builder, R"(operations { create_port { port { name: "eth1" bridge: "br1" } allow_existing: true } })");
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->status.code(), StatusCode::already_exists);
  EXPECT_EQ(failure->status.message(), "port eth1 is in bridge br0 already, so it cannot be added to bridge br1");
}

TEST(TransactionBuilder, PortNamesInRules) {
  TransactionBuilder builder(some_switch());
  std::optional<Failure> failure = build(builder, R"(
      operations { create_port { port { name: "new" bridge: "br0" ofport_request: 7 } } }
      operations { modify_rules { bridge: "br0" mods { text: "in_port=eth1,actions=output:vx0" }
                                  mods { text: "actions=output:new" } } })");
  ASSERT_FALSE(failure) << failure->status.message();
  const auto& rules = std::get<ModifyRules>(builder.transaction().operations.at(1));
  EXPECT_EQ(rules.mods[0].spec.match.expand().value.packet.in_port, 1u);
  EXPECT_EQ(outputs(builder), (std::vector<OfPort>{2, 7}));
}

// Names have been looked up already when the port is made.
TEST(TransactionBuilder, NamesOfPortsThatComeLater) {
  TransactionBuilder builder(some_switch());
  std::optional<Failure> failure = build(builder, R"(
      operations { modify_rules { bridge: "br0" mods { text: "in_port=eth1,actions=output:vx0" } } }
      operations { create_port { port { name: "new" bridge: "br0" ofport_request: 7 } } }
      operations { modify_rules { bridge: "br0" mods { text: "in_port=eth1,actions=output:new" }
                                  mods { text: "in_port=eth1,actions=output:vx0" } } })");
  ASSERT_FALSE(failure) << failure->status.message();
  EXPECT_EQ(outputs(builder), (std::vector<OfPort>{2, 7, 2}));
}

// What a name stands for changes between two rules of the same form.
TEST(TransactionBuilder, NamesThatChange) {
  TransactionBuilder builder(some_switch());
  std::optional<Failure> failure = build(builder, R"(
      operations { modify_rules { bridge: "br0" mods { text: "in_port=2,actions=output:eth1" } } }
      operations { delete_port { name: "eth1" } }
      operations { create_port { port { name: "eth1" bridge: "br0" ofport_request: 9 } } }
      operations { modify_rules { bridge: "br0" mods { text: "in_port=3,actions=output:eth1" } } }
      operations { update_port { port { name: "eth1" ofport_request: 10 } update_mask { paths: "ofport_request" } } }
      operations { update_port { port { name: "vx0" ofport_request: 1 } update_mask { paths: "ofport_request" } } }
      operations { modify_rules { bridge: "br0" mods { text: "in_port=vx0,actions=output:eth1" }
                                  mods { text: "in_port=4,actions=output:vx0" } } })");
  ASSERT_FALSE(failure) << failure->status.message();
  EXPECT_EQ(outputs(builder), (std::vector<OfPort>{1, 9, 10, 1}));

  failure = build(builder, R"(
      operations { delete_port { name: "eth1" } }
      operations { modify_rules { bridge: "br0" mods { text: "in_port=5,actions=output:eth1" } } })");
  ASSERT_TRUE(failure) << "it is gone";
  EXPECT_EQ(failure->operation, 1u);
}

// A bridge that is made anew has no port but its own.
TEST(TransactionBuilder, NamesOfABridgeThatIsMadeAnew) {
  TransactionBuilder builder(some_switch());
  std::optional<Failure> failure = build(builder, R"(
      operations { delete_bridge { name: "br0" } }
      operations { create_bridge { bridge { name: "br0" } } }
      operations { update_port { port { name: "br0" ofport_request: 5 } update_mask { paths: "ofport_request" } } }
      operations { modify_rules { bridge: "br0" mods { text: "in_port=br0,actions=drop" } } }
      operations { modify_rules { bridge: "br0" mods { text: "in_port=eth1,actions=drop" } } })");
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->operation, 4u);
  const auto& rules = std::get<ModifyRules>(builder.transaction().operations.at(3));
  EXPECT_EQ(rules.mods[0].spec.match.expand().value.packet.in_port, kOfPortLocal);
  EXPECT_EQ(failure->status.code(), StatusCode::invalid_argument);
}

// Many rules of one form share their actions, whatever the bridge.
TEST(TransactionBuilder, ManyRulesOfOneForm) {
  TransactionBuilder builder(some_switch());
  v1::ApplyRequest many;
  for (const char* bridge : {"br0", "br1", "br0"}) {
    v1::RuleChanges& changes = *many.add_operations()->mutable_modify_rules();
    changes.set_bridge(bridge);
    for (int i = 1; i <= 50; ++i) {
      v1::RuleMod& mod = *changes.add_mods();
      mod.set_text("priority=" + std::to_string(i) + ",udp,tp_dst=" + std::to_string(i) + ",actions=output:2");
      if (i % 10 == 0) mod.set_command(v1::RULE_COMMAND_ADD);
      if (i % 25 == 0) mod.set_command(v1::RULE_COMMAND_MODIFY);
    }
  }
  const std::optional<Failure> failure = builder.add_all(many);
  ASSERT_FALSE(failure) << failure->status.message();
  ASSERT_EQ(builder.transaction().operations.size(), 3u);
  for (const Operation& operation : builder.transaction().operations) {
    const std::vector<RuleMod>& mods = std::get<ModifyRules>(operation).mods;
    ASSERT_EQ(mods.size(), 50u);
    for (int i = 1; i <= 50; ++i) {
      const RuleMod& mod = mods[static_cast<size_t>(i - 1)];
      EXPECT_EQ(mod.command, i % 25 == 0 ? RuleCommand::modify : RuleCommand::add);
      EXPECT_EQ(mod.spec.priority, i);
      EXPECT_EQ(mod.spec.match.expand().value.packet.tp_dst, to_be16(static_cast<uint16_t>(i)));
      if (mod.command == RuleCommand::add) {
        EXPECT_EQ(mod.spec.actions, mods[0].spec.actions) << "shared";
      }
    }
  }
}

TEST(TransactionBuilder, FailuresSayWhere) {
  struct Case {
    const char* request;
    StatusCode code;
    size_t operation;
    const char* says;
  };
  const Case cases[] = {
      {R"(operations { delete_bridge { name: "br1" } } operations { update_bridge { bridge { name: "br1" } } })",
       StatusCode::not_found, 1, "br1"},
      {R"(operations { create_port { port { name: "p" bridge: "ports/x" } } })", StatusCode::invalid_argument, 0,
       "not the name of a bridge"},
      {R"(operations { create_port { port { name: "p" } } })", StatusCode::invalid_argument, 0, "must be named"},
      {R"(operations { create_port { port { name: "p" bridge: "br0" mac: "x" } } })", StatusCode::invalid_argument, 0,
       "Ethernet address"},
      {R"(operations { update_port { port { name: "eth1" } update_mask { paths: "vlan.tga" } } })",
       StatusCode::invalid_argument, 0, "vlan.tga"},
      {R"(operations { update_port { port { name: "eth1" } update_mask { paths: "ofport" } } })",
       StatusCode::invalid_argument, 0, "cannot be set"},
      {R"(operations { delete_port { name: "eth1" bridge: "br1" } })", StatusCode::not_found, 0, "it is in bridge br0"},
      {R"(operations { })", StatusCode::invalid_argument, 0, "nothing in it"},
      {R"(operations { update_port { port { name: "eth1" vlan { tag: 4096 } } update_mask { paths: "vlan" } } })",
       StatusCode::invalid_argument, 0, "0 to 4095"},
  };
  for (const Case& c : cases) {
    TransactionBuilder builder(some_switch());
    std::optional<Failure> failure = build(builder, c.request);
    ASSERT_TRUE(failure) << c.request;
    EXPECT_EQ(failure->status.code(), c.code) << c.request;
    EXPECT_EQ(failure->operation, c.operation) << c.request;
    EXPECT_NE(failure->status.message().find(c.says), std::string::npos) << failure->status.message();
  }
}

TEST(TransactionBuilder, TheRuleAtFaultIsNumbered) {
  TransactionBuilder builder(some_switch());
  std::optional<Failure> failure = build(builder, R"(operations { modify_rules { bridge: "br0"
      mods { text: "actions=drop" } mods { text: "actions=fly" } } })");
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->operation, 0u);
  EXPECT_EQ(failure->rule_mod, 1u);
}

}  // namespace
}  // namespace vswitch
