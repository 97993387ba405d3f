#include "vswitchd/rpc/proto_convert_trace.h"

#include <fmt/format.h>

#include "vswitchd/openflow/datapath_text.h"
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
std::string megaflow_text(const TraceSection& section, const TraceTextOptions& options) {
  PipelineKey key;
  PipelineMask mask;
  key.packet = section.megaflow_key;
  key.packet.in_port = section.flow.packet.in_port;
  mask.packet = section.megaflow_mask;
  return format_megaflow(key, mask, options.names);
}

void section_to_proto(const TraceSection& section, const TraceTextOptions& options, v1::TraceSection& out) {
  out.set_recirc_id(section.recirc_id);
  out.set_flow(format_flow_key(section.flow, options.names));
  nodes_to_proto(section.nodes, *out.mutable_nodes(), 1);
  bool unchanged = section.final_flow == section.flow;
  out.set_final_flow(unchanged ? "unchanged" : format_flow_key(section.final_flow, options.names));
  out.set_megaflow(megaflow_text(section, options));
  DatapathTextOptions text;
  text.port_name = options.dp_port_name;
  out.set_datapath_actions(format_datapath_actions(section.actions, text));
  out.set_drop_reason(section.drop_reason);
}

std::string section_text(const TraceSection& section, const v1::TraceSection& proto, bool first) {
  std::string out;
  if (!first) {
    std::string line(79, '=');
    out = fmt::format("\n{}\nrecirc({:#x})\n{}\n\n", line, section.recirc_id, line);
  }
  out += fmt::format("Flow: {}\n{}\n", proto.flow(), format_trace_nodes(section.nodes));
  out += fmt::format("Final flow: {}\nMegaflow: {}\nDatapath actions: {}\n", proto.final_flow(), proto.megaflow(),
                     proto.datapath_actions());
  return out;
}

}  // namespace

void trace_to_proto(const TraceResult& trace, const TraceTextOptions& options, v1::TraceResponse& out) {
  std::string text;
  for (const TraceSection& section : trace.sections) {
    v1::TraceSection& proto = *out.add_sections();
    section_to_proto(section, options, proto);
    text += section_text(section, proto, out.sections_size() == 1);
  }
  out.set_text(std::move(text));
}

}  // namespace vswitch
