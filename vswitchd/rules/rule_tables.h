// RuleTables: the 254 OpenFlow tables of one bridge, and the only way to change them.
//
// A change is a batch of RuleMods in two steps, so that the store can be in between:
//   Result<RuleChange> change = tables.prepare(mods);   // validates all; stages, invisible to lookups
//   store.commit(change->added(), change->removed());
//   change->publish();                                  // one new version: lookups see all of it or none
// A RuleChange that is destroyed without publish() is undone. One RuleChange at a time may be open per RuleTables.
//
// Thread safety: prepare/publish/expire by one control thread at a time (the switch's lock). lookup() from RCU readers
// at any time. Rules removed by publish() are retired through RCU; those in RuleChange::removed() live at least as long
// as the RuleChange.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/base/status.h"
#include "vswitchd/rules/classifier.h"
#include "vswitchd/rules/rule.h"

namespace vswitch {

enum class RuleCommand : uint8_t { add, modify, modify_strict, remove, remove_strict };

// One request (an OpenFlow flow_mod).
struct RuleMod {
  RuleCommand command = RuleCommand::add;
  RuleSpec spec;                         // table may be kTableAll for modify/remove
  uint64_t cookie = 0, cookie_mask = 0;  // modify/remove: only rules with (rule.cookie & mask) == cookie
  bool modify_cookie = false;            // modify: spec.cookie replaces the rule's
  OfPort out_port = kOfPortNone;         // remove: only rules that output there
};

// Which rules a dump or aggregate is about.
struct RuleFilter {
  uint8_t table = kTableAll;
  Match match;
  bool strict = false;
  uint16_t priority = 0;  // with strict
  uint64_t cookie = 0, cookie_mask = 0;
  OfPort out_port = kOfPortNone;
};

enum class RemovedReason : uint8_t { idle_timeout, hard_timeout, deleted, evicted };

struct TableStats {
  uint64_t lookups = 0, matches = 0;
  uint64_t rules = 0;
};

class RuleTables;
struct RuleTableState;

class RuleChange {
 public:
  RuleChange(RuleChange&&) noexcept;
  RuleChange& operator=(RuleChange&&) noexcept;
  ~RuleChange();  // undoes it unless published

  // Rules that will appear / disappear. A modified rule is in both (old in removed, new in added).
  std::span<Rule* const> added() const;
  std::span<Rule* const> removed() const;
  bool empty() const { return added().empty() && removed().empty(); }
  Version publish();

 private:
  friend class RuleTables;
  struct Implementation;
  explicit RuleChange(std::unique_ptr<Implementation> impl);
  std::unique_ptr<Implementation> impl_;
};

class RuleTables {
 public:
  explicit RuleTables(const Clock& clock);
  ~RuleTables();
  RuleTables(const RuleTables&) = delete;
  RuleTables& operator=(const RuleTables&) = delete;

  // Stages all mods in order (a later one sees the earlier ones). On error nothing is staged, and *failed_index is the
  // 0-based index of the mod at fault (the message does not name it). failed_precondition if a change is open.
  //
  // The semantics are those of OpenFlow flow_mods as Open vSwitch has them:
  // - add replaces a rule with identical match and priority: created, timeouts, cookie and flags are the new rule's,
  // packet
  //   and byte counts are taken over unless kRuleResetCounts is set (OpenFlow 1.0 and 1.1 clients imply it). With
  //   kRuleCheckOverlap, an overlapping rule of the same priority is failed_precondition (an identical one is
  //   replaced).
  // - modify changes the actions (and the cookie, with modify_cookie) of all rules that the match contains, in every
  // table for
  //   kTableAll; modify_strict of the one with exactly this match and priority. Timeouts, flags and created stay;
  //   modified, from which hard_timeout counts, is now. Where there is no such rule it adds spec (to table 0 for
  //   kTableAll), unless a cookie_mask is given or spec.cookie is all ones. A cookie of all ones stands for "unchanged"
  //   wherever a rule is replaced.
  // - remove and remove_strict choose rules in the same way, and by out_port (also inside write_actions and clone).
  // `staged`, if set, hears of the rules of a long list while the rest is still being staged: some thousands at a time,
  // in order. The rules live as long as the change, but a later mod may have taken one out again by the time the change
  // is complete: added() is what counts. On error it is called with no rules, before those that it heard of go.
  using StagedFunction = std::function<void(std::span<const Rule* const> rules)>;
  Result<RuleChange> prepare(std::span<const RuleMod> mods, size_t* failed_index = nullptr,
                             const StagedFunction& staged = nullptr);
  // Loads rules that were stored, keeping their ids; as prepare().
  Result<RuleChange> restore(std::span<const std::pair<uint64_t, RuleSpec>> rules);

  Version version() const;
  const Rule* lookup(uint8_t table, const PipelineKey& key, Version version, PipelineMask* wildcards) const;
  // Counts lookups for dump-tables: `matched` whether a rule was found. Any thread.
  void count_lookup(uint8_t table, bool matched, uint64_t packets = 1) const;

  // Rules visible now, in no promised order; REQUIRES: control thread or RCU reader. Stops when visit returns false.
  void for_each(const RuleFilter& filter, const std::function<bool(const Rule&)>& visit) const;
  std::array<TableStats, kTableCount> table_stats() const;
  size_t rule_count() const;
  size_t memory_bytes() const;  // rules and classifiers

  // Rules whose idle or hard timeout has passed at `now`, to be removed through prepare_removal(). Costs nothing for
  // rules that have no timeout or cannot have expired yet.
  std::vector<std::pair<const Rule*, RemovedReason>> expired(Nanoseconds now) const;
  // Stages the removal of those of `rules` that are still visible. REQUIRES: no change is open (else the change is
  // empty), and the rules are alive.
  RuleChange prepare_removal(std::span<const Rule* const> rules);

 private:
  friend class RuleChange;
  Result<RuleChange> open_change();
  std::shared_ptr<RuleTableState> state_;  // shared with an open change and the clean-up of removed rules
};

}  // namespace vswitch
