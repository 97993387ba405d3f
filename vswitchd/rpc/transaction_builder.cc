#include "vswitchd/rpc/transaction_builder.h"

#include <fmt/format.h>

#include "vswitchd/rpc/proto_convert_config.h"
#include "vswitchd/rpc/proto_convert_rule.h"
#include "vswitchd/rpc/resource_names.h"

namespace vswitch {

const FlowNames* LazyNames::get() {
  if (names_) return &*names_;
  names_.emplace();
  if (!bridge_is_new_) {
    for (const auto& [name, port] : source_.port_numbers(bridge_)) {
      if (!changes_.contains(name)) names_->add_port(port, name);
    }
  }
  for (const auto& [name, port] : changes_) {
    if (port) names_->add_port(*port, name);
  }
  return &*names_;
}

void LazyNames::put(const std::string& name, OfPort port) {
  changes_[name] = port;
  forget();
}

void LazyNames::remove(const std::string& name) {
  changes_[name] = std::nullopt;
  forget();
}

void LazyNames::remove_all() {
  bridge_is_new_ = true;
  changes_.clear();
  forget();
}

void LazyNames::forget() {
  names_.reset();
  parser_ = {};
}

std::optional<BridgeConfig> TransactionBuilder::find_bridge(const std::string& name) const {
  if (auto it = bridges_.find(name); it != bridges_.end()) return it->second;
  Result<BridgeConfig> known = source_.bridge(name);
  if (!known.ok()) return std::nullopt;
  return *std::move(known);
}

std::optional<TransactionBuilder::PortEntry> TransactionBuilder::find_port(const std::string& name) const {
  if (auto it = ports_.find(name); it != ports_.end()) {
    if (!it->second.config) return std::nullopt;
    return it->second;
  }
  Result<PortConfig> known = source_.port(name);
  if (!known.ok() || deleted_bridges_.contains(known->bridge)) return std::nullopt;
  return PortEntry{*std::move(known), std::nullopt};
}

LazyNames& TransactionBuilder::names(const std::string& bridge) {
  auto it = names_.find(bridge);
  if (it == names_.end()) it = names_.emplace(bridge, LazyNames(source_, bridge)).first;
  return it->second;
}

void TransactionBuilder::push(Operation operation) {
  transaction_.operations.push_back(std::move(operation));
  origins_.push_back(step_);
}

// ---------------------------------------------------------------- bridges

Status TransactionBuilder::create_bridge(const v1::CreateBridgeRequest& request) {
  Result<BridgeConfig> config = bridge_from_proto(request.bridge());
  if (!config.ok()) return config.status();
  if (request.allow_existing() && find_bridge(config->name)) return {};
  bridges_[config->name] = *config;
  PortConfig local;
  local.bridge = config->name;
  local.vport.name = config->name;
  local.vport.type = "internal";
  ports_[config->name] = {local, std::nullopt};
  names(config->name).put(config->name, kOfPortLocal);
  push(CreateBridge{*std::move(config)});
  return {};
}

Status TransactionBuilder::update_bridge(const v1::UpdateBridgeRequest& request) {
  Result<std::string> name = bridge_name(request.bridge().name(), "bridge.name");
  if (!name.ok()) return name.status();
  std::optional<BridgeConfig> current = find_bridge(*name);
  if (!current) return not_found("no bridge named " + *name, "bridge.name");
  v1::Bridge merged = to_proto(*current);
  VSWITCH_RETURN_IF_ERROR(merge(request.bridge(), request.update_mask(), merged));
  Result<BridgeConfig> config = bridge_from_proto(merged);
  if (!config.ok()) return config.status();
  bridges_[*name] = *config;
  push(UpdateBridge{*std::move(config)});
  return {};
}

Status TransactionBuilder::delete_bridge(const v1::DeleteBridgeRequest& request) {
  Result<std::string> name = bridge_name(request.name(), "name");
  if (!name.ok()) return name.status();
  if (request.allow_missing() && !find_bridge(*name)) return {};
  bridges_[*name] = std::nullopt;
  deleted_bridges_.insert(*name);
  names(*name).remove_all();
  for (auto& [port, entry] : ports_) {
    if (entry.config && entry.config->bridge == *name) entry.config.reset();
  }
  push(DeleteBridge{*std::move(name)});
  return {};
}

// ---------------------------------------------------------------- ports

Status TransactionBuilder::create_port(const v1::CreatePortRequest& request) {
  Result<PortConfig> config = port_from_proto(request.port());
  if (!config.ok()) return config.status();
  std::optional<PortEntry> existing = find_port(config->name());
  if (request.allow_existing() && existing) {
    if (existing->config->bridge == config->bridge) return {};
    return already_exists(fmt::format("port {} is in bridge {} already, so it cannot be added to bridge {}",
                                      config->name(), existing->config->bridge, config->bridge),
                          "port.name");
  }
  if (config->ofport_request != 0) names(config->bridge).put(config->name(), config->ofport_request);
  ports_[config->name()] = {*config, transaction_.operations.size()};
  push(CreatePort{*std::move(config)});
  return {};
}

Status TransactionBuilder::update_port(const v1::UpdatePortRequest& request) {
  Result<std::string> name = port_name(request.port().name(), "port.name");
  if (!name.ok()) return name.status();
  std::optional<PortEntry> current = find_port(*name);
  if (!current) return not_found("no port named " + *name, "port.name");
  v1::Port merged = to_proto(*current->config);
  VSWITCH_RETURN_IF_ERROR(merge(request.port(), request.update_mask(), merged));
  Result<PortConfig> config = port_from_proto(merged);
  if (!config.ok()) return config.status();
  const bool local = config->bridge == *name;  // keeps its number
  if (!local && config->ofport_request != 0 && config->ofport_request != current->config->ofport_request) {
    names(config->bridge).put(*name, config->ofport_request);
  }
  ports_[*name] = {*config, current->created_by};
  if (current->created_by) {
    std::get<CreatePort>(transaction_.operations[*current->created_by]).config = *std::move(config);
  } else {
    push(UpdatePort{*std::move(config)});
  }
  return {};
}

Status TransactionBuilder::delete_port(const v1::DeletePortRequest& request) {
  Result<std::string> name = port_name(request.name(), "name");
  if (!name.ok()) return name.status();
  Result<std::string> bridge = optional_bridge_name(request.bridge(), "bridge");
  if (!bridge.ok()) return bridge.status();
  std::optional<PortEntry> current = find_port(*name);
  if (!current && request.allow_missing()) return {};
  if (!bridge->empty()) {
    if (!find_bridge(*bridge)) return not_found("no bridge named " + *bridge, "bridge");
    if (current && current->config->bridge != *bridge) {
      return not_found(
          fmt::format("bridge {} has no port {}: it is in bridge {}", *bridge, *name, current->config->bridge), "name");
    }
  }
  if (current) names(current->config->bridge).remove(*name);
  ports_[*name] = {};
  push(DeletePort{*std::move(name)});
  return {};
}

// ---------------------------------------------------------------- settings, rules

Status TransactionBuilder::update_settings(const v1::UpdateSettingsRequest& request) {
  v1::Settings merged = to_proto(settings_ ? *settings_ : source_.settings());
  VSWITCH_RETURN_IF_ERROR(merge(request.settings(), request.update_mask(), merged));
  settings_ = settings_from_proto(merged);
  push(UpdateSettings{*settings_});
  return {};
}

Status TransactionBuilder::modify_rules(const v1::RuleChanges& request, size_t* mod_at_fault) {
  Result<std::string> bridge = bridge_name(request.bridge(), "bridge");
  if (!bridge.ok()) return bridge.status();
  if (!find_bridge(*bridge)) return not_found("no bridge named " + *bridge, "bridge");
  ModifyRules out{*bridge, {}};
  out.mods.reserve(static_cast<size_t>(request.mods_size()));
  LazyNames& lazy = names(*bridge);
  for (const v1::RuleMod& mod : request.mods()) {
    Result<RuleMod> parsed =
        lazy.parse([&](const FlowNames* known) { return rule_mod_from_proto(mod, known, lazy.parser()); });
    if (!parsed.ok()) {
      *mod_at_fault = out.mods.size();
      return parsed.status();
    }
    out.mods.push_back(*std::move(parsed));
  }
  push(std::move(out));
  return {};
}

Status TransactionBuilder::add(const v1::Operation& operation, size_t* mod_at_fault) {
  switch (operation.kind_case()) {
    case v1::Operation::kCreateBridge:
      return create_bridge(operation.create_bridge());
    case v1::Operation::kUpdateBridge:
      return update_bridge(operation.update_bridge());
    case v1::Operation::kDeleteBridge:
      return delete_bridge(operation.delete_bridge());
    case v1::Operation::kCreatePort:
      return create_port(operation.create_port());
    case v1::Operation::kUpdatePort:
      return update_port(operation.update_port());
    case v1::Operation::kDeletePort:
      return delete_port(operation.delete_port());
    case v1::Operation::kUpdateSettings:
      return update_settings(operation.update_settings());
    case v1::Operation::kModifyRules:
      return modify_rules(operation.modify_rules(), mod_at_fault);
    case v1::Operation::KIND_NOT_SET:
      break;
  }
  return invalid_argument("an operation with nothing in it, or of a kind that this version does not know");
}

std::optional<Failure> TransactionBuilder::add_all(const v1::ApplyRequest& request) {
  for (int i = 0; i < request.operations_size(); ++i) {
    step_ = static_cast<size_t>(i);
    const v1::Operation& operation = request.operations(i);
    size_t mod = 0;
    Status status = add(operation, &mod);
    if (status.ok()) continue;
    std::optional<size_t> mod_index;
    if (operation.has_modify_rules() && operation.modify_rules().mods_size() != 0) mod_index = mod;
    return Failure(std::move(status), step_, mod_index);
  }
  transaction_.validate_only = request.validate_only();
  return std::nullopt;
}

}  // namespace vswitch
