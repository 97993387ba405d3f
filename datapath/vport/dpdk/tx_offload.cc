#include "datapath/vport/dpdk/tx_offload.h"

#include <netinet/in.h>
#include <rte_ip.h>
#include <rte_udp.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "datapath/packet/ip_layout.h"

namespace vswitch::dpdk {
namespace {

constexpr uint64_t kTso = RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM |
                          RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
constexpr uint64_t kChecksums = RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
constexpr size_t kTcpChecksum = 16, kUdpChecksum = 6, kLeastTcpHeader = 20, kLongestTcpHeader = 60;
constexpr size_t kMostInFrontOfIp = 0x7f;

// An 802.3 frame has its length in front of this, which no device adjusts when it cuts.
bool is_snap(const Packet& packet, const IpLayout& ip) {
  constexpr std::array<uint8_t, 6> kSnap = {0xaa, 0xaa, 0x03, 0, 0, 0};
  constexpr size_t kType = 2;
  const size_t behind = kSnap.size() + kType;
  return ip.l3 >= behind && std::memcmp(packet.data() + ip.l3 - behind, kSnap.data(), kSnap.size()) == 0;
}

// The datagram whose L4 header the packet's offload state is about, if that is the frame's own, and a device can be
// told. An mbuf has seven bits for the length of what is in front of IP. Behind IPv6 extension headers not all devices
// look.
std::optional<IpLayout> layout_of(const Packet& packet) {
  const OffloadState& offload = packet.offload;
  const std::optional<IpLayout> ip = find_ip({packet.data(), packet.size()});
  if (!ip || !ip->has_l4 || ip->fragment || ip->final_destination != 0 || ip->l4 != offload.csum_start) return {};
  if (ip->l3_end != packet.size() || is_snap(packet, *ip)) return {};
  if (ip->l3 > kMostInFrontOfIp || (ip->is_v6 && ip->l4 - ip->l3 != sizeof(rte_ipv6_hdr))) return {};
  return ip;
}

// Bytes of the TCP header, or 0 if it does not make sense.
size_t tcp_header_size(const Packet& packet, const IpLayout& ip) {
  if (ip.l4_size() < kLeastTcpHeader) return 0;
  const size_t size = static_cast<size_t>(packet.data()[ip.l4 + 12] >> 4) * 4;
  return size >= kLeastTcpHeader && size <= std::min(ip.l4_size(), kLongestTcpHeader) ? size : 0;
}

TxWork describe(const IpLayout& ip, uint64_t l4_flags, size_t l4_size, uint16_t segment) {
  return {l4_flags | (ip.is_v6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4),
          rte_mbuf_tx_offload(ip.l3, ip.l4 - ip.l3, l4_size, segment, 0, 0, 0)};
}

// A device that cuts computes the checksums anew: that of IPv4 is to be 0, and that of TCP the sum of the pseudo-header
// without its length.
void prepare_checksums(uint8_t* frame, const rte_mbuf& mbuf) {
  uint8_t* const l3 = frame + mbuf.l2_len;
  uint16_t sum;
  if ((mbuf.ol_flags & RTE_MBUF_F_TX_IPV4) != 0) {
    auto* const ip = reinterpret_cast<rte_ipv4_hdr*>(l3);
    ip->hdr_checksum = 0;
    sum = rte_ipv4_phdr_cksum(ip, mbuf.ol_flags);
  } else {
    sum = rte_ipv6_phdr_cksum(reinterpret_cast<rte_ipv6_hdr*>(l3), mbuf.ol_flags);
  }
  std::memcpy(l3 + mbuf.l3_len + kTcpChecksum, &sum, sizeof sum);
}

}  // namespace

uint64_t TxOffload::of_use(uint64_t capabilities) {
  return capabilities & ((capabilities & kTso) == kTso ? kTso | kChecksums : kChecksums);
}

std::optional<TxWork> TxOffload::work_on(const Packet& packet) const {
  const OffloadState& offload = packet.offload;
  if (limits_.enabled == 0 || offload.checksum != ChecksumState::partial) return {};
  const std::optional<IpLayout> ip = layout_of(packet);
  if (!ip) return {};
  switch (offload.gso) {
    case GsoType::tcp4:
    case GsoType::tcp6:
      return cutting(packet, *ip);
    case GsoType::none:
      return checksum(packet, *ip);
    case GsoType::udp_l4:
      break;
  }
  return {};
}

std::optional<TxWork> TxOffload::cutting(const Packet& packet, const IpLayout& ip) const {
  const OffloadState& offload = packet.offload;
  if (ip.proto != IPPROTO_TCP || offload.gso_size == 0 || ip.is_v6 != (offload.gso == GsoType::tcp6)) return {};
  if ((limits_.enabled & kTso) != kTso || (ip.is_v6 && !limits_.cuts_ipv6)) return {};
  if (offload.gso_ecn) return {};  // not all devices leave CWR to the first segment
  const size_t tcp_header = tcp_header_size(packet, ip), headers = ip.l4 + tcp_header;
  if (tcp_header == 0 || headers > limits_.room) return {};
  const size_t piece = headers + offload.gso_size;
  if (packet.size() <= piece) return {};  // nothing to cut: devices differ in what they do then
  if (limits_.longest_piece != 0 && piece > limits_.longest_piece) return {};
  const size_t mbufs = (packet.size() + limits_.room - 1) / limits_.room;
  if (limits_.mbufs != 0 && mbufs > limits_.mbufs) return {};
  const uint64_t ipv4 = ip.is_v6 ? 0 : RTE_MBUF_F_TX_IP_CKSUM;
  return describe(ip, RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | ipv4, tcp_header, offload.gso_size);
}

std::optional<TxWork> TxOffload::checksum(const Packet& packet, const IpLayout& ip) const {
  const uint16_t offset = packet.offload.csum_offset;
  if (ip.proto == IPPROTO_TCP && offset == kTcpChecksum && (limits_.enabled & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) != 0) {
    const size_t header = tcp_header_size(packet, ip);
    if (header != 0) return describe(ip, RTE_MBUF_F_TX_TCP_CKSUM, header, 0);
  }
  if (ip.proto == IPPROTO_UDP && offset == kUdpChecksum && (limits_.enabled & RTE_ETH_TX_OFFLOAD_UDP_CKSUM) != 0) {
    if (ip.l4_size() >= sizeof(rte_udp_hdr)) return describe(ip, RTE_MBUF_F_TX_UDP_CKSUM, sizeof(rte_udp_hdr), 0);
  }
  return {};
}

std::string TxOffload::names() const {
  std::string names;
  for (uint64_t left = limits_.enabled; left != 0; left &= left - 1) {
    names += (names.empty() ? "" : ",") + std::string(rte_eth_dev_tx_offload_name(left & -left));
  }
  return names.empty() ? "none" : names;
}

rte_mbuf* copy_super_frame(const Packet& packet, const TxWork& work, const MbufPool& pool) {
  rte_mbuf* const head = rte_pktmbuf_alloc(pool.mempool());
  rte_mbuf* last = head;
  for (size_t at = 0; last != nullptr;) {
    const size_t size = std::min<size_t>(packet.size() - at, rte_pktmbuf_tailroom(last));
    std::memcpy(rte_pktmbuf_mtod(last, uint8_t*), packet.data() + at, size);
    last->data_len = static_cast<uint16_t>(size);
    at += size;
    if (at == packet.size()) break;
    last->next = rte_pktmbuf_alloc(pool.mempool());
    last = last->next;
    ++head->nb_segs;
  }
  if (head == nullptr) return nullptr;
  if (last == nullptr) {
    --head->nb_segs;
    rte_pktmbuf_free(head);
    return nullptr;
  }
  head->pkt_len = static_cast<uint32_t>(packet.size());
  work.tell(*head);
  prepare_checksums(rte_pktmbuf_mtod(head, uint8_t*), *head);
  return head;
}

}  // namespace vswitch::dpdk
