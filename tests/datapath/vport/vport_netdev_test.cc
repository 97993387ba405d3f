// Device ports against real veth pairs: the port is on one end, the test on the other.

#include "datapath/vport/vport_netdev.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "datapath/packet/checksum.h"
#include "datapath/packet/offload.h"
#include "datapath/vport/packet_socket.h"
#include "datapath/vport/vnet_header.h"
#include "tests/support/fake_vport_host.h"
#include "tests/support/netns.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new test::PrivateNamespace);

// The far end of a veth pair: a plain packet socket with vnet headers, written here once more so that the tests do not
// check the port's code against itself.
class FarEnd {
 public:
  struct Frame {
    VnetHeader header;
    Bytes bytes;
  };

  explicit FarEnd(const std::string& device) : fd_(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    const int one = 1, large = 16 << 20;
    EXPECT_EQ(::setsockopt(fd_.get(), SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one), 0);
    EXPECT_EQ(::setsockopt(fd_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one), 0);
    EXPECT_EQ(::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &large, sizeof large), 0);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }

  bool send(const Bytes& frame, const VnetHeader& header = {}) {
    Bytes message(sizeof header + frame.size());
    std::memcpy(message.data(), &header, sizeof header);
    std::copy(frame.begin(), frame.end(), message.begin() + sizeof header);
    return ::send(fd_.get(), message.data(), message.size(), 0) == static_cast<ssize_t>(message.size());
  }

  std::optional<Frame> receive() {
    Frame frame;
    frame.bytes.resize(70000);
    iovec parts[2] = {{&frame.header, sizeof frame.header}, {frame.bytes.data(), frame.bytes.size()}};
    uint8_t control[256];
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t size = ::recvmsg(fd_.get(), &message, 0);
    if (size < 0) return std::nullopt;
    frame.bytes.resize(static_cast<size_t>(size) - sizeof frame.header);
    return frame;
  }
  Frame wait_for_frame() {
    std::optional<Frame> frame;
    EXPECT_TRUE(test::eventually([&] { return (frame = receive()).has_value(); }));
    return frame.value_or(Frame{});
  }

 private:
  UniqueFd fd_;
};

Bytes to_bytes(const Packet& packet) { return {packet.data(), packet.data() + packet.size()}; }

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

// Whether devices made from now on announce themselves by IPv6: frames that no test asked for.
void let_devices_speak(bool speak) {
  std::ofstream("/proc/sys/net/ipv6/conf/default/disable_ipv6") << (speak ? "0" : "1");
}

class NetdevTest : public testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    let_devices_speak(false);
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
    let_devices_speak(true);
  }

  static VportConfig config(const std::string& name) {
    VportConfig config;
    config.name = name;
    config.type = "netdev";
    return config;
  }
  std::unique_ptr<Vport> port(const std::string& name, uint32_t number, bool must_work = true) {
    auto created = bench_->create(config(name), number, must_work);
    EXPECT_TRUE(created.ok()) << created.status().message();
    if (created.ok()) (*created)->start_receiving();
    return created.ok() ? std::move(*created) : nullptr;
  }
  // Passes frames from one port to the other until something arrives at `far`.
  FarEnd::Frame forward_until_frame(Vport& from, Vport& to, FarEnd& far) {
    std::optional<FarEnd::Frame> frame;
    EXPECT_TRUE(bench_->until([&] {
      bench_->forward(from, to);
      return (frame = far.receive()).has_value();
    }));
    return frame.value_or(FarEnd::Frame{});
  }

  // Declared before the ports of the tests, so it goes last.
  std::unique_ptr<test::VportBench> bench_;
};

const Bytes kFrame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(100).build();

TEST_F(NetdevTest, FramesComeInAndGoOut) {
  auto one = port("p1", 1), two = port("p2", 2);
  FarEnd far1("far1"), far2("far2");
  ASSERT_TRUE(far1.send(kFrame));
  EXPECT_EQ(forward_until_frame(*one, *two, far2).bytes, kFrame);
  EXPECT_EQ(one->stats().rx_packets, 1u);
  EXPECT_EQ(one->stats().rx_bytes, kFrame.size());
  EXPECT_EQ(two->stats().tx_packets, 1u);
  EXPECT_EQ(two->stats().tx_bytes, kFrame.size());
  EXPECT_EQ(bench_->balance(1), 0);
  // What the port itself sent does not come in again.
  EXPECT_TRUE(bench_->receive(*two).empty());
}

