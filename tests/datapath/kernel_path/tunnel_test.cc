// The kernel path into VXLAN, between real devices: a frame that goes in at a port's device comes out at the tunnel's
// other end as the tunnel port itself would have sent it, or reaches the socket.
//
//   far1 = p1 (switch) vxu0 10.77.0.1 = vxu1 10.77.0.2

#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>

#include <atomic>
#include <set>

#include "datapath/core/userspace_datapath.h"
#include "datapath/flow/extract.h"
#include "datapath/kernel_path/kernel_path.h"
#include "datapath/tunnel/vxlan_header.h"
#include "datapath/vport/tap_device.h"
#include "datapath/vport/vport_registry.h"
#include "datapath/vport/vxlan_encapsulator.h"
#include "tests/support/dropping_handler.h"
#include "tests/support/eventually.h"
#include "tests/support/guarded_packet.h"
#include "tests/support/kernel_path.h"
#include "tests/support/nftables.h"
#include "tests/support/packet_end.h"  // before <linux/netfilter.h>, which leaves to it what both define
#include "tests/support/tunnel_underlay.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::DroppingHandler;
using test::kOurV4;
using test::kPeerV4;
using test::kPeerV6;
using test::PacketBuilder;
using test::PacketEnd;
using ::testing::HasSubstr;

// Of <linux/netfilter.h>, which does not go together with <netinet/in.h>.
constexpr uint8_t kInet = 1;       // NFPROTO_INET
constexpr uint32_t kLocalOut = 3;  // NF_INET_LOCAL_OUT
constexpr uint16_t kVxlan = 4789;
constexpr size_t kOuter = 14 + 20 + 8 + 8;  // what stands before the inner frame

Bytes tcp_frame(size_t payload = 100, uint16_t port = 1) {
  return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(port, 2).payload(payload).build();
}

ConnectionKey key_of(const Bytes& frame) {
  test::GuardedPacket packet;
  return *connection_key_of(packet.place(frame));
}

using Options = std::map<std::string, std::string>;

