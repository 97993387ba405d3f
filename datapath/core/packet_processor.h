// PacketProcessor: the fast path of one thread: extract, look up, group by flow, execute, collect per way out, flush.
//
// Forwarding threads run it on what they receive, the handler thread on what its packets do after a miss
// (recirculation). What differs is what happens to a miss and to a userspace action: the two virtual functions.
//
// A batch goes through it in steps, each for all packets, so that memory that one step will need is on its way while
// the step before still works on other packets:
//
// - shallow: when all packets are alike as far as the flows of their port look (shallow_key.h): one lookup for all,
//   and nothing of what follows but the flow's actions.
// - alike: when all packets have the same headers (same_headers.h), extraction and lookup of the first serve all.
// - extract: a key and a hash each; the hash's bucket of the cache is fetched.
// - cache: the buckets' flows are fetched, then compared.
// - table: for those that the cache does not know.
// - dispatch: packets of flows that only drop go to an end. If the flows of all others only send to one and the same
//   port, they become that port's queue as they are. Otherwise flows that only send to one port go straight into that
//   port's queue; the others are grouped by flow, and their actions executed for each group at once.
//
// Packets that the cache remembers as dropped are compared and dispatched when all others of the batch have been. Under
// attack there are thousands of flows that drop, each met only now and then: they come from memory, and meanwhile the
// others go on.
//
// Thread safety: one thread. The thread is a registered RCU reader.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "datapath/actions/execute.h"
#include "datapath/core/connection_sampler.h"
#include "datapath/core/lookup_options.h"
#include "datapath/core/port_map.h"
#include "datapath/flow/extract.h"
#include "datapath/flow_table/flow_cache.h"
#include "datapath/flow_table/flow_table.h"
#include "datapath/flow_table/shallow_key.h"
#include "datapath/packet/packet_batch.h"
#include "datapath/packet/thread_context.h"

namespace vswitch {

// Of one thread; read by any.
struct LookupCounters {
  Counter hits, cache_hits, misses, lost, masks_visited;
};

class PacketProcessor : public ActionSink {
 public:
  PacketProcessor(ThreadContext& ctx, const FlowTable& flows, const PortMap& ports, LookupOptions options);

  // Takes every packet of the batch through the flow table. Packets bound for ports are buffered until flush().
  // `sole_port`: that of their source (RxSource::sole_port()).
  void process(PacketBatch& batch, uint32_t sole_port = 0);
  // Sends what is buffered.
  void flush();
  // The same at the end of a round, but what waits for others (Vport::gathers()) may do so for a few rounds if
  // `more_wait`: packets come faster than they are taken.
  void flush_round(bool more_wait);
  // Whether something waited on when the last round ended.
  bool holds() const { return held_batches_ != 0; }
  // Before rcu::quiescent(), where the thread holds no packets.
  void before_quiescent() { cache_.maintain(); }

  // Of packets that came in just now, shows the sampler those that the kernel could forward. Outlives this.
  void show_connections(ConnectionSampler* sampler) { sampler_ = sampler; }

  const LookupCounters& counters() const { return counters_; }
  uint64_t cache_evictions() const { return cache_.evictions(); }  // any thread
  ThreadContext& context() { return ctx_; }

  // ActionSink
  void output(ThreadContext& ctx, uint32_t port_no, PacketPtr packet) override;
  void output_batch(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch) override;
  void recirculate(ThreadContext& ctx, PacketPtr packet) override;

 protected:
  // The packet found no flow. `flow_hash` identifies its flow for ordering.
  virtual void miss(PacketPtr packet, const FlowKey& key, uint32_t flow_hash) = 0;
  // After all misses of up to a batch of packets, before those of them that found a flow are executed; for packets that
  // the cache remembers as dropped once more. Keys that miss() was given stay as they are until then.
  virtual void end_of_misses() {}
  // False: must_wait() would say false for every packet.
  virtual bool any_must_wait() const = 0;
  // True: the packet must go the way of misses although a flow may match, to stay behind earlier packets of its flow.
  virtual bool must_wait(uint32_t flow_hash) const = 0;
  // must_wait() will be asked soon.
  virtual void prefetch_must_wait(uint32_t) const {}

  void process_recirculated();

  ThreadContext& ctx_;
  LookupCounters counters_;

 private:
  static constexpr size_t kBatch = PacketBatch::kMaxPackets;
  static constexpr size_t kMaxRecirculated = 1024;  // at once; a power of two

