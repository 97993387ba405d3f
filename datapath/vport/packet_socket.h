// PacketSocket: frames to and from any Ethernet device of Linux through AF_PACKET (packet(7)).
//
// Frames come in by a mapped ring (packet_ring.h), and leave by sendmmsg(), in trains where they can (frame_train.h).
//
// What the kernel does and this undoes: it holds a VLAN tag aside (put back), shows frames that we sent
// ourselves (switched off), leaves checksums partial and frames uncut up to 64 KB (vnet header; kept as offload state,
// and passed on in the same way). Sending goes through the device's queueing discipline, so that shaping set up by the
// operator holds and the kernel cuts super-frames for devices that cannot (PACKET_QDISC_BYPASS would drop those).
#pragma once

#include <atomic>
#include <future>
#include <memory>

#include "datapath/base/status.h"
#include "datapath/kernel_path/kernel_path.h"
#include "datapath/vport/device_io.h"
#include "datapath/vport/link_monitor.h"
#include "datapath/vport/packet_ring.h"

namespace vswitch {

class PacketSocket final : public DeviceIo {
 public:
  // A socket bound to the device, which must be up; promiscuous as long as it is open. It can send at once; it receives
  // as soon as it is ready: the kernel takes about 15 ms for a ring (it waits for all processors), which many ports
  // that are opened at a time spend together. With a kernel path (which must outlive it) the kernel may forward some of
  // what arrives, which then is not received here.
  static Result<std::unique_ptr<PacketSocket>> open(const LinkInfo& link, KernelPath* kernel_path = nullptr);

  ~PacketSocket() override;

  size_t receive(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch, VportCounters::Slot& counters) override;
  RxSource::Waiting waiting(size_t queue) const override;
  uint64_t take_kernel_drops() override;
  Status wait_until_ready() override { return ready_.get(); }
  void describe(std::map<std::string, std::string>& status) const override;
  void retire() override;
  uint64_t kernel_path_hook() const override { return hook_ == nullptr ? 0 : hook_->id(); }

 private:
  struct Incoming;

  explicit PacketSocket(DeviceDescriptor descriptor);
  void start();
  Status start_receiving();
  void look_at_slots(const PacketRing& ring, ThreadContext& ctx, size_t wanted);
  void receive_queued();
  void found_nothing();
  size_t transmit(Outgoing& outgoing, size_t begin, int* error) override;
  void mtu_changed(uint32_t mtu) override;

  const std::unique_ptr<Incoming> incoming_;
  std::unique_ptr<PacketRing> mapped_;
  std::atomic<PacketRing*> ring_{nullptr};  // mapped_, once frames come in
  bool found_nothing_ = false;              // when asked last
  std::atomic<uint64_t> cut_off_{0};        // frames too large for a slot that found the socket's queue full
  std::unique_ptr<KernelPath::Hook> hook_;  // null: without kernel path
  std::shared_future<Status> ready_;        // last: ends first
};

}  // namespace vswitch
