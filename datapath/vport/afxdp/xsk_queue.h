// XskQueue: one AF_XDP socket, which is one queue of one device: frames in and out of a UmemPool by four rings that are
// shared with the kernel.
//
//   fill ring: free frames, for the kernel to receive into        rx ring: frames received
//   tx ring: frames to send                                       completion ring: frames sent, free again
//
// As many frames as were put into the fill ring at the start stay with the kernel: each frame that comes in is replaced
// by a free one, or, when the pool has none, copied out and put back itself. So a pool that has run dry makes packets
// slower and does not stop reception.
//
// Thread safety: receive() by one thread at a time; transmit() and the rest by any thread.
#pragma once

#include <xdp/xsk.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "datapath/base/mutex.h"
#include "datapath/base/status.h"
#include "datapath/vport/afxdp/umem_pool.h"
#include "datapath/vport/vport_counters.h"

namespace vswitch::afxdp {

struct XskConfig {
  std::string device;
  uint32_t queue = 0;
  uint32_t rx_size = 0, tx_size = 0;  // powers of two
  bool zero_copy = false;
  bool need_wakeup = true;
};

struct XskKernelCounts {
  uint64_t dropped = 0;          // no frame to receive into, or frame longer than one
  uint64_t rx_ring_full = 0;     // we were too slow
  uint64_t fill_ring_empty = 0;  // how often the kernel found no frame
  uint64_t invalid = 0;          // descriptors that the kernel did not take
};

class XskQueue {
 public:
  // Opens the socket. `first`: the device's first queue, whose registration of the pool's memory the others use and
  // which must outlive them; null: this one is it.
  static Result<std::unique_ptr<XskQueue>> open(const XskConfig& config, std::shared_ptr<UmemPool> pool,
                                                XskQueue* first);
  ~XskQueue();
  XskQueue(const XskQueue&) = delete;
  XskQueue& operator=(const XskQueue&) = delete;

  int fd() const { return xsk_socket__fd(socket_); }

  // As RxSource::receive.
  size_t receive(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch, VportCounters::Slot& counters);
  RxSource::Waiting waiting() const;  // by the thread that receives

  // Sends packets of the pool; those that were taken (the first, as many as is returned) are the kernel's then.
  size_t transmit(Packet* const* packets, size_t count);

  XskKernelCounts kernel_counts() const;

 private:
  XskQueue(const XskConfig& config, std::shared_ptr<UmemPool> pool);
  Status create(XskQueue* first);
  int bind(XskQueue* first) REQUIRES(tx_mutex_);
  Status fill();

  size_t adapt(size_t count);
  void refill(Packet* const* packets, size_t count);
  void wake_for_frames();
  void reap() REQUIRES(tx_mutex_);
  void kick() NO_THREAD_SAFETY_ANALYSIS;

  const XskConfig config_;
  const std::shared_ptr<UmemPool> pool_;
  UmemPool::HolderId id_ = UmemPool::kNobody;
  xsk_umem* umem_ = nullptr;  // the registration, of the first queue only
  xsk_socket* socket_ = nullptr;
  // The receiving thread's.
  alignas(64) xsk_ring_prod fill_{};
  xsk_ring_cons rx_{};
  size_t lent_ = 0;                  // frames in the fill ring, in the rx ring or on the way between them
  std::atomic<bool> unsent_{false};  // the kernel had no time or room: to be asked again

  alignas(64) Mutex tx_mutex_;
  xsk_ring_prod tx_ GUARDED_BY(tx_mutex_){};
  xsk_ring_cons completion_ GUARDED_BY(tx_mutex_){};
};

}  // namespace vswitch::afxdp
