#include "datapath/flow_table/shallow_key.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <random>

#include "datapath/flow/extract.h"
#include "datapath/flow/flow_mask.h"
#include "tests/support/packet_builder.h"
#include "tests/support/random_key.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

FlowMask shallow_mask() {
  FlowMask mask;
  mask.in_port = mask.recirc_id = ~0u;
  mask.eth_type = ~be16{};
  for (VlanTag& tag : mask.vlan) tag = {~be16{}, ~be16{}};
  mask.nw_frag = 3;
  mask.packet_type = ~be32{};
  return mask;
}

// Whatever the bytes: a packet with a signature has the key that the signature says, as far as shallow masks look, and
// the TCP flags that extraction finds.
void check(HeapPacketPool& pool, const Bytes& frame, bool* had_signature) {
  const PacketPtr packet = test::make_packet(pool, frame);
  packet->in_port = 7;
  uint16_t flags = 0;
  const ShallowSignature signature = shallow_signature(*packet, &flags);
  if (signature == kNoSignature) return;
  *had_signature = true;
  FlowKey key;
  RC_ASSERT(extract_flow_key(*packet, key));
  RC_ASSERT(masked(key, shallow_mask()) == masked(shallow_key(7, signature), shallow_mask()));
  RC_ASSERT(flags == key.tcp_flags.host());
}

TEST(ShallowKeyTest, AgreesWithExtraction) {
  HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 4);
  size_t with_signature = 0;
  ASSERT_TRUE(rc::check([&] {
    std::mt19937_64 random(*rc::gen::noShrink(rc::gen::arbitrary<uint64_t>()));
    const auto below = [&random](size_t n) { return static_cast<size_t>(random() % n); };
    PacketBuilder builder;
    builder.ethernet();
    for (size_t tags = below(4); tags > 1; --tags) builder.vlan(static_cast<uint16_t>(below(4096)));
    if (below(2) != 0) {
      builder.ipv4("10.0.0.1", "10.0.0.2");
    } else {
      builder.ipv6("2001:db8::1", "2001:db8::2");
    }
    if (below(2) != 0) {
      builder.tcp(1, 2);
    } else {
      builder.udp(1, 2);
    }
    Bytes frame = builder.build();
    // Broken in some places, most often not at all.
    for (size_t breaks = below(4); breaks > 1; --breaks)
      frame[12 + below(frame.size() - 12)] = static_cast<uint8_t>(random());
    if (below(4) == 0) frame.resize(below(frame.size()) + 1);
    bool had_signature = false;
    check(pool, frame, &had_signature);
    with_signature += had_signature;
  }));
  EXPECT_GT(with_signature, 20u);
}

TEST(ShallowKeyTest, CommonPacketsHaveASignature) {
  HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 4);
  uint16_t flags = 0;
  const auto signature = [&](const Bytes& frame) { return shallow_signature(*test::make_packet(pool, frame), &flags); };
  const ShallowSignature udp =
      signature(PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).pad_to(60).build());
  const ShallowSignature tcp = signature(PacketBuilder().ethernet().ipv4("10.9.0.1", "10.0.0.2").tcp(1, 2).build());
  const ShallowSignature tagged =
      signature(PacketBuilder().ethernet().vlan(10).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).pad_to(60).build());
  const ShallowSignature six =
      signature(PacketBuilder().ethernet().ipv6("2001:db8::1", "2001:db8::2").tcp(1, 2).build());
  EXPECT_NE(udp, kNoSignature);
  EXPECT_EQ(udp, tcp);
  EXPECT_NE(tagged, kNoSignature);
  EXPECT_NE(tagged, udp);
  EXPECT_NE(six, kNoSignature);
  EXPECT_NE(six, udp);
}

TEST(ShallowKeyTest, KnowsShallowMasks) {
  EXPECT_TRUE(is_shallow(FlowMask{}));
  EXPECT_TRUE(is_shallow(shallow_mask()));
  for (const auto& deepen : std::vector<void (*)(FlowMask&)>{
           [](FlowMask& m) { m.eth_dst = MacAddress::from_u64(1); }, [](FlowMask& m) { m.nw_src = to_be32(1); },
           [](FlowMask& m) { m.nw_proto = 1; }, [](FlowMask& m) { m.tcp_flags = to_be16(1); },
           [](FlowMask& m) { m.nw_tos = 1; }, [](FlowMask& m) { m.skb_mark = 1; },
           [](FlowMask& m) { m.tunnel.id = to_be64(1); }, [](FlowMask& m) { m.ct_state = 1; }}) {
    FlowMask mask = shallow_mask();
    deepen(mask);
    EXPECT_FALSE(is_shallow(mask));
  }
}

}  // namespace
}  // namespace vswitch