// What the thread asks that looks on for more packets; a wrong "no" would cost the time until it asks epoll.
TEST_F(NetdevTest, TellsWithoutASystemCallWhetherFramesWait) {
  auto one = port("p1", 1);
  FarEnd far1("far1");
  const std::shared_ptr<RxSource> source = one->sources().at(0);
  EXPECT_EQ(source->waiting(), RxSource::Waiting::no);
  for (int i = 0; i < 5000; ++i) {  // once round the ring
    ASSERT_TRUE(far1.send(kFrame));
    ASSERT_TRUE(bench_->until([&] { return source->waiting() == RxSource::Waiting::yes; })) << i;
    ASSERT_EQ(bench_->receive(*one).size(), 1u) << i;
    ASSERT_EQ(source->waiting(), RxSource::Waiting::no) << i;
  }
}

TEST_F(NetdevTest, ABurstKeepsItsOrder) {
  auto one = port("p1", 1), two = port("p2", 2);
  FarEnd far1("far1"), far2("far2");
  const auto frame = [](uint16_t number) {
    return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(number, 2).payload(10).build();
  };
  for (uint16_t i = 0; i < 200; ++i) ASSERT_TRUE(far1.send(frame(i)));
  for (uint16_t i = 0; i < 200; ++i) EXPECT_EQ(forward_until_frame(*one, *two, far2).bytes, frame(i)) << i;
}

TEST_F(NetdevTest, StateTellsWhatTheDeviceIs) {
  auto one = port("p1", 1);
  const VportState state = one->state();
  EXPECT_EQ(state.error, "");
  EXPECT_TRUE(state.admin_up);
  EXPECT_TRUE(state.carrier);
  EXPECT_EQ(state.mtu, 1500u);
  EXPECT_EQ(state.ifindex, ::if_nametoindex("p1"));
  EXPECT_EQ(state.mac, bench_->links().find("p1")->mac);
  EXPECT_EQ(state.speed_bps, 10000000000u);
  EXPECT_EQ(state.status.at("driver_name"), "veth");
}

TEST_F(NetdevTest, VlanTagsStayWhatTheyAre) {
  auto one = port("p1", 1), two = port("p2", 2);
  FarEnd far1("far1");
  for (const uint16_t tpid : {0x8100, 0x88a8}) {
    const Bytes frame = PacketBuilder().ethernet().vlan(100, 5, tpid).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).build();
    ASSERT_TRUE(far1.send(frame));
    PacketBatch batch = bench_->wait_for_frames(*one);
    ASSERT_EQ(batch.size(), 1u);
    EXPECT_EQ(to_bytes(batch[0]), frame);
  }
  const Bytes two_tags =
      PacketBuilder().ethernet().vlan(7, 0, 0x88a8).vlan(8).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).build();
  ASSERT_TRUE(far1.send(two_tags));
  PacketBatch batch = bench_->wait_for_frames(*one);
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(to_bytes(batch[0]), two_tags);
}

Bytes partial_tcp(size_t payload, bool vlan = false) {
  PacketBuilder builder;
  builder.ethernet();
  if (vlan) builder.vlan(100);
  Bytes frame = builder.ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80).payload(payload).build();
  // Only the pseudo header summed.
  const size_t l4 = vlan ? 38 : 34;
  const uint32_t sum = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 6 + static_cast<uint32_t>(frame.size() - l4);
  store_unaligned(frame.data() + l4 + 16, to_be16(static_cast<uint16_t>((sum & 0xffff) + (sum >> 16))));
  return frame;
}

