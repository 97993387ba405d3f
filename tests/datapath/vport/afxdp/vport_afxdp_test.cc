// AF_XDP ports against real veth pairs: the port is on one end, the test on the other.

#include "datapath/vport/afxdp/vport_afxdp.h"

#include <arpa/inet.h>
#ifdef VSWITCH_HAVE_AFXDP
#include <bpf/bpf.h>
#endif
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>

#include <filesystem>
#include <optional>
#include <thread>

#include "datapath/packet/offload.h"
#include "datapath/vport/afxdp/umem_pool.h"
#include "datapath/vport/vport_registry.h"
#include "tests/support/fake_vport_host.h"
#include "tests/support/netns.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new test::PrivateNamespace);

VportConfig config(const std::string& name, std::map<std::string, std::string> options = {}) {
  VportConfig config;
  config.name = name;
  config.type = "afxdp";
  config.options = std::move(options);
  return config;
}

Status validate(std::map<std::string, std::string> options) {
  return kAfxdpVportType.validate(config("p1", std::move(options)));
}

TEST(AfxdpOptions, WrongOnesAreRefusedByName) {
  EXPECT_TRUE(validate({}).ok());
  EXPECT_TRUE(validate({{"xdp-mode", "best-effort"}, {"use-need-wakeup", "false"}, {"n_rxq", "2"}}).ok());
  EXPECT_TRUE(validate({{"xdp-mode", "native-with-zerocopy"}, {"n_rxq_desc", "1024"}}).ok());
  const auto field = [](const char* option, const char* value) { return validate({{option, value}}).field(); };
  EXPECT_EQ(field("xdp-mode", "fast"), "options:xdp-mode");
  EXPECT_EQ(field("use-need-wakeup", "maybe"), "options:use-need-wakeup");
  EXPECT_EQ(field("n_rxq", "0"), "options:n_rxq");
  EXPECT_EQ(field("n_rxq_desc", "1000"), "options:n_rxq_desc");
  EXPECT_EQ(field("n_txq_desc", "12x"), "options:n_txq_desc");
  EXPECT_EQ(field("umem-frames", "3"), "options:umem-frames");
  EXPECT_EQ(field("device", "a/b"), "options:device");
  EXPECT_NE(validate({{"xdp-mod", "native"}}).message().find("did you mean \"xdp-mode\"?"), std::string::npos);
}

#ifndef VSWITCH_HAVE_AFXDP

TEST(Afxdp, ABuildWithoutItSaysSo) {
  test::VportBench bench;
  const auto refused = bench.create(config("p1"), 1);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("built without AF_XDP"), std::string::npos);
  auto waiting = bench.create(config("p1"), 1, false);
  ASSERT_TRUE(waiting.ok());
  EXPECT_NE((*waiting)->state().error, "");
}

#else

