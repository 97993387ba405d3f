// Sending, through real sockets to a peer in another namespace.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>
#include <vector>

#include "datapath/packet/offload.h"
#include "datapath/tunnel/ecn.h"
#include "datapath/tunnel/vxlan_header.h"
#include "tests/support/tunnel_underlay.h"

namespace vswitch::test {
namespace {

[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new PrivateNamespace);

constexpr uint32_t kPort = 3;
constexpr uint32_t kInPort = 99;

class VxlanSendTest : public ::testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    underlay_.emplace();
    peer4_.emplace(*underlay_, false, 4789);
    peer6_.emplace(*underlay_, true, 4789);
  }
  std::unique_ptr<Vport> port(TunnelBench::Options options) {
    return bench_.create_good("vx1", kPort, std::move(options));
  }
  // An inner IPv4 UDP packet whose IP datagram has `ip_size` bytes.
  static PacketBuilder inner(size_t ip_size = 128, uint8_t tos = 0, uint16_t src_port = 1000) {
    Ipv4Options options;
    options.tos = tos;
    return PacketBuilder()
        .ethernet()
        .ipv4("192.168.7.1", "192.168.7.2", options)
        .udp(src_port, 2000)
        .payload(ip_size - 28);
  }
  static Bytes encapsulated(uint32_t vni, const Bytes& frame) {
    Bytes bytes(kVxlanHeaderSize);
    write_vxlan_header({.vni = vni, .gbp = false, .gbp_id = {}, .gbp_flags = 0}, std::span<uint8_t, 8>(bytes));
    bytes.insert(bytes.end(), frame.begin(), frame.end());
    return bytes;
  }
  PacketPtr with_metadata(PacketPtr packet, const char* remote, uint64_t id) {
    packet->has_tunnel = true;
    packet->tunnel = {};
    packet->tunnel.id = to_be64(id);
    const IpAddress address = *IpAddress::parse(remote);
    packet->tunnel.dst = address.v4;
    packet->tunnel.dst6 = address.v6;
    return packet;
  }
  // A packet that was dropped, and how the port and the ledger saw it.
  void expect_drop(Vport& port, DropReason reason, uint64_t errors, uint64_t dropped, uint64_t carrier = 0) {
    EXPECT_EQ(bench_.dropped(kInPort, reason), 1u) << drop_reason_name(reason);
    EXPECT_EQ(bench_.sent(kInPort), 0u);
    EXPECT_EQ(bench_.balance(kInPort), 0);
    const VportStats stats = port.stats();
    EXPECT_EQ(stats.tx_errors, errors);
    EXPECT_EQ(stats.tx_dropped, dropped);
    EXPECT_EQ(stats.tx_carrier_errors, carrier);
    EXPECT_EQ(stats.tx_packets, 0u);
  }

  std::optional<TunnelUnderlay> underlay_;
  std::optional<PeerSocket> peer4_, peer6_;
  TunnelBench bench_;
};

TEST_F(VxlanSendTest, FrameArrivesUnchangedBehindTheHeader) {
  const auto vx = port({{"remote_ip", kPeerV4}, {"key", "1234567"}});
  const Bytes frame = inner().build();
  bench_.send(*vx, bench_.make(frame));
  const auto got = peer4_->receive();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->payload, encapsulated(1234567, frame));
  EXPECT_EQ(got->ttl, 64);
  EXPECT_EQ(got->tos, 0);
  EXPECT_GE(got->src_port, 32768);
  EXPECT_LE(got->src_port, 61000);
  EXPECT_EQ(bench_.sent(kInPort), 1u);
  EXPECT_EQ(bench_.balance(kInPort), 0);
  EXPECT_EQ(vx->stats().tx_packets, 1u);
  EXPECT_EQ(vx->stats().tx_bytes, frame.size()) << "the inner frame counts";
}

