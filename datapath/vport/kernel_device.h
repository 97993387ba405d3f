// What the port types on existing kernel devices (netdev, afxdp) have in common: which device a configuration means,
// what keeps a device from being a port, and when it is opened. Pure functions but for the LinkMonitor's answers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "datapath/base/status.h"
#include "datapath/vport/device_port.h"
#include "datapath/vport/link_monitor.h"
#include "datapath/vport/vport.h"

namespace vswitch {

// The device's name: options:device, else the port's name.
std::string kernel_device_of(const VportConfig& config);

// Whether it is a name that a Linux device can have. `field` of the Status is "options:device" or "name".
Status check_kernel_device_name(const VportConfig& config);

// Why a device cannot be a port, whatever becomes of it.
Status check_kernel_device(const LinkInfo& link);

// Opens the device while it is there, can be a port, and is up; how is up to the type. `links` outlives the driver.
class KernelDeviceDriver : public DeviceDriver {
 public:
  KernelDeviceDriver(std::string device, const LinkMonitor& links) : device_(std::move(device)), links_(links) {}

  std::string device_name(const VportConfig& config) const override { return kernel_device_of(config); }
  Result<std::unique_ptr<DeviceIo>> open(const std::optional<LinkInfo>& link, bool closing) final;
  bool still_good(DeviceIo& io, const std::optional<LinkInfo>& link) override;

 protected:
  virtual Result<std::unique_ptr<DeviceIo>> open_device(const LinkInfo& link) = 0;

 private:
  Status why_missing() const;

  const std::string device_;
  const LinkMonitor& links_;
  uint32_t last_ifindex_ = 0;  // of the device, when it was here last; 0: never
};

// VportType::check for such types.
Status check_kernel_device_port(const VportConfig& config, const VportConfig* current, VportEnvironment& environment);

}  // namespace vswitch
