// FlowIndex: flows by a 32-bit hash, for one mask or for all by ufid. Private to the flow table.
//
// Open addressing with linear probing; the hash stands beside the pointer, so that a flow is only touched when it is
// very likely the one. Thread safety: one writer; RCU readers at the same time. An entry never moves inside an array;
// an array that fills up is copied, published and retired.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "datapath/base/rcu.h"
#include "datapath/flow_table/flow_table.h"

namespace vswitch {

class FlowIndex {
 public:
  FlowIndex() : array_(new Array(kFirstSize)) {}
  ~FlowIndex() { delete array_.load(std::memory_order_relaxed); }
  FlowIndex(const FlowIndex&) = delete;
  FlowIndex& operator=(const FlowIndex&) = delete;

  template <typename Matches>
  Flow* find(uint32_t hash, Matches&& matches) const {
    const Array* array = array_.load(std::memory_order_acquire);
    for (size_t i = hash;; ++i) {
      const Slot& slot = array->slots[i & array->mask];
      Flow* flow = slot.flow.load(std::memory_order_acquire);
      if (flow == nullptr) return nullptr;
      if (slot.hash.load(std::memory_order_relaxed) != hash || flow == tombstone()) continue;
      if (matches(*flow)) return flow;
    }
  }
  void prefetch(uint32_t hash) const {
    const Array* array = array_.load(std::memory_order_acquire);
    __builtin_prefetch(&array->slots[hash & array->mask]);
  }
  template <typename Visit>
  void for_each(Visit&& visit) const {
    const Array* array = array_.load(std::memory_order_acquire);
    for (size_t i = 0; i <= array->mask; ++i) {
      Flow* flow = array->slots[i].flow.load(std::memory_order_acquire);
      if (flow != nullptr && flow != tombstone() && !visit(*flow)) return;
    }
  }

  // Writer.
  void insert(uint32_t hash, Flow* flow) {
    make_room();
    Array* array = array_.load(std::memory_order_relaxed);
    size_t at = hash;
    const Flow* there = array->slots[at & array->mask].flow.load(std::memory_order_relaxed);
    while (there != nullptr && there != tombstone()) {
      there = array->slots[++at & array->mask].flow.load(std::memory_order_relaxed);
    }
    if (there == nullptr) ++used_;
    array->slots[at & array->mask].hash.store(hash, std::memory_order_relaxed);
    array->slots[at & array->mask].flow.store(flow, std::memory_order_release);
    ++size_;
  }
  void remove(uint32_t hash, const Flow* flow) {  // REQUIRES: is there
    Array* array = array_.load(std::memory_order_relaxed);
    size_t at = hash;
    while (array->slots[at & array->mask].flow.load(std::memory_order_relaxed) != flow) ++at;
    array->slots[at & array->mask].flow.store(tombstone(), std::memory_order_release);
    --size_;
  }
  size_t size() const { return size_; }
  size_t memory_bytes() const {
    return sizeof(Array) + (array_.load(std::memory_order_relaxed)->mask + 1) * sizeof(Slot);
  }

 private:
  static constexpr size_t kFirstSize = 4;
  struct Slot {
    std::atomic<Flow*> flow{nullptr};  // null: never used; tombstone(): used before
    std::atomic<uint32_t> hash{0};
  };
  struct Array {
    explicit Array(size_t size) : mask(size - 1), slots(std::make_unique<Slot[]>(size)) {}
    size_t mask;
    std::unique_ptr<Slot[]> slots;
  };
  static Flow* tombstone() {
    alignas(Flow) static char never_a_flow;
    return reinterpret_cast<Flow*>(&never_a_flow);
  }

  // Keeps a quarter of the slots never used, so that every probe ends.
  void make_room() {
    Array* old = array_.load(std::memory_order_relaxed);
    if ((used_ + 1) * 4 <= (old->mask + 1) * 3) return;
    auto* next = new Array(std::bit_ceil(std::max(kFirstSize, (size_ + 1) + (size_ + 1) / 2 + 2)));
    for (size_t i = 0; i <= old->mask; ++i) {
      Flow* flow = old->slots[i].flow.load(std::memory_order_relaxed);
      if (flow == nullptr || flow == tombstone()) continue;
      const uint32_t hash = old->slots[i].hash.load(std::memory_order_relaxed);
      size_t at = hash;
      while (next->slots[at & next->mask].flow.load(std::memory_order_relaxed) != nullptr) ++at;
      next->slots[at & next->mask].hash.store(hash, std::memory_order_relaxed);
      next->slots[at & next->mask].flow.store(flow, std::memory_order_relaxed);
    }
    used_ = size_;
    array_.store(next, std::memory_order_release);
    rcu::retire_delete(old);
  }

  std::atomic<Array*> array_;
  size_t size_ = 0;  // flows
  size_t used_ = 0;  // flows and tombstones
};

}  // namespace vswitch
