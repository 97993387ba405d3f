#include "vswitchd/control/slow_path.h"

#include <gtest/gtest.h>

#include <set>

namespace vswitch {
namespace {

ControllerRequest request(uint64_t cookie) {
  ControllerRequest request;
  request.bridge = "br0";
  request.rule_cookie = cookie;
  return request;
}

TEST(ControllerRequests, EqualRequestsGetEqualCookies) {
  ControllerRequests requests;
  ControllerRequest first = request(1);
  first.action.userdata = {1, 2, 3};
  const uint64_t cookie = requests.controller_cookie(first);
  EXPECT_NE(cookie, 0u);
  EXPECT_EQ(requests.controller_cookie(first), cookie);
  ASSERT_NE(requests.find(cookie), nullptr);
  EXPECT_EQ(requests.find(cookie)->action.userdata, first.action.userdata);
  EXPECT_EQ(requests.find(cookie + 1), nullptr);
}

TEST(ControllerRequests, EveryMemberTellsThemApart) {
  ControllerRequests requests;
  std::vector<ControllerRequest> different(8, request(1));
  different[1].bridge = "br1";
  different[2].rule_cookie = 2;
  different[3].table = 7;
  different[4].action.max_len = 9;
  different[5].action.controller_id = 9;
  different[6].action.reason = PacketInReason::invalid_ttl;
  different[7].key.packet.in_port = 4;
  std::set<uint64_t> cookies;
  for (const ControllerRequest& r : different) cookies.insert(requests.controller_cookie(r));
  EXPECT_EQ(cookies.size(), different.size());
}

TEST(ControllerRequests, TheLeastRecentlyUsedGoFirst) {
  ControllerRequests requests;
  const uint64_t kept = requests.controller_cookie(request(0)), unused = requests.controller_cookie(request(1));
  for (uint64_t i = 2; i < ControllerRequests::kMaxRequests + 1000; ++i) {
    (void)requests.controller_cookie(request(i));
    if (i % 1000 != 0) continue;
    ASSERT_NE(requests.find(kept), nullptr) << "used, yet gone after " << i;
  }
  EXPECT_EQ(requests.find(unused), nullptr);
  EXPECT_NE(requests.find(kept), nullptr);
}

}  // namespace
}  // namespace vswitch