TEST_F(VxlanSendTest, Ipv6) {
  const auto vx = port({{"remote_ip", kPeerV6}, {"key", "5"}, {"tos", "0x20"}, {"ttl", "9"}, {"local_ip", kOurV6}});
  const Bytes frame = inner(200, kEcnEct0).build();
  bench_.send(*vx, bench_.make(frame));
  const auto got = peer6_->receive();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->payload, encapsulated(5, frame));
  EXPECT_EQ(got->tos, 0x20 | kEcnEct0);
  EXPECT_EQ(got->ttl, 9);
}

TEST_F(VxlanSendTest, MetadataChoosesPeerAndKeyPerPacket) {
  const auto vx = port({{"remote_ip", "flow"}, {"key", "flow"}});
  const Bytes frame = inner().build();
  bench_.send(*vx, with_metadata(bench_.make(frame), kPeerV6, 6));
  bench_.send(*vx, with_metadata(bench_.make(frame), kPeerV4, 4));
  const auto got6 = peer6_->receive(), got4 = peer4_->receive();
  ASSERT_TRUE(got6 && got4);
  EXPECT_EQ(got6->payload, encapsulated(6, frame));
  EXPECT_EQ(got4->payload, encapsulated(4, frame));
}

TEST_F(VxlanSendTest, PacketsOfOneSizeArriveOneByOneAndInOrder) {
  for (const char* checksum : {"", "false", "true"}) {
    std::map<std::string, std::string> options = {{"remote_ip", kPeerV4}};
    if (*checksum != '\0') options["csum"] = checksum;
    const auto vx = port(options);
    PacketBatch batch;
    std::vector<Bytes> frames;
    for (size_t i = 0; i < 20; ++i) {
      frames.push_back(inner(100).build());
      frames.back().back() = static_cast<uint8_t>(i);
      // Another size in between ends what could leave as one.
      if (i == 12) frames.back().push_back(0);
      batch.add(bench_.make(frames.back()));
    }
    vx->send(bench_.ctx(), batch);
    for (const Bytes& frame : frames) {
      const auto got = peer4_->receive();
      ASSERT_TRUE(got) << checksum;
      EXPECT_EQ(got->payload, encapsulated(0, frame)) << checksum;
    }
    EXPECT_EQ(vx->stats().tx_packets, 20u);
  }
}

// Whatever leaves together, each flow has its source port, its order and its frames.
TEST_F(VxlanSendTest, BatchesOfManyFlowsThatLeaveTogether) {
  constexpr uint16_t kFlows = 7, kFirst = 2000;
  for (const char* checksum : {"", "false", "true"}) {
    TunnelBench::Options options = {{"remote_ip", kPeerV4}, {"key", "3"}};
    if (*checksum != '\0') options["csum"] = checksum;
    const auto vx = port(options);
    std::array<PacketBatch, 6> batches;  // one of them empty
    std::map<uint16_t, std::vector<Bytes>> frames, got;
    for (size_t i = 0; i < 100; ++i) {
      const auto flow = static_cast<uint16_t>(kFirst + i % kFlows);
      Bytes frame = inner(i % 11 == 5 ? 90 : 100, 0, flow).build();
      frame.back() = static_cast<uint8_t>(i);
      batches[i / 20 + (i >= 60 ? 1 : 0)].add(bench_.make(frame));
      frames[flow].push_back(encapsulated(3, frame));
    }
    vx->send_all(bench_.ctx(), batches);
    std::map<uint16_t, std::set<uint16_t>> ports;
    for (int i = 0; i < 100; ++i) {
      const auto datagram = peer4_->receive();
      ASSERT_TRUE(datagram) << i;
      // The inner UDP source port tells the flow.
      const auto flow = load_unaligned<be16>(datagram->payload.data() + kVxlanHeaderSize + 34).host();
      ports[flow].insert(datagram->src_port);
      got[flow].push_back(datagram->payload);
    }
    EXPECT_EQ(got, frames) << checksum;
    for (const auto& [flow, used] : ports) EXPECT_EQ(used.size(), 1u) << flow;
    EXPECT_EQ(vx->stats().tx_packets, 100u);
    for (const PacketBatch& batch : batches) EXPECT_TRUE(batch.empty());
  }
  EXPECT_EQ(bench_.sent(kInPort), 300u);
}

