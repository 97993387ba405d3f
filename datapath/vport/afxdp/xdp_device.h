// XdpDevice: a kernel device opened through AF_XDP: its XDP program, a socket per receive queue, and the pool that they
// receive into. Frames that come in do not reach the host's own stack.
//
// Thread safety: as DeviceIo. Threads send to the queue of their number, modulo the queues that there are.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "datapath/vport/afxdp/afxdp_options.h"
#include "datapath/vport/afxdp/umem_pool.h"
#include "datapath/vport/afxdp/xdp_program.h"
#include "datapath/vport/afxdp/xsk_queue.h"
#include "datapath/vport/device_io.h"
#include "datapath/vport/link_monitor.h"

namespace vswitch::afxdp {

// The largest MTU with which frames, with two VLAN tags, fit.
inline constexpr uint32_t kLargestMtu = UmemPool::kLongestFrame - 14 - 2 * 4;

class XdpDevice final : public DeviceIo {
 public:
  // Opens the device, which must be up, in the best mode that it can do and the options allow.
  static Result<std::unique_ptr<XdpDevice>> open(const LinkInfo& link, const AfxdpOptions& options);
  ~XdpDevice() override;

  size_t queue_count() const override { return queues_.size(); }
  int queue_fd(size_t queue) const override { return queues_[queue]->fd(); }
  size_t receive(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch, VportCounters::Slot& counters) override {
    return queues_[0]->receive(ctx, port_no, batch, counters);
  }
  size_t receive_queue(size_t queue, ThreadContext& ctx, uint32_t port_no, PacketBatch& batch,
                       VportCounters::Slot& counters) override {
    return queues_[queue]->receive(ctx, port_no, batch, counters);
  }
  RxSource::Waiting waiting(size_t queue) const override { return queues_[queue]->waiting(); }
  void send(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters) override;
  uint64_t take_kernel_drops() override;
  void describe(std::map<std::string, std::string>& status) const override;

 private:
  struct alignas(64) SendCounts {
    Counter in_place;  // packets that were in the pool
    Counter copied;
  };

  XdpDevice(DeviceDescriptor descriptor, const AfxdpOptions& options, XdpMode mode, std::shared_ptr<UmemPool> pool,
            XdpProgram program);
  static Result<std::unique_ptr<XdpDevice>> open_mode(const LinkInfo& link, const AfxdpOptions& options, XdpMode mode,
                                                      uint32_t device_queues);
  Status open_queues(const LinkInfo& link, uint32_t count);

  // True if the packet can go as it is: in the pool, complete, and not too long.
  bool is_ready(const Packet& packet, uint32_t longest) const {
    return pool_->holds(packet) && packet.offload.checksum != ChecksumState::partial &&
           packet.offload.gso == GsoType::none && packet.size() <= longest;
  }
  [[gnu::noinline]] void send_one_by_one(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters);
  void transmit_ready(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters);
  size_t transmit(Outgoing& outgoing, size_t begin, int* error) override;
  XskKernelCounts kernel_counts() const;

  const AfxdpOptions options_;
  const XdpMode mode_;
  uint32_t device_queues_ = 1;
  const std::shared_ptr<UmemPool> pool_;
  std::vector<std::unique_ptr<XskQueue>> queues_;
  XdpProgram program_;
  std::array<SendCounts, kMaxThreads> send_counts_;
  std::atomic<uint64_t> drops_taken_{0};
};

}  // namespace vswitch::afxdp
