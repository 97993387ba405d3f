#include "datapath/vport/vxlan_transmit.h"

#include <errno.h>
#include <gtest/gtest.h>

#include "datapath/tunnel/ecn.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::PacketBuilder;

IpAddress ip(const char* text) { return *IpAddress::parse(text); }

class VxlanPlanTest : public ::testing::Test {
 protected:
  VxlanPlanTest() {
    fixed_.remote = ip("10.0.0.2");
    fixed_.dst_port = 4789;
    fixed_.out_key.value = 5;
    flow_.remote_flow = true;
    flow_.out_key.flow = true;
    flow_.dst_port = 4789;
  }
  // An inner IPv4 packet with this TOS and TTL.
  Packet& packet(uint8_t tos = 0, uint8_t ttl = 20) {
    test::Ipv4Options options;
    options.tos = tos;
    options.ttl = ttl;
    packet_ = PacketBuilder().ethernet().ipv4("192.168.0.1", "192.168.0.2", options).udp(1, 2).build(pool_);
    return *packet_;
  }
  Packet& packet_with(const TunnelMetadata& metadata) {
    packet().has_tunnel = true;
    packet_->tunnel = metadata;
    return *packet_;
  }
  static TunnelMetadata metadata_to(const char* remote, uint64_t id = 7) {
    TunnelMetadata metadata;
    metadata.id = to_be64(id);
    const IpAddress address = ip(remote);
    if (address.is_v6()) {
      metadata.dst6 = address.v6;
    } else {
      metadata.dst = address.v4;
    }
    return metadata;
  }
  VxlanPlan plan(const TunnelConfig& config, const Packet& packet) {
    VxlanPlan result;
    EXPECT_EQ(plan_vxlan(config, packet, result), std::nullopt);
    return result;
  }
  std::optional<DropReason> refusal(const TunnelConfig& config, const Packet& packet) {
    VxlanPlan ignored;
    return plan_vxlan(config, packet, ignored);
  }

  HeapPacketPool pool_{HeapPacketPool::kFrameBuffer, 4};
  PacketPtr packet_;
  TunnelConfig fixed_, flow_;
};

TEST_F(VxlanPlanTest, ConfiguredTunnel) {
  const VxlanPlan result = plan(fixed_, packet());
  EXPECT_EQ(result.remote, ip("10.0.0.2"));
  EXPECT_FALSE(result.local.is_set());
  EXPECT_EQ(result.header.vni, 5u);
  EXPECT_EQ(result.dst_port, 4789);
  EXPECT_EQ(result.ttl, 64);
  EXPECT_EQ(result.tos, 0);
  EXPECT_TRUE(result.df);
  EXPECT_FALSE(result.checksum);
}

TEST_F(VxlanPlanTest, MetadataDrivenTunnel) {
  TunnelMetadata metadata = metadata_to("fd00::2", 0xabcdef);
  metadata.ttl = 9;
  metadata.tos = 0x20;
  metadata.tp_dst = to_be16(8472);
  const VxlanPlan result = plan(flow_, packet_with(metadata));
  EXPECT_EQ(result.remote, ip("fd00::2"));
  EXPECT_EQ(result.header.vni, 0xabcdefu);
  EXPECT_EQ(result.ttl, 9);
  EXPECT_EQ(result.tos, 0x20);
  EXPECT_EQ(result.dst_port, 8472);
  EXPECT_TRUE(result.checksum) << "the default for IPv6";
}

TEST_F(VxlanPlanTest, WhatThePortFixesMetadataDoesNotChange) {
  fixed_.local = ip("10.0.0.1");
  TunnelMetadata metadata = metadata_to("10.9.9.9", 1234);
  metadata.src = ip("10.8.8.8").v4;
  const VxlanPlan result = plan(fixed_, packet_with(metadata));
  EXPECT_EQ(result.remote, ip("10.0.0.2"));
  EXPECT_EQ(result.local, ip("10.0.0.1"));
  EXPECT_EQ(result.header.vni, 5u);
}

TEST_F(VxlanPlanTest, NoMetadata) {
  EXPECT_EQ(refusal(flow_, packet()), DropReason::tunnel_no_metadata);
  fixed_.out_key.flow = true;
  EXPECT_EQ(refusal(fixed_, packet()), DropReason::tunnel_no_metadata);
}

