#include "datapath/flow_table/flow_table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>

#include "datapath/base/rcu.h"
#include "datapath/flow/flow_mask.h"
#include "datapath/flow_table/flow_arena.h"
#include "datapath/flow_table/flow_implementation.h"
#include "datapath/flow_table/flow_index.h"
#include "datapath/flow_table/mask_pattern.h"
#include "datapath/flow_table/overflow_mask.h"

namespace vswitch {
namespace {

constexpr size_t kBatch = 32;
// The table counts as crowded when all but one in so many of its places are taken.
constexpr size_t kCrowdedShare = 16;

// Each thread counts hits in a cache line of its own; with more threads than shards, some share one and may lose a few.
constexpr size_t kHitShards = 16;
size_t hit_shard() {
  static std::atomic<size_t> threads{0};
  thread_local const size_t shard = threads.fetch_add(1, std::memory_order_relaxed) % kHitShards;
  return shard;
}

// From so many flows on, the flows of a subtable are not likely to be in the first-level cache: worth a prefetch.
constexpr size_t kPrefetchFrom = 64;

// A walk fetches the flow that is so many further on: forwarding threads write to flows meanwhile, and a line that
// another core has written to takes long to come.
constexpr size_t kVisitAhead = 12;

struct Subtable {
  Subtable(const FlowMask& m, uint64_t hash) : pattern(new MaskPattern(m)), mask(m), mask_hash(hash) {
    for (size_t i = 0; i < kFlowKeyWords; ++i) mask_bits += static_cast<size_t>(std::popcount(words(mask)[i]));
  }
  ~Subtable() { pattern->unref(); }
  Subtable(const Subtable&) = delete;
  Subtable& operator=(const Subtable&) = delete;

  Flow* find(uint32_t hash, const FlowKey& key) const {
    return flows.find(hash, [this, &key](const Flow& flow) {
      return pattern->matches(key, FlowImplementation::hot(flow), FlowImplementation::rest(flow));
    });
  }
  void count_hits(size_t shard, uint64_t n) {
    std::atomic<uint64_t>& counter = hits[shard].count;
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  uint64_t all_hits() const {
    uint64_t sum = 0;
    for (const auto& shard : hits) sum += shard.count.load(std::memory_order_relaxed);
    return sum;
  }

  const MaskPattern* const pattern;  // with a reference
  const FlowMask mask;
  const uint64_t mask_hash;
  size_t mask_bits = 0;
  FlowIndex flows;
  struct alignas(64) Hits {
    std::atomic<uint64_t> count{0};
  };
  std::array<Hits, kHitShards> hits;
  // Writer only.
  uint64_t hits_at_rerank = 0;
  uint64_t weight = 0;  // hits, halved with every rerank()
};

// Most-hit first. Immutable once published.
using SubtableOrder = std::vector<Subtable*>;

uint64_t hash_mask(const FlowMask& mask) {
  uint64_t h = hash_start();
  for (size_t i = 0; i < kFlowKeyWords; ++i) {
    if (words(mask)[i] != 0) h = hash_word(hash_word(h, i), words(mask)[i]);
  }
  return h;
}

// An identifier that the table makes says where its flow is: the low half is the hash of the masked key, by which the
// flow's subtable knows it, and half of the mask's, by which the subtable is found. So no index by identifier has to be
// kept: filling it in would cost as much memory, and as many cache misses, as the subtable. `mask_hash` is of the
// pattern's mask, `key_hash` the pattern's of the key.
Ufid make_ufid(const FlowKey& key, const MaskPattern& pattern, uint64_t mask_hash, uint32_t key_hash) {
  Ufid ufid{mask_hash, mask_hash << 32 | key_hash};
  const auto add = [&ufid](uint64_t value) { ufid.high = hash_word(ufid.high, value); };
  for (size_t i = 0; i < kHotWords; ++i) add(words(key)[i] & pattern.hot()[i]);
  for (const MaskPattern::Word& word : pattern.rest()) add(words(key)[word.index] & word.mask);
  if (ufid.is_zero()) ufid.high = 1;
  return ufid;
}

// To a counter that is only written under the table's lock.
template <typename Count>
void add(std::atomic<Count>& counter, int by) {
  counter.store(counter.load(std::memory_order_relaxed) + static_cast<Count>(by), std::memory_order_release);
}

uint32_t key_hash_in(const Ufid& ufid) { return static_cast<uint32_t>(ufid.low); }
// Of an identifier that the installer chose, of which either half may be the same for all.
uint32_t chosen_hash(const Ufid& ufid) { return hash_finish(hash_word(hash_word(hash_start(), ufid.high), ufid.low)); }
bool may_name_mask(const Ufid& ufid, uint64_t mask_hash) {
  return static_cast<uint32_t>(ufid.low >> 32) == static_cast<uint32_t>(mask_hash);
}

}  // namespace

struct FlowTable::Implementation {
  Implementation(const Clock& c, size_t most_flows, size_t most_masks, std::atomic<size_t>& masks)
      : clock(c), max_masks(std::clamp<size_t>(most_masks, 1, kMaxMasks)), max_flows(most_flows), mask_count(masks) {}
  ~Implementation() {
    for (const Subtable* subtable : *order.load(std::memory_order_relaxed)) delete subtable;
    delete order.load(std::memory_order_relaxed);
  }

