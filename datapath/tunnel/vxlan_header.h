// The VXLAN header (RFC 7348) and its Group Policy extension (draft-smith-vxlan-group-policy), as a codec: bytes in,
// values out, nothing else. It stands between the outer UDP header and the inner Ethernet frame.
//
//    0                   1                   2                   3
//    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//   |G|R|R|R|I|R|R|R|R|D|R|R|A|R|R|R|        Group Policy ID        |
//   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//   |                VXLAN Network Identifier       |   Reserved    |
//   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
//   I  the VNI is valid; must be set.
//   G  group policy present; D (do not learn), A (policy applied) and the ID mean something only with it.
//   R  reserved. RFC 7348 says "ignore on receipt"; like the Linux kernel we refuse what no extension of the port
//   claims,
//      because a set bit means that the rest of the header says something we do not understand.
//
// All multi-byte fields are big-endian on the wire; VNIs are host numbers here. Thread-safe: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "datapath/base/byte_order.h"

namespace vswitch {

inline constexpr size_t kVxlanHeaderSize = 8;
inline constexpr uint32_t kMaxVni = 0xffffff;
inline constexpr uint16_t kVxlanPort = 4789;  // IANA; Linux devices default to 8472

// Bits of VxlanHeader::gbp_flags and TunnelMetadata::gbp_flags: as they stand in the second byte of the header.
inline constexpr uint8_t kGbpDontLearn = 0x40;
inline constexpr uint8_t kGbpPolicyApplied = 0x08;

struct VxlanHeader {
  uint32_t vni = 0;
  bool gbp = false;  // G bit; the two fields below are zero without it
  be16 gbp_id{};
  uint8_t gbp_flags = 0;  // kGbpDontLearn | kGbpPolicyApplied
  bool operator==(const VxlanHeader&) const = default;
};

enum class VxlanError : uint8_t {
  none,
  too_short,      // fewer than 8 bytes
  no_vni,         // the I bit is not set
  reserved_bits,  // a bit is set that neither RFC 7348 nor an enabled extension defines
};
std::string_view vxlan_error_text(VxlanError error);

// Reads the VNI only, which chooses the port that says which extensions apply. Errors: too_short, no_vni.
[[nodiscard]] VxlanError parse_vxlan_vni(std::span<const uint8_t> bytes, uint32_t& vni);

// Reads the whole header. `gbp`: the Group Policy extension is enabled, which claims the first word but for the I bit.
// `header` is written only when the result is none.
[[nodiscard]] VxlanError parse_vxlan_header(std::span<const uint8_t> bytes, bool gbp, VxlanHeader& header);

// REQUIRES: header.vni <= kMaxVni. Group policy is written only when header.gbp.
void write_vxlan_header(const VxlanHeader& header, std::span<uint8_t, kVxlanHeaderSize> bytes);

}  // namespace vswitch
