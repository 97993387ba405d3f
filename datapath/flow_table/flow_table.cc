#include "datapath/flow_table/flow_table.h"

#include <algorithm>
#include <bit>
#include <string>
#include <unordered_map>
#include <utility>

#include "datapath/base/rcu.h"
#include "datapath/flow/flow_mask.h"
#include "datapath/flow_table/flow_implementation.h"
#include "datapath/flow_table/flow_index.h"
#include "datapath/flow_table/mask_pattern.h"

namespace vswitch {
namespace {

constexpr size_t kBatch = 32;

// Each thread counts hits in a cache line of its own; with more threads than shards, some share one and may lose a few.
constexpr size_t kHitShards = 16;
size_t hit_shard() {
  static std::atomic<size_t> threads{0};
  thread_local const size_t shard = threads.fetch_add(1, std::memory_order_relaxed) % kHitShards;
  return shard;
}

uint32_t ufid_hash(const Ufid& ufid) { return static_cast<uint32_t>(ufid.low ^ ufid.high >> 32); }

struct Subtable {
  explicit Subtable(const FlowMask& mask) : pattern(std::make_shared<const MaskPattern>(mask)) {}

  Flow* find(uint32_t hash, const FlowKey& key) const {
    return flows.find(
        hash, [this, &key](const Flow& flow) { return pattern->matches(key, FlowImplementation::values(flow)); });
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

  const std::shared_ptr<const MaskPattern> pattern;
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

Ufid make_ufid(const FlowKey& masked_key, const FlowMask& mask) {
  Ufid ufid{hash_mask(mask), ~hash_start()};
  for (size_t i = 0; i < kFlowKeyWords; ++i) {
    if (words(mask)[i] == 0) continue;
    ufid.high = hash_word(ufid.high, words(masked_key)[i]);
    ufid.low = hash_word(hash_word(ufid.low, words(mask)[i] + i), words(masked_key)[i]);
  }
  if (ufid.is_zero()) ufid.low = 1;
  return ufid;
}

}  // namespace

struct FlowTable::Implementation {
  Implementation(const Clock& c, size_t max) : clock(c), max_flows(max) {}
  ~Implementation() {
    by_ufid.for_each([](Flow& flow) {
      FlowImplementation::destroy(&flow);
      return true;
    });
    for (const Subtable* subtable : *order.load(std::memory_order_relaxed)) delete subtable;
    delete order.load(std::memory_order_relaxed);
  }

  Subtable* find_subtable(const FlowMask& mask, uint64_t hash) const REQUIRES(mutex);
  void publish(SubtableOrder next) REQUIRES(mutex);
  Flow* find_ufid(const Ufid& ufid) const {
    return by_ufid.find(ufid_hash(ufid), [&ufid](const Flow& flow) { return flow.ufid() == ufid; });
  }
  void unlink(Flow* flow) REQUIRES(mutex);
  void drop_subtable(Subtable* subtable, uint64_t hash) REQUIRES(mutex);

  const Clock& clock;
  std::atomic<size_t> max_flows;
  std::atomic<const SubtableOrder*> order{new SubtableOrder};
  FlowIndex by_ufid;
  std::atomic<uint64_t> generation{0};
  std::atomic<size_t> flow_count{0}, mask_count{0};

