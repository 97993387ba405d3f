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
//
// A packet that recirculates starts another such text, under a line that says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "vswitchd/translate/trace.h"

namespace vswitch {

// The indented tree of one section, beginning with the empty line in front of `bridge(...)`, with trailing newline.
// Depth is indented only where something follows at the same depth, so a chain of tables reads straight down.
// More than about `max_bytes` (indentation counts) end with a line that says so.
std::string format_trace_nodes(const std::vector<TraceNode>& nodes, size_t max_bytes = SIZE_MAX);

// What stands above each pass but the first: the number under which the packet came back.
std::string format_recirculation(uint32_t recirc_id);

}  // namespace vswitch