// The underlay, the device that frames come in by, and vxlan ports with a kernel path, but no switch.
class KernelTunnelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    test::keep_quiet(false);
    underlay_.emplace();
    capture_.emplace(*underlay_);
    test::keep_quiet();
    test::add_veth("far1", "p1");
    for (const char* device : {"vxu0", "far1", "p1"}) test::wait_for_link(device);
    links_ = std::move(make_link_monitor().value());
    tunnels_ = make_tunnel_endpoints();
    environment_.reset(new VportEnvironment{host_, *links_, *tunnels_, clock_, &path_});
    path_.set_enabled(true);
    far1_ = std::make_unique<PacketEnd>("far1");
    p1_ = std::make_unique<PacketEnd>("p1");
    in_ = path_.hook(p1_->fd(), p1_->ifindex(), 1500);
    VSWITCH_REQUIRE_KERNEL_PATH(path_.off_because());
  }
  void TearDown() override {
    in_.reset();
    far1_.reset();
    p1_.reset();
    if (::if_nametoindex("p1") != 0) test::delete_link("p1");
  }

  std::unique_ptr<Vport> port(Options options) {
    VportConfig config;
    config.name = "vx";
    config.type = "vxlan";
    config.options = std::move(options);
    auto made = find_vport_type("vxlan")->create(config, 3, *environment_, true);
    EXPECT_TRUE(made.ok()) << made.status().message();
    return std::move(*made);
  }
  std::unique_ptr<Vport> plain_port() { return port({{"remote_ip", kPeerV4}, {"key", "42"}}); }

  // What arrives at the peer when the port sends the frame, and when the kernel path does.
  Bytes sent_by_port(Vport& port, const Bytes& frame, const TunnelMetadata* metadata) {
    const rcu::ReaderScope reader;
    PacketBatch batch;
    PacketPtr packet = pool_.allocate();
    packet->set_size(frame.size());
    std::memcpy(packet->data(), frame.data(), frame.size());
    packet->has_tunnel = metadata != nullptr;
    if (metadata != nullptr) packet->tunnel = *metadata;
    batch.add(std::move(packet));
    port.send(ctx_, batch);
    return capture_->receive_udp(ETH_P_IP, dst_port_).value_or(Bytes{});
  }
  Bytes sent_by_kernel(const Bytes& frame) {
    far1_->send(frame);
    return capture_->receive_udp(ETH_P_IP, dst_port_).value_or(Bytes{});
  }
  KernelPath::Use add(Vport& port, const Bytes& frame, const TunnelMetadata* metadata = nullptr) {
    const auto encapsulator = port.encapsulator();
    auto encapsulation = encapsulator->encapsulate(key_of(frame), metadata);
    EXPECT_TRUE(encapsulation.ok()) << encapsulation.status().message();
    EXPECT_TRUE(path_.prepare(in_->id()).ok());
    if (!encapsulation.ok()) return {};
    auto use = path_.add(key_of(frame), in_->id(), encapsulator->hook(), &*encapsulation);
    EXPECT_TRUE(use.ok()) << use.status().message();
    return use.ok() ? *use : KernelPath::Use{};
  }
  KernelPath::Use start(Vport& port, const Bytes& frame, const TunnelMetadata* metadata = nullptr) {
    const KernelPath::Use use = add(port, frame, metadata);
    path_.activate(use);
    return use;
  }
  void end(const KernelPath::Use& use) {
    path_.stop(use.element);
    path_.erase(use.element);
    path_.wait_for_running();
    path_.free(use.element);
  }
  void expect_the_same(Options options, const Bytes& frame, const TunnelMetadata* metadata = nullptr) {
    const auto vx = port(std::move(options));
    const Bytes expected = sent_by_port(*vx, frame, metadata);
    ASSERT_EQ(expected.size(), kOuter + frame.size());
    const KernelPath::Use use = start(*vx, frame, metadata);
    EXPECT_EQ(sent_by_kernel(frame), expected);
    EXPECT_EQ(p1_->receive(1), 0u);
    EXPECT_EQ(path_.counts(use.element).packets, 1u);
    EXPECT_EQ(path_.counts(use.element).bytes, frame.size());
    end(use);
  }
  std::string refusal(Options options, const Bytes& frame, const TunnelMetadata* metadata = nullptr) {
    const auto vx = port(std::move(options));
    const auto result = vx->encapsulator()->encapsulate(key_of(frame), metadata);
    EXPECT_FALSE(result.ok());
    return result.status().message();
  }
  bool reaches_the_socket(const Bytes& frame) {
    far1_->send(frame);
    return test::eventually([this] { return p1_->receive(1) == 1; });
  }

  std::optional<test::TunnelUnderlay> underlay_;
  std::optional<test::PeerCapture> capture_;
  uint16_t dst_port_ = kVxlan;
  MonotonicClock clock_;
  test::FakeVportHost host_;
  std::unique_ptr<LinkMonitor> links_;
  std::unique_ptr<TunnelEndpoints> tunnels_;
  KernelPath path_;
  std::unique_ptr<VportEnvironment> environment_;
  HeapPacketPool pool_{HeapPacketPool::kSuperFrameBuffer, 64};
  Ledger ledger_;
  ThreadContext ctx_{0, pool_, ledger_, {}};
  std::unique_ptr<PacketEnd> far1_, p1_;
  std::unique_ptr<KernelPath::Hook> in_;
};

TEST_F(KernelTunnelTest, SendsWhatThePortWouldSend) {
  expect_the_same({{"remote_ip", kPeerV4}, {"key", "42"}}, tcp_frame());
}

TEST_F(KernelTunnelTest, SendsWithTheConfiguredAddressesPortsAndTos) {
  dst_port_ = 8472;
  expect_the_same({{"remote_ip", kPeerV4},
                   {"local_ip", kOurV4},
                   {"key", "0xabcdef"},
                   {"dst_port", "8472"},
                   {"tos", "0x48"},
                   {"ttl", "7"},
                   {"egress_pkt_mark", "9"},
                   {"egress_port_range", "20000-20100"}},
                  tcp_frame());
}

TEST_F(KernelTunnelTest, SendsIpv6Inside) {
  test::Ipv6Options options;
  options.traffic_class = 0xba;
  const Bytes frame = PacketBuilder().ethernet().ipv6("fd00::1", "fd00::2", options).tcp(1, 2).payload(700).build();
  expect_the_same({{"remote_ip", kPeerV4}, {"tos", "inherit"}}, frame);
}

