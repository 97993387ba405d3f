#include "vswitchd/control/view_builder.h"

#include <algorithm>
#include <cassert>

#include "datapath/vport/tunnel_config.h"
#include "datapath/vport/vport_vxlan.h"

namespace vswitch {
namespace {

std::optional<uint64_t> key_view(const TunnelKeyConfig& key) {
  if (key.flow) return std::nullopt;
  return key.value;
}

std::unique_ptr<PortView> build_port(const Configuration& configuration, const PortConfig& config,
                                     const BridgeView& bridge, PatchCounterMap& patch_counters) {
  auto port = std::make_unique<PortView>();
  port->name = config.name();
  port->ofport = configuration.ofports.at(config.name());
  const auto dp_port = configuration.dp_ports.find(config.name());
  port->dp_port = dp_port == configuration.dp_ports.end() ? 0 : dp_port->second;
  port->bridge = &bridge;
  port->vlan = config.vlan;
  port->config = config.flags;
  port->protected_port = config.protected_port;
  port->tunnel = tunnel_view(config.vport);
  port->is_patch = config.vport.type == "patch";
  if (port->is_patch) {
    std::shared_ptr<PatchCounters>& counters = patch_counters[config.name()];
    if (!counters) counters = std::make_shared<PatchCounters>();
    port->patch_counters = counters;
  }
  return port;
}

// Two patch ports are connected when each names the other.
void connect_patches(const Configuration& configuration, const std::map<std::string, PortView*>& patches) {
  for (const auto& [name, port] : patches) {
    const auto peer = patches.find(configuration.ports.at(name).vport.options.at("peer"));
    if (peer == patches.end()) continue;
    if (configuration.ports.at(peer->first).vport.options.at("peer") == name) port->patch_peer = peer->second;
  }
}

}  // namespace

std::optional<TunnelPortView> tunnel_view(const VportConfig& config) {
  if (config.type != kVxlanTraits.type) return std::nullopt;
  const Result<TunnelConfig> parsed = parse_tunnel_config(config, kVxlanTraits);
  if (!parsed.ok()) return std::nullopt;
  TunnelPortView view;
  if (!parsed->remote_flow) view.remote = parsed->remote;
  if (!parsed->local_flow) view.local = parsed->local;
  view.in_key = key_view(parsed->in_key);
  view.out_key = key_view(parsed->out_key);
  view.dst_port = parsed->dst_port;
  if (!parsed->tos_inherit) view.tos = parsed->tos;
  view.ttl = parsed->ttl_inherit ? std::nullopt : std::optional<uint8_t>(parsed->ttl);
  view.dont_fragment = parsed->df;
  view.checksum = parsed->csum;
  view.gbp = parsed->gbp;
  view.egress_mark = parsed->mark;
  return view;
}

std::unique_ptr<SwitchView> build_view(const Configuration& configuration,
                                       const std::map<std::string, BridgeRuntime, std::less<>>& bridges,
                                       PatchCounterMap& patch_counters, uint64_t generation) {
  auto view = std::make_unique<SwitchView>();
  view->generation = generation;
  for (const auto& [name, config] : configuration.bridges) {
    auto bridge = std::make_unique<BridgeView>();
    bridge->name = name;
    bridge->secure = config.fail_mode == FailMode::secure;
    bridge->mac = config.mac;
    bridge->tables = bridges.at(name).tables;
    bridge->macs = bridges.at(name).macs.get();
    for (const uint16_t vlan : config.flood_vlans) bridge->flood_vlans.set(vlan);
    view->bridges[name] = std::move(bridge);
  }
  std::map<std::string, PortView*> patches;
  for (const auto& [name, config] : configuration.ports) {
    BridgeView& bridge = *view->bridges.at(config.bridge);
    std::unique_ptr<PortView> port = build_port(configuration, config, bridge, patch_counters);
    if (port->is_patch) patches[name] = port.get();
    bridge.by_ofport[port->ofport] = port.get();
    if (port->dp_port != 0) view->by_dp_port[port->dp_port] = port.get();
    bridge.ports.push_back(std::move(port));
  }
  for (auto& [name, bridge] : view->bridges) {
    std::sort(bridge->ports.begin(), bridge->ports.end(),
              [](const auto& a, const auto& b) { return a->ofport < b->ofport; });
  }
  connect_patches(configuration, patches);
  return view;
}

}  // namespace vswitch
