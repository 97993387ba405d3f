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
// counting Bloom filter), so that even a full queue detains few packets of flows that have nothing in it. Both are on
// one line of memory, which is all that is looked at to ask, to queue, and to count as done: lines of so large a table
// are seldom in a cache.
//
// End of waiting: a flow whose packets come faster than the handler takes them would never have none in the queue, and
// go the slow way for ever. So once kMostOfFlow of one bucket wait, its further misses are turned away until none of
// them waits any more; from then on the flow takes the fast path. Many flows together can keep each other from it, too,
// with one or two packets of each in the queue: see should_end().
//
// Each counter is written by one thread: what goes in is counted by the producer, what has come out by the consumer,
// and what waits is the difference. So neither waits for the other's cache lines, as it would to count in one place.
//
// Thread safety: offer(), must_wait(), should_end(), drains(), several_wait() and in_place() by the producer thread,
// waiting() and empty() by any, the rest by the consumer thread.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <new>
#include <span>
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
  // Whether any wait at all (empty()) is quicker to say, once for many.
  bool must_wait(uint32_t bucket) const { return least_of(bucket) != 0; }
  // Asking it, and offer(), will be faster soon.
  void prefetch(uint32_t bucket) const { __builtin_prefetch(&lines_[places_of(bucket).line], 1); }
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
  // Not said by chance of a flow that has none there, as must_wait() is of one in fifty while the queue is full.
  bool several_wait(uint32_t bucket) const { return least_of(bucket) >= kSeveral; }
  // Waiting or being handled.
  size_t waiting() const {
    const size_t done = done_.load(std::memory_order_acquire);  // first: never more than have been offered by then
    return offered_.load(std::memory_order_acquire) - done;
  }
  bool empty() const { return waiting() == 0; }
  size_t in_place() const { return offered_in_place_ - done_in_place_.load(std::memory_order_relaxed); }

  // The next upcalls, ports and their sources in turn, as many as there are places for or fewer; returns how many.
  size_t take(std::span<Upcall> upcalls);
  bool take(Upcall& upcall) { return take(std::span(&upcall, 1)) != 0; }
  // Of so many misses that take() gave, so many found their flow installed by the time.
  void handled(size_t misses, size_t known);
  // One too many, which is to be dropped; false when there is none.
  bool take_surplus(Upcall& upcall);
  // What is to be remembered of an upcall until it is done.
  struct Ticket {
    uint32_t in_port, bucket;
    bool in_place = false;
  };
  static Ticket ticket_of(const Upcall& upcall) { return {upcall.packet->in_port, upcall.bucket, upcall.in_place}; }
  // What take() gave has been executed and sent, or what take_surplus() gave dropped.
  void done(std::span<const Ticket> tickets);
  void done(uint32_t in_port, uint32_t bucket, bool in_place = false) {
    const Ticket one{in_port, bucket, in_place};
    done({&one, 1});
  }

 private:
  static constexpr size_t kRing = 16384;
  static constexpr size_t kFew = kTotal / 64;
  static constexpr size_t kSample = 1024;  // misses of which it is asked whether most are known
  static constexpr uint32_t kSeveral = 3;
  static constexpr size_t kLines = size_t{1} << 17, kPlaces = 10;
  // Fewer than a place can count. Only action upcalls of one flow can be so many.
  static constexpr uint32_t kMostOfPlace = 60'000;
  static constexpr size_t kSourcePlaces = 8192;
  static constexpr uint32_t kNone = ~uint32_t{0};

  struct Place {
    uint16_t offered = 0;           // the producer's
    std::atomic<uint16_t> done{0};  // the consumer's
    uint16_t last = 0;              // the producer's: if this was the first place of what was queued last, whose
    // How many wait or are being handled. Whoever the producer does not see there any more has been sent.
    uint32_t count() const { return static_cast<uint16_t>(offered - done.load(std::memory_order_acquire)); }
  };
  struct alignas(64) Line {
    std::array<Place, kPlaces> places;
    uint16_t draining = 0;  // the producer's: a bit for each first place whose buckets must come to an end
  };
  static_assert(sizeof(Line) == 64);
  struct FreeLines {
    void operator()(Line* lines) const;
  };
  static constexpr std::align_val_t kLinesAlignment{size_t{2} << 20};
  static std::unique_ptr<Line[], FreeLines> make_lines();
  struct Places {
    size_t line, first, second;
  };
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

  static Places places_of(uint32_t bucket) {
    const uint32_t rest = (bucket * 0x9e3779b1u) >> 17;
    const size_t first = rest % kPlaces, step = rest / kPlaces % (kPlaces - 1);
    const size_t second = first + 1 + step;
    return {bucket % kLines, first, second < kPlaces ? second : second - kPlaces};
  }
  // All of a bucket that its line does not tell; never 0.
  static uint16_t mark_of(uint32_t bucket) { return static_cast<uint16_t>(1 + bucket / kLines); }
  // As many of the bucket wait or are being handled, at most.
  uint32_t least_of(uint32_t bucket) const {
    const Places at = places_of(bucket);
    const Line& line = lines_[at.line];
    const uint32_t in_first = line.places[at.first].count();
    return in_first == 0 ? 0 : std::min(in_first, line.places[at.second].count());
  }
  static size_t source_place(uint32_t port, uint32_t source) {
    return (port * kSources + source % kSources) % kSourcePlaces;
  }
  // To a counter that only this thread writes.
  template <typename Count>
  static void add(std::atomic<Count>& counter, Count by, std::memory_order order) {
    counter.store(static_cast<Count>(counter.load(std::memory_order_relaxed) + by), order);
  }
  bool has_most(uint32_t port, const Upcall& upcall) const;
  bool mostly_known() const { return mostly_known_.load(std::memory_order_relaxed); }
  // Not said by chance either, but not always of a flow that shares its place with another.
  bool surely_waits(uint32_t bucket) const {
    const Places at = places_of(bucket);
    return must_wait(bucket) && lines_[at.line].places[at.first].last == mark_of(bucket);
  }
  bool flow_has_most(const Upcall& upcall);
  void count(uint32_t port, const Upcall& upcall);
  void drain_ring();
  bool take_next(Upcall& upcall);
  bool take_from(PortQueue& port, Upcall& upcall);
  void enqueue(Upcall&& upcall);
  void dequeue(PortQueue& port, SubQueue& source, Upcall& upcall);
  PortQueue& port_queue(uint32_t port_no);
  static void list(PortQueue& port, uint32_t source);
  void find_longest();
  void forget_longest();

  SpscRing<Upcall> ring_;
  const std::unique_ptr<Line[], FreeLines> lines_;

  // Producer's. The atomic ones are read by others.
  alignas(64) std::atomic<size_t> offered_{0};
  size_t offered_in_place_ = 0;
  bool drains_ = false;
  std::vector<uint32_t> offered_of_port_;    // by port number
  std::vector<uint32_t> offered_of_source_;  // by a hash of port and source; perhaps of several together

  // Consumer's. The atomic ones are read by the producer.
  alignas(64) std::atomic<size_t> done_{0};
  std::atomic<size_t> done_in_place_{0};
  std::atomic<bool> mostly_known_{false};  // of the misses that were handled last
  // Who has as many loses, once there is no room.
  std::atomic<uint32_t> longest_port_{kNone}, longest_source_{kNone};
  std::vector<std::atomic<uint32_t>> done_of_port_;     // by port number
  std::vector<std::atomic<uint32_t>> taken_of_source_;  // as above
  // On lines that the producer does not read.
  alignas(64) size_t sampled_ = 0;
  size_t sampled_known_ = 0;
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