TEST_F(VxlanPlanTest, NoDestination) { EXPECT_EQ(refusal(flow_, packet_with({})), DropReason::tunnel_no_destination); }

TEST_F(VxlanPlanTest, KeyOverTwentyFourBitsIsNotCutShort) {
  EXPECT_EQ(refusal(flow_, packet_with(metadata_to("10.0.0.3", 0x1000005))), DropReason::invalid_tunnel_metadata);
  EXPECT_EQ(refusal(flow_, packet_with(metadata_to("10.0.0.3", 0xffffff))), std::nullopt);
}

TEST_F(VxlanPlanTest, SourceMustBeOfTheDestinationsFamily) {
  flow_.local = ip("10.0.0.1");
  EXPECT_EQ(refusal(flow_, packet_with(metadata_to("fd00::2"))), DropReason::invalid_tunnel_metadata);
}

TEST_F(VxlanPlanTest, SourceFromMetadata) {
  flow_.local_flow = true;
  TunnelMetadata metadata = metadata_to("10.0.0.3");
  metadata.src = ip("10.0.0.9").v4;
  EXPECT_EQ(plan(flow_, packet_with(metadata)).local, ip("10.0.0.9"));
  EXPECT_FALSE(plan(flow_, packet_with(metadata_to("10.0.0.3"))).local.is_set());
}

// A packet that goes from one tunnel to another still carries what it was received with.
TEST_F(VxlanPlanTest, MetadataOfAReceivedPacketGivesOnlyIdAndDestination) {
  flow_.local_flow = true;
  TunnelMetadata metadata = metadata_to("10.0.0.3");
  metadata.src = ip("10.0.0.9").v4;
  metadata.ttl = 3;
  metadata.tos = 0x40;
  metadata.flags = kTunnelChecksum;
  metadata.tp_src = to_be16(44444);
  metadata.tp_dst = to_be16(8472);
  const VxlanPlan result = plan(flow_, packet_with(metadata));
  EXPECT_EQ(result.remote, ip("10.0.0.3"));
  EXPECT_EQ(result.header.vni, 7u);
  EXPECT_FALSE(result.local.is_set());
  EXPECT_EQ(result.ttl, 64);
  EXPECT_EQ(result.tos, 0);
  EXPECT_EQ(result.dst_port, 4789);
  EXPECT_FALSE(result.checksum);
}

TEST_F(VxlanPlanTest, FlagsAddToTheConfiguration) {
  flow_.df = false;
  TunnelMetadata metadata = metadata_to("10.0.0.3");
  EXPECT_FALSE(plan(flow_, packet_with(metadata)).df);
  metadata.flags = kTunnelDontFragment | kTunnelChecksum;
  EXPECT_TRUE(plan(flow_, packet_with(metadata)).df);
  EXPECT_TRUE(plan(flow_, packet_with(metadata)).checksum);
}

TEST_F(VxlanPlanTest, Checksum) {
  fixed_.csum = true;
  EXPECT_TRUE(plan(fixed_, packet()).checksum);
  fixed_.remote = ip("fd00::2");
  fixed_.csum = false;
  EXPECT_FALSE(plan(fixed_, packet()).checksum);
}

TEST_F(VxlanPlanTest, SuperFramesCarryAChecksumUnlessAPersonSaidNo) {
  Packet& super_frame = packet();
  super_frame.offload.gso = GsoType::tcp4;
  EXPECT_TRUE(plan(fixed_, super_frame).checksum);
  fixed_.csum = false;
  EXPECT_FALSE(plan(fixed_, super_frame).checksum);
}

TEST_F(VxlanPlanTest, TosAndEcn) {
  fixed_.tos = 0x88;
  EXPECT_EQ(plan(fixed_, packet(0xb8 | kEcnEct0)).tos, 0x88 | kEcnEct0) << "ECN is always inherited";
  EXPECT_EQ(plan(fixed_, packet(0xb8 | kEcnEct1)).tos, 0x88 | kEcnEct1);
  EXPECT_EQ(plan(fixed_, packet(0xb8 | kEcnCe)).tos, 0x88 | kEcnEct0);
  fixed_.tos_inherit = true;
  EXPECT_EQ(plan(fixed_, packet(0xb8 | kEcnCe)).tos, 0xb8 | kEcnEct0);
}

