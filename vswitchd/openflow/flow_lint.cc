#include "vswitchd/openflow/flow_lint.h"

#include <fmt/format.h>
#include <strings.h>

#include <algorithm>
#include <bitset>
#include <iterator>
#include <unordered_set>

#include "datapath/flow/field.h"

namespace vswitch::ovs {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The part of a flow that holds position `at`: what stands between commas or blanks.
std::string_view part_around(std::string_view text, size_t at) {
  const size_t before = text.find_last_of(", \t", at);
  const size_t begin = before == text.npos ? 0 : before + 1;
  return text.substr(begin, std::min(text.find_first_of(", \t", at), text.size()) - begin);
}

// ---- Numbers

// The parser reads each part of an IPv4 address modulo 256. Finds one whose parts are larger.
std::string_view impossible_ipv4(std::string_view text) {
  size_t dot = text.find('.');
  while (dot != text.npos) {
    size_t begin = dot;
    while (begin > 0 && is_digit(text[begin - 1])) --begin;
    size_t end = begin, parts = 0;
    bool too_large = false;
    while (end < text.size() && is_digit(text[end])) {
      unsigned value = 0;
      for (; end < text.size() && is_digit(text[end]); ++end) {
        value = std::min(value * 10 + unsigned(text[end] - '0'), 999u);
      }
      too_large = too_large || value > 255;
      ++parts;
      if (end < text.size() && text[end] == '.') ++end;
    }
    if (parts == 4 && too_large) return text.substr(begin, end - begin);
    dot = text.find('.', std::max(end, dot + 1));
  }
  return {};
}

// The parser cuts a VLAN ID to its 12 bits. Finds one that does not fit (0xffff means "no tag").
std::string_view impossible_vlan(std::string_view text) {
  constexpr std::string_view kName = "dl_vlan=";
  for (size_t at = text.find(kName); at != text.npos; at = text.find(kName, at + 1)) {
    const size_t begin = at + kName.size();
    const size_t end = std::min(text.find_first_of(", \t", begin), text.size());
    const std::string number(text.substr(begin, end - begin));
    char* rest = nullptr;
    const unsigned long vlan = std::strtoul(number.c_str(), &rest, 0);
    if (rest != number.c_str() && *rest == '\0' && vlan > 0xfff && vlan != 0xffff) return text.substr(at, end - at);
  }
  return {};
}

// Negative numbers wrap around in the parser. Only the mask -1, all ones, is in use.
std::string_view negative_number(std::string_view text) {
  for (size_t at = text.find('-'); at != text.npos; at = text.find('-', at + 1)) {
    const bool of_number = at > 0 && at + 1 < text.size() && is_digit(text[at + 1]) &&
                           std::string_view("=:(,/").find(text[at - 1]) != std::string_view::npos;
    if (!of_number) continue;
    const bool is_mask_of_ones =
        text[at - 1] == '/' && text[at + 1] == '1' && (at + 2 == text.size() || !is_digit(text[at + 2]));
    if (!is_mask_of_ones) return part_around(text, at);
  }
  return {};
}

Status check_numbers(std::string_view text) {
  if (const std::string_view address = impossible_ipv4(text); !address.empty()) {
    return invalid_argument(fmt::format("{}: not an IPv4 address (each part is 0 to 255)", address));
  }
  if (const std::string_view vlan = impossible_vlan(text); !vlan.empty()) {
    return invalid_argument(fmt::format("{}: not a VLAN ID (0 to 4095, or 0xffff for packets without a tag)", vlan));
  }
  if (const std::string_view part = negative_number(text); !part.empty()) {
    return invalid_argument(fmt::format("{}: a number cannot be negative here", part));
  }
  return {};
}

// ---- Actions

bool equal_words(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

bool takes_no_argument(std::string_view action) {
  constexpr std::string_view kNames[] = {"drop",         "exit",        "strip_vlan", "pop_vlan",     "clear_actions",
                                         "dec_mpls_ttl", "dec_nsh_ttl", "pop_queue",  "debug_recirc", "debug_slow"};
  return std::any_of(std::begin(kNames), std::end(kNames),
                     [&](std::string_view name) { return equal_words(name, action); });
}

// Names that are no ports because they are actions.
bool is_action_name(std::string_view key) {
  static const std::unordered_set<std::string> names = [] {
    std::unordered_set<std::string> all = {"mod_vlan_vid", "mod_vlan_pcp", "set_nw_ttl",   "set_tunnel64",
                                           "load",         "bundle_load",  "apply_actions"};
    for (unsigned type = 0; type <= OFPACT_GOTO_TABLE; ++type) {
      if (const char* name = ofpact_name(static_cast<ofpact_type>(type))) all.insert(name);
    }
    return all;
  }();
  std::string lower(key);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return names.contains(lower);
}

Status check_action_list(char* text, const FlowNames* names, int depth);

Status check_one_action(char* key, char* value, const FlowNames* names, int depth) {
  if (equal_words(key, "output_trunc")) {
    return invalid_argument("unknown action output_trunc: it is written output(port=PORT,max_len=BYTES)", "actions");
  }
  if (*value == '\0') return {};
  if (equal_words(key, "clone") || equal_words(key, "write_actions")) return check_action_list(value, names, depth + 1);
  if (equal_words(key, "dec_ttl") &&
      std::string_view(value).find_first_not_of("0123456789, ") != std::string_view::npos) {
    return invalid_argument(fmt::format("action dec_ttl: \"{}\" is not a list of controller ids", value), "actions");
  }
  bool refused = takes_no_argument(key);
  if (!refused && !is_action_name(key)) {
    ofp_port_t port;
    refused = ofputil_port_from_string(key, ports(names), &port);
  }
  if (!refused) return {};
  return invalid_argument(fmt::format("action {} takes no argument, not \"{}\"", key, value), "actions");
}

Status check_action_list(char* text, const FlowNames* names, int depth) {
  constexpr int kMaxDepth = 64;  // what is nested deeper the parser refuses
  char *key, *value;
  while (depth < kMaxDepth && ofputil_parse_key_value(&text, &key, &value)) {
    VSWITCH_RETURN_IF_ERROR(check_one_action(key, value, names, depth));
  }
  return {};
}

// ---- Match

struct ProtocolWord {
  std::string_view word;
  uint16_t dl_type;
  uint8_t nw_proto;
};
constexpr ProtocolWord kProtocolWords[] = {
    {"ip", 0x0800, 0},     {"ipv4", 0x0800, 0},  {"ip4", 0x0800, 0},    {"arp", 0x0806, 0},     {"icmp", 0x0800, 1},
    {"tcp", 0x0800, 6},    {"udp", 0x0800, 17},  {"sctp", 0x0800, 132}, {"ipv6", 0x86dd, 0},    {"ip6", 0x86dd, 0},
    {"icmp6", 0x86dd, 58}, {"tcp6", 0x86dd, 6},  {"udp6", 0x86dd, 17},  {"sctp6", 0x86dd, 132}, {"rarp", 0x8035, 0},
    {"mpls", 0x8847, 0},   {"mplsm", 0x8848, 0},
};
constexpr std::string_view kFlagWords[] = {"eth",          "send_flow_rem",    "check_overlap",
                                           "reset_counts", "no_packet_counts", "no_byte_counts"};

const ProtocolWord* find_protocol(std::string_view word) {
  for (const ProtocolWord& p : kProtocolWords) {
    if (p.word == word) return &p;
  }
  return nullptr;
}

// Two names for the same bits of a packet count as one.
size_t place_of(const mf_field& field) {
  switch (field.id) {
    case MFF_VLAN_VID:
      return MFF_DL_VLAN;
    case MFF_VLAN_PCP:
      return MFF_DL_VLAN_PCP;
    case MFF_IP_DSCP_SHIFTED:
      return MFF_IP_DSCP;
    case MFF_IN_PORT_OXM:
      return MFF_IN_PORT;
    default:
      return field.id;
  }
}

bool is_zero(const char* value) {
  char* rest = nullptr;
  const unsigned long number = std::strtoul(value, &rest, 0);
  return rest != value && *rest == '\0' && number == 0;
}

// The fields of a text, one by one.
class MatchReader {
 public:
  MatchReader(bool of_rule, MatchWords* words) : of_rule_(of_rule), words_(words) {}

  Status read(const char* key, const char* value) {
    if (const ProtocolWord* protocol = find_protocol(key)) {
      if (*value != '\0') return no_value(key, value);
      words_->protocols.push_back({key, protocol->dl_type, protocol->nw_proto});
      return {};
    }
    if (std::find(std::begin(kFlagWords), std::end(kFlagWords), key) != std::end(kFlagWords)) {
      return *value != '\0' ? no_value(key, value) : Status();
    }
    if (const mf_field* field = mf_from_name(key)) return read_field(*field, key, value);
    if (std::strchr(key, '[') != nullptr) return {};  // parts of a field may be given one by one
    // A cookie to look for (with a mask) and a cookie to set may stand side by side.
    std::string name = key;
    if (name == "cookie" && std::strchr(value, '/') != nullptr) name += "/mask";
    return others_.insert(std::move(name)).second ? Status() : twice(key);
  }

 private:
  static Status no_value(const char* key, const char* value) {
    return invalid_argument(fmt::format("{} takes no value, not \"{}\"", key, value), "match");
  }
  static Status twice(const char* key) { return invalid_argument(fmt::format("{} is given twice", key), "match"); }

  Status read_field(const mf_field& field, const char* key, const char* value) {
    if (of_rule_ && field.usable_protocols_exact == 0) {
      return invalid_argument(fmt::format("{} cannot be matched by a rule: OpenFlow has no such field", field.name),
                              "match");
    }
    if (given_.test(place_of(field))) return twice(key);
    given_.set(place_of(field));
    const bool tag_in_parts = given_.test(MFF_DL_VLAN) || given_.test(MFF_DL_VLAN_PCP);
    if (given_.test(MFF_VLAN_TCI) && tag_in_parts) {
      return invalid_argument(
          fmt::format("{}={}: vlan_tci holds VLAN ID and priority, which are given beside it", key, value), "match");
    }
    // icmp_type and icmp_code are those of ICMPv6, too, behind icmp6, and nw_proto is the operation behind arp.
    const bool shared = field.id == MFF_ICMPV4_TYPE || field.id == MFF_ICMPV4_CODE || field.id == MFF_IP_PROTO;
    if (!shared && std::strcmp(key, field.name) == 0) words_->fields.push_back(&field);
    if (field.id == MFF_ETH_TYPE) words_->dl_type = value;
    if (field.id == MFF_IP_PROTO) words_->nw_proto = value;
    if (field.id == MFF_IN_PORT) words_->in_port_zero = is_zero(value);
    return {};
  }

  const bool of_rule_;
  MatchWords* const words_;
  std::bitset<MFF_N_IDS> given_;
  std::unordered_set<std::string> others_;
};

// A line of a file may begin with what it does; the parser takes abbreviations, too.
char* skip_command(char* text) {
  text += std::strspn(text, " \t\r\n");
  const size_t length = std::strcspn(text, ", \t\r\n");
  for (const char* command : {"add", "delete", "delete_strict", "modify", "modify_strict"}) {
    if (length != 0 && std::strncmp(text, command, length) == 0) return text + length;
  }
  return text;
}

bool differs(const std::string& value, unsigned parsed) {
  if (value.empty()) return false;
  char* rest = nullptr;
  const unsigned long number = std::strtoul(value.c_str(), &rest, 0);
  return rest != value.c_str() && *rest == '\0' && number != parsed;
}

Status contradiction(const std::string& one, const std::string& other) {
  return invalid_argument(fmt::format("{} and {} cannot both hold for one packet", one, other), "match");
}

}  // namespace

Status check_action_text(std::string_view text, const FlowNames* names) {
  VSWITCH_RETURN_IF_ERROR(check_numbers(text));
  std::string copy(text);
  return check_action_list(copy.data(), names, 0);
}

Status check_flow_text(std::string_view text, bool of_rule, const FlowNames* names, MatchWords* words) {
  VSWITCH_RETURN_IF_ERROR(check_numbers(text));
  std::string copy(text);
  char* actions = ofp_extract_actions(copy.data());
  MatchReader reader(of_rule, words);
  char* at = skip_command(copy.data());
  char *key, *value;
  while (ofputil_parse_key_value(&at, &key, &value)) VSWITCH_RETURN_IF_ERROR(reader.read(key, value));
  return actions != nullptr ? check_action_list(actions, names, 0) : Status();
}

Status check_words(const MatchWords& words, const ::match& match) {
  const uint16_t dl_type = be16::from_raw(match.flow.dl_type).host();
  for (const MatchWords::Protocol& p : words.protocols) {
    const bool met = p.dl_type == dl_type && (p.nw_proto == 0 || p.nw_proto == match.flow.nw_proto);
    if (met) continue;
    const MatchWords::Protocol& last = words.protocols.back();
    if (&p != &last) return contradiction(p.word, last.word);
    if (!words.dl_type.empty()) return contradiction(p.word, "dl_type=" + words.dl_type);
    return contradiction(p.word, "nw_proto=" + words.nw_proto);
  }
  if (!words.protocols.empty() && differs(words.dl_type, dl_type)) {
    return contradiction("dl_type=" + words.dl_type, words.protocols.back().word);
  }
  if (!words.protocols.empty() && differs(words.nw_proto, match.flow.nw_proto)) {
    return contradiction("nw_proto=" + words.nw_proto, words.protocols.back().word);
  }
  for (const mf_field* field : words.fields) {
    if (mf_is_all_wild(field, &match.wc) || mf_are_match_prereqs_ok(field, &match)) continue;
    return invalid_argument(fmt::format("match on {}: only packets of {} have it, so that must be matched, too",
                                        field->name, prerequisite_text(*field)),
                            "match");
  }
  return {};
}

std::string prerequisite_text(const mf_field& field) {
  const Field* ours = find_field(field.name);
  if (ours == nullptr) return "";
  switch (ours->prerequisite) {
    case FieldPrerequisite::none:
      return "";
    case FieldPrerequisite::ethernet:
      return "eth";
    case FieldPrerequisite::vlan:
      return "a VLAN tag (dl_vlan=N, or vlan_tci=0x1000/0x1000 for any)";
    case FieldPrerequisite::mpls:
      return "mpls or mplsm";
    case FieldPrerequisite::ip_any:
      return "ip or ipv6";
    case FieldPrerequisite::ipv4:
      return "ip";
    case FieldPrerequisite::ipv6:
      return "ipv6";
    case FieldPrerequisite::arp:
      return "arp or rarp";
    case FieldPrerequisite::tcp:
      return "tcp or tcp6";
    case FieldPrerequisite::udp:
      return "udp or udp6";
    case FieldPrerequisite::sctp:
      return "sctp or sctp6";
    case FieldPrerequisite::icmpv4:
      return "icmp";
    case FieldPrerequisite::icmpv6:
      return "icmp6";
    case FieldPrerequisite::nd:
      return "icmp6,icmp_type=135,icmp_code=0 or icmp6,icmp_type=136,icmp_code=0";
    case FieldPrerequisite::nd_solicit:
      return "icmp6,icmp_type=135,icmp_code=0";
    case FieldPrerequisite::nd_advert:
      return "icmp6,icmp_type=136,icmp_code=0";
    case FieldPrerequisite::nsh:
      return "dl_type=0x894f";
    case FieldPrerequisite::ct:
      return "ct_state=+trk";
  }
  return "";
}

std::string explain_parse_error(std::string message) {
  // Some of the parser's messages are whole sentences in several lines; a Status is one line.
  std::replace(message.begin(), message.end(), '\n', ' ');
  const std::pair<std::string_view, std::string_view> kRanges[] = {
      {"invalid priority ", "0 to 65535"},
      {"invalid idle_timeout ", "0 to 65535 seconds"},
      {"invalid hard_timeout ", "0 to 65535 seconds"},
      {"invalid importance ", "0 to 65535"},
      {"unknown table ", "0 to 253"},
  };
  for (const auto& [begin, range] : kRanges) {
    if (message.starts_with(begin)) return fmt::format("{}: {}", message, range);
  }
  return message;
}

}  // namespace vswitch::ovs
