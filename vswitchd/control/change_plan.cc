#include "vswitchd/control/change_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "datapath/packet/ledger.h"
#include "datapath/vport/vport_internal.h"
#include "datapath/vport/vport_registry.h"
#include "datapath/vport/vport_vxlan.h"

namespace vswitch {
namespace {

constexpr std::string_view kPatchType = "patch";
constexpr size_t kMaxBridgeName = 15;  // it names a kernel device (IFNAMSIZ)
constexpr std::array<std::string_view, 1> kPatchOptions = {"peer"};

// A name from outside in a message of one line, whatever it consists of.
std::string quoted(std::string_view name) {
  std::string text = "\"";
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      text += fmt::format("\\x{:02x}", byte);
    } else {
      text += c;
    }
  }
  return text + '"';
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("_.-:@+").find(c) != std::string_view::npos;
}

Status check_name(std::string_view kind, const std::string& name, size_t max_length) {
  if (name.empty()) return invalid_argument(fmt::format("a {} needs a name", kind), "name");
  if (name.size() > max_length) {
    return invalid_argument(fmt::format("{} name {} has {} characters; at most {} are possible", kind, quoted(name),
                                        name.size(), max_length),
                            "name");
  }
  const auto odd = std::find_if_not(name.begin(), name.end(), is_name_character);
  if (odd != name.end()) {
    return invalid_argument(
        fmt::format("{} name {} has a character that is not allowed at position {}; letters, digits "
                    "and _ . - : @ + are",
                    kind, quoted(name), odd - name.begin() + 1),
        "name");
  }
  if (name == "." || name == "..")
    return invalid_argument(fmt::format("a {} cannot be named {}", kind, quoted(name)), "name");
  return {};
}

Status check_range(std::string_view object, std::string_view what, uint64_t value, uint64_t low, uint64_t high) {
  if (value >= low && value <= high) return {};
  return invalid_argument(fmt::format("{}: {} {} is not between {} and {}", object, what, value, low, high),
                          std::string(what));
}

class Planner {
 public:
  Planner(const Configuration& current, std::function<MacAddress()> random_mac)
      : current_(current), random_mac_(std::move(random_mac)) {
    plan_.next = current;
  }

  Status run(const Transaction& transaction, TransactionFailure* failure) {
    for (size_t i = 0; i < transaction.operations.size(); ++i) {
      operation_ = i;
      const Status status =
          std::visit([this](const auto& operation) { return perform(operation); }, transaction.operations[i]);
      if (status.ok()) continue;
      if (failure != nullptr) *failure = {i, 0};
      return status;
    }
    const Status status = check_whole();
    if (!status.ok() && failure != nullptr) *failure = {operation_, 0};
    return status;
  }

  // The configuration as it stands, as if somebody had asked for all of it.
  Status check_current() {
    for (const auto& [name, bridge] : next().bridges) {
      VSWITCH_RETURN_IF_ERROR(check_bridge(bridge));
      const auto local = next().ports.find(name);
      if (local == next().ports.end() || local->second.bridge != name || local->second.vport.type != "internal") {
        return internal_error(fmt::format("bridge {} has no port of its own", quoted(name)));
      }
    }
    std::set<std::pair<std::string, OfPort>> ofports;
    std::set<uint32_t> dp_ports;
    for (const auto& [name, port] : next().ports) {
      VSWITCH_RETURN_IF_ERROR(check_port(port));
      const OfPort ofport = next().ofports.at(name);
      const bool in_range = name == port.bridge ? ofport == kOfPortLocal : ofport > 0 && ofport < kOfPortMax;
      if (!in_range || !ofports.emplace(port.bridge, ofport).second) {
        return internal_error(fmt::format("port {}: OpenFlow port number {} cannot be", quoted(name), ofport));
      }
      const auto dp_port = next().dp_ports.find(name);
      const bool has_dp_port = dp_port != next().dp_ports.end();
      if (has_dp_port == (port.vport.type == kPatchType) ||
          (has_dp_port && (dp_port->second >= kMaxPorts || !dp_ports.insert(dp_port->second).second))) {
        return internal_error(fmt::format("port {}: its datapath port number cannot be", quoted(name)));
      }
    }
    return {};
  }

  ChangePlan take() { return std::move(plan_); }

 private:
  Configuration& next() { return plan_.next; }

  // ---- bridges

