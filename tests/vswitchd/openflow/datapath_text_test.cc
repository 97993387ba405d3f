// Expected texts are those of dpctl/dump-flows and ofproto/trace of Open vSwitch 3.1, run on the same packets.
#include "vswitchd/openflow/datapath_text.h"

#include <gtest/gtest.h>

#include "vswitchd/openflow/flow_text.h"

namespace vswitch {
namespace {

// The datapath flow for packets like `packet` (flow text), matching what `matched` (flow text) matches, and what every
// megaflow does: port, recirculation, packet type, EtherType.
struct DatapathFlow {
  FlowKey key;
  FlowMask mask;
};
DatapathFlow datapath_flow(const std::string& packet, const std::string& matched, bool packet_type = true) {
  DatapathFlow f;
  const auto key = parse_flow_key(packet);
  const auto rule = parse_rule_mod(matched + ",actions=drop", RuleCommand::add);
  EXPECT_TRUE(key.ok()) << key.status().message();
  EXPECT_TRUE(rule.ok()) << rule.status().message();
  f.mask = rule->spec.match.expand().mask.packet;
  f.mask.in_port = f.mask.recirc_id = ~0u;
  f.mask.packet_type = packet_type ? ~be32{} : be32{};
  f.mask.eth_type = ~be16{};
  if (key->key.packet.is_ip()) f.mask.nw_frag = 0xff;
  f.key = masked(key->key.packet, f.mask);
  return f;
}

std::string line(const DatapathFlow& f, const ActionList& actions, const DatapathTextOptions& options = {}) {
  return format_datapath_flow(f.key, f.mask, actions, {}, options);
}

TEST(DatapathText, Flows) {
  const ActionList to_2{OutputAction{2}};
  EXPECT_EQ(
      line(datapath_flow("in_port=1,tcp,nw_src=10.0.0.1,nw_ttl=64,tcp_flags=syn",
                         "tcp,nw_src=10.0.0.0/8,nw_ttl=64,tcp_flags=+syn-ack"),
           to_2),
      "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(src=10.0.0.0/255.0.0.0,proto=6,ttl=64,"
      "frag=no),tcp_flags(+syn-ack), packets:0, bytes:0, used:never, actions:2");
  EXPECT_EQ(
      line(datapath_flow("in_port=1,arp,arp_op=1,arp_spa=10.0.0.1", "arp,arp_op=1"), to_2),
      "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0806),arp(op=1), packets:0, bytes:0, used:never, "
      "actions:2");
  EXPECT_EQ(
      line(datapath_flow("in_port=1,icmp6,icmpv6_type=135,icmpv6_code=0,nd_target=ff80::3",
                         "icmp6,icmpv6_type=135,icmpv6_code=0,nd_target=fe80::/10"),
           to_2),
      "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),"
      "nd(target=ff80::/ffc0::), packets:0, bytes:0, used:never, actions:2");
  EXPECT_EQ(
      line(datapath_flow("in_port=1,udp6,ipv6_src=2001::1,ipv6_label=5,nw_tos=8,udp_dst=18",
                         "udp6,udp_dst=0x10/0xf0,ipv6_label=0x5/0xff,ipv6_src=2001::/16,nw_tos=8"),
           to_2),
      "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x86dd),ipv6(src=2001::/ffff::,label=0x5/0xff,proto=17,"
      "tclass=0x8/0xfc,frag=no),udp(dst=16/0xf0), packets:0, bytes:0, used:never, actions:2");
}

TEST(DatapathText, VlanTags) {
  const std::string packet = "in_port=1,dl_vlan=5,dl_vlan_pcp=2,ip,nw_src=1.2.3.4,nw_proto=17";
  DatapathFlow f = datapath_flow(packet, "dl_vlan=5,ip,nw_src=0.0.0.0/248.0.0.0");
  f.key.vlan[0].tpid = kEthTypeVlan;
  EXPECT_EQ(line(f, {}),
            "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x8100),vlan(vid=5),encap(eth_type(0x0800),"
            "ipv4(src=0.0.0.0/248.0.0.0,frag=no)), packets:0, bytes:0, used:never, actions:drop");
}

TEST(DatapathText, EthernetStandsForThePacketType) {
  EXPECT_EQ(line(datapath_flow("in_port=1,dl_type=0x88cc", "dl_type=0x88cc", false), {}),
            "recirc_id(0),in_port(1),eth(),eth_type(0x88cc), packets:0, bytes:0, used:never, actions:drop");
  EXPECT_EQ(
      line(datapath_flow("in_port=1,dl_type=0x88cc,dl_dst=01:02:03:04:05:06",
                         "dl_type=0x88cc,dl_dst=01:02:03:04:05:06,dl_src=00:00:00:00:00:00/01:00:00:00:00:00", false),
           {}),
      "recirc_id(0),in_port(1),eth(src=00:00:00:00:00:00/01:00:00:00:00:00,dst=01:02:03:04:05:06),eth_type(0x88cc), "
      "packets:0, bytes:0, used:never, actions:drop");
}

TEST(DatapathText, VerboseWithNames) {
  DatapathTextOptions options;
  options.verbose = true;
  options.port_name = [](uint32_t port) { return port == 9 ? "" : port == 1 ? "p1" : "p2"; };
  EXPECT_EQ(
      line(datapath_flow("in_port=1,tcp,nw_src=10.0.0.1,nw_ttl=64,tcp_flags=syn",
                         "tcp,nw_src=10.0.0.0/8,nw_ttl=64,tcp_flags=+syn-ack"),
           {OutputAction{2}, OutputAction{9}}, options),
      "skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),recirc_id(0),dp_hash(0/0),"
      "in_port(p1),packet_type(ns=0,id=0),eth(src=00:00:00:00:00:00/00:00:00:00:00:00,dst=00:00:00:00:00:00/"
      "00:00:00:00:00:00),eth_type(0x0800),ipv4(src=10.0.0.0/255.0.0.0,dst=0.0.0.0/0.0.0.0,proto=6,tos=0/0,ttl=64,"
      "frag=no),tcp(src=0/0,dst=0/0),tcp_flags(+syn-ack), packets:0, bytes:0, used:never, actions:p2,9");
}

TEST(DatapathText, TunnelKey) {
  DatapathFlow f = datapath_flow("in_port=1,tun_id=5,tun_src=1.1.1.1,tun_dst=2.2.2.2",
                                 "tun_id=5,tun_src=1.1.1.1,tun_dst=2.2.2.2", false);
  f.key.tunnel.flags = kTunnelKey;
  f.mask.tunnel.flags = kTunnelKey | kTunnelDontFragment | kTunnelChecksum;
  EXPECT_EQ(format_datapath_key(f.key, &f.mask),
            "tunnel(tun_id=0x5,src=1.1.1.1,dst=2.2.2.2,flags(-df-csum+key)),recirc_id(0),in_port(1),eth(),eth_type(0/"
            "0xffff)");
}

TEST(DatapathText, Counters) {
  const DatapathFlow f = datapath_flow("in_port=1,tcp", "tcp");
  DatapathFlowCounters counters{7, 420, Nanoseconds(1234567890), 0x012};
  EXPECT_TRUE(format_datapath_flow(f.key, f.mask, {}, counters)
                  .ends_with(", packets:7, bytes:420, used:1.234s, flags:S., actions:drop"));
  counters.kernel_path = true;
  EXPECT_TRUE(format_datapath_flow(f.key, f.mask, {}, counters).ends_with(", flags:S., kernel_path:yes, actions:drop"));
}

TEST(DatapathText, Actions) {
  const MacAddress mac = *MacAddress::parse("00:00:00:00:00:09"), all = *MacAddress::parse("ff:ff:ff:ff:ff:ff");
  Ipv6Address all6;
  all6.bytes.fill(0xff);
  const auto text = [](Action a) { return format_datapath_actions({std::move(a)}); };
  EXPECT_EQ(text(PushVlanAction{kEthTypeVlan, to_be16(0x100a)}), "push_vlan(vid=10,pcp=0)");
  EXPECT_EQ(text(PushVlanAction{kEthTypeQinq, to_be16(0x7064)}), "push_vlan(tpid=0x88a8,vid=100,pcp=3)");
  EXPECT_EQ(text(PopVlanAction{}), "pop_vlan");
  EXPECT_EQ(text(SetEthernetAction{{}, mac, {}, all}), "set(eth(dst=00:00:00:00:00:09))");
  SetIpv4Action ipv4;
  ipv4.ttl = 63;
  ipv4.ttl_mask = 0xff;
  ipv4.tos = 2;
  ipv4.tos_mask = 3;
  EXPECT_EQ(text(ipv4), "set(ipv4(tos=0x2/0x3,ttl=63))");
  SetIpv6Action ipv6;
  ipv6.dst = *Ipv6Address::parse("2001::9");
  ipv6.dst_mask = all6;
  ipv6.label = to_be32(5);
  ipv6.label_mask = to_be32(0xfffff);
  EXPECT_EQ(text(ipv6), "set(ipv6(dst=2001::9,label=0x5))");
  EXPECT_EQ(text(SetTransportAction{kProtoUdp, {}, to_be16(81), {}, ~be16{}}), "set(udp(dst=81))");
  EXPECT_EQ(text(SetIcmpAction{kProtoIcmp, 8, 0, 0xff, 0}), "set(icmp(type=8))");
  SetArpAction arp;
  arp.spa = to_be32(0x01010101);
  arp.spa_mask = ~be32{};
  arp.op = to_be16(2);
  arp.op_mask = ~be16{};
  EXPECT_EQ(text(arp), "set(arp(sip=1.1.1.1,op=2))");
  EXPECT_EQ(text(SetNdAction{*Ipv6Address::parse("fe80::1"), all6, mac, {}, all, {}}),
            "set(nd(target=fe80::1,sll=00:00:00:00:00:09))");
  EXPECT_EQ(text(SetMarkAction{5, ~0u}), "set(skb_mark(0x5))");
  EXPECT_EQ(text(SetPriorityAction{0x10, 0xf0}), "set(skb_priority(0x10/0xf0))");
  EXPECT_EQ(text(TruncateAction{100}), "trunc(100)");
  EXPECT_EQ(text(RecircAction{1}), "recirc(0x1)");
  EXPECT_EQ(text(HashAction{HashAlgorithm::l4, 0}), "hash(l4(0))");
  EXPECT_EQ(text(CloneAction{std::make_shared<const ActionList>(ActionList{PopVlanAction{}, OutputAction{2}})}),
            "clone(pop_vlan,2)");
  EXPECT_EQ(text(DropAction{}), "drop");
  EXPECT_EQ(format_datapath_actions({}), "drop");
  EXPECT_EQ(format_datapath_actions({OutputAction{1}, OutputAction{2}}), "1,2");
}

TEST(DatapathText, SetTunnel) {
  TunnelMetadata t;
  t.id = to_be64(5);
  t.dst = to_be32(0x01020304);
  t.ttl = 64;
  t.flags = kTunnelDontFragment | kTunnelKey;
  const auto text = [&] {
    return format_datapath_actions({SetTunnelAction{std::make_shared<const TunnelMetadata>(t)}});
  };
  EXPECT_EQ(text(), "set(tunnel(tun_id=0x5,dst=1.2.3.4,ttl=64,flags(df|key)))");
  t.src = to_be32(0x01010101);
  t.tp_dst = to_be16(4789);
  t.gbp_id = to_be16(7);
  t.flags |= kTunnelChecksum;
  EXPECT_EQ(
      text(),
      "set(tunnel(tun_id=0x5,src=1.1.1.1,dst=1.2.3.4,ttl=64,tp_dst=4789,vxlan(gbp(id=7,flags=0)),flags(df|csum|key)))");
}

TEST(DatapathText, Userspace) {
  EXPECT_EQ(format_datapath_actions({UserspaceAction{UserspaceReason::slow_path, 0, 0}}),
            "userspace(pid=0,slow_path(action))");
  DatapathTextOptions options;
  options.describe_userspace = [](const UserspaceAction& a) {
    return std::string("controller(id=") + std::to_string(a.cookie) + ")";
  };
  EXPECT_EQ(format_datapath_actions({UserspaceAction{UserspaceReason::controller, 4, 0}}, options),
            "userspace(pid=0,controller(id=4))");
}

}  // namespace
}  // namespace vswitch
