#include "datapath/vport/afxdp/partial_checksum.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "datapath/base/byte_order.h"
#include "datapath/packet/checksum.h"
#include "datapath/packet/offload.h"
#include "tests/support/packet_builder.h"

namespace vswitch::afxdp {
namespace {

using test::Bytes;
using test::PacketBuilder;

PacketPtr packet_of(HeapPacketPool& pool, const Bytes& frame) {
  PacketPtr packet = pool.allocate();
  packet->set_size(frame.size());
  std::copy(frame.begin(), frame.end(), packet->data());
  return packet;
}
Bytes bytes_of(const Packet& packet) { return {packet.data(), packet.data() + packet.size()}; }

struct Kind {
  const char* name;
  bool v6, vlan;
  char proto;  // t, u, s
};

Bytes build(const Kind& kind, size_t payload) {
  PacketBuilder builder;
  builder.ethernet();
  if (kind.vlan) builder.vlan(7);
  if (kind.v6) {
    builder.ipv6("2001:db8::1", "2001:db8::2");
  } else {
    builder.ipv4("10.0.0.1", "10.0.0.2");
  }
  if (kind.proto == 't') builder.tcp(1, 2);
  if (kind.proto == 'u') builder.udp(1, 2);
  if (kind.proto == 's') builder.sctp(1, 2);
  return builder.payload(payload).build();
}

// The field as a sender leaves it to its device: the pseudo header's sum, written here by the definition (RFC 1071).
void make_partial(Bytes& frame, const Kind& kind, size_t l4, size_t field) {
  uint32_t sum = 0;
  if (kind.proto != 's') {
    const size_t addresses = kind.v6 ? l4 - 32 : l4 - 8;
    for (size_t i = addresses; i < l4; i += 2) sum += static_cast<uint32_t>(frame[i] << 8 | frame[i + 1]);
    sum += static_cast<uint32_t>(frame.size() - l4) + (kind.proto == 't' ? 6 : 17);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  } else {
    frame[l4 + field + 2] = frame[l4 + field + 3] = 0;
  }
  frame[l4 + field] = static_cast<uint8_t>(sum >> 8);
  frame[l4 + field + 1] = static_cast<uint8_t>(sum);
}

TEST(PartialChecksum, IsSeenAndCompletedForEachKindOfFrame) {
  HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 4);
  for (const Kind& kind :
       {Kind{"tcp4", false, false, 't'}, Kind{"udp4", false, false, 'u'}, Kind{"tcp6", true, false, 't'},
        Kind{"udp6", true, true, 'u'}, Kind{"tcp4 tagged", false, true, 't'}, Kind{"sctp4", false, false, 's'}}) {
    SCOPED_TRACE(kind.name);
    const Bytes whole = build(kind, 101);
    const size_t l4 = 14 + (kind.vlan ? 4 : 0) + (kind.v6 ? 40 : 20);
    const size_t field = kind.proto == 't' ? 16 : kind.proto == 'u' ? 6 : 8;
    PacketPtr untouched = packet_of(pool, whole);
    mark_partial_checksum(*untouched);
    EXPECT_EQ(untouched->offload.checksum, ChecksumState::none);
    Bytes partial = whole;
    make_partial(partial, kind, l4, field);
    PacketPtr packet = packet_of(pool, partial);
    mark_partial_checksum(*packet);
    EXPECT_EQ(packet->offload.checksum, ChecksumState::partial);
    EXPECT_EQ(packet->offload.csum_start, l4);
    EXPECT_EQ(packet->offload.csum_offset, field);
    ASSERT_TRUE(complete_checksum(*packet));
    EXPECT_EQ(bytes_of(*packet), whole);
  }
}

TEST(PartialChecksum, AWholeOneThatLooksPartialStaysTheSame) {
  HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 4);
  int seen = 0;
  // Of 65,536 payloads that differ in one word, some give just that value.
  for (uint32_t word = 0; word <= 0xffff; ++word) {
    const Bytes payload = {static_cast<uint8_t>(word >> 8), static_cast<uint8_t>(word)};
    const Bytes frame =
        PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).raw(std::span(payload)).build();
    PacketPtr packet = packet_of(pool, frame);
    mark_partial_checksum(*packet);
    if (packet->offload.checksum != ChecksumState::partial) continue;
    ++seen;
    ASSERT_TRUE(complete_checksum(*packet));
    EXPECT_EQ(bytes_of(*packet), frame);
  }
  EXPECT_GE(seen, 1);
}

TEST(PartialChecksum, OtherFramesAreLeftAlone) {
  HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 4);
  const auto expect_none = [&](const Bytes& frame) {
    PacketPtr packet = packet_of(pool, frame);
    mark_partial_checksum(*packet);
    EXPECT_EQ(packet->offload.checksum, ChecksumState::none);
  };
  expect_none(PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").icmp(8, 0).payload(20).build());
  expect_none(PacketBuilder().ethernet().eth_type(0x88b5).payload(20).build());
  const Kind kind{"", false, false, 't'};
  Bytes padded = build(kind, 0);
  make_partial(padded, kind, 34, 16);
  padded.push_back(0xff);
  expect_none(padded);
  // A UDP checksum of 0 says that there is none.
  Bytes none = build({"", false, false, 'u'}, 9);
  none[34 + 6] = none[34 + 7] = 0;
  expect_none(none);
}

TEST(PartialChecksum, NothingIsReadBeyondAnyFrame) {
  HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 4);
  ASSERT_TRUE(rc::check([&] {
    const auto kind =
        *rc::gen::element(Kind{"", false, false, 't'}, Kind{"", true, true, 'u'}, Kind{"", true, false, 's'});
    Bytes frame = build(kind, *rc::gen::inRange<size_t>(0, 30));
    frame.resize(*rc::gen::inRange<size_t>(0, frame.size() + 1));
    for (int i = 0; i < 3 && !frame.empty(); ++i) {
      frame[*rc::gen::inRange<size_t>(0, frame.size())] = *rc::gen::arbitrary<uint8_t>();
    }
    PacketPtr packet = packet_of(pool, frame);
    mark_partial_checksum(*packet);
    if (packet->offload.checksum == ChecksumState::partial) {
      RC_ASSERT(size_t{packet->offload.csum_start} + packet->offload.csum_offset + 2 <= frame.size());
    }
  }));
}

}  // namespace
}  // namespace vswitch::afxdp
