#include "datapath/vport/dpdk/vport_dpdk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "datapath/vport/dpdk/dpdk_settings.h"
#include "datapath/vport/pcap_file.h"
#include "tests/support/fake_vport_host.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;
using testing::AllOf;
using testing::HasSubstr;

#ifndef VSWITCH_HAVE_DPDK

TEST(DpdkPort, IsRefusedByABuildWithoutDpdkAndWaitsInError) {
  test::VportBench bench;
  const VportConfig config{"d0", "dpdk", {{"dpdk-devargs", "net_null0"}}, 0, {}};
  EXPECT_THAT(bench.create(config, 1).status().message(), HasSubstr("built without DPDK"));
  const auto port = bench.create(config, 1, false);
  ASSERT_TRUE(port.ok());
  EXPECT_THAT((*port)->state().error, HasSubstr("built without DPDK"));
}

#else

Bytes to_bytes(const Packet& packet) { return {packet.data(), packet.data() + packet.size()}; }

class DpdkTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { set_dpdk_settings({"--no-huge -m 256", "", ""}); }

  DpdkTest() { std::filesystem::create_directories(directory_); }
  ~DpdkTest() override { std::filesystem::remove_all(directory_); }

  Result<std::unique_ptr<Vport> > try_create(const std::string& name, const std::string& devargs,
                                             std::map<std::string, std::string> options = {}, bool must_work = true) {
    VportConfig config;
    config.name = name;
    config.type = "dpdk";
    config.options = std::move(options);
    config.options["dpdk-devargs"] = devargs;
    config.options.emplace("dpdk-mbufs", "4096");
    config.mtu_request = mtu_request_;
    return bench_.create(config, ++last_port_, must_work);
  }
  std::unique_ptr<Vport> create(const std::string& name, const std::string& devargs,
                                std::map<std::string, std::string> options = {}) {
    auto port = try_create(name, devargs, std::move(options));
    EXPECT_TRUE(port.ok()) << port.status().message();
    return port.ok() ? std::move(*port) : nullptr;
  }
  PacketPtr packet(size_t payload = 100) {
    return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(payload).build(bench_.ctx().pool);
  }
  std::string file(const std::string& name) const { return directory_ / name; }
  void write_frames(const std::string& path, size_t count) {
    auto writer = PcapWriter::open(path);
    ASSERT_TRUE(writer.ok());
    for (size_t i = 0; i < count; ++i) {
      PacketBatch batch;
      batch.add(packet(i));
      ASSERT_TRUE((*writer)->write(batch).ok());
    }
  }

  const std::filesystem::path directory_ =
      std::filesystem::temp_directory_path() / ("vswitch-dpdk-" + std::to_string(::getpid()));
  test::VportBench bench_;
  uint32_t last_port_ = 0;
  uint32_t mtu_request_ = 0;
};

TEST_F(DpdkTest, PacketsMoveBetweenDevicesWithoutACopy) {
  const auto first = create("d0", "net_ring0");
  const auto second = create("d1", "net_ring1");
  ASSERT_TRUE(first && second);
  // From our memory: copied once, on the way into the first device. What a ring is sent it gives back.
  PacketPtr sent = packet();
  const Bytes frame = to_bytes(*sent);
  const uint8_t* const heap = sent->data();
  bench_.send(*first, std::move(sent));
  PacketBatch batch = bench_.receive(*first);
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(to_bytes(batch[0]), frame);
  EXPECT_NE(batch[0].data(), heap);
  EXPECT_EQ(batch[0].in_port, 1u);
  EXPECT_EQ(batch[0].pool()->memory(), PacketPool::Memory::mbuf);
  // From one device to the other: the same memory, also when headers were pushed or pulled.
  const uint8_t* const data = batch[0].data();
  const Packet* const object = &batch[0];
  *batch[0].push(1) = 0x42;
  bench_.send(*second, batch.release(0));
  batch.reset_released();
  PacketBatch again = bench_.receive(*second);
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].data(), data - 1);
  EXPECT_EQ(&again[0], object);
  EXPECT_EQ(again[0].size(), frame.size() + 1);
  EXPECT_EQ(*again[0].data(), 0x42);
  EXPECT_EQ(again[0].in_port, 2u) << "metadata starts anew";
  EXPECT_EQ(first->stats().tx_packets, 1u);
  EXPECT_EQ(second->stats().rx_bytes, frame.size() + 1);
  EXPECT_EQ(bench_.balance(1), 0);
}

