// Rule: an OpenFlow entry: table, priority, match, actions, timeouts, cookie, statistics. ("Flow" is the datapath's
// word.)
//
// A rule is immutable but for its statistics and versions; changing its actions makes a new rule that takes over the
// statistics. Rules are owned by RuleTables, read under RCU, and freed after a grace period.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "datapath/base/clock.h"
#include "vswitchd/rules/match.h"
#include "vswitchd/rules/rule_action.h"

namespace vswitch {

// A classifier version: a lookup at version v sees the rules with added <= v < removed, hence each batch whole or not
// at all.
using Version = uint64_t;
inline constexpr Version kNotRemoved = ~Version{0};

enum RuleFlag : uint16_t {
  kRuleSendFlowRemoved = 1 << 0,
  kRuleCheckOverlap = 1 << 1,
  kRuleResetCounts = 1 << 2,
  kRuleNoPacketCounts = 1 << 3,
  kRuleNoByteCounts = 1 << 4,
};

// What a person or a client gives to make a rule.
struct RuleSpec {
  uint8_t table = 0;
  uint16_t priority = 32768;
  MiniMatch match;
  std::shared_ptr<const RuleActionList> actions;  // never null; empty list: drop
  uint64_t cookie = 0;
  uint16_t idle_timeout = 0;  // seconds, 0: never
  uint16_t hard_timeout = 0;
  uint16_t flags = 0;  // RuleFlag bits
  uint16_t importance = 0;
};

struct RuleStats {
  uint64_t packets = 0;
  uint64_t bytes = 0;
  Nanoseconds used{};  // last packet, or creation
};

class Rule;

// Keeps a rule alive beyond the reader's next quiescent state, whatever happens to the rule meanwhile (e.g. what
// translation hangs on a datapath flow, so that its packets are credited to the right rules in the end). A rule that
// was modified passes what it is credited to the rule that took its place, so a holder of the old one loses nothing.
class RuleRef {
 public:
  RuleRef() = default;
  // REQUIRES: `rule` is alive: the caller is an RCU reader that found it, or holds another reference.
  explicit RuleRef(const Rule* rule);
  RuleRef(const RuleRef& other) : RuleRef(other.rule_) {}
  RuleRef(RuleRef&& other) noexcept : rule_(std::exchange(other.rule_, nullptr)) {}
  RuleRef& operator=(RuleRef other) noexcept {
    std::swap(rule_, other.rule_);
    return *this;
  }
  ~RuleRef();

  const Rule* get() const { return rule_; }
  const Rule& operator*() const { return *rule_; }
  const Rule* operator->() const { return rule_; }
  explicit operator bool() const { return rule_ != nullptr; }
  bool operator==(const RuleRef&) const = default;

 private:
  const Rule* rule_ = nullptr;
};

class Rule {
 public:
  // A rule that no lookup sees yet; the caller owns its first reference. `actions` must not be null. For RuleTables,
  // and for those who use a Classifier on its own.
  static Rule* make(uint64_t id, const RuleSpec& spec, Nanoseconds now);
  // Gives up the owner's reference. REQUIRES: no reader can still find the rule (a grace period after its removal).
  void release() const;

  uint64_t id() const { return id_; }  // unique in the daemon, never used again; the store's key
  uint8_t table() const { return table_; }
  uint16_t priority() const { return priority_; }
  const MiniMatch& match() const { return match_; }
  const RuleActionList& actions() const { return *actions_; }
  const std::shared_ptr<const RuleActionList>& shared_actions() const { return actions_; }
  uint64_t cookie() const { return cookie_; }
  uint16_t idle_timeout() const { return idle_timeout_; }
  uint16_t hard_timeout() const { return hard_timeout_; }
  uint16_t flags() const { return flags_; }
  uint16_t importance() const { return importance_; }
  Nanoseconds created() const { return created_; }
  Nanoseconds modified() const { return modified_; }  // hard_timeout counts from here

  // Starts to fetch what visible_at(), priority() and match() need.
  void prefetch() const {
    const char* match = reinterpret_cast<const char*>(this + 1);
    __builtin_prefetch(match - 48);
    __builtin_prefetch(match + 16);
    __builtin_prefetch(match + 72);
  }
  bool visible_at(Version v) const {
    return added_.load(std::memory_order_acquire) <= v && v < removed_.load(std::memory_order_acquire);
  }
  // Owner only: the first version that sees the rule, and the first that does not.
  void show_from(Version v) { added_.store(v, std::memory_order_release); }
  void hide_from(Version v) { removed_.store(v, std::memory_order_release); }

  // Statistics: added by whoever executes packets for this rule and by the revalidator, any thread.
  void credit(uint64_t packets, uint64_t bytes, Nanoseconds used) const;
  RuleStats stats() const;
  RuleSpec spec() const;        // everything needed to make it again
  size_t memory_bytes() const;  // of the rule and its match; the actions may be shared

 private:
  friend class RuleTables;
  friend class RuleChange;
  friend class RuleRef;
  friend class RuleIndex;    // classifier_index.h: rules with the same match are a list
  friend class RuleStaging;  // rule_staging.h
  explicit Rule(const MiniMatch& match) : match_(match.copied_to(this + 1)) {}
  ~Rule() = default;
  static Rule* make(const MiniMatch& match);
  static void destroy(const Rule* rule);

  // From now on credits go to `successor` (which this keeps alive); moves what was credited so far if `keep_counts`.
  void pass_statistics_to(const Rule* successor, bool keep_counts) const;
  void move_counts() const;

  uint64_t id_ = 0;
  uint64_t cookie_ = 0;
  Nanoseconds created_{}, modified_{};
  mutable std::atomic<uint64_t> packets_{0}, bytes_{0};
  mutable std::atomic<int64_t> used_{0};
  mutable std::atomic<const Rule*> successor_{nullptr};
  union {
    uint64_t staged_index_ = 0;  // in the open RuleChange, until it is published
    Nanoseconds deadline_;       // from then on: key in RuleTables' set of timeouts; max: not there
  };
  // What lookups look at comes last, beside the words of the match, which lie behind the rule.
  std::shared_ptr<const RuleActionList> actions_;
  uint16_t priority_ = 0, idle_timeout_ = 0, hard_timeout_ = 0, flags_ = 0, importance_ = 0;
  uint8_t table_ = 0;
  mutable std::atomic<bool> counts_kept_{true};  // by the successor
  mutable std::atomic<uint32_t> references_{1};
  std::atomic<Rule*> next_same_match_{
      nullptr};  // lower or equal priority, same match; RCU list headed by the classifier
  std::atomic<Version> added_{kNotRemoved};
  std::atomic<Version> removed_{kNotRemoved};
  const MiniMatch match_;
};

}  // namespace vswitch
