// Translator: one run of translate(). The state of a packet on its way through the rules, and the steps that change it.
//
// Two keys tell where the packet is: `key_` is the packet as the rules see it now; base() is the packet as the datapath
// actions emitted so far leave it. Actions of rules change key_; commit() closes the gap when the packet is used.
// `mask_` collects the bits of the *input* key that any decision depended on. Marking too much costs megaflows, marking
// too little forwards packets wrongly.
//
// Where to find what: translate.cc (start, end, tables), translate_actions.cc (each RuleAction), output.cc (ports,
// patch ports, packet-ins), tunnel_output.cc, normal.cc, action_set.cc, freeze.cc (recirculation), translate_trace.cc.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "datapath/flow/field.h"
#include "vswitchd/translate/mac_table.h"
#include "vswitchd/translate/translate.h"

namespace vswitch {

// Limits, those of Open vSwitch but for the last, which there is one of size in bytes.
inline constexpr int kMaxTranslationDepth = 64;
inline constexpr int kMaxResubmits = 4096;
inline constexpr size_t kMaxStackBytes = 65536;
inline constexpr size_t kMaxDatapathActions = 8192;

class Translator {
 public:
  Translator(const TranslateInput& input, TranslateOutput& output);
  void run();

 private:
  // ---- translate.cc
  bool enter();  // finds bridge and port; false: dropped
  bool admit(const PortView* port);
  bool may_receive(const PortView& port);
  bool process_tunnel_ecn();
  void run_first();
  void end_pipeline();
  void init_mask();
  void finish_mask();
  void finish_vlan_mask();
  void finish();
  Version version_of(const BridgeView& bridge);
  const Rule* lookup_rule(uint8_t table, OfPort in_port);
  void count_lookup(uint8_t table, bool matched);
  void note_rewritten(OfPort in_port);
  void keep_initial_key();
  bool within_limits();
  enum class Runner : uint8_t { plain, clone };
  // Looks the packet up in `table` as if it had come in by `in_port`, and runs what it finds.
  void run_table(uint8_t table, OfPort in_port, bool is_last, Runner runner);
  void run_rule(const Rule& rule, bool deepens, bool is_last, Runner runner);

  // ---- translate_actions.cc
  // `is_last`: nothing will use the packet after this list, so changes need not be undone.
  void run_actions(const RuleActionList& list, bool is_last);
  void run_as_clone(const RuleActionList& list, bool is_last);
  void dispatch(const RuleAction& action, bool is_last);
  void run_action(const OutputToPort& a, bool is_last);
  void run_action(const OutputToField& a, bool is_last);
  void run_action(const SendToController& a, bool is_last);
  void run_action(const SetField& a, bool is_last);
  void run_action(const MoveField& a, bool is_last);
  void run_action(const ModField& a, bool is_last);
  void run_action(const ModVlanVid& a, bool is_last);
  void run_action(const ModVlanPcp& a, bool is_last);
  void run_action(const StripVlan& a, bool is_last);
  void run_action(const PushVlan& a, bool is_last);
  void run_action(const DecTtl& a, bool is_last);
  void run_action(const SetTunnelId& a, bool is_last);
  void run_action(const Resubmit& a, bool is_last);
  void run_action(const StackPush& a, bool is_last);
  void run_action(const StackPop& a, bool is_last);
  void run_action(const CloneActions& a, bool is_last);
  void run_action(const Exit& a, bool is_last);
  void run_action(const Note& a, bool is_last);
  void run_action(const ClearActions& a, bool is_last);
  void run_action(const WriteActions& a, bool is_last);
  void run_action(const WriteMetadata& a, bool is_last);
  void run_action(const GotoTable& a, bool is_last);
  void run_action(const DebugRecirculate& a, bool is_last);
  void mark_written(const Field& f, const FieldValue& bits);
  void mark_written(const Subfield& written);
  void mod_transport_port(bool source, uint16_t port);
  void mod_vlan_tci(uint16_t bits, uint16_t mask, bool push_if_needed);
  void mark_vlan_tags();
  void fix_vlan_tags(const Field& written);
  FieldValue read_bits(const Subfield& source) const;
  void write_bits(const FieldValue& value, const Subfield& destination);
  void move_bits(const Subfield& source, const Subfield& destination);

  // ---- action_set.cc
  void write_action_set(const RuleActionList& list);
  void run_action_set();
  void report_action_set(const char* verb);

  // ---- freeze.cc
  void freeze();
  void freeze_action(const RuleAction& action, uint8_t table, uint64_t cookie);
  void freeze_rest(const RuleActionList& list, size_t first);
  void finish_freezing();
  FrozenState frozen_state();
  bool thaw();
  bool resume(const FrozenState& state);
  void run_frozen_actions(const std::vector<FrozenAction>& list);
  std::string frozen_actions_text(const std::vector<FrozenAction>& list) const;

  // ---- output.cc
  void output_to(OfPort port, bool is_last);
  void output_truncated(OfPort port, uint32_t max_len);
  bool may_output(const PortView* port);
  void output_port(OfPort port, bool is_last);
  void output_datapath_port(const PortView& port);
  void output_patch(const PortView& port, bool is_last);
  void enter_peer(const PortView& peer, bool is_last);
  void drop_copy();
  void flood(bool all, bool is_last);
  void send_to_controller(SendToController action);
  void commit();
  bool emit(Action action);

