// The shallow part of a flow key: what can be known of a packet from its Ethernet header alone.
//
// Rules such as "everything from port 1 goes out by port 2" lead to flows that look at the port a packet came in by,
// its EtherType, VLAN tags and whether it is a fragment, and at nothing else. As long as all flows of a port are of
// that kind, its packets need no full extraction, and no hash: packets with equal signatures have equal flows.
//
// Thread-safe: pure functions.
#pragma once

#include <cstdint>

#include "datapath/actions/action.h"
#include "datapath/base/byte_order.h"
#include "datapath/flow/flow_key.h"
#include "datapath/packet/packet.h"

namespace vswitch {

// The mask has bits only where a packet with a signature is known: in_port, recirc_id, EtherType, VLAN tags, nw_frag
// and packet_type.
bool is_shallow(const FlowMask& mask);
// Nothing in the list needs what only a full extraction gives (the flow hash, by which packets to userspace are kept in
// order), or would have to be looked up again.
bool is_shallow(const ActionList& actions);

// Outer VLAN tag << 32 | EtherType << 16, as on the wire; kNoSignature: the packet must be extracted in full.
using ShallowSignature = uint64_t;
inline constexpr ShallowSignature kNoSignature = ~uint64_t{0};

namespace shallow_detail {

inline constexpr size_t kEthernetSize = 14, kVlanTagSize = 4, kIpv4MinSize = 20, kIpv6Size = 40, kTcpMinSize = 20;
inline constexpr size_t kTcpFlagsOffset = 12;
inline constexpr be16 kFragmentBits = to_be16(0x3fff);  // more fragments, offset
inline constexpr be16 kTcpFlagBits = to_be16(0x0fff);

inline bool is_tpid(be16 type) { return type == kEthTypeVlan || type == kEthTypeQinq; }

// `tcp` stands at what should be a TCP header of which `left` bytes belong to the datagram.
inline bool read_tcp_flags(const uint8_t* tcp, size_t left, uint16_t* flags) {
  if (left < kTcpMinSize) return false;
  const auto offset_and_flags = load_unaligned<be16>(tcp + kTcpFlagsOffset);
  const size_t header_size = size_t{tcp[kTcpFlagsOffset]} >> 4 << 2;
  if (header_size < kTcpMinSize || header_size > left) return false;
  *flags = static_cast<uint16_t>(*flags | (offset_and_flags & kTcpFlagBits).host());
  return true;
}

// Whether nothing but a look at the first bytes is needed to know that nw_frag is 0. A header that extraction would
// find malformed has nw_frag 0 as well, but what it says about TCP flags would have to be found out.
inline bool plain_ipv4(const uint8_t* ip, size_t left, uint16_t* tcp_flags) {
  if (left < kIpv4MinSize || ip[0] != 0x45 || load_unaligned<be16>(ip + 6) & kFragmentBits) return false;
  if (ip[9] != kProtoTcp) return true;
  const size_t total = load_unaligned<be16>(ip + 2).host();
  return total >= kIpv4MinSize && total <= left && read_tcp_flags(ip + kIpv4MinSize, total - kIpv4MinSize, tcp_flags);
}

inline bool plain_ipv6(const uint8_t* ip, size_t left, uint16_t* tcp_flags) {
  if (left < kIpv6Size) return false;
  switch (ip[6]) {
    case kProtoTcp: {
      const size_t payload = load_unaligned<be16>(ip + 4).host();
      return payload <= left - kIpv6Size && read_tcp_flags(ip + kIpv6Size, payload, tcp_flags);
    }
    case kProtoUdp:
    case kProtoIcmpv6:
      return true;
    default:
      return false;  // perhaps extension headers
  }
}

}  // namespace shallow_detail

// Reads a received packet (no tunnel metadata, not recirculated). It has a signature if it is a well-formed Ethernet
// frame with at most one tag and is not a fragment, which for the commonest layouts is seen without parsing. *tcp_flags
// is or'ed with what extraction would find.
[[gnu::always_inline]] inline ShallowSignature shallow_signature(const Packet& packet, uint16_t* tcp_flags) {
  using namespace shallow_detail;
  const uint8_t* frame = packet.data();
  const size_t size = packet.size();
  if (size < kEthernetSize + kVlanTagSize) return kNoSignature;
  const uint8_t* at = frame + 2 * sizeof(MacAddress);
  auto type = load_unaligned<be16>(at);
  uint64_t tag = 0;
  if (is_tpid(type)) {
    tag = load_unaligned<be32>(at).host();
    at += kVlanTagSize;
    type = load_unaligned<be16>(at);
    if (is_tpid(type)) return kNoSignature;
  }
  at += sizeof type;
  const size_t left = size - static_cast<size_t>(at - frame);
  if (type == kEthTypeIpv4) {
    if (!plain_ipv4(at, left, tcp_flags)) return kNoSignature;
  } else if (type == kEthTypeIpv6) {
    if (!plain_ipv6(at, left, tcp_flags)) return kNoSignature;
  } else if (type.host() < kEthTypeMin) {
    return kNoSignature;
  }
  return tag << 32 | uint64_t{type.host()} << 16;
}

// The key of a packet with that signature, as far as a shallow mask looks.
FlowKey shallow_key(uint32_t in_port, ShallowSignature signature);

}  // namespace vswitch
