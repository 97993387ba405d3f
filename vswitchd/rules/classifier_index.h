// The two hash tables of a classifier's subtable: RuleIndex finds the rules with a given masked hash, HashCounts says
// whether any rule has a given hash of its first stages.
//
// Open addressing with linear probing. Thread safety: one writer; RCU readers at the same time. An entry never moves
// inside an array; a table that grows is copied, published and the old array retired.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "vswitchd/rules/rule.h"

namespace vswitch {

// Rules by the hash of their masked values. Rules with the same match form a list, highest priority first.
class RuleIndex {
 public:
  RuleIndex();
  ~RuleIndex();
  RuleIndex(const RuleIndex&) = delete;
  RuleIndex& operator=(const RuleIndex&) = delete;

  // The first rule of the list with this hash for which matches(rule) holds.
  template <typename Matches>
  Rule* find(uint32_t hash, Matches&& matches) const {
    const Array* array = array_.load(std::memory_order_acquire);
    for (size_t i = hash;; ++i) {
      const Slot& slot = array->slots[i & array->mask];
      Rule* head = slot.head.load(std::memory_order_acquire);
      if (head == nullptr) return nullptr;
      if (head == tombstone() || slot.hash.load(std::memory_order_relaxed) != hash) continue;
      if (matches(*head)) return head;
    }
  }
  static Rule* next(const Rule& rule) { return rule.next_same_match_.load(std::memory_order_acquire); }
  // Visits every rule until visit returns false; returns whether all were visited. Rules that come or go meanwhile may
  // be missed or seen.
  template <typename Visit>
  bool for_each(Visit&& visit) const {
    const Array* array = array_.load(std::memory_order_acquire);
    for (size_t i = 0; i <= array->mask; ++i) {
      Rule* rule = array->slots[i].head.load(std::memory_order_acquire);
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
  struct Array {
    explicit Array(size_t size) : mask(size - 1), slots(std::make_unique<Slot[]>(size)) {}
    size_t mask;
    std::unique_ptr<Slot[]> slots;
  };
  static Rule* tombstone();
  Slot* slot_of(uint32_t hash, const MiniMatch& match);
  void make_room();
  static void link_into_list(Slot& slot, Rule& rule);

  std::atomic<Array*> array_;
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

  bool contains(uint32_t hash) const;
  void add(uint32_t hash);
  void remove(uint32_t hash);  // REQUIRES: was added
  size_t memory_bytes() const;

 private:
  // Upper half: the hash with its lowest bit set, so that no slot in use is 0; lower half: how often it was added.
  struct Array {
    explicit Array(size_t size) : mask(size - 1), slots(std::make_unique<std::atomic<uint64_t>[]>(size)) {}
    size_t mask;
    std::unique_ptr<std::atomic<uint64_t>[]> slots;
  };
  std::atomic<uint64_t>& slot_of(uint32_t hash) const;
  void make_room();

  std::atomic<Array*> array_;
  size_t live_ = 0, used_ = 0;
};

}  // namespace vswitch