// Few packets of one size between others leave as a train all the same, with its checksum.
TEST_F(VxlanSendTest, TrainsAreFoundBetweenOthers) {
  const auto vx = port({{"remote_ip", kPeerV4}});
  PeerCapture capture(*underlay_);
  PacketBatch batch;
  for (const size_t size : {100, 100, 100, 100, 200, 300}) batch.add(bench_.make(inner(size)));
  vx->send(bench_.ctx(), batch);
  for (const bool is_train : {true, false, false}) {
    const auto frame = capture.receive_udp(0x0800, 4789);
    ASSERT_TRUE(frame);
    EXPECT_EQ(load_unaligned<be16>(frame->data() + 40).host() != 0, is_train);
  }
  for (const size_t size : {100, 100, 100, 100, 200, 300}) {
    const auto got = peer4_->receive();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->payload.size(), 8 + 14 + size);
  }
}

TEST_F(VxlanSendTest, DownWhileBatchesWaited) {
  const auto vx = port({{"remote_ip", kPeerV4}});
  std::array<PacketBatch, 2> batches;
  for (PacketBatch& batch : batches) batch.add(bench_.make(inner()));
  ASSERT_TRUE(vx->set_admin_up(false).ok());
  vx->send_all(bench_.ctx(), batches);
  EXPECT_EQ(bench_.dropped(kInPort, DropReason::port_down), 2u);
  EXPECT_EQ(vx->stats().tx_dropped, 2u);
}

TEST_F(VxlanSendTest, TimeToLiveAndServiceAreThoseOfEachPacket) {
  for (const bool v6 : {false, true}) {
    const auto vx = port({{"remote_ip", v6 ? kPeerV6 : kPeerV4}, {"ttl", "inherit"}, {"tos", "inherit"}});
    for (const auto& [ttl, tos] : {std::pair{64, 0}, {9, 0}, {64, 0x20}, {200, 0x48}, {64, 0}}) {
      Ipv4Options options;
      options.ttl = static_cast<uint8_t>(ttl);
      options.tos = static_cast<uint8_t>(tos);
      bench_.send(*vx, bench_.make(PacketBuilder().ethernet().ipv4("192.168.7.1", "192.168.7.2", options).udp(1, 2)));
      const auto got = (v6 ? peer6_ : peer4_)->receive();
      ASSERT_TRUE(got);
      EXPECT_EQ(got->ttl, ttl);
      EXPECT_EQ(got->tos, tos);
    }
  }
}

TEST_F(VxlanSendTest, FlowsKeepTheirSourcePortAndSpread) {
  const auto vx = port({{"remote_ip", kPeerV4}, {"egress_port_range", "40000-40100"}});
  std::set<uint16_t> ports;
  for (uint16_t flow = 0; flow < 50; ++flow) {
    bench_.send(*vx, bench_.make(inner(100, 0, static_cast<uint16_t>(2000 + flow))));
    bench_.send(*vx, bench_.make(inner(300, 0, static_cast<uint16_t>(2000 + flow))));
    const auto first = peer4_->receive(), second = peer4_->receive();
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->src_port, second->src_port);
    EXPECT_GE(first->src_port, 40000);
    EXPECT_LE(first->src_port, 40100);
    ports.insert(first->src_port);
  }
  EXPECT_GT(ports.size(), 20u);
}

TEST_F(VxlanSendTest, RangeOfOnePort) {
  const auto vx = port({{"remote_ip", kPeerV4}, {"egress_port_range", "40123-40123"}});
  for (uint16_t flow = 0; flow < 5; ++flow) bench_.send(*vx, bench_.make(inner(100, 0, flow)));
  for (int i = 0; i < 5; ++i) {
    const auto got = peer4_->receive();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->src_port, 40123);
  }
}

