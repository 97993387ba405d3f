// FlowOrigin: what vswitchd hangs on a datapath flow: where it came from, and how much of its traffic has been
// credited.
//
// Made by the slow path with the flow; afterwards read and written by the revalidator only, under its lock.
#pragma once

#include <cstdint>
#include <vector>

#include "vswitchd/translate/translate.h"

namespace vswitch {

struct FlowOrigin {
  Credit credit;
  std::vector<LearnedSource> learned;
  uint64_t view_generation = 0;   // of the view that `learned` names ports of
  bool active = false;            // had packets since `learned` was last refreshed
  uint64_t credited_packets = 0;  // of the flow's statistics, already given to `credit`
  uint64_t credited_bytes = 0;
};

}  // namespace vswitch
