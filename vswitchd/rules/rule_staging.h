// RuleStaging: works out what a batch of RuleMods does to the tables, as the next version, which no lookup sees yet.
// RuleTableState: what RuleTables, an open change and the clean-up of removed rules share. Private to rule_tables.cc.
//
// Life of a rule: staged (in its classifier, visible from the pending version) -> visible (published) -> hidden (a
// later version was published) -> after a grace period taken out of the classifier -> after another one released.
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "datapath/base/mutex.h"
#include "vswitchd/rules/action_interner.h"
#include "vswitchd/rules/rule_tables.h"

namespace vswitch {

// Rules with timeouts, ordered by the earliest time at which one can expire. A packet that uses a rule does not move
// it: the order is corrected when that time comes.
class RuleTimeouts {
 public:
  void add(Rule& rule, Nanoseconds deadline) { by_deadline_.emplace(deadline, &rule); }
  void remove(Rule& rule, Nanoseconds deadline) { by_deadline_.erase({deadline, &rule}); }
  // Takes out the rules whose deadline has come.
  std::vector<Rule*> take_due(Nanoseconds now);

 private:
  std::set<std::pair<Nanoseconds, Rule*>> by_deadline_;
};

struct RuleTableState {
  explicit RuleTableState(const Clock& c) : clock(c) {}
  ~RuleTableState();

  const Clock& clock;
  std::array<Classifier, kTableCount> tables;
  std::atomic<Version> version{1};
  struct LookupCounts {
    std::atomic<uint64_t> lookups{0}, matches{0};
  };
  std::array<LookupCounts, kTableCount> lookup_counts;
  std::array<std::atomic<size_t>, kTableCount> rule_counts{};  // written under `mutex`

  // Held by whoever changes a classifier: the control thread, or the RCU thread that takes hidden rules out.
  Mutex mutex;
  bool change_open GUARDED_BY(mutex) = false;
  ActionInterner interner GUARDED_BY(mutex);
  RuleTimeouts timeouts GUARDED_BY(mutex);
  size_t rule_bytes GUARDED_BY(mutex) = 0;
};

// The criteria of a modify, remove or dump.
struct RuleCriteria {
  uint8_t table;
  bool strict;
  uint16_t priority;  // with strict
  uint64_t cookie, cookie_mask;
  OfPort out_port;

  bool selects(const Rule& rule) const;
  uint8_t first_table() const { return table == kTableAll ? 0 : table; }
  uint8_t end_table() const { return table == kTableAll ? kTableCount : static_cast<uint8_t>(table + 1); }
};

class RuleStaging {
 public:
  explicit RuleStaging(std::shared_ptr<RuleTableState> state);
  RuleStaging(const RuleStaging&) = delete;
  RuleStaging& operator=(const RuleStaging&) = delete;
  ~RuleStaging();  // undoes what is not published

  // Once, one of them. Then added() and removed() are right. What fails leaves its first part staged: destroy it.
  Status apply(std::span<const RuleMod> mods, size_t* failed_index, const RuleTables::StagedFunction& staged)
      EXCLUDES(state_->mutex);
  Status restore(std::span<const std::pair<uint64_t, RuleSpec>> rules) EXCLUDES(state_->mutex);
  void remove_rules(std::span<const Rule* const> rules) EXCLUDES(state_->mutex);  // those that are visible

  std::span<Rule* const> added() const { return added_; }
  std::span<Rule* const> removed() const { return removed_; }
  Version publish() EXCLUDES(state_->mutex);

 private:
  struct Staged {
    Rule* rule;         // null: gone again within the batch
    Rule* predecessor;  // the visible rule it takes the place of; null if none
    bool keep_counts;
  };

  void prefetch(const RuleMod& mod) const REQUIRES(state_->mutex);
  Status apply(const RuleMod& mod) REQUIRES(state_->mutex);
  Status restore(uint64_t id, const RuleSpec& spec) REQUIRES(state_->mutex);
  void tell(const RuleTables::StagedFunction& staged);
  void hide(Rule& rule) REQUIRES(state_->mutex);
  void finish();
  Status add(const RuleSpec& spec) REQUIRES(state_->mutex);
  Status modify(const RuleMod& mod) REQUIRES(state_->mutex);
  Status remove(const RuleMod& mod) REQUIRES(state_->mutex);
  std::vector<Rule*> collect(const RuleMod& mod) REQUIRES(state_->mutex);
  void stage(Rule* rule, Rule* old, bool keep_counts) REQUIRES(state_->mutex);
  Rule* make_modified(const Rule& old, const RuleMod& mod, const std::shared_ptr<const RuleActionList>& actions);
  Classifier& touch(uint8_t table) REQUIRES(state_->mutex);
  void drop_unseen(std::vector<Rule*> rules) REQUIRES(state_->mutex);
  void publish_touched() REQUIRES(state_->mutex);
  void settle_books() REQUIRES(state_->mutex);
  void undo() REQUIRES(state_->mutex);

  const std::shared_ptr<RuleTableState> state_;
  const Version pending_;
  const Nanoseconds now_;
  bool published_ = false;
  std::bitset<kTableCount> touched_;
  std::vector<Staged> staged_;
  size_t told_ = 0;  // of staged_
  std::vector<Rule*> added_, removed_;
  std::vector<Rule*> dropped_;         // staged and gone again within the batch: nobody has seen them
  std::vector<RuleRef> keep_removed_;  // removed() stays valid as long as the change
};

// When `rule` expires unless packets come; Nanoseconds::max() if never.
Nanoseconds rule_deadline(const Rule& rule);

// Cheap invariants that hold whoever made the spec. The full check of actions is openflow/'s.
Status check_rule_spec(const RuleSpec& spec);

}  // namespace vswitch
