// Against the vxlan device of the Linux kernel, in another namespace.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/udp.h>
#include <net/if.h>
#include <sys/socket.h>

#include "datapath/packet/checksum.h"
#include "datapath/packet/ip_layout.h"
#include "datapath/packet/offload.h"
#include "datapath/vport/vnet_header.h"
#include "tests/support/tunnel_underlay.h"

namespace vswitch::test {
namespace {

[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new PrivateNamespace);

constexpr const char* kOurInnerMac = "02:00:00:00:00:01";
constexpr const char* kOurInnerIp = "192.168.9.1";
constexpr const char* kPeerInnerIp = "192.168.9.2";

struct KernelCase {
  const char* name;
  bool v6, checksum;
};

class VxlanKernelTest : public ::testing::TestWithParam<KernelCase> {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    const KernelCase& c = GetParam();
    underlay_.emplace();
    underlay_->peer().run([&] {
      add_vxlan_device({"vxk0", 42, c.v6 ? kOurV6 : kOurV4, 4789, c.checksum});
      add_address("vxk0", std::string(kPeerInnerIp) + "/24");
      add_neighbour("vxk0", kOurInnerIp, kOurInnerMac);
      peer_mac_ = mac_of_device("vxk0");
    });
    port_ = bench_.create_good(
        "vx1", 3, {{"remote_ip", c.v6 ? kPeerV6 : kPeerV4}, {"key", "42"}, {"csum", c.checksum ? "true" : "false"}});
  }
  // The next packet that the peer's host sent to us, other traffic left out.
  PacketPtr receive_ip(uint8_t proto) {
    PacketPtr found;
    EXPECT_TRUE(eventually([&] {
      PacketBatch batch = bench_.receive(*port_);
      for (size_t i = 0; i < batch.size(); ++i) {
        PacketPtr packet = batch.release(i);
        const auto ip = find_ip(packet->bytes());
        if (!found && ip && ip->proto == proto) found = std::move(packet);
      }
      batch.reset_released();
      return found != nullptr;
    }));
    return found;
  }
  void expect_valid_l4(const Packet& packet) {
    const auto ip = find_ip(packet.bytes());
    ASSERT_TRUE(ip && ip->has_l4);
    const uint8_t* header = packet.data() + ip->l3;
    const uint32_t pseudo = pseudo_header_sum(load_unaligned<be32>(header + 12), load_unaligned<be32>(header + 16),
                                              ip->proto, static_cast<uint32_t>(ip->l4_size()));
    EXPECT_EQ(checksum_finish(checksum_partial(packet.bytes().subspan(ip->l4, ip->l4_size()), pseudo)), be16{});
  }

  std::optional<TunnelUnderlay> underlay_;
  TunnelBench bench_;
  std::unique_ptr<Vport> port_;
  MacAddress peer_mac_;
};

TEST_P(VxlanKernelTest, PingIsAnsweredFromTheFirstOn) {
  for (uint8_t i = 0; i < 3; ++i) {
    bench_.send(*port_, bench_.make(PacketBuilder()
                                        .ethernet(mac(kOurInnerMac), peer_mac_)
                                        .ipv4(kOurInnerIp, kPeerInnerIp)
                                        .icmp(8, 0)
                                        .raw({0, 1, 0, i})
                                        .payload(size_t{50} + i)));
    const PacketPtr reply = receive_ip(kProtoIcmp);
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->data()[34], 0) << "echo reply";
    EXPECT_EQ(reply->in_port, 3u);
    EXPECT_EQ(reply->tunnel.id, to_be64(42));
    EXPECT_EQ(load_unaligned<MacAddress>(reply->data() + 6), peer_mac_);
  }
}

