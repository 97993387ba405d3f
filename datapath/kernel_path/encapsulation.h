// How the kernel path encapsulates: what a tunnel port tells it of the packets of one connection (VXLAN over IPv4).
#pragma once

#include <array>
#include <cstdint>

#include "datapath/base/address.h"
#include "datapath/base/clock.h"
#include "datapath/base/status.h"
#include "datapath/kernel_path/connection_key.h"
#include "datapath/packet/tunnel_metadata.h"

namespace vswitch {

// What decides where the outer packets go: all that a route lookup asks for.
struct OuterFlow {
  be32 src{};  // 0: routing chooses
  be32 dst{};
  be16 src_port{}, dst_port{};
  uint8_t tos = 0;
  uint32_t mark = 0;
  bool operator==(const OuterFlow&) const = default;
};

// Where they go.
struct OuterWay {
  uint32_t ifindex = 0;
  be32 source{};            // their source address
  IpAddress next_hop;       // of either family
  uint32_t max_packet = 0;  // longest outer IPv4 packet
  bool operator==(const OuterWay&) const = default;
};

struct Encapsulation {
  static constexpr size_t kHeaderRoom = sizeof(kernel_encapsulation::header);
  // Outer IPv4, UDP, VXLAN, and the inner Ethernet header with its tag, as on the wire; the lengths that differ from
  // packet to packet and the IPv4 checksum are 0.
  std::array<uint8_t, kHeaderRoom> header{};
  size_t header_size = 0;
  OuterFlow flow;
  OuterWay way;
  bool operator==(const Encapsulation&) const = default;
};

// What a tunnel port is to the kernel path. Each object stands for one configuration of the port.
//
// Thread-safe; may ask the kernel.
class Encapsulator {
 public:
  virtual ~Encapsulator() = default;
  // The hook of the port (KernelPath::tunnel_hook()); 0: this configuration is not the port's any more, or the kernel
  // path is off.
  virtual uint64_t hook() const = 0;
  // What all packets of the connection get. Fails, and says why, if that differs from packet to packet, or is nothing
  // that the kernel path can do here and now. `metadata`: what the flow sets; null: nothing.
  virtual Result<Encapsulation> encapsulate(const ConnectionKey& key, const TunnelMetadata* metadata) = 0;
  // The way that these packets have now, if there is one that the kernel path can take. `since`: what was found out
  // about the host (its devices, its firewall) before then is too old, and later questions of the same look share what
  // is found out for one.
  virtual Result<OuterWay> way_of(const OuterFlow& flow, Nanoseconds since) = 0;
};

}  // namespace vswitch
