#include "vswitchd/control/config_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace vswitch {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 4> kVlanModes = {"access", "trunk", "native-tagged", "native-untagged"};

json vlan_to_json(const VlanConfig& vlan) {
  json trunks = json::array();
  for (size_t vid = 0; vid < vlan.trunks.size(); ++vid) {
    if (vlan.trunks.test(vid)) trunks.push_back(vid);
  }
  return {{"mode", kVlanModes[static_cast<size_t>(vlan.mode)]},
          {"tag", vlan.tag},
          {"trunks", std::move(trunks)},
          {"priority_tags", vlan.priority_tags}};
}

// Reads members of one JSON object, each once; finish() complains about any that nobody read. Throws json exceptions
// and std::runtime_error, caught in decode().
class ObjectReader {
 public:
  explicit ObjectReader(const json& object) : object_(object) {
    if (!object.is_object()) throw std::runtime_error("not a JSON object");
  }
  template <typename T>
  T get(const char* name) {
    ++read_;
    const json& value = object_.at(name);
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      const auto wide = value.get<int64_t>();
      if (!value.is_number_integer() || wide < 0 || static_cast<uint64_t>(wide) > std::numeric_limits<T>::max()) {
        throw std::runtime_error(fmt::format("member \"{}\" is out of range", name));
      }
      return static_cast<T>(wide);
    } else {
      return value.get<T>();
    }
  }
  // VLAN ids; the element type of get<std::vector<uint16_t>>() would silently cut what does not fit.
  std::vector<uint16_t> vlans(const char* name) {
    ++read_;
    const json& list = object_.at(name);
    if (!list.is_array()) throw std::runtime_error(fmt::format("member \"{}\" is no list", name));
    std::vector<uint16_t> vlans;
    for (const json& value : list) {
      if (!value.is_number_unsigned() || value.get<uint64_t>() > 4095) {
        throw std::runtime_error(fmt::format("member \"{}\" holds something else than VLANs of 0 to 4095", name));
      }
      vlans.push_back(value.get<uint16_t>());
    }
    return vlans;
  }
  // "" when it is not there: added after configurations were first written.
  std::string optional_text(const char* name) { return object_.contains(name) ? get<std::string>(name) : ""; }
  bool optional_flag(const char* name, bool otherwise) { return object_.contains(name) ? get<bool>(name) : otherwise; }
  const json& member(const char* name) {
    ++read_;
    return object_.at(name);
  }
  void finish() const {
    if (read_ != object_.size()) throw std::runtime_error("members that this version does not know");
  }

 private:
  const json& object_;
  size_t read_ = 0;
};

MacAddress mac_from(const std::string& text) {
  if (text.empty()) return {};
  const std::optional<MacAddress> mac = MacAddress::parse(text);
  if (!mac) throw std::runtime_error(fmt::format("\"{}\" is not an Ethernet address", text));
  return *mac;
}

std::string mac_to(const MacAddress& mac) { return mac.is_zero() ? std::string() : mac.to_string(); }

VlanConfig vlan_from_json(const json& object) {
  ObjectReader reader(object);
  VlanConfig vlan;
  const auto mode = reader.get<std::string>("mode");
  const auto* found = std::find(kVlanModes.begin(), kVlanModes.end(), mode);
  if (found == kVlanModes.end()) throw std::runtime_error(fmt::format("unknown VLAN mode \"{}\"", mode));
  vlan.mode = static_cast<VlanMode>(found - kVlanModes.begin());
  vlan.tag = reader.get<uint16_t>("tag");
  for (const uint16_t vid : reader.vlans("trunks")) vlan.trunks.set(vid);
  vlan.priority_tags = reader.get<bool>("priority_tags");
  reader.finish();
  return vlan;
}

FailMode fail_mode_from(const std::string& text) {
  if (text == "secure") return FailMode::secure;
  if (text == "standalone") return FailMode::standalone;
  throw std::runtime_error(fmt::format("unknown fail mode \"{}\"", text));
}

PortConfigFlags flags_from_json(const json& object) {
  ObjectReader reader(object);
  PortConfigFlags flags;
  flags.down = reader.get<bool>("down");
  flags.no_receive = reader.get<bool>("no_receive");
  flags.no_forward = reader.get<bool>("no_forward");
  flags.no_flood = reader.get<bool>("no_flood");
  flags.no_packet_in = reader.get<bool>("no_packet_in");
  reader.finish();
  return flags;
}

template <typename T, typename Decode>
Result<T> decode(std::string_view what, std::string_view text, Decode&& from_object) {
  try {
    const json document = json::parse(text);
    ObjectReader reader(document);
    T value = from_object(reader);
    reader.finish();
    return value;
  } catch (const std::exception& error) {
    return Status(StatusCode::internal, fmt::format("stored {} cannot be read: {}", what, error.what()));
  }
}

}  // namespace

