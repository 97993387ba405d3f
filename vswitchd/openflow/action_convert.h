// Conversion between libopenvswitch's ofpacts and RuleActionList.
//
// An ofpact that RuleAction has no alternative for is refused, naming it. Thread-safe: functions of their arguments.
#pragma once

#include "datapath/base/status.h"
#include "vswitchd/openflow/ovs.h"
#include "vswitchd/rules/rule_action.h"

namespace vswitch::ovs {

Result<RuleActionList> actions_from_ofpacts(const ofpact* ofpacts, size_t size);
// Whether the list can be turned into ofpacts at all: REQUIRED of what put_actions() gets.
Status check_size(const RuleActionList& actions);
void put_action(const RuleAction& action, ofpbuf* out);
void put_actions(const RuleActionList& actions, ofpbuf* out);

}  // namespace vswitch::ovs
