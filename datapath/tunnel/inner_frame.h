// What a tunnel needs to know of the frame inside: the IP header's TOS and TTL (inheritance, ECN), and, on receive, the
// offload state that a UDP socket does not report.
//
// Why the second: a frame that never touched a wire (both ends of the underlay on one host, or a veth between
// namespaces) keeps the kernel's partial checksum, and TCP or UDP super-frames stay whole, inside the UDP datagram that
// the socket delivers. AF_PACKET would say so in a vnet header; a UDP socket says nothing. The evidence is in the
// frame:
// - the L4 checksum field holds exactly the pseudo-header sum, and is not by chance the right checksum: partial;
// - partial, TCP, and larger than any frame that an Ethernet without jumbo frames carries: a super-frame of unknown
//   segment size. It gets the size that fits the smallest MTU that IPv6 allows, because cutting too small is correct
//   everywhere, cutting too large nowhere.
//
// Nothing here reads past the frame. Thread-safe: touches only its arguments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "datapath/packet/packet.h"

namespace vswitch {

inline constexpr size_t kEthernetHeaderSize = 14;
// IP size from which a partial-checksum TCP packet is taken for a super-frame, and the IP size it is then cut to.
inline constexpr size_t kLargestPlainIpPacket = 1500;
inline constexpr size_t kAssumedInnerMtu = 1280;

struct InnerIp {
  uint8_t version = 0;  // 4, 6; 0: not IP, or its header is not there in full
  uint8_t tos = 0;      // traffic class for IPv6
  uint8_t ttl = 0;      // hop limit for IPv6
  size_t offset = 0;    // of the IP header from the start of the frame
  size_t end = 0;       // of the datagram by its own length field; may lie behind the end of the frame
  explicit operator bool() const { return version != 0; }
};

// Looks behind any VLAN tags (up to eight). An impossible version, header length or size counts as "not IP".
InnerIp find_inner_ip(std::span<const uint8_t> frame);

// Writes the TOS / traffic class, keeping the IPv4 header checksum right. REQUIRES: `ip` is of this frame, and valid.
void set_inner_tos(std::span<uint8_t> frame, const InnerIp& ip, uint8_t tos);

// Sets packet.offload from the evidence in the frame. `udp_gso_size` is what the socket reported for a datagram that
// turned out to hold one super-frame (0: nothing): then the inner packet is UDP, cut to that payload size.
void detect_inner_offload(Packet& packet, uint16_t udp_gso_size);

}  // namespace vswitch
