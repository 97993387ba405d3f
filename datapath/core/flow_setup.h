// FlowSetup: what a miss leads to: the UpcallHandler says what is to be done with the packet, the flow is installed,
// the packet executed.
//
// Shared by the handler thread, which takes misses from the queues, and by forwarding threads that help it
// (help_policy.h). Any number of threads at once; each is a registered RCU reader and brings its own context.
#pragma once

#include <atomic>

#include "datapath/actions/execute.h"
#include "datapath/core/upcall.h"
#include "datapath/flow_table/flow_table.h"
#include "datapath/packet/thread_context.h"

namespace vswitch {

class FlowSetup {
 public:
  explicit FlowSetup(FlowTable& flows) : flows_(flows) {}

  // Packets are dropped (upcall_error) while there is none. Whoever replaces it waits for RCU readers.
  void set_handler(UpcallHandler* handler) { handler_.store(handler, std::memory_order_release); }
  UpcallHandler* handler() const { return handler_.load(std::memory_order_acquire); }
  FlowTable& flows() { return flows_; }

  // Translates the packet, which missed with `key`, installs the flow and executes the packet. Returns the flow if one
  // was installed; valid until the thread's next quiescent state. `key` may not be overwritten by what `sink` does.
  Flow* answer(ThreadContext& ctx, ActionSink& sink, const FlowKey& key, PacketPtr packet);
  // Executes a packet of a flow that is there.
  static void execute(ThreadContext& ctx, ActionSink& sink, Flow& flow, const FlowKey& key, PacketPtr packet);
  // Called now and then by who sets up flows: tells the handler when there are nearly as many as there may be.
  void report_crowd();

 private:
  FlowTable& flows_;
  std::atomic<UpcallHandler*> handler_{nullptr};
};

}  // namespace vswitch
