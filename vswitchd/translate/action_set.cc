#include "vswitchd/translate/action_set.h"

#include <utility>
#include <variant>

#include "datapath/actions/action.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/translate/translator.h"

namespace vswitch {
namespace {

struct Slots {
  const RuleAction* strip_vlan = nullptr;
  const RuleAction* push_vlan = nullptr;
  const RuleAction* dec_ttl = nullptr;
  std::vector<const RuleAction*> field_changes;
  const RuleAction* resubmit = nullptr;
  const RuleAction* output = nullptr;
};

void sort_in(const RuleAction& action, Slots& slots) {
  std::visit(Overload{
                 [&](const StripVlan&) { slots.strip_vlan = &action; },
                 [&](const PushVlan&) { slots.push_vlan = &action; },
                 [&](const DecTtl&) { slots.dec_ttl = &action; },
                 [&](const SetField&) { slots.field_changes.push_back(&action); },
                 [&](const MoveField&) { slots.field_changes.push_back(&action); },
                 [&](const ModField&) { slots.field_changes.push_back(&action); },
                 [&](const ModVlanVid&) { slots.field_changes.push_back(&action); },
                 [&](const ModVlanPcp&) { slots.field_changes.push_back(&action); },
                 [&](const SetTunnelId&) { slots.field_changes.push_back(&action); },
                 [&](const Resubmit&) { slots.resubmit = &action; },
                 [&](const OutputToPort&) { slots.output = &action; },
                 [&](const SendToController& c) {
                   // `output:controller` is an output; controller() with options of its own has no place in a set.
                   if (c.userdata.empty() && c.controller_id == 0) slots.output = &action;
                 },
                 [](const OutputToField&) {},
                 [](const StackPush&) {},
                 [](const StackPop&) {},
                 [](const CloneActions&) {},
                 [](const Exit&) {},
                 [](const Note&) {},
                 [](const ClearActions&) {},
                 [](const WriteActions&) {},
                 [](const WriteMetadata&) {},
                 [](const GotoTable&) {},
                 [](const DebugRecirculate&) {},
             },
             static_cast<const RuleAction::variant&>(action));
}

}  // namespace

RuleActionList execution_order(const RuleActionList& action_set) {
  Slots slots;
  for (const RuleAction& action : action_set) sort_in(action, slots);
  RuleActionList list;
  const RuleAction* final_action = slots.output != nullptr ? slots.output : slots.resubmit;
  if (final_action == nullptr) return list;
  for (const RuleAction* action : {slots.strip_vlan, slots.push_vlan, slots.dec_ttl}) {
    if (action != nullptr) list.push_back(*action);
  }
  for (const RuleAction* action : slots.field_changes) list.push_back(*action);
  list.push_back(*final_action);
  return list;
}

void Translator::write_action_set(const RuleActionList& list) {
  for (const RuleAction& action : list) {
    if (const auto* output = std::get_if<OutputToPort>(&action)) key_.pipeline.actset_output = output->port;
    if (std::holds_alternative<SendToController>(action)) key_.pipeline.actset_output = kOfPortController;
  }
  action_set_.insert(action_set_.end(), list.begin(), list.end());
}

void Translator::run_action_set() {
  if (action_set_.empty()) return;
  const RuleActionList list = execution_order(std::exchange(action_set_, {}));
  if (list.empty()) return;
  const TraceScope scope(*this, report(TraceNode::Kind::table, "Executing action set:"));
  in_action_set_ = true;
  run_actions(list, true);
  in_action_set_ = false;
}

void Translator::report_action_set(const char* verb) {
  if (!tracing()) return;
  const RuleActionList list = execution_order(action_set_);
  detail(std::string("action set ") + verb + (list.empty() ? " empty" : ": " + format_actions(list, names())));
}

}  // namespace vswitch
