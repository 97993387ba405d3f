#include "datapath/vport/frame_train.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "datapath/packet/checksum.h"
#include "datapath/packet/offload.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

class FrameTrainTest : public testing::Test {
 protected:
  // A datagram as a sender's kernel leaves it to the device: with an IPv4 id, and the checksum partial.
  PacketPtr datagram(uint16_t id, size_t payload, bool v6 = false, bool tagged = false) {
    PacketBuilder builder;
    builder.ethernet();
    if (tagged) builder.vlan(100, 3);
    v6 ? builder.ipv6("2001:db8::1", "2001:db8::2") : builder.ipv4("10.0.0.1", "10.0.0.2");
    PacketPtr packet = builder.udp(1000, 2000).payload(payload).build(pool_);
    const size_t l3 = tagged ? 18 : 14, l4 = l3 + (v6 ? 40 : 20);
    uint8_t* frame = packet->data();
    const auto length = static_cast<uint32_t>(packet->size() - l4);
    uint32_t sum = 0;
    if (v6) {
      sum = pseudo_header_sum(load_unaligned<Ipv6Address>(frame + l3 + 8), load_unaligned<Ipv6Address>(frame + l3 + 24),
                              17, length);
    } else {
      store_unaligned(frame + l3 + 4, to_be16(id));
      fix_ip_checksum(*packet, l3);
      sum = pseudo_header_sum(load_unaligned<be32>(frame + l3 + 12), load_unaligned<be32>(frame + l3 + 16), 17, length);
    }
    store_unaligned(frame + l4 + 6, ~checksum_finish(sum));
    packet->offload = {ChecksumState::partial, GsoType::none, false, 0, static_cast<uint16_t>(l4), 6};
    return packet;
  }
  static void fix_ip_checksum(Packet& packet, size_t l3 = 14) {
    uint8_t* ip = packet.data() + l3;
    store_unaligned(ip + 10, be16{});
    store_unaligned(ip + 10, checksum({ip, 20}));
  }
  static Bytes bytes_of(const Packet& packet) { return {packet.data(), packet.data() + packet.size()}; }

  // What the messages are, cut and completed again: must be what went in, frame by frame.
  std::vector<Bytes> cut_again(const TrainMessages& messages) {
    std::vector<Bytes> frames;
    for (size_t i = 0; i < messages.size(); ++i) {
      PacketPtr packet = gathered(messages[i]);
      if (messages[i].frames == 1) {
        EXPECT_TRUE(complete_checksum(*packet));
        frames.push_back(bytes_of(*packet));
        continue;
      }
      size_t missing = 0;
      const size_t count = segment_packet(std::move(packet), pool_, &missing,
                                          [&](PacketPtr piece) { frames.push_back(bytes_of(*piece)); });
      EXPECT_EQ(count, messages[i].frames);
    }
    return frames;
  }
  PacketPtr gathered(const TrainMessages::Message& message) {
    Bytes all;
    for (size_t part = 0; part < message.part_count; ++part) {
      const auto* bytes = static_cast<const uint8_t*>(message.parts[part].iov_base);
      all.insert(all.end(), bytes, bytes + message.parts[part].iov_len);
    }
    VnetHeader header;
    std::memcpy(&header, all.data(), sizeof header);
    PacketPtr packet = pool_.allocate();
    packet->set_size(all.size() - sizeof header);
    std::memcpy(packet->data(), all.data() + sizeof header, packet->size());
    EXPECT_TRUE(decode_vnet_header(header, *packet));
    return packet;
  }
  // A connection's segments of 1,000 bytes, whole as they come from a wire.
  std::vector<PacketPtr> segments(uint16_t port, size_t payload, bool v6 = false) {
    PacketBuilder builder;
    builder.ethernet();
    v6 ? builder.ipv6("2001:db8::1", "2001:db8::2") : builder.ipv4("10.0.0.1", "10.0.0.2");
    PacketPtr super = builder.tcp(port, 80).payload(payload).build(pool_);
    const auto l4 = static_cast<uint16_t>(v6 ? 54 : 34);
    super->offload = {ChecksumState::partial, v6 ? GsoType::tcp6 : GsoType::tcp4, false, 1000, l4, 16};
    std::vector<PacketPtr> result;
    size_t missing = 0;
    segment_packet(std::move(super), pool_, &missing, [&](PacketPtr piece) { result.push_back(std::move(piece)); });
    return result;
  }

  // Frames of the first message that the two make, the second changed by `change` (with the IP checksum made right).
  size_t joins(const std::function<void(Packet&)>& change, bool v6 = false) {
    PacketPtr first = datagram(1, 100, v6), second = datagram(2, 100, v6);
    change(*second);
    if (!v6) fix_ip_checksum(*second);
    FrameTrain train;
    return train.begin(*first) && train.append(*second) ? 2 : 1;
  }

  HeapPacketPool pool_{HeapPacketPool::kSuperFrameBuffer, 128};
};

