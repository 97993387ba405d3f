// The kernel path between real devices: a frame that goes in at one comes out of the other, or reaches the socket.

#include "datapath/kernel_path/kernel_path.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "datapath/core/userspace_datapath.h"
#include "datapath/flow/extract.h"
#include "tests/support/dropping_handler.h"
#include "tests/support/eventually.h"
#include "tests/support/guarded_packet.h"
#include "tests/support/kernel_path.h"
#include "tests/support/netns.h"
#include "tests/support/packet_builder.h"
#include "tests/support/packet_end.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::DroppingHandler;
using test::keep_quiet;
using test::PacketBuilder;
using test::PacketEnd;

Bytes tcp_frame(uint16_t port = 1, size_t payload = 100) {
  return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(port, 2).payload(payload).build();
}

Bytes bulk_frame() { return tcp_frame(1, 1000); }
Bytes answer_frame() { return PacketBuilder().ethernet().ipv4("10.0.0.2", "10.0.0.1").tcp(2, 1).payload(100).build(); }
Bytes udp_frame() { return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(100).build(); }

// far1 = p1 (switch) p2 = far2
class KernelPathTest : public ::testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    keep_quiet();
    test::add_veth("far1", "p1");
    test::add_veth("far2", "p2");
    path_.set_enabled(true);
    for (auto [end, device] : {std::pair{&far1_, "far1"}, {&far2_, "far2"}, {&p1_, "p1"}, {&p2_, "p2"}}) {
      *end = std::make_unique<PacketEnd>(device);
    }
    in_ = path_.hook(p1_->fd(), p1_->ifindex(), 1500);
    out_ = path_.hook(p2_->fd(), p2_->ifindex(), 1500);
    VSWITCH_REQUIRE_KERNEL_PATH(path_.off_because());
  }
  void TearDown() override {
    in_.reset();
    out_.reset();
    for (const char* device : {"p1", "p2"}) {
      if (::if_nametoindex(device) != 0) test::delete_link(device);
    }
  }

  static ConnectionKey key_of(const Bytes& frame) {
    test::GuardedPacket packet;
    return *connection_key_of(packet.place(frame));
  }
  KernelPath::Use add(const Bytes& frame) {
    EXPECT_TRUE(path_.prepare(in_->id()).ok());
    auto use = path_.add(key_of(frame), in_->id(), out_->id());
    EXPECT_TRUE(use.ok()) << use.status().message();
    return use.ok() ? *use : KernelPath::Use{};
  }
  // Sends the frame from far1 and says where it came out.
  std::string way_of(const Bytes& frame) {
    size_t forwarded = 0, kept = 0;
    // A processor that others keep busy loses frames between devices: then once more.
    for (int attempt = 0; attempt < 5 && forwarded + kept == 0; ++attempt) {
      far1_->send(frame);
      const auto arrived = [&] {
        forwarded += far2_->receive(1);
        kept += p1_->receive(1);
        return forwarded + kept != 0;
      };
      static_cast<void>(test::eventually(arrived, std::chrono::seconds(1)));
    }
    forwarded += far2_->receive(5);
    kept += p1_->receive(5);
    return forwarded == 1 && kept == 0 ? "far2" : forwarded == 0 && kept == 1 ? "socket" : "?";
  }

  KernelPath path_;
  std::unique_ptr<PacketEnd> far1_, far2_, p1_, p2_;
  std::unique_ptr<KernelPath::Hook> in_, out_;
};

TEST_F(KernelPathTest, ForwardsFromActivationUntilItIsStopped) {
  const Bytes frame = tcp_frame();
  EXPECT_EQ(way_of(frame), "socket");
  const KernelPath::Use use = add(frame);
  EXPECT_EQ(way_of(frame), "socket");
  path_.activate(use);
  EXPECT_EQ(way_of(frame), "far2");
  EXPECT_EQ(way_of(tcp_frame(3)), "socket");
  path_.stop(use.element);
  EXPECT_EQ(way_of(frame), "socket");
  path_.activate(use);  // too late
  EXPECT_EQ(way_of(frame), "socket");
  const KernelPath::Counts counts = path_.counts(use.element);
  EXPECT_EQ(counts, (KernelPath::Counts{.packets = 1, .bytes = frame.size(), .tcp_flags = 0x18}));
}

