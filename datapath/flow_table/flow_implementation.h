// How flows are made and freed: the part of Flow that only the flow table may use.
#pragma once

#include <memory>
#include <utility>

#include "datapath/flow_table/flow_table.h"
#include "datapath/flow_table/mask_pattern.h"

namespace vswitch {

struct Flow::SharedActions : std::enable_shared_from_this<SharedActions> {
  explicit SharedActions(ActionList actions) : list(std::move(actions)) {}
  ActionList list;
};

struct FlowImplementation {
  // With the words of `key` that the pattern names, masked.
  static Flow* make(std::shared_ptr<const MaskPattern> pattern, const FlowKey& key);
  static void destroy(Flow* flow);
  // The list that was there before is freed after a grace period. Table's lock.
  static void set_actions(Flow& flow, ActionList actions);
  static size_t memory_bytes(const Flow& flow);
  static const MaskPattern& pattern(const Flow& flow) { return *flow.pattern_; }
  static const uint64_t* values(const Flow& flow) { return flow.values(); }
};

}  // namespace vswitch
