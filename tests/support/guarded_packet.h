// GuardedPacket: one packet whose frame ends exactly where readable memory does. A read past the frame ends the
// program, with and without sanitizers. For tests and fuzz targets of everything that parses packets.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "datapath/packet/packet_pool.h"

namespace vswitch::test {

class GuardedPacket final : private PacketPool {
 public:
  static constexpr size_t kMaxFrame = 128 * 1024;

  GuardedPacket() : PacketPool(kMaxFrame, 1), memory_(map_memory()) {
    adopt(object_, memory_);
    packet_ = allocate(0);
  }
  ~GuardedPacket() override {
    packet_.reset();
    munmap(memory_, kMaxFrame + page_size());
  }

  // The packet, reset, with a copy of `frame`. REQUIRES: frame.size() <= kMaxFrame.
  Packet& place(std::span<const uint8_t> frame) {
    packet_->reset(kMaxFrame - frame.size());
    packet_->set_size(frame.size());
    if (!frame.empty()) std::memcpy(packet_->data(), frame.data(), frame.size());
    return *packet_;
  }

 private:
  static size_t page_size() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

  static uint8_t* map_memory() {
    void* memory = mmap(nullptr, kMaxFrame + page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(static_cast<uint8_t*>(memory) + kMaxFrame, page_size(), PROT_NONE) != 0) {
      std::perror("guarded packet");
      std::abort();
    }
    return static_cast<uint8_t*>(memory);
  }

  uint8_t* memory_;
  alignas(Packet) uint8_t object_[sizeof(Packet)];
  PacketPtr packet_;
};

}  // namespace vswitch::test