TEST_F(NetdevTest, ATcpSuperFramePassesWhole) {
  auto one = port("p1", 1), two = port("p2", 2);
  FarEnd far1("far1"), far2("far2");
  const Bytes frame = partial_tcp(60000);
  ASSERT_TRUE(far1.send(frame, {VnetHeader::kNeedsChecksum, VnetHeader::kGsoTcp4, 54, 1448, 34, 16}));
  const FarEnd::Frame arrived = forward_until_frame(*one, *two, far2);
  EXPECT_EQ(arrived.bytes, frame);
  EXPECT_EQ(arrived.header.gso_type, VnetHeader::kGsoTcp4);
  EXPECT_EQ(arrived.header.gso_size, 1448);
  EXPECT_EQ(arrived.header.flags & VnetHeader::kNeedsChecksum, VnetHeader::kNeedsChecksum);
  EXPECT_EQ(two->stats().tx_packets, 1u);
}

// VXLAN over IPv4 without checksum, as the kernel hands it over: the type and csum_start are those of the inner TCP.
Bytes vxlan(const Bytes& inner, uint16_t id) {
  Bytes frame = PacketBuilder()
                    .ethernet()
                    .ipv4("192.0.2.1", "192.0.2.2", {.id = id})
                    .udp(50000, 4789)
                    .raw({8, 0, 0, 0, 0, 0, 100, 0})
                    .raw(inner)
                    .build();
  store_unaligned(frame.data() + 40, be16{});
  return frame;
}

// Only a device of the kernel's can send such a frame whole, so the test makes the packet that would come in.
PacketPtr tunnel_super_frame(PacketPool& pool, size_t payload, uint16_t segment) {
  PacketPtr packet = pool.allocate();
  const Bytes frame = vxlan(partial_tcp(payload), 5);
  packet->set_size(frame.size());
  std::copy(frame.begin(), frame.end(), packet->data());
  packet->offload = {ChecksumState::partial, GsoType::tcp4, false, segment, 84, 16};
  return packet;
}

TEST_F(NetdevTest, ASuperFrameInATunnelIsCutOnItsWayOut) {
  auto one = port("p1", 1);
  FarEnd far1("far1");
  constexpr size_t kSegment = 1398, kSegments = 40;  // more than a batch holds
  PacketPool& pool = bench_->ctx().pool;
  const auto plain = [&](uint16_t number) {
    return PacketBuilder().ethernet().ipv4("192.0.2.1", "192.0.2.2").udp(number, 2).payload(60);
  };
  PacketBatch batch;
  batch.add(plain(1).build(pool));
  batch.add(tunnel_super_frame(pool, kSegment * kSegments, kSegment));
  batch.add(plain(2).build(pool));
  one->send(bench_->ctx(), batch);
  EXPECT_EQ(far1.wait_for_frame().bytes, plain(1).build());
  for (size_t i = 0; i < kSegments; ++i) {
    const FarEnd::Frame arrived = far1.wait_for_frame();
    ASSERT_EQ(arrived.bytes.size(), 104 + kSegment) << i;
    EXPECT_EQ(arrived.header.gso_type, VnetHeader::kGsoNone);
    EXPECT_EQ(arrived.header.flags & VnetHeader::kNeedsChecksum, 0);
    const uint8_t* at = arrived.bytes.data();
    EXPECT_EQ(load_unaligned<be16>(at + 18).host(), 5 + i);
    EXPECT_EQ(load_unaligned<be16>(at + 38).host(), arrived.bytes.size() - 34);
    EXPECT_EQ(load_unaligned<be32>(at + 88).host(), 1 + i * kSegment);
  }
  EXPECT_EQ(far1.wait_for_frame().bytes, plain(2).build());
  EXPECT_EQ(one->stats().tx_packets, kSegments + 2);
  EXPECT_EQ(one->stats().tx_errors + one->stats().tx_dropped, 0u);
}

TEST_F(NetdevTest, ASuperFrameInATunnelThatCannotBeCutIsDroppedByName) {
  auto one = port("p1", 1);
  const auto send = [&](uint16_t segment, uint8_t inner_protocol) {
    PacketPtr packet = tunnel_super_frame(bench_->ctx().pool, 4000, segment);
    packet->data()[64 + 9] = inner_protocol;
    bench_->send(*one, std::move(packet));
  };
  send(1398, 17);
  EXPECT_EQ(bench_->dropped(0, DropReason::tx_error), 1u);
  send(1411, 6);  // one byte more than the MTU of 1500 has room for
  EXPECT_EQ(bench_->dropped(0, DropReason::tx_too_big), 1u);
  EXPECT_EQ(one->stats().tx_packets, 0u);
  EXPECT_EQ(one->stats().tx_errors, 2u);
  send(1410, 6);
  EXPECT_EQ(one->stats().tx_packets, 3u);
  EXPECT_EQ(one->stats().tx_errors, 2u);
}

