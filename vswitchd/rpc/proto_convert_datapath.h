// Datapath flows, masks, drops, balances: domain values -> protobuf.
#pragma once

#include "vswitch/v1/datapath_service.pb.h"
#include "vswitchd/control/switch.h"
#include "vswitchd/openflow/datapath_text.h"

namespace vswitch {

std::string ufid_to_text(const Ufid& ufid);  // "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"

// What stands inside userspace(pid=0,...), as Open vSwitch prints it. `request` is what the action's cookie stands for;
// null: it is forgotten, and packets that meet the action are dropped. recirc_id is the number of the saved request.
std::string userspace_text(const UserspaceAction& action, const ControllerRequest* request);

void counters_to_proto(const DatapathCounters& counters, v1::Datapath& out);
void datapath_flow_to_proto(const DatapathFlow& flow, const DatapathTextOptions& options, bool typed,
                            v1::DatapathFlow& out);
void mask_to_proto(const FlowTable::MaskInfo& mask, v1::DatapathMask& out);
void drop_to_proto(const DropCount& drop, v1::DropCount& out);
void balance_to_proto(const PortBalance& balance, v1::PortBalance& out);

}  // namespace vswitch