TEST_F(VxlanSendTest, PartialChecksumIsCompletedBeforeItIsHidden) {
  const auto vx = port({{"remote_ip", kPeerV4}});
  const Bytes frame = inner().build();
  PacketPtr packet = bench_.make(frame);
  packet->offload.checksum = ChecksumState::partial;
  packet->offload.csum_start = 34;
  packet->offload.csum_offset = 6;
  // As the kernel hands it over: only the pseudo header is summed.
  const uint32_t sum = 0xc0a8 + 0x0701 + 0xc0a8 + 0x0702 + 17 + (128 - 20);
  store_unaligned(packet->data() + 40, to_be16(static_cast<uint16_t>((sum & 0xffff) + (sum >> 16))));
  bench_.send(*vx, std::move(packet));
  const auto got = peer4_->receive();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->payload, encapsulated(0, frame));
}

TEST_F(VxlanSendTest, ManyPacketsKeepTheirOrder) {
  const auto vx = port({{"remote_ip", kPeerV4}});
  PacketBatch batch;
  for (size_t i = 0; i < PacketBatch::kMaxPackets; ++i) batch.add(bench_.make(inner(60 + i)));
  vx->send(bench_.ctx(), batch);
  for (size_t i = 0; i < PacketBatch::kMaxPackets; ++i) {
    const auto got = peer4_->receive();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->payload.size(), 8 + 14 + 60 + i);
  }
  EXPECT_EQ(vx->stats().tx_packets, PacketBatch::kMaxPackets);
}

// ---------------------------------------------------------------- on the wire

struct WireCase {
  const char* name;
  TunnelBench::Options options;
  bool v6, checksum, df;
};

class VxlanWireTest : public VxlanSendTest, public ::testing::WithParamInterface<WireCase> {};

TEST_P(VxlanWireTest, ChecksumAndDontFragment) {
  const WireCase& c = GetParam();
  PeerCapture capture(*underlay_);
  TunnelBench::Options options = c.options;
  options["remote_ip"] = c.v6 ? kPeerV6 : kPeerV4;
  const auto vx = port(options);
  bench_.send(*vx, bench_.make(inner()));
  const auto frame = capture.receive_udp(c.v6 ? 0x86dd : 0x0800, 4789);
  ASSERT_TRUE(frame);
  const size_t udp = c.v6 ? 54 : 34;
  EXPECT_EQ(load_unaligned<be16>(frame->data() + udp + 6).host() != 0, c.checksum);
  if (!c.v6) {
    EXPECT_EQ((frame->at(20) & 0x40) != 0, c.df);
  }
}

INSTANTIATE_TEST_SUITE_P(, VxlanWireTest,
                         ::testing::Values(WireCase{"v4_default", {}, false, false, true},
                                           WireCase{"v4_checksum", {{"csum", "true"}}, false, true, true},
                                           WireCase{"v4_no_df", {{"df_default", "false"}}, false, false, false},
                                           WireCase{"v6_default", {}, true, true, true},
                                           WireCase{"v6_no_checksum", {{"csum", "false"}}, true, false, true}),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_F(VxlanSendTest, LocalAddressIsWhatLeaves) {
  add_address("vxu0", "10.77.0.50/24");
  bench_.links().add_local_address("10.77.0.50");
  PeerCapture capture(*underlay_);
  const auto vx = port({{"remote_ip", kPeerV4}, {"local_ip", "10.77.0.50"}});
  bench_.send(*vx, bench_.make(inner()));
  const auto frame = capture.receive_udp(0x0800, 4789);
  ASSERT_TRUE(frame);
  EXPECT_EQ(load_unaligned<be32>(frame->data() + 26), ipv4("10.77.0.50"));
}

// ---------------------------------------------------------------- MTU

TEST_F(VxlanSendTest, LargestPacketThatFits) {
  const auto vx = port({{"remote_ip", kPeerV4}});
  bench_.send(*vx, bench_.make(inner(1500 - 50)));
  const auto got = peer4_->receive();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->payload.size(), 8u + 14 + 1450);
}

