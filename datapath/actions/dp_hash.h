// dp_hash: what the hash action computes for a later match on dp_hash (select groups, bonds).
//
// Equal for all packets of a connection in one direction (l4), or in both (symmetric_l4); for packets that are not IP,
// equal for all frames with the same Ethernet addresses and type. Never 0, which in a key means "not computed". The
// value depends on nothing but its arguments, so that a packet takes the same way again after a restart.
#pragma once

#include <cstdint>

#include "datapath/actions/action.h"
#include "datapath/flow/flow_key.h"

namespace vswitch {

uint32_t dp_hash(const HashAction& hash, const FlowKey& key);

}  // namespace vswitch
