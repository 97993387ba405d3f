// DatapathService: flows, counters, drops. See proto/vswitch/v1/datapath_service.proto.
#include <algorithm>

#include "vswitch/v1/datapath_service.grpc.pb.h"
#include "vswitchd/rpc/proto_convert_config.h"
#include "vswitchd/rpc/proto_convert_datapath.h"
#include "vswitchd/rpc/resource_names.h"
#include "vswitchd/rpc/service_context.h"

namespace vswitch {
namespace {

constexpr int kFlowsPerMessage = 256;

class DatapathService final : public v1::DatapathService::Service {
 public:
  explicit DatapathService(ServiceContext& context) : context_(context) {}

  grpc::Status GetDatapath(grpc::ServerContext*, const v1::GetDatapathRequest* request, v1::Datapath* reply) override {
    counters_to_proto(context_.sw.datapath_counters(), *reply);
    if (request->counters_only()) return grpc::Status::OK;
    std::vector<PortInfo> ports = context_.sw.ports();
    std::sort(ports.begin(), ports.end(), [](const PortInfo& a, const PortInfo& b) { return a.dp_port < b.dp_port; });
    for (const PortInfo& port : ports) {
      if (port.dp_port != 0) *reply->add_ports() = to_proto(port);
    }
    return grpc::Status::OK;
  }

  grpc::Status ListDatapathFlows(grpc::ServerContext*, const v1::ListDatapathFlowsRequest* request,
                                 grpc::ServerWriter<v1::ListDatapathFlowsResponse>* writer) override {
    DatapathTextOptions options;
    options.verbose = request->verbose();
    if (request->names()) {
      options.port_name = [this](uint32_t port) { return context_.sw.dp_port_name(port).value_or(""); };
    }
    options.describe_userspace = [this](const UserspaceAction& action) {
      return userspace_text(action, context_.sw.controller_request(action.cookie).get());
    };
    v1::ListDatapathFlowsResponse batch;
    context_.sw.visit_datapath_flows([&](const DatapathFlow& flow) {
      datapath_flow_to_proto(flow, options, request->typed(), *batch.add_flows());
      if (batch.flows_size() < kFlowsPerMessage) return true;
      bool taken = writer->Write(batch);
      batch.Clear();
      return taken;
    });
    if (batch.flows_size() != 0) writer->Write(batch);
    return grpc::Status::OK;
  }

  grpc::Status DeleteDatapathFlows(grpc::ServerContext*, const v1::DeleteDatapathFlowsRequest*,
                                   v1::DeleteDatapathFlowsResponse* reply) override {
    reply->set_flows(context_.sw.delete_datapath_flows());
    return grpc::Status::OK;
  }

  grpc::Status ListMasks(grpc::ServerContext*, const v1::ListMasksRequest*, v1::ListMasksResponse* reply) override {
    for (const FlowTable::MaskInfo& mask : context_.sw.datapath_masks()) mask_to_proto(mask, *reply->add_masks());
    return grpc::Status::OK;
  }

  grpc::Status ListDrops(grpc::ServerContext*, const v1::ListDropsRequest*, v1::ListDropsResponse* reply) override {
    for (const DropCount& drop : context_.sw.drops()) drop_to_proto(drop, *reply->add_drops());
    return grpc::Status::OK;
  }

  grpc::Status ListBalances(grpc::ServerContext*, const v1::ListBalancesRequest*,
                            v1::ListBalancesResponse* reply) override {
    for (const PortBalance& balance : context_.sw.balances()) balance_to_proto(balance, *reply->add_balances());
    return grpc::Status::OK;
  }

  grpc::Status ReceiveOnDummy(grpc::ServerContext* call, const v1::ReceiveOnDummyRequest* request,
                              v1::ReceiveOnDummyResponse* reply) override {
    Result<std::string> port = port_name(request->port(), "port");
    if (!port.ok()) return to_grpc_status(port.status(), *call);
    std::vector<std::vector<uint8_t>> frames;
    for (const std::string& frame : request->frames()) frames.emplace_back(frame.begin(), frame.end());
    if (frames.empty()) return to_grpc_status(invalid_argument("no frame is given", "frames"), *call);
    Result<size_t> taken = context_.sw.receive_on_dummy(*port, frames);
    if (!taken.ok()) return to_grpc_status(taken.status(), *call);
    reply->set_frames(static_cast<uint32_t>(*taken));
    return grpc::Status::OK;
  }

 private:
  ServiceContext& context_;
};

}  // namespace

std::unique_ptr<grpc::Service> make_datapath_service(ServiceContext& context) {
  return std::make_unique<DatapathService>(context);
}

}  // namespace vswitch
