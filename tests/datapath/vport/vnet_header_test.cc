#include "datapath/vport/vnet_header.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "datapath/packet/offload.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::PacketBuilder;

class VnetHeaderTest : public testing::Test {
 protected:
  HeapPacketPool pool_{HeapPacketPool::kSuperFrameBuffer, 8};

  PacketPtr tcp_frame(size_t payload) {
    return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80).payload(payload).build(pool_);
  }
};

TEST_F(VnetHeaderTest, EveryStateThatTheFrameAllowsSurvivesARoundTrip) {
  const bool ok = rc::check("decode(encode(state)) == state", [&] {
    PacketPtr packet = tcp_frame(4000);
    packet->offload.checksum = *rc::gen::element(ChecksumState::none, ChecksumState::partial);
    if (packet->offload.checksum == ChecksumState::partial) {
      packet->offload.csum_start = 34;
      packet->offload.csum_offset = 16;
      packet->offload.gso = *rc::gen::element(GsoType::none, GsoType::tcp4, GsoType::tcp6, GsoType::udp_l4);
      if (packet->offload.gso != GsoType::none) packet->offload.gso_size = *rc::gen::inRange<uint16_t>(1, 9000);
      const bool tcp = packet->offload.gso == GsoType::tcp4 || packet->offload.gso == GsoType::tcp6;
      packet->offload.gso_ecn = tcp && *rc::gen::arbitrary<bool>();
    }
    const OffloadState before = packet->offload;
    VnetHeader header;
    RC_ASSERT(encode_vnet_header(*packet, header));
    packet->offload = {};
    RC_ASSERT(decode_vnet_header(header, *packet));
    RC_ASSERT(packet->offload.checksum == before.checksum);
    RC_ASSERT(packet->offload.gso == before.gso);
    RC_ASSERT(packet->offload.gso_ecn == before.gso_ecn);
    RC_ASSERT(packet->offload.gso_size == before.gso_size);
    RC_ASSERT(packet->offload.csum_start == before.csum_start);
    RC_ASSERT(packet->offload.csum_offset == before.csum_offset);
  });
  ASSERT_TRUE(ok);
}

TEST_F(VnetHeaderTest, HeaderLengthReachesToTheTcpPayload) {
  PacketPtr packet = tcp_frame(4000);
  packet->offload = {ChecksumState::partial, GsoType::tcp4, false, 1448, 34, 16};
  VnetHeader header;
  ASSERT_TRUE(encode_vnet_header(*packet, header));
  EXPECT_EQ(header.hdr_len, 54);
}

TEST_F(VnetHeaderTest, AChecksumFieldOutsideTheFrameIsRefused) {
  PacketPtr packet = tcp_frame(0);
  const VnetHeader header{VnetHeader::kNeedsChecksum, 0, 0, 0, static_cast<uint16_t>(packet->size() - 1), 0};
  EXPECT_FALSE(decode_vnet_header(header, *packet));
  const VnetHeader wraps{VnetHeader::kNeedsChecksum, 0, 0, 0, 0xffff, 0xffff};
  EXPECT_FALSE(decode_vnet_header(wraps, *packet));
}

TEST_F(VnetHeaderTest, UnknownSegmentationIsRefused) {
  PacketPtr packet = tcp_frame(100);
  EXPECT_FALSE(decode_vnet_header({VnetHeader::kNeedsChecksum, 3, 54, 100, 34, 16}, *packet));     // UFO
  EXPECT_FALSE(decode_vnet_header({VnetHeader::kNeedsChecksum, 0x21, 54, 100, 34, 16}, *packet));  // in a tunnel
  EXPECT_FALSE(decode_vnet_header({VnetHeader::kNeedsChecksum, VnetHeader::kGsoTcp4, 54, 0, 34, 16}, *packet));
}

TEST_F(VnetHeaderTest, DataValidMeansVerified) {
  PacketPtr packet = tcp_frame(100);
  ASSERT_TRUE(decode_vnet_header({VnetHeader::kDataValid, 0, 0, 0, 0, 0}, *packet));
  EXPECT_EQ(packet->offload.checksum, ChecksumState::verified);
}

// Large receive offload: cut by the device's counterpart, the checksums checked, nothing left partial.
TEST_F(VnetHeaderTest, AVerifiedSuperFrameGetsAPartialChecksum) {
  PacketPtr packet = tcp_frame(4000);
  const test::Bytes original(packet->data(), packet->data() + packet->size());
  ASSERT_TRUE(decode_vnet_header({VnetHeader::kDataValid, VnetHeader::kGsoTcp4, 54, 1448, 0, 0}, *packet));
  EXPECT_EQ(packet->offload.checksum, ChecksumState::partial);
  EXPECT_EQ(packet->offload.csum_start, 34);
  ASSERT_TRUE(complete_checksum(*packet));
  EXPECT_EQ(test::Bytes(packet->data(), packet->data() + packet->size()), original);
}

TEST_F(VnetHeaderTest, ATagHeldAsideGoesBackAndOffsetsFollow) {
  PacketPtr packet = tcp_frame(10);
  packet->offload = {ChecksumState::partial, GsoType::none, false, 0, 34, 16};
  ASSERT_TRUE(reinsert_vlan_tag(*packet, 0x88a8, 0x6064));
  const test::Bytes expected =
      PacketBuilder().ethernet().vlan(0x64, 3, 0x88a8).ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80).payload(10).build();
  EXPECT_EQ(test::Bytes(packet->data(), packet->data() + packet->size()), expected);
  EXPECT_EQ(packet->offload.csum_start, 38);
}

}  // namespace
}  // namespace vswitch
