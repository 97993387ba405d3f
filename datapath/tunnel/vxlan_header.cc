#include "datapath/tunnel/vxlan_header.h"

#include <cassert>

namespace vswitch {
namespace {

constexpr uint32_t kFlagVni = 0x08000000;
constexpr uint32_t kFlagGbp = 0x80000000;
constexpr uint32_t kGbpClaims = kFlagGbp | 0x00ffffff;

uint32_t first_word(std::span<const uint8_t> bytes) { return load_unaligned<be32>(bytes.data()).host(); }
uint32_t second_word(std::span<const uint8_t> bytes) { return load_unaligned<be32>(bytes.data() + 4).host(); }

}  // namespace

std::string_view vxlan_error_text(VxlanError error) {
  switch (error) {
    case VxlanError::none:
      return "valid";
    case VxlanError::too_short:
      return "shorter than a VXLAN header";
    case VxlanError::no_vni:
      return "the I flag is not set";
    case VxlanError::reserved_bits:
      return "reserved bits are set";
  }
  return "unknown";
}

VxlanError parse_vxlan_vni(std::span<const uint8_t> bytes, uint32_t& vni) {
  if (bytes.size() < kVxlanHeaderSize) return VxlanError::too_short;
  if ((first_word(bytes) & kFlagVni) == 0) return VxlanError::no_vni;
  vni = second_word(bytes) >> 8;
  return VxlanError::none;
}

VxlanError parse_vxlan_header(std::span<const uint8_t> bytes, bool gbp, VxlanHeader& header) {
  uint32_t vni = 0;
  if (const VxlanError error = parse_vxlan_vni(bytes, vni); error != VxlanError::none) return error;
  const uint32_t flags = first_word(bytes);
  const uint32_t claimed = kFlagVni | (gbp ? kGbpClaims : 0);
  if ((flags & ~claimed) != 0 || (second_word(bytes) & 0xff) != 0) return VxlanError::reserved_bits;
  header = {.vni = vni};
  if ((flags & kFlagGbp) != 0) {
    header.gbp = true;
    header.gbp_id = to_be16(static_cast<uint16_t>(flags));
    header.gbp_flags = (flags >> 16) & (kGbpDontLearn | kGbpPolicyApplied);
  }
  return VxlanError::none;
}

void write_vxlan_header(const VxlanHeader& header, std::span<uint8_t, kVxlanHeaderSize> bytes) {
  assert(header.vni <= kMaxVni);
  uint32_t flags = kFlagVni;
  if (header.gbp) {
    const uint32_t policy_bits = header.gbp_flags & (kGbpDontLearn | kGbpPolicyApplied);
    flags |= kFlagGbp | policy_bits << 16 | header.gbp_id.host();
  }
  store_unaligned(bytes.data(), to_be32(flags));
  store_unaligned(bytes.data() + 4, to_be32(header.vni << 8));
}

}  // namespace vswitch