TEST_F(VxlanSendTest, OneByteMoreIsTooBig) {
  const auto vx = port({{"remote_ip", kPeerV4}});
  bench_.send(*vx, bench_.make(inner(1500 - 49)));
  expect_drop(*vx, DropReason::tunnel_too_big, 1, 0);
  EXPECT_FALSE(peer4_->receive_now());
}

TEST_F(VxlanSendTest, MtuEdgeOverIpv6) {
  const auto vx = port({{"remote_ip", kPeerV6}});
  bench_.send(*vx, bench_.make(inner(1500 - 69)));
  expect_drop(*vx, DropReason::tunnel_too_big, 1, 0);
  bench_.send(*vx, bench_.make(inner(1500 - 70)));
  EXPECT_TRUE(peer6_->receive());
}

TEST_F(VxlanSendTest, TooBigDoesNotStopTheRestOfTheBatch) {
  const auto vx = port({{"remote_ip", kPeerV4}});
  PacketBatch batch;
  for (const size_t size : {100, 2000, 200, 2000}) batch.add(bench_.make(inner(size)));
  vx->send(bench_.ctx(), batch);
  EXPECT_EQ(peer4_->receive()->payload.size(), 122u);
  EXPECT_EQ(peer4_->receive()->payload.size(), 222u);
  EXPECT_EQ(bench_.dropped(kInPort, DropReason::tunnel_too_big), 2u);
  EXPECT_EQ(bench_.sent(kInPort), 2u);
}

TEST_F(VxlanSendTest, WithoutDontFragmentTheKernelFragments) {
  const auto vx = port({{"remote_ip", kPeerV4}, {"df_default", "false"}});
  const Bytes frame = inner(3000).build();
  bench_.send(*vx, bench_.make(frame));
  const auto got = peer4_->receive();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->payload, encapsulated(0, frame));
}

// ---------------------------------------------------------------- super-frames

struct SuperFrameCase {
  const char* name;
  bool v6;
  const char* checksum;
  size_t payload;
};

class VxlanSuperFrameTest : public VxlanSendTest, public ::testing::WithParamInterface<SuperFrameCase> {
 protected:
  static constexpr size_t kSegment = 1300;
  PacketPtr super_frame(size_t payload, uint16_t segment = kSegment) {
    PacketPtr packet =
        bench_.make(PacketBuilder().ethernet().ipv4("192.168.7.1", "192.168.7.2").tcp(5, 6).payload(payload));
    packet->offload = {.checksum = ChecksumState::partial,
                       .gso = GsoType::tcp4,
                       .gso_ecn = false,
                       .gso_size = segment,
                       .csum_start = 34,
                       .csum_offset = 16};
    return packet;
  }
  std::vector<Bytes> pieces_of(const Packet& packet) {
    std::vector<Bytes> pieces;
    const Segmenter segmenter(packet);
    for (size_t i = 0; i < segmenter.count(); ++i) {
      const PacketPtr piece = segmenter.build(i, bench_.pool());
      pieces.emplace_back(piece->data(), piece->data() + piece->size());
    }
    return pieces;
  }
};

TEST_P(VxlanSuperFrameTest, EachSegmentArrivesEncapsulatedByteForByte) {
  const SuperFrameCase& c = GetParam();
  const auto vx = port({{"remote_ip", c.v6 ? kPeerV6 : kPeerV4}, {"key", "8"}, {"csum", c.checksum}});
  PacketPtr packet = super_frame(c.payload);
  const std::vector<Bytes> pieces = pieces_of(*packet);
  ASSERT_EQ(pieces.size(), (c.payload + kSegment - 1) / kSegment);
  uint64_t bytes = 0;
  bench_.send(*vx, std::move(packet));
  for (const Bytes& piece : pieces) {
    const auto got = (c.v6 ? peer6_ : peer4_)->receive();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->payload, encapsulated(8, piece));
    bytes += piece.size();
  }
  EXPECT_EQ(vx->stats().tx_packets, pieces.size());
  EXPECT_EQ(vx->stats().tx_bytes, bytes);
  EXPECT_EQ(bench_.sent(kInPort), pieces.size());
  EXPECT_EQ(bench_.balance(kInPort), 0);
}

