#include "vswitchd/rules/prefix_index.h"

#include <algorithm>
#include <bit>
#include <new>
#include <optional>
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
// So many entries of its children make a node wide, whose rooms are a third full then, and so few make it narrow again.
constexpr uint64_t kWidenAt = 160, kNarrowAt = 96;
// A wide node is made anew if a bucket with fewer live entries finds no place in it. With more it goes outside: it
// would need a new node again too soon.
constexpr unsigned kRenewBelow = 24;

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

void fetch_lines(const void* from) {
  for (size_t i = 0; i < kFetchedLines; ++i) __builtin_prefetch(static_cast<const char*>(from) + kLine * i);
}

template <typename Bits>
Bits keep_leading(Bits bits, unsigned n) {
  return n == 0 ? Bits{0} : bits & (~Bits{0} << (sizeof(Bits) * 8 - n));
}

template <typename Bits>
unsigned nibble_at(Bits value, unsigned depth) {
  return static_cast<unsigned>(static_cast<Bits>(value << depth) >> (sizeof(Bits) * 8 - kStride));
}

// What a link holds beside an address, in bits that addresses do not use. To a node: that it is one, whether it is
// wide, whether it has prefixes of its own, and, in the highest bits, which children it has: what is not there is not
// looked for in memory. To a bucket: whether it lies inside a wide node, and, in the highest byte, its size.
constexpr uintptr_t kNode = 1, kWide = 2, kHasOwn = 4;
constexpr uintptr_t kInside = 2;
constexpr unsigned kChildrenShift = 48, kSizeShift = 56;
constexpr uintptr_t kAddress = ((uintptr_t{1} << kChildrenShift) - 1) & ~uintptr_t{7};
constexpr uintptr_t kOccupancy = kHasOwn | ~uintptr_t{0} << kChildrenShift;

bool is_node(uintptr_t link) { return (link & kNode) != 0; }
bool has_child(uintptr_t node, unsigned i) { return (node >> kChildrenShift >> i & 1) != 0; }

// What a link to a node at `depth` says about where a prefix belongs.
template <typename Bits>
uintptr_t occupancy_of(Bits prefix, unsigned length, unsigned depth) {
  return length < depth + kStride ? kHasOwn : uintptr_t{1} << kChildrenShift << nibble_at(prefix, depth);
}

// How many bits of the nibble `taken`, which leads to no child, tell it from those that do.
unsigned bits_to_siblings(uintptr_t node, unsigned taken) {
  const uintptr_t children = node >> kChildrenShift;
  unsigned needed = 0;
  for (unsigned shared = 0; shared < kStride; ++shared) {
    const unsigned alike = kFanout >> shared;  // nibbles that have so many first bits in common with it
    const uintptr_t mask = ((uintptr_t{1} << alike) - 1) << (taken & ~(alike - 1));
    if ((children & mask) != 0) needed = shared + 1;
  }
  return needed;
}

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

// An array of entries and nothing else, so that they lie on few lines. Its capacity follows from its size, the next
// power of two, or is that of a wide node's room.
template <typename Bits>
struct PrefixIndex<Bits>::Bucket {
  static_assert(kMaxCapacity < 1u << (64 - kSizeShift));
  static constexpr unsigned kRoom = kMaxCapacity - 1;

  Bucket(Entry* at, bool inside) : entries(at), size(0), is_inside(inside) {}
  explicit Bucket(uintptr_t link)
      : entries(reinterpret_cast<Entry*>(link & kAddress)),
        size(static_cast<unsigned>(link >> kSizeShift)),
        is_inside((link & kInside) != 0) {}
  uintptr_t link() const {
    return reinterpret_cast<uintptr_t>(entries) | uintptr_t{size} << kSizeShift | (is_inside ? kInside : 0);
  }

  static unsigned capacity_for(unsigned n) { return n == 0 ? 0 : std::bit_ceil(std::max(n, kFirstCapacity)); }
  unsigned capacity() const { return is_inside ? kRoom : capacity_for(size); }
  size_t bytes() const { return is_inside ? 0 : capacity() * sizeof(Entry); }  // of its own
  unsigned live() const {
    return static_cast<unsigned>(std::count_if(begin(), end(), [](const Entry& entry) { return entry.is_live(); }));
  }
  Entry* find(Bits prefix, unsigned length) const {
    Entry* const found = std::find_if(begin(), end(), [&](const Entry& entry) {
      return entry.prefix == prefix && length_of(entry.packed.load(std::memory_order_relaxed)) == length;
    });
    return found == end() ? nullptr : found;
  }
  void append(const Entry& entry) { new (&entries[size++]) Entry(entry); }
  void append_live(const Bucket& other) {
    for (const Entry& entry : other) {
      if (entry.is_live()) append(entry);
    }
  }
  void fetch() const { fetch_lines(begin()); }
  Entry* begin() const { return entries; }
  Entry* end() const { return entries + size; }

