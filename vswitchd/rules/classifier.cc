#include "vswitchd/rules/classifier.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "datapath/base/rcu.h"
#include "vswitchd/rules/subtable.h"
#include "vswitchd/rules/subtable_order.h"

namespace vswitch {

namespace {

const Rule* find_in(const Subtable& subtable, const MiniMatch& match, uint16_t priority, Version version) {
  const Rule* rule = subtable.find_list(match);
  while (rule != nullptr && (rule->priority() != priority || !rule->visible_at(version))) rule = RuleIndex::next(*rule);
  return rule;
}

}  // namespace

struct Classifier::Implementation {
  explicit Implementation(size_t large_index) : prefixes(large_index) {}
  ~Implementation() {
    for (auto& [hash, subtable] : by_mask) delete subtable;
    for (Subtable* subtable : emptied) delete subtable;
    for (auto& [hash, group] : groups) delete group;
    for (SubtableGroup* group : emptied_groups) delete group;
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
  SubtableGroup& group_for(const MiniMatch& match);
  uint32_t free_number();
  void drop(Subtable* subtable);
  void enter(const Subtable& subtable, const Rule& rule);
  void leave(const Subtable& subtable, const Rule& rule);
  void order_changed() {
    order_stale = true;
    if (!deferred) publish_order();
  }
  void publish_order();

  PrefixIndexes prefixes;
  std::atomic<const SubtableOrder*> order{new SubtableOrder({})};

  // Writer only.
  std::unordered_multimap<size_t, Subtable*> by_mask;
  std::unordered_multimap<size_t, SubtableGroup*> groups;
  std::vector<Subtable*> emptied;  // still in `order`
  std::vector<SubtableGroup*> emptied_groups;
  std::vector<uint32_t> free_numbers;
  uint32_t next_number = 0;
  size_t rules = 0;
  uint64_t next_sequence = 0;
  bool deferred = false, order_stale = false;
};

SubtableGroup& Classifier::Implementation::group_for(const MiniMatch& match) {
  const size_t hash = SubtableGroup::hash(match);
  auto [at, end] = groups.equal_range(hash);
  for (; at != end; ++at) {
    if (at->second->covers(match)) return *at->second;
  }
  auto* made = new SubtableGroup(match);
  groups.emplace(hash, made);
  return *made;
}

// A number is used again at once. A reader with an older order may then look for the new subtable's rules in the old
// one, but its version does not see them.
uint32_t Classifier::Implementation::free_number() {
  if (free_numbers.empty()) return next_number++;
  const uint32_t number = free_numbers.back();
  free_numbers.pop_back();
  return number;
}

Subtable& Classifier::Implementation::subtable_for(const MiniMatch& match) {
  if (Subtable* found = find_subtable(match)) return *found;
  SubtableGroup& group = group_for(match);
  ++group.subtable_count;
  auto* made = new Subtable(match, next_sequence++, free_number(), group);
  by_mask.emplace(match.mask_hash(), made);
  return *made;
}

void Classifier::Implementation::drop(Subtable* subtable) {
  const MiniMatch& pattern = subtable->pattern();
  auto [at, end] = by_mask.equal_range(pattern.mask_hash());
  while (at != end && at->second != subtable) ++at;
  by_mask.erase(at);
  free_numbers.push_back(subtable->number());
  emptied.push_back(subtable);
  SubtableGroup& group = subtable->group();
  if (--group.subtable_count > 0) return;
  auto [group_at, group_end] = groups.equal_range(SubtableGroup::hash(pattern));
  while (group_at != group_end && group_at->second != &group) ++group_at;
  groups.erase(group_at);
  emptied_groups.push_back(&group);
}

void Classifier::Implementation::enter(const Subtable& subtable, const Rule& rule) {
  for (size_t f = 0; f < kPrefixFields; ++f) {
    const unsigned length = subtable.prefix_length(f);
    if (length != 0) prefixes.insert(f, rule, length, subtable.number());
  }
  subtable.group().insert(rule.match(), subtable.number());
}

void Classifier::Implementation::leave(const Subtable& subtable, const Rule& rule) {
  for (size_t f = 0; f < kPrefixFields; ++f) {
    const unsigned length = subtable.prefix_length(f);
    if (length != 0) prefixes.remove(f, rule.match(), length, subtable.number());
  }
  subtable.group().remove(rule.match(), subtable.number());
}

void Classifier::Implementation::publish_order() {
  if (!order_stale) return;
  std::vector<const Subtable*> subtables;
  subtables.reserve(by_mask.size());
  for (const auto& [hash, subtable] : by_mask) subtables.push_back(subtable);
  const SubtableOrder* old = order.exchange(new SubtableOrder(subtables), std::memory_order_acq_rel);
  rcu::retire_delete(old);
  for (Subtable* subtable : emptied) rcu::retire_delete(subtable);
  for (SubtableGroup* group : emptied_groups) rcu::retire_delete(group);
  emptied.clear();
  emptied_groups.clear();
  order_stale = false;
}

Classifier::Classifier() : Classifier(PrefixIndex<uint32_t>::kLarge) {}
Classifier::Classifier(size_t large_index) : impl_(std::make_unique<Implementation>(large_index)) {}

Classifier::~Classifier() { rcu::retire_delete(impl_.release()); }

const Rule* Classifier::lookup(const PipelineKey& key, Version version, PipelineMask* wildcards) const {
  return search_subtables(*impl_->order.load(std::memory_order_acquire), impl_->prefixes, key, version, wildcards);
}

const Rule* Classifier::find_exact(const MiniMatch& match, uint16_t priority, Version version) const {
  const Subtable* subtable = impl_->find_subtable(match);
  return subtable == nullptr ? nullptr : find_in(*subtable, match, priority, version);
}

const Rule* Classifier::find_published(const MiniMatch& match, uint16_t priority, Version version) const {
  for (const Subtable* subtable : impl_->order.load(std::memory_order_acquire)->by_rank) {
    if (subtable->pattern().same_mask(match)) return find_in(*subtable, match, priority, version);
  }
  return nullptr;
}

void Classifier::for_each_contained(const MiniMatch& criterion, Version version,
                                    const std::function<bool(const Rule&)>& visit) const {
  const SubtableOrder* order = impl_->order.load(std::memory_order_acquire);
  const PipelineMask wide = criterion.expand().mask;
  const auto visit_if = [&](const Rule& rule) {
    return !rule.visible_at(version) || !criterion.contains(rule.match()) || visit(rule);
  };
  for (const Subtable* in_order : order->by_rank) {
    const Subtable& subtable = *in_order;
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

void Classifier::prefetch(const MiniMatch& match) const {
  const Subtable* subtable = impl_->find_subtable(match);
  if (subtable == nullptr) return;
  subtable->prefetch(match);
  for (size_t f = 0; f < kPrefixFields; ++f) {
    const unsigned length = subtable->prefix_length(f);
    if (length != 0) impl_->prefixes.prefetch(f, match, length);
  }
}

void Classifier::insert(Rule* rule) {
  Subtable& subtable = impl_->subtable_for(rule->match());
  const bool reorder = subtable.empty() || subtable.max_priority() < rule->priority();
  impl_->enter(subtable, *rule);
  subtable.insert(*rule);
  ++impl_->rules;
  if (reorder) impl_->order_changed();
}

void Classifier::remove(Rule* rule) {
  Subtable* subtable = impl_->find_subtable(rule->match());
  if (subtable == nullptr || subtable->empty()) return;
  const uint16_t max_priority = subtable->max_priority();
  subtable->remove(*rule);
  impl_->leave(*subtable, *rule);
  --impl_->rules;
  if (!subtable->empty() && subtable->max_priority() == max_priority) return;
  if (subtable->empty()) impl_->drop(subtable);
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
  size_t bytes = sizeof(Implementation) + impl_->prefixes.memory_bytes();
  for (const auto& [hash, subtable] : impl_->by_mask) bytes += subtable->memory_bytes() + 64;
  for (const auto& [hash, group] : impl_->groups) bytes += group->memory_bytes() + 64;
  return bytes;
}

}  // namespace vswitch
