// FlowOrigin: what vswitchd hangs on a datapath flow: where it came from, and how much of its traffic has been
// credited.
//
// Made by the slow path with the flow; afterwards read and written by the revalidator only, under its lock.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "vswitchd/translate/translate.h"

namespace vswitch {

struct FlowOrigin {
  Credit credit;
  std::vector<LearnedSource> learned;
  std::vector<RecircRef> recircs;  // that its actions send packets to, and the one that it matches
  uint64_t view_generation = 0;   // of the view that `learned` names ports of
  bool active = false;            // had packets since `learned` was last refreshed
  uint64_t credited_packets = 0;  // of the flow's statistics, already given to `credit`
  uint64_t credited_bytes = 0;

  // Takes from a translation what the flow is to count, to refresh and to keep alive from now on.
  void take(TranslateOutput& output) {
    credit = std::move(output.credit);
    learned = std::move(output.learned);
    recircs.clear();
    for (Recirculation& r : output.recirculations) recircs.push_back(std::move(r.context));
    if (output.thawed) recircs.push_back(std::move(output.thawed));
  }
};

}  // namespace vswitch
