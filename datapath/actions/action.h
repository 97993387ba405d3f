// Datapath actions: what the fast path can do to a packet. A closed set: adding one is one alternative in Action, and
// the compiler then points at every exhaustive visit (execute, format, compare, proto).
//
// Values in "Set" actions come with masks; bits outside the mask keep the packet's value (masked set). Values are
// already masked. Byte order lives in the types. Port numbers are datapath port numbers.
// Thread safety: values; ActionList is immutable once it hangs on a flow.
#pragma once

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "datapath/base/address.h"
#include "datapath/base/drop_reason.h"
#include "datapath/flow/flow_key.h"
#include "datapath/packet/tunnel_metadata.h"

namespace vswitch {

struct Action;
using ActionList = std::vector<Action>;

struct OutputAction {
  uint32_t port_no = 0;
  bool operator==(const OutputAction&) const = default;
};

// Hands a copy to the slow path. `cookie` tells the slow path what to do with it and is opaque to the datapath.
enum class UserspaceReason : uint8_t {
  controller,  // packet-in to controllers (cookie: index of what `controller(...)` said)
  slow_path,   // the slow path must translate and forward this packet itself
};
struct UserspaceAction {
  UserspaceReason reason = UserspaceReason::slow_path;
  uint64_t cookie = 0;
  uint32_t max_len = 0;  // bytes of the frame wanted; 0: all
  bool operator==(const UserspaceAction&) const = default;
};

struct SetEthernetAction {
  MacAddress src, dst, src_mask, dst_mask;
  bool operator==(const SetEthernetAction&) const = default;
};
struct SetIpv4Action {
  be32 src{}, dst{}, src_mask{}, dst_mask{};
  uint8_t tos = 0, tos_mask = 0, ttl = 0, ttl_mask = 0;
  bool operator==(const SetIpv4Action&) const = default;
};
struct SetIpv6Action {
  Ipv6Address src, dst, src_mask, dst_mask;
  be32 label{}, label_mask{};
  uint8_t tclass = 0, tclass_mask = 0, hop_limit = 0, hop_limit_mask = 0;
  bool operator==(const SetIpv6Action&) const = default;
};
// TCP, UDP or SCTP ports, by `proto`.
struct SetTransportAction {
  uint8_t proto = 0;
  be16 src{}, dst{}, src_mask{}, dst_mask{};
  bool operator==(const SetTransportAction&) const = default;
};
// ICMP or ICMPv6, by `proto`.
struct SetIcmpAction {
  uint8_t proto = 0;
  uint8_t type = 0, code = 0, type_mask = 0, code_mask = 0;
  bool operator==(const SetIcmpAction&) const = default;
};
struct SetArpAction {
  be16 op{}, op_mask{};
  be32 spa{}, tpa{}, spa_mask{}, tpa_mask{};
  MacAddress sha, tha, sha_mask, tha_mask;
  bool operator==(const SetArpAction&) const = default;
};
struct SetNdAction {
  Ipv6Address target, target_mask;
  MacAddress sll, tll, sll_mask, tll_mask;  // written only where the packet has the option
  bool operator==(const SetNdAction&) const = default;
};
struct SetMarkAction {
  uint32_t value = 0, mask = 0;
  bool operator==(const SetMarkAction&) const = default;
};
struct SetPriorityAction {
  uint32_t value = 0, mask = 0;
  bool operator==(const SetPriorityAction&) const = default;
};
// Replaces the packet's tunnel metadata: what a tunnel port sends with.
struct SetTunnelAction {
  std::shared_ptr<const TunnelMetadata> tunnel;
  bool operator==(const SetTunnelAction& o) const { return *tunnel == *o.tunnel; }
};
struct PushVlanAction {
  be16 tpid{};
  be16 tci{};  // with kVlanCfi set, as in the key; sent with the CFI bit clear
  bool operator==(const PushVlanAction&) const = default;
};
struct PopVlanAction {
  bool operator==(const PopVlanAction&) const = default;
};
// Extracts and looks up again with this recirc_id.
struct RecircAction {
  uint32_t recirc_id = 0;
  bool operator==(const RecircAction&) const = default;
};
enum class HashAlgorithm : uint8_t { l4, symmetric_l4 };
struct HashAction {
  HashAlgorithm algorithm = HashAlgorithm::l4;
  uint32_t basis = 0;
  bool operator==(const HashAction&) const = default;
};
// The next output, userspace or recirc sends at most max_len bytes.
struct TruncateAction {
  uint32_t max_len = 0;
  bool operator==(const TruncateAction&) const = default;
};
// Runs `actions` on a copy; packet and metadata are afterwards as before.
struct CloneAction {
  std::shared_ptr<const ActionList> actions;
  bool operator==(const CloneAction& o) const;
};
// Ends the packet (or clone) with a named reason. Nothing may follow it.
struct DropAction {
  DropReason reason = DropReason::of_pipeline;
  bool operator==(const DropAction&) const = default;
};

struct Action
    : std::variant<OutputAction, UserspaceAction, SetEthernetAction, SetIpv4Action, SetIpv6Action, SetTransportAction,
                   SetIcmpAction, SetArpAction, SetNdAction, SetMarkAction, SetPriorityAction, SetTunnelAction,
                   PushVlanAction, PopVlanAction, RecircAction, HashAction, TruncateAction, CloneAction, DropAction> {
  using variant::variant;
};

inline bool CloneAction::operator==(const CloneAction& o) const { return *actions == *o.actions; }

// For std::visit with one lambda per alternative and no default.
template <typename... Fs>
struct Overload : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overload(Fs...) -> Overload<Fs...>;

}  // namespace vswitch