  Subtable* find_subtable(const FlowMask& mask, uint64_t hash) const REQUIRES(mutex);
  // The subtable for flows that need `mask`: its own, or one that looks at more when there are enough masks.
  Subtable* subtable_for(const FlowMask& mask, Subtable* guess) REQUIRES(mutex);
  Subtable* choose_subtable(const FlowMask& mask) REQUIRES(mutex);
  Subtable* narrowest_fit(const FlowMask& mask) const REQUIRES(mutex);
  Subtable* make_subtable(const FlowMask& mask, uint64_t hash) REQUIRES(mutex);
  void publish(SubtableOrder next) REQUIRES(mutex);
  Flow* find_ufid(const Ufid& ufid) const;  // RCU readers, or with the lock
  Flow* find_chosen(const Ufid& ufid) const {
    if (by_chosen_ufid.size() == 0) return nullptr;
    return by_chosen_ufid.find(chosen_hash(ufid), [&ufid](const Flow& flow) { return flow.ufid() == ufid; });
  }
  // Calls visit for every flow until it returns false. RCU readers.
  template <typename Visit>
  void for_each(Visit&& visit) const;
  Insertion::Refusal insert(Drafts& drafts, size_t i) REQUIRES(mutex);
  void link(Subtable& subtable, Flow* flow, uint32_t key_hash) REQUIRES(mutex);
  void unlink(Flow* flow) REQUIRES(mutex);
  // Returns those that were there.
  Flow::ActionsRef replace_actions(Flow& flow, Flow::ActionsRef actions) REQUIRES(mutex);
  void drop_subtable(Subtable* subtable) REQUIRES(mutex);
  // How many flows that are not shallow there are of the port that the flow names, or of any.
  std::atomic<uint32_t>& deep_flows_like(const Flow& flow) {
    uint32_t in_port = 0, mask = 0;
    std::memcpy(&in_port, FlowImplementation::hot(flow), sizeof in_port);
    std::memcpy(&mask, FlowImplementation::pattern(flow).hot().data(), sizeof mask);
    return mask == ~0u && in_port < kMaxPorts ? deep_flows_of_port[in_port] : deep_flows_of_any;
  }

  bool full() const { return flow_count.load(std::memory_order_relaxed) >= max_flows.load(std::memory_order_relaxed); }

