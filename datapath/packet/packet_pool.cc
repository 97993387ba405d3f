#include "datapath/packet/packet_pool.h"

#include <sys/mman.h>

#include <new>

namespace vswitch {

namespace {

constexpr size_t kCacheLine = 64;

constexpr size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// The Packet object in front of each heap buffer, padded so that the buffer (and with the default head room the frame)
// starts on a cache line.
constexpr size_t kObjectSize = round_up(sizeof(Packet), kCacheLine);

// Bytes from one packet to the next. An odd number of cache lines: with an even number the first lines of all frames
// would compete for a fraction of the cache's sets.
constexpr size_t packet_stride(size_t buffer_size) {
  const size_t lines = round_up(kObjectSize + buffer_size, kCacheLine) / kCacheLine;
  return (lines | 1) * kCacheLine;
}

uint8_t* map_memory(size_t size) {
  if (size == 0) return nullptr;
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<uint8_t*>(memory);
}

}  // namespace

PacketPtr PacketPool::allocate(size_t headroom) {
  if (__builtin_expect(foreign(), 0)) {
    Packet* const packet = take_foreign();
    if (packet != nullptr) packet->reset(headroom);
    return PacketPtr(packet);
  }
  assert(owner_.load(std::memory_order_relaxed) == std::this_thread::get_id());
  if (__builtin_expect(free_list_ == nullptr, 0) && !take_returned() && !build_more()) return nullptr;
  Packet* packet = free_list_;
  free_list_ = packet->next_free_;
  packet->reset(headroom);
  return PacketPtr(packet);
}

void PacketPool::free(Packet* const* packets, size_t count) {
  if (foreign()) {
    give_back_foreign(packets, count);
  } else if (owner_.load(std::memory_order_relaxed) == std::this_thread::get_id()) {
    for (size_t i = 0; i < count; ++i) {
      packets[i]->next_free_ = free_list_;
      free_list_ = packets[i];
    }
  } else {
    return_to_owner(packets, count);
  }
}

// One atomic operation for all of them: they are linked before they are pushed.
void PacketPool::return_to_owner(Packet* const* packets, size_t count) {
  for (size_t i = 0; i + 1 < count; ++i) packets[i]->next_free_ = packets[i + 1];
  Packet* const last = packets[count - 1];
  // Push only: the owner takes the whole list at once, so no ABA problem arises. Release: what this thread wrote to the
  // packet comes before the owner's next use of it.
  Packet* head = returned_.load(std::memory_order_relaxed);
  do {
    last->next_free_ = head;
  } while (!returned_.compare_exchange_weak(head, packets[0], std::memory_order_release, std::memory_order_relaxed));
}

void PacketPool::adopt(void* object, uint8_t* buffer) {
  Packet* packet = construct(object, buffer);
  packet->next_free_ = free_list_;
  free_list_ = packet;
}

Packet* PacketPool::construct(void* object, uint8_t* buffer) {
  return new (object) Packet(this, memory_, buffer, buffer_size_);
}

bool PacketPool::take_returned() {
  // A plain load first: an empty pool under load must not keep stealing the cache line from the threads that give back.
  if (returned_.load(std::memory_order_relaxed) == nullptr) return false;
  free_list_ = returned_.exchange(nullptr, std::memory_order_acquire);
  return true;
}

HeapPacketPool::HeapPacketPool(size_t buffer_size, size_t packet_count)
    : PacketPool(buffer_size, packet_count),
      memory_size_(packet_stride(buffer_size) * packet_count),
      memory_(map_memory(memory_size_)) {}

HeapPacketPool::~HeapPacketPool() {
  if (memory_ != nullptr) ::munmap(memory_, memory_size_);
}

bool HeapPacketPool::build_more() {
  if (built_ == packet_count()) return false;
  uint8_t* object = memory_ + built_++ * packet_stride(buffer_size());
  adopt(object, object + kObjectSize);
  return true;
}

}  // namespace vswitch