TEST_F(KernelTunnelTest, InheritsCongestionMarksAsThePortDoes) {
  for (uint8_t tos = 0x28; tos < 0x2c; ++tos) {
    test::Ipv4Options options;
    options.tos = tos;
    const Bytes frame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2", options).tcp(1, 2).payload(9).build();
    expect_the_same({{"remote_ip", kPeerV4}}, frame);
    expect_the_same({{"remote_ip", kPeerV4}, {"tos", "inherit"}}, frame);
  }
}

// The longest frame that `find` takes if it is no super-frame is one that `forward` can encapsulate.
TEST_F(KernelTunnelTest, EncapsulatesTheLongestFramesThatItTakes) {
  for (const char* device : {"far1", "p1"}) test::set_link_mtu(device, 60000);
  underlay_->set_mtu(60000);
  in_->set_mtu(60000);
  const auto vx = plain_port();
  constexpr size_t kHeaders = 14 + 20 + 20;
  const KernelPath::Use use = start(*vx, tcp_frame());
  far1_->send(tcp_frame(KERNEL_ENCAPSULATED_SINGLE_MAX - kHeaders));
  EXPECT_TRUE(test::eventually([&] { return path_.counts(use.element).packets == 1; }));
  EXPECT_EQ(path_.counts(use.element).failed, 0u);
  EXPECT_TRUE(reaches_the_socket(tcp_frame(KERNEL_ENCAPSULATED_SINGLE_MAX - kHeaders + 1)));
  const KernelPath::Use tagged =
      start(*vx, PacketBuilder().ethernet().vlan(10).ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(1).build());
  far1_->send(PacketBuilder()
                  .ethernet()
                  .vlan(10)
                  .ipv4("10.0.0.1", "10.0.0.2")
                  .tcp(1, 2)
                  .payload(KERNEL_ENCAPSULATED_SINGLE_MAX - kHeaders)
                  .build());
  EXPECT_TRUE(test::eventually([&] { return path_.counts(tagged.element).packets == 1; }));
  EXPECT_EQ(path_.counts(tagged.element).failed, 0u);
}

constexpr auto kTcxEgress = static_cast<bpf_attach_type>(47);

// Remembers the priority of the last packet that left by a device.
class PriorityProbe {
 public:
  explicit PriorityProbe(const char* device)
      : map_(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "priority", 4, 4, 1, nullptr)) {
    const bpf_insn code[] = {
        {BPF_LDX | BPF_MEM | BPF_W, BPF_REG_6, BPF_REG_1, offsetof(__sk_buff, priority), 0},
        {BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0},
        {BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map_.get()},
        {},
        {BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0},
        {BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4},
        {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem},
        {BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 1, 0},
        {BPF_STX | BPF_MEM | BPF_W, BPF_REG_0, BPF_REG_6, 0, 0},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, -1},  // the next program decides
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    program_.reset(::bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "probe", "GPL", code, std::size(code), nullptr));
    EXPECT_TRUE(program_) << errno;
    link_.reset(::bpf_link_create(program_.get(), static_cast<int>(::if_nametoindex(device)), kTcxEgress, nullptr));
    EXPECT_TRUE(link_) << errno;
  }
  uint32_t last() const {
    const uint32_t zero = 0;
    uint32_t priority = ~0u;
    EXPECT_EQ(::bpf_map_lookup_elem(map_.get(), &zero, &priority), 0);
    return priority;
  }

 private:
  UniqueFd map_, program_, link_;
};

TEST_F(KernelTunnelTest, PacketsHaveThePriorityThatTheSocketsWouldHave) {
  const PriorityProbe probe("vxu0");
  std::set<uint32_t> seen;
  for (unsigned tos = 0; tos < 256; tos += 4) {
    const auto vx = port({{"remote_ip", kPeerV4}, {"tos", std::to_string(tos)}});
    ASSERT_FALSE(sent_by_port(*vx, tcp_frame(), nullptr).empty());
    const uint32_t expected = probe.last();
    seen.insert(expected);
    const KernelPath::Use use = start(*vx, tcp_frame());
    ASSERT_FALSE(sent_by_kernel(tcp_frame()).empty());
    EXPECT_EQ(path_.counts(use.element).packets, 1u);
    EXPECT_EQ(probe.last(), expected) << "TOS " << tos;
    end(use);
  }
  EXPECT_EQ(seen.size(), 4u);
}

