// DeviceIo: an open descriptor on a kernel device, and how frames move through it. The kinds are PacketSocket
// (AF_PACKET: any device), TapDevice (a TAP of our own) and afxdp::XdpDevice (AF_XDP, with a descriptor per queue).
//
// Thread safety: receive() of one queue by one thread at a time; send() by any number of threads; the rest by any
// thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>

#include "datapath/base/status.h"
#include "datapath/base/unique_fd.h"
#include "datapath/packet/packet_batch.h"
#include "datapath/packet/thread_context.h"
#include "datapath/vport/frame_train.h"
#include "datapath/vport/vnet_header.h"
#include "datapath/vport/vport.h"
#include "datapath/vport/vport_counters.h"

namespace vswitch {

// A kernel-facing descriptor with what a successor process needs to go on with it (docs/architecture.md, decision 15):
// everything else about the port comes from its configuration.
struct DeviceDescriptor {
  enum class Kind : uint8_t { packet_socket, tap, xdp };  // xdp: the fd only keeps the device promiscuous
  Kind kind = Kind::packet_socket;
  UniqueFd fd;
  std::string device;
  uint32_t ifindex = 0;
};

class DeviceIo {
 public:
  virtual ~DeviceIo() = default;
  DeviceIo(const DeviceIo&) = delete;
  DeviceIo& operator=(const DeviceIo&) = delete;

  const DeviceDescriptor& descriptor() const { return descriptor_; }
  int fd() const { return descriptor_.fd.get(); }
  uint32_t ifindex() const { return descriptor_.ifindex; }

  // Limits what is sent; 0: no limit.
  void set_mtu(uint32_t mtu) {
    if (mtu_.exchange(mtu, std::memory_order_relaxed) != mtu) mtu_changed(mtu);
  }
  // The port takes the descriptor out of use, and closes it when no thread can be inside any more: what the kernel does
  // by itself on the descriptor's behalf ends before this returns.
  virtual void retire() {}
  // As Vport::kernel_path_hook().
  virtual uint64_t kernel_path_hook() const { return 0; }

  // Receive queues, each of which may be another thread's. At most kMaxQueues; constant.
  static constexpr size_t kMaxQueues = 64;
  virtual size_t queue_count() const { return 1; }
  virtual int queue_fd(size_t) const { return fd(); }  // what to wait on

  // As RxSource::receive and Vport::send. receive() is that of queue 0.
  virtual size_t receive(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch, VportCounters::Slot& counters) = 0;
  virtual size_t receive_queue(size_t, ThreadContext& ctx, uint32_t port_no, PacketBatch& batch,
                               VportCounters::Slot& counters) {
    return receive(ctx, port_no, batch, counters);
  }
  // As RxSource::waiting().
  virtual RxSource::Waiting waiting(size_t) const { return RxSource::Waiting::unknown; }
  virtual void send(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters);

  // Waits until frames can come in. An error means that none will; the descriptor is of no use then.
  virtual Status wait_until_ready() { return {}; }

  // Adds to VportState::status what is known of the descriptor now.
  virtual void describe(std::map<std::string, std::string>&) const {}

  // Frames that the kernel had for this descriptor and dropped since the last call.
  virtual uint64_t take_kernel_drops() { return 0; }
  // The kernel said that the device behind the descriptor is gone for good.
  bool lost() const { return lost_.load(std::memory_order_relaxed); }

 protected:
  // A batch that is about to go out: packet i, with its header in front, is iovecs 2i and 2i+1.
  struct Outgoing {
    const ThreadContext& ctx;
    PacketBatch& packets;
    VnetHeader headers[PacketBatch::kMaxPackets];
  };

  explicit DeviceIo(DeviceDescriptor descriptor) : descriptor_(std::move(descriptor)) {}

  uint32_t mtu() const { return mtu_.load(std::memory_order_relaxed); }
  virtual void mtu_changed(uint32_t) {}

  // Sends outgoing.packets[begin...] in order until one fails or all are sent; returns how many were sent, and in
  // *error the errno of the one that failed (0: none; the rest is to be tried again). For kinds that do not send in a
  // way of their own.
  virtual size_t transmit(Outgoing& outgoing, size_t begin, int* error) = 0;

  // Whether frames may leave as trains (frame_train.h). The kernel is asked by trying.
  TrainKinds sends_trains() const {
    return {sends_datagrams_.load(std::memory_order_relaxed), sends_segments_.load(std::memory_order_relaxed)};
  }
  // What transmit() is to report when the kernel refused `message` with `error`. A train whose form is refused (before
  // Linux 6.2, or by a device that cannot be given one) was the last of its kind, and its frames are to go out singly.
  int refused_message(const TrainMessages::Message& message, int error);

  // Completes a received frame of `size` bytes that is already in `packet`: sizes it, puts back a tag that the kernel
  // held aside (tpid 0: none) and decodes the header. False: the frame cannot be taken.
  static bool accept_frame(Packet& packet, size_t size, const VnetHeader& header, uint16_t tpid, uint16_t tci);

  void set_lost() { lost_.store(true, std::memory_order_relaxed); }

 private:
  // Cuts the super-frames of tunnels, which no vnet header describes, and sends everything in order.
  void send_with_cuts(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters);
  // REQUIRES: no packet is a super-frame inside a tunnel.
  void send_as_they_are(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters);
  // Moves what can be sent from `batch` to `ready`, with headers; drops the rest.
  void prepare(ThreadContext& ctx, PacketBatch& batch, PacketBatch& ready, Outgoing& outgoing,
               VportCounters::Slot& counters);
  // The device refused a packet with `error`: tries a super-frame in pieces, drops anything else.
  void refused(ThreadContext& ctx, PacketPtr packet, int error, VportCounters::Slot& counters);

  const DeviceDescriptor descriptor_;
  std::atomic<uint32_t> mtu_{0};
  std::atomic<bool> lost_{false};
  std::atomic<bool> sends_datagrams_{true}, sends_segments_{true};  // as trains
};

}  // namespace vswitch
