#include "datapath/core/upcall_queue.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "datapath/packet/packet_pool.h"

namespace vswitch {
namespace {

class UpcallQueueTest : public ::testing::Test {
 protected:
  // Marks the packet with `mark`, to tell it again.
  Upcall upcall(uint32_t port, uint32_t bucket, uint32_t mark = 0) {
    PacketPtr packet = pool_.allocate();
    EXPECT_TRUE(packet);
    packet->in_port = port;
    packet->skb_mark = mark;
    return {std::move(packet), Upcall::Kind::miss, {}, bucket};
  }

  HeapPacketPool pool_{HeapPacketPool::kFrameBuffer, 4 * UpcallQueue::kTotal};
  UpcallQueue queue_;
};

TEST_F(UpcallQueueTest, PortsTakeTurns) {
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(queue_.offer(upcall(1, 10, i)));
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(queue_.offer(upcall(2, 20, i)));
  std::vector<std::pair<uint32_t, uint32_t>> order;
  Upcall next;
  while (queue_.take(next)) {
    order.emplace_back(next.packet->in_port, next.packet->skb_mark);
    queue_.done(next.packet->in_port, next.bucket);
  }
  const std::vector<std::pair<uint32_t, uint32_t>> expected = {{1, 0}, {2, 0}, {1, 1}, {2, 1}, {1, 2}, {2, 2}};
  EXPECT_EQ(order, expected);
  EXPECT_TRUE(queue_.empty());
}

TEST_F(UpcallQueueTest, AFloodFillsItsOwnShareOnly) {
  size_t taken = 0;
  for (size_t i = 0; i < 4 * UpcallQueue::kPerPort; ++i) taken += queue_.offer(upcall(1, 1));
  EXPECT_EQ(taken, UpcallQueue::kPerPort);
  EXPECT_TRUE(queue_.offer(upcall(2, 2)));
  // The other port waits for one turn, not for the flood.
  Upcall next;
  ASSERT_TRUE(queue_.take(next));
  EXPECT_EQ(next.packet->in_port, 1u);
  ASSERT_TRUE(queue_.take(next));
  EXPECT_EQ(next.packet->in_port, 2u);
}

TEST_F(UpcallQueueTest, BoundHoldsOverAllPorts) {
  size_t taken = 0;
  for (uint32_t port = 1; port <= 64; ++port) {
    for (int i = 0; i < 100; ++i) taken += queue_.offer(upcall(port, port));
  }
  EXPECT_EQ(taken, UpcallQueue::kTotal);
}

TEST_F(UpcallQueueTest, RefusedPacketIsStillTheCallers) {
  for (size_t i = 0; i < UpcallQueue::kPerPort; ++i) ASSERT_TRUE(queue_.offer(upcall(1, 1)));
  Upcall refused = upcall(1, 1, 7);
  ASSERT_FALSE(queue_.offer(std::move(refused)));
  ASSERT_TRUE(refused.packet);
  EXPECT_EQ(refused.packet->skb_mark, 7u);
}

TEST_F(UpcallQueueTest, AFlowWaitsUntilItsLastPacketIsDone) {
  EXPECT_FALSE(queue_.must_wait(5));
  ASSERT_TRUE(queue_.offer(upcall(1, 5)));
  ASSERT_TRUE(queue_.offer(upcall(1, 5)));
  EXPECT_TRUE(queue_.must_wait(5));
  EXPECT_FALSE(queue_.must_wait(6));
  Upcall next;
  ASSERT_TRUE(queue_.take(next));
  queue_.done(1, 5);
  EXPECT_TRUE(queue_.must_wait(5)) << "one is still queued";
  ASSERT_TRUE(queue_.take(next));
  EXPECT_TRUE(queue_.must_wait(5)) << "taken, but not sent yet";
  queue_.done(1, 5);
  EXPECT_FALSE(queue_.must_wait(5));
}

TEST_F(UpcallQueueTest, CopiesForTheControlPathHoldNobodyUp) {
  Upcall copy = upcall(1, Upcall::kNoBucket);
  copy.kind = Upcall::Kind::action;
  ASSERT_TRUE(queue_.offer(std::move(copy)));
  for (uint32_t bucket = 0; bucket < UpcallQueue::kBuckets; ++bucket) EXPECT_FALSE(queue_.must_wait(bucket));
  Upcall next;
  ASSERT_TRUE(queue_.take(next));
  queue_.done(1, next.bucket);
  EXPECT_TRUE(queue_.empty());
}

// Each port's packets come out in the order they went in, while another thread takes them.
TEST_F(UpcallQueueTest, KeepsOrderBetweenThreads) {
  constexpr uint32_t kPackets = 20000;
  std::thread producer([this] {
    pool_.claim();
    for (uint32_t i = 0; i < kPackets;) {
      const uint32_t port = 1 + i % 3;
      PacketPtr packet = pool_.allocate();
      if (!packet) continue;
      packet->in_port = port;
      packet->skb_mark = i;
      Upcall offered{std::move(packet), Upcall::Kind::miss, {}, port};
      if (queue_.offer(std::move(offered))) ++i;
    }
  });
  std::vector<uint32_t> last(4, 0);
  bool ordered = true;
  for (uint32_t seen = 0; seen < kPackets;) {
    Upcall next;
    if (!queue_.take(next)) continue;
    const uint32_t port = next.packet->in_port;
    ordered = ordered && (last[port] == 0 || next.packet->skb_mark > last[port]);
    last[port] = next.packet->skb_mark;
    ++seen;
    const uint32_t bucket = next.bucket;
    next.packet.reset();
    queue_.done(port, bucket);
  }
  producer.join();
  EXPECT_TRUE(ordered);
  EXPECT_TRUE(queue_.empty());
}

}  // namespace
}  // namespace vswitch
