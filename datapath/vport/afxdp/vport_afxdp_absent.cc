// The type in a build without AF_XDP.
#include "datapath/vport/absent_port.h"
#include "datapath/vport/afxdp/afxdp_options.h"
#include "datapath/vport/afxdp/vport_afxdp.h"

namespace vswitch {
namespace {

Status validate(const VportConfig& config) { return parse_afxdp_options(config).status(); }

Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no, VportEnvironment&, bool must_work) {
  return create_absent_port(config, port_no, must_work, "AF_XDP (libxdp-dev, libbpf-dev)");
}

}  // namespace

constinit const VportType kAfxdpVportType = {"afxdp", validate, create, nullptr};

}  // namespace vswitch