TEST_F(KernelTunnelTest, PutsATagThatIsHeldAsideBack) {
  const Bytes frame =
      PacketBuilder().ethernet().vlan(10, 5).ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(100).build();
  expect_the_same({{"remote_ip", kPeerV4}, {"key", "1"}}, frame);
  const Bytes other =
      PacketBuilder().ethernet().vlan(10, 0, 0x88a8).ipv6("fd00::1", "fd00::2").tcp(1, 2).payload(1).build();
  expect_the_same({{"remote_ip", kPeerV4}, {"key", "1"}}, other);
}

TEST_F(KernelTunnelTest, LeavesTagsWithTheDropEligibleBit) {
  const auto vx = plain_port();
  const Bytes frame = PacketBuilder().ethernet().vlan(10).ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).build();
  start(*vx, frame);
  Bytes eligible = frame;
  eligible[14] |= 0x10;
  ASSERT_EQ(key_of(eligible), key_of(frame));
  EXPECT_FALSE(sent_by_kernel(frame).empty());
  far1_->send(eligible);
  EXPECT_TRUE(test::eventually([this] {
    std::array<uint8_t, 2048> buffer;
    return ::recv(p1_->fd(), buffer.data(), buffer.size(), MSG_DONTWAIT) > 0;
  }));
}

TEST_F(KernelTunnelTest, SendsWhatTheFlowSets) {
  TunnelMetadata metadata;
  metadata.id = to_be64(0x123456);
  metadata.dst = test::ipv4(kPeerV4);
  metadata.src = test::ipv4(kOurV4);
  metadata.tos = 0x20;
  metadata.ttl = 3;
  metadata.tp_dst = to_be16(4790);
  metadata.gbp_id = to_be16(77);
  metadata.gbp_flags = kGbpPolicyApplied;
  dst_port_ = 4790;
  expect_the_same({{"remote_ip", "flow"},
                   {"local_ip", "flow"},
                   {"key", "flow"},
                   {"exts", "gbp"},
                   {"ttl", "inherit"},
                   {"dst_port", "4790"}},
                  tcp_frame(), &metadata);
}

TEST_F(KernelTunnelTest, LeavesToThePortWhatItCannotDo) {
  const Options plain = {{"remote_ip", kPeerV4}};
  const auto with = [&plain](const char* option, const char* value) {
    Options options = plain;
    options[option] = value;
    return options;
  };
  EXPECT_THAT(refusal(with("csum", "true"), tcp_frame()), HasSubstr("checksum"));
  EXPECT_THAT(refusal(with("df_default", "false"), tcp_frame()), HasSubstr("fragmented"));
  EXPECT_THAT(refusal(with("ttl", "inherit"), tcp_frame()), HasSubstr("TTL"));
  EXPECT_THAT(refusal({{"remote_ip", kPeerV6}}, tcp_frame()), HasSubstr("IPv6"));
  EXPECT_THAT(refusal(with("remote_ip", "203.0.113.7"), tcp_frame()), HasSubstr("no route"));
  EXPECT_THAT(refusal(with("remote_ip", "10.77.0.255"), tcp_frame()), HasSubstr("unusual"));
  EXPECT_THAT(refusal(with("key", "flow"), tcp_frame()), HasSubstr("dropped"));
  const Bytes udp = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).build();
  EXPECT_THAT(refusal(plain, udp), HasSubstr("TCP"));
  Bytes multicast = tcp_frame();
  multicast[0] |= 1;
  EXPECT_THAT(refusal(plain, multicast), HasSubstr("TCP"));
}

TEST_F(KernelTunnelTest, StopsAtAFirewall) {
  const auto vx = plain_port();
  const auto encapsulate = [&] { return vx->encapsulator()->encapsulate(key_of(tcp_frame()), nullptr); };
  const auto encapsulation = encapsulate();
  ASSERT_TRUE(encapsulation.ok()) << encapsulation.status().message();
  EXPECT_EQ(vx->state().status.count("no_kernel_path"), 0u);
  if (!test::add_nft_chain(kInet, "vswitch_test", "out", kLocalOut)) GTEST_SKIP() << "no nftables here";
  const auto way = [&] { return vx->encapsulator()->way_of(encapsulation->flow, clock_.now()); };
  EXPECT_TRUE(test::eventually([&] { return !way().ok(); }));
  EXPECT_THAT(way().status().message(), HasSubstr("vswitch_test out"));
  EXPECT_FALSE(encapsulate().ok());
  EXPECT_THAT(vx->state().status.at("no_kernel_path"), HasSubstr("vswitch_test out"));
  test::remove_nft_table(kInet, "vswitch_test");
  EXPECT_TRUE(test::eventually([&] { return way().ok(); }));
}

