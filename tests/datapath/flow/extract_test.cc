#include "datapath/flow/extract.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "datapath/flow/field.h"
#include "tests/support/guarded_packet.h"
#include "tests/support/packet_builder.h"
#include "tests/support/random_key.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::GuardedPacket;
using test::PacketBuilder;

// ---- The table of packets (packets.txt)

struct Case {
  std::string name;
  int line = 0;
  Bytes frame{};
  std::string expected{};  // "" while it is being read
};

std::vector<Case> read_cases() {
  std::ifstream file(VSWITCH_SOURCE_DIR "/tests/datapath/flow/packets.txt");
  EXPECT_TRUE(file) << "packets.txt cannot be read";
  std::vector<Case> cases;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    line = line.substr(0, line.find('#'));
    const size_t first = line.find_first_not_of(' ');
    if (first == std::string::npos) continue;
    line = line.substr(first);
    if (line.starts_with("packet ")) {
      cases.push_back({.name = line.substr(7), .line = number});
    } else if (line.starts_with("=> ")) {
      cases.back().expected = line.substr(3);
    } else if (!cases.back().expected.empty()) {
      cases.back().expected += line;
    } else {
      const Bytes bytes = test::from_hex(line);
      cases.back().frame.insert(cases.back().frame.end(), bytes.begin(), bytes.end());
    }
  }
  return cases;
}

FieldValue value_of(const Field& field, const std::string& text) {
  FieldValue value;
  const auto put = [&](const auto& bytes) { std::copy(bytes.begin(), bytes.end(), value.bytes.begin()); };
  switch (field.format) {
    case FieldFormat::ethernet:
      put(test::mac(text).bytes);
      return value;
    case FieldFormat::ipv6:
      put(test::ipv6(text).bytes);
      return value;
    case FieldFormat::ipv4:
      store_unaligned(value.bytes.data(), test::ipv4(text));
      return value;
    default:
      break;
  }
  uint64_t number = std::stoull(text, nullptr, 0);
  for (size_t i = field.n_bytes; i-- > 0; number >>= 8) value.bytes[i] = static_cast<uint8_t>(number);
  return value;
}

struct Expected {
  FlowKey key;
  LayerOffsets layers;
};

// Names that are not match fields.
bool set_special(const std::string& name, const std::string& text, Expected& expected) {
  FlowKey& key = expected.key;
  if (name == "igmp_group") {
    key.igmp_group = test::ipv4(text);
    return true;
  }
  const auto number = [&] { return static_cast<uint32_t>(std::stoul(text, nullptr, 0)); };
  const std::map<std::string, be16*> halves = {
      {"vlan0_tpid", &key.vlan[0].tpid}, {"vlan1_tpid", &key.vlan[1].tpid}, {"vlan1_tci", &key.vlan[1].tci}};
  const std::map<std::string, be32*> labels = {
      {"mpls0", &key.mpls[0]}, {"mpls1", &key.mpls[1]}, {"mpls2", &key.mpls[2]}};
  const std::map<std::string, uint16_t*> offsets = {{"l2_5", &expected.layers.l2_5},
                                                    {"l3", &expected.layers.l3},
                                                    {"l4", &expected.layers.l4},
                                                    {"l3_end", &expected.layers.l3_end}};
  if (halves.contains(name)) {
    *halves.at(name) = to_be16(static_cast<uint16_t>(number()));
  } else if (labels.contains(name)) {
    *labels.at(name) = to_be32(number());
  } else if (offsets.contains(name)) {
    *offsets.at(name) = static_cast<uint16_t>(number());
  } else {
    return false;
  }
  return true;
}

