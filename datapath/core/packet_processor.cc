#include "datapath/core/packet_processor.h"

#include <algorithm>
#include <bit>
#include <span>
#include <utility>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "datapath/base/batch_bits.h"
#include "datapath/flow/extract.h"
#include "datapath/flow/same_headers.h"

namespace vswitch {
namespace {

constexpr uint32_t kTriesOfAlike = 8;
// How far ahead of a look at their headers frames are fetched.
constexpr size_t kPrefetchAhead = 4;

uint32_t ordering_hash(uint64_t identity) { return static_cast<uint32_t>(identity >> 32); }

// What flows with these shortcuts come to: which of them drop, a bit each, and the port that all others send to.
std::pair<uint32_t, uint32_t> drops_and_port(const std::array<uint32_t, 32>& shortcuts) {
  uint32_t drops = 0, any = 0, all = ~uint32_t{0};
#if defined(__SSE2__)
  static_assert(Flow::Shortcut(1u << 31).drops() && !Flow::Shortcut((1u << 31) - 1).drops(), "the sign tells");
  __m128i any_of_4 = _mm_setzero_si128(), all_of_4 = _mm_set1_epi32(-1);
  for (size_t i = 0; i < 8; ++i) {
    const __m128i values = reinterpret_cast<const __m128i*>(shortcuts.data())[i];
    const __m128i dropped = _mm_srai_epi32(values, 31);
    drops |= static_cast<uint32_t>(_mm_movemask_ps(_mm_castsi128_ps(values))) << 4 * i;
    any_of_4 = _mm_or_si128(any_of_4, _mm_andnot_si128(dropped, values));
    all_of_4 = _mm_and_si128(all_of_4, _mm_or_si128(dropped, values));
  }
  for (size_t i = 0; i < 4; ++i) {
    any |= std::bit_cast<std::array<uint32_t, 4>>(any_of_4)[i];
    all &= std::bit_cast<std::array<uint32_t, 4>>(all_of_4)[i];
  }
#else
  for (size_t i = 0; i < shortcuts.size(); ++i) {
    const Flow::Shortcut shortcut(shortcuts[i]);
    drops |= uint32_t{shortcut.drops()} << i;
    any |= shortcut.drops() ? 0 : shortcuts[i];
    all &= shortcut.drops() ? ~uint32_t{0} : shortcuts[i];
  }
#endif
  return {drops, any == all ? any : 0};
}

// Frames that hold other frames, or are large, gain nothing by it, and much memory would wait. Of a small pool (AF_XDP)
// receiving needs the buffers.
bool gains_by_waiting(PacketBatch& batch, size_t batches_that_wait) {
  constexpr size_t kMostBytes = 2048 * PacketBatch::kMaxPackets, kShareOfPool = 8;
  if (batch.empty() || batches_that_wait * PacketBatch::kMaxPackets >= batch[0].pool()->packet_count() / kShareOfPool) {
    return false;
  }
  size_t bytes = 0;
  for (size_t i = 0; i < batch.size(); ++i) bytes += batch[i].size();
  return bytes <= kMostBytes;
}

}  // namespace

PacketProcessor::PacketProcessor(ThreadContext& ctx, const FlowTable& flows, const PortMap& ports,
                                 LookupOptions options)
    : ctx_(ctx), flows_(flows), ports_(ports), options_(options), transmit_queues_(kMaxPorts) {
  static_assert(kBatch == 32, "a bit of an uint32_t for each packet");
  to_flush_.reserve(kMaxPorts);
  held_ports_.reserve(kMaxPorts);
  for (size_t i = 0; i < kBatch; ++i) key_pointers_[i] = &keys_[i];
}

// ---- One flow for the whole batch

void PacketProcessor::run_whole(PacketBatch& batch, Flow& flow, uint64_t bytes, uint16_t tcp_flags) {
  counters_.hits.add(batch.size());
  flow.count(ctx_.index, batch.size(), bytes, ctx_.now, tcp_flags);
  if (sampler_ != nullptr && sampler_->wanted() && flow.takes_connections_whole()) {
    const uint32_t port = flow.only_output();
    for (size_t i = 0; i < batch.size(); ++i) sampler_->look(batch[i], port, ctx_.now);
  }
  if (const uint32_t port = flow.shortcut().port_no(); port != 0) {
    output_batch(ctx_, port, batch);
  } else {
    execute_actions(ctx_, flow.actions(), batch, *this);
  }
}

// ---- Shallow

// The flow of all packets with this signature; null: there is none yet.
Flow* PacketProcessor::find_shallow(uint32_t in_port, ShallowSignature signature) {
  const uint64_t h = (signature ^ in_port) * 0x9e3779b97f4a7c15ULL;
  ShallowEntry& entry = shallow_[h >> 58];
  static_assert(std::tuple_size_v<decltype(shallow_)> == 64);
  // Read before the table is: a flow that is removed meanwhile makes the entry stale, not wrong.
  const uint64_t generation = flows_.generation();
  if (entry.signature == signature && entry.in_port == in_port && entry.generation == generation) return entry.flow;
  uint32_t visited = 0;
  Flow* flow = flows_.lookup(shallow_key(in_port, signature), &visited);
  counters_.masks_visited.add(visited);
  if (flow != nullptr) entry = {in_port, signature, flow, generation};
  return flow;
}

// False: the batch must go the long way.
bool PacketProcessor::process_shallow(PacketBatch& batch) {
  const uint32_t in_port = batch[0].in_port;
  if (!options_.shallow || !flows_.only_shallow_flows(in_port)) return false;
  uint16_t tcp_flags = 0;
  uint64_t bytes = 0, difference = 0;
  ShallowSignature signature = 0;
  const size_t size = batch.size();
  for (size_t i = 0; i < size; ++i) {
    const Packet& packet = batch[i];
    if (i + kPrefetchAhead < size) __builtin_prefetch(batch[i + kPrefetchAhead].data());
    const ShallowSignature of_this = shallow_signature(packet, &tcp_flags);
    if (i == 0) signature = of_this;
    difference |= of_this ^ signature;
    difference |= (packet.in_port ^ in_port) | packet.recirc_id | uint32_t{packet.has_tunnel};
    bytes += packet.size();
  }
  if (difference != 0 || signature == kNoSignature) return false;
  Flow* flow = find_shallow(in_port, signature);
  if (flow == nullptr) return false;
  counters_.cache_hits.add(size);
  run_whole(batch, *flow, bytes, tcp_flags);
  return true;
}

// ---- Alike

// All packets have the same headers: one key, one lookup. False: the batch must go the long way.
bool PacketProcessor::process_alike(PacketBatch& batch) {
  const size_t size = batch.size();
  if (!options_.shallow || size < 2) return false;
  // Where flows come mixed it is not tried with each batch.
  if (mixed_batches_ > kTriesOfAlike && ++mixed_batches_ % kTriesOfAlike != 0) return false;
  if (!have_same_headers(batch.raw(), size)) {
    ++mixed_batches_;
    return false;
  }
  mixed_batches_ = 0;
  Packet& first = batch[0];
  if (extract_flow_keys(batch.raw(), 1, keys_, hashes_.data(), 0, cache_.lines()) == 0) return false;
  const FlowKey& key = keys_[0];
  const uint64_t hash = hashes_[0];
  Flow* flow = options_.cache ? cache_.lookup(hash, key) : nullptr;
  if (flow != nullptr) {
    counters_.cache_hits.add(size);
  } else {
    uint32_t visited = 0;
    flow = flows_.lookup(key, &visited);
    if (flow == nullptr) return false;
    counters_.masks_visited.add(visited);
    if (options_.cache) cache_.insert(hash, flow);
  }
  for (size_t i = 1; i < size; ++i) {
    batch[i].layers = first.layers;
    batch[i].rss_hash = first.rss_hash;
  }
  run_whole(batch, *flow, size * first.size(), key.tcp_flags.host());
  return true;
}

// ---- Extract, look up

uint32_t PacketProcessor::extract(PacketBatch& batch, uint32_t sole_port) {
  const size_t size = batch.size();
  uint32_t good = extract_flow_keys(batch.raw(), size, keys_, hashes_.data(), sole_port, cache_.lines());
  for_each_bit(all_of(size) & ~good, [&](size_t i) { ctx_.drop(batch.release(i), DropReason::rx_invalid_packet); });
  return __builtin_expect(any_must_wait(), 0) ? detain(batch, good) : good;
}

// One after the other: whoever goes the way of misses makes those behind it wait.
uint32_t PacketProcessor::detain(PacketBatch& batch, uint32_t good) {
  for_each_bit(good, [&](size_t i) { prefetch_must_wait(ordering_hash(hashes_[i])); });
  uint32_t free = good;
  for_each_bit(good, [&](size_t i) {
    if (!must_wait(ordering_hash(hashes_[i]))) return;
    miss(batch.release(i), keys_[i], ordering_hash(hashes_[i]));
    free &= ~(uint32_t{1} << i);
  });
  return free;
}

void PacketProcessor::give_misses(PacketBatch& batch, uint32_t missed) {
  for_each_bit(missed, [&](size_t i) { miss(batch.release(i), keys_[i], ordering_hash(hashes_[i])); });
  end_of_misses();
}

uint32_t PacketProcessor::look_up(uint32_t known, uint32_t unknown) {
  const uint32_t hits =
      known == 0 ? 0 : cache_.confirm_batch(hashes_.data(), key_pointers_.data(), known, found_.data());
  const size_t count = count_likely_bits(hits);
  counters_.cache_hits.add(count);
  counters_.hits.add(count);
  const uint32_t uncached = unknown | (known & ~hits);
  return uncached == 0 ? hits : hits | look_up_in_table(uncached);
}

uint32_t PacketProcessor::look_up_in_table(uint32_t wanted) {
  uint32_t visited = 0;
  const uint32_t found = flows_.find_batch(key_pointers_.data(), wanted, found_.data(), &visited);
  counters_.masks_visited.add(visited);
  counters_.misses.add(static_cast<uint64_t>(std::popcount(wanted & ~found)));
  counters_.hits.add(static_cast<uint64_t>(std::popcount(found)));
  if (options_.cache) for_each_bit(found, [this](size_t i) { cache_.insert(hashes_[i], found_[i]); });
  return found;
}

// ---- Dispatch

inline PacketProcessor::TransmitQueue& PacketProcessor::transmit_queue(uint32_t port_no) {
  TransmitQueue* const queue = transmit_queues_[port_no].get();
  if (__builtin_expect(queue != nullptr && queue->listed, 1)) return *queue;
  return list_transmit_queue(port_no);
}

PacketProcessor::TransmitQueue& PacketProcessor::list_transmit_queue(uint32_t port_no) {
  std::unique_ptr<TransmitQueue>& queue = transmit_queues_[port_no];
  if (!queue) queue = std::make_unique<TransmitQueue>();
  queue->listed = true;
  to_flush_.push_back(port_no);
  return *queue;
}

// Packets of one flow tend to come together: look at the latest groups first.
void PacketProcessor::group(Packet& packet, size_t i) {
  Flow* flow = found_[i];
  size_t g = group_count_;
  while (g > 0 && groups_[g - 1].flow != flow) --g;
  if (g == 0) {
    Group& made = groups_[group_count_];
    made.flow = flow;
    made.bytes = 0;
    made.tcp_flags = 0;
    made.count = 0;
    g = ++group_count_;
  }
  Group& group = groups_[g - 1];
  group.bytes += packet.size();
  group.tcp_flags = static_cast<uint16_t>(group.tcp_flags | keys_[i].tcp_flags.host());
  group.members[group.count++] = static_cast<uint8_t>(i);
}

// The port that the flows of these packets all send to, doing nothing else. 0: there is none.
uint32_t PacketProcessor::common_output(uint32_t some) const {
  const Flow::Shortcut first = found_[static_cast<size_t>(std::countr_zero(some))]->shortcut();
  uint32_t difference = 0;
  for_each_likely_bit(some, [&](size_t i) { difference |= found_[i]->shortcut().value() ^ first.value(); });
  return difference == 0 ? first.port_no() : 0;
}

// Every packet of the batch in its flow. Neighbours of one flow are counted together.
void PacketProcessor::count_in_flows(const PacketBatch& batch) {
  const size_t size = batch.size(), index = ctx_.index;
  const Nanoseconds now = ctx_.now;
  uint64_t packets = 0, bytes = 0;
  be16 tcp_flags{};
  found_[size] = nullptr;
  for (size_t i = 0; i < size; ++i) {
    ++packets;
    bytes += batch[i].size();
    tcp_flags = tcp_flags | keys_[i].tcp_flags;
    if (found_[i] == found_[i + 1]) continue;
    found_[i]->count(index, packets, bytes, now, tcp_flags.host());
    packets = bytes = 0;
    tcp_flags = {};
  }
}

// Of packets that all go to this port, those that the kernel could forward.
void PacketProcessor::show_to_sampler(const PacketBatch& batch, uint32_t some, uint32_t port_no) {
  for_each_bit(some, [&](size_t i) {
    if (found_[i]->takes_connections_whole()) sampler_->look(batch[i], port_no, ctx_.now);
  });
}

// Packets go one of three ways: all of them to one port, all but those that their flows drop, or one by one. The
// sampler sees what is sent on each.
uint32_t PacketProcessor::dispatch(PacketBatch& batch, uint32_t found) {
  const bool sampling = sampler_ != nullptr && sampler_->wanted();
  if (const uint32_t port_no = common_output(found); port_no != 0) {
    if (__builtin_expect(sampling, 0)) show_to_sampler(batch, found, port_no);
    if (found == all_of(batch.size())) {
      count_in_flows(batch);
      output_batch(ctx_, port_no, batch);
    } else {
      send_some(batch, found, port_no);
    }
    return 0;
  }
  const Outlook outlook = look_at_shortcuts(found);
  const uint32_t others = found & ~outlook.drops;
  if (outlook.drops != 0) drop(batch, outlook.drops);
  if (outlook.port_no != 0) {
    if (__builtin_expect(sampling, 0)) show_to_sampler(batch, others, outlook.port_no);
    send_some(batch, others, outlook.port_no);
  } else if (others != 0) {
    dispatch_mixed(batch, others);
  }
  return outlook.drops;
}

// Without a branch for each packet: which of them are dropped may be what someone chose so that no branch is foreseen.
// From here on what counts is shortcuts_: those of the flows may change at any time.
PacketProcessor::Outlook PacketProcessor::look_at_shortcuts(uint32_t some) {
  // Who is not asked for is taken for dropped.
  if (some != all_of(kBatch)) shortcuts_.fill(~uint32_t{0});
  for_each_likely_bit(some, [&](size_t i) { shortcuts_[i] = found_[i]->shortcut().value(); });
  const auto [drops, port_no] = drops_and_port(shortcuts_);
  return {drops & some, port_no};
}

// Packets whose flows only drop, as shortcuts_ says. Returns how many there are.
size_t PacketProcessor::drop(PacketBatch& batch, uint32_t some) {
  std::array<Packet*, kBatch> dropped;
  size_t count = 0, booked = 0;
  uint32_t in_port = 0;
  auto reason = DropReason::of_pipeline;
  const auto book = [&] {
    if (count != booked) ctx_.ledger.drop(in_port, reason, count - booked);
    booked = count;
  };
  for_each_bit(some, [&](size_t i) {
    const Packet& packet = batch[i];
    found_[i]->count(ctx_.index, 1, packet.size(), ctx_.now, keys_[i].tcp_flags.host());
    // Nearly always all came in by one port and end for one reason.
    const DropReason of_this = Flow::Shortcut(shortcuts_[i]).reason();
    if (packet.in_port != in_port || of_this != reason) book();
    in_port = packet.in_port;
    reason = of_this;
    dropped[count++] = batch.release(i).release();
  });
  book();
  free_packets(dropped.data(), count);
  return count;
}

// Packets whose flows only send to this port.
void PacketProcessor::send_some(PacketBatch& batch, uint32_t some, uint32_t port_no) {
  PacketBatch sent;
  Flow* flow = found_[static_cast<size_t>(std::countr_zero(some))];
  uint64_t packets = 0, bytes = 0;
  be16 tcp_flags{};
  for_each_bit(some, [&](size_t i) {
    if (found_[i] != flow) {
      flow->count(ctx_.index, packets, bytes, ctx_.now, tcp_flags.host());
      flow = found_[i];
      packets = bytes = 0;
      tcp_flags = {};
    }
    ++packets;
    bytes += batch[i].size();
    tcp_flags = tcp_flags | keys_[i].tcp_flags;
    sent.add(batch.release(i));
  });
  flow->count(ctx_.index, packets, bytes, ctx_.now, tcp_flags.host());
  output_batch(ctx_, port_no, sent);
}

// Packets of flows that do different things, none of which only drops. Neighbours of one flow are counted together.
// REQUIRES: look_at_shortcuts() of them.
void PacketProcessor::dispatch_mixed(PacketBatch& batch, uint32_t some) {
  group_count_ = 0;
  Flow* counting = nullptr;
  uint64_t packets = 0, bytes = 0;
  uint16_t tcp_flags = 0;
  const auto count = [&] {
    if (counting != nullptr) counting->count(ctx_.index, packets, bytes, ctx_.now, tcp_flags);
  };
  const bool sampling = sampler_ != nullptr && sampler_->wanted();
  for_each_bit(some, [&](size_t i) {
    Flow* flow = found_[i];
    const Flow::Shortcut shortcut(shortcuts_[i]);
    if (__builtin_expect(shortcut.none(), 0)) return group(batch[i], i);
    if (flow != counting) {
      count();
      counting = flow;
      packets = bytes = 0;
      tcp_flags = 0;
    }
    ++packets;
    bytes += batch[i].size();
    tcp_flags = static_cast<uint16_t>(tcp_flags | keys_[i].tcp_flags.host());
    if (__builtin_expect(sampling, 0) && flow->takes_connections_whole()) {
      sampler_->look(batch[i], shortcut.port_no(), ctx_.now);
    }
    send_to_only_output(batch, i, shortcut.port_no());
  });
  count();
  run_groups(batch);
}

inline void PacketProcessor::send_to_only_output(PacketBatch& batch, size_t i, uint32_t port_no) {
  TransmitQueue& queue = transmit_queue(port_no);
  if (__builtin_expect(queue.batch.full(), 0)) send(port_no, queue.batch);
  queue.batch.add(batch.release(i));
}

// Of many flows, the actions are seldom in the cache: they are fetched while others still are.
void PacketProcessor::run_groups(PacketBatch& batch) {
  if (group_count_ > 1) {
    for (size_t g = 0; g < group_count_; ++g) groups_[g].flow->prefetch_actions();
    for (size_t g = 0; g < group_count_; ++g) groups_[g].flow->prefetch_first_action();
  }
  for (size_t g = 0; g < group_count_; ++g) run(batch, groups_[g]);
}

void PacketProcessor::run(PacketBatch& batch, const Group& group) {
  group.flow->count(ctx_.index, group.count, group.bytes, ctx_.now, group.tcp_flags);
  PacketBatch of_flow;
  for (size_t i = 0; i < group.count; ++i) of_flow.add(batch.release(group.members[i]));
  if (sampler_ != nullptr && sampler_->wanted() && group.flow->takes_connections_whole()) {
    const uint32_t port = group.flow->only_output();
    for (size_t i = 0; i < group.count; ++i) sampler_->look(of_flow[i], port, ctx_.now);
  }
  execute_actions(ctx_, group.flow->actions(), of_flow, *this);
}

void PacketProcessor::process(PacketBatch& batch, uint32_t sole_port) {
  process_once(batch, sole_port);
  process_recirculated();
}

void PacketProcessor::process_once(PacketBatch& batch, uint32_t sole_port) {
  if (batch.empty() || (!any_must_wait() && (process_shallow(batch) || process_alike(batch)))) return;
  const uint32_t wanted = extract(batch, sole_port);
  const auto [known, drops] =
      options_.cache ? cache_.recall_batch(hashes_.data(), wanted, found_.data()) : FlowCache::Recalled{};
  const uint32_t found = look_up(known & ~drops, wanted & ~known);
  // Before the packets that found a flow: no later packet of the same connection may overtake.
  if (__builtin_expect((found | drops) != all_of(batch.size()), 0)) give_misses(batch, wanted & ~drops & ~found);
  const uint32_t dropped = found == 0 ? 0 : dispatch(batch, found);
  if (__builtin_expect((dropped & known) != 0, 0)) remember_anew(dropped & known);
  if (drops != 0) process_drops(batch, drops);
  batch.reset_released();
}

// What the cache remembers of a packet depends on its hash alone, so none overtakes another that has the same: of one
// connection, or of the fragments between two hosts.
void PacketProcessor::process_drops(PacketBatch& batch, uint32_t recalled) {
  const uint32_t drops = cache_.confirm_drops(key_pointers_.data(), recalled, found_.data(), shortcuts_.data());
  if (drops != 0) {
    const size_t count = drop(batch, drops);
    counters_.cache_hits.add(count);
    counters_.hits.add(count);
  }
  if (__builtin_expect(drops != recalled, 0)) process_other_than_recalled(batch, recalled & ~drops);
}

// Packets that were recalled as dropped by a flow that is not theirs, or no longer drops.
void PacketProcessor::process_other_than_recalled(PacketBatch& batch, uint32_t recalled) {
  const uint32_t found = look_up(recalled, 0);
  if (__builtin_expect(found != recalled, 0)) give_misses(batch, recalled & ~found);
  const uint32_t dropped = found == 0 ? 0 : dispatch(batch, found);
  if (__builtin_expect(found != dropped, 0)) remember_anew(found & ~dropped);
}

// Packets whose flows only drop, or no longer do, when the cache had not heard of it.
void PacketProcessor::remember_anew(uint32_t some) {
  for_each_bit(some, [this](size_t i) { cache_.insert(hashes_[i], found_[i]); });
}

// A packet may recirculate again: it goes behind the others. recirc_depth bounds how often.
void PacketProcessor::process_recirculated() {
  while (recirculated_count_ != 0) {
    PacketBatch round;
    for (; recirculated_count_ != 0 && !round.full(); --recirculated_count_) {
      round.add(std::move(recirculated_[recirculated_first_]));
      recirculated_first_ = (recirculated_first_ + 1) % kMaxRecirculated;
    }
    process_once(round, 0);
  }
}

void PacketProcessor::recirculate(ThreadContext& ctx, PacketPtr packet) {
  if (recirculated_count_ == kMaxRecirculated) {
    return ctx.drop(std::move(packet), DropReason::recirculation_limit);
  }
  recirculated_[(recirculated_first_ + recirculated_count_++) % kMaxRecirculated] = std::move(packet);
}

void PacketProcessor::output(ThreadContext&, uint32_t port_no, PacketPtr packet) {
  if (port_no >= kMaxPorts) {
    ctx_.drop(std::move(packet), DropReason::invalid_port);
    return;
  }
  TransmitQueue& queue = transmit_queue(port_no);
  if (queue.batch.full()) send(port_no, queue.batch);
  queue.batch.add(std::move(packet));
}

// A batch that finds the way out free becomes its queue as it is, or leaves at once if it would fill it.
void PacketProcessor::output_batch(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch) {
  if (port_no < kMaxPorts) {
    TransmitQueue& queue = transmit_queue(port_no);
    if (queue.batch.empty()) {
      if (batch.full()) return send(port_no, batch);
      queue.batch = std::move(batch);
      return;
    }
  }
  for (size_t i = 0; i < batch.size(); ++i) output(ctx, port_no, batch.release(i));
  batch.reset_released();
}

void PacketProcessor::send(uint32_t port_no, PacketBatch& batch) {
  if (Vport* port = ports_.find(port_no)) {
    if (__builtin_expect(port->gathers(), 0)) return hold(port_no, batch);
    port->send(ctx_, batch);
    return;
  }
  for (size_t i = 0; i < batch.size(); ++i) ctx_.drop(batch.release(i), DropReason::invalid_port);
  batch.reset_released();
}

void PacketProcessor::hold(uint32_t port_no, PacketBatch& batch) {
  std::unique_ptr<Held>& of_port = transmit_queues_[port_no]->held;
  if (!of_port) of_port = std::make_unique<Held>();
  Held& held = *of_port;
  if (!std::exchange(held.listed, true)) held_ports_.push_back(port_no);
  const bool wait = gains_by_waiting(batch, held_batches_);
  held.batches[held.count++] = std::move(batch);
  ++held_batches_;
  if (!wait || held.count == kMostHeld) send_held(port_no);
  if (held_batches_ == kMostHeldOfAll) send_held();
}

// All that waits for this port; the port may stay on the list.
void PacketProcessor::send_held(uint32_t port_no) {
  Held& held = *transmit_queues_[port_no]->held;
  if (held.count == 0) return;
  const std::span<PacketBatch> batches(held.batches.data(), held.count);
  held_batches_ -= std::exchange(held.count, 0);
  Vport* port = ports_.find(port_no);
  if (port != nullptr) return port->send_all(ctx_, batches);
  for (PacketBatch& batch : batches) {
    for (size_t i = 0; i < batch.size(); ++i) ctx_.drop(batch.release(i), DropReason::invalid_port);
    batch.reset_released();
  }
}

void PacketProcessor::send_held() {
  for (const uint32_t port_no : held_ports_) {
    transmit_queues_[port_no]->held->listed = false;
    send_held(port_no);
  }
  held_ports_.clear();
  sent_at_ = ctx_.now;
}

void PacketProcessor::flush() {
  flush_queues();
  if (holds()) send_held();
}

void PacketProcessor::flush_round(bool more_wait) {
  flush_queues();
  if (!holds()) {
    rounds_held_ = 0;
    return;
  }
  // Sending takes long, and the clock is not read in every round: from its next reading on.
  if (rounds_held_++ == 0 || held_since_ == sent_at_) held_since_ = ctx_.now;
  // The rounds are counted whatever left meanwhile: whoever waits for this thread waits for one in which nothing waits.
  if (more_wait && rounds_held_ < kMostHeld && ctx_.now - held_since_ < kLongestHeld) return;
  send_held();
  rounds_held_ = 0;
}

void PacketProcessor::flush_queues() {
  for (const uint32_t port_no : to_flush_) {
    TransmitQueue& queue = *transmit_queues_[port_no];
    queue.listed = false;
    if (!queue.batch.empty()) send(port_no, queue.batch);
  }
  to_flush_.clear();
}

}  // namespace vswitch
