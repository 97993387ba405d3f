#include "datapath/vport/link_monitor.h"

#include <gtest/gtest.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

#include <atomic>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/vport/netlink.h"
#include "tests/support/netns.h"

namespace vswitch {
namespace {

[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new test::PrivateNamespace);

class LinkMonitorTest : public testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    auto monitor = make_link_monitor();
    ASSERT_TRUE(monitor.ok()) << monitor.status().message();
    links_ = std::move(*monitor);
  }
  void TearDown() override {
    if (links_ && links_->find("lm0")) test::delete_link("lm0");
  }

  std::unique_ptr<LinkMonitor> links_;
};

IpAddress ip(const char* text) { return *IpAddress::parse(text); }

TEST_F(LinkMonitorTest, FindTellsWhatTheDeviceIs) {
  EXPECT_FALSE(links_->find("lm0"));
  test::add_veth("lm0", "lm1");
  const auto link = links_->find("lm0");
  ASSERT_TRUE(link);
  EXPECT_EQ(link->name, "lm0");
  EXPECT_EQ(link->kind, "veth");
  EXPECT_EQ(link->mtu, 1500u);
  EXPECT_TRUE(link->up);
  EXPECT_TRUE(link->carrier);
  EXPECT_FALSE(link->mac.is_zero());
  EXPECT_EQ(link->speed_bps, 10000000000u);
  ASSERT_TRUE(links_->find(link->ifindex));
  EXPECT_EQ(links_->find(link->ifindex)->name, "lm0");
  EXPECT_FALSE(links_->find(uint32_t{0}));
  EXPECT_FALSE(links_->find(""));
  EXPECT_FALSE(links_->find(std::string(500, 'x')));
}

TEST_F(LinkMonitorTest, ADeviceIsFoundByAlternativeNames) {
  test::add_veth("lm0", "lm1");
  const std::string longer_than_fifteen = "a-very-long-alternative-name-of-a-device";
  test::add_alternative_name("lm0", longer_than_fifteen);
  ASSERT_TRUE(links_->find(longer_than_fifteen));
  EXPECT_EQ(links_->find(longer_than_fifteen)->name, "lm0");
}

TEST_F(LinkMonitorTest, ChangesAreMadeAndRefusedWithTheReason) {
  test::add_veth("lm0", "lm1");
  EXPECT_TRUE(links_->set_mtu("lm0", 9000).ok());
  EXPECT_TRUE(links_->set_mac("lm0", *MacAddress::parse("02:00:00:00:00:77")).ok());
  EXPECT_TRUE(links_->set_up("lm0", false).ok());
  const auto link = links_->find("lm0");
  ASSERT_TRUE(link);
  EXPECT_EQ(link->mtu, 9000u);
  EXPECT_EQ(link->mac.to_string(), "02:00:00:00:00:77");
  EXPECT_FALSE(link->up);
  EXPECT_EQ(links_->set_mtu("lm0", 1 << 30).code(), StatusCode::invalid_argument);
  const Status missing = links_->set_up("nosuch", true);
  EXPECT_EQ(missing.code(), StatusCode::not_found);
  EXPECT_EQ(missing.message(), "device nosuch does not exist");
}

TEST_F(LinkMonitorTest, WatchersHearOfComingChangingRenamingAndGoing) {
  Mutex mutex;
  std::vector<std::string> heard;
  const auto watch = links_->watch_link("lm0", [&](const std::string& name, const LinkInfo* link) {
    MutexLock lock(mutex);
    const std::string what = name + (link == nullptr ? " gone" : link->up ? " up" : " down");
    if (heard.empty() || heard.back() != what) heard.push_back(what);
  });
  const auto last = [&] {
    MutexLock lock(mutex);
    return heard.empty() ? "" : heard.back();
  };
  test::add_veth("lm0", "lm1");
  EXPECT_TRUE(test::eventually([&] { return last() == "lm0 up"; })) << last();
  test::set_link_up("lm0", false);
  EXPECT_TRUE(test::eventually([&] { return last() == "lm0 down"; })) << last();
  test::rename_link("lm0", "lm2");
  EXPECT_TRUE(test::eventually([&] { return last() == "lm0 gone"; })) << last();
  test::rename_link("lm2", "lm0");
  EXPECT_TRUE(test::eventually([&] { return last() == "lm0 down"; })) << last();
  test::delete_link("lm0");
  EXPECT_TRUE(test::eventually([&] { return last() == "lm0 gone"; })) << last();
}

