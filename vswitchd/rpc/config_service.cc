// ConfigService: bridges, ports, settings, batches, watching. See proto/vswitch/v1/config_service.proto.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "vswitch/v1/config_service.grpc.pb.h"
#include "vswitchd/rpc/proto_convert_config.h"
#include "vswitchd/rpc/proto_convert_rule.h"
#include "vswitchd/rpc/resource_names.h"
#include "vswitchd/rpc/service_context.h"
#include "vswitchd/rpc/stream_reactors.h"

namespace vswitch {
namespace {

// A watcher may be this many changes behind: a batch of 100,000 rules must not throw it out.
constexpr size_t kWatchQueue = 262'144;
constexpr uint32_t kMinIntervalMs = 100;

using Base = v1::ConfigService::WithCallbackMethod_Watch<
    v1::ConfigService::WithCallbackMethod_WatchPortStatistics<v1::ConfigService::Service>>;

// ---------------------------------------------------------------- pages

// A page token is the name of the last item of the page before: items are sorted by name, so a page stays right while
// others come and go.
template <typename Item, typename Name>
Status cut_page(std::vector<Item>& items, int32_t page_size, const std::string& token, Name&& name_of,
                std::string* next) {
  if (page_size < 0) return invalid_argument("page_size is negative", "page_size");
  std::sort(items.begin(), items.end(), [&](const Item& a, const Item& b) { return name_of(a) < name_of(b); });
  auto begin = token.empty()
                   ? items.begin()
                   : std::find_if(items.begin(), items.end(), [&](const Item& item) { return name_of(item) > token; });
  items.erase(items.begin(), begin);
  size_t size = static_cast<size_t>(page_size);
  if (size != 0 && items.size() > size) {
    items.erase(items.begin() + page_size, items.end());
    *next = name_of(items.back());
  }
  return {};
}

// ---------------------------------------------------------------- watching

v1::ChangeKind kind_to_proto(ChangeEvent::Kind kind) {
  switch (kind) {
    case ChangeEvent::Kind::bridge_created:
      return v1::CHANGE_KIND_BRIDGE_CREATED;
    case ChangeEvent::Kind::bridge_changed:
      return v1::CHANGE_KIND_BRIDGE_CHANGED;
    case ChangeEvent::Kind::bridge_deleted:
      return v1::CHANGE_KIND_BRIDGE_DELETED;
    case ChangeEvent::Kind::port_created:
      return v1::CHANGE_KIND_PORT_CREATED;
    case ChangeEvent::Kind::port_changed:
      return v1::CHANGE_KIND_PORT_CHANGED;
    case ChangeEvent::Kind::port_deleted:
      return v1::CHANGE_KIND_PORT_DELETED;
    case ChangeEvent::Kind::port_state:
      return v1::CHANGE_KIND_PORT_STATE;
    case ChangeEvent::Kind::settings_changed:
      return v1::CHANGE_KIND_SETTINGS_CHANGED;
    case ChangeEvent::Kind::rule_added:
      return v1::CHANGE_KIND_RULE_ADDED;
    case ChangeEvent::Kind::rule_modified:
      return v1::CHANGE_KIND_RULE_MODIFIED;
    case ChangeEvent::Kind::rule_removed:
      return v1::CHANGE_KIND_RULE_REMOVED;
  }
  return v1::CHANGE_KIND_UNSPECIFIED;
}

v1::RemovedReason reason_to_proto(RemovedReason reason) {
  switch (reason) {
    case RemovedReason::idle_timeout:
      return v1::REMOVED_REASON_IDLE_TIMEOUT;
    case RemovedReason::hard_timeout:
      return v1::REMOVED_REASON_HARD_TIMEOUT;
    case RemovedReason::deleted:
      return v1::REMOVED_REASON_DELETED;
    case RemovedReason::evicted:
      return v1::REMOVED_REASON_EVICTED;
  }
  return v1::REMOVED_REASON_UNSPECIFIED;
}

struct WatchFilter {
  std::vector<bool> kinds;  // by ChangeKind; empty: all
  std::string bridge;       // "": all

