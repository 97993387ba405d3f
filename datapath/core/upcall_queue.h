// UpcallQueue: from one forwarding thread to the handler thread: bounded by memory, fair, order-keeping per flow.
//
// Fairness (P9): the handler takes from the ports in turn, and for each port from its sources in turn (stochastic fair
// queueing: a source is a hash of who sent the packet, keyed with a secret; a port has kSources sub-queues). So a host
// that floods a port with misses costs the other hosts there one place in the round, and other ports nothing.
//
// Bound: kTotal packets may wait. With one more, the longest sub-queue of the port that has most loses its oldest, not
// the newcomer its place. The producer sees how long the longest are and turns away what would only be thrown out
// again. Those that wait long are copied out of pools that are needed for receiving (see ForwardingThread).
//
// Order: a packet of a flow that still has packets waiting must wait behind them even if its flow has been installed
// meanwhile. The producer asks must_wait(bucket), where a bucket is a hash of the flow: while anything of that bucket
// is waiting or being handled, its packets go through the queue too. Each bucket counts in two places of a table (a
// counting Bloom filter), so that even a full queue detains few packets of flows that have nothing in it.
//
// End of waiting: a flow whose packets come faster than the handler takes them would never have none in the queue, and
// go the slow way for ever. So once kMostOfFlow of one bucket wait, its further misses are turned away until none of
// them waits any more; from then on the flow takes the fast path. Many flows together can keep each other from it, too,
// with one or two packets of each in the queue: see should_end().
//
// Thread safety: offer(), must_wait(), should_end(), drains(), several_wait() and waiting() by the producer thread, the
// rest by the consumer thread.
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
  uint32_t source = 0;                                 // a hash of who sent it
  bool in_place = false;                               // the packet is still of the pool that it was received into
  static constexpr uint32_t kNoBucket = ~uint32_t{0};  // order does not matter: a copy for the control path
};

class UpcallQueue {
 public:
  static constexpr size_t kTotal = 65536;
  static constexpr size_t kSources = 256;  // sub-queues of a port
  static constexpr uint32_t kMostOfFlow = 4096;

  UpcallQueue();

  static uint32_t bucket_of(uint32_t flow_hash) { return flow_hash == Upcall::kNoBucket ? 0 : flow_hash; }
  bool must_wait(uint32_t bucket) const {
    return waiting() != 0 && in_bucket_[first_place(bucket)].load(std::memory_order_acquire) != 0 &&
           in_bucket_[second_place(bucket)].load(std::memory_order_acquire) != 0;
  }
  // Queues it; false, and `upcall` untouched, when it belongs to those that have most, and there is no room, or when so
  // many of its flow wait that they must come to an end first.
  bool offer(Upcall&& upcall);
  // Of a flow that is installed: it should send the queue nothing more, but get to the fast path. That is so while a
  // queue that has been full drains, for flows of which several wait; and if what drains are mostly such flows, for
  // each that waits at all, as they would fill the queue for ever otherwise.
  bool should_end(uint32_t bucket) {
    return __builtin_expect(drains(), 0) && (several_wait(bucket) || (mostly_known() && surely_waits(bucket)));
  }
  // It has been full, and more than a few still wait.
  bool drains();
  // Not said by chance of a flow that has none there, as must_wait() is of one in sixty while the queue is full.
  bool several_wait(uint32_t bucket) const {
    return in_bucket_[first_place(bucket)].load(std::memory_order_acquire) >= kSeveral &&
           in_bucket_[second_place(bucket)].load(std::memory_order_acquire) >= kSeveral;
  }
  // Waiting or being handled.
  size_t waiting() const { return waiting_.load(std::memory_order_acquire); }
  bool empty() const { return waiting() == 0; }
  size_t in_place() const { return in_place_.load(std::memory_order_relaxed); }

  // The next upcall, ports and their sources in turn; false when there is none.
  bool take(Upcall& upcall);
  // Of so many misses that take() gave, so many found their flow installed by the time.
  void handled(size_t misses, size_t known);
  // One too many, which is to be dropped; false when there is none.
  bool take_surplus(Upcall& upcall);
  // What take() gave has been executed and sent, or what take_surplus() gave dropped.
  void done(uint32_t in_port, uint32_t bucket, bool in_place = false);

