// The program `find`, in the kernel, on frames of ours: it takes a frame exactly if its twin says that it is of the
// connection.

#include "datapath/kernel_path/programs.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>

#include "tests/support/frame_spec.h"
#include "tests/support/guarded_packet.h"
#include "tests/support/kernel_path.h"
#include "tests/support/netns.h"
#include "tests/support/packet_builder.h"
#include "tests/support/random_check.h"

namespace vswitch {
namespace {

using test::PacketBuilder;

[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new test::PrivateNamespace);

constexpr uint32_t kElement = 5;
constexpr uint32_t kLoopback = 1;  // the device that the kernel says a test's frame came in by
constexpr size_t kLongest = 3000;  // of a frame in a test

class KernelProgramsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    auto loaded = KernelPrograms::load();
    VSWITCH_REQUIRE_KERNEL_PATH(loaded.ok() ? "" : loaded.status().message());
    programs_ = std::move(*loaded);
  }

  kernel_connection& connection() { return programs_->connections()[kElement]; }

  std::optional<ConnectionKey> key_of(const Bytes& frame) {
    std::optional<ConnectionKey> key = connection_key_of(guarded_.place(frame));
    if (key) key->in_ifindex = kLoopback;
    return key;
  }

  void forward(const ConnectionKey& key, uint32_t max_length = 1 << 20) {
    connection() = {};
    connection().key = key;
    connection().max_length = max_length;
    connection().state = KERNEL_CONNECTION_ACTIVE;
    EXPECT_TRUE(programs_->insert(key, kElement).ok());
  }

  // Whether the program takes the frame from the socket.
  bool taken(const Bytes& frame, uint32_t gso_size = 0) {
    // The kernel strips what it takes for the Ethernet header before it runs a socket filter.
    Bytes data(14);
    data[12] = 0x88;
    data[13] = 0xb5;
    data.insert(data.end(), frame.begin(), frame.end());
    __sk_buff context{};
    context.gso_size = gso_size;
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = data.data();
    options.data_size_in = static_cast<uint32_t>(data.size());
    options.ctx_in = &context;
    options.ctx_size_in = sizeof context;
    EXPECT_EQ(bpf_prog_test_run_opts(programs_->filter_fd(), &options), 0) << errno;
    return options.retval == 0;
  }

  test::GuardedPacket guarded_;
  std::unique_ptr<KernelPrograms> programs_;
};

bool is_tagged(const Bytes& frame) {  // a tag in the frame: not possible behind the kernel's receive path
  return frame.size() > 14 && ((frame[12] == 0x81 && frame[13] == 0) || (frame[12] == 0x88 && frame[13] == 0xa8));
}

TEST_F(KernelProgramsTest, TakesExactlyTheFramesOfTheConnection) {
  size_t known = 0, still = 0;
  check_random([&](std::mt19937& rng) {
    FrameSpec spec = FrameSpec::random(rng);
    spec.vlans.clear();
    if (rng() % 4 != 0) spec.options_size = 0, spec.extensions.clear(), spec.proto = rng() % 2 ? 6 : 17;
    Bytes frame = spec.build();
    if (frame.size() > kLongest) return;
    const std::optional<ConnectionKey> key = key_of(frame);
    if (!key) {
      RC_ASSERT(!taken(frame));
      return;
    }
    ++known;
    forward(*key);
    RC_ASSERT(taken(frame));
    for (int i = 0; i < 8; ++i) {
      Bytes other = frame;
      other[rng() % std::min<size_t>(other.size(), 80)] ^= static_cast<uint8_t>(1 << rng() % 8);
      if (rng() % 8 == 0) other.resize(20 + rng() % (other.size() - 19));
      if (is_tagged(other)) continue;
      const bool same = key_of(other) == key;
      still += same ? 1 : 0;
      RC_ASSERT(taken(other) == same);
    }
    programs_->erase(*key);
    RC_ASSERT(!taken(frame));
  });
  EXPECT_GT(known, 300u);
  EXPECT_GT(still, 300u);
}

TEST_F(KernelProgramsTest, LeavesFramesOfConnectionsThatAreNotActive) {
  const Bytes frame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).build();
  forward(*key_of(frame));
  EXPECT_TRUE(taken(frame));
  connection().state = 6;  // pending
  EXPECT_FALSE(taken(frame));
  connection().state = 0;  // stopped
  EXPECT_FALSE(taken(frame));
  connection().state = 7;
  EXPECT_TRUE(taken(frame));
  // The table names an element that has become another connection's.
  connection().key.dst_port ^= 1;
  EXPECT_FALSE(taken(frame));
}

TEST_F(KernelProgramsTest, LeavesFramesThatAreTooLong) {
  const Bytes frame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(1000).build();
  constexpr uint32_t kHeaders = 14 + 20 + 20;
  forward(*key_of(frame), kHeaders + 1000);
  EXPECT_TRUE(taken(frame));
  connection().max_length = kHeaders + 999;
  EXPECT_FALSE(taken(frame));
  // Of a super-frame, it is the segments that have to fit.
  EXPECT_TRUE(taken(frame, 999));
  connection().max_length = kHeaders + 998;
  EXPECT_FALSE(taken(frame, 999));
}

TEST_F(KernelProgramsTest, CountsFramesThatNobodySent) {
  const Bytes frame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(10).build();
  forward(*key_of(frame));
  EXPECT_TRUE(taken(frame));
  EXPECT_EQ(connection().overruled, 0u);
  // On whichever processor the test runs: a second run on the same one finds the verdict of the first.
  uint64_t runs = 1;
  while (connection().overruled == 0 && runs < 100) taken(frame), ++runs;
  EXPECT_GT(connection().overruled, 0u);
  EXPECT_EQ(connection().lost_bytes, connection().overruled * frame.size());
}

}  // namespace
}  // namespace vswitch