  // What lookups read is apart from what every insertion writes.
  const Clock& clock;
  const size_t max_masks;
  std::atomic<size_t> max_flows;
  std::atomic<const SubtableOrder*> order{new SubtableOrder};
  std::atomic<uint64_t> generation{0};
  std::atomic<size_t>& mask_count;
  std::atomic<uint64_t> narrowed{0};
  std::atomic<uint32_t> deep_flows_of_any{0};
  std::vector<std::atomic<uint32_t>> deep_flows_of_port = std::vector<std::atomic<uint32_t>>(kMaxPorts);
  // Outlives the table while flows that were removed wait for their end.
  const std::shared_ptr<FlowArena> arena = std::make_shared<FlowArena>();
  // By an insertion: others of the same kind tend to follow. Written under the lock; RCU readers.
  std::atomic<Subtable*> last_used{nullptr};

  alignas(64) std::atomic<size_t> flow_count{0};  // written under the lock
  FlowIndex by_chosen_ufid;                       // flows whose identifiers the installer chose
  mutable Mutex mutex;                            // writers
  std::unordered_multimap<uint64_t, Subtable*> by_mask GUARDED_BY(mutex);
  std::unordered_map<const MaskPattern*, Subtable*> by_pattern GUARDED_BY(mutex);
  size_t ordinary_masks GUARDED_BY(mutex) = 0;  // the overflow masks are not counted
  size_t flow_bytes GUARDED_BY(mutex) = 0;
};

static_assert(offsetof(FlowKey, in_port) == 0, "deep_flows_like() reads it from the first hot word");

Subtable* FlowTable::Implementation::find_subtable(const FlowMask& mask, uint64_t hash) const {
  auto [at, end] = by_mask.equal_range(hash);
  for (; at != end; ++at) {
    if (at->second->mask == mask) return at->second;
  }
  return nullptr;
}

Subtable* FlowTable::Implementation::make_subtable(const FlowMask& mask, uint64_t hash) {
  auto* subtable = new Subtable(mask, hash);
  by_mask.emplace(hash, subtable);
  by_pattern.emplace(subtable->pattern, subtable);
  if (!is_overflow_mask(mask)) ++ordinary_masks;
  return subtable;
}

// Of the masks that are there and look at everything that `mask` does: the one that looks at the least else.
Subtable* FlowTable::Implementation::narrowest_fit(const FlowMask& mask) const {
  Subtable* best = nullptr;
  size_t best_bits = ~size_t{0};
  for (const auto& [hash, subtable] : by_mask) {
    if (subtable->mask_bits >= best_bits || !mask_contains(subtable->mask, mask)) continue;
    best = subtable;
    best_bits = subtable->mask_bits;
  }
  return best;
}

// `guess` has the mask if it is still there.
Subtable* FlowTable::Implementation::subtable_for(const FlowMask& mask, Subtable* guess) {
  Subtable* const last = last_used.load(std::memory_order_relaxed);
  if (last != nullptr && (last == guess || last->mask == mask)) return last;
  Subtable* const chosen = choose_subtable(mask);
  last_used.store(chosen, std::memory_order_release);
  return chosen;
}

Subtable* FlowTable::Implementation::choose_subtable(const FlowMask& mask) {
  const uint64_t hash = hash_mask(mask);
  if (Subtable* subtable = find_subtable(mask, hash)) return subtable;
  if (ordinary_masks < max_masks || is_overflow_mask(mask)) return make_subtable(mask, hash);
  narrowed.fetch_add(1, std::memory_order_relaxed);
  if (Subtable* subtable = narrowest_fit(mask)) return subtable;
  const FlowMask& overflow = overflow_mask_for(mask);
  return make_subtable(overflow, hash_mask(overflow));
}

void FlowTable::Implementation::publish(SubtableOrder next) {
  mask_count.store(next.size(), std::memory_order_relaxed);
  const SubtableOrder* old = order.exchange(new SubtableOrder(std::move(next)), std::memory_order_acq_rel);
  rcu::retire_delete(old);
}

void FlowTable::Implementation::drop_subtable(Subtable* subtable) {
  if (last_used.load(std::memory_order_relaxed) == subtable) last_used.store(nullptr, std::memory_order_relaxed);
  auto [at, end] = by_mask.equal_range(subtable->mask_hash);
  while (at != end && at->second != subtable) ++at;
  by_mask.erase(at);
  by_pattern.erase(subtable->pattern);
  if (!is_overflow_mask(subtable->mask)) --ordinary_masks;
  SubtableOrder next = *order.load(std::memory_order_relaxed);
  std::erase(next, subtable);
  publish(std::move(next));
  rcu::retire_delete(subtable);
}

Flow* FlowTable::Implementation::find_ufid(const Ufid& ufid) const {
  const auto is_it = [&ufid](const Flow& flow) { return flow.ufid() == ufid; };
  for (const Subtable* subtable : *order.load(std::memory_order_acquire)) {
    if (!may_name_mask(ufid, subtable->mask_hash)) continue;
    if (Flow* flow = subtable->flows.find(key_hash_in(ufid), is_it)) return flow;
  }
  return find_chosen(ufid);
}

template <typename Visit>
void FlowTable::Implementation::for_each(Visit&& visit) const {
  bool more = true;
  for (const Subtable* subtable : *order.load(std::memory_order_acquire)) {
    subtable->flows.for_each([&](Flow& flow) { return more = visit(flow); });
    if (!more) return;
  }
}

void FlowTable::Implementation::link(Subtable& subtable, Flow* flow, uint32_t key_hash) {
  // Before the flow can be found: no reader may take a packet that it matches for one of a port with shallow flows
  // only.
  if (!FlowImplementation::shallow(*flow)) add(deep_flows_like(*flow), 1);
  FlowImplementation::publish(*flow);
  const bool first = subtable.flows.size() == 0;
  subtable.flows.insert(key_hash, flow);
  if (first) {
    SubtableOrder next = *order.load(std::memory_order_relaxed);
    next.push_back(&subtable);
    publish(std::move(next));
  }
  flow_bytes += FlowArena::flow_bytes(subtable.pattern->rest().size());
  add(flow_count, 1);
}

// The counter of deep flows is asked for by every batch of packets, so it is left alone where it says the same after
// as before.
Flow::ActionsRef FlowTable::Implementation::replace_actions(Flow& flow, Flow::ActionsRef actions) {
  const bool was_shallow = FlowImplementation::shallow(flow);
  const bool is_shallow = FlowImplementation::shallow_with(flow, actions);
  if (was_shallow && !is_shallow) add(deep_flows_like(flow), 1);
  Flow::ActionsRef old = FlowImplementation::set_actions(flow, std::move(actions));
  if (!was_shallow && is_shallow) add(deep_flows_like(flow), -1);
  return old;
}

void FlowTable::Implementation::unlink(Flow* flow) {
  Subtable* subtable = by_pattern.at(&FlowImplementation::pattern(*flow));
  subtable->flows.remove(subtable->pattern->hash(flow->key()), flow);
  if (find_chosen(flow->ufid()) == flow) by_chosen_ufid.remove(chosen_hash(flow->ufid()), flow);
  if (!FlowImplementation::shallow(*flow)) add(deep_flows_like(*flow), -1);
  flow_bytes -= FlowArena::flow_bytes(subtable->pattern->rest().size());
  add(flow_count, -1);
  if (subtable->flows.size() == 0) drop_subtable(subtable);
}

FlowTable::FlowTable(const Clock& clock, size_t max_flows, size_t max_masks)
    : impl_(std::make_unique<Implementation>(clock, max_flows, max_masks, mask_count_)) {}

FlowTable::~FlowTable() {
  clear();
  rcu::retire_delete(impl_.release());
}

Flow* FlowTable::lookup(const FlowKey& key, uint32_t* masks_visited) const {
  const SubtableOrder& order = *impl_->order.load(std::memory_order_acquire);
  uint32_t visited = 0;
  Flow* found = nullptr;
  for (Subtable* subtable : order) {
    ++visited;
    found = subtable->find(subtable->pattern->hash(key), key);
    if (found == nullptr) continue;
    subtable->count_hits(hit_shard(), 1);
    break;
  }
  if (masks_visited != nullptr) *masks_visited += visited;
  return found;
}

namespace {

// One subtable against the keys that have no flow yet (`missing`, a bit each): first all hashes, so that the slots are
// on their way from memory while the next key is hashed; then the flows that the slots name, on their way likewise;
// then the comparisons. Returns who is still missing.
uint32_t find_in_subtable(Subtable& subtable, const FlowKey* const keys[], uint32_t missing, Flow* flows[]) {
  uint32_t hashes[kBatch];
  const bool large = subtable.flows.size() >= kPrefetchFrom;
  for (uint32_t left = missing; left != 0; left &= left - 1) {
    const auto i = static_cast<unsigned>(std::countr_zero(left));
    hashes[i] = subtable.pattern->hash(*keys[i]);
    if (large) subtable.flows.prefetch(hashes[i]);
  }
  uint32_t possible = 0;
  for (uint32_t left = missing; left != 0; left &= left - 1) {
    const auto i = static_cast<unsigned>(std::countr_zero(left));
    bool nowhere = false;
    const Flow* flow = subtable.flows.peek(hashes[i], &nowhere);
    if (flow != nullptr && large) flow->prefetch();
    possible |= static_cast<uint32_t>(!nowhere) << i;
  }
  uint32_t found = 0;
  for (uint32_t left = possible; left != 0; left &= left - 1) {
    const auto i = static_cast<unsigned>(std::countr_zero(left));
    Flow* flow = subtable.find(hashes[i], *keys[i]);
    if (flow == nullptr) continue;
    flows[i] = flow;
    found |= uint32_t{1} << i;
  }
  if (found != 0) subtable.count_hits(hit_shard(), static_cast<uint64_t>(std::popcount(found)));
  return missing & ~found;
}

}  // namespace

uint32_t FlowTable::find_batch(const FlowKey* const keys[], uint32_t wanted, Flow* flows[],
                               uint32_t* masks_visited) const {
  const SubtableOrder& order = *impl_->order.load(std::memory_order_acquire);
  uint32_t visited = 0, missing = wanted;
  for (Subtable* subtable : order) {
    if (missing == 0) break;
    visited += static_cast<uint32_t>(std::popcount(missing));
    missing = find_in_subtable(*subtable, keys, missing, flows);
  }
  if (masks_visited != nullptr) *masks_visited += visited;
  return wanted & ~missing;
}

void FlowTable::lookup_batch(const FlowKey* const keys[], size_t n, Flow* flows[], uint32_t* masks_visited) const {
  std::fill_n(flows, n, nullptr);
  for (size_t from = 0; from < n; from += kBatch) {
    const size_t count = std::min(kBatch, n - from);
    const uint32_t wanted = count == kBatch ? ~uint32_t{0} : (uint32_t{1} << count) - 1;
    find_batch(keys + from, wanted, flows + from, masks_visited);
  }
}

// Flows that are about to be inserted: all that can be done for them without the lock, which threads that set up flows
// at the same time would wait for. Gives back those that were not taken.
class FlowTable::Drafts {
 public:
  Drafts(Implementation& table, std::span<Insertion> flows)
      : table_(table), insertions_(flows), created_(table.clock.now()) {
    std::fill_n(drafts_.begin(), flows.size(), Draft{});
  }
  ~Drafts() {
    for (size_t i = 0; i < insertions_.size(); ++i) give_back(i);
    while (memory_left_ != 0) table_.arena->give_back(memory_[--memory_left_]);
  }
  Drafts(const Drafts&) = delete;
  Drafts& operator=(const Drafts&) = delete;

