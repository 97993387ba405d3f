// TxOffload: what a DPDK device does to a frame before it puts it on the wire, and frames prepared for that: checksums
// of TCP and UDP, and cutting TCP super-frames (DPDK programmer's guide, "Mbuf Library", meta information).
//
// Only the outermost TCP or UDP header of a frame is left to the device. Everything else is finished in software
// (tx_finish.h): SCTP, UDP super-frames, what lies inside a tunnel, frames with bytes behind the datagram (devices take
// them for payload), and what the driver is known not to cut though it says that it can.
//
// Thread safety: immutable.
#pragma once

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <cstdint>
#include <optional>
#include <string>

#include "datapath/packet/ip_layout.h"
#include "datapath/packet/packet.h"
#include "datapath/vport/dpdk/mbuf_pool.h"

namespace vswitch::dpdk {

// What an mbuf tells the device. Nothing to do: all zero.
struct TxWork {
  uint64_t flags = 0;         // RTE_MBUF_F_TX_*
  uint64_t header_sizes = 0;  // rte_mbuf::tx_offload

  void tell(rte_mbuf& mbuf) const {
    mbuf.ol_flags = flags;
    mbuf.tx_offload = header_sizes;
  }
};

// What a device was configured with, and how much of it goes.
struct TxLimits {
  uint64_t enabled = 0;      // RTE_ETH_TX_OFFLOAD_*
  size_t room = 0;           // bytes of frame in an mbuf
  size_t mbufs = 0;          // of one super-frame, at most; 0: any number
  size_t longest_piece = 0;  // bytes of a frame that the device makes, at most; 0: any number
  bool cuts_ipv6 = true;
};

class TxOffload {
 public:
  TxOffload() = default;
  explicit TxOffload(const TxLimits& limits) : limits_(limits) {}

  // Of what a device can do, what it is to be configured with.
  static uint64_t of_use(uint64_t capabilities);

  bool any() const { return limits_.enabled != 0; }
  std::string names() const;  // "TCP_CKSUM,UDP_CKSUM", or "none"

  // What is left to do of a packet with a partial checksum or of a super-frame; nullopt if the device cannot do it.
  std::optional<TxWork> work_on(const Packet& packet) const;

 private:
  std::optional<TxWork> cutting(const Packet& packet, const IpLayout& ip) const;
  std::optional<TxWork> checksum(const Packet& packet, const IpLayout& ip) const;

  TxLimits limits_;
};

// A copy of a super-frame in as many mbufs as it takes, as the device is to get it: `work` told, and the checksums as
// DPDK wants them of what is to be cut. Null if the pool has too few. The caller owns the chain (rte_pktmbuf_free()).
// REQUIRES: `work` is work_on(packet) of a device of that pool.
rte_mbuf* copy_super_frame(const Packet& packet, const TxWork& work, const MbufPool& pool);

}  // namespace vswitch::dpdk
