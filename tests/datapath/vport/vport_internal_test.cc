// Internal ports with real TAP devices: what the host sends on the device comes into the switch.

#include "datapath/vport/vport_internal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <map>
#include <thread>
#include <vector>

#include "datapath/vport/vport_registry.h"
#include "tests/support/fake_vport_host.h"
#include "tests/support/netns.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new test::PrivateNamespace);

class InternalTest : public testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    auto links = make_link_monitor();
    ASSERT_TRUE(links.ok());
    bench_ = std::make_unique<test::VportBench>(std::move(*links));
  }
  void TearDown() override {
    for (const char* name : {"in0", "in1", "renamed"}) {
      if (::if_nametoindex(name) != 0) test::delete_link(name);
    }
  }

  static VportConfig config(const std::string& name = "in0") {
    VportConfig config;
    config.name = name;
    config.type = "internal";
    return config;
  }
  std::unique_ptr<Vport> port(const VportConfig& wanted = config()) {
    auto created = bench_->create(wanted, 1);
    EXPECT_TRUE(created.ok()) << created.status().message();
    return created.ok() ? std::move(*created) : nullptr;
  }
  LinkInfo link(const std::string& name = "in0") { return bench_->links().find(name).value_or(LinkInfo{}); }
  void forget(const std::string& name = "in0") {
    find_vport_type("internal")->forget(config(name), bench_->environment());
  }

  std::unique_ptr<test::VportBench> bench_;
};

// A UDP socket of the host; its datagrams to `to` leave by the internal device.
void host_sends(const std::string& to, size_t size, int segment = 0) {
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(7);
  address.sin_addr.s_addr = test::ipv4(to).raw();
  constexpr int kUdpSegment = 103;  // UDP_SEGMENT of <linux/udp.h>, which does not go with <netinet/in.h>
  if (segment != 0) {
    ASSERT_EQ(::setsockopt(fd.get(), IPPROTO_UDP, kUdpSegment, &segment, sizeof segment), 0);
  }
  const Bytes payload(size, 0x55);
  ASSERT_EQ(::sendto(fd.get(), payload.data(), size, 0, reinterpret_cast<const sockaddr*>(&address), sizeof address),
            static_cast<ssize_t>(size));
}

// The next packet from the port that is UDP over IPv4; the host also sends what it likes (router solicitations).
PacketPtr next_udp(test::VportBench& bench, Vport& port) {
  PacketPtr found;
  EXPECT_TRUE(bench.until([&] {
    PacketBatch batch = bench.receive(port);
    for (size_t i = 0; i < batch.size(); ++i) {
      const bool udp = batch[i].size() > 34 && batch[i].data()[12] == 8 && batch[i].data()[23] == IPPROTO_UDP;
      if (udp && !found) found = batch.release(i);
    }
    batch.compact();
    return found != nullptr;
  }));
  return found;
}

void reachable(const std::string& address, const std::string& device) {
  test::set_link_up(device);
  test::add_address(device, address);
}

TEST_F(InternalTest, TheDeviceIsMadeDownWithTheNameOfThePort) {
  auto one = port();
  EXPECT_EQ(one->state().error, "");
  EXPECT_FALSE(one->state().admin_up);
  EXPECT_EQ(link().kind, "tun");
  EXPECT_EQ(one->state().ifindex, link().ifindex);
  EXPECT_EQ(one->state().status.at("driver_name"), "tun");
  ASSERT_TRUE(one->set_admin_up(true).ok());
  EXPECT_TRUE(one->state().admin_up);
  EXPECT_TRUE(one->state().carrier);
}

TEST_F(InternalTest, WhatTheHostSendsComesInWithItsChecksumLeftPartial) {
  auto one = port();
  reachable("10.9.0.1/24", "in0");
  test::add_neighbour("in0", "10.9.0.2", "02:00:00:00:00:aa");
  host_sends("10.9.0.2", 100);
  const PacketPtr packet = next_udp(*bench_, *one);
  ASSERT_NE(packet, nullptr);
  EXPECT_EQ(packet->in_port, 1u);
  EXPECT_EQ(packet->size(), 14u + 20 + 8 + 100);
  EXPECT_EQ(packet->offload.checksum, ChecksumState::partial);
  EXPECT_EQ(packet->offload.csum_start, 34);
  EXPECT_GE(one->stats().rx_packets, 1u);
}

