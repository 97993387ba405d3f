#include "datapath/vport/vport_netdev.h"

#include <fmt/format.h>
#include <linux/if.h>

#include <algorithm>
#include <array>

#include "datapath/vport/device_port.h"
#include "datapath/vport/packet_socket.h"
#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

constexpr std::array<std::string_view, 1> kOptions = {"device"};

std::string device_of(const VportConfig& config) {
  const auto device = config.options.find("device");
  return device == config.options.end() ? config.name : device->second;
}

// Why a device cannot be a port, whatever becomes of it.
Status check_device(const LinkInfo& link) {
  // What a host sends to itself would be forwarded to others, and what others send there, answered by nobody.
  if (link.loopback) {
    return failed_precondition(fmt::format("device {} is a loopback device, which cannot be a port", link.name));
  }
  if (!link.ethernet) return failed_precondition(fmt::format("device {} is not an Ethernet device", link.name));
  return {};
}

class NetdevDriver final : public DeviceDriver {
 public:
  NetdevDriver(std::string device, const LinkMonitor& links) : device_(std::move(device)), links_(links) {}

  std::string_view type() const override { return "netdev"; }
  std::string device_name(const VportConfig& config) const override { return device_of(config); }

  Result<std::unique_ptr<DeviceIo>> open(const std::optional<LinkInfo>& link) override {
    if (!link) return why_missing();
    VSWITCH_RETURN_IF_ERROR(check_device(*link));
    last_ifindex_ = link->ifindex;
    if (!link->up) return unavailable(fmt::format("device {} is down", device_));
    Result<std::unique_ptr<PacketSocket>> socket = PacketSocket::open(*link);
    if (!socket) return socket.status();
    return std::unique_ptr<DeviceIo>(std::move(*socket));
  }

  bool still_good(DeviceIo& io, const std::optional<LinkInfo>& link) override {
    return link && link->up && link->ifindex == io.ifindex();
  }

 private:
  Status why_missing() const {
    const std::optional<LinkInfo> renamed = last_ifindex_ == 0 ? std::nullopt : links_.find(last_ifindex_);
    if (renamed) return not_found(fmt::format("device {} was renamed to {}", device_, renamed->name));
    return not_found(fmt::format("device {} does not exist", device_));
  }

  const std::string device_;
  const LinkMonitor& links_;
  uint32_t last_ifindex_ = 0;  // of the device, when it was here last
};

Status validate(const VportConfig& config) {
  VSWITCH_RETURN_IF_ERROR(check_known_options(config, kOptions));
  const std::string device = device_of(config);
  if (device.empty() || device.size() >= ALTIFNAMSIZ || device == "." || device == ".." ||
      std::any_of(device.begin(), device.end(),
                  [](unsigned char c) { return c <= ' ' || c == '/' || c == ':' || c == 0x7f; })) {
    return invalid_argument(
        fmt::format("port {}: \"{}\" is not a name that a Linux device can have", config.name, device),
        config.options.contains("device") ? "options:device" : "name");
  }
  return {};
}

Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no, VportEnvironment& environment,
                                      bool must_work) {
  return DevicePort::create(config, port_no, environment, must_work,
                            std::make_unique<NetdevDriver>(device_of(config), environment.links));
}

Status check(const VportConfig& config, const VportConfig* current, VportEnvironment& environment) {
  const std::string device = device_of(config);
  const std::optional<LinkInfo> link = environment.links.find(device);
  const bool stays = current != nullptr && device_of(*current) == device;
  Status status;
  if (link) {
    status = stays ? Status() : check_device(*link);
    if (status.ok()) status = check_device_settings(config, *link);
  } else if (!stays) {
    status = not_found(fmt::format("device {} does not exist", device));
  }
  return stays ? status : status.with_prefix("port " + config.name);
}

}  // namespace

constinit const VportType kNetdevVportType = {"netdev", validate, create, nullptr, check};

}  // namespace vswitch
