#include "vswitchd/rules/classifier_index.h"

#include <algorithm>
#include <bit>

#include "datapath/base/rcu.h"

namespace vswitch {
namespace {

constexpr size_t kFirstSize = 4;

// The size that leaves at least a quarter of the slots never used (a probe must end), with room to double.
size_t size_for(size_t live) { return std::bit_ceil(std::max(kFirstSize, live + live / 2 + 2)); }
bool too_full(size_t used, size_t size) { return (used + 1) * 4 > size * 3; }

}  // namespace

RuleIndex::RuleIndex() : array_(Array::make(kFirstSize)) {}
RuleIndex::~RuleIndex() { Array::free(array_.load(std::memory_order_relaxed)); }

RuleIndex::Array* RuleIndex::Array::make(size_t size) {
  auto* array = new (::operator new(sizeof(Array) + size * sizeof(Slot))) Array{size - 1};
  std::uninitialized_default_construct_n(array->slots(), size);
  return array;
}

Rule* RuleIndex::tombstone() {
  alignas(Rule) static char never_a_rule;
  return reinterpret_cast<Rule*>(&never_a_rule);
}

RuleIndex::Slot* RuleIndex::slot_of(uint32_t hash, const MiniMatch& match) {
  Array* array = array_.load(std::memory_order_relaxed);
  for (size_t i = hash;; ++i) {
    Slot& slot = array->slots()[i & array->mask];
    const Rule* head = slot.head.load(std::memory_order_relaxed);
    if (head == nullptr) return nullptr;
    if (head != tombstone() && slot.hash.load(std::memory_order_relaxed) == hash && head->match_ == match) return &slot;
  }
}

void RuleIndex::make_room() {
  Array* old = array_.load(std::memory_order_relaxed);
  if (!too_full(used_, old->mask + 1)) return;
  auto* bigger = Array::make(size_for(heads_ + 1));
  for (size_t i = 0; i <= old->mask; ++i) {
    Rule* head = old->slots()[i].head.load(std::memory_order_relaxed);
    if (head == nullptr || head == tombstone()) continue;
    const uint32_t hash = old->slots()[i].hash.load(std::memory_order_relaxed);
    size_t at = hash;
    while (bigger->slots()[at & bigger->mask].head.load(std::memory_order_relaxed) != nullptr) ++at;
    bigger->slots()[at & bigger->mask].hash.store(hash, std::memory_order_relaxed);
    bigger->slots()[at & bigger->mask].head.store(head, std::memory_order_relaxed);
  }
  used_ = heads_;
  array_.store(bigger, std::memory_order_release);
  rcu::retire([old] { Array::free(old); });
}

void RuleIndex::link_into_list(Slot& slot, Rule& rule) {
  std::atomic<Rule*>* link = &slot.head;
  Rule* after = link->load(std::memory_order_relaxed);
  while (after != nullptr && after->priority_ > rule.priority_) {
    link = &after->next_same_match_;
    after = link->load(std::memory_order_relaxed);
  }
  rule.next_same_match_.store(after, std::memory_order_relaxed);
  link->store(&rule, std::memory_order_release);
}

void RuleIndex::insert(uint32_t hash, Rule& rule) {
  if (Slot* slot = slot_of(hash, rule.match_)) return link_into_list(*slot, rule);
  make_room();
  Array* array = array_.load(std::memory_order_relaxed);
  size_t at = hash;
  for (;; ++at) {
    const Rule* head = array->slots()[at & array->mask].head.load(std::memory_order_relaxed);
    if (head == nullptr) ++used_;
    if (head == nullptr || head == tombstone()) break;
  }
  rule.next_same_match_.store(nullptr, std::memory_order_relaxed);
  array->slots()[at & array->mask].hash.store(hash, std::memory_order_relaxed);
  array->slots()[at & array->mask].head.store(&rule, std::memory_order_release);
  ++heads_;
}

bool RuleIndex::remove(uint32_t hash, const Rule& rule) {
  Slot* slot = slot_of(hash, rule.match_);
  if (slot == nullptr) return false;
  Rule* after = rule.next_same_match_.load(std::memory_order_relaxed);
  std::atomic<Rule*>* link = &slot->head;
  for (Rule* at = link->load(std::memory_order_relaxed); at != &rule; at = link->load(std::memory_order_relaxed)) {
    if (at == nullptr) return false;
    link = &at->next_same_match_;
  }
  if (link == &slot->head && after == nullptr) {
    after = tombstone();
    --heads_;
  }
  link->store(after, std::memory_order_release);
  return true;
}

size_t RuleIndex::memory_bytes() const {
  return sizeof(Array) + (array_.load(std::memory_order_relaxed)->mask + 1) * sizeof(Slot);
}

HashCounts::HashCounts() : array_(new Array(kFirstSize)) {}
HashCounts::~HashCounts() { delete array_.load(std::memory_order_relaxed); }

bool HashCounts::contains(uint32_t hash) const {
  const Array* array = array_.load(std::memory_order_acquire);
  const uint64_t tag = hash | 1;
  for (size_t i = tag >> 1;; ++i) {
    const uint64_t slot = array->slots[i & array->mask].load(std::memory_order_acquire);
    if (slot == 0) return false;
    if (slot >> 32 == tag) return static_cast<uint32_t>(slot) != 0;
  }
}

// The slot of this hash, or the never-used one where it would go.
std::atomic<uint64_t>& HashCounts::slot_of(uint32_t hash) const {
  const Array* array = array_.load(std::memory_order_relaxed);
  const uint64_t tag = hash | 1;
  for (size_t i = tag >> 1;; ++i) {
    std::atomic<uint64_t>& slot = array->slots[i & array->mask];
    const uint64_t value = slot.load(std::memory_order_relaxed);
    if (value == 0 || value >> 32 == tag) return slot;
  }
}

void HashCounts::make_room() {
  Array* old = array_.load(std::memory_order_relaxed);
  if (!too_full(used_, old->mask + 1)) return;
  auto* bigger = new Array(size_for(live_ + 1));
  for (size_t i = 0; i <= old->mask; ++i) {
    const uint64_t value = old->slots[i].load(std::memory_order_relaxed);
    if (static_cast<uint32_t>(value) == 0) continue;
    size_t at = value >> 33;
    while (bigger->slots[at & bigger->mask].load(std::memory_order_relaxed) != 0) ++at;
    bigger->slots[at & bigger->mask].store(value, std::memory_order_relaxed);
  }
  used_ = live_;
  array_.store(bigger, std::memory_order_release);
  rcu::retire_delete(old);
}

void HashCounts::add(uint32_t hash) {
  make_room();
  std::atomic<uint64_t>& slot = slot_of(hash);
  uint64_t value = slot.load(std::memory_order_relaxed);
  if (value == 0) {
    value = static_cast<uint64_t>(hash | 1) << 32;
    ++used_;
  }
  if (static_cast<uint32_t>(value) == 0) ++live_;
  slot.store(value + 1, std::memory_order_release);
}

void HashCounts::remove(uint32_t hash) {
  std::atomic<uint64_t>& slot = slot_of(hash);
  const uint64_t value = slot.load(std::memory_order_relaxed) - 1;
  if (static_cast<uint32_t>(value) == 0) --live_;
  slot.store(value, std::memory_order_release);
}

size_t HashCounts::memory_bytes() const {
  return sizeof(Array) + (array_.load(std::memory_order_relaxed)->mask + 1) * sizeof(uint64_t);
}

HashSets::HashSets() : array_(new Array(kFirstSize)) {}

HashSets::~HashSets() {
  Array* array = array_.load(std::memory_order_relaxed);
  for (size_t i = 0; i <= array->mask; ++i) array->slots[i].subtables.destroy();
  delete array;
}

bool HashSets::or_into(uint32_t hash, std::span<uint64_t> subtables) const {
  const Array* array = array_.load(std::memory_order_acquire);
  const uint64_t tag = hash | 1;
  for (size_t i = tag >> 1;; ++i) {
    const Slot& slot = array->slots[i & array->mask];
    const uint64_t tagged = slot.tagged.load(std::memory_order_acquire);
    if (tagged == 0) return false;
    if (tagged >> 32 != tag) continue;
    slot.subtables.or_into(subtables);
    return static_cast<uint32_t>(tagged) != 0;
  }
}

HashSets::Slot& HashSets::slot_of(uint32_t hash) const {
  Array* array = array_.load(std::memory_order_relaxed);
  const uint64_t tag = hash | 1;
  for (size_t i = tag >> 1;; ++i) {
    Slot& slot = array->slots[i & array->mask];
    const uint64_t tagged = slot.tagged.load(std::memory_order_relaxed);
    if (tagged == 0 || tagged >> 32 == tag) return slot;
  }
}

void HashSets::make_room() {
  Array* old = array_.load(std::memory_order_relaxed);
  if (!too_full(used_, old->mask + 1)) return;
  auto* bigger = new Array(size_for(live_ + 1));
  for (size_t i = 0; i <= old->mask; ++i) {
    const uint64_t tagged = old->slots[i].tagged.load(std::memory_order_relaxed);
    if (static_cast<uint32_t>(tagged) == 0) continue;
    size_t at = tagged >> 33;
    while (bigger->slots[at & bigger->mask].tagged.load(std::memory_order_relaxed) != 0) ++at;
    bigger->slots[at & bigger->mask].subtables.take(old->slots[i].subtables);
    bigger->slots[at & bigger->mask].tagged.store(tagged, std::memory_order_relaxed);
  }
  used_ = live_;
  array_.store(bigger, std::memory_order_release);
  rcu::retire_delete(old);
}

// The set before the hash: who sees the hash sees the subtable.
void HashSets::add(uint32_t hash, uint32_t subtable) {
  make_room();
  Slot& slot = slot_of(hash);
  uint64_t tagged = slot.tagged.load(std::memory_order_relaxed);
  if (tagged == 0) {
    tagged = static_cast<uint64_t>(hash | 1) << 32;
    ++used_;
  }
  const auto rules = static_cast<uint32_t>(tagged);
  if (rules == 0) ++live_;
  slot.subtables.add(subtable, rules);
  slot.tagged.store(tagged + 1, std::memory_order_release);
}

void HashSets::remove(uint32_t hash, uint32_t subtable) {
  Slot& slot = slot_of(hash);
  const uint64_t tagged = slot.tagged.load(std::memory_order_relaxed);
  const auto rules = static_cast<uint32_t>(tagged);
  if (rules == 1) --live_;
  slot.tagged.store(tagged - 1, std::memory_order_release);
  slot.subtables.remove(subtable, rules);
}

size_t HashSets::memory_bytes() const {
  const Array* array = array_.load(std::memory_order_relaxed);
  size_t bytes = sizeof(Array) + (array->mask + 1) * sizeof(Slot);
  for (size_t i = 0; i <= array->mask; ++i) bytes += array->slots[i].subtables.memory_bytes();
  return bytes;
}

}  // namespace vswitch
