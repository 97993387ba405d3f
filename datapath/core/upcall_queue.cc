#include "datapath/core/upcall_queue.h"

#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <new>
#include <utility>

namespace vswitch {

// In huge pages, if they can be had: whoever looks for a place looks anywhere in the table.
auto UpcallQueue::make_lines() -> std::unique_ptr<Line[], FreeLines> {
  constexpr size_t kBytes = kLines * sizeof(Line);
  auto* lines = static_cast<Line*>(::operator new(kBytes, kLinesAlignment));
  (void)madvise(lines, kBytes, MADV_HUGEPAGE);
  std::uninitialized_default_construct_n(lines, kLines);
  return std::unique_ptr<Line[], FreeLines>(lines);
}

void UpcallQueue::FreeLines::operator()(Line* lines) const { ::operator delete(lines, kLinesAlignment); }

UpcallQueue::UpcallQueue()
    : ring_(kRing),
      lines_(make_lines()),
      offered_of_port_(kMaxPorts),
      offered_of_source_(kSourcePlaces),
      done_of_port_(kMaxPorts),
      taken_of_source_(kSourcePlaces),
      by_port_(kMaxPorts) {}

// ---- Producer

// Nearly as long as the longest will do: all of a flood that is spread evenly.
bool UpcallQueue::has_most(uint32_t port, const Upcall& upcall) const {
  if (waiting() < kTotal) return false;
  const size_t place = source_place(port, upcall.source);
  const uint32_t of_source = offered_of_source_[place] - taken_of_source_[place].load(std::memory_order_relaxed);
  const uint32_t of_port = offered_of_port_[port] - done_of_port_[port].load(std::memory_order_relaxed);
  return of_source >= longest_source_.load(std::memory_order_relaxed) / 4 * 3 &&
         of_port >= longest_port_.load(std::memory_order_relaxed) / 4 * 3;
}

// As good as not of actions: what a flow sends to userspace keeps going there.
bool UpcallQueue::flow_has_most(const Upcall& upcall) {
  if (upcall.bucket == Upcall::kNoBucket) return false;
  const Places at = places_of(upcall.bucket);
  Line& line = lines_[at.line];
  const uint32_t in_first = line.places[at.first].count(), in_second = line.places[at.second].count();
  if (std::max(in_first, in_second) >= kMostOfPlace) return true;
  if (upcall.kind != Upcall::Kind::miss) return false;
  const auto bit = static_cast<uint16_t>(1u << at.first);
  const bool drains = (line.draining & bit) != 0 ? in_first != 0 : std::min(in_first, in_second) >= kMostOfFlow;
  line.draining = static_cast<uint16_t>(drains ? line.draining | bit : line.draining & ~bit);
  return drains && in_second != 0;
}

bool UpcallQueue::drains() {
  const size_t all = waiting();
  drains_ = drains_ ? all > kFew : all >= kTotal;
  return drains_;
}

bool UpcallQueue::offer(Upcall&& upcall) {
  const uint32_t port = upcall.packet->in_port % kMaxPorts;
  if (has_most(port, upcall) || flow_has_most(upcall) || !ring_.has_room()) return false;
  // Counted before it can be seen by the consumer, which counts it as done.
  count(port, upcall);
  ring_.push(std::move(upcall));
  return true;
}

void UpcallQueue::count(uint32_t port, const Upcall& upcall) {
  ++offered_of_port_[port];
  ++offered_of_source_[source_place(port, upcall.source)];
  if (upcall.in_place) ++offered_in_place_;
  if (upcall.bucket != Upcall::kNoBucket) {
    const Places at = places_of(upcall.bucket);
    Line& line = lines_[at.line];
    ++line.places[at.first].offered;
    ++line.places[at.second].offered;
    line.places[at.first].last = mark_of(upcall.bucket);
  }
  add(offered_, size_t{1}, std::memory_order_release);
}

// ---- Consumer

// Released after the packets were sent: whoever sees that none of a flow waits sends its next one after them.
void UpcallQueue::done(std::span<const Ticket> tickets) {
  size_t in_place = 0;
  for (const Ticket& ticket : tickets) {
    add(done_of_port_[ticket.in_port % kMaxPorts], 1u, std::memory_order_relaxed);
    in_place += ticket.in_place;
    if (ticket.bucket == Upcall::kNoBucket) continue;
    const Places at = places_of(ticket.bucket);
    Line& line = lines_[at.line];
    add(line.places[at.first].done, uint16_t{1}, std::memory_order_release);
    add(line.places[at.second].done, uint16_t{1}, std::memory_order_release);
  }
  if (in_place != 0) add(done_in_place_, in_place, std::memory_order_relaxed);
  add(done_, tickets.size(), std::memory_order_release);
}

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
  add(taken_of_source_[source_place(port.port_no, upcall.source)], 1u, std::memory_order_relaxed);
}

void UpcallQueue::drain_ring() {
  Upcall upcall;
  while (ring_.pop(upcall)) enqueue(std::move(upcall));
}

size_t UpcallQueue::take(std::span<Upcall> upcalls) {
  drain_ring();
  size_t taken = 0;
  for (; taken < upcalls.size() && take_next(upcalls[taken]); ++taken) {
    if (const uint32_t bucket = upcalls[taken].bucket; bucket != Upcall::kNoBucket) prefetch(bucket);  // for done()
  }
  return taken;
}

bool UpcallQueue::take_next(Upcall& upcall) {
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
