// The hash tables of a classifier: RuleIndex finds a subtable's rules with a given masked hash, HashCounts says whether
// any rule has a given hash of its first stages, HashSets in which subtables.
//
// Open addressing with linear probing. Thread safety: one writer; RCU readers at the same time. An entry never moves
// inside an array; a table that grows is copied, published and the old array retired.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vswitchd/rules/rule.h"
#include "vswitchd/rules/subtable_set.h"

namespace vswitch {

// The slots of a table, a power of two, and how many they are, in one word: readers get both at once.
template <typename Slot>
class SlotArray {
 public:
  static constexpr size_t kFirstSize = 64 / sizeof(Slot) < 4 ? 4 : 64 / sizeof(Slot);  // slots lie on whole lines

  SlotArray() = default;
  static SlotArray make(size_t size);  // REQUIRES: size >= kFirstSize
  void free() const;
  void retire() const;  // after a grace period

  size_t mask() const { return (size_t{1} << (word_ & 63)) - 1; }
  size_t size() const { return mask() + 1; }
  size_t bytes() const { return size() * sizeof(Slot); }
  Slot& operator[](size_t i) const { return reinterpret_cast<Slot*>(word_ & ~uintptr_t{63})[i & mask()]; }

 private:
  uintptr_t word_ = 0;  // their address, a multiple of 64, and the logarithm of their number
};

// Rules by the hash of their masked values. Rules with the same match form a list, highest priority first.
class RuleIndex {
 public:
  RuleIndex();
  ~RuleIndex();
  RuleIndex(const RuleIndex&) = delete;
  RuleIndex& operator=(const RuleIndex&) = delete;

  void prefetch(uint32_t hash) const { __builtin_prefetch(&array_.load(std::memory_order_acquire)[hash]); }
  // Of the slot that was fetched: starts to fetch the rule that find() will most likely compare.
  void prefetch_rule(uint32_t hash) const {
    const Slot& slot = array_.load(std::memory_order_acquire)[hash];
    if (slot.hash.load(std::memory_order_relaxed) != hash) return;
    const Rule* head = slot.head.load(std::memory_order_acquire);
    if (head != nullptr && head != tombstone()) head->prefetch();
  }
  // The first rule of the list with this hash for which matches(rule) holds.
  template <typename Matches>
  Rule* find(uint32_t hash, Matches&& matches) const {
    const Array array = array_.load(std::memory_order_acquire);
    for (size_t i = hash;; ++i) {
      const Slot& slot = array[i];
      Rule* head = slot.head.load(std::memory_order_acquire);
      if (head == nullptr) return nullptr;
      if (head == tombstone() || slot.hash.load(std::memory_order_relaxed) != hash) continue;
      head->prefetch();
      if (matches(*head)) return head;
    }
  }
  static Rule* next(const Rule& rule) { return rule.next_same_match_.load(std::memory_order_acquire); }
  // Visits every rule until visit returns false; returns whether all were visited. Rules that come or go meanwhile may
  // be missed or seen.
  template <typename Visit>
  bool for_each(Visit&& visit) const {
    const Array array = array_.load(std::memory_order_acquire);
    for (size_t i = 0; i < array.size(); ++i) {
      Rule* rule = array[i].head.load(std::memory_order_acquire);
      if (rule == tombstone()) continue;
      for (; rule != nullptr; rule = next(*rule)) {
        if (!visit(*rule)) return false;
      }
    }
    return true;
  }

  // Writer. insert() puts the rule before others of its match and priority; remove() finds it by identity.
  void insert(uint32_t hash, Rule& rule);
  bool remove(uint32_t hash, const Rule& rule);
  size_t memory_bytes() const;

 private:
  struct Slot {
    std::atomic<Rule*> head{nullptr};  // null: never used; tombstone(): used before
    std::atomic<uint32_t> hash{0};
  };
  using Array = SlotArray<Slot>;
  // Never followed.
  static Rule* tombstone() { return reinterpret_cast<Rule*>(uintptr_t{alignof(Rule)}); }
  Slot* slot_of(uint32_t hash, const MiniMatch& match);
  void make_room();
  static void link_into_list(Slot& slot, Rule& rule);

  std::atomic<Array> array_;
  size_t heads_ = 0;  // slots with a list
  size_t used_ = 0;   // slots that are not null
};

// A counted set of hashes.
class HashCounts {
 public:
  HashCounts();
  ~HashCounts();
  HashCounts(const HashCounts&) = delete;
  HashCounts& operator=(const HashCounts&) = delete;

  void prefetch(uint32_t hash) const { __builtin_prefetch(&array_.load(std::memory_order_acquire)[(hash | 1) >> 1]); }
  bool contains(uint32_t hash) const;
  void add(uint32_t hash);
  void remove(uint32_t hash);  // REQUIRES: was added
  size_t memory_bytes() const;

 private:
  // Upper half: the hash with its lowest bit set, so that no slot in use is 0; lower half: how often it was added.
  using Array = SlotArray<std::atomic<uint64_t>>;
  std::atomic<uint64_t>& slot_of(uint32_t hash) const;
  void make_room();

  std::atomic<Array> array_;
  size_t live_ = 0, used_ = 0;
};

// In which subtables a hash occurs.
class HashSets {
 public:
  HashSets();
  ~HashSets();
  HashSets(const HashSets&) = delete;
  HashSets& operator=(const HashSets&) = delete;

  // Sets the bits of the subtables that have a rule with this hash. False if there is none.
  bool or_into(uint32_t hash, std::span<uint64_t> subtables) const;
  void add(uint32_t hash, uint32_t subtable);
  void remove(uint32_t hash, uint32_t subtable);  // REQUIRES: was added
  size_t memory_bytes() const;

 private:
  struct Slot {
    std::atomic<uint64_t> tagged{0};  // as in HashCounts
    SubtableSet subtables;
  };
  using Array = SlotArray<Slot>;
  Slot& slot_of(uint32_t hash) const;
  void make_room();

  std::atomic<Array> array_;
  size_t live_ = 0, used_ = 0;
};

}  // namespace vswitch