Expected parse_expected(const std::string& text) {
  Expected expected;
  PipelineKey pipeline;
  pipeline.packet.eth_src = test::mac(test::kMacA);
  pipeline.packet.eth_dst = test::mac(test::kMacB);
  std::stringstream items(text);
  std::string item;
  std::vector<std::pair<std::string, std::string>> specials;
  while (std::getline(items, item, ',')) {
    item.erase(0, item.find_first_not_of(' '));
    item.erase(item.find_last_not_of(' ') + 1);
    const std::string name = item.substr(0, item.find('=')), value = item.substr(item.find('=') + 1);
    if (const Field* field = find_field(name)) {
      write_field(*field, value_of(*field, value), pipeline);
    } else {
      specials.emplace_back(name, value);
    }
  }
  expected.key = pipeline.packet;
  for (const auto& [name, value] : specials) EXPECT_TRUE(set_special(name, value, expected)) << "unknown: " << name;
  return expected;
}

// The names of the fields in which two keys differ, for messages.
std::string difference(const FlowKey& got, const FlowKey& wanted) {
  std::string text;
  PipelineKey a, b;
  a.packet = got;
  b.packet = wanted;
  for (const Field& field : all_fields()) {
    const FieldValue x = read_field(field, a), y = read_field(field, b);
    if (x == y) continue;
    text += "\n  " + std::string(field.name) + " is " + test::to_hex(std::span(x.bytes).first(field.n_bytes)) +
            ", expected " + test::to_hex(std::span(y.bytes).first(field.n_bytes));
  }
  for (size_t i = 0; i < kFlowKeyWords; ++i) {
    if (words(got)[i] != words(wanted)[i]) text += "\n  word " + std::to_string(i);
  }
  return text;
}

// A key with every bit set that a caller may leave in it.
FlowKey dirty_key() {
  FlowKey key;
  std::memset(static_cast<void*>(&key), 0xa5, sizeof key);
  std::memset(static_cast<void*>(&key), 0xa5, sizeof key);
  return key;
}

TEST(ExtractTable, GivesTheExpectedKeys) {
  GuardedPacket guarded;
  const std::vector<Case> cases = read_cases();
  ASSERT_GT(cases.size(), 100u);
  // Keys in an array: a key has 73 words, so every second one stands at an address that is no multiple of 16.
  std::vector<FlowKey> keys(cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    SCOPED_TRACE(c.name + " (packets.txt:" + std::to_string(c.line) + ")");
    Packet& packet = guarded.place(c.frame);
    FlowKey& key = keys[i] = dirty_key();
    ASSERT_FALSE(c.expected.empty());
    if (c.expected == "invalid") {
      EXPECT_FALSE(extract_flow_key(packet, key));
      continue;
    }
    ASSERT_TRUE(extract_flow_key(packet, key));
    const Expected expected = parse_expected(c.expected);
    EXPECT_EQ(difference(key, expected.key), "");
    EXPECT_EQ(packet.layers.l2_5, expected.layers.l2_5);
    EXPECT_EQ(packet.layers.l3, expected.layers.l3);
    EXPECT_EQ(packet.layers.l4, expected.layers.l4);
    EXPECT_EQ(packet.layers.l3_end, expected.layers.l3_end);
    EXPECT_EQ(packet.rss_hash, flow_hash(key));
  }
}

// Cut at every length, every packet is parsed without a read past its end (the memory behind it cannot be read), and
// what is left out of it never shows: a key is the same whatever stood there.
TEST(ExtractTable, NeverReadsPastTheEnd) {
  GuardedPacket guarded;
  for (const Case& c : read_cases()) {
    for (size_t size = 0; size <= c.frame.size(); ++size) {
      SCOPED_TRACE(c.name + " cut to " + std::to_string(size));
      Packet& packet = guarded.place(std::span(c.frame).first(size));
      FlowKey key;
      ASSERT_EQ(extract_flow_key(packet, key), size >= 14);
      for (const uint16_t offset : {packet.layers.l2_5, packet.layers.l3, packet.layers.l4, packet.layers.l3_end}) {
        if (offset != LayerOffsets::kNoLayer) {
          EXPECT_LE(offset, size);
        }
      }
    }
  }
}

// ---- Properties

