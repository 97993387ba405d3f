#include "datapath/vport/tunnel_config.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <string>

#include "datapath/vport/vport_vxlan.h"

namespace vswitch {
namespace {

using Options = std::map<std::string, std::string>;

constexpr std::array<std::string_view, 1> kExtensions = {"gbp"};
constexpr TunnelTypeTraits kVxlan = {
    .type = "vxlan", .max_key = 0xffffff, .default_port = 4789, .extensions = kExtensions};

VportConfig vxlan_port(Options options) {
  VportConfig config;
  config.name = "vx1";
  config.type = "vxlan";
  config.options = std::move(options);
  return config;
}

Result<TunnelConfig> parse(Options options) { return parse_tunnel_config(vxlan_port(std::move(options)), kVxlan); }

TunnelConfig parse_good(Options options) {
  const auto config = parse(std::move(options));
  EXPECT_TRUE(config.ok()) << config.status().message();
  return config.ok() ? config.value() : TunnelConfig{};
}

TEST(TunnelConfigTest, Defaults) {
  const TunnelConfig config = parse_good({{"remote_ip", "10.0.0.2"}});
  EXPECT_EQ(config.remote, *IpAddress::parse("10.0.0.2"));
  EXPECT_FALSE(config.remote_flow);
  EXPECT_FALSE(config.local.is_set());
  EXPECT_EQ(config.in_key, TunnelKeyConfig{});
  EXPECT_EQ(config.dst_port, 4789);
  EXPECT_EQ(config.tos, 0);
  EXPECT_EQ(config.ttl, 64);
  EXPECT_TRUE(config.df);
  EXPECT_EQ(config.csum, std::nullopt);
  EXPECT_FALSE(config.gbp);
  EXPECT_EQ(config.mark, std::nullopt);
  EXPECT_EQ(config.src_port_min, 32768);
  EXPECT_EQ(config.src_port_max, 61000);
  EXPECT_FALSE(config.metadata_driven());
}

TEST(TunnelConfigTest, EverythingGiven) {
  const TunnelConfig config = parse_good({{"remote_ip", "fd00::2"},
                                          {"local_ip", "fd00::1"},
                                          {"in_key", "flow"},
                                          {"out_key", "0xffffff"},
                                          {"dst_port", "8472"},
                                          {"tos", "0xb8"},
                                          {"ttl", "255"},
                                          {"df_default", "false"},
                                          {"csum", "false"},
                                          {"exts", "gbp"},
                                          {"egress_pkt_mark", "4294967295"},
                                          {"egress_port_range", "1000-2000"}});
  EXPECT_EQ(config.local, *IpAddress::parse("fd00::1"));
  EXPECT_TRUE(config.in_key.flow);
  EXPECT_EQ(config.out_key.value, 0xffffffu);
  EXPECT_EQ(config.dst_port, 8472);
  EXPECT_EQ(config.tos, 0xb8);
  EXPECT_EQ(config.ttl, 255);
  EXPECT_FALSE(config.df);
  EXPECT_EQ(config.csum, false);
  EXPECT_TRUE(config.gbp);
  EXPECT_EQ(config.mark, 0xffffffffu);
  EXPECT_EQ(config.src_port_min, 1000);
  EXPECT_EQ(config.src_port_max, 2000);
}

TEST(TunnelConfigTest, KeyStandsForBothUnlessOneIsGiven) {
  const TunnelConfig config = parse_good({{"remote_ip", "10.0.0.2"}, {"key", "flow"}, {"in_key", "7"}});
  EXPECT_EQ(config.in_key, (TunnelKeyConfig{false, 7}));
  EXPECT_TRUE(config.out_key.flow);
  EXPECT_TRUE(config.metadata_driven());
}

TEST(TunnelConfigTest, FlowAndInherit) {
  const TunnelConfig config =
      parse_good({{"remote_ip", "flow"}, {"local_ip", "flow"}, {"tos", "inherit"}, {"ttl", "inherit"}});
  EXPECT_TRUE(config.remote_flow && config.local_flow && config.tos_inherit && config.ttl_inherit);
  EXPECT_TRUE(config.metadata_driven());
}

TEST(TunnelConfigTest, Families) {
  using Family = IpAddress::Family;
  EXPECT_FALSE(parse_good({{"remote_ip", "10.0.0.2"}}).uses_family(Family::v6));
  EXPECT_FALSE(parse_good({{"remote_ip", "fd00::2"}}).uses_family(Family::v4));
  EXPECT_TRUE(parse_good({{"remote_ip", "flow"}}).uses_family(Family::v4));
  EXPECT_TRUE(parse_good({{"remote_ip", "flow"}}).uses_family(Family::v6));
  EXPECT_FALSE(parse_good({{"remote_ip", "flow"}, {"local_ip", "10.0.0.1"}}).uses_family(Family::v6));
}

TEST(TunnelConfigTest, PortRangeSeparators) {
  for (const char* text : {"5-9", "5 9", "5,9"}) {
    const TunnelConfig config = parse_good({{"remote_ip", "flow"}, {"src_port_range", text}});
    EXPECT_EQ(config.src_port_min, 5) << text;
    EXPECT_EQ(config.src_port_max, 9) << text;
  }
}

struct BadCase {
  std::string option, value;
  std::string message;  // behind "port vx1: OPTION=VALUE: "
};

const std::vector<BadCase>& bad_cases() {
  static const std::string key = "not a number from 0 to 16777215 or \"flow\"";
  static const std::string tos = "not a number from 0 to 252 or \"inherit\"";
  static const std::string ttl = "not a number from 1 to 255 or \"inherit\"";
  static const std::string range = "not a range LOW-HIGH of UDP ports from 1 to 65535";
  static const std::string large = "too large for type vxlan, whose keys go from 0 to 16777215";
  static const std::string mark = "not a number from 0 to 4294967295";
  static const std::vector<BadCase> all = {
      {"remote_ip", "10.0.0", "not an IP address or \"flow\""},
      {"remote_ip", "", "not an IP address or \"flow\""},
      {"remote_ip", "host.example", "not an IP address or \"flow\""},
      {"remote_ip", "239.1.1.1", "multicast is not supported; give the address of one peer, or \"flow\""},
      {"remote_ip", "ff02::1", "multicast is not supported; give the address of one peer, or \"flow\""},
      {"remote_ip", "0.0.0.0", "no destination; give the address of a peer, or \"flow\""},
      {"remote_ip", "::", "no destination; give the address of a peer, or \"flow\""},
      {"remote_ip", "fe80::1", "link-local addresses are not supported"},
      {"local_ip", "nonsense", "not an IP address or \"flow\""},
      {"local_ip", "flow", "needs remote_ip=flow; give an IP address or leave it out"},
      {"local_ip", "fd00::1", "must be of the same family as remote_ip=10.0.0.2"},
      {"local_ip", "0.0.0.0", "not the address of a host; leave it out to accept any and let routing choose"},
      {"local_ip", "224.0.0.1", "not the address of a host; leave it out to accept any and let routing choose"},
      {"key", "16777216", large},
      {"in_key", "16777216", large},
      {"out_key", "0x1000000", large},
      {"key", "99999999999999999999", key},
      {"key", "-1", key},
      {"key", "abc", key},
      {"key", "7x", key},
      {"key", "", key},
      {"key", "0x", key},
      {"dst_port", "0", "not a UDP port from 1 to 65535"},
      {"dst_port", "65536", "not a UDP port from 1 to 65535"},
      {"dst_port", "vxlan", "not a UDP port from 1 to 65535"},
      {"tos", "256", tos},
      {"tos", "high", tos},
      {"tos", "1", "the two lowest bits are ECN, which is always inherited; they must be 0"},
      {"tos", "255", "the two lowest bits are ECN, which is always inherited; they must be 0"},
      {"ttl", "0", ttl},
      {"ttl", "256", ttl},
      {"ttl", "Inherit", ttl},
      {"df_default", "yes", "not \"true\" or \"false\""},
      {"csum", "1", "not \"true\" or \"false\""},
      {"exts", "gpb", "unknown extension \"gpb\"; known are: gbp"},
      {"exts", "gbp,", "unknown extension \"\"; known are: gbp"},
      {"egress_pkt_mark", "4294967296", mark},
      {"egress_pkt_mark", "x", mark},
      {"egress_port_range", "5", range},
      {"egress_port_range", "9-5", range},
      {"egress_port_range", "0-5", range},
      {"egress_port_range", "5-65536", range},
      {"src_port_range", "a-b", range},
  };
  return all;
}

TEST(TunnelConfigTest, BadValuesNamePortOptionValueAndWhatIsAccepted) {
  for (const BadCase& bad : bad_cases()) {
    Options options = {{"remote_ip", "10.0.0.2"}};
    options[bad.option] = bad.value;
    const auto config = parse(options);
    ASSERT_FALSE(config.ok()) << bad.option << "=" << bad.value;
    EXPECT_EQ(config.status().message(), "port vx1: " + bad.option + "=" + bad.value + ": " + bad.message);
    EXPECT_EQ(config.status().field(), "options:" + bad.option);
    EXPECT_EQ(config.status().code(), StatusCode::invalid_argument);
  }
}

TEST(TunnelConfigTest, RemoteIsRequired) {
  const Status status = parse({{"key", "1"}}).status();
  EXPECT_EQ(status.message(), "port vx1: remote_ip is required: an IP address or \"flow\"");
  EXPECT_EQ(status.field(), "options:remote_ip");
}

TEST(TunnelConfigTest, KeyIsCheckedEvenWhenBothDirectionsOverrideIt) {
  EXPECT_FALSE(parse({{"remote_ip", "flow"}, {"in_key", "1"}, {"out_key", "2"}, {"key", "x"}}).ok());
}

TEST(TunnelConfigTest, UnknownOptionNamesTheNearest) {
  const Status status = parse({{"remote_ip", "10.0.0.2"}, {"remot_ip", "10.0.0.2"}}).status();
  EXPECT_EQ(status.message(), "port vx1: unknown option \"remot_ip\" for type vxlan; did you mean \"remote_ip\"?");
  EXPECT_EQ(status.field(), "options:remot_ip");
}

TEST(TunnelConfigTest, WhatWouldChangeTheWireFormatIsNotIgnored) {
  for (const char* option : {"psk", "remote_cert", "packet_type"}) {
    const Status status = parse({{"remote_ip", "10.0.0.2"}, {option, "x"}}).status();
    EXPECT_EQ(status.code(), StatusCode::unimplemented);
    EXPECT_EQ(status.message(), std::string("port vx1: ") + option + "=x: not supported for type vxlan");
  }
  const Status status = parse({{"remote_ip", "10.0.0.2"}, {"exts", "gpe"}}).status();
  EXPECT_EQ(status.code(), StatusCode::unimplemented);
  EXPECT_EQ(status.message(), "port vx1: exts=gpe: gpe is not supported");
}

TEST(TunnelConfigTest, IdentityIgnoresWhatReceivedPacketsDoNotShow) {
  const auto a = parse_good({{"remote_ip", "10.0.0.2"}, {"key", "5"}, {"ttl", "3"}});
  const auto b = parse_good({{"remote_ip", "10.0.0.2"}, {"in_key", "5"}, {"out_key", "9"}});
  EXPECT_EQ(TunnelIdentity::of(a), TunnelIdentity::of(b));
  EXPECT_EQ(TunnelIdentity::of(a).to_string(), "remote_ip=10.0.0.2, local_ip=any, in_key=5, dst_port=4789");
  EXPECT_FALSE(TunnelIdentity::of(a) == TunnelIdentity::of(parse_good({{"remote_ip", "10.0.0.2"}, {"key", "6"}})));
}

TEST(TunnelConfigTest, TunnelHasNoMtuToRequest) {
  VportConfig config = vxlan_port({{"remote_ip", "10.0.0.2"}});
  EXPECT_TRUE(kVxlanVportType.validate(config).ok());
  config.mtu_request = 1400;
  const Status status = kVxlanVportType.validate(config);
  EXPECT_EQ(status.code(), StatusCode::invalid_argument);
  EXPECT_EQ(status.field(), "mtu_request");
}

}  // namespace
}  // namespace vswitch
