// Rule: an OpenFlow entry: table, priority, match, actions, timeouts, cookie, statistics. ("Flow" is the datapath's word.)
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

// A classifier version: a lookup at version v sees the rules with added <= v < removed, hence each batch whole or not at all.
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
  Match match;
  std::shared_ptr<const RuleActionList> actions;  // never null; empty list: drop
  uint64_t cookie = 0;
  uint16_t idle_timeout = 0;  // seconds, 0: never
  uint16_t hard_timeout = 0;
  uint16_t flags = 0;         // RuleFlag bits
  uint16_t importance = 0;
};

struct RuleStats {
  uint64_t packets = 0;
  uint64_t bytes = 0;
  Nanoseconds used{};  // last packet, or creation
};

class Rule {
 public:
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

  bool visible_at(Version v) const {
    return added_.load(std::memory_order_acquire) <= v && v < removed_.load(std::memory_order_acquire);
  }

  // Statistics: added by whoever executes packets for this rule and by the revalidator, any thread.
  void credit(uint64_t packets, uint64_t bytes, Nanoseconds used) const;
  RuleStats stats() const;
  RuleSpec spec() const;  // everything needed to make it again

  // Datapath flows keep the rules that they came from alive until they are revalidated (see RuleRef): the tables hold one
  // reference, given up after a grace period; the last one deletes the rule. Any thread.
  void ref() const { references_.fetch_add(1, std::memory_order_relaxed); }
  void unref() const {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

 private:
  friend class RuleTables;
  friend class Classifier;
  Rule() = default;
  ~Rule() = default;

  uint64_t id_ = 0;
  MiniMatch match_;
  std::shared_ptr<const RuleActionList> actions_;
  uint64_t cookie_ = 0;
  Nanoseconds created_{}, modified_{};
  std::atomic<Version> added_{0};
  std::atomic<Version> removed_{kNotRemoved};
  mutable std::atomic<uint64_t> packets_{0}, bytes_{0};
  mutable std::atomic<int64_t> used_{0};
  mutable std::atomic<uint32_t> references_{1};
  uint16_t priority_ = 0, idle_timeout_ = 0, hard_timeout_ = 0, flags_ = 0, importance_ = 0;
  uint8_t table_ = 0;
};

// A counted reference to a rule that may outlive its place in the tables. Taken by RCU readers (translation).
class RuleRef {
 public:
  RuleRef() = default;
  explicit RuleRef(const Rule* rule) : rule_(rule) {
    if (rule_ != nullptr) rule_->ref();
  }
  RuleRef(const RuleRef& o) : RuleRef(o.rule_) {}
  RuleRef(RuleRef&& o) noexcept : rule_(std::exchange(o.rule_, nullptr)) {}
  RuleRef& operator=(RuleRef o) noexcept {
    std::swap(rule_, o.rule_);
    return *this;
  }
  ~RuleRef() {
    if (rule_ != nullptr) rule_->unref();
  }
  const Rule* get() const { return rule_; }
  const Rule* operator->() const { return rule_; }
  const Rule& operator*() const { return *rule_; }

 private:
  const Rule* rule_ = nullptr;
};

}  // namespace vswitch