// What the key says of metadata, put into the packet, as receiving and recirculation do.
void set_metadata(const FlowKey& key, Packet& packet) {
  packet.in_port = key.in_port;
  packet.recirc_id = key.recirc_id;
  packet.dp_hash = key.dp_hash;
  packet.skb_priority = key.skb_priority;
  packet.skb_mark = key.skb_mark;
  packet.has_tunnel = !(key.tunnel == TunnelMetadata{});
  packet.tunnel = key.tunnel;
}

TEST(ExtractProperty, ExtractUndoesCompose) {
  GuardedPacket guarded;
  ASSERT_TRUE(rc::check("extract(compose(key)) == key", [&](uint64_t seed) {
    test::Random random(seed);
    for (int i = 0; i < 50; ++i) {
      const FlowKey key = test::random_key(random);
      Packet& packet = guarded.place(test::compose(key, random() % 40));
      set_metadata(key, packet);
      FlowKey extracted = dirty_key();
      RC_ASSERT(extract_flow_key(packet, extracted));
      RC_ASSERT(difference(extracted, key) == "");
      RC_ASSERT(packet.rss_hash == flow_hash(key));
    }
  }));
}

TEST(ExtractProperty, RandomBytesAreSafeAndRepeatable) {
  GuardedPacket guarded;
  ASSERT_TRUE(rc::check("damaged frames", [&](uint64_t seed) {
    test::Random random(seed);
    for (int i = 0; i < 50; ++i) {
      Bytes frame = test::compose(test::random_key(random), random() % 40);
      for (uint64_t n = random() % 8; n > 0; --n) frame[random() % frame.size()] = static_cast<uint8_t>(random());
      frame.resize(random() % (frame.size() + 1));
      FlowKey clean, dirty = dirty_key();
      Packet& packet = guarded.place(frame);
      const bool valid = extract_flow_key(packet, clean);
      RC_ASSERT(extract_flow_key(packet, dirty) == valid);
      if (valid) RC_ASSERT(clean == dirty);
    }
  }));
}

// ---- Metadata, keys that are used again, hash

// A batch of packets, and a copy of each to be extracted by itself.
class BatchBesideSingles {
 public:
  explicit BatchBesideSingles(HeapPacketPool& pool) : pool_(pool) {}
  void add(const Bytes& frame, uint32_t in_port, uint32_t mark = 0) {
    packets_.push_back(test::make_packet(pool_, frame));
    packets_.back()->in_port = in_port;
    packets_.back()->skb_mark = mark;
    copies_.push_back(clone_packet(*packets_.back(), pool_));
    pointers_.push_back(packets_.back().get());
  }
  // The slots and identities are those of the batch before.
  void check(KeySlots& slots, std::array<uint64_t, KeySlots::kCount>& identities, uint32_t sole_port = 0) {
    const uint32_t good = extract_flow_keys(pointers_.data(), pointers_.size(), slots, identities.data(), sole_port,
                                            {lines_.data(), lines_.size() - 1});
    for (size_t i = 0; i < packets_.size(); ++i) {
      FlowKey expected;
      RC_ASSERT(extract_flow_key(*copies_[i], expected) == ((good >> i & 1) != 0));
      if ((good >> i & 1) == 0) continue;
      RC_ASSERT(slots[i] == expected);
      RC_ASSERT(identities[i] == connection_identity(flow_hash(expected), expected.in_port, expected.recirc_id));
      RC_ASSERT(packets_[i]->rss_hash == copies_[i]->rss_hash);
      RC_ASSERT(std::memcmp(&packets_[i]->layers, &copies_[i]->layers, sizeof(LayerOffsets)) == 0);
    }
    const uint64_t beyond = uint64_t{good} >> packets_.size();
    RC_ASSERT(beyond == 0u);
  }

 private:
  struct alignas(IdentityLines::kSize) Line {};
  HeapPacketPool& pool_;
  std::array<Line, 4> lines_;
  std::vector<PacketPtr> packets_, copies_;
  std::vector<Packet*> pointers_;
};

