#include "datapath/core/connection_sampler.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

#include "tests/support/guarded_packet.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using namespace std::chrono_literals;
using test::Bytes;
using test::PacketBuilder;

// A port that the kernel path serves in this way and that; no packet comes to it.
class Served final : public Vport {
 public:
  Served(uint32_t port_no, uint64_t hook, uint64_t way_out)
      : Vport("served", port_no, false), hook_(hook), way_out_(way_out) {}
  std::string_view type() const override { return "served"; }
  void send(ThreadContext&, PacketBatch&) override {}
  std::vector<std::shared_ptr<RxSource>> sources() override { return {}; }
  VportState state() const override { return {}; }
  VportStats stats() const override { return {}; }
  Status reconfigure(const VportConfig&) override { return {}; }
  Status set_admin_up(bool) override { return {}; }
  uint64_t kernel_path_hook() const override { return hook_; }
  uint64_t kernel_path_way_out() const override { return way_out_; }

 private:
  const uint64_t hook_, way_out_;
};

Bytes tcp(uint16_t port, size_t payload) {
  return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(port, 2).payload(payload).build();
}
Bytes udp(size_t payload) {
  return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(payload).build();
}

constexpr uint32_t kOne = 1, kOther = 2, kTunnel = 3, kNotServed = 4;

struct ConnectionSamplerTest : ::testing::Test {
  ConnectionSamplerTest() {
    for (Served* port : {&one, &other, &tunnel}) ports.set(port->port_no(), port);
    ports.set(kNotServed, &not_served);
  }

  Packet& place(const Bytes& frame, uint32_t in_port = kOne) {
    Packet& placed = packet.place(frame);
    placed.in_port = in_port;
    return placed;
  }
  Packet& super_frame(const Bytes& frame, GsoType gso) {
    Packet& placed = place(frame);
    placed.offload.gso = gso;
    return placed;
  }
  // So many of this packet, so far apart; how many candidates that made.
  size_t look(Packet& seen, size_t count, uint32_t out_port = kOther, Nanoseconds apart = 20us) {
    for (size_t i = 0; i < count; ++i) sampler->look(seen, out_port, now += apart);
    return taken();
  }
  size_t taken() {
    size_t count = 0;
    for (ConnectionSampler::Candidate candidate; sampler->take(candidate); ++count) last = candidate;
    return count;
  }

  PortMap ports;
  Served one{kOne, 1, 1}, other{kOther, 2, 2}, tunnel{kTunnel, 0, 3}, not_served{kNotServed, 0, 0};
  KernelPath path;
  Wakeup taker;
  std::unique_ptr<ConnectionSampler> sampler = std::make_unique<ConnectionSampler>(ports, path, taker);
  test::GuardedPacket packet;
  Nanoseconds now = 1000s;
  ConnectionSampler::Candidate last;
};

TEST_F(ConnectionSamplerTest, OffersATcpConnectionOfSmallPacketsThatIsBusy) {
  Packet& small = place(tcp(1, 1));
  EXPECT_EQ(look(small, 50), 0u);
  EXPECT_EQ(look(small, 30), 1u);
  EXPECT_EQ(last.key, *connection_key_of(small));
  EXPECT_EQ(last.in_port, kOne);
  EXPECT_EQ(last.out_port, kOther);
}

TEST_F(ConnectionSamplerTest, OffersSuperFramesSoonOfUdpToo) {
  EXPECT_EQ(look(super_frame(tcp(1, 60'000), GsoType::tcp4), 5), 1u);
  EXPECT_EQ(look(super_frame(udp(60'000), GsoType::udp_l4), 5), 1u);
}

TEST_F(ConnectionSamplerTest, OffersTheSameAgainNotBeforeATenthOfASecondHasPassed) {
  Packet& small = place(tcp(1, 1));
  EXPECT_EQ(look(small, 3'000), 1u);   // 60 ms
  EXPECT_EQ(look(small, 27'000), 5u);  // 540 ms more
}

TEST_F(ConnectionSamplerTest, LeavesWhatHasFewPacketsASecond) {
  EXPECT_EQ(look(place(tcp(1, 1)), 1'000, kOther, 25ms), 0u);
}

TEST_F(ConnectionSamplerTest, LeavesSmallDatagrams) { EXPECT_EQ(look(place(udp(1'400)), 10'000), 0u); }

TEST_F(ConnectionSamplerTest, LeavesWhatComesOutOfATunnelOrHasBeenThroughTheTable) {
  Packet& small = place(tcp(1, 1));
  small.has_tunnel = true;
  EXPECT_EQ(look(small, 1'000), 0u);
  small.has_tunnel = false;
  small.recirc_id = 1;
  EXPECT_EQ(look(small, 1'000), 0u);
}

TEST_F(ConnectionSamplerTest, IntoATunnelOffersOnlyWhatHasLargePackets) {
  EXPECT_EQ(look(place(tcp(1, 100)), 2'000, kTunnel), 0u);
  EXPECT_EQ(look(place(tcp(2, 1'400)), 200, kTunnel), 1u);
}

TEST_F(ConnectionSamplerTest, LeavesWhatAPortWithoutTheKernelPathSendsOrGets) {
  EXPECT_EQ(look(place(tcp(1, 1'400)), 2'000, kNotServed), 0u);
  EXPECT_EQ(look(place(tcp(1, 1'400), kNotServed), 2'000), 0u);
  EXPECT_EQ(look(place(tcp(1, 1'400)), 2'000, 99), 0u);
}

// Packets of so many connections in turn, until each has had so many; how many connections have been offered.
size_t offered_of(ConnectionSamplerTest& fixture, size_t connections, size_t packets_each, Nanoseconds apart) {
  std::vector<std::unique_ptr<test::GuardedPacket>> memory;
  std::vector<Packet*> packets;
  for (size_t i = 0; i < connections; ++i) {
    memory.push_back(std::make_unique<test::GuardedPacket>());
    packets.push_back(&memory.back()->place(tcp(static_cast<uint16_t>(i), 1)));
    packets.back()->in_port = kOne;
  }
  std::set<uint16_t> offered;
  for (size_t i = 0; i < packets_each; ++i) {
    for (Packet* packet : packets) {
      fixture.sampler->look(*packet, kOther, fixture.now += apart);
      for (ConnectionSampler::Candidate candidate; fixture.sampler->take(candidate);) {
        offered.insert(candidate.key.src_port);
      }
    }
  }
  return offered.size();
}

TEST_F(ConnectionSamplerTest, OffersEachOfManyThatAreEquallyBusy) {
  EXPECT_EQ(offered_of(*this, 128, 1'000, 2us), 128u);
}

// More of them than are remembered: they take turns.
TEST_F(ConnectionSamplerTest, OffersManyOfMoreThanItRemembers) {
  EXPECT_GE(offered_of(*this, 4'000, 4'000, 100ns), 1'000u);
}

}  // namespace
}  // namespace vswitch
