#include "vswitchd/rules/prefix_index.h"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "vswitchd/rules/rule_memory.h"

namespace vswitch {
namespace {

constexpr unsigned kStride = 4;  // bits that a node looks at
constexpr unsigned kFanout = 1u << kStride;
constexpr unsigned kFirstCapacity = 2, kMaxCapacity = 32;
// Of a bucket, always: a number that depended on the size would be a branch whose outcome waits for memory. The rest
// follows by itself.
constexpr size_t kFetchedLines = 4;
constexpr size_t kLine = 64;

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

// A link to a node has its lowest bit set, and the next one if the node may have prefixes of its own: most have none,
// and nobody looks at the line where they would be.
constexpr uintptr_t kNode = 1, kHasOwn = 2;
bool is_node(uintptr_t link) { return (link & kNode) != 0; }

}  // namespace

template <typename Bits>
struct PrefixIndex<Bits>::Entry {
  Bits prefix;  // zero beyond its length; constant once published
  std::atomic<uint32_t> packed;
  SubtableSet subtables;

  Entry(Bits bits, unsigned length) : prefix(bits), packed(pack(1, length)) {}
  // Takes over the set of `other`, which readers may still use.
  explicit Entry(const Entry& other) : prefix(other.prefix), packed(other.packed.load(std::memory_order_relaxed)) {
    subtables.take(other.subtables);
  }
  bool is_live() const { return rules_of(packed.load(std::memory_order_relaxed)) != 0; }
};

// An array of entries and nothing else, so that they lie on few lines. What a link to it holds: its address, and in the
// highest byte, which no address uses, the number of entries. With so many it has room for the next power of two.
template <typename Bits>
struct PrefixIndex<Bits>::Bucket {
  static constexpr unsigned kSizeShift = 56;
  static_assert(kMaxCapacity < 1u << 8);

  Bucket(Entry* at, unsigned n) : entries(at), size(n) {}
  explicit Bucket(uintptr_t link)
      : entries(reinterpret_cast<Entry*>(link & ((uintptr_t{1} << kSizeShift) - 1))),
        size(static_cast<unsigned>(link >> kSizeShift)) {}
  uintptr_t link() const { return reinterpret_cast<uintptr_t>(entries) | uintptr_t{size} << kSizeShift; }

  static unsigned capacity_for(unsigned n) { return n == 0 ? 0 : std::bit_ceil(std::max(n, kFirstCapacity)); }
  unsigned capacity() const { return capacity_for(size); }
  size_t bytes() const { return capacity() * sizeof(Entry); }
  unsigned live() const {
    return static_cast<unsigned>(std::count_if(begin(), end(), [](const Entry& entry) { return entry.is_live(); }));
  }
  Entry* find(Bits prefix, unsigned length) const {
    Entry* const found = std::find_if(begin(), end(), [&](const Entry& entry) {
      return entry.prefix == prefix && length_of(entry.packed.load(std::memory_order_relaxed)) == length;
    });
    return found == end() ? nullptr : found;
  }
  void fetch() const {
    const char* const first = reinterpret_cast<const char*>(begin());
    for (size_t i = 0; i < kFetchedLines; ++i) __builtin_prefetch(first + kLine * i);
  }
  Entry* begin() const { return entries; }
  Entry* end() const { return entries + size; }

  Entry* entries;
  unsigned size;
};

// At depth d: all that share their first d bits. Those no longer than d + 3 bits are its own, the others its
// children's.
template <typename Bits>
struct PrefixIndex<Bits>::Node {
  static void* operator new(size_t bytes) { return rule_memory::allocate(bytes); }
  static void operator delete(void* node) noexcept { rule_memory::free(node, sizeof(Node)); }
  static Node& at(uintptr_t link) { return *reinterpret_cast<Node*>(link & ~(kNode | kHasOwn)); }
  uintptr_t link() const {
    return reinterpret_cast<uintptr_t>(this) | kNode | (own.load(std::memory_order_relaxed) == 0 ? 0 : kHasOwn);
  }

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
    Node* const node = &Node::at(link);
    for (Link& child : node->child) destroy(child.load(std::memory_order_relaxed));
    destroy(node->own.load(std::memory_order_relaxed));
    delete node;
    return;
  }
  const Bucket bucket(link);
  for (Entry& entry : bucket) entry.subtables.destroy();
  rule_memory::free(bucket.entries, bucket.bytes());
}

