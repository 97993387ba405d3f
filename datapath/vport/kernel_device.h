// What the port types on existing kernel devices (netdev, afxdp) have in common: which device a configuration means,
// and what keeps a device from being a port. Pure functions but for the LinkMonitor's answers.
#pragma once

#include <optional>
#include <string>

#include "datapath/base/status.h"
#include "datapath/vport/link_monitor.h"
#include "datapath/vport/vport.h"

namespace vswitch {

// The device's name: options:device, else the port's name.
std::string kernel_device_of(const VportConfig& config);

// Whether it is a name that a Linux device can have. `field` of the Status is "options:device" or "name".
Status check_kernel_device_name(const VportConfig& config);

// Why a device cannot be a port, whatever becomes of it.
Status check_kernel_device(const LinkInfo& link);

// Why there is no device of that name: renamed, if `last_ifindex` (0: never seen) has another name now, or not there.
Status why_device_is_missing(const std::string& device, uint32_t last_ifindex, const LinkMonitor& links);

// VportType::check for such types.
Status check_kernel_device_port(const VportConfig& config, const VportConfig* current, VportEnvironment& environment);

}  // namespace vswitch
