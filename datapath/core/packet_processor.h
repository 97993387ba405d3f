// PacketProcessor: the fast path of one thread: extract, look up, group by flow, execute, collect per way out, flush.
//
// Forwarding threads run it on what they receive, the handler thread on what its packets do after a miss
// (recirculation). What differs is what happens to a miss and to a userspace action: the two virtual functions.
//
// Thread safety: one thread. The thread is a registered RCU reader.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "datapath/actions/execute.h"
#include "datapath/core/port_map.h"
#include "datapath/flow_table/flow_table.h"
#include "datapath/packet/packet_batch.h"
#include "datapath/packet/thread_context.h"

namespace vswitch {

// Of one thread; read by any.
struct LookupCounters {
  Counter hits, cache_hits, misses, lost, masks_visited;
};

class PacketProcessor : public ActionSink {
 public:
  PacketProcessor(ThreadContext& ctx, const FlowTable& flows, const PortMap& ports);

  // Takes every packet of the batch through the flow table. Packets bound for ports are buffered until flush().
  void process(PacketBatch& batch);
  // Sends what is buffered.
  void flush();
  // Before rcu::quiescent(): forgets cached flows that are gone.
  void before_quiescent() { cache_.purge_removed(); }

  const LookupCounters& counters() const { return counters_; }
  ThreadContext& context() { return ctx_; }

  // ActionSink
  void output(ThreadContext& ctx, uint32_t port_no, PacketPtr packet) override;
  void output_batch(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch) override;
  void recirculate(ThreadContext& ctx, PacketPtr packet) override;

 protected:
  // The packet found no flow. `flow_hash` identifies its flow for ordering.
  virtual void miss(PacketPtr packet, const FlowKey& key, uint32_t flow_hash) = 0;
  // True: the packet must go the way of misses although a flow may match, to stay behind earlier packets of its flow.
  virtual bool must_wait(uint32_t flow_hash) const = 0;

  void process_recirculated();
  Flow* look_up(const FlowKey& key, uint32_t hash);

  ThreadContext& ctx_;
  LookupCounters counters_;

 private:
  struct Group {
    Flow* flow;
    uint64_t bytes;
    uint16_t tcp_flags;
    uint8_t count;
    std::array<uint8_t, PacketBatch::kMaxPackets> members;
  };
  struct TransmitQueue {
    PacketBatch batch;
    bool listed = false;
  };

  void classify(PacketBatch& batch, std::array<Group, PacketBatch::kMaxPackets>& groups, size_t& group_count);
  void run(PacketBatch& batch, const Group& group);
  void send(uint32_t port_no, TransmitQueue& queue);
  // The queue of a way out, on the list of those to flush.
  TransmitQueue& transmit_queue(uint32_t port_no);

  const FlowTable& flows_;
  const PortMap& ports_;
  FlowCache cache_;
  std::array<FlowKey, PacketBatch::kMaxPackets> keys_;
  PacketBatch recirculated_;
  // By port number, made on first use of a way out (one allocation in the life of a port).
  std::vector<std::unique_ptr<TransmitQueue>> transmit_queues_;
  std::vector<uint32_t> to_flush_;
};

}  // namespace vswitch
