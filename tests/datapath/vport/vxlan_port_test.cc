// Receiving, sharing of endpoints, state and life of vxlan ports, through real sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "datapath/tunnel/ecn.h"
#include "datapath/tunnel/inner_frame.h"
#include "datapath/tunnel/vxlan_header.h"
#include "datapath/vport/udp_socket.h"
#include "tests/support/tunnel_underlay.h"

namespace vswitch::test {
namespace {

using ::testing::HasSubstr;

[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new PrivateNamespace);

constexpr uint16_t kUdpPort = 4789;

Bytes vxlan(const Bytes& header, const Bytes& frame) {
  Bytes bytes = header;
  bytes.insert(bytes.end(), frame.begin(), frame.end());
  return bytes;
}

Bytes header(uint32_t vni) {
  Bytes bytes(kVxlanHeaderSize);
  write_vxlan_header({.vni = vni, .gbp = false, .gbp_id = {}, .gbp_flags = 0}, std::span<uint8_t, 8>(bytes));
  return bytes;
}

PacketBuilder inner(uint8_t tos = 0, size_t payload = 100) {
  Ipv4Options options;
  options.tos = tos;
  return PacketBuilder().ethernet().ipv4("192.168.7.1", "192.168.7.2", options).udp(1000, 2000).payload(payload);
}

Bytes bytes_of(const Packet& packet) { return {packet.data(), packet.data() + packet.size()}; }

class VxlanReceiveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    underlay_.emplace();
    peer4_.emplace(*underlay_, false, 5555);
    peer6_.emplace(*underlay_, true, 5555);
  }
  std::unique_ptr<Vport> port(uint32_t port_no, TunnelBench::Options options) {
    return bench_.create_good("vx" + std::to_string(port_no), port_no, std::move(options));
  }

  std::optional<TunnelUnderlay> underlay_;
  std::optional<PeerSocket> peer4_, peer6_;
  TunnelBench bench_;
};

TEST_F(VxlanReceiveTest, FrameAndMetadata) {
  const auto vx = port(3, {{"remote_ip", kPeerV4}, {"key", "77"}});
  const Bytes frame = inner().build();
  peer4_->set_tos(0x20);
  peer4_->send(kUdpPort, vxlan(header(77), frame));
  PacketBatch batch = bench_.wait_for_packets(*vx);
  ASSERT_EQ(batch.size(), 1u);
  const Packet& packet = batch[0];
  EXPECT_EQ(bytes_of(packet), frame);
  EXPECT_EQ(packet.in_port, 3u);
  ASSERT_TRUE(packet.has_tunnel);
  TunnelMetadata expected;
  expected.id = to_be64(77);
  expected.src = ipv4(kPeerV4);
  expected.dst = ipv4(kOurV4);
  expected.flags = kTunnelKey;
  expected.tos = 0x20;
  expected.ttl = 64;
  expected.tp_src = to_be16(5555);
  expected.tp_dst = to_be16(kUdpPort);
  EXPECT_EQ(packet.tunnel, expected);
  EXPECT_EQ(packet.offload.checksum, ChecksumState::none);
  EXPECT_EQ(vx->stats().rx_packets, 1u);
  EXPECT_EQ(vx->stats().rx_bytes, frame.size());
}

TEST_F(VxlanReceiveTest, Ipv6Metadata) {
  const auto vx = port(3, {{"remote_ip", "flow"}, {"key", "flow"}});
  peer6_->set_tos(0x30);
  peer6_->send(kUdpPort, vxlan(header(5), inner().build()));
  PacketBatch batch = bench_.wait_for_packets(*vx);
  ASSERT_EQ(batch.size(), 1u);
  const TunnelMetadata& tunnel = batch[0].tunnel;
  EXPECT_EQ(tunnel.src6, ipv6(kPeerV6));
  EXPECT_EQ(tunnel.dst6, ipv6(kOurV6));
  EXPECT_EQ(tunnel.src, be32{});
  EXPECT_EQ(tunnel.tos, 0x30);
  EXPECT_EQ(tunnel.ttl, 64);
}