  struct Group {
    Flow* flow;
    uint64_t bytes;
    uint16_t tcp_flags;
    uint8_t count;
    std::array<uint8_t, kBatch> members;
  };
  // What waits for others that are to leave by the same port: for so many batches of that port, or rounds in a row, at
  // most, and so many batches of all ports, as receiving needs the memory; and so long, for those who share the thread
  // with others that keep it busy.
  static constexpr size_t kMostHeld = 16, kMostHeldOfAll = 32;
  static constexpr Nanoseconds kLongestHeld = std::chrono::microseconds(50);
  struct Held {
    std::array<PacketBatch, kMostHeld> batches;
    size_t count = 0;
    bool listed = false;
  };
  struct TransmitQueue {
    PacketBatch batch;
    bool listed = false;
    std::unique_ptr<Held> held;  // made for ports that gather
  };
  // What a packet of some port with some signature led to last time.
  struct ShallowEntry {
    uint32_t in_port = 0;
    ShallowSignature signature = kNoSignature;
    Flow* flow = nullptr;
    uint64_t generation = 0;  // of the table: while no flow is removed, the flow is there and right
  };
  void process_once(PacketBatch& batch, uint32_t sole_port);
  bool process_shallow(PacketBatch& batch);
  bool process_alike(PacketBatch& batch);
  // All of the batch belongs to `flow`; empties it.
  void run_whole(PacketBatch& batch, Flow& flow, uint64_t bytes, uint16_t tcp_flags);
  Flow* find_shallow(uint32_t in_port, ShallowSignature signature);

  // Each: which packets (a bit each) go on to the next step.
  uint32_t extract(PacketBatch& batch, uint32_t sole_port);
  // Of those with a key, lets go the way of misses who must wait.
  [[gnu::noinline]] uint32_t detain(PacketBatch& batch, uint32_t good);
  [[gnu::noinline]] void give_misses(PacketBatch& batch, uint32_t missed);
  // Of packets of whom the cache remembers something, and of others: those that find their flows.
  uint32_t look_up(uint32_t known, uint32_t unknown);
  uint32_t look_up_in_table(uint32_t wanted);
  // Lets packets go where their flows say. Returns those that were dropped by flows that only drop.
  uint32_t dispatch(PacketBatch& batch, uint32_t found);
  // What is left of the batch: packets that the cache remembers as dropped.
  [[gnu::noinline]] void process_drops(PacketBatch& batch, uint32_t recalled);
  void process_other_than_recalled(PacketBatch& batch, uint32_t recalled);
  [[gnu::noinline]] void remember_anew(uint32_t some);
  uint32_t common_output(uint32_t some) const;
  void count_in_flows(const PacketBatch& batch);
  [[gnu::noinline]] void show_to_sampler(const PacketBatch& batch, uint32_t some, uint32_t port_no);
  // What the flows of some packets come to: which of these are dropped, and the port that all others are only sent to
  // (0: there is none).
  struct Outlook {
    uint32_t drops, port_no;
  };
  // Each of `some`: a bit for each packet that is meant.
  Outlook look_at_shortcuts(uint32_t some);
  size_t drop(PacketBatch& batch, uint32_t some);
  void send_some(PacketBatch& batch, uint32_t some, uint32_t port_no);
  void dispatch_mixed(PacketBatch& batch, uint32_t some);
  void send_to_only_output(PacketBatch& batch, size_t i, uint32_t port_no);
  void group(Packet& packet, size_t i);
  void run_groups(PacketBatch& batch);
  void run(PacketBatch& batch, const Group& group);

  void send(uint32_t port_no, PacketBatch& batch);
  [[gnu::noinline]] void hold(uint32_t port_no, PacketBatch& batch);
  void send_held();
  void send_held(uint32_t port_no);
  void flush_queues();
  // The queue of a way out, on the list of those to flush.
  TransmitQueue& transmit_queue(uint32_t port_no);
  [[gnu::noinline]] TransmitQueue& list_transmit_queue(uint32_t port_no);

  const FlowTable& flows_;
  const PortMap& ports_;
  const LookupOptions options_;
  ConnectionSampler* sampler_ = nullptr;
  uint32_t mixed_batches_ = 0;  // in a row
  FlowCache cache_;
  std::array<ShallowEntry, 64> shallow_;

  // Of the batch being processed.
  KeySlots keys_;
  std::array<const FlowKey*, kBatch> key_pointers_;
  std::array<uint64_t, kBatch> hashes_{};
  std::array<Flow*, kBatch + 1> found_;                 // one more than there are: where a run of equal ones ends
  alignas(16) std::array<uint32_t, kBatch> shortcuts_;  // read once each, where not all do the same
  std::array<Group, kBatch> groups_;
  size_t group_count_ = 0;

  // A ring of those that wait for another lookup. Never looked up where they come from: that is in the middle of a
  // batch.
  std::array<PacketPtr, kMaxRecirculated> recirculated_;
  size_t recirculated_first_ = 0, recirculated_count_ = 0;
  // By port number, made on first use of a way out (one allocation in the life of a port).
  std::vector<std::unique_ptr<TransmitQueue>> transmit_queues_;
  std::vector<uint32_t> to_flush_;
  std::vector<uint32_t> held_ports_;
  size_t rounds_held_ = 0, held_batches_ = 0;
  Nanoseconds held_since_{}, sent_at_{};
};

}  // namespace vswitch