TEST_F(NetdevTest, ATaggedSuperFramePassesWithItsTag) {
  auto one = port("p1", 1), two = port("p2", 2);
  FarEnd far1("far1");
  const Bytes frame = partial_tcp(20000, true);
  ASSERT_TRUE(far1.send(frame, {VnetHeader::kNeedsChecksum, VnetHeader::kGsoTcp4, 58, 1448, 38, 16}));
  PacketBatch batch = bench_->wait_for_frames(*one);
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(to_bytes(batch[0]), frame);
  EXPECT_EQ(batch[0].offload.gso, GsoType::tcp4);
  EXPECT_EQ(batch[0].offload.csum_start, 38);
  PacketBatch copy;
  copy.add(clone_packet(batch[0], bench_->ctx().pool));
  two->send(bench_->ctx(), copy);
  EXPECT_EQ(two->stats().tx_packets, 1u);
  EXPECT_EQ(two->stats().tx_errors, 0u);
}

TEST_F(NetdevTest, FramesOverTheMtuAreDroppedByName) {
  auto one = port("p1", 1);
  const auto frame = [&](size_t payload) {
    return PacketBuilder().ethernet().eth_type(0x88b5).payload(payload).build(bench_->ctx().pool);
  };
  bench_->send(*one, frame(1500));
  EXPECT_EQ(one->stats().tx_packets, 1u);
  bench_->send(*one, frame(1501));
  EXPECT_EQ(one->stats().tx_packets, 1u);
  EXPECT_EQ(one->stats().tx_errors, 1u);
  EXPECT_EQ(bench_->dropped(0, DropReason::tx_too_big), 1u);
  // The limit follows the device.
  test::set_link_mtu("far1", 3000);
  test::set_link_mtu("p1", 3000);
  EXPECT_TRUE(bench_->until([&] { return one->state().mtu == 3000; }));
  bench_->send(*one, frame(3000));
  EXPECT_EQ(one->stats().tx_packets, 2u);
}

TEST_F(NetdevTest, AFrameTooBigForTheBuffersIsDroppedByName) {
  auto links = make_link_monitor();
  ASSERT_TRUE(links.ok());
  test::set_link_mtu("p1", 9000);
  test::set_link_mtu("far1", 9000);
  std::thread([&] {
    test::VportBench small(std::move(*links), HeapPacketPool::kFrameBuffer, 16);
    auto created = small.create(config("p1"), 1);
    ASSERT_TRUE(created.ok());
    (*created)->start_receiving();
    FarEnd far1("far1");
    ASSERT_TRUE(far1.send(PacketBuilder().ethernet().eth_type(0x88b5).payload(5000).build()));
    EXPECT_TRUE(small.until([&] {
      small.receive(**created);
      return small.dropped(1, DropReason::rx_invalid_packet) == 1;
    }));
    EXPECT_EQ((*created)->stats().rx_length_errors, 1u);
    EXPECT_EQ((*created)->stats().rx_packets, 0u);
    EXPECT_EQ(small.balance(1), 0);
  }).join();
}

TEST_F(NetdevTest, WhatTheKernelDropsAtTheSocketIsCounted) {
  auto one = port("p1", 1);
  FarEnd far1("far1");
  const Bytes frame = PacketBuilder().ethernet().eth_type(0x88b5).payload(1500).build();
  for (int i = 0; i < 40000 && one->stats().rx_dropped == 0; ++i) far1.send(frame);
  EXPECT_GT(one->stats().rx_dropped, 0u);
}

