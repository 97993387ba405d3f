#include "vswitchd/rules/rule.h"

#include "vswitchd/rules/rule_memory.h"

namespace vswitch {

RuleRef::RuleRef(const Rule* rule) : rule_(rule) {
  if (rule_ != nullptr) rule_->references_.fetch_add(1, std::memory_order_relaxed);
}

RuleRef::~RuleRef() {
  if (rule_ != nullptr) rule_->release();
}

// With room behind it for the match.
Rule* Rule::make(const MiniMatch& match) {
  return new (rule_memory::allocate(sizeof(Rule) + match.memory_bytes())) Rule(match);
}

void Rule::destroy(const Rule* rule) {
  const size_t bytes = rule->memory_bytes();
  rule->~Rule();
  rule_memory::free(const_cast<Rule*>(rule), bytes);
}

Rule* Rule::make(uint64_t id, const RuleSpec& spec, Nanoseconds now) {
  Rule* rule = make(spec.match);
  rule->id_ = id;
  rule->actions_ = spec.actions;
  rule->cookie_ = spec.cookie;
  rule->created_ = rule->modified_ = now;
  rule->used_.store(now.count(), std::memory_order_relaxed);
  rule->priority_ = spec.priority;
  rule->idle_timeout_ = spec.idle_timeout;
  rule->hard_timeout_ = spec.hard_timeout;
  rule->flags_ = spec.flags;
  rule->importance_ = spec.importance;
  rule->table_ = spec.table;
  return rule;
}

// A loop, not recursion: a holder of the first of many versions of a rule keeps the whole chain of successors alive.
void Rule::release() const {
  const Rule* rule = this;
  while (rule != nullptr && rule->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    const Rule* successor = rule->successor_.load(std::memory_order_acquire);
    if (successor != nullptr) rule->move_counts();
    destroy(rule);
    rule = successor;
  }
}

void Rule::credit(uint64_t packets, uint64_t bytes, Nanoseconds used) const {
  const Rule* rule = this;
  bool counts = true;
  while (const Rule* successor = rule->successor_.load(std::memory_order_acquire)) {
    counts = counts && rule->counts_kept_.load(std::memory_order_relaxed);
    rule = successor;
  }
  if (counts) {
    rule->packets_.fetch_add(packets, std::memory_order_relaxed);
    rule->bytes_.fetch_add(bytes, std::memory_order_relaxed);
  }
  int64_t seen = rule->used_.load(std::memory_order_relaxed);
  while (seen < used.count() && !rule->used_.compare_exchange_weak(seen, used.count(), std::memory_order_relaxed)) {
  }
}

// A credit that read a null successor just before it was set still lands here: hence move_counts() once more when the
// rule is released, a grace period later.
void Rule::pass_statistics_to(const Rule* successor, bool keep_counts) const {
  successor->references_.fetch_add(1, std::memory_order_relaxed);
  counts_kept_.store(keep_counts, std::memory_order_relaxed);
  successor_.store(successor, std::memory_order_release);
  move_counts();
}

void Rule::move_counts() const {
  const Rule* successor = successor_.load(std::memory_order_acquire);
  const uint64_t packets = packets_.exchange(0, std::memory_order_relaxed);
  const uint64_t bytes = bytes_.exchange(0, std::memory_order_relaxed);
  const bool keep = counts_kept_.load(std::memory_order_relaxed);
  successor->credit(keep ? packets : 0, keep ? bytes : 0, Nanoseconds(used_.load(std::memory_order_relaxed)));
}

RuleStats Rule::stats() const {
  return {packets_.load(std::memory_order_relaxed), bytes_.load(std::memory_order_relaxed),
          Nanoseconds(used_.load(std::memory_order_relaxed))};
}

RuleSpec Rule::spec() const {
  return {table_, priority_, match_, actions_, cookie_, idle_timeout_, hard_timeout_, flags_, importance_};
}

size_t Rule::memory_bytes() const { return sizeof(Rule) + match_.memory_bytes(); }

}  // namespace vswitch
