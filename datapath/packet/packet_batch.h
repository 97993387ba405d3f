// PacketBatch: up to 32 packets that travel together; owns them. Fixed size, no allocation, move-only.
#pragma once

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
    for (size_t i = 0; i < size_; ++i) packets_[i] = other.packets_[i];
    other.size_ = 0;
  }
  std::array<Packet*, kMaxPackets> packets_;
  size_t size_ = 0;
};

}  // namespace vswitch
