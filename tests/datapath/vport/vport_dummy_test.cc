#include "datapath/vport/vport_dummy.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "datapath/vport/pcap_file.h"
#include "tests/support/fake_vport_host.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

Bytes to_bytes(const Packet& packet) { return {packet.data(), packet.data() + packet.size()}; }

class DummyTest : public testing::Test {
 protected:
  DummyTest() { std::filesystem::create_directories(directory_); }
  ~DummyTest() override { std::filesystem::remove_all(directory_); }

  std::unique_ptr<Vport> port(std::map<std::string, std::string> options = {}) {
    auto created = bench_.create(config(std::move(options)), 4);
    EXPECT_TRUE(created.ok()) << created.status().message();
    return created.ok() ? std::move(*created) : nullptr;
  }
  static VportConfig config(std::map<std::string, std::string> options) {
    VportConfig config;
    config.name = "d1";
    config.type = "dummy";
    config.options = std::move(options);
    return config;
  }
  static DummyVport& dummy(Vport& port) { return dynamic_cast<DummyVport&>(port); }
  std::string file(const std::string& name) const { return directory_ / name; }
  static std::vector<Bytes> read(const std::string& path) {
    auto frames = PcapFrames::load(path);
    std::vector<Bytes> result;
    if (frames.ok()) {
      for (const auto& frame : (*frames)->frames()) result.emplace_back(frame.data, frame.data + frame.size);
    }
    return result;
  }
  static bool readable(int fd) {
    pollfd wait{fd, POLLIN, 0};
    return ::poll(&wait, 1, 0) == 1;
  }

  const std::filesystem::path directory_ =
      std::filesystem::temp_directory_path() / ("vswitch-dummy-" + std::to_string(::getpid()));
  test::VportBench bench_;
};

const Bytes kFrame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(100).build();

TEST_F(DummyTest, InjectedFramesArriveInOrderAndThePortIsReadableUntilThen) {
  auto one = port();
  const int fd = one->sources().at(0)->poll_fd();
  EXPECT_FALSE(readable(fd));
  std::vector<Bytes> frames(40, kFrame);
  for (uint8_t i = 0; i < 40; ++i) frames[i].back() = i;
  ASSERT_TRUE(dummy(*one).inject(frames).ok());
  EXPECT_TRUE(readable(fd));
  PacketBatch first = bench_.receive(*one);
  ASSERT_EQ(first.size(), 32u);
  EXPECT_TRUE(readable(fd));
  PacketBatch rest = bench_.receive(*one);
  ASSERT_EQ(rest.size(), 8u);
  EXPECT_FALSE(readable(fd));
  for (size_t i = 0; i < 40; ++i) EXPECT_EQ(to_bytes(i < 32 ? first[i] : rest[i - 32]), frames[i]);
  EXPECT_EQ(first[0].in_port, 4u);
  EXPECT_EQ(one->stats().rx_packets, 40u);
  EXPECT_EQ(one->stats().rx_bytes, 40 * kFrame.size());
}

TEST_F(DummyTest, WaitingFramesAreBoundedAndInjectionIsAllOrNothing) {
  auto one = port();
  ASSERT_TRUE(dummy(*one).inject(std::vector<Bytes>(DummyVport::kMaxWaiting - 1, kFrame)).ok());
  EXPECT_EQ(dummy(*one).inject(std::vector<Bytes>(2, kFrame)).code(), StatusCode::resource_exhausted);
  EXPECT_TRUE(dummy(*one).inject(std::vector<Bytes>(1, kFrame)).ok());
}

TEST_F(DummyTest, AFrameThatNoBufferHoldsIsDroppedByName) {
  auto one = port();
  ASSERT_TRUE(dummy(*one).inject(std::vector<Bytes>{Bytes(100000), {}, kFrame}).ok());
  EXPECT_EQ(bench_.receive(*one).size(), 1u);
  EXPECT_EQ(bench_.dropped(4, DropReason::rx_invalid_packet), 2u);
  EXPECT_EQ(one->stats().rx_errors, 2u);
}

