// grpc.health.v1.Health, answered by Switch::healthy(): what the switch's threads say, not that the process exists.
#include <set>

#include "grpc/health/v1/health.grpc.pb.h"
#include "vswitchd/rpc/service_context.h"
#include "vswitchd/rpc/stream_reactors.h"

namespace vswitch {
namespace {

namespace health = grpc::health::v1;
using Base = health::Health::WithCallbackMethod_Watch<health::Health::Service>;
using Response = health::HealthCheckResponse;

bool is_known(const std::string& service) {
  static const std::set<std::string> kServices = {"", "vswitch.v1.ConfigService", "vswitch.v1.RuleService",
                                                  "vswitch.v1.PacketService", "vswitch.v1.DatapathService"};
  return kServices.contains(service);
}

class HealthService final : public Base {
 public:
  explicit HealthService(ServiceContext& context) : context_(context) {}

  grpc::Status Check(grpc::ServerContext*, const health::HealthCheckRequest* request, Response* reply) override {
    if (!is_known(request->service())) return to_grpc_status(not_found("no service named " + request->service()));
    reply->set_status(status(request->service()));
    return grpc::Status::OK;
  }

  grpc::ServerWriteReactor<Response>* Watch(grpc::CallbackServerContext*,
                                            const health::HealthCheckRequest* request) override {
    auto last = std::make_shared<int>(-1);
    auto* reactor = new IntervalReactor<Response>(
        std::chrono::seconds(1), [this, last, service = request->service()](Response& reply) {
          reply.set_status(status(service));
          return std::exchange(*last, int{reply.status()}) != int{reply.status()};
        });
    reactor->start();
    return reactor;
  }

 private:
  Response::ServingStatus status(const std::string& service) const {
    if (!is_known(service)) return Response::SERVICE_UNKNOWN;
    return context_.sw.healthy() ? Response::SERVING : Response::NOT_SERVING;
  }

  ServiceContext& context_;
};

}  // namespace

std::unique_ptr<grpc::Service> make_health_service(ServiceContext& context) {
  return std::make_unique<HealthService>(context);
}

}  // namespace vswitch
