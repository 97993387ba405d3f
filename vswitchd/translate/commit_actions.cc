#include "vswitchd/translate/commit_actions.h"

#include <cstddef>
#include <cstdint>

namespace vswitch {
namespace {

static_assert(kFlowKeyLayout == 1, "FlowKey changed: can actions write the new field? Then commit it here");

// One field of a set action: if `from` and `to` differ, `value` and `value_mask` say what to write. True if they
// differ.
template <typename T>
bool difference(const T& to, const T& from, const T& written, T& value, T& value_mask) {
  if (to == from) return false;
  value_mask = written;
  value = to & written;
  return true;
}

bool difference(uint8_t to, uint8_t from, uint8_t written, uint8_t& value, uint8_t& value_mask) {
  if (to == from) return false;
  value_mask = written;
  value = static_cast<uint8_t>(to & written);
  return true;
}

template <typename Address>
bool address_difference(const Address& to, const Address& from, const Address& written, Address& value,
                        Address& value_mask) {
  if (to == from) return false;
  value_mask = written;
  for (size_t i = 0; i < to.bytes.size(); ++i) {
    value.bytes[i] = static_cast<uint8_t>(to.bytes[i] & written.bytes[i]);
  }
  return true;
}

bool difference(const MacAddress& to, const MacAddress& from, const MacAddress& written, MacAddress& value,
                MacAddress& value_mask) {
  return address_difference(to, from, written, value, value_mask);
}
bool difference(const Ipv6Address& to, const Ipv6Address& from, const Ipv6Address& written, Ipv6Address& value,
                Ipv6Address& value_mask) {
  return address_difference(to, from, written, value, value_mask);
}

class Committer {
 public:
  Committer(const CommitInput& input, FlowKey& base, FlowMask& mask, ActionList& out)
      : key_(input.key),
        written_(input.written),
        vlan_restacked_(input.vlan_restacked),
        base_(base),
        mask_(mask),
        out_(out) {}

  void run() {
    ethernet();
    network();
    transport();
    vlan();
    metadata();
  }

 private:
  void ethernet() {
    SetEthernetAction set;
    bool any = difference(key_.eth_src, base_.eth_src, written_.eth_src, set.src, set.src_mask);
    any |= difference(key_.eth_dst, base_.eth_dst, written_.eth_dst, set.dst, set.dst_mask);
    if (any) out_.emplace_back(set);
    base_.eth_src = key_.eth_src;
    base_.eth_dst = key_.eth_dst;
  }

  void network() {
    if (base_.eth_type == kEthTypeIpv4) {
      ipv4();
    } else if (base_.eth_type == kEthTypeIpv6) {
      ipv6();
    } else if (base_.eth_type == kEthTypeArp) {
      arp();
    }
  }

  // Whether the packet has the header that `base` claims: extraction leaves nw_proto 0 where it could not parse one. An
  // ARP packet whose opcode the key cannot hold looks the same, until an opcode is written.
  bool has_network_header() {
    mask_.nw_proto = 0xff;
    return key_.nw_proto != 0;
  }

  void ipv4() {
    SetIpv4Action set;
    bool any = difference(key_.nw_src, base_.nw_src, written_.nw_src, set.src, set.src_mask);
    any |= difference(key_.nw_dst, base_.nw_dst, written_.nw_dst, set.dst, set.dst_mask);
    any |= difference(key_.nw_tos, base_.nw_tos, written_.nw_tos, set.tos, set.tos_mask);
    any |= difference(key_.nw_ttl, base_.nw_ttl, written_.nw_ttl, set.ttl, set.ttl_mask);
    if (!any || !has_network_header()) return;
    out_.emplace_back(set);
    base_.nw_src = key_.nw_src;
    base_.nw_dst = key_.nw_dst;
    base_.nw_tos = key_.nw_tos;
    base_.nw_ttl = key_.nw_ttl;
  }

  void ipv6() {
    SetIpv6Action set;
    bool any = difference(key_.ipv6_src, base_.ipv6_src, written_.ipv6_src, set.src, set.src_mask);
    any |= difference(key_.ipv6_dst, base_.ipv6_dst, written_.ipv6_dst, set.dst, set.dst_mask);
    any |= difference(key_.ipv6_label, base_.ipv6_label, written_.ipv6_label, set.label, set.label_mask);
    any |= difference(key_.nw_tos, base_.nw_tos, written_.nw_tos, set.tclass, set.tclass_mask);
    any |= difference(key_.nw_ttl, base_.nw_ttl, written_.nw_ttl, set.hop_limit, set.hop_limit_mask);
    if (!any || !has_network_header()) return;
    out_.emplace_back(set);
    base_.ipv6_src = key_.ipv6_src;
    base_.ipv6_dst = key_.ipv6_dst;
    base_.ipv6_label = key_.ipv6_label;
    base_.nw_tos = key_.nw_tos;
    base_.nw_ttl = key_.nw_ttl;
  }

  void arp() {
    SetArpAction set;
    uint8_t op = 0, op_mask = 0;
    bool any = difference(key_.nw_src, base_.nw_src, written_.nw_src, set.spa, set.spa_mask);
    any |= difference(key_.nw_dst, base_.nw_dst, written_.nw_dst, set.tpa, set.tpa_mask);
    any |= difference(key_.nw_proto, base_.nw_proto, written_.nw_proto, op, op_mask);
    any |= difference(key_.arp_sha, base_.arp_sha, written_.arp_sha, set.sha, set.sha_mask);
    any |= difference(key_.arp_tha, base_.arp_tha, written_.arp_tha, set.tha, set.tha_mask);
    if (!any || !has_network_header()) return;
    // The key holds opcodes up to 255 only, and those of packets that can be written are not larger.
    set.op = to_be16(op);
    set.op_mask = to_be16(op_mask == 0xff ? 0xffff : op_mask);
    out_.emplace_back(set);
    base_.nw_src = key_.nw_src;
    base_.nw_dst = key_.nw_dst;
    base_.nw_proto = key_.nw_proto;
    base_.arp_sha = key_.arp_sha;
    base_.arp_tha = key_.arp_tha;
  }

