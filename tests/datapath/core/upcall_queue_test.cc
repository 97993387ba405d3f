#include "datapath/core/upcall_queue.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <span>
#include <thread>
#include <vector>

#include "datapath/packet/packet_pool.h"

namespace vswitch {
namespace {

class UpcallQueueTest : public ::testing::Test {
 protected:
  // Marks the packet with `mark`, to tell it again.
  Upcall upcall(uint32_t port, uint32_t bucket, uint32_t mark = 0, uint32_t source = 0) {
    PacketPtr packet = pool_.allocate();
    EXPECT_TRUE(packet);
    packet->in_port = port;
    packet->skb_mark = mark;
    return {std::move(packet), Upcall::Kind::miss, {}, bucket, source};
  }
  // Fills the queue with `count` packets of one source, each of its own flow. As the handler does between two batches,
  // drops what is too much; returns how many that was.
  size_t fill(size_t count, uint32_t port, uint32_t source) {
    size_t dropped = 0;
    for (size_t i = 0; i < count; ++i) {
      const auto number = static_cast<uint32_t>(i);
      if (!queue_.offer(upcall(port, number, number, source))) ++dropped;
      if (i % 1000 == 999) dropped += drop_surplus().size();
    }
    return dropped + drop_surplus().size();
  }
  struct Mark {
    uint32_t port, mark;
    bool operator==(const Mark&) const = default;
  };
  std::vector<Mark> drop_surplus() {
    std::vector<Mark> dropped;
    Upcall next;
    while (queue_.take_surplus(next)) {
      dropped.push_back({next.packet->in_port, next.packet->skb_mark});
      queue_.done(next.packet->in_port, next.bucket);
    }
    return dropped;
  }
  std::vector<Mark> take(size_t most = ~size_t{0}) {
    std::vector<Mark> order;
    Upcall next;
    while (order.size() < most && queue_.take(next)) {
      order.push_back({next.packet->in_port, next.packet->skb_mark});
      queue_.done(next.packet->in_port, next.bucket);
    }
    return order;
  }