// Batches take a short way for common packets and do not clear what is clear: that must not show. Frames of all kinds
// follow each other in the same slots, most of them plain TCP and UDP, some damaged.
TEST(ExtractProperty, BatchesGiveTheSameAsSinglePackets) {
  HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 64);
  KeySlots slots;
  std::array<uint64_t, KeySlots::kCount> identities{};
  size_t plain = 0;
  ASSERT_TRUE(rc::check("extract_flow_keys == extract_flow_key", [&](uint64_t seed) {
    test::Random random(seed);
    BatchBesideSingles batch(pool);
    for (size_t i = 0; i < 32; ++i) {
      FlowKey key = test::random_key(random);
      if (random() % 4 != 0) {
        FlowKey common;
        common.in_port = key.in_port;
        common.eth_src = key.eth_src;
        common.eth_dst = key.eth_dst;
        common.eth_type = kEthTypeIpv4;
        common.nw_src = to_be32(static_cast<uint32_t>(random()));
        common.nw_dst = to_be32(static_cast<uint32_t>(random()));
        common.nw_tos = static_cast<uint8_t>(random());
        common.nw_ttl = static_cast<uint8_t>(random());
        common.nw_proto = random() % 2 != 0 ? kProtoTcp : kProtoUdp;
        common.tp_src = to_be16(static_cast<uint16_t>(random()));
        common.tp_dst = to_be16(static_cast<uint16_t>(random()));
        if (common.nw_proto == kProtoTcp) common.tcp_flags = to_be16(static_cast<uint16_t>(random() & 0xfff));
        key = common;
        ++plain;
      }
      Bytes frame = test::compose(key, random() % 40);
      if (random() % 4 == 0) frame[random() % frame.size()] = static_cast<uint8_t>(random());
      if (random() % 8 == 0) frame.resize(random() % frame.size() + 1);
      batch.add(frame, key.in_port, random() % 16 == 0 ? 5 : 0);
    }
    batch.check(slots, identities);
  }));
  EXPECT_GT(plain, 500u);
}

// A source all of whose packets came in by one port says so, and their metadata is not looked at: that must not show.
// Lengths and types are damaged, so that each reason to leave the short way occurs, at any place in the batch.
TEST(ExtractProperty, BatchesOfOneSourceGiveTheSame) {
  HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 64);
  KeySlots slots;
  std::array<uint64_t, KeySlots::kCount> identities{};
  size_t short_batches = 0;
  ASSERT_TRUE(rc::check("extract_flow_keys == extract_flow_key", [&](uint64_t seed) {
    test::Random random(seed);
    const size_t count = 1 + random() % KeySlots::kCount;
    BatchBesideSingles batch(pool);
    bool damaged = false;
    for (size_t i = 0; i < count; ++i) {
      PacketBuilder builder;
      builder.ethernet().ipv4("10.0.0.1", "10.0.0.2");
      Bytes frame = random() % 2 != 0 ? builder.tcp(static_cast<uint16_t>(random()), 80).build()
                                      : builder.udp(static_cast<uint16_t>(random()), 53).build();
      frame.resize(frame.size() + random() % 30);
      if (random() % 64 == 0) {
        damaged = true;
        constexpr size_t kTelling[] = {12, 13, 14, 15, 16, 17, 20, 21, 23, 46, 47};
        const size_t at = kTelling[random() % std::size(kTelling)];
        if (at < frame.size()) frame[at] = static_cast<uint8_t>(random());
        if (random() % 4 == 0) frame.resize(random() % frame.size() + 1);
      }
      batch.add(frame, 7);
    }
    if (!damaged) ++short_batches;
    batch.check(slots, identities, 7);
  }));
  EXPECT_GT(short_batches, 10u);
}

