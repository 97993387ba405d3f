// Configuration objects as JSON text: what the store keeps of bridges, ports and settings. Readable with any SQLite
// shell.
//
// Decoding refuses what it does not understand (unknown or missing members, values out of range of their type), so that
// a store written by a newer program is not read wrongly.
#pragma once

#include <string>
#include <string_view>

#include "datapath/base/status.h"
#include "vswitchd/control/config.h"

namespace vswitch {

std::string encode_bridge(const BridgeConfig& config);
Result<BridgeConfig> decode_bridge(std::string_view text);

// A port with the numbers that it was given.
struct StoredPort {
  PortConfig config;
  uint16_t ofport = 0;
  uint32_t dp_port = 0;
  bool operator==(const StoredPort&) const = default;
};
std::string encode_port(const StoredPort& port);
Result<StoredPort> decode_port(std::string_view text);

std::string encode_settings(const Settings& settings);
Result<Settings> decode_settings(std::string_view text);

}  // namespace vswitch