 private:
  static constexpr size_t kRing = 16384;
  static constexpr size_t kFew = kTotal / 64;
  static constexpr size_t kSample = 1024;  // misses of which it is asked whether most are known
  static constexpr uint32_t kSeveral = 3;
  static constexpr size_t kBucketPlaces = size_t{1} << 20;
  static constexpr size_t kSourcePlaces = 8192;
  static constexpr uint32_t kNone = ~uint32_t{0};

  struct Node {
    Upcall upcall;
    uint32_t next = kNone;
  };
  struct SubQueue {
    uint32_t head = kNone, tail = kNone, length = 0;
    uint32_t next = kNone;  // sub-queue whose turn comes after this one's
    bool listed = false;    // has a turn to come; if it is empty by then, it passes
  };
  struct PortQueue {
    uint32_t port_no = 0;
    uint32_t length = 0;
    bool listed = false;
    uint32_t first = kNone, last = kNone;  // sub-queues that have something, in the order of their turn
    std::array<SubQueue, kSources> sources;
  };

  static size_t first_place(uint32_t bucket) { return bucket % kBucketPlaces; }
  static size_t second_place(uint32_t bucket) { return (bucket * 0x9e3779b1u) >> 12; }
  std::atomic<uint32_t>& of_source(uint32_t port, uint32_t source) {
    return of_source_[(port * kSources + source % kSources) % kSourcePlaces];
  }
  bool has_most(uint32_t port, const Upcall& upcall) const;
  bool mostly_known() const { return mostly_known_.load(std::memory_order_relaxed); }
  // Not said by chance either, but not always of a flow that shares its place with another.
  bool surely_waits(uint32_t bucket) const { return must_wait(bucket) && last_[first_place(bucket)] == bucket; }
  bool flow_has_most(const Upcall& upcall);
  const std::atomic<uint32_t>& of_source(uint32_t port, uint32_t source) const {
    return of_source_[(port * kSources + source % kSources) % kSourcePlaces];
  }
  void count(uint32_t port, const Upcall& upcall);
  void drain_ring();
  bool take_from(PortQueue& port, Upcall& upcall);
  void enqueue(Upcall&& upcall);
  void dequeue(PortQueue& port, SubQueue& source, Upcall& upcall);
  PortQueue& port_queue(uint32_t port_no);
  static void list(PortQueue& port, uint32_t source);
  void find_longest();
  void forget_longest();

  SpscRing<Upcall> ring_;
  std::atomic<size_t> waiting_{0};
  std::atomic<size_t> in_place_{0};
  std::vector<std::atomic<uint32_t>> in_bucket_;
  std::atomic<bool> mostly_known_{false};         // of the misses that were handled last
  bool drains_ = false;                           // the producer's
  std::vector<uint32_t> last_;                    // the producer's: by first place, the bucket that was queued last
  std::vector<bool> draining_;                    // the producer's: by first place, buckets that must come to an end
  std::vector<std::atomic<uint32_t>> of_port_;    // by port number: waiting or being handled
  std::vector<std::atomic<uint32_t>> of_source_;  // by a hash of port and source: waiting; perhaps of several together
  // Who has as many loses, once there is no room.
  std::atomic<uint32_t> longest_port_{kNone}, longest_source_{kNone};

  // Consumer's.
  size_t sampled_ = 0, sampled_known_ = 0;
  std::deque<Node> nodes_;
  uint32_t free_node_ = kNone;
  size_t queued_ = 0;             // in sub-queues
  std::deque<PortQueue*> turns_;  // ports that have something, in the order of their turn
  std::vector<std::unique_ptr<PortQueue>> by_port_;
  PortQueue* victim_ = nullptr;  // while there are too many: who loses,
  uint32_t victim_source_ = 0;
  uint32_t victim_until_ = 0;  // as long as the sub-queue is longer than this
};

}  // namespace vswitch