TEST_F(VxlanReceiveTest, GroupPolicy) {
  const auto vx = port(3, {{"remote_ip", "flow"}, {"key", "flow"}, {"exts", "gbp"}});
  peer4_->send(kUdpPort, vxlan({0x88, 0x48, 0x12, 0x34, 0, 0, 5, 0}, inner().build()));
  PacketBatch batch = bench_.wait_for_packets(*vx);
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(batch[0].tunnel.gbp_id, to_be16(0x1234));
  EXPECT_EQ(batch[0].tunnel.gbp_flags, kGbpDontLearn | kGbpPolicyApplied);
}

TEST_F(VxlanReceiveTest, MulticastIsCounted) {
  const auto vx = port(3, {{"remote_ip", "flow"}});
  Bytes frame = inner().build();
  frame[0] = 0xff;
  peer4_->send(kUdpPort, vxlan(header(0), frame));
  bench_.wait_for_packets(*vx);
  EXPECT_EQ(vx->stats().multicast, 1u);
}

// ---------------------------------------------------------------- drops

struct BadPacket {
  const char* name;
  Bytes bytes;
  uint32_t booked_under;
  DropReason reason;
  uint64_t errors, length_errors, frame_errors;
};

TEST_F(VxlanReceiveTest, BadPacketsAreBookedByName) {
  const auto vx = port(3, {{"remote_ip", kPeerV4}, {"key", "5"}});
  const Bytes frame = inner().build();
  const std::vector<BadPacket> all = {
      {"empty", {}, 0, DropReason::tunnel_invalid_header, 0, 0, 0},
      {"short header", {8, 0, 0, 0, 0, 0, 5}, 0, DropReason::tunnel_invalid_header, 0, 0, 0},
      {"no I flag", vxlan({0, 0, 0, 0, 0, 0, 5, 0}, frame), 0, DropReason::tunnel_invalid_header, 0, 0, 0},
      {"unknown VNI", vxlan(header(6), frame), 0, DropReason::tunnel_unknown_vni, 0, 0, 0},
      {"reserved bits", vxlan({9, 0, 0, 0, 0, 0, 5, 0}, frame), 3, DropReason::tunnel_invalid_header, 1, 0, 1},
      {"policy not enabled", vxlan({0x88, 0, 0, 1, 0, 0, 5, 0}, frame), 3, DropReason::tunnel_invalid_header, 1, 0, 1},
      {"no frame", header(5), 3, DropReason::tunnel_inner_too_short, 1, 1, 0},
      {"13 bytes", vxlan(header(5), Bytes(13)), 3, DropReason::tunnel_inner_too_short, 1, 1, 0},
  };
  for (const BadPacket& bad : all) {
    SCOPED_TRACE(bad.name);
    const VportStats before = vx->stats();
    const uint64_t drops = bench_.dropped(bad.booked_under, bad.reason);
    peer4_->send(kUdpPort, bad.bytes);
    ASSERT_TRUE(bench_.wait_for_drop(*vx, bad.booked_under, bad.reason, drops + 1));
    const VportStats after = vx->stats();
    EXPECT_EQ(after.rx_errors - before.rx_errors, bad.errors);
    EXPECT_EQ(after.rx_length_errors - before.rx_length_errors, bad.length_errors);
    EXPECT_EQ(after.rx_frame_errors - before.rx_frame_errors, bad.frame_errors);
    EXPECT_EQ(after.rx_packets, 0u);
    EXPECT_EQ(bench_.balance(0), 0);
    EXPECT_EQ(bench_.balance(3), 0);
  }
  EXPECT_EQ(vx->state().status.at("endpoint_unknown_vni"), "1");
  EXPECT_EQ(vx->state().status.at("endpoint_invalid_header"), "3");
}

TEST_F(VxlanReceiveTest, OnlyTheConfiguredPeer) {
  const auto vx = port(3, {{"remote_ip", "10.77.0.3"}});
  peer4_->send(kUdpPort, vxlan(header(0), inner().build()));
  EXPECT_TRUE(bench_.wait_for_drop(*vx, 0, DropReason::tunnel_unknown_vni));
}

TEST_F(VxlanReceiveTest, AdministrativelyDown) {
  const auto vx = port(3, {{"remote_ip", "flow"}});
  ASSERT_TRUE(vx->set_admin_up(false).ok());
  peer4_->send(kUdpPort, vxlan(header(0), inner().build()));
  EXPECT_TRUE(bench_.wait_for_drop(*vx, 3, DropReason::port_down));
  EXPECT_EQ(vx->stats().rx_dropped, 1u);
  EXPECT_FALSE(vx->state().admin_up);
}

