// RuleService: rules, tables, trace, learned addresses. See proto/vswitch/v1/rule_service.proto.
#include <fmt/format.h>

#include "vswitch/v1/rule_service.grpc.pb.h"
#include "vswitchd/rpc/proto_convert_rule.h"
#include "vswitchd/rpc/proto_convert_trace.h"
#include "vswitchd/rpc/resource_names.h"
#include "vswitchd/rpc/rule_difference.h"
#include "vswitchd/rpc/rule_stream.h"
#include "vswitchd/rpc/service_context.h"

namespace vswitch {
namespace {

constexpr size_t kRulesPerMessage = 256;
constexpr uint16_t kMaxVlan = 4095;

Result<MacAddress> mac_from_request(const std::string& text) {
  if (auto mac = MacAddress::parse(text)) return *mac;
  return invalid_argument("\"" + text + "\" is not an Ethernet address: write it as 0a:00:00:00:00:01", "mac");
}

Status check_vlan(uint32_t vlan) {
  if (vlan <= kMaxVlan) return {};
  return invalid_argument(fmt::format("VLAN {} is out of range: 0 to {}", vlan, kMaxVlan), "vlan");
}

class RuleService final : public v1::RuleService::Service {
 public:
  explicit RuleService(ServiceContext& context) : context_(context) {}

  // ---- changes

  grpc::Status ModifyRules(grpc::ServerContext* call, const v1::ModifyRulesRequest* request,
                           v1::ModifyRulesResponse* reply) override {
    v1::RuleChanges changes;
    changes.set_bridge(request->bridge());
    *changes.mutable_mods() = request->mods();
    MutexLock lock(context_.changes);
    TransactionBuilder builder(config_source(context_.sw));
    size_t mod = 0;
    Status status = builder.modify_rules(changes, &mod);
    if (!status.ok()) return to_grpc_status(Failure(status, std::nullopt, mod), *call);
    builder.transaction().validate_only = request->validate_only();
    ApplyOutcome outcome = apply(context_, builder);
    if (outcome.failure) {
      outcome.failure->operation.reset();
      return to_grpc_status(*outcome.failure, *call);
    }
    reply->set_revision(outcome.result.revision);
    reply->set_rules_added(outcome.result.rules_added);
    reply->set_rules_removed(outcome.result.rules_removed);
    return grpc::Status::OK;
  }

  grpc::Status DeleteRules(grpc::ServerContext* call, const v1::DeleteRulesRequest* request,
                           v1::DeleteRulesResponse* reply) override {
    MutexLock lock(context_.changes);
    Selection selection = select(request->bridge(), request->filter());
    if (!selection.status.ok()) return to_grpc_status(selection.status, *call);
    Transaction transaction;
    transaction.validate_only = request->validate_only();
    transaction.operations.push_back(vswitch::ModifyRules{selection.bridge, {deletion_of(selection.filter)}});
    Result<TransactionResult> result = context_.sw.apply(transaction);
    if (!result.ok()) return to_grpc_status(result.status(), *call);
    reply->set_revision(result->revision);
    reply->set_rules_removed(result->rules_removed);
    return grpc::Status::OK;
  }

