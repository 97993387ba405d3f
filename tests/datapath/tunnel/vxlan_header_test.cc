#include "datapath/tunnel/vxlan_header.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <array>
#include <vector>

namespace vswitch {
namespace {

using Bytes = std::vector<uint8_t>;

struct Case {
  const char* name;
  Bytes bytes;
  bool gbp;
  VxlanError error;
  VxlanHeader header;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"plain", {8, 0, 0, 0, 0x12, 0x34, 0x56, 0}, false, VxlanError::none, {0x123456, false, {}, 0}},
      {"lowest VNI", {8, 0, 0, 0, 0, 0, 0, 0}, false, VxlanError::none, {0, false, {}, 0}},
      {"highest VNI", {8, 0, 0, 0, 0xff, 0xff, 0xff, 0}, false, VxlanError::none, {kMaxVni, false, {}, 0}},
      {"longer than a header", {8, 0, 0, 0, 0, 0, 7, 0, 0xff}, false, VxlanError::none, {7, false, {}, 0}},
      {"empty", {}, false, VxlanError::too_short, {}},
      {"seven bytes", {8, 0, 0, 0, 0, 0, 7}, false, VxlanError::too_short, {}},
      {"no I flag", {0, 0, 0, 0, 0, 0, 7, 0}, false, VxlanError::no_vni, {}},
      {"every flag but I", {0xf7, 0, 0, 0, 0, 0, 7, 0}, false, VxlanError::no_vni, {}},
      {"reserved flag", {0x0c, 0, 0, 0, 0, 0, 7, 0}, false, VxlanError::reserved_bits, {}},
      {"reserved first word", {8, 0, 0, 1, 0, 0, 7, 0}, false, VxlanError::reserved_bits, {}},
      {"reserved last byte", {8, 0, 0, 0, 0, 0, 7, 1}, false, VxlanError::reserved_bits, {}},
      {"G without the extension", {0x88, 0, 0, 5, 0, 0, 7, 0}, false, VxlanError::reserved_bits, {}},
      {"policy", {0x88, 0, 0x12, 0x34, 0, 0, 7, 0}, true, VxlanError::none, {7, true, to_be16(0x1234), 0}},
      {"policy, D and A", {0x88, 0x48, 0, 1, 0, 0, 7, 0}, true, VxlanError::none, {7, true, to_be16(1), 0x48}},
      {"policy bits without G are ignored", {8, 0x48, 0, 1, 0, 0, 7, 0}, true, VxlanError::none, {7, false, {}, 0}},
      {"unknown policy bits are ignored",
       {0x88, 0xb7, 0, 1, 0, 0, 7, 0},
       true,
       VxlanError::none,
       {7, true, to_be16(1), 0}},
      {"GPE flag with policy", {0x8c, 0, 0, 1, 0, 0, 7, 0}, true, VxlanError::reserved_bits, {}},
      {"last byte with policy", {0x88, 0, 0, 1, 0, 0, 7, 9}, true, VxlanError::reserved_bits, {}},
  };
  return all;
}

TEST(VxlanHeaderTest, Parse) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    VxlanHeader header{.vni = 99, .gbp = false, .gbp_id = {}, .gbp_flags = 0};
    EXPECT_EQ(parse_vxlan_header(c.bytes, c.gbp, header), c.error) << vxlan_error_text(c.error);
    if (c.error == VxlanError::none) {
      EXPECT_EQ(header, c.header);
    } else {
      EXPECT_EQ(header.vni, 99u) << "written in spite of the error";
    }
  }
}

TEST(VxlanHeaderTest, VniIsReadInSpiteOfReservedBits) {
  uint32_t vni = 0;
  EXPECT_EQ(parse_vxlan_vni(Bytes{0xff, 1, 2, 3, 0, 0, 7, 0xff}, vni), VxlanError::none);
  EXPECT_EQ(vni, 7u);
}

TEST(VxlanHeaderTest, WhatIsWrittenIsRead) {
  ASSERT_TRUE(rc::check([](uint32_t vni, bool gbp, uint16_t id, uint8_t flags) {
    VxlanHeader written{.vni = vni & kMaxVni, .gbp = gbp, .gbp_id = {}, .gbp_flags = 0};
    if (gbp) {
      written.gbp_id = to_be16(id);
      written.gbp_flags = flags & (kGbpDontLearn | kGbpPolicyApplied);
    }
    std::array<uint8_t, kVxlanHeaderSize> bytes;
    write_vxlan_header(written, bytes);
    VxlanHeader read;
    RC_ASSERT(parse_vxlan_header(bytes, gbp, read) == VxlanError::none);
    RC_ASSERT(read == written);
  }));
}

}  // namespace
}  // namespace vswitch
