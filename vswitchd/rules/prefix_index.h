// PrefixIndex: which prefixes of one field (an address, the L4 ports) the rules of a classifier match on, and in which
// subtables.
//
// For a packet's value it answers two things at once: which subtables have a rule with a prefix that matches, so that
// the others can be skipped, and how many leading bits of the value decided that, so that a megaflow need not match
// the whole address.
//
// Prefixes lie in buckets of at most 32, searched one by one: they are next to each other in memory, which is faster
// than following the links of a tree. A bucket that is full bursts: 16 buckets, by the next four bits, take its place.
// So a value passes about log16(n / 32) small nodes and one bucket, a million host addresses take about 25 MB, and the
// few prefixes of a small classifier one allocation.
//
// Thread safety: one writer; lookups by RCU readers at the same time. A reader sees at least every prefix that was
// inserted before it started, and possibly others.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vswitchd/rules/subtable_set.h"

namespace vswitch {

__extension__ using Uint128 = unsigned __int128;

// Bits: uint32_t or Uint128, the value with its first bit in the highest place.
template <typename Bits>
class PrefixIndex {
  struct Entry;
  struct Bucket;
  struct Node;
  // A node, a bucket with how many entries it has, or 0.
  using Link = std::atomic<uintptr_t>;

 public:
  static constexpr unsigned kBits = sizeof(Bits) * 8;

  PrefixIndex() = default;
  ~PrefixIndex();  // frees at once: no reader may be left
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  // REQUIRES: 1 <= length <= kBits; bits of `value` beyond `length` are ignored.
  // `rule`: whose prefix it is; lookups then get to it without its subtable where no other rule has the prefix.
  void insert(Bits value, unsigned length, uint32_t subtable, const Rule* rule = nullptr);
  void remove(Bits value, unsigned length, uint32_t subtable);  // REQUIRES: was inserted
  // Starts to fetch what insert() of such a prefix will look at.
  void prefetch(Bits value, unsigned length) const;

  // A lookup in steps, so that lookups of several fields wait for memory at the same time: walk() of each until it
  // returns false, then search() of each, then finish() of each.
  class Lookup {
   public:
    Lookup() = default;
    Lookup(const PrefixIndex& index, Bits value) : value_(value), link_(index.root_.load(std::memory_order_acquire)) {}
    // One node further. False at the end.
    bool walk();
    // Finds the prefixes. Returns how many leading bits of the value decided: values that agree on them get the same
    // answer.
    unsigned search();
    // Sets the bit of each subtable that has one of the prefixes found. Numbers beyond the span are left out.
    void finish(std::span<uint64_t> subtables) const;
    // As finish(); also calls visit(subtable, rule) for each prefix that one rule alone has, as far as known. Of the
    // rules in that subtable that a reader's version sees, no other one can match the value.
    template <typename Visit>
    void finish(std::span<uint64_t> subtables, Visit&& visit) const {
      for (unsigned i = 0; i < n_found_; ++i) {
        SubtableSet::or_into(found_[i], subtables);
        if (const Rule* rule = SubtableSet::only_rule(found_[i])) visit(SubtableSet::number_in(found_[i]), *rule);
      }
    }

   private:
    void search(const Bucket& bucket);
    void visit(uintptr_t bucket);

    Bits value_ = 0;
    uintptr_t link_ = 0;
    unsigned depth_ = 0, decisive_ = 0, n_buckets_ = 0, n_found_ = 0;
    std::array<uintptr_t, kBits / 4 + 1> buckets_;  // links to them
    std::array<uintptr_t, kBits> found_;            // sets: at most one for each length
  };
  bool empty() const { return root_.load(std::memory_order_acquire) == 0; }
  size_t memory_bytes() const { return bytes_; }  // writer

 private:
  Bucket make_bucket(unsigned capacity);
  void retire_bucket(const Bucket& bucket);
  Bucket grow(const Bucket& bucket);
  void add_entry(Link& link, Bits prefix, unsigned length, uint32_t subtable, const Rule* rule);
  Node* burst(const Bucket& bucket, unsigned depth);
  void move_entry(Link& link, const Entry& entry);
  static Link& next_link(Node& node, Bits value, unsigned length, unsigned depth);
  static unsigned bits_to_siblings(const Node& node, unsigned taken);
  static void destroy(uintptr_t link);

  Link root_{0};
  size_t bytes_ = 0;
};

extern template class PrefixIndex<uint32_t>;
extern template class PrefixIndex<Uint128>;

}  // namespace vswitch