  mutable Mutex mutex;  // writers
  std::unordered_multimap<uint64_t, Subtable*> by_mask GUARDED_BY(mutex);
  size_t flow_bytes GUARDED_BY(mutex) = 0;
};

Subtable* FlowTable::Implementation::find_subtable(const FlowMask& mask, uint64_t hash) const {
  auto [at, end] = by_mask.equal_range(hash);
  for (; at != end; ++at) {
    if (at->second->pattern->expand() == mask) return at->second;
  }
  return nullptr;
}

void FlowTable::Implementation::publish(SubtableOrder next) {
  mask_count.store(next.size(), std::memory_order_relaxed);
  const SubtableOrder* old = order.exchange(new SubtableOrder(std::move(next)), std::memory_order_acq_rel);
  rcu::retire_delete(old);
}

void FlowTable::Implementation::drop_subtable(Subtable* subtable, uint64_t hash) {
  auto [at, end] = by_mask.equal_range(hash);
  while (at != end && at->second != subtable) ++at;
  by_mask.erase(at);
  SubtableOrder next = *order.load(std::memory_order_relaxed);
  std::erase(next, subtable);
  publish(std::move(next));
  rcu::retire_delete(subtable);
}

void FlowTable::Implementation::unlink(Flow* flow) {
  const FlowMask mask = flow->mask();
  const uint64_t mask_hash = hash_mask(mask);
  Subtable* subtable = find_subtable(mask, mask_hash);
  subtable->flows.remove(subtable->pattern->hash(flow->key()), flow);
  by_ufid.remove(ufid_hash(flow->ufid()), flow);
  flow_bytes -= FlowImplementation::memory_bytes(*flow);
  flow_count.fetch_sub(1, std::memory_order_relaxed);
  if (subtable->flows.size() == 0) drop_subtable(subtable, mask_hash);
}

FlowTable::FlowTable(const Clock& clock, size_t max_flows)
    : impl_(std::make_unique<Implementation>(clock, max_flows)) {}

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
// on their way from memory while the next key is hashed, then the comparisons. Returns who is still missing.
uint32_t find_batch(Subtable& subtable, const FlowKey* const keys[], uint32_t missing, Flow* flows[]) {
  uint32_t hashes[kBatch];
  for (uint32_t left = missing; left != 0; left &= left - 1) {
    const auto i = static_cast<unsigned>(std::countr_zero(left));
    hashes[i] = subtable.pattern->hash(*keys[i]);
    subtable.flows.prefetch(hashes[i]);
  }
  uint32_t found = 0;
  for (uint32_t left = missing; left != 0; left &= left - 1) {
    const auto i = static_cast<unsigned>(std::countr_zero(left));
    flows[i] = subtable.find(hashes[i], *keys[i]);
    if (flows[i] != nullptr) found |= uint32_t{1} << i;
  }
  if (found != 0) subtable.count_hits(hit_shard(), static_cast<uint64_t>(std::popcount(found)));
  return missing & ~found;
}

}  // namespace

void FlowTable::lookup_batch(const FlowKey* const keys[], size_t n, Flow* flows[], uint32_t* masks_visited) const {
  std::fill_n(flows, n, nullptr);
  const SubtableOrder& order = *impl_->order.load(std::memory_order_acquire);
  uint32_t visited = 0;
  for (size_t from = 0; from < n; from += kBatch) {
    const size_t count = std::min(kBatch, n - from);
    uint32_t missing = count == kBatch ? ~uint32_t{0} : (uint32_t{1} << count) - 1;
    for (Subtable* subtable : order) {
      visited += static_cast<uint32_t>(std::popcount(missing));
      missing = find_batch(*subtable, keys + from, missing, flows + from);
      if (missing == 0) break;
    }
  }
  if (masks_visited != nullptr) *masks_visited += visited;
}

Result<Flow*> FlowTable::insert(const FlowKey& key, const FlowMask& mask, ActionList actions, Ufid ufid,
                                std::shared_ptr<void> installer_data) {
  const FlowKey masked_key = masked(key, mask);
  if (ufid.is_zero()) ufid = make_ufid(masked_key, mask);
  const uint64_t mask_hash = hash_mask(mask);

  MutexLock lock(impl_->mutex);
  Subtable* subtable = impl_->find_subtable(mask, mask_hash);
  if (subtable != nullptr && subtable->find(subtable->pattern->hash(masked_key), masked_key) != nullptr) {
    return already_exists("a flow with this key and mask exists");
  }
  if (impl_->find_ufid(ufid) != nullptr) return already_exists("a flow with this ufid exists", "ufid");
  const size_t max_flows = impl_->max_flows.load(std::memory_order_relaxed);
  if (impl_->flow_count.load(std::memory_order_relaxed) >= max_flows) {
    return resource_exhausted("the flow table is full: " + std::to_string(max_flows) + " flows");
  }
  const bool new_mask = subtable == nullptr;
  if (new_mask) subtable = impl_->by_mask.emplace(mask_hash, new Subtable(mask))->second;

  Flow* flow = FlowImplementation::make(subtable->pattern, masked_key);
  flow->ufid_ = ufid;
  flow->created_ = impl_->clock.now();
  flow->installer_data = std::move(installer_data);
  FlowImplementation::set_actions(*flow, std::move(actions));
  impl_->by_ufid.insert(ufid_hash(ufid), flow);
  subtable->flows.insert(subtable->pattern->hash(masked_key), flow);
  if (new_mask) {
    SubtableOrder next = *impl_->order.load(std::memory_order_relaxed);
    next.push_back(subtable);
    impl_->publish(std::move(next));
  }
  impl_->flow_bytes += FlowImplementation::memory_bytes(*flow);
  impl_->flow_count.fetch_add(1, std::memory_order_relaxed);
  return flow;
}

void FlowTable::set_max_flows(size_t max_flows) { impl_->max_flows.store(max_flows, std::memory_order_relaxed); }

bool FlowTable::set_actions(const Ufid& ufid, ActionList actions) {
  MutexLock lock(impl_->mutex);
  Flow* flow = impl_->find_ufid(ufid);
  if (flow == nullptr) return false;
  FlowImplementation::set_actions(*flow, std::move(actions));
  return true;
}

// The table's own reference goes to the caller; FlowImplementation::destroy() is always a grace period away from here.
std::shared_ptr<const Flow> FlowTable::remove(const Ufid& ufid) {
  MutexLock lock(impl_->mutex);
  Flow* flow = impl_->find_ufid(ufid);
  if (flow == nullptr) return nullptr;
  impl_->unlink(flow);
  flow->dead_.store(true, std::memory_order_release);
  impl_->generation.fetch_add(1, std::memory_order_release);
  // A reader may be about to put the flow into its cache, so this reference lasts until all of them have moved on.
  flow->ref();
  rcu::retire([flow] { flow->unref(); });
  return {flow, [](const Flow* f) { const_cast<Flow*>(f)->unref(); }};
}

void FlowTable::clear() {
  const rcu::ReaderScope reader;
  std::vector<Ufid> all;
  impl_->by_ufid.for_each([&all](const Flow& flow) {
    all.push_back(flow.ufid());
    return true;
  });
  for (const Ufid& ufid : all) remove(ufid);
}

void FlowTable::for_each(const std::function<bool(Flow&)>& visit) const {
  const rcu::ReaderScope reader;
  impl_->by_ufid.for_each([&visit](Flow& flow) { return flow.dead() || visit(flow); });
}

Flow* FlowTable::find(const Ufid& ufid) const { return impl_->find_ufid(ufid); }

FlowTable::Counters FlowTable::counters() const {
  return {impl_->flow_count.load(std::memory_order_relaxed), impl_->mask_count.load(std::memory_order_relaxed)};
}

uint64_t FlowTable::generation() const { return impl_->generation.load(std::memory_order_acquire); }

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
  size_t bytes = sizeof(Implementation) + impl_->by_ufid.memory_bytes() + impl_->flow_bytes;
  for (const auto& [hash, subtable] : impl_->by_mask) {
    bytes += sizeof(Subtable) + subtable->flows.memory_bytes() +
             subtable->pattern->list.capacity() * sizeof(MaskPattern::Word);
  }
  return bytes;
}

std::vector<FlowTable::MaskInfo> FlowTable::masks() const {
  MutexLock lock(impl_->mutex);
  std::vector<MaskInfo> masks;
  for (const Subtable* subtable : *impl_->order.load(std::memory_order_relaxed)) {
    masks.push_back({subtable->pattern->expand(), subtable->flows.size(), subtable->all_hits()});
  }
  return masks;
}

}  // namespace vswitch
