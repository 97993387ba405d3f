// TapDevice: frames to and from the host through a persistent TAP of our own (Documentation/networking/tuntap.rst).
//
// What the host sends on the device comes in here. The device outlives the process with its addresses, MAC and MTU, and
// is attached to again by its name. Offloads are on both ways: the host's super-frames and partial checksums come in as
// they are.
//
// A TAP made with several queues has one for each forwarding thread. The kernel spreads the host's flows over them, and
// sends a flow by the queue on which it saw the flow's other direction last; so each thread sends by a queue of its
// own, and both directions of a connection come to the same thread. A flow changes its queue, and can be overtaken by
// itself that once, only when its other direction begins, or moves to another thread.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "datapath/base/status.h"
#include "datapath/vport/device_io.h"

namespace vswitch {

class TapDevice final : public DeviceIo {
 public:
  // Attaches to the TAP called `name`, creating it if there is none, with up to `queues` queues. Whether a TAP can have
  // more than one is decided when it is created, by asking for more than one; who attaches has to take it as it is.
  static Result<std::unique_ptr<TapDevice>> open(const std::string& name, size_t queues);

  // Whether TAPs can be had at all; makes none.
  static Status check_access(const std::string& name);

  explicit TapDevice(DeviceDescriptor descriptor) : DeviceIo(std::move(descriptor)) {}

  size_t queue_count() const override { return 1 + further_.size(); }
  int queue_fd(size_t queue) const override { return queue == 0 ? fd() : further_[queue - 1].get(); }

  size_t receive(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch, VportCounters::Slot& counters) override {
    return receive_queue(0, ctx, port_no, batch, counters);
  }
  size_t receive_queue(size_t queue, ThreadContext& ctx, uint32_t port_no, PacketBatch& batch,
                       VportCounters::Slot& counters) override;

  // What the device is called now, in whatever namespace it is; "" when it is gone.
  std::string current_name() const;
  // Whether the device is to outlive its last descriptor.
  void set_persistent(bool persistent) const;
  // Whether the device can have more than one queue.
  bool multi_queue() const { return multi_queue_; }

 private:
  static constexpr uint8_t kNobody = 0xff;

  void add_queues(size_t queues);
  size_t queue_to_send_by(const ThreadContext& ctx);
  size_t transmit(Outgoing& outgoing, size_t begin, int* error) override;

  bool multi_queue_ = false;
  std::vector<UniqueFd> further_;  // queues 1 and on
  // The thread (ThreadContext::index) that received from queue i last, and the queue that thread i sends by.
  std::array<std::atomic<uint8_t>, kMaxQueues> receivers_{};
  std::array<std::atomic<uint8_t>, kMaxThreads> senders_{};
};

}  // namespace vswitch
