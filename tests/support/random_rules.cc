#include "tests/support/random_rules.h"

#include <algorithm>
#include <memory>

namespace vswitch::test {
namespace {

constexpr FieldId kWritable[] = {
    FieldId::kEthSrc,  FieldId::kEthDst,   FieldId::kVlanTci,  FieldId::kVlanVid,    FieldId::kVlanPcp,
    FieldId::kNwSrc,   FieldId::kNwDst,    FieldId::kIpv6Src,  FieldId::kIpv6Dst,    FieldId::kIpDscp,
    FieldId::kNwEcn,   FieldId::kNwTtl,    FieldId::kArpOp,    FieldId::kArpSpa,     FieldId::kArpTpa,
    FieldId::kArpSha,  FieldId::kTcpSrc,   FieldId::kTcpDst,   FieldId::kUdpSrc,     FieldId::kUdpDst,
    FieldId::kSctpSrc, FieldId::kIcmpType, FieldId::kIcmpCode, FieldId::kIcmpv6Type, FieldId::kNdTarget,
    FieldId::kReg0,    FieldId::kReg1,     FieldId::kReg5,     FieldId::kXreg1,      FieldId::kMetadata,
    FieldId::kPktMark, FieldId::kTunId,    FieldId::kTunDst,   FieldId::kTunSrc,     FieldId::kIpv6Label,
    FieldId::kInPort,
};

constexpr FieldId kModifiable[] = {FieldId::kEthSrc, FieldId::kEthDst, FieldId::kNwSrc,
                                   FieldId::kNwDst,  FieldId::kNwTos,  FieldId::kNwEcn,
                                   FieldId::kNwTtl,  FieldId::kTcpSrc, FieldId::kTcpDst};

std::shared_ptr<const RuleActionList> shared(RuleActionList list) {
  return std::make_shared<const RuleActionList>(std::move(list));
}

void clear_above_ip(FlowKey& key) {
  key.tp_src = key.tp_dst = key.tcp_flags = be16{};
  key.nd_target = {};
  key.arp_sha = key.arp_tha = {};
}

void make_l4_extractable(FlowKey& key) {
  if ((key.nw_frag & kFragLater) != 0 || key.nw_proto == 0) {
    clear_above_ip(key);
    return;
  }
  const bool icmpv6 = key.nw_proto == kProtoIcmpv6 && key.eth_type == kEthTypeIpv6;
  const bool icmp = key.nw_proto == kProtoIcmp && key.eth_type == kEthTypeIpv4;
  const bool ports = key.nw_proto == kProtoTcp || key.nw_proto == kProtoUdp || key.nw_proto == kProtoSctp;
  if (icmp || icmpv6) {
    key.tp_src &= to_be16(0xff);
    key.tp_dst &= to_be16(0xff);
  } else if (!ports) {
    key.tp_src = key.tp_dst = be16{};
  }
  key.tcp_flags = key.nw_proto == kProtoTcp ? key.tcp_flags & to_be16(0xfff) : be16{};
  const uint16_t type = key.tp_src.host();
  if (!icmpv6 || (type != 135 && type != 136) || bool(key.tp_dst)) {
    key.nd_target = {};
    key.arp_sha = key.arp_tha = {};
  }
}

void make_tags_extractable(FlowKey& key) {
  for (size_t i = 0; i < kMaxVlanTags; ++i) {
    VlanTag& tag = key.vlan[i];
    const bool inside_nothing = i > 0 && !(key.vlan[i - 1].tci & kVlanCfi);
    if (!(tag.tci & kVlanCfi) || inside_nothing) {
      tag = {};
    } else if (tag.tpid != kEthTypeVlan && tag.tpid != kEthTypeQinq) {
      tag.tpid = kEthTypeVlan;
    }
  }
}

}  // namespace

void make_extractable(FlowKey& key) {
  FlowKey kept;
  kept.in_port = key.in_port;
  kept.eth_dst = key.eth_dst;
  kept.eth_src = key.eth_src;
  kept.eth_type = key.eth_type;
  kept.vlan = key.vlan;
  kept.tunnel = key.tunnel;
  kept.skb_mark = key.skb_mark;
  kept.skb_priority = key.skb_priority;
  make_tags_extractable(kept);
  const bool arp = key.eth_type == kEthTypeArp;
  if (key.is_ip() || arp) kept.nw_proto = key.nw_proto;
  if (key.eth_type == kEthTypeIpv4 || arp) {
    kept.nw_src = key.nw_src;
    kept.nw_dst = key.nw_dst;
  }
  if (arp || key.is_ip()) {
    kept.arp_sha = key.arp_sha;
    kept.arp_tha = key.arp_tha;
  }
  if (key.is_ip()) {
    kept.nw_tos = key.nw_tos;
    kept.nw_ttl = key.nw_ttl;
    kept.nw_frag = (key.nw_frag & kFragAny) != 0 ? key.nw_frag & (kFragAny | kFragLater) : 0;
    kept.tp_src = key.tp_src;
    kept.tp_dst = key.tp_dst;
    kept.tcp_flags = key.tcp_flags;
    kept.nd_target = key.nd_target;
    if (key.eth_type == kEthTypeIpv6) {
      kept.ipv6_src = key.ipv6_src;
      kept.ipv6_dst = key.ipv6_dst;
      kept.ipv6_label = key.ipv6_label & to_be32(0xfffff);
    }
    make_l4_extractable(kept);
  }
  key = kept;
}

std::vector<RuleSpec> RandomRules::rules(size_t n) {
  std::vector<RuleSpec> all(n);
  std::generate(all.begin(), all.end(), [this] { return rule(); });
  return all;
}

RuleSpec RandomRules::rule() {
  RuleSpec rule;
  rule.table = one_in(3) ? 0 : static_cast<uint8_t>(below(kTables));
  rule.priority = static_cast<uint16_t>(below(4));
  rule.match = one_in(4) ? Match{} : matches_.match();
  RuleActionList actions = list(rule.table, 0);
  if (one_in(2)) {
    RuleActionList more = instructions(rule.table);
    actions.insert(actions.end(), more.begin(), more.end());
  }
  rule.actions = shared(std::move(actions));
  return rule;
}

RuleActionList RandomRules::list(uint8_t table, int depth) {
  RuleActionList actions;
  for (uint32_t n = below(depth == 0 ? 6 : 4); n > 0; --n) actions.push_back(action(table, depth));
  return actions;
}

RuleActionList RandomRules::instructions(uint8_t table) {
  RuleActionList actions;
  if (one_in(6)) actions.emplace_back(ClearActions{});
  if (one_in(3)) {
    RuleActionList set;
    for (uint32_t n = 1 + below(3); n > 0; --n)
      set.push_back(one_in(2) ? output(1) : one_in(3) ? vlan_change() : field_change());
    actions.emplace_back(WriteActions{shared(std::move(set))});
  }
  if (one_in(4)) actions.emplace_back(WriteMetadata{below(4), 3});
  if (table + 1 < kTables)
    actions.emplace_back(GotoTable{static_cast<uint8_t>(table + 1 + below(kTables - table - 1u))});
  return actions;
}

RuleAction RandomRules::action(uint8_t table, int depth) {
  switch (below(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return output(depth);
    case 4:
    case 5:
      if (table + 1 < kTables) {
        return Resubmit{one_in(4) ? static_cast<OfPort>(1 + below(4)) : kOfPortInPort,
                        static_cast<uint8_t>(table + 1 + below(kTables - table - 1u))};
      }
      return output(depth);
    case 6:
      if (one_in(40)) return Resubmit{kOfPortInPort, static_cast<uint8_t>(below(kTables))};
      return DecTtl{one_in(2) ? std::vector<uint16_t>{} : std::vector<uint16_t>{1, 2}};
    case 7:
    case 8:
      return vlan_change();
    case 9: {
      const Field& f = writable_field();
      return StackPush{subfield(f, 1 + below(f.width))};
    }
    case 10: {
      const Field& f = writable_field();
      return StackPop{subfield(f, 1 + below(f.width))};
    }
    case 11:
      if (depth < 3) return CloneActions{shared(list(table, depth + 1))};
      return Note{{1, 2, 3}};
    case 12:
      if (one_in(8)) return Exit{};
      if (one_in(3)) return DebugRecirculate{};
      return SetTunnelId{below(4), false};
    default:
      return field_change();
  }
}

RuleAction RandomRules::output(int depth) {
  static constexpr OfPort kReserved[] = {kOfPortInPort, kOfPortNormal, kOfPortNormal,
                                         kOfPortFlood,  kOfPortAll,    kOfPortLocal};
  if (one_in(10)) return SendToController{};
  if (one_in(10)) return OutputToField{{&field(FieldId::kReg0), 0, 16}, 0xffff};
  if (one_in(4) && depth == 0) return OutputToPort{kReserved[below(6)], 0};
  const OfPort port = ports_[below(static_cast<uint32_t>(ports_.size()))];
  return OutputToPort{port, one_in(8) ? 64 + below(3) : 0};
}

RuleAction RandomRules::field_change() {
  if (one_in(3)) return move();
  if (one_in(3)) return mod_field();
  return set_field(writable_field());
}

RuleAction RandomRules::vlan_change() {
  switch (below(5)) {
    case 0:
      return StripVlan{};
    case 1:
      return PushVlan{one_in(2) ? kEthTypeVlan : kEthTypeQinq};
    case 2:
      return ModVlanVid{static_cast<uint16_t>(9 + below(4)), one_in(2)};
    case 3:
      return ModVlanPcp{static_cast<uint8_t>(below(3)), one_in(2)};
    default:
      return set_field(field(FieldId::kVlanVid));
  }
}

RuleAction RandomRules::set_field(const Field& f) {
  SetField set;
  set.field = &f;
  set.value.resize(f.n_bytes);
  const FieldValue exact = exact_field_mask(f);
  set.mask.assign(exact.bytes.begin(), exact.bytes.begin() + f.n_bytes);
  const bool masked = f.maskable == FieldMaskable::fully && one_in(3);
  for (size_t i = 0; i < set.value.size(); ++i) {
    if (masked) set.mask[i] &= static_cast<uint8_t>(below(256));
    const auto random = static_cast<uint8_t>(one_in(2) ? below(4) : below(256));
    set.value[i] = set.mask[i] & random;
  }
  if (f.id == FieldId::kVlanVid) {
    set.value = {0x10, static_cast<uint8_t>(9 + below(4))};
    set.mask = {0x1f, 0xff};
  }
  if (f.id == FieldId::kInPort) set.value = {0, static_cast<uint8_t>(below(5))};
  return set;
}

RuleAction RandomRules::move() {
  const Field& from = writable_field();
  const Field& to = writable_field();
  const unsigned n_bits = 1 + below(std::min(from.width, to.width));
  return MoveField{subfield(from, n_bits), subfield(to, n_bits)};
}

RuleAction RandomRules::mod_field() {
  const Field& f = field(kModifiable[below(std::size(kModifiable))]);
  return ModField{&f, f.id == FieldId::kNwTos ? below(64) << 2 : below(4)};
}

Subfield RandomRules::subfield(const Field& f, unsigned n_bits) {
  return {&f, static_cast<uint16_t>(below(f.width - n_bits + 1)), static_cast<uint16_t>(n_bits)};
}

const Field& RandomRules::writable_field() { return field(kWritable[below(std::size(kWritable))]); }

}  // namespace vswitch::test