TEST_F(LinkMonitorTest, NoCallbackRunsAfterTheHandleIsGone) {
  std::atomic<bool> alive{true};
  std::atomic<int> late{0}, calls{0};
  auto watch = links_->watch_link("lm0", [&](const std::string&, const LinkInfo*) { ++(alive ? calls : late); });
  std::atomic<int> others{0};
  const auto other = links_->watch_link("lm0", [&](const std::string&, const LinkInfo*) { ++others; });
  test::add_veth("lm0", "lm1");
  EXPECT_TRUE(test::eventually([&] { return calls > 0; }));
  watch.reset();
  alive = false;
  const int before = others;
  test::set_link_up("lm0", false);
  EXPECT_TRUE(test::eventually([&] { return others > before; }));
  EXPECT_EQ(late, 0);
}

TEST_F(LinkMonitorTest, AWatcherMayEndItsOwnSubscription) {
  std::shared_ptr<void> watch;
  std::atomic<int> calls{0};
  watch = links_->watch_link("lm0", [&](const std::string&, const LinkInfo*) {
    ++calls;
    watch.reset();
  });
  std::atomic<int> others{0};
  const auto other = links_->watch_link("lm1", [&](const std::string&, const LinkInfo*) { ++others; });
  test::add_veth("lm0", "lm1");
  EXPECT_TRUE(test::eventually([&] { return calls > 0 && others > 0; }));
  const int before = others;
  test::set_link_up("lm0", false);
  EXPECT_TRUE(test::eventually([&] { return others > before; }));
  EXPECT_EQ(calls, 1);
}

// More notifications than the socket holds: what was missed is found by looking again.
TEST_F(LinkMonitorTest, LostNotificationsAreMadeUpFor) {
  std::atomic<bool> hold{true}, holding{false}, up{true};
  const auto slow = links_->watch_link("lm0", [&](const std::string&, const LinkInfo* link) {
    holding = true;
    while (hold) std::this_thread::yield();
    up = link != nullptr && link->up;
  });
  test::add_veth("lm0", "lm1");
  ASSERT_TRUE(test::eventually([&] { return holding.load(); }));
  test::set_link_up("lm1", false);
  for (int i = 0; i < 4000; ++i) test::set_link_mtu("lm0", i % 2 == 0 ? 1400 : 1500);
  test::set_link_up("lm0", false);
  hold = false;
  EXPECT_TRUE(test::eventually([&] { return !up; }));
}