// The far end of a veth pair.
class FarEnd {
 public:
  explicit FarEnd(const std::string& device) : fd_(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    const int one = 1;
    EXPECT_EQ(::setsockopt(fd_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one), 0);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  bool send(const Bytes& frame) {
    return ::send(fd_.get(), frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size());
  }
  std::optional<Bytes> receive() {
    Bytes frame(70000);
    const ssize_t size = ::recv(fd_.get(), frame.data(), frame.size(), 0);
    if (size < 0) return std::nullopt;
    frame.resize(static_cast<size_t>(size));
    return frame;
  }

 private:
  UniqueFd fd_;
};

const Bytes kFrame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(100).build();

Bytes to_bytes(const Packet& packet) { return {packet.data(), packet.data() + packet.size()}; }

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

class AfxdpTest : public testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    if (const UniqueFd probe(::socket(AF_XDP, SOCK_RAW, 0)); !probe) GTEST_SKIP() << "the kernel has no AF_XDP";
    auto links = make_link_monitor();
    ASSERT_TRUE(links.ok());
    bench_ = std::make_unique<test::VportBench>(std::move(*links));
    test::add_veth("p1", "far1");
    test::add_veth("p2", "far2");
  }
  void TearDown() override {
    for (const char* name : {"p1", "far1", "p2", "far2", "renamed"}) {
      if (::if_nametoindex(name) != 0) test::delete_link(name);
    }
  }
  std::unique_ptr<Vport> port(const std::string& name, uint32_t number, std::map<std::string, std::string> options = {},
                              bool must_work = true) {
    auto created = bench_->create(config(name, std::move(options)), number, must_work);
    EXPECT_TRUE(created.ok()) << created.status().message();
    return created.ok() ? std::move(*created) : nullptr;
  }
  std::string refusal(const std::string& name, std::map<std::string, std::string> options = {}) {
    const auto created = bench_->create(config(name, std::move(options)), 1);
    return created.ok() ? "" : created.status().message();
  }
  // The next frame that is `wanted`: the kernel has things of its own to say on a device (IPv6).
  bool arrives(Vport& from, Vport& to, FarEnd& far, const Bytes& wanted) {
    return bench_->until([&] {
      bench_->forward(from, to);
      while (const std::optional<Bytes> frame = far.receive()) {
        if (*frame == wanted) return true;
      }
      return false;
    });
  }
  // The next IPv4 or experimental frame that the port receives.
  PacketBatch wait_for(Vport& port) {
    PacketBatch batch;
    bench_->until([&] {
      batch = bench_->receive(port);
      for (size_t i = 0; i < batch.size(); ++i) {
        const Bytes bytes = to_bytes(batch[i]);
        if (bytes[bytes[12] == 0x81 ? 16 : 12] == 0x86) batch.release(i);
      }
      batch.compact();
      return !batch.empty();
    });
    return batch;
  }

  std::unique_ptr<test::VportBench> bench_;
};

TEST_F(AfxdpTest, FramesComeInAndGoOutWithoutACopy) {
  auto one = port("p1", 1), two = port("p2", 2);
  ASSERT_TRUE(one && two);
  FarEnd far1("far1"), far2("far2");
  ASSERT_TRUE(far1.send(kFrame));
  EXPECT_TRUE(arrives(*one, *two, far2, kFrame));
  EXPECT_GE(two->stats().tx_packets, 1u);
  const auto status = two->state().status;
  EXPECT_GE(std::stoul(status.at("tx-in-place")), 1u);
  EXPECT_EQ(status.at("tx-copied"), "0");
  EXPECT_EQ(bench_->balance(1), 0);

  ASSERT_TRUE(far1.send(kFrame));
  PacketBatch batch = wait_for(*one);
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(batch[0].pool()->memory(), PacketPool::Memory::umem);
  EXPECT_EQ(batch[0].pool(), afxdp::UmemPool::get(32768)->get());
  EXPECT_EQ(batch[0].headroom(), afxdp::UmemPool::kReceiveHeadroom);
}

TEST_F(AfxdpTest, TellsWithoutASystemCallWhetherFramesWait) {
  auto one = port("p1", 1);
  ASSERT_TRUE(one);
  FarEnd far1("far1");
  const std::shared_ptr<RxSource> source = one->sources().at(0);
  const auto waiting = [&] { return source->waiting() == RxSource::Waiting::yes; };
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(far1.send(kFrame));
    ASSERT_TRUE(bench_->until(waiting)) << i;
    ASSERT_FALSE(bench_->receive(*one).empty()) << i;
    ASSERT_TRUE(bench_->until([&] {  // the kernel has things of its own to say
      bench_->receive(*one);
      return !waiting();
    })) << i;
  }
}

TEST_F(AfxdpTest, PacketsOfOtherMemoryAreCopied) {
  auto one = port("p1", 1);
  ASSERT_TRUE(one);
  FarEnd far1("far1");
  bench_->send(
      *one, PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(100).build(bench_->ctx().pool));
  EXPECT_TRUE(bench_->until([&] { return far1.receive() == kFrame; }));
  EXPECT_EQ(one->state().status.at("tx-copied"), "1");
  EXPECT_EQ(one->stats().tx_packets, 1u);
}

