#include "cli/ofctl_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "cli/json_text.h"

namespace vswitch::cli {
namespace {

std::vector<const v1::Port*> by_number(const v1::ListPortsResponse& ports) {
  std::vector<const v1::Port*> out;
  for (const v1::Port& port : ports.ports()) out.push_back(&port);
  std::sort(out.begin(), out.end(), [](const v1::Port* a, const v1::Port* b) { return a->ofport() < b->ofport(); });
  return out;
}

std::string config_text(const v1::Port& port) {
  std::string out;
  auto add = [&out](bool on, std::string_view name) {
    if (on) out += fmt::format("{}{}", out.empty() ? "" : " ", name);
  };
  add(port.flags().down(), "PORT_DOWN");
  add(port.flags().no_receive(), "NO_RECV");
  add(port.flags().no_flood(), "NO_FLOOD");
  add(port.flags().no_forward(), "NO_FWD");
  add(port.flags().no_packet_in(), "NO_PACKET_IN");
  return out.empty() ? "0" : out;
}

std::string description(const v1::Port& port) {
  const std::string& mac = port.state().mac();
  return fmt::format(
      " {}({}): addr:{}\n     config:     {}\n     state:      {}\n     speed: {} Mbps now, 0 Mbps max\n",
      of_port_text(port, false), base_name(port.name()), mac.empty() ? "00:00:00:00:00:00" : mac, config_text(port),
      port.state().carrier() ? "0" : "LINK_DOWN", port.state().speed_bits_per_second() / 1'000'000);
}

bool same_numbers(const v1::TableStatistics& a, const v1::TableStatistics& b) {
  return a.rules() == b.rules() && a.lookups() == b.lookups() && a.matches() == b.matches();
}

std::string_view reason_text(v1::PacketInReason reason) {
  switch (reason) {
    case v1::PACKET_IN_REASON_NO_MATCH:
      return "no_match";
    case v1::PACKET_IN_REASON_INVALID_TTL:
      return "invalid_ttl";
    case v1::PACKET_IN_REASON_ACTION_SET:
      return "action_set";
    case v1::PACKET_IN_REASON_GROUP:
      return "group";
    case v1::PACKET_IN_REASON_PACKET_OUT:
      return "packet_out";
    default:
      return "action";
  }
}

}  // namespace

std::string of_port_text(const v1::Port& port, bool names) {
  if (port.ofport() == v1::RESERVED_PORT_LOCAL) return "LOCAL";
  return names ? quote(base_name(port.name())) : std::to_string(port.ofport());
}

std::string ports_text(const v1::ListPortsResponse& ports, bool names) {
  std::string out = fmt::format("OFPST_PORT reply (xid=0x2): {} ports\n", ports.ports_size());
  for (const v1::Port* port : by_number(ports)) {
    const v1::PortStatistics& s = port->statistics();
    std::string number = of_port_text(*port, names);
    out += fmt::format("  port {:>2}: rx pkts={}, bytes={}, drop={}, errs={}, frame={}, over={}, crc={}\n", number,
                       s.rx_packets(), s.rx_bytes(), s.rx_dropped(), s.rx_errors(), s.rx_frame_errors(),
                       s.rx_over_errors(), s.rx_crc_errors());
    out += fmt::format("           tx pkts={}, bytes={}, drop={}, errs={}, coll={}\n", s.tx_packets(), s.tx_bytes(),
                       s.tx_dropped(), s.tx_errors(), s.collisions());
  }
  return out;
}

std::string port_descriptions_text(const v1::ListPortsResponse& ports) {
  std::string out = "OFPST_PORT_DESC reply (xid=0x2):\n";
  for (const v1::Port* port : by_number(ports)) out += description(*port);
  return out;
}

std::string show_text(const v1::Bridge& bridge, const v1::ListPortsResponse& ports) {
  std::string out = fmt::format("OFPT_FEATURES_REPLY (xid=0x2): dpid:{}\n", bridge.datapath_id());
  out += "n_tables:254, n_buffers:0\ncapabilities: FLOW_STATS TABLE_STATS PORT_STATS\n";
  out +=
      "actions: output set_vlan_vid set_vlan_pcp strip_vlan mod_dl_src mod_dl_dst mod_nw_src mod_nw_dst mod_nw_tos "
      "mod_tp_src mod_tp_dst\n";
  for (const v1::Port* port : by_number(ports)) out += description(*port);
  return out;
}

std::string tables_text(const v1::ListTablesResponse& tables) {
  std::string out = "OFPST_TABLE reply (xid=0x2):\n";
  for (int i = 0; i < tables.tables_size();) {
    const v1::TableStatistics& table = tables.tables(i);
    if (i > 0) out += "\n";
    out += fmt::format("  table {}:\n    active={}, lookup={}, matched={}\n", table.table(), table.rules(),
                       table.lookups(), table.matches());
    int last = i;
    while (last + 1 < tables.tables_size() && same_numbers(table, tables.tables(last + 1))) ++last;
    if (last == i + 1) out += fmt::format("\n  table {}: ditto\n", tables.tables(last).table());
    if (last > i + 1) {
      out += fmt::format("\n  tables {}...{}: ditto\n", tables.tables(i + 1).table(), tables.tables(last).table());
    }
    i = last + 1;
  }
  return out;
}

std::string macs_text(const v1::ListMacsResponse& macs) {
  std::string out = " port  VLAN  MAC                Age\n";
  for (const v1::MacEntry& entry : macs.entries()) {
    std::string port = entry.ofport() == v1::RESERVED_PORT_LOCAL ? "LOCAL" : std::to_string(entry.ofport());
    std::string age = entry.is_static() ? "static" : std::to_string(entry.age_seconds());
    out += fmt::format("{:>5}  {:>4}  {}  {:>3}\n", port, entry.vlan(), entry.mac(), age);
  }
  return out;
}

// Two digits a byte: "0a.ff" with separator ".".
std::string hex_text(std::string_view bytes, std::string_view separator) {
  std::string out;
  for (const char byte : bytes) {
    if (!out.empty()) out += separator;
    out += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  return out;
}

std::string packet_in_text(const v1::PacketIn& packet) {
  std::string out = "NXT_PACKET_IN2 (xid=0x0):";
  if (packet.table() != 0) out += fmt::format(" table_id={}", packet.table());
  out +=
      fmt::format(" cookie={:#x} total_len={} {} (via {}) data_len={} (unbuffered)\n", packet.cookie(),
                  packet.total_size(), packet.metadata().text(), reason_text(packet.reason()), packet.packet().size());
  if (!packet.userdata().empty()) out += fmt::format(" userdata={}\n", hex_text(packet.userdata(), "."));
  // A packet that was cut short of its Ethernet header has none to show.
  out += (packet.flow().empty() ? hex_text(packet.packet(), "") : packet.flow()) + "\n";
  if (packet.lost() != 0) out += fmt::format("({} packets lost so far)\n", packet.lost());
  return out;
}

uint32_t parse_of_port(const std::string& text) {
  if (text == "LOCAL" || text == "local") return v1::RESERVED_PORT_LOCAL;
  uint32_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && number <= 0xffff ? number : 0;
}

bool parse_hex(const std::string& text, std::string& out) {
  std::string digits;
  for (char c : text) {
    if (c != ' ' && c != ':' && c != '\n' && c != '\t') digits += c;
  }
  if (digits.empty() || digits.size() % 2 != 0) return false;
  for (size_t i = 0; i < digits.size(); i += 2) {
    uint8_t byte = 0;
    auto [end, error] = std::from_chars(&digits[i], &digits[i] + 2, byte, 16);
    if (error != std::errc() || end != &digits[i] + 2) return false;
    out += static_cast<char>(byte);
  }
  return true;
}

}  // namespace vswitch::cli
