#include "datapath/flow/flow_mask.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "datapath/flow/extract.h"
#include "tests/support/guarded_packet.h"
#include "tests/support/packet_builder.h"
#include "tests/support/random_key.h"

namespace vswitch {
namespace {

TEST(FlowMask, MatchesLooksAtMaskedBitsOnly) {
  FlowKey key, mask;
  key.nw_dst = to_be32(0x0a010203);
  key.tp_dst = to_be16(80);
  mask.nw_dst = to_be32(0xffff0000);
  const FlowKey flow = masked(key, mask);
  EXPECT_EQ(flow.nw_dst, to_be32(0x0a010000));
  EXPECT_FALSE(flow.tp_dst);
  EXPECT_TRUE(matches(key, flow, mask));
  key.nw_dst = to_be32(0x0a01ffff);
  EXPECT_TRUE(matches(key, flow, mask));
  key.nw_dst = to_be32(0x0a020203);
  EXPECT_FALSE(matches(key, flow, mask));
}

TEST(FlowMask, LastWordCounts) {
  PipelineKey key, mask;
  key.pipeline.conj_id = 1;
  mask.pipeline.conj_id = 1;
  EXPECT_FALSE(matches(PipelineKey{}, key, mask));
  EXPECT_FALSE(is_empty_mask(mask));
  EXPECT_TRUE(is_empty_mask(PipelineKey{}));
}

TEST(FlowMask, OrAndContains) {
  FlowMask a, b;
  a.eth_type = to_be16(0xffff);
  b.nw_src = to_be32(0xff000000);
  EXPECT_FALSE(mask_contains(a, b));
  mask_or(a, b);
  EXPECT_TRUE(mask_contains(a, b));
  EXPECT_FALSE(mask_contains(b, a));
}

// The exact mask identifies a packet's key: no packet with another key matches. The other packet differs from the first
// in a few bytes of its frame or of its metadata.
TEST(ExactMask, TellsAnyTwoPacketsApart) {
  test::GuardedPacket guarded;
  ASSERT_TRUE(rc::check("matches(b, a & mask(a), mask(a)) only if a == b", [&](uint64_t seed) {
    test::Random random(seed);
    for (int i = 0; i < 100; ++i) {
      test::Bytes frame = test::compose(test::random_key(random), random() % 8);
      FlowKey a, b;
      RC_ASSERT(extract_flow_key(guarded.place(frame), a));
      for (uint64_t n = random() % 3; n > 0; --n)
        frame[random() % frame.size()] ^= static_cast<uint8_t>(1 << random() % 8);
      Packet& packet = guarded.place(frame);
      packet.has_tunnel = random() % 8 == 0;
      packet.tunnel.dst = to_be32(1);
      RC_ASSERT(extract_flow_key(packet, b));
      const FlowMask mask = exact_mask_for(a);
      RC_ASSERT(masked(a, mask) == a);
      RC_ASSERT(matches(b, a, mask) == (a == b));
    }
  }));
}

TEST(ExactMask, LeavesOutWhatThePacketCannotHave) {
  FlowKey tcp;
  tcp.eth_type = kEthTypeIpv4;
  tcp.nw_proto = kProtoTcp;
  const FlowMask mask = exact_mask_for(tcp);
  EXPECT_TRUE(mask.ipv6_src.is_zero());
  EXPECT_TRUE(mask.nd_target.is_zero());
  EXPECT_FALSE(mask.mpls[0]);
  EXPECT_EQ(mask.tcp_flags, to_be16(0x0fff));
  EXPECT_EQ(mask.nw_frag, 3);
  EXPECT_EQ(mask.tun_metadata[0], 0);
}

// Padding stays zero in a mask, else equal packets could differ in bits that do not exist.
TEST(ExactMask, HasNoPaddingBits) {
  test::Random random(1);
  for (int i = 0; i < 1000; ++i) {
    const FlowMask mask = exact_mask_for(test::random_key(random));
    ASSERT_EQ(mask.pad_eth | mask.pad_ip | mask.pad_ct | mask.pad_sha | mask.pad_tha | mask.pad_nd[0], 0);
    ASSERT_EQ(mask.tunnel.reserved[0], 0);
  }
}

}  // namespace
}  // namespace vswitch
