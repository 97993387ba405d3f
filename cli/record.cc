#include "cli/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <initializer_list>

#include "cli/command_line.h"
#include "cli/json_text.h"

namespace vswitch::cli {
namespace {

std::string lower(std::string_view text) {
  std::string out;
  for (char c : text) out += c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

Column scalar(std::string_view name, std::string value) { return {std::string(name), false, {std::move(value)}, {}}; }
Column text(std::string_view name, const std::string& value) {
  return value.empty() ? Column{std::string(name), false, {}, {}} : scalar(name, quote(value));
}
Column number(std::string_view name, uint64_t value, bool empty_if_zero = false) {
  return empty_if_zero && value == 0 ? Column{std::string(name), false, {}, {}} : scalar(name, std::to_string(value));
}
Column flag(std::string_view name, bool value) { return scalar(name, value ? "true" : "false"); }
Column map_column(std::string_view name, std::map<std::string, std::string> map) {
  return {std::string(name), true, {}, std::move(map)};
}
template <typename Map>
std::map<std::string, std::string> copy_map(const Map& map) {
  return {map.begin(), map.end()};
}
template <typename Numbers>
Column numbers(std::string_view name, const Numbers& values) {
  Column out{std::string(name), false, {}, {}};
  for (uint32_t value : values) out.set.push_back(std::to_string(value));
  return out;
}

std::string vlan_mode_text(v1::VlanMode mode) {
  switch (mode) {
    case v1::VLAN_MODE_ACCESS:
      return "access";
    case v1::VLAN_MODE_TRUNK:
      return "trunk";
    case v1::VLAN_MODE_NATIVE_TAGGED:
      return "native-tagged";
    case v1::VLAN_MODE_NATIVE_UNTAGGED:
      return "native-untagged";
    default:
      return "";
  }
}

std::map<std::string, std::string> statistics_map(const v1::PortStatistics& s) {
  return {{"collisions", std::to_string(s.collisions())},
          {"multicast", std::to_string(s.multicast())},
          {"rx_bytes", std::to_string(s.rx_bytes())},
          {"rx_crc_err", std::to_string(s.rx_crc_errors())},
          {"rx_dropped", std::to_string(s.rx_dropped())},
          {"rx_errors", std::to_string(s.rx_errors())},
          {"rx_frame_err", std::to_string(s.rx_frame_errors())},
          {"rx_length_err", std::to_string(s.rx_length_errors())},
          {"rx_over_err", std::to_string(s.rx_over_errors())},
          {"rx_packets", std::to_string(s.rx_packets())},
          {"tx_bytes", std::to_string(s.tx_bytes())},
          {"tx_carrier_err", std::to_string(s.tx_carrier_errors())},
          {"tx_dropped", std::to_string(s.tx_dropped())},
          {"tx_errors", std::to_string(s.tx_errors())},
          {"tx_packets", std::to_string(s.tx_packets())}};
}

std::string unquote(std::string_view value) {
  if (value.size() < 2 || value.front() != '"' || value.back() != '"') return std::string(value);
  std::string out;
  for (size_t i = 1; i + 1 < value.size(); ++i) {
    if (value[i] == '\\' && i + 2 < value.size()) ++i;
    out += value[i];
  }
  return out;
}

// Splits at commas outside quotes, without the brackets around, blanks trimmed.
std::vector<std::string> split_list(std::string_view text, char open, char close) {
  if (text.size() >= 2 && text.front() == open && text.back() == close) text = text.substr(1, text.size() - 2);
  std::vector<std::string> out;
  std::string part;
  bool quoted = false;
  auto flush = [&] {
    size_t first = part.find_first_not_of(" \t");
    if (first != std::string::npos) out.push_back(part.substr(first, part.find_last_not_of(" \t") - first + 1));
    part.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\\' && quoted && i + 1 < text.size()) {
      part += c;
      c = text[++i];
    } else if (c == '"') {
      quoted = !quoted;
    }
    if (c == ',' && !quoted) {
      flush();
    } else {
      part += c;
    }
  }
  flush();
  return out;
}

bool parse_number(const std::string& value, uint64_t limit, uint32_t& out) {
  uint64_t parsed = 0;
  auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
  if (error != std::errc() || end != value.data() + value.size() || value.empty() || parsed > limit) return false;
  out = static_cast<uint32_t>(parsed);
  return true;
}

bool parse_flag(const std::string& value, bool& out) {
  if (value != "true" && value != "false") return false;
  out = value == "true";
  return true;
}

// One scalar of a row: fills the message and names the path.
std::string wrong(std::string_view column, std::string_view value, std::string_view wanted) {
  return fmt::format("{}={}: {}", column, value, wanted);
}

std::string unknown_column(Table table, std::string_view column, std::span<const std::string_view> known) {
  std::string_view like = nearest(column, known);
  return fmt::format("table {} has no column \"{}\" that can be set{}; it has {}", table_name(table), column,
                     like.empty() ? "" : fmt::format("; did you mean \"{}\"?", like), fmt::join(known, ", "));
}

// A map column: whole, or one key. An empty value of a key given with ":" is a value like any other.
template <typename Map>
std::string set_map(const ColumnExpression& what, std::string_view path, Map& map, google::protobuf::FieldMask& mask) {
  if (what.key) {
    map[*what.key] = unquote(what.value);
    mask.add_paths(fmt::format("{}.{}", path, *what.key));
    return "";
  }
  std::map<std::string, std::string> parsed;
  if (!parse_map(what.value, parsed)) {
    return wrong(what.column, what.value,
                 fmt::format("a map is wanted: {0}:KEY=VALUE, or {0}=KEY=VALUE,KEY=VALUE", what.column));
  }
  // As in Open vSwitch, `set` with pairs adds to the map; {} empties it.
  for (const auto& [key, value] : parsed) {
    map[key] = value;
    mask.add_paths(fmt::format("{}.{}", path, key));
  }
  if (parsed.empty()) {
    map.clear();
    mask.add_paths(std::string(path));
  }
  return "";
}

std::string set_number(const ColumnExpression& what, std::string_view path, uint64_t limit, uint32_t& into,
                       google::protobuf::FieldMask& mask) {
  std::vector<std::string> set = parse_set(what.value);
  if (what.value == "[]") {
    into = 0;
  } else if (set.size() != 1 || !parse_number(set[0], limit, into)) {
    std::string name = what.key ? fmt::format("{}:{}", what.column, *what.key) : what.column;
    return wrong(name, what.value, fmt::format("a number from 0 to {} is wanted", limit));
  }
  mask.add_paths(std::string(path));
  return "";
}

constexpr std::string_view kPortColumns[] = {"tag", "trunks", "vlan_mode", "protected", "other_config", "external_ids"};
constexpr std::string_view kInterfaceColumns[] = {"type",        "options",        "mac",
                                                  "mtu_request", "ofport_request", "external_ids"};
constexpr std::string_view kBridgeColumns[] = {"fail_mode", "other_config", "flood_vlans", "external_ids",
                                               "datapath_type"};

std::string set_vlan_mode(const ColumnExpression& what, Update<v1::Port>& update) {
  std::string mode = unquote(what.value);
  v1::VlanMode parsed = v1::VLAN_MODE_UNSPECIFIED;
  if (mode == "access") {
    parsed = v1::VLAN_MODE_ACCESS;
  } else if (mode == "trunk") {
    parsed = v1::VLAN_MODE_TRUNK;
  } else if (mode == "native-tagged") {
    parsed = v1::VLAN_MODE_NATIVE_TAGGED;
  } else if (mode == "native-untagged") {
    parsed = v1::VLAN_MODE_NATIVE_UNTAGGED;
  } else if (mode != "[]") {
    return wrong("vlan_mode", mode, "it is access, trunk, native-tagged or native-untagged");
  }
  update.message.mutable_vlan()->set_mode(parsed);
  update.mask.add_paths("vlan.mode");
  return "";
}

std::string set_trunks(const ColumnExpression& what, Update<v1::Port>& update) {
  v1::Vlan& vlan = *update.message.mutable_vlan();
  vlan.clear_trunks();
  for (const std::string& element : parse_set(what.value)) {
    uint32_t id = 0;
    if (!parse_number(element, 4095, id))
      return wrong("trunks", what.value, "VLANs from 0 to 4095 are wanted: trunks=10,20");
    vlan.add_trunks(id);
  }
  update.mask.add_paths("vlan.trunks");
  return "";
}

using SetKey = std::function<std::string(const std::string& key, const std::string& value)>;

// other_config:KEY=VALUE, or a map of such; an empty map sets all `keys` to "", their default.
std::string set_other_config(const ColumnExpression& what, std::initializer_list<std::string> keys, const SetKey& set) {
  if (what.key) return set(*what.key, what.value);
  std::map<std::string, std::string> parsed;
  if (!parse_map(what.value, parsed) || what.value.empty()) {
    return wrong(what.column, what.value, "a map is wanted: other_config:KEY=VALUE");
  }
  if (parsed.empty()) {
    for (const std::string& key : keys) parsed[key] = "[]";
  }
  for (const auto& [key, value] : parsed) {
    if (std::string problem = set(key, value); !problem.empty()) return problem;
  }
  return "";
}

std::string unknown_other_config(std::string_view key, std::string_view whose,
                                 std::span<const std::string_view> known) {
  std::string_view like = nearest(key, known);
  return fmt::format("other_config:{} is not supported for {}{}; {} {}", key, whose,
                     like.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", like), fmt::join(known, ", "),
                     known.size() == 1 ? "is" : "are");
}

std::string set_port_other_config(const std::string& key, const std::string& value, Update<v1::Port>& update) {
  constexpr std::string_view kKnown[] = {"priority-tags"};
  if (key != kKnown[0]) return unknown_other_config(key, "ports", kKnown);
  bool flag = value == "if-nonzero";
  if (!flag && value != "[]" && !parse_flag(value, flag)) {
    return wrong("other_config:priority-tags", value, "it is true, false or if-nonzero");
  }
  update.message.mutable_vlan()->set_priority_tags(flag);
  update.mask.add_paths("vlan.priority_tags");
  return "";
}

std::string set_port_column(const ColumnExpression& what, Update<v1::Port>& update) {
  v1::Port& port = update.message;
  if (what.column == "tag") {
    uint32_t tag = 0;
    std::string problem = set_number(what, "vlan.tag", 4095, tag, update.mask);
    port.mutable_vlan()->set_tag(tag);
    return problem;
  }
  if (what.column == "trunks") return set_trunks(what, update);
  if (what.column == "vlan_mode") return set_vlan_mode(what, update);
  if (what.column == "external_ids") return set_map(what, "external_ids", *port.mutable_external_ids(), update.mask);
  if (what.column == "protected") {
    bool value = false;
    if (what.value != "[]" && !parse_flag(what.value, value)) {
      return wrong(what.column, what.value, "it is true or false");
    }
    port.set_protected_(value);
    update.mask.add_paths("protected");
    return "";
  }
  if (what.column == "other_config") {
    return set_other_config(what, {"priority-tags"}, [&](const std::string& key, const std::string& value) {
      return set_port_other_config(key, value, update);
    });
  }
  return unknown_column(Table::port, what.column, kPortColumns);
}

std::string set_interface_column(const ColumnExpression& what, Update<v1::Port>& update) {
  v1::Port& port = update.message;
  if (what.column == "type") {
    port.set_type(what.value == "[]" ? "" : unquote(what.value));
    if (port.type().empty()) port.set_type("netdev");
    update.mask.add_paths("type");
    return "";
  }
  if (what.column == "options") return set_map(what, "options", *port.mutable_options(), update.mask);
  if (what.column == "external_ids") return set_map(what, "external_ids", *port.mutable_external_ids(), update.mask);
  if (what.column == "mac") {
    port.set_mac(what.value == "[]" ? "" : unquote(what.value));
    update.mask.add_paths("mac");
    return "";
  }
  uint32_t value = 0;
  if (what.column == "mtu_request") {
    std::string problem = set_number(what, "mtu_request", 65535, value, update.mask);
    port.set_mtu_request(value);
    return problem;
  }
  if (what.column == "ofport_request") {
    std::string problem = set_number(what, "ofport_request", 65279, value, update.mask);
    port.set_ofport_request(value);
    return problem;
  }
  std::string problem = unknown_column(Table::interface, what.column, kInterfaceColumns);
  if (!what.value.empty())
    problem += fmt::format("; an option of the port's type is options:{}={}", what.column, what.value);
  return problem;
}

std::string set_bridge_other_config(const std::string& key, const std::string& value, Update<v1::Bridge>& update) {
  constexpr std::string_view kKnown[] = {"mac-aging-time", "mac-table-size", "hwaddr"};
  const ColumnExpression what{"other_config", "other_config", key, "=", value};
  uint32_t number = 0;
  if (key == "mac-aging-time" || key == "mac-ageing-time") {
    std::string problem = set_number(what, "mac_ageing_seconds", 3600, number, update.mask);
    update.message.set_mac_ageing_seconds(number);
    return problem;
  }
  if (key == "mac-table-size") {
    std::string problem = set_number(what, "mac_table_size", 1'000'000, number, update.mask);
    update.message.set_mac_table_size(number);
    return problem;
  }
  if (key == "hwaddr") {
    update.message.set_mac(value == "[]" ? "" : unquote(value));
    update.mask.add_paths("mac");
    return "";
  }
  return unknown_other_config(key, "bridges", kKnown);
}

std::string set_fail_mode(const std::string& mode, Update<v1::Bridge>& update) {
  if (mode == "secure") {
    update.message.set_fail_mode(v1::FAIL_MODE_SECURE);
  } else if (mode == "standalone" || mode == "[]") {
    update.message.set_fail_mode(v1::FAIL_MODE_STANDALONE);
  } else {
    return wrong("fail_mode", mode, "it is standalone or secure");
  }
  update.mask.add_paths("fail_mode");
  return "";
}

std::string set_flood_vlans(const ColumnExpression& what, Update<v1::Bridge>& update) {
  update.message.clear_flood_vlans();
  for (const std::string& element : parse_set(what.value)) {
    uint32_t id = 0;
    if (!parse_number(element, 4095, id)) return wrong(what.column, what.value, "VLANs from 0 to 4095 are wanted");
    update.message.add_flood_vlans(id);
  }
  update.mask.add_paths("flood_vlans");
  return "";
}

}  // namespace

std::optional<Table> find_table(std::string_view name, std::string* problem) {
  std::string key = lower(name);
  if (key == "bridge" || key == "br") return Table::bridge;
  if (key == "port") return Table::port;
  if (key == "interface" || key == "iface") return Table::interface;
  if (key == "open_vswitch" || key == "vswitch" || key == "o") return Table::open_vswitch;
  *problem = fmt::format("unknown table \"{}\": bridge, port, interface and open_vswitch are there", name);
  return std::nullopt;
}

std::string_view table_name(Table table) {
  switch (table) {
    case Table::bridge:
      return "Bridge";
    case Table::port:
      return "Port";
    case Table::interface:
      return "Interface";
    case Table::open_vswitch:
      return "Open_vSwitch";
  }
  return "";
}

Record bridge_record(const v1::Bridge& bridge, const std::vector<std::string>& ports) {
  std::vector<std::string> quoted;
  for (const std::string& port : ports) quoted.push_back(quote(port));
  std::map<std::string, std::string> other;
  other["mac-aging-time"] = std::to_string(bridge.mac_ageing_seconds());
  other["mac-table-size"] = std::to_string(bridge.mac_table_size());
  if (!bridge.mac().empty()) other["hwaddr"] = bridge.mac();
  return {text("name", std::string(base_name(bridge.name()))),
          text("datapath_id", bridge.datapath_id()),
          text("datapath_type", "netdev"),
          map_column("external_ids", copy_map(bridge.external_ids())),
          scalar("fail_mode", bridge.fail_mode() == v1::FAIL_MODE_SECURE ? "secure" : "standalone"),
          numbers("flood_vlans", bridge.flood_vlans()),
          map_column("other_config", std::move(other)),
          Column{"ports", false, std::move(quoted), {}},
          number("rules", bridge.rule_count())};
}

Record port_record(const v1::Port& port) {
  std::string name(base_name(port.name()));
  std::map<std::string, std::string> other;
  if (port.vlan().priority_tags()) other["priority-tags"] = "true";
  return {text("name", name),
          map_column("external_ids", copy_map(port.external_ids())),
          text("interfaces", name),
          text("mac", port.state().mac()),
          map_column("other_config", std::move(other)),
          flag("protected", port.protected_()),
          number("tag", port.vlan().tag(), true),
          numbers("trunks", port.vlan().trunks()),
          text("vlan_mode", vlan_mode_text(port.vlan().mode()))};
}

Record interface_record(const v1::Port& port) {
  const v1::PortState& state = port.state();
  return {text("name", std::string(base_name(port.name()))),
          scalar("admin_state", state.admin_up() ? "up" : "down"),
          text("error", state.error()),
          map_column("external_ids", copy_map(port.external_ids())),
          number("ifindex", state.ifindex()),
          number("link_resets", state.link_resets()),
          number("link_speed", state.speed_bits_per_second(), true),
          scalar("link_state", state.carrier() ? "up" : "down"),
          text("mac", port.mac()),
          text("mac_in_use", state.mac()),
          number("mtu", state.mtu(), true),
          number("mtu_request", port.mtu_request(), true),
          number("ofport", port.ofport()),
          number("ofport_request", port.ofport_request(), true),
          map_column("options", copy_map(port.options())),
          map_column("statistics", statistics_map(port.statistics())),
          map_column("status", copy_map(state.details())),
          text("type", port.type() == "netdev" ? "system" : port.type())};
}

Record open_vswitch_record(const v1::Settings& settings, const std::string& version) {
  std::map<std::string, std::string> other_config = {
      {"flow-limit", std::to_string(settings.max_datapath_flows())},
      {"forwarding-threads", std::to_string(settings.forwarding_threads())},
      {"kernel-path", settings.kernel_path() ? "true" : "false"},
      {"max-idle", std::to_string(settings.max_idle_ms())}};
  if (!settings.dpdk_extra().empty()) other_config["dpdk-extra"] = settings.dpdk_extra();
  if (!settings.dpdk_socket_mem().empty()) other_config["dpdk-socket-mem"] = settings.dpdk_socket_mem();
  if (!settings.dpdk_hugepage_dir().empty()) other_config["dpdk-hugepage-dir"] = settings.dpdk_hugepage_dir();
  return {map_column("other_config", std::move(other_config)), text("ovs_version", version)};
}

std::string format_column(const Column& column) {
  return column.is_map ? format_map(column.map) : format_set(column.set);
}

const Column* find_column(const Record& record, std::string_view name) {
  std::string key = lower(name);
  for (const Column& column : record) {
    if (column.name == key) return &column;
  }
  return nullptr;
}

ColumnExpression parse_column_expression(std::string_view text) {
  ColumnExpression out;
  size_t end = text.find_first_of("=!<>");
  std::string_view left = text.substr(0, end);
  if (end != std::string_view::npos) {
    size_t length =
        text.substr(end).starts_with("!=") || text.substr(end).starts_with("<=") || text.substr(end).starts_with(">=")
            ? 2
            : 1;
    out.op = text.substr(end, length);
    out.value = text.substr(end + length);
  }
  size_t colon = left.find(':');
  out.spelled = left.substr(0, colon);
  out.column = lower(out.spelled);
  if (colon != std::string_view::npos) out.key = unquote(left.substr(colon + 1));
  return out;
}

// A row of the table in which nothing is set: it has the columns that every row has.
static Record blank_record(Table table) {
  switch (table) {
    case Table::bridge:
      return bridge_record({}, {});
    case Table::port:
      return port_record({});
    case Table::interface:
      return interface_record({});
    case Table::open_vswitch:
      return open_vswitch_record({}, "");
  }
  return {};
}

std::vector<std::string> column_names(Table table) {
  std::vector<std::string> out;
  for (const Column& column : blank_record(table)) out.push_back(column.name);
  return out;
}

std::vector<std::string> settable_columns(Table table) {
  switch (table) {
    case Table::bridge:
      return {std::begin(kBridgeColumns), std::end(kBridgeColumns)};
    case Table::port:
      return {std::begin(kPortColumns), std::end(kPortColumns)};
    case Table::interface:
      return {std::begin(kInterfaceColumns), std::end(kInterfaceColumns)};
    case Table::open_vswitch:
      return {"other_config"};
  }
  return {};
}

bool is_map_column(std::string_view column) {
  return column == "options" || column == "external_ids" || column == "other_config";
}

std::vector<std::string> other_config_keys(Table table, std::string_view column) {
  if (column != "other_config") return {};
  if (table == Table::bridge) return {"mac-aging-time", "mac-table-size", "hwaddr"};
  if (table == Table::port) return {"priority-tags"};
  if (table != Table::open_vswitch) return {};
  return {"max-idle",   "flow-limit",      "forwarding-threads", "kernel-path",
          "dpdk-extra", "dpdk-socket-mem", "dpdk-hugepage-dir"};
}

namespace {
// The types of interfaces and their options. What is not here can be set all the same: the daemon decides.
const std::map<std::string, std::vector<std::string>, std::less<>> kTypes = {
    {"system", {"device"}},
    {"netdev", {"device"}},
    {"internal", {}},
    {"patch", {"peer"}},
    {"vxlan",
     {"remote_ip", "local_ip", "key", "in_key", "out_key", "dst_port", "tos", "ttl", "df_default", "csum", "exts",
      "egress_pkt_mark", "egress_port_range", "src_port_range"}},
    {"dummy", {"tx_pcap", "rx_pcap", "link_state"}},
    {"pcap", {"rx_pcap", "tx_pcap", "loop"}},
};
}  // namespace

std::vector<std::string> type_options(std::string_view type) {
  auto it = kTypes.find(type);
  return it == kTypes.end() ? std::vector<std::string>() : it->second;
}

std::vector<std::string> column_values(Table table, std::string_view column) {
  if (column == "fail_mode") return {"standalone", "secure"};
  if (column == "vlan_mode") return {"access", "trunk", "native-tagged", "native-untagged"};
  if (column == "protected") return {"true", "false"};
  if (column == "datapath_type") return {"netdev"};
  std::vector<std::string> out;
  if (column != "type" || table != Table::interface) return out;
  for (const auto& [type, options] : kTypes) out.push_back(type);
  return out;
}

static std::string check_readable(Table table, const ColumnExpression& what) {
  const Record blank = blank_record(table);
  const Column* column = find_column(blank, what.column);
  if (column == nullptr) {
    std::vector<std::string_view> known;
    for (const Column& c : blank) known.push_back(c.name);
    std::string_view like = nearest(what.column, known);
    return fmt::format("table {} has no column \"{}\"{}; it has {}", table_name(table), what.spelled,
                       like.empty() ? "" : fmt::format("; did you mean \"{}\"?", like), fmt::join(known, ", "));
  }
  if (what.key && !column->is_map) {
    return fmt::format("column {} of table {} is no map: it has no key \"{}\"", column->name, table_name(table),
                       *what.key);
  }
  return "";
}

static bool parse_unsigned(const std::string& text, uint64_t& out) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

std::string check_column(Table table, std::string_view text) {
  const ColumnExpression what = parse_column_expression(text);
  if (!what.op.empty()) return fmt::format("\"{}\": a column is wanted, COLUMN or COLUMN:KEY", text);
  return check_readable(table, what);
}

std::string check_condition(Table table, std::string_view text) {
  constexpr std::string_view kOperators[] = {"=", "!=", "<", ">", "<=", ">="};
  const ColumnExpression what = parse_column_expression(text);
  if (std::find(std::begin(kOperators), std::end(kOperators), what.op) == std::end(kOperators)) {
    return fmt::format("\"{}\": a condition is wanted, COLUMN[:KEY] OP VALUE with one of {} for OP", text,
                       fmt::join(kOperators, " "));
  }
  if (std::string problem = check_readable(table, what); !problem.empty()) return problem;
  uint64_t number = 0;
  if (what.op.find_first_of("<>") != std::string::npos && !parse_unsigned(unquote(what.value), number)) {
    return fmt::format("\"{}\": {} compares numbers, and \"{}\" is none", text, what.op, what.value);
  }
  return "";
}

std::string format_value(const Record& record, const ColumnExpression& what) {
  const Column* column = find_column(record, what.column);
  if (column == nullptr) return "[]";
  if (!what.key) return format_column(*column);
  auto it = column->map.find(*what.key);
  return it == column->map.end() ? "[]" : quote(it->second);
}

bool matches(const Record& record, const ColumnExpression& condition) {
  std::string have = unquote(format_value(record, condition));
  std::string want = unquote(condition.value);
  if (condition.key && have == "[]") have.clear();
  if (condition.op == "=") return have == want;
  if (condition.op == "!=") return have != want;
  uint64_t a = 0, b = 0;
  if (!parse_unsigned(have, a) || !parse_unsigned(want, b)) return false;
  if (condition.op == "<") return a < b;
  if (condition.op == ">") return a > b;
  return condition.op == "<=" ? a <= b : a >= b;
}

bool parse_map(std::string_view text, std::map<std::string, std::string>& out) {
  for (const std::string& pair : split_list(text, '{', '}')) {
    size_t equals = pair.find('=');
    if (equals == std::string::npos) return false;
    out[unquote(std::string_view(pair).substr(0, equals))] = unquote(std::string_view(pair).substr(equals + 1));
  }
  return true;
}

std::vector<std::string> parse_set(std::string_view text) {
  std::vector<std::string> out;
  for (const std::string& element : split_list(text, '[', ']')) out.push_back(unquote(element));
  return out;
}

std::string set_column(Table table, const ColumnExpression& what, Update<v1::Port>& update) {
  return table == Table::port ? set_port_column(what, update) : set_interface_column(what, update);
}

std::string set_bridge_column(const ColumnExpression& what, Update<v1::Bridge>& update) {
  if (what.column == "fail_mode") return set_fail_mode(unquote(what.value), update);
  if (what.column == "external_ids") {
    return set_map(what, "external_ids", *update.message.mutable_external_ids(), update.mask);
  }
  if (what.column == "flood_vlans") return set_flood_vlans(what, update);
  if (what.column == "datapath_type") {
    std::string type = unquote(what.value);
    if (type.empty() || type == "netdev") return "";
    return wrong(what.column, type, "only the userspace datapath, netdev, is there in this version");
  }
  if (what.column != "other_config") return unknown_column(Table::bridge, what.column, kBridgeColumns);
  return set_other_config(
      what, {"mac-aging-time", "mac-table-size", "hwaddr"},
      [&](const std::string& key, const std::string& value) { return set_bridge_other_config(key, value, update); });
}

static std::string set_kernel_path(const std::string& value, Update<v1::Settings>& update) {
  bool on = true;
  if (value != "[]" && !parse_flag(value, on)) return wrong("other_config:kernel-path", value, "true or false");
  update.message.set_kernel_path(on);
  update.mask.add_paths("kernel_path");
  return "";
}

static std::string set_settings_key(const std::string& key, const std::string& value, Update<v1::Settings>& update) {
  constexpr std::string_view kKnown[] = {"max-idle",   "flow-limit",      "forwarding-threads", "kernel-path",
                                         "dpdk-extra", "dpdk-socket-mem", "dpdk-hugepage-dir"};
  const ColumnExpression what{"other_config", "other_config", key, "=", value};
  const std::string text = value == "[]" ? "" : unquote(value);
  uint32_t number = 0;
  std::string problem;
  if (key == "max-idle") {
    problem = set_number(what, "max_idle_ms", 0xffffffff, number, update.mask);
    update.message.set_max_idle_ms(number);
  } else if (key == "flow-limit") {
    problem = set_number(what, "max_datapath_flows", 0xffffffff, number, update.mask);
    update.message.set_max_datapath_flows(number);
  } else if (key == "forwarding-threads") {
    problem = set_number(what, "forwarding_threads", 1024, number, update.mask);
    update.message.set_forwarding_threads(number);
  } else if (key == "kernel-path") {
    problem = set_kernel_path(unquote(value), update);
  } else if (key == "dpdk-extra") {
    update.message.set_dpdk_extra(text);
    update.mask.add_paths("dpdk_extra");
  } else if (key == "dpdk-socket-mem") {
    update.message.set_dpdk_socket_mem(text);
    update.mask.add_paths("dpdk_socket_mem");
  } else if (key == "dpdk-hugepage-dir") {
    update.message.set_dpdk_hugepage_dir(text);
    update.mask.add_paths("dpdk_hugepage_dir");
  } else {
    problem = unknown_other_config(key, "the switch", kKnown);
  }
  return problem;
}

std::string set_settings_column(const ColumnExpression& what, Update<v1::Settings>& update) {
  constexpr std::string_view kColumns[] = {"other_config"};
  if (what.column != kColumns[0]) return unknown_column(Table::open_vswitch, what.column, kColumns);
  return set_other_config(
      what,
      {"max-idle", "flow-limit", "forwarding-threads", "kernel-path", "dpdk-extra", "dpdk-socket-mem",
       "dpdk-hugepage-dir"},
      [&](const std::string& key, const std::string& value) { return set_settings_key(key, value, update); });
}

std::string set_short_form(const ColumnExpression& what, Update<v1::Port>& update) {
  auto is = [&](std::span<const std::string_view> columns) {
    return std::find(columns.begin(), columns.end(), what.column) != columns.end();
  };
  if (is(kPortColumns)) return set_port_column(what, update);
  if (is(kInterfaceColumns)) return set_interface_column(what, update);
  if (what.key) return set_interface_column(what, update);  // says that there is no such column
  (*update.message.mutable_options())[what.spelled] = unquote(what.value);
  update.mask.add_paths("options." + what.spelled);
  return "";
}

}  // namespace vswitch::cli
