#include "vswitchd/openflow/flow_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "tests/vswitchd/openflow/random_rule.h"

namespace vswitch {
namespace {

using ::testing::HasSubstr;
using testing::named_field;
using ::testing::Not;

RuleMod add(std::string_view text, const FlowNames* names = nullptr) {
  Result<RuleMod> mod = parse_rule_mod(text, RuleCommand::add, names);
  EXPECT_TRUE(mod.ok()) << text << ": " << mod.status().message();
  return mod.ok() ? *mod : RuleMod{};
}

Status refusal(std::string_view text, RuleCommand command = RuleCommand::add) {
  return parse_rule_mod(text, command).status();
}

// ---- Against real Open vSwitch

TEST(FlowText, PrintsWhatOpenVSwitchPrints) {
  std::ifstream file(VSWITCH_SOURCE_DIR "/tests/vswitchd/openflow/flows.txt");
  ASSERT_TRUE(file);
  int count = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    const size_t tab = line.find('\t');
    ASSERT_NE(tab, line.npos) << line;
    const RuleMod mod = add(line.substr(0, tab));
    if (!mod.spec.actions) continue;
    EXPECT_EQ(format_rule(mod.spec), line.substr(tab + 1)) << line;
    EXPECT_TRUE(check_rule(mod.spec).ok()) << line << ": " << check_rule(mod.spec).message();
    // And what is printed can be typed again.
    EXPECT_EQ(format_rule(add(format_rule(mod.spec)).spec), line.substr(tab + 1));
    ++count;
  }
  EXPECT_GE(count, 285);
}

TEST(FlowText, RefusesMatchesThatNothingFulfils) {
  for (const char* text : {"ct_state=+trk+new,actions=1", "ct_zone=7,actions=1", "ct_mark=0x5/0xff,actions=1",
                           "ct_label=0x1/0x3,actions=1"}) {
    EXPECT_EQ(refusal(text).code(), StatusCode::unimplemented) << text;
    EXPECT_THAT(refusal(text).message(), HasSubstr("ct_")) << text;
  }
  EXPECT_EQ(refusal("conj_id=3,actions=1").message(),
            "matching on conj_id is not supported yet: this version has no conjunctions");
  EXPECT_TRUE(refusal("ct_state=+trk", RuleCommand::remove).ok()) << "there is none to remove";
}

TEST(FlowText, RefusesVlanIdsThatDoNotFit) {
  EXPECT_EQ(refusal("dl_vlan=5000,actions=1").message(),
            "dl_vlan=5000: not a VLAN ID (0 to 4095, or 0xffff for packets without a tag)");
  EXPECT_FALSE(refusal("ip,dl_vlan=0x1000 actions=1").ok());
  for (const char* text : {"dl_vlan=0,actions=1", "dl_vlan=4095,actions=1", "dl_vlan=0xffff,actions=1"}) {
    EXPECT_TRUE(refusal(text).ok()) << text;
  }
}

TEST(FlowText, KeepsSpellingsThatTheWireLoses) {
  for (const char* text : {"ip actions=mod_nw_ecn:1", "actions=pop_vlan", "actions=set_tunnel64:0x5",
                           "actions=output:1,clear_actions,write_actions(drop),write_metadata:0x1,goto_table:7"}) {
    EXPECT_EQ(format_rule(add(text).spec), std::string(" ") + text);
  }
}

TEST(FlowText, PrintsCounters) {
  const RuleSpec rule = add("table=3,priority=1,in_port=1,idle_timeout=5,actions=2").spec;
  RuleCounters counters{4200ms, 10, 600, std::nullopt, std::nullopt};
  EXPECT_EQ(format_rule(rule, &counters),
            " cookie=0x0, duration=4.200s, table=3, n_packets=10, n_bytes=600, idle_timeout=5, priority=1,in_port=1 "
            "actions=output:2");
  counters.idle_age = 2;
  EXPECT_THAT(format_rule(rule, &counters), HasSubstr("idle_timeout=5, idle_age=2, priority=1"));
}

// ---- Round trips

TEST(FlowText, RandomRulesSurviveText) {
  ASSERT_TRUE(rc::check("parse(format(rule)) == rule", [] {
    const RuleSpec rule = testing::random_rule();
    const std::string text = format_rule(rule);
    RC_LOG() << text << std::endl;
    const Status checked = check_rule(rule);
    RC_LOG() << checked.message() << std::endl;
    RC_ASSERT(checked.ok());
    const Result<RuleMod> again = parse_rule_mod(text, RuleCommand::add);
    RC_LOG() << again.status().message() << std::endl;
    RC_ASSERT(again.ok());
    RC_LOG() << format_rule(again->spec) << std::endl;
    RC_ASSERT(testing::same_rule(again->spec, rule));
  }));
}

TEST(FlowText, ParsesIntoTheFieldsOfTheRegistry) {
  const Match m = add("in_port=3,ip,nw_src=10.0.0.0/8,reg1=0x5,actions=drop").spec.match.expand();
  Match expected;
  testing::match_number("in_port", 3, &expected);
  testing::match_number("eth_type", 0x0800, &expected);
  testing::match_number("reg1", 5, &expected);
  expected.value.packet.nw_src = to_be32(10u << 24);
  expected.mask.packet.nw_src = to_be32(0xffu << 24);
  for (size_t i = 0; i < kPipelineKeyWords; ++i) {
    EXPECT_EQ(words(m.value)[i], words(expected.value)[i]) << i;
    EXPECT_EQ(words(m.mask)[i], words(expected.mask)[i]) << i;
  }
}

TEST(FlowText, IsThreadSafe) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&wrong, t] {
      const std::string text =
          std::string(" table=1, tcp,tp_dst=") + std::to_string(t + 1) + " actions=set_field:0x1->reg0,output:2";
      for (int i = 0; i < 500; ++i) {
        const auto mod = parse_rule_mod(text, RuleCommand::add);
        if (!mod.ok() || format_rule(mod->spec) != text) ++wrong;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

// ---- Commands

TEST(FlowText, FillsRequests) {
  EXPECT_EQ(add("actions=drop").spec.table, 0);
  const auto modify = parse_rule_mod("cookie=0x5/0xf,cookie=9,tcp,actions=1", RuleCommand::modify);
  ASSERT_TRUE(modify.ok());
  EXPECT_EQ(modify->spec.table, kTableAll);
  EXPECT_EQ(modify->cookie, 5u);
  EXPECT_EQ(modify->cookie_mask, 0xfu);
  EXPECT_TRUE(modify->modify_cookie);
  EXPECT_EQ(modify->spec.cookie, 9u);
  const auto remove = parse_rule_mod("table=2,out_port=7", RuleCommand::remove);
  ASSERT_TRUE(remove.ok());
  EXPECT_EQ(remove->out_port, 7);
  EXPECT_EQ(remove->spec.table, 2);
  EXPECT_TRUE(remove->spec.actions->empty());
}

TEST(FlowText, ReadsTheCommandOfALine) {
  EXPECT_EQ(parse_rule_line("delete table=1")->command, RuleCommand::remove);
  EXPECT_EQ(parse_rule_line("modify_strict priority=1,actions=2")->command, RuleCommand::modify_strict);
  EXPECT_EQ(parse_rule_line("priority=1,actions=2")->command, RuleCommand::add);
}

TEST(FlowText, ParsesFilters) {
  const auto filter = parse_rule_filter("table=3,tcp,cookie=0x10/-1,out_port=2");
  ASSERT_TRUE(filter.ok());
  EXPECT_EQ(filter->table, 3);
  EXPECT_EQ(filter->cookie, 0x10u);
  EXPECT_EQ(filter->cookie_mask, UINT64_MAX);
  EXPECT_EQ(filter->out_port, 2);
  EXPECT_EQ(filter->match.value.packet.nw_proto, kProtoTcp);
  EXPECT_TRUE(parse_rule_filter("")->match.is_catch_all());
  EXPECT_EQ(parse_rule_filter("")->table, kTableAll);
}

TEST(FlowText, UsesNames) {
  FlowNames names;
  names.add_port(5, "a-port-with-a-name-of-more-than-fifteen-characters");
  names.add_port(6, "p6");
  names.add_table(3, "acl");
  const RuleSpec rule =
      add("table=acl,in_port=p6,actions=\"a-port-with-a-name-of-more-than-fifteen-characters\",resubmit(,acl)", &names)
          .spec;
  EXPECT_EQ(rule.table, 3);
  EXPECT_EQ(rule.match.expand().value.packet.in_port, 6u);
  EXPECT_EQ(format_rule(rule, nullptr, &names),
            " table=acl, in_port=p6 "
            "actions=output:\"a-port-with-a-name-of-more-than-fifteen-characters\",resubmit(,acl)");
  EXPECT_EQ(format_rule(rule), " table=3, in_port=6 actions=output:5,resubmit(,3)");
  EXPECT_FALSE(parse_rule_mod("in_port=nobody,actions=drop", RuleCommand::add, &names).ok());
}

TEST(FlowText, ParsesPacketOut) {
  const auto out =
      parse_packet_out("in_port=3, packet=000000000001000000000002080045, actions=output:4,set_field:1->reg0");
  ASSERT_TRUE(out.ok()) << out.status().message();
  EXPECT_EQ(out->metadata.packet.in_port, 3u);
  EXPECT_EQ(out->packet.size(), 15u);
  EXPECT_EQ(out->packet[5], 1);
  EXPECT_EQ(format_actions(out->actions), "output:4,set_field:0x1->reg0");
  EXPECT_FALSE(parse_packet_out("in_port=3,actions=1").ok());
  EXPECT_FALSE(parse_packet_out("in_port=3,packet=0g,actions=1").ok());
}

// ---- Trace

TEST(FlowText, FlowKeysLookLikeOfprotoTrace) {
  // Each pair: what was typed, and what ofproto/trace of Open vSwitch 3.1 printed behind "Flow: ".
  constexpr std::pair<const char*, const char*> kFlows[] = {
      {"in_port=1,tcp,dl_src=00:00:00:00:00:01",
       "tcp,in_port=1,vlan_tci=0x0000,dl_src=00:00:00:00:00:01,dl_dst=00:00:00:00:00:00,nw_src=0.0.0.0,nw_dst=0.0.0.0,"
       "nw_tos="
       "0,nw_ecn=0,nw_ttl=0,nw_frag=no,tp_src=0,tp_dst=0,tcp_flags=0"},
      {"in_port=1,dl_vlan=5,dl_vlan_pcp=3,ip,dl_src=00:00:00:00:00:01,nw_src=1.2.3.4",
       "ip,in_port=1,dl_vlan=5,dl_vlan_pcp=3,vlan_tci1=0x0000,dl_src=00:00:00:00:00:01,dl_dst=00:00:00:00:00:00,nw_src="
       "1.2.3."
       "4,nw_dst=0.0.0.0,nw_proto=0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no"},
      {"in_port=1,icmp6,icmpv6_type=135,icmpv6_code=0,nd_target=fe80::2,nd_sll=00:00:00:00:00:03",
       "icmp6,in_port=1,vlan_tci=0x0000,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00,ipv6_src=::,ipv6_dst=::,ipv6_"
       "label="
       "0x00000,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,icmp_type=135,icmp_code=0,nd_target=fe80::2,nd_sll=00:00:00:00:"
       "00:03,"
       "nd_tll=00:00:00:00:00:00"},
      {"in_port=1,arp,arp_op=1,arp_spa=10.0.0.1,arp_tpa=10.0.0.2,arp_sha=00:00:00:00:00:01",
       "arp,in_port=1,vlan_tci=0x0000,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00,arp_spa=10.0.0.1,arp_tpa=10.0."
       "0.2,"
       "arp_op=1,arp_sha=00:00:00:00:00:01,arp_tha=00:00:00:00:00:00"},
      {"in_port=1,tcp,tcp_flags=syn,reg5=3,metadata=9,tun_id=5,tun_src=1.1.1.1,tun_dst=2.2.2.2,tun_flags=oam,pkt_mark="
       "1,"
       "tun_gbp_id=4",
       "pkt_mark=0x1,tcp,reg5=0x3,tun_src=1.1.1.1,tun_dst=2.2.2.2,tun_ipv6_src=::,tun_ipv6_dst=::,tun_gbp_id=4,tun_gbp_"
       "flags="
       "0,tun_tos=0,tun_ttl=0,tun_erspan_ver=0,gtpu_flags=0,gtpu_msgtype=0,tun_flags=oam,metadata=0x9,in_port=1,vlan_"
       "tci="
       "0x0000,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00,nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_tos=0,nw_ecn=0,nw_"
       "ttl=0,"
       "nw_frag=no,tp_src=0,tp_dst=0,tcp_flags=syn"},
  };
  for (const auto& [typed, printed] : kFlows) {
    const auto key = parse_flow_key(typed);
    ASSERT_TRUE(key.ok()) << typed << ": " << key.status().message();
    EXPECT_EQ(format_flow_key(key->key), printed);
  }
}

TEST(FlowText, FlowKeyErrors) {
  EXPECT_THAT(parse_flow_key("tp_dst=80").status().message(), HasSubstr("prerequisites not met for setting tp_dst"));
  EXPECT_THAT(parse_flow_key("in_port=1,in_port=2").status().message(), HasSubstr("in_port is given twice"));
  EXPECT_THAT(parse_flow_key("nonsense=1").status().message(), HasSubstr("unknown field nonsense"));
  EXPECT_EQ(parse_flow_key("tcp")->key.packet.in_port, kOfPortNone);
  EXPECT_EQ(parse_flow_key("tcp,in_port=NONE")->key.packet.in_port, kOfPortNone);
  EXPECT_EQ(parse_flow_key("tcp,in_port=0")->key.packet.in_port, 0u) << "no such port, but it was asked for";
}

TEST(FlowText, FormatsMegaflows) {
  Match m = add("in_port=1,tcp,nw_dst=10.0.0.0/8,tp_dst=80,actions=drop").spec.match.expand();
  m.mask.packet.recirc_id = ~0u;
  m.mask.packet.packet_type = ~be32{};
  m.mask.packet.nw_frag = 3;
  EXPECT_EQ(format_megaflow(m.value, m.mask), "recirc_id=0,eth,tcp,in_port=1,nw_dst=10.0.0.0/8,nw_frag=no,tp_dst=80");
}

// ---- Refusals

TEST(FlowText, RefusesWithTheParsersWords) {
  EXPECT_EQ(refusal("tcp").message(), "must specify an action");
  EXPECT_EQ(refusal("foo=1,actions=drop").message(), "unknown keyword foo");
  EXPECT_THAT(refusal("actions=frobnicate").message(), HasSubstr("frobnicate"));
  EXPECT_THAT(refusal("ip,nw_src=1.2.3.999,actions=drop").message(), HasSubstr("1.2.3.999"));
  EXPECT_THAT(refusal("table=300,actions=drop").message(), HasSubstr("unknown table \"300\""));
  EXPECT_THAT(refusal("priority=70000,actions=drop").message(), HasSubstr("70000"));
  EXPECT_THAT(refusal("cookie=5", RuleCommand::remove).message(), HasSubstr("cannot set cookie"));
  EXPECT_EQ(refusal(std::string_view("tcp\0,actions=drop", 17)).code(), StatusCode::invalid_argument);
}

TEST(FlowText, NamesWhatIsNotSupportedYet) {
  const std::pair<const char*, const char*> kTexts[] = {
      {"tcp,actions=ct(commit,zone=1)", "action ct is not supported yet"},
      {"actions=group:5", "action group is not supported yet"},
      {"actions=clone(learn(table=1,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]))", "action learn is not supported yet"},
      {"actions=controller(pause)", "action controller(pause) is not supported yet"},
      {"actions=meter:1", "action meter is not supported yet"},
      {"mpls,actions=pop_mpls:0x800", "action pop_mpls is not supported yet"},
      {"tun_erspan_idx=5,actions=drop", "field tun_erspan_idx is not supported yet"},
      {"actions=set_field:1->tun_erspan_ver", "field tun_erspan_ver is not supported yet"},
  };
  for (const auto& [text, message] : kTexts) {
    EXPECT_EQ(refusal(text), unimplemented(message, refusal(text).field())) << text;
  }
}

TEST(FlowText, RefusesMatchesWithoutTheirProtocol) {
  for (const char* text : {"tp_dst=80", "nw_src=1.2.3.4", "ip,tcp_dst=80", "ip,ipv6_src=::1", "arp_spa=1.2.3.4",
                           "icmp6,nd_target=fe80::1", "mpls_label=5", "nw_ttl=5", "arp,nw_tos=32"}) {
    const Status status = refusal(std::string(text) + ",actions=drop");
    EXPECT_EQ(status.code(), StatusCode::invalid_argument) << text;
    EXPECT_THAT(status.message(), HasSubstr("match on ")) << text;
    EXPECT_FALSE(parse_rule_filter(text).ok()) << text;
  }
}

TEST(FlowText, NamesTheActionThatDoesNotFit) {
  EXPECT_THAT(refusal("ip,actions=output:1,set_field:80->tcp_dst,output:2").message(),
              HasSubstr("set_field:80->tcp_dst"));
  EXPECT_THAT(refusal("actions=output:none").message(), HasSubstr("no output to this port"));
  EXPECT_THAT(refusal("table=5,actions=goto_table:5").message(), HasSubstr("goto_table:5"));
  EXPECT_THAT(refusal("actions=goto_table:0").message(), HasSubstr("goto_table:0"));
  EXPECT_THAT(refusal("actions=resubmit(,254)").message(), HasSubstr("254"));
  EXPECT_THAT(refusal("table=254,actions=drop").message(), HasSubstr("table 254"));
}

struct Refusal {
  const char* text;
  const char* words;
};

// What the parser would take, though nobody can mean it.
TEST(FlowText, RefusesWhatTheParserLetsPass) {
  constexpr Refusal kRefusals[] = {
      {"metadata=-1,actions=drop", "metadata=-1: a number cannot be negative here"},
      {"priority=-5,actions=drop", "priority=-5: a number cannot be negative"},
      {"reg0=5/-2,actions=drop", "reg0=5/-2"},
      {"actions=load:-1->NXM_NX_REG0[]", "load:-1->NXM_NX_REG0[]"},
      {"actions=resubmit(,-1)", "-1"},
      {"actions=normal:3", "action normal takes no argument, not \"3\""},
      {"actions=NORMAL(3)", "action NORMAL takes no argument"},
      {"actions=drop:1", "action drop takes no argument"},
      {"ip,actions=dec_ttl:abc", "action dec_ttl: \"abc\" is not a list of controller ids"},
      {"actions=1:5", "action 1 takes no argument, not \"5\""},
      {"actions=strip_vlan:1,2", "action strip_vlan takes no argument"},
      {"actions=clone(output:1,exit:2)", "action exit takes no argument"},
      {"actions=output_trunc:3", "unknown action output_trunc: it is written output(port=PORT,max_len=BYTES)"},
      {"tcp=5,actions=drop", "tcp takes no value, not \"5\""},
      {"send_flow_rem=1,actions=drop", "send_flow_rem takes no value"},
      {"in_port=1,in_port=2,actions=drop", "in_port is given twice"},
      {"dl_src=00:00:00:00:00:01,eth_src=00:00:00:00:00:02,actions=drop", "eth_src is given twice"},
      {"dl_vlan=5,vlan_vid=6,actions=drop", "vlan_vid is given twice"},
      {"dl_vlan=5,vlan_tci=0x1006,actions=drop", "vlan_tci=0x1006"},
      {"priority=1,priority=2,actions=drop", "priority is given twice"},
      {"table=1,table=2,actions=drop", "table is given twice"},
      {"tcp,udp,actions=drop", "tcp and udp cannot both hold for one packet"},
      {"ip,arp,actions=drop", "ip and arp cannot both hold"},
      {"tcp,nw_proto=17,actions=drop", "tcp and nw_proto=17 cannot both hold"},
      {"dl_type=0x86dd,ip,actions=drop", "dl_type=0x86dd and ip cannot both hold"},
      {"tcp,udp_dst=53,actions=drop", "match on udp_dst: only packets of udp or udp6 have it"},
  };
  for (const Refusal& r : kRefusals) EXPECT_THAT(refusal(r.text).message(), HasSubstr(r.words)) << r.text;
  for (const char* fine : {"cookie=0x5/-1", "metadata=1/-1", "tcp,tp_dst=80", "udp,tp_dst=53", "icmp6,icmp_type=135",
                           "arp,nw_src=1.2.3.4", "reg0[0..3]=1,reg0[4..7]=2", "ip,tcp", "dl_type=0x0800,tcp,nw_proto=6",
                           "icmp6,icmp_type=128", "arp,nw_proto=1", "tcp,tcp_flags=+syn-ack"}) {
    EXPECT_TRUE(parse_rule_filter(fine).ok()) << fine << ": " << parse_rule_filter(fine).status().message();
  }
}

TEST(FlowText, NamesWhatIsMissing) {
  constexpr Refusal kRefusals[] = {
      {"skb_priority=1,actions=drop", "skb_priority cannot be matched by a rule"},
      {"icmp6,nd_target=fe80::1,actions=drop", "icmp_type=135"},
      {"tp_dst=80,actions=drop", "tcp or tcp6, udp or udp6, sctp or sctp6, icmp, icmp6"},
      {"nw_ttl=5,actions=drop", "ip or ipv6"},
      {"actions=strip_vlan,push_vlan:0x8100,mod_vlan_vid:5", "action strip_vlan: only packets of a VLAN tag"},
      {"ip,actions=clone(set_field:80->tcp_dst)", "action set_field:80->tcp_dst: only packets of tcp or tcp6"},
      {"actions=mod_tp_dst:80,push_vlan:0x8100", "mod_tp_dst:80"},
      {"table=5,actions=goto_table:4", "goto_table:4: a rule in table 5 can only go on to a later table"},
      {"table=5,actions=output:1,goto_table:5", "goto_table:5: a rule in table 5 can only go on to a later table"},
      {"priority=70000,actions=drop", "0 to 65535"},
      {"table=300,actions=drop", "0 to 253"},
  };
  for (const Refusal& r : kRefusals) {
    EXPECT_THAT(refusal(r.text).message(), HasSubstr(r.words)) << r.text;
    EXPECT_THAT(refusal(r.text).message(), Not(HasSubstr("actions are invalid"))) << r.text;
  }
}

TEST(FlowText, PrintsMillisecondsOnly) {
  RuleCounters counters;
  counters.duration = std::chrono::nanoseconds(4'321'987'654);
  EXPECT_THAT(format_rule(add("actions=drop").spec, &counters), HasSubstr("duration=4.321s,"));
}

TEST(FlowText, ChecksRulesFromElsewhere) {
  RuleSpec rule = add("tcp,actions=set_field:80->tcp_dst").spec;
  EXPECT_TRUE(check_rule(rule).ok());
  rule.match = Match{};
  EXPECT_THAT(check_rule(rule).message(), HasSubstr("set_field:80->tcp_dst"));
  rule.actions = std::make_shared<const RuleActionList>(RuleActionList{OutputToPort{kOfPortNone, 0}});
  EXPECT_FALSE(check_rule(rule).ok());
  rule.actions = std::make_shared<const RuleActionList>(RuleActionList{Note{std::vector<uint8_t>(100000)}});
  EXPECT_THAT(check_rule(rule).message(), HasSubstr("too long"));
  RuleActionList nested{Exit{}};
  for (int i = 0; i < 100; ++i) nested = {CloneActions{std::make_shared<const RuleActionList>(nested)}};
  rule.actions = std::make_shared<const RuleActionList>(nested);
  EXPECT_THAT(check_rule(rule).message(), HasSubstr("nested"));
  Match match;
  testing::match_number("tcp_dst", 80, &match);
  rule.match = match;
  rule.actions = std::make_shared<const RuleActionList>();
  EXPECT_THAT(check_rule(rule).message(), HasSubstr("match on tp_dst"));
}

}  // namespace
}  // namespace vswitch