  grpc::Status LoadRules(grpc::ServerContext* call, grpc::ServerReader<v1::LoadRulesRequest>* reader,
                         v1::LoadRulesResponse* reply) override {
    v1::LoadRulesRequest message;
    if (!reader->Read(&message)) {
      return to_grpc_status(invalid_argument("the stream ended before its first message, which names the bridge"),
                            *call);
    }
    Load load;
    load.replace = message.replace();
    load.validate_only = message.validate_only();
    load.report = message.report_differences();
    Result<std::string> bridge = bridge_name(message.bridge(), "bridge");
    if (!bridge.ok()) return to_grpc_status(bridge.status(), *call);
    load.bridge = *bridge;
    Result<BridgeInfo> info = context_.sw.bridge(load.bridge);
    if (!info.ok()) return to_grpc_status(info.status(), *call);
    // Parsed while the stream comes in, without the lock: only names of ports are looked up.
    ConfigSource source = config_source(context_.sw);
    LazyNames names(source, load.bridge);
    RuleStream stream(names, load.replace ? info->rules : 0);
    bool more = true;
    do {
      more = stream.add_text(message.text());
      for (const v1::RuleMod& mod : message.mods()) more = more && stream.add_mod(mod);
    } while (more && reader->Read(&message));
    if (call->IsCancelled()) return grpc::Status::CANCELLED;
    if (more) stream.finish();
    if (!stream.ok()) return to_grpc_status(stream.failures(), *call);
    return finish_load(call, load, stream, reply);
  }

  // ---- reading

  grpc::Status ListRules(grpc::ServerContext* call, const v1::ListRulesRequest* request,
                         grpc::ServerWriter<v1::ListRulesResponse>* writer) override {
    Selection selection = select(request->bridge(), request->filter());
    if (!selection.status.ok()) return to_grpc_status(selection.status, *call);
    std::unique_ptr<FlowNames> names = port_names(context_.sw, selection.bridge, request->names());
    RuleViewOptions view;
    view.typed = request->view() != v1::RULE_VIEW_TEXT;
    view.text = request->view() == v1::RULE_VIEW_TEXT || request->view() == v1::RULE_VIEW_FULL;
    view.statistics = !request->omit_statistics();
    view.names = names.get();
    v1::ListRulesResponse batch;
    Status status = context_.sw.visit_rules(selection.bridge, selection.filter, [&](const RuleInfo& rule) {
      rule_to_proto(rule, view, *batch.add_rules());
      if (batch.rules_size() < static_cast<int>(kRulesPerMessage)) return true;
      bool taken = writer->Write(batch);
      batch.Clear();
      return taken;  // false: the client went away or its deadline passed
    });
    if (status.ok() && batch.rules_size() != 0) writer->Write(batch);
    return to_grpc_status(status, *call);
  }

  grpc::Status AggregateRules(grpc::ServerContext* call, const v1::AggregateRulesRequest* request,
                              v1::AggregateRulesResponse* reply) override {
    Selection selection = select(request->bridge(), request->filter());
    if (!selection.status.ok()) return to_grpc_status(selection.status, *call);
    Result<Switch::Aggregate> sum = context_.sw.aggregate(selection.bridge, selection.filter);
    if (!sum.ok()) return to_grpc_status(sum.status(), *call);
    reply->set_packets(sum->packets);
    reply->set_bytes(sum->bytes);
    reply->set_rules(sum->rules);
    return grpc::Status::OK;
  }

  grpc::Status ListTables(grpc::ServerContext* call, const v1::ListTablesRequest* request,
                          v1::ListTablesResponse* reply) override {
    Result<std::string> bridge = bridge_name(request->bridge(), "bridge");
    if (!bridge.ok()) return to_grpc_status(bridge.status(), *call);
    auto tables = context_.sw.table_stats(*bridge);
    if (!tables.ok()) return to_grpc_status(tables.status(), *call);
    for (size_t i = 0; i < tables->size(); ++i) {
      v1::TableStatistics& out = *reply->add_tables();
      out.set_table(static_cast<uint32_t>(i));
      out.set_rules((*tables)[i].rules);
      out.set_lookups((*tables)[i].lookups);
      out.set_matches((*tables)[i].matches);
    }
    return grpc::Status::OK;
  }

  // ---- trace

