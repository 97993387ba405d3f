// MbufPool: packets in DPDK's memory, so that a packet moves between ports of type dpdk without a copy.
//
//   mbuf:  | struct rte_mbuf | Packet, padded (the mbuf's private area) | head room | data | tail room |
//
// The Packet of an mbuf is built once and stays; each finds the other by adding the size of an mbuf. While a packet is
// in the switch its Packet says where the frame is, while it is in a device its mbuf does: they are set from each other
// on the way in and out.
//
// Every mbuf that comes to the switch is from a pool made here, so every one has its Packet.
//
// Thread safety: a packet may be allocated and freed on any thread; threads that DPDK knows (eal.h) have a cache.
#pragma once

#include <rte_mbuf.h>
#include <rte_mempool.h>

#include <memory>

#include "datapath/base/status.h"
#include "datapath/packet/packet_pool.h"

namespace vswitch::dpdk {

struct MbufPoolConfig {
  uint32_t mbufs = 0;      // 0: 262,144, or as many as there is memory for
  uint32_t data_room = 0;  // head room and frame
  int numa_node = SOCKET_ID_ANY;
  auto operator<=>(const MbufPoolConfig&) const = default;
};

class MbufPool final : public PacketPool {
 public:
  // What devices leave in front of a frame they receive (fixed when DPDK was built): room for the outer headers of a
  // VXLAN tunnel over IPv6 (78 bytes with two tags) and pushed tags.
  static constexpr size_t kReceiveHeadroom = RTE_PKTMBUF_HEADROOM;
  static constexpr size_t kPrivateSize = (sizeof(Packet) + 63) / 64 * 64;

  // The pool of that configuration: ports that want the same share one. A pool whose ports are gone is freed once the
  // last of its packets is back, which may be after a packet was sent or a queue was emptied.
  static Result<std::shared_ptr<MbufPool>> get(const MbufPoolConfig& config);

  ~MbufPool() override;

  rte_mempool* mempool() const { return mempool_; }
  // Mbufs that are neither in the pool nor in a thread's cache. Expensive.
  uint32_t in_use() const { return rte_mempool_in_use_count(mempool_); }

  static Packet* packet_of(rte_mbuf* mbuf) { return reinterpret_cast<Packet*>(mbuf + 1); }
  // REQUIRES: packet.pool() is an MbufPool.
  static rte_mbuf* mbuf_of(Packet* packet) { return reinterpret_cast<rte_mbuf*>(packet) - 1; }
  static bool holds(const Packet& packet) { return packet.memory() == Memory::mbuf; }

 private:
  MbufPool(rte_mempool* mempool, const MbufPoolConfig& config);
  static Result<std::shared_ptr<MbufPool>> make(const MbufPoolConfig& config);
  Packet* take_foreign() override;
  void give_back_foreign(Packet* const* packets, size_t count) override;

  rte_mempool* const mempool_;
};

}  // namespace vswitch::dpdk
