// KnownTerms: what a thread's last translations said, for new flows that are to be treated alike.
//
// New flows come in crowds that meet the same few rules: what they count for and what they do are then objects that
// they share, as flows do after a revalidation (outcomes.h). That saves them most of their memory, and setting a flow
// up is bound by memory.
//
// Keeps no terms alive: those that no flow has any more are forgotten, and so are the rules and tables that they hold.
//
// Thread-compatible. For an RCU reader.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "datapath/flow_table/flow_table.h"
#include "vswitchd/control/flow_origin.h"

namespace vswitch {

class KnownTerms {
 public:
  static constexpr size_t kEntries = 1024;  // one for each way through the rules; those of the same hash take turns

  struct Shared {
    std::shared_ptr<const FlowTerms> terms;
    Flow::ActionsRef actions;
  };
  // Those of a flow that `output` is the translation of: of an earlier flow where they are the same, else made of what
  // they take from `output`. Neither is null.
  Shared share(TranslateOutput& output);

 private:
  struct Entry {
    std::weak_ptr<const FlowTerms> terms;
    std::weak_ptr<Flow::ActionsRef::element_type> actions;
  };
  std::unique_ptr<std::array<Entry, kEntries>> entries_ = std::make_unique<std::array<Entry, kEntries>>();
};

}  // namespace vswitch
