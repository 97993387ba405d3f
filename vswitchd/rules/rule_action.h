// Rule actions and instructions: what a rule says to do, as OpenFlow means it (ovs-actions(7)). A closed set: one
// alternative in RuleAction, and the compiler points at every visit (translate, parse, format, encode, proto).
//
// Actions keep the spelling they came in (`mod_nw_src` and `set_field`, `load` and `set_field`), so that a dump shows
// what was added. Port numbers are OpenFlow port numbers (16-bit space, host order). Values; immutable once on a rule.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "datapath/base/address.h"
#include "datapath/base/byte_order.h"
#include "datapath/flow/field.h"

namespace vswitch {

using OfPort = uint16_t;
inline constexpr OfPort kOfPortMax = 0xff00;  // ordinary ports are 1 .. kOfPortMax - 1
inline constexpr OfPort kOfPortUnset = 0xfff7;
inline constexpr OfPort kOfPortInPort = 0xfff8;
inline constexpr OfPort kOfPortTable = 0xfff9;
inline constexpr OfPort kOfPortNormal = 0xfffa;
inline constexpr OfPort kOfPortFlood = 0xfffb;
inline constexpr OfPort kOfPortAll = 0xfffc;
inline constexpr OfPort kOfPortController = 0xfffd;
inline constexpr OfPort kOfPortLocal = 0xfffe;
inline constexpr OfPort kOfPortNone = 0xffff;

inline constexpr uint8_t kTableCount = 254;  // visible tables 0..253
inline constexpr uint8_t kTableInternal = 254;
inline constexpr uint8_t kTableAll = 255;  // "any table" in requests, "same table" in resubmit

// n_bits of `field` from bit `ofs` (0 = least significant).
struct Subfield {
  const Field* field = nullptr;
  uint16_t ofs = 0;
  uint16_t n_bits = 0;
  bool operator==(const Subfield&) const = default;
};

struct RuleAction;
using RuleActionList = std::vector<RuleAction>;

struct OutputToPort {
  OfPort port = 0;       // ordinary or reserved (in_port, table, normal, flood, all, local)
  uint32_t max_len = 0;  // truncate to; 0: whole
  bool operator==(const OutputToPort&) const = default;
};
struct OutputToField {
  Subfield source;
  uint16_t max_len = 0xffff;
  bool operator==(const OutputToField&) const = default;
};
enum class PacketInReason : uint8_t { no_match, action, invalid_ttl, action_set, group, packet_out };
struct SendToController {
  uint16_t max_len = 0xffff;
  uint16_t controller_id = 0;
  PacketInReason reason = PacketInReason::action;
  std::vector<uint8_t> userdata;
  bool operator==(const SendToController&) const = default;
};
// set_field:VALUE[/MASK]->FIELD and load:VALUE->FIELD[ofs..end]. value and mask have field->n_bytes bytes, big-endian;
// bits outside field->width are zero, and so is the value outside the mask.
struct SetField {
  const Field* field = nullptr;
  std::vector<uint8_t> value;
  std::vector<uint8_t> mask;
  bool load_syntax = false;
  bool operator==(const SetField&) const = default;
};
struct MoveField {
  Subfield source, destination;
  bool operator==(const MoveField&) const = default;
};
// The OpenFlow 1.0 spellings mod_dl_src/dst, mod_nw_src/dst/tos/ecn/ttl, mod_tp_src/dst. `field` is eth_src, eth_dst,
// ip_src, ip_dst, nw_tos, nw_ecn, nw_ttl, tcp_src or tcp_dst (the last two stand for TCP, UDP and SCTP alike).
struct ModField {
  const Field* field = nullptr;
  uint64_t value = 0;
  bool operator==(const ModField&) const = default;
};
struct ModVlanVid {
  uint16_t vid = 0;
  bool push_if_needed = true;
  bool operator==(const ModVlanVid&) const = default;
};
struct ModVlanPcp {
  uint8_t pcp = 0;
  bool push_if_needed = true;
  bool operator==(const ModVlanPcp&) const = default;
};
struct StripVlan {
  bool pop_syntax = false;  // written pop_vlan
  bool operator==(const StripVlan&) const = default;
};
struct PushVlan {
  be16 tpid{};
  bool operator==(const PushVlan&) const = default;
};
struct DecTtl {
  std::vector<uint16_t> controller_ids;  // empty: {0}
  bool operator==(const DecTtl&) const = default;
};
struct SetTunnelId {
  uint64_t id = 0;
  bool is_64 = false;  // set_tunnel64
  bool operator==(const SetTunnelId&) const = default;
};
struct Resubmit {
  OfPort in_port = kOfPortInPort;  // kOfPortInPort: keep
  uint8_t table = kTableAll;       // kTableAll: the current one
  bool operator==(const Resubmit&) const = default;
};
struct StackPush {
  Subfield source;
  bool operator==(const StackPush&) const = default;
};
struct StackPop {
  Subfield destination;
  bool operator==(const StackPop&) const = default;
};
struct CloneActions {
  std::shared_ptr<const RuleActionList> actions;
  bool operator==(const CloneActions& o) const;
};
struct Exit {
  bool operator==(const Exit&) const = default;
};
// Sends the packet through the datapath once more, where the actions behind this one run. It changes nothing else:
// a test of what other actions (connection tracking, ...) have to do.
struct DebugRecirculate {
  bool operator==(const DebugRecirculate&) const = default;
};
struct Note {
  std::vector<uint8_t> data;
  bool operator==(const Note&) const = default;
};
// Instructions (OpenFlow 1.1+); parsers put them after the actions, in this order.
struct ClearActions {
  bool operator==(const ClearActions&) const = default;
};
struct WriteActions {
  std::shared_ptr<const RuleActionList> actions;
  bool operator==(const WriteActions& o) const;
};
struct WriteMetadata {
  uint64_t value = 0, mask = 0;
  bool operator==(const WriteMetadata&) const = default;
};
struct GotoTable {
  uint8_t table = 0;
  bool operator==(const GotoTable&) const = default;
};

struct RuleAction
    : std::variant<OutputToPort, OutputToField, SendToController, SetField, MoveField, ModField, ModVlanVid, ModVlanPcp,
                   StripVlan, PushVlan, DecTtl, SetTunnelId, Resubmit, StackPush, StackPop, CloneActions, Exit, Note,
                   ClearActions, WriteActions, WriteMetadata, GotoTable, DebugRecirculate> {
  using variant::variant;
};

inline bool CloneActions::operator==(const CloneActions& o) const { return *actions == *o.actions; }
inline bool WriteActions::operator==(const WriteActions& o) const { return *actions == *o.actions; }

}  // namespace vswitch
