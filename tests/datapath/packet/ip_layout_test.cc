#include "datapath/packet/ip_layout.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/frame_spec.h"
#include "tests/support/random_check.h"

namespace vswitch {
namespace {

TEST(IpLayout, FindsTheHeadersOfAnyFrame) {
  check_random([](std::mt19937& rng) {
    const FrameSpec spec = FrameSpec::random(rng);
    const auto ip = find_ip(spec.build());
    RC_ASSERT(ip.has_value());
    RC_ASSERT(ip->l3 == spec.l3());
    RC_ASSERT(ip->l4 == spec.l4());
    RC_ASSERT(ip->l3_end == spec.l3_end());
    RC_ASSERT(ip->proto == spec.proto);
    RC_ASSERT(ip->is_v6 == spec.v6);
    RC_ASSERT(ip->has_l4);
    RC_ASSERT(!ip->fragment);
    const bool routed = std::count(spec.extensions.begin(), spec.extensions.end(), 43) != 0;
    RC_ASSERT((ip->final_destination != 0) == routed);
  });
}

// Every offset stays inside whatever the frame says. The frame is a heap block of its exact size, so that
// AddressSanitizer sees a read past it.
TEST(IpLayout, StaysInsideDamagedFrames) {
  check_random([](std::mt19937& rng) {
    Bytes frame = FrameSpec::random(rng).build();
    for (uint32_t n = rng() % 4; n > 0; --n) frame[12 + rng() % (frame.size() - 12)] = static_cast<uint8_t>(rng());
    if (rng() % 2 == 0) frame.resize(rng() % frame.size());
    frame.shrink_to_fit();
    const auto ip = find_ip(frame);
    if (!ip) return;
    RC_ASSERT(ip->l3 < ip->l3_end);
    RC_ASSERT(ip->l4 <= ip->l3_end);
    RC_ASSERT(ip->l3_end <= frame.size());
    RC_ASSERT(ip->final_destination == 0 || ip->final_destination + 16 <= ip->l3_end);
  });
}

TEST(IpLayout, Ipv4Fragments) {
  FrameSpec spec;
  spec.payload = Bytes(64, 1);
  Bytes frame = spec.build();
  frame[14 + 6] = 0x20;  // more fragments, offset 0
  frame[14 + 7] = 0x00;
  EXPECT_TRUE(find_ip(frame)->fragment);
  EXPECT_TRUE(find_ip(frame)->has_l4);
  frame[14 + 6] = 0x00;  // last one
  frame[14 + 7] = 0x08;
  EXPECT_TRUE(find_ip(frame)->fragment);
  EXPECT_FALSE(find_ip(frame)->has_l4);
}

TEST(IpLayout, Ipv6Fragments) {
  Bytes frame = from_hex(
      "020000000001 020000000002 86dd 60000000 0010 2c 40"
      "20010db8000000000000000000000001 20010db8000000000000000000000002"
      "11 00 0001 00000001 1111222200080000");
  EXPECT_TRUE(find_ip(frame)->fragment);
  EXPECT_TRUE(find_ip(frame)->has_l4);
  EXPECT_EQ(find_ip(frame)->l4, 62u);
  frame[14 + 40 + 3] = 0x08;  // offset 8
  EXPECT_FALSE(find_ip(frame)->has_l4);
  EXPECT_EQ(find_ip(frame)->proto, 17);
  frame[14 + 40 + 3] = 0x00;  // an atomic fragment is whole
  EXPECT_FALSE(find_ip(frame)->fragment);
  EXPECT_TRUE(find_ip(frame)->has_l4);
}

TEST(IpLayout, SnapHeaderCarriesIp) {
  FrameSpec spec;
  spec.payload = Bytes(10, 1);
  Bytes frame = spec.build();
  const Bytes snap = from_hex("0032 aaaa03 000000 0800");
  frame.erase(frame.begin() + 12, frame.begin() + 14);
  frame.insert(frame.begin() + 12, snap.begin(), snap.end());
  ASSERT_TRUE(find_ip(frame).has_value());
  EXPECT_EQ(find_ip(frame)->l3, 22u);
  frame[17] = 1;  // another OUI
  EXPECT_FALSE(find_ip(frame).has_value());
}

}  // namespace
}  // namespace vswitch
