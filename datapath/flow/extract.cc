#include "datapath/flow/extract.h"

#include <algorithm>
#include <bit>
#include <cstring>

// How this file is made fast: the words that nearly every packet fills are put together in registers and stored whole
// (a word stored in pieces and loaded whole a moment later, as the flow cache does, stalls the processor), everything
// else is cleared with wide stores, and the rare protocols stand in functions that are not inlined.

namespace vswitch {
namespace {

static_assert(kFlowKeyLayout == 1, "FlowKey changed: does extraction fill every new member?");

constexpr size_t kEthernetSize = 14, kVlanTagSize = 4, kSnapSize = 8, kMplsEntrySize = 4;
constexpr size_t kIpv4MinSize = 20, kIpv6Size = 40, kArpSize = 28, kNshBaseSize = 8, kNshType1Size = 24;
constexpr size_t kTcpMinSize = 20, kUdpSize = 8, kSctpSize = 12, kIcmpSize = 8, kIgmpSize = 8, kIcmpv6Size = 8;
constexpr size_t kIpv6ExtensionMinSize = 8;

constexpr be16 kFragmentBits = to_be16(0x3fff);  // IPv4: more fragments, offset
constexpr be16 kFragmentOffsetBits = to_be16(0x1fff);
constexpr be16 kIpv6FragmentOffsetBits = to_be16(0xfff8);
constexpr be16 kTcpFlagBits = to_be16(0x0fff);
constexpr be32 kIpv6LabelBits = to_be32(0x000fffff);
constexpr be32 kMplsBottomOfStack = to_be32(0x100);

// How far ahead of extraction frames are fetched.
constexpr size_t kPrefetchAhead = 4;

constexpr uint8_t kNdSolicit = 135, kNdAdvert = 136;
constexpr uint8_t kNdOptionSource = 1, kNdOptionTarget = 2;

// What is left of the packet. `at` may be advanced only by what `left` allows.
struct Cursor {
  const uint8_t* at;
  size_t left;

