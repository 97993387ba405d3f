// The UDP sockets of tunnels: how they are set up, and who has a port that we wanted.
//
// All functions work in the network namespace of the calling thread and may be called from any thread.
#pragma once

#include <cstdint>
#include <string>

#include "datapath/base/address.h"
#include "datapath/base/status.h"
#include "datapath/base/unique_fd.h"

namespace vswitch {

// A non-blocking socket bound to `port` (host order) on all addresses of one family. It delivers with each datagram the
// outer destination address, TOS and TTL, and accepts trains of datagrams whole (UDP_GRO). A UDP checksum of zero is
// accepted for IPv6, too (RFC 6935).
// Errors: failed_precondition if the port is taken, with the owner's name; unimplemented if this host has no such
// family; resource_exhausted or internal for the rest.
Result<UniqueFd> open_udp_receiver(IpAddress::Family family, uint16_t port);

struct UdpSenderOptions {
  IpAddress::Family family = IpAddress::Family::v4;
  bool dont_fragment = true;  // false: the kernel fragments what does not fit the path
  bool checksum = true;
};

// TTL (IPv6: hop limit) of what such a socket sends, and its TOS is 0, unless a message says otherwise. What says
// nothing costs nothing: the kernel allocates memory for each message whose control data is longer than one number.
inline constexpr uint8_t kUdpSenderTtl = 64;

// A socket for sending only, bound to `port` (host order), so that nobody else gets it. Whatever arrives is thrown
// away. failed_precondition: the port is taken; other codes: no socket can be had now.
Result<UniqueFd> open_udp_sender(const UdpSenderOptions& options, uint16_t port);
// A second one on the port of `first`, with other options. Nobody else can join the two.
Result<UniqueFd> open_udp_sender_beside(const UdpSenderOptions& options, uint16_t port, const UniqueFd& first);

// Who has a UDP port, for error messages: "process 123 (dockerd)", "the kernel (vxlan device flannel.1)", or "another
// socket" when that cannot be found out.
std::string udp_port_owner(uint16_t port);

}  // namespace vswitch
