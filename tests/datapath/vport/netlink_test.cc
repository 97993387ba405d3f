#include "datapath/vport/netlink.h"

#include <errno.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <functional>

#include "tests/support/netns.h"

namespace vswitch {
namespace {

class NetlinkRequestsTest : public ::testing::Test {
 protected:
  NetlinkRequestsTest() : requests_(std::move(NetlinkRequests::open().value())) {}
  // Counts all devices; `at_first` is called with the first.
  int list(
      size_t& devices, const std::function<void()>& at_first = [] {}) {
    devices = 0;
    return requests_->run(question().get(), [&](nl_msg*) {
      if (++devices == 1) at_first();
    });
  }
  // Asks for those of a namespace that there is none of.
  int list_impossible() {
    const NetlinkMessagePtr message = question();
    nla_put_u32(message.get(), IFLA_TARGET_NETNSID, 12345);
    return requests_->run(message.get());
  }
  static NetlinkMessagePtr question() {
    NetlinkMessagePtr message = make_netlink_message(RTM_GETLINK, NLM_F_DUMP);
    ifinfomsg about{};
    nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
    return message;
  }

  const std::unique_ptr<NetlinkRequests> requests_;
};

// The kernel tells that at the end of the list, and not in a message of its own.
TEST_F(NetlinkRequestsTest, AListThatEndsEarlyIsAnError) { EXPECT_EQ(list_impossible(), EINVAL); }

TEST_F(NetlinkRequestsTest, TheNextListIsNotTheWorseForIt) {
  size_t devices = 0;
  EXPECT_NE(list_impossible(), 0);
  EXPECT_EQ(list(devices), 0);
  EXPECT_GE(devices, 1u);  // lo
}

// Of more devices than one part of the answer holds, one more comes when the first has been read.
TEST_F(NetlinkRequestsTest, AListThatChangesMeanwhileIsReadToItsEnd) {
  VSWITCH_REQUIRE_NETNS();
  constexpr size_t kPairs = 40;
  for (size_t i = 0; i < kPairs; ++i) test::add_veth(fmt::format("nl{}", i), fmt::format("ln{}", i));
  size_t devices = 0;
  EXPECT_EQ(list(devices, [] { test::add_veth("nlx", "lnx"); }), EINTR);
  EXPECT_GE(devices, 2 * kPairs);
  const size_t before = devices;
  EXPECT_EQ(list(devices), 0);
  EXPECT_GE(devices, before);
  test::delete_link("nlx");
  for (size_t i = 0; i < kPairs; ++i) test::delete_link(fmt::format("nl{}", i));
}

}  // namespace
}  // namespace vswitch
