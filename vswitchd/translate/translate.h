// Translation: from a packet's key, through the rules, to datapath actions and the mask of a megaflow.
//
// One function for upcalls, revalidation and trace; they differ only in TranslateInput. Property (tested with random
// tables and packets): for every packet that agrees with `key` on output.mask, translate() gives the same actions.
//
// Semantics are those of Open vSwitch 3.1 (ofproto-dpif-xlate.c), within what RuleAction holds:
// - resubmit depth 64, 4096 resubmits in total, goto_table only forward, stack of 64 kB, patch ports count as depth;
// - set actions are collected and committed before an output, as few as possible; none that changes nothing;
// - output never goes back to in_port unless in_port is named; to a port that is down, no-forward or absent: nothing;
// - `normal` in the order of features.md section 9;
// - tunnel outputs emit set(tunnel(...)) with configuration and flow fields merged, then output;
// - a list that ends with no output emits nothing (an installer adds DropAction with output.drop_reason);
// - a limit or an error ends translation: nothing is emitted. But one behind a patch port takes back nothing of what
//   was done before: only that copy of the packet is dropped, by clone(drop), which counts it by the reason's name;
// - recirculation freezes what is left to do and thaws it when the packet is back (recirc_table.h). Unlike in Open
//   vSwitch, a packet that comes back with no actions left is through, and what follows a clone that recirculated runs.
//
// Thread safety: callable from several RCU reader threads at once (handlers, revalidator, trace).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "datapath/actions/action.h"
#include "datapath/base/drop_reason.h"
#include "datapath/flow/flow_key.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/rules/rule.h"
#include "vswitchd/translate/recirc_table.h"
#include "vswitchd/translate/switch_view.h"
#include "vswitchd/translate/trace.h"

namespace vswitch {

// What a packet-in carries beside the packet; kept in a table of the control path, found again by
// UserspaceAction::cookie.
struct ControllerRequest {
  std::string bridge;
  uint64_t rule_cookie = 0;
  uint8_t table = 0;
  SendToController action;
  // Metadata for the packet-in, as it was when the action ran: in_port, tunnel, metadata and registers; all else is
  // zero, so that the packets of one megaflow make equal requests.
  PipelineKey key;
};

// Gives out the cookies of controller actions and the ids of recirculations. Implemented by the control path; equal
// requests get equal ids, so that translating again gives equal actions.
class TranslateContexts {
 public:
  virtual ~TranslateContexts() = default;
  virtual uint64_t controller_cookie(const ControllerRequest& request) = 0;
  // Null: there are too many already.
  virtual RecircRef freeze(FrozenState state) = 0;
  // Null: unknown, or expired.
  virtual RecircRef thaw(uint32_t recirc_id) const = 0;
};

// A recirculation that translation ended in.
struct Recirculation {
  RecircRef context;
  // What the packet's key will be when it comes back, but for what extraction finds anew; in_port is the datapath's.
  FlowKey key;
};

// The rules, tables and patch ports that a packet went through, in that order, by pointers that keep nothing alive: for
// the RCU reader that translated, until its next quiescent state.
struct Way {
  std::vector<const Rule*> rules;  // each rule that the packet went through, repeats included
  struct PatchHop {
    const PortView *from, *to;
  };
  std::vector<PatchHop> patch_hops;
  struct TableLookups {  // of one table; a packet may look it up several times
    const BridgeView* bridge;
    uint8_t table;
    uint32_t matched, missed;
  };
  std::vector<TableLookups> lookups;
};

// What a flow's packets count for: rules, tables and patch ports that each of them went through. It keeps what it
// counts alive, so the revalidator may go on crediting packets that a flow forwarded before its bridge went away.
struct Credit {
  Credit() = default;
  explicit Credit(const Way& way);

  std::vector<RuleRef> rules;  // each rule that the packet went through, repeats included
  struct PatchHop {
    std::shared_ptr<PatchCounters> from, to;  // tx on one end is rx on the other
    bool operator==(const PatchHop&) const = default;
  };
  std::vector<PatchHop> patch_hops;
  struct TableLookups {  // of one table; a packet may look it up several times
    std::shared_ptr<const RuleTables> tables;
    uint8_t table = 0;
    uint32_t matched = 0, missed = 0;
    bool operator==(const TableLookups&) const = default;
  };
  std::vector<TableLookups> lookups;

