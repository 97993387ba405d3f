#include "vswitchd/openflow/datapath_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <span>
#include <string_view>
#include <utility>

namespace vswitch {
namespace {

// Builds "name(a=1,b=2/0x3),name(...)": sections of fields. Every item is followed by a comma, which is taken back
// where the list ends. A field is written if its mask is not empty, or always when verbose.
class Writer {
 public:
  explicit Writer(bool verbose) : verbose_(verbose) {}

  bool verbose() const { return verbose_; }
  void open(std::string_view name) { fmt::format_to(std::back_inserter(text_), "{}(", name); }
  void close() {
    chomp();
    text_ += "),";
  }
  void raw(std::string_view text) { text_ += text; }
  std::string take() {
    chomp();
    return std::move(text_);
  }

  template <typename T>
  void decimal(std::string_view name, T value, T mask) {
    if (!wanted(mask)) return;
    put("{}={}", name, unsigned(value));
    put_mask(mask);
  }
  template <typename T>
  void hex(std::string_view name, T value, T mask, T full = static_cast<T>(~T{0})) {
    if (!wanted(mask)) return;
    put("{}={}", name, hex_text(value));
    put_mask(mask, full);
  }
  void mac(std::string_view name, const MacAddress& value, const MacAddress& mask) {
    if (!wanted(!mask.is_zero())) return;
    put("{}={}", name, value.to_string());
    end(mask.is_broadcast() ? "" : fmt::format("/{}", mask.to_string()));
  }
  void ipv4(std::string_view name, be32 value, be32 mask) {
    if (!wanted(bool(mask))) return;
    put("{}={}", name, ipv4_to_string(value));
    end(mask == ~be32{} ? std::string() : fmt::format("/{}", ipv4_to_string(mask)));
  }
  void ipv6(std::string_view name, const Ipv6Address& value, const Ipv6Address& mask) {
    if (!wanted(!mask.is_zero())) return;
    put("{}={}", name, value.to_string());
    const bool full = std::all_of(mask.bytes.begin(), mask.bytes.end(), [](uint8_t b) { return b == 0xff; });
    end(full ? "" : fmt::format("/{}", mask.to_string()));
  }
  // "0x1" or "0x1/0xff" alone in its section, which is left out with an empty mask.
  template <typename T>
  void section(std::string_view name, T value, T mask) {
    if (!wanted(mask)) return;
    put("{}({}", name, hex_text(value));
    if (mask != static_cast<T>(~T{0})) put("/{}", hex_text(mask));
    text_ += "),";
  }
  // "+a-b" for partly masked bits, "a|b" for fully masked ones.
  void flags(uint32_t value, uint32_t mask, uint32_t full, std::span<const std::string_view> names) {
    if (mask == full) {
      text_ += set_flags(value, names);
    } else if (!mask) {
      text_ += "0/0";
    } else {
      for (size_t bit = 0; bit < names.size(); ++bit) {
        if (mask >> bit & 1) put("{}{}", value >> bit & 1 ? '+' : '-', names[bit]);
      }
    }
  }

  static std::string hex_text(uint64_t value) { return value ? fmt::format("{:#x}", value) : "0"; }

 private:
  static std::string set_flags(uint32_t value, std::span<const std::string_view> names) {
    std::string out;
    for (size_t bit = 0; bit < names.size(); ++bit) {
      if (value >> bit & 1) out.append(out.empty() ? "" : "|").append(names[bit]);
    }
    return out.empty() ? "0" : out;
  }
  bool wanted(uint64_t mask) const { return verbose_ || mask != 0; }
  template <typename... Args>
  void put(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
  }
  template <typename T>
  void put_mask(T mask, T full = static_cast<T>(~T{0})) {
    end((mask & full) == full ? "" : fmt::format("/{}", hex_text(mask)));
  }
  void end(std::string_view mask_text) {
    text_ += mask_text;
    text_ += ',';
  }
  void chomp() {
    if (!text_.empty() && text_.back() == ',') text_.pop_back();
  }

