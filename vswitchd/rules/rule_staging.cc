#include "vswitchd/rules/rule_staging.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <string>

#include "datapath/base/rcu.h"

namespace vswitch {
namespace {

// Process-wide, so that ids are unique over all bridges.
std::atomic<uint64_t> next_rule_id{1};

// "Leave the cookie as it is; and if there is no rule to modify, add none."
constexpr uint64_t kCookieUnchanged = std::numeric_limits<uint64_t>::max();
constexpr size_t kRemovalChunk = 4096;
constexpr size_t kTellAfter = 2048;  // staged rules
constexpr size_t kFetchedAhead = 6;  // mods

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string describe(const Rule& rule) {
  return "table=" + std::to_string(rule.table()) + ", priority=" + std::to_string(rule.priority()) +
         ", cookie=" + hex(rule.cookie()) + " (rule " + std::to_string(rule.id()) + ")";
}

Status check_table(uint8_t table, bool all_allowed) {
  if (table < kTableCount || (all_allowed && table == kTableAll)) return {};
  return invalid_argument("table " + std::to_string(table) + " does not exist; tables are 0 to 253", "table");
}

void release_after_grace_period(std::vector<Rule*> rules) {
  if (rules.empty()) return;
  rcu::retire([rules = std::move(rules)] {
    for (const Rule* rule : rules) rule->release();
  });
}

// Takes hidden rules out of their classifiers, a few at a time so that a writer never waits for a million of them.
void take_out(RuleTableState& state, const std::vector<Rule*>& rules) {
  for (size_t from = 0; from < rules.size(); from += kRemovalChunk) {
    MutexLock lock(state.mutex);
    std::bitset<kTableCount> touched;
    for (size_t i = from; i < std::min(from + kRemovalChunk, rules.size()); ++i) {
      Classifier& table = state.tables[rules[i]->table()];
      table.defer();
      touched.set(rules[i]->table());
      table.remove(rules[i]);
      state.rule_bytes -= rules[i]->memory_bytes();
    }
    for (size_t t = 0; t < kTableCount; ++t) {
      if (touched[t]) state.tables[t].publish();
    }
  }
}

void take_out_after_grace_period(const std::shared_ptr<RuleTableState>& state, std::vector<Rule*> rules) {
  if (rules.empty()) return;
  rcu::retire([state, rules = std::move(rules)] {
    take_out(*state, rules);
    release_after_grace_period(rules);
  });
}

}  // namespace

std::vector<Rule*> RuleTimeouts::take_due(Nanoseconds now) {
  std::vector<Rule*> due;
  while (!by_deadline_.empty() && by_deadline_.begin()->first <= now) {
    due.push_back(by_deadline_.begin()->second);
    by_deadline_.erase(by_deadline_.begin());
  }
  return due;
}

// Changes and pending clean-ups hold the state too, so only visible rules are left.
RuleTableState::~RuleTableState() {
  std::vector<Rule*> rules;
  for (const Classifier& table : tables) {
    table.for_each_contained(MiniMatch(), version.load(std::memory_order_relaxed), [&rules](const Rule& rule) {
      rules.push_back(const_cast<Rule*>(&rule));
      return true;
    });
  }
  release_after_grace_period(std::move(rules));
}

bool RuleCriteria::selects(const Rule& rule) const {
  return ((rule.cookie() ^ cookie) & cookie_mask) == 0 &&
         (out_port == kOfPortNone || outputs_to(rule.actions(), out_port));
}

Nanoseconds rule_deadline(const Rule& rule) {
  Nanoseconds deadline = Nanoseconds::max();
  if (rule.hard_timeout() != 0) deadline = rule.modified() + std::chrono::seconds(rule.hard_timeout());
  if (rule.idle_timeout() != 0) {
    deadline = std::min<Nanoseconds>(deadline, rule.stats().used + std::chrono::seconds(rule.idle_timeout()));
  }
  return deadline;
}

Status check_rule_spec(const RuleSpec& spec) {
  if (spec.actions == nullptr) return invalid_argument("the rule has no action list", "actions");
  for (const RuleAction& action : *spec.actions) {
    const auto* go = std::get_if<GotoTable>(&action);
    if (go == nullptr) continue;
    if (go->table >= kTableCount) {
      return invalid_argument("goto_table:" + std::to_string(go->table) + ": tables are 0 to 253", "actions");
    }
    if (spec.table != kTableAll && go->table <= spec.table) {
      return invalid_argument("goto_table:" + std::to_string(go->table) + " in table " + std::to_string(spec.table) +
                                  ": only a higher table number is possible",
                              "actions");
    }
  }
  return {};
}

RuleStaging::RuleStaging(std::shared_ptr<RuleTableState> state)
    : state_(std::move(state)),
      pending_(state_->version.load(std::memory_order_relaxed) + 1),
      now_(state_->clock.now()) {}

RuleStaging::~RuleStaging() {
  if (published_) return;
  MutexLock lock(state_->mutex);
  undo();
}

Classifier& RuleStaging::touch(uint8_t table) {
  if (!touched_[table]) state_->tables[table].defer();
  touched_.set(table);
  return state_->tables[table];
}

Status RuleStaging::apply(std::span<const RuleMod> mods, size_t* failed_index,
                          const RuleTables::StagedFunction& staged) {
  MutexLock lock(state_->mutex);
  for (size_t i = 0; i < mods.size(); ++i) {
    if (i + kFetchedAhead < mods.size()) prefetch(mods[i + kFetchedAhead]);
    const Status status = apply(mods[i]);
    if (status.ok() && (staged == nullptr || staged_.size() - told_ < kTellAfter)) continue;
    if (status.ok()) {
      tell(staged);
      continue;
    }
    if (failed_index != nullptr) *failed_index = i;
    if (staged != nullptr) staged({});
    return status;
  }
  if (staged != nullptr) tell(staged);
  finish();
  return {};
}

void RuleStaging::tell(const RuleTables::StagedFunction& staged) {
  std::vector<const Rule*> rules;
  rules.reserve(staged_.size() - told_);
  for (; told_ < staged_.size(); ++told_) {
    if (staged_[told_].rule != nullptr) rules.push_back(staged_[told_].rule);
  }
  if (!rules.empty()) staged(rules);
}

Status RuleStaging::restore(std::span<const std::pair<uint64_t, RuleSpec>> rules) {
  MutexLock lock(state_->mutex);
  for (const auto& [id, spec] : rules) VSWITCH_RETURN_IF_ERROR(restore(id, spec));
  finish();
  return {};
}

void RuleStaging::remove_rules(std::span<const Rule* const> rules) {
  MutexLock lock(state_->mutex);
  for (const Rule* rule : rules) {
    if (rule->visible_at(pending_)) hide(const_cast<Rule&>(*rule));
  }
  finish();
}

// With many rules, adding one waits for memory most of the time.
void RuleStaging::prefetch(const RuleMod& mod) const {
  if (mod.command == RuleCommand::add && mod.spec.table < kTableCount) {
    state_->tables[mod.spec.table].prefetch(mod.spec.match);
  }
}

Status RuleStaging::apply(const RuleMod& mod) {
  switch (mod.command) {
    case RuleCommand::add:
      return add(mod.spec);
    case RuleCommand::modify:
    case RuleCommand::modify_strict:
      return modify(mod);
    case RuleCommand::remove:
    case RuleCommand::remove_strict:
      return remove(mod);
  }
  return invalid_argument("unknown rule command");
}

Status RuleStaging::add(const RuleSpec& spec) {
  VSWITCH_RETURN_IF_ERROR(check_table(spec.table, false));
  VSWITCH_RETURN_IF_ERROR(check_rule_spec(spec));
  Rule* rule = Rule::make(next_rule_id.fetch_add(1, std::memory_order_relaxed), spec, now_);
  rule->actions_ = state_->interner.intern(rule->actions_);
  const Classifier& table = touch(spec.table);
  auto* old = const_cast<Rule*>(table.find_exact(rule->match(), rule->priority(), pending_));
  if (old == nullptr && (spec.flags & kRuleCheckOverlap) != 0) {
    if (const Rule* overlap = table.find_overlap(rule->match(), rule->priority(), pending_)) {
      rule->release();
      return failed_precondition("check_overlap: some packets would match both the new rule and the one in " +
                                     describe(*overlap) + ", at the same priority",
                                 "match");
    }
  }
  if (old != nullptr && rule->cookie_ == kCookieUnchanged) rule->cookie_ = old->cookie_;
  stage(rule, old, (spec.flags & kRuleResetCounts) == 0);
  return {};
}

Status RuleStaging::restore(uint64_t id, const RuleSpec& spec) {
  VSWITCH_RETURN_IF_ERROR(check_table(spec.table, false));
  VSWITCH_RETURN_IF_ERROR(check_rule_spec(spec));
  Rule* rule = Rule::make(id, spec, now_);
  rule->actions_ = state_->interner.intern(rule->actions_);
  if (const Rule* same = touch(spec.table).find_exact(rule->match(), rule->priority(), pending_)) {
    rule->release();
    return already_exists("stored rule " + std::to_string(id) + " has the match of " + describe(*same));
  }
  uint64_t next = next_rule_id.load(std::memory_order_relaxed);
  while (next <= id && !next_rule_id.compare_exchange_weak(next, id + 1, std::memory_order_relaxed)) {
  }
  stage(rule, nullptr, false);
  return {};
}

void RuleStaging::stage(Rule* rule, Rule* old, bool keep_counts) {
  Rule* predecessor = nullptr;
  if (old != nullptr) {
    predecessor = old;
    if (old->added_.load(std::memory_order_relaxed) == pending_) {
      const Staged& before = staged_[old->staged_index_];
      predecessor = before.predecessor;
      keep_counts = keep_counts && before.keep_counts;
    }
    hide(*old);
  }
  rule->show_from(pending_);
  rule->staged_index_ = staged_.size();
  staged_.push_back({rule, predecessor, keep_counts});
  state_->rule_bytes += rule->memory_bytes();
  touch(rule->table()).insert(rule);
}

void RuleStaging::hide(Rule& rule) {
  rule.hide_from(pending_);
  if (rule.added_.load(std::memory_order_relaxed) == pending_) {
    staged_[rule.staged_index_].rule = nullptr;
    dropped_.push_back(&rule);
  } else {
    removed_.push_back(&rule);
  }
}

std::vector<Rule*> RuleStaging::collect(const RuleMod& mod) {
  const bool strict = mod.command == RuleCommand::modify_strict || mod.command == RuleCommand::remove_strict;
  const bool removal = mod.command == RuleCommand::remove || mod.command == RuleCommand::remove_strict;
  const RuleCriteria criteria{mod.spec.table, strict,          mod.spec.priority,
                              mod.cookie,     mod.cookie_mask, removal ? mod.out_port : kOfPortNone};
  const MiniMatch& match = mod.spec.match;
  std::vector<Rule*> found;
  const auto take = [&](const Rule& rule) {
    if (criteria.selects(rule)) found.push_back(const_cast<Rule*>(&rule));
    return true;
  };
  for (uint8_t t = criteria.first_table(); t < criteria.end_table(); ++t) {
    Classifier& table = state_->tables[t];
    if (strict) {
      if (const Rule* rule = table.find_exact(match, criteria.priority, pending_)) take(*rule);
      continue;
    }
    table.publish();  // rules staged by earlier mods are to be found too; nobody else sees them yet
    if (touched_[t]) table.defer();
    table.for_each_contained(match, pending_, take);
  }
  return found;
}

Rule* RuleStaging::make_modified(const Rule& old, const RuleMod& mod,
                                 const std::shared_ptr<const RuleActionList>& actions) {
  Rule* rule = Rule::make(old.match_);
  rule->id_ = next_rule_id.fetch_add(1, std::memory_order_relaxed);
  rule->actions_ = actions;
  rule->cookie_ = mod.modify_cookie && mod.spec.cookie != kCookieUnchanged ? mod.spec.cookie : old.cookie_;
  rule->created_ = old.created_;
  rule->modified_ = now_;
  rule->used_.store(old.used_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  rule->priority_ = old.priority_;
  rule->idle_timeout_ = old.idle_timeout_;
  rule->hard_timeout_ = old.hard_timeout_;
  rule->flags_ = old.flags_;
  rule->importance_ = old.importance_;
  rule->table_ = old.table_;
  return rule;
}

Status RuleStaging::modify(const RuleMod& mod) {
  VSWITCH_RETURN_IF_ERROR(check_table(mod.spec.table, true));
  VSWITCH_RETURN_IF_ERROR(check_rule_spec(mod.spec));
  const std::vector<Rule*> found = collect(mod);
  if (found.empty()) {
    if (mod.cookie_mask != 0 || mod.spec.cookie == kCookieUnchanged) return {};
    RuleSpec spec = mod.spec;
    if (spec.table == kTableAll) spec.table = 0;
    return add(spec);
  }
  const auto actions = state_->interner.intern(mod.spec.actions);
  for (const Rule* rule : found) {
    RuleSpec moved;  // a goto_table that suits the request's "all tables" need not suit each
    moved.table = rule->table();
    moved.actions = actions;
    VSWITCH_RETURN_IF_ERROR(check_rule_spec(moved));
  }
  for (Rule* rule : found) {
    stage(make_modified(*rule, mod, actions), rule, (mod.spec.flags & kRuleResetCounts) == 0);
  }
  return {};
}

Status RuleStaging::remove(const RuleMod& mod) {
  VSWITCH_RETURN_IF_ERROR(check_table(mod.spec.table, true));
  for (Rule* rule : collect(mod)) hide(*rule);
  return {};
}

void RuleStaging::finish() {
  added_.reserve(staged_.size());
  for (const Staged& staged : staged_) {
    if (staged.rule != nullptr) added_.push_back(staged.rule);
  }
  keep_removed_.reserve(removed_.size());
  for (const Rule* rule : removed_) keep_removed_.emplace_back(rule);
}

void RuleStaging::publish_touched() {
  for (size_t t = 0; t < kTableCount; ++t) {
    if (touched_[t]) state_->tables[t].publish();
  }
}

// Lookups never saw these, but may pass over them in a list of equal matches: no grace period before they are taken
// out, one before they are freed.
void RuleStaging::drop_unseen(std::vector<Rule*> rules) {
  for (Rule* rule : rules) {
    state_->tables[rule->table()].remove(rule);
    state_->rule_bytes -= rule->memory_bytes();
  }
  release_after_grace_period(std::move(rules));
}

void RuleStaging::undo() {
  for (Rule* rule : removed_) rule->hide_from(kNotRemoved);
  std::vector<Rule*> unseen = std::move(dropped_);
  for (const Staged& staged : staged_) {
    if (staged.rule != nullptr) unseen.push_back(staged.rule);
  }
  drop_unseen(std::move(unseen));
  publish_touched();
  state_->change_open = false;
}

void RuleStaging::settle_books() {
  std::array<size_t, kTableCount> more{};  // or, wrapped, fewer: who counts meanwhile sees none of it or all
  for (const Staged& staged : staged_) {
    if (staged.rule == nullptr) continue;
    if (staged.predecessor != nullptr) staged.predecessor->pass_statistics_to(staged.rule, staged.keep_counts);
    staged.rule->deadline_ = rule_deadline(*staged.rule);
    if (staged.rule->deadline_ != Nanoseconds::max()) state_->timeouts.add(*staged.rule, staged.rule->deadline_);
    ++more[staged.rule->table()];
  }
  for (Rule* rule : removed_) {
    if (rule->deadline_ != Nanoseconds::max()) state_->timeouts.remove(*rule, rule->deadline_);
    --more[rule->table()];
  }
  for (size_t t = 0; t < kTableCount; ++t) {
    if (more[t] != 0) state_->rule_counts[t].fetch_add(more[t], std::memory_order_relaxed);
  }
}

Version RuleStaging::publish() {
  MutexLock lock(state_->mutex);
  drop_unseen(std::move(dropped_));
  publish_touched();
  state_->version.store(pending_, std::memory_order_release);
  settle_books();
  take_out_after_grace_period(state_, removed_);
  published_ = true;
  state_->change_open = false;
  return pending_;
}

}  // namespace vswitch