TEST_F(AfxdpTest, EachModeThatVethHasWorksAndTellsItsName) {
  for (const char* mode : {"native", "generic"}) {
    SCOPED_TRACE(mode);
    for (const char* wakeup : {"true", "false"}) {
      const std::map<std::string, std::string> options = {{"xdp-mode", mode}, {"use-need-wakeup", wakeup}};
      auto one = port("p1", 1, options), two = port("p2", 2, options);
      ASSERT_TRUE(one && two);
      EXPECT_EQ(one->state().status.at("xdp-mode"), mode);
      EXPECT_EQ(one->state().status.at("use-need-wakeup"), wakeup);
      FarEnd far1("far1"), far2("far2");
      ASSERT_TRUE(far1.send(kFrame));
      EXPECT_TRUE(arrives(*one, *two, far2, kFrame));
    }
  }
  auto best = port("p1", 1);
  EXPECT_EQ(best->state().status.at("xdp-mode"), "native");
  best.reset();
  EXPECT_NE(refusal("p1", {{"xdp-mode", "native-with-zerocopy"}}).find("zero copy"), std::string::npos);
}

TEST_F(AfxdpTest, MoreFramesThanAnyRingHoldsKeepTheirOrder) {
  auto one = port("p1", 1, {{"n_rxq_desc", "128"}, {"umem-frames", "1024"}});
  auto two = port("p2", 2, {{"n_txq_desc", "64"}, {"umem-frames", "1024"}});
  ASSERT_TRUE(one && two);
  FarEnd far1("far1"), far2("far2");
  const auto frame = [](uint32_t number) {
    return PacketBuilder()
        .ethernet()
        .ipv4("10.0.0.1", "10.0.0.2")
        .udp(static_cast<uint16_t>(number), 2)
        .payload(10)
        .build();
  };
  uint16_t sent = 0;
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(far1.send(frame(sent++)));
    for (int i = 50; i > 0; --i) {
      ASSERT_TRUE(arrives(*one, *two, far2, frame(static_cast<uint16_t>(sent - i)))) << round;
    }
  }
  EXPECT_EQ(one->stats().rx_dropped, 0u);
  EXPECT_EQ(bench_->balance(1), 0);
}

TEST_F(AfxdpTest, APoolThatRanDryCostsACopyAndNoFrame) {
  auto one = port("p1", 1, {{"umem-frames", "1024"}});
  ASSERT_TRUE(one);
  FarEnd far1("far1");
  auto pool = *afxdp::UmemPool::get(1024);
  std::vector<PacketPtr> all;
  while (PacketPtr packet = pool->allocate()) all.push_back(std::move(packet));
  for (int i = 0; i < 3000; ++i) {
    ASSERT_TRUE(far1.send(kFrame));
    PacketBatch batch = wait_for(*one);
    ASSERT_EQ(batch.size(), 1u) << i;
    EXPECT_EQ(batch[0].pool(), &bench_->ctx().pool);
    EXPECT_EQ(to_bytes(batch[0]), kFrame);
  }
  EXPECT_EQ(one->stats().rx_dropped, 0u);
  all.clear();
  ASSERT_TRUE(far1.send(kFrame));
  EXPECT_EQ(wait_for(*one)[0].pool(), pool.get());
}

TEST_F(AfxdpTest, AQueueThatIsUsedGetsMoreFramesAndGivesThemUpToOthers) {
  auto one = port("p1", 1, {{"umem-frames", "2048"}, {"n_rxq_desc", "1024"}});
  ASSERT_TRUE(one);
  FarEnd far1("far1");
  auto pool = *afxdp::UmemPool::get(2048);
  EXPECT_EQ(pool->in_use(), 256u);
  const auto pass = [&](int frames) {
    for (int i = 0; i < frames; ++i) {
      ASSERT_TRUE(far1.send(kFrame));
      ASSERT_EQ(wait_for(*one).size(), 1u) << i;
    }
  };
  pass(1500);
  EXPECT_EQ(pool->in_use(), 1024u);
  pool->add_queues(3);  // as other ports do
  pass(1500);
  EXPECT_EQ(pool->in_use(), 256u);
  pool->add_queues(63);
  EXPECT_NE(refusal("p2", {{"umem-frames", "2048"}}).find("too few"), std::string::npos);
  pool->add_queues(-66);
  EXPECT_EQ(one->stats().rx_dropped, 0u);
}

