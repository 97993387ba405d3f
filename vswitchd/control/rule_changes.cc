#include "vswitchd/control/rule_changes.h"

#include <algorithm>

namespace vswitch {
namespace {

const FlowOrigin& origin_of(const Flow& flow) { return *static_cast<const FlowOrigin*>(flow.installer_data().get()); }

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

bool RuleChanges::concern(const Flow& flow) const {
  return too_many_ || std::any_of(rules_.begin(), rules_.end(), [&](const Changed& r) { return concerns(r, flow); });
}

// The cheapest first: nearly every flow is passed over by what lies in its own two cache lines.
bool RuleChanges::concerns(const Changed& rule, const Flow& flow) {
  const uint16_t bits = flow.installer_bits();
  if ((bits & rule.table_bit) == 0) return false;
  if ((flow.disagreeing_words(rule.value, rule.mask) & ~(bits & FlowOrigin::kRewrittenWords)) != 0) return false;
  const Credit& credit = origin_of(flow).credit;
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
