#include "datapath/core/packet_processor.h"

#include <utility>

#include "datapath/flow/extract.h"

namespace vswitch {
namespace {

// The cache and ordering identity of a packet: its flow hash, and where it is in its way through the switch.
uint32_t identity_hash(const Packet& packet) {
  uint64_t h = packet.rss_hash;
  h = (h << 32 | packet.in_port) * 0x9e3779b97f4a7c15ULL;
  h ^= static_cast<uint64_t>(packet.recirc_id) * 0xc2b2ae3d27d4eb4fULL;
  return static_cast<uint32_t>(h >> 32);
}

}  // namespace

PacketProcessor::PacketProcessor(ThreadContext& ctx, const FlowTable& flows, const PortMap& ports)
    : ctx_(ctx), flows_(flows), ports_(ports), cache_(flows), transmit_queues_(kMaxPorts) {
  to_flush_.reserve(kMaxPorts);
}

Flow* PacketProcessor::look_up(const FlowKey& key, uint32_t hash) {
  if (Flow* flow = cache_.lookup(hash, key)) {
    counters_.hits.add();
    counters_.cache_hits.add();
    return flow;
  }
  uint32_t visited = 0;
  Flow* flow = flows_.lookup(key, &visited);
  counters_.masks_visited.add(visited);
  if (flow == nullptr) {
    counters_.misses.add();
    return nullptr;
  }
  counters_.hits.add();
  cache_.insert(hash, flow);
  return flow;
}

void PacketProcessor::classify(PacketBatch& batch, std::array<Group, PacketBatch::kMaxPackets>& groups,
                               size_t& group_count) {
  for (size_t i = 0; i < batch.size(); ++i) {
    Packet& packet = batch[i];
    FlowKey& key = keys_[i];
    if (!extract_flow_key(packet, key)) {
      ctx_.drop(batch.release(i), DropReason::rx_invalid_packet);
      continue;
    }
    const uint32_t hash = identity_hash(packet);
    if (must_wait(hash)) {
      miss(batch.release(i), key, hash);
      continue;
    }
    Flow* flow = look_up(key, hash);
    if (flow == nullptr) {
      miss(batch.release(i), key, hash);
      continue;
    }
    // Packets of one flow tend to come together: look at the latest groups first.
    size_t g = group_count;
    while (g > 0 && groups[g - 1].flow != flow) --g;
    if (g == 0) {
      groups[group_count] = {flow, 0, 0, 0, {}};
      g = ++group_count;
    }
    Group& group = groups[g - 1];
    group.bytes += packet.size();
    group.tcp_flags |= key.tcp_flags.host();
    group.members[group.count++] = static_cast<uint8_t>(i);
  }
}

void PacketProcessor::run(PacketBatch& batch, const Group& group) {
  group.flow->count(ctx_.index, group.count, group.bytes, ctx_.now, group.tcp_flags);
  PacketBatch of_flow;
  for (size_t i = 0; i < group.count; ++i) of_flow.add(batch.release(group.members[i]));
  execute_actions(ctx_, group.flow->actions(), of_flow, *this);
}

void PacketProcessor::process(PacketBatch& batch) {
  std::array<Group, PacketBatch::kMaxPackets> groups;
  size_t group_count = 0;
  classify(batch, groups, group_count);
  for (size_t g = 0; g < group_count; ++g) run(batch, groups[g]);
  batch.reset_released();
  process_recirculated();
}

// A packet may recirculate again: each round takes what the last one left. recirc_depth bounds the rounds.
void PacketProcessor::process_recirculated() {
  while (!recirculated_.empty()) {
    PacketBatch round = std::move(recirculated_);
    process(round);
  }
}

void PacketProcessor::recirculate(ThreadContext&, PacketPtr packet) {
  if (recirculated_.full()) process_recirculated();
  recirculated_.add(std::move(packet));
}

PacketProcessor::TransmitQueue& PacketProcessor::transmit_queue(uint32_t port_no) {
  std::unique_ptr<TransmitQueue>& queue = transmit_queues_[port_no];
  if (!queue) queue = std::make_unique<TransmitQueue>();
  if (!queue->listed) {
    queue->listed = true;
    to_flush_.push_back(port_no);
  }
  return *queue;
}

void PacketProcessor::output(ThreadContext&, uint32_t port_no, PacketPtr packet) {
  if (port_no >= kMaxPorts) {
    ctx_.drop(std::move(packet), DropReason::invalid_port);
    return;
  }
  TransmitQueue& queue = transmit_queue(port_no);
  if (queue.batch.full()) send(port_no, queue);
  queue.batch.add(std::move(packet));
}

// A batch that finds the way out free becomes its queue as it is.
void PacketProcessor::output_batch(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch) {
  if (port_no < kMaxPorts) {
    TransmitQueue& queue = transmit_queue(port_no);
    if (queue.batch.empty()) {
      queue.batch = std::move(batch);
      return;
    }
  }
  for (size_t i = 0; i < batch.size(); ++i) output(ctx, port_no, batch.release(i));
  batch.reset_released();
}

void PacketProcessor::send(uint32_t port_no, TransmitQueue& queue) {
  if (Vport* port = ports_.find(port_no)) {
    port->send(ctx_, queue.batch);
    return;
  }
  for (size_t i = 0; i < queue.batch.size(); ++i) ctx_.drop(queue.batch.release(i), DropReason::invalid_port);
  queue.batch.reset_released();
}

void PacketProcessor::flush() {
  for (const uint32_t port_no : to_flush_) {
    TransmitQueue& queue = *transmit_queues_[port_no];
    queue.listed = false;
    if (!queue.batch.empty()) send(port_no, queue);
  }
  to_flush_.clear();
}

}  // namespace vswitch
