// ActionInterner: equal action lists share one, so that a million rules with the same actions cost one list.
//
// Thread safety: used under RuleTables' lock. Lists die with their last rule; the interner holds no reference.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "vswitchd/rules/rule_action.h"

namespace vswitch {

// Equal lists have equal hashes (the reverse is likely only). Changes from process to process.
uint64_t hash_actions(const RuleActionList& actions);

// Whether the list outputs to `port`, also inside write_actions and clone; `controller` counts as kOfPortController.
// This is what the out_port of a delete or dump request means.
bool outputs_to(const RuleActionList& actions, OfPort port);

class ActionInterner {
 public:
  // The list that stands for all equal to `actions` (perhaps `actions` itself). REQUIRES: not null.
  std::shared_ptr<const RuleActionList> intern(std::shared_ptr<const RuleActionList> actions);
  size_t size() const { return lists_.size(); }

 private:
  void sweep();

  std::unordered_multimap<uint64_t, std::weak_ptr<const RuleActionList>> lists_;
  size_t sweep_at_ = 64;  // when there are so many, forget those that died
};

}  // namespace vswitch
