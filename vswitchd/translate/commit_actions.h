// Committing: from what the rules made of a packet's key to the datapath actions that make the packet so.
//
// Translation changes a key only; before the packet is used (output, packet-in, clone) the difference between that key
// and `base`, the packet as the actions emitted so far leave it, is turned into as few actions as possible. So a field
// that is set twice is written once, and one that is set back is not written.
//
// Thread safety: functions of their arguments only.
#pragma once

#include "datapath/actions/action.h"
#include "datapath/flow/flow_key.h"

namespace vswitch {

struct CommitInput {
  const FlowKey& key;       // what the packet should be
  const FlowMask& written;  // bits that were written on the way: key and base differ nowhere else, VLAN tags excepted
  // Tags were pushed or popped on the way: whether `key` has the same tags as `base` depends on every bit of them, even
  // if it does now.
  bool vlan_restacked = false;
};

// Appends actions to `out` that turn `base` into `key`, and updates base. Everything but tunnel metadata, registers and
// in_port. A field that differs is set under the mask of its written bits: not of all that was looked at, which may
// vary between packets that deserve the same actions. Bits of the packet that the outcome depends on are added to
// `mask`. What is not there cannot be written: changes to the IP header of a packet whose header was malformed (its
// nw_proto is 0), or to ports of a later fragment, are left out.
void commit_actions(const CommitInput& input, FlowKey& base, FlowMask& mask, ActionList& out);

}  // namespace vswitch
