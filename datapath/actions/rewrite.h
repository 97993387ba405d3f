// Rewrite: the masked sets and VLAN changes on one packet, checksums kept right (see execute.h for the rules).
//
// Every function reads the frame's own headers and touches nothing when the header that it is to change is absent,
// short or malformed: it then returns false and the caller drops the packet. But a packet that ends within its TCP, UDP,
// SCTP or ICMP header goes on as it is (true). Bits outside a mask keep their value.
//
// A checksum that was wrong stays wrong by the same amount, so a rewrite never hides damage. The two exceptions to a
// plain sum:
// - IPv6 with a routing header that has segments left: its L4 checksum covers the final hop's address, not the one in
// the
//   IPv6 header, so a changed destination leaves the checksum alone.
// - SCTP's CRC32c cannot be kept right in a first fragment (it covers the fragments that are not here): set_transport()
//   fails for those.
//
// Thread-compatible; no allocation.
#pragma once

#include "datapath/actions/action.h"
#include "datapath/packet/packet.h"

namespace vswitch {

[[nodiscard]] bool set_ethernet(Packet& packet, const SetEthernetAction& set);
[[nodiscard]] bool set_ipv4(Packet& packet, const SetIpv4Action& set);
[[nodiscard]] bool set_ipv6(Packet& packet, const SetIpv6Action& set);
[[nodiscard]] bool set_transport(Packet& packet, const SetTransportAction& set);
[[nodiscard]] bool set_icmp(Packet& packet, const SetIcmpAction& set);
[[nodiscard]] bool set_arp(Packet& packet, const SetArpAction& set);
[[nodiscard]] bool set_nd(Packet& packet, const SetNdAction& set);

// Pushes an outermost tag. False when there is no head room (or no Ethernet header).
[[nodiscard]] bool push_vlan(Packet& packet, const PushVlanAction& push);
// Removes the outermost tag; a packet without one is left as it is.
void pop_vlan(Packet& packet);

}  // namespace vswitch
