// The key of a connection says the same as extraction does, for every frame that it takes.

#include "datapath/kernel_path/connection_key.h"

#include <gtest/gtest.h>

#include "datapath/flow/extract.h"
#include "tests/support/frame_spec.h"
#include "tests/support/guarded_packet.h"
#include "tests/support/packet_builder.h"
#include "tests/support/random_check.h"

namespace vswitch {
namespace {

using test::PacketBuilder;

constexpr uint32_t kInPort = 7;

// What extraction finds, but for what differs among the packets of a connection.
FlowKey extracted(Packet& packet) {
  packet.in_port = kInPort;
  FlowKey key;
  EXPECT_TRUE(extract_flow_key(packet, key));
  key.nw_ttl = 0;
  key.ipv6_label = {};
  key.tcp_flags = {};
  return key;
}

bool takes(const PacketBuilder& builder) {
  test::GuardedPacket guarded;
  return connection_key_of(guarded.place(builder.build())).has_value();
}

TEST(ConnectionKey, SaysWhatExtractionSaysOfRandomFrames) {
  test::GuardedPacket guarded;
  size_t taken = 0;
  check_random([&](std::mt19937& rng) {
    Bytes frame = FrameSpec::random(rng).build();
    const size_t flips = rng() % 3;
    for (size_t i = 0; i < flips; ++i) {
      frame[rng() % std::min<size_t>(frame.size(), 80)] ^= static_cast<uint8_t>(1 << rng() % 8);
    }
    if (rng() % 8 == 0) frame.resize(rng() % frame.size());
    Packet& packet = guarded.place(frame);
    const std::optional<ConnectionKey> key = connection_key_of(packet);
    if (!key) return;
    ++taken;
    RC_ASSERT(extracted(packet) == flow_key_of(*key, kInPort));
  });
  EXPECT_GT(taken, 150u);
}

TEST(ConnectionKey, TakesPlainTcpAndUdpOverIp) {
  EXPECT_TRUE(takes(PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2)));
  EXPECT_TRUE(takes(PacketBuilder().ethernet().vlan(10).ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(100)));
  EXPECT_TRUE(takes(PacketBuilder().ethernet().ipv6("fd00::1", "fd00::2").udp(1, 2).padding(10)));
}

TEST(ConnectionKey, LeavesWhatIsUnusual) {
  EXPECT_FALSE(takes(PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").icmp(8, 0).payload(40)));
  EXPECT_FALSE(takes(PacketBuilder().ethernet().vlan(1).vlan(2).ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2)));
  EXPECT_FALSE(takes(PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2", {.fragment = 0x2000}).tcp(1, 2)));
  EXPECT_FALSE(takes(PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2", {.fragment = 1}).tcp(1, 2)));
  EXPECT_FALSE(takes(PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2", {.options = {7, 7, 7, 7}}).tcp(1, 2)));
  EXPECT_FALSE(takes(PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2", {.total_length = 30}).tcp(1, 2)));
  EXPECT_FALSE(takes(PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2, {.data_offset = 4})));
  EXPECT_FALSE(takes(PacketBuilder().ethernet().ipv6("fd00::1", "fd00::2").extension(kProtoHopByHop).tcp(1, 2)));
  EXPECT_FALSE(takes(PacketBuilder().ethernet().ipv6("fd00::1", "fd00::2").ipv6_fragment(1).tcp(1, 2)));
}

}  // namespace
}  // namespace vswitch
