#include "vswitchd/rpc/proto_convert_rule.h"

#include <gtest/gtest.h>

namespace vswitch {
namespace {

RuleMod parse(const std::string& text) {
  Result<RuleMod> mod = parse_rule_mod(text, RuleCommand::add);
  EXPECT_TRUE(mod.ok()) << text << ": " << mod.status().message();
  return mod.ok() ? *mod : RuleMod{};
}

Result<RuleMod> from_proto(const v1::RuleMod& mod) {
  RuleLineParser parser;
  return rule_mod_from_proto(mod, nullptr, parser);
}

// Every spelling of matches and actions that text knows must survive: rule -> message -> the same rule.
TEST(ProtoConvertRule, RulesSurviveTheTrip) {
  const char* rules[] = {
      "actions=normal",
      "table=3,priority=7,cookie=0x55,idle_timeout=5,hard_timeout=9,in_port=4,actions=drop",
      "tcp,nw_src=10.0.0.0/8,tp_dst=80,actions=output:2,output:LOCAL,in_port",
      "tcp6,ipv6_src=fd00::/16,tp_src=0x1000/0xf000,actions=dec_ttl,output:3",
      "dl_src=0a:00:00:00:00:01,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=flood",
      "dl_vlan=10,dl_vlan_pcp=3,actions=strip_vlan,mod_vlan_vid:20,mod_vlan_pcp:1,output:1",
      "vlan_tci=0x1000/0x1000,actions=push_vlan:0x88a8,set_field:4100->vlan_vid,all",
      "icmp,icmp_type=8,icmp_code=0,actions=controller(max_len=64,reason=invalid_ttl,id=3)",
      "arp,arp_op=1,arp_spa=10.0.0.1,arp_sha=0a:00:00:00:00:02,actions=local",
      "tun_id=0x5,tun_src=1.2.3.4,actions=set_field:0x7->tun_id,set_field:1.2.3.4->tun_dst,output:9",
      "reg0=5,reg3=0x10/0xf0,metadata=0x1/0xff,actions=load:0x5->NXM_NX_REG1[0..15],move:NXM_NX_REG0[]->NXM_NX_REG2[]",
      "udp,nw_frag=no,nw_tos=16,actions=mod_nw_src:10.1.1.1,mod_tp_dst:53,set_tunnel:7,resubmit(,5)",
      "ip,actions=push:NXM_NX_REG0[],pop:NXM_NX_REG1[0..31],note:01.02.03.04.05.06,exit",
      "actions=clone(set_field:1->reg0,output:5),write_metadata:0x5/0xff,goto_table:9",
      "actions=clear_actions,write_actions(output:3),goto_table:2",
      "icmp6,icmp_type=135,nd_target=fd00::1,actions=resubmit(4,7)",
      "tcp,tcp_flags=+syn-ack,actions=output:NXM_NX_REG0[0..15]",
      "xreg1=0x1234567890abcdef,actions=drop",
  };
  for (const char* text : rules) {
    RuleMod mod = parse(text);
    RuleInfo info;
    info.spec = mod.spec;
    v1::RuleMod message;
    rule_to_proto(info, {}, *message.mutable_rule());
    message.mutable_rule()->mutable_match()->clear_text();
    Result<RuleMod> back = from_proto(message);
    ASSERT_TRUE(back.ok()) << text << ": " << back.status().message() << "\n" << message.DebugString();
    EXPECT_EQ(back->spec.match, mod.spec.match) << text << "\n" << message.DebugString();
    EXPECT_EQ(*back->spec.actions, *mod.spec.actions) << text << "\n" << message.DebugString();
    EXPECT_EQ(back->spec.table, mod.spec.table);
    EXPECT_EQ(back->spec.priority, mod.spec.priority);
    EXPECT_EQ(back->spec.cookie, mod.spec.cookie);
    EXPECT_EQ(back->spec.idle_timeout, mod.spec.idle_timeout);
  }
}

v1::FieldMatch& add(v1::Match& match, const std::string& field) {
  v1::FieldMatch& part = *match.add_fields();
  part.set_field(field);
  return part;
}

TEST(ProtoConvertRule, ValuesInAllTheirForms) {
  Match expected = parse("ip,nw_dst=10.0.0.1,actions=drop").spec.match.expand();
  for (int form = 0; form < 3; ++form) {
    v1::Match match;
    add(match, "eth_type").mutable_value()->set_number(0x0800);
    v1::FieldValue& value = *add(match, "nw_dst").mutable_value();
    if (form == 0) value.set_number(0x0a000001);
    if (form == 1) value.set_data(std::string("\x0a\x00\x00\x01", 4));
    if (form == 2) value.set_text("10.0.0.1");
    Result<Match> converted = match_from_proto(match, nullptr);
    ASSERT_TRUE(converted.ok()) << converted.status().message();
    EXPECT_EQ(*converted, expected) << form;
  }
}

TEST(ProtoConvertRule, PrefixLengths) {
  v1::Match match;
  add(match, "dl_type").mutable_value()->set_text("0x0800");
  add(match, "nw_src").mutable_value()->set_text("10.1.0.0/16");
  Result<Match> converted = match_from_proto(match, nullptr);
  ASSERT_TRUE(converted.ok());
  EXPECT_EQ(*converted, parse("ip,nw_src=10.1.0.0/16,actions=drop").spec.match.expand());
}

TEST(ProtoConvertRule, RefusesWhatCannotBe) {
  struct Case {
    const char* field;
    const char* text;
    const char* says;
  };
  const Case cases[] = {
      {"tcp_dts", "80", "tcp_dst"},     {"nw_dst", "10.0.0.256", "IPv4"}, {"nw_dst", "10.0.0.0/33", "0 to 32"},
      {"dl_src", "0a:00", "Ethernet"},  {"ipv6_src", "10.0.0.1", "IPv6"}, {"nw_proto", "256", "does not fit"},
      {"mpls_label", "1048576", "fit"}, {"reg0", "0x1ffffffff", "fit"},   {"reg0", "", "number"},
      {"tun_metadata0", "1", "Geneve"},
  };
  for (const Case& c : cases) {
    v1::Match match;
    add(match, c.field).mutable_value()->set_text(c.text);
    Result<Match> converted = match_from_proto(match, nullptr);
    ASSERT_FALSE(converted.ok()) << c.field << "=" << c.text;
    EXPECT_NE(converted.status().message().find(c.says), std::string::npos) << converted.status().message();
    EXPECT_EQ(converted.status().field().find("match.fields[0]"), 0u) << converted.status().field();
  }
}

TEST(ProtoConvertRule, TypedRulesAreChecked) {
  v1::RuleMod mod;
  add(*mod.mutable_rule()->mutable_match(), "tcp_dst").mutable_value()->set_number(80);
  EXPECT_FALSE(from_proto(mod).ok()) << "tcp_dst without tcp";
  mod.Clear();
  mod.mutable_rule()->add_actions();
  Result<RuleMod> empty = from_proto(mod);
  ASSERT_FALSE(empty.ok());
  EXPECT_EQ(empty.status().field(), "rule.actions[0]");
  mod.Clear();
  EXPECT_FALSE(from_proto(mod).ok()) << "neither rule nor text";
  mod.mutable_rule()->set_table(254);
  EXPECT_FALSE(from_proto(mod).ok()) << "no such table";
}

TEST(ProtoConvertRule, FiltersBecomeDeletions) {
  v1::RuleFilter filter;
  filter.set_text("table=4,tcp,cookie=0x5/0xff,out_port=3");
  Result<RuleFilter> parsed = rule_filter_from_proto(filter, nullptr);
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  RuleMod mod = deletion_of(*parsed);
  EXPECT_EQ(mod.command, RuleCommand::remove);
  EXPECT_EQ(mod.spec.table, 4);
  EXPECT_EQ(mod.cookie, 5u);
  EXPECT_EQ(mod.cookie_mask, 0xffu);
  EXPECT_EQ(mod.out_port, 3);
  EXPECT_EQ(mod.spec.match, parse("tcp,actions=drop").spec.match);
}

}  // namespace
}  // namespace vswitch
