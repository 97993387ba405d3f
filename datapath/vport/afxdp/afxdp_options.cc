#include "datapath/vport/afxdp/afxdp_options.h"

#include <fmt/format.h>

#include <array>
#include <bit>

#include "datapath/vport/device_io.h"
#include "datapath/vport/kernel_device.h"
#include "datapath/vport/port_options.h"
#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

constexpr std::array<std::string_view, 7> kOptions = {"device",     "xdp-mode",   "use-need-wakeup", "n_rxq",
                                                      "n_rxq_desc", "n_txq_desc", "umem-frames"};

Status read_ring_size(const VportConfig& config, const char* option, uint32_t& out) {
  constexpr uint32_t kLeast = 64, kMost = 32768;
  VSWITCH_RETURN_IF_ERROR(read_number_option(config, option, kLeast, kMost, out));
  if (std::has_single_bit(out)) return {};
  return wrong_option(config, option, fmt::format("a power of two, {} to {}", kLeast, kMost));
}

Status read_mode(const VportConfig& config, AfxdpOptions& out) {
  const auto found = config.options.find("xdp-mode");
  if (found == config.options.end() || found->second == "best-effort") return {};
  for (const XdpMode mode : {XdpMode::native_zero_copy, XdpMode::native, XdpMode::generic}) {
    if (found->second != xdp_mode_name(mode)) continue;
    out.mode = mode;
    out.best_effort = false;
    return {};
  }
  return wrong_option(config, "xdp-mode", "best-effort, native-with-zerocopy, native or generic");
}

}  // namespace

std::string_view xdp_mode_name(XdpMode mode) {
  switch (mode) {
    case XdpMode::native_zero_copy:
      return "native-with-zerocopy";
    case XdpMode::native:
      return "native";
    case XdpMode::generic:
      return "generic";
  }
  return "";
}

Result<AfxdpOptions> parse_afxdp_options(const VportConfig& config) {
  VSWITCH_RETURN_IF_ERROR(check_known_options(config, kOptions));
  VSWITCH_RETURN_IF_ERROR(check_kernel_device_name(config));
  AfxdpOptions options;
  VSWITCH_RETURN_IF_ERROR(read_mode(config, options));
  VSWITCH_RETURN_IF_ERROR(read_flag_option(config, "use-need-wakeup", options.need_wakeup));
  VSWITCH_RETURN_IF_ERROR(read_number_option(config, "n_rxq", 1, DeviceIo::kMaxQueues, options.n_rxq));
  VSWITCH_RETURN_IF_ERROR(read_ring_size(config, "n_rxq_desc", options.n_rxq_desc));
  VSWITCH_RETURN_IF_ERROR(read_ring_size(config, "n_txq_desc", options.n_txq_desc));
  VSWITCH_RETURN_IF_ERROR(read_number_option(config, "umem-frames", 1024, 4u << 20, options.umem_frames));
  return options;
}

}  // namespace vswitch