TEST_F(AfxdpTest, AllFramesAreHomeWhenPortsAreGone) {
  auto pool = *afxdp::UmemPool::get(2048);
  const size_t descriptors = open_descriptors();
  for (int round = 0; round < 5; ++round) {
    auto one = port("p1", 1, {{"umem-frames", "2048"}}), two = port("p2", 2, {{"umem-frames", "2048"}});
    ASSERT_TRUE(one && two);
    FarEnd far1("far1"), far2("far2");
    for (int i = 0; i < 300; ++i) ASSERT_TRUE(far1.send(kFrame));
    EXPECT_TRUE(arrives(*one, *two, far2, kFrame));
    // The others are wherever they are when the ports go.
  }
  EXPECT_EQ(pool->in_use(), 0u);
  EXPECT_EQ(open_descriptors(), descriptors);
}

TEST_F(AfxdpTest, TagsInTheFrameStayWhatTheyAre) {
  auto one = port("p1", 1), two = port("p2", 2);
  ASSERT_TRUE(one && two);
  FarEnd far1("far1");
  // A packet socket sends the tag within the frame; the kernel moves it aside at the other end of a veth only.
  const Bytes tagged = PacketBuilder().ethernet().vlan(100, 5).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).build();
  ASSERT_TRUE(far1.send(tagged));
  PacketBatch batch = wait_for(*one);
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(to_bytes(batch[0]), tagged);
}

// Pushes a tag on everything that the device sends, as a VLAN device above it would: beside the frame, not into it.
class TagPusher {
 public:
  TagPusher(const std::string& device, uint16_t tci) {
    const auto instruction = [](uint8_t code, uint8_t dst, int32_t value) {
      bpf_insn insn{};
      insn.code = code;
      insn.dst_reg = dst & 0xf;
      insn.imm = value;
      return insn;
    };
    const bpf_insn program[] = {
        instruction(BPF_ALU64 | BPF_MOV | BPF_K, 2, htons(0x8100)),
        instruction(BPF_ALU64 | BPF_MOV | BPF_K, 3, tci),
        instruction(BPF_JMP | BPF_CALL, 0, BPF_FUNC_skb_vlan_push),
        instruction(BPF_ALU64 | BPF_MOV | BPF_K, 0, -1),  // go on
        instruction(BPF_JMP | BPF_EXIT, 0, 0),
    };
    program_.reset(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "push_tag", "GPL", program, std::size(program), nullptr));
    constexpr auto kTcxEgress = static_cast<bpf_attach_type>(47);
    const auto ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
    if (program_) link_.reset(bpf_link_create(program_.get(), ifindex, kTcxEgress, nullptr));
  }
  bool works() const { return link_.valid(); }

 private:
  UniqueFd program_, link_;
};

TEST_F(AfxdpTest, ATagThatTheSenderHoldsAsideIsPutBack) {
  auto one = port("p1", 1, {{"xdp-mode", "native"}});
  ASSERT_TRUE(one);
  if (one->state().status.contains("hint-vlan")) GTEST_SKIP() << "the kernel does not tell XDP programs of tags";
  FarEnd far1("far1");
  const TagPusher pusher("far1", 0xa064);
  if (!pusher.works()) GTEST_SKIP() << "the kernel has no BPF programs on the way out";
  ASSERT_TRUE(far1.send(kFrame));
  PacketBatch batch = wait_for(*one);
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(to_bytes(batch[0]),
            PacketBuilder().ethernet().vlan(100, 5).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(100).build());
  EXPECT_EQ(batch[0].headroom(), afxdp::UmemPool::kReceiveHeadroom);
}

TEST_F(AfxdpTest, AChecksumLeftToADeviceIsCompletedOnTheWayOut) {
  auto one = port("p1", 1), two = port("p2", 2);
  ASSERT_TRUE(one && two);
  FarEnd far1("far1"), far2("far2");
  const Bytes whole = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(77).build();
  Bytes partial = whole;
  const uint32_t sum = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 6 + static_cast<uint32_t>(whole.size() - 34);
  store_unaligned(partial.data() + 34 + 16, to_be16(static_cast<uint16_t>((sum & 0xffff) + (sum >> 16))));
  ASSERT_TRUE(far1.send(partial));
  EXPECT_TRUE(arrives(*one, *two, far2, whole));
}

