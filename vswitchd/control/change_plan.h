// ChangePlan: a Transaction checked against a Configuration, before anything is touched.
//
// Pure: looks at nothing but its arguments, so it is what `validate_only` runs too. What only the system can tell
// (device missing, UDP port taken) shows when the plan is carried out, or in a dry run asked about (port_changes.h).
#pragma once

#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "datapath/base/status.h"
#include "vswitchd/control/config.h"
#include "vswitchd/control/switch.h"

namespace vswitch {

struct ChangePlan {
  Configuration next;  // as it will be; port numbers assigned
  // Names, each in one set only; a thing that is deleted and made again in one transaction is in both lists of its
  // kind.
  std::set<std::string> deleted_bridges, created_bridges, updated_bridges;
  std::set<std::string> deleted_ports, created_ports, updated_ports;
  bool settings_changed = false;
  // Per bridge, in the order of the transaction. The mods are the transaction's own.
  struct RuleMods {
    size_t operation;
    std::span<const RuleMod> mods;
  };
  std::map<std::string, std::vector<RuleMods>> rule_mods;
};

// On error *failure says which operation. `random_mac` supplies the address of a new bridge.
Result<ChangePlan> plan_changes(const Configuration& current, const Transaction& transaction,
                                const std::function<MacAddress()>& random_mac, TransactionFailure* failure);

// What a configuration that comes from outside (the store) must fulfil for everything else to work on it. The message
// names the object at fault.
Status check_configuration(const Configuration& configuration);

// The rule that a new standalone bridge starts with: priority=0,actions=NORMAL.
RuleMod default_rule();

}  // namespace vswitch