  Entry* entries;
  unsigned size;
  bool is_inside;
};

// At depth d: all that share their first d bits. Those no longer than d + 3 bits are its own, the others its
// children's.
//
// Narrow: the links of its children, and that of its own prefixes, a bucket; it never bursts, for there are only 15
// such prefixes. Wide: for each child its link and, behind it, room for its bucket. A room is taken once: what readers
// may still see is not written over.
template <typename Bits>
class PrefixIndex<Bits>::Node {
 public:
  explicit Node(uintptr_t link) : at_(link & kAddress), wide_((link & kWide) != 0) {}
  // Without children.
  static Node make(bool wide) {
    Node node(reinterpret_cast<uintptr_t>(rule_memory::allocate(bytes(wide))) | (wide ? kWide : 0));
    for (unsigned i = 0; i < kFanout; ++i) new (&node.child(i)) Link(0);
    new (&node.own()) Link(0);
    new (&node.entries()) uint64_t(0);
    if (wide) new (&node.taken_rooms()) uint64_t(0);
    return node;
  }
  uintptr_t link(uintptr_t occupancy) const { return at_ | kNode | (wide_ ? kWide : 0) | occupancy; }
  void* memory() const { return reinterpret_cast<void*>(at_); }
  size_t bytes() const { return bytes(wide_); }
  bool is_wide() const { return wide_; }

  Link& child(unsigned i) const { return word<Link>(i, 0); }
  // The link that leads on to a prefix from here, at `depth`.
  Link& next(Bits value, unsigned length, unsigned depth) const {
    return length < depth + kStride ? own() : child(nibble_at(value, depth));
  }
  Link& own() const { return wide_ ? word<Link>(0, 1) : word<Link>(kFanout, 0); }
  // How many live entries its children have that are buckets. Writer.
  uint64_t& entries() const { return wide_ ? word<uint64_t>(1, 1) : word<uint64_t>(kFanout + 1, 0); }
  // Of a wide node. Writer.
  bool has_free_room(unsigned i) const { return (taken_rooms() >> i & 1) == 0; }
  Bucket take_room(unsigned i) const {
    taken_rooms() |= uint64_t{1} << i;
    return {reinterpret_cast<Entry*>(at_ + i * kWideStep) + 1, true};
  }
  // Starts to fetch the child's link and entries. REQUIRES: is_wide()
  void fetch(unsigned i) const { fetch_lines(reinterpret_cast<const void*>(at_ + i * kWideStep)); }

 private:
  static constexpr size_t kNarrowStep = sizeof(Link);
  // The first entry's place is that of the link, and of another word. A power of two, as RuleMemory cuts no other
  // blocks of this size.
  static constexpr size_t kWideStep = (Bucket::kRoom + 1) * sizeof(Entry);
  static_assert(sizeof(Entry) >= 2 * sizeof(Link) && std::has_single_bit(kWideStep) && sizeof(Link) == 8);

  uint64_t& taken_rooms() const { return word<uint64_t>(2, 1); }  // bits

  static size_t bytes(bool wide) { return wide ? kFanout * kWideStep : (kFanout + 2) * kNarrowStep; }
  template <typename Word>
  Word& word(size_t step, size_t i) const {
    return reinterpret_cast<Word*>(at_ + step * (wide_ ? kWideStep : kNarrowStep))[i];
  }

  uintptr_t at_;
  bool wide_;
};

template <typename Bits>
struct PrefixIndex<Bits>::Place {
  Link* link;    // to a bucket, or 0
  Link* parent;  // to the node that has this link; null at the root
  unsigned depth;
  unsigned child;               // of that node,
  std::optional<Node> in_wide;  // if it is wide, and the bucket not that of its own prefixes
};

template <typename Bits>
PrefixIndex<Bits>::~PrefixIndex() {
  destroy(root_.load(std::memory_order_relaxed));
}

template <typename Bits>
void PrefixIndex<Bits>::destroy(uintptr_t link) {
  if (link == 0) return;
  if (is_node(link)) {
    const Node node(link);
    for (unsigned i = 0; i < kFanout; ++i) destroy(node.child(i).load(std::memory_order_relaxed));
    destroy(node.own().load(std::memory_order_relaxed));
    rule_memory::free(node.memory(), node.bytes());
    return;
  }
  const Bucket bucket(link);
  for (Entry& entry : bucket) entry.subtables.destroy();
  if (!bucket.is_inside) rule_memory::free(bucket.entries, bucket.bytes());
}

