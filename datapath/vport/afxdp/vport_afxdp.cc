#include "datapath/vport/afxdp/vport_afxdp.h"

#include <fmt/format.h>

#include "datapath/vport/afxdp/afxdp_options.h"
#include "datapath/vport/afxdp/xdp_device.h"
#include "datapath/vport/device_port.h"
#include "datapath/vport/kernel_device.h"

namespace vswitch {
namespace {

class AfxdpDriver final : public KernelDeviceDriver {
 public:
  AfxdpDriver(std::string device, AfxdpOptions options, const LinkMonitor& links)
      : KernelDeviceDriver(std::move(device), links), options_(options) {}

  std::string_view type() const override { return "afxdp"; }

  bool still_good(DeviceIo& io, const std::optional<LinkInfo>& link) override {
    return KernelDeviceDriver::still_good(io, link) && link->mtu <= afxdp::kLargestMtu;
  }

  bool takes_in_place(const VportConfig& from, const VportConfig& to) const override {
    return from.options == to.options;
  }

 private:
  Result<std::unique_ptr<DeviceIo>> open_device(const LinkInfo& link) override {
    Result<std::unique_ptr<afxdp::XdpDevice>> device = afxdp::XdpDevice::open(link, options_);
    if (!device) return device.status();
    return std::unique_ptr<DeviceIo>(std::move(*device));
  }

  const AfxdpOptions options_;
};

Status validate(const VportConfig& config) {
  VSWITCH_RETURN_IF_ERROR(parse_afxdp_options(config).status());
  if (config.mtu_request <= afxdp::kLargestMtu) return {};
  return invalid_argument(fmt::format("port {}: mtu_request is {}; AF_XDP carries frames of up to MTU {}", config.name,
                                      config.mtu_request, afxdp::kLargestMtu),
                          "mtu_request");
}

Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no, VportEnvironment& environment,
                                      bool must_work) {
  const Result<AfxdpOptions> options = parse_afxdp_options(config);
  if (!options.ok()) return options.status();
  return DevicePort::create(config, port_no, environment, must_work,
                            std::make_unique<AfxdpDriver>(kernel_device_of(config), *options, environment.links));
}

}  // namespace

constinit const VportType kAfxdpVportType = {"afxdp", validate, create, nullptr, check_kernel_device_port};

}  // namespace vswitch
