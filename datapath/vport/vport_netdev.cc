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

class NetdevDriver final : public DeviceDriver {
 public:
  explicit NetdevDriver(std::string device) : device_(std::move(device)) {}

  std::string_view type() const override { return "netdev"; }
  std::string device_name(const VportConfig& config) const override { return device_of(config); }

  Result<std::unique_ptr<DeviceIo>> open(const std::optional<LinkInfo>& link) override {
    if (!link) return not_found(fmt::format("device {} does not exist", device_));
    if (!link->up) return unavailable(fmt::format("device {} is down", device_));
    Result<std::unique_ptr<PacketSocket>> socket = PacketSocket::open(*link);
    if (!socket) return socket.status();
    return std::unique_ptr<DeviceIo>(std::move(*socket));
  }

  bool still_good(DeviceIo& io, const std::optional<LinkInfo>& link) override {
    return link && link->up && link->ifindex == io.ifindex();
  }

 private:
  const std::string device_;
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
  return DevicePort::create(config, port_no, environment, must_work, std::make_unique<NetdevDriver>(device_of(config)));
}

}  // namespace

constinit const VportType kNetdevVportType = {"netdev", validate, create, nullptr};

}  // namespace vswitch