// Without entries. Whoever asks fills it so far that it has the capacity of its size.
template <typename Bits>
typename PrefixIndex<Bits>::Bucket PrefixIndex<Bits>::make_bucket(unsigned capacity) {
  const size_t bytes = capacity * sizeof(Entry);
  bytes_ += bytes;
  return {static_cast<Entry*>(rule_memory::allocate(bytes)), false};
}

// Its entries' sets live on elsewhere, or are gone.
template <typename Bits>
void PrefixIndex<Bits>::retire_bucket(const Bucket& bucket) {
  if (bucket.size == 0 || bucket.is_inside) return;
  bytes_ -= bucket.bytes();
  rule_memory::retire(bucket.entries, bucket.bytes());
}

template <typename Bits>
typename PrefixIndex<Bits>::Node PrefixIndex<Bits>::make_node(bool wide) {
  const Node node = Node::make(wide);
  bytes_ += node.bytes();
  return node;
}

template <typename Bits>
void PrefixIndex<Bits>::retire_node(const Node& node) {
  bytes_ -= node.bytes();
  rule_memory::retire(node.memory(), node.bytes());
}

// A copy of its live entries with room for one more, which is to be filled at once.
template <typename Bits>
typename PrefixIndex<Bits>::Bucket PrefixIndex<Bits>::grow(const Bucket& bucket) {
  Bucket bigger = make_bucket(Bucket::capacity_for(bucket.live() + 1));
  bigger.append_live(bucket);
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
  bucket.append(entry);
  link.store(bucket.link(), std::memory_order_relaxed);
}

// The link to a new node with the bucket's live entries.
template <typename Bits>
uintptr_t PrefixIndex<Bits>::burst(const Bucket& bucket, unsigned depth) {
  const Node node = make_node(false);
  uintptr_t occupancy = 0;
  for (const Entry& entry : bucket) {
    if (!entry.is_live()) continue;
    const uintptr_t where = occupancy_of(entry.prefix, length_of(entry.packed.load(std::memory_order_relaxed)), depth);
    occupancy |= where;
    move_entry(where == kHasOwn ? node.own() : node.child(nibble_at(entry.prefix, depth)), entry);
    if (where != kHasOwn) ++node.entries();
  }
  return node.link(occupancy);
}

// The link to what the child becomes in a new node: the same, but that buckets go inside if it is wide, and out if it
// is not.
template <typename Bits>
uintptr_t PrefixIndex<Bits>::move_child(uintptr_t link, const Node& to, unsigned at) {
  if (link == 0 || is_node(link)) return link;
  const Bucket old(link);
  const unsigned live = old.live();
  if (to.is_wide() ? live > Bucket::kRoom : !old.is_inside) return link;
  Bucket made = to.is_wide() ? to.take_room(at) : make_bucket(Bucket::capacity_for(live));
  made.append_live(old);
  return made.link();
}

// Puts a wide node or a narrow one in the place of the one that the link leads to.
template <typename Bits>
void PrefixIndex<Bits>::rebuild(Link& link, bool wide) {
  const uintptr_t old_link = link.load(std::memory_order_relaxed);
  const Node old(old_link), made = make_node(wide);
  made.own().store(old.own().load(std::memory_order_relaxed), std::memory_order_relaxed);
  made.entries() = old.entries();
  for (unsigned i = 0; i < kFanout; ++i) {
    const uintptr_t child = move_child(old.child(i).load(std::memory_order_relaxed), made, i);
    made.child(i).store(child, std::memory_order_relaxed);
  }
  link.store(made.link(old_link & kOccupancy), std::memory_order_release);
  for (unsigned i = 0; i < kFanout; ++i) {
    const uintptr_t child = old.child(i).load(std::memory_order_relaxed);
    if (!is_node(child) && child != made.child(i).load(std::memory_order_relaxed)) retire_bucket(Bucket(child));
  }
  retire_node(old);
}

// A copy of the bucket with room for one more entry, which is to be added at once: in the wide node that it is a child
// of, if there is one with a free room.
template <typename Bits>
typename PrefixIndex<Bits>::Bucket PrefixIndex<Bits>::make_room(const Place& place, const Bucket& bucket) {
  if (!place.in_wide || !place.in_wide->has_free_room(place.child) || bucket.live() >= Bucket::kRoom)
    return grow(bucket);
  Bucket inside = place.in_wide->take_room(place.child);
  inside.append_live(bucket);
  return inside;
}

