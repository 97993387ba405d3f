// What the services share: the switch, the lock that makes read-change-apply one step, and helpers for replies.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/service_type.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "vswitchd/control/switch.h"
#include "vswitchd/rpc/failure.h"
#include "vswitchd/rpc/transaction_builder.h"

namespace vswitch {

struct ServiceContext {
  Switch& sw;
  std::string version;
  const Clock& clock;  // the switch's, for ages
  // Held from reading the configuration until the Transaction made from it is applied: updates of single fields would
  // otherwise undo each other. Outermost lock.
  Mutex changes;
};

// The only place where a Status becomes a grpc::Status. Details go into the trailing metadata (error.proto).
grpc::Status to_grpc_status(const std::vector<Failure>& failures, grpc::ServerContextBase& call);
grpc::Status to_grpc_status(const Failure& failure, grpc::ServerContextBase& call);
// Without details, for calls that have no message to name a field of.
grpc::Status to_grpc_status(const Status& status);

ConfigSource config_source(const Switch& sw);
// Names of all ports of a bridge. Null without `wanted`.
std::unique_ptr<FlowNames> port_names(const Switch& sw, const std::string& bridge, bool wanted = true);

// Applies what the builder holds; the failure speaks of the request's operations.
struct ApplyOutcome {
  TransactionResult result;
  std::optional<Failure> failure;
};
ApplyOutcome apply(ServiceContext& context, TransactionBuilder& builder) REQUIRES(context.changes);

std::unique_ptr<grpc::Service> make_config_service(ServiceContext& context);
std::unique_ptr<grpc::Service> make_rule_service(ServiceContext& context);
std::unique_ptr<grpc::Service> make_packet_service(ServiceContext& context);
std::unique_ptr<grpc::Service> make_datapath_service(ServiceContext& context);
std::unique_ptr<grpc::Service> make_health_service(ServiceContext& context);

}  // namespace vswitch