// A super-frame that the kernel encapsulated, into a tunnel of ours.
TEST_P(VxlanSuperFrameTest, OfAnotherTunnelKeepsItsHeaders) {
  const SuperFrameCase& c = GetParam();
  const auto vx = port({{"remote_ip", c.v6 ? kPeerV6 : kPeerV4}, {"key", "8"}, {"csum", c.checksum}});
  const size_t payload = std::min<size_t>(c.payload, 60000);
  const PacketPtr inside = super_frame(payload);
  PacketBuilder builder;
  builder.ethernet();
  c.v6 ? builder.ipv6("fd00::1", "fd00::2") : builder.ipv4("192.168.8.1", "192.168.8.2");
  PacketPtr packet = bench_.make(builder.udp(50000, 4789).raw({8, 0, 0, 0, 0, 0, 9, 0}).raw(inside->bytes()));
  packet->offload = inside->offload;
  packet->offload.csum_start = c.v6 ? 104 : 84;
  const std::vector<Bytes> pieces = pieces_of(*packet);
  ASSERT_EQ(pieces.size(), (payload + kSegment - 1) / kSegment);
  bench_.send(*vx, std::move(packet));
  for (const Bytes& piece : pieces) {
    const auto got = (c.v6 ? peer6_ : peer4_)->receive();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->payload, encapsulated(8, piece));
  }
  EXPECT_EQ(bench_.sent(kInPort), pieces.size());
  EXPECT_EQ(bench_.balance(kInPort), 0);
}

INSTANTIATE_TEST_SUITE_P(, VxlanSuperFrameTest,
                         ::testing::Values(SuperFrameCase{"v4_train", false, "true", 13000},
                                           SuperFrameCase{"v4_single", false, "false", 13000},
                                           SuperFrameCase{"v6_train", true, "true", 13000},
                                           SuperFrameCase{"v6_single", true, "false", 13000},
                                           SuperFrameCase{"v4_short_last", false, "true", 13001},
                                           SuperFrameCase{"v4_largest", false, "true", 65000},
                                           SuperFrameCase{"v4_one_segment", false, "true", 1000}),
                         [](const auto& param) { return std::string(param.param.name); });

class VxlanSuperFrameDropTest : public VxlanSuperFrameTest {};

TEST_P(VxlanSuperFrameDropTest, SegmentsOverThePathMtuAreTooBig) {
  const auto vx = port({{"remote_ip", kPeerV4}, {"csum", GetParam().checksum}});
  bench_.send(*vx, super_frame(5 * 1420, 1420));
  EXPECT_EQ(bench_.dropped(kInPort, DropReason::tunnel_too_big), 5u);
  EXPECT_EQ(bench_.balance(kInPort), 0);
  EXPECT_EQ(vx->stats().tx_errors, 5u);
  EXPECT_FALSE(peer4_->receive_now());
}

TEST_P(VxlanSuperFrameDropTest, NeedsNoBuffers) {
  const auto vx = port({{"remote_ip", kPeerV4}, {"csum", GetParam().checksum}});
  PacketPtr packet = super_frame(26000);
  std::vector<PacketPtr> taken;
  while (PacketPtr other = bench_.pool().allocate()) taken.push_back(std::move(other));
  bench_.send(*vx, std::move(packet));
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(peer4_->receive()) << i;
  EXPECT_EQ(bench_.sent(kInPort), 20u);
  EXPECT_EQ(bench_.balance(kInPort), 0);
}

TEST_P(VxlanSuperFrameDropTest, HeadersThatDoNotFitTheGsoType) {
  const auto vx = port({{"remote_ip", kPeerV4}, {"csum", GetParam().checksum}});
  PacketPtr packet = super_frame(26000);
  packet->offload.gso = GsoType::tcp6;
  bench_.send(*vx, std::move(packet));
  expect_drop(*vx, DropReason::tunnel_push_error, 1, 0);
}

