#include "datapath/base/drop_reason.h"

#include <gtest/gtest.h>

#include <set>

namespace vswitch {
namespace {

TEST(DropReason, EachHasAName) {
  std::set<std::string_view> names;
  for (size_t i = 0; i < kDropReasonCount; ++i) {
    const auto reason = static_cast<DropReason>(i);
    EXPECT_TRUE(names.insert(drop_reason_name(reason)).second) << drop_reason_name(reason);
    EXPECT_FALSE(drop_reason_text(reason).empty());
    EXPECT_EQ(drop_reason_name(reason).find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_"),
              std::string_view::npos);
  }
  EXPECT_EQ(drop_reason_name(DropReason::rx_invalid_packet), "rx_invalid_packet");
}

}  // namespace
}  // namespace vswitch
