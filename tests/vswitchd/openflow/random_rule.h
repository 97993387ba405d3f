// Random rules for property tests: matches whose prerequisites are met, actions that fit them.
#pragma once

#include <rapidcheck.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "datapath/flow/field.h"
#include "vswitchd/rules/rule.h"

namespace vswitch::testing {

inline const Field& named_field(std::string_view name) { return *find_field(name); }

template <typename T>
T any_number(T from, T to) {
  return *rc::gen::inRange<T>(from, to);
}

inline std::vector<uint8_t> random_bytes(size_t size) {
  return *rc::gen::container<std::vector<uint8_t>>(size, rc::gen::arbitrary<uint8_t>());
}

// Bits of the field, big-endian in n_bytes.
inline std::vector<uint8_t> width_mask(const Field& f) {
  std::vector<uint8_t> mask(f.n_bytes);
  for (unsigned bit = 0; bit < f.width; ++bit) mask[f.n_bytes - 1 - bit / 8] |= static_cast<uint8_t>(1 << bit % 8);
  return mask;
}

// Matches `f` exactly on `value`.
inline void match_exactly(std::string_view name, const std::vector<uint8_t>& value, Match* m) {
  const Field& f = named_field(name);
  FieldValue v;
  std::copy(value.begin(), value.end(), v.bytes.begin());
  write_field(f, v, m->value);
  mark_field(f, m->mask);
}
inline void match_number(std::string_view name, uint64_t number, Match* m) {
  const Field& f = named_field(name);
  std::vector<uint8_t> value(f.n_bytes);
  for (size_t i = 0; i < f.n_bytes && i < 8; ++i) value[f.n_bytes - 1 - i] = static_cast<uint8_t>(number >> 8 * i);
  match_exactly(name, value, m);
}

// Sometimes matches the field, on random bits if it may be masked.
inline void maybe_match(std::string_view name, Match* m) {
  if (any_number(0, 3) != 0) return;
  const Field& f = named_field(name);
  std::vector<uint8_t> value = random_bytes(f.n_bytes), mask = width_mask(f);
  if (f.maskable == FieldMaskable::fully && any_number(0, 2) == 0) {
    const std::vector<uint8_t> random = random_bytes(f.n_bytes);
    for (size_t i = 0; i < mask.size(); ++i) mask[i] &= random[i];
  }
  // libopenvswitch does not read back an IPv6 mask that starts with a decimal digit: it looks like a prefix length.
  if (f.format == FieldFormat::ipv6) mask[0] = mask[1] = 0xff;
  FieldValue v, n;
  for (size_t i = 0; i < value.size(); ++i) {
    v.bytes[i] = value[i] & mask[i];
    n.bytes[i] = mask[i];
  }
  write_field_masked(f, v, n, m->value);
  write_field_masked(f, n, n, m->mask);
}

inline void match_l4(Match* m) {
  constexpr std::array<std::pair<uint8_t, std::string_view>, 3> kProtocols = {{{6, "tcp"}, {17, "udp"}, {132, "sctp"}}};
  if (any_number(0, 3) == 0) return;
  const auto& [number, name] = kProtocols[any_number<size_t>(0, 3)];
  match_number("nw_proto", number, m);
  maybe_match(std::string(name) + "_src", m);
  maybe_match(std::string(name) + "_dst", m);
  if (number == 6) maybe_match("tcp_flags", m);
}

inline Match random_match() {
  Match m;
  for (std::string_view name : {"tun_id", "tun_src", "tun_dst", "tun_gbp_id", "metadata", "pkt_mark", "reg0", "reg3",
                                "reg15", "xreg4", "eth_src", "eth_dst"}) {
    maybe_match(name, &m);
  }
  if (any_number(0, 2)) match_number("in_port", any_number(1, 0xff00), &m);
  switch (any_number(0, 4)) {
    case 0:
      match_number("eth_type", 0x0800, &m);
      for (std::string_view name : {"ip_src", "ip_dst", "nw_ttl", "nw_ecn", "ip_dscp"}) maybe_match(name, &m);
      match_l4(&m);
      break;
    case 1:
      match_number("eth_type", 0x86dd, &m);
      for (std::string_view name : {"ipv6_src", "ipv6_dst", "ipv6_label", "nw_ttl"}) maybe_match(name, &m);
      match_l4(&m);
      break;
    case 2:
      match_number("eth_type", 0x0806, &m);
      for (std::string_view name : {"arp_spa", "arp_tpa", "arp_sha", "arp_tha"}) maybe_match(name, &m);
      break;
    default:
      break;
  }
  return m;
}

inline Subfield random_subfield() {
  constexpr std::array<std::string_view, 5> kNames = {"reg1", "reg7", "xreg2", "metadata", "eth_src"};
  const Field& f = named_field(kNames[any_number<size_t>(0, kNames.size())]);
  const auto n_bits = any_number<uint16_t>(1, static_cast<uint16_t>(f.width + 1));
  return {&f, any_number<uint16_t>(0, static_cast<uint16_t>(f.width - n_bits + 1)), n_bits};
}

inline RuleAction random_set_field() {
  constexpr std::array<std::string_view, 8> kNames = {"reg1",    "xxreg1",  "metadata",     "eth_src",
                                                      "eth_dst", "tun_dst", "tun_ipv6_dst", "pkt_mark"};
  const Field& f = named_field(kNames[any_number<size_t>(0, kNames.size())]);
  SetField a{&f, random_bytes(f.n_bytes), width_mask(f), false};
  if (any_number(0, 2)) {  // load: one run of bits
    a.load_syntax = true;
    const unsigned bits = any_number(1u, std::min(64u, unsigned{f.width}) + 1);
    const unsigned ofs = any_number(0u, f.width - bits + 1);
    for (unsigned bit = 0; bit < f.width; ++bit) {
      if (bit < ofs || bit >= ofs + bits) a.mask[f.n_bytes - 1 - bit / 8] &= static_cast<uint8_t>(~(1 << bit % 8));
    }
  } else if (any_number(0, 2)) {
    const std::vector<uint8_t> random = random_bytes(f.n_bytes);
    for (size_t i = 0; i < f.n_bytes; ++i) a.mask[i] &= random[i];
    if (f.format == FieldFormat::ipv6) a.mask[0] = a.mask[1] = 0xff;  // as above
    a.mask.back() |= 1;                                               // set_field of no bits at all is nothing
  }
  for (size_t i = 0; i < f.n_bytes; ++i) a.value[i] &= a.mask[i];
  return a;
}

inline RuleActionList random_actions(int depth = 0);

inline RuleAction random_action(int depth) {
  const auto port = [] { return any_number<OfPort>(1, 0xff00); };
  switch (any_number(0, depth < 2 ? 20 : 19)) {
    case 0:
      return OutputToPort{port(), 0};
    case 1:
      return OutputToPort{port(), any_number(14u, 100000u)};
    case 2:
      return OutputToPort{kOfPortNormal, 0};
    case 3:
      return OutputToField{random_subfield(), 0xffff};
    case 4:
      return SendToController{any_number<uint16_t>(0, 0xffff), any_number<uint16_t>(0, 3),
                              static_cast<PacketInReason>(any_number(0, 3)), random_bytes(any_number<size_t>(0, 5))};
    case 5:
    case 6:
      return random_set_field();
    case 7: {
      const Subfield s = random_subfield();
      return MoveField{s, {&named_field("xxreg3"), any_number<uint16_t>(0, 32), s.n_bits}};
    }
    case 8:
      return ModField{&named_field("eth_dst"), any_number<uint64_t>(0, uint64_t{1} << 48)};
    case 9:
      return ModVlanVid{any_number<uint16_t>(0, 4096), true};
    case 10:
      // Not strip_vlan: without a match on a VLAN it is in OpenFlow 1.0 only, where push_vlan is not. flows.txt has it.
      return SendToController{any_number<uint16_t>(0, 0xffff), 0, PacketInReason::action, {}};
    case 11:
      return PushVlan{any_number(0, 2) ? kEthTypeVlan : kEthTypeQinq};
    case 12:
      return SetTunnelId{any_number<uint64_t>(0, UINT32_MAX), *rc::gen::arbitrary<bool>()};
    case 13:
      return Resubmit{port(), any_number<uint8_t>(0, kTableCount)};
    case 14:
      return StackPush{random_subfield()};
    case 15:
      return StackPop{random_subfield()};
    case 16:
      return Note{random_bytes(6)};
    case 17:
      return Exit{};
    case 18:
      return DebugRecirculate{};
    default:
      return CloneActions{std::make_shared<const RuleActionList>(random_actions(depth + 1))};
  }
}

inline RuleActionList random_actions(int depth) {
  RuleActionList list;
  // "clone()" holds nothing and does nothing; the parser reads it back as clone(drop).
  for (size_t n = any_number<size_t>(depth ? 1 : 0, 4); n > 0; --n) list.push_back(random_action(depth));
  return list;
}

inline RuleSpec random_rule() {
  RuleSpec r;
  r.table = any_number<uint8_t>(0, 200);
  r.priority = *rc::gen::arbitrary<uint16_t>();
  r.match = random_match();
  r.cookie = any_number<uint64_t>(0, UINT64_MAX);
  r.idle_timeout = any_number<uint16_t>(0, 3);
  r.hard_timeout = *rc::gen::arbitrary<uint16_t>();
  // The other flags need OpenFlow 1.2 or 1.3, and some actions without their prerequisite are only in 1.0.
  r.flags = any_number<uint16_t>(0, 4);
  r.importance = any_number<uint16_t>(0, 3);
  RuleActionList actions = random_actions();
  if (any_number(0, 3) == 0) actions.push_back(WriteMetadata{any_number<uint64_t>(0, 1000), 0xffff});
  if (any_number(0, 3) == 0) actions.push_back(GotoTable{any_number<uint8_t>(201, kTableCount)});
  r.actions = std::make_shared<const RuleActionList>(std::move(actions));
  return r;
}

inline bool same_rule(const RuleSpec& a, const RuleSpec& b) {
  return a.table == b.table && a.priority == b.priority && a.match == b.match && *a.actions == *b.actions &&
         a.cookie == b.cookie && a.idle_timeout == b.idle_timeout && a.hard_timeout == b.hard_timeout &&
         a.flags == b.flags && a.importance == b.importance;
}

}  // namespace vswitch::testing