TEST_F(DummyTest, WhatItSendsIsCapturedInWireForm) {
  auto one = port({{"pcap", file("tx")}});
  Bytes partial = kFrame;
  store_unaligned(partial.data() + 40, to_be16(0x0a00 + 1 + 0x0a00 + 2 + 17 + 108));
  PacketPtr packet = bench_.ctx().pool.allocate();
  packet->set_size(partial.size());
  std::copy(partial.begin(), partial.end(), packet->data());
  packet->offload = {ChecksumState::partial, GsoType::none, false, 0, 34, 6};
  bench_.send(*one, std::move(packet));
  EXPECT_EQ(read(file("tx")), std::vector<Bytes>{kFrame});  // flushed with each batch

  PacketPtr super =
      PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(5000).build(bench_.ctx().pool);
  super->offload = {ChecksumState::partial, GsoType::tcp4, false, 1000, 34, 16};
  bench_.send(*one, std::move(super));
  EXPECT_EQ(read(file("tx")).size(), 6u);
  EXPECT_EQ(one->stats().tx_packets, 6u);
}

TEST_F(DummyTest, ACaptureIsContinuedByTheNextPort) {
  for (int i = 0; i < 2; ++i) {
    auto one = port({{"tx_pcap", file("tx")}, {"rx_pcap", file("rx")}});
    bench_.send(*one, PacketBuilder().ethernet().eth_type(0x88b5).payload(50).build(bench_.ctx().pool));
    ASSERT_TRUE(dummy(*one).inject(std::vector<Bytes>(3, kFrame)).ok());
    bench_.receive(*one);
  }
  EXPECT_EQ(read(file("tx")).size(), 2u);
  EXPECT_EQ(read(file("rx")).size(), 6u);
}

TEST_F(DummyTest, ACaptureFileThatCannotBeMadeIsRefused) {
  const auto refused = bench_.create(config({{"pcap", file("no/such/directory")}}), 4);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("No such file or directory"), std::string::npos);
  auto waiting = bench_.create(config({{"pcap", file("no/such/directory")}}), 4, false);
  ASSERT_TRUE(waiting.ok());
  EXPECT_NE((*waiting)->state().error, "");
}

// Files of this process may not grow beyond `size` while this lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t size) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limit = old_;
    limit.rlim_cur = size;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  rlimit old_{};
  void (*old_handler_)(int);
};

TEST_F(DummyTest, ACaptureThatCannotBeWrittenIsAnErrorAndDropsByName) {
  auto one = port({{"pcap", file("tx")}});
  {
    const FileSizeLimit limit(64);
    bench_.send(*one, PacketBuilder().ethernet().eth_type(0x88b5).payload(500).build(bench_.ctx().pool));
  }
  EXPECT_EQ(bench_.dropped(0, DropReason::tx_error), 1u);
  EXPECT_EQ(one->stats().tx_packets, 0u);
  EXPECT_NE(one->state().error.find("cannot write: File too large"), std::string::npos) << one->state().error;
  EXPECT_EQ(bench_.host().state_changes, 1);
}

TEST_F(DummyTest, APortThatIsDownNeitherSendsNorReceives) {
  auto one = port();
  const auto expect_down = [&](uint64_t drops) {
    EXPECT_EQ(dummy(*one).inject(std::vector<Bytes>{kFrame}).code(), StatusCode::failed_precondition);
    bench_.send(*one, PacketBuilder().ethernet().eth_type(0x88b5).payload(50).build(bench_.ctx().pool));
    EXPECT_EQ(bench_.dropped(0, DropReason::port_down), drops);
    EXPECT_FALSE(one->state().carrier);
  };
  ASSERT_TRUE(one->set_admin_up(false).ok());
  expect_down(1);
  ASSERT_TRUE(one->set_admin_up(true).ok());
  ASSERT_TRUE(one->reconfigure(config({{"link_state", "down"}})).ok());
  expect_down(2);
  EXPECT_TRUE(one->state().admin_up);
  ASSERT_TRUE(one->reconfigure(config({})).ok());
  EXPECT_TRUE(one->state().carrier);
  EXPECT_EQ(one->state().link_resets, 4u);
}

TEST_F(DummyTest, TheMtuLimitsWhatIsSent) {
  auto one = port();
  EXPECT_EQ(one->state().mtu, 1500u);
  const auto send = [&](size_t payload) {
    bench_.send(*one, PacketBuilder().ethernet().eth_type(0x88b5).payload(payload).build(bench_.ctx().pool));
  };
  send(1501);
  EXPECT_EQ(bench_.dropped(0, DropReason::tx_too_big), 1u);
  VportConfig wanted = config({});
  wanted.mtu_request = 9000;
  wanted.mac = test::mac("02:00:00:00:00:07");
  ASSERT_TRUE(one->reconfigure(wanted).ok());
  send(9000);
  EXPECT_EQ(one->stats().tx_packets, 1u);
  EXPECT_EQ(one->state().mac, wanted.mac);
}

}  // namespace
}  // namespace vswitch
