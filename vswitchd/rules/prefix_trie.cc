#include "vswitchd/rules/prefix_trie.h"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "datapath/base/rcu.h"

namespace vswitch {
namespace {

constexpr size_t kRetireBatch = 1024;

uint32_t bits_at(const PrefixTrie::Value& value, unsigned from) {
  const unsigned word = from / 32, shift = from % 32;
  if (word + 1 >= value.size()) return 0;
  return shift == 0 ? value[word] : value[word] << shift | value[word + 1] >> (32 - shift);
}

unsigned bit_at(const PrefixTrie::Value& value, unsigned at) { return value[at / 32] >> (31 - at % 32) & 1; }

uint32_t keep_leading(uint32_t bits, unsigned n) { return n == 0 ? 0 : bits & (~uint32_t{0} << (32 - n)); }

unsigned equal_leading(uint32_t a, uint32_t b, unsigned limit) {
  return std::min(static_cast<unsigned>(std::countl_zero(a ^ b)), limit);
}

}  // namespace

// Filled by RCU callbacks; outlives the arena if it must.
struct TrieArena::Recycled {
  std::mutex mutex;
  std::vector<uint32_t> nodes;
  std::atomic<bool> any{false};
};

TrieArena::TrieArena() : recycled_(std::make_shared<Recycled>()) {}

TrieArena::~TrieArena() {
  for (auto& chunk : chunks_) ::operator delete(chunk.load(std::memory_order_relaxed));
}

TrieArena::Node* TrieArena::locate(uint32_t index) const {
  const auto chunk = static_cast<unsigned>(std::bit_width(index / kFirst + 1)) - 1;
  return &chunks_[chunk].load(std::memory_order_acquire)[index - kFirst * ((uint32_t{1} << chunk) - 1)];
}

void TrieArena::add_chunk() {
  const auto chunk = static_cast<unsigned>(std::bit_width(capacity_ / kFirst + 1)) - 1;
  const uint32_t nodes = kFirst << chunk;
  chunks_[chunk].store(static_cast<Node*>(::operator new (size_t{nodes} * sizeof(Node))), std::memory_order_release);
  capacity_ += nodes;
}

void TrieArena::take_recycled() {
  if (!recycled_->any.load(std::memory_order_acquire)) return;
  std::lock_guard lock(recycled_->mutex);
  free_.insert(free_.end(), recycled_->nodes.begin(), recycled_->nodes.end());
  recycled_->nodes.clear();
  recycled_->any.store(false, std::memory_order_release);
}

uint32_t TrieArena::allocate(uint32_t prefix, uint32_t n_bits, uint32_t rules) {
  if (free_.empty()) take_recycled();
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    index = next_++;
    if (index >= capacity_) add_chunk();
    new (locate(index)) Node;
  }
  Node& node = *locate(index);
  node.prefix = prefix;
  node.n_bits = n_bits;
  node.rules.store(rules, std::memory_order_relaxed);
  for (auto& child : node.child) child.store(0, std::memory_order_relaxed);
  return index;
}

void TrieArena::free(uint32_t index) {
  doomed_.push_back(index);
  if (doomed_.size() < kRetireBatch) return;
  rcu::retire([recycled = recycled_, nodes = std::exchange(doomed_, {})] {
    std::lock_guard lock(recycled->mutex);
    recycled->nodes.insert(recycled->nodes.end(), nodes.begin(), nodes.end());
    recycled->any.store(true, std::memory_order_release);
  });
}

uint32_t PrefixTrie::make_branch(const Value& value, unsigned from, unsigned length) {
  const unsigned here = std::min(32u, length - from);
  const bool last = from + here == length;
  const uint32_t index = arena_->allocate(keep_leading(bits_at(value, from), here), here, last ? 1 : 0);
  if (!last) {
    const uint32_t rest = make_branch(value, from + here, length);
    (*arena_)[index].child[bit_at(value, from + here)].store(rest, std::memory_order_relaxed);
  }
  return index;
}

// Cuts the node after its first `at` bits (position `from` of the value): a new parent above a copy of the rest, and
// beside it the rest of `value` if it goes on. The node itself stays as readers know it.
uint32_t PrefixTrie::split(uint32_t index, unsigned at, const Value& value, unsigned from, unsigned length) {
  TrieArena& arena = *arena_;
  const uint32_t prefix = arena[index].prefix;
  const uint32_t tail = arena.allocate(prefix << at, arena[index].n_bits - at, arena[index].rules.load());
  for (size_t side = 0; side < 2; ++side) arena[tail].child[side].store(arena[index].child[side].load());
  const uint32_t parent = arena.allocate(keep_leading(prefix, at), at, from == length ? 1 : 0);
  const unsigned side = (prefix << at) >> 31;
  arena[parent].child[side].store(tail);
  if (from < length) {
    const uint32_t branch = make_branch(value, from, length);
    arena[parent].child[1 - side].store(branch);
  }
  return parent;
}

