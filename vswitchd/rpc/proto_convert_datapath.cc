#include "vswitchd/rpc/proto_convert_datapath.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <string_view>

#include "datapath/flow/field.h"
#include "datapath/flow/flow_mask.h"
#include "vswitchd/rpc/proto_convert_rule.h"
#include "vswitchd/rpc/resource_names.h"

namespace vswitch {
namespace {

uint64_t milliseconds(Nanoseconds time) {
  return static_cast<uint64_t>(
      std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(time).count()));
}

// The field's name, or the one that stands for all protocols where each has its own: a mask alone does not tell which
// of them its flows are of.
std::string_view common_name(const Field& field) {
  switch (field.id) {
    case FieldId::kNwSrc:   // and arp_spa
    case FieldId::kNwDst:   // and arp_tpa
    case FieldId::kTcpSrc:  // and udp_src, sctp_src, icmp_type, ...
    case FieldId::kTcpDst:
    case FieldId::kIpFrag:  // called as in the flow dumps
      return field.alias;
    default:
      return field.name;
  }
}

std::string mask_value_text(const Field& field, const FieldValue& mask) {
  if (field.format == FieldFormat::ipv4) {
    be32 address;
    std::memcpy(&address, mask.bytes.data(), sizeof address);
    return ipv4_to_string(address);
  }
  if (field.format == FieldFormat::ipv6) {
    Ipv6Address address;
    std::memcpy(&address, mask.bytes.data(), sizeof address);
    return address.to_string();
  }
  if (field.format == FieldFormat::ethernet) {
    MacAddress address;
    std::memcpy(&address, mask.bytes.data(), sizeof address);
    return address.to_string();
  }
  std::string digits;
  for (size_t i = 0; i < field.n_bytes; ++i) digits += fmt::format("{:02x}", mask.bytes[i]);
  const size_t first = digits.find_first_not_of('0');
  return "0x" + (first == std::string::npos ? "0" : digits.substr(first));
}

}  // namespace

std::string ufid_to_text(const Ufid& ufid) {
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", ufid.high >> 32, (ufid.high >> 16) & 0xffff,
                     ufid.high & 0xffff, ufid.low >> 48, ufid.low & 0xffffffffffff);
}

std::string userspace_text(const UserspaceAction& action, const ControllerRequest* request) {
  if (action.reason == UserspaceReason::slow_path) return "slow_path(action)";
  if (request == nullptr) return fmt::format("controller(recirc_id={})", action.cookie);
  const std::string cookie = request->rule_cookie == 0 ? "0" : fmt::format("{:#x}", request->rule_cookie);
  return fmt::format(
      "controller(reason={},dont_send=0,continuation=0,recirc_id={},rule_cookie={},controller_id={},max_len={})",
      static_cast<int>(request->action.reason), action.cookie, cookie, request->action.controller_id,
      request->action.max_len);
}

void counters_to_proto(const DatapathCounters& counters, v1::Datapath& out) {
  out.set_hits(counters.hits);
  out.set_cache_hits(counters.cache_hits);
  out.set_misses(counters.misses);
  out.set_lost(counters.lost);
  out.set_masks_visited(counters.masks_visited);
  out.set_flows(counters.flows);
  out.set_masks(counters.masks);
  out.set_narrowed(counters.narrowed);
  out.set_evictions(counters.evictions);
  out.set_cache_evictions(counters.cache_evictions);
  const KernelPathStats& kernel_path = counters.kernel_path;
  out.set_kernel_path(kernel_path.off_because.empty() ? "on" : "off: " + kernel_path.off_because);
  out.set_kernel_path_ports(kernel_path.ports);
  out.set_kernel_path_connections(kernel_path.connections);
  out.set_kernel_path_hits(kernel_path.hits);
}

void datapath_flow_to_proto(const DatapathFlow& flow, const DatapathTextOptions& options, bool typed,
                            v1::DatapathFlow& out) {
  DatapathFlowCounters counters;
  counters.packets = flow.stats.packets;
  counters.bytes = flow.stats.bytes;
  counters.tcp_flags = flow.stats.tcp_flags;
  counters.kernel_path = flow.kernel_path;
  if (flow.stats.packets != 0) counters.idle = flow.idle;
  std::string text = format_datapath_flow(flow.key, flow.mask, flow.actions, counters, options);
  out.set_ufid(ufid_to_text(flow.ufid));
  out.set_text(options.verbose ? fmt::format("ufid:{}, {}", out.ufid(), text) : std::move(text));
  if (typed) {
    Match match;
    match.value.packet = flow.key;
    match.mask.packet = flow.mask;
    match.value = masked(match.value, match.mask);
    match_to_proto(match, *out.mutable_match());
  }
  out.set_actions(format_datapath_actions(flow.actions, options));
  out.set_packets(flow.stats.packets);
  out.set_bytes(flow.stats.bytes);
  out.set_age_ms(milliseconds(flow.age));
  if (flow.stats.packets != 0) out.set_idle_ms(milliseconds(flow.idle));
  out.set_tcp_flags(flow.stats.tcp_flags);
  out.set_kernel_path(flow.kernel_path);
}

// What no field of OpenFlow's covers is named by where it lies in the key (datapath/flow/flow_key.h), so that masks
// which differ look different.
void add_unnamed(PipelineMask& mask, v1::DatapathMask& out) {
  if (const uint16_t tci = mask.packet.vlan[1].tci.host(); tci != 0) {
    out.add_fields(fmt::format("inner_vlan_tci/{:#x}", tci));
    mask.packet.vlan[1].tci = {};
  }
  for (size_t i = 0; i < kFlowKeyWords; ++i) {
    const uint64_t rest = words(mask.packet)[i];
    if (rest != 0) out.add_fields(fmt::format("key_word_{}/{:#018x}", i, std::bit_cast<be64>(rest).host()));
  }
}

void mask_to_proto(const FlowTable::MaskInfo& mask, v1::DatapathMask& out) {
  PipelineMask remaining;
  remaining.packet = mask.mask;
  for (const Field& field : all_fields()) {
    if (!field.has_place()) continue;
    PipelineMask bits;
    mark_field(field, bits);
    const FieldValue value = read_field(field, masked(bits, remaining));
    if (value == FieldValue{}) continue;
    for (size_t i = 0; i < kPipelineKeyWords; ++i) words(remaining)[i] &= ~words(bits)[i];
    std::string text(common_name(field));
    if (value != exact_field_mask(field)) text += "/" + mask_value_text(field, value);
    out.add_fields(std::move(text));
  }
  add_unnamed(remaining, out);
  out.set_flows(mask.flows);
  out.set_hits(mask.hits);
}

void drop_to_proto(const DropCount& drop, v1::DropCount& out) {
  out.set_datapath_port(drop.dp_port);
  out.set_port(port_resource(drop.port));
  out.set_reason(std::string(drop_reason_name(drop.reason)));
  out.set_description(std::string(drop_reason_text(drop.reason)));
  out.set_packets(drop.packets);
}

void balance_to_proto(const PortBalance& balance, v1::PortBalance& out) {
  out.set_datapath_port(balance.dp_port);
  out.set_port(port_resource(balance.port));
  out.set_received(balance.received);
  out.set_injected(balance.injected);
  out.set_copies(balance.copies);
  out.set_sent(balance.sent);
  out.set_consumed(balance.consumed);
  out.set_dropped(balance.dropped);
  out.set_queued(balance.queued);
}

}  // namespace vswitch
