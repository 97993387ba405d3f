// PacketSocket: frames to and from any Ethernet device of Linux through AF_PACKET (packet(7)).
//
// What the kernel does and this undoes: it holds a VLAN tag aside (auxdata; put back), shows frames that we sent
// ourselves (switched off), leaves checksums partial and frames uncut up to 64 KB (vnet header; kept as offload state,
// and passed on in the same way). Sending goes through the device's queueing discipline, so that shaping set up by the
// operator holds and the kernel cuts super-frames for devices that cannot (PACKET_QDISC_BYPASS would drop those).
#pragma once

#include <memory>

#include "datapath/base/status.h"
#include "datapath/vport/device_io.h"
#include "datapath/vport/link_monitor.h"

namespace vswitch {

class PacketSocket final : public DeviceIo {
 public:
  // A socket bound to the device, which must be up; promiscuous as long as it is open.
  static Result<std::unique_ptr<PacketSocket>> open(const LinkInfo& link);

  explicit PacketSocket(DeviceDescriptor descriptor);
  ~PacketSocket() override;

  size_t receive(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch, VportCounters::Slot& counters) override;
  uint64_t take_kernel_drops() override;

 private:
  struct Incoming;  // what recvmmsg() fills in

  size_t transmit(Outgoing& outgoing, size_t begin, int* error) override;

  const std::unique_ptr<Incoming> incoming_;
  size_t burst_;  // how many frames to ask for; adapts
};

}  // namespace vswitch
