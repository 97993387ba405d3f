// PrefixTrie: which prefixes of one field (an address, the L4 ports) the rules of a classifier match on.
//
// For a packet's value it answers two things at once: which prefix lengths have a rule that matches, so that subtables
// with other lengths can be skipped, and how many leading bits of the value decided that, so that a megaflow need not
// match the whole address. A binary radix tree; 20 bytes per node, so that a million host addresses cost about 40 MB.
//
// Thread safety: one writer; lookups by RCU readers at the same time. A reader sees at least every prefix that was
// inserted before it started, and possibly others.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace vswitch {

// Memory for the nodes of several tries, addressed by 32-bit numbers; 0 is "none". A freed node is used again only
// after a grace period.
class TrieArena {
 public:
  struct Node {
    uint32_t prefix = 0;  // left-aligned, zero after n_bits; constant while reachable
    uint32_t n_bits = 0;  // 0..32; constant while reachable
    std::atomic<uint32_t> rules{0};
    std::array<std::atomic<uint32_t>, 2> child{};
  };

  TrieArena();
  ~TrieArena();
  TrieArena(const TrieArena&) = delete;
  TrieArena& operator=(const TrieArena&) = delete;

  uint32_t allocate(uint32_t prefix, uint32_t n_bits, uint32_t rules);
  void free(uint32_t index);
  Node& operator[](uint32_t index) { return *locate(index); }
  const Node& operator[](uint32_t index) const { return *locate(index); }
  size_t memory_bytes() const { return next_ * sizeof(Node); }

 private:
  // Chunk k has room for kFirst << k nodes, so 26 pointers reach every index and an empty classifier has no chunk at
  // all. A node is made when it is first allocated: the pages of a chunk that no node has needed yet take no memory.
  static constexpr uint32_t kFirst = 32;
  static constexpr size_t kChunks = 26;
  struct Recycled;
  Node* locate(uint32_t index) const;
  void add_chunk();
  void take_recycled();

  std::array<std::atomic<Node*>, kChunks> chunks_{};
  uint32_t next_ = 1, capacity_ = 0;
  std::vector<uint32_t> free_, doomed_;
  std::shared_ptr<Recycled> recycled_;
};

// Its nodes go with the arena.
class PrefixTrie {
 public:
  static constexpr size_t kMaxBits = 128;
  // Up to 128 bits, most significant first, in host-order words; the last word is always zero.
  using Value = std::array<uint32_t, kMaxBits / 32 + 1>;

  struct Answer {
    std::array<uint64_t, kMaxBits / 64> lengths{};  // bit p - 1: some rule has the value's first p bits as its prefix
    unsigned decisive_bits = 0;                     // values that agree on this many bits get the same answer
    bool has_length(unsigned p) const { return (lengths[(p - 1) / 64] >> ((p - 1) % 64) & 1) != 0; }
  };

  explicit PrefixTrie(TrieArena& arena) : arena_(&arena) {}

  // REQUIRES: 1 <= length <= kMaxBits; bits of `value` beyond `length` are ignored.
  void insert(const Value& value, unsigned length);
  void remove(const Value& value, unsigned length);  // REQUIRES: was inserted
  Answer lookup(const Value& value, unsigned n_bits) const;
  bool empty() const { return root_.load(std::memory_order_acquire) == 0; }

 private:
  using Link = std::atomic<uint32_t>;
  uint32_t make_branch(const Value& value, unsigned from, unsigned length);
  uint32_t split(uint32_t index, unsigned at, const Value& value, unsigned from, unsigned length);
  void prune(std::vector<Link*>& path);
  void merge_only_child(Link& link);

  TrieArena* arena_;
  Link root_{0};
};

}  // namespace vswitch
