#include "datapath/flow_table/flow_cache.h"

#include <bit>
#include <new>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "datapath/base/batch_bits.h"
#include "datapath/flow_table/flow_implementation.h"

namespace vswitch {
namespace {

// One newcomer in so many gets into a full bucket.
constexpr uint32_t kNewcomers = 8;
// The cache grows when more than one packet in so many finds no place.
constexpr size_t kTolerated = 1024;

inline bool is_flow_of(const Flow& flow, const FlowKey& key) {
  return !flow.dead() &&
         FlowImplementation::pattern(flow).matches(key, FlowImplementation::hot(flow), FlowImplementation::rest(flow));
}

}  // namespace

FlowCache::FlowCache() : buckets_(std::make_unique<Bucket[]>(kFirstBuckets)), mask_(kFirstBuckets - 1) {}

inline uint32_t FlowCache::candidates(const Bucket& bucket, uint16_t tag) {
  constexpr uint32_t kUsed = (1u << kWays) - 1;
#if defined(__SSE2__)
  const __m128i tags = _mm_load_si128(reinterpret_cast<const __m128i*>(bucket.tags.data()));
  const __m128i equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16(static_cast<int16_t>(tag)));
  return static_cast<uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128()))) & kUsed;
#else
  uint32_t found = 0;
  for (size_t i = 0; i < kWays; ++i) found |= static_cast<uint32_t>(bucket.tags[i] == tag) << i;
  return found & kUsed;
#endif
}

Flow* FlowCache::find_in(const Bucket& bucket, uint16_t tag, const FlowKey& key) {
  for (uint32_t left = candidates(bucket, tag); left != 0; left &= left - 1) {
    const Entry entry = bucket.entries[static_cast<size_t>(std::countr_zero(left))];
    if (!entry.free() && is_flow_of(*entry.flow(), key)) return entry.flow();
  }
  return nullptr;
}

Flow* FlowCache::find(uint64_t hash, const FlowKey& key) const {
  const size_t at = hash & mask_;
  Flow* const flow = find_in(buckets_[at], tag_of(hash), key);
  return flow != nullptr ? flow : find_in(buckets_[neighbour(at)], tag_of(hash), key);
}

// Free: there is none.
inline FlowCache::Entry FlowCache::first_with_tag(const Bucket& bucket, uint16_t tag) {
  const uint32_t found = candidates(bucket, tag);
  return found == 0 ? Entry{} : bucket.entries[static_cast<size_t>(std::countr_zero(found))];
}

// A bit for each entry that drops; anything for those that are not set, as recall_batch() asks for no more.
inline uint32_t FlowCache::drops_among(const std::array<Entry, kBatch>& entries) {
  uint32_t drops = 0;
#if defined(__SSE2__)
  static_assert(sizeof(Entry) == 8 && Entry::kDrops == 1, "a lane each, whose lowest bit becomes its sign");
  for (size_t i = 0; i < kBatch; i += 2) {
    const __m128i pair = _mm_loadu_si128(reinterpret_cast<const __m128i*>(&entries[i]));
    drops |= static_cast<uint32_t>(_mm_movemask_pd(_mm_castsi128_pd(_mm_slli_epi64(pair, 63)))) << i;
  }
#else
  for (size_t i = 0; i < kBatch; ++i) drops |= uint32_t{entries[i].drops()} << i;
#endif
  return drops;
}

FlowCache::Recalled FlowCache::recall_batch(const uint64_t hashes[], uint32_t wanted, Flow* flows[]) {
  asked_ += count_likely_bits(wanted);
  std::array<Entry, kBatch> entries;  // set for those that are known
  uintptr_t any = 0;
  // Bits are taken away where something is missing, which is rare.
  uint32_t known = wanted;
  for_each_likely_bit(
      wanted, [&](size_t i) __attribute__((always_inline)) {
        const size_t at = hashes[i] & mask_;
        Entry entry = first_with_tag(buckets_[at], tag_of(hashes[i]));
        if (__builtin_expect(entry.free(), 0)) {
          entry = first_with_tag(buckets_[neighbour(at)], tag_of(hashes[i]));
          if (entry.free()) {
            known &= ~(uint32_t{1} << i);
            return;
          }
        }
        entries[i] = entry;
        any |= entry.value();
        flows[i] = entry.flow();
        flows[i]->prefetch();
      });
  return {known, __builtin_expect((any & Entry::kDrops) != 0, 0) ? drops_among(entries) & known : 0};
}

uint32_t FlowCache::confirm_batch(const uint64_t hashes[], const FlowKey* const keys[], uint32_t known,
                                  Flow* flows[]) const {
  uint32_t hits = known;
  for_each_likely_bit(
      known, [&](size_t i) __attribute__((always_inline)) {
        if (__builtin_expect(is_flow_of(*flows[i], *keys[i]), 1)) return;
        // Rare: two connections in one bucket with one tag, or a flow that is gone.
        flows[i] = find(hashes[i], *keys[i]);
        if (flows[i] == nullptr) hits &= ~(uint32_t{1} << i);
      });
  return hits;
}

uint32_t FlowCache::confirm_drops(const FlowKey* const keys[], uint32_t drops, Flow* const flows[],
                                  uint32_t shortcuts[]) const {
  uint32_t confirmed = 0;
  for_each_bit(drops, [&](size_t i) {
    if (!is_flow_of(*flows[i], *keys[i])) return;
    const Flow::Shortcut shortcut = flows[i]->shortcut();
    shortcuts[i] = shortcut.value();
    confirmed |= uint32_t{shortcut.drops()} << i;
  });
  return confirmed;
}

// Where an entry with this tag may go in the bucket without any other being lost; kWays: nowhere. One with the same tag
// is most likely of the same connection, which has another flow now.
inline size_t FlowCache::free_place(const Bucket& bucket, uint16_t tag) {
  size_t at = 0;
  while (at < kWays && !bucket.entries[at].free() && bucket.tags[at] != tag) ++at;
  return at;
}

void FlowCache::insert(uint64_t hash, Flow* flow) {
  const uint16_t tag = tag_of(hash);
  Bucket* bucket = &buckets_[hash & mask_];
  size_t at = free_place(*bucket, tag);
  if (at == kWays) {
    Bucket* const other = &buckets_[neighbour(hash & mask_)];
    if (const size_t there = free_place(*other, tag); there != kWays) {
      bucket = other;
      at = there;
    }
  }
  // Last, as it looks at lines of flows that nobody else needs.
  for (size_t i = 0; i < kWays && at == kWays; ++i) {
    if (bucket->entries[i].flow()->dead()) at = i;
  }
  if (at == kWays) {
    ++refused_;
    if (++turn_ % kNewcomers != 0) return;
    at = turn_ / kNewcomers % kWays;
    evictions_.store(evictions_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  bucket->tags[at] = tag;
  bucket->entries[at] = Entry(flow);
}

// A few connections that find no place cost less than a table twice the size, which takes the room of other things in
// the processor's caches.
void FlowCache::review() {
  const bool too_many = refused_ > asked_ / kTolerated;
  refused_ = asked_ = 0;
  if (too_many) grow();
}

void FlowCache::grow() {
  if (buckets() >= kMostBuckets) return;
  const size_t count = buckets() * 2;
  std::unique_ptr<Bucket[]> buckets(new (std::nothrow) Bucket[count]);
  if (buckets == nullptr) return;  // it goes on as it is
  buckets_ = std::move(buckets);
  mask_ = count - 1;
}

}  // namespace vswitch