  // Those that have its mask.
  void make_those_for(Subtable& subtable) {
    const auto fits = [&subtable](const Insertion& insertion) { return subtable.mask == *insertion.mask; };
    uint32_t fitting = 0;
    for (size_t i = 0; i < insertions_.size(); ++i) fitting |= uint32_t{fits(insertions_[i])} << i;
    const auto count = static_cast<size_t>(std::popcount(fitting));
    if (count == 0) return;
    subtable.flows.prepare_room();
    table_.arena->take(subtable.pattern->rest().size(), {memory_.data(), count});
    memory_left_ = count;
    subtable.pattern->ref(static_cast<uint32_t>(count));
    for (uint32_t left = fitting; left != 0; left &= left - 1) {
      const auto i = static_cast<size_t>(std::countr_zero(left));
      fill_in(i, subtable, memory_[--memory_left_]);
      subtable.flows.prefetch(drafts_[i].key_hash);
    }
  }
  // For that subtable, whatever it was made for before.
  void make_for(size_t i, Subtable& subtable) {
    if (drafts_[i].subtable == &subtable) return;
    give_back(i);
    Flow* memory = nullptr;
    table_.arena->take(subtable.pattern->rest().size(), {&memory, 1});
    subtable.pattern->ref();
    fill_in(i, subtable, memory);
  }
  Insertion& insertion(size_t i) { return insertions_[i]; }
  // That it was made for. Null: not made yet.
  Subtable* subtable(size_t i) const { return drafts_[i].subtable; }
  uint32_t key_hash(size_t i) const { return drafts_[i].key_hash; }
  const Ufid& ufid(size_t i) const { return drafts_[i].flow->ufid(); }
  Flow* take(size_t i) { return insertions_[i].flow = std::exchange(drafts_[i].flow, nullptr); }