std::string encode_bridge(const BridgeConfig& config) {
  return json{{"name", config.name},
              {"fail_mode", config.fail_mode == FailMode::secure ? "secure" : "standalone"},
              {"mac", mac_to(config.mac)},
              {"mac_ageing_seconds", config.mac_ageing_seconds},
              {"mac_table_size", config.mac_table_size},
              {"flood_vlans", config.flood_vlans},
              {"external_ids", config.external_ids}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<BridgeConfig> decode_bridge(std::string_view text) {
  return decode<BridgeConfig>("bridge", text, [](ObjectReader& reader) {
    BridgeConfig config;
    config.name = reader.get<std::string>("name");
    config.fail_mode = fail_mode_from(reader.get<std::string>("fail_mode"));
    config.mac = mac_from(reader.get<std::string>("mac"));
    config.mac_ageing_seconds = reader.get<uint32_t>("mac_ageing_seconds");
    config.mac_table_size = reader.get<uint32_t>("mac_table_size");
    const std::vector<uint16_t> flood_vlans = reader.vlans("flood_vlans");
    config.flood_vlans = {flood_vlans.begin(), flood_vlans.end()};
    config.external_ids = reader.get<std::map<std::string, std::string>>("external_ids");
    return config;
  });
}

std::string encode_port(const StoredPort& port) {
  const PortConfig& config = port.config;
  return json{{"name", config.vport.name},
              {"bridge", config.bridge},
              {"type", config.vport.type},
              {"options", config.vport.options},
              {"mtu_request", config.vport.mtu_request},
              {"mac", mac_to(config.vport.mac)},
              {"ofport_request", config.ofport_request},
              {"vlan", vlan_to_json(config.vlan)},
              {"flags",
               {{"down", config.flags.down},
                {"no_receive", config.flags.no_receive},
                {"no_forward", config.flags.no_forward},
                {"no_flood", config.flags.no_flood},
                {"no_packet_in", config.flags.no_packet_in}}},
              {"protected", config.protected_port},
              {"external_ids", config.external_ids},
              {"ofport", port.ofport},
              {"dp_port", port.dp_port}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<StoredPort> decode_port(std::string_view text) {
  return decode<StoredPort>("port", text, [](ObjectReader& reader) {
    StoredPort port;
    PortConfig& config = port.config;
    config.vport.name = reader.get<std::string>("name");
    config.bridge = reader.get<std::string>("bridge");
    config.vport.type = reader.get<std::string>("type");
    config.vport.options = reader.get<std::map<std::string, std::string>>("options");
    config.vport.mtu_request = reader.get<uint32_t>("mtu_request");
    config.vport.mac = mac_from(reader.get<std::string>("mac"));
    config.ofport_request = reader.get<uint16_t>("ofport_request");
    config.vlan = vlan_from_json(reader.member("vlan"));
    config.flags = flags_from_json(reader.member("flags"));
    config.protected_port = reader.get<bool>("protected");
    config.external_ids = reader.get<std::map<std::string, std::string>>("external_ids");
    port.ofport = reader.get<uint16_t>("ofport");
    port.dp_port = reader.get<uint32_t>("dp_port");
    return port;
  });
}

std::string encode_settings(const Settings& settings) {
  return json{{"forwarding_threads", settings.forwarding_threads},
              {"max_idle_ms", settings.max_idle_ms},
              {"max_datapath_flows", settings.max_datapath_flows},
              {"kernel_path", settings.kernel_path},
              {"dpdk_extra", settings.dpdk.extra},
              {"dpdk_socket_mem", settings.dpdk.socket_mem},
              {"dpdk_hugepage_dir", settings.dpdk.hugepage_dir}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<Settings> decode_settings(std::string_view text) {
  return decode<Settings>("settings", text, [](ObjectReader& reader) {
    Settings settings;
    settings.forwarding_threads = reader.get<uint32_t>("forwarding_threads");
    settings.max_idle_ms = reader.get<uint32_t>("max_idle_ms");
    settings.max_datapath_flows = reader.get<uint32_t>("max_datapath_flows");
    settings.kernel_path = reader.optional_flag("kernel_path", settings.kernel_path);
    settings.dpdk.extra = reader.optional_text("dpdk_extra");
    settings.dpdk.socket_mem = reader.optional_text("dpdk_socket_mem");
    settings.dpdk.hugepage_dir = reader.optional_text("dpdk_hugepage_dir");
    return settings;
  });
}

}  // namespace vswitch
