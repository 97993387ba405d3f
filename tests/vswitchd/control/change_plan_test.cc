#include "vswitchd/control/change_plan.h"

#include <gtest/gtest.h>

namespace vswitch {
namespace {

CreateBridge bridge(const std::string& name) {
  CreateBridge create;
  create.config.name = name;
  return create;
}
PortConfig port_config(const std::string& bridge_name, const std::string& name, const std::string& type = "dummy",
                       std::map<std::string, std::string> options = {}) {
  PortConfig config;
  config.bridge = bridge_name;
  config.vport.name = name;
  config.vport.type = type;
  config.vport.options = std::move(options);
  return config;
}
CreatePort port(const std::string& bridge_name, const std::string& name, const std::string& type = "dummy",
                std::map<std::string, std::string> options = {}) {
  return {port_config(bridge_name, name, type, std::move(options))};
}
template <typename Change>
CreateBridge bridge_with(const std::string& name, Change&& change) {
  CreateBridge create = bridge(name);
  change(create.config);
  return create;
}
template <typename Change>
CreatePort port_with(const std::string& bridge_name, const std::string& name, Change&& change) {
  CreatePort create = port(bridge_name, name);
  change(create.config);
  return create;
}
CreatePort numbered(const std::string& bridge_name, const std::string& name, uint16_t ofport) {
  return port_with(bridge_name, name, [&](PortConfig& c) { c.ofport_request = ofport; });
}

class ChangePlanTest : public testing::Test {
 protected:
  Result<ChangePlan> plan(std::vector<Operation> operations) {
    failure_ = {99, 99};
    transaction_ = {std::move(operations), false};
    return plan_changes(
        current_, transaction_, [this] { return MacAddress::from_u64(0x020000000000 + ++macs_); }, &failure_);
  }
  ChangePlan good(std::vector<Operation> operations) {
    Result<ChangePlan> result = plan(std::move(operations));
    EXPECT_TRUE(result.ok()) << result.status().message();
    return result.ok() ? std::move(*result) : ChangePlan();
  }
  // As if it had been applied.
  void commit(std::vector<Operation> operations) { current_ = good(std::move(operations)).next; }
  void add_tunnel() { commit({port("br0", "vx5", "vxlan", {{"remote_ip", "10.0.0.2"}, {"key", "5"}})}); }
  // br0 with p1, p2 (device eth7) and a patch; br1 empty.
  void set_up() {
    commit({bridge("br0"), bridge("br1"), port("br0", "p1"), port("br0", "p2", "netdev", {{"device", "eth7"}}),
            port("br0", "patch0", "patch", {{"peer", "patch1"}})});
  }