void PrefixTrie::insert(const Value& value, unsigned length) {
  Link* link = &root_;
  unsigned at = 0;
  while (const uint32_t index = link->load(std::memory_order_relaxed)) {
    TrieArena::Node& node = (*arena_)[index];
    const unsigned equal = equal_leading(node.prefix, bits_at(value, at), std::min(node.n_bits, length - at));
    at += equal;
    if (equal < node.n_bits) {
      link->store(split(index, equal, value, at, length), std::memory_order_release);
      arena_->free(index);
      return;
    }
    if (at == length) {
      node.rules.fetch_add(1, std::memory_order_release);
      return;
    }
    link = &node.child[bit_at(value, at)];
  }
  link->store(make_branch(value, at, length), std::memory_order_release);
}

void PrefixTrie::remove(const Value& value, unsigned length) {
  std::vector<Link*> path{&root_};
  unsigned at = 0;
  while (const uint32_t index = path.back()->load(std::memory_order_relaxed)) {
    TrieArena::Node& node = (*arena_)[index];
    at += node.n_bits;
    if (at >= length) {
      if (node.rules.fetch_sub(1, std::memory_order_relaxed) == 1) prune(path);
      return;
    }
    path.push_back(&node.child[bit_at(value, at)]);
  }
}

// path.back() points to a node that no rule ends at any more. Drops it if it leads nowhere, and what that leaves
// useless.
void PrefixTrie::prune(std::vector<Link*>& path) {
  for (; !path.empty(); path.pop_back()) {
    Link& link = *path.back();
    const uint32_t index = link.load(std::memory_order_relaxed);
    const TrieArena::Node& node = (*arena_)[index];
    if (node.rules.load(std::memory_order_relaxed) != 0) return;
    if (node.child[0].load() != 0 || node.child[1].load() != 0) {
      merge_only_child(link);
      return;
    }
    link.store(0, std::memory_order_release);
    arena_->free(index);
  }
}

void PrefixTrie::merge_only_child(Link& link) {
  TrieArena& arena = *arena_;
  const uint32_t index = link.load(std::memory_order_relaxed);
  const uint32_t left = arena[index].child[0].load(), right = arena[index].child[1].load();
  if (left != 0 && right != 0) return;
  const uint32_t child = left != 0 ? left : right;
  const uint32_t n_bits = arena[index].n_bits, child_bits = arena[child].n_bits;
  if (n_bits + child_bits > 32) return;
  const uint32_t lower = n_bits == 32 ? 0 : arena[child].prefix >> n_bits;
  const uint32_t merged = arena.allocate(arena[index].prefix | lower, n_bits + child_bits, arena[child].rules.load());
  for (size_t side = 0; side < 2; ++side) arena[merged].child[side].store(arena[child].child[side].load());
  link.store(merged, std::memory_order_release);
  arena.free(index);
  arena.free(child);
}

PrefixTrie::Answer PrefixTrie::lookup(const Value& value, unsigned n_bits) const {
  Answer answer;
  const TrieArena& arena = *arena_;
  const TrieArena::Node* previous = nullptr;
  unsigned at = 0;
  uint32_t index = root_.load(std::memory_order_acquire);
  for (; index != 0; index = previous->child[bit_at(value, at)].load(std::memory_order_acquire)) {
    const TrieArena::Node& node = arena[index];
    const unsigned equal = equal_leading(node.prefix, bits_at(value, at), node.n_bits);
    at += equal;
    if (equal < node.n_bits) {
      answer.decisive_bits = at + 1;  // the bit that differs included
      return answer;
    }
    if (at > 0 && node.rules.load(std::memory_order_acquire) > 0) {
      answer.lengths[(at - 1) / 64] |= uint64_t{1} << ((at - 1) % 64);
    }
    if (at >= n_bits) {
      answer.decisive_bits = n_bits;
      return answer;
    }
    previous = &node;
  }
  // The value leads out of the tree. Where there is another branch here, the bit that did not take it counts too.
  const bool leaf = previous == nullptr || (previous->child[0].load(std::memory_order_acquire) == 0 &&
                                            previous->child[1].load(std::memory_order_acquire) == 0);
  answer.decisive_bits = leaf ? at : at + 1;
  return answer;
}

}  // namespace vswitch
