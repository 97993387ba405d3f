#include "datapath/vport/tunnel_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

constexpr std::array<std::string_view, 14> kKnownOptions = {
    "remote_ip", "local_ip",   "key",  "in_key", "out_key",         "dst_port",          "tos",
    "ttl",       "df_default", "csum", "exts",   "egress_pkt_mark", "egress_port_range", "src_port_range"};

// Options of Open vSwitch that mean something we do not do: silently ignoring them could send in clear what was to be
// encrypted, or in a format that the peer does not expect.
constexpr std::array<std::string_view, 6> kUnsupportedOptions = {"psk",         "remote_cert", "remote_name",
                                                                 "packet_type", "seq",         "payload_type"};

std::optional<uint64_t> parse_number(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    base = 16;
    text.remove_prefix(2);
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_link_local(const IpAddress& address) {
  return address.is_v6() && address.v6.bytes[0] == 0xfe && (address.v6.bytes[1] & 0xc0) == 0x80;
}

// Parses one port's options into config(); each step returns at the first thing that is wrong.
class Parser {
 public:
  Parser(const VportConfig& from, const TunnelTypeTraits& traits) : from_(from), traits_(traits) {}

  Status run();
  const TunnelConfig& config() const { return config_; }

 private:
  const std::string* find(const char* option) const {
    const auto it = from_.options.find(option);
    return it == from_.options.end() ? nullptr : &it->second;
  }
  std::string describe(std::string_view option, std::string_view problem) const {
    const auto it = from_.options.find(std::string(option));
    if (it == from_.options.end()) return fmt::format("port {}: {} {}", from_.name, option, problem);
    return fmt::format("port {}: {}={}: {}", from_.name, option, it->second, problem);
  }
  Status wrong(std::string_view option, std::string_view problem) const {
    return invalid_argument(describe(option, problem), "options:" + std::string(option));
  }

  Status check_names() const;
  Status parse_addresses();
  Status parse_remote();
  Status parse_local();
  Status parse_keys();
  Status parse_key(const char* option, TunnelKeyConfig& key) const;
  Status parse_port();
  Status parse_tos();
  Status parse_ttl();
  Status parse_flags();
  Status parse_bool(const char* option, std::optional<bool>& value) const;
  Status parse_extensions();
  Status parse_mark();
  Status parse_port_range(const char* option);

  const VportConfig& from_;
  const TunnelTypeTraits& traits_;
  TunnelConfig config_;
};

Status Parser::check_names() const {
  for (const std::string_view option : kUnsupportedOptions) {
    if (find(std::string(option).c_str()) == nullptr) continue;
    return unimplemented(describe(option, fmt::format("not supported for type {}", traits_.type)),
                         "options:" + std::string(option));
  }
  return check_known_options(from_, kKnownOptions);
}

Status Parser::parse_remote() {
  const std::string* text = find("remote_ip");
  if (text == nullptr) return wrong("remote_ip", "is required: an IP address or \"flow\"");
  config_.remote_flow = *text == "flow";
  if (config_.remote_flow) return {};
  const auto address = IpAddress::parse(*text);
  if (!address) return wrong("remote_ip", "not an IP address or \"flow\"");
  if (address->is_multicast()) {
    return wrong("remote_ip", "multicast is not supported; give the address of one peer, or \"flow\"");
  }
  if (address->is_unspecified()) return wrong("remote_ip", "no destination; give the address of a peer, or \"flow\"");
  if (is_link_local(*address)) return wrong("remote_ip", "link-local addresses are not supported");
  config_.remote = *address;
  return {};
}

Status Parser::parse_local() {
  const std::string* text = find("local_ip");
  if (text == nullptr) return {};
  config_.local_flow = *text == "flow";
  if (config_.local_flow) {
    return config_.remote_flow ? Status()
                               : wrong("local_ip", "needs remote_ip=flow; give an IP address or leave it out");
  }
  const auto address = IpAddress::parse(*text);
  if (!address) return wrong("local_ip", "not an IP address or \"flow\"");
  if (address->is_multicast() || address->is_unspecified()) {
    return wrong("local_ip", "not the address of a host; leave it out to accept any and let routing choose");
  }
  if (is_link_local(*address)) return wrong("local_ip", "link-local addresses are not supported");
  if (config_.remote.is_set() && config_.remote.family != address->family) {
    return wrong("local_ip", fmt::format("must be of the same family as remote_ip={}", config_.remote.to_string()));
  }
  config_.local = *address;
  return {};
}

Status Parser::parse_addresses() {
  VSWITCH_RETURN_IF_ERROR(parse_remote());
  return parse_local();
}

Status Parser::parse_key(const char* option, TunnelKeyConfig& key) const {
  const char* used = find(option) != nullptr ? option : "key";
  const std::string* text = find(used);
  if (text == nullptr) return {};
  key.flow = *text == "flow";
  if (key.flow) return {};
  const auto value = parse_number(*text);
  if (!value) return wrong(used, fmt::format("not a number from 0 to {} or \"flow\"", traits_.max_key));
  if (*value > traits_.max_key) {
    return wrong(used, fmt::format("too large for type {}, whose keys go from 0 to {}", traits_.type, traits_.max_key));
  }
  key.value = *value;
  return {};
}

Status Parser::parse_keys() {
  VSWITCH_RETURN_IF_ERROR(parse_key("in_key", config_.in_key));
  VSWITCH_RETURN_IF_ERROR(parse_key("out_key", config_.out_key));
  // With both overridden, key= is still looked at: it may not be nonsense.
  TunnelKeyConfig unused;
  return parse_key("key", unused);
}

Status Parser::parse_port() {
  config_.dst_port = traits_.default_port;
  const std::string* text = find("dst_port");
  if (text == nullptr) return {};
  const auto value = parse_number(*text);
  if (!value || *value == 0 || *value > 0xffff) return wrong("dst_port", "not a UDP port from 1 to 65535");
  config_.dst_port = static_cast<uint16_t>(*value);
  return {};
}

Status Parser::parse_tos() {
  const std::string* text = find("tos");
  if (text == nullptr) return {};
  config_.tos_inherit = *text == "inherit";
  if (config_.tos_inherit) return {};
  const auto value = parse_number(*text);
  if (!value || *value > 0xff) return wrong("tos", "not a number from 0 to 252 or \"inherit\"");
  if ((*value & 3) != 0) return wrong("tos", "the two lowest bits are ECN, which is always inherited; they must be 0");
  config_.tos = static_cast<uint8_t>(*value);
  return {};
}

Status Parser::parse_ttl() {
  const std::string* text = find("ttl");
  if (text == nullptr) return {};
  config_.ttl_inherit = *text == "inherit";
  if (config_.ttl_inherit) return {};
  const auto value = parse_number(*text);
  if (!value || *value == 0 || *value > 0xff) return wrong("ttl", "not a number from 1 to 255 or \"inherit\"");
  config_.ttl = static_cast<uint8_t>(*value);
  return {};
}

Status Parser::parse_bool(const char* option, std::optional<bool>& value) const {
  const std::string* text = find(option);
  if (text == nullptr) return {};
  if (*text != "true" && *text != "false") return wrong(option, "not \"true\" or \"false\"");
  value = *text == "true";
  return {};
}

Status Parser::parse_flags() {
  std::optional<bool> df;
  VSWITCH_RETURN_IF_ERROR(parse_bool("df_default", df));
  config_.df = df.value_or(true);
  return parse_bool("csum", config_.csum);
}

Status Parser::parse_extensions() {
  const std::string* text = find("exts");
  if (text == nullptr) return {};
  for (size_t begin = 0; begin <= text->size();) {
    const size_t end = std::min(text->find(',', begin), text->size());
    const std::string_view extension = std::string_view(*text).substr(begin, end - begin);
    begin = end + 1;
    if (extension == "gpe") return unimplemented(describe("exts", "gpe is not supported"), "options:exts");
    if (std::find(traits_.extensions.begin(), traits_.extensions.end(), extension) == traits_.extensions.end()) {
      return wrong("exts", fmt::format("unknown extension \"{}\"; known are: {}", extension,
                                       fmt::join(traits_.extensions, ", ")));
    }
    if (extension == "gbp") config_.gbp = true;
  }
  return {};
}

Status Parser::parse_mark() {
  const std::string* text = find("egress_pkt_mark");
  if (text == nullptr) return {};
  const auto value = parse_number(*text);
  if (!value || *value > 0xffffffff) return wrong("egress_pkt_mark", "not a number from 0 to 4294967295");
  config_.mark = static_cast<uint32_t>(*value);
  return {};
}

// "LOW-HIGH", or separated by a space or comma as in other tools.
Status Parser::parse_port_range(const char* option) {
  const std::string* text = find(option);
  if (text == nullptr) return {};
  const size_t separator = text->find_first_of("- ,");
  const auto low = parse_number(std::string_view(*text).substr(0, separator));
  const auto high =
      separator == std::string::npos ? std::nullopt : parse_number(std::string_view(*text).substr(separator + 1));
  if (!low || !high || *low == 0 || *high > 0xffff || *low > *high) {
    return wrong(option, "not a range LOW-HIGH of UDP ports from 1 to 65535");
  }
  config_.src_port_min = static_cast<uint16_t>(*low);
  config_.src_port_max = static_cast<uint16_t>(*high);
  return {};
}

Status Parser::run() {
  VSWITCH_RETURN_IF_ERROR(check_names());
  VSWITCH_RETURN_IF_ERROR(parse_addresses());
  VSWITCH_RETURN_IF_ERROR(parse_keys());
  VSWITCH_RETURN_IF_ERROR(parse_port());
  VSWITCH_RETURN_IF_ERROR(parse_tos());
  VSWITCH_RETURN_IF_ERROR(parse_ttl());
  VSWITCH_RETURN_IF_ERROR(parse_flags());
  VSWITCH_RETURN_IF_ERROR(parse_extensions());
  VSWITCH_RETURN_IF_ERROR(parse_mark());
  VSWITCH_RETURN_IF_ERROR(parse_port_range("src_port_range"));
  return parse_port_range("egress_port_range");
}

}  // namespace

bool TunnelConfig::uses_family(IpAddress::Family family) const {
  if (remote.is_set()) return remote.family == family;
  return !local.is_set() || local.family == family;
}

Result<TunnelConfig> parse_tunnel_config(const VportConfig& config, const TunnelTypeTraits& traits) {
  Parser parser(config, traits);
  VSWITCH_RETURN_IF_ERROR(parser.run());
  return parser.config();
}

TunnelIdentity TunnelIdentity::of(const TunnelConfig& config) {
  return {config.remote, config.local, config.local_flow, config.in_key, config.dst_port};
}

std::string TunnelIdentity::to_string() const {
  return fmt::format("remote_ip={}, local_ip={}, in_key={}, dst_port={}", remote.is_set() ? remote.to_string() : "flow",
                     local_flow       ? "flow"
                     : local.is_set() ? local.to_string()
                                      : "any",
                     in_key.flow ? "flow" : fmt::format("{}", in_key.value), dst_port);
}

Status duplicate_tunnel(std::string_view type, const std::string& port, const std::string& other,
                        const TunnelIdentity& identity) {
  return already_exists(fmt::format("port {}: port {} already receives these packets: type={}, {}", port, other, type,
                                    identity.to_string()));
}

}  // namespace vswitch
