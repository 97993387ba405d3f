#include "cli/record.h"

#include <gtest/gtest.h>

#include "cli/json_text.h"

namespace vswitch::cli {
namespace {

TEST(Record, ColumnExpressions) {
  ColumnExpression e = parse_column_expression("Options:remote_ip=1.2.3.4");
  EXPECT_EQ(e.column, "options");
  EXPECT_EQ(e.key, "remote_ip");
  EXPECT_EQ(e.op, "=");
  EXPECT_EQ(e.value, "1.2.3.4");
  e = parse_column_expression("mtu>=1500");
  EXPECT_EQ(e.column, "mtu");
  EXPECT_EQ(e.op, ">=");
  e = parse_column_expression("ofport");
  EXPECT_EQ(e.op, "");
  EXPECT_FALSE(e.key.has_value());
}

TEST(Record, SetsAndMaps) {
  EXPECT_EQ(parse_set("[10, 20]"), (std::vector<std::string>{"10", "20"}));
  EXPECT_EQ(parse_set("10,20"), (std::vector<std::string>{"10", "20"}));
  EXPECT_TRUE(parse_set("[]").empty());
  EXPECT_EQ(parse_set("\"a,b\""), std::vector<std::string>{"a,b"});
  std::map<std::string, std::string> map;
  ASSERT_TRUE(parse_map(R"({a="x,y", b=2})", map));
  EXPECT_EQ(map, (std::map<std::string, std::string>{{"a", "x,y"}, {"b", "2"}}));
  EXPECT_FALSE(parse_map("a", map));
}

v1::Port some_port() {
  v1::Port port;
  port.set_name("ports/vx1");
  port.set_type("vxlan");
  port.set_ofport(5);
  (*port.mutable_options())["remote_ip"] = "1.2.3.4";
  port.mutable_vlan()->set_tag(10);
  port.mutable_state()->set_mtu(1450);
  return port;
}

TEST(Record, FormatsAsOpenVswitchDoes) {
  v1::Port port = some_port();
  EXPECT_EQ(format_column(*find_column(interface_record(port), "options")), "{remote_ip=\"1.2.3.4\"}");
  EXPECT_EQ(format_column(*find_column(interface_record(port), "ofport")), "5");
  EXPECT_EQ(format_column(*find_column(interface_record(port), "error")), "[]");
  EXPECT_EQ(format_column(*find_column(port_record(port), "tag")), "10");
  EXPECT_EQ(find_column(port_record(port), "colour"), nullptr);
}

TEST(Record, Conditions) {
  Record record = interface_record(some_port());
  for (const char* holds : {"type=vxlan", "mtu>1000", "mtu<=1450", "options:remote_ip=1.2.3.4", "options:key!=5"}) {
    EXPECT_EQ(check_condition(Table::interface, holds), "") << holds;
    EXPECT_TRUE(matches(record, parse_column_expression(holds))) << holds;
  }
  for (const char* fails : {"type!=vxlan", "mtu<1450", "options:key=5", "link_speed<5"}) {
    EXPECT_EQ(check_condition(Table::interface, fails), "") << fails;
    EXPECT_FALSE(matches(record, parse_column_expression(fails))) << fails;
  }
}

TEST(Record, BadConditionsAreNamed) {
  const std::pair<const char*, const char*> kCases[] = {
      {"colour=red", "no column \"colour\""},
      {"typ=vxlan", "did you mean \"type\""},
      {"type", "a condition is wanted"},
      {"type!vxlan", "a condition is wanted"},
      {"type:key=vxlan", "column type of table Interface is no map"},
      {"mtu>many", "\"many\" is none"},
  };
  for (auto [text, expected] : kCases) {
    EXPECT_NE(check_condition(Table::interface, text).find(expected), std::string::npos)
        << text << ": " << check_condition(Table::interface, text);
  }
  EXPECT_EQ(check_column(Table::interface, "options:key"), "");
  EXPECT_NE(check_column(Table::interface, "mtu=5").find("a column is wanted"), std::string::npos);
  EXPECT_NE(check_column(Table::port, "tag:x").find("no map"), std::string::npos);
}

TEST(Record, EveryTableKnowsItsColumns) {
  for (Table table : {Table::bridge, Table::port, Table::interface, Table::open_vswitch}) {
    for (const std::string& column : column_names(table)) EXPECT_EQ(check_column(table, column), "") << column;
    EXPECT_FALSE(column_names(table).empty());
  }
}

TEST(Record, QuotesWhatIsNoWord) {
  EXPECT_EQ(quote("br0"), "br0");
  EXPECT_EQ(quote("10"), "\"10\"");
  EXPECT_EQ(quote(""), "\"\"");
  EXPECT_EQ(quote("a \"b\""), "\"a \\\"b\\\"\"");
  EXPECT_EQ(quoted("br0"), "\"br0\"");
  EXPECT_EQ(quoted("no \"x\"\n"), "\"no \\\"x\\\"\\n\"");
}

}  // namespace
}  // namespace vswitch::cli
