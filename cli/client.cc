#include "cli/client.h"

#include <fmt/format.h>
#include <grp.h>
#include <grpcpp/grpcpp.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <system_error>

#include "vswitch/v1/config_service.grpc.pb.h"
#include "vswitch/v1/datapath_service.grpc.pb.h"
#include "vswitch/v1/packet_service.grpc.pb.h"
#include "vswitch/v1/rule_service.grpc.pb.h"

namespace vswitch::cli {
namespace {

constexpr std::chrono::seconds kDefaultTimeout(30);
constexpr int kBulkFactor = 10;  // loads and dumps may take longer
constexpr char kDetailsKey[] = "vswitch-error-bin";

std::string account_name(uid_t uid) {
  const passwd* entry = getpwuid(uid);
  return entry != nullptr ? entry->pw_name : fmt::format("uid {}", uid);
}
std::string group_name(gid_t gid) {
  const group* entry = getgrgid(gid);
  return entry != nullptr ? entry->gr_name : fmt::format("gid {}", gid);
}

// Who may open a socket that we may not.
std::string who_may_open(const std::string& path) {
  struct stat info {};
  const std::string me = account_name(geteuid());
  if (stat(path.c_str(), &info) != 0) {
    return fmt::format("permission denied: {} may not enter its directory; root may", me);
  }
  const std::string owner = account_name(info.st_uid);
  if ((info.st_mode & S_IWGRP) == 0) return fmt::format("permission denied: only {} may open it, not {}", owner, me);
  return fmt::format("permission denied: {} and members of group {} may open it, not {}", owner,
                     group_name(info.st_gid), me);
}

// Why connecting fails, in the system's words; gRPC's are long and name no errno.
std::string connect_error(const std::string& server) {
  std::string path = server.substr(std::min<size_t>(5, server.size()));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fmt::format("the socket path has {} characters; at most {} are possible", path.size(),
                       sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int result = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  int error = errno;
  close(fd);
  if (result == 0) return "it ended the connection";
  if (error == EACCES || error == EPERM) return who_may_open(path);
  const std::string reason = std::error_code(error, std::generic_category()).message();
  const bool down = error == ENOENT || error == ECONNREFUSED;
  return down ? reason + "; is it running?" : reason;
}

}  // namespace

std::string server_address(const std::string& option) {
  if (!option.empty()) return option;
  const char* environment = std::getenv("VSWITCH_SERVER");
  if (environment != nullptr && environment[0] != '\0') return environment;
  return "unix:/run/vswitch/vswitchd.sock";
}

struct Client::Implementation {
  explicit Implementation(const std::string& server) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetMaxReceiveMessageSize(-1);
    channel = grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
  }

  template <typename Service>
  auto stub() {
    return Service::NewStub(channel);
  }

  std::shared_ptr<grpc::Channel> channel;
};

namespace {

class Call {
 public:
  Call(const std::string& server, std::chrono::milliseconds timeout) : server_(server), timeout_(timeout) {
    if (timeout.count() != 0) context.set_deadline(std::chrono::system_clock::now() + timeout);
  }

  Outcome outcome(const grpc::Status& status) {
    if (status.ok()) return {};
    Outcome out;
    out.ok = false;
    out.not_found = status.error_code() == grpc::StatusCode::NOT_FOUND;
    out.timed_out = status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
    out.message = message_of(status);
    auto found = context.GetServerTrailingMetadata().find(kDetailsKey);
    if (found != context.GetServerTrailingMetadata().end()) {
      out.details.ParseFromArray(found->second.data(), static_cast<int>(found->second.size()));
    }
    return out;
  }

  grpc::ClientContext context;

 private:
  std::string message_of(const grpc::Status& status) const {
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      return fmt::format("vswitchd at {} did not answer within {:g} s", server_,
                         static_cast<double>(timeout_.count()) / 1000);
    }
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      return fmt::format("cannot reach vswitchd at {}: {}", server_, connect_error(server_));
    }
    return status.error_message().empty() ? fmt::format("failed with status {}", int{status.error_code()})
                                          : status.error_message();
  }

  const std::string& server_;
  std::chrono::milliseconds timeout_;
};

std::chrono::milliseconds once(std::chrono::milliseconds asked) { return asked.count() != 0 ? asked : kDefaultTimeout; }
std::chrono::milliseconds bulk(std::chrono::milliseconds asked) {
  return asked.count() != 0 ? asked : kBulkFactor * kDefaultTimeout;
}

template <typename Reader, typename Reply>
Outcome read_all(Call& call, Reader& reader, const std::function<bool(Reply&)>& visit) {
  Reply reply;
  while (reader.Read(&reply)) {
    if (visit(reply)) continue;
    call.context.TryCancel();
    while (reader.Read(&reply)) {
    }
    (void)reader.Finish();
    return {};
  }
  return call.outcome(reader.Finish());
}

}  // namespace

Client::Client(std::string server, std::chrono::milliseconds timeout)
    : server_(std::move(server)), timeout_(timeout), impl_(std::make_unique<Implementation>(server_)) {}
Client::~Client() = default;

#define VSWITCH_DEFINE(name, service, method, request_type, reply_type)                     \
  Outcome Client::name(const v1::request_type& request, v1::reply_type* reply) {            \
    Call call(server_, once(timeout_));                                                     \
    return call.outcome(impl_->stub<v1::service>()->method(&call.context, request, reply)); \
  }
VSWITCH_UNARY_CALLS(VSWITCH_DEFINE)
#undef VSWITCH_DEFINE

Outcome Client::list_rules(const v1::ListRulesRequest& request,
                           const std::function<bool(v1::ListRulesResponse&)>& visit) {
  Call call(server_, bulk(timeout_));
  auto reader = impl_->stub<v1::RuleService>()->ListRules(&call.context, request);
  return read_all(call, *reader, visit);
}

Outcome Client::list_datapath_flows(const v1::ListDatapathFlowsRequest& request,
                                    const std::function<bool(v1::ListDatapathFlowsResponse&)>& visit) {
  Call call(server_, bulk(timeout_));
  auto reader = impl_->stub<v1::DatapathService>()->ListDatapathFlows(&call.context, request);
  return read_all(call, *reader, visit);
}

Outcome Client::watch(const v1::WatchRequest& request, const std::function<bool(v1::WatchResponse&)>& visit) {
  Call call(server_, timeout_);
  auto reader = impl_->stub<v1::ConfigService>()->Watch(&call.context, request);
  return read_all(call, *reader, visit);
}

Outcome Client::receive_packets(const std::string& bridge, const std::function<bool(v1::PacketIOResponse&)>& visit) {
  Call call(server_, timeout_);
  auto stream = impl_->stub<v1::PacketService>()->PacketIO(&call.context);
  v1::PacketIORequest request;
  request.mutable_subscribe()->set_bridge(bridge);
  stream->Write(request);
  return read_all(call, *stream, visit);
}

Outcome Client::load_rules(const std::function<Next(v1::LoadRulesRequest&)>& next, v1::LoadRulesResponse* reply) {
  Call call(server_, bulk(timeout_));
  auto writer = impl_->stub<v1::RuleService>()->LoadRules(&call.context, reply);
  v1::LoadRulesRequest message;
  Next step = next(message);
  while (step == Next::more && writer->Write(message)) {
    message.Clear();
    step = next(message);
  }
  if (step == Next::abandon) {
    call.context.TryCancel();
    (void)writer->Finish();
    return Outcome::error("abandoned");
  }
  writer->WritesDone();
  return call.outcome(writer->Finish());
}

}  // namespace vswitch::cli