TEST_F(VxlanReceiveTest, EmptyPool) {
  const auto vx = port(3, {{"remote_ip", "flow"}});
  std::vector<PacketPtr> taken;
  while (PacketPtr other = bench_.pool().allocate()) taken.push_back(std::move(other));
  peer4_->send(kUdpPort, vxlan(header(0), inner().build()));
  EXPECT_TRUE(bench_.wait_for_drop(*vx, 3, DropReason::rx_no_buffer));
  EXPECT_EQ(vx->stats().rx_dropped, 1u);
  EXPECT_EQ(bench_.balance(3), 0);
}

// ---------------------------------------------------------------- ECN (RFC 6040)

TEST_F(VxlanReceiveTest, CongestionMarkMovesInside) {
  const auto vx = port(3, {{"remote_ip", "flow"}});
  peer4_->set_tos(kEcnCe);
  peer4_->send(kUdpPort, vxlan(header(0), inner(0xb8 | kEcnEct0).build()));
  PacketBatch batch = bench_.wait_for_packets(*vx);
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(bytes_of(batch[0]), inner(0xb8 | kEcnCe).build()) << "with the right header checksum";
}

TEST_F(VxlanReceiveTest, CongestionMarkThatCannotMoveDrops) {
  const auto vx = port(3, {{"remote_ip", "flow"}});
  peer6_->set_tos(kEcnCe);
  peer6_->send(kUdpPort, vxlan(header(0), inner(0xb8).build()));
  EXPECT_TRUE(bench_.wait_for_drop(*vx, 3, DropReason::ecn_mismatch));
  EXPECT_EQ(vx->stats().rx_errors, 1u);
  EXPECT_EQ(vx->stats().rx_frame_errors, 1u);
  EXPECT_EQ(bench_.balance(3), 0);
}

TEST_F(VxlanReceiveTest, CongestionMarkOnWhatIsNotIpIsLetThrough) {
  const auto vx = port(3, {{"remote_ip", "flow"}});
  const Bytes frame = PacketBuilder().ethernet().eth_type(0x88cc).payload(46).build();
  peer4_->set_tos(kEcnCe);
  peer4_->send(kUdpPort, vxlan(header(0), frame));
  PacketBatch batch = bench_.wait_for_packets(*vx);
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(bytes_of(batch[0]), frame);
}

// ---------------------------------------------------------------- trains

class VxlanTrainTest : public VxlanReceiveTest, public ::testing::WithParamInterface<bool> {};

// More packets than a batch holds arrive as one buffer; each comes out, in order, byte for byte.
TEST_P(VxlanTrainTest, IsTakenApart) {
  const auto vx = port(3, {{"remote_ip", "flow"}, {"key", "flow"}});
  constexpr size_t kCount = 50;
  std::vector<Bytes> frames;
  Bytes train;
  for (size_t i = 0; i < kCount; ++i) {
    frames.push_back(inner(0, i + 1 == kCount ? 71 : 900).build());
    frames.back()[6] = static_cast<uint8_t>(i);
    const Bytes one = vxlan(header(static_cast<uint32_t>(i)), frames.back());
    train.insert(train.end(), one.begin(), one.end());
  }
  (GetParam() ? peer6_ : peer4_)->send(kUdpPort, train, static_cast<uint16_t>(8 + frames[0].size()));
  size_t next = 0;
  size_t largest_batch = 0;
  while (next < kCount) {
    PacketBatch batch = bench_.wait_for_packets(*vx);
    ASSERT_FALSE(batch.empty());
    largest_batch = std::max(largest_batch, batch.size());
    for (size_t i = 0; i < batch.size(); ++i, ++next) {
      ASSERT_LT(next, kCount);
      EXPECT_EQ(bytes_of(batch[i]), frames[next]);
      EXPECT_EQ(batch[i].tunnel.id, to_be64(next));
    }
  }
  EXPECT_EQ(largest_batch, PacketBatch::kMaxPackets) << "the train arrived whole";
  EXPECT_EQ(vx->stats().rx_packets, kCount);
}

INSTANTIATE_TEST_SUITE_P(, VxlanTrainTest, ::testing::Bool(),
                         [](const auto& param) { return param.param ? "v6" : "v4"; });