TEST_F(KernelTunnelTest, ATapDeviceIsLeftToThePort) {
  const auto vx = plain_port();
  const auto encapsulation = vx->encapsulator()->encapsulate(key_of(tcp_frame()), nullptr);
  ASSERT_TRUE(encapsulation.ok());
  const auto tap = TapDevice::open("phy", 1);
  ASSERT_TRUE(tap.ok()) << tap.status().message();
  test::set_link_up("phy");
  test::add_address("phy", "10.78.0.1/24");
  test::add_route(std::string(kPeerV4) + "/32", "phy", "10.78.0.2");
  const auto refused = vx->encapsulator()->encapsulate(key_of(tcp_frame()), nullptr);
  EXPECT_THAT(refused.status().message(), HasSubstr("TAP"));
  EXPECT_FALSE(vx->encapsulator()->way_of(encapsulation->flow, clock_.now()).ok());
  EXPECT_THAT(vx->state().status.at("no_kernel_path"), HasSubstr("internal port"));
  test::delete_link("phy");
}

TEST_F(KernelTunnelTest, ItsWayFollowsTheRoute) {
  const auto vx = plain_port();
  const auto encapsulator = vx->encapsulator();
  const auto encapsulation = encapsulator->encapsulate(key_of(tcp_frame()), nullptr);
  ASSERT_TRUE(encapsulation.ok());
  const OuterWay way = encapsulation->way;
  EXPECT_EQ(way.ifindex, ::if_nametoindex("vxu0"));
  EXPECT_EQ(way.next_hop, *IpAddress::parse(kPeerV4));
  EXPECT_EQ(way.source, test::ipv4(kOurV4));
  EXPECT_EQ(way.max_packet, 1500u);
  EXPECT_EQ(*encapsulator->way_of(encapsulation->flow, clock_.now()), way);
  underlay_->set_mtu(1400);
  EXPECT_EQ(encapsulator->way_of(encapsulation->flow, clock_.now())->max_packet, 1400u);
  test::add_route(std::string(kPeerV4) + "/32", "vxu0", "10.77.0.9");
  EXPECT_EQ(encapsulator->way_of(encapsulation->flow, clock_.now())->next_hop, *IpAddress::parse("10.77.0.9"));
  test::set_link_up("vxu0", false);
  EXPECT_FALSE(encapsulator->way_of(encapsulation->flow, clock_.now()).ok());
}

TEST_F(KernelTunnelTest, FramesThatDoNotFitThePathReachTheSocket) {
  const auto vx = plain_port();
  constexpr size_t kInner = 1500 - (kOuter - 14), kHeaders = 14 + 20 + 20;
  start(*vx, tcp_frame());
  EXPECT_EQ(sent_by_kernel(tcp_frame(kInner - kHeaders)).size(), 1514u);
  EXPECT_TRUE(reaches_the_socket(tcp_frame(kInner - kHeaders + 1)));
  const auto tagged = [](size_t payload) {
    return PacketBuilder().ethernet().vlan(10).ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(payload).build();
  };
  start(*vx, tagged(1));
  EXPECT_EQ(sent_by_kernel(tagged(kInner - kHeaders - 4)).size(), 1514u);
  far1_->send(tagged(kInner - kHeaders - 3));
  EXPECT_TRUE(test::eventually([this] {
    std::array<uint8_t, 2048> buffer;
    return ::recv(p1_->fd(), buffer.data(), buffer.size(), MSG_DONTWAIT) > 0;
  }));
}