// The peer's stack leaves checksums to a device that is not there: on a veth they arrive unfinished.
TEST_P(VxlanKernelTest, UnfinishedInnerChecksumIsRecognised) {
  underlay_->peer().run([] {
    const UniqueFd fd(socket(AF_INET, SOCK_DGRAM, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(7);
    inet_pton(AF_INET, kOurInnerIp, &to.sin_addr);
    EXPECT_EQ(sendto(fd.get(), "hello", 5, 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 5);
  });
  const PacketPtr packet = receive_ip(kProtoUdp);
  ASSERT_TRUE(packet);
  ASSERT_TRUE(complete_checksum(*packet));
  expect_valid_l4(*packet);
}

TEST_P(VxlanKernelTest, UdpSuperFrameComesOutInItsSegments) {
  underlay_->peer().run([] {
    const UniqueFd fd(socket(AF_INET, SOCK_DGRAM, 0));
    const int segment = 1000;
    setsockopt(fd.get(), IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(7);
    inet_pton(AF_INET, kOurInnerIp, &to.sin_addr);
    const Bytes payload(5500, 0x5a);
    EXPECT_EQ(sendto(fd.get(), payload.data(), payload.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 5500);
  });
  size_t payload = 0, pieces = 0;
  while (payload < 5500) {
    PacketPtr packet = receive_ip(kProtoUdp);
    ASSERT_TRUE(packet);
    const auto take = [&](PacketPtr piece) {
      ASSERT_TRUE(complete_checksum(*piece));
      expect_valid_l4(*piece);
      EXPECT_LE(piece->size(), 42u + 1000);
      payload += piece->size() - 42;
      ++pieces;
    };
    size_t missing = 0;
    if (packet->offload.gso == GsoType::none) {
      take(std::move(packet));
    } else {
      EXPECT_EQ(packet->offload.gso_size, 1000);
      segment_packet(std::move(packet), bench_.pool(), &missing, take);
    }
  }
  EXPECT_EQ(payload, 5500u);
  EXPECT_EQ(pieces, 6u);
}

// Hands the peer's vxlan device a TCP super-frame, as a bridge would that forwards one.
void send_tcp_super_frame(const MacAddress& from, size_t payload) {
  Bytes frame = PacketBuilder()
                    .ethernet(from, mac(kOurInnerMac))
                    .ipv4(kPeerInnerIp, kOurInnerIp)
                    .tcp(80, 81)
                    .payload(payload)
                    .build();
  const uint32_t pseudo =
      pseudo_header_sum(ipv4(kPeerInnerIp), ipv4(kOurInnerIp), kProtoTcp, static_cast<uint32_t>(20 + payload));
  store_unaligned(frame.data() + 34 + 16, ~checksum_finish(pseudo));
  VnetHeader header;
  header.flags = VnetHeader::kNeedsChecksum;
  header.gso_type = VnetHeader::kGsoTcp4;
  header.hdr_len = 54;
  header.gso_size = 1300;
  header.csum_start = 34;
  header.csum_offset = 16;
  Bytes bytes(sizeof header);
  std::memcpy(bytes.data(), &header, sizeof header);
  bytes.insert(bytes.end(), frame.begin(), frame.end());
  const UniqueFd fd(socket(AF_PACKET, SOCK_RAW, 0));
  const int on = 1;
  EXPECT_EQ(setsockopt(fd.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on), 0);
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(ETH_P_IP);
  to.sll_ifindex = static_cast<int>(if_nametoindex("vxk0"));
  EXPECT_EQ(sendto(fd.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to),
            static_cast<ssize_t>(bytes.size()));
}

TEST_P(VxlanKernelTest, TcpSuperFrameComesOutWhole) {
  constexpr size_t kPayload = 20000;
  underlay_->peer().run([this] { send_tcp_super_frame(peer_mac_, kPayload); });
  size_t payload = 0;
  while (payload < kPayload) {
    PacketPtr packet = receive_ip(kProtoTcp);
    ASSERT_TRUE(packet);
    EXPECT_EQ(load_unaligned<be32>(packet->data() + 38).host(), 1 + payload) << "sequence numbers follow one another";
    if (packet->offload.gso == GsoType::none) {
      ASSERT_TRUE(complete_checksum(*packet));
      expect_valid_l4(*packet);
      payload += packet->size() - 54;
      continue;
    }
    EXPECT_EQ(packet->offload.gso, GsoType::tcp4);
    size_t missing = 0;
    segment_packet(std::move(packet), bench_.pool(), &missing, [&](PacketPtr piece) {
      EXPECT_EQ(load_unaligned<be32>(piece->data() + 38).host(), 1 + payload);
      expect_valid_l4(*piece);
      payload += piece->size() - 54;
    });
  }
  EXPECT_EQ(payload, kPayload);
}

INSTANTIATE_TEST_SUITE_P(, VxlanKernelTest,
                         ::testing::Values(KernelCase{"v4_no_checksum", false, false},
                                           KernelCase{"v4_checksum", false, true},
                                           KernelCase{"v6_checksum", true, true}),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace vswitch::test
