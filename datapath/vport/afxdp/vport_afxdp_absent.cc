// The type in a build without AF_XDP: options are checked, so that configurations can be written anywhere; no port
// opens.
#include "datapath/vport/afxdp/afxdp_options.h"
#include "datapath/vport/afxdp/vport_afxdp.h"

namespace vswitch {
namespace {

Status validate(const VportConfig& config) { return parse_afxdp_options(config).status(); }

Status not_built(const VportConfig& config) {
  return failed_precondition(
      "port " + config.name + ": this vswitchd was built without AF_XDP (libxdp-dev, libbpf-dev)", "type");
}

// Stands for the port when the daemon starts with a configuration that another build made.
class AbsentPort final : public Vport {
 public:
  AbsentPort(const VportConfig& config, uint32_t port_no)
      : Vport(config.name, port_no), error_(not_built(config).message()) {}
  std::string_view type() const override { return "afxdp"; }
  void send(ThreadContext& ctx, PacketBatch& batch) override {
    for (size_t i = 0; i < batch.size(); ++i) ctx.drop(batch.release(i), DropReason::port_down);
    batch.reset_released();
  }
  std::vector<std::shared_ptr<RxSource>> sources() override { return {}; }
  VportState state() const override {
    VportState state;
    state.error = error_;
    return state;
  }
  VportStats stats() const override { return {}; }
  Status reconfigure(const VportConfig&) override { return {}; }
  Status set_admin_up(bool) override { return {}; }

 private:
  const std::string error_;
};

Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no, VportEnvironment&, bool must_work) {
  if (must_work) return not_built(config);
  return std::unique_ptr<Vport>(std::make_unique<AbsentPort>(config, port_no));
}

}  // namespace

constinit const VportType kAfxdpVportType = {"afxdp", validate, create, nullptr};

}  // namespace vswitch
