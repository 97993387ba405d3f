#include "datapath/core/upcall_queue.h"

namespace vswitch {

UpcallQueue::UpcallQueue() : ring_(kTotal), in_bucket_(kBuckets), of_port_(kMaxPorts), by_port_(kMaxPorts) {}

bool UpcallQueue::offer(Upcall&& upcall) {
  const uint32_t port = upcall.packet->in_port % kMaxPorts;
  const uint32_t bucket = upcall.bucket;
  if (waiting_.load(std::memory_order_relaxed) >= kTotal) return false;
  if (of_port_[port].load(std::memory_order_relaxed) >= kPerPort) return false;
  // Counted before it can be seen by the consumer, which counts down.
  of_port_[port].fetch_add(1, std::memory_order_relaxed);
  if (bucket != Upcall::kNoBucket) in_bucket_[bucket].fetch_add(1, std::memory_order_release);
  waiting_.fetch_add(1, std::memory_order_release);
  if (ring_.push(std::move(upcall))) return true;
  done(port, bucket);
  return false;
}

void UpcallQueue::drain_ring() {
  Upcall upcall;
  while (ring_.pop(upcall)) {
    const uint32_t port = upcall.packet->in_port % kMaxPorts;
    PortQueue*& queue = by_port_[port];
    if (queue == nullptr) {
      turns_.push_back(std::make_unique<PortQueue>(PortQueue{port, {}}));
      queue = turns_.back().get();
    }
    queue->waiting.push_back(std::move(upcall));
  }
}

bool UpcallQueue::take(Upcall& upcall) {
  drain_ring();
  if (turns_.empty()) return false;
  std::unique_ptr<PortQueue> queue = std::move(turns_.front());
  turns_.pop_front();
  upcall = std::move(queue->waiting.front());
  queue->waiting.pop_front();
  if (queue->waiting.empty()) {
    by_port_[queue->port_no] = nullptr;
  } else {
    turns_.push_back(std::move(queue));
  }
  return true;
}

void UpcallQueue::done(uint32_t in_port, uint32_t bucket) {
  of_port_[in_port % kMaxPorts].fetch_sub(1, std::memory_order_relaxed);
  if (bucket != Upcall::kNoBucket) in_bucket_[bucket].fetch_sub(1, std::memory_order_release);
  waiting_.fetch_sub(1, std::memory_order_release);
}

}  // namespace vswitch
