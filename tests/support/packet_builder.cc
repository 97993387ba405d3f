#include "tests/support/packet_builder.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "datapath/packet/checksum.h"

namespace vswitch::test {
namespace {

static_assert(kFlowKeyLayout == 1, "FlowKey changed: can compose() express the new members?");

[[noreturn]] void bad_literal(std::string_view what, std::string_view text) {
  std::fprintf(stderr, "%.*s: not a valid %.*s\n", static_cast<int>(text.size()), text.data(),
               static_cast<int>(what.size()), what.data());
  std::abort();
}

void put8(Bytes& to, uint8_t v) { to.push_back(v); }
void put16(Bytes& to, uint16_t v) {
  put8(to, static_cast<uint8_t>(v >> 8));
  put8(to, static_cast<uint8_t>(v));
}
void put32(Bytes& to, uint32_t v) {
  put16(to, static_cast<uint16_t>(v >> 16));
  put16(to, static_cast<uint16_t>(v));
}
template <size_t n>
void put(Bytes& to, const std::array<uint8_t, n>& bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}
void set16(uint8_t* at, uint16_t v) { store_unaligned(at, to_be16(v)); }

// `ip`: the IP header that the L4 header stands in.
uint32_t pseudo_header(std::span<const uint8_t> ip, bool is_v6, uint8_t proto, size_t l4_size) {
  const auto length = static_cast<uint32_t>(l4_size);
  if (is_v6) {
    Ipv6Address src, dst;
    std::memcpy(&src, &ip[8], sizeof src);
    std::memcpy(&dst, &ip[24], sizeof dst);
    return pseudo_header_sum(src, dst, proto, length);
  }
  return pseudo_header_sum(load_unaligned<be32>(&ip[12]), load_unaligned<be32>(&ip[16]), proto, length);
}

void store_checksum(std::span<uint8_t> l4, size_t at, uint32_t sum, bool zero_means_none) {
  set16(&l4[at], 0);
  be16 value = checksum_finish(checksum_partial(l4, sum));
  if (zero_means_none && !value) value = ~be16{};
  store_unaligned(&l4[at], value);
}

}  // namespace

MacAddress mac(std::string_view text) {
  const auto address = MacAddress::parse(text);
  return address ? *address : (bad_literal("MAC address", text), MacAddress{});
}
be32 ipv4(std::string_view text) {
  const auto address = parse_ipv4(text);
  return address ? *address : (bad_literal("IPv4 address", text), be32{});
}
Ipv6Address ipv6(std::string_view text) {
  const auto address = Ipv6Address::parse(text);
  return address ? *address : (bad_literal("IPv6 address", text), Ipv6Address{});
}

PacketBuilder& PacketBuilder::add(Kind kind, Bytes bytes) {
  headers_.push_back({.kind = kind, .bytes = std::move(bytes)});
  return *this;
}

void PacketBuilder::name_next_type(uint16_t type) {
  if (headers_.empty()) return;
  Header& before = headers_.back();
  const bool link = before.kind == Kind::ethernet || before.kind == Kind::vlan || before.kind == Kind::llc;
  if (!link || before.fixed_type || before.bytes.size() < 2) return;
  set16(before.bytes.data() + before.bytes.size() - 2, type);
}

void PacketBuilder::name_next_protocol(uint8_t proto) {
  if (headers_.empty() || headers_.back().fixed_type) return;
  Header& before = headers_.back();
  if (before.kind == Kind::ipv4) before.bytes[9] = proto;
  if (before.kind == Kind::ipv6) before.bytes[6] = proto;
  if (before.kind == Kind::extension) before.bytes[0] = proto;
}

PacketBuilder& PacketBuilder::ethernet(std::string_view src, std::string_view dst) {
  return ethernet(mac(src), mac(dst));
}

PacketBuilder& PacketBuilder::ethernet(const MacAddress& src, const MacAddress& dst) {
  Bytes b;
  put(b, dst.bytes);
  put(b, src.bytes);
  put16(b, 0xffff);  // a type that nobody knows, until a header follows
  return add(Kind::ethernet, std::move(b));
}

PacketBuilder& PacketBuilder::eth_type(uint16_t type) {
  name_next_type(type);
  if (!headers_.empty()) headers_.back().fixed_type = true;
  return *this;
}

PacketBuilder& PacketBuilder::vlan(uint16_t vid, uint8_t pcp, uint16_t tpid) {
  return vlan_tci(static_cast<uint16_t>(vid | pcp << 13), tpid);
}

PacketBuilder& PacketBuilder::vlan_tci(uint16_t tci, uint16_t tpid) {
  name_next_type(tpid);
  Bytes b;
  put16(b, tci);
  put16(b, 0xffff);
  return add(Kind::vlan, std::move(b));
}

PacketBuilder& PacketBuilder::llc(std::initializer_list<uint8_t> header) {
  name_next_type(0);  // the length, which build() fills
  add(Kind::llc, header);
  headers_.back().fixed_type = true;
  return *this;
}

PacketBuilder& PacketBuilder::snap(uint16_t type, uint32_t oui) {
  llc({0xaa, 0xaa, 0x03, static_cast<uint8_t>(oui >> 16), static_cast<uint8_t>(oui >> 8), static_cast<uint8_t>(oui)});
  put16(headers_.back().bytes, type);
  headers_.back().fixed_type = false;
  return *this;
}

PacketBuilder& PacketBuilder::mpls(uint32_t label, uint8_t tc, bool bottom, uint8_t ttl, uint16_t type) {
  name_next_type(type);
  Bytes b;
  put32(b, label << 12 | uint32_t{tc} << 9 | uint32_t{bottom} << 8 | ttl);
  return add(Kind::mpls, std::move(b));
}

PacketBuilder& PacketBuilder::ipv4(std::string_view src, std::string_view dst, const Ipv4Options& options) {
  return ipv4(test::ipv4(src), test::ipv4(dst), options);
}

PacketBuilder& PacketBuilder::ipv4(be32 src, be32 dst, const Ipv4Options& o) {
  name_next_type(0x0800);
  Bytes options = o.options;
  options.resize((options.size() + 3) / 4 * 4);
  Bytes b;
  put8(b, o.version_ihl.value_or(static_cast<uint8_t>(0x45 + options.size() / 4)));
  put8(b, o.tos);
  put16(b, o.total_length.value_or(0));
  put16(b, o.id);
  put16(b, o.fragment);
  put8(b, o.ttl);
  put8(b, o.protocol.value_or(253));  // "experimental", until a header follows
  put16(b, 0);
  put32(b, src.host());
  put32(b, dst.host());
  b.insert(b.end(), options.begin(), options.end());
  add(Kind::ipv4, std::move(b));
  headers_.back().fixed_type = o.protocol.has_value();
  headers_.back().fixed_length = o.total_length.has_value();
  return *this;
}

PacketBuilder& PacketBuilder::ipv6(std::string_view src, std::string_view dst, const Ipv6Options& options) {
  return ipv6(test::ipv6(src), test::ipv6(dst), options);
}

PacketBuilder& PacketBuilder::ipv6(const Ipv6Address& src, const Ipv6Address& dst, const Ipv6Options& o) {
  name_next_type(0x86dd);
  Bytes b;
  put32(b, 6u << 28 | uint32_t{o.traffic_class} << 20 | (o.label & 0xfffff));
  put16(b, o.payload_length.value_or(0));
  put8(b, o.next_header.value_or(kProtoNoNext));
  put8(b, o.hop_limit);
  put(b, src.bytes);
  put(b, dst.bytes);
  add(Kind::ipv6, std::move(b));
  headers_.back().fixed_type = o.next_header.has_value();
  headers_.back().fixed_length = o.payload_length.has_value();
  return *this;
}

PacketBuilder& PacketBuilder::extension(IpProto type, size_t size) {
  name_next_protocol(type);
  Bytes b(size);
  b[0] = kProtoNoNext;
  b[1] = static_cast<uint8_t>(type == kProtoAh ? size / 4 - 2 : size / 8 - 1);
  return add(Kind::extension, std::move(b));
}

PacketBuilder& PacketBuilder::ipv6_fragment(uint16_t offset_and_flags, uint32_t id) {
  name_next_protocol(kProtoFragment);
  Bytes b{kProtoNoNext, 0};
  put16(b, offset_and_flags);
  put32(b, id);
  return add(Kind::extension, std::move(b));
}

PacketBuilder& PacketBuilder::add_arp(uint16_t type, uint16_t opcode, const MacAddress& sha, be32 spa,
                                      const MacAddress& tha, be32 tpa) {
  name_next_type(type);
  Bytes b{0, 1, 8, 0, 6, 4};
  put16(b, opcode);
  put(b, sha.bytes);
  put32(b, spa.host());
  put(b, tha.bytes);
  put32(b, tpa.host());
  return add(Kind::arp, std::move(b));
}

PacketBuilder& PacketBuilder::arp(uint16_t opcode, const MacAddress& sha, be32 spa, const MacAddress& tha, be32 tpa) {
  return add_arp(0x0806, opcode, sha, spa, tha, tpa);
}

PacketBuilder& PacketBuilder::rarp(uint16_t opcode, const MacAddress& sha, be32 spa, const MacAddress& tha, be32 tpa) {
  return add_arp(0x8035, opcode, sha, spa, tha, tpa);
}

PacketBuilder& PacketBuilder::nsh(const NshKey& nsh) {
  name_next_type(0x894f);
  const unsigned length_words = nsh.mdtype == 1 ? 6 : 2;
  Bytes b;
  put16(b, static_cast<uint16_t>((nsh.flags & 3u) << 12 | (nsh.ttl & 0x3fu) << 6 | length_words));
  put8(b, nsh.mdtype);
  put8(b, nsh.np);
  put32(b, nsh.path_hdr.host());
  if (nsh.mdtype == 1) {
    for (be32 context : nsh.context) put32(b, context.host());
  }
  return add(Kind::nsh, std::move(b));
}

PacketBuilder& PacketBuilder::add_l4(Kind kind, Bytes bytes, uint8_t proto) {
  name_next_protocol(proto);
  return add(kind, std::move(bytes));
}

PacketBuilder& PacketBuilder::tcp(uint16_t src, uint16_t dst, const TcpOptions& o) {
  Bytes b;
  put16(b, src);
  put16(b, dst);
  put32(b, o.seq);
  put32(b, o.ack);
  put16(b, static_cast<uint16_t>(o.data_offset.value_or(5) << 12 | (o.flags & 0xfff)));
  put16(b, o.window);
  put32(b, 0);  // checksum, urgent pointer
  return add_l4(Kind::tcp, std::move(b), kProtoTcp);
}

PacketBuilder& PacketBuilder::udp(uint16_t src, uint16_t dst) {
  Bytes b;
  put16(b, src);
  put16(b, dst);
  put32(b, 0);
  return add_l4(Kind::udp, std::move(b), kProtoUdp);
}

PacketBuilder& PacketBuilder::sctp(uint16_t src, uint16_t dst) {
  Bytes b;
  put16(b, src);
  put16(b, dst);
  put32(b, 0);  // verification tag
  put32(b, 0);  // CRC32c
  return add_l4(Kind::sctp, std::move(b), kProtoSctp);
}

PacketBuilder& PacketBuilder::icmp(uint8_t type, uint8_t code) {
  return add_l4(Kind::icmp, {type, code, 0, 0, 0, 1, 0, 1}, kProtoIcmp);
}

PacketBuilder& PacketBuilder::igmp(uint8_t type, uint8_t code, be32 group) {
  Bytes b{type, code, 0, 0};
  put32(b, group.host());
  return add_l4(Kind::igmp, std::move(b), kProtoIgmp);
}

PacketBuilder& PacketBuilder::icmpv6(uint8_t type, uint8_t code, be32 data) {
  Bytes b{type, code, 0, 0};
  put32(b, data.host());
  return add_l4(Kind::icmpv6, std::move(b), kProtoIcmpv6);
}

PacketBuilder& PacketBuilder::nd_target(const Ipv6Address& target) { return raw(target.bytes); }

PacketBuilder& PacketBuilder::nd_option(uint8_t type, const MacAddress& address) {
  Bytes b{type, 1};
  put(b, address.bytes);
  return raw(b);
}

PacketBuilder& PacketBuilder::payload(std::string_view text) { return add(Kind::payload, {text.begin(), text.end()}); }

PacketBuilder& PacketBuilder::payload(size_t size) {
  Bytes b(size);
  for (size_t i = 0; i < size; ++i) b[i] = static_cast<uint8_t>(i);
  return add(Kind::payload, std::move(b));
}

PacketBuilder& PacketBuilder::raw(std::span<const uint8_t> bytes) {
  return add(Kind::payload, {bytes.begin(), bytes.end()});
}

PacketBuilder& PacketBuilder::padding(size_t size) {
  padding_ += size;
  return *this;
}

// Fills what depends on the bytes that follow, from the last header to the first, so that checksums cover finished
// headers.
Bytes PacketBuilder::build() const {
  Bytes frame;
  std::vector<size_t> starts;
  for (const Header& header : headers_) {
    starts.push_back(frame.size());
    frame.insert(frame.end(), header.bytes.begin(), header.bytes.end());
  }
  for (size_t i = headers_.size(); i-- > 0;) finish_header(i, starts, frame);
  frame.resize(std::max(frame.size() + padding_, min_size_));
  return frame;
}

void PacketBuilder::finish_header(size_t i, const std::vector<size_t>& starts, Bytes& frame) const {
  const Header& header = headers_[i];
  const std::span<uint8_t> rest(frame.data() + starts[i], frame.size() - starts[i]);
  // The pseudo-header of the IP header before, if there is one.
  const auto pseudo = [&](uint8_t proto) -> uint32_t {
    for (size_t j = i; j-- > 0;) {
      const Kind kind = headers_[j].kind;
      if (kind != Kind::ipv4 && kind != Kind::ipv6) continue;
      return pseudo_header(std::span(frame.data() + starts[j], headers_[j].bytes.size()), kind == Kind::ipv6, proto,
                           rest.size());
    }
    return 0;
  };
  switch (header.kind) {
    case Kind::llc:
      // The length stands at the end of the header before.
      if (starts[i] >= 2) set16(&frame[starts[i] - 2], static_cast<uint16_t>(rest.size()));
      break;
    case Kind::ipv4:
      if (!header.fixed_length) set16(&rest[2], static_cast<uint16_t>(rest.size()));
      store_checksum(rest.first(header.bytes.size()), 10, 0, false);
      break;
    case Kind::ipv6:
      if (!header.fixed_length) set16(&rest[4], static_cast<uint16_t>(rest.size() - header.bytes.size()));
      break;
    case Kind::tcp:
      store_checksum(rest, 16, pseudo(kProtoTcp), false);
      break;
    case Kind::udp:
      set16(&rest[4], static_cast<uint16_t>(rest.size()));
      store_checksum(rest, 6, pseudo(kProtoUdp), true);
      break;
    case Kind::sctp:
      store_unaligned(&rest[8], be32{});
      store_unaligned(&rest[8], crc32c(rest));
      break;
    case Kind::icmp:
    case Kind::igmp:
      store_checksum(rest, 2, 0, false);
      break;
    case Kind::icmpv6:
      store_checksum(rest, 2, pseudo(kProtoIcmpv6), false);
      break;
    case Kind::ethernet:
    case Kind::vlan:
    case Kind::mpls:
    case Kind::extension:
    case Kind::arp:
    case Kind::nsh:
    case Kind::payload:
      break;
  }
}

PacketPtr PacketBuilder::build(PacketPool& pool) const { return make_packet(pool, build()); }

PacketPtr make_packet(PacketPool& pool, std::span<const uint8_t> frame, size_t headroom) {
  if (headroom > pool.buffer_size() || frame.size() > pool.buffer_size() - headroom) return nullptr;
  PacketPtr packet = pool.allocate(headroom);
  if (packet == nullptr) return nullptr;
  packet->set_size(frame.size());
  std::copy(frame.begin(), frame.end(), packet->data());
  return packet;
}

// ---- compose

namespace {

void compose_icmpv6(const FlowKey& key, size_t payload_size, PacketBuilder& b) {
  const auto type = static_cast<uint8_t>(key.tp_src.host()), code = static_cast<uint8_t>(key.tp_dst.host());
  b.icmpv6(type, code, key.nd_reserved);
  if (code != 0 || (type != 135 && type != 136)) {
    b.payload(payload_size);
    return;
  }
  b.nd_target(key.nd_target);
  const auto source = [&] {
    if (!key.arp_sha.is_zero()) b.nd_option(1, key.arp_sha);
  };
  // The first option decides nd_options_type.
  if (key.nd_options_type != 2) source();
  if (!key.arp_tha.is_zero()) b.nd_option(2, key.arp_tha);
  if (key.nd_options_type == 2) source();
}

void compose_l4(const FlowKey& key, size_t payload_size, PacketBuilder& b) {
  const uint16_t src = key.tp_src.host(), dst = key.tp_dst.host();
  const auto type = static_cast<uint8_t>(src), code = static_cast<uint8_t>(dst);
  if ((key.nw_frag & kFragLater) != 0) {
    b.payload(payload_size);
    return;
  }
  switch (key.nw_proto) {
    case kProtoTcp:
      b.tcp(src, dst, {.flags = key.tcp_flags.host()}).payload(payload_size);
      return;
    case kProtoUdp:
      b.udp(src, dst).payload(payload_size);
      return;
    case kProtoSctp:
      b.sctp(src, dst).payload(payload_size);
      return;
    case kProtoIcmp:
      b.icmp(type, code).payload(payload_size);
      return;
    case kProtoIgmp:
      b.igmp(type, code, key.igmp_group).payload(payload_size);
      return;
    case kProtoIcmpv6:
      compose_icmpv6(key, payload_size, b);
      return;
    default:
      b.payload(payload_size);
  }
}

void compose_ip(const FlowKey& key, size_t payload_size, PacketBuilder& b) {
  const bool any = (key.nw_frag & kFragAny) != 0, later = (key.nw_frag & kFragLater) != 0;
  if (key.eth_type == kEthTypeIpv4) {
    const auto fragment = static_cast<uint16_t>((any ? 0x2000 : 0) | (later ? 100 : 0));
    b.ipv4(key.nw_src, key.nw_dst,
           {.tos = key.nw_tos, .ttl = key.nw_ttl, .fragment = fragment, .protocol = key.nw_proto});
  } else {
    const Ipv6Options options{.traffic_class = key.nw_tos,
                              .hop_limit = key.nw_ttl,
                              .label = key.ipv6_label.host(),
                              .next_header = any ? uint8_t{kProtoFragment} : key.nw_proto};
    b.ipv6(key.ipv6_src, key.ipv6_dst, options);
    const std::array<uint8_t, 8> fragment{
        later ? uint8_t{kProtoUdp} : key.nw_proto, 0, 0, static_cast<uint8_t>(later ? 0x11 : 1), 0, 0, 0, 1};
    if (any) b.raw(fragment);
  }
  compose_l4(key, payload_size, b);
}

void compose_mpls(const FlowKey& key, size_t payload_size, PacketBuilder& b) {
  for (be32 entry : key.mpls) {
    const uint32_t v = entry.host();
    b.mpls(v >> 12, v >> 9 & 7, (v & 0x100) != 0, static_cast<uint8_t>(v), key.eth_type.host());
    if ((v & 0x100) != 0) break;
  }
  b.payload(payload_size);
}

}  // namespace

Bytes compose(const FlowKey& key, size_t payload_size) {
  PacketBuilder b;
  b.ethernet(key.eth_src, key.eth_dst);
  for (const VlanTag& tag : key.vlan) {
    if (tag.tci & kVlanCfi) b.vlan_tci(tag.tci.host(), tag.tpid ? tag.tpid.host() : 0x8100);
  }
  if (key.is_ip()) {
    compose_ip(key, payload_size, b);
  } else if (key.eth_type == kEthTypeArp) {
    b.arp(key.nw_proto, key.arp_sha, key.nw_src, key.arp_tha, key.nw_dst);
  } else if (key.eth_type == kEthTypeRarp) {
    b.rarp(key.nw_proto, key.arp_sha, key.nw_src, key.arp_tha, key.nw_dst);
  } else if (key.eth_type == kEthTypeMpls || key.eth_type == kEthTypeMplsMcast) {
    compose_mpls(key, payload_size, b);
  } else if (key.eth_type == kEthTypeNsh) {
    b.nsh(key.nsh).payload(payload_size);
  } else if (key.eth_type == kEthTypeNone) {
    b.llc({0x42, 0x42, 0x03}).payload(payload_size);  // as a spanning tree frame
  } else {
    b.eth_type(key.eth_type.host()).payload(payload_size);
  }
  return b.build();
}

// ---- Hex

Bytes from_hex(std::string_view hex) {
  Bytes bytes;
  std::string digits;
  for (char c : hex) {
    if (c == ' ' || c == '\n' || c == '\t') continue;
    if (std::isxdigit(static_cast<unsigned char>(c)) == 0) bad_literal("hex string", hex);
    digits += c;
    if (digits.size() < 2) continue;
    bytes.push_back(static_cast<uint8_t>(std::stoul(digits, nullptr, 16)));
    digits.clear();
  }
  if (!digits.empty()) bad_literal("hex string", hex);
  return bytes;
}

std::string to_hex(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (uint8_t b : bytes) {
    text += kDigits[b >> 4];
    text += kDigits[b & 15];
  }
  return text;
}

}  // namespace vswitch::test