// Frames around the size that a slot of the ring holds, and super-frames, which come by the socket's queue.
TEST_F(NetdevTest, FramesOfAllSizesKeepTheirOrder) {
  auto one = port("p1", 1), two = port("p2", 2);
  FarEnd far1("far1"), far2("far2");
  std::vector<Bytes> frames;
  for (const size_t size : {size_t{60}, PacketRing::kMaxInSlot - 1, PacketRing::kMaxInSlot, PacketRing::kMaxInSlot + 1,
                            size_t{70}, size_t{1514}, size_t{61}}) {
    frames.push_back(PacketBuilder().ethernet().eth_type(0x88b5).payload(size - 14).build());
  }
  const Bytes super_frame = partial_tcp(30000);
  for (int round = 0; round < 20; ++round) {
    for (const Bytes& frame : frames) ASSERT_TRUE(far1.send(frame));
    ASSERT_TRUE(far1.send(super_frame, {VnetHeader::kNeedsChecksum, VnetHeader::kGsoTcp4, 54, 1448, 34, 16}));
  }
  for (int round = 0; round < 20; ++round) {
    for (const Bytes& frame : frames) ASSERT_EQ(forward_until_frame(*one, *two, far2).bytes, frame) << frame.size();
    ASSERT_EQ(forward_until_frame(*one, *two, far2).bytes, super_frame);
  }
  EXPECT_EQ(one->stats().rx_packets, 20 * (frames.size() + 1));
  EXPECT_EQ(one->stats().rx_dropped, 0u);
}

TEST_F(NetdevTest, LargeTaggedFramesKeepTheirTag) {
  auto one = port("p1", 1);
  FarEnd far1("far1");
  for (const size_t payload : {size_t{50}, size_t{1400}}) {
    const Bytes frame =
        PacketBuilder().ethernet().vlan(100, 5).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(payload).build();
    ASSERT_TRUE(far1.send(frame));
    PacketBatch batch = bench_->wait_for_frames(*one);
    ASSERT_EQ(batch.size(), 1u);
    EXPECT_EQ(to_bytes(batch[0]), frame);
  }
}

TEST_F(NetdevTest, AFullRingIsCountedAndGoesOnAfterwards) {
  auto one = port("p1", 1), two = port("p2", 2);
  FarEnd far1("far1"), far2("far2");
  const Bytes small = PacketBuilder().ethernet().eth_type(0x88b5).payload(46).build();
  constexpr uint64_t kTooMany = PacketRing::kSlots + 100;
  for (uint64_t i = 0; i < kTooMany; ++i) ASSERT_TRUE(far1.send(small));
  EXPECT_EQ(one->stats().rx_dropped, 100u);
  EXPECT_TRUE(bench_->until([&] {
    bench_->receive(*one);
    return one->stats().rx_packets == PacketRing::kSlots;
  }));
  ASSERT_TRUE(far1.send(kFrame));
  EXPECT_EQ(forward_until_frame(*one, *two, far2).bytes, kFrame);
  EXPECT_EQ(one->stats().rx_dropped, 100u);
}

// Where the socket's queue is full, the ring still has slots for what does not fit them.
TEST_F(NetdevTest, LargeFramesBeyondTheQueueAreCountedAndTheOthersStayWhole) {
  auto one = port("p1", 1), two = port("p2", 2);
  FarEnd far1("far1"), far2("far2");
  const Bytes super_frame = partial_tcp(60000);
  constexpr uint64_t kFrames = 1000;  // 60 MB
  for (uint64_t i = 0; i < kFrames; ++i) {
    ASSERT_TRUE(far1.send(super_frame, {VnetHeader::kNeedsChecksum, VnetHeader::kGsoTcp4, 54, 1448, 34, 16}));
  }
  EXPECT_TRUE(bench_->until([&] {
    PacketBatch batch = bench_->receive(*one);
    for (size_t i = 0; i < batch.size(); ++i) EXPECT_EQ(batch[i].size(), super_frame.size());
    return one->stats().rx_packets + one->stats().rx_dropped == kFrames;
  }));
  EXPECT_GT(one->stats().rx_packets, 50u);
  EXPECT_GT(one->stats().rx_dropped, 0u);
  ASSERT_TRUE(far1.send(kFrame));
  EXPECT_EQ(forward_until_frame(*one, *two, far2).bytes, kFrame);
}

