// FrameSpec: describes a TCP, UDP, SCTP, ICMP or ICMPv6 frame whose headers' places are known beforehand, builds it,
// and verifies its checksums byte by byte: an oracle that shares no code with datapath/packet.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "datapath/packet/packet_pool.h"

namespace vswitch {

using Bytes = std::vector<uint8_t>;

struct FrameSpec {
  std::vector<uint16_t> vlans;  // TPID of each tag, outermost first
  bool v6 = false;
  size_t options_size = 0;          // IPv4 options, a multiple of 4 up to 40
  std::vector<uint8_t> extensions;  // IPv6: 0 hop-by-hop, 43 routing (one segment left), 51 AH, 60 destination options
  uint8_t proto = 17;
  uint8_t tcp_flags = 0x10;
  bool udp_checksum = true;
  bool neighbour = false;  // ICMPv6: a solicitation with both link-layer address options
  Bytes payload;
  size_t padding = 0;  // behind the datagram
  uint32_t seed = 1;   // addresses, ports and the like

  size_t l3() const { return 14 + vlans.size() * 4; }
  size_t l4() const;
  size_t l4_header_size() const;
  size_t l3_end() const { return l4() + l4_header_size() + payload.size(); }
  // Offset of the checksum in the L4 header.
  size_t checksum_offset() const;

  // With every checksum complete.
  Bytes build() const;
  // Whether the IPv4 header checksum and the L4 checksum of a frame of this shape are right.
  bool verify(const Bytes& frame) const;
  // Of the pseudo-header; folded, not complemented.
  uint16_t pseudo_sum(const Bytes& frame) const;

  static FrameSpec random(std::mt19937& rng);
};

// Ones' complement sum, folded, not complemented.
uint16_t naive_sum(const uint8_t* bytes, size_t size, uint32_t sum = 0);
uint32_t naive_crc32c(const uint8_t* bytes, size_t size);

Bytes from_hex(const std::string& text);  // blanks are ignored
std::string to_hex(const Bytes& bytes);

// A packet with these bytes. REQUIRES: they fit, and the pool is not empty.
PacketPtr make_packet(PacketPool& pool, const Bytes& bytes, size_t headroom = Packet::kDefaultHeadroom);
Bytes bytes_of(const Packet& packet);
// Allocates and gives back all that is free. The caller owns the pool.
size_t free_packets(PacketPool& pool);

}  // namespace vswitch
