#include "vswitchd/control/rule_changes.h"

#include <algorithm>
#include <map>

#include "datapath/base/word_hash.h"

namespace vswitch {
namespace {

// So many rules are asked about one by one.
constexpr size_t kFewRules = 32;
// Looking into so few groups costs hardly more than looking into one.
constexpr size_t kFewGroups = 8;
// A flow of a form with more groups of rules is translated again: that takes no longer than to look into all of them.
constexpr size_t kMostGroups = 256;

// Of the bits of `words` that `mask` has.
uint64_t hash_of(const HotWords& words, const HotWords& mask) {
  uint64_t hash = hash_start();
  for (size_t i = 0; i < kHotWords; ++i) {
    if (mask[i] != 0) hash = hash_word(hash, words[i] & mask[i]);
  }
  return hash;
}

const Credit& credit_of(const Flow& flow) {
  return static_cast<const FlowOrigin*>(flow.installer_data().get())->terms->credit;
}

// The rule's in_port is the bridge's, the flow's the datapath's. A port that the view does not have may still be one
// that a packet was resubmitted as, and then the flow's first word counts as rewritten; so it may stand for any.
void translate_in_port(const BridgeView& bridge, FlowKey& value, FlowMask& mask) {
  const PortView* port = mask.in_port == ~0u ? bridge.port(static_cast<OfPort>(value.in_port)) : nullptr;
  const bool known = port != nullptr && port->dp_port != 0;
  value.in_port = known ? port->dp_port : 0;
  mask.in_port = known ? ~0u : 0;
  value.recirc_id = mask.recirc_id = 0;
}

}  // namespace

void RuleChanges::add(const RuleChange& change, const BridgeView* bridge) {
  if (bridge == nullptr || too_many_) return;
  if (rules_.size() + change.added().size() + change.removed().size() > kMostRules) {
    too_many_ = true;
    rules_.clear();
    return;
  }
  for (const Rule* rule : change.added()) add(*rule, false, *bridge);
  for (const Rule* rule : change.removed()) add(*rule, true, *bridge);
}

void RuleChanges::add(const Rule& rule, bool removed, const BridgeView& bridge) {
  Match match = rule.match().expand();
  translate_in_port(bridge, match.value.packet, match.mask.packet);
  Changed changed;
  for (size_t i = 0; i < kHotWords; ++i) {
    changed.value[i] = words(match.value.packet)[i];
    changed.mask[i] = words(match.mask.packet)[i];
  }
  changed.tables = bridge.tables.get();
  changed.removed = removed ? &rule : nullptr;
  changed.priority = rule.priority();
  changed.table = rule.table();
  changed.table_bit = FlowOrigin::table_bit(changed.tables, changed.table);
  rules_.push_back(changed);
}

bool RuleChanges::may_concern(const Flow& flow) const {
  return any_of(flow, [&flow](const Changed& rule) { return may_meet(rule, flow); });
}

bool RuleChanges::concern(const Flow& flow) const {
  return any_of(flow, [&flow](const Changed& rule) { return may_meet(rule, flow) && matters_to(rule, flow); });
}

template <typename Predicate>
bool RuleChanges::any_of(const Flow& flow, const Predicate& predicate) const {
  if (too_many_) return true;
  if (rules_.size() <= kFewRules) return std::any_of(rules_.begin(), rules_.end(), predicate);
  const Groups& groups = groups_of({flow.hot_mask(), flow.installer_bits()});
  if (groups.size() > kMostGroups) return true;
  return std::any_of(groups.begin(), groups.end(), [&](const Group& group) {
    const auto [begin, end] = group.rules.equal_range(hash_of(flow.hot_key(), group.bits));
    return std::any_of(begin, end, [&](const auto& entry) { return predicate(rules_[entry.second]); });
  });
}

size_t RuleChanges::HashForm::operator()(const Form& form) const {
  uint64_t hash = hash_word(hash_start(), form.installer_bits);
  for (const uint64_t word : form.mask) hash = hash_word(hash, word);
  return hash;
}

const RuleChanges::Groups& RuleChanges::groups_of(const Form& form) const {
  const auto [at, is_new] = groups_.try_emplace(form);
  Groups& groups = at->second;
  if (!is_new) return groups;
  std::map<HotWords, size_t> known;
  for (size_t r = 0; r < rules_.size(); ++r) {
    const Changed& rule = rules_[r];
    if ((form.installer_bits & rule.table_bit) == 0) continue;
    HotWords bits{};
    for (size_t i = 0; i < kHotWords; ++i) {
      const bool rewritten = (form.installer_bits & FlowOrigin::kRewrittenWords & (1u << i)) != 0;
      bits[i] = rewritten ? 0 : rule.mask[i] & form.mask[i];
    }
    const auto [group, added] = known.try_emplace(bits, groups.size());
    if (added) groups.push_back({bits, {}});
    groups[group->second].rules.emplace(hash_of(rule.value, bits), static_cast<uint32_t>(r));
  }
  if (groups.size() > kFewGroups) merge(groups);
  return groups;
}

// Puts all rules into one group by the bits that all of them have, if these tell the rules apart so well that looking
// at those that are left takes less than looking into every group. Rule sets have hundreds of masks, but most of them
// begin alike: some bits of the destination address.
void RuleChanges::merge(Groups& groups) const {
  Group merged{groups.front().bits, {}};
  for (const Group& group : groups) {
    for (size_t i = 0; i < kHotWords; ++i) merged.bits[i] &= group.bits[i];
  }
  std::unordered_map<uint64_t, size_t> counts;
  size_t met = 0;  // times the number of rules: how many a flow that meets one of them meets
  for (const Group& group : groups) {
    for (const auto& [hash, rule] : group.rules) {
      const uint64_t merged_hash = hash_of(rules_[rule].value, merged.bits);
      merged.rules.emplace(merged_hash, rule);
      met += 2 * counts[merged_hash]++ + 1;
    }
  }
  if (met >= groups.size() * merged.rules.size()) return;
  groups.clear();
  groups.push_back(std::move(merged));
}

// By what lies in the flow's own two cache lines, which passes over nearly all.
bool RuleChanges::may_meet(const Changed& rule, const Flow& flow) {
  const uint16_t bits = flow.installer_bits();
  if ((bits & rule.table_bit) == 0) return false;
  return (flow.disagreeing_words(rule.value, rule.mask) & ~(bits & FlowOrigin::kRewrittenWords)) == 0;
}

bool RuleChanges::matters_to(const Changed& rule, const Flow& flow) {
  const Credit& credit = credit_of(flow);
  const auto lookups = std::find_if(credit.lookups.begin(), credit.lookups.end(), [&](const Credit::TableLookups& l) {
    return l.table == rule.table && l.tables.get() == rule.tables;
  });
  if (lookups == credit.lookups.end()) return false;
  if (rule.removed != nullptr) {
    return std::any_of(credit.rules.begin(), credit.rules.end(),
                       [&](const RuleRef& met) { return met.get() == rule.removed; });
  }
  if (lookups->missed != 0) return true;
  // Rules do not know their bridge; one of another bridge's table makes the answer "perhaps" at worst.
  return std::any_of(credit.rules.begin(), credit.rules.end(), [&](const RuleRef& met) {
    return met->table() == rule.table && met->priority() <= rule.priority;
  });
}

}  // namespace vswitch
