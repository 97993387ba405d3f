#include "datapath/core/upcall_queue.h"

#include <algorithm>
#include <utility>

namespace vswitch {

UpcallQueue::UpcallQueue()
    : ring_(kRing),
      in_bucket_(kBucketPlaces),
      last_(kBucketPlaces),
      draining_(kBucketPlaces),
      of_port_(kMaxPorts),
      of_source_(kSourcePlaces),
      by_port_(kMaxPorts) {}

// ---- Producer

// Nearly as long as the longest will do: all of a flood that is spread evenly.
bool UpcallQueue::has_most(uint32_t port, const Upcall& upcall) const {
  if (waiting_.load(std::memory_order_relaxed) < kTotal) return false;
  const uint32_t length = of_source(port, upcall.source).load(std::memory_order_relaxed);
  return length >= longest_source_.load(std::memory_order_relaxed) / 4 * 3 &&
         of_port_[port].load(std::memory_order_relaxed) >= longest_port_.load(std::memory_order_relaxed) / 4 * 3;
}

// Not of actions: what a flow sends to userspace keeps going there.
bool UpcallQueue::flow_has_most(const Upcall& upcall) {
  if (upcall.kind != Upcall::Kind::miss || upcall.bucket == Upcall::kNoBucket) return false;
  const uint32_t in_first = in_bucket_[first_place(upcall.bucket)].load(std::memory_order_acquire);
  const uint32_t in_second = in_bucket_[second_place(upcall.bucket)].load(std::memory_order_acquire);
  std::vector<bool>::reference draining = draining_[first_place(upcall.bucket)];
  draining = draining ? in_first != 0 : std::min(in_first, in_second) >= kMostOfFlow;
  return draining && in_second != 0;
}

bool UpcallQueue::drains() {
  const size_t waiting = waiting_.load(std::memory_order_relaxed);
  drains_ = drains_ ? waiting > kFew : waiting >= kTotal;
  return drains_;
}

bool UpcallQueue::offer(Upcall&& upcall) {
  const uint32_t port = upcall.packet->in_port % kMaxPorts;
  const uint32_t bucket = upcall.bucket, source = upcall.source;
  const bool in_place = upcall.in_place;
  if (has_most(port, upcall) || flow_has_most(upcall)) return false;
  // Counted before it can be seen by the consumer, which counts down.
  count(port, upcall);
  if (ring_.push(std::move(upcall))) {
    if (bucket != Upcall::kNoBucket) last_[first_place(bucket)] = bucket;
    return true;
  }
  of_source(port, source).fetch_sub(1, std::memory_order_relaxed);
  done(port, bucket, in_place);
  return false;
}

void UpcallQueue::count(uint32_t port, const Upcall& upcall) {
  of_port_[port].fetch_add(1, std::memory_order_relaxed);
  of_source(port, upcall.source).fetch_add(1, std::memory_order_relaxed);
  if (upcall.in_place) in_place_.fetch_add(1, std::memory_order_relaxed);
  if (upcall.bucket != Upcall::kNoBucket) {
    in_bucket_[first_place(upcall.bucket)].fetch_add(1, std::memory_order_release);
    in_bucket_[second_place(upcall.bucket)].fetch_add(1, std::memory_order_release);
  }
  waiting_.fetch_add(1, std::memory_order_release);
}

void UpcallQueue::done(uint32_t in_port, uint32_t bucket, bool in_place) {
  of_port_[in_port % kMaxPorts].fetch_sub(1, std::memory_order_relaxed);
  if (in_place) in_place_.fetch_sub(1, std::memory_order_relaxed);
  if (bucket != Upcall::kNoBucket) {
    in_bucket_[first_place(bucket)].fetch_sub(1, std::memory_order_release);
    in_bucket_[second_place(bucket)].fetch_sub(1, std::memory_order_release);
  }
  waiting_.fetch_sub(1, std::memory_order_release);
}

// ---- Consumer

UpcallQueue::PortQueue& UpcallQueue::port_queue(uint32_t port_no) {
  std::unique_ptr<PortQueue>& queue = by_port_[port_no];
  if (queue == nullptr) {
    queue = std::make_unique<PortQueue>();
    queue->port_no = port_no;
  }
  return *queue;
}

void UpcallQueue::enqueue(Upcall&& upcall) {
  PortQueue& port = port_queue(upcall.packet->in_port % kMaxPorts);
  const uint32_t number = upcall.source % kSources;
  SubQueue& source = port.sources[number];
  uint32_t node = free_node_;
  if (node == kNone) {
    node = static_cast<uint32_t>(nodes_.size());
    nodes_.emplace_back();
  } else {
    free_node_ = nodes_[node].next;
  }
  nodes_[node].upcall = std::move(upcall);
  nodes_[node].next = kNone;
  (source.length == 0 ? source.head : nodes_[source.tail].next) = node;
  source.tail = node;
  ++queued_;
  ++source.length;
  ++port.length;
  if (!source.listed) list(port, number);
  if (!std::exchange(port.listed, true)) turns_.push_back(&port);
}

void UpcallQueue::list(PortQueue& port, uint32_t source) {
  port.sources[source].next = kNone;
  port.sources[source].listed = true;
  (port.first == kNone ? port.first : port.sources[port.last].next) = source;
  port.last = source;
}

// The oldest of a sub-queue. The caller looks after turns.
void UpcallQueue::dequeue(PortQueue& port, SubQueue& source, Upcall& upcall) {
  const uint32_t node = source.head;
  upcall = std::move(nodes_[node].upcall);
  source.head = nodes_[node].next;
  nodes_[node].next = free_node_;
  free_node_ = node;
  --source.length;
  --port.length;
  --queued_;
  of_source(port.port_no, upcall.source).fetch_sub(1, std::memory_order_relaxed);
}

void UpcallQueue::drain_ring() {
  Upcall upcall;
  while (ring_.pop(upcall)) enqueue(std::move(upcall));
}

bool UpcallQueue::take(Upcall& upcall) {
  drain_ring();
  while (!turns_.empty()) {
    PortQueue& port = *turns_.front();
    turns_.pop_front();
    const bool any = take_from(port, upcall);
    port.listed = port.length != 0;
    if (port.listed) turns_.push_back(&port);
    if (any) return true;
  }
  return false;
}

// Sub-queues whose last was taken as surplus still have their turn, and pass it on.
bool UpcallQueue::take_from(PortQueue& port, Upcall& upcall) {
  while (port.first != kNone) {
    const uint32_t number = port.first;
    SubQueue& source = port.sources[number];
    port.first = source.next;
    source.listed = false;
    if (source.length == 0) continue;
    dequeue(port, source, upcall);
    if (source.length != 0) list(port, number);
    return true;
  }
  return false;
}

void UpcallQueue::handled(size_t misses, size_t known) {
  sampled_ += misses;
  sampled_known_ += known;
  if (sampled_ < kSample) return;
  mostly_known_.store(sampled_known_ > sampled_ / 2, std::memory_order_relaxed);
  sampled_ = sampled_known_ = 0;
}

bool UpcallQueue::take_surplus(Upcall& upcall) {
  drain_ring();
  if (queued_ <= kTotal) {
    if (queued_ < kTotal - kTotal / 16) forget_longest();
    return false;
  }
  // An eighth of the longest goes before the longest is looked for again.
  if (victim_ == nullptr || victim_->sources[victim_source_].length <= victim_until_) find_longest();
  dequeue(*victim_, victim_->sources[victim_source_], upcall);
  return true;
}

void UpcallQueue::find_longest() {
  victim_ = *std::max_element(turns_.begin(), turns_.end(),
                              [](const PortQueue* a, const PortQueue* b) { return a->length < b->length; });
  const auto longest = std::max_element(victim_->sources.begin(), victim_->sources.end(),
                                        [](const SubQueue& a, const SubQueue& b) { return a.length < b.length; });
  victim_source_ = static_cast<uint32_t>(longest - victim_->sources.begin());
  victim_until_ = std::max(1u, longest->length - longest->length / 8);
  longest_port_.store(victim_->length, std::memory_order_relaxed);
  longest_source_.store(longest->length, std::memory_order_relaxed);
}

void UpcallQueue::forget_longest() {
  if (victim_ == nullptr) return;
  victim_ = nullptr;
  longest_port_.store(kNone, std::memory_order_relaxed);
  longest_source_.store(kNone, std::memory_order_relaxed);
}

}  // namespace vswitch
