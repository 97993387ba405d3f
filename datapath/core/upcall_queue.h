// UpcallQueue: from one forwarding thread to the handler thread: bounded, fair per port, order-keeping per flow.
//
// Bound and fairness (P9): each port may have kPerPort packets waiting; the handler takes from the ports in turn. A
// flood of misses on one port fills that port's share only, and costs the others one turn of the round.
//
// Order: a packet of a flow that still has packets waiting must wait behind them even if its flow has been installed
// meanwhile. The producer asks must_wait(bucket), where a bucket is a hash of the flow: while anything of that bucket
// is waiting or being handled, its packets go through the queue too. (Buckets shared by accident cost a detour, nothing
// else.)
//
// Thread safety: offer() and must_wait() by the producer thread, take() and done() by the consumer thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "datapath/actions/action.h"
#include "datapath/core/spsc_ring.h"
#include "datapath/packet/ledger.h"
#include "datapath/packet/packet.h"

namespace vswitch {

struct Upcall {
  enum class Kind : uint8_t { miss, action };
  PacketPtr packet;  // in_port, recirc_id and tunnel metadata as when it missed
  Kind kind = Kind::miss;
  UserspaceAction action;  // Kind::action
  uint32_t bucket = kNoBucket;
  static constexpr uint32_t kNoBucket = ~uint32_t{0};  // order does not matter: a copy for the control path
};

class UpcallQueue {
 public:
  static constexpr size_t kPerPort = 256;
  static constexpr size_t kTotal =
      2048;  // stays below the packet pool's size: waiting packets must not starve receiving
  static constexpr size_t kBuckets = 4096;

  UpcallQueue();

  static uint32_t bucket_of(uint32_t flow_hash) { return flow_hash % kBuckets; }
  bool must_wait(uint32_t bucket) const {
    return waiting_.load(std::memory_order_acquire) != 0 && in_bucket_[bucket].load(std::memory_order_acquire) != 0;
  }
  // Queues it; false, and `upcall` untouched, when the port has its share waiting or the queue is full.
  bool offer(Upcall&& upcall);

  // The next upcall, ports in turn; false when there is none.
  bool take(Upcall& upcall);
  // What take() gave has been executed and sent.
  void done(uint32_t in_port, uint32_t bucket);

  bool empty() const { return waiting_.load(std::memory_order_acquire) == 0; }

 private:
  struct PortQueue {
    uint32_t port_no;
    std::deque<Upcall> waiting;
  };
  void drain_ring();

  SpscRing<Upcall> ring_;
  std::atomic<uint32_t> waiting_{0};
  std::vector<std::atomic<uint32_t>> in_bucket_;
  std::vector<std::atomic<uint32_t>> of_port_;  // by port number: waiting or being handled
  // Consumer's: ports that have something, in the order of their turn.
  std::deque<std::unique_ptr<PortQueue>> turns_;
  std::vector<PortQueue*> by_port_;
};

}  // namespace vswitch