template <typename Bits>
void PrefixIndex<Bits>::add_entry(const Place& place, Bits prefix, unsigned length, uint32_t subtable,
                                  const Rule* rule) {
  const Bucket old(place.link->load(std::memory_order_relaxed));
  const bool is_full = old.size == old.capacity();
  Bucket bucket = is_full ? make_room(place, old) : old;
  Entry* entry = new (&bucket.entries[bucket.size++]) Entry(prefix, length);
  entry->subtables.add(subtable, 0, rule);
  place.link->store(bucket.link(), std::memory_order_release);
  if (is_full) retire_bucket(old);
}

template <typename Bits>
void PrefixIndex<Bits>::prefetch(Bits value, unsigned length) const {
  uintptr_t at = root_.load(std::memory_order_relaxed);
  for (unsigned depth = 0; is_node(at); depth += kStride) {
    const Node node(at);
    if (node.is_wide() && length >= depth + kStride) return node.fetch(nibble_at(value, depth));
    at = node.next(value, length, depth).load(std::memory_order_relaxed);
  }
  if (at != 0) Bucket(at).fetch();
}

// A prefix has come to the node at `depth` that the link leads to: to its own, or to a child that is a bucket. Says so
// in the link, and may put another node in its place.
template <typename Bits>
void PrefixIndex<Bits>::count_in(Link& parent, Bits prefix, unsigned length, unsigned depth) {
  const uintptr_t link = parent.load(std::memory_order_relaxed);
  const uintptr_t where = occupancy_of(prefix, length, depth);
  if ((link & where) == 0) parent.store(link | where, std::memory_order_release);
  if (where == kHasOwn) return;
  const Node node(link);
  if (++node.entries() >= kWidenAt && bytes_ >= large_ && !node.is_wide()) rebuild(parent, true);
}

// So many entries of a child have gone from the node that the link leads to. May put another node in its place.
template <typename Bits>
void PrefixIndex<Bits>::count_out(Link& parent, unsigned entries) {
  const Node node(parent.load(std::memory_order_relaxed));
  node.entries() -= entries;
  if (node.is_wide() && node.entries() <= kNarrowAt) rebuild(parent, false);
}

// Where the bucket with such a prefix is, or would be.
template <typename Bits>
typename PrefixIndex<Bits>::Place PrefixIndex<Bits>::find_place(Bits prefix, unsigned length) {
  Place place{&root_, nullptr, 0, 0, {}};
  for (uintptr_t at; is_node(at = place.link->load(std::memory_order_relaxed)); place.depth += kStride) {
    const Node node(at);
    place.parent = std::exchange(place.link, &node.next(prefix, length, place.depth));
    place.child = nibble_at(prefix, place.depth);
    place.in_wide.reset();
    if (node.is_wide() && length >= place.depth + kStride) place.in_wide = node;
  }
  return place;
}

// Whether the bucket has to leave the wide node, or to grow outside of it, only because its room has been taken and
// much of what was there is gone.
template <typename Bits>
bool PrefixIndex<Bits>::needs_new_node(const Place& place, const Bucket& bucket) const {
  return place.in_wide && bucket.size > 0 && bucket.size == bucket.capacity() &&
         !place.in_wide->has_free_room(place.child) && bucket.live() < kRenewBelow;
}

template <typename Bits>
void PrefixIndex<Bits>::insert(Bits value, unsigned length, uint32_t subtable, const Rule* rule) {
  const Bits prefix = keep_leading(value, length);
  const Place place = find_place(prefix, length);
  const Bucket bucket(place.link->load(std::memory_order_relaxed));
  Entry* const entry = bucket.find(prefix, length);
  if (entry != nullptr) {
    const uint32_t rules = rules_of(entry->packed.load(std::memory_order_relaxed));
    entry->subtables.add(subtable, rules, rule);
    if (rules < kMaxRules) entry->packed.store(pack(rules + 1, length), std::memory_order_release);
    if (rules > 0) return;
  } else if (length >= place.depth && bucket.size == kMaxCapacity && bucket.live() == kMaxCapacity) {
    place.link->store(burst(bucket, place.depth), std::memory_order_release);
    retire_bucket(bucket);
    if (place.parent != nullptr) count_out(*place.parent, kMaxCapacity);
    return insert(value, length, subtable, rule);
  } else if (needs_new_node(place, bucket)) {
    rebuild(*place.parent, true);
    return insert(value, length, subtable, rule);
  } else {
    add_entry(place, prefix, length, subtable, rule);
  }
  if (place.parent != nullptr) count_in(*place.parent, prefix, length, place.depth - kStride);
}

