#ifdef VSWITCH_HAVE_DPDK

#include "datapath/vport/dpdk/tx_offload.h"

#include <gtest/gtest.h>
#include <rte_ip.h>

#include <cstring>
#include <numeric>

#include "datapath/vport/dpdk/dpdk_settings.h"
#include "datapath/vport/dpdk/eal.h"
#include "tests/support/fake_vport_host.h"
#include "tests/support/packet_builder.h"

namespace vswitch::dpdk {
namespace {

using test::Bytes;
using test::PacketBuilder;

constexpr uint64_t kChecksums = RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
constexpr uint64_t kAll =
    kChecksums | RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
constexpr size_t kRoom = 2048;
constexpr uint16_t kTcp = 16, kUdp = 6;

TxLimits limits(uint64_t enabled, size_t room) {
  TxLimits limits;
  limits.enabled = enabled;
  limits.room = room;
  return limits;
}

class TxOffloadTest : public testing::Test {
 protected:
  // A packet whose checksum is left to the device, or which is to be cut.
  PacketPtr left(const PacketBuilder& builder, uint16_t start, uint16_t offset, GsoType gso = GsoType::none) {
    PacketPtr packet = builder.build(bench_.ctx().pool);
    packet->offload = {
        ChecksumState::partial, gso, false, static_cast<uint16_t>(gso == GsoType::none ? 0 : 1000), start, offset};
    return packet;
  }
  static PacketBuilder ipv4() { return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2"); }
  static PacketBuilder ipv6() { return PacketBuilder().ethernet().ipv6("2001:db8::1", "2001:db8::2"); }

  const TxOffload all_{limits(kAll, kRoom)};
  test::VportBench bench_;
};

TEST_F(TxOffloadTest, OfUseIsWhatHelpsAlone) {
  EXPECT_EQ(TxOffload::of_use(0), 0u);
  EXPECT_EQ(TxOffload::of_use(RTE_ETH_TX_OFFLOAD_MULTI_SEGS | RTE_ETH_TX_OFFLOAD_VLAN_INSERT), 0u);
  EXPECT_EQ(TxOffload::of_use(RTE_ETH_TX_OFFLOAD_UDP_CKSUM), RTE_ETH_TX_OFFLOAD_UDP_CKSUM);
  EXPECT_EQ(TxOffload::of_use(kAll | RTE_ETH_TX_OFFLOAD_SCTP_CKSUM), kAll);
  EXPECT_EQ(TxOffload::of_use(kAll & ~RTE_ETH_TX_OFFLOAD_MULTI_SEGS), kChecksums) << "a super-frame is many buffers";
  EXPECT_EQ(TxOffload().names(), "none");
  EXPECT_EQ(TxOffload(limits(kChecksums, kRoom)).names(), "UDP_CKSUM,TCP_CKSUM");
}

TEST_F(TxOffloadTest, TellsWhereTheHeadersLie) {
  const auto tcp = all_.work_on(*left(ipv4().tcp(1, 2).payload(100), 34, kTcp));
  ASSERT_TRUE(tcp);
  EXPECT_EQ(tcp->flags, RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4);
  EXPECT_EQ(tcp->header_sizes, rte_mbuf_tx_offload(14, 20, 20, 0, 0, 0, 0));
  const auto udp =
      all_.work_on(*left(PacketBuilder().ethernet().vlan(5).ipv6("2001:db8::1", "2001:db8::2").udp(1, 2), 58, kUdp));
  ASSERT_TRUE(udp);
  EXPECT_EQ(udp->flags, RTE_MBUF_F_TX_UDP_CKSUM | RTE_MBUF_F_TX_IPV6);
  EXPECT_EQ(udp->header_sizes, rte_mbuf_tx_offload(18, 40, 8, 0, 0, 0, 0));
  const auto super4 = all_.work_on(*left(ipv4().tcp(1, 2).payload(5000), 34, kTcp, GsoType::tcp4));
  ASSERT_TRUE(super4);
  EXPECT_EQ(super4->flags,
            RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_IPV4);
  EXPECT_EQ(super4->header_sizes, rte_mbuf_tx_offload(14, 20, 20, 1000, 0, 0, 0));
  const auto super6 = all_.work_on(*left(ipv6().tcp(1, 2).payload(5000), 54, kTcp, GsoType::tcp6));
  ASSERT_TRUE(super6);
  EXPECT_EQ(super6->flags, RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV6);
}

TEST_F(TxOffloadTest, TheRestIsForSoftware) {
  const auto refused = [&](const PacketPtr& packet) { return !all_.work_on(*packet); };
  const TxOffload checksums(limits(kChecksums, kRoom)), udp_only(limits(RTE_ETH_TX_OFFLOAD_UDP_CKSUM, kRoom)),
      small(limits(kAll, 64));
  const PacketPtr tcp = left(ipv4().tcp(1, 2), 34, kTcp),
                  super = left(ipv4().tcp(1, 2).payload(5000), 34, kTcp, GsoType::tcp4);
  EXPECT_FALSE(TxOffload().work_on(*tcp));
  EXPECT_FALSE(udp_only.work_on(*tcp));
  EXPECT_FALSE(checksums.work_on(*super));
  EXPECT_TRUE(small.work_on(*super)) << "54 bytes of headers fit";
  EXPECT_FALSE(small.work_on(
      *left(PacketBuilder().ethernet().vlan(1).vlan(2).vlan(3).ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(5000), 46,
            kTcp, GsoType::tcp4)));
  PacketPtr complete = left(ipv4().tcp(1, 2), 34, kTcp);
  complete->offload = {};
  EXPECT_TRUE(refused(complete));
  EXPECT_TRUE(refused(left(ipv4().udp(1, 4789).payload(100), 84, kTcp))) << "inside a tunnel";
  EXPECT_TRUE(refused(left(ipv4().udp(1, 2).payload(5000), 34, kUdp, GsoType::udp_l4)));
  EXPECT_TRUE(refused(left(ipv4().sctp(1, 2), 34, 8)));
  EXPECT_TRUE(refused(left(ipv4().tcp(1, 2), 34, kUdp)));
  EXPECT_TRUE(refused(left(ipv6().extension(kProtoHopByHop).tcp(1, 2), 62, kTcp)));
  EXPECT_TRUE(refused(left(ipv4().tcp(1, 2).payload(5000), 34, kTcp, GsoType::tcp6)));
  PacketPtr ecn = left(ipv4().tcp(1, 2).payload(5000), 34, kTcp, GsoType::tcp4);
  ecn->offload.gso_ecn = true;
  EXPECT_TRUE(refused(ecn));
  PacketPtr cut = left(ipv4().tcp(1, 2), 34, kTcp);
  cut->data()[34 + 12] = 0xf0;  // a TCP header longer than the datagram
  EXPECT_TRUE(refused(cut));
  cut->data()[34 + 12] = 0x40;
  EXPECT_TRUE(refused(cut));
}

TEST_F(TxOffloadTest, WhatADeviceDoesNotCut) {
  const PacketPtr super4 = left(ipv4().tcp(1, 2).payload(5000), 34, kTcp, GsoType::tcp4);
  const PacketPtr super6 = left(ipv6().tcp(1, 2).payload(5000), 54, kTcp, GsoType::tcp6);
  TxLimits few = limits(kAll, 1024);
  few.mbufs = 4;
  EXPECT_FALSE(TxOffload(few).work_on(*super4)) << "5,054 bytes take five";
  few.mbufs = 5;
  EXPECT_TRUE(TxOffload(few).work_on(*super4));
  TxLimits tap = limits(kAll, kRoom);
  tap.cuts_ipv6 = false;
  tap.longest_piece = 1054;
  EXPECT_TRUE(TxOffload(tap).work_on(*super4));
  EXPECT_FALSE(TxOffload(tap).work_on(*super6));
  tap.longest_piece = 1053;
  EXPECT_FALSE(TxOffload(tap).work_on(*super4));
  EXPECT_FALSE(all_.work_on(*left(ipv4().tcp(1, 2).payload(1000), 34, kTcp, GsoType::tcp4))) << "one segment";
  EXPECT_FALSE(all_.work_on(*left(ipv4().tcp(1, 2).payload(5000).padding(6), 34, kTcp, GsoType::tcp4)));
  EXPECT_FALSE(all_.work_on(*left(ipv4().udp(1, 2).payload(8).padding(10), 34, kUdp)));
  EXPECT_FALSE(
      all_.work_on(*left(PacketBuilder().ethernet().snap(0x0800).ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2), 42, kTcp)));
}

// Folded, not complemented.
uint16_t sum_of(std::initializer_list<uint32_t> words) {
  uint32_t sum = std::accumulate(words.begin(), words.end(), 0u);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

TEST_F(TxOffloadTest, ASuperFrameIsCopiedIntoAsManyBuffersAsItTakes) {
  set_dpdk_settings({"--no-huge -m 256", "", ""});
  ASSERT_TRUE(start_eal("").ok());
  MbufPoolConfig config;
  config.mbufs = 64;
  config.data_room = MbufPool::kReceiveHeadroom + 1024;
  const auto pool = MbufPool::get(config);
  ASSERT_TRUE(pool.ok()) << pool.status().message();
  const PacketPtr super = left(ipv4().tcp(1, 2).payload(5000), 34, kTcp, GsoType::tcp4);
  const auto work = TxOffload(limits(kAll, 1024)).work_on(*super);
  ASSERT_TRUE(work);
  rte_mbuf* const chain = copy_super_frame(*super, *work, **pool);
  ASSERT_NE(chain, nullptr);
  EXPECT_EQ(chain->nb_segs, 5u);
  EXPECT_EQ(chain->pkt_len, super->size());
  EXPECT_EQ(chain->ol_flags, work->flags);
  EXPECT_EQ(chain->tso_segsz, 1000u);
  Bytes copied;
  for (const rte_mbuf* part = chain; part != nullptr; part = part->next) {
    const auto* const data = rte_pktmbuf_mtod(part, const uint8_t*);
    copied.insert(copied.end(), data, data + part->data_len);
  }
  Bytes expected(super->data(), super->data() + super->size());
  expected[24] = expected[25] = 0;  // of IPv4
  const uint16_t pseudo_header = sum_of({0x0a00, 0x0001, 0x0a00, 0x0002, 6});
  expected[50] = static_cast<uint8_t>(pseudo_header >> 8);
  expected[51] = static_cast<uint8_t>(pseudo_header);
  EXPECT_EQ(copied, expected);

  std::vector<rte_mbuf*> taken;
  while (rte_mbuf* const other = rte_pktmbuf_alloc((*pool)->mempool())) taken.push_back(other);
  EXPECT_EQ(copy_super_frame(*super, *work, **pool), nullptr);
  rte_pktmbuf_free(taken.back());
  EXPECT_EQ(copy_super_frame(*super, *work, **pool), nullptr) << "one buffer is not enough";
  taken.back() = rte_pktmbuf_alloc((*pool)->mempool());
  EXPECT_NE(taken.back(), nullptr) << "it was given back";
  for (rte_mbuf* const other : taken) rte_pktmbuf_free(other);
  rte_pktmbuf_free(chain);
  EXPECT_EQ((*pool)->in_use(), 0u);
}

}  // namespace
}  // namespace vswitch::dpdk

#endif