  bool takes(v1::ChangeKind kind, const ChangeEvent& event) const {
    return (kinds.empty() || kinds[static_cast<size_t>(kind)]) && (bridge.empty() || event.bridge == bridge);
  }
};

Result<WatchFilter> watch_filter(const v1::WatchRequest& request) {
  WatchFilter out;
  Result<std::string> bridge = optional_bridge_name(request.bridge(), "bridge");
  if (!bridge.ok()) return bridge.status();
  out.bridge = *bridge;
  if (request.kinds_size() != 0) out.kinds.resize(v1::ChangeKind_ARRAYSIZE);
  for (int kind : request.kinds()) {
    if (!v1::ChangeKind_IsValid(kind)) return invalid_argument("unknown kind of change", "kinds");
    out.kinds[static_cast<size_t>(kind)] = true;
  }
  return out;
}

v1::WatchResponse event_to_proto(const ChangeEvent& event, v1::ChangeKind kind) {
  v1::WatchResponse out;
  out.set_revision(event.revision);
  out.set_kind(kind);
  out.set_bridge(bridge_resource(event.bridge));
  out.set_port(port_resource(event.port));
  if (event.rule) {
    RuleViewOptions options;
    options.text = true;
    rule_to_proto(*event.rule, options, *out.mutable_rule());
  } else if (event.rule_id != 0) {
    out.mutable_rule()->set_id(event.rule_id);
  }
  if (kind == v1::CHANGE_KIND_RULE_REMOVED) out.set_removed_reason(reason_to_proto(event.removed_reason));
  return out;
}

// ---------------------------------------------------------------- the service

class ConfigService final : public Base {
 public:
  explicit ConfigService(ServiceContext& context) : context_(context) {}

  grpc::Status GetVersion(grpc::ServerContext*, const v1::GetVersionRequest*, v1::GetVersionResponse* reply) override {
    reply->set_version(context_.version);
    reply->set_revision(context_.sw.revision());
    return grpc::Status::OK;
  }

  grpc::Status GetConfiguration(grpc::ServerContext* call, const v1::GetConfigurationRequest* request,
                                v1::Configuration* reply) override {
    Result<std::string> bridge = optional_bridge_name(request->bridge(), "bridge");
    if (!bridge.ok()) return to_grpc_status(bridge.status(), *call);
    // Read without keeping changes out, and read again if there was one meanwhile.
    uint64_t revision = 0;
    do {
      revision = context_.sw.revision();
      reply->Clear();
      Status status = fill_configuration(*bridge, reply);
      if (!status.ok()) return to_grpc_status(status, *call);
    } while (revision != context_.sw.revision() && !call->IsCancelled());
    reply->set_version(context_.version);
    reply->set_revision(revision);
    return grpc::Status::OK;
  }

  // ---- bridges

  grpc::Status GetBridge(grpc::ServerContext* call, const v1::GetBridgeRequest* request, v1::Bridge* reply) override {
    Result<std::string> name = bridge_name(request->name(), "name");
    if (!name.ok()) return to_grpc_status(name.status(), *call);
    return fill_bridge(call, *name, reply);
  }

  grpc::Status ListBridges(grpc::ServerContext* call, const v1::ListBridgesRequest* request,
                           v1::ListBridgesResponse* reply) override {
    std::vector<BridgeInfo> bridges = context_.sw.bridges();
    Status status = cut_page(
        bridges, request->page_size(), request->page_token(),
        [](const BridgeInfo& b) -> const std::string& { return b.config.name; }, reply->mutable_next_page_token());
    for (const BridgeInfo& bridge : bridges) *reply->add_bridges() = to_proto(bridge);
    return to_grpc_status(status, *call);
  }

  grpc::Status CreateBridge(grpc::ServerContext* call, const v1::CreateBridgeRequest* request,
                            v1::Bridge* reply) override {
    std::optional<grpc::Status> failed =
        change(call, request->validate_only(), [&](TransactionBuilder& b) { return b.create_bridge(*request); });
    return failed ? *failed : echo_bridge(call, request->bridge(), request->validate_only(), reply);
  }

  grpc::Status UpdateBridge(grpc::ServerContext* call, const v1::UpdateBridgeRequest* request,
                            v1::Bridge* reply) override {
    std::optional<grpc::Status> failed =
        change(call, request->validate_only(), [&](TransactionBuilder& b) { return b.update_bridge(*request); });
    return failed ? *failed : echo_bridge(call, request->bridge(), request->validate_only(), reply);
  }

  grpc::Status DeleteBridge(grpc::ServerContext* call, const v1::DeleteBridgeRequest* request,
                            v1::DeleteBridgeResponse*) override {
    return change(call, request->validate_only(), [&](TransactionBuilder& b) { return b.delete_bridge(*request); })
        .value_or(grpc::Status::OK);
  }

  // ---- ports

  grpc::Status GetPort(grpc::ServerContext* call, const v1::GetPortRequest* request, v1::Port* reply) override {
    Result<std::string> name = port_name(request->name(), "name");
    if (!name.ok()) return to_grpc_status(name.status(), *call);
    return fill_port(call, *name, reply);
  }

