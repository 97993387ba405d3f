// Where packets leave the rules: datapath ports, the next bridge through a patch port, controllers.

#include <memory>
#include <utility>

#include "vswitchd/translate/commit_actions.h"
#include "vswitchd/translate/translator.h"

namespace vswitch {

void Translator::commit() {
  if (!base_.has_value() && !vlan_restacked_ && packet_is_as_received()) return;
  const size_t before = actions_->size();
  const CommitInput input{.key = key_.packet, .written = written().packet, .vlan_restacked = vlan_restacked_};
  commit_actions(input, base(), mask_.packet, *actions_);
  if (vlan_restacked_) output_.rewritten_words |= 1 << 3;
  vlan_restacked_ = false;
  action_count_ += actions_->size() - before;
}

// False if there may be no more actions.
bool Translator::emit(Action action) {
  if (action_count_ >= kMaxDatapathActions) {
    if (!failed_) {
      fail(DropReason::too_many_output_actions, "over " + std::to_string(kMaxDatapathActions) + " datapath actions");
    }
    return false;
  }
  actions_->push_back(std::move(action));
  ++action_count_;
  return true;
}

void Translator::output_to(OfPort port, bool is_last) {
  switch (port) {
    case kOfPortInPort:
      output_port(in_port(), is_last);
      break;
    case kOfPortTable:
      if (input_.actions != nullptr) {
        run_table(0, in_port(), false, Runner::plain);
      } else {
        warning("output to \"table\" is for packet-out only");
      }
      break;
    case kOfPortNormal:
      normal();
      break;
    case kOfPortFlood:
      flood(false, is_last);
      break;
    case kOfPortAll:
      flood(true, is_last);
      break;
    case kOfPortController:
      send_to_controller({});
      break;
    case kOfPortNone:
      break;
    default:
      if (port == in_port()) {
        warning("skipping output to input port");
        note_drop(DropReason::no_output);
      } else {
        output_port(port, is_last);
      }
  }
}

void Translator::output_truncated(OfPort port, uint32_t max_len) {
  if (port == in_port()) {
    warning("skipping output to input port");
    note_drop(DropReason::no_output);
    return;
  }
  if (port == kOfPortInPort) port = in_port();
  if (port >= kOfPortMax && port != kOfPortLocal) {
    warning("a reserved port cannot be sent truncated packets: " + std::to_string(port));
    return;
  }
  const PortView* view = bridge_->port(port);
  if (view != nullptr && view->is_patch) {
    error("output_trunc does not support patch port " + std::to_string(port));
    return;
  }
  if (!may_output(view) || !emit(TruncateAction{max_len})) return;
  const size_t truncation = actions_->size() - 1;
  const size_t before = actions_->size();
  output_datapath_port(*view);
  if (actions_->size() == before) {  // a tunnel may have declined: the truncation must not hit the next output
    actions_->resize(truncation, OutputAction{});
    --action_count_;
  }
}

bool Translator::may_output(const PortView* port) {
  if (port == nullptr) {
    warning("Nonexistent output port");
    note_drop(DropReason::invalid_port);
    return false;
  }
  if (port->config.no_forward) {
    detail("OFPPC_NO_FWD set, skipping output");
    note_drop(DropReason::forwarding_disabled);
    return false;
  }
  if (port->config.down) {
    detail("OFPPC_PORT_DOWN set, skipping output");
    note_drop(DropReason::port_down);
    return false;
  }
  if (!port->protected_port) return true;
  const PortView* in = bridge_->port(in_port());
  if (in == nullptr || !in->protected_port) return true;
  warning("Flow is between protected ports, skipping output.");
  note_drop(DropReason::forwarding_disabled);
  return false;
}

void Translator::output_port(OfPort port, bool is_last) {
  const PortView* view = bridge_->port(port);
  if (!may_output(view)) return;
  if (view->is_patch) {
    output_patch(*view, is_last);
  } else {
    output_datapath_port(*view);
  }
}

void Translator::output_datapath_port(const PortView& port) {
  if (port.tunnel.has_value()) {
    output_tunnel(port);
  } else if (port.dp_port == 0) {
    warning("port " + port.name + " is not in the datapath, skipping output");
    note_drop(DropReason::invalid_port);
  } else {
    commit();
    emit(OutputAction{port.dp_port});
  }
}

// The packet goes on in the next bridge as if it had been received there; for this bridge nothing has happened to it.
void Translator::output_patch(const PortView& port, bool is_last) {
  const PortView* peer = port.patch_peer;
  if (peer == nullptr || peer->bridge == nullptr) {
    warning("patch port " + port.name + " has no peer, skipping output");
    note_drop(DropReason::bridge_not_found);
    return;
  }
  const auto saved_key = std::make_unique<PipelineKey>(key_);
  const TunnelMetadata saved_tunnel_mask = mask_.packet.tunnel;
  std::vector<uint8_t> saved_stack = std::exchange(stack_, {});
  RuleActionList saved_action_set = std::exchange(action_set_, {});
  const BridgeView* const saved_bridge = std::exchange(bridge_, peer->bridge);
  const bool saved_in_action_set = std::exchange(in_action_set_, false);

  enter_peer(*peer, is_last);

  in_action_set_ = saved_in_action_set;
  bridge_ = saved_bridge;
  action_set_ = std::move(saved_action_set);
  stack_ = std::move(saved_stack);
  mask_.packet.tunnel = saved_tunnel_mask;  // what the next bridge saw there was not the packet's
  key_ = *saved_key;
  // Neither an exit nor a failure there ends what this bridge does.
  exit_ = false;
  if (std::exchange(failed_, false)) drop_copy();
  if (port.patch_counters != nullptr && peer->patch_counters != nullptr) {
    output_.way.patch_hops.push_back({&port, peer});
  }
}

void Translator::enter_peer(const PortView& peer, bool is_last) {
  key_.packet.in_port = peer.ofport;
  key_.packet.tunnel = {};
  key_.packet.tun_metadata_present = 0;
  key_.packet.tun_metadata = {};
  key_.pipeline = {};
  key_.pipeline.actset_output = kOfPortUnset;
  const TraceScope scope(
      *this, tracing() ? report(TraceNode::Kind::bridge, "bridge(\"" + peer.bridge->name + "\")") : nullptr);
  if (!may_receive(peer)) return;
  run_table(0, peer.ofport, is_last, Runner::clone);
  end_pipeline();
}

// The copy that went through the patch port ends here, for the reason that translation failed by. What other copies do
// stands, so if there are any this one is dropped by an action of its own, once for each reason.
void Translator::drop_copy() {
  const auto reason = static_cast<size_t>(drop_reason_);
  if (dropped_copies_.test(reason)) return;
  dropped_copies_.set(reason);
  emit(CloneAction{std::make_shared<const ActionList>(ActionList{DropAction{drop_reason_}})});
}

void Translator::flood(bool all, bool is_last) {
  const PortView* last = nullptr;
  for (const auto& port : bridge_->ports) {
    if (port->ofport == in_port() || (!all && port->config.no_flood)) continue;
    if (last != nullptr && !stopped()) output_port(last->ofport, false);
    last = port.get();
  }
  if (last != nullptr && !stopped()) {
    output_port(last->ofport, is_last);
  } else {
    note_drop(DropReason::no_output);
  }
}

void Translator::send_to_controller(SendToController action) {
  commit();
  if (action.reason == PacketInReason::action) {
    if (input_.actions != nullptr && rule_ == nullptr) {
      action.reason = PacketInReason::packet_out;
    } else if (in_action_set_) {
      action.reason = PacketInReason::action_set;
    }
  }
  UserspaceAction userspace{.reason = UserspaceReason::controller, .cookie = 0, .max_len = 0};
  if (action.max_len != 0xffff) userspace.max_len = action.max_len;
  if (input_.contexts != nullptr) {
    ControllerRequest request;
    request.bridge = bridge_->name;
    request.rule_cookie = rule_cookie_;
    request.table = table_;
    request.action = std::move(action);
    request.key.packet.in_port = key_.packet.in_port;
    request.key.packet.tunnel = key_.packet.tunnel;
    request.key.packet.tunnel.ttl = 0;  // not in the mask, so not the same for all packets
    request.key.packet.tunnel.tp_src = request.key.packet.tunnel.tp_dst = be16{};
    request.key.pipeline = key_.pipeline;
    mask_.packet.tunnel.flags = 0xffff;
    mask_.packet.tunnel.gbp_id = ~be16{};
    mask_.packet.tunnel.gbp_flags = 0xff;
    userspace.cookie = input_.contexts->controller_cookie(request);
  }
  emit(userspace);
}

}  // namespace vswitch