TEST_F(KernelPathTest, KeepsAConnectionOnce) {
  const KernelPath::Use use = add(tcp_frame());
  EXPECT_FALSE(path_.add(key_of(tcp_frame()), in_->id(), out_->id()).ok());
  path_.stop(use.element);
  path_.erase(use.element);
  path_.wait_for_running();
  path_.free(use.element);
  path_.activate(add(tcp_frame()));
  EXPECT_EQ(way_of(tcp_frame()), "far2");
}

TEST_F(KernelPathTest, EndsWithEitherHook) {
  KernelPath::Use use = add(tcp_frame());
  path_.activate(use);
  out_->close();
  EXPECT_TRUE(path_.stopped(use.element));
  EXPECT_EQ(way_of(tcp_frame()), "socket");
  EXPECT_EQ(out_->id(), 0u);
  EXPECT_FALSE(path_.add(key_of(tcp_frame(9)), in_->id(), out_->id()).ok());
  out_ = path_.hook(p2_->fd(), p2_->ifindex(), 1500);
  use = add(tcp_frame(5));
  path_.activate(use);
  EXPECT_EQ(way_of(tcp_frame(5)), "far2");
  in_->close();
  EXPECT_TRUE(path_.stopped(use.element));
  EXPECT_EQ(way_of(tcp_frame(5)), "socket");
}

TEST_F(KernelPathTest, EndsWhenSwitchedOff) {
  const KernelPath::Use use = add(tcp_frame());
  path_.activate(use);
  path_.set_enabled(false);
  EXPECT_TRUE(path_.stopped(use.element));
  EXPECT_EQ(way_of(tcp_frame()), "socket");
  EXPECT_FALSE(path_.useful());
  path_.set_enabled(true);
  path_.activate(add(tcp_frame(5)));
  EXPECT_EQ(way_of(tcp_frame(5)), "far2");
}

TEST_F(KernelPathTest, AnotherMtuStopsWhatGoesThere) {
  const KernelPath::Use use = add(tcp_frame(1, 1000));
  path_.activate(use);
  out_->set_mtu(1500);  // as it was
  EXPECT_FALSE(path_.stopped(use.element));
  in_->set_mtu(500);
  EXPECT_FALSE(path_.stopped(use.element));
  out_->set_mtu(500);
  EXPECT_TRUE(path_.stopped(use.element));
  path_.activate(add(tcp_frame(5, 100)));
  EXPECT_EQ(way_of(tcp_frame(5, 100)), "far2");
  EXPECT_EQ(way_of(tcp_frame(5, 1000)), "socket");
}

TEST_F(KernelPathTest, CountsWhatTheDeviceRefuses) {
  const KernelPath::Use use = add(tcp_frame());
  path_.activate(use);
  test::delete_link("p2");
  far1_->send(tcp_frame());
  EXPECT_EQ(path_.counts(use.element).packets, 0u);
  EXPECT_EQ(path_.counts(use.element).failed, 1u);
  EXPECT_EQ(path_.counts(use.element).lost_bytes, tcp_frame().size());
}

TEST_F(KernelPathTest, TwoPortsOfOneDeviceBothHaveEveryFrame) {
  const PacketEnd second("p1");
  const auto hook = path_.hook(second.fd(), second.ifindex(), 1500);
  path_.activate(add(tcp_frame()));
  EXPECT_FALSE(path_.prepare(hook->id()).ok());
  EXPECT_FALSE(path_.add(key_of(tcp_frame(3)), hook->id(), out_->id()).ok());
  EXPECT_EQ(hook->id(), 0u);
  EXPECT_EQ(hook->problem(), "another port has the same device");
}