  // ---- tunnel_output.cc
  void output_tunnel(const PortView& port);
  void tunnel_addresses(const TunnelPortView& tunnel, TunnelMetadata& out);
  void tunnel_tos_and_ttl(const TunnelPortView& tunnel, TunnelMetadata& out);
  TunnelMetadata tunnel_metadata(const TunnelPortView& tunnel);

  // ---- normal.cc
  struct Vlans {
    struct Tag {
      be16 tpid{};
      uint16_t vid = 0;
      uint16_t pcp = 0;  // in its place: bits 13-15
    };
    Tag tag[kMaxVlanTags];
  };
  void normal();
  bool vlan_admitted(const PortView* in, uint16_t vid);
  Vlans packet_vlans() const;
  Vlans bridge_vlans(const PortView* in, const Vlans& packet);
  Vlans port_vlans(const PortView& out, const Vlans& vlans);
  void put_vlans(const Vlans& vlans);
  bool is_reserved_multicast() const;
  bool carries(const PortView& out, const Vlans& vlans);
  void learn_source(const PortView* in, uint16_t vlan);
  void forward(const PortView* in, const Vlans& vlans);
  void flood_normal(const PortView* in, const Vlans& vlans);
  void output_normal(const PortView& out, const Vlans& vlans);

  // ---- translate_trace.cc
  bool tracing() const { return trace_ != nullptr && !trace_full_; }
  std::vector<TraceNode>* report(TraceNode::Kind kind,
                                 std::string text);  // children of the new node; null: not tracing
  void detail(std::string text) { report(TraceNode::Kind::detail, std::move(text)); }
  void warning(std::string text) { report(TraceNode::Kind::warning, std::move(text)); }
  // No string is made of these while nobody listens.
  void detail(const char* text) {
    if (tracing()) report(TraceNode::Kind::detail, text);
  }
  void warning(const char* text) {
    if (tracing()) report(TraceNode::Kind::warning, text);
  }
  void error(std::string text) { report(TraceNode::Kind::error, std::move(text)); }
  TraceNode* add_node(TraceNode::Kind kind, std::string text);
  std::vector<TraceNode>* report_table(uint8_t table, const Rule* rule);
  const FlowNames* names() const { return input_.names ? input_.names(*bridge_) : nullptr; }
  void report_subfield(const Subfield& subfield);
  // Everything reported during its life goes below `children`.
  class TraceScope {
   public:
    TraceScope(Translator& translator, std::vector<TraceNode>* children)
        : translator_(translator), saved_(translator.trace_) {
      if (children != nullptr) translator.trace_ = children;
    }
    ~TraceScope() { translator_.trace_ = saved_; }
    TraceScope(const TraceScope&) = delete;
    TraceScope& operator=(const TraceScope&) = delete;

   private:
    Translator& translator_;
    std::vector<TraceNode>* saved_;
  };

  // ---- ends
  void fail(DropReason reason, std::string text);  // ends translation; nothing is emitted
  void note_drop(DropReason reason) {  // explains an output that did not happen; the first explanation stays
    if (drop_reason_ == DropReason::of_pipeline) drop_reason_ = reason;
  }
  bool stopped() const { return failed_ || exit_; }
  // base_ and written_ are as large as all that a translation without them works on, and most need neither.
  FlowKey& base();
  PipelineMask& written();
  bool packet_is_as_received() const;
  OfPort in_port() const { return static_cast<OfPort>(key_.packet.in_port); }

  const TranslateInput& input_;
  TranslateOutput& output_;
  const BridgeView* bridge_ = nullptr;
  const BridgeView* first_bridge_ = nullptr;  // where the packet came in, and by which port; null: by none of its own
  OfPort first_port_ = 0;
  const PortView* received_by_ = nullptr;  // null: by none that the bridge has
  PipelineKey key_;
  std::optional<FlowKey> base_;          // nothing: as base() makes it
  PipelineMask mask_;                    // registers are left out where they are written: flows do not have them
  std::optional<PipelineMask> written_;  // bits that actions wrote; they are in mask_, too. Nothing: none
  Ipv6Address orig_tunnel_dst6_;         // of the input key: where the packet was received
  be32 orig_tunnel_dst_;
  bool from_tunnel_port_ = false;
  bool vlan_restacked_ = false;
  ActionList* actions_ = nullptr;  // output_.actions, or those of the clone being filled
  size_t action_count_ = 0;        // in all lists
  std::vector<uint8_t> stack_;     // values in whole bytes, each followed by its number of bytes
  RuleActionList action_set_;
  const Rule* rule_ = nullptr;
  uint64_t rule_cookie_ = ~uint64_t{0};  // of the rule whose action runs; none: packet-out
  uint8_t table_ = 0;
  int depth_ = 0;
  int resubmits_ = 0;
  bool in_action_set_ = false;
  bool exit_ = false;       // an `exit` action ran
  bool list_done_ = false;  // the current action list ends here (dec_ttl)
  bool failed_ = false;
  bool freezing_ = false;  // with exit_: what is left to do goes into frozen_actions_
  std::vector<FrozenAction> frozen_actions_;
  std::bitset<kDropReasonCount> dropped_copies_;  // reasons for which a copy is dropped already
  DropReason drop_reason_ = DropReason::of_pipeline;
  std::vector<TraceNode>* trace_ = nullptr;
  bool trace_full_ = false;
  // One version per bridge for the whole run.
  using BridgeVersion = std::pair<const BridgeView*, Version>;
  BridgeVersion first_version_{};
  std::vector<BridgeVersion> more_versions_;
};

}  // namespace vswitch
