// AF_XDP hands over frames without what the kernel knew about them, such as that a sender on this host (behind a veth,
// or in a container) left the checksum to a device: the field then holds only the pseudo-header's sum.
//
// That sum tells. A field that equals it marks a partial checksum; and where a whole checksum happens to have that
// value (one frame in 65,536), completing it gives the same value again, so nothing is lost by taking it for partial.
// Likewise for SCTP, whose partial field is 0.
#pragma once

#include "datapath/packet/packet.h"

namespace vswitch::afxdp {

// Sets the offload state of a received frame to `partial` if its TCP, UDP or SCTP checksum is, or may as well be.
// REQUIRES: the state is `none`.
void mark_partial_checksum(Packet& packet);

}  // namespace vswitch::afxdp
