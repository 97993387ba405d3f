// PacketBatch: up to 32 packets that travel together; owns them. Fixed size, no allocation, move-only.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <utility>

#include "datapath/packet/packet.h"

namespace vswitch {

class PacketBatch {
 public:
  static constexpr size_t kMaxPackets = 32;

  PacketBatch() = default;
  PacketBatch(PacketBatch&& other) noexcept { take(other); }
  PacketBatch& operator=(PacketBatch&& other) noexcept {
    if (this != &other) {
      clear();
      take(other);
    }
    return *this;
  }
  ~PacketBatch() { clear(); }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  bool full() const { return size_ == kMaxPackets; }
  // REQUIRES: !full()
  void add(PacketPtr packet) {
    assert(!full());
    packets_[size_++] = packet.release();
  }
  // Takes `count` packets that nothing else owns. REQUIRES: there is room.
  void add(Packet* const* packets, size_t count) {
    assert(count <= kMaxPackets - size_);
    std::copy_n(packets, count, packets_.data() + size_);
    size_ += count;
  }
  Packet& operator[](size_t i) { return *packets_[i]; }
  const Packet& operator[](size_t i) const { return *packets_[i]; }
  // Takes packet i out; its slot is null until compact() or clear(). Slots taken must not be used.
  PacketPtr release(size_t i) { return PacketPtr(std::exchange(packets_[i], nullptr)); }
  // Closes the gaps that release() left; the order of the others is kept.
  void compact() {
    size_t kept = 0;
    for (size_t i = 0; i < size_; ++i) {
      if (packets_[i] != nullptr) packets_[kept++] = packets_[i];
    }
    size_ = kept;
  }
  // Forgets all slots; the caller has released every packet.
  void reset_released() { size_ = 0; }
  void clear() {
    if (size_ != 0) free_packets(packets_.data(), size_);
    size_ = 0;
  }
  Packet** raw() { return packets_.data(); }

 private:
  void take(PacketBatch& other) {
    size_ = other.size_;
    std::copy_n(other.packets_.data(), size_, packets_.data());
    other.size_ = 0;
  }
  std::array<Packet*, kMaxPackets> packets_;
  size_t size_ = 0;
};

}  // namespace vswitch
