#include "vswitchd/rules/prefix_index.h"

#include <algorithm>
#include <bit>
#include <new>

#include "vswitchd/rules/rule_memory.h"

namespace vswitch {
namespace {

constexpr unsigned kStride = 4;  // bits that a node looks at
constexpr unsigned kFanout = 1u << kStride;
constexpr unsigned kFirstCapacity = 2, kMaxCapacity = 32;
constexpr size_t kFetchedLines = 6;  // most of a bucket

// How an entry's two numbers share a word, so that readers see both at once: rules << 8 | length.
constexpr unsigned kLengthBits = 8;
constexpr uint32_t kMaxRules = (uint32_t{1} << 24) - 1;  // from here on the entry stays for good

uint32_t rules_of(uint32_t packed) { return packed >> kLengthBits; }
unsigned length_of(uint32_t packed) { return packed & ((1u << kLengthBits) - 1); }
uint32_t pack(uint32_t rules, unsigned length) { return rules << kLengthBits | length; }

unsigned leading_zeros(uint32_t bits) { return static_cast<unsigned>(std::countl_zero(bits)); }
unsigned leading_zeros(Uint128 bits) {
  const auto high = static_cast<uint64_t>(bits >> 64);
  return static_cast<unsigned>(high != 0 ? std::countl_zero(high) : 64 + std::countl_zero(static_cast<uint64_t>(bits)));
}

template <typename Bits>
Bits keep_leading(Bits bits, unsigned n) {
  return n == 0 ? Bits{0} : bits & (~Bits{0} << (sizeof(Bits) * 8 - n));
}

template <typename Bits>
unsigned nibble_at(Bits value, unsigned depth) {
  return static_cast<unsigned>(static_cast<Bits>(value << depth) >> (sizeof(Bits) * 8 - kStride));
}

bool is_node(uintptr_t link) { return (link & 1) != 0; }

}  // namespace

template <typename Bits>
struct PrefixIndex<Bits>::Entry {
  Bits prefix;  // zero beyond its length; constant once published
  std::atomic<uint32_t> packed;
  SubtableSet subtables;
};

template <typename Bits>
struct PrefixIndex<Bits>::Bucket {
  static constexpr size_t kHeader = alignof(Entry) > 8 ? alignof(Entry) : 8;
  Entry* entries() { return reinterpret_cast<Entry*>(reinterpret_cast<char*>(this) + kHeader); }
  const Entry* entries() const { return reinterpret_cast<const Entry*>(reinterpret_cast<const char*>(this) + kHeader); }
  size_t bytes() const { return kHeader + capacity * sizeof(Entry); }
  unsigned live() const {
    unsigned live = 0;
    for (unsigned i = 0; i < size.load(std::memory_order_relaxed); ++i) {
      live += rules_of(entries()[i].packed.load(std::memory_order_relaxed)) != 0;
    }
    return live;
  }
  Entry* find(Bits prefix, unsigned length) {
    for (unsigned i = 0; i < size.load(std::memory_order_relaxed); ++i) {
      Entry& entry = entries()[i];
      if (entry.prefix == prefix && length_of(entry.packed.load(std::memory_order_relaxed)) == length) return &entry;
    }
    return nullptr;
  }

  std::atomic<uint16_t> size;
  uint16_t capacity;
};

// At depth d: all that share their first d bits. Those no longer than d + 3 bits are its own, the others its
// children's.
template <typename Bits>
struct PrefixIndex<Bits>::Node {
  static void* operator new(size_t bytes) { return rule_memory::allocate(bytes); }
  static void operator delete(void* node) noexcept { rule_memory::free(node, sizeof(Node)); }

