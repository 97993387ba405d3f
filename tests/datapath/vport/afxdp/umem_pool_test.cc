#include "datapath/vport/afxdp/umem_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "datapath/packet/packet_batch.h"
#include "datapath/packet/thread_context.h"

namespace vswitch::afxdp {
namespace {

TEST(UmemPool, EachFrameIsAPageOfTheAreaAndFoundByAnyAddressInIt) {
  UmemPool pool(1000);
  std::set<Packet*> seen;
  std::vector<PacketPtr> packets;
  while (PacketPtr packet = pool.allocate()) {
    EXPECT_EQ(packet->pool(), &pool);
    EXPECT_TRUE(pool.holds(*packet));
    EXPECT_EQ(packet->headroom(), Packet::kDefaultHeadroom);
    EXPECT_EQ(packet->capacity(), UmemPool::kFrameSize);
    const uint64_t address = pool.frame_address(*packet);
    EXPECT_EQ(address % UmemPool::kFrameSize, 0u);
    EXPECT_EQ(pool.packet_at(address), packet.get());
    EXPECT_EQ(pool.packet_at(address + UmemPool::kFrameSize - 1), packet.get());
    EXPECT_EQ(pool.data_address(*packet), address + Packet::kDefaultHeadroom);
    std::memset(packet->buffer(), 0xa5, packet->capacity());
    EXPECT_TRUE(seen.insert(packet.get()).second);
    packets.push_back(std::move(packet));
  }
  EXPECT_EQ(packets.size(), 1000u);
  EXPECT_EQ(pool.in_use(), 1000u);
  for (const PacketPtr& packet : packets) EXPECT_EQ(packet->pool(), &pool) << "a neighbour wrote over this packet";
  packets.clear();
  EXPECT_EQ(pool.in_use(), 0u);
}

TEST(UmemPool, ACopyIsMadeInItAndElsewhereWhenItIsEmpty) {
  UmemPool pool(1024);
  HeapPacketPool heap(HeapPacketPool::kFrameBuffer, 8);
  Ledger ledger;
  ThreadContext ctx{0, heap, ledger, {}};
  PacketPtr packet = pool.allocate();
  packet->set_size(100);
  EXPECT_EQ(ctx.clone(*packet)->pool(), &pool);
  std::vector<PacketPtr> rest;
  while (PacketPtr one = pool.allocate()) rest.push_back(std::move(one));
  EXPECT_EQ(ctx.clone(*packet)->pool(), &heap);
}

TEST(UmemPool, WhatAClosedSocketHadComesHome) {
  UmemPool pool(1024);
  const UmemPool::HolderId one = pool.new_holder(), two = pool.new_holder();
  ASSERT_NE(one, UmemPool::kNobody);
  ASSERT_NE(one, two);
  Packet* packets[300];
  ASSERT_EQ(pool.take(packets, 300), 300u);
  for (size_t i = 0; i < 300; ++i) pool.hand_over(*packets[i], i % 3 == 0 ? one : two);
  pool.take_back(*packets[0]);
  pool.reclaim(one, std::chrono::milliseconds(0));
  EXPECT_EQ(pool.in_use(), 201u);
  pool.reclaim(two, std::chrono::milliseconds(0));
  EXPECT_EQ(pool.in_use(), 1u);
  EXPECT_EQ(pool.new_holder(), one) << "names are used again";
  pool.free(packets[0]);
  EXPECT_EQ(pool.in_use(), 0u);
}

TEST(UmemPool, FramesThatTheDriverMayStillWriteAreKeptFromUse) {
  UmemPool pool(1024);
  const UmemPool::HolderId holder = pool.new_holder();
  Packet* packets[1024];
  ASSERT_EQ(pool.take(packets, 1024), 1024u);
  for (Packet* packet : packets) pool.hand_over(*packet, holder);
  pool.reclaim(holder, std::chrono::hours(1));
  EXPECT_EQ(pool.in_use(), 0u);
  EXPECT_EQ(pool.allocate(), nullptr);
}

TEST(UmemPool, AThreadThatEndsLeavesNothingInItsCache) {
  const auto pool = *UmemPool::get(2048);
  std::thread([&] {
    std::vector<PacketPtr> packets;
    for (int i = 0; i < 100; ++i) packets.push_back(pool->allocate());
  }).join();
  std::vector<PacketPtr> all;
  while (PacketPtr packet = pool->allocate()) all.push_back(std::move(packet));
  EXPECT_EQ(all.size(), 2048u);
}

TEST(UmemPool, PortsThatWantTheSameShareOne) {
  const auto one = *UmemPool::get(1024), same = *UmemPool::get(1024), other = *UmemPool::get(2048);
  EXPECT_EQ(one, same);
  EXPECT_NE(one, other);
  EXPECT_EQ(one->share(), 512u);
  one->add_queues(4);
  EXPECT_EQ(one->share(), 128u);
  one->add_queues(-4);
}

TEST(UmemPool, OutlivesItsPortsUntilTheLastPacketIsBackAndIsUsedAgain) {
  auto pool = *UmemPool::get(4096);
  UmemPool* const address = pool.get();
  PacketPtr packet = pool->allocate();
  pool.reset();
  std::memset(packet->buffer(), 1, packet->capacity());  // still there
  pool = *UmemPool::get(4096);
  EXPECT_EQ(pool.get(), address);
  packet.reset();
  EXPECT_EQ(pool->in_use(), 0u);
}

// Threads receive (take), pass packets on to another thread, and that one frees them; each packet is one thread's at a
// time.
TEST(UmemPool, ThreadsShareItWithoutLosingOrDoublingFrames) {
  UmemPool pool(1024);
  constexpr int kThreads = 4, kRounds = 3000;
  std::atomic<Packet*> baton[kThreads] = {};
  std::atomic<int> doubled{0};
  const UmemPool::HolderId holder = pool.new_holder();
  const auto work = [&](int self) {
    for (int round = 0; round < kRounds; ++round) {
      Packet* packets[PacketBatch::kMaxPackets];
      const size_t taken = pool.take(packets, static_cast<size_t>(1 + (round + self) % 32));
      for (size_t i = 0; i < taken; ++i) {
        packets[i]->reset();
        pool.hand_over(*packets[i], holder);
        uint8_t* const mark = packets[i]->data();
        *mark = static_cast<uint8_t>(self);
        if (*mark != self) doubled.fetch_add(1);
        pool.take_back(*packets[i]);
      }
      if (taken != 0) {
        Packet* const passed = baton[(self + 1) % kThreads].exchange(packets[0], std::memory_order_acq_rel);
        if (passed != nullptr) pool.free(passed);
        pool.free(packets + 1, taken - 1);
      }
      if (Packet* const got = baton[self].exchange(nullptr, std::memory_order_acq_rel)) pool.free(got);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  for (std::atomic<Packet*>& left : baton) {
    if (Packet* const packet = left.load()) pool.free(packet);
  }
  EXPECT_EQ(doubled.load(), 0);
  EXPECT_EQ(pool.in_use(), 0u);
}

}  // namespace
}  // namespace vswitch::afxdp
