#include "vswitchd/rpc/rpc_server.h"

#include <fmt/format.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "datapath/base/thread_name.h"
#include "vswitchd/rpc/service_context.h"
#include "vswitchd/rpc/unix_socket.h"

namespace vswitch {
namespace {

// Plain calls hold a thread while they run; streams that wait hold none (stream_reactors.h).
constexpr int kMaxThreads = 64;
// One Apply may hold tens of thousands of rules.
constexpr int kMaxReceiveBytes = 64 << 20;
constexpr int kMaxConcurrentStreams = 256;  // per connection

// Waits for what comes from the sockets, at all times. A server with calls that hold a thread and streams that do not
// leaves waiting to the threads of the latter, and these sleep for 100 ms after each second in which no stream had
// anything to do (gRPC 1.51, src/cpp/common/completion_queue_cc.cc): a call that met that took as long. A
// completion queue on which nothing is ever asked for makes who waits on it wait for the sockets, too.
class SocketPoller {
 public:
  // `queue`: of the server, which ends before this. Throws std::system_error if there is no thread for it.
  explicit SocketPoller(grpc::ServerCompletionQueue& queue) : queue_(queue), thread_([this] { run(); }) {}
  ~SocketPoller() {
    queue_.Shutdown();
    thread_.join();
  }
  SocketPoller(const SocketPoller&) = delete;
  SocketPoller& operator=(const SocketPoller&) = delete;

 private:
  void run() {
    name_this_thread("rpc-sockets");
    void* tag = nullptr;
    for (bool ok = false; queue_.Next(&tag, &ok);) {
    }
  }

  grpc::ServerCompletionQueue& queue_;
  std::thread thread_;
};

const MonotonicClock& monotonic_clock() {
  static const MonotonicClock clock;
  return clock;
}

Result<std::string> path_of(const std::string& address) {
  std::string path = address.substr(5);
  if (path.starts_with("//")) path = path.substr(2);  // unix:///absolute
  if (path.empty()) return invalid_argument("--listen " + address + " lacks the path: unix:/run/vswitch/second.sock");
  return path;
}

void limit(grpc::ServerBuilder& builder) {
  grpc::ResourceQuota quota("vswitchd");
  quota.SetMaxThreads(kMaxThreads);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  builder.SetMaxSendMessageSize(-1);
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MAX_POLLERS, 4);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxConcurrentStreams);
  // A client that vanished without closing is noticed, and long streams may ping.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  // Two daemons on one socket would each get some of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

}  // namespace

struct RpcServer::Implementation {
  Implementation(Switch& sw, const RpcServerOptions& options)
      : context{sw, options.version, options.clock != nullptr ? *options.clock : monotonic_clock(), {}} {
    services.push_back(make_config_service(context));
    services.push_back(make_rule_service(context));
    services.push_back(make_packet_service(context));
    services.push_back(make_datapath_service(context));
    services.push_back(make_health_service(context));
  }

  ServiceContext context;
  std::vector<std::unique_ptr<grpc::Service>> services;
  std::vector<std::string> paths;
  std::unique_ptr<grpc::ServerCompletionQueue> queue;
  std::unique_ptr<SocketPoller> poller;
  std::unique_ptr<grpc::Server> server;  // ends before the services it calls, and before the poller and its queue
};

RpcServer::RpcServer(std::unique_ptr<Implementation> impl) : impl_(std::move(impl)) {}

RpcServer::~RpcServer() { shutdown(); }

Status check_listen_address(const std::string& address) {
  if (address.starts_with("unix:")) return path_of(address).status();
  return unimplemented(
      fmt::format("cannot listen on {}: an API on the network needs TLS, which this version does not have yet; use "
                  "unix:PATH, and reach it from afar through ssh -L /tmp/vswitchd.sock:PATH HOST",
                  address));
}

Result<std::unique_ptr<RpcServer>> RpcServer::start(Switch& sw, const RpcServerOptions& options) {
  auto impl = std::make_unique<Implementation>(sw, options);
  impl->paths.push_back(options.socket);
  for (const std::string& address : options.listen) {
    VSWITCH_RETURN_IF_ERROR(check_listen_address(address));
    impl->paths.push_back(*path_of(address));
  }
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  limit(builder);
  for (const std::string& path : impl->paths) {
    VSWITCH_RETURN_IF_ERROR(prepare_socket_path(path));
    builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
  }
  for (const auto& service : impl->services) builder.RegisterService(service.get());
  impl->queue = builder.AddCompletionQueue();
  // The socket is never open to others, not even between bind() and chmod().
  mode_t before = umask(0117);
  impl->server = builder.BuildAndStart();
  umask(before);
  if (impl->server == nullptr) {
    return failed_precondition(fmt::format("cannot listen on unix:{}: is its directory there and writable?",
                                           fmt::join(impl->paths, " or unix:")));
  }
  try {
    impl->poller = std::make_unique<SocketPoller>(*impl->queue);
  } catch (const std::system_error& error) {
    return Status(StatusCode::resource_exhausted,
                  fmt::format("cannot start a thread to wait for the API's sockets: {}", error.code().message()));
  }
  for (const std::string& path : impl->paths) VSWITCH_RETURN_IF_ERROR(restrict_socket(path));
  return std::unique_ptr<RpcServer>(new RpcServer(std::move(impl)));
}

void RpcServer::shutdown() {
  if (impl_->server == nullptr) return;
  impl_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  impl_->server->Wait();
  impl_->server.reset();
  impl_->poller.reset();
  for (const std::string& path : impl_->paths) unlink(path.c_str());
}

}  // namespace vswitch
