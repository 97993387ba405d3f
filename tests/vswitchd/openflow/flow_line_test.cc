#include "vswitchd/openflow/flow_line.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <fstream>
#include <sstream>

namespace vswitch {
namespace {

bool same_rule(const RuleSpec& a, const RuleSpec& b) {
  return a.table == b.table && a.priority == b.priority && a.match == b.match && *a.actions == *b.actions &&
         a.cookie == b.cookie && a.idle_timeout == b.idle_timeout && a.hard_timeout == b.hard_timeout &&
         a.flags == b.flags && a.importance == b.importance;
}

// Why an answer for this line is not the one wanted; "" if it is.
std::string difference(const std::string& line, const Result<RuleMod>& got, const Result<RuleMod>& wanted) {
  if (got.ok() != wanted.ok()) return line + ": " + (wanted.ok() ? "refused: " + got.status().message() : "accepted");
  if (!got.ok()) return got.status().message() == wanted.status().message() ? "" : line + ": another error";
  const bool same = got->command == wanted->command && same_rule(got->spec, wanted->spec) &&
                    got->cookie == wanted->cookie && got->cookie_mask == wanted->cookie_mask &&
                    got->modify_cookie == wanted->modify_cookie && got->out_port == wanted->out_port;
  return same ? "" : line + ": another rule, " + format_rule(got->spec);
}

// The same for the parser's answers, which are to be parse_rule_line()'s and parse_rule_mod()'s.
std::string difference(RuleLineParser& parser, const std::string& line, const FlowNames* names = nullptr) {
  const std::string of_line = difference(line, parser.parse(line, names), parse_rule_line(line, names));
  if (!of_line.empty()) return of_line;
  for (const RuleCommand command : {RuleCommand::add, RuleCommand::modify, RuleCommand::remove_strict}) {
    const std::string of_mod =
        difference(line, parser.parse_mod(line, command, names), parse_rule_mod(line, command, names));
    if (!of_mod.empty()) return fmt::format("as command {}: {}", static_cast<int>(command), of_mod);
  }
  return "";
}

template <typename... Texts>
std::string any_of(Texts... texts) {
  return *rc::gen::element<std::string>(std::string(texts)...);
}
std::string number(uint64_t end) { return std::to_string(*rc::gen::inRange<uint64_t>(0, end)); }
std::string address() { return number(260) + "." + number(256) + "." + number(256) + "." + number(256); }

std::string random_word() {
  switch (*rc::gen::inRange(0, 16)) {
    case 0:
      return "priority=" + any_of("", "", "0x") + number(65540);
    case 1:
      return "table=" + any_of("", "", "0x", "0") + number(256);
    case 2:
      return "cookie=" + any_of("0", "1", "0x12ab", "0xffffffffffffffff", "18446744073709551615", "7/1");
    case 3:
      return any_of("nw_src=", "nw_dst=", "ip_src=", "ip_dst=") + address() +
             any_of("", "/8", "/24", "/32", "/0", "/33");
    case 4:
      return any_of("tp_src=", "tp_dst=", "tcp_dst=", "udp_src=", "tcp_src=", "udp_dst=") +
             any_of("80", "0x50", "080", "65536", "0x400/0xfc00", "80/0", "7/0xffff", "0xff0f/0x0ff0", "");
    case 5:
      return "in_port=" + any_of("1", "0", "65279", "65280", "LOCAL", "p1", "70000", "0x5", "05");
    case 6:
      return any_of("dl_src=", "eth_dst=", "dl_dst=", "eth_src=") +
             any_of("02:00:00:00:00:01", "2:0:0:0:0:1", "02:00:00:00:00:0G", "01:00:00:00:00:00/01:00:00:00:00:00");
    case 7:
      return "dl_vlan=" + any_of("1", "4095", "4096", "0xffff", "0", "0x10");
    case 8:
      return any_of("reg0=", "reg15=", "reg16=", "reg=", "reg01=") + any_of("5", "0xffffffff", "4294967296", "1/1");
    case 9:
      return any_of("metadata=", "tun_id=") + any_of("5", "0xffffffffffffffff", "1/0xff");
    case 10:
      return any_of("ipv6_src=", "ipv6_dst=") +
             any_of("fd00::1", "fd00::1/64", "::/1", "fd00::1/128", "x", "::1/0", "::1/61");
    case 11:
      return any_of("idle_timeout=", "hard_timeout=") + any_of("", "", "0x") + number(65540);
    case 12:
      return any_of("send_flow_rem", "icmp_type=8", "nw_frag=no", "importance=3", "dl_type=0x800", "nw_proto=6",
                    "nw_tos=4");
    default:
      return any_of("ip", "tcp", "udp", "icmp", "arp", "ipv6", "tcp6", "udp6", "sctp", "icmp6");
  }
}

std::string random_line() {
  std::string line = any_of("", "", "", "add ", "delete ", "modify,");
  const int words = *rc::gen::inRange(0, 6);
  for (int i = 0; i < words; ++i) line += random_word() + any_of(",", ",", ",", ", ", " ", ",,");
  if (*rc::gen::inRange(0, 20) == 0) line += "n_packets=0,";
  return line + any_of("actions=output:1", "actions=drop", "actions=dec_ttl,output:2", "actions=strip_vlan,output:2",
                       "actions=goto_table:5", "actions=resubmit(,7)", "actions=set_field:80->tcp_dst", "action=drop",
                       "actions=mod_nw_tos:4,output:1", "actions=output:p1", "actions=", "actions", "actions=fly",
                       "actions=set_field:1->reg0,normal", "actions=move:NXM_OF_IP_SRC[]->NXM_NX_REG0[]",
                       "actions=enqueue:1:2", "actions=set_field:1.2.3.4->ip_dst,output:1");
}

TEST(FlowLine, AnswersAsTheWholeParser) {
  RuleLineParser parser;
  ASSERT_TRUE(rc::check("any line", [&] {
    for (int i = 0; i < 40; ++i) {
      const std::string line = random_line();
      // Twice, as the first of a form is not read here.
      RC_ASSERT(difference(parser, line) == "");
      RC_ASSERT(difference(parser, line) == "");
    }
  }));
  EXPECT_GT(parser.quick_lines(), 500u);
}

TEST(FlowLine, AnswersAsTheWholeParserToTypingErrors) {
  RuleLineParser parser;
  ASSERT_TRUE(rc::check("a character changed", [&] {
    std::string line = any_of("priority=10,tcp,nw_dst=10.0.0.0/24,tp_dst=80,actions=output:1",
                              "table=3,cookie=0x5,dl_vlan=9,dl_dst=02:00:00:00:00:01,actions=drop",
                              "in_port=4,udp6,ipv6_dst=fd00::/16,reg3=0x7,actions=resubmit(,9)",
                              "ipv6,ipv6_src=2001:db8::1,actions=output:2");
    RC_ASSERT(difference(parser, line) == "");
    const size_t at = *rc::gen::inRange<size_t>(0, line.size());
    line[at] = *rc::gen::elementOf(std::string("0123456789abcdefx.,:/=- ()[]\tgt#\0", 33));
    RC_ASSERT(difference(parser, line) == "");
    RC_ASSERT(difference(parser, line) == "");
  }));
}

TEST(FlowLine, RefusesNulBytes) {
  RuleLineParser parser;
  for (const std::string line :
       {"ipv6,ipv6_src=2001:db8::1,actions=output:2", "ip,nw_dst=10.0.0.1/8,actions=output:2"}) {
    EXPECT_EQ(difference(parser, line), "");
    for (size_t at = 0; at <= line.size(); ++at) {
      std::string odd = line;
      odd.insert(at, 3, '\0');
      EXPECT_EQ(parser.parse(odd).status().message(), "flow text contains a NUL byte") << at;
    }
  }
}

TEST(FlowLine, ReadsAllThatPeopleType) {
  std::ifstream file(std::string(VSWITCH_SOURCE_DIR) + "/tests/vswitchd/openflow/flows.txt");
  ASSERT_TRUE(file.good());
  RuleLineParser parser;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    line.resize(std::min(line.find('\t'), line.size()));
    EXPECT_EQ(difference(parser, line), "");
    EXPECT_EQ(difference(parser, line), "");
  }
  EXPECT_GT(parser.quick_lines(), 30u);
}

TEST(FlowLine, ReadsOnlyTheValuesOfKnownForms) {
  RuleLineParser parser;
  for (int i = 0; i < 100; ++i) {
    const std::string line =
        fmt::format("priority={},tcp,nw_dst=10.0.{}.0/24,tp_dst={},actions=output:{}", 100 + i, i, i + 1, i % 2 + 1);
    EXPECT_EQ(difference(line, parser.parse(line), parse_rule_line(line)), "");
  }
  EXPECT_EQ(parser.quick_lines(), 98u);
  EXPECT_EQ(parser.known_forms(), 2u);
  for (const RuleCommand command : {RuleCommand::add, RuleCommand::modify, RuleCommand::modify_strict}) {
    EXPECT_TRUE(parser.parse_mod("priority=7,tcp,nw_dst=10.1.0.0/24,tp_dst=9,actions=output:1", command).ok());
  }
  EXPECT_EQ(parser.quick_lines(), 99u) << "what is not an add has other defaults";
}

// The same name may stand for another port in another bridge.
TEST(FlowLine, ForgetsActionsWhenNamesChange) {
  FlowNames one, two;
  one.add_port(1, "p1");
  two.add_port(2, "p1");
  RuleLineParser parser;
  for (int i = 0; i < 2; ++i) {
    for (const FlowNames* names : {static_cast<const FlowNames*>(&one), static_cast<const FlowNames*>(&two),
                                   static_cast<const FlowNames*>(nullptr)}) {
      EXPECT_EQ(difference(parser, "tcp,in_port=3,actions=output:p1", names), "");
      EXPECT_EQ(difference(parser, "udp,in_port=p1,actions=output:2", names), "");
    }
  }
}

// Whether actions fit depends on the fields, their masks and the table: each makes a form of its own.
TEST(FlowLine, ChecksActionsForEachForm) {
  RuleLineParser parser;
  for (const char* line : {"tcp,actions=set_field:80->tcp_dst", "udp,actions=set_field:80->tcp_dst",
                           "dl_vlan=5,actions=strip_vlan", "actions=strip_vlan", "table=1,actions=goto_table:2",
                           "table=3,actions=goto_table:2", "actions=goto_table:2", "table=0,actions=goto_table:2"}) {
    EXPECT_EQ(difference(parser, line), "");
    EXPECT_EQ(difference(parser, line), "");
  }
}

}  // namespace
}  // namespace vswitch
