// How flows are filled in and emptied: the part of Flow that only the flow table may use.
#pragma once

#include <memory>
#include <utility>

#include "datapath/flow_table/flow_arena.h"
#include "datapath/flow_table/flow_table.h"
#include "datapath/flow_table/mask_pattern.h"

namespace vswitch {

struct Flow::SharedActions : std::enable_shared_from_this<SharedActions> {
  explicit SharedActions(ActionList actions);
  ActionList list;
  Flow::Shortcut shortcut;
  uint32_t only_output;
  bool shallow;
};

struct FlowImplementation {
  // Makes a flow of the arena one with the words of `key` that the pattern names, masked, and with a reference to the
  // pattern that the caller has taken for it. Not alive yet.
  static Flow& fill_in(Flow* flow, const MaskPattern& pattern, const FlowKey& key);
  // REQUIRES, both: nobody else knows the flow yet.
  static void give_actions(Flow& flow, Flow::ActionsRef actions);
  static void begin_with(Flow& flow, const FlowStats& stats);
  // From now on whoever comes by it may use it.
  static void publish(Flow& flow) { flow.alive_.store(true, std::memory_order_release); }
  static void kill(Flow& flow) { flow.alive_.store(false, std::memory_order_seq_cst); }
  // Gives up what the flow holds and the flow itself. REQUIRES: no reader can have found it alive.
  static void recycle(FlowArena& arena, Flow* flow);
  // Returns the list that was there before, which readers may use for a grace period yet. Table's lock.
  static Flow::ActionsRef set_actions(Flow& flow, Flow::ActionsRef actions);
  static bool shallow(const Flow& flow) { return shallow_with(flow, flow.actions_owner_); }
  static bool shallow_with(const Flow& flow, const Flow::ActionsRef& actions) {
    return flow.pattern_->shallow() && actions->shallow;
  }
  static const MaskPattern& pattern(const Flow& flow) { return *flow.pattern_; }
  static const uint64_t* hot(const Flow& flow) { return flow.hot_.data(); }
  static const uint64_t* rest(const Flow& flow) { return flow.rest(); }
  static void ref(Flow& flow) { flow.references_.fetch_add(1, std::memory_order_relaxed); }
  // True: that was the last.
  static bool unref(Flow& flow) { return flow.references_.fetch_sub(1, std::memory_order_acq_rel) == 1; }
};

}  // namespace vswitch
