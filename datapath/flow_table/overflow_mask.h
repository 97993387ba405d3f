// Overflow masks: a few fixed masks, each more specific than the last, so that every flow fits one of them. Where flows
// go when the table has as many masks as it may have. Private to the flow table.
#pragma once

#include "datapath/flow/flow_key.h"

namespace vswitch {

// The least specific of them that looks at everything that `mask` does. The last looks at everything.
const FlowMask& overflow_mask_for(const FlowMask& mask);
bool is_overflow_mask(const FlowMask& mask);

}  // namespace vswitch