  HeapPacketPool pool_{HeapPacketPool::kFrameBuffer, 4 * UpcallQueue::kTotal};
  UpcallQueue queue_;
};

TEST_F(UpcallQueueTest, PortsTakeTurns) {
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(queue_.offer(upcall(1, 10, i)));
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(queue_.offer(upcall(2, 20, i)));
  const std::vector<Mark> expected = {{1, 0}, {2, 0}, {1, 1}, {2, 1}, {1, 2}, {2, 2}};
  EXPECT_EQ(take(), expected);
  EXPECT_TRUE(queue_.empty());
}

TEST_F(UpcallQueueTest, SourcesTakeTurnsWithinTheirPort) {
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(queue_.offer(upcall(1, 10, i, 7)));
  for (uint32_t i = 10; i < 12; ++i) ASSERT_TRUE(queue_.offer(upcall(1, 10, i, 8)));
  ASSERT_TRUE(queue_.offer(upcall(2, 10, 20, 7)));
  const std::vector<Mark> expected = {{1, 0}, {2, 20}, {1, 10}, {1, 1}, {1, 11}, {1, 2}};
  EXPECT_EQ(take(), expected);
}

TEST_F(UpcallQueueTest, TakesABurstOfManyFlows) {
  EXPECT_EQ(fill(UpcallQueue::kTotal, 1, 1), 0u);
  EXPECT_EQ(take().size(), UpcallQueue::kTotal);
}

TEST_F(UpcallQueueTest, TheLongestLosesItsOldestNotTheNewcomer) {
  EXPECT_EQ(fill(UpcallQueue::kTotal, 1, 1), 0u);
  ASSERT_TRUE(queue_.offer(upcall(1, 2, 1'000'001, 2))) << "another source";
  ASSERT_TRUE(queue_.offer(upcall(2, 2, 1'000'002, 1))) << "another port";
  const std::vector<Mark> expected = {{1, 0}, {1, 1}};
  EXPECT_EQ(drop_surplus(), expected);
  EXPECT_FALSE(queue_.offer(upcall(1, 1, 0, 1))) << "who has most needs not try";
  // One turn of the flood each, and it is theirs.
  const std::vector<Mark> first = {{1, 2}, {2, 1'000'002}, {1, 1'000'001}};
  EXPECT_EQ(take(3), first);
}

TEST_F(UpcallQueueTest, AFloodOfOnePortLeavesASmallPortItsOneSource) {
  // Many sources, none of which has as many waiting as the honest one of port 2.
  for (uint32_t source = 0; source < UpcallQueue::kSources; ++source) fill(UpcallQueue::kTotal / 256 - 4, 1, source);
  EXPECT_EQ(fill(1000, 2, 1), 0u);
  for (uint32_t source = 0; source < UpcallQueue::kSources; ++source) fill(100, 1, source);
  size_t of_two = 0;
  for (const Mark& mark : take()) of_two += mark.port == 2;
  EXPECT_EQ(of_two, 1000u);
}

TEST_F(UpcallQueueTest, EmptiedAndFilledAgainAtTheBound) {
  for (int round = 0; round < 5; ++round) {
    size_t offered = 0, dropped = 0;
    for (uint32_t i = 0; i < UpcallQueue::kTotal + 5000; ++i) {
      const uint32_t port = 1 + i % 300;
      ++offered;
      if (!queue_.offer(upcall(port, i, i, i / 300))) ++dropped;
      if (i % 500 == 0) dropped += drop_surplus().size();
    }
    dropped += drop_surplus().size();
    EXPECT_GE(dropped, 5000u);
    EXPECT_EQ(take().size(), offered - dropped);
    ASSERT_TRUE(queue_.empty());
    for (uint32_t bucket = 0; bucket < 1000; ++bucket) ASSERT_FALSE(queue_.must_wait(bucket));
  }
}

TEST_F(UpcallQueueTest, RefusedPacketIsStillTheCallers) {
  fill(UpcallQueue::kTotal + 10, 1, 1);
  Upcall refused = upcall(1, 1, 7, 1);
  ASSERT_FALSE(queue_.offer(std::move(refused)));
  ASSERT_TRUE(refused.packet);
  EXPECT_EQ(refused.packet->skb_mark, 7u);
}

TEST_F(UpcallQueueTest, CountsWhatWaitsInItsOwnBuffer) {
  Upcall in_place = upcall(1, 1);
  in_place.in_place = true;
  ASSERT_TRUE(queue_.offer(std::move(in_place)));
  EXPECT_EQ(queue_.in_place(), 1u);
  Upcall next;
  ASSERT_TRUE(queue_.take(next));
  queue_.done(1, next.bucket, next.in_place);
  EXPECT_EQ(queue_.in_place(), 0u);
}

// Few flows that have nothing waiting are detained by a full queue.
TEST_F(UpcallQueueTest, AFullQueueDetainsFewOthers) {
  for (uint32_t i = 0; i < UpcallQueue::kTotal; ++i) {
    ASSERT_TRUE(queue_.offer(upcall(1, i * 0x9e3779b9u, i, i)));
    if (i % 1000 == 0) drop_surplus();
  }
  size_t detained = 0;
  for (uint32_t i = 0; i < 10'000; ++i) detained += queue_.must_wait(i * 0x85ebca6bu + 0x27d4eb2fu);
  EXPECT_LT(detained, 500u);
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

// A flow that comes faster than it is handled: its last packet is done some day, and the fast path takes over.
TEST_F(UpcallQueueTest, AFlowThatNeverPausesComesToTheEndOfItsWaiting) {
  for (uint32_t i = 0; i < UpcallQueue::kMostOfFlow; ++i) ASSERT_TRUE(queue_.offer(upcall(1, 5, i)));
  EXPECT_FALSE(queue_.offer(upcall(1, 5)));
  size_t taken = 0;
  while (queue_.must_wait(5)) {
    ASSERT_FALSE(queue_.offer(upcall(1, 5))) << "after " << taken;
    ASSERT_TRUE(queue_.offer(upcall(1, 6))) << "another flow is not concerned";
    taken += take(2).size();
    ASSERT_LE(taken, 2 * UpcallQueue::kMostOfFlow);
  }
  EXPECT_TRUE(queue_.offer(upcall(1, 5))) << "as any other flow's first";
}

// Of a full queue, nobody else is taken for one who has several there.
TEST_F(UpcallQueueTest, SeveralWaitIsNotSaidByChance) {
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_FALSE(queue_.several_wait(77));
    ASSERT_TRUE(queue_.offer(upcall(1, 77)));
  }
  EXPECT_TRUE(queue_.several_wait(77));
  for (uint32_t i = 0; i < UpcallQueue::kTotal - 3; ++i) {
    ASSERT_TRUE(queue_.offer(upcall(1, i * 2654435761u, i, i)));
    if (i % 1000 == 0) drop_surplus();
  }
  int detained = 0, several = 0;
  for (uint32_t i = 0; i < 10'000; ++i) {
    const uint32_t other = (i * 40503u + 12345u) * 2246822519u;
    detained += queue_.must_wait(other);
    several += queue_.several_wait(other);
  }
  EXPECT_GT(detained, 0);
  EXPECT_LE(several, 1);
}

// Flows that are all installed, so many that only one or two packets of each find room. A forwarding thread that takes
// nearly as long to queue a packet as the handler to take it (in ticks) must not fill the queue with them for ever.
TEST_F(UpcallQueueTest, ManyFlowsThatNeverPauseComeToTheEndOfTheirWaiting) {
  constexpr uint32_t kFlows = 50'000;
  constexpr size_t kFast = 1, kQueue = 15, kTurnAway = 5, kHandle = 20;
  const auto bucket = [](uint32_t flow) { return flow % kFlows * 2654435761u; };
  for (uint32_t flow = 0; flow <= UpcallQueue::kTotal; ++flow) {
    ASSERT_TRUE(queue_.offer(upcall(1, bucket(flow), flow, flow % kFlows)));
    if (flow % 1000 == 0) drop_surplus();
  }
  size_t now = 0, handled = 0;
  for (uint32_t flow = 0; queue_.waiting() != 0; ++flow) {
    if (!queue_.must_wait(bucket(flow))) {
      now += kFast;
    } else if (queue_.should_end(bucket(flow)) || !queue_.offer(upcall(1, bucket(flow), flow, flow % kFlows))) {
      now += kTurnAway;
    } else {
      now += kQueue;
    }
    for (; handled < now / kHandle; ++handled) queue_.handled(take(1).size(), 1);
    if (flow % 100 == 0) drop_surplus();
    ASSERT_LE(handled, 4 * UpcallQueue::kTotal) << queue_.waiting() << " wait";
  }
}

TEST_F(UpcallQueueTest, OnlyFlowsThatWaitShouldEnd) {
  const auto bucket = [](uint32_t flow) { return flow * 2654435761u; };
  for (uint32_t flow = 0; flow <= UpcallQueue::kTotal; ++flow) {
    ASSERT_TRUE(queue_.offer(upcall(1, bucket(flow), flow, flow)));
    if (flow % 1000 == 0) drop_surplus();
  }
  const auto should_end = [&](uint32_t first) {
    int flows = 0;
    for (uint32_t flow = first; flow < first + 10'000; ++flow) flows += queue_.should_end(bucket(flow));
    return flows;
  };
  EXPECT_LE(should_end(0), 10) << "one packet of each waits, and most of what waits may be new flows";
  queue_.handled(2000, 900);
  EXPECT_LE(should_end(0), 10);
  queue_.handled(2000, 1100);
  EXPECT_GE(should_end(0), 9'000);
  EXPECT_EQ(should_end(UpcallQueue::kTotal + 1), 0) << "of which nothing waits";
  take();
  EXPECT_EQ(should_end(0), 0);
}

TEST_F(UpcallQueueTest, DrainsFromFullToFew) {
  EXPECT_FALSE(queue_.drains());
  fill(UpcallQueue::kTotal - 1, 1, 1);
  EXPECT_FALSE(queue_.drains());
  fill(10, 1, 2);
  EXPECT_TRUE(queue_.drains());
  take(UpcallQueue::kTotal / 2);
  EXPECT_TRUE(queue_.drains());
  take();
  EXPECT_FALSE(queue_.drains());
}

TEST_F(UpcallQueueTest, FewerPacketsOfAFlowThanTheMostAreNotTurnedAway) {
  for (uint32_t round = 0; round < 10; ++round) {
    for (uint32_t i = 0; i + 1 < UpcallQueue::kMostOfFlow; ++i) ASSERT_TRUE(queue_.offer(upcall(1, 5, i)));
    EXPECT_EQ(take(UpcallQueue::kMostOfFlow - 100).size(), UpcallQueue::kMostOfFlow - 100);
    for (uint32_t i = 0; i < 100; ++i) ASSERT_TRUE(queue_.offer(upcall(1, 5, i)));
    take();
  }
}

// What a flow sends to userspace has no fast path to go over to.
TEST_F(UpcallQueueTest, ActionsOfOneFlowMayBeMany) {
  for (uint32_t i = 0; i < 2 * UpcallQueue::kMostOfFlow; ++i) {
    Upcall action = upcall(1, 5, i);
    action.kind = Upcall::Kind::action;
    ASSERT_TRUE(queue_.offer(std::move(action)));
  }
  EXPECT_EQ(take().size(), 2 * UpcallQueue::kMostOfFlow);
}

// There is an end to that, but none before nearly all of the queue is that flow's.
TEST_F(UpcallQueueTest, ActionsOfOneFlowAreNotMoreThanCanBeCounted) {
  size_t offered = 0;
  const auto action = [this] {
    Upcall one = upcall(1, 5);
    one.kind = Upcall::Kind::action;
    return one;
  };
  while (offered < UpcallQueue::kTotal && queue_.offer(action())) {
    if (++offered % 1000 != 0) continue;
    EXPECT_EQ(drop_surplus().size(), 0u);
  }
  EXPECT_GE(offered, UpcallQueue::kTotal / 8 * 7);
  EXPECT_LT(offered, UpcallQueue::kTotal);
  EXPECT_TRUE(queue_.must_wait(5));
  EXPECT_TRUE(queue_.offer(upcall(1, 6))) << "another flow's";
  EXPECT_EQ(take(offered).size(), offered);
  EXPECT_EQ(take().size(), 1u);
  EXPECT_FALSE(queue_.must_wait(5));
  EXPECT_TRUE(queue_.offer(action()));
}

// The counters start at 0 again some day.
TEST_F(UpcallQueueTest, KnowsWhoWaitsHoweverManyHaveWaited) {
  for (uint32_t i = 0; i < 100'000; ++i) {
    ASSERT_FALSE(queue_.must_wait(5)) << i;
    ASSERT_TRUE(queue_.offer(upcall(1, 5)));
    ASSERT_TRUE(queue_.must_wait(5)) << i;
    ASSERT_EQ(take().size(), 1u);
  }
}

TEST_F(UpcallQueueTest, TakesAndEndsSeveralTogether) {
  for (uint32_t i = 0; i < 5; ++i) {
    Upcall one = upcall(1 + i % 2, i, i);
    one.in_place = i % 2 == 0;
    ASSERT_TRUE(queue_.offer(std::move(one)));
  }
  std::array<Upcall, 3> taken;
  std::array<UpcallQueue::Ticket, 3> tickets;
  ASSERT_EQ(queue_.take(taken), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(taken[i].packet->skb_mark, i);
    tickets[i] = UpcallQueue::ticket_of(taken[i]);
  }
  EXPECT_EQ(queue_.waiting(), 5u) << "also those that are being handled";
  queue_.done(tickets);
  EXPECT_EQ(queue_.waiting(), 2u);
  EXPECT_EQ(queue_.in_place(), 1u);
  for (uint32_t i = 0; i < 5; ++i) EXPECT_EQ(queue_.must_wait(i), i >= 3);
  EXPECT_EQ(queue_.take(taken), 2u);
  EXPECT_EQ(queue_.take(taken), 0u);
}

TEST_F(UpcallQueueTest, CopiesForTheControlPathHoldNobodyUp) {
  Upcall copy = upcall(1, Upcall::kNoBucket);
  copy.kind = Upcall::Kind::action;
  ASSERT_TRUE(queue_.offer(std::move(copy)));
  for (uint32_t bucket = 0; bucket < 4096; ++bucket) EXPECT_FALSE(queue_.must_wait(bucket));
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
      Upcall offered{std::move(packet), Upcall::Kind::miss, {}, port, 0};
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

// Whom the producer is told not to wait for has been done: whatever the consumer did before is seen.
TEST_F(UpcallQueueTest, WhoNeedNotWaitComesAfterThoseBefore) {
  constexpr uint32_t kFlows = 7, kPackets = 30'000;
  std::array<uint32_t, kFlows> sent{};  // the last of each flow; not atomic: the queue orders it
  std::atomic<bool> finished{false};
  std::thread consumer([&] {
    std::array<Upcall, 8> batch;
    std::array<UpcallQueue::Ticket, 8> tickets;
    while (!finished || !queue_.empty()) {
      const size_t n = queue_.take(batch);
      for (size_t i = 0; i < n; ++i) {
        tickets[i] = UpcallQueue::ticket_of(batch[i]);
        sent[batch[i].bucket] = batch[i].packet->skb_mark;
        batch[i].packet.reset();
      }
      queue_.done(std::span(tickets).first(n));
    }
  });
  pool_.claim();
  std::array<uint32_t, kFlows> last{};
  size_t passed = 0;
  for (uint32_t i = 1; i <= kPackets;) {
    const uint32_t flow = i * i % kFlows;
    if (!queue_.must_wait(flow)) {
      EXPECT_EQ(sent[flow], last[flow]);
      ++passed;
    }
    if (!queue_.offer(upcall(1, flow, i, flow))) continue;
    last[flow] = i++;
  }
  finished = true;
  consumer.join();
  EXPECT_EQ(sent, last);
  EXPECT_GT(passed, 0u);
}

}  // namespace
}  // namespace vswitch
