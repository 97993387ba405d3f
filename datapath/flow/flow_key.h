// FlowKey: everything about a packet that a flow may match on, in one fixed layout of 64-bit words.
//
// Layout: the words that nearly every packet fills come first (kHotWords, two cache lines for IPv4), rare protocols
// after. No padding: unused bytes are named and always zero, so keys compare, hash and mask as arrays of words.
// A FlowMask is the same struct used as a bit mask: 1 bits matter. `matches(key, flow_key, mask)` is
// (key & mask) == flow_key for every word, where flow_key is already masked.
//
// Byte order: wire fields are be16/be32/be64 or byte arrays; numbers that never stood on a wire (ports, marks,
// ct_state, recirc_id, ...) are host order.
//
// Which field is where for which protocol (as Open vSwitch, lib/flow.h and ovs-fields(7)):
//   nw_src/nw_dst    IPv4 addresses; arp_spa/arp_tpa for ARP and RARP
//   nw_proto         IP protocol; ARP opcode (low 8 bits, 0 if larger)
//   tp_src/tp_dst    TCP/UDP/SCTP ports; ICMP and ICMPv6 and IGMP type/code (in the low 8 bits)
//   arp_sha/arp_tha  ARP; ND source / target link-layer address option (nd_sll / nd_tll)
//   nw_frag          FragBits
//   vlan[i].tci      CFI bit (0x1000) set whenever the tag is present, so 0 means "no tag"
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "datapath/base/address.h"
#include "datapath/base/byte_order.h"
#include "datapath/packet/tunnel_metadata.h"

namespace vswitch {

enum FragBits : uint8_t {
  kFragAny = 1 << 0,    // packet is a fragment
  kFragLater = 1 << 1,  // and not the first one
};

inline constexpr be16 kVlanCfi = to_be16(0x1000);  // "tag present" in VlanTag::tci
inline constexpr size_t kMaxVlanTags = 2;
inline constexpr size_t kMaxMplsLabels = 3;

// EtherTypes (be16) that extraction and translation name.
inline constexpr be16 kEthTypeIpv4 = to_be16(0x0800);
inline constexpr be16 kEthTypeArp = to_be16(0x0806);
inline constexpr be16 kEthTypeRarp = to_be16(0x8035);
inline constexpr be16 kEthTypeVlan = to_be16(0x8100);
inline constexpr be16 kEthTypeQinq = to_be16(0x88a8);
inline constexpr be16 kEthTypeIpv6 = to_be16(0x86dd);
inline constexpr be16 kEthTypeMpls = to_be16(0x8847);
inline constexpr be16 kEthTypeMplsMcast = to_be16(0x8848);
inline constexpr be16 kEthTypeNsh = to_be16(0x894f);
inline constexpr be16 kEthTypeNone = to_be16(0x05ff);  // an 802.3 frame without SNAP header (OFP_DL_TYPE_NOT_ETH_TYPE)
inline constexpr uint16_t kEthTypeMin = 0x0600;        // below: an 802.3 length

// IP protocol numbers.
enum IpProto : uint8_t {
  kProtoHopByHop = 0,
  kProtoIcmp = 1,
  kProtoIgmp = 2,
  kProtoTcp = 6,
  kProtoUdp = 17,
  kProtoRouting = 43,
  kProtoFragment = 44,
  kProtoGre = 47,
  kProtoAh = 51,
  kProtoIcmpv6 = 58,
  kProtoNoNext = 59,
  kProtoDstOpts = 60,
  kProtoSctp = 132,
};

struct VlanTag {
  be16 tpid{};
  be16 tci{};  // kVlanCfi set when the tag is present
  bool operator==(const VlanTag&) const = default;
};

struct NshKey {
  uint8_t flags = 0, ttl = 0, mdtype = 0, np = 0;
  be32 path_hdr{};  // SPI << 8 | SI
  std::array<be32, 4> context{};
  bool operator==(const NshKey&) const = default;
};

struct FlowKey {
  // ---- word 0: datapath metadata
  uint32_t in_port = 0;  // datapath port number in the datapath; OpenFlow port number during translation
  uint32_t recirc_id = 0;
  // ---- words 1-2: Ethernet
  MacAddress eth_dst;
  MacAddress eth_src;
  be16 eth_type{};  // of the frame behind the VLAN tags
  uint16_t pad_eth = 0;
  // ---- word 3: outer and inner VLAN tag
  std::array<VlanTag, kMaxVlanTags> vlan{};
  // ---- word 4: IPv4 / ARP
  be32 nw_src{};
  be32 nw_dst{};
  // ---- word 5: L4
  be16 tp_src{};
  be16 tp_dst{};
  be16 tcp_flags{};  // 12 bits
  uint8_t nw_proto = 0;
  uint8_t nw_frag = 0;  // FragBits
  // ---- word 6
  be32 ipv6_label{};  // 20 bits
  uint8_t nw_tos = 0;
  uint8_t nw_ttl = 0;
  uint16_t pad_ip = 0;
  // ---- word 7: packet type, and the part of conntrack that nearly every stateful rule looks at
  be32 packet_type{};     // namespace << 16 | type; 0 is Ethernet
  uint32_t ct_state = 0;  // new 1, est 2, rel 4, rpl 8, inv 16, trk 32, snat 64, dnat 128
  // ---- words 8-11: IPv6
  Ipv6Address ipv6_src;
  Ipv6Address ipv6_dst;
  // ---- word 12
  uint32_t dp_hash = 0;
  uint32_t skb_priority = 0;
  // ---- words 13-15: conntrack
  uint32_t ct_mark = 0;
  uint16_t ct_zone = 0;
  uint8_t ct_nw_proto = 0;
  uint8_t pad_ct = 0;
  std::array<uint64_t, 2> ct_label{};  // host order, [0] is the most significant half
  // ---- words 16-23: tunnel metadata of the packet as received / as to be sent
  TunnelMetadata tunnel;
  // ---- words 24-27: ARP hardware addresses / ND options, ND target
  MacAddress arp_sha;
  uint16_t pad_sha = 0;
  MacAddress arp_tha;
  uint16_t pad_tha = 0;
  Ipv6Address nd_target;
  // ---- words 28-29: MPLS label stack entries as they stand (label 20, tc 3, bos 1, ttl 8), IGMP group
  std::array<be32, kMaxMplsLabels> mpls{};
  be32 igmp_group{};
  // ---- words 30-31: conntrack original tuple, IPv4 and ports
  be32 ct_nw_src{};
  be32 ct_nw_dst{};
  be16 ct_tp_src{};
  be16 ct_tp_dst{};
  be32 nd_reserved{};
  // ---- words 32-35: conntrack original tuple, IPv6
  Ipv6Address ct_ipv6_src;
  Ipv6Address ct_ipv6_dst;
  // ---- words 36-39: mark, ND options type, NSH
  uint32_t skb_mark = 0;
  uint8_t nd_options_type = 0;
  uint8_t pad_nd[3] = {};
  NshKey nsh;
  // ---- words 40-72: Geneve options as table-mapped tun_metadata (256 bytes), and which of 0..63 are present
  uint64_t tun_metadata_present = 0;
  std::array<uint8_t, 256> tun_metadata{};

