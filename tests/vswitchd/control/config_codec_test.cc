#include "vswitchd/control/config_codec.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <nlohmann/json.hpp>
#include <random>

namespace vswitch {
namespace {

using nlohmann::json;
using Random = std::mt19937;

// Text as it comes over the API: any UTF-8, control characters and quotes included.
std::string random_text(Random& random) {
  static const std::vector<std::string> pieces = {"a",    "Z", "0",  "\"", "\\", "\n", std::string(1, '\0'),
                                                  "\x1f", "ä", "漢", "🐢",  " ",  "{",  "null"};
  std::string text;
  for (size_t n = random() % 6; n > 0; --n) text += pieces[random() % pieces.size()];
  return text;
}
std::map<std::string, std::string> random_map(Random& random) {
  std::map<std::string, std::string> map;
  for (size_t n = random() % 4; n > 0; --n) map[random_text(random)] = random_text(random);
  return map;
}
MacAddress random_address(Random& random) {
  return random() % 3 == 0 ? MacAddress() : MacAddress::from_u64(uint64_t{random()} << 16 | random() % 65536);
}
bool coin(Random& random) { return random() % 2 == 0; }

BridgeConfig random_bridge(Random& random) {
  BridgeConfig config;
  config.name = random_text(random);
  config.fail_mode = coin(random) ? FailMode::secure : FailMode::standalone;
  config.mac = random_address(random);
  config.mac_ageing_seconds = static_cast<uint32_t>(random());
  config.mac_table_size = static_cast<uint32_t>(random());
  for (size_t n = random() % 4; n > 0; --n) config.flood_vlans.insert(static_cast<uint16_t>(random() % 4096));
  config.external_ids = random_map(random);
  return config;
}

StoredPort random_port(Random& random) {
  StoredPort port;
  PortConfig& config = port.config;
  config.bridge = random_text(random);
  config.vport = {random_text(random), random_text(random), random_map(random), static_cast<uint32_t>(random()),
                  random_address(random)};
  config.ofport_request = static_cast<uint16_t>(random());
  config.vlan.mode = static_cast<VlanMode>(random() % 4);
  config.vlan.tag = static_cast<uint16_t>(random());
  for (size_t n = random() % 5; n > 0; --n) config.vlan.trunks.set(random() % 4096);
  config.vlan.priority_tags = coin(random);
  config.flags = {coin(random), coin(random), coin(random), coin(random), coin(random)};
  config.protected_port = coin(random);
  config.external_ids = random_map(random);
  port.ofport = static_cast<uint16_t>(random());
  port.dp_port = static_cast<uint32_t>(random());
  return port;
}

Settings random_settings(Random& random) {
  return {static_cast<uint32_t>(random()),
          static_cast<uint32_t>(random()),
          static_cast<uint32_t>(random()),
          {random_text(random), random_text(random), random_text(random)}};
}

TEST(ConfigCodec, DecodesWhatItEncoded) {
  ASSERT_TRUE(rc::check([](uint32_t seed) {
    Random random(seed);
    for (int i = 0; i < 20; ++i) {
      const BridgeConfig bridge = random_bridge(random);
      RC_ASSERT(*decode_bridge(encode_bridge(bridge)) == bridge);
      const StoredPort port = random_port(random);
      RC_ASSERT(*decode_port(encode_port(port)) == port);
      const Settings settings = random_settings(random);
      RC_ASSERT(*decode_settings(encode_settings(settings)) == settings);
    }
  }));
}

// The message, or "" if it was decoded.
std::string bridge_error(const json& value) { return decode_bridge(value.dump()).status().message(); }
std::string port_error(const json& value) { return decode_port(value.dump()).status().message(); }

TEST(ConfigCodec, RefusesMissingAndUnknownMembers) {
  Random random(1);
  const json bridge = json::parse(encode_bridge(random_bridge(random)));
  const json port = json::parse(encode_port(random_port(random)));
  for (const auto& [name, value] : bridge.items()) {
    json damaged = bridge;
    damaged.erase(name);
    EXPECT_NE(bridge_error(damaged), "") << "without " << name;
  }
  for (const auto& [name, value] : port.items()) {
    json damaged = port;
    damaged.erase(name);
    EXPECT_NE(port_error(damaged), "") << "without " << name;
  }
  json newer = bridge;
  newer["stp"] = true;
  EXPECT_EQ(bridge_error(newer), "stored bridge cannot be read: members that this version does not know");
  newer = port;
  newer["flags"]["no_stp"] = true;
  EXPECT_EQ(port_error(newer), "stored port cannot be read: members that this version does not know");
}

TEST(ConfigCodec, RefusesValuesOfTheWrongTypeOrRange) {
  Random random(2);
  const json bridge = json::parse(encode_bridge(random_bridge(random)));
  const json port = json::parse(encode_port(random_port(random)));
  const std::vector<json> wrong = {nullptr, json::array({1, "x"}), json::object({{"x", 1}}), -1, 1.5, 5'000'000'000,
                                   "maybe"};
  for (const char* name : {"mac_ageing_seconds", "mac_table_size"}) {
    for (const json& value : wrong) {
      json damaged = bridge;
      damaged[name] = value;
      EXPECT_NE(bridge_error(damaged), "") << name << " " << value;
    }
  }
  for (const char* name : {"ofport_request", "ofport", "dp_port", "mtu_request", "protected"}) {
    for (const json& value : wrong) {
      json damaged = port;
      damaged[name] = value;
      EXPECT_NE(port_error(damaged), "") << name << " " << value;
    }
  }
  // What fits into more bits than a VLAN has must not be cut down to one.
  for (const json& value : std::vector<json>{4096, 65541, -1, 1.5, true, "7", nullptr}) {
    json damaged = bridge;
    damaged["flood_vlans"] = json::array({value});
    EXPECT_NE(bridge_error(damaged), "") << value;
    damaged = port;
    damaged["vlan"]["trunks"] = json::array({value});
    EXPECT_NE(port_error(damaged), "") << value;
  }
  json damaged = bridge;
  damaged["fail_mode"] = "open";
  EXPECT_EQ(bridge_error(damaged), "stored bridge cannot be read: unknown fail mode \"open\"");
  damaged = bridge;
  damaged["mac"] = "02:00";
  EXPECT_EQ(bridge_error(damaged), "stored bridge cannot be read: \"02:00\" is not an Ethernet address");
  damaged = port;
  damaged["vlan"]["mode"] = "tunnel";
  EXPECT_EQ(port_error(damaged), "stored port cannot be read: unknown VLAN mode \"tunnel\"");
}

TEST(ConfigCodec, ReadsSettingsFromBeforeDpdk) {
  const Result<Settings> settings =
      decode_settings(R"({"forwarding_threads": 2, "max_idle_ms": 300, "max_datapath_flows": 1000})");
  ASSERT_TRUE(settings.ok());
  EXPECT_EQ(*settings, (Settings{2, 300, 1000, {}}));
}

TEST(ConfigCodec, RemembersThatTheKernelPathIsOff) {
  for (const bool on : {false, true}) {
    Settings settings;
    settings.kernel_path = on;
    Result<Settings> decoded = decode_settings(encode_settings(settings));
    ASSERT_TRUE(decoded.ok());
    EXPECT_EQ(decoded->kernel_path, on);
  }
}

TEST(ConfigCodec, SurvivesAnything) {
  for (const std::string& text : {std::string(), std::string("null"), std::string("[]"), std::string("{"),
                                  std::string("\"bridge\""), std::string(100'000, '['), std::string("\xff\xfe{}")}) {
    EXPECT_FALSE(decode_bridge(text).ok());
    EXPECT_FALSE(decode_port(text).ok());
    EXPECT_FALSE(decode_settings(text).ok());
  }
  Random random(3);
  for (int i = 0; i < 3000; ++i) {
    std::string text = encode_port(random_port(random));
    text[random() % text.size()] = static_cast<char>(random());
    const Result<StoredPort> port = decode_port(text);
    EXPECT_TRUE(port.ok() || port.status().code() == StatusCode::internal);
  }
}

}  // namespace
}  // namespace vswitch