  Configuration current_;
  Transaction transaction_;
  TransactionFailure failure_;
  uint64_t macs_ = 0;
};

// ---------------------------------------------------------------- what is refused

struct BadInput {
  const char* name;
  Operation operation;
  StatusCode code;
  std::string message;
  std::string field;
};

std::vector<BadInput> bad_input() {
  using enum StatusCode;
  UpdateBridge unknown_bridge;
  unknown_bridge.config.name = "br9";
  return {
      {"bridge_without_name", bridge(""), invalid_argument, "a bridge needs a name", "name"},
      {"bridge_name_too_long", bridge("a234567890123456"), invalid_argument,
       "bridge name \"a234567890123456\" has 16 characters; at most 15 are possible", "name"},
      {"bridge_name_odd", bridge("br 0"), invalid_argument,
       "bridge name \"br 0\" has a character that is not allowed at position 3; letters, digits and _ . - : @ + are",
       "name"},
      {"bridge_name_two_lines", bridge("b\nr"), invalid_argument,
       "bridge name \"b\\x0ar\" has a character that is not allowed at position 2; letters, digits and _ . - : @ + are",
       "name"},
      {"bridge_name_dots", bridge(".."), invalid_argument, "a bridge cannot be named \"..\"", "name"},
      {"bridge_name_no_device", bridge("br:0"), invalid_argument, "port br:0: not a name that a Linux device can have",
       "name"},
      {"bridge_twice", bridge("br0"), already_exists, "a bridge named \"br0\" already exists", "name"},
      {"bridge_named_as_port", bridge("p1"), already_exists,
       "cannot create a bridge named \"p1\": a port of bridge \"br0\" has that name", "name"},
      {"bridge_ageing", bridge_with("b", [](BridgeConfig& c) { c.mac_ageing_seconds = 14; }), invalid_argument,
       "bridge \"b\": mac_ageing_seconds 14 is not between 15 and 3600", "mac_ageing_seconds"},
      {"bridge_table", bridge_with("b", [](BridgeConfig& c) { c.mac_table_size = 1'000'001; }), invalid_argument,
       "bridge \"b\": mac_table_size 1000001 is not between 10 and 1000000", "mac_table_size"},
      {"bridge_flood_vlan", bridge_with("b", [](BridgeConfig& c) { c.flood_vlans = {4096}; }), invalid_argument,
       "bridge \"b\": flood_vlans 4096 is not between 0 and 4095", "flood_vlans"},
      {"bridge_multicast", bridge_with("b", [](BridgeConfig& c) { c.mac.bytes = {1, 2, 3, 4, 5, 6}; }),
       invalid_argument, "bridge \"b\": 01:02:03:04:05:06 is a multicast address", "mac"},
      {"bridge_unknown", unknown_bridge, not_found, "no bridge named \"br9\"", "bridge"},
      {"bridge_delete_unknown", DeleteBridge{"br9"}, not_found, "no bridge named \"br9\"", "bridge"},
      {"port_without_name", port("br0", ""), invalid_argument, "a port needs a name", "name"},
      {"port_name_too_long", port("br0", std::string(64, 'x')), invalid_argument,
       "port name \"" + std::string(64, 'x') + "\" has 64 characters; at most 63 are possible", "name"},
      {"port_name_odd", port("br0", "p/1"), invalid_argument,
       "port name \"p/1\" has a character that is not allowed at position 2; letters, digits and _ . - : @ + are",
       "name"},
      {"port_unknown_bridge", port("br9", "x"), not_found, "no bridge named \"br9\"", "bridge"},
      {"port_twice", port("br0", "p1"), already_exists, "bridge \"br0\" already has a port named \"p1\"", "name"},
      {"port_elsewhere", port("br1", "p1"), already_exists, "port \"p1\" already belongs to bridge \"br0\"", "name"},
      {"port_named_as_bridge", port("br0", "br1"), already_exists,
       "cannot create a port named \"br1\": a bridge has that name", "name"},
      {"port_type", port("br0", "x", "vxlam"), invalid_argument,
       "port \"x\": unknown type \"vxlam\" (did you mean \"vxlan\"?); known types: patch, netdev, internal, vxlan, "
       "dummy, pcap, dpdk, afxdp",
       "type"},
      {"port_option", port("br0", "x", "vxlan", {{"remote_ip", "10.0.0.1"}, {"dst_prt", "1"}}), invalid_argument,
       "port x: unknown option \"dst_prt\" for type vxlan; did you mean \"dst_port\"?", "options:dst_prt"},
      {"port_option_with_nul", port("br0", "x", "netdev", {{"device", std::string("eth1\0.5", 7)}}), invalid_argument,
       "port \"x\": option \"device\" contains a NUL byte", "options:device"},
      {"port_ofport", numbered("br0", "x", 0xff00), invalid_argument,
       "port \"x\": ofport_request 65280 is not between 1 and 65279", "ofport_request"},
      {"port_ofport_taken", numbered("br0", "x", 1), already_exists,
       "port \"x\": OpenFlow port number 1 is taken by port \"p1\"", "ofport_request"},
      {"port_tag", port_with("br0", "x", [](PortConfig& c) { c.vlan.tag = 4095; }), invalid_argument,
       "port \"x\": tag 4095 is not between 0 and 4094", "tag"},
      {"port_mtu", port_with("br0", "x", [](PortConfig& c) { c.vport.mtu_request = 67; }), invalid_argument,
       "port \"x\": mtu_request 67 is not between 68 and 65535", "mtu_request"},
      {"port_multicast", port_with("br0", "x", [](PortConfig& c) { c.vport.mac.bytes = {1}; }), invalid_argument,
       "port \"x\": 01:00:00:00:00:00 is a multicast address", "mac"},
      {"port_device_twice", port("br1", "eth7", "netdev"), already_exists,
       "port \"eth7\": device eth7 is in use by port \"p2\" of bridge \"br0\"", "options:device"},
      {"port_device_twice_by_afxdp", port("br1", "x", "afxdp", {{"device", "eth7"}}), already_exists,
       "port \"x\": device eth7 is in use by port \"p2\" of bridge \"br0\"", "options:device"},
      {"port_on_a_bridge", port("br1", "x", "netdev", {{"device", "br0"}}), already_exists,
       "port \"x\": device br0 is in use by port \"br0\" of bridge \"br0\"", "options:device"},
      {"same_tunnel", port("br1", "x", "vxlan", {{"remote_ip", "10.0.0.2"}, {"in_key", "0x5"}, {"out_key", "9"}}),
       already_exists,
       "port x: port vx5 already receives these packets: type=vxlan, remote_ip=10.0.0.2, local_ip=any, in_key=5, "
       "dst_port=4789",
       ""},
      {"patch_without_peer", port("br0", "x", "patch"), invalid_argument,
       "port \"x\": type patch needs options:peer=PORT", "options:peer"},
      {"patch_to_itself", port("br0", "x", "patch", {{"peer", "x"}}), invalid_argument,
       "port \"x\": a patch port cannot be its own peer", "options:peer"},
      {"patch_option", port("br0", "x", "patch", {{"pear", "y"}}), invalid_argument,
       "port x: unknown option \"pear\" for type patch; did you mean \"peer\"?", "options:pear"},
      {"update_unknown_port", UpdatePort{port_config("br0", "x")}, not_found, "no port named \"x\"", "name"},
      {"move_port", UpdatePort{port_config("br1", "p1")}, invalid_argument,
       "port \"p1\" belongs to bridge \"br0\" and cannot move to \"br1\"; delete it and add it there", "bridge"},
      {"local_port_type", UpdatePort{port_config("br0", "br0")}, invalid_argument,
       "port \"br0\" is the bridge's own and stays of type internal", "type"},
      {"delete_unknown_port", DeletePort{"x"}, not_found, "no port named \"x\"", "name"},
      {"delete_local_port", DeletePort{"br0"}, failed_precondition,
       "port \"br0\" is the local port of its bridge; delete the bridge instead", "name"},
      {"rules_unknown_bridge", ModifyRules{"br9", {}}, not_found, "no bridge named \"br9\"", "bridge"},
      {"threads", UpdateSettings{{0, 10'000, 1'000'000}}, invalid_argument,
       "settings: forwarding_threads 0 is not between 1 and 14", "forwarding_threads"},
      {"idle", UpdateSettings{{1, 99, 1'000'000}}, invalid_argument,
       "settings: max_idle_ms 99 is not between 100 and 3600000", "max_idle_ms"},
      {"flows", UpdateSettings{{1, 10'000, 999}}, invalid_argument,
       "settings: max_datapath_flows 999 is not between 1000 and 100000000", "max_datapath_flows"},
  };
}

TEST_F(ChangePlanTest, RefusesBadInputWithOneLine) {
  set_up();
  add_tunnel();
  for (const BadInput& bad : bad_input()) {
    SCOPED_TRACE(bad.name);
    const Result<ChangePlan> result = plan({port("br1", "fine"), bad.operation, port("br1", "fine-too")});
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.status().code(), bad.code);
    EXPECT_EQ(result.status().message(), bad.message);
    EXPECT_EQ(result.status().field(), bad.field);
    EXPECT_EQ(failure_.operation, 1u);
  }
}

// A version before this one let an AF_XDP port in on another port's device.
TEST_F(ChangePlanTest, PortsThatSharedADeviceBeforeHinderNoOtherChange) {
  set_up();
  commit({port("br0", "x", "afxdp", {{"device", "eth8"}})});
  current_.ports.at("x").vport.options["device"] = "eth7";
  good({port("br1", "y"), bridge("br2")});
  good({UpdatePort{current_.ports.at("p1")}});
  const Result<ChangePlan> third = plan({port("br1", "eth7", "netdev")});
  EXPECT_EQ(third.status().message(), "port \"eth7\": device eth7 is in use by port \"p2\" of bridge \"br0\"");
  good({DeletePort{"x"}});
}

TEST_F(ChangePlanTest, ATunnelsPlaceIsFreeForWhoeverHasItInTheEnd) {
  set_up();
  add_tunnel();
  const CreatePort same = port("br1", "vx6", "vxlan", {{"remote_ip", "10.0.0.2"}, {"key", "5"}});
  EXPECT_FALSE(plan({same}).ok());
  EXPECT_TRUE(plan({same, DeletePort{"vx5"}}).ok());
  UpdatePort moved{port_config("br0", "vx5", "vxlan", {{"remote_ip", "10.0.0.2"}, {"key", "6"}})};
  EXPECT_TRUE(plan({same, moved}).ok());
  moved.config.vport.options = {{"remote_ip", "10.0.0.2"}, {"key", "5"}, {"dst_port", "8472"}};
  EXPECT_TRUE(plan({moved, same}).ok());
  // Whoever came last is at fault.
  moved.config.vport.options = {{"remote_ip", "10.0.0.3"}, {"key", "5"}};
  commit({port("br1", "vx7", "vxlan", {{"remote_ip", "10.0.0.3"}, {"key", "5"}})});
  const Result<ChangePlan> refused = plan({port("br1", "fine"), moved});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().message().substr(0, 56), "port vx5: port vx7 already receives these packets: type=");
  EXPECT_EQ(failure_.operation, 1u);
}

// ---------------------------------------------------------------- what is planned

TEST_F(ChangePlanTest, ABridgeHasALocalPortWithItsAddress) {
  const ChangePlan result = good({bridge("br0")});
  EXPECT_EQ(result.created_bridges, std::set<std::string>{"br0"});
  EXPECT_EQ(result.created_ports, std::set<std::string>{"br0"});
  EXPECT_EQ(result.next.ofports.at("br0"), kOfPortLocal);
  EXPECT_EQ(result.next.bridges.at("br0").mac, MacAddress::from_u64(0x020000000001));
  EXPECT_EQ(result.next.ports.at("br0").vport.mac, result.next.bridges.at("br0").mac);
  EXPECT_EQ(result.next.ports.at("br0").vport.type, "internal");
}

TEST_F(ChangePlanTest, BridgeAndLocalPortKeepOneAddress) {
  set_up();
  const MacAddress other = MacAddress::from_u64(0x0200000000aa);
  UpdateBridge update{current_.bridges.at("br0")};
  update.config.mac = other;
  ChangePlan result = good({update});
  EXPECT_EQ(result.next.ports.at("br0").vport.mac, other);
  EXPECT_TRUE(result.updated_ports.contains("br0"));
  update.config.mac = {};
  EXPECT_EQ(good({update}).next.bridges.at("br0").mac, current_.bridges.at("br0").mac);

  UpdatePort local{current_.ports.at("br0")};
  local.config.vport.mac = other;
  result = good({local});
  EXPECT_EQ(result.next.bridges.at("br0").mac, other);
  EXPECT_TRUE(result.updated_bridges.contains("br0"));
  local.config.vport.mac = {};
  result = good({local});
  EXPECT_EQ(result.next.ports.at("br0").vport.mac, current_.bridges.at("br0").mac);
  EXPECT_TRUE(result.updated_bridges.empty());
}

TEST_F(ChangePlanTest, GivesTheLowestFreeOpenFlowNumber) {
  commit({bridge("br0"), numbered("br0", "a", 2), port("br0", "b"), port("br0", "c"), bridge("br1"), port("br1", "d")});
  EXPECT_EQ(current_.ofports.at("b"), 1);
  EXPECT_EQ(current_.ofports.at("c"), 3);
  EXPECT_EQ(current_.ofports.at("d"), 1) << "numbers are per bridge";
  EXPECT_EQ(good({DeletePort{"b"}, port("br0", "e")}).next.ofports.at("e"), 1);
  UpdatePort move{current_.ports.at("c")};
  move.config.ofport_request = 77;
  EXPECT_EQ(good({move}).next.ofports.at("c"), 77);
  EXPECT_EQ(good({numbered("br0", "z", 0xfeff)}).next.ofports.at("z"), 0xfeff);
}

TEST_F(ChangePlanTest, DatapathNumbersAreUniqueAndNotUsedAgainAtOnce) {
  set_up();
  std::set<uint32_t> numbers;
  for (const auto& [name, number] : current_.dp_ports) EXPECT_TRUE(number != 0 && numbers.insert(number).second);
  EXPECT_EQ(numbers.size(), 4u) << "patch ports have none";
  const uint32_t old_number = current_.dp_ports.at("p1");
  const ChangePlan result = good({DeletePort{"p1"}, port("br0", "p1")});
  EXPECT_NE(result.next.dp_ports.at("p1"), old_number);
  EXPECT_EQ(result.next.ofports.at("p1"), current_.ofports.at("p1"));
  EXPECT_EQ(result.deleted_ports, std::set<std::string>{"p1"});
  EXPECT_EQ(result.created_ports, std::set<std::string>{"p1"});
}

TEST_F(ChangePlanTest, DeletingABridgeTakesItsPortsAlong) {
  set_up();
  const ChangePlan result = good({ModifyRules{"br0", {RuleMod()}}, DeleteBridge{"br0"}});
  EXPECT_EQ(result.deleted_bridges, std::set<std::string>{"br0"});
  EXPECT_EQ(result.deleted_ports, (std::set<std::string>{"br0", "p1", "p2", "patch0"}));
  EXPECT_TRUE(result.rule_mods.empty());
  EXPECT_EQ(result.next.ports.size(), 1u);
  EXPECT_EQ(result.next.ofports.size(), 1u);
  EXPECT_EQ(result.next.dp_ports.size(), 1u);
}

TEST_F(ChangePlanTest, DeletedAndMadeAgainIsBoth) {
  set_up();
  const ChangePlan result =
      good({DeleteBridge{"br0"}, bridge("br0"), port("br0", "p1"), ModifyRules{"br0", {RuleMod()}}});
  EXPECT_EQ(result.deleted_bridges, std::set<std::string>{"br0"});
  EXPECT_EQ(result.created_bridges, std::set<std::string>{"br0"});
  EXPECT_TRUE(result.created_ports.contains("p1") && result.deleted_ports.contains("p1"));
  EXPECT_FALSE(result.created_ports.contains("p2"));
  ASSERT_EQ(result.rule_mods.at("br0").size(), 1u);
  EXPECT_EQ(result.rule_mods.at("br0")[0].operation, 3u);
}

TEST_F(ChangePlanTest, MadeAndDeletedIsNothing) {
  set_up();
  const ChangePlan result =
      good({bridge("br5"), port("br5", "x"), port("br0", "y"), DeletePort{"y"}, DeleteBridge{"br5"}});
  EXPECT_TRUE(result.created_bridges.empty() && result.deleted_bridges.empty());
  EXPECT_TRUE(result.created_ports.empty() && result.deleted_ports.empty() && result.updated_ports.empty());
  EXPECT_EQ(result.next, current_);
}

TEST_F(ChangePlanTest, LaterOperationsSeeEarlierOnes) {
  set_up();
  // The device is free because its port goes first, and the name because the bridge does.
  good({DeletePort{"p2"}, port("br1", "eth7", "netdev")});
  good({DeleteBridge{"br0"}, port("br1", "br0", "dummy")});
  EXPECT_FALSE(plan({port("br1", "eth7", "netdev"), port("br1", "q")}).ok());
  EXPECT_EQ(failure_.operation, 0u) << "the operation at fault, not the last";
  EXPECT_FALSE(plan({DeletePort{"p1"}, DeletePort{"p1"}}).ok());
  EXPECT_EQ(failure_.operation, 1u);
}

TEST_F(ChangePlanTest, AnotherTypeKeepsTheOpenFlowNumber) {
  set_up();
  const ChangePlan result = good({UpdatePort{port_config("br0", "p1", "patch", {{"peer", "q"}})}});
  EXPECT_EQ(result.next.ofports.at("p1"), current_.ofports.at("p1"));
  EXPECT_FALSE(result.next.dp_ports.contains("p1"));
  EXPECT_TRUE(result.created_ports.contains("p1") && result.deleted_ports.contains("p1"));
  EXPECT_TRUE(result.updated_ports.empty());
}

TEST_F(ChangePlanTest, SettingsThatStayAreNoChange) {
  EXPECT_FALSE(good({UpdateSettings{}}).settings_changed);
  EXPECT_TRUE(good({UpdateSettings{{2, 10'000, 1'000'000}}}).settings_changed);
}

// ---------------------------------------------------------------- what is stored

TEST_F(ChangePlanTest, ChecksAStoredConfiguration) {
  set_up();
  EXPECT_TRUE(check_configuration(current_).ok());
  const auto refused = [&](auto&& damage) {
    Configuration damaged = current_;
    damage(damaged);
    return check_configuration(damaged).message();
  };
  EXPECT_EQ(refused([](Configuration& c) { c.ports.erase("br0"); }), "bridge \"br0\" has no port of its own");
  EXPECT_EQ(refused([](Configuration& c) { c.bridges.erase("br0"); }), "no bridge named \"br0\"");
  EXPECT_EQ(refused([](Configuration& c) { c.ports.at("patch0").vport.options.clear(); }),
            "port \"patch0\": type patch needs options:peer=PORT");
  EXPECT_EQ(refused([](Configuration& c) { c.ofports.at("p2") = c.ofports.at("p1"); }),
            "port \"p2\": OpenFlow port number 1 cannot be");
  EXPECT_EQ(refused([](Configuration& c) { c.ofports.at("p2") = 0; }), "port \"p2\": OpenFlow port number 0 cannot be");
  EXPECT_EQ(refused([](Configuration& c) { c.dp_ports.at("p2") = c.dp_ports.at("p1"); }),
            "port \"p2\": its datapath port number cannot be");
  EXPECT_EQ(refused([](Configuration& c) { c.dp_ports.erase("p2"); }),
            "port \"p2\": its datapath port number cannot be");
  EXPECT_EQ(refused([](Configuration& c) { c.dp_ports["patch0"] = 77; }),
            "port \"patch0\": its datapath port number cannot be");
}

}  // namespace
}  // namespace vswitch
