// Rewrite: the masked sets and VLAN changes on one packet, checksums kept right (see execute.h for the rules).
//
// Every function reads the frame's own headers and touches nothing when the header that it is to change is absent,
// short or malformed: it then returns false and the caller drops the packet. But a packet that ends within its TCP,
// UDP, SCTP or ICMP header goes on as it is (true). Bits outside a mask keep their value.
//
// A checksum that was wrong stays wrong by the same amount, so a rewrite never hides damage. The two exceptions to a
// plain sum:
// - IPv6 with a routing header that has segments left: its L4 checksum covers the final hop's address, not the one in
//   the IPv6 header, so a changed destination leaves the checksum alone.
// - SCTP's CRC32c cannot be kept right in a first fragment (it covers the fragments that are not here): set_transport()
//   fails for those.
//
// Thread-compatible; no allocation.
#pragma once

#include "datapath/actions/action.h"
#include "datapath/base/byte_order.h"
#include "datapath/flow/flow_key.h"
#include "datapath/packet/packet.h"

namespace vswitch {

namespace vlan_detail {

inline constexpr size_t kEthernetSize = 14, kTagSize = 4;
inline constexpr size_t kAddressesSize = 12;  // what stands in front of a tag

// Both addresses of an Ethernet header, cut so that the larger piece lies within a cache line when a tag is pushed in
// front of a frame that begins one. All is read before any is written: a piece that is read right after parts of it
// were written stalls the processor.
struct Addresses {
  uint32_t first;
  uint64_t rest;
};
inline Addresses read_addresses(const uint8_t* frame) {
  return {load_unaligned<uint32_t>(frame), load_unaligned<uint64_t>(frame + sizeof(uint32_t))};
}
inline void write_addresses(uint8_t* frame, const Addresses& addresses) {
  store_unaligned(frame, addresses.first);
  store_unaligned(frame + sizeof addresses.first, addresses.rest);
}
inline be32 tag_of(const PushVlanAction& push) {
  return to_be32(uint32_t{push.tpid.host()} << 16 | (push.tci & ~kVlanCfi).host());
}

}  // namespace vlan_detail

[[nodiscard]] bool set_ethernet(Packet& packet, const SetEthernetAction& set);
[[nodiscard]] bool set_ipv4(Packet& packet, const SetIpv4Action& set);
[[nodiscard]] bool set_ipv6(Packet& packet, const SetIpv6Action& set);
[[nodiscard]] bool set_transport(Packet& packet, const SetTransportAction& set);
[[nodiscard]] bool set_icmp(Packet& packet, const SetIcmpAction& set);
[[nodiscard]] bool set_arp(Packet& packet, const SetArpAction& set);
[[nodiscard]] bool set_nd(Packet& packet, const SetNdAction& set);

// Pushes an outermost tag. False when there is no head room (or no Ethernet header).
[[nodiscard]] inline bool push_vlan(Packet& packet, const PushVlanAction& push) {
  using namespace vlan_detail;
  if (packet.size() < kEthernetSize || packet.headroom() < kTagSize) return false;
  const Addresses addresses = read_addresses(packet.data());
  uint8_t* const frame = packet.push(kTagSize);
  write_addresses(frame, addresses);
  store_unaligned(frame + kAddressesSize, tag_of(push));
  return true;
}

// Removes the outermost tag; a packet without one is left as it is.
inline void pop_vlan(Packet& packet) {
  using namespace vlan_detail;
  if (packet.size() < kEthernetSize + kTagSize) return;
  const auto tpid = load_unaligned<be16>(packet.data() + kAddressesSize);
  if (tpid != kEthTypeVlan && tpid != kEthTypeQinq) return;
  const Addresses addresses = read_addresses(packet.data());
  packet.pull(kTagSize);
  write_addresses(packet.data(), addresses);
}

}  // namespace vswitch
