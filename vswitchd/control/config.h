// What a person configures: bridges, ports, settings. Plain values; what the store keeps and the API shows.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "datapath/vport/dpdk/dpdk_settings.h"
#include "datapath/vport/vport.h"
#include "vswitchd/translate/switch_view.h"

namespace vswitch {

enum class FailMode : uint8_t { standalone, secure };

struct BridgeConfig {
  std::string name;  // 1..15 characters: it names the local port's device
  FailMode fail_mode = FailMode::standalone;
  MacAddress mac{};                   // zero: chosen, then kept
  uint32_t mac_ageing_seconds = 300;  // 15..3600
  uint32_t mac_table_size = 8192;     // 10..1000000
  std::set<uint16_t> flood_vlans;
  std::map<std::string, std::string> external_ids;  // notes of the person or program that made it
  bool operator==(const BridgeConfig&) const = default;
};

struct PortConfig {
  std::string bridge;
  VportConfig vport;            // name, type, options, mtu_request, mac. type "patch" has options:peer
  uint16_t ofport_request = 0;  // 0: any
  VlanConfig vlan;
  PortConfigFlags flags;
  bool protected_port = false;
  std::map<std::string, std::string> external_ids;
  bool operator==(const PortConfig&) const = default;
  const std::string& name() const { return vport.name; }
};

struct Settings {
  uint32_t forwarding_threads = 1;  // 1..kMaxThreads - 2
  uint32_t max_idle_ms = 10'000;    // datapath flows unused for this long go
  uint32_t max_datapath_flows = 1'000'000;
  DpdkSettings dpdk{};      // at the start of DPDK: by the first port of type dpdk
  bool kernel_path = true;  // where it works
  bool operator==(const Settings&) const = default;
};

// Everything durable but rules.
struct Configuration {
  std::map<std::string, BridgeConfig, std::less<>> bridges;
  std::map<std::string, PortConfig, std::less<>> ports;   // names are unique in the daemon
  std::map<std::string, uint16_t, std::less<>> ofports;   // assigned OpenFlow port numbers, stable for a port's life
  std::map<std::string, uint32_t, std::less<>> dp_ports;  // assigned datapath port numbers
  Settings settings;
  bool operator==(const Configuration&) const = default;
};

}  // namespace vswitch
