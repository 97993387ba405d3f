#include "datapath/packet/packet_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "datapath/packet/packet_batch.h"
#include "datapath/packet/thread_context.h"
#include "tests/support/frame_spec.h"

namespace vswitch {
namespace {

TEST(HeapPacketPool, GivesEachPacketOnceAndThenNone) {
  HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 100);
  std::map<uint8_t*, PacketPtr> buffers;
  while (PacketPtr packet = pool.allocate()) {
    EXPECT_EQ(packet->pool(), &pool);
    EXPECT_EQ(packet->headroom(), Packet::kDefaultHeadroom);
    EXPECT_EQ(packet->capacity(), HeapPacketPool::kFrameBuffer);
    packet->set_size(packet->tailroom());
    std::memset(packet->buffer(), 0xa5, packet->capacity());
    uint8_t* buffer = packet->buffer();
    EXPECT_TRUE(buffers.emplace(buffer, std::move(packet)).second);
  }
  ASSERT_EQ(buffers.size(), pool.packet_count());
  const uint8_t* previous_end = nullptr;
  for (const auto& [buffer, packet] : buffers) {
    EXPECT_GE(buffer, previous_end) << "buffers overlap";
    previous_end = buffer + packet->capacity();
    EXPECT_EQ(packet->pool(), &pool) << "a neighbour wrote over this packet's object";
  }
  buffers.clear();
  EXPECT_EQ(free_packets(pool), 100u);
}

TEST(HeapPacketPool, UsesThePacketFreedLastSoThatFewPagesAreTouched) {
  HeapPacketPool pool(HeapPacketPool::kSuperFrameBuffer, 10000);
  const Packet* first = pool.allocate().get();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(pool.allocate().get(), first);
}

TEST(HeapPacketPool, WithoutPacketsIsJustEmpty) {
  HeapPacketPool pool(2048, 0);
  EXPECT_EQ(pool.allocate(), nullptr);
}

TEST(HeapPacketPool, ResetsMetadataOnAllocation) {
  HeapPacketPool pool(2048, 1);
  {
    PacketPtr packet = pool.allocate();
    packet->in_port = packet->recirc_id = packet->dp_hash = packet->skb_mark = packet->skb_priority = 7;
    packet->rss_hash = packet->cutlen = 7;
    packet->recirc_depth = 7;
    packet->has_tunnel = true;
    packet->layers.l3 = 14;
    packet->offload.checksum = ChecksumState::partial;
  }
  PacketPtr packet = pool.allocate(10);
  EXPECT_EQ(packet->in_port + packet->recirc_id + packet->dp_hash + packet->skb_mark + packet->skb_priority, 0u);
  EXPECT_EQ(packet->rss_hash + packet->cutlen + packet->recirc_depth, 0u);
  EXPECT_FALSE(packet->has_tunnel);
  EXPECT_EQ(packet->layers.l3, LayerOffsets::kNoLayer);
  EXPECT_EQ(packet->offload.checksum, ChecksumState::none);
  EXPECT_EQ(packet->headroom(), 10u);
  EXPECT_EQ(packet->size(), 0u);
}

TEST(HeapPacketPool, TakesBackWhatAnotherThreadFreed) {
  HeapPacketPool pool(2048, 3);
  std::vector<PacketPtr> packets;
  while (PacketPtr packet = pool.allocate()) packets.push_back(std::move(packet));
  std::thread([&packets] { packets.clear(); }).join();
  EXPECT_EQ(free_packets(pool), 3u);
}

TEST(HeapPacketPool, CanBeClaimedByAnotherThread) {
  HeapPacketPool pool(2048, 3);
  std::thread([&pool] {
    pool.claim();
    EXPECT_EQ(free_packets(pool), 3u);
  }).join();
  pool.claim();
  EXPECT_EQ(free_packets(pool), 3u);
}

// One owner allocates and hands on; several other threads check what is in the packets and free them. A packet that is
// on two lists at once would be handed to two threads, which its content shows. Under ThreadSanitizer this checks the
// orders.
TEST(HeapPacketPool, SurvivesManyThreadsThatFree) {
  constexpr size_t kThreads = 3;
  constexpr uint32_t kRounds = 20000;
  HeapPacketPool pool(256, 64);
  struct Mailbox {
    std::atomic<Packet*> slot{nullptr};
  };
  std::array<Mailbox, kThreads> mailboxes;
  std::atomic<bool> done{false};
  std::atomic<uint64_t> freed{0};
  std::vector<std::thread> threads;
  for (Mailbox& mailbox : mailboxes) {
    threads.emplace_back([&] {
      while (true) {
        const bool was_done = done.load();
        PacketPtr packet(mailbox.slot.exchange(nullptr, std::memory_order_acquire));
        if (packet) {
          const uint8_t mark = packet->data()[0];
          for (uint8_t byte : packet->bytes()) ASSERT_EQ(byte, mark);
          freed.fetch_add(1, std::memory_order_relaxed);
        } else if (was_done) {
          return;
        } else {
          std::this_thread::yield();
        }
      }
    });
  }
  uint64_t handed = 0;
  for (uint32_t i = 0; i < kRounds; ++i) {
    PacketPtr packet = pool.allocate(0);
    if (!packet) {
      std::this_thread::yield();
      continue;
    }
    packet->set_size(64);
    std::memset(packet->data(), static_cast<int>(i & 0xff), 64);
    Packet* expected = nullptr;
    Mailbox& mailbox = mailboxes[i % kThreads];
    if (mailbox.slot.compare_exchange_strong(expected, packet.get(), std::memory_order_release)) {
      (void)packet.release();
      ++handed;
    } else {
      std::this_thread::yield();
    }
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(handed, 0u);
  EXPECT_EQ(freed.load(), handed);
  EXPECT_EQ(free_packets(pool), 64u);
}

TEST(ClonePacket, CopiesFrameAndMetadata) {
  HeapPacketPool pool(2048, 2);
  PacketPtr packet = make_packet(pool, Bytes(100, 0x5a), 33);
  packet->in_port = 1;
  packet->recirc_id = 2;
  packet->dp_hash = 3;
  packet->skb_priority = 4;
  packet->skb_mark = 5;
  packet->rss_hash = 6;
  packet->recirc_depth = 7;
  packet->cutlen = 8;
  packet->has_tunnel = true;
  packet->tunnel.id = to_be64(9);
  packet->layers = {1, 2, 3, 4};
  packet->offload = {ChecksumState::partial, GsoType::tcp6, true, 10, 11, 12};
  const PacketPtr copy = clone_packet(*packet, pool);
  ASSERT_NE(copy, nullptr);
  EXPECT_EQ(bytes_of(*copy), bytes_of(*packet));
  EXPECT_EQ(copy->headroom(), 33u);
  EXPECT_EQ(copy->in_port, 1u);
  EXPECT_EQ(copy->recirc_id, 2u);
  EXPECT_EQ(copy->dp_hash, 3u);
  EXPECT_EQ(copy->skb_priority, 4u);
  EXPECT_EQ(copy->skb_mark, 5u);
  EXPECT_EQ(copy->rss_hash, 6u);
  EXPECT_EQ(copy->recirc_depth, 7u);
  EXPECT_EQ(copy->cutlen, 8u);
  EXPECT_TRUE(copy->has_tunnel);
  EXPECT_EQ(copy->tunnel, packet->tunnel);
  EXPECT_EQ(copy->layers.l2_5 + copy->layers.l3 + copy->layers.l4 + copy->layers.l3_end, 10);
  EXPECT_EQ(copy->offload.gso_size + copy->offload.csum_start + copy->offload.csum_offset, 33);
  EXPECT_EQ(copy->offload.gso, GsoType::tcp6);
  EXPECT_TRUE(copy->offload.gso_ecn);
  EXPECT_EQ(copy->offload.checksum, ChecksumState::partial);
}

TEST(ClonePacket, NeedsAPacketThatIsLargeEnough) {
  HeapPacketPool large(4096, 1);
  HeapPacketPool small(1000, 1);
  PacketPtr packet = make_packet(large, Bytes(950, 1));
  EXPECT_EQ(clone_packet(*packet, large), nullptr) << "the pool is empty";
  const PacketPtr copy = clone_packet(*packet, small);
  ASSERT_NE(copy, nullptr);
  EXPECT_EQ(copy->headroom(), 50u) << "as much of the head room as fits";
  packet->set_size(1001);
  EXPECT_EQ(clone_packet(*packet, small), nullptr);
}

TEST(PacketBatch, CompactsInOrder) {
  HeapPacketPool pool(256, 5);
  PacketBatch batch;
  for (uint32_t i = 0; i < 5; ++i) {
    batch.add(pool.allocate());
    batch[i].in_port = i;
  }
  batch.release(0).reset();
  batch.release(3).reset();
  batch.compact();
  ASSERT_EQ(batch.size(), 3u);
  EXPECT_EQ(batch[0].in_port, 1u);
  EXPECT_EQ(batch[1].in_port, 2u);
  EXPECT_EQ(batch[2].in_port, 4u);
  batch.clear();
  EXPECT_EQ(free_packets(pool), 5u);
}

TEST(PacketBatch, GivesPacketsOfSeveralPoolsBackToTheirOwn) {
  HeapPacketPool first(256, 4), second(256, 4);
  PacketBatch batch;
  for (PacketPool* pool : std::initializer_list<PacketPool*>{&first, &first, &second, &first, &second}) {
    batch.add(pool->allocate());
  }
  batch.release(1).reset();
  batch.clear();
  EXPECT_EQ(free_packets(first), 4u);
  EXPECT_EQ(free_packets(second), 4u);
}

TEST(PacketBatch, GivesAllPacketsBackFromAnotherThread) {
  HeapPacketPool pool(256, 8);
  PacketBatch batch;
  while (PacketPtr packet = pool.allocate()) batch.add(std::move(packet));
  std::thread([&] { batch.clear(); }).join();
  EXPECT_EQ(free_packets(pool), 8u);
}

// Memory of another library with a free list of its own.
class ForeignPool final : public PacketPool {
 public:
  ForeignPool() : PacketPool(sizeof buffer_, 1, Memory::mbuf), packet_(construct(object_, buffer_)) {}
  size_t given_back = 0;

 private:
  Packet* take_foreign() override { return std::exchange(packet_, nullptr); }
  void give_back_foreign(Packet* const* packets, size_t count) override {
    given_back += count;
    packet_ = packets[0];
  }

  alignas(Packet) uint8_t object_[sizeof(Packet)];
  uint8_t buffer_[512];
  Packet* packet_;
};

TEST(ForeignPacketPool, IsUsedFromAnyThread) {
  ForeignPool pool;
  PacketPtr packet;
  std::thread([&] { packet = pool.allocate(100); }).join();
  ASSERT_NE(packet, nullptr);
  EXPECT_EQ(packet->headroom(), 100u);
  EXPECT_EQ(pool.allocate(), nullptr);
  packet.reset();
  EXPECT_EQ(pool.given_back, 1u);
  EXPECT_NE(pool.allocate(), nullptr);
}

TEST(ForeignPacketPool, HoldsCopiesOfItsPacketsWhileItHasRoom) {
  ForeignPool pool;
  HeapPacketPool own(512, 1);
  Ledger ledger;
  ThreadContext ctx{0, own, ledger};
  const PacketPtr packet = pool.allocate();
  const PacketPtr copy = ctx.clone(*packet);
  ASSERT_NE(copy, nullptr);
  EXPECT_EQ(copy->pool(), &own) << "the foreign pool is empty";
  const PacketPtr none = ctx.clone(*packet);
  EXPECT_EQ(none, nullptr);
}

}  // namespace
}  // namespace vswitch
