// FlowCache: the exact-match cache of one forwarding thread: remembers which flow the packets of a connection (by hash)
// led to, and verifies by masked comparison with the flow's own key, so that a collision or a stale entry costs a
// lookup, never a wrong flow.
//
// Shape: buckets of one cache line, each with six entries: a 16-bit tag each, compared all at once, and the pointers.
// What finds its bucket full goes into the one beside it, so buckets can be well filled. It begins small, so that it
// stays in the processor's own caches, and grows when a share of the packets worth mentioning finds no place in it. A
// flow that is removed leaves its entry behind (flows are recycled, see Flow).
//
// What traffic can do to it: full buckets let a newcomer in only now and then, so a flood of packets that never come
// again does not push out the connections that do.
//
// Thread safety: owner thread only; the owner is an RCU reader.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "datapath/flow/extract.h"
#include "datapath/flow/flow_key.h"
#include "datapath/flow_table/flow_table.h"

namespace vswitch {

class FlowCache {
 public:
  static constexpr size_t kWays = 6;
  static constexpr size_t kFirstBuckets = 1024, kMostBuckets = 262144;
  static constexpr size_t kBatch = 32;

  FlowCache();

  // `hash` is packet.rss_hash mixed with whatever else identifies the connection (in_port, recirc_id), all bits good.
  Flow* lookup(uint64_t hash, const FlowKey& key) {
    ++asked_;
    return find(hash, key);
  }

  // For many packets: fetch the line of each hash as soon as it is known (valid until maintain()), then recall_batch()
  // and confirm_batch().
  IdentityLines lines() const {
    static_assert(sizeof(Bucket) == IdentityLines::kSize);
    return {buckets_.get(), mask_};
  }
  // What is remembered, not verified: `known`, a bit for each hash of which something is; `drops`, those of `known`
  // whose flow only dropped packets when it was inserted.
  struct Recalled {
    uint32_t known, drops;
  };
  // Sets flows[i] to the flow remembered for hashes[i], for each bit of `wanted`, and fetches it.
  Recalled recall_batch(const uint64_t hashes[], uint32_t wanted, Flow* flows[]);
  // Of the `known` ones, or some of them: the bits of those whose flow is found to be that of keys[i], with flows[i]
  // set.
  uint32_t confirm_batch(const uint64_t hashes[], const FlowKey* const keys[], uint32_t known, Flow* flows[]) const;
  // Of recall_batch()'s `drops`: the bits of those whose flow is that of keys[i], and still only drops as shortcuts[i]
  // then says. The others are for confirm_batch().
  uint32_t confirm_drops(const FlowKey* const keys[], uint32_t drops, Flow* const flows[], uint32_t shortcuts[]) const;

  // Replaces what was remembered for the hash.
  void insert(uint64_t hash, Flow* flow);

  // To be called by the owner where it holds no packets: grows the cache if that was wanted (an allocation). What it
  // remembered is forgotten.
  void maintain() {
    if (__builtin_expect(refused_ > (mask_ + 1), 0)) review();
  }
  size_t buckets() const { return mask_ + 1; }
  uint64_t evictions() const { return evictions_.load(std::memory_order_relaxed); }  // any thread

 private:
  static constexpr size_t kTags = 8;  // of which kWays are used: one vector register
  // A flow, and whether it only dropped packets when it was inserted, in the lowest bit of its address.
  class Entry {
   public:
    Entry() = default;  // Entry{} is free
    explicit Entry(Flow* flow) : value_(reinterpret_cast<uintptr_t>(flow) | uintptr_t{flow->shortcut().drops()}) {}
    bool free() const { return value_ == 0; }
    Flow* flow() const { return reinterpret_cast<Flow*>(value_ & ~kDrops); }
    bool drops() const { return (value_ & kDrops) != 0; }
    uintptr_t value() const { return value_; }

    static constexpr uintptr_t kDrops = 1;

   private:
    uintptr_t value_;
  };
  struct alignas(64) Bucket {
    std::array<uint16_t, kTags> tags{};
    std::array<Entry, kWays> entries{};
  };
  static uint16_t tag_of(uint64_t hash) { return static_cast<uint16_t>(hash >> 48); }
  // A bit per entry with this tag.
  static uint32_t candidates(const Bucket& bucket, uint16_t tag);
  // The bucket that takes what does not fit into this one: beside it in memory.
  static size_t neighbour(size_t bucket) { return bucket ^ 1; }
  Flow* find(uint64_t hash, const FlowKey& key) const;
  static Flow* find_in(const Bucket& bucket, uint16_t tag, const FlowKey& key);
  static Entry first_with_tag(const Bucket& bucket, uint16_t tag);
  static uint32_t drops_among(const std::array<Entry, kBatch>& entries);
  static size_t free_place(const Bucket& bucket, uint16_t tag);
  void review();
  void grow();

  std::unique_ptr<Bucket[]> buckets_;
  size_t mask_;
  // Since the last review: newcomers that found no place, and how often one was looked for.
  size_t refused_ = 0, asked_ = 0;
  std::atomic<uint64_t> evictions_{0};
  uint32_t turn_ = 0;
};

}  // namespace vswitch
