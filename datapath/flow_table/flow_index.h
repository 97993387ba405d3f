// FlowIndex: flows by a 32-bit hash, of one mask, or of those whose identifiers the installer chose. Private to the
// flow table.
//
// Buckets of one cache line: six flows, and a 16-bit tag each, compared all at once. Most lookups in most subtables
// find nothing (a packet has its flow in one of them), and this is what makes that cheap and, as important,
// predictable: one line is read, and no branch depends on what other flows happen to lie there. A flow that finds its
// bucket full goes into the next, and the full one is marked. A mark stays when flows go; before a quarter of the
// buckets has one, the array is made anew, so that a probe always ends.
//
// Thread safety: one writer; RCU readers at the same time, who may prepare_room(). An entry never moves inside an
// array; an array that fills up is copied, published and retired.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "datapath/base/rcu.h"
#include "datapath/flow_table/flow_table.h"

namespace vswitch {

class FlowIndex {
 public:
  FlowIndex() : array_(new Array(1)) {}
  ~FlowIndex() {
    delete array_.load(std::memory_order_relaxed);
    delete spare_.load(std::memory_order_relaxed);
  }
  FlowIndex(const FlowIndex&) = delete;
  FlowIndex& operator=(const FlowIndex&) = delete;

  template <typename Matches>
  Flow* find(uint32_t hash, Matches&& matches) const {
    const Array& array = *array_.load(std::memory_order_acquire);
    for (size_t i = hash;; ++i) {
      const Bucket& bucket = array.buckets[i & array.mask];
      const uint32_t equal = bucket.equal_tags(tag_of(hash));
      for (uint32_t left = equal & kFlowBits; left != 0; left &= left - 1) {
        Flow* flow = bucket.flows[static_cast<size_t>(std::countr_zero(left))].load(std::memory_order_acquire);
        if (flow != nullptr && matches(*flow)) return flow;
      }
      if (__builtin_expect(!bucket.overflowed(), 1)) return nullptr;
    }
  }
  void prefetch(uint32_t hash) const {
    const Array& array = *array_.load(std::memory_order_acquire);
    __builtin_prefetch(&array.buckets[hash & array.mask]);
  }
  // A flow that is likely to be the one, without looking at it: to be prefetched. Null: none in the first bucket; then
  // *nowhere tells whether that means none at all.
  Flow* peek(uint32_t hash, bool* nowhere) const {
    const Array& array = *array_.load(std::memory_order_acquire);
    const Bucket& bucket = array.buckets[hash & array.mask];
    const uint32_t equal = bucket.equal_tags(tag_of(hash)) & kFlowBits;
    *nowhere = equal == 0 && !bucket.overflowed();
    if (equal == 0) return nullptr;
    return bucket.flows[static_cast<size_t>(std::countr_zero(equal))].load(std::memory_order_acquire);
  }
  template <typename Visit>
  void for_each(Visit&& visit) const {
    const Array& array = *array_.load(std::memory_order_acquire);
    for (size_t i = 0; i <= array.mask; ++i) {
      for (const std::atomic<Flow*>& entry : array.buckets[i].flows) {
        Flow* flow = entry.load(std::memory_order_acquire);
        if (flow != nullptr && !visit(*flow)) return;
      }
    }
  }

  // RCU readers, before they become the writer. Has the next array ready when the present one is nearly full: the
  // kernel provides its memory page by page, and all who want to be the writer would wait for that. It is kept until it
  // is needed.
  void prepare_room() {
    const size_t count = array_.load(std::memory_order_acquire)->mask + 1;
    if (count < kPrepareFrom || size() < most_flows(count) / 8 * 7) return;
    if (prepared_for_.load(std::memory_order_relaxed) == count || preparing_.exchange(true, std::memory_order_acquire))
      return;
    if (prepared_for_.load(std::memory_order_relaxed) != count) {
      try {
        Array* const misfit = spare_.exchange(new Array(count * 2), std::memory_order_acq_rel);
        prepared_for_.store(count, std::memory_order_relaxed);
        delete misfit;
      } catch (const std::bad_alloc&) {
        // The writer will see whether there is memory by then.
      }
    }
    preparing_.store(false, std::memory_order_release);
  }
  // Writer.
  void insert(uint32_t hash, Flow* flow) {
    make_room();
    array_.load(std::memory_order_relaxed)->insert(hash, flow);
    size_.store(size() + 1, std::memory_order_relaxed);
  }
  void remove(uint32_t hash, const Flow* flow) {  // REQUIRES: is there
    Array& array = *array_.load(std::memory_order_relaxed);
    for (size_t i = hash;; ++i) {
      Bucket& bucket = array.buckets[i & array.mask];
      for (size_t entry = 0; entry < kFlows; ++entry) {
        if (bucket.flows[entry].load(std::memory_order_relaxed) != flow) continue;
        bucket.set_tag(entry, kNoTag);
        bucket.flows[entry].store(nullptr, std::memory_order_release);
        size_.store(size() - 1, std::memory_order_relaxed);
        return;
      }
    }
  }
  // Writer, or approximately.
  size_t size() const { return size_.load(std::memory_order_relaxed); }
  size_t memory_bytes() const {
    const auto of = [](const Array* array) {
      return array == nullptr ? 0 : sizeof(Array) + (array->mask + 1) * (sizeof(Bucket) + sizeof(Hashes));
    };
    return of(array_.load(std::memory_order_relaxed)) + of(spare_.load(std::memory_order_acquire));
  }

