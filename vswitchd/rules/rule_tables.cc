#include "vswitchd/rules/rule_tables.h"

#include <algorithm>
#include <string>
#include <utility>

#include "datapath/base/rcu.h"
#include "vswitchd/rules/rule_staging.h"

namespace vswitch {

struct RuleChange::Implementation {
  explicit Implementation(std::shared_ptr<RuleTableState> state) : staging(std::move(state)) {}
  RuleStaging staging;
};

RuleChange::RuleChange(std::unique_ptr<Implementation> impl) : impl_(std::move(impl)) {}
RuleChange::RuleChange(RuleChange&&) noexcept = default;
RuleChange& RuleChange::operator=(RuleChange&&) noexcept = default;
RuleChange::~RuleChange() = default;

// Null after a move, and for a removal that was asked for while another change was open: an empty change.
std::span<Rule* const> RuleChange::added() const {
  return impl_ == nullptr ? std::span<Rule* const>() : impl_->staging.added();
}
std::span<Rule* const> RuleChange::removed() const {
  return impl_ == nullptr ? std::span<Rule* const>() : impl_->staging.removed();
}
Version RuleChange::publish() { return impl_ == nullptr ? 0 : impl_->staging.publish(); }

RuleTables::RuleTables(const Clock& clock) : state_(std::make_shared<RuleTableState>(clock)) {}
RuleTables::~RuleTables() = default;

Result<RuleChange> RuleTables::open_change() {
  MutexLock lock(state_->mutex);
  if (state_->change_open) return failed_precondition("another change of the rules is being prepared");
  state_->change_open = true;
  return RuleChange(std::make_unique<RuleChange::Implementation>(state_));
}

Result<RuleChange> RuleTables::prepare(std::span<const RuleMod> mods, size_t* failed_index,
                                       const StagedFunction& staged) {
  Result<RuleChange> change = open_change();
  if (!change.ok()) return change;
  // On error the destructor of `change` undoes what came before.
  VSWITCH_RETURN_IF_ERROR(change->impl_->staging.apply(mods, failed_index, staged));
  return change;
}

Result<RuleChange> RuleTables::restore(std::span<const std::pair<uint64_t, RuleSpec>> rules) {
  std::vector<uint64_t> ids;
  ids.reserve(rules.size());
  for (const auto& [id, spec] : rules) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice != ids.end()) return already_exists("rule id " + std::to_string(*twice) + " is stored twice");

  Result<RuleChange> change = open_change();
  if (!change.ok()) return change;
  VSWITCH_RETURN_IF_ERROR(change->impl_->staging.restore(rules));
  return change;
}

RuleChange RuleTables::prepare_removal(std::span<const Rule* const> rules) {
  Result<RuleChange> change = open_change();
  if (!change.ok()) return RuleChange(nullptr);
  change->impl_->staging.remove_rules(rules);
  return std::move(change).value();
}

Version RuleTables::version() const { return state_->version.load(std::memory_order_acquire); }

const Rule* RuleTables::lookup(uint8_t table, const PipelineKey& key, Version version, PipelineMask* wildcards) const {
  return table < kTableCount ? state_->tables[table].lookup(key, version, wildcards) : nullptr;
}

void RuleTables::count_lookup(uint8_t table, bool matched, uint64_t packets) const {
  if (table >= kTableCount) return;
  RuleTableState::LookupCounts& counts = state_->lookup_counts[table];
  counts.lookups.fetch_add(packets, std::memory_order_relaxed);
  if (matched) counts.matches.fetch_add(packets, std::memory_order_relaxed);
}

void RuleTables::for_each(const RuleFilter& filter, const std::function<bool(const Rule&)>& visit) const {
  if (filter.table >= kTableCount && filter.table != kTableAll) return;
  const RuleCriteria criteria{filter.table,  filter.strict,      filter.priority,
                              filter.cookie, filter.cookie_mask, filter.out_port};
  const rcu::ReaderScope reader;
  const Version now = version();
  const MiniMatch match(filter.match);
  bool go_on = true;
  const auto visit_selected = [&](const Rule& rule) { return go_on = !criteria.selects(rule) || visit(rule); };
  for (uint8_t t = criteria.first_table(); go_on && t < criteria.end_table(); ++t) {
    if (!criteria.strict) {
      state_->tables[t].for_each_contained(match, now, visit_selected);
      continue;
    }
    const Rule* const rule = state_->tables[t].find_published(match, criteria.priority, now);
    if (rule != nullptr) visit_selected(*rule);
  }
}

std::array<TableStats, kTableCount> RuleTables::table_stats() const {
  std::array<TableStats, kTableCount> stats;
  for (size_t t = 0; t < kTableCount; ++t) {
    stats[t] = {state_->lookup_counts[t].lookups.load(std::memory_order_relaxed),
                state_->lookup_counts[t].matches.load(std::memory_order_relaxed),
                state_->rule_counts[t].load(std::memory_order_relaxed)};
  }
  return stats;
}

size_t RuleTables::rule_count() const {
  size_t count = 0;
  for (const auto& in_table : state_->rule_counts) count += in_table.load(std::memory_order_relaxed);
  return count;
}

size_t RuleTables::memory_bytes() const {
  MutexLock lock(state_->mutex);
  size_t bytes = sizeof(RuleTableState) + state_->rule_bytes;
  for (const Classifier& table : state_->tables) bytes += table.memory_bytes();
  return bytes;
}

std::vector<std::pair<const Rule*, RemovedReason>> RuleTables::expired(Nanoseconds now) const {
  std::vector<std::pair<const Rule*, RemovedReason>> found;
  MutexLock lock(state_->mutex);
  for (Rule* rule : state_->timeouts.take_due(now)) {
    rule->deadline_ = rule_deadline(*rule);
    state_->timeouts.add(*rule, rule->deadline_);
    if (rule->deadline_ > now) continue;  // used since
    const bool hard = rule->hard_timeout() != 0 && rule->modified() + std::chrono::seconds(rule->hard_timeout()) <= now;
    found.emplace_back(rule, hard ? RemovedReason::hard_timeout : RemovedReason::idle_timeout);
  }
  return found;
}

}  // namespace vswitch