// Without entries. Whoever asks fills it so far that it has the capacity of its size.
template <typename Bits>
typename PrefixIndex<Bits>::Bucket PrefixIndex<Bits>::make_bucket(unsigned capacity) {
  const size_t bytes = capacity * sizeof(Entry);
  bytes_ += bytes;
  return {static_cast<Entry*>(rule_memory::allocate(bytes)), 0};
}

// Its entries' sets live on elsewhere, or are gone.
template <typename Bits>
void PrefixIndex<Bits>::retire_bucket(const Bucket& bucket) {
  if (bucket.size == 0) return;
  bytes_ -= bucket.bytes();
  rule_memory::retire(bucket.entries, bucket.bytes());
}

// The link that leads on to a prefix from a node at `depth`.
template <typename Bits>
typename PrefixIndex<Bits>::Link& PrefixIndex<Bits>::next_link(Node& node, Bits value, unsigned length,
                                                               unsigned depth) {
  return length < depth + kStride ? node.own : node.child[nibble_at(value, depth)];
}

// A copy of its live entries with room for one more, which is to be filled at once.
template <typename Bits>
typename PrefixIndex<Bits>::Bucket PrefixIndex<Bits>::grow(const Bucket& bucket) {
  Bucket bigger = make_bucket(Bucket::capacity_for(bucket.live() + 1));
  for (const Entry& entry : bucket) {
    if (entry.is_live()) new (&bigger.entries[bigger.size++]) Entry(entry);
  }
  return bigger;
}

// To a new node that no reader sees yet. REQUIRES: the entry is live.
template <typename Bits>
void PrefixIndex<Bits>::move_entry(Link& link, const Entry& entry) {
  Bucket bucket(link.load(std::memory_order_relaxed));
  if (bucket.size == bucket.capacity()) {
    const Bucket full = std::exchange(bucket, grow(bucket));
    bytes_ -= full.bytes();
    rule_memory::free(full.entries, full.bytes());
  }
  new (&bucket.entries[bucket.size++]) Entry(entry);
  link.store(bucket.link(), std::memory_order_relaxed);
}

template <typename Bits>
typename PrefixIndex<Bits>::Node* PrefixIndex<Bits>::burst(const Bucket& bucket, unsigned depth) {
  auto* node = new Node;
  bytes_ += sizeof(Node);
  for (const Entry& entry : bucket) {
    if (entry.is_live())
      move_entry(next_link(*node, entry.prefix, length_of(entry.packed.load(std::memory_order_relaxed)), depth), entry);
  }
  return node;
}

// REQUIRES: the link leads to a bucket or to none.
template <typename Bits>
void PrefixIndex<Bits>::add_entry(Link& link, Bits prefix, unsigned length, uint32_t subtable, const Rule* rule) {
  const Bucket old(link.load(std::memory_order_relaxed));
  const bool is_full = old.size == old.capacity();
  Bucket bucket = is_full ? grow(old) : old;
  Entry* entry = new (&bucket.entries[bucket.size++]) Entry(prefix, length);
  entry->subtables.add(subtable, 0, rule);
  link.store(bucket.link(), std::memory_order_release);
  if (is_full) retire_bucket(old);
}

template <typename Bits>
void PrefixIndex<Bits>::prefetch(Bits value, unsigned length) const {
  uintptr_t at = root_.load(std::memory_order_relaxed);
  for (unsigned depth = 0; is_node(at); depth += kStride) {
    at = next_link(Node::at(at), value, length, depth).load(std::memory_order_relaxed);
  }
  if (at != 0) Bucket(at).fetch();
}

