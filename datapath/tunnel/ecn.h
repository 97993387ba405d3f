// Explicit congestion notification across a tunnel (RFC 6040), on whole TOS / traffic class bytes: DSCP in the upper
// six bits, ECN in the lower two. Pure functions; the same rules as the Linux kernel and Open vSwitch apply:
//
//   encapsulation  the outer header gets the inner ECN, except that an inner CE becomes ECT(0) outside: the mark of the
//                  inner path is already inside, and must not be reported twice.
//   decapsulation  outer CE: the mark moves to the inner header; if the inner packet cannot carry it (not ECT) the
//   packet
//                  is dropped, which tells its sender the same thing. Outer ECT(1) on inner ECT(0): becomes ECT(1).
#pragma once

#include <cstdint>

namespace vswitch {

inline constexpr uint8_t kEcnMask = 0x03;
enum Ecn : uint8_t { kEcnNotEct = 0, kEcnEct1 = 1, kEcnEct0 = 2, kEcnCe = 3 };

constexpr uint8_t ecn_of(uint8_t tos) { return tos & kEcnMask; }
constexpr uint8_t with_ecn(uint8_t tos, uint8_t ecn) { return static_cast<uint8_t>((tos & ~kEcnMask) | ecn); }

// The outer TOS: DSCP of `dscp` (its ECN bits are ignored), ECN from the inner packet. A packet that is not IP counts
// as inner_tos 0.
constexpr uint8_t ecn_encapsulate(uint8_t dscp, uint8_t inner_tos) {
  return with_ecn(dscp, ecn_of(inner_tos) == kEcnCe ? uint8_t{kEcnEct0} : ecn_of(inner_tos));
}

struct EcnDecapsulation {
  bool drop = false;      // congestion was marked and the inner packet cannot say so
  uint8_t inner_tos = 0;  // what the inner header is to carry (unchanged unless the tunnel marked something)
  bool operator==(const EcnDecapsulation&) const = default;
};

// REQUIRES: the inner packet is IP; for anything else there is nothing to do.
constexpr EcnDecapsulation ecn_decapsulate(uint8_t outer_tos, uint8_t inner_tos) {
  const uint8_t outer = ecn_of(outer_tos), inner = ecn_of(inner_tos);
  if (outer == kEcnCe) {
    if (inner == kEcnNotEct) return {true, inner_tos};
    return {false, with_ecn(inner_tos, kEcnCe)};
  }
  if (outer == kEcnEct1 && inner == kEcnEct0) return {false, with_ecn(inner_tos, kEcnEct1)};
  return {false, inner_tos};
}

}  // namespace vswitch
