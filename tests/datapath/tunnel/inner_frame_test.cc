#include "datapath/tunnel/inner_frame.h"

#include <gtest/gtest.h>

#include <functional>

#include "datapath/packet/checksum.h"
#include "datapath/packet/offload.h"
#include "tests/support/guarded_packet.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::PacketBuilder;

PacketBuilder udp4(uint8_t tos = 0) {
  test::Ipv4Options options;
  options.tos = tos;
  options.ttl = 33;
  return PacketBuilder().ethernet().ipv4("10.1.0.1", "10.1.0.2", options).udp(1000, 2000).payload(100);
}

PacketBuilder tcp6(size_t payload, uint16_t flags = 0x10) {
  test::Ipv6Options options;
  options.traffic_class = 0xb8;
  options.hop_limit = 12;
  test::TcpOptions tcp;
  tcp.flags = flags;
  return PacketBuilder().ethernet().ipv6("fd01::1", "fd01::2", options).tcp(1000, 2000, tcp).payload(payload);
}

TEST(InnerFrameTest, FindsIpv4AndIpv6) {
  const auto frame4 = udp4(0x2a).build();
  const InnerIp ip4 = find_inner_ip(frame4);
  EXPECT_EQ(ip4.version, 4);
  EXPECT_EQ(ip4.tos, 0x2a);
  EXPECT_EQ(ip4.ttl, 33);
  EXPECT_EQ(ip4.offset, 14u);
  EXPECT_EQ(ip4.end, frame4.size());
  const auto frame6 = tcp6(10).build();
  const InnerIp ip6 = find_inner_ip(frame6);
  EXPECT_EQ(ip6.version, 6);
  EXPECT_EQ(ip6.tos, 0xb8);
  EXPECT_EQ(ip6.ttl, 12);
  EXPECT_EQ(ip6.end, frame6.size());
}

TEST(InnerFrameTest, LooksBehindVlanTags) {
  const auto frame =
      PacketBuilder().ethernet().vlan(5, 0, 0x88a8).vlan(6).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).build();
  EXPECT_EQ(find_inner_ip(frame).offset, 22u);
}

TEST(InnerFrameTest, WhatIsNotIpInFullIsNotIp) {
  EXPECT_FALSE(find_inner_ip({}));
  EXPECT_FALSE(find_inner_ip(PacketBuilder().ethernet().eth_type(0x88cc).payload(50).build()));
  auto frame = udp4().build();
  frame[14] = 0x65;  // version 6 in an IPv4 frame
  EXPECT_FALSE(find_inner_ip(frame));
  frame[14] = 0x44;  // header of 16 bytes
  EXPECT_FALSE(find_inner_ip(frame));
  frame[14] = 0x4f;  // 60 bytes, and the total length says less
  frame[17] = 59, frame[16] = 0;
  EXPECT_FALSE(find_inner_ip(frame));
}

TEST(InnerFrameTest, NothingReadsPastTheFrame) {
  test::GuardedPacket guarded;
  for (const auto& frame : {udp4().build(), tcp6(200).build(), PacketBuilder().ethernet().vlan(1).vlan(2).build()}) {
    for (size_t size = 0; size <= frame.size(); ++size) {
      Packet& packet = guarded.place(std::span(frame).first(size));
      const InnerIp ip = find_inner_ip(packet.bytes());
      detect_inner_offload(packet, 1000);
      if (ip) set_inner_tos(packet.bytes(), ip, 3);
    }
  }
}

TEST(InnerFrameTest, SetTosKeepsTheHeaderChecksumRight) {
  for (int tos = 0; tos < 256; ++tos) {
    auto frame = udp4(0x51).build();
    set_inner_tos(frame, find_inner_ip(frame), static_cast<uint8_t>(tos));
    EXPECT_EQ(find_inner_ip(frame).tos, tos);
    EXPECT_EQ(frame, udp4(static_cast<uint8_t>(tos)).build());
  }
}

TEST(InnerFrameTest, SetTrafficClassChangesNothingElse) {
  auto frame = tcp6(10).build();
  const auto before = frame;
  set_inner_tos(frame, find_inner_ip(frame), 0x47);
  EXPECT_EQ(find_inner_ip(frame).tos, 0x47);
  set_inner_tos(frame, find_inner_ip(frame), 0xb8);
  EXPECT_EQ(frame, before);
}

// ---- offload state from the frame alone

// Puts the bare pseudo-header sum into the L4 checksum, as the kernel leaves it for a device to complete.
void make_partial(std::span<uint8_t> frame) {
  const InnerIp ip = find_inner_ip(frame);
  const bool v6 = ip.version == 6;
  const uint8_t proto = frame[ip.offset + (v6 ? 6 : 9)];
  const size_t l4 = ip.offset + (v6 ? 40 : 20);
  const auto size = static_cast<uint32_t>(ip.end - l4);
  const uint8_t* header = frame.data() + ip.offset;
  const uint32_t sum =
      v6 ? pseudo_header_sum(load_unaligned<Ipv6Address>(header + 8), load_unaligned<Ipv6Address>(header + 24), proto,
                             size)
         : pseudo_header_sum(load_unaligned<be32>(header + 12), load_unaligned<be32>(header + 16), proto, size);
  store_unaligned(frame.data() + l4 + (proto == kProtoTcp ? 16 : 6), ~checksum_finish(sum));
}

