// What to do to a bridge's rules to make them those of a list: for `ofctl replace-flows` and `diff-flows`.
#pragma once

#include <span>
#include <vector>

#include "vswitchd/control/switch.h"

namespace vswitch {

struct RuleDifference {
  std::vector<RuleMod> mods;             // deletions first, then additions
  std::vector<RuleSpec> only_in_bridge;  // as `-` lines: not wanted, or wanted otherwise
  std::vector<RuleSpec> only_wanted;     // as `+` lines
};

// Rules are the same rule if table, priority and match are equal; it is equal if actions, cookie, timeouts, flags and
// importance are, too. Of several wanted ones that are the same the last counts. REQUIRES: every mod is an addition.
RuleDifference rule_difference(std::span<const RuleSpec> in_bridge, std::span<const RuleMod> wanted);

}  // namespace vswitch