// A program of somebody else's at the ingress of p1, with one answer to all.
class OtherProgram {
 public:
  OtherProgram(int answer, bool first) {
    bpf_insn program[2]{};
    program[0].code = BPF_ALU64 | BPF_MOV | BPF_K;
    program[0].imm = answer;
    program[1].code = BPF_JMP | BPF_EXIT;
    program_.reset(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "other", "GPL", program, 2, nullptr));
    bpf_attr attributes;
    std::memset(&attributes, 0, sizeof attributes);
    attributes.link_create.prog_fd = static_cast<uint32_t>(program_.get());
    attributes.link_create.target_ifindex = ::if_nametoindex("p1");
    attributes.link_create.attach_type = 46;  // TCX ingress
    attributes.link_create.flags = first ? 1u << 3 : 0;
    link_.reset(static_cast<int>(::syscall(SYS_bpf, BPF_LINK_CREATE, &attributes, sizeof attributes)));
    EXPECT_TRUE(link_.valid()) << errno;
  }

 private:
  UniqueFd program_, link_;
};

TEST_F(KernelPathTest, OtherProgramsBehindItChangeNothing) {
  path_.activate(add(tcp_frame()));
  const OtherProgram drops_all(2, false);
  EXPECT_EQ(way_of(tcp_frame()), "far2");
}

TEST_F(KernelPathTest, NoticesThatAnotherProgramTakesItsFrames) {
  const KernelPath::Use use = add(tcp_frame());
  path_.activate(use);
  const OtherProgram keeps_all(0, true);
  for (int i = 0; i < 50; ++i) far1_->send(tcp_frame());
  const KernelPath::Counts counts = path_.counts(use.element);
  EXPECT_EQ(counts.packets, 0u);
  EXPECT_GT(counts.overruled, 40u);  // of the last on each processor nothing is known yet
}

// While it lives, this thread stays on the processor that it is on.
class OneProcessor {
 public:
  OneProcessor() {
    sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(sched_getcpu()), &one);
    sched_setaffinity(0, sizeof one, &one);
  }
  ~OneProcessor() { sched_setaffinity(0, sizeof before_, &before_); }

 private:
  cpu_set_t before_;
};

// The verdict on a frame that another program took stays behind, and so does our program until the device is cleared
// up.
TEST_F(KernelPathTest, AVerdictIsForItsFrameOnly) {
  const OneProcessor stay;
  path_.activate(add(tcp_frame()));
  {
    const OtherProgram keeps_all(0, true);
    far1_->send(tcp_frame());
    EXPECT_EQ(far2_->receive(20) + p1_->receive(20), 0u);
  }
  in_->close();
  EXPECT_EQ(way_of(tcp_frame(9)), "socket");
}

// ---------------------------------------------------------------- with flows