TEST_F(AfxdpTest, SegmentsBecomeASuperFrameOnTheirWayToADeviceThatTakesIt) {
  VportConfig usual = config("p2");
  usual.type = "netdev";
  auto one = port("p1", 1);
  auto created = bench_->create(usual, 2);
  ASSERT_TRUE(one && created.ok());
  Vport& two = **created;
  FarEnd far1("far1"), far2("far2");
  ThreadContext& ctx = bench_->ctx();
  const auto super_frame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(4000);
  PacketPtr super = super_frame.build(ctx.pool);
  super->offload = {ChecksumState::partial, GsoType::tcp4, false, 1000, 34, 16};
  const Segmenter segmenter(*super);
  ASSERT_EQ(segmenter.count(), 4u);
  const auto send_segments = [&] {
    for (size_t i = 0; i < 4; ++i) ASSERT_TRUE(far1.send(to_bytes(*segmenter.build(i, ctx.pool))));
    PacketBatch batch;
    for (size_t had = 0; batch.size() < 4; had = batch.size()) {
      PacketBatch more = wait_for(*one);
      ASSERT_FALSE(more.empty()) << had;
      for (size_t i = 0; i < more.size(); ++i) batch.add(more.release(i));
      more.reset_released();
    }
    two.send(ctx, batch);
  };
  const uint64_t before = two.stats().tx_packets;
  send_segments();
  EXPECT_TRUE(bench_->until([&] {
    const std::optional<Bytes> frame = far2.receive();
    return frame && frame->size() == 54 + 4000 &&
           std::equal(frame->begin() + 54, frame->end(), to_bytes(*super).begin() + 54);
  }));
  EXPECT_GE(two.stats().tx_packets - before, 4u);  // each packet counts, in whatever company it went

  // What is too big for the device is told for each segment.
  ASSERT_TRUE(bench_->links().set_mtu("p2", 500).ok());
  ASSERT_TRUE(bench_->until([&] { return two.state().mtu == 500; }));
  send_segments();
  EXPECT_EQ(bench_->dropped(1, DropReason::tx_too_big), 4u);
}

TEST_F(AfxdpTest, ASuperFrameIsCutAndAnOverlongOneDroppedByName) {
  auto one = port("p1", 1);
  ASSERT_TRUE(one);
  PacketPtr super =
      PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(10000).build(bench_->ctx().pool);
  super->offload.checksum = ChecksumState::partial;
  super->offload.gso = GsoType::tcp4;
  super->offload.gso_size = 1448;
  super->offload.csum_start = 34;
  super->offload.csum_offset = 16;
  bench_->send(*one, std::move(super));
  EXPECT_EQ(one->stats().tx_packets, 7u);
  bench_->send(*one, PacketBuilder().ethernet().eth_type(0x88b5).payload(1501).build(bench_->ctx().pool));
  EXPECT_EQ(bench_->dropped(0, DropReason::tx_too_big), 1u);
  EXPECT_EQ(one->stats().tx_errors, 1u);
}

TEST_F(AfxdpTest, DevicesThatCannotBePortsAreRefusedWithTheReason) {
  EXPECT_EQ(refusal("nosuch"), "port nosuch: device nosuch does not exist");
  EXPECT_EQ(refusal("lo"), "port lo: device lo is a loopback device, which cannot be a port");
  EXPECT_EQ(refusal("p1", {{"n_rxq", "5"}}), "port p1: device p1 receives with 1 queue, and n_rxq is 5");
  test::set_link_mtu("p1", 9000);
  EXPECT_EQ(refusal("p1"), "port p1: device p1 has MTU 9000; AF_XDP carries frames of up to MTU 3818");
  test::set_link_mtu("p1", 1500);
  auto one = port("p1", 1);
  EXPECT_EQ(refusal("p1"), "port p1: device p1: queue 0: another AF_XDP socket has it");
}

