// The key of a connection of the kernel path, as the daemon makes it: from a frame (as the eBPF program `find` does),
// and back into a flow key, to look up the flow that says what is to become of the connection.
//
// Thread-safe: pure functions.
#pragma once

#include <cstring>
#include <optional>

#include "datapath/flow/flow_key.h"
#include "datapath/kernel_path/connection.h"
#include "datapath/packet/packet.h"

// Where argument-dependent lookup finds it.
inline bool operator==(const kernel_connection_key& a, const kernel_connection_key& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

namespace vswitch {

using ConnectionKey = kernel_connection_key;
static_assert(sizeof(ConnectionKey) == 64 && sizeof(kernel_connection) == 128);

struct ConnectionKeyHash {
  size_t operator()(const ConnectionKey& key) const;
};

// The key of a received frame, with in_ifindex 0; nullopt if its connections are not for the kernel path: TCP and UDP
// over IP with at most one VLAN tag, not fragmented, with nothing unusual in the headers.
std::optional<ConnectionKey> connection_key_of(const Packet& packet);

// What extraction finds in any packet of this connection that comes in by this port, as far as it is the same for all:
// TTL, IPv6 label and TCP flags are left zero.
FlowKey flow_key_of(const ConnectionKey& key, uint32_t in_port);

}  // namespace vswitch