TEST_F(LinkMonitorTest, RoutesAndLocalAddresses) {
  test::add_veth("lm0", "lm1");
  test::add_address("lm0", "192.0.2.1/24");
  test::add_address("lm0", "2001:db8::1/64");
  test::add_route("198.51.100.0/24", "lm0", "192.0.2.254");

  const auto on_link = links_->route_to(ip("192.0.2.9"), {}, 0);
  ASSERT_TRUE(on_link.ok()) << on_link.status().message();
  EXPECT_EQ(on_link->device, "lm0");
  EXPECT_EQ(on_link->source, ip("192.0.2.1"));
  EXPECT_FALSE(on_link->gateway.is_set());
  EXPECT_EQ(on_link->mtu, 1500u);
  EXPECT_FALSE(on_link->local);

  const auto behind = links_->route_to(ip("198.51.100.7"), ip("192.0.2.1"), 0);
  ASSERT_TRUE(behind.ok()) << behind.status().message();
  EXPECT_EQ(behind->gateway, ip("192.0.2.254"));
  EXPECT_EQ(behind->source, ip("192.0.2.1"));

  const auto six = links_->route_to(ip("2001:db8::5"), {}, 0);
  ASSERT_TRUE(six.ok()) << six.status().message();
  EXPECT_EQ(six->device, "lm0");
  EXPECT_EQ(six->source, ip("2001:db8::1"));

  EXPECT_TRUE(links_->is_local_address(ip("192.0.2.1")));
  EXPECT_TRUE(test::eventually([&] { return links_->is_local_address(ip("2001:db8::1")); }));
  EXPECT_FALSE(links_->is_local_address(ip("192.0.2.2")));
  EXPECT_FALSE(links_->is_local_address(ip("239.1.1.1")));
  EXPECT_FALSE(links_->is_local_address({}));

  const auto nowhere = links_->route_to(ip("203.0.113.1"), {}, 0);
  EXPECT_FALSE(nowhere.ok());
  EXPECT_EQ(nowhere.status().message(), "no route to 203.0.113.1: Network is unreachable");
}

// A rule of policy routing that makes UDP to this port unreachable, or takes it back.
void forbid_udp_to(uint16_t port, bool forbid) {
  const NetlinkMessagePtr message =
      make_netlink_message(forbid ? RTM_NEWRULE : RTM_DELRULE, NLM_F_ACK | (forbid ? NLM_F_CREATE | NLM_F_EXCL : 0));
  fib_rule_hdr rule{};
  rule.family = AF_INET;
  rule.action = FR_ACT_UNREACHABLE;
  nlmsg_append(message.get(), &rule, sizeof rule, NLMSG_ALIGNTO);
  const fib_rule_port_range range{port, port};
  nla_put(message.get(), FRA_DPORT_RANGE, sizeof range, &range);
  nla_put_u8(message.get(), FRA_IP_PROTO, 17);
  nla_put_u32(message.get(), FRA_PRIORITY, 100);
  auto requests = NetlinkRequests::open();
  ASSERT_TRUE(requests.ok());
  EXPECT_EQ((*requests)->run(message.get()), 0);
}

TEST_F(LinkMonitorTest, RoutesAreThoseOfTheUdpPortsAsked) {
  test::add_veth("lm0", "lm1");
  test::add_address("lm0", "192.0.2.1/24");
  const auto route = [this](uint16_t to) {
    return links_->route_of(
        {.destination = ip("192.0.2.9"), .source = {}, .src_port = to_be16(40000), .dst_port = to_be16(to)});
  };
  ASSERT_TRUE(route(4789).ok()) << route(4789).status().message();
  forbid_udp_to(4789, true);
  EXPECT_FALSE(route(4789).ok());
  EXPECT_TRUE(route(4790).ok());
  EXPECT_TRUE(links_->route_of({.destination = ip("192.0.2.9"), .source = {}}).ok());
  forbid_udp_to(4789, false);
}

TEST_F(LinkMonitorTest, TellsUnicastRoutesFromOthers) {
  test::add_veth("lm0", "lm1");
  test::add_address("lm0", "192.0.2.1/24");
  const auto unicast = [this](const char* to) { return links_->route_to(ip(to), {}, 0)->unicast; };
  EXPECT_TRUE(unicast("192.0.2.9"));
  EXPECT_FALSE(unicast("192.0.2.1"));
  EXPECT_FALSE(unicast("192.0.2.255"));
  EXPECT_FALSE(links_->route_to(ip("192.0.2.9"), {}, 0)->lightweight_tunnel);
}

TEST_F(LinkMonitorTest, RouteWatchersHearOfNewRoutes) {
  test::add_veth("lm0", "lm1");
  std::atomic<int> changes{0};
  const auto watch = links_->watch_routes([&] { ++changes; });
  test::add_address("lm0", "192.0.2.1/24");
  EXPECT_TRUE(test::eventually([&] { return changes > 0; }));
}

}  // namespace
}  // namespace vswitch