INSTANTIATE_TEST_SUITE_P(, VxlanSuperFrameDropTest,
                         ::testing::Values(SuperFrameCase{"train", false, "true", 0},
                                           SuperFrameCase{"single", false, "false", 0}),
                         [](const auto& param) { return std::string(param.param.name); });

// ---------------------------------------------------------------- drops (design.md section 7)

TEST_F(VxlanSendTest, NoMetadata) {
  const auto vx = port({{"remote_ip", kPeerV4}, {"key", "flow"}});
  bench_.send(*vx, bench_.make(inner()));
  expect_drop(*vx, DropReason::tunnel_no_metadata, 0, 1);
}

TEST_F(VxlanSendTest, NoDestination) {
  const auto vx = port({{"remote_ip", "flow"}});
  bench_.send(*vx, with_metadata(bench_.make(inner()), "0.0.0.0", 1));
  expect_drop(*vx, DropReason::tunnel_no_destination, 0, 1);
}

TEST_F(VxlanSendTest, KeyTooLarge) {
  const auto vx = port({{"remote_ip", kPeerV4}, {"key", "flow"}});
  bench_.send(*vx, with_metadata(bench_.make(inner()), kPeerV4, 1 << 24));
  expect_drop(*vx, DropReason::invalid_tunnel_metadata, 0, 1);
}

TEST_F(VxlanSendTest, NoRoute) {
  for (const char* remote : {"203.0.113.9", "2001:db8::9"}) {
    TunnelBench bench;
    const auto vx = bench.create_good("vx1", kPort, {{"remote_ip", remote}});
    bench.send(*vx, bench.make(inner()));
    EXPECT_EQ(bench.dropped(kInPort, DropReason::tunnel_no_route), 1u) << remote;
    EXPECT_EQ(vx->stats().tx_errors, 1u);
    EXPECT_EQ(vx->stats().tx_carrier_errors, 1u);
    EXPECT_EQ(bench.balance(kInPort), 0);
  }
}

TEST_F(VxlanSendTest, SourceAddressThatIsNotOursAnyMore) {
  bench_.links().add_local_address("10.77.0.60");  // the device never had it
  const auto vx = port({{"remote_ip", kPeerV4}, {"local_ip", "10.77.0.60"}});
  bench_.send(*vx, bench_.make(inner()));
  expect_drop(*vx, DropReason::tunnel_no_route, 1, 0, 1);
}

TEST_F(VxlanSendTest, AdministrativelyDown) {
  const auto vx = port({{"remote_ip", kPeerV4}});
  ASSERT_TRUE(vx->set_admin_up(false).ok());
  bench_.send(*vx, bench_.make(inner()));
  expect_drop(*vx, DropReason::port_down, 0, 1);
  ASSERT_TRUE(vx->set_admin_up(true).ok());
  bench_.send(*vx, bench_.make(inner()));
  EXPECT_TRUE(peer4_->receive());
}

TEST_F(VxlanSendTest, FirstPacketIsNotLostWhileTheNeighbourResolves) {
  // The underlay is new: nobody has resolved anything yet.
  const auto vx = port({{"remote_ip", kPeerV4}});
  for (int i = 0; i < 10; ++i) bench_.send(*vx, bench_.make(inner(100 + static_cast<size_t>(i))));
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(peer4_->receive()) << i;
}

TEST_F(VxlanSendTest, RepliesToTheSourcePortReachNobodyAndHarmNothing) {
  const auto vx = port({{"remote_ip", kPeerV4}, {"egress_port_range", "40123-40123"}});
  bench_.send(*vx, bench_.make(inner()));
  ASSERT_TRUE(peer4_->receive());
  for (int i = 0; i < 100; ++i) peer4_->send(40123, Bytes(1000));
  bench_.send(*vx, bench_.make(inner()));
  EXPECT_TRUE(peer4_->receive());
}

}  // namespace
}  // namespace vswitch::test