 private:
  struct Draft {
    Flow* flow;
    Subtable* subtable;
    uint32_t key_hash;
  };

  // `memory` takes over a reference to the subtable's pattern.
  void fill_in(size_t i, Subtable& subtable, Flow* memory) {
    Insertion& insertion = insertions_[i];
    const uint32_t key_hash = subtable.pattern->hash(*insertion.key);
    Flow& flow = FlowImplementation::fill_in(memory, *subtable.pattern, *insertion.key);
    flow.ufid_ = insertion.ufid.is_zero() ? make_ufid(*insertion.key, *subtable.pattern, subtable.mask_hash, key_hash)
                                          : insertion.ufid;
    flow.created_ = created_;
    flow.set_installer_bits(insertion.installer_bits);
    flow.installer_data_ = std::move(*insertion.installer_data);
    FlowImplementation::give_actions(flow, std::move(*insertion.actions));
    FlowImplementation::begin_with(flow, insertion.stats);
    drafts_[i] = {&flow, &subtable, key_hash};
  }
  void give_back(size_t i) {
    Flow* flow = std::exchange(drafts_[i].flow, nullptr);
    if (flow == nullptr) return;
    *insertions_[i].installer_data = std::move(flow->installer_data_);
    *insertions_[i].actions = std::move(flow->actions_owner_);
    FlowImplementation::recycle(*table_.arena, flow);
  }

