// TapDevice: frames to and from the host through a persistent TAP of our own (Documentation/networking/tuntap.rst).
//
// What the host sends on the device comes in here. The device outlives the process with its addresses, MAC and MTU, and
// is attached to again by its name. Offloads are on both ways: the host's super-frames and partial checksums come in as
// they are.
#pragma once

#include <memory>
#include <string>

#include "datapath/base/status.h"
#include "datapath/vport/device_io.h"

namespace vswitch {

class TapDevice final : public DeviceIo {
 public:
  // Attaches to the TAP called `name`, creating it if there is none.
  static Result<std::unique_ptr<TapDevice>> open(const std::string& name);

  // Whether TAPs can be had at all; makes none.
  static Status check_access(const std::string& name);

  explicit TapDevice(DeviceDescriptor descriptor) : DeviceIo(std::move(descriptor)) {}

  size_t receive(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch, VportCounters::Slot& counters) override;

  // What the device is called now, in whatever namespace it is; "" when it is gone.
  std::string current_name() const;
  // Whether the device is to outlive its last descriptor.
  void set_persistent(bool persistent) const;

 private:
  size_t transmit(Outgoing& outgoing, size_t begin, int* error) override;
};

}  // namespace vswitch