  grpc::Status ListPorts(grpc::ServerContext* call, const v1::ListPortsRequest* request,
                         v1::ListPortsResponse* reply) override {
    Result<std::string> bridge = optional_bridge_name(request->bridge(), "bridge");
    if (!bridge.ok()) return to_grpc_status(bridge.status(), *call);
    if (!bridge->empty()) {
      if (Result<BridgeInfo> info = context_.sw.bridge(*bridge); !info.ok())
        return to_grpc_status(info.status(), *call);
    }
    std::vector<PortInfo> ports = context_.sw.ports(*bridge);
    Status status = cut_page(
        ports, request->page_size(), request->page_token(),
        [](const PortInfo& p) -> const std::string& { return p.config.name(); }, reply->mutable_next_page_token());
    for (const PortInfo& port : ports) *reply->add_ports() = to_proto(port);
    return to_grpc_status(status, *call);
  }

  grpc::Status CreatePort(grpc::ServerContext* call, const v1::CreatePortRequest* request, v1::Port* reply) override {
    std::optional<grpc::Status> failed =
        change(call, request->validate_only(), [&](TransactionBuilder& b) { return b.create_port(*request); });
    return failed ? *failed : echo_port(call, request->port(), request->validate_only(), reply);
  }

  grpc::Status UpdatePort(grpc::ServerContext* call, const v1::UpdatePortRequest* request, v1::Port* reply) override {
    std::optional<grpc::Status> failed =
        change(call, request->validate_only(), [&](TransactionBuilder& b) { return b.update_port(*request); });
    return failed ? *failed : echo_port(call, request->port(), request->validate_only(), reply);
  }

  grpc::Status DeletePort(grpc::ServerContext* call, const v1::DeletePortRequest* request,
                          v1::DeletePortResponse*) override {
    return change(call, request->validate_only(), [&](TransactionBuilder& b) { return b.delete_port(*request); })
        .value_or(grpc::Status::OK);
  }

  // ---- settings, batches

  grpc::Status GetSettings(grpc::ServerContext*, const v1::GetSettingsRequest*, v1::Settings* reply) override {
    *reply = to_proto(context_.sw.settings());
    return grpc::Status::OK;
  }

  grpc::Status UpdateSettings(grpc::ServerContext* call, const v1::UpdateSettingsRequest* request,
                              v1::Settings* reply) override {
    std::optional<grpc::Status> failed =
        change(call, request->validate_only(), [&](TransactionBuilder& b) { return b.update_settings(*request); });
    if (failed) return *failed;
    *reply = request->validate_only() ? request->settings() : to_proto(context_.sw.settings());
    return grpc::Status::OK;
  }

  grpc::Status Apply(grpc::ServerContext* call, const v1::ApplyRequest* request, v1::ApplyResponse* reply) override {
    const RightOfWay::Taken taken = context_.sw.take_right_of_way();
    MutexLock lock(context_.changes);
    TransactionBuilder builder(config_source(context_.sw));
    if (std::optional<Failure> failure = builder.add_all(*request)) return to_grpc_status(*failure, *call);
    ApplyOutcome outcome = apply(context_, builder);
    if (outcome.failure) return to_grpc_status(*outcome.failure, *call);
    reply->set_revision(outcome.result.revision);
    reply->set_rules_added(outcome.result.rules_added);
    reply->set_rules_removed(outcome.result.rules_removed);
    return grpc::Status::OK;
  }

  // ---- watching

  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(grpc::CallbackServerContext* call,
                                                     const v1::WatchRequest* request) override {
    Result<WatchFilter> filter = watch_filter(*request);
    if (!filter.ok()) return new RefusingReactor<v1::WatchResponse>(to_grpc_status(filter.status(), *call));
    auto* reactor = new QueueReactor<v1::WatchResponse>(kWatchQueue);
    reactor->set_source(context_.sw.watch([reactor, filter = *filter](const ChangeEvent& event) {
      v1::ChangeKind kind = kind_to_proto(event.kind);
      if (filter.takes(kind, event)) reactor->push(event_to_proto(event, kind));
    }));
    // Read after subscribing: a change in between is reported twice rather than never.
    v1::WatchResponse started;
    started.set_kind(v1::CHANGE_KIND_STARTED);
    started.set_revision(context_.sw.revision());
    if (request->has_from_revision() && request->from_revision() != started.revision()) {
      reactor->finish(
          {grpc::StatusCode::OUT_OF_RANGE,
           fmt::format("the configuration is at revision {}, and changes since {} are not kept: list again, "
                       "then watch",
                       started.revision(), request->from_revision())});
    } else {
      reactor->open(std::move(started));
    }
    return reactor;
  }