class KernelConnectionsTest : public ::testing::Test {
 protected:
  static constexpr size_t kEnoughToBeNoticed = 600;

  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    keep_quiet();
    test::add_veth("far1", "p1");
    test::add_veth("far2", "p2");
    auto created = UserspaceDatapath::create({}, clock_);
    ASSERT_TRUE(created.ok());
    datapath_ = std::move(*created);
    datapath_->set_upcall_handler(&handler_);
    datapath_->set_kernel_path(true);
    for (const char* device : {"p1", "p2"}) {
      VportConfig config;
      config.name = device;
      config.type = "netdev";
      auto added = datapath_->add_port(config, 0, true);
      ASSERT_TRUE(added.ok()) << added.status().message();
      ports_.push_back(*added);
    }
    VSWITCH_REQUIRE_KERNEL_PATH(stats().off_because);
    far1_ = std::make_unique<PacketEnd>("far1");
    far2_ = std::make_unique<PacketEnd>("far2");
  }
  void TearDown() override {
    datapath_.reset();
    for (const char* device : {"p1", "p2"}) {
      if (::if_nametoindex(device) != 0) test::delete_link(device);
    }
  }

  KernelPathStats stats() { return datapath_->stats().kernel_path; }
  Ufid put_flow(
      const std::function<void(FlowMask&)>& look_at = [](FlowMask&) {}, size_t from = 0) {
    NewFlow flow;
    flow.key.in_port = ports_[from];
    flow.mask.in_port = ~0u;
    look_at(flow.mask);
    test::GuardedPacket packet;
    Packet& placed = packet.place(bulk_frame());
    placed.in_port = ports_[from];
    EXPECT_TRUE(extract_flow_key(placed, flow.key));
    flow.actions = Flow::make_actions({OutputAction{ports_[1 - from]}});
    auto put = datapath_->put_flow(std::move(flow));
    EXPECT_TRUE(put.ok());
    return *put;
  }
  void send(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      far1_->send(bulk_frame());
      if (i % 50 == 49) far2_->receive(1);
    }
    sent_ += count;
  }
  bool enter_kernel() {
    send(kEnoughToBeNoticed);
    return test::eventually([this] { return stats().connections == 1; });
  }
  // Sends what is worth it, of another connection, until the kernel forwards it. What was offered before is there by
  // then, too.
  bool another_enters_kernel() {
    const Bytes other = tcp_frame(9, 1000);
    return test::eventually([&] {
      for (int i = 0; i < 50; ++i) far1_->send(other);
      far2_->receive(1);
      return stats().hits != 0;
    });
  }
  FlowStats flow_stats(const Ufid& ufid) {
    FlowStats found;
    datapath_->visit_flows([&](Flow& flow) {
      if (flow.ufid() == ufid) found = flow.stats();
      return true;
    });
    return found;
  }

  MonotonicClock clock_;
  DroppingHandler handler_;
  std::unique_ptr<UserspaceDatapath> datapath_;
  std::vector<uint32_t> ports_;
  std::unique_ptr<PacketEnd> far1_, far2_;
  uint64_t sent_ = 0;
};

TEST_F(KernelConnectionsTest, CountsAsIfTheDaemonHadForwardedIt) {
  const Ufid ufid = put_flow();
  ASSERT_TRUE(enter_kernel());
  ASSERT_TRUE(test::eventually([this] { return send(10), stats().hits > 100; }));
  ASSERT_TRUE(test::eventually([&] { return flow_stats(ufid).packets == sent_; }));
  EXPECT_EQ(flow_stats(ufid).bytes, sent_ * bulk_frame().size());
  EXPECT_EQ(datapath_->port_stats(ports_[0])->rx_packets, sent_);
  EXPECT_EQ(datapath_->port_stats(ports_[1])->tx_packets, sent_);
  EXPECT_EQ(datapath_->books(ports_[0]).received, sent_);
  EXPECT_EQ(datapath_->books(ports_[0]).sent, sent_);
}

TEST_F(KernelConnectionsTest, ARemovedFlowTakesItsConnectionsAndKeepsTheirCounts) {
  const Ufid ufid = put_flow();
  ASSERT_TRUE(enter_kernel());
  ASSERT_TRUE(test::eventually([this] { return send(10), stats().hits > 100; }));
  const std::vector<Ufid> ufids = {ufid};
  const auto removed = datapath_->remove_flows(ufids);
  ASSERT_EQ(removed.size(), 1u);
  EXPECT_EQ(removed[0]->stats().packets, sent_);
  EXPECT_EQ(stats().connections, 0u);
  far2_->receive(20);
  far1_->send(bulk_frame());
  EXPECT_EQ(far2_->receive(), 0u);
}