template <typename Bits>
void PrefixIndex<Bits>::insert(Bits value, unsigned length, uint32_t subtable, const Rule* rule) {
  const Bits prefix = keep_leading(value, length);
  Link *link = &root_, *parent = nullptr;
  bool own = false;
  for (unsigned depth = 0;;) {
    const uintptr_t at = link->load(std::memory_order_relaxed);
    if (is_node(at)) {
      own = length < depth + kStride;
      parent = std::exchange(link, &next_link(Node::at(at), prefix, length, depth));
      depth += kStride;
      continue;
    }
    const Bucket bucket(at);
    if (Entry* entry = bucket.find(prefix, length)) {
      const uint32_t rules = rules_of(entry->packed.load(std::memory_order_relaxed));
      entry->subtables.add(subtable, rules, rule);
      if (rules < kMaxRules) entry->packed.store(pack(rules + 1, length), std::memory_order_release);
      return;
    }
    if (own || bucket.size < kMaxCapacity || bucket.live() < kMaxCapacity) {
      add_entry(*link, prefix, length, subtable, rule);
      if (own) parent->store(parent->load(std::memory_order_relaxed) | kHasOwn, std::memory_order_release);
      return;
    }
    link->store(burst(bucket, depth)->link(), std::memory_order_release);
    retire_bucket(bucket);
  }
}

template <typename Bits>
void PrefixIndex<Bits>::remove(Bits value, unsigned length, uint32_t subtable) {
  const Bits prefix = keep_leading(value, length);
  std::array<Link*, kBits / kStride + 2> path{&root_};
  size_t steps = 0;
  for (unsigned depth = 0; is_node(path[steps]->load(std::memory_order_relaxed)); depth += kStride, ++steps) {
    Node* const node = &Node::at(path[steps]->load(std::memory_order_relaxed));
    path[steps + 1] = &next_link(*node, prefix, length, depth);
  }
  const Bucket bucket(path[steps]->load(std::memory_order_relaxed));
  Entry* entry = bucket.find(prefix, length);
  if (entry == nullptr) return;
  const uint32_t rules = rules_of(entry->packed.load(std::memory_order_relaxed));
  if (rules == 0 || rules == kMaxRules) return;
  entry->packed.store(pack(rules - 1, length), std::memory_order_release);
  entry->subtables.remove(subtable, rules);
  if (rules > 1 || bucket.live() != 0) return;
  path[steps]->store(0, std::memory_order_release);
  retire_bucket(bucket);
  while (steps-- > 0) {
    Node* const node = &Node::at(path[steps]->load(std::memory_order_relaxed));
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
void PrefixIndex<Bits>::Lookup::visit(uintptr_t bucket) {
  if (bucket == 0) return;
  Bucket(bucket).fetch();
  buckets_[n_buckets_++] = bucket;
}

template <typename Bits>
bool PrefixIndex<Bits>::Lookup::walk() {
  if (!is_node(link_)) {
    visit(link_);
    link_ = 0;
    return false;
  }
  const Node& node = Node::at(link_);
  const unsigned nibble = nibble_at(value_, depth_);
  const bool has_own = (link_ & kHasOwn) != 0;
  link_ = node.child[nibble].load(std::memory_order_acquire);
  if (has_own) visit(node.own.load(std::memory_order_acquire));
  if (link_ == 0) {
    const unsigned needed = bits_to_siblings(node, nibble);
    if (needed != 0) decisive_ = depth_ + needed;
    return false;
  }
  depth_ += kStride;
  decisive_ = depth_;
  if ((link_ & (kNode | kHasOwn)) == (kNode | kHasOwn)) __builtin_prefetch(&Node::at(link_).own);
  return true;
}

template <typename Bits>
unsigned PrefixIndex<Bits>::Lookup::search() {
  for (unsigned i = 0; i < n_buckets_; ++i) search(Bucket(buckets_[i]));
  return decisive_;
}

// The prefix that has most bits in common with the value, of those that do not match, is the one whose difference is
// the smallest number: so its bits are counted once in the end, not for every prefix.
template <typename Bits>
void PrefixIndex<Bits>::Lookup::search(const Bucket& bucket) {
  Bits nearest = ~Bits{0};
  bool any = false;
  for (const Entry& entry : bucket) {
    const uint32_t packed = entry.packed.load(std::memory_order_acquire);
    const unsigned length = length_of(packed);
    const Bits difference = entry.prefix ^ value_;
    if (rules_of(packed) == 0) continue;
    if (difference >> (kBits - length) != 0) {
      any = true;
      nearest = std::min(nearest, difference);
      continue;
    }
    decisive_ = std::max(decisive_, length);
    if (n_found_ < found_.size()) found_[n_found_++] = entry.subtables.load();
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