  void transport() {
    // nw_frag is in the mask of every IP packet.
    if (!base_.is_ip() || (base_.nw_frag & kFragLater) != 0) return;
    const bool ports_differ = key_.tp_src != base_.tp_src || key_.tp_dst != base_.tp_dst;
    // ARP's members hold the options of neighbour discovery, so anything may have been written to them.
    const bool options_differ =
        base_.eth_type == kEthTypeIpv6 &&
        (key_.nd_target != base_.nd_target || key_.arp_sha != base_.arp_sha || key_.arp_tha != base_.arp_tha);
    if (!ports_differ && !options_differ) return;
    mask_.nw_proto = 0xff;  // what follows depends on it, whichever it is
    switch (base_.nw_proto) {
      case kProtoTcp:
      case kProtoUdp:
      case kProtoSctp:
        if (ports_differ) ports();
        break;
      case kProtoIcmp:
        if (ports_differ && base_.eth_type == kEthTypeIpv4) icmp();
        break;
      case kProtoIcmpv6:
        if (base_.eth_type != kEthTypeIpv6) break;
        neighbour_discovery();
        if (ports_differ) icmp();
        break;
      default:
        break;
    }
  }

  void ports() {
    SetTransportAction set;
    set.proto = base_.nw_proto;
    difference(key_.tp_src, base_.tp_src, written_.tp_src, set.src, set.src_mask);
    difference(key_.tp_dst, base_.tp_dst, written_.tp_dst, set.dst, set.dst_mask);
    out_.emplace_back(set);
    base_.tp_src = key_.tp_src;
    base_.tp_dst = key_.tp_dst;
  }

  void icmp() {
    SetIcmpAction set;
    set.proto = base_.nw_proto;
    const auto low = [](be16 v) { return static_cast<uint8_t>(v.host()); };
    difference(low(key_.tp_src), low(base_.tp_src), low(written_.tp_src), set.type, set.type_mask);
    difference(low(key_.tp_dst), low(base_.tp_dst), low(written_.tp_dst), set.code, set.code_mask);
    out_.emplace_back(set);
    base_.tp_src = key_.tp_src;
    base_.tp_dst = key_.tp_dst;
  }

  void neighbour_discovery() {
    SetNdAction set;
    bool any = difference(key_.nd_target, base_.nd_target, written_.nd_target, set.target, set.target_mask);
    any |= difference(key_.arp_sha, base_.arp_sha, written_.arp_sha, set.sll, set.sll_mask);
    any |= difference(key_.arp_tha, base_.arp_tha, written_.arp_tha, set.tll, set.tll_mask);
    if (!any) return;
    out_.emplace_back(set);
    base_.nd_target = key_.nd_target;
    base_.arp_sha = key_.arp_sha;
    base_.arp_tha = key_.arp_tha;
  }

  // Pops down to the tags that both have in common (counted from the innermost), then pushes.
  void vlan() {
    if (key_.vlan == base_.vlan && !vlan_restacked_) return;
    if (!vlan_restacked_ && key_.has_vlan() && base_.has_vlan() && key_.vlan[1] == base_.vlan[1]) {
      mask_.vlan[0] = {~be16{}, ~be16{}};  // only the outer tag was rewritten
    } else {
      mark_base_tags();
    }
    size_t have = tag_count(base_), want = tag_count(key_);
    size_t common = 0;
    while (common < have && common < want && base_.vlan[have - 1 - common] == key_.vlan[want - 1 - common]) {
      ++common;
    }
    for (; have > common; --have) out_.emplace_back(PopVlanAction{});
    for (size_t i = want - common; i-- > 0;) out_.emplace_back(PushVlanAction{key_.vlan[i].tpid, key_.vlan[i].tci});
    base_.vlan = key_.vlan;
  }

  static size_t tag_count(const FlowKey& key) {
    size_t n = 0;
    while (n < kMaxVlanTags && bool(key.vlan[n].tci & kVlanCfi)) ++n;
    return n;
  }

  void mark_base_tags() {
    for (size_t i = 0; i < kMaxVlanTags; ++i) {
      if (!(base_.vlan[i].tci & kVlanCfi)) {
        mask_.vlan[i].tci |= kVlanCfi;
        return;
      }
      mask_.vlan[i] = {~be16{}, ~be16{}};
    }
  }

  void metadata() {
    if (key_.skb_priority != base_.skb_priority) {
      out_.emplace_back(SetPriorityAction{key_.skb_priority & written_.skb_priority, written_.skb_priority});
      base_.skb_priority = key_.skb_priority;
    }
    if (key_.skb_mark != base_.skb_mark) {
      out_.emplace_back(SetMarkAction{key_.skb_mark & written_.skb_mark, written_.skb_mark});
      base_.skb_mark = key_.skb_mark;
    }
  }

  const FlowKey& key_;
  const FlowMask& written_;
  const bool vlan_restacked_;
  FlowKey& base_;
  FlowMask& mask_;
  ActionList& out_;
};

}  // namespace

void commit_actions(const CommitInput& input, FlowKey& base, FlowMask& mask, ActionList& out) {
  Committer(input, base, mask, out).run();
}

}  // namespace vswitch
