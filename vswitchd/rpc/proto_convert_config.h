// Bridges, ports and settings: protobuf messages <-> domain values.
//
// Conversion checks what the types demand (ranges, addresses, enumerations); whether a configuration makes sense is
// Switch::apply()'s business. Functions of their arguments only.
#pragma once

#include <google/protobuf/field_mask.pb.h>

#include "vswitch/v1/resources.pb.h"
#include "vswitchd/control/switch.h"

namespace vswitch {

v1::Bridge to_proto(const BridgeConfig& config);
v1::Bridge to_proto(const BridgeInfo& info);
Result<BridgeConfig> bridge_from_proto(const v1::Bridge& bridge);

v1::Port to_proto(const PortConfig& config);
v1::Port to_proto(const PortInfo& info);
Result<PortConfig> port_from_proto(const v1::Port& port);
v1::PortState to_proto(const VportState& state);
v1::PortStatistics to_proto(const VportStats& stats);

v1::Settings to_proto(const Settings& settings);
Settings settings_from_proto(const v1::Settings& settings);

// Copies from `request` into `resource` what `mask` names; with no paths, everything that a person configures. Paths
// may name a key of a map ("options.remote_ip"): it is set, or removed if `request` does not have it. An unknown path
// gives invalid_argument. The `name` never changes.
Status merge(const v1::Bridge& request, const google::protobuf::FieldMask& mask, v1::Bridge& resource);
Status merge(const v1::Port& request, const google::protobuf::FieldMask& mask, v1::Port& resource);
Status merge(const v1::Settings& request, const google::protobuf::FieldMask& mask, v1::Settings& resource);

}  // namespace vswitch
