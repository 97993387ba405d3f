#include <utility>

#include "datapath/flow_table/flow_table.h"

namespace vswitch {
namespace {

constexpr size_t kWays = 2;
constexpr size_t kSets = FlowCache::kEntries / kWays;
constexpr size_t kSetsPerPurge = 64;
static_assert((kSets & (kSets - 1)) == 0 && kSets % kSetsPerPurge == 0);

struct Entry {
  Flow* flow = nullptr;  // with a reference
  uint32_t hash = 0;
};
using Set = std::array<Entry, kWays>;  // the younger entry first

}  // namespace

struct FlowCache::Implementation {
  explicit Implementation(const FlowTable& t) : table(t), generation(t.generation()) {}

  const FlowTable& table;
  std::array<Set, kSets> sets{};
  uint64_t generation;          // of the table when the last complete purge began
  uint64_t sweep_generation{};  // of the table when the running one began
  size_t sweep_at = 0;          // next set; 0: none is running
};

FlowCache::FlowCache(const FlowTable& table) : impl_(std::make_unique<Implementation>(table)) {}

FlowCache::~FlowCache() {
  if (impl_ == nullptr) return;
  for (const Set& set : impl_->sets) {
    for (const Entry& entry : set) {
      if (entry.flow != nullptr) entry.flow->unref();
    }
  }
}

FlowCache::FlowCache(FlowCache&&) noexcept = default;
FlowCache& FlowCache::operator=(FlowCache&& other) noexcept {
  std::swap(impl_, other.impl_);
  return *this;
}

Flow* FlowCache::lookup(uint32_t hash, const FlowKey& key) const {
  for (const Entry& entry : impl_->sets[hash % kSets]) {
    if (entry.hash == hash && entry.flow != nullptr && !entry.flow->dead() && entry.flow->matches(key))
      return entry.flow;
  }
  return nullptr;
}

void FlowCache::insert(uint32_t hash, Flow* flow) {
  Set& set = impl_->sets[hash % kSets];
  flow->ref();
  // An entry with the same hash is stale, or a collision that would never be found again: it goes first.
  Entry& first = set[0];
  const bool replace_first = first.flow == nullptr || first.hash == hash;
  if (!replace_first) std::swap(first, set[1]);
  Flow* evicted = std::exchange(first.flow, flow);
  first.hash = hash;
  if (evicted != nullptr) evicted->unref();
}

void FlowCache::purge_removed() {
  Implementation& c = *impl_;
  if (c.sweep_at == 0) {
    const uint64_t now = c.table.generation();
    if (now == c.generation) return;
    c.sweep_generation = now;
  }
  for (size_t i = 0; i < kSetsPerPurge; ++i) {
    for (Entry& entry : c.sets[c.sweep_at + i]) {
      if (entry.flow != nullptr && entry.flow->dead()) std::exchange(entry.flow, nullptr)->unref();
    }
  }
  c.sweep_at = (c.sweep_at + kSetsPerPurge) % kSets;
  if (c.sweep_at == 0) c.generation = c.sweep_generation;
}

}  // namespace vswitch