TEST_F(AfxdpTest, TheMtuThatGrowsTooLargeIsAnErrorUntilItIsMended) {
  auto one = port("p1", 1, {{"xdp-mode", "generic"}});
  ASSERT_TRUE(one);
  test::set_link_mtu("p1", 5000);
  EXPECT_TRUE(bench_->until([&] { return one->state().error.find("has MTU 5000") != std::string::npos; }));
  test::set_link_mtu("p1", 1500);
  EXPECT_TRUE(bench_->until([&] { return one->state().error.empty(); }));
}

TEST_F(AfxdpTest, ADeviceThatIsDownComesUpLater) {
  test::set_link_up("p1", false);
  auto one = port("p1", 1), two = port("p2", 2);
  ASSERT_TRUE(one && two);
  EXPECT_EQ(one->state().error, "device p1 is down");
  ASSERT_TRUE(one->set_admin_up(true).ok());
  EXPECT_TRUE(bench_->until([&] { return one->state().error.empty() && one->state().carrier; }));
  FarEnd far1("far1"), far2("far2");
  ASSERT_TRUE(far1.send(kFrame));
  EXPECT_TRUE(arrives(*one, *two, far2, kFrame));
}

TEST_F(AfxdpTest, ADeviceDeletedAndMadeAgainUnderTrafficComesBackWithTheSamePort) {
  auto one = port("p1", 1), two = port("p2", 2);
  ASSERT_TRUE(one && two);
  const size_t descriptors = open_descriptors();
  for (int round = 0; round < 3; ++round) {
    {
      FarEnd far1("far1");
      for (int i = 0; i < 100; ++i) far1.send(kFrame);
    }
    test::delete_link("p1");
    EXPECT_TRUE(bench_->until([&] {
      bench_->forward(*one, *two);
      bench_->forward(*two, *one);
      return one->state().error == "device p1 does not exist";
    }));
    EXPECT_EQ(one->sources().at(0)->poll_fd(), -1);
    test::add_veth("p1", "far1");
    EXPECT_TRUE(bench_->until([&] {
      bench_->forward(*one, *two);
      return one->state().error.empty();
    })) << one->state().error;
    FarEnd far1("far1"), far2("far2");
    ASSERT_TRUE(far1.send(kFrame));
    EXPECT_TRUE(arrives(*one, *two, far2, kFrame));
  }
  {
    const rcu::Offline offline;
    rcu::barrier();
  }
  EXPECT_EQ(open_descriptors(), descriptors);
  EXPECT_EQ(bench_->balance(1), 0);
}

TEST_F(AfxdpTest, SendersSurviveAFlappingDevice) {
  auto one = port("p1", 1);
  ASSERT_TRUE(one);
  std::atomic<bool> stop{false};
  const auto send = [&](size_t index) {
    const rcu::ThreadRegistration registration;
    HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 64);
    Ledger ledger;
    ThreadContext ctx{index, pool, ledger, {}};
    while (!stop) {
      PacketBatch batch;
      for (int i = 0; i < 8; ++i) {
        PacketPtr packet = PacketBuilder().ethernet().eth_type(0x88b5).payload(100).build(pool);
        if (packet) batch.add(std::move(packet));
      }
      one->send(ctx, batch);
      rcu::quiescent();
    }
  };
  std::thread first(send, 1), second(send, 2);
  for (int i = 0; i < 20; ++i) {
    test::set_link_up("p1", i % 2 != 0);
    EXPECT_TRUE(bench_->until([&] {
      bench_->receive(*one);
      return one->state().error.empty() == (i % 2 != 0);
    })) << one->state().error;
  }
  stop = true;
  const rcu::Offline offline;
  first.join();
  second.join();
}

TEST_F(AfxdpTest, OptionsThatChangeAskForANewPort) {
  auto one = port("p1", 1);
  ASSERT_TRUE(one);
  EXPECT_TRUE(one->reconfigure(config("p1")).ok());
  EXPECT_EQ(one->reconfigure(config("p1", {{"xdp-mode", "generic"}})).code(), StatusCode::unimplemented);
  VportConfig larger = config("p1");
  larger.mtu_request = 2000;
  EXPECT_TRUE(one->reconfigure(larger).ok());
  EXPECT_EQ(one->state().mtu, 2000u);
}

#endif

}  // namespace
}  // namespace vswitch