TEST_F(NetdevTest, WhatIsInTheRingWhenTheDeviceGoesIsNoHarm) {
  auto one = port("p1", 1), two = port("p2", 2);
  for (int round = 0; round < 3; ++round) {
    {
      FarEnd far1("far1");
      for (int i = 0; i < 100; ++i) {
        ASSERT_TRUE(far1.send(kFrame));
        ASSERT_TRUE(far1.send(PacketBuilder().ethernet().eth_type(0x88b5).payload(1000).build()));
      }
    }
    test::delete_link("p1");
    EXPECT_TRUE(bench_->until([&] {
      bench_->forward(*one, *two);
      return one->state().error == "device p1 does not exist";
    }));
    test::add_veth("p1", "far1");
    EXPECT_TRUE(bench_->until([&] { return one->state().error.empty(); }));
  }
  FarEnd far1("far1"), far2("far2");
  ASSERT_TRUE(far1.send(kFrame));
  EXPECT_EQ(forward_until_frame(*one, *two, far2).bytes, kFrame);
  EXPECT_EQ(bench_->balance(1), 0);
}

TEST_F(NetdevTest, ADeviceThatWasDownForAMomentWakesNobodyForEver) {
  auto opened = PacketSocket::open(*bench_->links().find("p1"));
  ASSERT_TRUE(opened.ok());
  PacketSocket& socket = **opened;
  ASSERT_TRUE(socket.wait_until_ready().ok());
  test::set_link_up("p1", false);
  test::set_link_up("p1", true);
  const auto events = [&] {
    pollfd wait{socket.fd(), POLLIN, 0};
    return ::poll(&wait, 1, 0) < 0 ? -1 : wait.revents;
  };
  EXPECT_NE(events() & POLLERR, 0);
  VportCounters counters;
  const auto receive = [&] {
    PacketBatch batch;
    return socket.receive(bench_->ctx(), 1, batch, counters.slot(bench_->ctx()));
  };
  EXPECT_EQ(receive(), 0u);
  EXPECT_EQ(receive(), 0u);
  EXPECT_EQ(events(), 0);
  FarEnd far1("far1");
  // The carrier comes back a little later.
  EXPECT_TRUE(test::eventually([&] {
    far1.send(kFrame);
    return events() == POLLIN;
  }));
  EXPECT_GE(receive(), 1u);
}

Bytes partial_udp(uint16_t id, uint16_t port, size_t payload) {
  Bytes frame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(port, 80).payload(payload).build();
  store_unaligned(frame.data() + 18, to_be16(id));
  store_unaligned(frame.data() + 24, be16{});
  store_unaligned(frame.data() + 24, checksum({frame.data() + 14, 20}));
  const uint32_t sum = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 17 + static_cast<uint32_t>(8 + payload);
  store_unaligned(frame.data() + 40, to_be16(static_cast<uint16_t>((sum & 0xffff) + (sum >> 16))));
  return frame;
}

// Datagrams of one flow leave as one super-frame, which the kernel cuts into what they were.
TEST_F(NetdevTest, ATrainOfDatagramsArrivesAsTheDatagramsItIs) {
  auto one = port("p1", 1), two = port("p2", 2);
  FarEnd far1("far1"), far2("far2");
  std::vector<Bytes> sent;
  for (uint16_t i = 0; i < 16; ++i) sent.push_back(partial_udp(static_cast<uint16_t>(100 + i), 1000, 40));
  const VnetHeader header{VnetHeader::kNeedsChecksum, 0, 0, 0, 34, 6};
  for (const Bytes& frame : sent) ASSERT_TRUE(far1.send(frame, header));
  ASSERT_TRUE(far1.send(partial_udp(116, 1001, 40), header));
  const FarEnd::Frame train = forward_until_frame(*one, *two, far2);
  if (train.header.gso_type == VnetHeader::kGsoNone) {
    EXPECT_EQ(train.bytes, sent[0]);
    for (uint16_t i = 1; i < 16; ++i) EXPECT_EQ(far2.wait_for_frame().bytes, sent[i]);
  } else {
    EXPECT_EQ(train.header.gso_type, VnetHeader::kGsoUdpL4);
    EXPECT_EQ(train.header.gso_size, 40);
    EXPECT_EQ(train.bytes.size(), 42u + 16 * 40);
  }
  EXPECT_EQ(forward_until_frame(*one, *two, far2).bytes, partial_udp(116, 1001, 40));
  EXPECT_EQ(two->stats().tx_packets, 17u);
  EXPECT_EQ(bench_->balance(1), 0);
}