TEST_F(DpdkTest, CopiesStayInTheMemoryOfDevices) {
  const auto ring = create("d0", "net_ring0");
  ASSERT_TRUE(ring);
  bench_.send(*ring, packet());
  const PacketBatch batch = bench_.receive(*ring);
  ASSERT_EQ(batch.size(), 1u);
  const PacketPtr copy = bench_.ctx().clone(batch[0]);
  ASSERT_NE(copy, nullptr);
  EXPECT_EQ(copy->pool(), batch[0].pool());
  EXPECT_EQ(to_bytes(*copy), to_bytes(batch[0]));
}

// Packets of two devices and of our memory, in one batch.
TEST_F(DpdkTest, MixedBatchesKeepTheirOrderAndTheirBooks) {
  const auto first = create("d0", "net_ring0");
  const auto second = create("d1", "net_ring1");
  ASSERT_TRUE(first && second);
  PacketBatch mixed;
  std::vector<size_t> sizes;
  const auto add_received = [&](Vport& port, size_t payload) {
    bench_.send(port, packet(payload));
    PacketBatch batch = bench_.receive(port);
    ASSERT_EQ(batch.size(), 1u);
    sizes.push_back(batch[0].size());
    mixed.add(batch.release(0));
    batch.reset_released();
  };
  for (const bool one_of_ours : {false, true}) {
    sizes.clear();
    add_received(*first, 101);
    add_received(*second, 102);
    if (one_of_ours) {
      mixed.add(packet(103));
      sizes.push_back(mixed[2].size());
    }
    add_received(*first, 104);
    second->send(bench_.ctx(), mixed);
    EXPECT_TRUE(mixed.empty());
    const PacketBatch back = bench_.receive(*second);
    ASSERT_EQ(back.size(), sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) EXPECT_EQ(back[i].size(), sizes[i]) << i;
  }
  EXPECT_EQ(bench_.ctx().ledger.port(1).sent.get(), 4u);
  EXPECT_EQ(bench_.ctx().ledger.port(2).sent.get(), 2u);
  for (const std::shared_ptr<RxSource>& source : second->sources()) EXPECT_EQ(source->sole_port(), 2u);
}

TEST_F(DpdkTest, NoBufferIsLost) {
  const auto ring = create("d0", "net_ring0", {{"dpdk-mbufs", "1024"}});
  ASSERT_TRUE(ring);
  // Eight times as many packets as there are buffers; half of them are freed here, half by another thread.
  for (int i = 0; i < 8 * 1024; ++i) {
    bench_.send(*ring, packet());
    PacketBatch batch = bench_.receive(*ring);
    ASSERT_EQ(batch.size(), 1u) << i;
    if (i % 2 == 0) continue;
    PacketPtr elsewhere = batch.release(0);
    batch.reset_released();
    if (i % 64 == 1) std::thread([&] { elsewhere.reset(); }).join();
  }
}

TEST_F(DpdkTest, WhatNoDeviceCanFinishIsFinishedInSoftware) {
  const auto ring = create("d0", "net_ring0");
  ASSERT_TRUE(ring);
  PacketPtr super =
      PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(5000).build(bench_.ctx().pool);
  super->offload = {ChecksumState::partial, GsoType::tcp4, false, 1000, 34, 16};
  bench_.ctx().ledger.port(0).injected.add();
  bench_.send(*ring, std::move(super));
  const PacketBatch pieces = bench_.receive(*ring);
  ASSERT_EQ(pieces.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(pieces[i].size(), 1054u);
    EXPECT_EQ(pieces[i].offload.checksum, ChecksumState::none);
  }
  EXPECT_EQ(bench_.balance(0), 0);
}

TEST_F(DpdkTest, TooLongFramesAreDroppedWithTheReason) {
  const auto ring = create("d0", "net_ring0");
  ASSERT_TRUE(ring);
  bench_.send(*ring, packet(1473));  // 1,501 bytes behind the Ethernet header
  EXPECT_TRUE(bench_.receive(*ring).empty());
  EXPECT_EQ(bench_.dropped(0, DropReason::tx_too_big), 1u);
  EXPECT_EQ(ring->stats().tx_errors, 1u);
  bench_.send(*ring, packet(1472));
  EXPECT_EQ(bench_.receive(*ring).size(), 1u);
}

