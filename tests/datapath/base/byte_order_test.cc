#include "datapath/base/byte_order.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <type_traits>

namespace vswitch {
namespace {

static_assert(!std::is_convertible_v<uint16_t, be16> && !std::is_convertible_v<be16, uint16_t>,
              "byte order never changes silently");
static_assert(std::is_trivially_copyable_v<be64>);
static_assert(to_be32(0x01020304).host() == 0x01020304);

TEST(BigEndian, StandsInMemoryAsOnTheWire) {
  const uint8_t wire[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09};
  EXPECT_EQ(load_unaligned<be16>(wire + 1).host(), 0x0203);
  EXPECT_EQ(load_unaligned<be32>(wire + 1).host(), 0x02030405u);
  EXPECT_EQ(load_unaligned<be64>(wire + 1).host(), 0x0203040506070809u);
  uint8_t out[3] = {};
  store_unaligned(out + 1, to_be16(0xabcd));
  EXPECT_EQ(out[1], 0xab);
  EXPECT_EQ(out[2], 0xcd);
}

TEST(BigEndian, BitOperationsAreThoseOfTheNumber) {
  ASSERT_TRUE(rc::check("bits", [](uint32_t a, uint32_t b) {
    RC_ASSERT((to_be32(a) & to_be32(b)).host() == (a & b));
    RC_ASSERT((to_be32(a) | to_be32(b)).host() == (a | b));
    RC_ASSERT((to_be32(a) ^ to_be32(b)).host() == (a ^ b));
    RC_ASSERT((~to_be32(a)).host() == ~a);
    RC_ASSERT((to_be32(a) == to_be32(b)) == (a == b));
    RC_ASSERT(be32::from_raw(to_be32(a).raw()).host() == a);
  }));
}

}  // namespace
}  // namespace vswitch
