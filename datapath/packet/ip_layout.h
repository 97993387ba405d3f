// Where the IP and L4 headers of a frame lie, read from the frame itself: for code that rewrites or cuts packets and
// may not trust what somebody else found in them earlier.
//
// A header counts as absent under the same conditions as in key extraction (datapath/flow/extract.h). All offsets are
// bytes from the start of the frame and lie within it. Pure functions; nothing is read past the span.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace vswitch {

struct IpLayout {
  size_t l3 = 0;
  size_t l4 = 0;      // behind IPv4 options or IPv6 extension headers; meaningful if has_l4
  size_t l3_end = 0;  // end of the datagram by its own length; what follows is padding
  uint8_t proto = 0;  // of what is at l4
  bool is_v6 = false;
  bool fragment = false;  // first or later
  bool has_l4 = false;    // l4 begins an L4 header: not in later fragments, nor behind a cut extension header
  // IPv6 only: a routing header has segments left, so the pseudo-header's destination is that of the final hop, at this
  // offset, and not the one in the IPv6 header (RFC 8200, section 8.1). 0: none.
  size_t final_destination = 0;

  size_t l4_size() const { return l3_end - l4; }  // REQUIRES: has_l4
};

// The IP datagram that begins at `l3`, IPv4 or IPv6 by its version number.
std::optional<IpLayout> parse_ip(std::span<const uint8_t> frame, size_t l3);

// What the Ethernet header carries behind up to two VLAN tags and, in an 802.3 frame, a SNAP header with OUI 0.
struct EthernetPayload {
  uint16_t eth_type = 0;  // host order; never an 802.3 length
  size_t offset = 0;
};
std::optional<EthernetPayload> find_ethernet_payload(std::span<const uint8_t> frame);

// The IP datagram that is the Ethernet payload.
std::optional<IpLayout> find_ip(std::span<const uint8_t> frame);

}  // namespace vswitch