TEST_F(DpdkTest, JumboFramesNeedAnMtu) {
  mtu_request_ = 9000;
  const auto ring = create("d0", "net_null0,no-rx=1");
  ASSERT_TRUE(ring);
  EXPECT_EQ(ring->state().mtu, 9000u);
  bench_.send(*ring, packet(8972));
  EXPECT_EQ(ring->stats().tx_packets, 1u);
}

TEST_F(DpdkTest, AFullRingDropsAndCounts) {
  const auto ring = create("d0", "net_ring0");
  ASSERT_TRUE(ring);
  for (int i = 0; i < 1100; ++i) bench_.send(*ring, packet());
  const uint64_t dropped = bench_.dropped(0, DropReason::tx_queue_full);
  EXPECT_GT(dropped, 0u);
  EXPECT_EQ(ring->stats().tx_packets + dropped, 1100u);
  EXPECT_EQ(ring->stats().tx_dropped, dropped);
  EXPECT_EQ(ring->stats().tx_errors, 0u) << "counted once";
}

TEST_F(DpdkTest, ReplaysACaptureAndWritesOne) {
  write_frames(file("in"), 50);
  const auto in = create("d0", "net_pcap0,rx_pcap=" + file("in") + ",tx_pcap=" + file("unused"));
  auto out = create("d1", "net_pcap1,tx_pcap=" + file("out") + ",rx_pcap=" + file("in"));
  ASSERT_TRUE(in && out);
  size_t forwarded = 0;
  for (int i = 0; i < 10; ++i) forwarded += bench_.forward(*in, *out);
  EXPECT_EQ(forwarded, 50u);
  EXPECT_EQ(in->stats().rx_packets, 50u);
  EXPECT_EQ(out->stats().tx_packets, 50u);
  out.reset();  // writes the rest
  const auto written = PcapFrames::load(file("out")), original = PcapFrames::load(file("in"));
  ASSERT_TRUE(written.ok() && original.ok());
  ASSERT_EQ((*written)->frames().size(), 50u);
  for (size_t i = 0; i < 50; ++i) {
    const PcapFrames::Frame &a = (*written)->frames()[i], &b = (*original)->frames()[i];
    EXPECT_EQ(Bytes(a.data, a.data + a.size), Bytes(b.data, b.data + b.size)) << i;
  }
}

TEST_F(DpdkTest, InfiniteReplayNeedsBuffersForAllFrames) {
  write_frames(file("in"), 1000);
  const std::string devargs = "net_pcap0,rx_pcap=" + file("in") + ",infinite_rx=1";
  const auto in = create("d0", devargs, {{"dpdk-mbufs", "2048"}, {"dpdk-mbuf-size", "2048"}});
  ASSERT_TRUE(in);
  EXPECT_EQ(in->state().status.at("mbufs"), "2048");
  for (int i = 0; i < 200; ++i) ASSERT_EQ(bench_.receive(*in).size(), 32u) << i;
}

TEST_F(DpdkTest, StatusTellsOfTheDevice) {
  const auto port = create("d0", "net_null0,no-rx=1", {{"n_rxq", "2"}});
  ASSERT_TRUE(port);
  const VportState state = port->state();
  EXPECT_EQ(state.status.at("driver_name"), "net_null");
  EXPECT_EQ(state.status.at("if_type"), "6");
  EXPECT_EQ(state.status.at("n_rxq"), "2");
  EXPECT_EQ(state.status.at("mbufs"), "4096");
  EXPECT_TRUE(state.status.contains("numa_id"));
  EXPECT_EQ(state.mtu, 1500u);
  EXPECT_TRUE(state.carrier);
  EXPECT_FALSE(state.mac.is_zero());
  EXPECT_EQ(port->sources().size(), 2u);
  EXPECT_TRUE(port->sources()[0]->always_ready()) << "nothing tells when a frame is there";
}

TEST_F(DpdkTest, BadDeviceArgumentsAreRefusedWithDpdksReason) {
  const std::pair<std::string, std::string> cases[] = {
      {"net_nul0", "net_nul0"},
      {"net_pcap0,rx_pcap=" + file("missing"), "missing"},
      {"net_null0,nonsense=1", "nonsense"},
      {"net_af_packet0,iface=nosuchdevice", "nosuchdevice"},
      {"", "dpdk-devargs"},
  };
  for (const auto& [devargs, reason] : cases) {
    const auto refused = try_create("d0", devargs);
    ASSERT_FALSE(refused.ok()) << devargs;
    EXPECT_THAT(refused.status().message(), AllOf(HasSubstr("dpdk-devargs"), HasSubstr(reason), HasSubstr("d0")));
    EXPECT_EQ(refused.status().field(), "options:dpdk-devargs");
  }
  // Nothing is left behind: the same names work when they are right.
  write_frames(file("missing"), 1);
  EXPECT_TRUE(create("d0", "net_pcap0,rx_pcap=" + file("missing")));
  EXPECT_TRUE(create("d1", "net_null0"));
}

