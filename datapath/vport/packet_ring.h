// PacketRing: what an AF_PACKET socket received, in memory that the kernel shares with us (TPACKET_V2;
// Documentation/networking/packet_mmap.rst).
//
// The kernel copies each frame into the next slot while it still runs on behalf of the sender; taking frames out needs
// no system call. Slots are small and many: what fits a slot is what comes in large numbers, and the ring has to last
// for as long as others have the core. Of a frame that does not fit, the slot only tells that it waits, whole, in the
// socket's own queue (PACKET_COPY_THRESH): the n-th such slot goes with the n-th frame that recvmsg() gives.
//
// Thread safety: one thread at a time. The kernel writes slots at any time, but none that is filled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "datapath/base/status.h"
#include "datapath/vport/vnet_header.h"

namespace vswitch {

class PacketRing {
 public:
  static constexpr size_t kSlotSize = 256;
  static constexpr size_t kSlots = 4096;  // 1 MiB
  // Frames up to this size lie in their slot.
  static constexpr size_t kMaxInSlot = 180;

  // How a frame arrived.
  struct Slot {
    enum class Where : uint8_t {
      here,    // in the slot
      queued,  // whole, in the socket's queue
      lost,    // the queue had no room for it
    };
    Where where;
    uint16_t tpid;  // host order, of a VLAN tag that is not in the frame; 0: there is none
    uint16_t tci;
    size_t size;                     // of the frame
    std::span<const uint8_t> frame;  // here; the rest is empty. Valid until the slot is given back
    VnetHeader header;               // here
  };

  // Maps the ring of a packet socket that has vnet headers (PACKET_VNET_HDR) and is not yet bound to a device, so that
  // the ring has every frame that the socket ever got. With little memory the ring gets shorter. On failure: errno.
  static std::unique_ptr<PacketRing> map(int fd);
  ~PacketRing();
  PacketRing(const PacketRing&) = delete;
  PacketRing& operator=(const PacketRing&) = delete;

  // Whether the n-th frame behind those given back has arrived; if so, tells in *slot. REQUIRES: n < capacity().
  bool look(size_t n, Slot* slot) const;
  // Whether the first has.
  bool has_frames() const;
  // Gives back the first `count` of those looked at.
  void give_back(size_t count);

  size_t capacity() const { return slots_; }

 private:
  PacketRing(uint8_t* memory, size_t slots) : memory_(memory), slots_(slots) {}
  uint8_t* slot(size_t n) const { return memory_ + ((next_ + n) & (slots_ - 1)) * kSlotSize; }

  uint8_t* const memory_;
  const size_t slots_;  // a power of two
  size_t next_ = 0;     // the oldest that was not given back
};

}  // namespace vswitch
