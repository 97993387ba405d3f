#include "vswitchd/rules/classifier.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "datapath/base/rcu.h"
#include "vswitchd/rules/subtable.h"

namespace vswitch {
namespace {

// Highest priority first. Immutable once published.
struct SubtableOrder {
  struct Entry {
    const Subtable* subtable;
    uint16_t max_priority;
  };
  std::vector<Entry> entries;
};

bool comes_first(const SubtableOrder::Entry& a, const SubtableOrder::Entry& b) {
  if (a.max_priority != b.max_priority) return a.max_priority > b.max_priority;
  return a.subtable->sequence() < b.subtable->sequence();
}

}  // namespace

struct Classifier::Implementation {
  ~Implementation() {
    for (auto& [hash, subtable] : by_mask) delete subtable;
    for (Subtable* subtable : emptied) delete subtable;
    delete order.load(std::memory_order_relaxed);
  }

  Subtable* find_subtable(const MiniMatch& match) const {
    auto [at, end] = by_mask.equal_range(match.mask_hash());
    for (; at != end; ++at) {
      if (at->second->pattern().same_mask(match)) return at->second;
    }
    return nullptr;
  }
  Subtable& subtable_for(const MiniMatch& match);
  void enter_tries(const Subtable& subtable, const Rule& rule, bool enter);
  void order_changed() {
    order_stale = true;
    if (!deferred) publish_order();
  }
  void publish_order();

  TrieArena arena;  // before what allocates in it
  std::array<PrefixTrie, kTrieFields> tries{PrefixTrie(arena), PrefixTrie(arena), PrefixTrie(arena), PrefixTrie(arena)};
  std::atomic<const SubtableOrder*> order{new SubtableOrder};

  // Writer only.
  std::unordered_multimap<size_t, Subtable*> by_mask;
  std::vector<Subtable*> emptied;  // still in `order`
  size_t rules = 0;
  uint64_t next_sequence = 0;
  bool deferred = false, order_stale = false;
};

Subtable& Classifier::Implementation::subtable_for(const MiniMatch& match) {
  if (Subtable* found = find_subtable(match)) return *found;
  auto* made = new Subtable(match, next_sequence++, arena);
  by_mask.emplace(match.mask_hash(), made);
  return *made;
}

void Classifier::Implementation::enter_tries(const Subtable& subtable, const Rule& rule, bool enter) {
  for (size_t f = 0; f < kTrieFields; ++f) {
    const unsigned length = subtable.trie_length(f);
    if (length == 0) continue;
    const PrefixTrie::Value prefix = prefix_value(rule.match(), trie_fields()[f]);
    if (enter) {
      tries[f].insert(prefix, length);
    } else {
      tries[f].remove(prefix, length);
    }
  }
}

void Classifier::Implementation::publish_order() {
  if (!order_stale) return;
  auto* next = new SubtableOrder;
  next->entries.reserve(by_mask.size());
  for (const auto& [hash, subtable] : by_mask) next->entries.push_back({subtable, subtable->max_priority()});
  std::sort(next->entries.begin(), next->entries.end(), comes_first);
  const SubtableOrder* old = order.exchange(next, std::memory_order_acq_rel);
  rcu::retire_delete(old);
  for (Subtable* subtable : emptied) rcu::retire_delete(subtable);
  emptied.clear();
  order_stale = false;
}

Classifier::Classifier() : impl_(std::make_unique<Implementation>()) {}

Classifier::~Classifier() { rcu::retire_delete(impl_.release()); }

const Rule* Classifier::lookup(const PipelineKey& key, Version version, PipelineMask* wildcards) const {
  const SubtableOrder* order = impl_->order.load(std::memory_order_acquire);
  TrieLookups tries(impl_->tries, key);
  const Rule* best = nullptr;
  for (const SubtableOrder::Entry& entry : order->entries) {
    if (best != nullptr && best->priority() >= entry.max_priority) break;
    const Rule* rule = wildcards == nullptr ? entry.subtable->find(key, version)
                                            : entry.subtable->find(key, version, tries, *wildcards);
    if (rule != nullptr && (best == nullptr || rule->priority() > best->priority())) best = rule;
  }
  return best;
}

const Rule* Classifier::find_exact(const MiniMatch& match, uint16_t priority, Version version) const {
  const Subtable* subtable = impl_->find_subtable(match);
  if (subtable == nullptr) return nullptr;
  const Rule* rule = subtable->find_list(match);
  while (rule != nullptr && (rule->priority() != priority || !rule->visible_at(version))) rule = RuleIndex::next(*rule);
  return rule;
}

void Classifier::for_each_contained(const MiniMatch& criterion, Version version,
                                    const std::function<bool(const Rule&)>& visit) const {
  const SubtableOrder* order = impl_->order.load(std::memory_order_acquire);
  const PipelineMask wide = criterion.expand().mask;
  const auto visit_if = [&](const Rule& rule) {
    return !rule.visible_at(version) || !criterion.contains(rule.match()) || visit(rule);
  };
  for (const SubtableOrder::Entry& entry : order->entries) {
    const Subtable& subtable = *entry.subtable;
    if (subtable.pattern().same_mask(criterion)) {
      for (Rule* rule = subtable.find_list(criterion); rule != nullptr; rule = RuleIndex::next(*rule)) {
        if (!visit_if(*rule)) return;
      }
    } else if (mask_contains(subtable.pattern().expand().mask, wide)) {
      if (!subtable.for_each(visit_if)) return;
    }
  }
}

const Rule* Classifier::find_overlap(const MiniMatch& match, uint16_t priority, Version version) const {
  const Rule* found = nullptr;
  for (const auto& [hash, subtable] : impl_->by_mask) {
    if (subtable->empty() || subtable->max_priority() < priority) continue;
    subtable->for_each([&](const Rule& rule) {
      if (rule.priority() != priority || !rule.visible_at(version) || !rule.match().overlaps(match)) return true;
      found = &rule;
      return false;
    });
    if (found != nullptr) break;
  }
  return found;
}

void Classifier::insert(Rule* rule) {
  Subtable& subtable = impl_->subtable_for(rule->match());
  const bool reorder = subtable.empty() || subtable.max_priority() < rule->priority();
  impl_->enter_tries(subtable, *rule, true);
  subtable.insert(*rule);
  ++impl_->rules;
  if (reorder) impl_->order_changed();
}

void Classifier::remove(Rule* rule) {
  Subtable* subtable = impl_->find_subtable(rule->match());
  if (subtable == nullptr || subtable->empty()) return;
  const uint16_t max_priority = subtable->max_priority();
  subtable->remove(*rule);
  impl_->enter_tries(*subtable, *rule, false);
  --impl_->rules;
  if (!subtable->empty() && subtable->max_priority() == max_priority) return;
  if (subtable->empty()) {
    auto [at, end] = impl_->by_mask.equal_range(rule->match().mask_hash());
    while (at != end && at->second != subtable) ++at;
    impl_->by_mask.erase(at);
    impl_->emptied.push_back(subtable);
  }
  impl_->order_changed();
}

void Classifier::defer() { impl_->deferred = true; }

void Classifier::publish() {
  impl_->deferred = false;
  impl_->publish_order();
}

size_t Classifier::rule_count() const { return impl_->rules; }
size_t Classifier::subtable_count() const { return impl_->by_mask.size(); }

size_t Classifier::memory_bytes() const {
  size_t bytes = sizeof(Implementation) + impl_->arena.memory_bytes();
  for (const auto& [hash, subtable] : impl_->by_mask) bytes += subtable->memory_bytes() + 64;
  return bytes;
}

}  // namespace vswitch