TEST_F(FrameTrainTest, CutAgainATrainIsWhatItWas) {
  const bool ok = rc::check("cut(train(frames)) == frames", [&] {
    const bool v6 = *rc::gen::arbitrary<bool>(), tagged = *rc::gen::arbitrary<bool>(),
               headroom = *rc::gen::arbitrary<bool>();
    const auto sizes = *rc::gen::container<std::vector<size_t>>(rc::gen::element<size_t>(18, 19, 1400));
    uint16_t id = *rc::gen::arbitrary<uint16_t>();
    PacketBatch batch;
    std::array<VnetHeader, PacketBatch::kMaxPackets> headers;
    std::vector<Bytes> wanted;
    for (const size_t size : sizes) {
      for (size_t run = *rc::gen::inRange<size_t>(1, 8); run != 0 && !batch.full(); --run, ++id) {
        PacketPtr packet = datagram(id, size, v6, tagged);
        if (!headroom) {
          PacketPtr close = pool_.allocate(0);
          close->set_size(packet->size());
          std::memcpy(close->data(), packet->data(), packet->size());
          copy_metadata(*packet, *close);
          packet = std::move(close);
        }
        RC_ASSERT(encode_vnet_header(*packet, headers[batch.size()]));
        PacketPtr whole = clone_packet(*packet, pool_);
        RC_ASSERT(complete_checksum(*whole));
        wanted.push_back(bytes_of(*whole));
        batch.add(std::move(packet));
      }
    }
    const TrainMessages messages(batch, headers.data(), 0, TrainKinds{});
    RC_ASSERT(cut_again(messages) == wanted);
    const TrainMessages singly(batch, headers.data(), 0, TrainKinds{false, false});
    RC_ASSERT(singly.size() == batch.size());
    RC_ASSERT(cut_again(singly) == wanted);
  });
  ASSERT_TRUE(ok);
}

TEST_F(FrameTrainTest, AFullBatchOfOneFlowIsOneMessage) {
  PacketBatch batch;
  std::array<VnetHeader, PacketBatch::kMaxPackets> headers;
  for (uint16_t i = 0; i < PacketBatch::kMaxPackets; ++i) batch.add(datagram(i, 18));
  const TrainMessages messages(batch, headers.data(), 0, TrainKinds{});
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(messages[0].frames, PacketBatch::kMaxPackets);
  const TrainMessages rest(batch, headers.data(), 30, TrainKinds{});
  EXPECT_EQ(rest.size(), 2u);
}

TEST_F(FrameTrainTest, SegmentsOfAConnectionAreOneMessage) {
  for (const bool v6 : {false, true}) {
    PacketBatch batch;
    std::array<VnetHeader, PacketBatch::kMaxPackets> headers{};
    std::vector<Bytes> wanted;
    for (PacketPtr& segment : segments(1, 8500, v6)) {
      wanted.push_back(bytes_of(*segment));
      batch.add(std::move(segment));
    }
    ASSERT_EQ(batch.size(), 9u);
    const TrainMessages messages(batch, headers.data(), 0, TrainKinds{});
    ASSERT_EQ(messages.size(), 1u);
    EXPECT_EQ(messages[0].frames, 9u);
    EXPECT_TRUE(messages[0].segments);
    EXPECT_EQ(cut_again(messages), wanted);
    EXPECT_EQ(TrainMessages(batch, headers.data(), 7, TrainKinds{}).size(), 1u);
    const TrainMessages datagrams_only(batch, headers.data(), 0, TrainKinds{.segments = false});
    EXPECT_EQ(datagrams_only.size(), 9u);
    EXPECT_EQ(cut_again(datagrams_only), wanted);
  }
}

TEST_F(FrameTrainTest, ConnectionsThatTakeTurnsMakeAMessageEach) {
  PacketBatch batch;
  std::array<VnetHeader, PacketBatch::kMaxPackets> headers{};
  std::vector<PacketPtr> connections[] = {segments(1, 5000), segments(2, 5000, true), segments(3, 5000)};
  std::vector<Bytes> wanted;
  for (const auto& connection : connections) {
    for (const PacketPtr& segment : connection) wanted.push_back(bytes_of(*segment));
  }
  for (size_t i = 0; i < 5; ++i) {
    for (auto& connection : connections) batch.add(std::move(connection[i]));
  }
  EXPECT_EQ(TrainMessages(batch, headers.data(), 0, TrainKinds{}).size(), 15u);
  group_flows(batch);
  const TrainMessages messages(batch, headers.data(), 0, TrainKinds{});
  EXPECT_EQ(messages.size(), 3u);
  EXPECT_EQ(cut_again(messages), wanted);
}

