// Upcalls: packets that the fast path hands to the slow path.
//
// A miss found no flow; an action upcall was asked for by a UserspaceAction. Handlers run on the datapath's handler
// thread, misses also on forwarding threads that help it, several at once: all are registered RCU threads, and pass a
// quiescent state between upcalls, never inside one.
#pragma once

#include <memory>
#include <optional>

#include "datapath/actions/action.h"
#include "datapath/base/drop_reason.h"
#include "datapath/flow/flow_key.h"
#include "datapath/flow_table/flow_table.h"
#include "datapath/packet/packet.h"

namespace vswitch {

// What is to be done with a packet that missed.
struct MissResult {
  Flow::ActionsRef actions;              // for this packet, and of the flow if one is installed; never null
  FlowMask mask;                         // of the flow to install
  bool install = true;                   // false: every such packet is to be translated by itself
  std::shared_ptr<void> installer_data;  // goes onto the flow
  uint16_t installer_bits = 0;           // likewise
};

class UpcallHandler {
 public:
  virtual ~UpcallHandler() = default;
  // `packet` may be looked at, not changed.
  virtual MissResult miss(const FlowKey& key, const Packet& packet) = 0;
  // The packet of a miss was executed without a flow that would count it.
  virtual void uncounted(const std::shared_ptr<void>& installer_data, uint64_t packets, uint64_t bytes) = 0;
  // Called about once a second by a thread that no packet waits for, as an RCU reader: the time to get memory for
  // misses to come.
  virtual void prepare() {}
  // There are nearly as many flows as there may be. Called again and again while that is so; must not block.
  virtual void crowded() {}
  // A copy for the control path: packet-in. Returns why nobody took it; nullopt: somebody did.
  virtual std::optional<DropReason> controller(const UserspaceAction& action, const FlowKey& key,
                                               const Packet& packet) = 0;
};

}  // namespace vswitch
