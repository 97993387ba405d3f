#include "datapath/packet/offload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "tests/support/frame_spec.h"
#include "tests/support/packet_builder.h"
#include "tests/support/random_check.h"

namespace vswitch {
namespace {

uint16_t u16(const Bytes& bytes, size_t at) { return static_cast<uint16_t>(bytes[at] << 8 | bytes[at + 1]); }
uint32_t u32(const Bytes& bytes, size_t at) { return uint32_t{u16(bytes, at)} << 16 | u16(bytes, at + 2); }

// The frame with its L4 checksum as the kernel hands it out when a device is to complete it.
PacketPtr make_partial(PacketPool& pool, const FrameSpec& spec) {
  PacketPtr packet = make_packet(pool, spec.build());
  const uint16_t sum = spec.pseudo_sum(bytes_of(*packet));
  uint8_t* field = packet->data() + spec.l4() + spec.checksum_offset();
  store_unaligned(field, to_be16(sum));
  if (spec.proto == 132) store_unaligned(field, be32{});
  packet->offload.checksum = ChecksumState::partial;
  packet->offload.csum_start = static_cast<uint16_t>(spec.l4());
  packet->offload.csum_offset = static_cast<uint16_t>(spec.checksum_offset());
  return packet;
}

TEST(CompleteChecksum, MakesTheFrameThatADeviceWouldSend) {
  HeapPacketPool pool(4096, 2);
  check_random([&pool](std::mt19937& rng) {
    FrameSpec spec = FrameSpec::random(rng);
    spec.padding = 0;
    spec.udp_checksum = true;
    PacketPtr packet = make_partial(pool, spec);
    RC_ASSERT(complete_checksum(*packet));
    RC_ASSERT(packet->offload.checksum == ChecksumState::none);
    RC_ASSERT(bytes_of(*packet) == spec.build());
  });
}

TEST(CompleteChecksum, RefusesAFieldOutsideTheFrame) {
  HeapPacketPool pool(4096, 1);
  const FrameSpec spec;
  for (const auto& [start, offset] : {std::pair{0xffff, 0xffff}, {42, 6}, {41, 0}, {0, 41}, {43, 0}}) {
    PacketPtr packet = make_partial(pool, spec);
    ASSERT_EQ(packet->size(), 42u);
    packet->offload.csum_start = static_cast<uint16_t>(start);
    packet->offload.csum_offset = static_cast<uint16_t>(offset);
    const Bytes before = bytes_of(*packet);
    EXPECT_FALSE(complete_checksum(*packet)) << start << " " << offset;
    EXPECT_EQ(bytes_of(*packet), before);
    EXPECT_EQ(packet->offload.checksum, ChecksumState::partial);
  }
}

TEST(CompleteChecksum, LeavesOtherStatesAlone) {
  HeapPacketPool pool(4096, 1);
  for (ChecksumState state : {ChecksumState::none, ChecksumState::verified}) {
    PacketPtr packet = make_partial(pool, FrameSpec{});
    packet->offload.checksum = state;
    const Bytes before = bytes_of(*packet);
    EXPECT_TRUE(complete_checksum(*packet));
    EXPECT_EQ(bytes_of(*packet), before);
    EXPECT_EQ(packet->offload.checksum, state);
  }
}

FrameSpec random_super_frame(std::mt19937& rng) {
  FrameSpec spec = FrameSpec::random(rng);
  spec.proto = rng() % 2 == 0 ? 6 : 17;
  spec.neighbour = false;
  spec.udp_checksum = true;
  spec.padding = 0;
  spec.payload.resize(rng() % 8000);
  for (size_t i = 0; i < spec.payload.size(); ++i) spec.payload[i] = static_cast<uint8_t>(rng());
  return spec;
}

void make_gso(Packet& packet, const FrameSpec& spec, uint16_t size, bool ecn) {
  packet.offload.gso = spec.proto == 17 ? GsoType::udp_l4 : spec.v6 ? GsoType::tcp6 : GsoType::tcp4;
  packet.offload.gso_size = size;
  packet.offload.gso_ecn = ecn;
}

std::vector<Bytes> segments_of(PacketPtr packet, PacketPool& pool) {
  std::vector<Bytes> pieces;
  size_t missing = 0;
  const size_t n = segment_packet(std::move(packet), pool, &missing, [&pieces](PacketPtr piece) {
    RC_ASSERT(piece->offload.checksum == ChecksumState::none);
    RC_ASSERT(piece->offload.gso == GsoType::none);
    pieces.push_back(bytes_of(*piece));
  });
  RC_ASSERT(n == pieces.size());
  RC_ASSERT(missing == 0u);
  return pieces;
}

struct SegmentCheck {
  const FrameSpec& spec;
  const Bytes whole;
  const uint16_t gso_size;
  const bool ecn;
  const size_t count;

