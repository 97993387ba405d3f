#include "datapath/flow/same_headers.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstring>
#include <vector>

#include "datapath/flow/extract.h"
#include "datapath/packet/packet_pool.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

Bytes tcp_frame(size_t payload) {
  return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80).payload(payload).build();
}
Bytes udp_frame(size_t payload) {
  return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1000, 53).payload(payload).build();
}

class SameHeadersTest : public testing::Test {
 protected:
  PacketPtr packet(const Bytes& frame) {
    PacketPtr packet = pool_.allocate();
    packet->set_size(frame.size());
    std::memcpy(packet->data(), frame.data(), frame.size());
    packet->in_port = 7;
    return packet;
  }
  static bool same(const Packet& a, const Packet& b) {
    const Packet* const both[] = {&a, &b};
    return have_same_headers(both, 2);
  }
  // The second changed at one place.
  bool same_but_for(const Bytes& frame, size_t at) {
    Bytes other = frame;
    other[at] ^= 0x01;
    return same(*packet(frame), *packet(other));
  }

  HeapPacketPool pool_{HeapPacketPool::kFrameBuffer, 64};
};

TEST_F(SameHeadersTest, WhatNoKeyLooksAtMayDiffer) {
  for (const Bytes& frame : {tcp_frame(20), udp_frame(20)}) {
    EXPECT_TRUE(same(*packet(frame), *packet(frame)));
    for (const size_t at : {18, 19, 24, 25, 40, 41}) EXPECT_TRUE(same_but_for(frame, at)) << at;
    EXPECT_TRUE(same_but_for(frame, frame.size() - 1));
  }
  for (size_t at = 38; at < 46; ++at) EXPECT_TRUE(same_but_for(tcp_frame(20), at)) << "sequence numbers: " << at;
}

TEST_F(SameHeadersTest, AllElseMayNot) {
  for (size_t at = 0; at < 38; ++at) {
    if (at == 18 || at == 19 || at == 24 || at == 25) continue;
    EXPECT_FALSE(same_but_for(tcp_frame(20), at)) << at;
    EXPECT_FALSE(same_but_for(udp_frame(20), at)) << at;
  }
  EXPECT_FALSE(same_but_for(tcp_frame(20), 46));
  EXPECT_FALSE(same_but_for(tcp_frame(20), 47));
  EXPECT_FALSE(same(*packet(tcp_frame(20)), *packet(tcp_frame(21))));
}

TEST_F(SameHeadersTest, MetadataMustBeEqualAndCommon) {
  const auto with = [this](auto change) {
    PacketPtr a = packet(udp_frame(20)), b = packet(udp_frame(20));
    change(*b);
    return same(*a, *b) || same(*b, *a);
  };
  EXPECT_FALSE(with([](Packet& p) { p.in_port = 8; }));
  EXPECT_FALSE(with([](Packet& p) { p.recirc_id = 1; }));
  EXPECT_FALSE(with([](Packet& p) { p.dp_hash = 1; }));
  EXPECT_FALSE(with([](Packet& p) { p.skb_priority = 1; }));
  EXPECT_FALSE(with([](Packet& p) { p.skb_mark = 1; }));
  EXPECT_FALSE(with([](Packet& p) { p.has_tunnel = true; }));
}

TEST_F(SameHeadersTest, TheLastOfManyCounts) {
  std::vector<PacketPtr> packets;
  std::vector<const Packet*> pointers;
  for (int i = 0; i < 32; ++i) {
    packets.push_back(packet(udp_frame(20)));
    pointers.push_back(packets.back().get());
  }
  EXPECT_TRUE(have_same_headers(pointers.data(), pointers.size()));
  packets.back()->data()[35] ^= 1;
  EXPECT_FALSE(have_same_headers(pointers.data(), pointers.size()));
}

// Any bytes at all, near those of a common frame: if it says the same, extraction does.
TEST_F(SameHeadersTest, ExtractionAgrees) {
  ASSERT_TRUE(rc::check([this] {
    const auto below = [](size_t n) { return *rc::gen::noShrink(rc::gen::inRange<size_t>(0, n)); };
    Bytes one = below(2) == 0 ? tcp_frame(below(30)) : udp_frame(below(30));
    const auto change = [&](Bytes& frame) {
      frame[below(2) == 0 ? below(frame.size()) : 12 + below(12)] = static_cast<uint8_t>(below(256));
    };
    for (size_t n = below(4); n > 0; --n) change(one);
    Bytes other = one;
    for (size_t n = below(3); n > 0; --n) change(other);
    const PacketPtr a = packet(one), b = packet(other);
    if (!same(*a, *b)) return;
    FlowKey first, second;
    RC_ASSERT(extract_flow_key(*a, first) && extract_flow_key(*b, second));
    RC_ASSERT(first == second);
    RC_ASSERT(a->rss_hash == b->rss_hash);
    RC_ASSERT(std::memcmp(&a->layers, &b->layers, sizeof a->layers) == 0);
  }));
}

}  // namespace
}  // namespace vswitch
