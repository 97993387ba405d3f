#include "datapath/vport/port_options.h"

#include <gtest/gtest.h>

namespace vswitch {
namespace {

VportConfig config_with(const std::string& value) { return {"p1", "afxdp", {{"n_rxq", value}}, 0, {}}; }

TEST(PortOptions, NumbersAreReadWithinTheirLimits) {
  uint32_t number = 5;
  uint16_t small = 5;
  EXPECT_TRUE(read_number_option({}, "n_rxq", 1, 64, number).ok());
  EXPECT_EQ(number, 5u);  // not set: as it was
  EXPECT_TRUE(read_number_option(config_with("64"), "n_rxq", 1, 64, number).ok());
  EXPECT_TRUE(read_number_option(config_with("1"), "n_rxq", 1, 64, small).ok());
  EXPECT_EQ(number, 64u);
  EXPECT_EQ(small, 1);
  for (const char* wrong : {"", "0", "65", "-1", "+1", "1x", " 1", "0x1", "99999999999999"}) {
    const Status status = read_number_option(config_with(wrong), "n_rxq", 1, 64, number);
    EXPECT_EQ(status.field(), "options:n_rxq") << wrong;
    EXPECT_EQ(status.message(), "port p1: n_rxq is \"" + std::string(wrong) + "\"; it may be 1 to 64");
    EXPECT_FALSE(read_number_option(config_with(wrong), "n_rxq", 1, 64, small).ok()) << wrong;
  }
  EXPECT_EQ(number, 64u);
  EXPECT_EQ(small, 1);
}

}  // namespace
}  // namespace vswitch
