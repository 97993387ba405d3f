#include "datapath/vport/absent_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fake_vport_host.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using testing::HasSubstr;

const VportConfig kConfig{"far0", "quantum", {}, 0, {}};
constexpr std::string_view kLacks = "quantum links (libquantum-dev)";

TEST(AbsentPort, IsRefusedToAPersonWithTheReason) {
  const auto refused = create_absent_port(kConfig, 1, true, kLacks);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.status().message(), HasSubstr("port far0: this vswitchd was built without quantum links"));
  EXPECT_EQ(refused.status().field(), "type");
}

TEST(AbsentPort, WaitsInErrorAndCountsWhatItDrops) {
  test::VportBench bench;
  const auto port = create_absent_port(kConfig, 1, false, kLacks);
  ASSERT_TRUE(port.ok());
  EXPECT_EQ((*port)->type(), "quantum");
  EXPECT_THAT((*port)->state().error, HasSubstr("built without quantum links"));
  PacketPtr packet = test::PacketBuilder().ethernet().payload(100).build(bench.ctx().pool);
  packet->in_port = 7;
  bench.send(**port, std::move(packet));
  EXPECT_EQ(bench.dropped(7, DropReason::port_down), 1u);
  EXPECT_EQ((*port)->stats().tx_dropped, 1u);
}

}  // namespace
}  // namespace vswitch