  grpc::Status Trace(grpc::ServerContext* call, const v1::TraceRequest* request, v1::TraceResponse* reply) override {
    TraceRequest trace;
    Result<std::string> bridge = bridge_name(request->bridge(), "bridge");
    if (!bridge.ok()) return to_grpc_status(bridge.status(), *call);
    trace.bridge = *bridge;
    if (Result<BridgeInfo> info = context_.sw.bridge(trace.bridge); !info.ok()) {
      return to_grpc_status(info.status(), *call);
    }
    std::unique_ptr<FlowNames> names = port_names(context_.sw, trace.bridge);
    Result<PipelineKey> key = flow_from_proto(request->flow(), names.get());
    if (!key.ok()) return to_grpc_status(key.status(), *call);
    trace.key = *key;
    trace.packet.assign(request->packet().begin(), request->packet().end());
    trace.allow_side_effects = request->allow_side_effects();
    trace.names = request->names();
    Result<TraceResult> result = context_.sw.trace(trace);
    if (!result.ok()) return to_grpc_status(result.status(), *call);
    TraceTextOptions options;
    if (request->names()) {
      options.dp_port_name = [this](uint32_t port) { return context_.sw.dp_port_name(port).value_or(""); };
    }
    trace_to_proto(*result, options, *reply);
    return grpc::Status::OK;
  }

  // ---- learned addresses

  grpc::Status ListMacs(grpc::ServerContext* call, const v1::ListMacsRequest* request,
                        v1::ListMacsResponse* reply) override {
    Result<std::string> bridge = bridge_name(request->bridge(), "bridge");
    if (!bridge.ok()) return to_grpc_status(bridge.status(), *call);
    Result<std::vector<MacEntry>> entries = context_.sw.mac_entries(*bridge);
    if (!entries.ok()) return to_grpc_status(entries.status(), *call);
    std::map<OfPort, std::string> port_of;
    for (const auto& [name, number] : context_.sw.port_numbers(*bridge)) port_of[number] = name;
    Nanoseconds now = context_.clock.now();
    for (const MacEntry& entry : *entries) {
      v1::MacEntry& out = *reply->add_entries();
      out.set_vlan(entry.vlan);
      out.set_mac(entry.mac.to_string());
      out.set_ofport(entry.port);
      if (auto it = port_of.find(entry.port); it != port_of.end()) out.set_port(port_resource(it->second));
      out.set_is_static(entry.is_static);
      auto age = std::chrono::duration_cast<std::chrono::seconds>(now - entry.seen).count();
      if (!entry.is_static) out.set_age_seconds(static_cast<uint32_t>(std::max<int64_t>(0, age)));
    }
    return grpc::Status::OK;
  }

  grpc::Status AddMac(grpc::ServerContext* call, const v1::AddMacRequest* request, v1::AddMacResponse*) override {
    Result<std::string> bridge = bridge_name(request->bridge(), "bridge");
    if (!bridge.ok()) return to_grpc_status(bridge.status(), *call);
    Result<std::string> port = port_name(request->port(), "port");
    if (!port.ok()) return to_grpc_status(port.status(), *call);
    Result<MacAddress> mac = mac_from_request(request->mac());
    if (!mac.ok()) return to_grpc_status(mac.status(), *call);
    Status status = check_vlan(request->vlan());
    if (status.ok()) {
      status = context_.sw.add_static_mac(*bridge, static_cast<uint16_t>(request->vlan()), *mac, *port);
    }
    return to_grpc_status(status, *call);
  }

  grpc::Status DeleteMac(grpc::ServerContext* call, const v1::DeleteMacRequest* request,
                         v1::DeleteMacResponse*) override {
    Result<std::string> bridge = bridge_name(request->bridge(), "bridge");
    if (!bridge.ok()) return to_grpc_status(bridge.status(), *call);
    Result<MacAddress> mac = mac_from_request(request->mac());
    if (!mac.ok()) return to_grpc_status(mac.status(), *call);
    Status status = check_vlan(request->vlan());
    if (status.ok()) status = context_.sw.remove_mac(*bridge, static_cast<uint16_t>(request->vlan()), *mac);
    return to_grpc_status(status, *call);
  }

