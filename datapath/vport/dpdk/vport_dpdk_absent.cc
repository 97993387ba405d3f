// The type in a build without DPDK: options are checked, so that configurations can be written anywhere; no port opens.
#include "datapath/vport/dpdk/dpdk_options.h"
#include "datapath/vport/dpdk/vport_dpdk.h"

namespace vswitch {
namespace {

Status validate(const VportConfig& config) { return parse_dpdk_options(config).status(); }

Status not_built(const VportConfig& config) {
  return failed_precondition("port " + config.name + ": this vswitchd was built without DPDK (libdpdk-dev)", "type");
}

// Stands for the port when the daemon starts with a configuration that another build made.
class AbsentPort final : public Vport {
 public:
  AbsentPort(const VportConfig& config, uint32_t port_no)
      : Vport(config.name, port_no), error_(not_built(config).message()) {}
  std::string_view type() const override { return "dpdk"; }
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

constinit const VportType kDpdkVportType = {"dpdk", validate, create, nullptr};

}  // namespace vswitch
