#include "datapath/vport/output_policies.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netfilter.h>
#include <linux/xfrm.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "tests/support/netns.h"
#include "tests/support/nftables.h"

namespace vswitch {
namespace {

using ::testing::HasSubstr;

// Each test in a namespace of its own: what it sets up is gone with it.
class OutputPoliciesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    space_.emplace();
  }
  // What is found after `prepare`.
  std::string found(const std::function<void()>& prepare) {
    std::string result;
    space_->run([&] {
      prepare();
      if (!IsSkipped()) result = OutputPolicies().in_the_way({}, {});
    });
    return result;
  }
  std::string found_with_chain(uint8_t family, uint32_t hook) {
    return found([&] {
      if (!test::add_nft_chain(family, "t", "c", hook)) GTEST_SKIP() << "no nftables here";
    });
  }

  std::optional<test::NetworkNamespace> space_;
};

TEST_F(OutputPoliciesTest, NothingIsInTheWayOfAnEmptyHost) {
  EXPECT_EQ(found([] {}), "");
}

TEST_F(OutputPoliciesTest, FindsChainsThatOutgoingPacketsPass) {
  EXPECT_EQ(found_with_chain(NFPROTO_IPV4, NF_INET_LOCAL_OUT), "the nftables chain t c");
}

TEST_F(OutputPoliciesTest, FindsChainsOfBothFamilies) {
  EXPECT_EQ(found_with_chain(NFPROTO_INET, NF_INET_POST_ROUTING), "the nftables chain t c");
}

TEST_F(OutputPoliciesTest, LetsOtherChainsBe) {
  EXPECT_EQ(found_with_chain(NFPROTO_IPV4, NF_INET_PRE_ROUTING), "");
  EXPECT_EQ(found_with_chain(NFPROTO_INET, NF_INET_LOCAL_IN), "");
  EXPECT_EQ(found_with_chain(NFPROTO_IPV6, NF_INET_LOCAL_OUT), "");
}

TEST_F(OutputPoliciesTest, FindsIpsecPolicies) {
  const auto add_policy = [] {
    auto requests = NetlinkRequests::open(NETLINK_XFRM);
    if (!requests.ok()) GTEST_SKIP() << "no IPsec here";
    const NetlinkMessagePtr message = make_netlink_message(XFRM_MSG_NEWPOLICY, NLM_F_ACK | NLM_F_CREATE);
    xfrm_userpolicy_info policy{};
    policy.sel.family = AF_INET;
    policy.lft.soft_byte_limit = policy.lft.hard_byte_limit = XFRM_INF;
    policy.lft.soft_packet_limit = policy.lft.hard_packet_limit = XFRM_INF;
    policy.dir = XFRM_POLICY_OUT;
    policy.action = XFRM_POLICY_BLOCK;
    nlmsg_append(message.get(), &policy, sizeof policy, NLMSG_ALIGNTO);
    EXPECT_EQ((*requests)->run(message.get()), 0);
  };
  EXPECT_EQ(found(add_policy), "an IPsec policy");
}

TEST_F(OutputPoliciesTest, FindsIpsecThatBlocksByDefault) {
  const auto set_default = [] {
    auto requests = NetlinkRequests::open(NETLINK_XFRM);
    if (!requests.ok()) GTEST_SKIP() << "no IPsec here";
    const NetlinkMessagePtr message = make_netlink_message(XFRM_MSG_SETDEFAULT, NLM_F_ACK);
    xfrm_userpolicy_default defaults{};
    defaults.out = XFRM_USERPOLICY_BLOCK;
    nlmsg_append(message.get(), &defaults, sizeof defaults, NLMSG_ALIGNTO);
    if ((*requests)->run(message.get()) != 0) GTEST_SKIP() << "no such defaults here";
  };
  EXPECT_EQ(found(set_default), "an IPsec policy");
}

TEST_F(OutputPoliciesTest, LooksAgainWhenWhatItKnowsIsTooOld) {
  space_->run([] {
    OutputPolicies policies;
    const Nanoseconds now = 1s;
    EXPECT_EQ(policies.in_the_way(now, now), "");
    if (!test::add_nft_chain(NFPROTO_INET, "t", "c", NF_INET_LOCAL_OUT)) GTEST_SKIP() << "no nftables here";
    EXPECT_EQ(policies.in_the_way(now + 1s, now), "");
    EXPECT_THAT(policies.in_the_way(now + 1s, now + Nanoseconds(1)), HasSubstr("t c"));
  });
}

// The list of modules is the test's.
class MissingModuleTest : public ::testing::Test {
 protected:
  MissingModuleTest() : file_(testing::TempDir() + "modules." + std::to_string(::getpid())) {}
  ~MissingModuleTest() override { std::remove(file_.c_str()); }
  void write(const char* modules) const { std::ofstream(file_) << modules; }

  const std::string file_;
};

TEST_F(MissingModuleTest, IsMissingUntilOtherModulesHaveBeenLoaded) {
  write("veth 45056 0 - Live 0x0000\nx_tables 65536 1 veth, Live 0x0000\n");
  MissingModule module(file_);
  EXPECT_FALSE(module.still());  // nobody has asked for it
  module.note();
  EXPECT_FALSE(module.still());  // it may have come before the list was read
  module.note();
  EXPECT_TRUE(module.still());
  write("veth 45056 2 - Live 0x0000\nx_tables 65536 3 veth, Live 0x0000\n");  // used by more
  EXPECT_TRUE(module.still());
  write("nf_tables 1 0 - Live 0x0000\nveth 45056 0 - Live 0x0000\nx_tables 65536 1 veth, Live 0x0000\n");
  EXPECT_FALSE(module.still());
  module.note();
  EXPECT_FALSE(module.still());
  module.note();
  EXPECT_TRUE(module.still());
}

TEST_F(MissingModuleTest, IsMissingForEverInAKernelWithoutModules) {
  MissingModule module(file_);
  module.note();
  module.note();
  EXPECT_TRUE(module.still());
}

TEST_F(MissingModuleTest, IsAskedForEachTimeIfModulesCannotBeListed) {
  MissingModule module("/proc/self/mem/modules");  // ENOTDIR
  module.note();
  module.note();
  EXPECT_FALSE(module.still());
}

}  // namespace
}  // namespace vswitch