TEST_F(InternalTest, WhatTheSwitchSendsReachesTheHost) {
  auto one = port();
  reachable("10.9.0.1/24", "in0");
  const UniqueFd receiver(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(7);
  ASSERT_EQ(::bind(receiver.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  PacketPtr packet = PacketBuilder()
                         .ethernet(test::mac("02:00:00:00:00:aa"), link().mac)
                         .ipv4("10.9.0.2", "10.9.0.1")
                         .udp(1000, 7)
                         .payload("hello")
                         .build(bench_->ctx().pool);
  // The checksum left to the device, as another port would hand it over.
  const uint32_t sum = 0x0a09 + 0x0002 + 0x0a09 + 0x0001 + 17 + 13;
  store_unaligned(packet->data() + 40, to_be16(static_cast<uint16_t>(sum)));
  packet->offload = {ChecksumState::partial, GsoType::none, false, 0, 34, 6};
  bench_->send(*one, std::move(packet));
  char text[16];
  EXPECT_TRUE(test::eventually([&] { return ::recv(receiver.get(), text, sizeof text, 0) == 5; }));
  EXPECT_EQ(one->stats().tx_packets, 1u);
}

TEST_F(InternalTest, SendingToADeviceThatIsDownIsDroppedByName) {
  auto one = port();
  bench_->send(*one, PacketBuilder().ethernet().ipv4("10.9.0.2", "10.9.0.1").udp(1, 2).build(bench_->ctx().pool));
  EXPECT_EQ(bench_->dropped(0, DropReason::port_down), 1u);
  EXPECT_EQ(one->stats().tx_dropped, 1u);
}

TEST_F(InternalTest, AddressMacAndMtuSurviveARestart) {
  VportConfig wanted = config();
  wanted.mtu_request = 1400;
  wanted.mac = test::mac("02:00:00:00:00:99");
  auto one = port(wanted);
  reachable("10.9.0.1/24", "in0");
  const uint32_t ifindex = link().ifindex;
  one.reset();
  ASSERT_EQ(link().ifindex, ifindex);  // the device stays without the port
  one = port();                        // and without being told again
  EXPECT_EQ(link().ifindex, ifindex);
  EXPECT_EQ(one->state().mtu, 1400u);
  EXPECT_EQ(one->state().mac, wanted.mac);
  EXPECT_TRUE(bench_->links().is_local_address(*IpAddress::parse("10.9.0.1")));
}

TEST_F(InternalTest, ForgetDeletesTheDeviceOnceThePortIsGone) {
  auto one = port();
  one.reset();
  ASSERT_NE(::if_nametoindex("in0"), 0u);
  forget();
  EXPECT_EQ(::if_nametoindex("in0"), 0u);
  forget("nosuch");
}

TEST_F(InternalTest, ADeviceOfAnotherKindIsLeftAlone) {
  test::add_veth("in0", "in1");
  const auto refused = bench_->create(config(), 1);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::already_exists);
  EXPECT_EQ(
      refused.status().message(),
      "port in0: device in0 exists and is of kind veth; an internal port needs that name for a device of its own");
  forget();
  EXPECT_NE(::if_nametoindex("in0"), 0u);
}

TEST_F(InternalTest, ADeviceHeldByAnotherDescriptorIsNamedAsBusy) {
  auto one = port();
  const auto refused = bench_->create(config(), 2);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("another process has it open"), std::string::npos)
      << refused.status().message();
}

TEST_F(InternalTest, ADeletedDeviceIsMadeAgainWithItsMac) {
  auto one = port();
  test::set_link_up("in0");
  const MacAddress mac = link().mac;
  const uint32_t ifindex = link().ifindex;
  test::delete_link("in0");
  EXPECT_TRUE(bench_->until([&] { return link().ifindex != 0 && one->state().ifindex == link().ifindex; }));
  EXPECT_NE(link().ifindex, ifindex);
  EXPECT_EQ(link().mac, mac);
  EXPECT_EQ(one->state().error, "");
}

TEST_F(InternalTest, ARenamedDeviceIsAnErrorUntilItHasItsNameBack) {
  auto one = port();
  test::rename_link("in0", "renamed");
  EXPECT_TRUE(bench_->until([&] { return one->state().error == "device in0 was renamed to renamed"; }))
      << one->state().error;
  EXPECT_EQ(one->sources().at(0)->poll_fd(), -1);
  test::rename_link("renamed", "in0");
  EXPECT_TRUE(bench_->until([&] { return one->state().error.empty(); })) << one->state().error;
  EXPECT_NE(one->sources().at(0)->poll_fd(), -1);
}

TEST_F(InternalTest, ADeviceMovedToANamespaceGoesOnWorkingAndEndsWithIt) {
  auto one = port();
  {
    test::NetworkNamespace away;
    test::move_link("in0", away);
    EXPECT_TRUE(bench_->until([&] { return one->state().status.contains("location"); }));
    EXPECT_EQ(one->state().error, "");
    away.run([] { test::set_link_up("in0"); });
    away.run([&] {
      const UniqueFd raw(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
      sockaddr_ll address{};
      address.sll_family = AF_PACKET;
      address.sll_ifindex = static_cast<int>(::if_nametoindex("in0"));
      const Bytes frame = PacketBuilder().ethernet().ipv4("10.9.0.1", "10.9.0.2").udp(1, 2).payload("x").build();
      EXPECT_EQ(::sendto(raw.get(), frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&address),
                         sizeof address),
                static_cast<ssize_t>(frame.size()));
    });
    EXPECT_NE(next_udp(*bench_, *one), nullptr);
  }
  // The namespace took the device with it. The thread that receives finds out; a new device appears here.
  EXPECT_TRUE(bench_->until([&] {
    bench_->receive(*one);
    return ::if_nametoindex("in0") != 0 && !one->state().status.contains("location");
  }));
  EXPECT_EQ(one->state().error, "");
}

TEST_F(InternalTest, AHostSuperFrameComesInWhole) {
  auto one = port();
  reachable("10.9.0.1/24", "in0");
  test::add_neighbour("in0", "10.9.0.2", "02:00:00:00:00:aa");
  host_sends("10.9.0.2", 9000, 1000);
  const PacketPtr packet = next_udp(*bench_, *one);
  ASSERT_NE(packet, nullptr);
  if (packet->offload.gso == GsoType::none) GTEST_SKIP() << "this kernel does not hand UDP super-frames to TAPs";
  EXPECT_EQ(packet->offload.gso, GsoType::udp_l4);
  EXPECT_EQ(packet->offload.gso_size, 1000);
  EXPECT_EQ(packet->offload.checksum, ChecksumState::partial);
  EXPECT_EQ(packet->size(), 14u + 20 + 8 + 9000);
}

// What the host sends by `flows` sockets, each `count` numbered datagrams.
void host_sends_flows(const std::string& to, size_t flows, uint32_t count) {
  std::vector<UniqueFd> sockets;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(7);
  address.sin_addr.s_addr = test::ipv4(to).raw();
  for (size_t i = 0; i < flows; ++i) {
    sockets.emplace_back(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(sockets[i].get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  for (uint32_t number = 0; number < count; ++number) {
    for (const UniqueFd& fd : sockets) ASSERT_EQ(::send(fd.get(), &number, sizeof number, 0), 4);
  }
}

// The numbers of host_sends_flows() that a source gives, by source port.
class Flows {
 public:
  void receive_all(RxSource& source, ThreadContext& ctx) {
    PacketBatch batch;
    while (source.receive(ctx, batch) != 0) {
      for (size_t i = 0; i < batch.size(); ++i) add(batch[i]);
      batch.clear();
    }
  }
  std::map<uint16_t, std::vector<uint32_t>> numbers;

 private:
  void add(const Packet& packet) {
    if (packet.size() != 46 || packet.data()[12] != 8 || packet.data()[23] != IPPROTO_UDP) return;
    numbers[load_unaligned<be16>(packet.data() + 34).host()].push_back(load_unaligned<uint32_t>(packet.data() + 42));
  }
};

TEST_F(InternalTest, EachForwardingThreadHasAQueueAndFlowsKeepTheirOrder) {
  bench_->host().threads = 2;
  auto one = port();
  const auto sources = one->sources();
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_NE(sources[0]->poll_fd(), sources[1]->poll_fd());
  reachable("10.9.0.1/24", "in0");
  test::add_neighbour("in0", "10.9.0.2", "02:00:00:00:00:aa");
  constexpr uint32_t kCount = 20, kFlows = 16;
  std::array<Flows, 2> received;
  std::atomic<bool> sent{false};
  std::array<std::thread, 2> threads;
  for (size_t i = 0; i < 2; ++i) {
    threads[i] = std::thread([&, i] {
      const rcu::ThreadRegistration registration;
      HeapPacketPool pool(HeapPacketPool::kSuperFrameBuffer, 64);
      Ledger ledger;
      ThreadContext ctx{i + 1, pool, ledger, {}};
      for (bool last = false; !last;) {
        last = sent;
        received[i].receive_all(*sources[i], ctx);
        rcu::quiescent();
      }
    });
  }
  host_sends_flows("10.9.0.2", kFlows, kCount);
  sent = true;
  {
    const rcu::Offline offline;
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_FALSE(received[0].numbers.empty());
  EXPECT_FALSE(received[1].numbers.empty());
  EXPECT_EQ(received[0].numbers.size() + received[1].numbers.size(), kFlows);
  for (const Flows& flows : received) {
    for (const auto& [port, numbers] : flows.numbers) {
      ASSERT_EQ(numbers.size(), kCount);
      for (uint32_t i = 0; i < kCount; ++i) EXPECT_EQ(numbers[i], i) << port;
    }
  }
}

// The host's half of a connection comes by the queue of the thread that sends the other half.
TEST_F(InternalTest, AFlowFollowsTheThreadThatSendsItsOtherDirection) {
  bench_->host().threads = 2;
  auto one = port();
  const auto sources = one->sources();
  ASSERT_EQ(sources.size(), 2u);
  reachable("10.9.0.1/24", "in0");
  test::add_neighbour("in0", "10.9.0.2", "02:00:00:00:00:aa");
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(1000);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  address.sin_addr.s_addr = test::ipv4("10.9.0.2").raw();
  address.sin_port = htons(7);
  const MacAddress mac = link().mac;
  for (const size_t thread : {size_t{0}, size_t{1}, size_t{0}}) {
    std::thread([&] {
      const rcu::ThreadRegistration registration;
      HeapPacketPool pool(HeapPacketPool::kSuperFrameBuffer, 64);
      Ledger ledger;
      ThreadContext ctx{thread + 1, pool, ledger, {}};
      Flows before, after;
      before.receive_all(*sources[thread], ctx);
      PacketBatch batch;
      batch.add(PacketBuilder()
                    .ethernet(test::mac("02:00:00:00:00:aa"), mac)
                    .ipv4("10.9.0.2", "10.9.0.1")
                    .udp(7, 1000)
                    .payload("x")
                    .build(pool));
      one->send(ctx, batch);
      const uint32_t number = 7;
      ASSERT_EQ(::sendto(socket.get(), &number, sizeof number, 0, reinterpret_cast<const sockaddr*>(&address),
                         sizeof address),
                4);
      EXPECT_TRUE(test::eventually([&] {
        after.receive_all(*sources[thread], ctx);
        return !after.numbers.empty();
      })) << thread;
    }).join();
  }
}

TEST_F(InternalTest, QueuesFollowTheNumberOfThreads) {
  bench_->host().threads = 2;
  auto one = port();
  const uint32_t ifindex = link().ifindex;
  const auto open_queues = [&] {
    size_t open = 0;
    for (const auto& source : one->sources()) open += source->poll_fd() >= 0 ? 1 : 0;
    return open;
  };
  for (const size_t threads : {size_t{3}, size_t{1}, size_t{2}}) {
    bench_->host().threads = threads;
    one->forwarding_threads_changed();
    // Until the old queues are closed; nobody else has any.
    if (const std::string error = one->state().error; !error.empty()) {
      EXPECT_EQ(error, "device in0 is being opened anew");
    }
    EXPECT_TRUE(bench_->until([&] { return open_queues() == threads && one->state().error.empty(); }))
        << one->state().error;
    EXPECT_EQ(link().ifindex, ifindex);  // the device stays
  }
  reachable("10.9.0.1/24", "in0");
  test::add_neighbour("in0", "10.9.0.2", "02:00:00:00:00:aa");
  host_sends("10.9.0.2", 100);
  EXPECT_NE(next_udp(*bench_, *one), nullptr);
  test::delete_link("in0");
  EXPECT_TRUE(bench_->until([&] { return link().ifindex != 0 && one->state().ifindex == link().ifindex; }));
  EXPECT_TRUE(bench_->until([&] { return open_queues() == 2; }));
}

TEST_F(InternalTest, ADeviceMadeWithOneQueueIsTakenAsItIs) {
  auto one = port();
  const uint32_t ifindex = link().ifindex;
  bench_->host().threads = 2;
  one->forwarding_threads_changed();
  EXPECT_EQ(one->state().error, "");
  one.reset();
  one = port();
  EXPECT_EQ(one->state().error, "");
  EXPECT_EQ(one->sources().size(), 1u);
  EXPECT_EQ(link().ifindex, ifindex);
}

TEST_F(InternalTest, ADeviceWithQueuesHeldByAnotherDescriptorIsNamedAsBusy) {
  bench_->host().threads = 2;
  auto one = port();
  const auto refused = bench_->create(config(), 2);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("another process has it open"), std::string::npos)
      << refused.status().message();
}

TEST_F(InternalTest, LongPortNamesGetAShortDevice) {
  VportConfig wanted = config("an-internal-port-with-a-long-name");
  auto one = port(wanted);
  const std::string device = internal_device_name(wanted.name);
  EXPECT_NE(::if_nametoindex(device.c_str()), 0u);
  EXPECT_EQ(one->state().status.at("device"), device);
  one.reset();
  forget(wanted.name);
  EXPECT_EQ(::if_nametoindex(device.c_str()), 0u);
}

}  // namespace
}  // namespace vswitch
