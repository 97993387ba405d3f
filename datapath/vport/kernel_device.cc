#include "datapath/vport/kernel_device.h"

#include <fmt/format.h>
#include <linux/if.h>

#include <algorithm>

namespace vswitch {

std::string kernel_device_of(const VportConfig& config) {
  const auto device = config.options.find("device");
  return device == config.options.end() ? config.name : device->second;
}

Status check_kernel_device_name(const VportConfig& config) {
  const std::string device = kernel_device_of(config);
  if (device.empty() || device.size() >= ALTIFNAMSIZ || device == "." || device == ".." ||
      std::any_of(device.begin(), device.end(),
                  [](unsigned char c) { return c <= ' ' || c == '/' || c == ':' || c == 0x7f; })) {
    return invalid_argument(
        fmt::format("port {}: \"{}\" is not a name that a Linux device can have", config.name, device),
        config.options.contains("device") ? "options:device" : "name");
  }
  return {};
}

Status check_kernel_device(const LinkInfo& link) {
  // What a host sends to itself would be forwarded to others, and what others send there, answered by nobody.
  if (link.loopback) {
    return failed_precondition(fmt::format("device {} is a loopback device, which cannot be a port", link.name));
  }
  if (!link.ethernet) return failed_precondition(fmt::format("device {} is not an Ethernet device", link.name));
  return {};
}

Status KernelDeviceDriver::why_missing() const {
  const std::optional<LinkInfo> renamed = last_ifindex_ == 0 ? std::nullopt : links_.find(last_ifindex_);
  if (renamed) return not_found(fmt::format("device {} was renamed to {}", device_, renamed->name));
  return not_found(fmt::format("device {} does not exist", device_));
}

Result<std::unique_ptr<DeviceIo>> KernelDeviceDriver::open(const std::optional<LinkInfo>& link, bool /*closing*/) {
  if (!link) return why_missing();
  VSWITCH_RETURN_IF_ERROR(check_kernel_device(*link));
  last_ifindex_ = link->ifindex;
  if (!link->up) return unavailable(fmt::format("device {} is down", device_));
  return open_device(*link);
}

bool KernelDeviceDriver::still_good(DeviceIo& io, const std::optional<LinkInfo>& link) {
  return link && link->up && link->ifindex == io.ifindex();
}

Status check_kernel_device_port(const VportConfig& config, const VportConfig* current, VportEnvironment& environment) {
  const std::string device = kernel_device_of(config);
  const std::optional<LinkInfo> link = environment.links.find(device);
  const bool stays = current != nullptr && kernel_device_of(*current) == device;
  Status status;
  if (link) {
    status = stays ? Status() : check_kernel_device(*link);
    if (status.ok()) status = check_device_settings(config, *link);
  } else if (!stays) {
    status = not_found(fmt::format("device {} does not exist", device));
  }
  return stays ? status : status.with_prefix("port " + config.name);
}

}  // namespace vswitch