  void check(const Bytes& piece, size_t index) const {
    const size_t l3 = spec.l3();
    const size_t l4 = spec.l4();
    RC_ASSERT(spec.verify(piece));
    RC_ASSERT(std::equal(piece.begin(), piece.begin() + 14, whole.begin()));
    RC_ASSERT(piece.size() == l3 + u16(piece, l3 + (spec.v6 ? 4 : 2)) + (spec.v6 ? 40 : 0));
    if (!spec.v6) RC_ASSERT(u16(piece, l3 + 4) == static_cast<uint16_t>(u16(whole, l3 + 4) + index));
    if (spec.proto == 17) {
      RC_ASSERT(u16(piece, l4 + 4) == piece.size() - l4);
      return;
    }
    RC_ASSERT(u32(piece, l4 + 4) == static_cast<uint32_t>(u32(whole, l4 + 4) + index * gso_size));
    int flags = whole[l4 + 13];
    if (index + 1 != count) flags &= ~0x09;
    if (index != 0 && ecn) flags &= ~0x80;
    RC_ASSERT(int{piece[l4 + 13]} == flags);
  }
};

TEST(Segmenter, CutsAnySuperFrame) {
  HeapPacketPool pool(16384, 4);
  check_random([&pool](std::mt19937& rng) {
    const FrameSpec spec = random_super_frame(rng);
    const auto gso_size = static_cast<uint16_t>(1 + rng() % 2000);
    const bool ecn = rng() % 2 == 0;
    PacketPtr packet = make_partial(pool, spec);
    make_gso(*packet, spec, gso_size, ecn);
    const std::vector<Bytes> pieces = segments_of(std::move(packet), pool);
    RC_ASSERT(pieces.size() == std::max<size_t>(1, (spec.payload.size() + gso_size - 1) / gso_size));
    const SegmentCheck expected{spec, spec.build(), gso_size, ecn, pieces.size()};
    Bytes payload;
    for (size_t i = 0; i < pieces.size(); ++i) {
      expected.check(pieces[i], i);
      payload.insert(payload.end(), pieces[i].begin() + static_cast<ptrdiff_t>(spec.l4() + spec.l4_header_size()),
                     pieces[i].end());
    }
    RC_ASSERT(payload == spec.payload);
  });
  EXPECT_EQ(free_packets(pool), 4u);
}

TEST(Segmenter, KeepsMetadataAndHeadroom) {
  HeapPacketPool pool(4096, 3);
  FrameSpec spec;
  spec.proto = 6;
  spec.payload = Bytes(1000, 7);
  PacketPtr packet = make_partial(pool, spec);
  make_gso(*packet, spec, 600, false);
  packet->in_port = 5;
  packet->skb_mark = 6;
  packet->layers = {LayerOffsets::kNoLayer, 14, 34, static_cast<uint16_t>(spec.l3_end())};
  const Segmenter segmenter(*packet);
  ASSERT_EQ(segmenter.count(), 2u);
  EXPECT_EQ(segmenter.segment_size(0), 654u);
  EXPECT_EQ(segmenter.segment_size(1), 454u);
  const PacketPtr piece = segmenter.build(1, pool);
  EXPECT_EQ(piece->in_port, 5u);
  EXPECT_EQ(piece->skb_mark, 6u);
  EXPECT_EQ(piece->headroom(), Packet::kDefaultHeadroom);
  EXPECT_EQ(piece->layers.l3, 14);
  EXPECT_EQ(piece->layers.l4, 34);
  EXPECT_EQ(piece->layers.l3_end, 454);
}

TEST(Segmenter, CountsWhatThePoolCouldNotHold) {
  HeapPacketPool pool(8192, 4);
  FrameSpec spec;
  spec.payload = Bytes(5000, 7);
  PacketPtr packet = make_partial(pool, spec);
  make_gso(*packet, spec, 1000, false);
  std::vector<PacketPtr> kept;
  size_t missing = 0;
  EXPECT_EQ(segment_packet(std::move(packet), pool, &missing, [&kept](PacketPtr p) { kept.push_back(std::move(p)); }),
            3u);
  EXPECT_EQ(missing, 2u);
}

TEST(Segmenter, RefusesHeadersThatDoNotFitTheType) {
  HeapPacketPool pool(4096, 1);
  FrameSpec tcp4;
  tcp4.proto = 6;
  tcp4.payload = Bytes(1000, 1);
  FrameSpec tcp6 = tcp4;
  tcp6.v6 = true;
  FrameSpec udp4 = tcp4;
  udp4.proto = 17;
  struct Case {
    const char* what;
    FrameSpec spec;
    GsoType type;
    size_t at;  // 0: nothing is damaged
    uint8_t value;
    uint16_t gso_size;
  };
  const Case cases[] = {
      {"tcp4 over IPv6", tcp6, GsoType::tcp4, 0, 0, 500},
      {"tcp6 over IPv4", tcp4, GsoType::tcp6, 0, 0, 500},
      {"tcp4 over UDP", udp4, GsoType::tcp4, 0, 0, 500},
      {"udp_l4 over TCP", tcp4, GsoType::udp_l4, 0, 0, 500},
      {"gso_size 0", tcp4, GsoType::tcp4, 0, 0, 0},
      {"not IP", tcp4, GsoType::tcp4, 13, 1, 500},
      {"IPv4 header shorter than 20 bytes", tcp4, GsoType::tcp4, 14, 0x44, 500},
      {"IPv4 total length beyond the frame", tcp4, GsoType::tcp4, 16, 0xff, 500},
      {"a fragment", tcp4, GsoType::tcp4, 20, 0x20, 500},
      {"TCP header shorter than 20 bytes", tcp4, GsoType::tcp4, 34 + 12, 0x40, 500},
      {"IPv6 payload length 0", tcp6, GsoType::tcp6, 14 + 4, 0, 500},
  };
  for (const Case& c : cases) {
    PacketPtr packet = make_packet(pool, c.spec.build());
    if (c.at != 0) packet->data()[c.at] = c.value;
    if (std::string(c.what) == "IPv6 payload length 0") packet->data()[19] = 0;
    packet->offload.gso = c.type;
    packet->offload.gso_size = c.gso_size;
    EXPECT_FALSE(Segmenter(*packet).valid()) << c.what;
  }
}

// A tunnel: the outer frame, whose payload (behind the UDP header) is the tunnel's own header and the inner frame. As
// GRE, the UDP header becomes GRE's with a key, which is as long.
struct TunnelSpec {
  FrameSpec outer;
  Bytes header;
  bool gre = false;
  std::optional<uint16_t> first_id;  // else what the seed makes of it

