// What translation tells about its way, if somebody listens.

#include <algorithm>
#include <utility>

#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/translate/translator.h"

namespace vswitch {
namespace {

std::string hexadecimal(const FieldValue& value, unsigned n_bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (unsigned i = 0; i < n_bytes; ++i) {
    text += kDigits[value.bytes[i] >> 4];
    text += kDigits[value.bytes[i] & 15];
  }
  const size_t first = text.find_first_not_of('0');
  if (first == std::string::npos) return "0";
  std::string number = "0x";
  return number.append(text, first);
}

std::string decimal(const FieldValue& value, unsigned n_bytes) {
  uint64_t number = 0;
  for (unsigned i = 0; i < n_bytes && i < 8; ++i) number = number << 8 | value.bytes[i];
  return std::to_string(number);
}

template <typename Address>
Address address(const FieldValue& value) {
  Address a;
  std::copy_n(value.bytes.begin(), a.bytes.size(), a.bytes.begin());
  return a;
}

std::string field_value_text(const Field& f, const FieldValue& value) {
  switch (f.format) {
    case FieldFormat::decimal:
    case FieldFormat::port:
      return decimal(value, f.n_bytes);
    case FieldFormat::ethernet:
      return address<MacAddress>(value).to_string();
    case FieldFormat::ipv4:
      return ipv4_to_string(load_unaligned<be32>(value.bytes.data()));
    case FieldFormat::ipv6:
      return address<Ipv6Address>(value).to_string();
    case FieldFormat::hexadecimal:
    case FieldFormat::frag:
    case FieldFormat::tcp_flags:
    case FieldFormat::tunnel_flags:
    case FieldFormat::ct_state:
    case FieldFormat::packet_type:
      break;
  }
  return hexadecimal(value, f.n_bytes);
}

// The oldest name, which is the one that Open vSwitch prints.
std::string_view nxm_name(const Field& f) {
  for (std::string_view name : {f.oxm_name, f.oxm_alias, f.oxm_alias2}) {
    if (name.starts_with("NXM_")) return name;
  }
  return f.oxm_name.empty() ? f.name : f.oxm_name;
}

std::string subfield_text(const Subfield& s) {
  std::string text(nxm_name(*s.field));
  if (s.ofs == 0 && s.n_bits == s.field->width) return text + "[]";
  text += '[';
  text += std::to_string(s.ofs);
  if (s.n_bits > 1) text.append("..").append(std::to_string(s.ofs + s.n_bits - 1));
  return text + ']';
}

std::string rule_text(const Rule& rule, const FlowNames* names) {
  std::string text = format_match(rule.match().expand(), names);
  if (!text.empty()) text += ", ";
  text += "priority " + std::to_string(rule.priority());
  if (rule.cookie() != 0) {
    FieldValue cookie;
    for (int i = 0; i < 8; ++i) cookie.bytes[i] = static_cast<uint8_t>(rule.cookie() >> (56 - 8 * i));
    text += ", cookie " + hexadecimal(cookie, 8);
  }
  return text;
}

}  // namespace

// Null: not tracing, or no longer. Rules may do thousands of actions thousands of times: nobody could read that, and a
// reply could not hold it.
TraceNode* Translator::add_node(TraceNode::Kind kind, std::string text) {
  if (!tracing()) return nullptr;
  output_.trace_bytes += kTraceNodeBytes + text.size();
  if (output_.trace_bytes > input_.max_trace_bytes) {
    trace_full_ = true;
    kind = TraceNode::Kind::warning;
    text = "the trace is cut here, at " + std::to_string(input_.max_trace_bytes) + " bytes; the packet went on";
  }
  TraceNode& node = trace_->emplace_back();
  node.kind = kind;
  node.text = std::move(text);
  return &node;
}

std::vector<TraceNode>* Translator::report(TraceNode::Kind kind, std::string text) {
  TraceNode* const node = add_node(kind, std::move(text));
  return node == nullptr ? nullptr : &node->children;
}

std::vector<TraceNode>* Translator::report_table(uint8_t table, const Rule* rule) {
  if (!tracing()) return nullptr;
  TraceNode* const node = add_node(TraceNode::Kind::table, rule == nullptr ? "No match." : rule_text(*rule, names()));
  if (node->kind != TraceNode::Kind::table) return nullptr;
  node->table = table;
  if (rule != nullptr) {
    node->rule_id = rule->id();
    node->cookie = rule->cookie();
  }
  return &node->children;
}

void Translator::report_subfield(const Subfield& s) {
  if (!tracing()) return;
  const bool whole = s.ofs == 0 && s.n_bits == s.field->width;
  const std::string value =
      whole ? field_value_text(*s.field, read_field(*s.field, key_)) : hexadecimal(read_bits(s), (s.n_bits + 7) / 8);
  detail(subfield_text(s) + " is now " + value);
}

}  // namespace vswitch
