#include "vswitchd/control/view_builder.h"

#include <gtest/gtest.h>

#include "datapath/base/rcu.h"
#include "vswitchd/translate/mac_table.h"

namespace vswitch {
namespace {

class ViewBuilderTest : public testing::Test {
 protected:
  void add_bridge(const std::string& name) {
    configuration_.bridges[name].name = name;
    runtimes_[name] = {std::make_shared<RuleTables>(clock_), std::make_shared<MacTable>(clock_)};
  }
  PortConfig& add_port(const std::string& bridge, const std::string& name, uint16_t ofport, const std::string& type,
                       std::map<std::string, std::string> options = {}) {
    PortConfig& port = configuration_.ports[name];
    port.bridge = bridge;
    port.vport.name = name;
    port.vport.type = type;
    port.vport.options = std::move(options);
    configuration_.ofports[name] = ofport;
    if (type != "patch") configuration_.dp_ports[name] = 100u + ofport;
    return port;
  }
  std::unique_ptr<SwitchView> build() { return build_view(configuration_, runtimes_, counters_, ++generation_); }

  ManualClock clock_;
  Configuration configuration_;
  std::map<std::string, BridgeRuntime, std::less<>> runtimes_;
  PatchCounterMap counters_;
  uint64_t generation_ = 0;
};

TEST_F(ViewBuilderTest, HasEveryPortUnderItsNumbers) {
  add_bridge("br0");
  configuration_.bridges["br0"].fail_mode = FailMode::secure;
  configuration_.bridges["br0"].flood_vlans = {7};
  add_port("br0", "b", 1, "dummy").vlan.tag = 9;
  add_port("br0", "a", 2, "dummy").flags.no_flood = true;
  const auto view = build();
  EXPECT_EQ(view->generation, 1u);
  const BridgeView& bridge = *view->bridges.at("br0");
  EXPECT_TRUE(bridge.secure);
  EXPECT_TRUE(bridge.flood_vlans.test(7));
  EXPECT_EQ(bridge.tables, runtimes_["br0"].tables);
  EXPECT_EQ(bridge.macs, runtimes_["br0"].macs.get());
  ASSERT_EQ(bridge.ports.size(), 2u);
  EXPECT_EQ(bridge.ports[0]->name, "b") << "in order of number";
  EXPECT_EQ(bridge.ports[0]->vlan.tag, 9);
  EXPECT_TRUE(bridge.port(2)->config.no_flood);
  EXPECT_EQ(view->port_of(102)->name, "a");
  EXPECT_EQ(view->port_of(102)->bridge, &bridge);
  EXPECT_EQ(view->port_of(0), nullptr);
  EXPECT_FALSE(bridge.port(1)->tunnel.has_value());
}

TEST_F(ViewBuilderTest, PatchPortsPairWhenEachNamesTheOther) {
  add_bridge("br0");
  add_bridge("br1");
  add_port("br0", "a", 1, "patch", {{"peer", "b"}});
  add_port("br1", "b", 1, "patch", {{"peer", "a"}});
  add_port("br1", "one-sided", 2, "patch", {{"peer", "a"}});
  add_port("br1", "alone", 3, "patch", {{"peer", "nobody"}});
  add_port("br1", "to-no-patch", 4, "patch", {{"peer", "d"}});
  add_port("br0", "d", 5, "dummy", {{"peer", "to-no-patch"}});
  const auto view = build();
  const PortView& a = *view->bridges.at("br0")->port(1);
  const PortView& b = *view->bridges.at("br1")->port(1);
  EXPECT_EQ(a.patch_peer, &b);
  EXPECT_EQ(b.patch_peer, &a);
  EXPECT_EQ(a.dp_port, 0u);
  for (const OfPort alone : {2, 3, 4}) EXPECT_EQ(view->bridges.at("br1")->port(alone)->patch_peer, nullptr) << alone;
  const auto next = build();
  EXPECT_EQ(next->bridges.at("br0")->port(1)->patch_counters, a.patch_counters) << "they go on counting";
}

TEST(TunnelView, TakesWhatTranslationNeeds) {
  VportConfig config;
  config.name = "vx";
  config.type = "dummy";
  EXPECT_FALSE(tunnel_view(config).has_value());
  config.type = "vxlan";
  config.options = {{"remote_ip", "10.0.0.2"}, {"key", "77"}};
  const auto fixed = tunnel_view(config);
  ASSERT_TRUE(fixed.has_value());
  EXPECT_EQ(fixed->remote->to_string(), "10.0.0.2");
  EXPECT_EQ(fixed->out_key, 77u);
  EXPECT_EQ(fixed->in_key, 77u);
  EXPECT_EQ(fixed->dst_port, 4789);
  EXPECT_EQ(fixed->ttl, 64);
  EXPECT_TRUE(fixed->dont_fragment);
  EXPECT_EQ(fixed->tos, 0);
  config.options = {{"remote_ip", "flow"}, {"local_ip", "flow"}, {"key", "flow"},  {"dst_port", "8472"},
                    {"tos", "inherit"},    {"ttl", "inherit"},   {"csum", "true"}, {"df_default", "false"}};
  const auto flow = tunnel_view(config);
  ASSERT_TRUE(flow.has_value());
  EXPECT_FALSE(flow->remote.has_value());
  EXPECT_FALSE(flow->local.has_value());
  EXPECT_FALSE(flow->out_key.has_value());
  EXPECT_EQ(flow->dst_port, 8472);
  EXPECT_FALSE(flow->tos.has_value());
  EXPECT_FALSE(flow->ttl.has_value());
  EXPECT_EQ(flow->checksum, true);
  EXPECT_FALSE(flow->dont_fragment);
  config.options["in_key"] = "3";
  config.options["key"] = "4";
  EXPECT_EQ(tunnel_view(config)->in_key, 3u);
  EXPECT_EQ(tunnel_view(config)->out_key, 4u);
}

}  // namespace
}  // namespace vswitch
