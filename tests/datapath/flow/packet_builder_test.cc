// The frames that other tests rely on: lengths and checksums, computed here the slow way.
#include "tests/support/packet_builder.h"

#include <gtest/gtest.h>

#include "tests/support/random_key.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

// RFC 1071 over bytes whose checksum is in place: 0 if it is right.
uint16_t sum_of(const Bytes& bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) sum += i % 2 == 0 ? uint64_t{bytes[i]} << 8 : bytes[i];
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

Bytes part(const Bytes& frame, size_t from, size_t size) {
  return {frame.begin() + static_cast<long>(from), frame.begin() + static_cast<long>(from + size)};
}

// The L4 datagram behind its pseudo-header. `addresses`: where the IP addresses stand.
Bytes with_pseudo_header(const Bytes& frame, size_t addresses, size_t addresses_size, size_t l4, uint8_t proto) {
  Bytes bytes = part(frame, addresses, addresses_size);
  const size_t size = frame.size() - l4;
  bytes.insert(bytes.end(), {0, 0, static_cast<uint8_t>(size >> 8), static_cast<uint8_t>(size), 0, 0, 0, proto});
  bytes.insert(bytes.end(), frame.begin() + static_cast<long>(l4), frame.end());
  return bytes;
}

TEST(PacketBuilder, Ipv4LengthsAndChecksums) {
  for (size_t payload : {0, 1, 4, 5}) {
    const Bytes udp = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(payload).build();
    ASSERT_EQ(udp.size(), 42 + payload);
    EXPECT_EQ(load_unaligned<be16>(&udp[16]).host(), 28 + payload);
    EXPECT_EQ(load_unaligned<be16>(&udp[38]).host(), 8 + payload);
    EXPECT_EQ(sum_of(part(udp, 14, 20)), 0);
    EXPECT_EQ(sum_of(with_pseudo_header(udp, 26, 8, 34, kProtoUdp)), 0);
    const Bytes tcp = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2).payload(payload).build();
    EXPECT_EQ(sum_of(with_pseudo_header(tcp, 26, 8, 34, kProtoTcp)), 0);
    const Bytes icmp = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").icmp(8, 0).payload(payload).build();
    EXPECT_EQ(sum_of(part(icmp, 34, icmp.size() - 34)), 0);
  }
}

TEST(PacketBuilder, Ipv6LengthsAndChecksums) {
  const Bytes nd = PacketBuilder()
                       .ethernet()
                       .ipv6("fe80::1", "ff02::1:ff00:2")
                       .icmpv6(135, 0)
                       .nd_target(test::ipv6("fe80::2"))
                       .nd_option(1, test::mac(test::kMacA))
                       .build();
  EXPECT_EQ(load_unaligned<be16>(&nd[18]).host(), 32);
  EXPECT_EQ(nd[20], kProtoIcmpv6);
  EXPECT_EQ(sum_of(with_pseudo_header(nd, 22, 32, 54, kProtoIcmpv6)), 0);
  const Bytes extended =
      PacketBuilder().ethernet().ipv6("::1", "::2").extension(kProtoHopByHop, 16).udp(1, 2).payload("x").build();
  EXPECT_EQ(load_unaligned<be16>(&extended[18]).host(), 16 + 9);
  EXPECT_EQ(extended[20], kProtoHopByHop);
  EXPECT_EQ(extended[54], kProtoUdp);
  EXPECT_EQ(extended[55], 1);
  EXPECT_EQ(sum_of(with_pseudo_header(extended, 22, 32, 70, kProtoUdp)), 0);
}

TEST(PacketBuilder, TypesOfNestedHeaders) {
  const Bytes frame = PacketBuilder().ethernet().vlan(5, 1, 0x88a8).vlan(6).mpls(16, 0, true, 64).payload(4).build();
  EXPECT_EQ(test::to_hex(part(frame, 12, 14)), "88a8200581000006884700010140");
  const Bytes snap = PacketBuilder().ethernet().snap(0).ipv4("1.2.3.4", "5.6.7.8").build();
  EXPECT_EQ(test::to_hex(part(snap, 12, 10)), "001caaaa030000000800");
}

TEST(PacketBuilder, KeepsWhatIsWrongOnPurpose) {
  const Bytes frame = PacketBuilder()
                          .ethernet()
                          .ipv4("1.2.3.4", "5.6.7.8", {.protocol = 99, .version_ihl = 0x64, .total_length = 7})
                          .udp(1, 2)
                          .pad_to(60)
                          .build();
  EXPECT_EQ(frame[14], 0x64);
  EXPECT_EQ(frame[17], 7);
  EXPECT_EQ(frame[23], 99);
  EXPECT_EQ(frame.size(), 60u);
}

TEST(Compose, ChecksumsAreRight) {
  test::Random random(1);
  for (int i = 0; i < 2000; ++i) {
    FlowKey key = test::random_key(random);
    key.vlan = {};
    key.nw_frag = 0;
    if (key.eth_type != kEthTypeIpv4) continue;
    const Bytes frame = test::compose(key, random() % 20);
    ASSERT_EQ(sum_of(part(frame, 14, 20)), 0);
    if (key.nw_proto != kProtoTcp && key.nw_proto != kProtoUdp) continue;
    ASSERT_EQ(sum_of(with_pseudo_header(frame, 26, 8, 34, key.nw_proto)), 0);
  }
}

TEST(Hex, RoundTrip) {
  EXPECT_EQ(test::from_hex(" 00 1aFF\n"), (Bytes{0x00, 0x1a, 0xff}));
  EXPECT_EQ(test::to_hex(Bytes{0x00, 0x1a, 0xff}), "001aff");
}

}  // namespace
}  // namespace vswitch