TEST(Extract, TunnelOnlyIfThePacketHasOne) {
  GuardedPacket guarded;
  Packet& packet = guarded.place(PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).build());
  packet.tunnel.id = to_be64(7);
  packet.tunnel.dst = test::ipv4("1.2.3.4");
  FlowKey key;
  ASSERT_TRUE(extract_flow_key(packet, key));
  EXPECT_EQ(key.tunnel, TunnelMetadata{});
  packet.has_tunnel = true;
  ASSERT_TRUE(extract_flow_key(packet, key));
  EXPECT_EQ(key.tunnel, packet.tunnel);
  packet.has_tunnel = false;
  ASSERT_TRUE(extract_flow_key(packet, key));
  EXPECT_EQ(key.tunnel, TunnelMetadata{});
}

TEST(Extract, AddressesOfAFrameOfTheLargestSize) {
  GuardedPacket guarded;
  Bytes frame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80).build();
  frame.resize(14 + 65535);
  store_unaligned(&frame[16], to_be16(65535));
  Packet& packet = guarded.place(frame);
  FlowKey key;
  ASSERT_TRUE(extract_flow_key(packet, key));
  EXPECT_EQ(key.tp_dst, to_be16(80));
  EXPECT_EQ(packet.layers.l4, 34);
  EXPECT_EQ(packet.layers.l3_end, LayerOffsets::kNoLayer) << "65549 does not fit, and must not wrap round";
}

FlowKey key_of(const Bytes& frame) {
  GuardedPacket guarded;
  FlowKey key;
  EXPECT_TRUE(extract_flow_key(guarded.place(frame), key));
  return key;
}

TEST(FlowHash, IsTheSameForAllPacketsOfAFlow) {
  const auto frame = [](uint16_t vid, uint8_t ttl, uint16_t flags, uint16_t src) {
    return key_of(PacketBuilder()
                      .ethernet()
                      .vlan(vid)
                      .ipv4("10.0.0.1", "10.0.0.2", {.ttl = ttl})
                      .tcp(src, 80, {.flags = flags})
                      .build());
  };
  EXPECT_EQ(flow_hash(frame(1, 64, 2, 1000)), flow_hash(frame(2, 63, 0x10, 1000)));
  EXPECT_NE(flow_hash(frame(1, 64, 2, 1000)), flow_hash(frame(1, 64, 2, 1001)));
  FlowKey a = frame(1, 64, 2, 1000), b = a;
  b.in_port = a.in_port + 1;
  EXPECT_EQ(flow_hash(a), flow_hash(b));
}

TEST(FlowHash, IsTheSameForAllFragmentsOfADatagram) {
  const auto v4 = [](uint16_t fragment) {
    return flow_hash(
        key_of(PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2", {.fragment = fragment}).udp(1000, 53).build()));
  };
  EXPECT_EQ(v4(0x2000), v4(0x2001));
  EXPECT_EQ(v4(0x2000), v4(0x0002));
  const auto v6 = [](uint16_t offset) {
    return flow_hash(
        key_of(PacketBuilder().ethernet().ipv6("2001:db8::1", "2001:db8::2").ipv6_fragment(offset).udp(1, 2).build()));
  };
  EXPECT_EQ(v6(0x0001), v6(0x0010));
}

TEST(FlowHash, SpreadsWellAndIsNeverZero) {
  // 4096 flows that differ in a few bits: buckets of the low 8 bits must be filled evenly.
  std::vector<int> buckets(256);
  for (uint32_t i = 0; i < 4096; ++i) {
    FlowKey key;
    key.eth_type = kEthTypeIpv4;
    key.nw_proto = kProtoUdp;
    key.nw_src = to_be32(0x0a000000 + i / 64);
    key.nw_dst = to_be32(0x0a000100);
    key.tp_src = to_be16(static_cast<uint16_t>(1000 + i % 64));
    EXPECT_NE(flow_hash(key), 0u);
    ++buckets[flow_hash(key) % 256];
  }
  for (int count : buckets) {
    EXPECT_GT(count, 2);
    EXPECT_LT(count, 40);
  }
  EXPECT_NE(flow_hash(FlowKey{}), 0u);
}

}  // namespace
}  // namespace vswitch
