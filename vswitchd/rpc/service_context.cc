#include "vswitchd/rpc/service_context.h"

#include <fmt/format.h>

#include "vswitch/v1/error.pb.h"

namespace vswitch {
namespace {

constexpr char kDetailsKey[] = "vswitch-error-bin";
// Trailing metadata larger than a few kilobytes is refused by many clients.
constexpr size_t kMaxMessage = 300;

grpc::StatusCode code_of(StatusCode code) {
  switch (code) {
    case StatusCode::ok:
      return grpc::StatusCode::OK;
    case StatusCode::invalid_argument:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case StatusCode::not_found:
      return grpc::StatusCode::NOT_FOUND;
    case StatusCode::already_exists:
      return grpc::StatusCode::ALREADY_EXISTS;
    case StatusCode::failed_precondition:
      return grpc::StatusCode::FAILED_PRECONDITION;
    case StatusCode::resource_exhausted:
      return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case StatusCode::unavailable:
      return grpc::StatusCode::UNAVAILABLE;
    case StatusCode::unimplemented:
      return grpc::StatusCode::UNIMPLEMENTED;
    case StatusCode::aborted:
      return grpc::StatusCode::ABORTED;
    case StatusCode::internal:
      return grpc::StatusCode::INTERNAL;
  }
  return grpc::StatusCode::UNKNOWN;
}

// A status message is one line of text. What it quotes of a client's may hold line ends, and bytes that are not UTF-8,
// which protobuf strings may not.
std::string printable(const std::string& text, size_t limit) {
  std::string out;
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += byte < 0x80 ? c : '?';
    }
  }
  if (text.size() > limit) out += "...";
  return out;
}

void detail_to_proto(const Failure& failure, v1::ErrorDetail& out) {
  out.set_field(printable(failure.status.field(), kMaxMessage));
  out.set_message(printable(failure.status.message(), kMaxMessage));
  if (failure.operation) out.set_operation(static_cast<uint32_t>(*failure.operation));
  if (failure.rule_mod) out.set_rule_mod(static_cast<uint32_t>(*failure.rule_mod));
  if (failure.line) out.set_line(*failure.line);
}

}  // namespace

grpc::Status to_grpc_status(const std::vector<Failure>& failures, grpc::ServerContextBase& call) {
  if (failures.empty() || failures.front().ok()) return grpc::Status::OK;
  v1::ErrorDetails details;
  for (const Failure& failure : failures) detail_to_proto(failure, *details.add_details());
  call.AddTrailingMetadata(kDetailsKey, details.SerializeAsString());
  return to_grpc_status(failures.front().status);
}

grpc::Status to_grpc_status(const Failure& failure, grpc::ServerContextBase& call) {
  return to_grpc_status(std::vector<Failure>{failure}, call);
}

grpc::Status to_grpc_status(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {code_of(status.code()), printable(status.message(), 10 * kMaxMessage)};
}

ConfigSource config_source(const Switch& sw) {
  ConfigSource source;
  source.bridge = [&sw](const std::string& name) -> Result<BridgeConfig> {
    Result<BridgeInfo> info = sw.bridge(name);
    if (!info.ok()) return info.status();
    return info->config;
  };
  source.port = [&sw](const std::string& name) { return sw.port_config(name); };
  source.settings = [&sw] { return sw.settings(); };
  source.port_numbers = [&sw](const std::string& bridge) { return sw.port_numbers(bridge); };
  return source;
}

std::unique_ptr<FlowNames> port_names(const Switch& sw, const std::string& bridge, bool wanted) {
  if (!wanted) return nullptr;
  auto names = std::make_unique<FlowNames>();
  for (const auto& [name, number] : sw.port_numbers(bridge)) names->add_port(number, name);
  return names;
}

ApplyOutcome apply(ServiceContext& context, TransactionBuilder& builder) {
  TransactionFailure at;
  Result<TransactionResult> result = context.sw.apply(builder.transaction(), &at);
  if (result.ok()) return {*result, std::nullopt};
  std::optional<size_t> mod;
  const std::vector<Operation>& operations = builder.transaction().operations;
  if (at.operation < operations.size() && std::holds_alternative<ModifyRules>(operations[at.operation])) mod = at.mod;
  return {{}, Failure(result.status(), builder.origin(at.operation), mod)};
}

}  // namespace vswitch