TEST_F(KernelTunnelTest, APortThatChangesStopsItsConnections) {
  auto vx = plain_port();
  const auto before = vx->encapsulator();
  KernelPath::Use use = start(*vx, tcp_frame());
  EXPECT_FALSE(sent_by_kernel(tcp_frame()).empty());
  VportConfig config;
  config.name = "vx";
  config.type = "vxlan";
  config.options = {{"remote_ip", kPeerV4}, {"key", "43"}};
  ASSERT_TRUE(vx->reconfigure(config).ok());
  EXPECT_TRUE(path_.stopped(use.element));
  EXPECT_TRUE(reaches_the_socket(tcp_frame()));
  // Nothing begins with what was true before.
  const auto old = before->encapsulate(key_of(tcp_frame(1, 9)), nullptr);
  ASSERT_TRUE(old.ok());
  EXPECT_FALSE(path_.add(key_of(tcp_frame(1, 9)), in_->id(), before->hook(), &*old).ok());
  end(use);
  use = start(*vx, tcp_frame());
  EXPECT_EQ(sent_by_kernel(tcp_frame())[kOuter - 2], 43);
  ASSERT_TRUE(vx->set_admin_up(false).ok());
  EXPECT_TRUE(path_.stopped(use.element));
  EXPECT_EQ(vx->encapsulator(), nullptr);
  EXPECT_EQ(vx->kernel_path_way_out(), 0u);
  end(use);
  ASSERT_TRUE(vx->set_admin_up(true).ok());
  use = start(*vx, tcp_frame());
  vx.reset();
  EXPECT_TRUE(path_.stopped(use.element));
}

TEST_F(KernelTunnelTest, ATunnelIsAWayOutForWhatIsEncapsulatedOnly) {
  const auto vx = plain_port();
  const auto encapsulator = vx->encapsulator();
  const auto encapsulation = encapsulator->encapsulate(key_of(tcp_frame()), nullptr);
  ASSERT_TRUE(encapsulation.ok());
  ASSERT_TRUE(path_.prepare(in_->id()).ok());
  EXPECT_FALSE(path_.prepare(encapsulator->hook()).ok());
  EXPECT_FALSE(path_.add(key_of(tcp_frame()), in_->id(), encapsulator->hook()).ok());
  EXPECT_FALSE(path_.add(key_of(tcp_frame()), in_->id(), in_->id(), &*encapsulation).ok());
  EXPECT_TRUE(path_.add(key_of(tcp_frame()), in_->id(), encapsulator->hook(), &*encapsulation).ok());
}

TEST_F(KernelTunnelTest, NothingIsLostWhileTheKernelLooksForTheNeighbour) {
  const auto vx = plain_port();
  start(*vx, tcp_frame());
  EXPECT_EQ(sent_by_kernel(tcp_frame()).size(), kOuter + tcp_frame().size());  // the first packet of all
}

// ---------------------------------------------------------------- with flows

// As long as this is there, what leaves by the device cannot be encapsulated: the kernel believes that it is already,
// since headers were put in front of it, and taken away again.
class MarkedAsEncapsulated {
 public:
  explicit MarkedAsEncapsulated(const char* device) {
    constexpr int kHeaders = 20 + 8;
    const bpf_insn code[] = {
        {BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_6, BPF_REG_1, 0, 0},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, kHeaders},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, BPF_ADJ_ROOM_MAC},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_4, 0, 0, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP},
        {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_skb_adjust_room},
        {BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_1, BPF_REG_6, 0, 0},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, -kHeaders},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, BPF_ADJ_ROOM_MAC},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_4, 0, 0, 0},
        {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_skb_adjust_room},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, -1},  // the next program decides
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    program_.reset(::bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "mark", "GPL", code, std::size(code), nullptr));
    EXPECT_TRUE(program_) << errno;
    link_.reset(::bpf_link_create(program_.get(), static_cast<int>(::if_nametoindex(device)), kTcxEgress, nullptr));
    EXPECT_TRUE(link_) << errno;
  }

 private:
  UniqueFd program_, link_;
};

// The real time, and what a test adds to it.
class ShiftedClock final : public Clock {
 public:
  Nanoseconds now() const override { return real_.now() + Nanoseconds(shift_.load()); }
  void advance(Nanoseconds by) { shift_ += by.count(); }

 private:
  MonotonicClock real_;
  std::atomic<int64_t> shift_{0};
};

class KernelTunnelConnectionsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    test::keep_quiet(false);
    underlay_.emplace();
    peer_.emplace(*underlay_, false, kVxlan);
    test::keep_quiet();
    test::add_veth("far1", "p1");
    for (const char* device : {"vxu0", "far1", "p1"}) test::wait_for_link(device);
    far1_ = std::make_unique<PacketEnd>("far1");
    datapath_ = std::move(*UserspaceDatapath::create({}, clock_));
    datapath_->set_upcall_handler(&handler_);
    datapath_->set_kernel_path(true);
    device_ = add_port({"p1", "netdev", {}});
    tunnel_ = add_port({"vx", "vxlan", {{"remote_ip", kPeerV4}, {"key", "flow"}}});
    VSWITCH_REQUIRE_KERNEL_PATH(datapath_->stats().kernel_path.off_because);
    put_flow();
    // Until the peer's address is known, packets wait.
    ASSERT_TRUE(test::eventually([this] { return send(1), arrived() > 0; }));
  }
  void TearDown() override {
    datapath_.reset();
    if (::if_nametoindex("p1") != 0) test::delete_link("p1");
  }

  uint32_t add_port(const VportConfig& config) {
    auto added = datapath_->add_port(config, 0, true);
    EXPECT_TRUE(added.ok()) << added.status().message();
    return added.ok() ? *added : 0;
  }
  ActionList to_tunnel(uint64_t vni) const {
    auto metadata = std::make_shared<TunnelMetadata>();
    metadata->id = to_be64(vni);
    return {SetTunnelAction{std::move(metadata)}, OutputAction{tunnel_}};
  }
  void put_flow() {
    NewFlow flow;
    flow.key.in_port = device_;
    flow.mask.in_port = ~0u;
    flow.actions = Flow::make_actions(to_tunnel(5));
    auto put = datapath_->put_flow(std::move(flow));
    ASSERT_TRUE(put.ok());
    ufid_ = *put;
  }
  void send(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      far1_->send(bulk_);
      if (i % 50 == 49) static_cast<void>(arrived());
    }
    sent_ += count;
  }
  // How many outer packets have come to the peer since the last call. last_vni_: that of the last one.
  size_t arrived() {
    size_t count = 0;
    for (; const auto datagram = peer_->receive_now(); ++count) {
      if (datagram->payload.size() >= 8) last_vni_ = datagram->payload[6];
    }
    return count;
  }
  void send_impossible() {
    const MarkedAsEncapsulated marked("far1");
    send(1);
  }
  KernelPathStats stats() { return datapath_->stats().kernel_path; }
  bool enter_kernel() {
    send(600);
    return test::eventually([this] { return stats().connections == 1; }) &&
           test::eventually([this] { return send(10), stats().hits > 100; });
  }
  uint64_t counted() {
    uint64_t packets = 0;
    datapath_->visit_flows([&](Flow& flow) {
      packets = flow.stats().packets;
      return true;
    });
    return packets;
  }

  const Bytes bulk_ = tcp_frame(1000);
  ShiftedClock clock_;
  DroppingHandler handler_;
  std::optional<test::TunnelUnderlay> underlay_;
  std::optional<test::PeerSocket> peer_;
  std::unique_ptr<PacketEnd> far1_;
  std::unique_ptr<UserspaceDatapath> datapath_;
  uint32_t device_ = 0, tunnel_ = 0;
  Ufid ufid_;
  uint64_t sent_ = 0;
  int last_vni_ = -1;
};

TEST_F(KernelTunnelConnectionsTest, CountsAsIfTheDaemonHadSentIt) {
  ASSERT_TRUE(enter_kernel());
  // What the thread still has in hand is counted for its flow first, and for the port that it leaves by last.
  ASSERT_TRUE(test::eventually([this] { return datapath_->port_stats(tunnel_)->tx_packets == sent_; }));
  EXPECT_EQ(counted(), sent_);
  EXPECT_EQ(datapath_->port_stats(device_)->rx_packets, sent_);
  EXPECT_EQ(datapath_->port_stats(tunnel_)->tx_bytes, sent_ * bulk_.size());
  EXPECT_EQ(datapath_->books(device_).received, sent_);
  EXPECT_EQ(datapath_->books(device_).sent, sent_);
  EXPECT_TRUE(test::eventually([this] { return static_cast<void>(arrived()), last_vni_ == 5; }));
}

// They leave faster as trains of the daemon's.
TEST_F(KernelTunnelConnectionsTest, SmallPacketsStayWithTheDaemon) {
  constexpr size_t kMany = 1200;
  const Bytes small = tcp_frame(100, 9);
  for (size_t i = 0; i < kMany; ++i) far1_->send(small);
  ASSERT_TRUE(test::eventually([this] { return datapath_->books(device_).sent > kMany / 2; }));
  // What was offered before this one is there by then, too.
  ASSERT_TRUE(test::eventually([this] { return send(50), stats().hits != 0; }));
  EXPECT_EQ(stats().connections, 1u);
}

