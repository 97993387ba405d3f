// SpscRing: a bounded queue between one producer thread and one consumer thread; no locks, no allocation after
// construction.
//
// Capacity is rounded up to a power of two. push() and pop() are wait-free. head_ is written by the consumer, tail_ by
// the producer; each keeps a copy of the other's index so that shared cache lines are read only when the ring looks
// full or empty.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <utility>
#include <vector>

namespace vswitch {

template <typename T>
class SpscRing {
 public:
  explicit SpscRing(size_t capacity) : slots_(std::bit_ceil(capacity)), mask_(slots_.size() - 1) {}

  // Producer. Whether push() would succeed, which it does then until the producer has pushed something.
  bool has_room() {
    const size_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_seen_ > mask_) head_seen_ = head_.load(std::memory_order_acquire);
    return tail - head_seen_ <= mask_;
  }

  // Producer. False when full; `value` is then untouched.
  bool push(T&& value) {
    if (!has_room()) return false;
    const size_t tail = tail_.load(std::memory_order_relaxed);
    slots_[tail & mask_] = std::move(value);
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }

  // Consumer. False when empty.
  bool pop(T& value) {
    const size_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_seen_) {
      tail_seen_ = tail_.load(std::memory_order_acquire);
      if (head == tail_seen_) return false;
    }
    value = std::move(slots_[head & mask_]);
    head_.store(head + 1, std::memory_order_release);
    return true;
  }

  // Any thread; a moment's truth.
  bool empty() const { return head_.load(std::memory_order_acquire) == tail_.load(std::memory_order_acquire); }

 private:
  std::vector<T> slots_;
  const size_t mask_;
  alignas(64) std::atomic<size_t> tail_{0};
  size_t head_seen_ = 0;  // producer's
  alignas(64) std::atomic<size_t> head_{0};
  size_t tail_seen_ = 0;  // consumer's
};

}  // namespace vswitch
