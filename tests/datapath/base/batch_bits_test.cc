#include "datapath/base/batch_bits.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <vector>

namespace vswitch {
namespace {

// What the straight code for bits without a gap and the code for any others come to.
void expect_right(uint32_t bits) {
  std::vector<size_t> expected, each, likely;
  for (size_t i = 0; i < 32; ++i) {
    if ((bits >> i & 1) != 0) expected.push_back(i);
  }
  for_each_bit(bits, [&](size_t i) { each.push_back(i); });
  for_each_likely_bit(bits, [&](size_t i) { likely.push_back(i); });
  RC_ASSERT(each == expected);
  RC_ASSERT(likely == expected);
  RC_ASSERT(count_likely_bits(bits) == expected.size());
}

TEST(BatchBits, AnyBits) {
  ASSERT_TRUE(rc::check("any", [] { expect_right(*rc::gen::arbitrary<uint32_t>()); }));
}

TEST(BatchBits, WholeBatches) {
  ASSERT_TRUE(rc::check("of any size", [] {
    for (size_t size = 0; size <= 32; ++size) {
      RC_ASSERT(without_gap(all_of(size)));
      RC_ASSERT(count_likely_bits(all_of(size)) == size);
      expect_right(all_of(size));
      if (size > 1) expect_right(all_of(size) & ~(uint32_t{1} << *rc::gen::inRange<size_t>(0, size)));
    }
  }));
  EXPECT_FALSE(without_gap(2));
}

}  // namespace
}  // namespace vswitch