TEST_F(KernelTunnelConnectionsTest, OtherActionsHoldAtOnce) {
  ASSERT_TRUE(enter_kernel());
  // What the thread still has in hand arrives later.
  ASSERT_TRUE(test::eventually([this] { return datapath_->port_stats(tunnel_)->tx_packets == sent_; }));
  static_cast<void>(arrived());
  ASSERT_TRUE(datapath_->set_flow_actions(ufid_, to_tunnel(6)));
  far1_->send(bulk_);
  EXPECT_TRUE(test::eventually([this] { return arrived() == 1; }));
  EXPECT_EQ(last_vni_, 6);
  ASSERT_TRUE(datapath_->set_flow_actions(ufid_, {DropAction{DropReason::of_pipeline}}));
  far1_->send(bulk_);
  EXPECT_TRUE(test::eventually([this] { return datapath_->books(device_).dropped_total() == 1; }));
  EXPECT_EQ(arrived(), 0u);
}

TEST_F(KernelTunnelConnectionsTest, AnotherWayForTheOuterPacketsStopsThem) {
  ASSERT_TRUE(enter_kernel());
  // What the thread still has in hand would be too big as well.
  ASSERT_TRUE(test::eventually([this] { return datapath_->port_stats(tunnel_)->tx_packets == sent_; }));
  test::set_link_mtu("vxu0", 1000);
  EXPECT_TRUE(test::eventually([this] { return stats().connections == 0; }));
  send(10);
  const auto too_big = static_cast<size_t>(DropReason::tunnel_too_big);
  EXPECT_TRUE(test::eventually([&] { return datapath_->books(device_).dropped[too_big] == 10; }))
      << datapath_->books(device_).dropped[too_big] << " of " << datapath_->books(device_).dropped_total();
  test::set_link_mtu("vxu0", 1500);
  EXPECT_TRUE(test::eventually([this] { return send(50), stats().connections == 1; }));
}

TEST_F(KernelTunnelConnectionsTest, WhatCannotBeEncapsulatedIsTheDaemonsForAWhile) {
  ASSERT_TRUE(enter_kernel());
  send_impossible();
  const auto refused = static_cast<size_t>(DropReason::tunnel_push_error);
  EXPECT_TRUE(test::eventually([&] { return datapath_->books(device_).dropped[refused] == 1; }));
  EXPECT_TRUE(test::eventually([this] { return stats().connections == 0; }));
  const uint64_t hits = stats().hits;
  for (int i = 0; i < 10; ++i) {
    send(100);
    EXPECT_TRUE(test::eventually([this] { return counted() == sent_; }));
  }
  EXPECT_EQ(stats().hits, hits);
  EXPECT_EQ(stats().connections, 0u);
  EXPECT_EQ(datapath_->books(device_).dropped_total(), 1u);
  clock_.advance(5s);
  EXPECT_TRUE(test::eventually([this] { return send(50), stats().connections == 1; }));
}

// However many changes the host sees, their ways are not looked at each time, but once more in the end.
TEST_F(KernelTunnelConnectionsTest, TheLastOfManyChangesIsSeen) {
  ASSERT_TRUE(enter_kernel());
  for (int i = 0; i < 200; ++i)
    test::add_neighbour("vxu0", "10.77.0.9", i % 2 == 0 ? "02:00:00:00:00:01" : "02:00:00:00:00:02");
  EXPECT_EQ(stats().connections, 1u);
  test::add_route(std::string(kPeerV4) + "/32", "vxu0", "10.77.0.9");
  EXPECT_TRUE(test::eventually([this] { return stats().connections == 0; }));
}

TEST_F(KernelTunnelConnectionsTest, APortThatGoesTakesItsConnections) {
  ASSERT_TRUE(enter_kernel());
  ASSERT_TRUE(datapath_->remove_port(tunnel_, true).ok());
  EXPECT_EQ(stats().connections, 0u);
  static_cast<void>(arrived());
  ++sent_;
  far1_->send(bulk_);
  EXPECT_TRUE(test::eventually([this] { return counted() == sent_; }));
  EXPECT_EQ(arrived(), 0u);
}

}  // namespace
}  // namespace vswitch
