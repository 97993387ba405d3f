// LookupOptions: by which ways packets may find their flows. All ways find the same; choosing narrows down a fault, and
// lets tests try each (`vswitchd --lookup`, `--max-masks`).
#pragma once

#include <cstddef>

#include "datapath/flow_table/flow_table.h"

namespace vswitch {

struct LookupOptions {
  // Ways around the masked lookup.
  // One lookup for a batch: of a port whose flows look no deeper than the Ethernet header, or of packets with the same
  // headers.
  bool shallow = true;
  bool cache = true;  // FlowCache
  // 1 to that. With fewer, more flows are installed under masks that look at more (overflow_mask.h).
  size_t max_masks = FlowTable::kMaxMasks;
};

}  // namespace vswitch
