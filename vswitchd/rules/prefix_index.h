// PrefixIndex: which prefixes of one field (an address, the L4 ports) the rules of a classifier match on, and in which
// subtables.
//
// For a packet's value it answers two things at once: which subtables have a rule with a prefix that matches, so that
// the others can be skipped, and how many leading bits of the value decided that, so that a megaflow need not match
// the whole address.
//
// Prefixes lie in buckets of at most 32, searched one by one: they are next to each other in memory, which is faster
// than following the links of a tree. A bucket that is full bursts: 16 buckets, by the next four bits, take its place,
// in a node of 16 links. So a value passes about log16(n / 32) nodes and one bucket, a million random host
// addresses take about 35 MB (IPv6: 70), and the few prefixes of a small classifier one allocation.
//
// In a large index neither the last node nor the bucket is in the processor's caches, and the bucket's address is known
// only when the node has come from memory. So there a node whose buckets have many entries has them inside, each behind
// its link: a wide node. What a lookup needs of it is fetched at once.
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
  class Node;
  // A node and which children it has, a bucket and how many entries it has, or 0.
  using Link = std::atomic<uintptr_t>;

 public:
  static constexpr unsigned kBits = sizeof(Bits) * 8;

  // So many bytes of an index are more than caches hold of it: from there on nodes become wide.
  static constexpr size_t kLarge = size_t{8} << 20;

  explicit PrefixIndex(size_t large = kLarge) : large_(large) {}
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
  //
  // Where one waits(), there is time to use: search_passed() and finish() of each give the short prefixes first. Then
  // walk_on() of each, and the rest as above.
  class Lookup {
   public:
    Lookup(const PrefixIndex& index, Bits value) : value_(value), link_(index.root_.load(std::memory_order_acquire)) {}
    // One node further. False at the end, and where what comes next has just begun to come from memory.
    bool walk();
    bool waits() const { return waits_; }  // for that
    // From there to the end.
    void walk_on() {
      if (waits_) leave_wide_nodes();
    }
    // Finds those prefixes that belong to a node on the way.
    void search_passed() { search(n_passed_); }
    // Finds the others. Returns how many leading bits of the value decided: values that agree on them get the same
    // answer.
    unsigned search() {
      walk_on();
      search(n_buckets_);
      return decisive_;
    }
    // Sets the bit of each subtable that has one of the prefixes found since the last finish(). Numbers beyond the span
    // are left out.
    void finish(std::span<uint64_t> subtables);
    // As finish(); also calls visit(subtable, rule) for each prefix that one rule alone has, as far as known. Of the
    // rules in that subtable that a reader's version sees, no other one can match the value.
    template <typename Visit>
    void finish(std::span<uint64_t> subtables, Visit&& visit) {
      for (; n_finished_ < n_found_; ++n_finished_) {
        const uintptr_t set = found_[n_finished_];
        SubtableSet::or_into(set, subtables);
        if (const Rule* rule = SubtableSet::only_rule(set)) visit(SubtableSet::number_in(set), *rule);
      }
    }

   private:
    bool descend(const Link& child);
    void leave_wide_nodes();
    void search(unsigned end);  // the buckets before it
    void search(const Bucket& bucket);
    void visit(uintptr_t bucket);

    const Bits value_;
    uintptr_t link_;
    bool waits_ = false;  // for the wide node that link_ leads to
    unsigned depth_ = 0, decisive_ = 0;
    unsigned n_buckets_ = 0, n_passed_ = 0, n_searched_ = 0, n_found_ = 0, n_finished_ = 0;
    std::array<uintptr_t, kBits / 4 + 1>
        buckets_;                         // links to them: n_passed_ of nodes, and the one where the walk ends
    std::array<uintptr_t, kBits> found_;  // sets: at most one for each length
  };
  bool empty() const { return root_.load(std::memory_order_acquire) == 0; }
  size_t memory_bytes() const { return bytes_; }  // writer

 private:
  Bucket make_bucket(unsigned capacity);
  void retire_bucket(const Bucket& bucket);
  Bucket grow(const Bucket& bucket);
  struct Place;
  Place find_place(Bits prefix, unsigned length);
  Bucket make_room(const Place& place, const Bucket& bucket);
  bool needs_new_node(const Place& place, const Bucket& bucket) const;
  void add_entry(const Place& place, Bits prefix, unsigned length, uint32_t subtable, const Rule* rule);
  Node make_node(bool wide);
  void retire_node(const Node& node);
  uintptr_t burst(const Bucket& bucket, unsigned depth);
  void move_entry(Link& link, const Entry& entry);
  void rebuild(Link& link, bool wide);
  uintptr_t move_child(uintptr_t link, const Node& to, unsigned at);
  void count_in(Link& parent, Bits prefix, unsigned length, unsigned depth);
  void count_out(Link& parent, unsigned entries);
  bool unlink(std::span<Link* const> path, Bits prefix, unsigned length);
  static void destroy(uintptr_t link);

  Link root_{0};
  size_t bytes_ = 0;
  const size_t large_;
};

extern template class PrefixIndex<uint32_t>;
extern template class PrefixIndex<Uint128>;

}  // namespace vswitch
