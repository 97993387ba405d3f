#include "vswitchd/translate/commit_actions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace vswitch {
namespace {

using testing::ElementsAre;

FlowMask everything() {
  FlowMask mask;
  std::memset(static_cast<void*>(&mask), 0xff, sizeof mask);
  return mask;
}

FlowKey tcp_key() {
  FlowKey key;
  key.eth_src = MacAddress::from_u64(1);
  key.eth_dst = MacAddress::from_u64(2);
  key.eth_type = kEthTypeIpv4;
  key.nw_src = to_be32(0x0a000001);
  key.nw_dst = to_be32(0x0a000002);
  key.nw_proto = kProtoTcp;
  key.nw_ttl = 64;
  key.tp_src = to_be16(1000);
  key.tp_dst = to_be16(80);
  return key;
}

struct Commit {
  ActionList actions;
  FlowKey base;
  FlowMask mask;
};

// `written` zero: everything.
Commit commit(const FlowKey& base, const FlowKey& key, const FlowMask* written = nullptr, bool restacked = false) {
  Commit result;
  result.base = base;
  const FlowMask all = everything();
  commit_actions({.key = key, .written = written != nullptr ? *written : all, .vlan_restacked = restacked}, result.base,
                 result.mask, result.actions);
  return result;
}

TEST(CommitActions, NothingChangedEmitsNothingAndLooksAtNothing) {
  const Commit result = commit(tcp_key(), tcp_key());
  EXPECT_TRUE(result.actions.empty());
  EXPECT_EQ(FlowMask{}, result.mask);
}

TEST(CommitActions, SetsOnlyTheFieldsThatDiffer) {
  FlowKey key = tcp_key();
  key.eth_dst = MacAddress::from_u64(9);
  key.nw_ttl = 63;
  key.tp_dst = to_be16(81);
  const Commit result = commit(tcp_key(), key);
  SetEthernetAction ethernet;
  ethernet.dst = MacAddress::from_u64(9);
  ethernet.dst_mask = MacAddress::from_u64(0xffffffffffff);
  SetIpv4Action ipv4;
  ipv4.ttl = 63;
  ipv4.ttl_mask = 0xff;
  SetTransportAction ports;
  ports.proto = kProtoTcp;
  ports.dst = to_be16(81);
  ports.dst_mask = ~be16{};
  EXPECT_THAT(result.actions, ElementsAre(Action(ethernet), Action(ipv4), Action(ports)));
  EXPECT_EQ(key, result.base);
  EXPECT_EQ(0xff, result.mask.nw_proto);  // decided that there is a header to write to
}

TEST(CommitActions, WritesUnderTheMaskOfWhatWasWritten) {
  FlowKey key = tcp_key();
  key.nw_src = to_be32(0x0a090001);
  FlowMask written;
  written.nw_src = to_be32(0x00ff0000);
  const Commit result = commit(tcp_key(), key, &written);
  SetIpv4Action ipv4;
  ipv4.src = to_be32(0x00090000);
  ipv4.src_mask = to_be32(0x00ff0000);
  EXPECT_THAT(result.actions, ElementsAre(Action(ipv4)));
}

TEST(CommitActions, LeavesMalformedHeadersAlone) {
  FlowKey base = tcp_key();
  base.nw_proto = 0;
  FlowKey key = base;
  key.nw_src = to_be32(1);
  const Commit result = commit(base, key);
  EXPECT_TRUE(result.actions.empty());
  EXPECT_EQ(0xff, result.mask.nw_proto);
}

TEST(CommitActions, LeavesPortsOfLaterFragmentsAlone) {
  FlowKey base = tcp_key();
  base.nw_frag = kFragAny | kFragLater;
  base.tp_src = base.tp_dst = be16{};
  FlowKey key = base;
  key.tp_dst = to_be16(5);
  EXPECT_TRUE(commit(base, key).actions.empty());
}

TEST(CommitActions, Ipv6IcmpAndNeighbourDiscovery) {
  FlowKey base;
  base.eth_type = kEthTypeIpv6;
  base.nw_proto = kProtoIcmpv6;
  base.tp_src = to_be16(135);
  FlowKey key = base;
  key.ipv6_label = to_be32(7);
  key.nd_target.bytes[15] = 1;
  key.tp_src = to_be16(136);
  const Commit result = commit(base, key);
  SetIpv6Action ipv6;
  ipv6.label = to_be32(7);
  ipv6.label_mask = ~be32{};
  SetNdAction nd;
  nd.target.bytes[15] = 1;
  nd.target_mask.bytes.fill(0xff);
  SetIcmpAction icmp;
  icmp.proto = kProtoIcmpv6;
  icmp.type = 136;
  icmp.type_mask = 0xff;
  EXPECT_THAT(result.actions, ElementsAre(Action(ipv6), Action(nd), Action(icmp)));
}

TEST(CommitActions, Arp) {
  FlowKey base;
  base.eth_type = kEthTypeArp;
  base.nw_proto = 1;
  FlowKey key = base;
  key.nw_proto = 2;
  key.nw_dst = to_be32(5);
  key.arp_tha = MacAddress::from_u64(6);
  SetArpAction arp;
  arp.op = to_be16(2);
  arp.op_mask = to_be16(0xffff);
  arp.tpa = to_be32(5);
  arp.tpa_mask = ~be32{};
  arp.tha = MacAddress::from_u64(6);
  arp.tha_mask = MacAddress::from_u64(0xffffffffffff);
  EXPECT_THAT(commit(base, key).actions, ElementsAre(Action(arp)));
  // An opcode above 255 is 0 in the key, and can be written all the same.
  base.nw_proto = 0;
  EXPECT_THAT(commit(base, key).actions, ElementsAre(Action(arp)));
}

VlanTag tag(uint16_t tci, be16 tpid = kEthTypeVlan) { return {tpid, to_be16(tci) | kVlanCfi}; }

TEST(CommitActions, PopsAndPushesDownToTheCommonTag) {
  FlowKey base = tcp_key(), key = tcp_key();
  base.vlan = {tag(10), tag(20)};
  key.vlan = {tag(11, kEthTypeQinq), tag(20)};
  Commit result = commit(base, key);
  EXPECT_THAT(result.actions,
              ElementsAre(Action(PopVlanAction{}), Action(PushVlanAction{kEthTypeQinq, to_be16(0x100b)})));
  EXPECT_EQ(to_be16(0xffff), result.mask.vlan[0].tci);
  EXPECT_EQ(VlanTag{}, result.mask.vlan[1]);

  key.vlan = {tag(20), VlanTag{}};
  result = commit(base, key);
  EXPECT_THAT(result.actions, ElementsAre(Action(PopVlanAction{})));
  EXPECT_EQ(to_be16(0xffff), result.mask.vlan[1].tci);

  base.vlan = {};
  key.vlan = {tag(5), tag(6)};
  result = commit(base, key);
  EXPECT_THAT(result.actions, ElementsAre(Action(PushVlanAction{kEthTypeVlan, to_be16(0x1006)}),
                                          Action(PushVlanAction{kEthTypeVlan, to_be16(0x1005)})));
  EXPECT_EQ(kVlanCfi, result.mask.vlan[0].tci);  // it was looked at that there is none
}

TEST(CommitActions, RestackedTagsAreLookedAtEvenIfTheyAreTheSame) {
  FlowKey base = tcp_key();
  base.vlan = {tag(10), VlanTag{}};
  const Commit result = commit(base, base, nullptr, true);
  EXPECT_TRUE(result.actions.empty());
  EXPECT_EQ(to_be16(0xffff), result.mask.vlan[0].tci);
  EXPECT_EQ(kVlanCfi, result.mask.vlan[1].tci);
}

TEST(CommitActions, MarkAndPriority) {
  FlowKey key = tcp_key();
  key.skb_mark = 0x105;
  key.skb_priority = 3;
  FlowMask written;
  written.skb_mark = 0xff;
  written.skb_priority = ~0u;
  EXPECT_THAT(commit(tcp_key(), key, &written).actions,
              ElementsAre(Action(SetPriorityAction{3, ~0u}), Action(SetMarkAction{5, 0xff})));
}

}  // namespace
}  // namespace vswitch
