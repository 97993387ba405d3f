// SwitchView: the immutable snapshot of bridges and ports that translation works on.
//
// The control path (vswitchd/control) builds a new view whenever bridges or ports change and publishes it through RCU;
// rules (RuleTables), learned addresses (MacTable) and recirculation contexts live behind pointers and have their own
// concurrency. Everything here is constant after construction. Port numbers: `ofport` is per bridge, `dp_port` is the
// datapath's, unique in the daemon.
#pragma once

#include <atomic>
#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "datapath/base/address.h"
#include "vswitchd/rules/rule_tables.h"

namespace vswitch {

class MacTable;

enum class VlanMode : uint8_t { access, trunk, native_tagged, native_untagged };

// How `normal` treats VLANs on a port (features.md section 9). Default: a trunk that carries every VLAN.
struct VlanConfig {
  VlanMode mode = VlanMode::trunk;
  uint16_t tag = 0;            // access VLAN, or native VLAN
  std::bitset<4096> trunks;    // none set: all
  bool priority_tags = false;  // access/native-untagged output: send a priority tag (VID 0) when PCP is not 0
  bool operator==(const VlanConfig&) const = default;
};

// The part of a tunnel port's options that decides what translation puts into tunnel metadata; absent means `flow`
// (taken from the packet's tunnel fields).
struct TunnelPortView {
  std::optional<IpAddress> remote;  // nullopt: remote_ip=flow
  std::optional<IpAddress> local;   // nullopt: local_ip=flow; Family::none: any
  std::optional<uint64_t> out_key;  // nullopt: key=flow
  std::optional<uint64_t> in_key;   // nullopt: key=flow
  uint16_t dst_port = 4789;
  std::optional<uint8_t> tos;       // nullopt: inherit
  std::optional<uint8_t> ttl = 64;  // nullopt: inherit
  bool dont_fragment = true;
  std::optional<bool> checksum;  // nullopt: off for IPv4, on for IPv6
  bool gbp = false;
  std::optional<uint32_t> egress_mark;
};

struct PortConfigFlags {  // OpenFlow port config (ofctl mod-port)
  bool down = false, no_receive = false, no_forward = false, no_flood = false, no_packet_in = false;
  bool operator==(const PortConfigFlags&) const = default;
};

struct BridgeView;

// Packets that crossed a patch port: it has no vport to count them. Shared with every view the port is in.
struct PatchCounters {
  std::atomic<uint64_t> rx_packets{0}, rx_bytes{0}, tx_packets{0}, tx_bytes{0};
};

struct PortView {
  std::string name;
  OfPort ofport = 0;
  uint32_t dp_port = 0;  // 0: no datapath port (patch)
  const BridgeView* bridge = nullptr;
  VlanConfig vlan;
  PortConfigFlags config;
  bool protected_port = false;           // `normal`: protected ports do not forward to each other
  std::optional<TunnelPortView> tunnel;  // set for tunnel types
  const PortView* patch_peer = nullptr;  // patch: the other end, null while there is none
  bool is_patch = false;
  std::shared_ptr<PatchCounters> patch_counters;  // patch only
};

struct BridgeView {
  std::string name;
  bool secure = false;                 // fail_mode=secure
  MacAddress mac{};                    // of the local port
  bool forward_bpdu = false;           // `normal`: forward reserved multicast addresses
  std::shared_ptr<RuleTables> tables;  // shared with Credits, which may outlive the bridge
  MacTable* macs = nullptr;
  std::vector<std::unique_ptr<PortView>> ports;  // ascending ofport
  std::unordered_map<OfPort, const PortView*> by_ofport;
  std::bitset<4096> flood_vlans;  // `normal`: no learning, always flood
  const PortView* port(OfPort ofport) const {
    auto it = by_ofport.find(ofport);
    return it == by_ofport.end() ? nullptr : it->second;
  }
};

struct SwitchView {
  uint64_t generation = 0;
  std::map<std::string, std::unique_ptr<BridgeView>, std::less<>> bridges;
  std::unordered_map<uint32_t, const PortView*> by_dp_port;
  const PortView* port_of(uint32_t dp_port) const {
    auto it = by_dp_port.find(dp_port);
    return it == by_dp_port.end() ? nullptr : it->second;
  }
};

}  // namespace vswitch