TEST_F(KernelConnectionsTest, AFlowIsUsedWhenItsPacketCameNotWhenItIsCounted) {
  const Ufid ufid = put_flow();
  ASSERT_TRUE(enter_kernel());
  ASSERT_TRUE(test::eventually([this] { return send(10), stats().hits > 100; }));
  far2_->receive(20);
  const Nanoseconds before = clock_.now();
  far1_->send(bulk_frame());
  ASSERT_EQ(far2_->receive(), 1u);
  const Nanoseconds after = clock_.now();
  EXPECT_LE(flow_stats(ufid).used, after);
  EXPECT_GE(flow_stats(ufid).used, before - std::chrono::milliseconds(20));  // the kernel's coarse clock
}

TEST_F(KernelConnectionsTest, OtherActionsHoldAtOnce) {
  const Ufid ufid = put_flow();
  ASSERT_TRUE(enter_kernel());
  ASSERT_TRUE(test::eventually([this] { return send(10), stats().hits > 100; }));
  far2_->receive(20);
  EXPECT_TRUE(datapath_->set_flow_actions(ufid, {DropAction{DropReason::of_pipeline}}));
  far1_->send(bulk_frame());
  EXPECT_EQ(far2_->receive(), 0u);
  EXPECT_TRUE(test::eventually([this] { return stats().connections == 0; }));
}

TEST_F(KernelConnectionsTest, FlowsThatLookAtMoreStayWithTheDaemon) {
  const Ufid ufid = put_flow([](FlowMask& mask) { mask.tcp_flags = to_be16(0x002); });
  send(2 * kEnoughToBeNoticed);
  ASSERT_TRUE(test::eventually([&] { return flow_stats(ufid).packets == sent_; }));
  EXPECT_EQ(stats().connections, 0u);
}

// Requests and responses: there and back, packet by packet.
TEST_F(KernelConnectionsTest, SmallPacketsOfABusyConnectionAreForwardedBothWays) {
  put_flow();
  put_flow([](FlowMask&) {}, 1);
  const auto exchange = [this] {
    for (int i = 0; i < 50; ++i) {
      far1_->send(tcp_frame());
      far2_->send(answer_frame());
    }
    return stats().connections == 2;
  };
  ASSERT_TRUE(test::eventually(exchange));
  EXPECT_TRUE(test::eventually([&] { return exchange(), stats().hits > 100; }));
}

TEST_F(KernelConnectionsTest, AConnectionOfFewPacketsStaysWithTheDaemon) {
  put_flow();
  constexpr size_t kFew = 40;
  for (size_t i = 0; i < kFew; ++i) far1_->send(tcp_frame());
  ASSERT_TRUE(test::eventually([this] { return datapath_->books(ports_[0]).sent > kFew / 2; }));
  ASSERT_TRUE(another_enters_kernel());
  EXPECT_EQ(stats().connections, 1u);
}

TEST_F(KernelConnectionsTest, SmallDatagramsStayWithTheDaemon) {
  put_flow();
  for (size_t i = 0; i < 4 * kEnoughToBeNoticed; ++i) far1_->send(udp_frame());
  ASSERT_TRUE(test::eventually([this] { return datapath_->books(ports_[0]).sent > 3 * kEnoughToBeNoticed; }));
  ASSERT_TRUE(another_enters_kernel());
  EXPECT_EQ(stats().connections, 1u);
}

TEST_F(KernelConnectionsTest, APortThatGoesTakesItsConnections) {
  const Ufid ufid = put_flow();
  ASSERT_TRUE(enter_kernel());
  ASSERT_TRUE(test::eventually([this] { return send(10), stats().hits > 100; }));
  ASSERT_TRUE(datapath_->remove_port(ports_[1], true).ok());
  EXPECT_EQ(stats().connections, 0u);
  far2_->receive(20);
  far1_->send(bulk_frame());
  EXPECT_EQ(far2_->receive(), 0u);
  ++sent_;
  EXPECT_TRUE(test::eventually([&] { return flow_stats(ufid).packets == sent_; }))
      << flow_stats(ufid).packets << " of " << sent_;
}

}  // namespace
}  // namespace vswitch