  static TunnelSpec random(std::mt19937& rng) {
    TunnelSpec tunnel;
    tunnel.outer = FrameSpec::random(rng);
    tunnel.outer.proto = 17;
    tunnel.outer.neighbour = false;
    tunnel.outer.padding = 0;
    tunnel.outer.udp_checksum = rng() % 2 == 0;
    tunnel.gre = rng() % 4 == 0;
    if (tunnel.gre) tunnel.outer.extensions.clear();
    if (!tunnel.gre) tunnel.header.resize(8 + 4 * (rng() % 8));  // VXLAN, Geneve with options
    for (uint8_t& byte : tunnel.header) byte = static_cast<uint8_t>(rng());
    if (rng() % 4 == 0) tunnel.first_id = 0;
    return tunnel;
  }

  size_t inner() const { return outer.l4() + 8 + header.size(); }  // where the inner frame begins

  Bytes encapsulate(const Bytes& frame, size_t index = 0) const {
    FrameSpec spec = outer;
    spec.payload = header;
    spec.payload.insert(spec.payload.end(), frame.begin(), frame.end());
    Bytes bytes = spec.build();
    const size_t l3 = outer.l3();
    if (gre) {
      static constexpr uint8_t kWithKey[] = {0x20, 0, 0x65, 0x58, 1, 2, 3, 4};
      std::copy(std::begin(kWithKey), std::end(kWithKey), bytes.begin() + static_cast<ptrdiff_t>(outer.l4()));
      bytes[l3 + (outer.v6 ? 6 : 9)] = 47;
    }
    if (!outer.v6) {
      const size_t first = first_id ? *first_id : u16(bytes, l3 + 4);
      const size_t id = first == 0 ? 0 : first + index;  // 0 with the DF bit that FrameSpec sets: atomic
      store_unaligned(&bytes[l3 + 4], to_be16(static_cast<uint16_t>(id)));
      store_unaligned(&bytes[l3 + 10], be16{});
      const auto sum = static_cast<uint16_t>(~naive_sum(&bytes[l3], outer.l4() - l3));
      store_unaligned(&bytes[l3 + 10], to_be16(sum));
    }
    return bytes;
  }
};

FrameSpec random_inner_frame(std::mt19937& rng) {
  FrameSpec spec = random_super_frame(rng);
  spec.extensions.clear();
  return spec;
}

// `inner` is a super-frame; its offload state moves out with it.
PacketPtr encapsulate(PacketPool& pool, const TunnelSpec& tunnel, const Packet& inner) {
  PacketPtr packet = make_packet(pool, tunnel.encapsulate(bytes_of(inner)));
  packet->offload = inner.offload;
  packet->offload.csum_start = static_cast<uint16_t>(packet->offload.csum_start + tunnel.inner());
  return packet;
}

TEST(Segmenter, CutsInsideATunnelAsIfTheInnerFrameHadBeenCutBefore) {
  HeapPacketPool pool(16384, 4);
  check_random([&pool](std::mt19937& rng) {
    const FrameSpec spec = random_inner_frame(rng);
    const TunnelSpec tunnel = TunnelSpec::random(rng);
    PacketPtr inner = make_partial(pool, spec);
    make_gso(*inner, spec, static_cast<uint16_t>(1 + rng() % 2000), rng() % 2 == 0);
    RC_ASSERT(!is_tunnel_super_frame(*inner));
    PacketPtr packet = encapsulate(pool, tunnel, *inner);
    RC_ASSERT(is_tunnel_super_frame(*packet));
    const std::vector<Bytes> expected = segments_of(std::move(inner), pool);
    const std::vector<Bytes> pieces = segments_of(std::move(packet), pool);
    RC_ASSERT(pieces.size() == expected.size());
    for (size_t i = 0; i < pieces.size(); ++i) RC_ASSERT(pieces[i] == tunnel.encapsulate(expected[i], i));
  });
  EXPECT_EQ(free_packets(pool), 4u);
}

TEST(Segmenter, CutsIpInIp) {
  HeapPacketPool pool(16384, 4);
  const auto frame = [](size_t payload, uint16_t index, bool v6) {
    test::PacketBuilder builder;
    builder.ethernet().ipv4("192.0.2.1", "192.0.2.2",
                            {.id = static_cast<uint16_t>(9 + index), .protocol = v6 ? 41 : 4});
    if (v6) {
      builder.ipv6("fd00::1", "fd00::2");
    } else {
      builder.ipv4("10.0.0.1", "10.0.0.2", {.id = static_cast<uint16_t>(70 + index)});
    }
    return builder.tcp(1000, 80, {.flags = 0x10, .seq = 5 + index * 1000u}).payload(std::string(payload, 7)).build();
  };
  for (const bool v6 : {false, true}) {
    PacketPtr packet = make_packet(pool, frame(2500, 0, v6));
    const auto l4 = static_cast<uint16_t>(v6 ? 74 : 54);
    packet->offload = {ChecksumState::partial, v6 ? GsoType::tcp6 : GsoType::tcp4, false, 1000, l4, 16};
    const std::vector<Bytes> pieces = segments_of(std::move(packet), pool);
    ASSERT_EQ(pieces.size(), 3u);
    for (uint16_t i = 0; i < 3; ++i) EXPECT_EQ(pieces[i], frame(i == 2 ? 500 : 1000, i, v6)) << v6 << " " << i;
  }
}

TEST(Segmenter, RefusesTunnelsThatItCannotRepeat) {
  HeapPacketPool pool(4096, 2);
  TunnelSpec tunnel;
  tunnel.header = Bytes(8);
  FrameSpec spec;
  spec.proto = 6;
  spec.payload = Bytes(1000, 1);
  TunnelSpec gre = tunnel;
  gre.gre = true;
  gre.header.clear();
  FrameSpec v6 = spec;
  v6.v6 = true;
  FrameSpec extended = v6;
  extended.extensions = {60};
  struct Case {
    const char* what;
    const TunnelSpec& tunnel;
    const FrameSpec& inner;
    GsoType type;
    size_t at;  // in the whole frame; 0: nothing is damaged
    uint8_t value;
    int moved = 0;  // csum_start
  };
  const Case cases[] = {
      {"tcp6 inside, said to be tcp4", tunnel, v6, GsoType::tcp4, 0, 0},
      {"tcp4 inside, said to be tcp6", tunnel, spec, GsoType::tcp6, 0, 0},
      {"an extension header inside", tunnel, extended, GsoType::tcp6, 0, 0},
      {"an outer fragment", tunnel, spec, GsoType::tcp4, 20, 0x20},
      {"an outer protocol that is not known", tunnel, spec, GsoType::tcp4, 23, 50},
      {"an outer UDP length of another size", tunnel, spec, GsoType::tcp4, 39, 1},
      {"GRE with a checksum", gre, spec, GsoType::tcp4, 34, 0xa0},
      {"GRE with a sequence number", gre, spec, GsoType::tcp4, 34, 0x30},
      {"GRE of another version", gre, spec, GsoType::tcp4, 35, 1},
      {"an inner fragment", tunnel, spec, GsoType::tcp4, 50 + 20, 0x20},
      {"an inner datagram that ends earlier", tunnel, spec, GsoType::tcp4, 50 + 16, 1},
      {"not TCP inside", tunnel, spec, GsoType::tcp4, 50 + 23, 17},
      {"an inner TCP header of 16 bytes", tunnel, spec, GsoType::tcp4, 50 + 34 + 12, 0x40},
      {"csum_start elsewhere", tunnel, spec, GsoType::tcp4, 0, 0, 4},
      {"csum_start at an odd place", tunnel, spec, GsoType::tcp4, 0, 0, 1},
      {"csum_start in the tunnel's header", tunnel, spec, GsoType::tcp4, 0, 0, -40},
      {"csum_start behind the frame", tunnel, spec, GsoType::tcp4, 0, 0, 2000},
  };
  for (const Case& c : cases) {
    PacketPtr inner = make_partial(pool, c.inner);
    make_gso(*inner, c.inner, 500, false);
    PacketPtr packet = encapsulate(pool, c.tunnel, *inner);
    EXPECT_EQ(Segmenter(*packet).valid(), c.inner.extensions.empty()) << "before: " << c.what;
    if (c.at != 0) {
      ASSERT_NE(packet->data()[c.at], c.value) << c.what;
      packet->data()[c.at] = c.value;
    }
    packet->offload.gso = c.type;
    packet->offload.csum_start = static_cast<uint16_t>(packet->offload.csum_start + c.moved);
    EXPECT_FALSE(Segmenter(*packet).valid()) << c.what;
  }
}

// Whatever a guest writes, no byte outside the frame is read and every segment ends within the frame.
TEST(Segmenter, SurvivesDamagedFrames) {
  HeapPacketPool pool(16384, 3);
  check_random([&pool](std::mt19937& rng) {
    const FrameSpec spec = random_super_frame(rng);
    PacketPtr packet = make_partial(pool, spec);
    make_gso(*packet, spec, static_cast<uint16_t>(rng() % 3000), true);
    if (rng() % 2 == 0) packet = encapsulate(pool, TunnelSpec::random(rng), *packet);
    const size_t headers = std::min<size_t>(packet->size(), 200);
    for (uint32_t n = rng() % 4; n > 0; --n) packet->data()[12 + rng() % (headers - 12)] = static_cast<uint8_t>(rng());
    if (rng() % 4 == 0) packet->set_size(rng() % packet->size());
    const size_t size = packet->size();
    const Segmenter segmenter(*packet);
    for (size_t i = 0; i < segmenter.count(); ++i) {
      const PacketPtr piece = segmenter.build(i, pool);
      RC_ASSERT(piece != nullptr);
      RC_ASSERT(piece->size() <= size);
    }
  });
  EXPECT_EQ(free_packets(pool), 3u);
}

}  // namespace
}  // namespace vswitch
