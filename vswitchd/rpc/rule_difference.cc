#include "vswitchd/rpc/rule_difference.h"

#include <unordered_map>

namespace vswitch {
namespace {

struct Identity {
  const RuleSpec* rule;
  bool operator==(const Identity& o) const {
    return rule->table == o.rule->table && rule->priority == o.rule->priority && rule->match == o.rule->match;
  }
};

struct IdentityHash {
  size_t operator()(const Identity& identity) const {
    const RuleSpec& rule = *identity.rule;
    return (rule.match.hash() * 31 + rule.table) * 31 + rule.priority;
  }
};

// Flags that say how to add a rule are not part of what the rule is.
constexpr uint16_t kLastingFlags = static_cast<uint16_t>(~(kRuleCheckOverlap | kRuleResetCounts));

bool equal(const RuleSpec& a, const RuleSpec& b) {
  return *a.actions == *b.actions && a.cookie == b.cookie && a.idle_timeout == b.idle_timeout &&
         a.hard_timeout == b.hard_timeout && a.importance == b.importance &&
         (a.flags & kLastingFlags) == (b.flags & kLastingFlags);
}

RuleMod removal(const RuleSpec& rule) {
  RuleMod mod;
  mod.command = RuleCommand::remove_strict;
  mod.spec.table = rule.table;
  mod.spec.priority = rule.priority;
  mod.spec.match = rule.match;
  mod.spec.actions = std::make_shared<const RuleActionList>();
  return mod;
}

}  // namespace

RuleDifference rule_difference(std::span<const RuleSpec> in_bridge, std::span<const RuleMod> wanted) {
  std::unordered_map<Identity, const RuleSpec*, IdentityHash> last_wanted;
  for (const RuleMod& mod : wanted) last_wanted.insert_or_assign(Identity{&mod.spec}, &mod.spec);

  RuleDifference out;
  std::unordered_map<const RuleSpec*, bool> there;  // wanted rule -> is in the bridge just so
  for (const RuleSpec& rule : in_bridge) {
    auto it = last_wanted.find(Identity{&rule});
    bool same = it != last_wanted.end() && equal(rule, *it->second);
    if (same) {
      there[it->second] = true;
    } else {
      out.only_in_bridge.push_back(rule);
      if (it == last_wanted.end()) out.mods.push_back(removal(rule));
    }
  }
  for (const RuleMod& mod : wanted) {
    auto it = last_wanted.find(Identity{&mod.spec});
    if (it->second != &mod.spec || there.contains(&mod.spec)) continue;
    out.only_wanted.push_back(mod.spec);
    out.mods.push_back(mod);
  }
  return out;
}

}  // namespace vswitch