TEST_F(VxlanReceiveTest, OnePortReceivesWhatAnotherSendsAsATrain) {
  // To our own address: through the kernel's loopback, and still as one buffer.
  const auto vx = port(3, {{"remote_ip", kOurV4}, {"key", "9"}, {"csum", "true"}});
  bench_.links().put_route(kOurV4, {});
  PacketPtr packet =
      bench_.make(PacketBuilder().ethernet().ipv4("192.168.7.1", "192.168.7.2").tcp(5, 6).payload(13000));
  packet->offload = {.checksum = ChecksumState::partial,
                     .gso = GsoType::tcp4,
                     .gso_ecn = false,
                     .gso_size = 1300,
                     .csum_start = 34,
                     .csum_offset = 16};
  const Bytes sent = bytes_of(*packet);
  bench_.send(*vx, std::move(packet));
  // The segments of one connection arrive as the super-frame that they were.
  PacketBatch batch = bench_.wait_for_packets(*vx);
  ASSERT_EQ(batch.size(), 1u);
  const auto but_checksum = [](Bytes frame) {
    frame[50] = frame[51] = 0;
    return frame;
  };
  EXPECT_EQ(but_checksum(bytes_of(batch[0])), but_checksum(sent));
  EXPECT_EQ(batch[0].offload.gso, GsoType::tcp4);
  EXPECT_EQ(batch[0].offload.gso_size, 1300);
  EXPECT_EQ(batch[0].offload.checksum, ChecksumState::partial);
  EXPECT_EQ(vx->stats().rx_packets, 1u);
  EXPECT_EQ(vx->stats().rx_bytes, sent.size());
}

// ---------------------------------------------------------------- sharing

TEST_F(VxlanReceiveTest, PortsShareASocketAndTheMostSpecificWins) {
  const auto any = port(3, {{"remote_ip", "flow"}, {"key", "flow"}});
  const auto one = port(4, {{"remote_ip", kPeerV4}, {"key", "5"}});
  ASSERT_EQ(one->sources().size(), 1u);
  EXPECT_EQ(one->sources()[0], any->sources()[0]);
  peer4_->send(kUdpPort, vxlan(header(5), inner().build()));
  EXPECT_EQ(bench_.wait_for_packets(*any)[0].in_port, 4u);
  peer4_->send(kUdpPort, vxlan(header(6), inner().build()));
  EXPECT_EQ(bench_.wait_for_packets(*any)[0].in_port, 3u);
}

// A port that is deleted takes no listener from another.
TEST_F(VxlanReceiveTest, DeletingOnePortLeavesTheOtherItsSocket) {
  auto first = port(3, {{"remote_ip", kPeerV4}, {"key", "5"}});
  const auto second = port(4, {{"remote_ip", kPeerV4}, {"key", "6"}});
  first.reset();
  peer4_->send(kUdpPort, vxlan(header(6), inner().build()));
  EXPECT_EQ(bench_.wait_for_packets(*second)[0].in_port, 4u);
  peer4_->send(kUdpPort, vxlan(header(5), inner().build()));
  EXPECT_TRUE(bench_.wait_for_drop(*second, 0, DropReason::tunnel_unknown_vni));
}

TEST_F(VxlanReceiveTest, TheLastPortClosesTheSocket) {
  auto first = port(3, {{"remote_ip", "flow"}, {"key", "5"}});
  auto second = port(4, {{"remote_ip", "flow"}, {"key", "6"}});
  EXPECT_EQ(first->sources().size(), 2u) << "one per address family";
  first.reset();
  EXPECT_FALSE(open_udp_receiver(IpAddress::Family::v4, kUdpPort).ok());
  second.reset();
  EXPECT_TRUE(open_udp_receiver(IpAddress::Family::v4, kUdpPort).ok());
  EXPECT_TRUE(open_udp_receiver(IpAddress::Family::v6, kUdpPort).ok());
}

TEST_F(VxlanReceiveTest, DuplicateNamesThePortThatHasIt) {
  const auto first = port(3, {{"remote_ip", kPeerV4}, {"key", "5"}});
  const auto second = bench_.create("vx4", 4, {{"remote_ip", kPeerV4}, {"in_key", "5"}, {"out_key", "9"}});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::already_exists);
  EXPECT_EQ(
      second.status().message(),
      "port vx4: port vx3 already receives these packets: type=vxlan, remote_ip=10.77.0.2, local_ip=any, in_key=5, "
      "dst_port=4789");
  EXPECT_TRUE(bench_.create("vx4", 4, {{"remote_ip", kPeerV4}, {"key", "5"}, {"dst_port", "8472"}}).ok());
}

