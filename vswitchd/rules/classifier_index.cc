#include "vswitchd/rules/classifier_index.h"

#include <algorithm>
#include <bit>
#include <memory>

#include "vswitchd/rules/rule_memory.h"

namespace vswitch {
namespace {

// The size that leaves at least a quarter of the slots never used (a probe must end), with room to double.
template <typename Array>
size_t size_for(size_t live) {
  return std::bit_ceil(std::max(Array::kFirstSize, live + live / 2 + 2));
}
bool too_full(size_t used, size_t size) { return (used + 1) * 4 > size * 3; }

}  // namespace

template <typename Slot>
SlotArray<Slot> SlotArray<Slot>::make(size_t size) {
  void* memory = rule_memory::allocate(size * sizeof(Slot));
  std::uninitialized_value_construct_n(static_cast<Slot*>(memory), size);
  SlotArray made;
  made.word_ = reinterpret_cast<uintptr_t>(memory) | static_cast<unsigned>(std::countr_zero(size));
  return made;
}

template <typename Slot>
void SlotArray<Slot>::free() const {
  rule_memory::free(&(*this)[0], bytes());
}

template <typename Slot>
void SlotArray<Slot>::retire() const {
  rule_memory::retire(&(*this)[0], bytes());
}

RuleIndex::RuleIndex() : array_(Array::make(Array::kFirstSize)) {}
RuleIndex::~RuleIndex() { array_.load(std::memory_order_relaxed).free(); }

RuleIndex::Slot* RuleIndex::slot_of(uint32_t hash, const MiniMatch& match) {
  const Array array = array_.load(std::memory_order_relaxed);
  for (size_t i = hash;; ++i) {
    Slot& slot = array[i];
    const Rule* head = slot.head.load(std::memory_order_relaxed);
    if (head == nullptr) return nullptr;
    if (head != tombstone() && slot.hash.load(std::memory_order_relaxed) == hash && head->match_ == match) return &slot;
  }
}

void RuleIndex::make_room() {
  const Array old = array_.load(std::memory_order_relaxed);
  if (!too_full(used_, old.size())) return;
  const Array bigger = Array::make(size_for<Array>(heads_ + 1));
  for (size_t i = 0; i < old.size(); ++i) {
    Rule* head = old[i].head.load(std::memory_order_relaxed);
    if (head == nullptr || head == tombstone()) continue;
    const uint32_t hash = old[i].hash.load(std::memory_order_relaxed);
    size_t at = hash;
    while (bigger[at].head.load(std::memory_order_relaxed) != nullptr) ++at;
    bigger[at].hash.store(hash, std::memory_order_relaxed);
    bigger[at].head.store(head, std::memory_order_relaxed);
  }
  used_ = heads_;
  array_.store(bigger, std::memory_order_release);
  old.retire();
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
  const Array array = array_.load(std::memory_order_relaxed);
  size_t at = hash;
  for (;; ++at) {
    const Rule* head = array[at].head.load(std::memory_order_relaxed);
    if (head == nullptr) ++used_;
    if (head == nullptr || head == tombstone()) break;
  }
  rule.next_same_match_.store(nullptr, std::memory_order_relaxed);
  array[at].hash.store(hash, std::memory_order_relaxed);
  array[at].head.store(&rule, std::memory_order_release);
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

size_t RuleIndex::memory_bytes() const { return array_.load(std::memory_order_relaxed).bytes(); }

HashCounts::HashCounts() : array_(Array::make(Array::kFirstSize)) {}
HashCounts::~HashCounts() { array_.load(std::memory_order_relaxed).free(); }

bool HashCounts::contains(uint32_t hash) const {
  const Array array = array_.load(std::memory_order_acquire);
  const uint64_t tag = hash | 1;
  for (size_t i = tag >> 1;; ++i) {
    const uint64_t slot = array[i].load(std::memory_order_acquire);
    if (slot == 0) return false;
    if (slot >> 32 == tag) return static_cast<uint32_t>(slot) != 0;
  }
}

// The slot of this hash, or the never-used one where it would go.
std::atomic<uint64_t>& HashCounts::slot_of(uint32_t hash) const {
  const Array array = array_.load(std::memory_order_relaxed);
  const uint64_t tag = hash | 1;
  for (size_t i = tag >> 1;; ++i) {
    std::atomic<uint64_t>& slot = array[i];
    const uint64_t value = slot.load(std::memory_order_relaxed);
    if (value == 0 || value >> 32 == tag) return slot;
  }
}

void HashCounts::make_room() {
  const Array old = array_.load(std::memory_order_relaxed);
  if (!too_full(used_, old.size())) return;
  const Array bigger = Array::make(size_for<Array>(live_ + 1));
  for (size_t i = 0; i < old.size(); ++i) {
    const uint64_t value = old[i].load(std::memory_order_relaxed);
    if (static_cast<uint32_t>(value) == 0) continue;
    size_t at = value >> 33;
    while (bigger[at].load(std::memory_order_relaxed) != 0) ++at;
    bigger[at].store(value, std::memory_order_relaxed);
  }
  used_ = live_;
  array_.store(bigger, std::memory_order_release);
  old.retire();
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

size_t HashCounts::memory_bytes() const { return array_.load(std::memory_order_relaxed).bytes(); }

HashSets::HashSets() : array_(Array::make(Array::kFirstSize)) {}

HashSets::~HashSets() {
  const Array array = array_.load(std::memory_order_relaxed);
  for (size_t i = 0; i < array.size(); ++i) array[i].subtables.destroy();
  array.free();
}

bool HashSets::or_into(uint32_t hash, std::span<uint64_t> subtables) const {
  const Array array = array_.load(std::memory_order_acquire);
  const uint64_t tag = hash | 1;
  for (size_t i = tag >> 1;; ++i) {
    const Slot& slot = array[i];
    const uint64_t tagged = slot.tagged.load(std::memory_order_acquire);
    if (tagged == 0) return false;
    if (tagged >> 32 != tag) continue;
    SubtableSet::or_into(slot.subtables.load(), subtables);
    return static_cast<uint32_t>(tagged) != 0;
  }
}

HashSets::Slot& HashSets::slot_of(uint32_t hash) const {
  const Array array = array_.load(std::memory_order_relaxed);
  const uint64_t tag = hash | 1;
  for (size_t i = tag >> 1;; ++i) {
    Slot& slot = array[i];
    const uint64_t tagged = slot.tagged.load(std::memory_order_relaxed);
    if (tagged == 0 || tagged >> 32 == tag) return slot;
  }
}

void HashSets::make_room() {
  const Array old = array_.load(std::memory_order_relaxed);
  if (!too_full(used_, old.size())) return;
  const Array bigger = Array::make(size_for<Array>(live_ + 1));
  for (size_t i = 0; i < old.size(); ++i) {
    const uint64_t tagged = old[i].tagged.load(std::memory_order_relaxed);
    if (static_cast<uint32_t>(tagged) == 0) continue;
    size_t at = tagged >> 33;
    while (bigger[at].tagged.load(std::memory_order_relaxed) != 0) ++at;
    bigger[at].subtables.take(old[i].subtables);
    bigger[at].tagged.store(tagged, std::memory_order_relaxed);
  }
  used_ = live_;
  array_.store(bigger, std::memory_order_release);
  old.retire();
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
  const Array array = array_.load(std::memory_order_relaxed);
  size_t bytes = array.bytes();
  for (size_t i = 0; i < array.size(); ++i) bytes += array[i].subtables.memory_bytes();
  return bytes;
}

}  // namespace vswitch
