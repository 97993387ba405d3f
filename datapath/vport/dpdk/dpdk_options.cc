#include "datapath/vport/dpdk/dpdk_options.h"

#include <fmt/format.h>

#include <array>

#include "datapath/vport/port_options.h"
#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

constexpr std::array<std::string_view, 8> kOptions = {
    "dpdk-devargs", "n_rxq", "n_txq", "n_rxq_desc", "n_txq_desc", "dpdk-mbufs", "dpdk-mbuf-size", "dpdk-tx-offloads"};
constexpr uint32_t kMostQueues = 1024;
constexpr uint32_t kMostMbufs = 64u << 20;

}  // namespace

Result<DpdkOptions> parse_dpdk_options(const VportConfig& config) {
  VSWITCH_RETURN_IF_ERROR(check_known_options(config, kOptions));
  DpdkOptions options;
  const auto devargs = config.options.find("dpdk-devargs");
  if (devargs == config.options.end() || devargs->second.empty()) {
    return invalid_argument(
        fmt::format("port {}: type dpdk needs options:dpdk-devargs, the device: a PCI address or, like "
                    "net_pcap0,rx_pcap=FILE, a virtual one",
                    config.name),
        "options:dpdk-devargs");
  }
  options.devargs = devargs->second;
  VSWITCH_RETURN_IF_ERROR(read_number_option(config, "n_rxq", 1, kMostQueues, options.n_rxq));
  VSWITCH_RETURN_IF_ERROR(read_number_option(config, "n_txq", 1, kMostQueues, options.n_txq));
  VSWITCH_RETURN_IF_ERROR(read_number_option(config, "n_rxq_desc", 1, 32768, options.n_rxq_desc));
  VSWITCH_RETURN_IF_ERROR(read_number_option(config, "n_txq_desc", 1, 32768, options.n_txq_desc));
  VSWITCH_RETURN_IF_ERROR(read_number_option(config, "dpdk-mbufs", 1024, kMostMbufs, options.mbufs));
  VSWITCH_RETURN_IF_ERROR(read_number_option(config, "dpdk-mbuf-size", 64, 65000, options.mbuf_size));
  VSWITCH_RETURN_IF_ERROR(read_flag_option(config, "dpdk-tx-offloads", options.tx_offloads));
  return options;
}

}  // namespace vswitch