class InnerOffloadTest : public ::testing::Test {
 protected:
  const OffloadState& detect(std::vector<uint8_t> frame, bool partial, uint16_t udp_gso_size = 0) {
    if (partial) make_partial(frame);
    Packet& packet = guarded_.place(frame);
    packet.offload.checksum = ChecksumState::verified;  // must not survive
    detect_inner_offload(packet, udp_gso_size);
    return packet.offload;
  }
  test::GuardedPacket guarded_;
};

TEST_F(InnerOffloadTest, CompleteChecksumIsNotClaimedVerified) {
  EXPECT_EQ(detect(udp4().build(), false).checksum, ChecksumState::none);
  EXPECT_EQ(detect(tcp6(10).build(), false).checksum, ChecksumState::none);
}

TEST_F(InnerOffloadTest, WrongChecksumIsLeftAlone) {
  auto frame = udp4().build();
  frame[14 + 20 + 6] ^= 0x55;
  EXPECT_EQ(detect(frame, false).checksum, ChecksumState::none);
}

TEST_F(InnerOffloadTest, UdpWithoutChecksumIsLeftAlone) {
  auto frame = udp4().build();
  frame[14 + 20 + 6] = frame[14 + 20 + 7] = 0;
  EXPECT_EQ(detect(frame, false).checksum, ChecksumState::none);
}

TEST_F(InnerOffloadTest, PseudoHeaderSumMeansPartial) {
  const OffloadState udp = detect(udp4().build(), true);
  EXPECT_EQ(udp.checksum, ChecksumState::partial);
  EXPECT_EQ(udp.csum_start, 34);
  EXPECT_EQ(udp.csum_offset, 6);
  EXPECT_EQ(udp.gso, GsoType::none);
  const OffloadState tcp = detect(tcp6(10).build(), true);
  EXPECT_EQ(tcp.checksum, ChecksumState::partial);
  EXPECT_EQ(tcp.csum_start, 54);
  EXPECT_EQ(tcp.csum_offset, 16);
}

TEST_F(InnerOffloadTest, CompletingTheDetectedChecksumGivesTheRightOne) {
  for (const auto& frame : {udp4().build(), tcp6(777).build()}) {
    auto partial = frame;
    make_partial(partial);
    Packet& packet = guarded_.place(partial);
    detect_inner_offload(packet, 0);
    ASSERT_TRUE(complete_checksum(packet));
    EXPECT_TRUE(std::equal(frame.begin(), frame.end(), packet.data()));
  }
}

TEST_F(InnerOffloadTest, ChecksumThatIsRightByChanceAsPseudoSumIsComplete) {
  // A payload word chosen so that the right checksum is the folded pseudo-header sum.
  auto frame = udp4().build();
  const auto wanted = [&] {
    auto copy = frame;
    make_partial(copy);
    return load_unaligned<be16>(copy.data() + 40);
  }();
  const be16 old_sum = load_unaligned<be16>(frame.data() + 40);
  const be16 old_word = load_unaligned<be16>(frame.data() + 42);
  // ~new = ~old - old_word + new_word, all in ones' complement.
  uint32_t word = static_cast<uint16_t>(~wanted.host()) + static_cast<uint32_t>(old_sum.host()) + old_word.host();
  while (word > 0xffff) word = (word & 0xffff) + (word >> 16);
  store_unaligned(frame.data() + 42, to_be16(static_cast<uint16_t>(word)));
  store_unaligned(frame.data() + 40, wanted);
  EXPECT_EQ(detect(frame, false).checksum, ChecksumState::none);
}

TEST_F(InnerOffloadTest, LargePartialTcpIsASuperFrameCutForTheSmallestMtu) {
  const OffloadState v6 = detect(tcp6(20000, 0x90).build(), true);
  EXPECT_EQ(v6.gso, GsoType::tcp6);
  EXPECT_EQ(v6.gso_size, kAssumedInnerMtu - 60);
  EXPECT_TRUE(v6.gso_ecn);
  const auto tcp4 = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(3000).build();
  EXPECT_EQ(detect(tcp4, true).gso, GsoType::tcp4);
  EXPECT_EQ(detect(tcp4, true).gso_size, kAssumedInnerMtu - 40);
  EXPECT_FALSE(detect(tcp4, true).gso_ecn);
  EXPECT_EQ(detect(tcp4, false).gso, GsoType::none) << "a jumbo frame with a complete checksum was on a wire";
}

TEST_F(InnerOffloadTest, TcpThatFitsAnEthernetFrameIsNoSuperFrame) {
  EXPECT_EQ(detect(tcp6(1500 - 60).build(), true).gso, GsoType::none);
  EXPECT_EQ(detect(tcp6(1500 - 59).build(), true).gso, GsoType::tcp6);
}

TEST_F(InnerOffloadTest, UdpSuperFrameHasTheReportedSegmentSize) {
  EXPECT_EQ(detect(udp4().build(), true, 40).gso, GsoType::udp_l4);
  EXPECT_EQ(detect(udp4().build(), true, 40).gso_size, 40);
  EXPECT_EQ(detect(udp4().build(), true, 100).gso, GsoType::none) << "one segment is no super-frame";
}

TEST_F(InnerOffloadTest, FragmentsAreLeftAlone) {
  test::Ipv4Options options;
  options.fragment = 0x2000;
  auto frame = PacketBuilder().ethernet().ipv4("10.1.0.1", "10.1.0.2", options).udp(1000, 2000).payload(100).build();
  EXPECT_EQ(detect(frame, true).checksum, ChecksumState::none);
}

}  // namespace
}  // namespace vswitch