  Status check_bridge(const BridgeConfig& config) {
    VSWITCH_RETURN_IF_ERROR(check_name("bridge", config.name, kMaxBridgeName));
    const std::string object = fmt::format("bridge \"{}\"", config.name);
    VSWITCH_RETURN_IF_ERROR(check_range(object, "mac_ageing_seconds", config.mac_ageing_seconds, 15, 3600));
    VSWITCH_RETURN_IF_ERROR(check_range(object, "mac_table_size", config.mac_table_size, 10, 1'000'000));
    for (const uint16_t vlan : config.flood_vlans)
      VSWITCH_RETURN_IF_ERROR(check_range(object, "flood_vlans", vlan, 0, 4095));
    if (config.mac.is_multicast()) {
      return invalid_argument(fmt::format("{}: {} is a multicast address", object, config.mac.to_string()), "mac");
    }
    return {};
  }

  Status perform(const CreateBridge& create) {
    BridgeConfig config = create.config;
    VSWITCH_RETURN_IF_ERROR(check_bridge(config));
    if (next().bridges.contains(config.name)) {
      return already_exists(fmt::format("a bridge named \"{}\" already exists", config.name), "name");
    }
    if (auto it = next().ports.find(config.name); it != next().ports.end()) {
      return already_exists(fmt::format("cannot create a bridge named \"{}\": a port of bridge \"{}\" has that name",
                                        config.name, it->second.bridge),
                            "name");
    }
    if (config.mac.is_zero()) config.mac = random_mac_();
    PortConfig local;
    local.bridge = config.name;
    local.vport.name = config.name;
    local.vport.type = "internal";
    local.vport.mac = config.mac;
    VSWITCH_RETURN_IF_ERROR(check_type(local));  // not every name is one for a device
    next().bridges[config.name] = config;
    plan_.created_bridges.insert(config.name);
    plan_.updated_bridges.erase(config.name);
    return add_port(local, kOfPortLocal);
  }

  Status perform(const UpdateBridge& update) {
    BridgeConfig config = update.config;
    auto it = next().bridges.find(config.name);
    if (it == next().bridges.end()) return no_bridge(config.name);
    VSWITCH_RETURN_IF_ERROR(check_bridge(config));
    if (config.mac.is_zero()) config.mac = it->second.mac;
    it->second = config;
    if (!plan_.created_bridges.contains(config.name)) plan_.updated_bridges.insert(config.name);
    PortConfig& local = next().ports.at(config.name);
    if (local.vport.mac != config.mac) {
      local.vport.mac = config.mac;
      mark_port_updated(config.name);
    }
    return {};
  }

  Status perform(const DeleteBridge& remove) {
    if (!next().bridges.contains(remove.name)) return no_bridge(remove.name);
    std::vector<std::string> ports;
    for (const auto& [name, port] : next().ports) {
      if (port.bridge == remove.name) ports.push_back(name);
    }
    for (const std::string& name : ports) drop_port(name);
    next().bridges.erase(remove.name);
    if (plan_.created_bridges.erase(remove.name) == 0 || current_.bridges.contains(remove.name)) {
      plan_.deleted_bridges.insert(remove.name);
    }
    plan_.updated_bridges.erase(remove.name);
    plan_.rule_mods.erase(remove.name);
    return {};
  }

  Status no_bridge(const std::string& name) {
    return not_found(fmt::format("no bridge named {}", quoted(name)), "bridge");
  }
  Status no_port(const std::string& name) { return not_found(fmt::format("no port named {}", quoted(name)), "name"); }

  // ---- ports

  Status check_port(const PortConfig& config) {
    VSWITCH_RETURN_IF_ERROR(check_name("port", config.name(), kMaxPortName));
    const std::string object = fmt::format("port \"{}\"", config.name());
    if (!next().bridges.contains(config.bridge)) return no_bridge(config.bridge);
    if (config.ofport_request != 0) {
      VSWITCH_RETURN_IF_ERROR(check_range(object, "ofport_request", config.ofport_request, 1, kOfPortMax - 1));
    }
    VSWITCH_RETURN_IF_ERROR(check_range(object, "tag", config.vlan.tag, 0, 4094));
    if (config.vport.mtu_request != 0) {
      VSWITCH_RETURN_IF_ERROR(check_range(object, "mtu_request", config.vport.mtu_request, 68, 65535));
    }
    if (config.vport.mac.is_multicast()) {
      return invalid_argument(fmt::format("{}: {} is a multicast address", object, config.vport.mac.to_string()),
                              "mac");
    }
    VSWITCH_RETURN_IF_ERROR(check_option_values(config));
    return check_type(config);
  }

