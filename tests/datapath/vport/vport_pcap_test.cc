#include "datapath/vport/vport_pcap.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "datapath/vport/pcap_file.h"
#include "tests/support/fake_vport_host.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

Bytes to_bytes(const Packet& packet) { return {packet.data(), packet.data() + packet.size()}; }

class PcapTest : public testing::Test {
 protected:
  PcapTest() { std::filesystem::create_directories(directory_); }
  ~PcapTest() override { std::filesystem::remove_all(directory_); }

  Result<std::unique_ptr<Vport>> create(std::map<std::string, std::string> options) {
    VportConfig config;
    config.name = "pc1";
    config.type = "pcap";
    config.options = std::move(options);
    return bench_.create(config, 6);
  }
  std::string file(const std::string& name) const { return directory_ / name; }
  // Frames of 60, 61, ... bytes.
  std::vector<Bytes> write(const std::string& path, size_t count) {
    auto writer = PcapWriter::open(path);
    EXPECT_TRUE(writer.ok());
    std::vector<Bytes> frames;
    for (size_t i = 0; i < count; ++i) {
      PacketBatch batch;
      batch.add(PacketBuilder().ethernet().eth_type(0x88b5).payload(46 + i).build(bench_.ctx().pool));
      frames.push_back(to_bytes(batch[0]));
      EXPECT_TRUE((*writer)->write(batch).ok());
    }
    return frames;
  }

  const std::filesystem::path directory_ =
      std::filesystem::temp_directory_path() / ("vswitch-pcap-" + std::to_string(::getpid()));
  test::VportBench bench_;
};

TEST_F(PcapTest, AFileIsReplayedAsOftenAsAsked) {
  const std::vector<Bytes> frames = write(file("in"), 50);
  auto created = create({{"rx_pcap", file("in")}, {"loop", "3"}});
  ASSERT_TRUE(created.ok()) << created.status().message();
  Vport& port = **created;
  const auto source = port.sources().at(0);
  EXPECT_TRUE(source->always_ready());
  EXPECT_EQ(port.state().status.at("replay"), "running");
  std::vector<Bytes> seen;
  while (source->always_ready()) {
    PacketBatch batch = bench_.receive(port);
    ASSERT_FALSE(batch.empty());
    for (size_t i = 0; i < batch.size(); ++i) {
      EXPECT_EQ(batch[i].in_port, 6u);
      seen.push_back(to_bytes(batch[i]));
    }
  }
  ASSERT_EQ(seen.size(), 150u);
  for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], frames[i % 50]);
  EXPECT_TRUE(bench_.receive(port).empty());
  EXPECT_EQ(port.stats().rx_packets, 150u);
  EXPECT_EQ(port.state().status.at("replay"), "finished");
}

TEST_F(PcapTest, AnInfiniteReplayCanBePaused) {
  write(file("in"), 3);
  auto created = create({{"rx_pcap", file("in")}, {"loop", "infinite"}});
  ASSERT_TRUE(created.ok());
  Vport& port = **created;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(bench_.receive(port).size(), 32u);
  ASSERT_TRUE(port.set_admin_up(false).ok());
  EXPECT_TRUE(bench_.receive(port).empty());
  EXPECT_FALSE(port.sources().at(0)->always_ready());
  ASSERT_TRUE(port.set_admin_up(true).ok());
  EXPECT_EQ(bench_.receive(port).size(), 32u);
  EXPECT_EQ(bench_.host().sources_changes, 2);
}

TEST_F(PcapTest, AnEmptyPoolLosesNothing) {
  write(file("in"), 5);
  auto created = create({{"rx_pcap", file("in")}});
  ASSERT_TRUE(created.ok());
  std::vector<PacketPtr> hoarded;
  while (PacketPtr packet = bench_.ctx().pool.allocate()) hoarded.push_back(std::move(packet));
  EXPECT_TRUE(bench_.receive(**created).empty());
  hoarded.clear();
  EXPECT_EQ(bench_.receive(**created).size(), 5u);
}

TEST_F(PcapTest, SentPacketsAreCountedOrCaptured) {
  auto counts = create({});
  ASSERT_TRUE(counts.ok());
  EXPECT_TRUE((*counts)->sources().empty());
  PacketPtr super =
      PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(5000).build(bench_.ctx().pool);
  super->offload = {ChecksumState::partial, GsoType::tcp4, false, 1000, 34, 16};
  const PacketPtr copy = clone_packet(*super, bench_.ctx().pool);
  bench_.send(**counts, std::move(super));
  EXPECT_EQ((*counts)->stats().tx_packets, 1u);  // as it is
  auto captures = create({{"tx_pcap", file("out")}});
  ASSERT_TRUE(captures.ok());
  bench_.send(**captures, clone_packet(*copy, bench_.ctx().pool));
  EXPECT_EQ((*captures)->stats().tx_packets, 5u);  // as on a wire
  auto written = PcapFrames::load(file("out"));
  ASSERT_TRUE(written.ok());
  EXPECT_EQ((*written)->frames().size(), 5u);
  EXPECT_EQ((*written)->frames()[0].size, 1054u);
}

TEST_F(PcapTest, BadFilesAreRefusedWithTheReason) {
  std::ofstream(file("text")) << "this is no capture";
  std::ofstream(file("empty"));
  const std::pair<std::string, std::string> cases[] = {
      {file("missing"), "No such file or directory"},
      {file("text"), "unknown file format"},
      {file("empty"), "truncated"},
  };
  for (const auto& [path, reason] : cases) {
    const auto refused = create({{"rx_pcap", path}});
    ASSERT_FALSE(refused.ok()) << path;
    EXPECT_EQ(refused.status().field(), "options:rx_pcap");
    EXPECT_NE(refused.status().message().find(reason), std::string::npos) << refused.status().message();
  }
}

TEST_F(PcapTest, AFileCutInTheMiddleOfAFrameIsRefused) {
  write(file("in"), 5);
  std::filesystem::resize_file(file("in"), std::filesystem::file_size(file("in")) - 10);
  const auto refused = create({{"rx_pcap", file("in")}});
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("truncated"), std::string::npos) << refused.status().message();
}

TEST_F(PcapTest, OtherFilesNeedAnotherPort) {
  auto created = create({});
  ASSERT_TRUE(created.ok());
  VportConfig config;
  config.name = "pc1";
  config.type = "pcap";
  config.mtu_request = 1000;
  EXPECT_TRUE((*created)->reconfigure(config).ok());
  EXPECT_EQ((*created)->state().mtu, 1000u);
  config.options["tx_pcap"] = file("out");
  EXPECT_EQ((*created)->reconfigure(config).code(), StatusCode::unimplemented);
}

}  // namespace
}  // namespace vswitch
