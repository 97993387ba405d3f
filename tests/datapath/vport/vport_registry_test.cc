#include "datapath/vport/vport_registry.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include "datapath/vport/vport_internal.h"

namespace vswitch {
namespace {

VportConfig config_of(std::string type, std::map<std::string, std::string> options) {
  VportConfig config;
  config.name = "p1";
  config.type = std::move(type);
  config.options = std::move(options);
  return config;
}

Status validate(const VportConfig& config) { return find_vport_type(config.type)->validate(config); }

TEST(VportRegistryTest, TypesAreFoundByNameAndNoTypeIsNetdev) {
  for (const char* name : {"netdev", "internal", "dummy", "pcap"}) {
    ASSERT_NE(find_vport_type(name), nullptr) << name;
    EXPECT_EQ(find_vport_type(name)->name, name);
  }
  EXPECT_EQ(find_vport_type("")->name, "netdev");
  EXPECT_EQ(find_vport_type("system")->name, "netdev");
  EXPECT_EQ(find_vport_type("netdef"), nullptr);
  std::set<std::string_view> names;
  for (const VportType& type : vport_types()) EXPECT_TRUE(names.insert(type.name).second) << type.name;
}

TEST(VportRegistryTest, NearestSpellingForgivesTyposAndNothingElse) {
  constexpr std::array<std::string_view, 4> kKnown = {"remote_ip", "local_ip", "dst_port", "key"};
  EXPECT_EQ(nearest_spelling("remote_pi", kKnown), "remote_ip");
  EXPECT_EQ(nearest_spelling("remoteip", kKnown), "remote_ip");
  EXPECT_EQ(nearest_spelling("dst_prot", kKnown), "dst_port");
  EXPECT_EQ(nearest_spelling("kye", kKnown), "key");
  EXPECT_EQ(nearest_spelling("colour", kKnown), "");
  EXPECT_EQ(nearest_spelling("", kKnown), "");
}

TEST(VportRegistryTest, AnUnknownOptionIsNamedWithTheNearestKnownOne) {
  const Status status = validate(config_of("netdev", {{"devise", "eth1"}}));
  EXPECT_EQ(status.code(), StatusCode::invalid_argument);
  EXPECT_EQ(status.field(), "options:devise");
  EXPECT_EQ(status.message(), "port p1: unknown option \"devise\" for type netdev; did you mean \"device\"?");
  EXPECT_EQ(validate(config_of("internal", {{"x", "y"}})).message(),
            "port p1: unknown option \"x\" for type internal; this type takes no options");
}

struct BadOption {
  const char* type;
  std::map<std::string, std::string> options;
  const char* field;
};

TEST(VportRegistryTest, BadValuesNameTheirField) {
  const BadOption cases[] = {
      {"netdev", {{"device", "a/b"}}, "options:device"},
      {"netdev", {{"device", ""}}, "options:device"},
      {"dummy", {{"link_state", "sideways"}}, "options:link_state"},
      {"dummy", {{"pcap", "a"}, {"tx_pcap", "b"}}, "options:pcap"},
      {"dummy", {{"tx_pcap", ""}}, "options:tx_pcap"},
      {"pcap", {{"rx_pcap", "a"}, {"loop", "0"}}, "options:loop"},
      {"pcap", {{"rx_pcap", "a"}, {"loop", "12x"}}, "options:loop"},
      {"pcap", {{"loop", "3"}}, "options:loop"},
  };
  for (const BadOption& bad : cases) {
    const Status status = validate(config_of(bad.type, bad.options));
    EXPECT_EQ(status.code(), StatusCode::invalid_argument) << bad.type << " " << bad.field;
    EXPECT_EQ(status.field(), bad.field);
  }
  EXPECT_TRUE(validate(config_of("pcap", {{"rx_pcap", "a"}, {"loop", "infinite"}, {"tx_pcap", "none"}})).ok());
}

TEST(VportRegistryTest, LongInternalPortsGetAShortStableDeviceName) {
  EXPECT_EQ(internal_device_name("br0"), "br0");
  EXPECT_EQ(internal_device_name("exactly15chars_"), "exactly15chars_");
  const std::string device = internal_device_name("a-port-with-a-long-name");
  EXPECT_EQ(device.size(), 15u);
  EXPECT_EQ(device.substr(0, 11), "a-port-wit-");
  EXPECT_EQ(device, internal_device_name("a-port-with-a-long-name"));
  EXPECT_NE(device, internal_device_name("a-port-with-a-long-nama"));
}

}  // namespace
}  // namespace vswitch
