// Traces: the switch's TraceResult -> protobuf, and the text of `ofctl trace` (design.md section 6).
#pragma once

#include <functional>
#include <string>

#include "vswitch/v1/rule_service.pb.h"
#include "vswitchd/control/switch.h"
#include "vswitchd/openflow/flow_text.h"

namespace vswitch {

struct TraceTextOptions {
  std::function<std::string(uint32_t dp_port)> dp_port_name;  // empty: numbers
};

// Fills sections and text.
void trace_to_proto(const TraceResult& trace, const TraceTextOptions& options, v1::TraceResponse& out);

}  // namespace vswitch
