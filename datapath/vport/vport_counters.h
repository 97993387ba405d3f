// VportCounters: a port's own statistics, counted without sharing: each thread has its slot (ThreadContext::index), and
// reading adds the slots up.
//
// These are the numbers that Linux keeps for a device, from the switch's point of view (rx: came into the switch). They
// stand beside the Ledger, which says what became of each packet.
//
// Thread safety: a slot is written by the thread with that index only; total() may be called from any thread.
#pragma once

#include <array>

#include "datapath/packet/thread_context.h"
#include "datapath/vport/vport.h"

namespace vswitch {

class VportCounters {
 public:
  struct alignas(64) Slot {
    Counter rx_packets, rx_bytes, rx_errors, rx_dropped;
    Counter rx_length_errors, rx_over_errors, rx_crc_errors, rx_frame_errors, multicast;
    Counter tx_packets, tx_bytes, tx_errors, tx_dropped, tx_carrier_errors, collisions;
  };

  // REQUIRES: ctx.index < kMaxThreads
  Slot& slot(const ThreadContext& ctx) { return slots_[ctx.index]; }
  // What the kernel forwarded is counted under its lock, in a slot that no thread has.
  Slot& kernel_path_slot() { return slots_[kKernelPathIndex]; }

  VportStats total() const {
    VportStats sum;
    for (const Slot& slot : slots_) add(slot, sum);
    return sum;
  }

 private:
  static void add(const Slot& slot, VportStats& sum) {
    sum.rx_packets += slot.rx_packets.get();
    sum.rx_bytes += slot.rx_bytes.get();
    sum.rx_errors += slot.rx_errors.get();
    sum.rx_dropped += slot.rx_dropped.get();
    sum.rx_length_errors += slot.rx_length_errors.get();
    sum.rx_over_errors += slot.rx_over_errors.get();
    sum.rx_crc_errors += slot.rx_crc_errors.get();
    sum.rx_frame_errors += slot.rx_frame_errors.get();
    sum.multicast += slot.multicast.get();
    sum.tx_packets += slot.tx_packets.get();
    sum.tx_bytes += slot.tx_bytes.get();
    sum.tx_errors += slot.tx_errors.get();
    sum.tx_dropped += slot.tx_dropped.get();
    sum.tx_carrier_errors += slot.tx_carrier_errors.get();
    sum.collisions += slot.collisions.get();
  }

  std::array<Slot, kMaxThreads> slots_;
};

}  // namespace vswitch