 private:
  static constexpr size_t kFlows = 6;
  static constexpr uint32_t kFlowBits = (1u << kFlows) - 1;
  static constexpr size_t kOverflowTag = 7;  // the place of a tag that is not 0 in a bucket that was full once
  static constexpr uint16_t kNoTag = 0;
  static constexpr size_t kPrepareFrom = 256;  // buckets: the array after a smaller one takes six page faults at most
  static size_t most_flows(size_t buckets) { return buckets * kFlows / 2; }
  static uint16_t tag_of(uint32_t hash) { return std::max<uint16_t>(static_cast<uint16_t>(hash >> 16), 1); }

  struct alignas(64) Bucket {
    // Four tags in each word: read and written as a whole, so that readers see a tag old or new.
    std::array<std::atomic<uint64_t>, 2> tags{};
    std::array<std::atomic<Flow*>, kFlows> flows{};

    // A bit for each place with this tag.
    uint32_t equal_tags(uint16_t tag) const {
      const uint64_t low = tags[0].load(std::memory_order_acquire), high = tags[1].load(std::memory_order_acquire);
#if defined(__SSE2__)
      const __m128i all = _mm_set_epi64x(static_cast<int64_t>(high), static_cast<int64_t>(low));
      const __m128i equal = _mm_cmpeq_epi16(all, _mm_set1_epi16(static_cast<int16_t>(tag)));
      return static_cast<uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())));
#else
      uint32_t bits = 0;
      for (size_t i = 0; i < 8; ++i) {
        const uint64_t word = i < 4 ? low : high;
        bits |= static_cast<uint32_t>(static_cast<uint16_t>(word >> (i % 4 * 16)) == tag) << i;
      }
      return bits;
#endif
    }
    void set_tag(size_t place, uint16_t tag) {
      std::atomic<uint64_t>& word = tags[place / 4];
      const size_t shift = place % 4 * 16;
      const uint64_t others = word.load(std::memory_order_relaxed) & ~(uint64_t{0xffff} << shift);
      word.store(others | uint64_t{tag} << shift, std::memory_order_release);
    }
    bool overflowed() const { return tags[1].load(std::memory_order_relaxed) >> 48 != 0; }
  };
  using Hashes = std::array<uint32_t, kFlows>;  // of a bucket's flows; writer only

  struct Array {
    explicit Array(size_t count)
        : mask(count - 1), buckets(std::make_unique<Bucket[]>(count)), hashes(std::make_unique<Hashes[]>(count)) {}
    void insert(uint32_t hash, Flow* flow) {
      // At most half of all places are taken, so at most half of the buckets are full: this ends.
      for (size_t i = hash;; ++i) {
        Bucket& bucket = buckets[i & mask];
        for (size_t entry = 0; entry < kFlows; ++entry) {
          if (bucket.flows[entry].load(std::memory_order_relaxed) != nullptr) continue;
          hashes[i & mask][entry] = hash;
          bucket.flows[entry].store(flow, std::memory_order_release);
          bucket.set_tag(entry, tag_of(hash));
          return;
        }
        if (!bucket.overflowed()) ++marked;
        bucket.set_tag(kOverflowTag, 1);
      }
    }
    size_t mask;
    size_t marked = 0;  // buckets that overflowed; writer only
    std::unique_ptr<Bucket[]> buckets;
    std::unique_ptr<Hashes[]> hashes;
  };

  // Of so many buckets: the one that was prepared if it fits. That of another size was for what has changed meanwhile.
  Array* new_array(size_t count) {
    Array* spare = spare_.exchange(nullptr, std::memory_order_acquire);
    if (spare != nullptr && spare->mask + 1 == count) return spare;
    delete spare;
    prepared_for_.store(0, std::memory_order_relaxed);
    return new Array(count);
  }

  // Keeps buckets half full on average: then about one in thirty has overflowed. Flows that come and go leave marks
  // behind, and a probe goes on where there is one: with too many of them the array is made anew, larger unless it is
  // so empty (under a quarter) that as many could not come about again at once.
  void make_room() {
    Array* old = array_.load(std::memory_order_relaxed);
    const size_t count = old->mask + 1;
    const bool full = size_ >= most_flows(count);
    if (!full && old->marked * 4 <= count) return;
    Array* next = new_array(full || size_ >= most_flows(count) / 2 ? count * 2 : count);
    for (size_t i = 0; i < count; ++i) {
      for (size_t entry = 0; entry < kFlows; ++entry) {
        Flow* flow = old->buckets[i].flows[entry].load(std::memory_order_relaxed);
        if (flow != nullptr) next->insert(old->hashes[i][entry], flow);
      }
    }
    array_.store(next, std::memory_order_release);
    rcu::retire_delete(old);
  }

  std::atomic<Array*> array_;
  std::atomic<size_t> size_{0};
  std::atomic<Array*> spare_{nullptr};   // empty; to come after one of prepared_for_ buckets
  std::atomic<size_t> prepared_for_{0};  // written by who prepares; by the writer, to 0
  std::atomic<bool> preparing_{false};   // somebody makes a spare: nobody else does
};

}  // namespace vswitch