  // Adds `packets` packets of `bytes` bytes in all to the statistics of everything above. Any thread.
  void count(uint64_t packets, uint64_t bytes, Nanoseconds used) const;
  // Counts for the very same rules, tables and ports.
  bool operator==(const Credit&) const = default;
  bool operator==(const Way& way) const;
};

// A source address that `normal` looked at, to be refreshed while the flow has traffic.
struct LearnedSource {
  std::string bridge;
  uint16_t vlan;
  MacAddress mac;
  OfPort port;
  bool operator==(const LearnedSource&) const = default;
};

struct TranslateInput {
  const SwitchView& view;
  // in_port is a datapath port number (0: none, e.g. packet-out without in_port), recirc_id as in the datapath.
  const FlowKey& key;
  // Run these actions in `bridge` instead of looking up table 0 (packet-out); null otherwise.
  const RuleActionList* actions = nullptr;
  const BridgeView* bridge = nullptr;  // with `actions`, or for a trace whose in_port has no datapath port
  OfPort ofport_in = 0;                // with `bridge`: the OpenFlow port it came in by
  bool allow_side_effects = true;      // learn addresses, count credit_packets
  uint64_t credit_packets = 0;         // packets to count at once (0: caller uses output.credit)
  uint64_t credit_bytes = 0;
  Nanoseconds now{};
  std::vector<TraceNode>* trace = nullptr;
  // The trace's nodes may take so many bytes, each counted as its text and kTraceNodeBytes; a warning says where it
  // ends.
  size_t max_trace_bytes = 1 << 20;
  // Names of the ports of `bridge`, for the trace. Empty function: numbers.
  std::function<const FlowNames*(const BridgeView& bridge)> names{};
  TranslateContexts* contexts = nullptr;  // null: cookies are 0, and nothing can be recirculated
  bool way_only = false;  // output.credit stays empty: the caller does with output.way, or makes a Credit of it
};

inline constexpr size_t kTraceNodeBytes = 48;

struct TranslateOutput {
  ActionList actions;
  // Bits of the input key that decided; always includes in_port, recirc_id, eth_type, packet_type, for IP nw_frag, and
  // for a packet from a tunnel the tunnel's id, addresses, flags and TOS. A packet without a VLAN tag is told from one
  // with a tag by the CFI bit of vlan[0].tci, where that was looked at.
  FlowMask mask;
  DropReason drop_reason = DropReason::of_pipeline;  // why, when actions is empty
  // Hot words of the key (a bit each) in which the packet was, or could have been, another than it came in when a table
  // was looked up; bit 0 also: it was looked up as if it had come in by another port.
  uint8_t rewritten_words = 0;
  bool used_addresses = false;     // addresses that were learned decided
  bool addresses_changed = false;  // translation itself learned or moved one
  bool slow_path = false;          // must not be cached: translate each packet by itself (dec_ttl to controller)
  Way way;
  Credit credit;  // of `way`
  std::vector<LearnedSource> learned;
  std::vector<Recirculation> recirculations;  // whoever keeps `actions` keeps their contexts
  RecircRef thawed;                           // the context that the packet itself came with
  struct TraceKeys {
    PipelineKey initial;  // as the first rule saw it: "Flow"; in_port is OpenFlow's
    PipelineKey final;    // "Final flow"; equal to initial: "unchanged"
  };
  std::unique_ptr<TraceKeys> keys;  // of a trace only
  size_t trace_bytes = 0;           // of TranslateInput::max_trace_bytes
  bool failed = false;              // a limit or an error ended translation (drop_reason says which)

  // Lets go of all that it holds, but for the memory of lists that nearly every translation fills.
  void clear();
};

TranslateOutput translate(const TranslateInput& input);
// The same for who translates again and again: what `output` said before is forgotten, its memory used again.
void translate(const TranslateInput& input, TranslateOutput& output);

}  // namespace vswitch
