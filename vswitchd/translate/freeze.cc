// Recirculation: stopping in the middle, and going on from there when the packet is back. See recirc_table.h.

#include <utility>
#include <variant>

#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/translate/translator.h"

namespace vswitch {

// ---- Stopping

void Translator::freeze() {
  exit_ = true;
  freezing_ = true;
}

// Instructions become actions that do the same, for what is left to do is a list of actions.
void Translator::freeze_action(const RuleAction& action, uint8_t table, uint64_t cookie) {
  if (std::holds_alternative<Note>(action)) return;
  if (const auto* go = std::get_if<GotoTable>(&action)) {
    frozen_actions_.push_back({Resubmit{kOfPortInPort, go->table}, table, cookie});
  } else {
    frozen_actions_.push_back({action, table, cookie});
  }
}

// The lists around the one that stopped add their rest in turn, from the innermost outwards.
void Translator::freeze_rest(const RuleActionList& list, size_t first) {
  for (size_t i = first; i < list.size(); ++i) freeze_action(list[i], table_, rule_cookie_);
}

FrozenState Translator::frozen_state() {
  FrozenState state;
  state.bridge = bridge_->name;
  state.tables = bridge_->tables;
  state.in_port = key_.packet.in_port;
  state.tunnel = key_.packet.tunnel;
  state.tunnel.tp_src = state.tunnel.tp_dst = be16{};
  state.received_dst = orig_tunnel_dst_;
  state.received_dst6 = orig_tunnel_dst6_;
  state.pipeline = key_.pipeline;
  state.stack = stack_;
  state.actions = std::exchange(frozen_actions_, {});
  state.action_set = action_set_;
  return state;
}

void Translator::finish_freezing() {
  freezing_ = false;
  exit_ = false;
  commit();
  // All that the state holds decides about its number. Id, addresses and TOS of a tunnel are in the mask always.
  mask_.packet.tunnel.flags = 0xffff;
  mask_.packet.tunnel.ttl = mask_.packet.tunnel.gbp_flags = 0xff;
  mask_.packet.tunnel.gbp_id = ~be16{};
  RecircRef context = input_.contexts != nullptr ? input_.contexts->freeze(frozen_state()) : nullptr;
  if (context == nullptr) {
    fail(DropReason::no_recirculation_context, "Failed to allocate recirculation id");
    return;
  }
  const uint32_t id = context->id;
  Recirculation recirculation{std::move(context), base()};
  recirculation.key.in_port = input_.key.in_port;
  recirculation.key.recirc_id = id;
  if (!base().tunnel.has_destination()) recirculation.key.tunnel = input_.key.tunnel;
  output_.recirculations.push_back(std::move(recirculation));
  emit(RecircAction{id});
}

// ---- Going on

bool Translator::thaw() {
  if (input_.key.recirc_id == 0) return true;
  if (output_.thawed == nullptr) {
    fail(DropReason::no_recirculation_context,
         "Recirculation context not found for ID " + std::to_string(input_.key.recirc_id));
    return false;
  }
  const TraceScope scope(*this, report(TraceNode::Kind::thaw, "thaw"));
  if (input_.actions != nullptr) {
    fail(DropReason::recirculation_conflict, "Recirculation conflict (actions)!");
    return false;
  }
  return resume(output_.thawed->state);
}

bool Translator::resume(const FrozenState& state) {
  const auto bridge = input_.view.bridges.find(state.bridge);
  if (bridge == input_.view.bridges.end() || bridge->second->tables != state.tables) {
    fail(DropReason::bridge_not_found, "Frozen bridge no longer exists.");
    return false;
  }
  const BridgeView* const entered = std::exchange(bridge_, bridge->second.get());
  key_.packet.in_port = state.in_port;
  key_.packet.tunnel = state.tunnel;
  key_.pipeline = state.pipeline;
  orig_tunnel_dst_ = state.received_dst;
  orig_tunnel_dst6_ = state.received_dst6;
  stack_ = state.stack;
  action_set_ = state.action_set;
  keep_initial_key();
  if (!tracing()) return true;
  if (bridge_ != entered) report(TraceNode::Kind::thaw, "Resuming in bridge " + state.bridge);
  if (state.table.has_value()) {
    report(TraceNode::Kind::thaw, "Resuming from table " + std::to_string(*state.table));
  }
  if (!action_set_.empty()) {
    report(TraceNode::Kind::thaw, "Restoring action set: " + format_actions(action_set_, names()));
  }
  if (!state.actions.empty()) {
    report(TraceNode::Kind::thaw, "Restoring actions: " + frozen_actions_text(state.actions));
  }
  return true;
}

// Each action runs as if it still stood in its rule.
void Translator::run_frozen_actions(const std::vector<FrozenAction>& list) {
  for (size_t i = 0; i < list.size() && !stopped() && !list_done_; ++i) {
    table_ = list[i].table;
    rule_cookie_ = list[i].cookie;
    dispatch(list[i].action, i + 1 == list.size() && action_set_.empty());
    if (!freezing_) continue;
    for (size_t rest = i + 1; rest < list.size(); ++rest) {
      freeze_action(list[rest].action, list[rest].table, list[rest].cookie);
    }
  }
  list_done_ = false;
}

// As Open vSwitch prints it: where the table or the rule changes, unroll_xlate says to which.
std::string Translator::frozen_actions_text(const std::vector<FrozenAction>& list) const {
  std::string text;
  const FrozenAction* last = nullptr;
  for (const FrozenAction& a : list) {
    if (!text.empty()) text += ',';
    if (last == nullptr || last->table != a.table || last->cookie != a.cookie) {
      text += "unroll_xlate(table=" + std::to_string(a.table) + ", cookie=" + std::to_string(a.cookie) + "),";
    }
    text += format_action(a.action, names());
    last = &a;
  }
  return text;
}

}  // namespace vswitch
