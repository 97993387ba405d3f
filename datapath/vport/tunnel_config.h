// Tunnel options: from the text of VportConfig to values, for every IP tunnel port type.
//
// The names and defaults are those of Open vSwitch (Interface options of ovs-vswitchd.conf.db(5)); docs/tunnels.md
// lists them. Parsing touches no system state. Errors are invalid_argument (or unimplemented for what Open vSwitch has
// and we do not), name the port, the option, the value and what would be accepted, and carry the field "options:NAME".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "datapath/base/address.h"
#include "datapath/base/status.h"
#include "datapath/vport/vport.h"

namespace vswitch {

// A tunnel key: nothing configured (on receive and send: key 0), one value, or whatever the packet's metadata says.
struct TunnelKeyConfig {
  bool flow = false;
  uint64_t value = 0;
  bool operator==(const TunnelKeyConfig&) const = default;
};

struct TunnelConfig {
  bool remote_flow = false;
  IpAddress remote;  // set unless remote_flow
  bool local_flow = false;
  IpAddress local;  // not set: any on receive, chosen by routing on send
  TunnelKeyConfig in_key, out_key;
  uint16_t dst_port = 0;  // UDP, host order
  bool tos_inherit = false;
  uint8_t tos = 0;  // ECN bits are 0
  bool ttl_inherit = false;
  uint8_t ttl = 64;
  bool df = true;
  std::optional<bool> csum;  // not set: on for IPv6, off for IPv4
  bool gbp = false;
  std::optional<uint32_t> mark;  // of the outer packet; not set: that of the inner packet
  uint16_t src_port_min = 32768, src_port_max = 61000;

  bool operator==(const TunnelConfig&) const = default;
  // Sending needs metadata on every packet.
  bool metadata_driven() const { return remote_flow || out_key.flow; }
  bool uses_family(IpAddress::Family family) const;
};

// What differs between tunnel types.
struct TunnelTypeTraits {
  std::string_view type;                         // registry name
  uint64_t max_key;                              // highest key that the header holds
  uint16_t default_port;                         // UDP
  std::span<const std::string_view> extensions;  // accepted in exts=
};

Result<TunnelConfig> parse_tunnel_config(const VportConfig& config, const TunnelTypeTraits& traits);

// What makes two ports of one type the same to a received packet: only one of them may exist.
struct TunnelIdentity {
  IpAddress remote;  // not set: flow
  IpAddress local;   // not set: any or flow
  bool local_flow = false;
  TunnelKeyConfig in_key;
  uint16_t dst_port = 0;

  static TunnelIdentity of(const TunnelConfig& config);
  bool operator==(const TunnelIdentity&) const = default;
  std::string to_string() const;  // "remote_ip=10.0.0.2, local_ip=any, in_key=5, dst_port=4789"
};

// The refusal of a port that would receive what port `other` of the same type receives: already_exists.
Status duplicate_tunnel(std::string_view type, const std::string& port, const std::string& other,
                        const TunnelIdentity& identity);

}  // namespace vswitch
