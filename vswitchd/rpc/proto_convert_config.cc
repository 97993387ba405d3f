#include "vswitchd/rpc/proto_convert_config.h"

#include <fmt/format.h>
#include <google/protobuf/util/field_mask_util.h>

#include "datapath/vport/vport_registry.h"
#include "vswitchd/rpc/resource_names.h"

namespace vswitch {
namespace {

using google::protobuf::FieldMask;
using google::protobuf::util::FieldMaskUtil;
using StringMap = google::protobuf::Map<std::string, std::string>;

Result<MacAddress> mac_from_text(const std::string& text, const std::string& field) {
  if (text.empty()) return MacAddress{};
  if (auto mac = MacAddress::parse(text)) return *mac;
  return invalid_argument("\"" + text + "\" is not an Ethernet address: write it as 0a:00:00:00:00:01", field);
}

std::string mac_to_text(const MacAddress& mac) { return mac.is_zero() ? std::string() : mac.to_string(); }

// ---- VLAN

Status check_vlan_id(uint32_t id, const std::string& field) {
  if (id < 4096) return {};
  return invalid_argument(fmt::format("VLAN {} is out of range: 0 to 4095", id), field);
}

// A mode that the tag implies is not spelled out, so that an update of the tag alone does what it says.
v1::VlanMode vlan_mode_to_proto(const VlanConfig& vlan) {
  switch (vlan.mode) {
    case VlanMode::access:
      return vlan.tag != 0 ? v1::VLAN_MODE_UNSPECIFIED : v1::VLAN_MODE_ACCESS;
    case VlanMode::trunk:
      return vlan.tag == 0 ? v1::VLAN_MODE_UNSPECIFIED : v1::VLAN_MODE_TRUNK;
    case VlanMode::native_tagged:
      return v1::VLAN_MODE_NATIVE_TAGGED;
    case VlanMode::native_untagged:
      return v1::VLAN_MODE_NATIVE_UNTAGGED;
  }
  return v1::VLAN_MODE_UNSPECIFIED;
}

Result<VlanMode> vlan_mode_from_proto(const v1::Vlan& vlan) {
  switch (vlan.mode()) {
    case v1::VLAN_MODE_UNSPECIFIED:
      return vlan.tag() != 0 ? VlanMode::access : VlanMode::trunk;
    case v1::VLAN_MODE_ACCESS:
      return VlanMode::access;
    case v1::VLAN_MODE_TRUNK:
      return VlanMode::trunk;
    case v1::VLAN_MODE_NATIVE_TAGGED:
      return VlanMode::native_tagged;
    case v1::VLAN_MODE_NATIVE_UNTAGGED:
      return VlanMode::native_untagged;
    default:
      return invalid_argument(
          fmt::format("unknown VLAN mode {}: ACCESS, TRUNK, NATIVE_TAGGED or NATIVE_UNTAGGED", int{vlan.mode()}),
          "vlan.mode");
  }
}

void vlan_to_proto(const VlanConfig& vlan, v1::Vlan& out) {
  out.set_mode(vlan_mode_to_proto(vlan));
  out.set_tag(vlan.tag);
  for (uint32_t id = 0; id < 4096; ++id) {
    if (vlan.trunks[id]) out.add_trunks(id);
  }
  out.set_priority_tags(vlan.priority_tags);
}

Result<VlanConfig> vlan_from_proto(const v1::Vlan& vlan) {
  VlanConfig out;
  Result<VlanMode> mode = vlan_mode_from_proto(vlan);
  if (!mode.ok()) return mode.status();
  out.mode = *mode;
  VSWITCH_RETURN_IF_ERROR(check_vlan_id(vlan.tag(), "vlan.tag"));
  out.tag = static_cast<uint16_t>(vlan.tag());
  for (uint32_t id : vlan.trunks()) {
    VSWITCH_RETURN_IF_ERROR(check_vlan_id(id, "vlan.trunks"));
    out.trunks.set(id);
  }
  out.priority_tags = vlan.priority_tags();
  return out;
}

// ---- Masks

StringMap* find_map(v1::Bridge& bridge, std::string_view name) {
  return name == "external_ids" ? bridge.mutable_external_ids() : nullptr;
}
StringMap* find_map(v1::Port& port, std::string_view name) {
  if (name == "options") return port.mutable_options();
  return name == "external_ids" ? port.mutable_external_ids() : nullptr;
}
StringMap* find_map(v1::Settings&, std::string_view) { return nullptr; }

// Output-only fields have numbers from 20 on in these messages; see resources.proto.
constexpr int kFirstOutputOnly = 20;

std::string writable_fields(const google::protobuf::Descriptor& type) {
  std::string list;
  for (int i = 0; i < type.field_count(); ++i) {
    if (type.field(i)->number() >= kFirstOutputOnly || type.field(i)->name() == "name") continue;
    list += (list.empty() ? "" : ", ") + type.field(i)->name();
  }
  return list;
}

template <typename Resource>
Status check_path(const std::string& path) {
  const auto* type = Resource::descriptor();
  const auto* head = type->FindFieldByName(path.substr(0, path.find('.')));
  if (head == nullptr || !FieldMaskUtil::IsValidPath<Resource>(path)) {
    return invalid_argument(
        fmt::format("\"{}\" is no field of a {}; these are: {}", path, type->name(), writable_fields(*type)),
        "update_mask");
  }
  if (head->number() >= kFirstOutputOnly) {
    return invalid_argument(fmt::format("\"{}\" is reported by the switch and cannot be set", path), "update_mask");
  }
  return {};
}

template <typename Resource>
Status merge_path(const Resource& request, const std::string& path, Resource& resource) {
  size_t dot = path.find('.');
  if (dot != std::string::npos) {
    if (StringMap* into = find_map(resource, path.substr(0, dot))) {
      Resource& source = const_cast<Resource&>(request);  // find_map() only reads it
      const StringMap& from = *find_map(source, path.substr(0, dot));
      std::string key = path.substr(dot + 1);
      auto entry = from.find(key);
      if (entry == from.end()) {
        into->erase(key);
      } else {
        (*into)[key] = entry->second;
      }
      return {};
    }
  }
  VSWITCH_RETURN_IF_ERROR(check_path<Resource>(path));
  FieldMask one;
  one.add_paths(path);
  FieldMaskUtil::MergeOptions options;
  options.set_replace_message_fields(true);
  options.set_replace_repeated_fields(true);
  FieldMaskUtil::MergeMessageTo(request, one, options, &resource);
  return {};
}

template <typename Resource>
Status merge_paths(const Resource& request, const FieldMask& mask, Resource& resource) {
  for (const std::string& path : mask.paths()) VSWITCH_RETURN_IF_ERROR(merge_path(request, path, resource));
  return {};
}

}  // namespace

// ---------------------------------------------------------------- bridges

v1::Bridge to_proto(const BridgeConfig& config) {
  v1::Bridge out;
  out.set_name(bridge_resource(config.name));
  out.set_fail_mode(config.fail_mode == FailMode::secure ? v1::FAIL_MODE_SECURE : v1::FAIL_MODE_STANDALONE);
  out.set_mac(mac_to_text(config.mac));
  out.set_mac_ageing_seconds(config.mac_ageing_seconds);
  out.set_mac_table_size(config.mac_table_size);
  for (uint16_t vlan : config.flood_vlans) out.add_flood_vlans(vlan);
  out.mutable_external_ids()->insert(config.external_ids.begin(), config.external_ids.end());
  return out;
}

v1::Bridge to_proto(const BridgeInfo& info) {
  v1::Bridge out = to_proto(info.config);
  out.set_mac_in_use(info.mac.to_string());
  out.set_datapath_id(fmt::format("{:016x}", info.datapath_id));
  out.set_rule_count(info.rules);
  return out;
}

Result<BridgeConfig> bridge_from_proto(const v1::Bridge& bridge) {
  BridgeConfig out;
  Result<std::string> name = bridge_name(bridge.name(), "name");
  if (!name.ok()) return name.status();
  out.name = *name;
  if (!v1::FailMode_IsValid(bridge.fail_mode())) {
    return invalid_argument("unknown fail mode: STANDALONE or SECURE", "fail_mode");
  }
  out.fail_mode = bridge.fail_mode() == v1::FAIL_MODE_SECURE ? FailMode::secure : FailMode::standalone;
  Result<MacAddress> mac = mac_from_text(bridge.mac(), "mac");
  if (!mac.ok()) return mac.status();
  out.mac = *mac;
  if (bridge.mac_ageing_seconds() != 0) out.mac_ageing_seconds = bridge.mac_ageing_seconds();
  if (bridge.mac_table_size() != 0) out.mac_table_size = bridge.mac_table_size();
  for (uint32_t vlan : bridge.flood_vlans()) {
    VSWITCH_RETURN_IF_ERROR(check_vlan_id(vlan, "flood_vlans"));
    out.flood_vlans.insert(static_cast<uint16_t>(vlan));
  }
  out.external_ids = {bridge.external_ids().begin(), bridge.external_ids().end()};
  return out;
}

Status merge(const v1::Bridge& request, const FieldMask& mask, v1::Bridge& resource) {
  if (!mask.paths().empty()) return merge_paths(request, mask, resource);
  std::string name = resource.name();
  resource = request;
  resource.set_name(name);
  return {};
}

// ---------------------------------------------------------------- ports

v1::Port to_proto(const PortConfig& config) {
  v1::Port out;
  out.set_name(port_resource(config.name()));
  out.set_bridge(bridge_resource(config.bridge));
  out.set_type(config.vport.type);
  out.mutable_options()->insert(config.vport.options.begin(), config.vport.options.end());
  out.set_mtu_request(config.vport.mtu_request);
  out.set_mac(mac_to_text(config.vport.mac));
  out.set_ofport_request(config.ofport_request);
  vlan_to_proto(config.vlan, *out.mutable_vlan());
  v1::PortFlags& flags = *out.mutable_flags();
  flags.set_down(config.flags.down);
  flags.set_no_receive(config.flags.no_receive);
  flags.set_no_forward(config.flags.no_forward);
  flags.set_no_flood(config.flags.no_flood);
  flags.set_no_packet_in(config.flags.no_packet_in);
  out.set_protected_(config.protected_port);
  out.mutable_external_ids()->insert(config.external_ids.begin(), config.external_ids.end());
  return out;
}

v1::Port to_proto(const PortInfo& info) {
  v1::Port out = to_proto(info.config);
  out.set_ofport(info.ofport);
  out.set_datapath_port(info.dp_port);
  out.set_is_local(info.is_local);
  *out.mutable_state() = to_proto(info.state);
  *out.mutable_statistics() = to_proto(info.stats);
  return out;
}

v1::PortState to_proto(const VportState& state) {
  v1::PortState out;
  out.set_admin_up(state.admin_up);
  out.set_carrier(state.carrier);
  out.set_mtu(state.mtu);
  out.set_ifindex(state.ifindex);
  out.set_mac(mac_to_text(state.mac));
  out.set_speed_bits_per_second(state.speed_bps);
  out.set_link_resets(state.link_resets);
  out.set_error(state.error);
  out.mutable_details()->insert(state.status.begin(), state.status.end());
  return out;
}

v1::PortStatistics to_proto(const VportStats& stats) {
  v1::PortStatistics out;
  out.set_rx_packets(stats.rx_packets);
  out.set_rx_bytes(stats.rx_bytes);
  out.set_rx_errors(stats.rx_errors);
  out.set_rx_dropped(stats.rx_dropped);
  out.set_rx_length_errors(stats.rx_length_errors);
  out.set_rx_over_errors(stats.rx_over_errors);
  out.set_rx_crc_errors(stats.rx_crc_errors);
  out.set_rx_frame_errors(stats.rx_frame_errors);
  out.set_tx_packets(stats.tx_packets);
  out.set_tx_bytes(stats.tx_bytes);
  out.set_tx_errors(stats.tx_errors);
  out.set_tx_dropped(stats.tx_dropped);
  out.set_tx_carrier_errors(stats.tx_carrier_errors);
  out.set_collisions(stats.collisions);
  out.set_multicast(stats.multicast);
  return out;
}

namespace {

std::string port_type(const std::string& type) { return type.empty() || type == "system" ? "netdev" : type; }

PortConfigFlags flags_from_proto(const v1::PortFlags& flags) {
  PortConfigFlags out;
  out.down = flags.down();
  out.no_receive = flags.no_receive();
  out.no_forward = flags.no_forward();
  out.no_flood = flags.no_flood();
  out.no_packet_in = flags.no_packet_in();
  return out;
}

}  // namespace

Result<PortConfig> port_from_proto(const v1::Port& port) {
  PortConfig out;
  Result<std::string> name = port_name(port.name(), "name");
  if (!name.ok()) return name.status();
  Result<std::string> bridge = bridge_name(port.bridge(), "bridge");
  if (!bridge.ok()) return bridge.status();
  out.bridge = *bridge;
  out.vport.name = *name;
  out.vport.type = port_type(port.type());
  out.vport.options = {port.options().begin(), port.options().end()};
  out.vport.mtu_request = port.mtu_request();
  Result<MacAddress> mac = mac_from_text(port.mac(), "mac");
  if (!mac.ok()) return mac.status();
  out.vport.mac = *mac;
  if (port.ofport_request() >= kOfPortMax) {
    return invalid_argument(
        fmt::format("ofport_request {} is out of range: 1 to {}", port.ofport_request(), kOfPortMax - 1),
        "ofport_request");
  }
  out.ofport_request = static_cast<uint16_t>(port.ofport_request());
  Result<VlanConfig> vlan = vlan_from_proto(port.vlan());
  if (!vlan.ok()) return vlan.status();
  out.vlan = *vlan;
  out.flags = flags_from_proto(port.flags());
  out.protected_port = port.protected_();
  out.external_ids = {port.external_ids().begin(), port.external_ids().end()};
  return out;
}

Status merge(const v1::Port& request, const FieldMask& mask, v1::Port& resource) {
  if (!mask.paths().empty()) return merge_paths(request, mask, resource);
  v1::Port merged = request;
  merged.set_name(resource.name());
  if (merged.bridge().empty()) merged.set_bridge(resource.bridge());
  if (merged.type().empty()) merged.set_type(resource.type());
  resource = std::move(merged);
  return {};
}

// ---------------------------------------------------------------- settings

v1::Settings to_proto(const Settings& settings) {
  v1::Settings out;
  out.set_forwarding_threads(settings.forwarding_threads);
  out.set_max_idle_ms(settings.max_idle_ms);
  out.set_max_datapath_flows(settings.max_datapath_flows);
  out.set_dpdk_extra(settings.dpdk.extra);
  out.set_dpdk_socket_mem(settings.dpdk.socket_mem);
  out.set_dpdk_hugepage_dir(settings.dpdk.hugepage_dir);
  out.set_kernel_path(settings.kernel_path);
  return out;
}

Settings settings_from_proto(const v1::Settings& settings) {
  Settings out;
  if (settings.forwarding_threads() != 0) out.forwarding_threads = settings.forwarding_threads();
  if (settings.max_idle_ms() != 0) out.max_idle_ms = settings.max_idle_ms();
  if (settings.max_datapath_flows() != 0) out.max_datapath_flows = settings.max_datapath_flows();
  if (settings.has_kernel_path()) out.kernel_path = settings.kernel_path();
  out.dpdk = {settings.dpdk_extra(), settings.dpdk_socket_mem(), settings.dpdk_hugepage_dir()};
  return out;
}

Status merge(const v1::Settings& request, const FieldMask& mask, v1::Settings& resource) {
  if (!mask.paths().empty()) return merge_paths(request, mask, resource);
  resource = request;
  return {};
}

}  // namespace vswitch
