#include "tests/support/switch_fixture.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <sstream>

#include "vswitchd/openflow/flow_text.h"

namespace vswitch::test {
namespace {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  std::string part;
  std::istringstream in{std::string(text)};
  while (std::getline(in, part, separator)) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

std::optional<uint64_t> number(const std::string& text) {
  try {
    return std::stoull(text, nullptr, 0);
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

bool set_vlans(const std::string& list, std::bitset<4096>& vlans) {
  for (const std::string& vid : split(list, ',')) {
    const auto n = number(vid);
    if (!n || *n > 4095) return false;
    vlans.set(*n);
  }
  return true;
}

bool set_vlan_mode(const std::string& mode, VlanConfig& vlan) {
  static const std::map<std::string, VlanMode> kModes = {{"access", VlanMode::access},
                                                         {"trunk", VlanMode::trunk},
                                                         {"native-tagged", VlanMode::native_tagged},
                                                         {"native-untagged", VlanMode::native_untagged}};
  const auto it = kModes.find(mode);
  if (it != kModes.end()) vlan.mode = it->second;
  return it != kModes.end();
}

bool set_config(const std::string& list, PortConfigFlags& config) {
  for (const std::string& flag : split(list, ',')) {
    if (flag == "down") {
      config.down = true;
    } else if (flag == "no_receive") {
      config.no_receive = true;
    } else if (flag == "no_forward") {
      config.no_forward = true;
    } else if (flag == "no_flood") {
      config.no_flood = true;
    } else {
      return false;
    }
  }
  return true;
}

bool set_address(const std::string& value, std::optional<IpAddress>& address) {
  if (value == "flow") {
    address = std::nullopt;
    return true;
  }
  address = IpAddress::parse(value);
  return address.has_value();
}

// "flow" and "inherit" are nullopt.
template <typename T>
bool set_number(const std::string& value, std::optional<T>& target) {
  target = std::nullopt;
  if (value == "flow" || value == "inherit") return true;
  const auto n = number(value);
  if (n) target = static_cast<T>(*n);
  return n.has_value();
}

bool set_tunnel_option(const std::string& name, const std::string& value, TunnelPortView& tunnel) {
  if (name == "remote_ip") return set_address(value, tunnel.remote);
  if (name == "local_ip") return set_address(value, tunnel.local);
  if (name == "tos") return set_number(value, tunnel.tos);
  if (name == "ttl") return set_number(value, tunnel.ttl);
  if (name == "egress_mark") return set_number(value, tunnel.egress_mark);
  if (name == "key") return set_number(value, tunnel.out_key) && set_number(value, tunnel.in_key);
  if (name == "gbp") return tunnel.gbp = true;
  const auto n = number(value);
  if (!n) return false;
  if (name == "dst_port") {
    tunnel.dst_port = static_cast<uint16_t>(*n);
  } else if (name == "df") {
    tunnel.dont_fragment = *n != 0;
  } else if (name == "csum") {
    tunnel.checksum = *n != 0;
  } else {
    return false;
  }
  return true;
}

bool set_port_option(const std::string& name, const std::string& value, PortView& port) {
  if (name == "tag") {
    const auto n = number(value);
    if (!n || *n > 4095) return false;
    port.vlan.tag = static_cast<uint16_t>(*n);
    if (port.vlan.mode == VlanMode::trunk) port.vlan.mode = VlanMode::access;
    return true;
  }
  if (name == "vlan_mode") return set_vlan_mode(value, port.vlan);
  if (name == "trunks") return set_vlans(value, port.vlan.trunks);
  if (name == "priority_tags") return port.vlan.priority_tags = true;
  if (name == "protected") return port.protected_port = true;
  if (name == "config") return set_config(value, port.config);
  return port.tunnel.has_value() && set_tunnel_option(name, value, *port.tunnel);
}

std::pair<std::string, std::string> name_and_value(const std::string& word) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos) return {word, ""};
  return {word.substr(0, equals), word.substr(equals + 1)};
}

}  // namespace

SwitchFixture::SwitchFixture() = default;
SwitchFixture::~SwitchFixture() = default;

BridgeView& SwitchFixture::add_bridge(const std::string& name) {
  auto bridge = std::make_unique<BridgeView>();
  bridge->name = name;
  bridge->tables = std::make_shared<RuleTables>(clock_);
  mac_tables_.push_back(std::make_unique<MacTable>(clock_));
  bridge->macs = mac_tables_.back().get();
  return *(view_.bridges[name] = std::move(bridge));
}

BridgeView* SwitchFixture::bridge(std::string_view name) {
  const auto it = view_.bridges.find(name);
  return it == view_.bridges.end() ? nullptr : it->second.get();
}

PortView* SwitchFixture::port(std::string_view name) {
  const auto it = ports_.find(name);
  return it == ports_.end() ? nullptr : it->second;
}

PortView& SwitchFixture::add_port(const std::string& bridge_name, const std::string& name, OfPort ofport) {
  BridgeView& owner = *bridge(bridge_name);
  auto port = std::make_unique<PortView>();
  port->name = name;
  port->ofport = ofport;
  port->dp_port = next_dp_port_++;
  port->bridge = &owner;
  PortView& added = *port;
  const auto place =
      std::find_if(owner.ports.begin(), owner.ports.end(), [&](const auto& other) { return other->ofport > ofport; });
  owner.ports.insert(place, std::move(port));
  owner.by_ofport[ofport] = &added;
  view_.by_dp_port[added.dp_port] = &added;
  ports_[name] = &added;
  return added;
}

PortView& SwitchFixture::add_patch(const std::string& bridge_name, const std::string& name, OfPort ofport,
                                   const std::string& peer) {
  PortView& port = add_port(bridge_name, name, ofport);
  view_.by_dp_port.erase(port.dp_port);
  --next_dp_port_;
  port.dp_port = 0;
  port.is_patch = true;
  port.patch_counters = std::make_shared<PatchCounters>();
  peers_[name] = peer;
  connect_patches();
  return port;
}

void SwitchFixture::connect_patches() {
  for (const auto& [name, peer] : peers_) {
    PortView* other = port(peer);
    port(name)->patch_peer = other != nullptr && other->is_patch ? other : nullptr;
  }
}

Status SwitchFixture::add_rule(const std::string& bridge_name, std::string_view text) {
  BridgeView* owner = bridge(bridge_name);
  if (owner == nullptr) return not_found("no bridge " + bridge_name);
  Result<RuleMod> mod = parse_rule_mod(text, RuleCommand::add);
  if (!mod.ok()) return mod.status();
  Result<RuleChange> change = owner->tables->prepare(std::span(&*mod, 1));
  if (!change.ok()) return change.status();
  change->publish();
  return {};
}

Status SwitchFixture::add_rules(const std::string& bridge_name, const std::vector<RuleSpec>& rules) {
  std::vector<RuleMod> mods(rules.size());
  for (size_t i = 0; i < rules.size(); ++i) mods[i].spec = rules[i];
  Result<RuleChange> change = bridge(bridge_name)->tables->prepare(mods);
  if (!change.ok()) return change.status();
  change->publish();
  return {};
}

Status SwitchFixture::apply(std::string_view line) {
  const std::vector<std::string> words = split(line, ' ');
  if (words.empty() || words[0][0] == '#') return {};
  if (words[0] == "bridge" && words.size() >= 2) return apply_bridge(words);
  if (words[0] == "port" && words.size() >= 4) return apply_port(words);
  if (words[0] == "mac" && words.size() == 5) return apply_mac(words);
  if (words[0] == "rule" && words.size() >= 3) {
    return add_rule(words[1], line.substr(line.find(words[1]) + words[1].size() + 1));
  }
  return invalid_argument("cannot understand: " + std::string(line));
}

Status SwitchFixture::apply_bridge(const std::vector<std::string>& words) {
  BridgeView& added = add_bridge(words[1]);
  for (size_t i = 2; i < words.size(); ++i) {
    const auto [name, value] = name_and_value(words[i]);
    if (name == "secure") {
      added.secure = true;
    } else if (name == "forward-bpdu") {
      added.forward_bpdu = true;
    } else if (name != "flood_vlans" || !set_vlans(value, added.flood_vlans)) {
      return invalid_argument("bridge option: " + words[i]);
    }
  }
  return {};
}

Status SwitchFixture::apply_port(const std::vector<std::string>& words) {
  const auto ofport = number(words[3]);
  if (bridge(words[1]) == nullptr || !ofport) return invalid_argument("no such bridge or port number: " + words[1]);
  std::map<std::string, std::string> options;
  for (size_t i = 4; i < words.size(); ++i) options.insert(name_and_value(words[i]));
  const std::string type = options["type"], peer = options["peer"], dp = options["dp"];
  for (const char* handled : {"type", "peer", "dp"}) options.erase(handled);

  const auto of = static_cast<OfPort>(*ofport);
  PortView& port = type == "patch" ? add_patch(words[1], words[2], of, peer) : add_port(words[1], words[2], of);
  if (type == "vxlan") {
    port.tunnel.emplace();
    port.tunnel->local = IpAddress{};
    port.tunnel->out_key = port.tunnel->in_key = 0;
    port.tunnel->tos = 0;
  }
  if (!dp.empty()) {
    view_.by_dp_port.erase(port.dp_port);
    port.dp_port = static_cast<uint32_t>(number(dp).value_or(0));
    view_.by_dp_port[port.dp_port] = &port;
    --next_dp_port_;
  }
  for (const auto& [name, value] : options) {
    if (!set_port_option(name, value, port)) return invalid_argument("port option: " + name);
  }
  return {};
}

Status SwitchFixture::apply_mac(const std::vector<std::string>& words) {
  BridgeView* owner = bridge(words[1]);
  const auto vlan = number(words[2]), port = number(words[4]);
  const auto mac = MacAddress::parse(words[3]);
  if (owner == nullptr || !vlan || !port || !mac) return invalid_argument("mac: bridge, VLAN, address or port");
  owner->macs->learn(static_cast<uint16_t>(*vlan), *mac, static_cast<OfPort>(*port));
  return {};
}

}  // namespace vswitch::test