  grpc::ServerWriteReactor<v1::WatchPortStatisticsResponse>* WatchPortStatistics(
      grpc::CallbackServerContext* call, const v1::WatchPortStatisticsRequest* request) override {
    using Response = v1::WatchPortStatisticsResponse;
    Result<std::string> bridge = optional_bridge_name(request->bridge(), "bridge");
    Status status = bridge.status();
    if (status.ok() && !bridge->empty()) status = context_.sw.bridge(*bridge).status();
    uint32_t interval = request->interval_ms() == 0 ? 1000 : request->interval_ms();
    if (interval < kMinIntervalMs) status = invalid_argument("the interval is 100 ms at least", "interval_ms");
    if (!status.ok()) return new RefusingReactor<Response>(to_grpc_status(status, *call));
    auto* reactor =
        new IntervalReactor<Response>(std::chrono::milliseconds(interval), [this, name = *bridge](Response& reply) {
          for (const PortInfo& info : context_.sw.ports(name)) {
            v1::Port& port = *reply.add_ports();
            port.set_name(port_resource(info.config.name()));
            port.set_bridge(bridge_resource(info.config.bridge));
            port.set_ofport(info.ofport);
            *port.mutable_state() = to_proto(info.state);
            *port.mutable_statistics() = to_proto(info.stats);
          }
          return true;
        });
    reactor->start();
    return reactor;
  }

 private:
  // One standard method as a transaction of one step; nullopt: done.
  template <typename AddStep>
  std::optional<grpc::Status> change(grpc::ServerContext* call, bool validate_only, AddStep&& add_step) {
    MutexLock lock(context_.changes);
    TransactionBuilder builder(config_source(context_.sw));
    Status status = add_step(builder);
    if (!status.ok()) return to_grpc_status(status, *call);
    builder.transaction().validate_only = validate_only;
    ApplyOutcome outcome = apply(context_, builder);
    if (!outcome.failure) return std::nullopt;
    outcome.failure->operation.reset();
    return to_grpc_status(*outcome.failure, *call);
  }

  Status fill_configuration(const std::string& bridge, v1::Configuration* reply) {
    *reply->mutable_settings() = to_proto(context_.sw.settings());
    if (bridge.empty()) {
      for (const BridgeInfo& info : context_.sw.bridges()) *reply->add_bridges() = to_proto(info);
    } else {
      Result<BridgeInfo> info = context_.sw.bridge(bridge);
      if (!info.ok()) return info.status();
      *reply->add_bridges() = to_proto(*info);
    }
    for (const PortInfo& port : context_.sw.ports(bridge)) *reply->add_ports() = to_proto(port);
    const auto by_name = [](const auto& a, const auto& b) { return a.name() < b.name(); };
    std::sort(reply->mutable_bridges()->begin(), reply->mutable_bridges()->end(), by_name);
    std::sort(reply->mutable_ports()->begin(), reply->mutable_ports()->end(), by_name);
    return {};
  }

  grpc::Status fill_bridge(grpc::ServerContext* call, const std::string& name, v1::Bridge* reply) {
    Result<BridgeInfo> info = context_.sw.bridge(name);
    if (!info.ok()) return to_grpc_status(info.status(), *call);
    *reply = to_proto(*info);
    return grpc::Status::OK;
  }

  grpc::Status fill_port(grpc::ServerContext* call, const std::string& name, v1::Port* reply) {
    Result<PortInfo> info = context_.sw.port(name);
    if (!info.ok()) return to_grpc_status(info.status(), *call);
    *reply = to_proto(*info);
    return grpc::Status::OK;
  }

  grpc::Status echo_bridge(grpc::ServerContext* call, const v1::Bridge& asked, bool dry_run, v1::Bridge* reply) {
    if (!dry_run) return fill_bridge(call, bridge_name(asked.name(), "name").value(), reply);
    *reply = asked;
    return grpc::Status::OK;
  }

  grpc::Status echo_port(grpc::ServerContext* call, const v1::Port& asked, bool dry_run, v1::Port* reply) {
    if (!dry_run) return fill_port(call, port_name(asked.name(), "name").value(), reply);
    *reply = asked;
    return grpc::Status::OK;
  }

  ServiceContext& context_;
};

}  // namespace

std::unique_ptr<grpc::Service> make_config_service(ServiceContext& context) {
  return std::make_unique<ConfigService>(context);
}

}  // namespace vswitch
