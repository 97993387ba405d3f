#include "datapath/packet/gro.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "datapath/packet/checksum.h"
#include "datapath/packet/ip_layout.h"
#include "datapath/packet/offload.h"
#include "datapath/packet/packet_batch.h"
#include "tests/support/frame_spec.h"
#include "tests/support/random_check.h"

namespace vswitch {
namespace {

using Frames = std::vector<Bytes>;

FrameSpec tcp_spec(size_t payload, uint32_t seed = 1) {
  FrameSpec spec;
  spec.proto = 6;
  spec.seed = seed;
  spec.payload.resize(payload);
  for (size_t i = 0; i < payload; ++i) spec.payload[i] = static_cast<uint8_t>(i * 7 + seed);
  return spec;
}

// What segmentation makes of the packet; a packet without GSO is itself, with its checksum completed.
void cut(PacketPtr packet, PacketPool& pool, Frames& frames) {
  if (packet->offload.gso == GsoType::none) {
    complete_checksum(*packet);
    frames.push_back(bytes_of(*packet));
    return;
  }
  size_t missing = 0;
  const size_t n = segment_packet(std::move(packet), pool, &missing,
                                  [&frames](PacketPtr piece) { frames.push_back(bytes_of(*piece)); });
  RC_ASSERT(n > 1u);
  RC_ASSERT(missing == 0u);
}

// The segments that the stack of a host would send for this frame.
Frames segments_of(const FrameSpec& spec, uint16_t gso_size, PacketPool& pool) {
  PacketPtr packet = make_packet(pool, spec.build());
  packet->offload.gso = spec.v6 ? GsoType::tcp6 : GsoType::tcp4;
  packet->offload.gso_size = gso_size;
  packet->offload.checksum = ChecksumState::partial;
  packet->offload.csum_start = static_cast<uint16_t>(spec.l4());
  packet->offload.csum_offset = 16;
  Frames frames;
  size_t missing = 0;
  segment_packet(std::move(packet), pool, &missing, [&frames](PacketPtr p) { frames.push_back(bytes_of(*p)); });
  return frames;
}

uint32_t tcp_pseudo_sum(const Packet& packet, const IpLayout& ip) {
  const uint8_t* l3 = packet.data() + ip.l3;
  const auto size = static_cast<uint32_t>(ip.l4_size());
  if (!ip.is_v6) return pseudo_header_sum(load_unaligned<be32>(l3 + 12), load_unaligned<be32>(l3 + 16), 6, size);
  return pseudo_header_sum(load_unaligned<Ipv6Address>(l3 + 8), load_unaligned<Ipv6Address>(l3 + 24), 6, size);
}

// Leaves the TCP checksum to a device, as hosts do, if it was right.
void make_partial(Packet& packet) {
  const std::optional<IpLayout> ip = find_ip(packet.bytes());
  if (!ip || !ip->has_l4 || ip->fragment || ip->proto != 6 || ip->l3_end != packet.size() || ip->l4_size() < 20 ||
      (ip->is_v6 && ip->l4 != ip->l3 + 40)) {
    return;
  }
  const uint32_t pseudo = tcp_pseudo_sum(packet, *ip);
  uint8_t* tcp = packet.data() + ip->l4;
  if (checksum_finish(checksum_partial({tcp, ip->l4_size()}, pseudo))) return;
  store_unaligned(tcp + 16, ~checksum_finish(pseudo));
  packet.offload = {ChecksumState::partial, GsoType::none, false, 0, static_cast<uint16_t>(ip->l4), 16};
}

struct Outcome {
  std::vector<OffloadState> offloads;
  std::vector<size_t> sizes;
  Frames cut_again;
  Frames alone;  // what the packets would have been had nothing been merged
};

// The super-frame of packets[begin...], or the one packet if nothing continues it; both ways of making it must agree.
PacketPtr merge(const PacketBatch& packets, size_t begin, size_t* count, PacketPool& pool) {
  PacketPtr gathered = clone_packet(packets[begin], pool), copied = clone_packet(packets[begin], pool);
  Coalescer coalescer;
  coalescer.begin(*copied);
  SegmentRun run;
  *count = 1;
  if (!run.begin(packets[begin].bytes(), packets[begin].offload)) return gathered;
  bool complete = true;
  for (size_t i = begin + 1; i < packets.size(); ++i, ++*count) {
    const Packet& next = packets[i];
    if (!run.append(next.bytes(), next.offload)) break;
    // The other way is for frames that are whole.
    complete = complete && next.offload.checksum != ChecksumState::partial;
    if (complete) {
      EXPECT_TRUE(coalescer.append(next.bytes()));
    }
    const std::span<const uint8_t> payload = next.bytes().subspan(run.header_size());
    gathered->set_size(gathered->size() + payload.size());
    std::copy(payload.begin(), payload.end(), gathered->data() + gathered->size() - payload.size());
  }
  EXPECT_EQ(run.segments(), *count);
  EXPECT_EQ(run.size(), gathered->size());
  if (*count == 1) return gathered;
  run.write_headers(gathered->data());
  gathered->offload = run.offload();
  if (complete) {
    coalescer.finish();
    EXPECT_EQ(bytes_of(*copied), bytes_of(*gathered));
    EXPECT_EQ(copied->offload.gso_size, gathered->offload.gso_size);
  }
  return gathered;
}

// Merges what can be merged among neighbours.
Outcome coalesce(const Frames& frames, PacketPool& pool, const std::function<void(PacketBatch&)>& edit = {}) {
  PacketBatch batch;
  for (const Bytes& frame : frames) batch.add(make_packet(pool, frame));
  if (edit) edit(batch);
  Outcome outcome;
  size_t count = 0;
  for (size_t i = 0; i < batch.size(); i += count) {
    PacketPtr packet = merge(batch, i, &count, pool);
    outcome.offloads.push_back(packet->offload);
    outcome.sizes.push_back(packet->size());
    cut(std::move(packet), pool, outcome.cut_again);
  }
  for (size_t i = 0; i < batch.size(); ++i) cut(clone_packet(batch[i], pool), pool, outcome.alone);
  return outcome;
}

class GroTest : public testing::Test {
 protected:
  HeapPacketPool pool_{HeapPacketPool::kSuperFrameBuffer, 200};
};

TEST_F(GroTest, MakesOneSuperFrameOfItsSegments) {
  for (const bool v6 : {false, true}) {
    FrameSpec spec = tcp_spec(10 * 1000 + 1);
    spec.v6 = v6;
    spec.tcp_flags = 0x18;
    const Frames segments = segments_of(spec, 1000, pool_);
    ASSERT_EQ(segments.size(), 11u);
    const Outcome outcome = coalesce(segments, pool_);
    ASSERT_EQ(outcome.sizes.size(), 1u) << v6;
    EXPECT_EQ(outcome.sizes[0], spec.build().size());
    EXPECT_EQ(outcome.offloads[0].gso, v6 ? GsoType::tcp6 : GsoType::tcp4);
    EXPECT_EQ(outcome.offloads[0].gso_size, 1000);
    EXPECT_EQ(outcome.offloads[0].checksum, ChecksumState::partial);
    EXPECT_EQ(outcome.offloads[0].csum_start, spec.l4());
    EXPECT_EQ(outcome.cut_again, segments);
  }
}

TEST_F(GroTest, IsUndoneBySegmentation) {
  size_t merged = 0;
  check_random([&](std::mt19937& rng) {
    FrameSpec spec = FrameSpec::random(rng);
    spec.proto = 6;
    spec.neighbour = false;
    spec.padding = 0;
    spec.tcp_flags = static_cast<uint8_t>(rng() % 4 == 0 ? rng() : 0x10 | (rng() % 2) * 8);
    spec.payload.resize(1 + rng() % 9000);
    for (uint8_t& byte : spec.payload) byte = static_cast<uint8_t>(rng());
    Frames frames = segments_of(spec, static_cast<uint16_t>(spec.payload.size() / 20 + 1 + rng() % 3000), pool_);
    RC_ASSERT(!frames.empty());
    const Outcome outcome = coalesce(frames, pool_);
    RC_ASSERT(outcome.cut_again == frames);
    merged += frames.size() - outcome.sizes.size();
  });
  EXPECT_GT(merged, 100u);
}

// Whatever arrives: damaged, doubled, missing, out of order, mixed with others, checksums partial.
TEST_F(GroTest, IsUndoneBySegmentationWhateverArrives) {
  size_t merged = 0;
  check_random([&](std::mt19937& rng) {
    Frames frames;
    for (uint32_t flow = 0; flow < 1 + rng() % 3; ++flow) {
      FrameSpec spec = tcp_spec(1 + rng() % 5000, rng() % 4);
      spec.v6 = rng() % 2 == 0;
      spec.tcp_flags = rng() % 2 == 0 ? 0x10 : 0x18;
      for (Bytes& frame : segments_of(spec, static_cast<uint16_t>(600 + rng() % 2000), pool_)) {
        frames.push_back(std::move(frame));
      }
    }
    for (size_t changes = rng() % 4; changes != 0 && frames.size() < 30; --changes) {
      Bytes& frame = frames[rng() % frames.size()];
      switch (rng() % 5) {
        case 0:
          frame[rng() % std::min<size_t>(frame.size(), 80)] ^= static_cast<uint8_t>(1u << rng() % 8);
          break;
        case 1:
          frame.resize(1 + rng() % frame.size());
          break;
        case 2:
          frame.push_back(0);
          break;
        case 3:
          std::swap(frame, frames[rng() % frames.size()]);
          break;
        default: {
          const Bytes again = frame;
          frames.push_back(again);
        }
      }
    }
    const uint32_t partial = rng() % 3 == 0 ? static_cast<uint32_t>(rng()) : rng() % 2 == 0 ? ~uint32_t{0} : 0;
    const Outcome outcome = coalesce(frames, pool_, [&](PacketBatch& batch) {
      for (size_t i = 0; i < batch.size(); ++i) {
        if ((partial >> i & 1) != 0) make_partial(batch[i]);
      }
    });
    RC_ASSERT(outcome.cut_again == frames);
    merged += frames.size() - outcome.sizes.size();
  });
  EXPECT_GT(merged, 100u);
}

TEST_F(GroTest, MergesSegmentsWhoseChecksumsAreLeftToADevice) {
  for (const bool v6 : {false, true}) {
    FrameSpec spec = tcp_spec(4000);
    spec.v6 = v6;
    const Frames segments = segments_of(spec, 1000, pool_);
    const size_t headers = spec.l4() + 20;
    for (const uint32_t which : {0xfu, 0x1u, 0x6u}) {
      const Outcome outcome = coalesce(segments, pool_, [&](PacketBatch& batch) {
        for (size_t i = 0; i < 4; ++i) {
          if ((which >> i & 1) != 0) make_partial(batch[i]);
        }
      });
      EXPECT_EQ(outcome.sizes, std::vector<size_t>{headers + 4000}) << v6 << which;
      EXPECT_EQ(outcome.cut_again, segments);
    }
    // What completing would not have made right stays as it is, and so do checksums of something else.
    const std::function<void(Packet&)> changes[] = {
        [&](Packet& p) { p.data()[spec.l4() + 16] ^= 1; },
        [&](Packet& p) { p.offload.csum_start = static_cast<uint16_t>(spec.l4() + 4); },
        [&](Packet& p) { p.offload.csum_offset = 18; },
    };
    for (const auto& change : changes) {
      const Outcome outcome = coalesce(segments, pool_, [&](PacketBatch& batch) {
        for (size_t i = 0; i < 4; ++i) make_partial(batch[i]);
        change(batch[2]);
      });
      EXPECT_EQ(outcome.sizes, (std::vector<size_t>{headers + 2000, headers + 1000, headers + 1000})) << v6;
      EXPECT_EQ(outcome.cut_again, outcome.alone);
    }
  }
}

TEST_F(GroTest, StopsAtWhatEndsARun) {
  const Frames segments = segments_of(tcp_spec(4000), 1000, pool_);
  ASSERT_EQ(segments.size(), 4u);
  const size_t l3 = 14, l4 = 34;
  struct Case {
    const char* what;
    size_t frame, offset;
    uint8_t bits;
  };
  // Checksums are made right again, so that only the field itself can be the reason.
  for (const Case& c : {Case{"type of service", 2, l3 + 1, 4},
                        {"identification", 2, l3 + 5, 1},
                        {"time to live", 2, l3 + 8, 1},
                        {"fragment", 2, l3 + 6, 0x20},
                        {"source address", 2, l3 + 12, 1},
                        {"source MAC", 2, 6, 2},
                        {"port", 2, l4 + 1, 1},
                        {"sequence number", 2, l4 + 7, 1},
                        {"acknowledgement", 2, l4 + 11, 1},
                        {"SYN", 2, l4 + 13, 2},
                        {"RST", 2, l4 + 13, 4},
                        {"URG", 2, l4 + 13, 0x20},
                        {"ECE", 2, l4 + 13, 0x40},
                        {"CWR", 2, l4 + 13, 0x80},
                        {"window", 2, l4 + 15, 1},
                        {"PSH before", 1, l4 + 13, 8},
                        {"FIN before", 1, l4 + 13, 1}}) {
    Frames frames = segments;
    frames[c.frame][c.offset] ^= c.bits;
    PacketPtr packet = make_packet(pool_, frames[c.frame]);
    store_unaligned(packet->data() + l3 + 10, be16{});
    store_unaligned(packet->data() + l3 + 10, checksum(packet->bytes().subspan(l3, 20)));
    const auto tcp = packet->bytes().subspan(l4);
    store_unaligned(tcp.data() + 16, be16{});
    const uint32_t pseudo =
        pseudo_header_sum(load_unaligned<be32>(packet->data() + l3 + 12),
                          load_unaligned<be32>(packet->data() + l3 + 16), 6, static_cast<uint32_t>(tcp.size()));
    store_unaligned(tcp.data() + 16, checksum_finish(checksum_partial(tcp, pseudo)));
    frames[c.frame] = bytes_of(*packet);
    const Outcome outcome = coalesce(frames, pool_);
    ASSERT_GE(outcome.sizes.size(), 2u) << c.what;
    EXPECT_EQ(outcome.sizes[0], 54u + 2000u) << c.what;
    EXPECT_EQ(outcome.cut_again, frames) << c.what;
  }
}

TEST_F(GroTest, LeavesOffloadStateOfOthersAlone) {
  const Frames segments = segments_of(tcp_spec(3000), 1000, pool_);
  const std::function<void(Packet&)> changes[] = {
      [](Packet& p) { p.offload.checksum = ChecksumState::partial; },
      [](Packet& p) { p.offload = {ChecksumState::partial, GsoType::tcp4, false, 500, 34, 16}; },
  };
  for (const auto& change : changes) {
    EXPECT_EQ(coalesce(segments, pool_, [&](PacketBatch& batch) { change(batch[2]); }).sizes,
              (std::vector<size_t>{2054, 1054}));
    EXPECT_EQ(coalesce(segments, pool_, [&](PacketBatch& batch) { change(batch[0]); }).sizes,
              (std::vector<size_t>{1054, 2054}));
  }
}

TEST_F(GroTest, TakesNoMoreThanTheBufferHolds) {
  const Frames segments = segments_of(tcp_spec(3000), 1000, pool_);
  HeapPacketPool small(HeapPacketPool::kFrameBuffer + 500, 1);
  PacketPtr packet = make_packet(small, segments[0]);
  Coalescer coalescer;
  coalescer.begin(*packet);
  EXPECT_TRUE(coalescer.append(segments[1]));
  EXPECT_FALSE(coalescer.append(segments[2]));
  coalescer.finish();
  Frames frames;
  cut(std::move(packet), pool_, frames);
  EXPECT_EQ(frames, (Frames{segments[0], segments[1]}));
}

TEST_F(GroTest, MakesNothingLargerThanADatagram) {
  PacketBatch batch;
  Frames all;
  // One stream of 32 segments of 4,000 bytes: two super-frames.
  FrameSpec spec = tcp_spec(60000);
  for (Bytes& frame : segments_of(spec, 4000, pool_)) all.push_back(std::move(frame));
  const uint32_t sequence = load_unaligned<be32>(all.back().data() + 38).host() + 4000;
  const uint16_t id = static_cast<uint16_t>(load_unaligned<be16>(all.back().data() + 18).host() + 1);
  Bytes whole = spec.build();
  store_unaligned(whole.data() + 38, to_be32(sequence));
  store_unaligned(whole.data() + 18, to_be16(id));
  PacketPtr second = make_packet(pool_, whole);
  second->offload = {ChecksumState::partial, GsoType::tcp4, false, 4000, 34, 16};
  size_t missing = 0;
  segment_packet(std::move(second), pool_, &missing, [&](PacketPtr p) { all.push_back(bytes_of(*p)); });
  ASSERT_EQ(all.size(), 30u);
  const Outcome outcome = coalesce(all, pool_);
  EXPECT_EQ(outcome.sizes, (std::vector<size_t>{54 + 64000, 54 + 56000}));
  EXPECT_EQ(outcome.cut_again, all);
}

}  // namespace
}  // namespace vswitch