TEST_F(DpdkTest, APciDeviceIsNotTouchedOnceStartedWithout) {
  ASSERT_TRUE(create("d0", "net_null0"));
  EXPECT_THAT(try_create("d1", "0000:ff:1f.7").status().message(), HasSubstr("without PCI"));
}

TEST_F(DpdkTest, OneDeviceIsOfOnePort) {
  auto first = create("d0", "net_null0");
  ASSERT_TRUE(first);
  const Status refused = try_create("d1", "net_null0,size=100").status();
  EXPECT_EQ(refused.code(), StatusCode::already_exists);
  EXPECT_THAT(refused.message(), HasSubstr("d0"));
  first.reset();
  EXPECT_TRUE(create("d1", "net_null0,size=100"));
}

TEST_F(DpdkTest, CanBeDeletedAndMadeAgain) {
  for (int i = 0; i < 5; ++i) {
    const auto port = create("d0", "net_null0");
    ASSERT_TRUE(port);
    EXPECT_EQ(bench_.receive(*port).size(), 32u);
  }
}

TEST_F(DpdkTest, PacketsOutliveTheirPort) {
  auto port = create("d0", "net_null0");
  ASSERT_TRUE(port);
  PacketBatch batch = bench_.receive(*port);
  ASSERT_EQ(batch.size(), 32u);
  port.reset();
  batch[0].data()[0] = 1;
  batch.clear();
}

TEST_F(DpdkTest, QueuesThatTheDeviceDoesNotHaveAreRefused) {
  write_frames(file("in"), 1);
  const Status refused = try_create("d0", "net_pcap0,rx_pcap=" + file("in"), {{"n_rxq", "8"}}).status();
  EXPECT_EQ(refused.field(), "options:n_rxq");
  EXPECT_THAT(refused.message(), AllOf(HasSubstr("8"), HasSubstr("net_pcap0")));
  EXPECT_TRUE(create("d0", "net_pcap0,rx_pcap=" + file("in")));
}

TEST_F(DpdkTest, DownMeansNeitherInNorOut) {
  const auto port = create("d0", "net_null0");
  ASSERT_TRUE(port);
  ASSERT_TRUE(port->set_admin_up(false).ok());
  EXPECT_TRUE(port->sources().empty());
  bench_.send(*port, packet());
  EXPECT_EQ(bench_.dropped(0, DropReason::port_down), 1u);
  EXPECT_FALSE(port->state().carrier);
  ASSERT_TRUE(port->set_admin_up(true).ok());
  EXPECT_EQ(bench_.receive(*port).size(), 32u);
}

TEST_F(DpdkTest, AfterARestartAPortWithoutItsDeviceWaitsInError) {
  auto created = try_create("d0", "net_pcap0,rx_pcap=" + file("in"), {}, false);
  ASSERT_TRUE(created.ok());
  Vport& port = **created;
  EXPECT_THAT(port.state().error, HasSubstr("dpdk-devargs"));
  EXPECT_TRUE(port.sources().empty());
  bench_.send(port, packet());
  EXPECT_EQ(bench_.dropped(0, DropReason::port_down), 1u);
  write_frames(file("in"), 3);
  ASSERT_TRUE(bench_.until([&] { return port.state().error.empty(); }));
  EXPECT_EQ(bench_.receive(port).size(), 3u);
  EXPECT_TRUE(bench_.until([&] { return bench_.host().sources_changes >= 1; }));  // told after the state has changed
}

TEST_F(DpdkTest, ThreadsStayWhereTheyMayRun) {
  cpu_set_t before, after;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  const auto port = create("d0", "net_null0");
  ASSERT_TRUE(port);
  EXPECT_EQ(bench_.receive(*port).size(), 32u);
  ASSERT_EQ(sched_getaffinity(0, sizeof after, &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

#endif

}  // namespace
}  // namespace vswitch
