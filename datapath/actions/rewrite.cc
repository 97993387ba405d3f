#include "datapath/actions/rewrite.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "datapath/packet/checksum.h"
#include "datapath/packet/ip_layout.h"

namespace vswitch {

namespace {

constexpr size_t kEthernetSize = 14;
constexpr size_t kArpSize = 28;  // Ethernet and IPv4
constexpr size_t kIcmpSize = 4;  // what is needed of it: type, code, checksum
constexpr size_t kNdSize = 24;   // neighbour solicitation or advertisement up to its options

// ---- masked values

template <std::unsigned_integral Word>
Word blend(Word old_value, Word value, Word mask) {
  return static_cast<Word>((old_value & static_cast<Word>(~mask)) | value);
}
template <std::unsigned_integral T>
BigEndian<T> blend(BigEndian<T> old_value, BigEndian<T> value, BigEndian<T> mask) {
  return (old_value & ~mask) | value;
}
// Packet bytes are read, changed in registers and written in the same pieces: a piece that is read right after parts of
// it were written stalls the processor.
template <typename Word>
void blend_at(uint8_t* out, const uint8_t* old_value, const uint8_t* value, const uint8_t* mask) {
  store_unaligned(out, blend(load_unaligned<Word>(old_value), load_unaligned<Word>(value), load_unaligned<Word>(mask)));
}
MacAddress blend(const MacAddress& old_value, const MacAddress& value, const MacAddress& mask) {
  MacAddress out;
  blend_at<uint32_t>(&out.bytes[0], &old_value.bytes[0], &value.bytes[0], &mask.bytes[0]);
  blend_at<uint16_t>(&out.bytes[4], &old_value.bytes[4], &value.bytes[4], &mask.bytes[4]);
  return out;
}
Ipv6Address blend(const Ipv6Address& old_value, const Ipv6Address& value, const Ipv6Address& mask) {
  Ipv6Address out;
  blend_at<uint64_t>(&out.bytes[0], &old_value.bytes[0], &value.bytes[0], &mask.bytes[0]);
  blend_at<uint64_t>(&out.bytes[8], &old_value.bytes[8], &value.bytes[8], &mask.bytes[8]);
  return out;
}

template <typename Value>
void store_masked(uint8_t* at, const Value& value, const Value& mask) {
  store_unaligned(at, blend(load_unaligned<Value>(at), value, mask));
}

// ---- L4 checksums

struct L4Checksum {
  uint8_t* field;
  bool partial;  // it holds the pseudo-header sum, not complemented, and only that
  bool is_udp;
};

// Offset of a ones' complement checksum in the L4 header and the header bytes needed to reach it; 0: none.
size_t checksum_offset(const IpLayout& ip) {
  switch (ip.proto) {
    case kProtoTcp:
      return 16;
    case kProtoUdp:
      return 6;
    case kProtoIcmp:
      return ip.is_v6 ? 0 : 2;
    case kProtoIcmpv6:
      return ip.is_v6 ? 2 : 0;
    default:
      return 0;
  }
}

// The checksum that changes in this packet's L4 header or pseudo-header show up in; none if there is none, or a UDP
// sender chose to do without.
std::optional<L4Checksum> find_l4_checksum(Packet& packet, const IpLayout& ip) {
  const size_t offset = checksum_offset(ip);
  if (!ip.has_l4 || offset == 0 || ip.l4_size() < offset + 2) return std::nullopt;
  const OffloadState& offload = packet.offload;
  // A partial checksum may also be that of a packet inside this one; ours is then an ordinary one.
  const bool partial =
      offload.checksum == ChecksumState::partial && offload.csum_start == ip.l4 && offload.csum_offset == offset;
  uint8_t* field = packet.data() + ip.l4 + offset;
  const bool is_udp = ip.proto == kProtoUdp;
  if (is_udp && !partial && !load_unaligned<be16>(field)) return std::nullopt;
  return L4Checksum{field, partial, is_udp};
}

template <typename Value>
void update_sum(uint8_t* field, const Value& old_value, const Value& new_value) {
  store_unaligned(field, checksum_update(load_unaligned<be16>(field), old_value, new_value));
}

// Something the L4 header itself holds changed. A partial checksum does not cover it yet.
template <typename Value>
void l4_changed(const std::optional<L4Checksum>& sum, const Value& old_value, const Value& new_value) {
  if (!sum || sum->partial) return;
  update_sum(sum->field, old_value, new_value);
  if (sum->is_udp && !load_unaligned<be16>(sum->field)) store_unaligned(sum->field, to_be16(0xffff));
}

// Something of the pseudo-header changed.
template <typename Value>
void pseudo_header_changed(const std::optional<L4Checksum>& sum, const Value& old_value, const Value& new_value) {
  if (!sum || !sum->partial) return l4_changed(sum, old_value, new_value);
  const be16 complement = ~load_unaligned<be16>(sum->field);
  store_unaligned(sum->field, ~checksum_update(complement, old_value, new_value));
}

// Writes the masked value at `at` in the IP header and keeps the sums over it right: IPv4's own, if `header_sum` is not
// null, and that of the L4 header whose pseudo-header it is part of.
template <typename Value>
void set_summed(uint8_t* at, const Value& value, const Value& mask, uint8_t* header_sum,
                const std::optional<L4Checksum>& l4) {
  const auto old_value = load_unaligned<Value>(at);
  const Value new_value = blend(old_value, value, mask);
  if (new_value == old_value) return;
  store_unaligned(at, new_value);
  if (header_sum != nullptr) update_sum(header_sum, old_value, new_value);
  pseudo_header_changed(l4, old_value, new_value);
}

// ICMP and IGMP have no pseudo-header in IPv4.
std::optional<L4Checksum> find_pseudo_header_checksum(Packet& packet, const IpLayout& ip) {
  if (!ip.is_v6 && ip.proto == kProtoIcmp) return std::nullopt;
  return find_l4_checksum(packet, ip);
}

std::optional<IpLayout> find_l4(Packet& packet, uint8_t proto, size_t min_size) {
  auto ip = find_ip(packet.bytes());
  if (!ip || !ip->has_l4 || ip->proto != proto || ip->l4_size() < min_size) return std::nullopt;
  return ip;
}

// Whether the packet is of `proto`, but ends before find_l4() would find the header. There is nothing to write then,
// and the packet goes on as it is, as in Open vSwitch: who receives it will find it just as short.
bool is_cut_short(Packet& packet, uint8_t proto) {
  const auto ip = find_ip(packet.bytes());
  return ip && ip->has_l4 && ip->proto == proto;
}

// ---- transport

size_t transport_size(uint8_t proto) {
  switch (proto) {
    case kProtoTcp:
      return 20;
    case kProtoUdp:
      return 8;
    case kProtoSctp:
      return 12;
    default:
      return 0;
  }
}

be32 sctp_crc(std::span<uint8_t> datagram) {
  store_unaligned(datagram.data() + 8, be32{});
  return crc32c(datagram);
}

// Extraction sees no ports in a TCP header that is shorter or longer than can be, so there are none to change;
// the packet goes on as it is.
bool is_sound_tcp(const uint8_t* tcp, size_t size) {
  const size_t header_size = size_t{tcp[12]} >> 4 << 2;
  return header_size >= transport_size(kProtoTcp) && header_size <= size;
}

// Both ports as they stand in the header.
be32 port_pair(be16 src, be16 dst) { return to_be32(uint32_t{src.host()} << 16 | dst.host()); }

void set_ports(uint8_t* l4, const SetTransportAction& set) {
  store_masked(l4, port_pair(set.src, set.dst), port_pair(set.src_mask, set.dst_mask));
}

// CRC32c is linear: how far the stored one was off stays the same, so damage stays visible.
bool set_sctp_ports(Packet& packet, const IpLayout& ip, const SetTransportAction& set) {
  if (ip.fragment) return false;
  const auto datagram = packet.bytes().subspan(ip.l4, ip.l4_size());
  const OffloadState& offload = packet.offload;
  if (offload.checksum == ChecksumState::partial && offload.csum_start == ip.l4) {
    set_ports(datagram.data(), set);
    return true;
  }
  const auto stored = load_unaligned<be32>(datagram.data() + 8);
  const be32 error = stored ^ sctp_crc(datagram);
  set_ports(datagram.data(), set);
  store_unaligned(datagram.data() + 8, sctp_crc(datagram) ^ error);
  return true;
}

// ---- neighbour discovery

enum NdOption : uint8_t { kSourceLinkAddress = 1, kTargetLinkAddress = 2 };

void set_link_address(uint8_t* at, const MacAddress& value, const MacAddress& mask,
                      const std::optional<L4Checksum>& sum) {
  const auto old_value = load_unaligned<MacAddress>(at);
  const MacAddress new_value = blend(old_value, value, mask);
  store_unaligned(at, new_value);
  for (size_t i = 0; i < 6; i += 2) {
    l4_changed(sum, load_unaligned<be16>(&old_value.bytes[i]), load_unaligned<be16>(&new_value.bytes[i]));
  }
}

// Sets the first option of each kind, which is the one that extraction reads; stops at a malformed one.
void set_nd_options(std::span<uint8_t> options, const SetNdAction& set, const std::optional<L4Checksum>& sum) {
  bool seen_source = false;
  bool seen_target = false;
  while (options.size() >= 8) {
    const size_t size = size_t{options[1]} * 8;
    if (size == 0 || size > options.size()) return;
    if (size == 8 && options[0] == kSourceLinkAddress && !std::exchange(seen_source, true)) {
      set_link_address(&options[2], set.sll, set.sll_mask, sum);
    } else if (size == 8 && options[0] == kTargetLinkAddress && !std::exchange(seen_target, true)) {
      set_link_address(&options[2], set.tll, set.tll_mask, sum);
    }
    options = options.subspan(size);
  }
}

bool is_neighbour_message(const uint8_t* icmp) { return (icmp[0] == 135 || icmp[0] == 136) && icmp[1] == 0; }

}  // namespace

bool set_ethernet(Packet& packet, const SetEthernetAction& set) {
  if (packet.size() < kEthernetSize) return false;
  store_masked(packet.data(), set.dst, set.dst_mask);
  store_masked(packet.data() + 6, set.src, set.src_mask);
  return true;
}

bool set_ipv4(Packet& packet, const SetIpv4Action& set) {
  const auto ip = find_ip(packet.bytes());
  if (!ip || ip->is_v6) return false;
  uint8_t* header = packet.data() + ip->l3;
  uint8_t* header_sum = header + 10;
  const auto l4 = find_pseudo_header_checksum(packet, *ip);
  set_summed(header + 12, set.src, set.src_mask, header_sum, l4);
  set_summed(header + 16, set.dst, set.dst_mask, header_sum, l4);
  // TOS and TTL each share a checksummed word with a neighbour that stays.
  const auto low = [](uint8_t byte) { return to_be16(byte); };
  const auto high = [](uint8_t byte) { return to_be16(static_cast<uint16_t>(byte << 8)); };
  set_summed(header, low(set.tos), low(set.tos_mask), header_sum, std::nullopt);
  set_summed(header + 8, high(set.ttl), high(set.ttl_mask), header_sum, std::nullopt);
  return true;
}

bool set_ipv6(Packet& packet, const SetIpv6Action& set) {
  const auto ip = find_ip(packet.bytes());
  if (!ip || !ip->is_v6) return false;
  uint8_t* header = packet.data() + ip->l3;
  const auto l4 = find_pseudo_header_checksum(packet, *ip);
  set_summed(header + 8, set.src, set.src_mask, nullptr, l4);
  set_summed(header + 24, set.dst, set.dst_mask, nullptr, ip->final_destination == 0 ? l4 : std::nullopt);
  // version 4, traffic class 8, flow label 20; none of it, nor the hop limit, is summed anywhere.
  const be32 tclass = to_be32(uint32_t{set.tclass} << 20);
  const be32 tclass_mask = to_be32(uint32_t{set.tclass_mask} << 20);
  const be32 label_bits = to_be32(0xfffff);
  store_masked(header, tclass | (set.label & label_bits), tclass_mask | (set.label_mask & label_bits));
  header[7] = blend(header[7], set.hop_limit, set.hop_limit_mask);
  return true;
}

bool set_transport(Packet& packet, const SetTransportAction& set) {
  const size_t header_size = transport_size(set.proto);
  const auto ip = find_l4(packet, set.proto, header_size);
  if (header_size == 0) return false;
  if (!ip) return is_cut_short(packet, set.proto);
  if (set.proto == kProtoSctp) return set_sctp_ports(packet, *ip, set);
  uint8_t* l4 = packet.data() + ip->l4;
  if (set.proto == kProtoTcp && !is_sound_tcp(l4, ip->l4_size())) return true;
  const auto sum = find_l4_checksum(packet, *ip);
  const auto old_ports = load_unaligned<be32>(l4);
  set_ports(l4, set);
  l4_changed(sum, old_ports, load_unaligned<be32>(l4));
  return true;
}

bool set_icmp(Packet& packet, const SetIcmpAction& set) {
  const auto ip = find_l4(packet, set.proto, kIcmpSize);
  if (!ip) return is_cut_short(packet, set.proto);
  if (ip->proto != (ip->is_v6 ? kProtoIcmpv6 : kProtoIcmp)) return false;
  uint8_t* l4 = packet.data() + ip->l4;
  const auto sum = find_l4_checksum(packet, *ip);
  const auto old_word = load_unaligned<be16>(l4);
  l4[0] = blend(l4[0], set.type, set.type_mask);
  l4[1] = blend(l4[1], set.code, set.code_mask);
  l4_changed(sum, old_word, load_unaligned<be16>(l4));
  return true;
}

bool set_arp(Packet& packet, const SetArpAction& set) {
  const auto payload = find_ethernet_payload(packet.bytes());
  if (!payload || (payload->eth_type != 0x0806 && payload->eth_type != 0x8035)) return false;
  if (packet.size() - payload->offset < kArpSize) return false;
  constexpr uint8_t kEthernetIpv4[] = {0, 1, 8, 0, 6, 4};  // hardware and protocol type, and their address sizes
  uint8_t* arp = packet.data() + payload->offset;
  if (std::memcmp(arp, kEthernetIpv4, sizeof kEthernetIpv4) != 0) return false;
  store_masked(arp + 6, set.op, set.op_mask);
  store_masked(arp + 8, set.sha, set.sha_mask);
  store_masked(arp + 14, set.spa, set.spa_mask);
  store_masked(arp + 18, set.tha, set.tha_mask);
  store_masked(arp + 24, set.tpa, set.tpa_mask);
  return true;
}

bool set_nd(Packet& packet, const SetNdAction& set) {
  const auto ip = find_l4(packet, kProtoIcmpv6, kNdSize);
  if (!ip) return is_cut_short(packet, kProtoIcmpv6);
  if (!ip->is_v6) return false;
  uint8_t* l4 = packet.data() + ip->l4;
  if (!is_neighbour_message(l4)) return false;
  const auto sum = find_l4_checksum(packet, *ip);
  const auto old_target = load_unaligned<Ipv6Address>(l4 + 8);
  store_masked(l4 + 8, set.target, set.target_mask);
  l4_changed(sum, old_target, load_unaligned<Ipv6Address>(l4 + 8));
  set_nd_options(packet.bytes().subspan(ip->l4 + kNdSize, ip->l4_size() - kNdSize), set, sum);
  return true;
}

}  // namespace vswitch
