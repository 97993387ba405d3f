#include "vswitchd/rpc/proto_convert_trace.h"

#include <fmt/format.h>

#include <algorithm>

#include "vswitchd/openflow/datapath_text.h"
#include "vswitchd/rpc/proto_convert_datapath.h"
#include "vswitchd/translate/trace_text.h"

namespace vswitch {
namespace {

v1::TraceNodeKind kind_to_proto(TraceNode::Kind kind) {
  switch (kind) {
    case TraceNode::Kind::bridge:
      return v1::TRACE_NODE_KIND_BRIDGE;
    case TraceNode::Kind::table:
      return v1::TRACE_NODE_KIND_TABLE;
    case TraceNode::Kind::action:
      return v1::TRACE_NODE_KIND_ACTION;
    case TraceNode::Kind::detail:
      return v1::TRACE_NODE_KIND_DETAIL;
    case TraceNode::Kind::warning:
      return v1::TRACE_NODE_KIND_WARNING;
    case TraceNode::Kind::error:
      return v1::TRACE_NODE_KIND_ERROR;
    case TraceNode::Kind::thaw:
      return v1::TRACE_NODE_KIND_THAW;
  }
  return v1::TRACE_NODE_KIND_UNSPECIFIED;
}

// Protobuf's parsers refuse messages that are nested more than 100 deep, and a trace through resubmits and patch ports
// gets there: bridge, table and action at each of 64 levels. What lies deeper than this follows its parent instead of
// being inside of it.
constexpr int kMaxNesting = 90;

void node_to_proto(const TraceNode& node, v1::TraceNode& out) {
  out.set_kind(kind_to_proto(node.kind));
  out.set_text(node.text);
  if (node.kind == TraceNode::Kind::table) {
    if (node.table >= 0) out.set_table(static_cast<uint32_t>(node.table));
    out.set_rule_id(node.rule_id);
    out.set_cookie(node.cookie);
  }
}

// Adds `nodes` and all below to `out`. Recursion is bounded by the limits of translation.
void nodes_to_proto(const std::vector<TraceNode>& nodes, google::protobuf::RepeatedPtrField<v1::TraceNode>& out,
                    int depth) {
  for (const TraceNode& node : nodes) {
    v1::TraceNode& added = *out.Add();
    node_to_proto(node, added);
    nodes_to_proto(node.children, depth < kMaxNesting ? *added.mutable_children() : out, depth + 1);
  }
}

// The megaflow speaks of the port by its OpenFlow number, as rules do; the datapath's own number stands in the flow.
std::string megaflow_text(const TraceSection& section, const FlowNames* names) {
  PipelineKey key;
  PipelineMask mask;
  key.packet = section.megaflow_key;
  key.packet.in_port = section.flow.packet.in_port;
  mask.packet = section.megaflow_mask;
  return format_megaflow(key, mask, names);
}

// gRPC clients take messages of 4 MB. Of these the nodes have about one (see Tracer), their text may have so much, and
// so much the datapath actions, which stand in both.
constexpr size_t kMaxText = 1 << 20;
constexpr size_t kMaxActionsText = 256 << 10;

std::string cut(std::string text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  const size_t whole = text.size();
  text.resize(max_bytes);
  return text + fmt::format("... (cut: {} bytes)", whole);
}

void section_to_proto(const TraceResult& trace, const TraceSection& section, const TraceTextOptions& options,
                      size_t max_actions, v1::TraceSection& out) {
  const auto known = trace.names.find(section.bridge);
  const FlowNames* const names = known == trace.names.end() ? nullptr : &known->second;
  out.set_recirc_id(section.recirc_id);
  out.set_flow(format_flow_key(section.flow, names));
  nodes_to_proto(section.nodes, *out.mutable_nodes(), 1);
  bool unchanged = section.final_flow == section.flow;
  out.set_final_flow(unchanged ? "unchanged" : format_flow_key(section.final_flow, names));
  out.set_megaflow(megaflow_text(section, names));
  DatapathTextOptions text;
  text.port_name = options.dp_port_name;
  text.describe_userspace = [&](const UserspaceAction& action) {
    const auto request = trace.controller_requests.find(action.cookie);
    return userspace_text(action, request == trace.controller_requests.end() ? nullptr : request->second.get());
  };
  out.set_datapath_actions(cut(format_datapath_actions(section.actions, text), max_actions));
  out.set_drop_reason(section.drop_reason);
}

std::string section_text(const TraceSection& section, const v1::TraceSection& proto, bool first, size_t max_nodes) {
  std::string out = first ? "" : format_recirculation(section.recirc_id);
  out += fmt::format("Flow: {}\n{}\n", proto.flow(), format_trace_nodes(section.nodes, max_nodes));
  out += fmt::format("Final flow: {}\nMegaflow: {}\nDatapath actions: {}\n", proto.final_flow(), proto.megaflow(),
                     proto.datapath_actions());
  return out;
}

}  // namespace

void trace_to_proto(const TraceResult& trace, const TraceTextOptions& options, v1::TraceResponse& out) {
  std::string text;
  size_t actions = 0;
  for (const TraceSection& section : trace.sections) {
    v1::TraceSection& proto = *out.add_sections();
    section_to_proto(trace, section, options, kMaxActionsText - std::min(actions, kMaxActionsText), proto);
    actions += proto.datapath_actions().size();
    text += section_text(section, proto, out.sections_size() == 1, kMaxText - std::min(text.size(), kMaxText));
  }
  out.set_text(std::move(text));
}

}  // namespace vswitch