  std::string text_;
  bool verbose_;
};

constexpr std::array<std::string_view, 8> kCtStateNames = {"new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"};
constexpr std::array<std::string_view, 12> kTcpFlagNames = {"fin", "syn", "rst", "psh",   "ack",   "urg",
                                                            "ece", "cwr", "ns",  "[200]", "[400]", "[800]"};
// In the order of libopenvswitch's bits, which is that of the text.
constexpr std::array<std::string_view, 4> kTunnelFlagNames = {"oam", "df", "csum", "key"};
constexpr uint32_t kAllTunnelFlags = 0xf;
constexpr uint16_t kAllTcpFlags = 0x0fff;

uint32_t tunnel_flags_in_text_order(uint16_t flags) {
  return (flags & kTunnelOam ? 1u : 0u) | (flags & kTunnelDontFragment ? 2u : 0u) |
         (flags & kTunnelChecksum ? 4u : 0u) | (flags & kTunnelKey ? 8u : 0u);
}

std::string port_text(uint32_t port, const DatapathTextOptions& options) {
  std::string name = options.port_name ? options.port_name(port) : std::string();
  return name.empty() ? std::to_string(port) : name;
}

// ---- Key sections. `k` is the key, `m` its mask. kFlowKeyLayout 1: a new member of FlowKey belongs in one of them.
static_assert(kFlowKeyLayout == 1);

void write_tunnel(const TunnelMetadata& k, const TunnelMetadata& m, Writer& w) {
  w.open("tunnel");
  if (k.flags & kTunnelKey) w.hex("tun_id", k.id.host(), m.id.host());
  if (k.src) w.ipv4("src", k.src, m.src);
  if (k.dst) w.ipv4("dst", k.dst, m.dst);
  if (!k.src6.is_zero()) w.ipv6("ipv6_src", k.src6, m.src6);
  if (!k.dst6.is_zero()) w.ipv6("ipv6_dst", k.dst6, m.dst6);
  if (k.tos) w.hex("tos", k.tos, m.tos);
  w.decimal("ttl", k.ttl, m.ttl);
  if (k.tp_src) w.decimal("tp_src", k.tp_src.host(), m.tp_src.host());
  if (k.tp_dst) w.decimal("tp_dst", k.tp_dst.host(), m.tp_dst.host());
  if (k.gbp_id || k.gbp_flags) {
    w.open("vxlan");
    w.open("gbp");
    w.decimal("id", k.gbp_id.host(), m.gbp_id.host());
    w.hex("flags", k.gbp_flags, m.gbp_flags);
    w.close();
    w.close();
  }
  const uint32_t mask = tunnel_flags_in_text_order(m.flags);
  if (w.verbose() || mask) {
    w.open("flags");
    w.flags(tunnel_flags_in_text_order(k.flags), mask, kAllTunnelFlags, kTunnelFlagNames);
    w.close();
  }
  w.close();
}

void write_ct_label(const FlowKey& k, const FlowMask& m, Writer& w) {
  if (!w.verbose() && !m.ct_label[0] && !m.ct_label[1]) return;
  const auto number = [](const std::array<uint64_t, 2>& v) {
    return v[0] ? fmt::format("{:#x}{:016x}", v[0], v[1]) : Writer::hex_text(v[1]);
  };
  w.open("ct_label");
  w.raw(number(k.ct_label));
  if (m.ct_label != std::array{~uint64_t{0}, ~uint64_t{0}}) w.raw(fmt::format("/{}", number(m.ct_label)));
  w.close();
}

void write_ct_tuple(const FlowKey& k, const FlowMask& m, Writer& w) {
  if (!k.ct_nw_proto) return;
  if (k.eth_type == kEthTypeIpv4) {
    w.open("ct_tuple4");
    w.ipv4("src", k.ct_nw_src, m.ct_nw_src);
    w.ipv4("dst", k.ct_nw_dst, m.ct_nw_dst);
    w.decimal("proto", k.ct_nw_proto, m.ct_nw_proto);
    w.decimal("tp_src", k.ct_tp_src.host(), m.ct_tp_src.host());
    w.decimal("tp_dst", k.ct_tp_dst.host(), m.ct_tp_dst.host());
    w.close();
  } else if (k.eth_type == kEthTypeIpv6) {
    w.open("ct_tuple6");
    w.ipv6("src", k.ct_ipv6_src, m.ct_ipv6_src);
    w.ipv6("dst", k.ct_ipv6_dst, m.ct_ipv6_dst);
    w.decimal("proto", k.ct_nw_proto, m.ct_nw_proto);
    w.decimal("src_port", k.ct_tp_src.host(), m.ct_tp_src.host());
    w.decimal("dst_port", k.ct_tp_dst.host(), m.ct_tp_dst.host());
    w.close();
  }
}

void write_conntrack(const FlowKey& k, const FlowMask& m, Writer& w) {
  if (w.verbose()) {
    w.section("ct_state", k.ct_state, m.ct_state);
  } else if (m.ct_state) {
    w.open("ct_state");
    w.flags(k.ct_state, m.ct_state, ~0u, kCtStateNames);
    w.close();
  }
  w.section("ct_zone", k.ct_zone, m.ct_zone);
  w.section("ct_mark", k.ct_mark, m.ct_mark);
  write_ct_label(k, m, w);
  write_ct_tuple(k, m, w);
}

void write_metadata(const FlowKey& k, const FlowMask& m, const DatapathTextOptions& options, Writer& w) {
  w.section("skb_priority", k.skb_priority, m.skb_priority);
  if (k.tunnel.has_destination()) write_tunnel(k.tunnel, m.tunnel, w);
  w.section("skb_mark", k.skb_mark, m.skb_mark);
  write_conntrack(k, m, w);
  w.section("recirc_id", k.recirc_id, m.recirc_id);
  w.section("dp_hash", k.dp_hash, m.dp_hash);
  if (w.verbose() || m.in_port) {
    w.open("in_port");
    // A port is matched whole or not at all; only the number of bits that ports have differs between callers.
    w.raw(m.in_port ? port_text(k.in_port, options) : fmt::format("{}/0", k.in_port));
    w.close();
  }
}

void write_vlan_tag(be16 tci, be16 mask, Writer& w) {
  const uint16_t t = tci.host(), m = mask.host();
  const uint16_t vid = t & 0xfff, vid_mask = m & 0xfff, pcp = t >> 13, pcp_mask = m >> 13;
  if (w.verbose() || vid || vid_mask) {
    w.raw(vid_mask == 0xfff ? fmt::format("vid={},", vid) : fmt::format("vid={}/{:#x},", vid, vid_mask));
  }
  if (w.verbose() || pcp || pcp_mask) {
    w.raw(pcp_mask == 7 ? fmt::format("pcp={},", pcp) : fmt::format("pcp={}/{:#x},", pcp, pcp_mask));
  }
  if (!(tci & kVlanCfi)) w.raw("cfi=0,");
}

void write_eth_type(be16 type, be16 mask, Writer& w) {
  if (!w.verbose() && !mask) return;
  w.open("eth_type");
  w.raw(fmt::format("0x{:04x}", type.host()));
  if (mask != ~be16{}) w.raw(fmt::format("/0x{:04x}", mask.host()));
  w.close();
}

void write_ethernet(const FlowKey& k, const FlowMask& m, Writer& w) {
  const bool typed = w.verbose() || bool(m.packet_type);
  if (typed) {
    const uint32_t type = k.packet_type.host(), mask = m.packet_type.host();
    w.open("packet_type");
    w.decimal("ns", static_cast<uint16_t>(type >> 16), static_cast<uint16_t>(mask >> 16));
    w.hex("id", static_cast<uint16_t>(type), static_cast<uint16_t>(mask));
    w.close();
  }
  // eth() says "an Ethernet frame", unless packet_type says so already.
  const bool matched = !m.eth_src.is_zero() || !m.eth_dst.is_zero();
  if (!w.verbose() && !matched && typed) return;
  w.open("eth");
  w.mac("src", k.eth_src, m.eth_src);
  w.mac("dst", k.eth_dst, m.eth_dst);
  w.close();
}

void write_frag(uint8_t frag, uint8_t mask, Writer& w) {
  if (!mask) return;
  w.raw(!(frag & kFragAny) ? "frag=no," : frag & kFragLater ? "frag=later," : "frag=first,");
}

void write_ipv4(const FlowKey& k, const FlowMask& m, Writer& w) {
  w.open("ipv4");
  w.ipv4("src", k.nw_src, m.nw_src);
  w.ipv4("dst", k.nw_dst, m.nw_dst);
  w.decimal("proto", k.nw_proto, m.nw_proto);
  w.hex("tos", k.nw_tos, m.nw_tos);
  w.decimal("ttl", k.nw_ttl, m.nw_ttl);
  write_frag(k.nw_frag, m.nw_frag, w);
  w.close();
}

void write_ipv6(const FlowKey& k, const FlowMask& m, Writer& w) {
  w.open("ipv6");
  w.ipv6("src", k.ipv6_src, m.ipv6_src);
  w.ipv6("dst", k.ipv6_dst, m.ipv6_dst);
  w.hex("label", k.ipv6_label.host(), m.ipv6_label.host(), 0xfffffu);
  w.decimal("proto", k.nw_proto, m.nw_proto);
  w.hex("tclass", k.nw_tos, m.nw_tos);
  w.decimal("hlimit", k.nw_ttl, m.nw_ttl);
  write_frag(k.nw_frag, m.nw_frag, w);
  w.close();
}

bool any_ip_mask(const FlowMask& m) {
  return m.nw_src || m.nw_dst || m.nw_proto || m.nw_tos || m.nw_ttl || m.nw_frag || m.ipv6_label ||
         !m.ipv6_src.is_zero() || !m.ipv6_dst.is_zero();
}

void write_arp(const FlowKey& k, const FlowMask& m, Writer& w) {
  const bool any = m.nw_src || m.nw_dst || m.nw_proto || !m.arp_sha.is_zero() || !m.arp_tha.is_zero();
  if (!w.verbose() && !any) return;
  w.open("arp");
  w.ipv4("sip", k.nw_src, m.nw_src);
  w.ipv4("tip", k.nw_dst, m.nw_dst);
  // The opcode has 16 bits on the wire and 8 in the key: those matched whole, it is.
  w.decimal("op", uint16_t{k.nw_proto}, m.nw_proto == 0xff ? uint16_t{0xffff} : uint16_t{m.nw_proto});
  w.mac("sha", k.arp_sha, m.arp_sha);
  w.mac("tha", k.arp_tha, m.arp_tha);
  w.close();
}

void write_mpls(const FlowKey& k, const FlowMask& m, Writer& w) {
  size_t count = 0;
  bool any = false, exact = true;
  while (count < kMaxMplsLabels) {
    any = any || bool(m.mpls[count]);
    exact = exact && m.mpls[count] == ~be32{};
    if (k.mpls[count++].host() & 0x100) break;  // bottom of stack
  }
  if (!w.verbose() && !any) return;
  w.open("mpls");
  for (size_t i = 0; i < count; ++i) {
    const uint32_t v = k.mpls[i].host(), n = m.mpls[i].host();
    w.raw(exact ? fmt::format("label={},tc={},ttl={},bos={},", v >> 12, v >> 9 & 7, v & 0xff, v >> 8 & 1)
                : fmt::format("label={}/{:#x},tc={}/{:x},ttl={}/0x{:x},bos={}/{:x},", v >> 12, n >> 12, v >> 9 & 7,
                              n >> 9 & 7, v & 0xff, n & 0xff, v >> 8 & 1, n >> 8 & 1));
  }
  w.close();
}

void write_nsh(const NshKey& k, const NshKey& m, Writer& w) {
  if (!w.verbose() && m == NshKey{}) return;
  w.open("nsh");
  w.decimal("flags", k.flags, m.flags);
  w.decimal("ttl", k.ttl, m.ttl);
  w.decimal("mdtype", k.mdtype, m.mdtype);
  w.decimal("np", k.np, m.np);
  w.hex("spi", k.path_hdr.host() >> 8, m.path_hdr.host() >> 8, 0xffffffu);
  w.decimal("si", static_cast<uint8_t>(k.path_hdr.host()), static_cast<uint8_t>(m.path_hdr.host()));
  constexpr std::array<std::string_view, 4> kNames = {"c1", "c2", "c3", "c4"};
  for (size_t i = 0; i < kNames.size(); ++i) w.hex(kNames[i], k.context[i].host(), m.context[i].host());
  w.close();
}

void write_ports(std::string_view name, const FlowKey& k, const FlowMask& m, Writer& w) {
  if (!w.verbose() && !m.tp_src && !m.tp_dst) return;
  w.open(name);
  w.decimal("src", k.tp_src.host(), m.tp_src.host());
  w.decimal("dst", k.tp_dst.host(), m.tp_dst.host());
  w.close();
}

void write_tcp(const FlowKey& k, const FlowMask& m, Writer& w) {
  write_ports("tcp", k, m, w);
  if (!(w.verbose() && k.tcp_flags) && !m.tcp_flags) return;
  w.open("tcp_flags");
  w.flags(k.tcp_flags.host(), m.tcp_flags.host() & kAllTcpFlags, kAllTcpFlags, kTcpFlagNames);
  w.close();
}

uint8_t low_byte(be16 v) { return static_cast<uint8_t>(v.host()); }

void write_icmp(std::string_view name, const FlowKey& k, const FlowMask& m, Writer& w) {
  if (!w.verbose() && !m.tp_src && !m.tp_dst) return;
  w.open(name);
  w.decimal("type", low_byte(k.tp_src), low_byte(m.tp_src));
  w.decimal("code", low_byte(k.tp_dst), low_byte(m.tp_dst));
  w.close();
}

constexpr uint8_t kNeighborSolicit = 135, kNeighborAdvert = 136;

void write_nd(const FlowKey& k, const FlowMask& m, Writer& w) {
  const uint16_t type = k.tp_src.host();
  if ((type != kNeighborSolicit && type != kNeighborAdvert) || k.tp_dst) return;
  if (!w.verbose() && m.nd_target.is_zero() && m.arp_sha.is_zero() && m.arp_tha.is_zero()) return;
  w.open("nd");
  w.ipv6("target", k.nd_target, m.nd_target);
  w.mac("sll", k.arp_sha, m.arp_sha);
  w.mac("tll", k.arp_tha, m.arp_tha);
  w.close();
}

void write_l4(const FlowKey& k, const FlowMask& m, Writer& w) {
  if (!k.is_ip() || k.nw_frag & kFragLater) return;
  const bool v6 = k.eth_type == kEthTypeIpv6;
  if (k.nw_proto == kProtoTcp) write_tcp(k, m, w);
  if (k.nw_proto == kProtoUdp) write_ports("udp", k, m, w);
  if (k.nw_proto == kProtoSctp) write_ports("sctp", k, m, w);
  if (k.nw_proto == kProtoIcmp && !v6) write_icmp("icmp", k, m, w);
  if (k.nw_proto == kProtoIcmpv6 && v6) {
    write_icmp("icmpv6", k, m, w);
    write_nd(k, m, w);
  }
}

// What stands behind the Ethernet addresses and VLAN tags.
void write_payload(const FlowKey& k, const FlowMask& m, Writer& w) {
  if (k.eth_type.host() < kEthTypeMin) {
    // 802.3: there is no EtherType to show, only that there is none.
    if (m.eth_type) w.raw(fmt::format("eth_type(0/0x{:04x}),", m.eth_type.host()));
    return;
  }
  write_eth_type(k.eth_type, m.eth_type, w);
  const bool ip_wanted = w.verbose() || any_ip_mask(m);
  if (k.eth_type == kEthTypeIpv4 && ip_wanted) write_ipv4(k, m, w);
  if (k.eth_type == kEthTypeIpv6 && ip_wanted) write_ipv6(k, m, w);
  if (k.eth_type == kEthTypeArp || k.eth_type == kEthTypeRarp) write_arp(k, m, w);
  if (k.eth_type == kEthTypeMpls || k.eth_type == kEthTypeMplsMcast) write_mpls(k, m, w);
  if (k.eth_type == kEthTypeNsh) write_nsh(k.nsh, m.nsh, w);
  write_l4(k, m, w);
}

void write_tags_and_payload(const FlowKey& k, const FlowMask& m, Writer& w) {
  size_t tags = 0;
  while (tags < kMaxVlanTags && k.vlan[tags].tci) {
    write_eth_type(k.vlan[tags].tpid, ~be16{}, w);
    if (w.verbose() || m.vlan[tags].tci) {
      w.open("vlan");
      write_vlan_tag(k.vlan[tags].tci, m.vlan[tags].tci, w);
      w.close();
    }
    w.open("encap");
    ++tags;
  }
  write_payload(k, m, w);
  while (tags-- > 0) w.close();
}

// ---- Actions

template <typename Write>
std::string set_action(std::string_view section, Write write, bool verbose = false) {
  Writer w(verbose);
  w.open("set");
  w.open(section);
  write(w);
  w.close();
  w.close();
  return w.take();
}

std::string text_of(const SetEthernetAction& a) {
  return set_action("eth", [&](Writer& w) {
    w.mac("src", a.src, a.src_mask);
    w.mac("dst", a.dst, a.dst_mask);
  });
}
std::string text_of(const SetIpv4Action& a) {
  return set_action("ipv4", [&](Writer& w) {
    w.ipv4("src", a.src, a.src_mask);
    w.ipv4("dst", a.dst, a.dst_mask);
    w.hex("tos", a.tos, a.tos_mask);
    w.decimal("ttl", a.ttl, a.ttl_mask);
  });
}
std::string text_of(const SetIpv6Action& a) {
  return set_action("ipv6", [&](Writer& w) {
    w.ipv6("src", a.src, a.src_mask);
    w.ipv6("dst", a.dst, a.dst_mask);
    w.hex("label", a.label.host(), a.label_mask.host(), 0xfffffu);
    w.hex("tclass", a.tclass, a.tclass_mask);
    w.decimal("hlimit", a.hop_limit, a.hop_limit_mask);
  });
}
std::string text_of(const SetTransportAction& a) {
  const std::string_view name = a.proto == kProtoTcp ? "tcp" : a.proto == kProtoUdp ? "udp" : "sctp";
  return set_action(name, [&](Writer& w) {
    w.decimal("src", a.src.host(), a.src_mask.host());
    w.decimal("dst", a.dst.host(), a.dst_mask.host());
  });
}
std::string text_of(const SetIcmpAction& a) {
  return set_action(a.proto == kProtoIcmp ? "icmp" : "icmpv6", [&](Writer& w) {
    w.decimal("type", a.type, a.type_mask);
    w.decimal("code", a.code, a.code_mask);
  });
}
std::string text_of(const SetArpAction& a) {
  return set_action("arp", [&](Writer& w) {
    w.ipv4("sip", a.spa, a.spa_mask);
    w.ipv4("tip", a.tpa, a.tpa_mask);
    w.decimal("op", a.op.host(), a.op_mask.host());
    w.mac("sha", a.sha, a.sha_mask);
    w.mac("tha", a.tha, a.tha_mask);
  });
}
std::string text_of(const SetNdAction& a) {
  return set_action("nd", [&](Writer& w) {
    w.ipv6("target", a.target, a.target_mask);
    w.mac("sll", a.sll, a.sll_mask);
    w.mac("tll", a.tll, a.tll_mask);
  });
}
std::string set_number(std::string_view name, uint32_t value, uint32_t mask) {
  return set_action(name, [&](Writer& w) {
    w.raw(Writer::hex_text(value));
    if (mask != ~0u) w.raw(fmt::format("/{}", Writer::hex_text(mask)));
  });
}
std::string text_of(const SetMarkAction& a) { return set_number("skb_mark", a.value, a.mask); }
std::string text_of(const SetPriorityAction& a) { return set_number("skb_priority", a.value, a.mask); }
std::string text_of(const SetTunnelAction& a) {
  // The whole of the metadata is replaced: everything is exact.
  TunnelMetadata all;
  for (size_t i = 0; i < sizeof all / 8; ++i) words(all)[i] = ~uint64_t{0};
  Writer w(true);
  w.open("set");
  write_tunnel(*a.tunnel, all, w);
  w.close();
  return w.take();
}
std::string text_of(const PushVlanAction& a) {
  Writer w(false);
  w.open("push_vlan");
  if (a.tpid != kEthTypeVlan) w.raw(fmt::format("tpid=0x{:04x},", a.tpid.host()));
  write_vlan_tag(a.tci, ~be16{}, w);
  w.close();
  return w.take();
}
std::string text_of(const HashAction& a) {
  return fmt::format("hash({}({}))", a.algorithm == HashAlgorithm::l4 ? "l4" : "sym_l4", a.basis);
}
std::string text_of(const UserspaceAction& a, const DatapathTextOptions& options) {
  if (options.describe_userspace) return fmt::format("userspace(pid=0,{})", options.describe_userspace(a));
  if (a.reason == UserspaceReason::slow_path) return "userspace(pid=0,slow_path(action))";
  return fmt::format("userspace(pid=0,controller(cookie={:#x},max_len={}))", a.cookie, a.max_len);
}

std::string action_text(const Action& action, const DatapathTextOptions& options) {
  return std::visit(
      Overload{
          [&](const OutputAction& a) { return port_text(a.port_no, options); },
          [&](const UserspaceAction& a) { return text_of(a, options); },
          [&](const PopVlanAction&) { return std::string("pop_vlan"); },
          [&](const RecircAction& a) { return fmt::format("recirc({})", Writer::hex_text(a.recirc_id)); },
          [&](const TruncateAction& a) { return fmt::format("trunc({})", a.max_len); },
          [&](const CloneAction& a) { return fmt::format("clone({})", format_datapath_actions(*a.actions, options)); },
          [&](const DropAction&) { return std::string("drop"); },
          [&](const SetEthernetAction& a) { return text_of(a); },
          [&](const SetIpv4Action& a) { return text_of(a); },
          [&](const SetIpv6Action& a) { return text_of(a); },
          [&](const SetTransportAction& a) { return text_of(a); },
          [&](const SetIcmpAction& a) { return text_of(a); },
          [&](const SetArpAction& a) { return text_of(a); },
          [&](const SetNdAction& a) { return text_of(a); },
          [&](const SetMarkAction& a) { return text_of(a); },
          [&](const SetPriorityAction& a) { return text_of(a); },
          [&](const SetTunnelAction& a) { return text_of(a); },
          [&](const PushVlanAction& a) { return text_of(a); },
          [&](const HashAction& a) { return text_of(a); },
      },
      static_cast<const Action::variant&>(action));
}

// One letter per flag, as tcpdump writes them.
std::string tcp_flag_letters(uint16_t flags) {
  constexpr std::pair<uint16_t, char> kLetters[] = {{0x002, 'S'}, {0x001, 'F'}, {0x008, 'P'},
                                                    {0x004, 'R'}, {0x020, 'U'}, {0x010, '.'},
                                                    {0x040, 'E'}, {0x080, 'C'}, {0x100, 'N'}};
  std::string out;
  for (const auto& [flag, letter] : kLetters) {
    if (flags & flag) out += letter;
  }
  return out;
}

}  // namespace

std::string format_datapath_key(const FlowKey& key, const FlowMask* mask, const DatapathTextOptions& options) {
  FlowMask exact;
  if (!mask) {
    for (size_t i = 0; i < kFlowKeyWords; ++i) words(exact)[i] = ~uint64_t{0};
    mask = &exact;
  }
  Writer w(options.verbose);
  write_metadata(key, *mask, options, w);
  write_ethernet(key, *mask, w);
  write_tags_and_payload(key, *mask, w);
  return w.take();
}

std::string format_datapath_actions(const ActionList& actions, const DatapathTextOptions& options) {
  if (actions.empty()) return "drop";
  std::string text;
  for (const Action& action : actions) {
    if (!text.empty()) text += ',';
    text += action_text(action, options);
  }
  return text;
}

std::string format_datapath_flow(const FlowKey& key, const FlowMask& mask, const ActionList& actions,
                                 const DatapathFlowCounters& counters, const DatapathTextOptions& options) {
  std::string text = format_datapath_key(key, &mask, options);
  fmt::format_to(std::back_inserter(text), ", packets:{}, bytes:{}, used:", counters.packets, counters.bytes);
  if (counters.idle) {
    const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(*counters.idle).count();
    fmt::format_to(std::back_inserter(text), "{:.3f}s", static_cast<double>(milliseconds) / 1000);
  } else {
    text += "never";
  }
  if (counters.tcp_flags) text += ", flags:" + tcp_flag_letters(counters.tcp_flags);
  if (counters.kernel_path) text += ", kernel_path:yes";
  return text + ", actions:" + format_datapath_actions(actions, options);
}

}  // namespace vswitch
