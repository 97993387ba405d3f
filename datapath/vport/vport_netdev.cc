#include "datapath/vport/vport_netdev.h"

#include <fmt/format.h>

#include <array>

#include "datapath/vport/device_port.h"
#include "datapath/vport/kernel_device.h"
#include "datapath/vport/packet_socket.h"
#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

constexpr std::array<std::string_view, 1> kOptions = {"device"};

class NetdevDriver final : public KernelDeviceDriver {
 public:
  NetdevDriver(std::string device, const LinkMonitor& links, KernelPath* kernel_path)
      : KernelDeviceDriver(std::move(device), links), kernel_path_(kernel_path) {}

  std::string_view type() const override { return "netdev"; }

 private:
  Result<std::unique_ptr<DeviceIo>> open_device(const LinkInfo& link) override {
    Result<std::unique_ptr<PacketSocket>> socket = PacketSocket::open(link, kernel_path_);
    if (!socket) return socket.status();
    return std::unique_ptr<DeviceIo>(std::move(*socket));
  }

  KernelPath* const kernel_path_;
};

Status validate(const VportConfig& config) {
  VSWITCH_RETURN_IF_ERROR(check_known_options(config, kOptions));
  return check_kernel_device_name(config);
}

Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no, VportEnvironment& environment,
                                      bool must_work) {
  return DevicePort::create(
      config, port_no, environment, must_work,
      std::make_unique<NetdevDriver>(kernel_device_of(config), environment.links, environment.kernel_path));
}

}  // namespace

constinit const VportType kNetdevVportType = {"netdev", validate, create, nullptr, check_kernel_device_port};

}  // namespace vswitch