  grpc::Status FlushMacs(grpc::ServerContext* call, const v1::FlushMacsRequest* request,
                         v1::FlushMacsResponse*) override {
    Result<std::string> bridge = bridge_name(request->bridge(), "bridge");
    if (!bridge.ok()) return to_grpc_status(bridge.status(), *call);
    return to_grpc_status(context_.sw.flush_macs(*bridge), *call);
  }

 private:
  struct Selection {
    Status status;
    std::string bridge;
    RuleFilter filter;
  };
  Selection select(const std::string& resource, const v1::RuleFilter& proto) {
    Result<std::string> bridge = bridge_name(resource, "bridge");
    if (!bridge.ok()) return {bridge.status(), {}, {}};
    if (Result<BridgeInfo> info = context_.sw.bridge(*bridge); !info.ok()) return {info.status(), {}, {}};
    ConfigSource source = config_source(context_.sw);
    LazyNames names(source, *bridge);
    Result<RuleFilter> filter =
        names.parse([&](const FlowNames* known) { return rule_filter_from_proto(proto, known); });
    if (!filter.ok()) return {filter.status(), {}, {}};
    return {{}, *bridge, *std::move(filter)};
  }

  struct Load {
    std::string bridge;
    bool replace = false, validate_only = false, report = false;
  };

  grpc::Status finish_load(grpc::ServerContext* call, const Load& load, RuleStream& stream,
                           v1::LoadRulesResponse* reply) {
    MutexLock lock(context_.changes);
    Transaction transaction;
    transaction.validate_only = load.validate_only;
    if (load.replace) {
      Result<RuleDifference> difference = difference_of(load, stream);
      if (!difference.ok()) return to_grpc_status(difference.status(), *call);
      if (load.report) report(*difference, reply);
      transaction.operations.push_back(vswitch::ModifyRules{load.bridge, std::move(difference->mods)});
    } else {
      transaction.operations.push_back(vswitch::ModifyRules{load.bridge, std::move(stream.mods())});
    }
    TransactionFailure at;
    Result<TransactionResult> result = context_.sw.apply(transaction, &at);
    if (!result.ok()) {
      // With `replace` the list applied is not the list that came in, so its index says nothing.
      Failure failure = load.replace ? Failure(result.status()) : stream.failure_of(at.mod, result.status());
      return to_grpc_status(failure, *call);
    }
    reply->set_revision(result->revision);
    reply->set_rules_added(result->rules_added);
    reply->set_rules_removed(result->rules_removed);
    reply->set_lines(stream.lines());
    return grpc::Status::OK;
  }

  Result<RuleDifference> difference_of(const Load& load, RuleStream& stream) {
    for (const RuleMod& mod : stream.mods()) {
      if (mod.command != RuleCommand::add) {
        return invalid_argument("a list of the rules that are to be there holds additions only", "text");
      }
    }
    std::vector<RuleSpec> present;
    Status status = context_.sw.visit_rules(load.bridge, RuleFilter{}, [&](const RuleInfo& rule) {
      present.push_back(rule.spec);
      return true;
    });
    if (!status.ok()) return status;
    return rule_difference(present, stream.mods());
  }

  static void report(const RuleDifference& difference, v1::LoadRulesResponse* reply) {
    auto add = [reply](const RuleSpec& rule, bool in_stream) {
      v1::RuleDifference& out = *reply->add_differences();
      out.set_in_stream(in_stream);
      std::string text = format_rule(rule);
      out.set_text(text.substr(std::min(text.find_first_not_of(' '), text.size())));
    };
    for (const RuleSpec& rule : difference.only_in_bridge) add(rule, false);
    for (const RuleSpec& rule : difference.only_wanted) add(rule, true);
  }

  ServiceContext& context_;
};

}  // namespace

std::unique_ptr<grpc::Service> make_rule_service(ServiceContext& context) {
  return std::make_unique<RuleService>(context);
}

}  // namespace vswitch