TEST_F(VxlanReceiveTest, PortsComeAndGoWhileOthersLoseNothing) {
  constexpr size_t kPackets = 500;
  const auto vx = port(3, {{"remote_ip", kPeerV4}, {"key", "5"}});
  std::atomic<size_t> received{0};
  std::thread forwarding([source = vx->sources()[0], &received] {
    const rcu::ThreadRegistration registration;
    HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 64);
    Ledger ledger;
    ThreadContext ctx{1, pool, ledger, {}};
    eventually([&] {
      PacketBatch batch;
      received += source->receive(ctx, batch);
      rcu::quiescent();
      return received >= kPackets;
    });
  });
  for (size_t i = 0; i < kPackets; ++i) {
    peer4_->send(kUdpPort, vxlan(header(5), inner().build()));
    const auto other = port(4, {{"remote_ip", kPeerV4}, {"key", "6"}});
    bench_.send(*other, bench_.make(inner()));
  }
  {
    const rcu::Offline offline;
    forwarding.join();
  }
  EXPECT_EQ(received, kPackets);
}

// ---------------------------------------------------------------- UDP port taken

TEST_F(VxlanReceiveTest, TakenPortNamesTheProcess) {
  const Result<UniqueFd> taken = open_udp_receiver(IpAddress::Family::v4, kUdpPort);
  ASSERT_TRUE(taken.ok());
  const auto vx = bench_.create("vx3", 3, {{"remote_ip", "flow"}});
  ASSERT_FALSE(vx.ok());
  EXPECT_EQ(vx.status().code(), StatusCode::failed_precondition);
  EXPECT_THAT(vx.status().message(), HasSubstr("port vx3: UDP port 4789 (IPv4) is in use by process " +
                                               std::to_string(getpid()) + " (datapath_vport"));
}

TEST_F(VxlanReceiveTest, TakenPortNamesTheKernelDevice) {
  add_vxlan_device({.name = "vxk0", .vni = 9, .remote = kPeerV4, .port = kUdpPort, .udp_checksum = true});
  const auto vx = bench_.create("vx3", 3, {{"remote_ip", "flow"}});
  delete_link("vxk0");
  ASSERT_FALSE(vx.ok());
  EXPECT_EQ(vx.status().message(), "port vx3: UDP port 4789 (IPv4) is in use by the kernel (vxlan device vxk0)");
}

TEST_F(VxlanReceiveTest, AfterARestartThePortWaitsForItsSocketInError) {
  Result<UniqueFd> taken = open_udp_receiver(IpAddress::Family::v4, kUdpPort);
  ASSERT_TRUE(taken.ok());
  auto created = bench_.create("vx3", 3, {{"remote_ip", kPeerV4}}, false);
  ASSERT_TRUE(created.ok());
  Vport& vx = **created;
  EXPECT_THAT(vx.state().error, HasSubstr("UDP port 4789 (IPv4) is in use by process"));
  EXPECT_FALSE(vx.state().carrier);
  EXPECT_TRUE(vx.sources().empty());
  bench_.send(vx, bench_.make(inner()));
  EXPECT_EQ(bench_.dropped(99, DropReason::port_down), 1u);
  taken->reset();
  EXPECT_TRUE(eventually([&] { return bench_.host().sources_changes != 0; }));
  EXPECT_EQ(vx.state().error, "");
  peer4_->send(kUdpPort, vxlan(header(0), inner().build()));
  EXPECT_EQ(bench_.wait_for_packets(vx).size(), 1u);
}

// ---------------------------------------------------------------- state and change