TEST_F(VxlanPlanTest, TtlInheritFallsBackForWhatIsNotIp) {
  fixed_.ttl_inherit = true;
  EXPECT_EQ(plan(fixed_, packet(0, 20)).ttl, 20);
  EXPECT_EQ(plan(fixed_, packet(0, 0)).ttl, 64);
  packet_ = PacketBuilder().ethernet().eth_type(0x88cc).payload(46).build(pool_);
  EXPECT_EQ(plan(fixed_, *packet_).ttl, 64);
}

TEST_F(VxlanPlanTest, GroupPolicyNeedsTheExtensionAndAPolicy) {
  TunnelMetadata metadata = metadata_to("10.0.0.3");
  metadata.gbp_id = to_be16(0x1234);
  metadata.gbp_flags = kGbpPolicyApplied;
  EXPECT_FALSE(plan(flow_, packet_with(metadata)).header.gbp);
  flow_.gbp = true;
  const VxlanPlan result = plan(flow_, packet_with(metadata));
  EXPECT_TRUE(result.header.gbp);
  EXPECT_EQ(result.header.gbp_id, to_be16(0x1234));
  EXPECT_EQ(result.header.gbp_flags, kGbpPolicyApplied);
  EXPECT_FALSE(plan(flow_, packet_with(metadata_to("10.0.0.3"))).header.gbp);
}

TEST_F(VxlanPlanTest, Mark) {
  packet().skb_mark = 17;
  EXPECT_EQ(plan(fixed_, *packet_).mark, 17u);
  fixed_.mark = 0;
  EXPECT_EQ(plan(fixed_, *packet_).mark, 0u);
}

// design.md section 7: what each failure counts as.
TEST(VxlanDropTest, Statistics) {
  struct Row {
    DropReason reason;
    uint64_t errors, dropped, carrier, collisions;
  };
  const Row rows[] = {
      {DropReason::tunnel_too_big, 1, 0, 0, 0},
      {DropReason::tunnel_no_metadata, 0, 1, 0, 0},
      {DropReason::tunnel_no_destination, 0, 1, 0, 0},
      {DropReason::tunnel_no_route, 1, 0, 1, 0},
      {DropReason::tunnel_loop, 1, 0, 0, 1},
      {DropReason::tx_queue_full, 0, 1, 0, 0},
      {DropReason::port_down, 0, 1, 0, 0},
      {DropReason::invalid_tunnel_metadata, 0, 1, 0, 0},
      {DropReason::tunnel_push_error, 1, 0, 0, 0},
      {DropReason::tx_error, 1, 0, 0, 0},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(drop_reason_name(row.reason));
    VportCounters counters;
    HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 1);
    Ledger ledger;
    const ThreadContext ctx{0, pool, ledger, {}};
    count_vxlan_drop(row.reason, counters.slot(ctx));
    const VportStats stats = counters.total();
    EXPECT_EQ(stats.tx_errors, row.errors);
    EXPECT_EQ(stats.tx_dropped, row.dropped);
    EXPECT_EQ(stats.tx_carrier_errors, row.carrier);
    EXPECT_EQ(stats.collisions, row.collisions);
  }
}

TEST(VxlanDropTest, ReasonOfSystemErrors) {
  EXPECT_EQ(vxlan_send_error(EMSGSIZE), DropReason::tunnel_too_big);
  EXPECT_EQ(vxlan_send_error(ENETUNREACH), DropReason::tunnel_no_route);
  EXPECT_EQ(vxlan_send_error(EHOSTUNREACH), DropReason::tunnel_no_route);
  EXPECT_EQ(vxlan_send_error(EINVAL), DropReason::tunnel_no_route);
  EXPECT_EQ(vxlan_send_error(ELOOP), DropReason::tunnel_loop);
  EXPECT_EQ(vxlan_send_error(EAGAIN), DropReason::tx_queue_full);
  EXPECT_EQ(vxlan_send_error(ENOBUFS), DropReason::tx_queue_full);
  EXPECT_EQ(vxlan_send_error(EPERM), DropReason::tx_error) << "the host's firewall";
}

}  // namespace
}  // namespace vswitch