TEST_F(NetdevTest, AMissingDeviceIsRefusedToAPersonAndWaitedForAtRestart) {
  const auto refused = bench_->create(config("nosuch"), 1);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::not_found);
  EXPECT_EQ(refused.status().message(), "port nosuch: device nosuch does not exist");
  auto waiting = port("renamed", 1, false);
  EXPECT_EQ(waiting->state().error, "device renamed does not exist");
  EXPECT_EQ(waiting->sources().at(0)->poll_fd(), -1);
  bench_->send(*waiting, PacketBuilder().ethernet().eth_type(0x88b5).payload(50).build(bench_->ctx().pool));
  EXPECT_EQ(bench_->dropped(0, DropReason::port_down), 1u);
  test::set_link_up("p2", false);
  test::rename_link("p2", "renamed");
  test::set_link_up("renamed");
  EXPECT_TRUE(bench_->until([&] { return waiting->state().error.empty(); }));
  EXPECT_GT(bench_->host().sources_changes, 0);
  EXPECT_GT(bench_->host().state_changes, 0);
}

TEST_F(NetdevTest, ADeviceThatIsDownIsAcceptedAndComesUpLater) {
  test::set_link_up("p1", false);
  auto one = port("p1", 1);
  EXPECT_EQ(one->state().error, "device p1 is down");
  EXPECT_FALSE(one->state().admin_up);
  ASSERT_TRUE(one->set_admin_up(true).ok());
  EXPECT_TRUE(bench_->until([&] { return one->state().error.empty() && one->state().carrier; }));
  FarEnd far1("far1");
  ASSERT_TRUE(far1.send(kFrame));
  EXPECT_EQ(bench_->wait_for_frames(*one).size(), 1u);
  const uint64_t resets = one->state().link_resets;
  ASSERT_TRUE(one->set_admin_up(false).ok());
  EXPECT_EQ(one->state().error, "device p1 is down");
  EXPECT_EQ(one->state().link_resets, resets + 1);
}

TEST_F(NetdevTest, ADeviceDeletedAndMadeAgainUnderTrafficComesBackWithTheSamePort) {
  auto one = port("p1", 1), two = port("p2", 2);
  const size_t descriptors = open_descriptors();
  for (int round = 0; round < 3; ++round) {
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
    }));
    FarEnd far1("far1"), far2("far2");
    ASSERT_TRUE(far1.send(kFrame));
    EXPECT_EQ(forward_until_frame(*one, *two, far2).bytes, kFrame);
    EXPECT_EQ(one->port_no(), 1u);
  }
  {
    const rcu::Offline offline;
    rcu::barrier();
  }
  EXPECT_EQ(open_descriptors(), descriptors);
  EXPECT_EQ(bench_->balance(1), 0);
}

TEST_F(NetdevTest, SendersAndReceiversSurviveAFlappingDevice) {
  auto one = port("p1", 1);
  std::atomic<bool> stop{false};
  std::thread sender([&] {
    const rcu::ThreadRegistration registration;
    HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 64);
    Ledger ledger;
    ThreadContext ctx{1, pool, ledger, {}};
    while (!stop) {
      PacketBatch batch;
      for (int i = 0; i < 8; ++i) {
        PacketPtr packet = PacketBuilder().ethernet().eth_type(0x88b5).payload(100).build(pool);
        if (packet) batch.add(std::move(packet));
      }
      one->send(ctx, batch);
      rcu::quiescent();
    }
  });
  for (int i = 0; i < 50; ++i) {
    test::set_link_up("p1", i % 2 != 0);
    EXPECT_TRUE(bench_->until([&] {
      bench_->receive(*one);
      return one->state().error.empty() == (i % 2 != 0);
    }));
  }
  stop = true;
  const rcu::Offline offline;
  sender.join();
}