  // The kernel and libraries would take a device or file for the one whose name stands before the NUL.
  Status check_option_values(const PortConfig& config) {
    for (const auto& [option, value] : config.vport.options) {
      if (value.find('\0') == value.npos) continue;
      return invalid_argument(fmt::format("port \"{}\": option {} contains a NUL byte", config.name(), quoted(option)),
                              "options:" + option);
    }
    return {};
  }

  Status check_type(const PortConfig& config) {
    const std::string object = fmt::format("port \"{}\"", config.name());
    if (config.vport.type == kPatchType) {
      VSWITCH_RETURN_IF_ERROR(check_known_options(config.vport, kPatchOptions));
      const auto peer = config.vport.options.find("peer");
      if (peer == config.vport.options.end() || peer->second.empty()) {
        return invalid_argument(fmt::format("{}: type patch needs options:peer=PORT", object), "options:peer");
      }
      if (peer->second == config.name()) {
        return invalid_argument(fmt::format("{}: a patch port cannot be its own peer", object), "options:peer");
      }
      return {};
    }
    const VportType* type = find_vport_type(config.vport.type);
    if (type == nullptr) {
      std::vector<std::string_view> known = {kPatchType};
      for (const VportType& t : vport_types()) known.push_back(t.name);
      const std::string_view nearest = nearest_spelling(config.vport.type, known);
      return invalid_argument(
          fmt::format("{}: unknown type {}{}; known types: {}", object, quoted(config.vport.type),
                      nearest.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", nearest), fmt::join(known, ", ")),
          "type");
    }
    return type->validate(config.vport);
  }

  Status check_ofport_free(const PortConfig& config) {
    if (config.ofport_request == 0) return {};
    for (const auto& [name, ofport] : next().ofports) {
      if (ofport == config.ofport_request && name != config.name() && next().ports.at(name).bridge == config.bridge) {
        return already_exists(fmt::format("port \"{}\": OpenFlow port number {} is taken by port \"{}\"", config.name(),
                                          config.ofport_request, name),
                              "ofport_request");
      }
    }
    return {};
  }

  Status perform(const CreatePort& create) {
    const PortConfig& config = create.config;
    if (next().bridges.contains(config.name())) {
      return already_exists(fmt::format("cannot create a port named \"{}\": a bridge has that name", config.name()),
                            "name");
    }
    if (auto it = next().ports.find(config.name()); it != next().ports.end()) {
      return already_exists(
          it->second.bridge == config.bridge
              ? fmt::format("bridge \"{}\" already has a port named \"{}\"", config.bridge, config.name())
              : fmt::format("port \"{}\" already belongs to bridge \"{}\"", config.name(), it->second.bridge),
          "name");
    }
    VSWITCH_RETURN_IF_ERROR(check_port(config));  // what it is to be matters only if it can be
    VSWITCH_RETURN_IF_ERROR(check_ofport_free(config));
    const Result<OfPort> ofport = choose_ofport(config);
    if (!ofport.ok()) return ofport.status();
    return add_port(config, *ofport);
  }

  Status perform(const UpdatePort& update) {
    PortConfig config = update.config;
    auto it = next().ports.find(config.name());
    if (it == next().ports.end()) return no_port(config.name());
    if (config.bridge != it->second.bridge) {
      return invalid_argument(
          fmt::format("port \"{}\" belongs to bridge \"{}\" and cannot move to {}; delete it and add it there",
                      config.name(), it->second.bridge, quoted(config.bridge)),
          "bridge");
    }
    VSWITCH_RETURN_IF_ERROR(check_port(config));
    const bool local = config.name() == config.bridge;
    if (local && config.vport.type != "internal") {
      return invalid_argument(fmt::format("port \"{}\" is the bridge's own and stays of type internal", config.name()),
                              "type");
    }
    VSWITCH_RETURN_IF_ERROR(check_ofport_free(config));
    if (!local && config.ofport_request != 0) next().ofports[config.name()] = config.ofport_request;
    if (config.vport.type != it->second.vport.type) {
      // Another kind of port under the same name and number.
      const OfPort ofport = next().ofports.at(config.name());
      drop_port(config.name());
      return add_port(config, ofport);
    }
    if (local) share_mac_with_bridge(config);
    it->second = config;
    mark_port_updated(config.name());
    return {};
  }

  Status perform(const DeletePort& remove) {
    auto it = next().ports.find(remove.name);
    if (it == next().ports.end()) return no_port(remove.name);
    if (it->second.bridge == remove.name) {
      return failed_precondition(
          fmt::format("port \"{}\" is the local port of its bridge; delete the bridge instead", remove.name), "name");
    }
    drop_port(remove.name);
    return {};
  }

  // A bridge's address is that of its local port, whichever of the two is told to change.
  void share_mac_with_bridge(PortConfig& local) {
    BridgeConfig& bridge = next().bridges.at(local.bridge);
    if (local.vport.mac.is_zero()) local.vport.mac = bridge.mac;
    if (local.vport.mac == bridge.mac) return;
    bridge.mac = local.vport.mac;
    if (!plan_.created_bridges.contains(bridge.name)) plan_.updated_bridges.insert(bridge.name);
  }

  Status add_port(const PortConfig& config, OfPort ofport) {
    if (config.vport.type != kPatchType) {
      const uint32_t dp_port = choose_dp_port();
      if (dp_port >= kMaxPorts) {
        return resource_exhausted(
            fmt::format("port \"{}\": all {} datapath port numbers are taken", config.name(), kMaxPorts - 1));
      }
      next().dp_ports[config.name()] = dp_port;
    }
    next().ports[config.name()] = config;
    next().ofports[config.name()] = ofport;
    plan_.created_ports.insert(config.name());
    plan_.updated_ports.erase(config.name());
    changed_by_[config.name()] = operation_;
    return {};
  }

  void drop_port(const std::string& name) {
    next().ports.erase(name);
    next().ofports.erase(name);
    next().dp_ports.erase(name);
    if (plan_.created_ports.erase(name) == 0 || current_.ports.contains(name)) plan_.deleted_ports.insert(name);
    plan_.updated_ports.erase(name);
  }

  void mark_port_updated(const std::string& name) {
    if (!plan_.created_ports.contains(name)) plan_.updated_ports.insert(name);
    changed_by_[name] = operation_;
  }

  Result<OfPort> choose_ofport(const PortConfig& config) {
    if (config.ofport_request != 0) return static_cast<OfPort>(config.ofport_request);
    std::set<OfPort> taken;
    for (const auto& [name, ofport] : next().ofports) {
      if (next().ports.at(name).bridge == config.bridge) taken.insert(ofport);
    }
    OfPort candidate = 1;
    for (const OfPort ofport : taken) {
      if (ofport > candidate) break;
      candidate = static_cast<OfPort>(ofport + 1);
    }
    if (candidate >= kOfPortMax) {
      return resource_exhausted(fmt::format("bridge \"{}\" has no free OpenFlow port number", config.bridge));
    }
    return candidate;
  }

  uint32_t choose_dp_port() {
    if (taken_dp_ports_.empty()) {
      for (const auto& [name, dp_port] : next().dp_ports) taken_dp_ports_.insert(dp_port);
      // A number given up in this transaction is not used again in it: the old port still has it until the commit.
      for (const auto& [name, dp_port] : current_.dp_ports) taken_dp_ports_.insert(dp_port);
    }
    uint32_t candidate = 1;
    for (const uint32_t dp_port : taken_dp_ports_) {
      if (dp_port > candidate) break;
      candidate = dp_port + 1;
    }
    taken_dp_ports_.insert(candidate);
    return candidate;
  }

  // ---- the rest

  Status perform(const UpdateSettings& update) {
    const Settings& settings = update.settings;
    VSWITCH_RETURN_IF_ERROR(
        check_range("settings", "forwarding_threads", settings.forwarding_threads, 1, kMaxThreads - 2));
    VSWITCH_RETURN_IF_ERROR(check_range("settings", "max_idle_ms", settings.max_idle_ms, 100, 3'600'000));
    VSWITCH_RETURN_IF_ERROR(
        check_range("settings", "max_datapath_flows", settings.max_datapath_flows, 1000, 100'000'000));
    VSWITCH_RETURN_IF_ERROR(check_dpdk_settings(settings.dpdk).with_prefix("settings"));
    plan_.settings_changed = plan_.settings_changed || !(settings == next().settings);
    next().settings = settings;
    return {};
  }

  Status perform(const ModifyRules& modify) {
    if (!next().bridges.contains(modify.bridge)) return no_bridge(modify.bridge);
    plan_.rule_mods[modify.bridge].push_back({operation_, modify.mods});
    return {};
  }

  // The kernel device that a port takes for itself; "" for types that take none.
  static std::string device_of(const PortConfig& port) {
    const std::string& type = port.vport.type;
    if (type == "internal") return internal_device_name(port.name());
    if (type != "netdev" && type != "system" && type != "afxdp" && !type.empty()) return "";
    const auto option = port.vport.options.find("device");
    return option == port.vport.options.end() ? port.name() : option->second;
  }

  // What only the end state can tell.
  Status check_whole() {
    if (changed_by_.empty()) return {};
    VSWITCH_RETURN_IF_ERROR(check_devices());
    return check_tunnels();
  }

  // Of two ports that cannot both be, the one that the transaction made or changed last is at fault. Points operation_
  // there.
  std::pair<std::string, std::string> newer_and_older(const std::string& one, const std::string& other) {
    const auto mine = changed_by_.find(one), others = changed_by_.find(other);
    const bool one_is_newer =
        others == changed_by_.end() || (mine != changed_by_.end() && mine->second >= others->second);
    const std::string& newer = one_is_newer ? one : other;
    if (const auto change = changed_by_.find(newer); change != changed_by_.end()) operation_ = change->second;
    return {newer, one_is_newer ? other : one};
  }

  // Two ports on one device. Those that a version which knew no better let in hinder nobody's other changes.
  Status check_devices() {
    std::map<std::string, std::vector<std::string>> users;
    for (const auto& [name, port] : next().ports) {
      if (const std::string device = device_of(port); !device.empty()) users[device].push_back(name);
    }
    for (const auto& [device, names] : users) {
      const auto changed = std::ranges::find_if(names, [&](const auto& name) { return changed_by_.contains(name); });
      if (names.size() == 1 || changed == names.end()) continue;
      const auto [newer, older] = newer_and_older(*changed, changed == names.begin() ? names[1] : names[0]);
      return already_exists(fmt::format("port \"{}\": device {} is in use by port \"{}\" of bridge \"{}\"", newer,
                                        device, older, next().ports.at(older).bridge),
                            "options:device");
    }
    return {};
  }

  // What a received tunnel packet finds the port by; nullopt for ports that are no tunnels.
  static std::optional<TunnelIdentity> tunnel_identity(const PortConfig& port) {
    if (port.vport.type != kVxlanTraits.type) return std::nullopt;
    const Result<TunnelConfig> tunnel = parse_tunnel_config(port.vport, kVxlanTraits);
    if (!tunnel.ok()) return std::nullopt;  // refused before
    return TunnelIdentity::of(*tunnel);
  }

  // Two ports for the same packets.
  Status check_tunnels() {
    std::vector<std::pair<std::string, TunnelIdentity>> changed;
    for (const auto& [name, operation] : changed_by_) {
      const auto port = next().ports.find(name);
      if (port == next().ports.end()) continue;
      if (auto identity = tunnel_identity(port->second)) changed.emplace_back(name, *identity);
    }
    if (changed.empty()) return {};
    for (const auto& [name, port] : next().ports) {
      const std::optional<TunnelIdentity> identity = tunnel_identity(port);
      if (!identity) continue;
      for (const auto& [other, other_identity] : changed) {
        if (other == name || !(other_identity == *identity)) continue;
        const auto [newer, older] = newer_and_older(name, other);
        return duplicate_tunnel(kVxlanTraits.type, newer, older, *identity);
      }
    }
    return {};
  }

  const Configuration& current_;
  const std::function<MacAddress()> random_mac_;
  ChangePlan plan_;
  size_t operation_ = 0;
  std::map<std::string, size_t> changed_by_;  // port -> the last operation that made or changed it
  std::set<uint32_t> taken_dp_ports_;
};

}  // namespace

Result<ChangePlan> plan_changes(const Configuration& current, const Transaction& transaction,
                                const std::function<MacAddress()>& random_mac, TransactionFailure* failure) {
  Planner planner(current, random_mac);
  VSWITCH_RETURN_IF_ERROR(planner.run(transaction, failure));
  return planner.take();
}

Status check_configuration(const Configuration& configuration) {
  Planner planner(configuration, [] { return MacAddress(); });
  return planner.check_current();
}

RuleMod default_rule() {
  RuleMod mod;
  mod.spec.priority = 0;
  mod.spec.actions = std::make_shared<const RuleActionList>(RuleActionList{OutputToPort{kOfPortNormal, 0}});
  return mod;
}

}  // namespace vswitch
