// Tunnel metadata: what a tunnel vport learned from the outer headers of a received packet, and what a tunnel vport
// should put into the outer headers of a packet it sends (as IP_TUNNEL_INFO in the Linux kernel).
//
// One address family at a time: either src/dst or src6/dst6 are non-zero. "No tunnel" is all zeros (has_tunnel() of the
// packet or key false). Eight 64-bit words, part of the flow key as it stands: no padding may appear.
#pragma once

#include <cstdint>

#include "datapath/base/address.h"
#include "datapath/base/byte_order.h"

namespace vswitch {

// Bits of TunnelMetadata::flags (host order).
enum TunnelFlag : uint16_t {
  kTunnelDontFragment = 1 << 0,  // DF in the outer IPv4 header
  kTunnelChecksum = 1 << 1,      // outer UDP checksum present / to be sent
  kTunnelKey = 1 << 2,           // tun_id is present (always for VXLAN)
  kTunnelOam = 1 << 3,           // OAM frame (Geneve)
};

struct TunnelMetadata {
  be64 id{};           // VNI or key, as a 64-bit number
  be32 src{};          // outer IPv4 source; 0 for IPv6 or "choose"
  be32 dst{};          // outer IPv4 destination
  Ipv6Address src6{};  // outer IPv6 source
  Ipv6Address dst6{};  // outer IPv6 destination
  uint16_t flags = 0;  // TunnelFlag bits
  uint8_t tos = 0;     // outer TOS / traffic class
  uint8_t ttl = 0;     // outer TTL / hop limit; on send 0 means "as configured"
  be16 tp_src{};       // outer UDP source port of a received packet; on send not used (it comes from the flow's hash)
  be16 tp_dst{};       // outer UDP destination port; on send 0 means "as configured"
  be16 gbp_id{};       // VXLAN group policy id
  uint8_t gbp_flags = 0;
  uint8_t reserved[5] = {};

  bool operator==(const TunnelMetadata&) const = default;
  bool is_v6() const { return !dst6.is_zero() || !src6.is_zero(); }
  // A destination is set: how Open vSwitch tells "came from / goes to a tunnel".
  bool has_destination() const { return bool(dst) || !dst6.is_zero(); }
};
static_assert(sizeof(TunnelMetadata) == 64);

}  // namespace vswitch
