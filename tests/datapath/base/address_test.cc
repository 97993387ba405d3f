#include "datapath/base/address.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>
#include <string_view>

namespace vswitch {
namespace {

TEST(MacAddress, ParsesAndPrints) {
  const auto address = MacAddress::parse("00:11:22:Aa:bB:cc");
  ASSERT_TRUE(address);
  EXPECT_EQ(address->to_string(), "00:11:22:aa:bb:cc");
  EXPECT_EQ(address->to_u64(), 0x001122aabbccu);
  for (const char* bad : {"", "00:11:22:aa:bb", "00:11:22:aa:bb:cc:dd", "00-11-22-aa-bb-cc", "00:11:22:aa:bb:cg",
                          "0:11:22:aa:bb:ccc", " 00:11:22:aa:bb:cc"}) {
    EXPECT_FALSE(MacAddress::parse(bad)) << bad;
  }
}

TEST(MacAddress, Kinds) {
  EXPECT_TRUE(MacAddress::from_u64(0xffffffffffff).is_broadcast());
  EXPECT_TRUE(MacAddress::from_u64(0xffffffffffff).is_multicast());
  EXPECT_TRUE(MacAddress::from_u64(0x0180c2000000).is_multicast());
  EXPECT_FALSE(MacAddress::from_u64(0x0180c2000000).is_broadcast());
  EXPECT_FALSE(MacAddress::from_u64(0x020000000001).is_multicast());
  EXPECT_TRUE(MacAddress{}.is_zero());
}

TEST(MacAddress, NumberAndTextRoundTrip) {
  ASSERT_TRUE(rc::check("mac", [](uint64_t number) {
    const MacAddress address = MacAddress::from_u64(number & 0xffffffffffff);
    RC_ASSERT(address.to_u64() == (number & 0xffffffffffff));
    RC_ASSERT(MacAddress::parse(address.to_string()) == address);
  }));
}

TEST(Ipv4Address, ParsesAndPrints) {
  ASSERT_TRUE(parse_ipv4("192.168.1.2"));
  EXPECT_EQ(parse_ipv4("192.168.1.2")->host(), 0xc0a80102u);
  EXPECT_EQ(ipv4_to_string(to_be32(0xc0a80102)), "192.168.1.2");
  for (const char* bad : {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.4/24", "a.b.c.d"}) {
    EXPECT_FALSE(parse_ipv4(bad)) << bad;
  }
}

TEST(Ipv6Address, PrintsAsRfc5952) {
  EXPECT_EQ(Ipv6Address::parse("2001:DB8:0:0:0:0:0:1")->to_string(), "2001:db8::1");
  EXPECT_EQ(Ipv6Address{}.to_string(), "::");
  EXPECT_TRUE(Ipv6Address::parse("ff02::1")->is_multicast());
  EXPECT_FALSE(Ipv6Address::parse("2001:db8::1::2"));
  EXPECT_FALSE(Ipv6Address::parse("1.2.3.4"));
}

TEST(IpAddress, HoldsEitherFamily) {
  const IpAddress none, v4 = IpAddress::from_v4(to_be32(0xe0000001)), any = *IpAddress::parse("0.0.0.0");
  const IpAddress v6 = *IpAddress::parse("fe80::1");
  EXPECT_FALSE(none.is_set());
  EXPECT_EQ(none.to_string(), "");
  EXPECT_TRUE(v4.is_multicast());
  EXPECT_TRUE(any.is_set());
  EXPECT_TRUE(any.is_unspecified());
  EXPECT_TRUE(v6.is_v6());
  EXPECT_EQ(v6.to_string(), "fe80::1");
  EXPECT_FALSE(IpAddress::parse("host.example"));
}

TEST(IpAddress, HasNothingBehindIt) {
  using namespace std::string_view_literals;
  for (const std::string_view bad : {"10.0.0.1\0"sv, "10.0.0.1\0x"sv, "2001:db8::1\0"sv, "::\0\0"sv, "10.0.0.1 "sv}) {
    EXPECT_FALSE(IpAddress::parse(bad)) << testing::PrintToString(bad);
  }
  const std::string longest = "0000:0000:0000:0000:0000:ffff:255.255.255.255";
  EXPECT_TRUE(IpAddress::parse(longest));
  EXPECT_FALSE(IpAddress::parse(longest + "0"));
  EXPECT_FALSE(IpAddress::parse(std::string(1 << 20, '1')));
}

}  // namespace
}  // namespace vswitch