  void skip(size_t n) {
    at += n;
    left -= n;
  }
};

// The key's words that are put together in registers.
struct HotWords {
  uint64_t vlan = 0;       // word 3
  uint64_t addresses = 0;  // word 4: nw_src, nw_dst
  uint64_t l4 = 0;         // word 5
  uint64_t ip = 0;         // word 6: label, tos, ttl
};
static_assert(offsetof(FlowKey, vlan) == 3 * 8 && offsetof(FlowKey, nw_src) == 4 * 8 &&
              offsetof(FlowKey, tp_src) == 5 * 8 && offsetof(FlowKey, ipv6_label) == 6 * 8 &&
              offsetof(FlowKey, packet_type) == 7 * 8 && offsetof(FlowKey, skb_mark) == 36 * 8 &&
              offsetof(FlowKey, ipv6_src) == 8 * 8 && offsetof(FlowKey, dp_hash) == 12 * 8 &&
              offsetof(FlowKey, ct_mark) == 13 * 8 && offsetof(FlowKey, tunnel) == 16 * 8 &&
              offsetof(FlowKey, arp_sha) == 24 * 8);

// Members of a word, in memory order, as the word.
constexpr uint64_t pack(uint32_t first, uint32_t second) {
  if constexpr (std::endian::native == std::endian::little) return first | uint64_t{second} << 32;
  return uint64_t{first} << 32 | second;
}
constexpr uint32_t pack(uint16_t first, uint16_t second) {
  if constexpr (std::endian::native == std::endian::little) return first | uint32_t{second} << 16;
  return uint32_t{first} << 16 | second;
}
constexpr uint16_t pack(uint8_t first, uint8_t second) {
  if constexpr (std::endian::native == std::endian::little) return static_cast<uint16_t>(first | second << 8);
  return static_cast<uint16_t>(first << 8 | second);
}

// `ports`: tp_src and tp_dst as they stand on the wire.
constexpr uint64_t l4_word(uint32_t ports, be16 tcp_flags, uint8_t proto, uint8_t frag) {
  return pack(ports, pack(tcp_flags.raw(), pack(proto, frag)));
}
constexpr uint64_t ip_word(be32 label, uint8_t tos, uint8_t ttl) {
  return pack(label.raw(), pack(pack(tos, ttl), uint16_t{0}));
}
// ICMP type and code in the places of the ports.
constexpr uint32_t type_and_code(uint8_t type, uint8_t code) { return pack(to_be16(type).raw(), to_be16(code).raw()); }

// ---- Hash

__extension__ using uint128 = unsigned __int128;

// Odd constants with about as many ones as zeros.
constexpr uint64_t kMix1 = 0x9e3779b97f4a7c15, kMix2 = 0xc2b2ae3d27d4eb4f, kMix3 = 0x165667b19e3779f9;

uint64_t mix(uint64_t a, uint64_t b) {
  const uint128 product = uint128{a} * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

constexpr uint64_t kPortsAndProto = l4_word(0xffffffff, be16{}, 0xff, 0);
constexpr uint64_t kFragWord = l4_word(0, be16{}, 0, 0xff);

uint32_t finish_hash(uint64_t h) {
  const auto folded = static_cast<uint32_t>(h ^ h >> 32);
  return folded != 0 ? folded : 1;
}

uint32_t hash_unfragmented(uint64_t addresses, uint64_t ports_and_proto) {
  return finish_hash(mix(mix(addresses ^ kMix1, ports_and_proto ^ kMix2), kMix3));
}

uint32_t hash_ip(uint64_t addresses, uint64_t l4) {
  // All fragments of a datagram must take one path, and only the first knows the ports (and, in IPv6, the protocol).
  return hash_unfragmented(addresses, (l4 & kFragWord) == 0 ? l4 & kPortsAndProto : 0);
}

uint64_t fold_ipv6(const uint8_t* src, const uint8_t* dst) {
  return mix(load_unaligned<uint64_t>(src) ^ kMix1, load_unaligned<uint64_t>(src + 8) ^ kMix2) +
         mix(load_unaligned<uint64_t>(dst) ^ kMix2, load_unaligned<uint64_t>(dst + 8) ^ kMix3);
}

uint32_t hash_l2(const FlowKey& key) {
  const KeyWord* w = words(key);
  return finish_hash(mix(mix(w[1] ^ kMix1, w[2] ^ kMix2) ^ w[3], kMix3));
}

[[gnu::always_inline]] inline uint32_t hash_words(const FlowKey& key, const HotWords& hot) {
  if (key.eth_type == kEthTypeIpv4) return hash_ip(hot.addresses, hot.l4);
  if (key.eth_type == kEthTypeIpv6) {
    return hash_ip(fold_ipv6(key.ipv6_src.bytes.data(), key.ipv6_dst.bytes.data()), hot.l4);
  }
  return hash_l2(key);
}

// ---- Offsets

// Offsets are 16 bits wide; in the largest super-frames the end of the datagram can lie beyond that.
uint16_t offset16(const uint8_t* frame, const uint8_t* at) {
  const auto offset = static_cast<size_t>(at - frame);
  return offset < LayerOffsets::kNoLayer ? static_cast<uint16_t>(offset) : LayerOffsets::kNoLayer;
}

// ---- Link layer

bool is_vlan_tpid(be16 type) { return type == kEthTypeVlan || type == kEthTypeQinq; }

// `c` stands at the EtherType behind the addresses, where 2 bytes are known to be left, and stays so.
[[gnu::always_inline]] inline uint64_t parse_vlan_tags(Cursor& c) {
  uint64_t tags[2] = {};
  for (size_t n = 0; n < kMaxVlanTags && is_vlan_tpid(load_unaligned<be16>(c.at)); ++n) {
    if (c.left < kVlanTagSize + sizeof(be16)) break;
    tags[n] = pack(load_unaligned<uint16_t>(c.at), (load_unaligned<be16>(c.at + 2) | kVlanCfi).raw());
    c.skip(kVlanTagSize);
  }
  return pack(static_cast<uint32_t>(tags[0]), static_cast<uint32_t>(tags[1]));
}

// An 802.3 frame: the length field has been skipped. The type inside the SNAP header, if there is one.
struct TypeAndRest {
  be16 type;
  Cursor rest;
};
[[gnu::noinline]] TypeAndRest parse_snap(Cursor c) {
  static constexpr uint8_t kSnapHeader[] = {0xaa, 0xaa, 0x03, 0, 0, 0};  // LLC to SNAP, OUI 0
  if (c.left < kSnapSize || std::memcmp(c.at, kSnapHeader, sizeof kSnapHeader) != 0) return {kEthTypeNone, c};
  const auto type = load_unaligned<be16>(c.at + sizeof kSnapHeader);
  c.skip(kSnapSize);
  return {type.host() >= kEthTypeMin ? type : kEthTypeNone, c};
}

void parse_mpls(Cursor& c, FlowKey& key) {
  size_t count = 0;
  while (c.left >= kMplsEntrySize) {
    const auto entry = load_unaligned<be32>(c.at);
    if (count < kMaxMplsLabels) key.mpls[count++] = entry;
    c.skip(kMplsEntrySize);
    if (entry & kMplsBottomOfStack) break;
  }
}

// ---- Protocols beside IP

void parse_arp(const Cursor& c, FlowKey& key, HotWords& hot) {
  static constexpr uint8_t kEthernetIpv4[] = {0, 1, 8, 0, 6, 4};  // hardware, protocol and their address sizes
  if (c.left < kArpSize || std::memcmp(c.at, kEthernetIpv4, sizeof kEthernetIpv4) != 0) return;
  hot.addresses = pack(load_unaligned<uint32_t>(c.at + 14), load_unaligned<uint32_t>(c.at + 24));
  const uint16_t opcode = load_unaligned<be16>(c.at + 6).host();
  if (opcode <= 0xff) hot.l4 = l4_word(0, be16{}, static_cast<uint8_t>(opcode), 0);
  std::memcpy(&key.arp_sha, c.at + 8, sizeof key.arp_sha);
  std::memcpy(&key.arp_tha, c.at + 18, sizeof key.arp_tha);
}

// RFC 8300: version 2 bits, O bit and a reserved bit (together the flags), TTL 6 bits, length in words 6 bits.
void parse_nsh(const Cursor& c, NshKey& nsh) {
  if (c.left < kNshBaseSize) return;
  const uint16_t first = load_unaligned<be16>(c.at).host();
  const size_t length = size_t{first & 0x3fu} * 4;
  const uint8_t mdtype = c.at[2];
  if (first >> 14 != 0 || length > c.left) return;
  if (mdtype == 1 && length != kNshType1Size) return;
  if (mdtype == 2 && length < kNshBaseSize) return;
  nsh.flags = first >> 12 & 0x3;
  nsh.ttl = first >> 6 & 0x3f;
  nsh.mdtype = mdtype;
  nsh.np = c.at[3];
  nsh.path_hdr = load_unaligned<be32>(c.at + 4);
  if (mdtype == 1) std::memcpy(nsh.context.data(), c.at + kNshBaseSize, sizeof nsh.context);
}

// ---- Transport layer

// Neighbour discovery options, behind the target. Parsing ends without complaint at an option whose length is
// impossible; an address given twice makes them all worthless.
void parse_nd_options(Cursor c, FlowKey& key) {
  while (c.left >= 8) {
    const uint8_t type = c.at[0];
    const size_t length = size_t{c.at[1]} * 8;
    if (length == 0 || length > c.left) return;
    if (length == 8 && (type == kNdOptionSource || type == kNdOptionTarget)) {
      MacAddress& address = type == kNdOptionSource ? key.arp_sha : key.arp_tha;
      if (!address.is_zero()) {
        key.nd_target = {};
        key.arp_sha = {};
        key.arp_tha = {};
        return;
      }
      std::memcpy(&address, c.at + 2, sizeof address);
      if (key.nd_options_type == 0) key.nd_options_type = type;
    }
    c.skip(length);
  }
}

void parse_nd(Cursor c, FlowKey& key) {
  key.nd_reserved = load_unaligned<be32>(c.at + 4);
  c.skip(kIcmpv6Size);
  if (c.left < sizeof key.nd_target) return;
  std::memcpy(&key.nd_target, c.at, sizeof key.nd_target);
  c.skip(sizeof key.nd_target);
  parse_nd_options(c, key);
}

// The ports' half word of the protocols that are neither TCP nor UDP. Like Open vSwitch this takes ICMP and ICMPv6 by
// protocol number alone, whichever IP they stand in.
[[gnu::noinline]] uint32_t parse_other_l4(Cursor c, uint8_t proto, FlowKey& key) {
  switch (proto) {
    case kProtoSctp:
      return c.left >= kSctpSize ? load_unaligned<uint32_t>(c.at) : 0;
    case kProtoIcmp:
      return c.left >= kIcmpSize ? type_and_code(c.at[0], c.at[1]) : 0;
    case kProtoIgmp:
      if (c.left < kIgmpSize) return 0;
      key.igmp_group = load_unaligned<be32>(c.at + 4);
      return type_and_code(c.at[0], c.at[1]);
    case kProtoIcmpv6:
      if (c.left < kIcmpv6Size) return 0;
      if ((c.at[0] == kNdSolicit || c.at[0] == kNdAdvert) && c.at[1] == 0) parse_nd(c, key);
      return type_and_code(c.at[0], c.at[1]);
    default:
      return 0;
  }
}

// Word 5 of the key. `c` ends where the datagram does.
[[gnu::always_inline]] inline uint64_t parse_l4(Cursor c, uint8_t proto, uint8_t frag, FlowKey& key) {
  if (__builtin_expect((frag & kFragLater) != 0, 0)) return l4_word(0, be16{}, proto, frag);
  if (proto == kProtoTcp) {
    if (c.left < kTcpMinSize) return l4_word(0, be16{}, proto, frag);
    const size_t header_size = size_t{c.at[12]} >> 4 << 2;
    if (header_size < kTcpMinSize || header_size > c.left) return l4_word(0, be16{}, proto, frag);
    return l4_word(load_unaligned<uint32_t>(c.at), load_unaligned<be16>(c.at + 12) & kTcpFlagBits, proto, frag);
  }
  if (proto == kProtoUdp) {
    return l4_word(c.left >= kUdpSize ? load_unaligned<uint32_t>(c.at) : 0, be16{}, proto, frag);
  }
  return l4_word(parse_other_l4(c, proto, key), be16{}, proto, frag);
}

// ---- Network layer

uint8_t ipv4_frag(be16 fragment_field) {
  if (__builtin_expect(!(fragment_field & kFragmentBits), 1)) return 0;
  return fragment_field & kFragmentOffsetBits ? kFragAny | kFragLater : kFragAny;
}

[[gnu::always_inline]] inline void parse_ipv4(Cursor c, const uint8_t* frame, FlowKey& key, HotWords& hot,
                                              LayerOffsets& layers) {
  if (c.left < kIpv4MinSize) return;
  const uint8_t* ip = c.at;
  const size_t header_size = size_t{ip[0] & 0xfu} * 4;
  const size_t total = load_unaligned<be16>(ip + 2).host();
  if (header_size < kIpv4MinSize || total < header_size || total > c.left || c.left - total > UINT16_MAX) return;
  c.left = total;  // what follows is padding
  layers.l3_end = offset16(frame, ip + total);
  c.skip(header_size);
  layers.l4 = offset16(frame, c.at);
  hot.addresses = load_unaligned<uint64_t>(ip + 12);
  hot.ip = ip_word(be32{}, ip[1], ip[8]);
  hot.l4 = parse_l4(c, ip[9], ipv4_frag(load_unaligned<be16>(ip + 6)), key);
}

bool is_ipv6_extension(uint8_t proto) {
  return proto == kProtoHopByHop || proto == kProtoRouting || proto == kProtoDstOpts || proto == kProtoAh ||
         proto == kProtoFragment;
}

struct ExtensionChain {
  Cursor rest;
  uint8_t proto;
  uint8_t frag;
  bool complete;  // it ended within the packet
};

// Skips extension headers up to the first header that is none, or to a later fragment, whose number stays
// kProtoFragment.
[[gnu::noinline]] ExtensionChain skip_ipv6_extensions(Cursor c, uint8_t proto) {
  uint8_t frag = 0;
  while (is_ipv6_extension(proto)) {
    if (c.left < kIpv6ExtensionMinSize) return {c, proto, frag, false};
    size_t size = (size_t{c.at[1]} + 1) * 8;
    if (proto == kProtoAh) size = (size_t{c.at[1]} + 2) * 4;
    if (proto == kProtoFragment) {
      size = kIpv6ExtensionMinSize;
      const auto offset_and_more = load_unaligned<be16>(c.at + 2);
      if (offset_and_more) frag = kFragAny;
      if (offset_and_more & kIpv6FragmentOffsetBits) {
        c.skip(size);
        return {c, kProtoFragment, kFragAny | kFragLater, true};
      }
    }
    if (size > c.left) return {c, proto, frag, false};
    proto = c.at[0];
    c.skip(size);
  }
  return {c, proto, frag, true};
}

[[gnu::always_inline]] inline void parse_ipv6(Cursor c, const uint8_t* frame, FlowKey& key, HotWords& hot,
                                              LayerOffsets& layers) {
  if (c.left < kIpv6Size) return;
  const uint8_t* ip = c.at;
  const size_t payload = load_unaligned<be16>(ip + 4).host();
  if (payload > c.left - kIpv6Size || c.left - kIpv6Size - payload > UINT16_MAX) return;
  c.skip(kIpv6Size);
  c.left = payload;  // what follows is padding
  layers.l3_end = offset16(frame, c.at + payload);
  std::memcpy(&key.ipv6_src, ip + 8, sizeof key.ipv6_src + sizeof key.ipv6_dst);

  uint8_t proto = ip[6], frag = 0;
  if (__builtin_expect(is_ipv6_extension(proto), 0)) {
    const ExtensionChain chain = skip_ipv6_extensions(c, proto);
    if (!chain.complete) return;
    c = chain.rest;
    proto = chain.proto;
    frag = chain.frag;
  }
  const auto first = load_unaligned<be32>(ip);  // version 4 bits, traffic class 8, label 20
  layers.l4 = offset16(frame, c.at);
  hot.ip = ip_word(first & kIpv6LabelBits, static_cast<uint8_t>(first.host() >> 20), ip[7]);
  hot.l4 = parse_l4(c, proto, frag, key);
}
static_assert(offsetof(FlowKey, ipv6_dst) == offsetof(FlowKey, ipv6_src) + 16);

[[gnu::noinline]] HotWords parse_not_ip(Cursor c, const uint8_t* frame, be16 type, FlowKey& key, LayerOffsets& layers) {
  HotWords hot;
  if (type == kEthTypeMpls || type == kEthTypeMplsMcast) {
    layers.l2_5 = layers.l3;
    parse_mpls(c, key);
    layers.l3 = offset16(frame, c.at);
  } else if (type == kEthTypeArp || type == kEthTypeRarp) {
    parse_arp(c, key, hot);
  } else if (type == kEthTypeNsh) {
    parse_nsh(c, key.nsh);
  }
  return hot;
}

// ---- The key

// Of a packet over IPv4: L4 has put nothing into cold words.
bool only_hot_l4(uint64_t l4) {
  const uint64_t proto = l4 & l4_word(0, be16{}, 0xff, 0);
  return proto == l4_word(0, be16{}, kProtoTcp, 0) || proto == l4_word(0, be16{}, kProtoUdp, 0);
}

// Clears what is not stored whole later on: words 8 to 39, and the Geneve options if there are any. In pieces that the
// compiler turns into wide stores, where for the whole it would call memset or use a string instruction.
void clear_cold_words(FlowKey& key) {
  static_assert(kHotWords == 8 && kCommonWords == 40);
  constexpr size_t kPiece = 16;
  auto* at = reinterpret_cast<uint8_t*>(words(key) + kHotWords);
#pragma GCC unroll 16
  for (size_t i = 0; i < (kCommonWords - kHotWords) * 8 / kPiece; ++i) __builtin_memset(at + i * kPiece, 0, kPiece);
  if (__builtin_expect(key.tun_metadata_present != 0, 0)) {
    key.tun_metadata_present = 0;
    key.tun_metadata = {};
  }
}

// Metadata that goes into cold words.
bool has_cold_metadata(const Packet& packet) {
  return (packet.dp_hash | packet.skb_priority | packet.skb_mark | uint32_t{packet.has_tunnel}) != 0;
}

void copy_metadata(const Packet& packet, FlowKey& key) {
  KeyWord* w = words(key);
  w[0] = pack(packet.in_port, packet.recirc_id);
  w[7] = 0;
  if (__builtin_expect(has_cold_metadata(packet), 0)) {
    w[12] = pack(packet.dp_hash, packet.skb_priority);
    key.skb_mark = packet.skb_mark;
    if (packet.has_tunnel) key.tunnel = packet.tunnel;
  }
}

}  // namespace

namespace {

// Of the frames below, as 8-byte words from two places (in the order of a little-endian processor): source address
// (rest), EtherType, version and header length, TOS ...
constexpr size_t kTypeAt = 8, kLengthAt = 16;
constexpr uint64_t kPlainIpv4 = uint64_t{0x450008} << 32, kTypeAndVersion = uint64_t{0xffffff} << 32;
constexpr uint64_t kEthernetPart = (uint64_t{1} << 48) - 1;
// ... and total length, id, fragment field, TTL, protocol.
constexpr uint64_t kFragmentField = uint64_t{kFragmentBits.raw()} << 32;

// Where a packet that has no other metadata is on its way through the switch.
struct Place {
  uint32_t in_port, recirc_id;
};

// Most packets by far: TCP or UDP over IPv4 without options, fragments or tags, and without metadata but `place`. What
// the general way finds for them, in one piece of straight code. False: not such a packet (or a malformed or very short
// one); nothing has been written. REQUIRES: the cold words and the last hot one are zero.
[[gnu::always_inline]] inline bool extract_common(Packet& packet, Place place, FlowKey& key, uint64_t& identity) {
  if constexpr (std::endian::native != std::endian::little) return false;
  constexpr size_t kL4 = kEthernetSize + kIpv4MinSize;
  constexpr size_t kLeast = kL4 + kUdpSize, kMost = LayerOffsets::kNoLayer - 1;  // every offset has its place
  const uint8_t* frame = packet.data();
  const size_t size = packet.size();
  if (size - kLeast > kMost - kLeast) return false;
  const auto first = load_unaligned<uint64_t>(frame + kTypeAt), second = load_unaligned<uint64_t>(frame + kLengthAt);
  if ((((first ^ kPlainIpv4) & kTypeAndVersion) | (second & kFragmentField)) != 0) return false;
  const size_t total = __builtin_bswap16(static_cast<uint16_t>(second));
  if (total - (kIpv4MinSize + kUdpSize) > size - kLeast) return false;
  const uint64_t proto = second >> 56;
  uint64_t flags = 0;
  if (proto == kProtoTcp) {
    if (total < kIpv4MinSize + kTcpMinSize) return false;
    const auto length_and_flags = load_unaligned<be16>(frame + kL4 + 12);
    const size_t header_size = size_t{length_and_flags.raw() & 0xf0u} >> 2;
    if (header_size < kTcpMinSize || header_size > total - kIpv4MinSize) return false;
    flags = (length_and_flags & kTcpFlagBits).raw();
  } else if (proto != kProtoUdp) {
    return false;
  }
  const auto addresses = load_unaligned<uint64_t>(frame + kEthernetSize + 12);
  const uint64_t ports_and_proto = load_unaligned<uint32_t>(frame + kL4) | proto << 48;
  KeyWord* w = words(key);
  w[0] = pack(place.in_port, place.recirc_id);
  w[1] = load_unaligned<uint64_t>(frame);
  w[2] = first & kEthernetPart;
  w[3] = 0;
  w[4] = addresses;
  w[5] = ports_and_proto | flags << 32;
  w[6] = uint64_t{(first >> 56) | (second >> 40 & 0xff00)} << 32;  // TOS, TTL
  const uint64_t layers = LayerOffsets::kNoLayer | kEthernetSize << 16 | kL4 << 32 | (kEthernetSize + total) << 48;
  packet.layers = std::bit_cast<LayerOffsets>(layers);
  const uint32_t hash = hash_unfragmented(addresses, ports_and_proto);
  packet.rss_hash = hash;
  identity = connection_identity(hash, place.in_port, place.recirc_id);
  return true;
}
static_assert(offsetof(LayerOffsets, l2_5) == 0 && offsetof(LayerOffsets, l3) == 2 && offsetof(LayerOffsets, l4) == 4 &&
              offsetof(LayerOffsets, l3_end) == 6);

[[gnu::noinline]] bool extract_any(Packet& packet, FlowKey& key, bool& cold_is_zero) {
  const uint8_t* frame = packet.data();
  if (__builtin_expect(packet.size() < kEthernetSize, 0)) return false;
  if (__builtin_expect(!cold_is_zero, 0)) clear_cold_words(key);
  copy_metadata(packet, key);

  Cursor c{frame + 2 * sizeof(MacAddress), packet.size() - 2 * sizeof(MacAddress)};
  uint64_t vlan = 0;
  if (__builtin_expect(is_vlan_tpid(load_unaligned<be16>(c.at)), 0)) vlan = parse_vlan_tags(c);
  auto type = load_unaligned<be16>(c.at);
  c.skip(sizeof type);
  if (__builtin_expect(type.host() < kEthTypeMin, 0)) {
    const TypeAndRest snap = parse_snap(c);
    type = snap.type;
    c = snap.rest;
  }

  KeyWord* w = words(key);
  w[1] = load_unaligned<uint64_t>(frame);
  w[2] = pack(load_unaligned<uint32_t>(frame + 8), pack(type.raw(), uint16_t{0}));

  LayerOffsets& layers = packet.layers;
  layers = {};
  layers.l3 = offset16(frame, c.at);
  HotWords hot;
  if (__builtin_expect(type == kEthTypeIpv4, 1)) {
    parse_ipv4(c, frame, key, hot, layers);
    cold_is_zero = only_hot_l4(hot.l4) && !has_cold_metadata(packet);
  } else if (type == kEthTypeIpv6) {
    parse_ipv6(c, frame, key, hot, layers);
    cold_is_zero = false;
  } else {
    hot = parse_not_ip(c, frame, type, key, layers);
    cold_is_zero = false;
  }
  hot.vlan = vlan;
  w[3] = hot.vlan;
  w[4] = hot.addresses;
  w[5] = hot.l4;
  w[6] = hot.ip;
  packet.rss_hash = hash_words(key, hot);
  return true;
}

}  // namespace

bool extract_flow_key(Packet& packet, FlowKey& key) {
  bool cold_is_zero = false;
  return extract_any(packet, key, cold_is_zero);
}

namespace {

// Packet by packet. Returns whether there is a key.
bool extract_one(Packet& packet, FlowKey& key, bool& cold_is_zero, uint64_t& identity) {
  const Place place{packet.in_port, packet.recirc_id};
  if (cold_is_zero && !has_cold_metadata(packet) && extract_common(packet, place, key, identity)) return true;
  if (!extract_any(packet, key, cold_is_zero)) return false;
  identity = connection_identity(packet.rss_hash, packet.in_port, packet.recirc_id);
  return true;
}

}  // namespace

uint32_t extract_flow_keys(Packet* const packets[], size_t count, KeySlots& slots, uint64_t identities[],
                           uint32_t sole_port, IdentityLines wanted_next) {
  const uint32_t all = count == KeySlots::kCount ? ~uint32_t{0} : (uint32_t{1} << count) - 1;
  size_t i = 0;
  if (sole_port != 0 && (slots.cold_is_zero_ & all) == all) {
    // Whoever received them has looked at the frames: no need to fetch them ahead.
    for (; i < count; ++i) {
      uint64_t identity;
      if (!extract_common(*packets[i], {sole_port, 0}, slots.slots_[i].key, identity)) break;
      identities[i] = identity;
      wanted_next.prefetch(identity);
    }
    if (i == count) return all;
  }
  uint32_t good = all;
  for (; i < count; ++i) {
    if (i + kPrefetchAhead < count) __builtin_prefetch(packets[i + kPrefetchAhead]->data());
    const uint32_t bit = uint32_t{1} << i;
    bool cold_is_zero = (slots.cold_is_zero_ & bit) != 0;
    if (extract_one(*packets[i], slots.slots_[i].key, cold_is_zero, identities[i])) {
      wanted_next.prefetch(identities[i]);
    } else {
      good &= ~bit;
    }
    slots.cold_is_zero_ = cold_is_zero ? slots.cold_is_zero_ | bit : slots.cold_is_zero_ & ~bit;
  }
  return good;
}

uint32_t flow_hash(const FlowKey& key) {
  const KeyWord* w = words(key);
  return hash_words(key, {.vlan = w[3], .addresses = w[4], .l4 = w[5], .ip = w[6]});
}

}  // namespace vswitch
