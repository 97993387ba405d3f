#include "datapath/vport/absent_port.h"

#include <fmt/format.h>

#include "datapath/vport/tx_finish.h"

namespace vswitch {
namespace {

class AbsentPort final : public Vport {
 public:
  AbsentPort(const VportConfig& config, uint32_t port_no, std::string error)
      : Vport(config.name, port_no), type_(config.type), error_(std::move(error)) {}
  std::string_view type() const override { return type_; }
  void send(ThreadContext& ctx, PacketBatch& batch) override {
    drop_on_send(ctx, batch, DropReason::port_down, counters_.slot(ctx));
  }
  std::vector<std::shared_ptr<RxSource>> sources() override { return {}; }
  VportState state() const override {
    VportState state;
    state.error = error_;
    return state;
  }
  VportStats stats() const override { return counters_.total(); }
  Status reconfigure(const VportConfig&) override { return {}; }
  Status set_admin_up(bool) override { return {}; }

 private:
  const std::string type_;
  const std::string error_;
  VportCounters counters_;
};

}  // namespace

Result<std::unique_ptr<Vport>> create_absent_port(const VportConfig& config, uint32_t port_no, bool must_work,
                                                  std::string_view lacks) {
  const Status status =
      failed_precondition(fmt::format("port {}: this vswitchd was built without {}", config.name, lacks), "type");
  if (must_work) return status;
  return std::unique_ptr<Vport>(std::make_unique<AbsentPort>(config, port_no, status.message()));
}

}  // namespace vswitch
