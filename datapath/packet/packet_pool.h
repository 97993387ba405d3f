// PacketPool: where packets come from and go back to.
//
// The base class manages a fixed set of equal buffers; a subclass provides the memory, so that a packet can move
// between ports of one kind without a copy. Memory that is shared with others (DPDK's mbufs, an AF_XDP UMEM) has free
// lists of its own, for any thread: such a pool is *foreign*.
//
// Thread safety: a pool has one owner thread at a time (claim()), for which allocate() and free() take no lock and no
// atomic read-modify-write. Any other thread may free() (lock-free push onto a return list that the owner takes in
// when its own list runs dry) but must not allocate(). A foreign pool has no owner: any thread may do both. A pool must
// outlive its packets: destroy it after the threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>

#include "datapath/packet/packet.h"

namespace vswitch {

class PacketPool {
 public:
  using Memory = PacketMemory;  // all but heap: foreign

  virtual ~PacketPool() = default;
  PacketPool(const PacketPool&) = delete;
  PacketPool& operator=(const PacketPool&) = delete;

  // The calling thread becomes the owner.
  void claim() { owner_.store(std::this_thread::get_id(), std::memory_order_relaxed); }

  // A packet after reset(headroom), or null when the pool is empty. REQUIRES: the caller is the owner, or the pool is
  // foreign.
  PacketPtr allocate(size_t headroom = Packet::kDefaultHeadroom);

  void free(Packet* packet) { free(&packet, 1); }
  // REQUIRES: all are of this pool.
  void free(Packet* const* packets, size_t count);

  Memory memory() const { return memory_; }
  bool foreign() const { return memory_ != Memory::heap; }
  size_t buffer_size() const { return buffer_size_; }  // head room + frame
  size_t packet_count() const { return packet_count_; }

 protected:
  PacketPool(size_t buffer_size, size_t packet_count, Memory memory = Memory::heap)
      : buffer_size_(buffer_size), packet_count_(packet_count), memory_(memory) {}

  // Subclasses build each packet once: `object` has sizeof(Packet) bytes, `buffer` has buffer_size() bytes.
  void adopt(void* object, uint8_t* buffer);

  // Called by allocate() when every packet built so far is in use: adopts one or more and returns true, or returns
  // false when there are no more. A subclass that adopts all its packets at once keeps this default.
  virtual bool build_more() { return false; }

  // A foreign pool's own. Makes a packet as adopt() does, but keeps it in no list of the base class.
  Packet* construct(void* object, uint8_t* buffer);
  virtual Packet* take_foreign() { return nullptr; }
  virtual void give_back_foreign(Packet* const*, size_t) {}

 private:
  bool take_returned();
  void return_to_owner(Packet* const* packets, size_t count);

  const size_t buffer_size_;
  const size_t packet_count_;
  const Memory memory_;
  std::atomic<std::thread::id> owner_{std::this_thread::get_id()};
  Packet* free_list_ = nullptr;             // owner only
  std::atomic<Packet*> returned_{nullptr};  // freed by other threads
};

// Buffers in anonymous memory (mmap). A packet is built when it is first needed and the one freed last is used next, so
// large buffers and large pools cost address space, not RAM. Throws std::bad_alloc when there is no address space.
class HeapPacketPool final : public PacketPool {
 public:
  static constexpr size_t kFrameBuffer = 2048;              // one Ethernet frame up to 1,856 bytes + head room
  static constexpr size_t kSuperFrameBuffer = 65536 + 512;  // a GSO super-frame

  HeapPacketPool(size_t buffer_size, size_t packet_count);
  ~HeapPacketPool() override;

 private:
  bool build_more() override;

  const size_t memory_size_;
  uint8_t* const memory_;
  size_t built_ = 0;  // packets adopted so far; owner only
};

}  // namespace vswitch
