// Outcomes: what translations said while flows are revalidated, for the other flows that it holds for as well.
//
// translate() promises that every packet which agrees with the translated one on the bits of output.mask is treated
// like it: it meets the same rules of the same tables, gets the same actions, and has the same written down for it. So
// a flow whose mask fixes all of those bits, to the same values, need not be translated. After a change of a rule that
// looks at little, all flows that meet it share a few outcomes; where every flow's outcome looks at all that the flow
// looks at, nothing can be shared, and nothing is searched.
//
// An outcome holds for the rules, addresses and ports that it was made with. Whoever changes those has all flows that
// may be concerned looked at once more, later; an outcome that is older than that must not be given to a flow which has
// been looked at since. So forget() them before others can revalidate.
//
// Thread-compatible. Only for an RCU reader that stays online from one forget() to the next.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "datapath/flow_table/flow_table.h"
#include "vswitchd/control/flow_origin.h"

namespace vswitch {

struct Outcome {
  std::shared_ptr<const FlowTerms> terms;
  uint64_t view_generation = 0;  // see FlowOrigin
  Flow::ActionsRef actions;
  uint16_t installer_bits = 0;
};

class Outcomes {
 public:
  // Masks that are searched; further ones are not remembered.
  static constexpr size_t kMostMasks = 16;
  // A mask is given up when so many searches more have failed than kWorth times those that have not: then to search
  // for its outcomes does not pay.
  static constexpr int kPatience = 128, kWorth = 8;

  // What holds for `flow`, null if nothing is known to. Valid until add() or forget().
  const Outcome* find(const Flow& flow);
  // Of the translation of `flow`, which gave `mask`; returns it as find() does. REQUIRES: the flow's mask has all bits
  // of `mask`.
  const Outcome& add(const Flow& flow, const FlowMask& mask, Outcome outcome);
  // The outcomes; which masks were worth their search is remembered.
  void forget();
  // Whether the flow's mask has all bits of `mask`.
  bool fixes(const Flow& flow, const FlowMask& mask);
  // The list as flows have it; equal ones, one after the other or of `flow`, are one.
  const Flow::ActionsRef& share(const Flow& flow, ActionList actions);

 private:
  struct Entry {
    HotWords hot{};                 // masked
    std::unique_ptr<FlowKey> rest;  // the masked key, if the mask goes beyond the hot words
    Outcome outcome;
  };
  // The outcomes of one mask.
  struct Form {
    FlowMask mask;
    bool hot_only = true;
    int patience = kPatience;
    std::unordered_multimap<uint64_t, Entry> entries{};  // by the hash of the masked hot words
  };
  // What is known of flows of one mask, the last that was asked for.
  struct Asked {
    const HotWords* pattern = nullptr;  // identifies it
    FlowMask mask;
    std::vector<Form*> forms;  // that look at nothing which the flows do not look at, and at less
  };
  void ask_of(const Flow& flow);
  void fit(Form& form);
  static HotWords masked_hot(const Flow& flow, const Form& form);
  static const Outcome* find(const Flow& flow, Form& form);

  std::deque<Form> forms_;
  Asked asked_;
  Outcome alone_;  // the last one that is of use for its flow only
  Flow::ActionsRef last_actions_;
};

}  // namespace vswitch
