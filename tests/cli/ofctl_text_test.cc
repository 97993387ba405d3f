#include "cli/ofctl_text.h"

#include <gtest/gtest.h>

namespace vswitch::cli {
namespace {

TEST(OfctlText, PortsAsOvsOfctlPrintsThem) {
  v1::ListPortsResponse ports;
  v1::Port& p = *ports.add_ports();
  p.set_name("ports/p1");
  p.set_ofport(1);
  p.mutable_statistics()->set_rx_packets(3);
  p.mutable_statistics()->set_tx_bytes(7);
  v1::Port& local = *ports.add_ports();
  local.set_name("ports/br0");
  local.set_ofport(65534);
  EXPECT_EQ(ports_text(ports, false),
            "OFPST_PORT reply (xid=0x2): 2 ports\n"
            "  port  1: rx pkts=3, bytes=0, drop=0, errs=0, frame=0, over=0, crc=0\n"
            "           tx pkts=0, bytes=7, drop=0, errs=0, coll=0\n"
            "  port LOCAL: rx pkts=0, bytes=0, drop=0, errs=0, frame=0, over=0, crc=0\n"
            "           tx pkts=0, bytes=0, drop=0, errs=0, coll=0\n");
  EXPECT_NE(ports_text(ports, true).find("port p1: rx"), std::string::npos);
}

TEST(OfctlText, TablesThatAreAlikeAreSaidOnce) {
  v1::ListTablesResponse tables;
  for (uint32_t i = 0; i < 254; ++i) tables.add_tables()->set_table(i);
  tables.mutable_tables(0)->set_rules(1);
  EXPECT_EQ(tables_text(tables),
            "OFPST_TABLE reply (xid=0x2):\n"
            "  table 0:\n    active=1, lookup=0, matched=0\n\n"
            "  table 1:\n    active=0, lookup=0, matched=0\n\n"
            "  tables 2...253: ditto\n");
}

TEST(OfctlText, HexPackets) {
  std::string out;
  ASSERT_TRUE(parse_hex("00 ff:1A", out));
  EXPECT_EQ(out, std::string("\x00\xff\x1a", 3));
  for (const char* bad : {"", "0", "0g", "xyz1"}) {
    std::string none;
    EXPECT_FALSE(parse_hex(bad, none)) << bad;
  }
}

TEST(OfctlText, PortNumbers) {
  EXPECT_EQ(parse_of_port("LOCAL"), 65534u);
  EXPECT_EQ(parse_of_port("17"), 17u);
  EXPECT_EQ(parse_of_port("vx1"), 0u);
  EXPECT_EQ(parse_of_port("65536"), 0u);
}

}  // namespace
}  // namespace vswitch::cli
