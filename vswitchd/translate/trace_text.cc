#include "vswitchd/translate/trace_text.h"

#include <cstdio>
#include <string_view>

namespace vswitch {
namespace {

// The lines of one level: nodes, and what their actions led to, which reads on at the level of the action.
using Level = std::vector<const TraceNode*>;

void collect(const std::vector<TraceNode>& nodes, Level& level) {
  for (const TraceNode& node : nodes) {
    level.push_back(&node);
    if (node.kind == TraceNode::Kind::action) collect(node.children, level);
  }
}

// A table, bridge or thaw that is the last of its level goes on at that level instead of opening a deeper one.
bool opens_level(TraceNode::Kind kind) {
  return kind == TraceNode::Kind::bridge || kind == TraceNode::Kind::table || kind == TraceNode::Kind::thaw;
}

std::string table_number(const TraceNode& node) {
  if (node.table < 0) return "--. ";
  std::string number = node.table < 10 ? " " : "";
  number += std::to_string(node.table);
  number += ". ";
  return number;
}

std::string line_text(const TraceNode& node, const std::string& indent) {
  switch (node.kind) {
    case TraceNode::Kind::bridge:
      return node.text + "\n" + indent + std::string(node.text.size(), '-');
    case TraceNode::Kind::table:
      return table_number(node) + node.text;
    case TraceNode::Kind::detail:
      return " -> " + node.text;
    case TraceNode::Kind::warning:
      return " >> " + node.text;
    case TraceNode::Kind::error:
      return " >>>> " + node.text + " <<<<";
    case TraceNode::Kind::action:
    case TraceNode::Kind::thaw:
      break;
  }
  return node.text;
}

void format_level(const std::vector<TraceNode>& nodes, size_t depth, size_t max_bytes, std::string& out) {
  Level level;
  collect(nodes, level);
  for (size_t i = 0; i < level.size() && out.size() <= max_bytes; ++i) {
    const TraceNode& node = *level[i];
    const bool deeper = i + 1 < level.size() || !opens_level(node.kind);
    const std::string indent((depth + (deeper ? 1 : 0)) * 4, ' ');
    if (node.kind == TraceNode::Kind::bridge) out += '\n';
    out += indent + line_text(node, indent) + '\n';
    if (opens_level(node.kind)) format_level(node.children, depth + (deeper ? 2 : 0), max_bytes, out);
  }
}

}  // namespace

std::string format_trace_nodes(const std::vector<TraceNode>& nodes, size_t max_bytes) {
  std::string out;
  format_level(nodes, 0, max_bytes, out);
  if (out.size() > max_bytes) out += " >> this text is cut here, at " + std::to_string(max_bytes) + " bytes\n";
  return out;
}

std::string format_recirculation(uint32_t recirc_id) {
  const std::string line(79, '=');
  char id[16];
  std::snprintf(id, sizeof id, "%#x", recirc_id);
  return "\n" + line + "\nrecirc(" + id + ")\n" + line + "\n\n";
}

}  // namespace vswitch
