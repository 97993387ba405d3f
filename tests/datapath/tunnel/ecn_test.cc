#include "datapath/tunnel/ecn.h"

#include <gtest/gtest.h>

namespace vswitch {
namespace {

// RFC 6040 section 4.1, normal mode, with the kernel's choice for an inner CE.
TEST(EcnTest, EncapsulationCopiesInnerEcnExceptCe) {
  EXPECT_EQ(ecn_encapsulate(0xb8, 0x00), 0xb8);
  EXPECT_EQ(ecn_encapsulate(0xb8, 0x00 | kEcnEct1), 0xb8 | kEcnEct1);
  EXPECT_EQ(ecn_encapsulate(0xb8, 0x00 | kEcnEct0), 0xb8 | kEcnEct0);
  EXPECT_EQ(ecn_encapsulate(0xb8, 0x00 | kEcnCe), 0xb8 | kEcnEct0);
}

TEST(EcnTest, EncapsulationTakesOnlyDscpFromTheFirstAndOnlyEcnFromTheSecond) {
  for (int dscp = 0; dscp < 256; ++dscp) {
    for (int inner = 0; inner < 256; ++inner) {
      const uint8_t outer = ecn_encapsulate(static_cast<uint8_t>(dscp), static_cast<uint8_t>(inner));
      ASSERT_EQ(outer & 0xfc, dscp & 0xfc);
      ASSERT_EQ(outer & 3, (inner & 3) == kEcnCe ? kEcnEct0 : inner & 3);
    }
  }
}

// Rows: outer ECN; columns: inner not-ECT, ECT(1), ECT(0), CE. -1: dropped (RFC 6040 figure 4).
constexpr int kDecapsulation[4][4] = {
    {kEcnNotEct, kEcnEct1, kEcnEct0, kEcnCe},  // outer not-ECT
    {kEcnNotEct, kEcnEct1, kEcnEct1, kEcnCe},  // outer ECT(1)
    {kEcnNotEct, kEcnEct1, kEcnEct0, kEcnCe},  // outer ECT(0)
    {-1, kEcnCe, kEcnCe, kEcnCe},              // outer CE
};

TEST(EcnTest, DecapsulationFollowsTheTableAndKeepsDscp) {
  for (uint8_t outer = 0; outer < 4; ++outer) {
    for (uint8_t inner = 0; inner < 4; ++inner) {
      SCOPED_TRACE(::testing::Message() << "outer " << int{outer} << " inner " << int{inner});
      const EcnDecapsulation result = ecn_decapsulate(outer | 0x40, inner | 0xb8);
      const int expected = kDecapsulation[outer][inner];
      EXPECT_EQ(result.drop, expected < 0);
      if (expected >= 0) {
        EXPECT_EQ(result.inner_tos, 0xb8 | expected);
      }
    }
  }
}

}  // namespace
}  // namespace vswitch
