// The action set (OpenFlow 1.1+): actions that write_actions collects and that run when the pipeline is through.
#pragma once

#include "vswitchd/rules/rule_action.h"

namespace vswitch {

// The list that a set of actions, in the order they were written, stands for: strip_vlan, push_vlan and dec_ttl (the
// last written of each), then all field changes in their order, then the last output, or the last resubmit if there is
// no output. Empty if there is neither: a set that sends the packet nowhere does nothing. Other actions have no place
// in a set and are left out.
RuleActionList execution_order(const RuleActionList& action_set);

}  // namespace vswitch
