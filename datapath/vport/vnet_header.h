// The virtio-net header that Linux puts in front of frames on AF_PACKET (PACKET_VNET_HDR) and TAP (IFF_VNET_HDR)
// descriptors, and its translation from and to OffloadState (Virtual I/O Device specification 1.2, section 5.1.6).
//
// Fields are in the machine's byte order ("legacy" headers), as the kernel uses them on these descriptors by default.
// Nothing here trusts the header: it may come from a virtual machine.
#pragma once

#include <cstdint>

#include "datapath/packet/packet.h"

namespace vswitch {

// As on the descriptor. (<linux/virtio_net.h> is not C++, and Debian 12's does not know UDP segmentation yet.)
struct VnetHeader {
  static constexpr uint8_t kNeedsChecksum = 1;  // flags: the checksum is partial
  static constexpr uint8_t kDataValid = 2;      // flags: the checksum has been verified
  static constexpr uint8_t kGsoNone = 0, kGsoTcp4 = 1, kGsoTcp6 = 4, kGsoUdpL4 = 5;
  static constexpr uint8_t kGsoEcn = 0x80;  // beside a TCP type

  uint8_t flags = 0;
  uint8_t gso_type = kGsoNone;
  uint16_t hdr_len = 0;   // Ethernet to end of L4 header; a hint
  uint16_t gso_size = 0;  // payload bytes per segment
  uint16_t csum_start = 0;
  uint16_t csum_offset = 0;
};
static_assert(sizeof(VnetHeader) == 10);

// Sets the packet's offload state from `header`; the frame is already in the packet, without tags that the kernel holds
// aside. A super-frame whose checksum the kernel calls verified (made by a device's large receive offload) gets a
// partial checksum in the frame, which the state of a super-frame implies. False: the header contradicts the frame or
// uses something that was not asked for; the frame cannot be taken.
bool decode_vnet_header(const VnetHeader& header, Packet& packet);

// The header to send in front of the packet. False: the offload state points outside the frame.
bool encode_vnet_header(const Packet& packet, VnetHeader& header);

// Puts a VLAN tag that the kernel held aside back into the frame. `tpid` and `tci` in host order. False: no head room,
// or no Ethernet addresses to put it behind.
bool reinsert_vlan_tag(Packet& packet, uint16_t tpid, uint16_t tci);

}  // namespace vswitch
