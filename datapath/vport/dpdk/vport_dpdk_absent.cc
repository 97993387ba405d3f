// The type in a build without DPDK.
#include "datapath/vport/absent_port.h"
#include "datapath/vport/dpdk/dpdk_options.h"
#include "datapath/vport/dpdk/vport_dpdk.h"

namespace vswitch {
namespace {

Status validate(const VportConfig& config) { return parse_dpdk_options(config).status(); }

Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no, VportEnvironment&, bool must_work) {
  return create_absent_port(config, port_no, must_work, "DPDK (libdpdk-dev)");
}

}  // namespace

constinit const VportType kDpdkVportType = {"dpdk", validate, create, nullptr};

}  // namespace vswitch
