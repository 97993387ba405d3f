// The text of `ofctl trace`, as an Open vSwitch user knows it from ofproto/trace (design.md section 6):
//
//   Flow: tcp,in_port=1,...
//
//   bridge("br0")
//   -------------
//    0. in_port=1, priority 100
//       resubmit(,2)
//    ...
//   Final flow: ...
//   Megaflow: recirc_id=0,eth,tcp,...
//   Datapath actions: 2
#pragma once

#include <string>
#include <vector>

#include "vswitchd/translate/trace.h"

namespace vswitch {

// The indented tree of one section, beginning with the empty line in front of `bridge(...)`, with trailing newline.
// Depth is indented only where something follows at the same depth, so a chain of tables reads straight down.
std::string format_trace_nodes(const std::vector<TraceNode>& nodes);

}  // namespace vswitch