  std::array<Link, kFanout> child{};
  Link own{0};  // a bucket; it never bursts, for there are only 15 such prefixes
};

template <typename Bits>
PrefixIndex<Bits>::~PrefixIndex() {
  destroy(root_.load(std::memory_order_relaxed));
}

template <typename Bits>
void PrefixIndex<Bits>::destroy(uintptr_t link) {
  if (link == 0) return;
  if (is_node(link)) {
    auto* node = reinterpret_cast<Node*>(link - 1);
    for (Link& child : node->child) destroy(child.load(std::memory_order_relaxed));
    destroy(node->own.load(std::memory_order_relaxed));
    delete node;
    return;
  }
  auto* bucket = reinterpret_cast<Bucket*>(link);
  for (unsigned i = 0; i < bucket->size; ++i) bucket->entries()[i].subtables.destroy();
  rule_memory::free(bucket, bucket->bytes());
}

template <typename Bits>
typename PrefixIndex<Bits>::Bucket* PrefixIndex<Bits>::make_bucket(unsigned capacity) {
  const size_t bytes = Bucket::kHeader + capacity * sizeof(Entry);
  auto* bucket = new (rule_memory::allocate(bytes)) Bucket{{0}, static_cast<uint16_t>(capacity)};
  bytes_ += bytes;
  return bucket;
}

// Its entries' sets live on elsewhere, or are gone.
template <typename Bits>
void PrefixIndex<Bits>::retire_bucket(Bucket* bucket) {
  bytes_ -= bucket->bytes();
  rule_memory::retire(bucket, bucket->bytes());
}

// The link that leads on to a prefix from a node at `depth`.
template <typename Bits>
typename PrefixIndex<Bits>::Link& PrefixIndex<Bits>::next_link(Node& node, Bits value, unsigned length,
                                                               unsigned depth) {
  return length < depth + kStride ? node.own : node.child[nibble_at(value, depth)];
}

// To a new node that no reader sees yet.
template <typename Bits>
void PrefixIndex<Bits>::move_entry(Link& link, const Entry& entry) {
  auto* bucket = reinterpret_cast<Bucket*>(link.load(std::memory_order_relaxed));
  if (bucket == nullptr || bucket->size == bucket->capacity) {
    Bucket* bigger = make_bucket(bucket == nullptr ? kFirstCapacity : 2u * bucket->capacity);
    if (bucket != nullptr) {
      link.store(reinterpret_cast<uintptr_t>(bigger), std::memory_order_relaxed);
      for (unsigned i = 0; i < bucket->size; ++i) move_entry(link, bucket->entries()[i]);
      bytes_ -= bucket->bytes();
      rule_memory::free(bucket, bucket->bytes());
    }
    bucket = bigger;
    link.store(reinterpret_cast<uintptr_t>(bucket), std::memory_order_relaxed);
  }
  const uint16_t n = bucket->size.load(std::memory_order_relaxed);
  Entry* to = new (&bucket->entries()[n]) Entry{entry.prefix, {entry.packed.load(std::memory_order_relaxed)}, {}};
  to->subtables.take(entry.subtables);
  bucket->size.store(static_cast<uint16_t>(n + 1), std::memory_order_release);
}

template <typename Bits>
typename PrefixIndex<Bits>::Node* PrefixIndex<Bits>::burst(const Bucket& bucket, unsigned depth) {
  auto* node = new Node;
  bytes_ += sizeof(Node);
  for (unsigned i = 0; i < bucket.size; ++i) {
    const Entry& entry = bucket.entries()[i];
    const uint32_t packed = entry.packed.load(std::memory_order_relaxed);
    if (rules_of(packed) != 0) move_entry(next_link(*node, entry.prefix, length_of(packed), depth), entry);
  }
  return node;
}

// REQUIRES: the link leads to a bucket with room (or to none).
template <typename Bits>
void PrefixIndex<Bits>::append(Link& link, Bits prefix, unsigned length, uint32_t subtable, const Rule* rule) {
  auto* bucket = reinterpret_cast<Bucket*>(link.load(std::memory_order_relaxed));
  const bool made = bucket == nullptr;
  if (made) bucket = make_bucket(kFirstCapacity);
  const uint16_t n = bucket->size.load(std::memory_order_relaxed);
  Entry* entry = new (&bucket->entries()[n]) Entry{prefix, {pack(1, length)}, {}};
  entry->subtables.add(subtable, 0, rule);
  bucket->size.store(static_cast<uint16_t>(n + 1), std::memory_order_release);
  if (made) link.store(reinterpret_cast<uintptr_t>(bucket), std::memory_order_release);
}

template <typename Bits>
void PrefixIndex<Bits>::prefetch(Bits value, unsigned length) const {
  uintptr_t at = root_.load(std::memory_order_relaxed);
  for (unsigned depth = 0; is_node(at); depth += kStride) {
    at = next_link(*reinterpret_cast<Node*>(at - 1), value, length, depth).load(std::memory_order_relaxed);
  }
  if (at == 0) return;
  for (size_t i = 0; i < kFetchedLines; ++i) __builtin_prefetch(reinterpret_cast<const char*>(at) + 64 * i);
}

template <typename Bits>
void PrefixIndex<Bits>::insert(Bits value, unsigned length, uint32_t subtable, const Rule* rule) {
  const Bits prefix = keep_leading(value, length);
  Link* link = &root_;
  bool own = false;
  for (unsigned depth = 0;;) {
    const uintptr_t at = link->load(std::memory_order_relaxed);
    if (is_node(at)) {
      own = length < depth + kStride;
      link = &next_link(*reinterpret_cast<Node*>(at - 1), prefix, length, depth);
      depth += kStride;
      continue;
    }
    auto* bucket = reinterpret_cast<Bucket*>(at);
    if (bucket == nullptr) return append(*link, prefix, length, subtable, rule);
    if (Entry* entry = bucket->find(prefix, length)) {
      const uint32_t rules = rules_of(entry->packed.load(std::memory_order_relaxed));
      entry->subtables.add(subtable, rules, rule);
      if (rules < kMaxRules) entry->packed.store(pack(rules + 1, length), std::memory_order_release);
      return;
    }
    if (bucket->size < bucket->capacity) return append(*link, prefix, length, subtable, rule);
    // A new one without the entries that are gone, with twice the room if there are none of these.
    const unsigned live = bucket->live();
    if (live == kMaxCapacity && !own) {
      link->store(reinterpret_cast<uintptr_t>(burst(*bucket, depth)) | 1, std::memory_order_release);
    } else {
      Bucket* fresh = make_bucket(live == bucket->capacity ? 2 * live : bucket->capacity);
      Link moved{reinterpret_cast<uintptr_t>(fresh)};
      for (unsigned i = 0; i < bucket->size; ++i) {
        const Entry& entry = bucket->entries()[i];
        if (rules_of(entry.packed.load(std::memory_order_relaxed)) != 0) move_entry(moved, entry);
      }
      link->store(moved.load(), std::memory_order_release);
    }
    retire_bucket(bucket);
  }
}

template <typename Bits>
void PrefixIndex<Bits>::remove(Bits value, unsigned length, uint32_t subtable) {
  const Bits prefix = keep_leading(value, length);
  std::array<Link*, kBits / kStride + 2> path{&root_};
  size_t steps = 0;
  for (unsigned depth = 0; is_node(path[steps]->load(std::memory_order_relaxed)); depth += kStride, ++steps) {
    auto* node = reinterpret_cast<Node*>(path[steps]->load(std::memory_order_relaxed) - 1);
    path[steps + 1] = &next_link(*node, prefix, length, depth);
  }
  auto* bucket = reinterpret_cast<Bucket*>(path[steps]->load(std::memory_order_relaxed));
  Entry* entry = bucket == nullptr ? nullptr : bucket->find(prefix, length);
  if (entry == nullptr) return;
  const uint32_t rules = rules_of(entry->packed.load(std::memory_order_relaxed));
  if (rules == 0 || rules == kMaxRules) return;
  entry->packed.store(pack(rules - 1, length), std::memory_order_release);
  entry->subtables.remove(subtable, rules);
  if (rules > 1 || bucket->live() != 0) return;
  path[steps]->store(0, std::memory_order_release);
  retire_bucket(bucket);
  while (steps-- > 0) {
    auto* node = reinterpret_cast<Node*>(path[steps]->load(std::memory_order_relaxed) - 1);
    const auto leads_nowhere = [](const Link& link) { return link.load(std::memory_order_relaxed) == 0; };
    if (!leads_nowhere(node->own) || !std::all_of(node->child.begin(), node->child.end(), leads_nowhere)) return;
    path[steps]->store(0, std::memory_order_release);
    bytes_ -= sizeof(Node);
    rule_memory::retire(node, sizeof(Node));
  }
}

// How many bits of the nibble `taken`, which leads to no child, tell it from those that do.
template <typename Bits>
unsigned PrefixIndex<Bits>::bits_to_siblings(const Node& node, unsigned taken) {
  unsigned needed = 0;
  for (unsigned i = 0; i < kFanout; ++i) {
    if (node.child[i].load(std::memory_order_acquire) == 0) continue;
    needed = std::max(needed, static_cast<unsigned>(std::countl_zero(i ^ taken)) - (32 - kStride) + 1);
  }
  return needed;
}

template <typename Bits>
void PrefixIndex<Bits>::Lookup::visit(const Bucket* bucket) {
  if (bucket == nullptr) return;
  const char* line = reinterpret_cast<const char*>(bucket);
  for (size_t i = 0; i < kFetchedLines; ++i) __builtin_prefetch(line + 64 * i);
  buckets_[n_buckets_++] = bucket;
}

template <typename Bits>
bool PrefixIndex<Bits>::Lookup::walk() {
  if (!is_node(link_)) {
    visit(reinterpret_cast<const Bucket*>(link_));
    link_ = 0;
    return false;
  }
  const Node& node = *reinterpret_cast<const Node*>(link_ - 1);
  const unsigned nibble = nibble_at(value_, depth_);
  link_ = node.child[nibble].load(std::memory_order_acquire);
  visit(reinterpret_cast<const Bucket*>(node.own.load(std::memory_order_acquire)));
  if (link_ == 0) {
    const unsigned needed = bits_to_siblings(node, nibble);
    if (needed != 0) decisive_ = depth_ + needed;
    return false;
  }
  depth_ += kStride;
  decisive_ = depth_;
  if (is_node(link_)) __builtin_prefetch(reinterpret_cast<const char*>(link_) + sizeof(node.child));
  return true;
}

template <typename Bits>
unsigned PrefixIndex<Bits>::Lookup::search() {
  for (unsigned i = 0; i < n_buckets_; ++i) search(*buckets_[i]);
  return decisive_;
}

// The prefix that has most bits in common with the value, of those that do not match, is the one whose difference is
// the smallest number: so its bits are counted once in the end, not for every prefix.
template <typename Bits>
void PrefixIndex<Bits>::Lookup::search(const Bucket& bucket) {
  const Entry* entry = bucket.entries();
  const Entry* const end = entry + bucket.size.load(std::memory_order_acquire);
  Bits nearest = ~Bits{0};
  bool any = false;
  for (; entry != end; ++entry) {
    const uint32_t packed = entry->packed.load(std::memory_order_acquire);
    const unsigned length = length_of(packed);
    const Bits difference = entry->prefix ^ value_;
    if (rules_of(packed) == 0) continue;
    if (difference >> (kBits - length) != 0) {
      any = true;
      nearest = std::min(nearest, difference);
      continue;
    }
    decisive_ = std::max(decisive_, length);
    if (n_found_ < found_.size()) found_[n_found_++] = entry->subtables.load();
  }
  if (any) decisive_ = std::max(decisive_, leading_zeros(nearest) + 1);
}

template <typename Bits>
void PrefixIndex<Bits>::Lookup::finish(std::span<uint64_t> subtables) const {
  for (unsigned i = 0; i < n_found_; ++i) SubtableSet::or_into(found_[i], subtables);
}

template class PrefixIndex<uint32_t>;
template class PrefixIndex<Uint128>;

}  // namespace vswitch