// As whatever passes a batch: no packet is lost, none overtakes another of its flow or passes one whose flow cannot be
// told, and between two of these flows are together.
TEST_F(FrameTrainTest, GroupingKeepsTheOrderOfEachFlow) {
  constexpr int kFragment = 6, kOther = 7, kFirstCut = 8, kKinds = 11;
  const bool ok = rc::check("group_flows()", [&] {
    const auto kinds = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, kKinds));
    PacketBatch batch;
    std::vector<std::pair<int, Packet*>> before;
    for (const int kind : kinds) {
      if (batch.full()) break;
      PacketBuilder builder;
      builder.ethernet();
      if (kind == kOther) {
        builder.eth_type(0x88b5);
      } else if (kind % 2 == 0) {
        builder.ipv4("10.0.0.1", "10.0.0.2").tcp(static_cast<uint16_t>(kind), 80);
      } else {
        builder.ipv6("2001:db8::1", kind == 1 ? "2001:db8::2" : "2001:db8::3").udp(1, 2);
      }
      PacketPtr packet = builder.payload(10).build(pool_);
      if (kind == kFragment) packet->data()[20] = 0x20;
      // Within the ports, the IP header, the EtherType.
      constexpr size_t kCuts[] = {36, 20, 13};
      if (kind >= kFirstCut) packet->set_size(kCuts[kind - kFirstCut]);
      before.emplace_back(kind == 5 ? 3 : kind, packet.get());
      batch.add(std::move(packet));
    }
    group_flows(batch);
    RC_ASSERT(batch.size() == before.size());
    size_t begin = 0;
    for (size_t end = 0; end <= before.size(); ++end) {
      if (end < before.size() && before[end].first != kFragment && before[end].first < kFirstCut) continue;
      std::vector<Packet*> wanted;
      for (size_t i = begin; i < end; ++i) {
        if (std::find(wanted.begin(), wanted.end(), before[i].second) != wanted.end()) continue;
        for (size_t j = i; j < end; ++j) {
          const bool same = j == i || (before[j].first == before[i].first && before[i].first != kOther);
          if (same) wanted.push_back(before[j].second);
        }
      }
      RC_ASSERT(std::equal(wanted.begin(), wanted.end(), batch.raw() + begin));
      if (end < before.size()) RC_ASSERT(batch.raw()[end] == before[end].second);
      begin = end + 1;
    }
  });
  ASSERT_TRUE(ok);
}

TEST_F(FrameTrainTest, OnlyWhatContinuesTheFlowJoins) {
  const auto set = [](size_t at, uint8_t value) { return [=](Packet& packet) { packet.data()[at] = value; }; };
  EXPECT_EQ(joins([](Packet&) {}), 2u);
  EXPECT_EQ(joins([](Packet&) {}, true), 2u);
  EXPECT_EQ(joins(set(5, 9)), 1u);         // Ethernet destination
  EXPECT_EQ(joins(set(15, 4)), 1u);        // TOS
  EXPECT_EQ(joins(set(19, 3)), 1u);        // the id does not follow
  EXPECT_EQ(joins(set(20, 0x20)), 1u);     // more fragments
  EXPECT_EQ(joins(set(22, 9)), 1u);        // TTL
  EXPECT_EQ(joins(set(29, 9)), 1u);        // source
  EXPECT_EQ(joins(set(35, 9)), 1u);        // source port
  EXPECT_EQ(joins(set(40, 9)), 1u);        // another pseudo-header sum
  EXPECT_EQ(joins(set(21, 9), true), 1u);  // hop limit
  EXPECT_EQ(joins([](Packet& packet) { packet.offload = {}; }), 1u);
  EXPECT_EQ(joins([](Packet& packet) { packet.set_size(packet.size() - 1); }), 1u);
  PacketPtr first = datagram(1, 100), second = datagram(2, 100);
  second->data()[24] ^= 1;  // a damaged IPv4 header checksum
  FrameTrain train;
  ASSERT_TRUE(train.begin(*first));
  EXPECT_FALSE(train.append(*second));
}

TEST_F(FrameTrainTest, WhatCannotBeCutAgainDoesNotBegin) {
  FrameTrain train;
  const auto begins = [&](const std::function<void(Packet&)>& change) {
    PacketPtr packet = datagram(1, 100);
    change(*packet);
    return train.begin(*packet);
  };
  EXPECT_TRUE(begins([](Packet&) {}));
  EXPECT_FALSE(begins([](Packet& packet) { packet.offload = {}; }));
  EXPECT_FALSE(begins([](Packet& packet) { packet.offload.csum_start = 33; }));
  EXPECT_FALSE(begins([](Packet& packet) { packet.offload.csum_offset = 16; }));
  EXPECT_FALSE(begins([](Packet& packet) { packet.set_size(packet.size() + 4); }));  // padding
  EXPECT_FALSE(begins([](Packet& packet) { packet.data()[39] = 50; }));              // UDP length of its own
  EXPECT_FALSE(begins([](Packet& packet) {
    packet.data()[20] = 0x20;
    fix_ip_checksum(packet);
  }));
  EXPECT_FALSE(begins([](Packet& packet) { packet.data()[24] ^= 1; }));
  const PacketPtr empty = datagram(1, 0);
  EXPECT_FALSE(train.begin(*empty));
}

TEST_F(FrameTrainTest, ATrainStaysWithinAnIpDatagram) {
  PacketPtr first = datagram(0, 9000);
  FrameTrain train;
  ASSERT_TRUE(train.begin(*first));
  uint16_t id = 1;
  for (PacketPtr next = datagram(id, 9000); train.append(*next); next = datagram(++id, 9000)) {
  }
  EXPECT_EQ(train.count(), 7u);
}

}  // namespace
}  // namespace vswitch