TEST_F(NetdevTest, ADeviceTakenByItsNamespaceGoesAndIsBackWhenMadeAgain) {
  auto one = port("p1", 1);
  {
    test::NetworkNamespace away;
    test::move_link("p1", away);
    EXPECT_TRUE(bench_->until([&] { return one->state().error == "device p1 does not exist"; }));
  }
  EXPECT_TRUE(bench_->until([] { return ::if_nametoindex("far1") == 0; }));  // its peer went with the namespace
  test::add_veth("p1", "far1");
  EXPECT_TRUE(bench_->until([&] { return one->state().error.empty(); }));
}

TEST_F(NetdevTest, LongPortNamesNameTheirDeviceByOptionOrAlternativeName) {
  VportConfig long_name = config("a-port-whose-name-is-longer-than-linux-allows-for-devices");
  long_name.options["device"] = "p1";
  auto by_option = bench_->create(long_name, 1);
  ASSERT_TRUE(by_option.ok()) << by_option.status().message();
  EXPECT_EQ((*by_option)->state().status.at("device"), "p1");

  test::add_alternative_name("p2", "an-alternative-name-of-p2");
  auto by_name = bench_->create(config("an-alternative-name-of-p2"), 2);
  ASSERT_TRUE(by_name.ok()) << by_name.status().message();
  (*by_name)->start_receiving();
  FarEnd far2("far2");
  ASSERT_TRUE(far2.send(kFrame));
  EXPECT_EQ(bench_->wait_for_frames(**by_name).size(), 1u);
  test::set_link_up("p2", false);
  EXPECT_TRUE(bench_->until([&] { return (*by_name)->state().error == "device an-alternative-name-of-p2 is down"; }));
}

TEST_F(NetdevTest, MtuAndMacAreSetAtOnceOrNotAtAll) {
  VportConfig wanted = config("p1");
  wanted.mtu_request = 2000;
  wanted.mac = test::mac("02:11:22:33:44:55");
  auto created = bench_->create(wanted, 1);
  ASSERT_TRUE(created.ok());
  EXPECT_EQ((*created)->state().mtu, 2000u);
  EXPECT_EQ((*created)->state().mac, wanted.mac);
  VportConfig bad = wanted;
  bad.mtu_request = 1800;
  bad.mac = test::mac("01:00:5e:00:00:01");  // a group address
  EXPECT_FALSE((*created)->reconfigure(bad).ok());
  EXPECT_EQ(bench_->links().find("p1")->mtu, 2000u);
  VportConfig other = wanted;
  other.options["device"] = "p2";
  EXPECT_EQ((*created)->reconfigure(other).code(), StatusCode::unimplemented);
}

TEST_F(NetdevTest, ALoopbackDeviceIsRefused) {
  const auto created = bench_->create(config("lo"), 1);
  ASSERT_FALSE(created.ok());
  EXPECT_EQ(created.status().code(), StatusCode::failed_precondition);
  EXPECT_EQ(created.status().message(), "port lo: device lo is a loopback device, which cannot be a port");
  VportConfig by_option = config("p9");
  by_option.options["device"] = "lo";
  EXPECT_FALSE(bench_->create(by_option, 1).ok());
}

TEST_F(NetdevTest, ARenamedDeviceIsNamedInTheReason) {
  auto one = port("p1", 1);
  test::set_link_up("p1", false);
  test::rename_link("p1", "p1-was-here");
  EXPECT_TRUE(bench_->until([&] { return one->state().error == "device p1 was renamed to p1-was-here"; }));
  test::rename_link("p1-was-here", "p1");
  test::set_link_up("p1");
  EXPECT_TRUE(bench_->until([&] { return one->state().error.empty(); }));
  test::delete_link("p1");
  EXPECT_TRUE(bench_->until([&] { return one->state().error == "device p1 does not exist"; }));
}

TEST_F(NetdevTest, ADeviceThatIsNotEthernetIsRefused) {
  const UniqueFd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ifreq request{};
  std::strcpy(request.ifr_name, "tun-l3");
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  ASSERT_EQ(::ioctl(tun.get(), TUNSETIFF, &request), 0);
  test::set_link_up("tun-l3");
  const auto created = bench_->create(config("tun-l3"), 1);
  ASSERT_FALSE(created.ok());
  EXPECT_EQ(created.status().message(), "port tun-l3: device tun-l3 is not an Ethernet device");
}

}  // namespace
}  // namespace vswitch
