#include "datapath/core/flow_setup.h"

#include <utility>

namespace vswitch {

Flow* FlowSetup::answer(ThreadContext& ctx, ActionSink& sink, const FlowKey& key, PacketPtr packet) {
  UpcallHandler* handler = this->handler();
  if (handler == nullptr) {
    ctx.drop(std::move(packet), DropReason::upcall_error);
    return nullptr;
  }
  MissResult result = handler->miss(key, *packet);
  if (result.install && !flows_.full()) {
    const Result<Flow*> flow =
        flows_.insert(key, result.mask, result.actions, {}, result.installer_data, result.installer_bits);
    if (flow.ok()) {
      execute(ctx, sink, **flow, key, std::move(packet));
      return *flow;
    }
    if (Flow* other = flows_.lookup(key)) {  // put there meanwhile
      execute(ctx, sink, *other, key, std::move(packet));
      return nullptr;
    }
  }
  handler->uncounted(result.installer_data, 1, packet->size());
  execute_actions(ctx, Flow::list_of(result.actions), std::move(packet), sink);
  return nullptr;
}

void FlowSetup::execute(ThreadContext& ctx, ActionSink& sink, Flow& flow, const FlowKey& key, PacketPtr packet) {
  flow.count_in_passing(ctx.index, 1, packet->size(), ctx.now, key.tcp_flags.host());
  execute_actions(ctx, flow.actions(), std::move(packet), sink);
}

void FlowSetup::report_crowd() {
  if (UpcallHandler* handler = this->handler(); handler != nullptr && flows_.crowded()) handler->crowded();
}

}  // namespace vswitch
