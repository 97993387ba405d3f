// ThreadContext: what a thread that handles packets brings along: its number, its packet pool, its books and the time.
//
// One per forwarding or upcall-handler thread, never shared. `index` is below kMaxThreads and unique among live
// threads: it selects the thread's slot in per-thread statistics, so that counting never touches a shared cache line.
#pragma once

#include <cstddef>

#include "datapath/base/clock.h"
#include "datapath/packet/ledger.h"
#include "datapath/packet/packet_pool.h"

namespace vswitch {

inline constexpr size_t kMaxThreads = 16;
// Of per-thread statistics: not a thread's, but of what the kernel forwarded (core/kernel_connections.h).
inline constexpr size_t kKernelPathIndex = kMaxThreads - 1;

struct ThreadContext {
  size_t index;       // < kMaxThreads
  PacketPool& pool;   // copies are made here; owned by this thread
  Ledger& ledger;     // written by this thread only
  Nanoseconds now{};  // taken from the clock once per loop iteration

  // Books the drop and frees the packet.
  void drop(PacketPtr packet, DropReason reason) { ledger.drop(packet->in_port, reason); }

  // A copy, in memory of the same kind if it can be had there, so that the copy too can leave without another. Null
  // when no pool has room.
  PacketPtr clone(const Packet& packet) {
    if (__builtin_expect(packet.memory() != PacketMemory::heap, 0)) {
      if (PacketPtr copy = clone_packet(packet, *packet.pool())) return copy;
    }
    return clone_packet(packet, pool);
  }
};

}  // namespace vswitch
