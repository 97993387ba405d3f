#include "vswitchd/openflow/flow_line.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

namespace vswitch {
namespace {

// Forms to remember. With more of them, the values are in the actions; then remembering does not help.
constexpr size_t kMaxForms = 32 * 1024;
constexpr size_t kMaxActionsText = 512;  // longer ones are not remembered

enum class Item : uint8_t {
  in_port,
  eth_src,
  eth_dst,
  vlan,
  ip_src,
  ip_dst,
  ipv6_src,
  ipv6_dst,
  tp_src,
  tp_dst,
  metadata,
  tun_id,
  reg,
  priority = reg + kRegisterCount,
  table,
  cookie,
  idle_timeout,
  hard_timeout,
};

// A name of the text. `protocol`: only behind that word.
struct Name {
  std::string_view text;
  Item item;
  std::string_view protocol = {};
};
constexpr Name kNames[] = {
    {"priority", Item::priority},
    {"table", Item::table},
    {"cookie", Item::cookie},
    {"nw_dst", Item::ip_dst},
    {"nw_src", Item::ip_src},
    {"tp_dst", Item::tp_dst},
    {"tp_src", Item::tp_src},
    {"in_port", Item::in_port},
    {"dl_dst", Item::eth_dst},
    {"dl_src", Item::eth_src},
    {"dl_vlan", Item::vlan},
    {"metadata", Item::metadata},
    {"tun_id", Item::tun_id},
    {"ip_dst", Item::ip_dst},
    {"ip_src", Item::ip_src},
    {"eth_dst", Item::eth_dst},
    {"eth_src", Item::eth_src},
    {"ipv6_dst", Item::ipv6_dst},
    {"ipv6_src", Item::ipv6_src},
    {"tcp_dst", Item::tp_dst, "tcp"},
    {"tcp_src", Item::tp_src, "tcp"},
    {"udp_dst", Item::tp_dst, "udp"},
    {"udp_src", Item::tp_src, "udp"},
    {"idle_timeout", Item::idle_timeout},
    {"hard_timeout", Item::hard_timeout},
};

struct Protocol {
  std::string_view word;
  be16 eth_type;
  uint8_t nw_proto = 0;
};
constexpr Protocol kProtocols[] = {
    {"ip", kEthTypeIpv4},
    {"tcp", kEthTypeIpv4, kProtoTcp},
    {"udp", kEthTypeIpv4, kProtoUdp},
    {"icmp", kEthTypeIpv4, kProtoIcmp},
    {"arp", kEthTypeArp},
    {"ipv6", kEthTypeIpv6},
    {"tcp6", kEthTypeIpv6, kProtoTcp},
    {"udp6", kEthTypeIpv6, kProtoUdp},
};

bool is_separator(char c) { return c == ',' || c == ' ' || c == '\t'; }

// Decimal without leading zeros (which would make it octal), or hexadecimal behind 0x.
std::optional<uint64_t> read_number(std::string_view text, uint64_t most) {
  int base = 10;
  if (text.size() > 2 && text[0] == '0' && text[1] == 'x') {
    base = 16;
    text.remove_prefix(2);
  } else if (text.size() > 1 && text[0] == '0') {
    return std::nullopt;
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size() || value > most) return std::nullopt;
  return value;
}

// Ports and tables are never written in hexadecimal.
std::optional<uint64_t> read_decimal(std::string_view text, uint64_t most) {
  if (text.starts_with("0x")) return std::nullopt;
  return read_number(text, most);
}

// What stands before and behind the "/".
struct Masked {
  std::string_view value, mask;
  bool has_mask = false;
};
Masked split_mask(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == text.npos) return {text, {}, false};
  return {text.substr(0, slash), text.substr(slash + 1), true};
}

std::optional<uint32_t> read_ipv4(std::string_view text) {
  uint32_t address = 0;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (int part = 0; part < 4; ++part) {
    if (part > 0 && (at == end || *at++ != '.')) return std::nullopt;
    uint32_t value = 0;
    const char* const begin = at;
    while (at != end && *at >= '0' && *at <= '9' && at - begin < 3) value = value * 10 + uint32_t(*at++ - '0');
    if (at == begin || value > 255 || (*begin == '0' && at - begin > 1)) return std::nullopt;
    address = address << 8 | value;
  }
  if (at != end) return std::nullopt;
  return address;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

std::optional<MacAddress> read_mac(std::string_view text) {
  if (text.size() != 17) return std::nullopt;
  MacAddress mac;
  for (size_t i = 0; i < 6; ++i) {
    const int high = hex_digit(text[i * 3]), low = hex_digit(text[i * 3 + 1]);
    if (high < 0 || low < 0 || (i < 5 && text[i * 3 + 2] != ':')) return std::nullopt;
    mac.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return mac;
}

// Reads the values of a line into a rule and a match, and tells the line's form.
class LineReader {
 public:
  LineReader(Match& match, RuleSpec& spec) : match_(match), spec_(spec) {}

  // False: not a line for us. Else actions() is what stands behind "actions=".
  bool read(std::string_view line);
  std::string_view actions() const { return actions_; }
  // Two bits for each field: present, masked; then the protocol, and whether a table is given.
  uint64_t form() const { return form_ | uint64_t{protocol_ != nullptr} << 63 | uint64_t{table_given_} << 62; }
  uint8_t protocol() const { return protocol_ == nullptr ? 0 : static_cast<uint8_t>(protocol_ - kProtocols + 1); }

 private:
  bool read_word(std::string_view word);
  bool read_item(std::string_view name, std::string_view value);
  bool read_value(Item item, std::string_view value);
  bool read_setting(Item item, std::string_view value);
  bool read_packet_field(Item item, std::string_view value);
  bool read_port(Item item, std::string_view text, be16& value, be16& mask);
  bool read_ip(Item item, std::string_view text, be32& value, be32& mask);
  bool read_ip6(Item item, std::string_view text, Ipv6Address& value, Ipv6Address& mask);
  bool note(Item item, bool masked = false) {
    form_ |= (masked ? uint64_t{3} : uint64_t{1}) << (2 * static_cast<unsigned>(item));
    return true;
  }
  bool behind(be16 eth_type) const { return protocol_ != nullptr && protocol_->eth_type == eth_type; }

  Match& match_;
  RuleSpec& spec_;
  std::string_view actions_;
  const Protocol* protocol_ = nullptr;
  uint64_t form_ = 0;
  uint64_t given_ = 0;  // items
  bool table_given_ = false;
};
static_assert(2 * static_cast<unsigned>(Item::priority) <= 62, "form() has too few bits");

bool LineReader::read(std::string_view line) {
  while (!line.empty()) {
    if (is_separator(line.front())) {
      line.remove_prefix(1);
      continue;
    }
    constexpr std::string_view kActions = "actions=";
    if (line.starts_with(kActions)) {
      actions_ = line.substr(kActions.size());
      return true;
    }
    const auto* end = std::find_if(line.begin(), line.end(), is_separator);
    if (!read_word(line.substr(0, static_cast<size_t>(end - line.begin())))) return false;
    line.remove_prefix(static_cast<size_t>(end - line.begin()));
  }
  return false;
}

bool LineReader::read_word(std::string_view word) {
  const size_t equals = word.find('=');
  if (equals != word.npos) return read_item(word.substr(0, equals), word.substr(equals + 1));
  if (protocol_ != nullptr) return false;
  for (const Protocol& p : kProtocols) {
    if (p.word != word) continue;
    protocol_ = &p;
    match_.value.packet.eth_type = p.eth_type;
    match_.mask.packet.eth_type = be16::from_raw(0xffff);
    if (p.nw_proto == 0) return true;
    match_.value.packet.nw_proto = p.nw_proto;
    match_.mask.packet.nw_proto = 0xff;
    return true;
  }
  return false;
}

bool LineReader::read_item(std::string_view name, std::string_view value) {
  auto item = Item::reg;
  if (name.starts_with("reg")) {
    const std::optional<uint64_t> index = read_number(name.substr(3), kRegisterCount - 1);
    if (!index || name[3] > '9' || name.size() > 5) return false;
    item = static_cast<Item>(static_cast<unsigned>(item) + *index);
  } else {
    const auto* found =
        std::find_if(std::begin(kNames), std::end(kNames), [&](const Name& n) { return n.text == name; });
    if (found == std::end(kNames)) return false;
    if (!found->protocol.empty() && (protocol_ == nullptr || protocol_->word.substr(0, 3) != found->protocol))
      return false;
    item = found->item;
  }
  const uint64_t bit = uint64_t{1} << static_cast<unsigned>(item);
  static_assert(static_cast<unsigned>(Item::hard_timeout) < 64);
  if ((given_ & bit) != 0) return false;
  given_ |= bit;
  return read_value(item, value);
}

bool LineReader::read_value(Item item, std::string_view value) {
  if (item >= Item::priority) return read_setting(item, value);
  if (item < Item::metadata) return read_packet_field(item, value);
  const bool is_register = item >= Item::reg;
  const std::optional<uint64_t> number = read_number(value, is_register ? UINT32_MAX : UINT64_MAX);
  if (!number) return false;
  if (is_register) {
    const size_t i = static_cast<size_t>(item) - static_cast<size_t>(Item::reg);
    match_.value.pipeline.reg[i] = static_cast<uint32_t>(*number);
    match_.mask.pipeline.reg[i] = UINT32_MAX;
  } else {
    be64& to = item == Item::metadata ? match_.value.pipeline.metadata : match_.value.packet.tunnel.id;
    be64& mask = item == Item::metadata ? match_.mask.pipeline.metadata : match_.mask.packet.tunnel.id;
    to = to_be64(*number);
    mask = to_be64(UINT64_MAX);
  }
  return note(item);
}

bool LineReader::read_setting(Item item, std::string_view value) {
  // All ones is a cookie with a meaning of its own.
  const uint64_t most = item == Item::cookie ? UINT64_MAX - 1 : item == Item::table ? kTableCount - 1 : UINT16_MAX;
  const std::optional<uint64_t> number = item == Item::table ? read_decimal(value, most) : read_number(value, most);
  if (!number) return false;
  if (item == Item::cookie) {
    spec_.cookie = *number;
  } else if (item == Item::table) {
    spec_.table = static_cast<uint8_t>(*number);
    table_given_ = true;
  } else {
    (item == Item::priority       ? spec_.priority
     : item == Item::idle_timeout ? spec_.idle_timeout
                                  : spec_.hard_timeout) = static_cast<uint16_t>(*number);
  }
  return true;
}

bool LineReader::read_packet_field(Item item, std::string_view value) {
  FlowKey& key = match_.value.packet;
  FlowMask& mask = match_.mask.packet;
  switch (item) {
    case Item::in_port: {
      const std::optional<uint64_t> port = read_decimal(value, kOfPortMax - 1);
      if (!port || *port == 0) return false;
      key.in_port = static_cast<uint32_t>(*port);
      mask.in_port = UINT32_MAX;
      return note(item);
    }
    case Item::vlan: {
      const std::optional<uint64_t> vlan = read_number(value, 0xfff);
      if (!vlan) return false;
      key.vlan[0].tci = to_be16(static_cast<uint16_t>(*vlan)) | kVlanCfi;
      mask.vlan[0].tci = to_be16(0x1fff);
      return note(item);
    }
    case Item::eth_src:
    case Item::eth_dst: {
      const std::optional<MacAddress> mac = read_mac(value);
      if (!mac) return false;
      (item == Item::eth_src ? key.eth_src : key.eth_dst) = *mac;
      (item == Item::eth_src ? mask.eth_src : mask.eth_dst).bytes.fill(0xff);
      return note(item);
    }
    case Item::ip_src:
      return read_ip(item, value, key.nw_src, mask.nw_src);
    case Item::ip_dst:
      return read_ip(item, value, key.nw_dst, mask.nw_dst);
    case Item::tp_src:
      return read_port(item, value, key.tp_src, mask.tp_src);
    case Item::tp_dst:
      return read_port(item, value, key.tp_dst, mask.tp_dst);
    case Item::ipv6_src:
      return read_ip6(item, value, key.ipv6_src, mask.ipv6_src);
    case Item::ipv6_dst:
      return read_ip6(item, value, key.ipv6_dst, mask.ipv6_dst);
    default:
      return false;
  }
}

bool LineReader::read_port(Item item, std::string_view text, be16& value, be16& mask) {
  if (protocol_ == nullptr || (protocol_->nw_proto != kProtoTcp && protocol_->nw_proto != kProtoUdp)) return false;
  const Masked parts = split_mask(text);
  const std::optional<uint64_t> number = read_number(parts.value, UINT16_MAX);
  const std::optional<uint64_t> bits = parts.has_mask ? read_number(parts.mask, UINT16_MAX) : UINT16_MAX;
  if (!number || !bits || *bits == 0) return false;
  value = to_be16(static_cast<uint16_t>(*number & *bits));
  mask = to_be16(static_cast<uint16_t>(*bits));
  return note(item, *bits != UINT16_MAX);
}

bool LineReader::read_ip(Item item, std::string_view text, be32& value, be32& mask) {
  if (!behind(kEthTypeIpv4)) return false;
  const Masked parts = split_mask(text);
  const std::optional<uint32_t> address = read_ipv4(parts.value);
  const std::optional<uint64_t> length = parts.has_mask ? read_decimal(parts.mask, 32) : 32;
  if (!address || !length || *length == 0) return false;
  const uint32_t bits = UINT32_MAX << (32 - *length);
  value = to_be32(*address & bits);
  mask = to_be32(bits);
  return note(item, *length != 32);
}

bool LineReader::read_ip6(Item item, std::string_view text, Ipv6Address& value, Ipv6Address& mask) {
  if (!behind(kEthTypeIpv6)) return false;
  const Masked parts = split_mask(text);
  const std::optional<Ipv6Address> address = Ipv6Address::parse(parts.value);
  const std::optional<uint64_t> length = parts.has_mask ? read_decimal(parts.mask, 128) : 128;
  if (!address || !length || *length == 0) return false;
  for (size_t i = 0; i < 16; ++i) {
    const size_t left = *length > i * 8 ? std::min<size_t>(8, *length - i * 8) : 0;
    mask.bytes[i] = static_cast<uint8_t>(0xff00 >> left);
    value.bytes[i] = address->bytes[i] & mask.bytes[i];
  }
  return note(item, *length != 128);
}

}  // namespace

Result<RuleMod> RuleLineParser::parse(std::string_view text, const FlowNames* names) {
  return parse_unless_known(text, names, [&] { return parse_rule_line(text, names); });
}

Result<RuleMod> RuleLineParser::parse_mod(std::string_view text, RuleCommand command, const FlowNames* names) {
  if (command != RuleCommand::add) return parse_rule_mod(text, command, names);
  return parse_unless_known(text, names, [&] { return parse_rule_mod(text, command, names); });
}

// What is read here names no command, so it is an add, whoever is asked.
template <typename Parse>
Result<RuleMod> RuleLineParser::parse_unless_known(std::string_view text, const FlowNames* names, Parse&& parse_whole) {
  if (names != names_) {
    known_.clear();
    names_ = names;
  }
  RuleMod mod;
  match_ = Match();
  LineReader reader(match_, mod.spec);
  if (!reader.read(text) || reader.actions().size() > kMaxActionsText) return parse_whole();
  const uint64_t form = reader.form();
  form_.assign(reinterpret_cast<const char*>(&form), sizeof form);
  form_.push_back(static_cast<char>(reader.protocol()));
  form_.push_back(static_cast<char>(mod.spec.table));
  form_.append(reader.actions());
  if (const auto known = known_.find(form_); known != known_.end()) {
    ++quick_lines_;
    mod.spec.match = match_;
    mod.spec.actions = known->second;
    return mod;
  }
  Result<RuleMod> parsed = parse_whole();
  if (!parsed.ok() || parsed->command != RuleCommand::add) return parsed;
  if (known_.size() >= kMaxForms) known_.clear();
  known_.emplace(form_, parsed->spec.actions);
  return parsed;
}

}  // namespace vswitch
