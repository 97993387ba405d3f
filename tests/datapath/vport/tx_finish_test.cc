#include "datapath/vport/tx_finish.h"

#include <gtest/gtest.h>

#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::PacketBuilder;

class TxFinishTest : public testing::Test {
 protected:
  PacketPtr super_frame(size_t payload, uint16_t gso_size) {
    PacketPtr packet =
        PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80).payload(payload).build(pool_);
    packet->offload = {ChecksumState::partial, GsoType::tcp4, false, gso_size, 34, 16};
    packet->in_port = 7;
    return packet;
  }
  int64_t balance(uint32_t port) {
    const PortBooks& books = ledger_.port(port);
    uint64_t dropped = 0;
    for (const Counter& reason : books.dropped) dropped += reason.get();
    return static_cast<int64_t>(books.received.get() + books.copies.get() - books.sent.get() - dropped);
  }

  HeapPacketPool pool_{HeapPacketPool::kSuperFrameBuffer, 40};
  Ledger ledger_;
  ThreadContext ctx_{0, pool_, ledger_, {}};
  VportCounters counters_;
};

TEST_F(TxFinishTest, FitsMtuCountsTagsAndSegments) {
  const auto frame = [&](size_t payload) {
    return PacketBuilder().ethernet().eth_type(0x88b5).payload(payload).build(pool_);
  };
  EXPECT_TRUE(fits_mtu(*frame(1500), 1500));
  EXPECT_FALSE(fits_mtu(*frame(1501), 1500));
  EXPECT_TRUE(fits_mtu(*frame(1501), 0));
  const auto tagged = [&](size_t payload) {
    return PacketBuilder().ethernet().vlan(1).vlan(2).eth_type(0x88b5).payload(payload).build(pool_);
  };
  EXPECT_TRUE(fits_mtu(*tagged(1500), 1500));
  EXPECT_FALSE(fits_mtu(*tagged(1501), 1500));
  EXPECT_TRUE(fits_mtu(*super_frame(30000, 1460), 1500));
  EXPECT_FALSE(fits_mtu(*super_frame(30000, 1461), 1500));
}

TEST_F(TxFinishTest, ASuperFrameBecomesItsSegmentsAndTheBooksBalance) {
  ledger_.port(7).received.add();
  PacketBatch batch;
  batch.add(super_frame(40 * 100, 100));  // more segments than a batch holds, one packet more than the pool has
  size_t frames = 0;
  finish_batch(ctx_, batch, counters_.slot(ctx_), [&](PacketBatch& ready) {
    for (size_t i = 0; i < ready.size(); ++i) {
      EXPECT_EQ(ready[i].size(), 154u);
      EXPECT_EQ(ready[i].offload.checksum, ChecksumState::none);
    }
    frames += ready.size();
    book_sent(ctx_, ready, counters_.slot(ctx_));
  });
  EXPECT_EQ(frames, 40u);
  EXPECT_EQ(counters_.total().tx_packets, 40u);
  EXPECT_EQ(balance(7), 0);
}

TEST_F(TxFinishTest, SegmentsThatThePoolCannotHoldAreDroppedByName) {
  ledger_.port(7).received.add();
  PacketBatch batch;
  batch.add(super_frame(30 * 100, 100));
  std::vector<PacketPtr> hoarded;
  for (int i = 0; i < 15; ++i) hoarded.push_back(pool_.allocate());  // 24 are left for 30 segments
  finish_batch(ctx_, batch, counters_.slot(ctx_),
               [&](PacketBatch& ready) { book_sent(ctx_, ready, counters_.slot(ctx_)); });
  const PortBooks& books = ledger_.port(7);
  EXPECT_EQ(books.sent.get(), 24u);
  EXPECT_EQ(books.dropped[static_cast<size_t>(DropReason::rx_no_buffer)].get(), 6u);
  EXPECT_EQ(counters_.total().tx_dropped, 6u);
  EXPECT_EQ(balance(7), 0);
}

TEST_F(TxFinishTest, AChecksumThatCannotBeCompletedIsAnError) {
  PacketPtr packet = super_frame(100, 100);
  packet->offload = {ChecksumState::partial, GsoType::none, false, 0, 60000, 16};
  ledger_.port(7).received.add();
  finish_packet(ctx_, std::move(packet), counters_.slot(ctx_), [](PacketPtr) { FAIL() << "sent a broken frame"; });
  EXPECT_EQ(counters_.total().tx_errors, 1u);
  EXPECT_EQ(balance(7), 0);
}

TEST_F(TxFinishTest, SentPacketsAreBookedUnderThePortTheyCameFrom) {
  PacketBatch batch;
  for (const uint32_t port : {3, 3, 5, 3}) {
    PacketPtr packet = super_frame(10, 100);
    packet->in_port = port;
    batch.add(std::move(packet));
  }
  book_sent(ctx_, batch, counters_.slot(ctx_));
  EXPECT_EQ(ledger_.port(3).sent.get(), 3u);
  EXPECT_EQ(ledger_.port(5).sent.get(), 1u);
  EXPECT_EQ(counters_.total().tx_bytes, 4u * 64);
}

}  // namespace
}  // namespace vswitch
