// UmemPool: packets in the memory that AF_XDP sockets receive into and send from (UMEM), so that a packet moves between
// ports of type afxdp without a copy.
//
//   frame (4096 bytes, a page):  | head room (256) | data ... | tail room |        Packet objects: an array beside
//
// Every device that uses the pool registers the whole area, so a frame has the same address (its offset in the area)
// for all of them, and may come in by one and go out by another. (The kernel can also share one registration between
// devices, but it then hangs on the socket that made it, and with it on that socket's device.)
//
// A frame belongs to the pool, to a packet in the switch, or to a socket, that is to the kernel: hand_over() and
// take_back() keep book of the latter, so that reclaim() can bring home what a closed socket had.
//
// Thread safety: all functions may be called from any thread. Up to kCaches threads have a cache of free frames each,
// so that they seldom meet at the shared list.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/base/status.h"
#include "datapath/packet/packet_pool.h"

namespace vswitch::afxdp {

class UmemPool final : public PacketPool {
 public:
  static constexpr size_t kFrameSize = 4096;
  // What the kernel leaves in front of a frame that it receives (XDP_PACKET_HEADROOM).
  static constexpr size_t kReceiveHeadroom = 256;
  static constexpr size_t kLongestFrame = kFrameSize - kReceiveHeadroom;
  static_assert(kReceiveHeadroom >= Packet::kDefaultHeadroom);

  using HolderId = uint16_t;  // a socket
  static constexpr HolderId kNobody = 0;

  // The pool of that many frames: ports that want the same share one. A pool whose ports are gone is freed when it is
  // looked at after its last packet has come back, or used again.
  static Result<std::shared_ptr<UmemPool>> get(size_t frames);

  // Throws std::bad_alloc when there is no memory.
  explicit UmemPool(size_t frames);
  ~UmemPool() override;

  uint8_t* area() const { return area_; }
  size_t area_size() const { return packet_count() * kFrameSize; }
  // What descriptors hold: where the packet's frame begins, and where its data begins.
  uint64_t frame_address(Packet& packet) const { return static_cast<uint64_t>(packet.buffer() - area_); }
  uint64_t data_address(Packet& packet) const { return static_cast<uint64_t>(packet.data() - area_); }
  // The packet that has this address within its frame. REQUIRES: address < area_size()
  Packet* packet_at(uint64_t address) const {
    return reinterpret_cast<Packet*>(packets_ + address / kFrameSize * kPacketStride);
  }
  bool holds(const Packet& packet) const { return packet.pool() == this; }

  // Takes up to `count` free packets, not reset; returns how many.
  size_t take(Packet** packets, size_t count);

  // Queues that use the pool share it evenly: how many frames each may have in its fill ring.
  void add_queues(int count) { queues_.fetch_add(count, std::memory_order_relaxed); }
  size_t share() const;

  // A name for a socket, or kNobody when all are taken.
  HolderId new_holder();
  void hand_over(Packet& packet, HolderId to) { holder(packet).store(to, std::memory_order_relaxed); }
  void take_back(Packet& packet) { holder(packet).store(kNobody, std::memory_order_relaxed); }
  // Frees what the socket had when it was closed, and its name. `after`: the kernel lets go of it only some time later.
  void reclaim(HolderId holder, std::chrono::milliseconds after);

  // Frames that are neither free nor waiting for the kernel to let go. Exact while nobody takes or frees any.
  size_t in_use() const;

 private:
  static constexpr size_t kCaches = 32;
  static constexpr size_t kCacheSize = 128;
  static constexpr size_t kPacketStride = ((sizeof(Packet) + 63) / 64 | 1) * 64;  // odd: see HeapPacketPool

  struct alignas(64) Cache {
    std::atomic<size_t> size{0};  // written by the cache's thread
    std::array<Packet*, kCacheSize> packets;
  };
  struct Waiting {
    std::chrono::steady_clock::time_point until;
    std::vector<Packet*> packets;
  };
  class ThreadSlot;
  struct Pools;

  static Pools& pools();
  static void release(UmemPool* pool);

  Packet* take_foreign() override;
  void give_back_foreign(Packet* const* packets, size_t count) override;

  Cache* cache();
  void flush_cache(size_t slot);
  size_t take_shared(Packet** packets, size_t count) REQUIRES(mutex_);
  std::atomic<HolderId>& holder(const Packet& packet) {
    return holders_[static_cast<size_t>(reinterpret_cast<const uint8_t*>(&packet) - packets_) / kPacketStride];
  }

  const size_t cache_limit_;
  uint8_t* area_ = nullptr;
  uint8_t* packets_ = nullptr;  // kPacketStride bytes each
  const std::unique_ptr<std::atomic<HolderId>[]> holders_;
  std::atomic<int> queues_{0};
  std::array<Cache, kCaches> caches_;

  mutable Mutex mutex_;
  std::vector<Packet*> free_ GUARDED_BY(mutex_);  // a stack: what was used last is in the processor's cache
  std::vector<Waiting> waiting_ GUARDED_BY(mutex_);
  std::vector<bool> holder_names_ GUARDED_BY(mutex_);  // in use
};

}  // namespace vswitch::afxdp