  bool operator==(const FlowKey& other) const { return std::memcmp(this, &other, sizeof *this) == 0; }
  bool has_vlan() const { return bool(vlan[0].tci & kVlanCfi); }
  bool is_ip() const { return eth_type == kEthTypeIpv4 || eth_type == kEthTypeIpv6; }
};

// Whoever changes FlowKey must revisit every place that names this constant (extract, mask, format, parse, translate,
// proto): grep for kFlowKeyLayout.
inline constexpr size_t kFlowKeyWords = sizeof(FlowKey) / 8;
inline constexpr int kFlowKeyLayout = 1;
static_assert(sizeof(FlowKey) == 73 * 8, "FlowKey changed: update kFlowKeyLayout and every place that names it");
inline constexpr size_t kHotWords = 8;      // metadata, Ethernet, VLAN, IPv4, L4, packet type: one cache line of a key
inline constexpr size_t kCommonWords = 40;  // all but Geneve options

// Words of a key may be read through this type whatever their members are.
using KeyWord [[gnu::may_alias]] = uint64_t;

template <typename Struct>
inline KeyWord* words(Struct& s) {
  static_assert(sizeof(Struct) % 8 == 0 && alignof(Struct) >= 8);
  return reinterpret_cast<KeyWord*>(&s);
}
template <typename Struct>
inline const KeyWord* words(const Struct& s) {
  static_assert(sizeof(Struct) % 8 == 0 && alignof(Struct) >= 8);
  return reinterpret_cast<const KeyWord*>(&s);
}

using FlowMask = FlowKey;

// ---- Pipeline fields: what rules can read and write, but no packet carries and the datapath never sees.

inline constexpr size_t kRegisterCount = 16;

struct PipelineFields {
  // reg0..reg15, host order. xregN is reg[2N] << 32 | reg[2N+1]; xxregN the four from reg[4N], most significant first.
  std::array<uint32_t, kRegisterCount> reg{};
  be64 metadata{};
  uint32_t actset_output = 0;  // OpenFlow port number that the action set would output to
  uint32_t conj_id = 0;
};

// The key that rules are matched against: the packet's key with in_port as OpenFlow port number, and pipeline fields.
// FlowKey comes first, so a field's offset is the same in both.
struct PipelineKey {
  FlowKey packet;
  PipelineFields pipeline;

  bool operator==(const PipelineKey& other) const { return std::memcmp(this, &other, sizeof *this) == 0; }
};
inline constexpr size_t kPipelineKeyWords = sizeof(PipelineKey) / 8;
static_assert(sizeof(PipelineKey) == (73 + 10) * 8);

using PipelineMask = PipelineKey;

}  // namespace vswitch
