// VxlanSenders: the UDP sockets that encapsulated packets leave by.
//
// Outer packets of different inner flows should have different UDP source ports, so that routers and receiving cards
// spread them; those of one flow the same, so that they keep their order. A kernel socket has one source port, so there
// are up to 64 slots per way of sending (address family, DF), each with a port of the configured range; the flow's hash
// picks one. They are opened when a flow first needs them, and never receive.
//
// DF and checksum are properties of a socket; source and destination address, TOS, TTL and mark travel with each
// message. A slot therefore has two sockets on one port (SO_REUSEPORT), with and without checksum: packets of one flow
// may need either (see vxlan_transmit.h) and must not change their source port.
//
// Thread-safe: any number of threads may call fd() at once. An opened descriptor stays open for the life of the object.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "datapath/vport/udp_socket.h"

namespace vswitch {

class VxlanSenders {
 public:
  static constexpr size_t kPortsPerWay = 64;

  // REQUIRES: 0 < port_min <= port_max
  VxlanSenders(uint16_t port_min, uint16_t port_max);
  ~VxlanSenders();
  VxlanSenders(const VxlanSenders&) = delete;
  VxlanSenders& operator=(const VxlanSenders&) = delete;

  // Flows with equal places have the same source port. Less than kPortsPerWay.
  size_t place(uint32_t flow_hash) const {
    // The multiplication spreads hashes over all slots whatever bits they differ in, and maps to any slot count.
    return (uint64_t{flow_hash * 0x9e3779b1u} * slot_count_) >> 32;
  }
  // The socket for flows with this hash; -1 when none can be had (no free port, no descriptor, no such family).
  int fd(const UdpSenderOptions& way, uint32_t flow_hash);

 private:
  // Both descriptors in one word, so that a slot opens in one step.
  struct Pair {
    int without_checksum = -1, with_checksum = -1;
    int fd(bool checksum) const { return checksum ? with_checksum : without_checksum; }
    bool is_open() const { return without_checksum >= 0; }
  };
  static_assert(std::atomic<Pair>::is_always_lock_free);
  using Slots = std::array<std::atomic<Pair>, kPortsPerWay>;

  Pair open_slot(const UdpSenderOptions& way, std::atomic<Pair>& slot, size_t index) const;
  Pair bind_in_stripe(const UdpSenderOptions& way, size_t index) const;

  const uint32_t port_min_;
  const uint32_t port_count_;
  const size_t slot_count_;  // min(kPortsPerWay, port_count_)
  std::array<Slots, 4> ways_;
};

}  // namespace vswitch
