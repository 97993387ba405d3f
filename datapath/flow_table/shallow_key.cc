#include "datapath/flow_table/shallow_key.h"

#include <variant>

namespace vswitch {
namespace {

FlowMask widest_shallow_mask() {
  FlowMask mask;
  mask.in_port = mask.recirc_id = ~0u;
  mask.eth_type = ~be16{};
  for (VlanTag& tag : mask.vlan) tag = {~be16{}, ~be16{}};
  mask.nw_frag = 0xff;
  mask.packet_type = ~be32{};
  return mask;
}

bool is_shallow_action(const Action& action) {
  return std::holds_alternative<OutputAction>(action) || std::holds_alternative<DropAction>(action) ||
         std::holds_alternative<PushVlanAction>(action) || std::holds_alternative<PopVlanAction>(action) ||
         std::holds_alternative<SetEthernetAction>(action) || std::holds_alternative<SetTunnelAction>(action) ||
         std::holds_alternative<SetMarkAction>(action) || std::holds_alternative<SetPriorityAction>(action);
}

}  // namespace

bool is_shallow(const FlowMask& mask) {
  static const FlowMask kWidest = widest_shallow_mask();
  uint64_t beyond = 0;
  for (size_t i = 0; i < kFlowKeyWords; ++i) beyond |= words(mask)[i] & ~words(kWidest)[i];
  return beyond == 0;
}

bool is_shallow(const ActionList& actions) {
  for (const Action& action : actions) {
    if (!is_shallow_action(action)) return false;
  }
  return true;
}

FlowKey shallow_key(uint32_t in_port, ShallowSignature signature) {
  FlowKey key;
  key.in_port = in_port;
  key.eth_type = to_be16(static_cast<uint16_t>(signature >> 16));
  if (const auto tag = static_cast<uint32_t>(signature >> 32); tag != 0) {
    key.vlan[0].tpid = to_be16(static_cast<uint16_t>(tag >> 16));
    key.vlan[0].tci = to_be16(static_cast<uint16_t>(tag)) | kVlanCfi;
  }
  return key;
}

}  // namespace vswitch
