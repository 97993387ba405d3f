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
  // One entry for each way through the rules; of several with the same hash one stays, the others take turns.
  static constexpr size_t kSets = 1024, kWaysOfSet = 2, kEntries = kSets * kWaysOfSet;

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
  using Set = std::array<Entry, kWaysOfSet>;
  static Flow::ActionsRef actions_of(Entry& entry, const TranslateOutput& output);

  std::unique_ptr<std::array<Set, kSets>> sets_ = std::make_unique<std::array<Set, kSets>>();
};

}  // namespace vswitch