  Implementation& table_;
  const std::span<Insertion> insertions_;
  const Nanoseconds created_;
  std::array<Draft, kInsertTogether> drafts_;  // as many as there are insertions
  std::array<Flow*, kInsertTogether> memory_;
  size_t memory_left_ = 0;
};

FlowTable::Insertion::Refusal FlowTable::Implementation::insert(Drafts& drafts, size_t i) {
  const Insertion& insertion = drafts.insertion(i);
  if (full()) return Insertion::Refusal::full;
  Subtable* subtable = subtable_for(*insertion.mask, drafts.subtable(i));
  drafts.make_for(i, *subtable);
  const bool chosen = !insertion.ufid.is_zero();
  auto refusal = Insertion::Refusal::none;
  if (subtable->find(drafts.key_hash(i), *insertion.key) != nullptr) {
    refusal = Insertion::Refusal::exists;
  } else if ((chosen ? find_ufid(insertion.ufid) : find_chosen(drafts.ufid(i))) != nullptr) {
    // One of the table's own differs from all others of its own, as far as their hashes tell.
    refusal = Insertion::Refusal::ufid_exists;
  }
  if (refusal != Insertion::Refusal::none) {
    if (subtable->flows.size() == 0) drop_subtable(subtable);
    return refusal;
  }
  Flow* flow = drafts.take(i);
  if (chosen) by_chosen_ufid.insert(chosen_hash(insertion.ufid), flow);
  link(*subtable, flow, drafts.key_hash(i));
  return refusal;
}

void FlowTable::insert(std::span<Insertion> flows) {
  while (!flows.empty()) {
    const size_t count = std::min(flows.size(), kInsertTogether);
    insert_together(flows.first(count));
    flows = flows.subspan(count);
  }
}

void FlowTable::insert_together(std::span<Insertion> flows) {
  const rcu::ReaderScope reader;
  Drafts drafts(*impl_, flows);
  // A table that stays full is not locked for each miss.
  if (full()) {
    for (Insertion& flow : flows) flow.refusal = Insertion::Refusal::full;
    return;
  }
  if (Subtable* guess = impl_->last_used.load(std::memory_order_acquire)) drafts.make_those_for(*guess);
  AwakeMutexLock lock(impl_->mutex);
  for (size_t i = 0; i < flows.size(); ++i) flows[i].refusal = impl_->insert(drafts, i);
}

Result<Flow*> FlowTable::insert(const FlowKey& key, const FlowMask& mask, Flow::ActionsRef actions, Ufid ufid,
                                std::shared_ptr<void> installer_data, uint16_t installer_bits) {
  Insertion one{&key, &mask, &actions, &installer_data, installer_bits, ufid, {}};
  insert_together({&one, 1});
  switch (one.refusal) {
    case Insertion::Refusal::none:
      break;
    case Insertion::Refusal::full:
      return resource_exhausted("the flow table is full: " + std::to_string(max_flows()) + " flows");
    case Insertion::Refusal::exists:
      return already_exists("a flow with this key and mask exists");
    case Insertion::Refusal::ufid_exists:
      return already_exists("a flow with this ufid exists", "ufid");
  }
  return one.flow;
}

void FlowTable::set_max_flows(size_t max_flows) { impl_->max_flows.store(max_flows, std::memory_order_relaxed); }
bool FlowTable::full() const { return impl_->full(); }
size_t FlowTable::max_flows() const { return impl_->max_flows.load(std::memory_order_relaxed); }

bool FlowTable::crowded() const {
  const size_t most = max_flows();
  return impl_->flow_count.load(std::memory_order_relaxed) >= most - most / kCrowdedShare;
}

bool FlowTable::set_actions(const Ufid& ufid, ActionList actions) {
  Flow::ActionsRef next = Flow::make_actions(std::move(actions));
  MutexLock lock(impl_->mutex);
  Flow* flow = impl_->find_ufid(ufid);
  if (flow == nullptr) return false;
  rcu::retire([old = impl_->replace_actions(*flow, std::move(next))] {});
  return true;
}

void FlowTable::set_actions(std::span<NewActions> flows) {
  while (!flows.empty()) {
    MutexLock lock(impl_->mutex);
    const size_t count = std::min(flows.size(), kSetTogether);
    for (NewActions& change : flows.first(count)) {
      if (!change.flow->dead()) change.actions = impl_->replace_actions(*change.flow, std::move(change.actions));
    }
    flows = flows.subspan(count);
  }
}

// The table's own reference goes to the caller; a flow is recycled a grace period after the last reference has gone,
// and not before a grace period has passed since it was unlinked.
std::shared_ptr<const Flow> FlowTable::remove(const Ufid& ufid) {
  MutexLock lock(impl_->mutex);
  Flow* flow = impl_->find_ufid(ufid);
  if (flow == nullptr) return nullptr;
  impl_->unlink(flow);
  FlowImplementation::kill(*flow);
  impl_->generation.fetch_add(1, std::memory_order_release);
  const auto unref = [arena = impl_->arena](Flow* f) {
    if (!FlowImplementation::unref(*f)) return;
    rcu::retire([arena, f] { FlowImplementation::recycle(*arena, f); });
  };
  return {flow, [unref](const Flow* f) { unref(const_cast<Flow*>(f)); }};
}

void FlowTable::clear() {
  const rcu::ReaderScope reader;
  std::vector<Ufid> all;
  impl_->for_each([&all](const Flow& flow) {
    all.push_back(flow.ufid());
    return true;
  });
  for (const Ufid& ufid : all) remove(ufid);
}

bool FlowTable::visit(FlowCursor& cursor, size_t most, const std::function<void(Flow&)>& visit,
                      const HotWords& without) const {
  const rcu::ReaderScope reader;
  std::array<Flow*, kVisitAhead> coming{};  // their second lines are on their way
  size_t next = 0;
  const auto take = [&](Flow* flow) {
    std::swap(flow, coming[next]);
    next = (next + 1) % kVisitAhead;
    if (flow != nullptr && !flow->dead()) visit(*flow);
  };
  const auto take_those_coming = [&] {
    for (size_t i = 0; i < kVisitAhead; ++i) take(nullptr);
  };
  while (most > 0) {
    const FlowArena::Run run = impl_->arena->next_run(cursor, most);
    if (run.first == nullptr) {
      take_those_coming();
      return false;
    }
    auto* at = reinterpret_cast<uint8_t*>(run.first);
    for (size_t i = 0; i < run.count; ++i, at += run.size) {
      auto* flow = reinterpret_cast<Flow*>(at);
      // Behind the run's end it is a hint that comes to nothing.
      __builtin_prefetch(at + kVisitAhead * run.size);
      if (flow->has_any_of(without)) continue;
      __builtin_prefetch(at + 64);
      take(flow);
    }
    most -= run.count;
  }
  take_those_coming();
  return true;
}

void FlowTable::for_each(const std::function<bool(Flow&)>& visit) const {
  const rcu::ReaderScope reader;
  impl_->for_each([&visit](Flow& flow) { return flow.dead() || visit(flow); });
}

Flow* FlowTable::find(const Ufid& ufid) const { return impl_->find_ufid(ufid); }

FlowTable::Counters FlowTable::counters() const {
  return {impl_->flow_count.load(std::memory_order_relaxed), mask_count(),
          impl_->narrowed.load(std::memory_order_relaxed)};
}

uint64_t FlowTable::generation() const { return impl_->generation.load(std::memory_order_acquire); }

bool FlowTable::only_shallow_flows(uint32_t in_port) const {
  return in_port < kMaxPorts && impl_->deep_flows_of_port[in_port].load(std::memory_order_acquire) == 0 &&
         impl_->deep_flows_of_any.load(std::memory_order_acquire) == 0;
}

void FlowTable::prepare() { impl_->arena->prepare(); }

void FlowTable::rerank() {
  MutexLock lock(impl_->mutex);
  SubtableOrder next = *impl_->order.load(std::memory_order_relaxed);
  for (Subtable* subtable : next) {
    const uint64_t hits = subtable->all_hits();
    subtable->weight = subtable->weight / 2 + (hits - subtable->hits_at_rerank);
    subtable->hits_at_rerank = hits;
  }
  const auto heavier = [](const Subtable* a, const Subtable* b) { return a->weight > b->weight; };
  if (std::is_sorted(next.begin(), next.end(), heavier)) return;
  std::stable_sort(next.begin(), next.end(), heavier);
  impl_->publish(std::move(next));
}

size_t FlowTable::memory_bytes() const {
  MutexLock lock(impl_->mutex);
  size_t bytes = sizeof(Implementation) + impl_->by_chosen_ufid.memory_bytes() + impl_->flow_bytes;
  for (const auto& [hash, subtable] : impl_->by_mask) {
    bytes += sizeof(Subtable) + subtable->flows.memory_bytes() + subtable->pattern->memory_bytes();
  }
  return bytes;
}

std::vector<FlowTable::MaskInfo> FlowTable::masks() const {
  MutexLock lock(impl_->mutex);
  std::vector<MaskInfo> masks;
  for (const Subtable* subtable : *impl_->order.load(std::memory_order_relaxed)) {
    masks.push_back({subtable->mask, subtable->flows.size(), subtable->all_hits()});
  }
  return masks;
}

}  // namespace vswitch