TEST_F(VxlanReceiveTest, StateTellsTheWayToThePeer) {
  const auto vx = port(3, {{"remote_ip", kPeerV4}});
  const VportState state = vx->state();
  EXPECT_TRUE(state.admin_up);
  EXPECT_TRUE(state.carrier);
  EXPECT_EQ(state.error, "");
  EXPECT_FALSE(state.mac.is_zero());
  EXPECT_FALSE(state.mac.is_multicast());
  EXPECT_EQ(state.status.at("tunnel_egress_iface"), "vxu0");
  EXPECT_EQ(state.status.at("tunnel_egress_iface_carrier"), "up");
  EXPECT_EQ(state.status.at("source_ip"), kOurV4);
  EXPECT_EQ(state.status.at("remote_ip"), kPeerV4);
  EXPECT_EQ(state.status.at("recommended_mtu"), "1450");
  EXPECT_EQ(port(4, {{"remote_ip", kPeerV6}})->state().status.at("recommended_mtu"), "1430");
}

TEST_F(VxlanReceiveTest, RouteThatGoesAndComesBack) {
  const auto vx = port(3, {{"remote_ip", kPeerV4}});
  const RouteInfo route = *bench_.links().route_to(*IpAddress::parse(kPeerV4), {}, 0);
  bench_.links().remove_route(kPeerV4);
  EXPECT_EQ(bench_.host().state_changes, 1);
  EXPECT_EQ(vx->state().error, "port vx3: no route to 10.77.0.2");
  EXPECT_FALSE(vx->state().carrier);
  bench_.links().put_route(kPeerV4, route);
  EXPECT_EQ(bench_.host().state_changes, 2);
  EXPECT_EQ(vx->state().error, "");
  bench_.links().put_route(kPeerV4, route);
  EXPECT_EQ(bench_.host().state_changes, 2) << "nothing changed";
}

TEST_F(VxlanReceiveTest, LocalAddressMustBeOurs) {
  const auto vx = bench_.create("vx3", 3, {{"remote_ip", kPeerV4}, {"local_ip", "10.77.0.99"}});
  ASSERT_FALSE(vx.ok());
  EXPECT_EQ(vx.status().message(), "port vx3: local_ip=10.77.0.99: not an address of this host");
  EXPECT_EQ(vx.status().field(), "options:local_ip");
  const auto late = bench_.create("vx3", 3, {{"remote_ip", kPeerV4}, {"local_ip", "10.77.0.99"}}, false);
  ASSERT_TRUE(late.ok());
  EXPECT_EQ((*late)->state().error, "port vx3: local_ip=10.77.0.99: not an address of this host");
  bench_.links().add_local_address("10.77.0.99");
  EXPECT_EQ((*late)->state().error, "");
}

TEST_F(VxlanReceiveTest, ReconfigureInPlace) {
  const auto vx = port(3, {{"remote_ip", kPeerV4}, {"key", "5"}});
  VportConfig config{.name = "vx3", .type = "vxlan", .options = {{"remote_ip", kPeerV4}, {"key", "6"}}, .mac = {}};
  const auto source = vx->sources()[0];
  ASSERT_TRUE(vx->reconfigure(config).ok());
  EXPECT_EQ(vx->sources()[0], source) << "the socket stayed open";
  peer4_->send(kUdpPort, vxlan(header(6), inner().build()));
  EXPECT_EQ(bench_.wait_for_packets(*vx)[0].in_port, 3u);
  peer4_->send(kUdpPort, vxlan(header(5), inner().build()));
  EXPECT_TRUE(bench_.wait_for_drop(*vx, 0, DropReason::tunnel_unknown_vni));
}

TEST_F(VxlanReceiveTest, ReconfigureThatFailsChangesNothing) {
  const auto other = port(4, {{"remote_ip", kPeerV4}, {"key", "6"}});
  const auto vx = port(3, {{"remote_ip", kPeerV4}, {"key", "5"}});
  VportConfig config{.name = "vx3", .type = "vxlan", .options = {{"remote_ip", kPeerV4}, {"key", "6"}}, .mac = {}};
  EXPECT_EQ(vx->reconfigure(config).code(), StatusCode::already_exists);
  config.options = {{"remote_ip", "nonsense"}};
  EXPECT_EQ(vx->reconfigure(config).code(), StatusCode::invalid_argument);
  peer4_->send(kUdpPort, vxlan(header(5), inner().build()));
  EXPECT_EQ(bench_.wait_for_packets(*vx)[0].in_port, 3u);
}

TEST_F(VxlanReceiveTest, NothingIsWatchedAfterThePortIsGone) {
  port(3, {{"remote_ip", kPeerV4}});
  EXPECT_EQ(bench_.links().route_watchers(), 0u);
}

}  // namespace
}  // namespace vswitch::test