// Takes away the bucket at the end of the path, and nodes above it that have nothing left. Returns whether the node
// right above it stays.
template <typename Bits>
bool PrefixIndex<Bits>::unlink(std::span<Link* const> path, Bits prefix, unsigned length) {
  path.back()->store(0, std::memory_order_release);
  for (size_t steps = path.size() - 1; steps > 0; --steps) {
    Link& parent = *path[steps - 1];
    const uintptr_t link = parent.load(std::memory_order_relaxed);
    const uintptr_t left = link & ~occupancy_of(prefix, length, static_cast<unsigned>(steps - 1) * kStride);
    const bool stays = (left & kOccupancy) != 0;
    parent.store(stays ? left : 0, std::memory_order_release);
    if (stays) return steps == path.size() - 1;
    retire_node(Node(link));
  }
  return false;
}

template <typename Bits>
void PrefixIndex<Bits>::remove(Bits value, unsigned length, uint32_t subtable) {
  const Bits prefix = keep_leading(value, length);
  std::array<Link*, kBits / kStride + 2> path{&root_};
  size_t steps = 0;
  unsigned depth = 0;
  for (; is_node(path[steps]->load(std::memory_order_relaxed)); depth += kStride, ++steps) {
    path[steps + 1] = &Node(path[steps]->load(std::memory_order_relaxed)).next(prefix, length, depth);
  }
  const Bucket bucket(path[steps]->load(std::memory_order_relaxed));
  Entry* entry = bucket.find(prefix, length);
  if (entry == nullptr) return;
  const uint32_t rules = rules_of(entry->packed.load(std::memory_order_relaxed));
  if (rules == 0 || rules == kMaxRules) return;
  entry->packed.store(pack(rules - 1, length), std::memory_order_release);
  entry->subtables.remove(subtable, rules);
  if (rules > 1) return;
  if (bucket.live() == 0) {
    const bool node_stays = unlink(std::span(path).first(steps + 1), prefix, length);
    retire_bucket(bucket);
    if (!node_stays) return;
  }
  if (steps > 0 && length >= depth) count_out(*path[steps - 1], 1);
}

template <typename Bits>
void PrefixIndex<Bits>::Lookup::visit(uintptr_t link) {
  if (link == 0) return;
  const Bucket bucket(link);
  if (!bucket.is_inside) bucket.fetch();
  buckets_[n_buckets_++] = link;
}

template <typename Bits>
bool PrefixIndex<Bits>::Lookup::walk() {
  if (!is_node(link_)) {
    visit(link_);
    link_ = 0;
    return false;
  }
  const Node node(link_);
  if ((link_ & kHasOwn) != 0) {
    visit(node.own().load(std::memory_order_acquire));
    n_passed_ = n_buckets_;
  }
  const unsigned nibble = nibble_at(value_, depth_);
  if (!has_child(link_, nibble)) {
    const unsigned needed = bits_to_siblings(link_, nibble);
    if (needed != 0) decisive_ = depth_ + needed;
    link_ = 0;
    return false;
  }
  if (node.is_wide()) {
    node.fetch(nibble);
    waits_ = true;
    return false;
  }
  return descend(node.child(nibble));
}

// What decided so far are fewer bits: a node's own prefixes, and the siblings of what it has not, end before its
// children. The child may just have been taken away: then a bit too many decides, for this lookup.
template <typename Bits>
bool PrefixIndex<Bits>::Lookup::descend(const Link& child) {
  link_ = child.load(std::memory_order_acquire);
  depth_ += kStride;
  decisive_ = depth_;
  if ((link_ & (kNode | kHasOwn)) == (kNode | kHasOwn)) __builtin_prefetch(&Node(link_).own());
  return link_ != 0;
}

template <typename Bits>
void PrefixIndex<Bits>::Lookup::leave_wide_nodes() {
  while (std::exchange(waits_, false)) {
    if (!descend(Node(link_).child(nibble_at(value_, depth_)))) return;
    while (walk()) {
    }
  }
}

template <typename Bits>
void PrefixIndex<Bits>::Lookup::search(unsigned end) {
  while (n_searched_ < end) search(Bucket(buckets_[n_searched_++]));
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
void PrefixIndex<Bits>::Lookup::finish(std::span<uint64_t> subtables) {
  for (; n_finished_ < n_found_; ++n_finished_) SubtableSet::or_into(found_[n_finished_], subtables);
}

template class PrefixIndex<uint32_t>;
template class PrefixIndex<Uint128>;

}  // namespace vswitch
