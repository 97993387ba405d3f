#include "datapath/actions/rewrite.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "datapath/flow/extract.h"
#include "datapath/packet/offload.h"
#include "tests/support/frame_spec.h"
#include "tests/support/random_check.h"

namespace vswitch {
namespace {

// ---- random masked values

uint8_t random_mask_byte(std::mt19937& rng) {
  const uint8_t bytes[] = {0, 0xff, static_cast<uint8_t>(rng())};
  return bytes[rng() % 3];
}

template <typename T>
void randomize(std::mt19937& rng, T& value, T& mask) {
  uint8_t bytes[2][sizeof(T)];
  const bool whole = rng() % 3 != 0;
  const uint8_t all = rng() % 2 == 0 ? 0xff : 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    bytes[1][i] = whole ? all : random_mask_byte(rng);
    bytes[0][i] = static_cast<uint8_t>(rng()) & bytes[1][i];
  }
  std::memcpy(&value, bytes[0], sizeof(T));
  std::memcpy(&mask, bytes[1], sizeof(T));
}

template <typename T>
void blend_into(T& field, const T& value, const T& mask) {
  uint8_t bytes[3][sizeof(T)];
  std::memcpy(bytes[0], &field, sizeof(T));
  std::memcpy(bytes[1], &value, sizeof(T));
  std::memcpy(bytes[2], &mask, sizeof(T));
  for (size_t i = 0; i < sizeof(T); ++i) bytes[0][i] = static_cast<uint8_t>((bytes[0][i] & ~bytes[2][i]) | bytes[1][i]);
  std::memcpy(&field, bytes[0], sizeof(T));
}

SetEthernetAction random_ethernet(std::mt19937& rng) {
  SetEthernetAction a;
  randomize(rng, a.src, a.src_mask);
  randomize(rng, a.dst, a.dst_mask);
  return a;
}

SetIpv4Action random_ipv4(std::mt19937& rng) {
  SetIpv4Action a;
  randomize(rng, a.src, a.src_mask);
  randomize(rng, a.dst, a.dst_mask);
  randomize(rng, a.tos, a.tos_mask);
  randomize(rng, a.ttl, a.ttl_mask);
  return a;
}

SetIpv6Action random_ipv6(std::mt19937& rng) {
  SetIpv6Action a;
  randomize(rng, a.src, a.src_mask);
  randomize(rng, a.dst, a.dst_mask);
  randomize(rng, a.label, a.label_mask);
  a.label &= to_be32(0xfffff);
  a.label_mask &= to_be32(0xfffff);
  randomize(rng, a.tclass, a.tclass_mask);
  randomize(rng, a.hop_limit, a.hop_limit_mask);
  return a;
}

SetTransportAction random_transport(std::mt19937& rng, uint8_t proto) {
  SetTransportAction a;
  a.proto = proto;
  randomize(rng, a.src, a.src_mask);
  randomize(rng, a.dst, a.dst_mask);
  return a;
}

SetIcmpAction random_icmp(std::mt19937& rng, uint8_t proto) {
  SetIcmpAction a;
  a.proto = proto;
  randomize(rng, a.type, a.type_mask);
  randomize(rng, a.code, a.code_mask);
  return a;
}

SetNdAction random_nd(std::mt19937& rng) {
  SetNdAction a;
  randomize(rng, a.target, a.target_mask);
  randomize(rng, a.sll, a.sll_mask);
  randomize(rng, a.tll, a.tll_mask);
  return a;
}

// ---- what a set means to the key

void expect(FlowKey& key, const SetEthernetAction& a) {
  blend_into(key.eth_src, a.src, a.src_mask);
  blend_into(key.eth_dst, a.dst, a.dst_mask);
}
void expect(FlowKey& key, const SetIpv4Action& a) {
  blend_into(key.nw_src, a.src, a.src_mask);
  blend_into(key.nw_dst, a.dst, a.dst_mask);
  blend_into(key.nw_tos, a.tos, a.tos_mask);
  blend_into(key.nw_ttl, a.ttl, a.ttl_mask);
}
void expect(FlowKey& key, const SetIpv6Action& a) {
  blend_into(key.ipv6_src, a.src, a.src_mask);
  blend_into(key.ipv6_dst, a.dst, a.dst_mask);
  blend_into(key.ipv6_label, a.label, a.label_mask);
  blend_into(key.nw_tos, a.tclass, a.tclass_mask);
  blend_into(key.nw_ttl, a.hop_limit, a.hop_limit_mask);
}
void expect(FlowKey& key, const SetTransportAction& a) {
  blend_into(key.tp_src, a.src, a.src_mask);
  blend_into(key.tp_dst, a.dst, a.dst_mask);
}
void expect(FlowKey& key, const SetNdAction& a) {
  blend_into(key.nd_target, a.target, a.target_mask);
  blend_into(key.arp_sha, a.sll, a.sll_mask);
  blend_into(key.arp_tha, a.tll, a.tll_mask);
}
void expect(FlowKey& key, const SetIcmpAction& a) {
  key.tp_src = to_be16(static_cast<uint16_t>((key.tp_src.host() & ~a.type_mask) | a.type));
  key.tp_dst = to_be16(static_cast<uint16_t>((key.tp_dst.host() & ~a.code_mask) | a.code));
}

FlowKey key_of(Packet& packet) {
  FlowKey key;
  RC_ASSERT(extract_flow_key(packet, key));
  return key;
}

// Applies the set and checks that the key changed as it says and in nothing else.
template <typename Set>
void apply(Packet& packet, const Set& set, bool (*function)(Packet&, const Set&)) {
  FlowKey expected = key_of(packet);
  expect(expected, set);
  RC_ASSERT(function(packet, set));
  const FlowKey key = key_of(packet);
  RC_ASSERT(key == expected);
}

// ICMPv6 extraction depends on the type, so only type and code are compared.
void apply_icmp(Packet& packet, const SetIcmpAction& set) {
  FlowKey expected = key_of(packet);
  expect(expected, set);
  RC_ASSERT(set_icmp(packet, set));
  const FlowKey key = key_of(packet);
  RC_ASSERT(key.tp_src == expected.tp_src && key.tp_dst == expected.tp_dst);
}

void apply_random_sets(std::mt19937& rng, const FrameSpec& spec, Packet& packet) {
  apply(packet, random_ethernet(rng), set_ethernet);
  if (spec.v6) {
    apply(packet, random_ipv6(rng), set_ipv6);
  } else {
    apply(packet, random_ipv4(rng), set_ipv4);
  }
  if (spec.neighbour) {
    apply(packet, random_nd(rng), set_nd);
  } else if (spec.proto == kProtoIcmp || spec.proto == kProtoIcmpv6) {
    apply_icmp(packet, random_icmp(rng, spec.proto));
  } else {
    apply(packet, random_transport(rng, spec.proto), set_transport);
  }
}

TEST(Rewrite, ChecksumsStayRightAndOnlyTheMaskedFieldsChange) {
  HeapPacketPool pool(2048, 1);
  check_random([&pool](std::mt19937& rng) {
    const FrameSpec spec = FrameSpec::random(rng);
    PacketPtr packet = make_packet(pool, spec.build());
    RC_ASSERT(spec.verify(bytes_of(*packet)));
    apply_random_sets(rng, spec, *packet);
    RC_ASSERT(spec.verify(bytes_of(*packet)));
  });
}

TEST(Rewrite, DamageStaysVisible) {
  HeapPacketPool pool(2048, 1);
  check_random([&pool](std::mt19937& rng) {
    FrameSpec spec = FrameSpec::random(rng);
    spec.udp_checksum = true;
    PacketPtr packet = make_packet(pool, spec.build());
    uint8_t* field = packet->data() + spec.l4() + spec.checksum_offset();
    *field ^= 0x10;
    if (spec.proto == 17 && field[0] == 0 && field[1] == 0) return;  // now a packet without checksum
    RC_ASSERT(!spec.verify(bytes_of(*packet)));
    apply_random_sets(rng, spec, *packet);
    RC_ASSERT(!spec.verify(bytes_of(*packet)));
  });
}

TEST(Rewrite, PartialChecksumsAreRightOnceCompleted) {
  HeapPacketPool pool(2048, 1);
  check_random([&pool](std::mt19937& rng) {
    FrameSpec spec = FrameSpec::random(rng);
    spec.udp_checksum = true;
    spec.padding = 0;
    if (spec.proto == kProtoIcmp) spec.proto = 6;
    PacketPtr packet = make_packet(pool, spec.build());
    uint8_t* field = packet->data() + spec.l4() + spec.checksum_offset();
    if (spec.proto == 132) store_unaligned(field, be32{});
    store_unaligned(field, to_be16(spec.pseudo_sum(bytes_of(*packet))));
    packet->offload.checksum = ChecksumState::partial;
    packet->offload.csum_start = static_cast<uint16_t>(spec.l4());
    packet->offload.csum_offset = static_cast<uint16_t>(spec.checksum_offset());
    apply_random_sets(rng, spec, *packet);
    RC_ASSERT(packet->offload.checksum == ChecksumState::partial);
    RC_ASSERT(complete_checksum(*packet));
    RC_ASSERT(spec.verify(bytes_of(*packet)));
  });
}

// Every function on frames that guests may have damaged at will: nothing outside the frame is written, and a packet
// that was refused is as before.
TEST(Rewrite, SurvivesDamagedFrames) {
  HeapPacketPool pool(2048, 1);
  check_random([&pool](std::mt19937& rng) {
    Bytes frame = FrameSpec::random(rng).build();
    for (uint32_t n = rng() % 4; n > 0; --n) frame[12 + rng() % (frame.size() - 12)] = static_cast<uint8_t>(rng());
    if (rng() % 2 == 0) frame.resize(rng() % frame.size());
    PacketPtr packet = make_packet(pool, frame);
    std::memset(packet->buffer(), 0xa5, packet->headroom());
    std::memset(packet->data() + packet->size(), 0xa5, packet->tailroom());
    const uint8_t protocols[] = {6, 17, 132, 1, 58, 0, 250};
    const uint8_t proto = protocols[rng() % 7];
    const auto check = [&](auto&& change) {
      const Bytes before = bytes_of(*packet);
      const bool done = change();
      RC_ASSERT(done || bytes_of(*packet) == before);
      const auto is_mark = [](uint8_t b) { return b == 0xa5; };
      RC_ASSERT(std::all_of(packet->buffer(), packet->data(), is_mark));
      RC_ASSERT(std::all_of(packet->data() + packet->size(), packet->buffer() + packet->capacity(), is_mark));
    };
    check([&] { return set_ethernet(*packet, random_ethernet(rng)); });
    check([&] { return set_ipv4(*packet, random_ipv4(rng)); });
    check([&] { return set_ipv6(*packet, random_ipv6(rng)); });
    check([&] { return set_transport(*packet, random_transport(rng, proto)); });
    check([&] { return set_icmp(*packet, random_icmp(rng, proto)); });
    check([&] { return set_nd(*packet, random_nd(rng)); });
    check([&] { return set_arp(*packet, SetArpAction{}); });
  });
}

TEST(Rewrite, PushAndPopVlanAreInverse) {
  HeapPacketPool pool(2048, 1);
  check_random([&pool](std::mt19937& rng) {
    const FrameSpec spec = FrameSpec::random(rng);
    PacketPtr packet = make_packet(pool, spec.build());
    packet->offload.checksum = ChecksumState::partial;
    packet->offload.csum_start = static_cast<uint16_t>(spec.l4());
    FlowKey key = key_of(*packet);
    const LayerOffsets layers = packet->layers;
    RC_ASSERT(push_vlan(*packet, {kEthTypeQinq, to_be16(0x3123)}));
    RC_ASSERT(packet->layers.l3 == layers.l3 + 4 && packet->layers.l4 == layers.l4 + 4);
    RC_ASSERT(packet->layers.l3_end == layers.l3_end + 4);
    RC_ASSERT(packet->offload.csum_start == spec.l4() + 4);
    const Bytes tagged = bytes_of(*packet);
    RC_ASSERT(tagged[14] == 0x21 && tagged[15] == 0x23);  // CFI clear
    if (spec.vlans.size() < 2) {
      FlowKey tagged_key = key_of(*packet);
      RC_ASSERT((tagged_key.vlan[0] == VlanTag{kEthTypeQinq, to_be16(0x3123)}));
      RC_ASSERT(tagged_key.vlan[1] == key.vlan[0]);
    }
    pop_vlan(*packet);
    RC_ASSERT(bytes_of(*packet) == spec.build());
    RC_ASSERT(key_of(*packet) == key);
    RC_ASSERT(packet->offload.csum_start == spec.l4());
  });
}

// A tag is pushed and popped a byte at a time; what moved is what stands behind the addresses.
Bytes push_tag_bytes(Bytes frame, be16 tpid, be16 tci) {
  const uint16_t words[] = {tpid.host(), static_cast<uint16_t>(tci.host() & ~0x1000)};
  const Bytes tag = {static_cast<uint8_t>(words[0] >> 8), static_cast<uint8_t>(words[0]),
                     static_cast<uint8_t>(words[1] >> 8), static_cast<uint8_t>(words[1])};
  frame.insert(frame.begin() + 12, tag.begin(), tag.end());
  return frame;
}
Bytes pop_tag_bytes(Bytes frame) {
  const bool tagged =
      frame.size() >= 18 && ((frame[12] == 0x81 && frame[13] == 0x00) || (frame[12] == 0x88 && frame[13] == 0xa8));
  if (tagged) frame.erase(frame.begin() + 12, frame.begin() + 16);
  return frame;
}

// What the packet carries beside its bytes, as it was and where it must point after the frame's front moved by `by`.
void expect_moved(const Packet& packet, const PacketMetadata& before, int by) {
  const auto moved = [by](uint16_t offset) {
    return offset == LayerOffsets::kNoLayer ? offset : static_cast<uint16_t>(offset + by);
  };
  RC_ASSERT(packet.layers.l2_5 == moved(before.layers.l2_5));
  RC_ASSERT(packet.layers.l3 == moved(before.layers.l3));
  RC_ASSERT(packet.layers.l4 == moved(before.layers.l4));
  RC_ASSERT(packet.layers.l3_end == moved(before.layers.l3_end));
  const bool partial = before.offload.checksum == ChecksumState::partial;
  RC_ASSERT(packet.offload.csum_start == before.offload.csum_start + (partial ? by : 0));
  RC_ASSERT(packet.offload.csum_offset == before.offload.csum_offset);
  RC_ASSERT(packet.offload.checksum == before.offload.checksum);
  RC_ASSERT(packet.offload.gso == before.offload.gso && packet.offload.gso_size == before.offload.gso_size);
  RC_ASSERT(packet.in_port == before.in_port && packet.skb_mark == before.skb_mark);
  RC_ASSERT(packet.rss_hash == before.rss_hash && packet.recirc_depth == before.recirc_depth);
}

// Frames of all sizes, tags and places in their buffer; layers that are there and that are not.
TEST(Rewrite, TagsMoveNothingElse) {
  HeapPacketPool pool(HeapPacketPool::kSuperFrameBuffer, 1);
  check_random([&pool](std::mt19937& rng) {
    Bytes frame = FrameSpec::random(rng).build();
    if (rng() % 4 == 0) frame.resize(14 + rng() % 8);
    if (rng() % 8 == 0) frame.resize(40000 + rng() % 20000, 0x5a);
    const size_t headroom = rng() % 3 == 0 ? rng() % 12 : rng() % 200;
    PacketPtr packet = make_packet(pool, frame, headroom);
    const auto any_layer = [&rng] {
      return static_cast<uint16_t>(rng() % 3 == 0 ? LayerOffsets::kNoLayer : 8 + rng() % 200);
    };
    packet->layers = {any_layer(), any_layer(), any_layer(), any_layer()};
    const ChecksumState states[] = {ChecksumState::none, ChecksumState::verified, ChecksumState::partial};
    packet->offload.checksum = states[rng() % 3];
    packet->offload.gso = frame.size() > 2000 ? GsoType::tcp4 : GsoType::none;
    packet->offload.gso_size = 1448;
    packet->offload.csum_start = static_cast<uint16_t>(40 + rng() % 100);
    packet->offload.csum_offset = 16;
    packet->in_port = packet->skb_mark = packet->rss_hash = rng();
    for (int change = 0; change < 6; ++change) {
      const PacketMetadata before = packet->metadata();
      const Bytes old = bytes_of(*packet);
      if (rng() % 2 == 0) {
        const PushVlanAction push{rng() % 2 == 0 ? kEthTypeVlan : kEthTypeQinq, to_be16(static_cast<uint16_t>(rng()))};
        const bool room = packet->headroom() >= 4;
        RC_ASSERT(push_vlan(*packet, push) == room);
        RC_ASSERT(bytes_of(*packet) == (room ? push_tag_bytes(old, push.tpid, push.tci) : old));
        expect_moved(*packet, before, room ? 4 : 0);
      } else {
        const Bytes popped = pop_tag_bytes(old);
        pop_vlan(*packet);
        RC_ASSERT(bytes_of(*packet) == popped);
        expect_moved(*packet, before, static_cast<int>(popped.size()) - static_cast<int>(old.size()));
      }
    }
  });
}

TEST(Rewrite, AFrameTooShortForAnEthernetHeaderGetsNoTag) {
  HeapPacketPool pool(2048, 1);
  for (size_t size = 0; size < 14; ++size) {
    PacketPtr packet = make_packet(pool, Bytes(size, 0x81));
    EXPECT_FALSE(push_vlan(*packet, {kEthTypeVlan, to_be16(0x1001)}));
    pop_vlan(*packet);
    EXPECT_EQ(bytes_of(*packet), Bytes(size, 0x81));
  }
}

TEST(Rewrite, PushVlanNeedsHeadroom) {
  HeapPacketPool pool(2048, 1);
  const FrameSpec spec;
  PacketPtr packet = make_packet(pool, spec.build(), 3);
  EXPECT_FALSE(push_vlan(*packet, {kEthTypeVlan, to_be16(0x1001)}));
  EXPECT_EQ(bytes_of(*packet), spec.build());
  packet.reset();
  packet = make_packet(pool, spec.build(), 4);
  EXPECT_TRUE(push_vlan(*packet, {kEthTypeVlan, to_be16(0x1001)})) << "just enough";
  EXPECT_FALSE(push_vlan(*packet, {kEthTypeVlan, to_be16(0x1001)})) << "used up";
}

TEST(Rewrite, LaterFragmentsHaveNoTransportHeader) {
  HeapPacketPool pool(2048, 1);
  FrameSpec spec;
  spec.proto = 6;
  Bytes frame = spec.build();
  frame[21] = 0x10;  // offset 128
  PacketPtr packet = make_packet(pool, frame);
  EXPECT_FALSE(set_transport(*packet, {6, to_be16(1), {}, to_be16(0xffff), {}}));
  EXPECT_EQ(bytes_of(*packet), frame);
  SetIpv4Action set;
  set.dst = to_be32(0x0a000001);
  set.dst_mask = to_be32(0xffffffff);
  EXPECT_TRUE(set_ipv4(*packet, set));
  EXPECT_TRUE(std::equal(frame.begin() + 34, frame.end(), packet->data() + 34)) << "payload was taken for a header";
}

TEST(Rewrite, TcpHeadersOfImpossibleSizeHaveNoPorts) {
  HeapPacketPool pool(2048, 1);
  FrameSpec spec;
  spec.proto = 6;
  for (const uint8_t words : {4, 15}) {  // less than a header; more than there is
    Bytes frame = spec.build();
    frame.resize(14 + 20 + 24);
    frame[16] = 0;
    frame[17] = 20 + 24;
    frame[14 + 20 + 12] = static_cast<uint8_t>(words << 4);
    PacketPtr packet = make_packet(pool, frame);
    EXPECT_TRUE(set_transport(*packet, {6, to_be16(1), {}, to_be16(0xffff), {}})) << "data offset " << words;
    EXPECT_EQ(bytes_of(*packet), frame);
  }
}

TEST(Rewrite, SctpFirstFragmentIsRefused) {
  HeapPacketPool pool(2048, 1);
  FrameSpec spec;
  spec.proto = 132;
  Bytes frame = spec.build();
  frame[20] = 0x20;  // more fragments
  PacketPtr packet = make_packet(pool, frame);
  EXPECT_FALSE(set_transport(*packet, {132, to_be16(1), {}, to_be16(0xffff), {}}));
  EXPECT_EQ(bytes_of(*packet), frame);
}

// ---- packet in, packet out

struct RewriteCase {
  const char* name;
  std::function<bool(Packet&)> change;
  const char* in;
  const char* out;  // "": refused
};

MacAddress mac(const char* text) { return *MacAddress::parse(text); }
be32 ip4(const char* text) { return *parse_ipv4(text); }
Ipv6Address ip6(const char* text) { return *Ipv6Address::parse(text); }
constexpr be32 kAll32 = to_be32(0xffffffff);
constexpr be16 kAll16 = to_be16(0xffff);
const MacAddress kAllMac = MacAddress::from_u64(0xffffffffffff);

#include "tests/datapath/actions/rewrite_cases.inc"

TEST(Rewrite, PacketInPacketOut) {
  HeapPacketPool pool(2048, 1);
  for (const RewriteCase& c : rewrite_cases()) {
    PacketPtr packet = make_packet(pool, from_hex(c.in));
    const bool done = c.change(*packet);
    EXPECT_EQ(done, *c.out != '\0') << c.name;
    EXPECT_EQ(to_hex(bytes_of(*packet)), to_hex(from_hex(done ? c.out : c.in))) << c.name;
  }
}

}  // namespace
}  // namespace vswitch
