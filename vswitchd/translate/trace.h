// Trace: what translation tells about its way, as a tree. The translator fills it when TranslateInput::trace is set;
// nothing else about translation changes, so a trace cannot lie.
//
// What an action led to (details, warnings, the tables and bridges it entered) are children of the action's node.
//
// The tree is plain data: rpc turns it into proto, trace_text.h into the text of `ofctl trace`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vswitch {

struct TraceNode {
  enum class Kind : uint8_t {
    bridge,   // text: bridge("br0")
    table,    // text: "in_port=1, priority 100" / "No match."; table, rule_id set; table -1: the action set
    action,   // text: as the rule spells it: "resubmit(,2)"; "drop" for an empty list
    detail,   // text: what an action found out: "no learned MAC for destination, flooding"
    error,    // text: why translation as a whole went wrong: "over max translation depth 64"
    thaw,     // text: "thaw" of a recirculation
    warning,  // text: why an action had no effect: "skipping output to input port"
  };
  Kind kind = Kind::detail;
  std::string text;
  int table = -1;        // Kind::table
  uint64_t rule_id = 0;  // Kind::table, 0: no rule
  uint64_t cookie = 0;   // Kind::table
  std::vector<TraceNode> children;

  bool operator==(const TraceNode&) const = default;
};

}  // namespace vswitch
