#include "vswitchd/translate/translate.h"

#include <algorithm>
#include <utility>

#include "vswitchd/translate/translator.h"

namespace vswitch {
namespace {

static_assert(kFlowKeyLayout == 1, "FlowKey changed: does the mask's beginning and end need the new field?");

constexpr uint8_t kEcnMask = 3, kEcnCe = 3;

const PipelineFields kInitialPipeline = [] {
  PipelineFields fields;
  fields.actset_output = kOfPortUnset;
  return fields;
}();

// What Translator::drop_copy() emits.
bool is_dropped_copy(const Action& action) {
  const auto* clone = std::get_if<CloneAction>(&action);
  return clone != nullptr && clone->actions->size() == 1 && std::holds_alternative<DropAction>(clone->actions->front());
}

}  // namespace

Credit::Credit(const Way& way) {
  rules.reserve(way.rules.size());
  for (const Rule* rule : way.rules) rules.emplace_back(rule);
  patch_hops.reserve(way.patch_hops.size());
  for (const Way::PatchHop& hop : way.patch_hops) {
    patch_hops.push_back({hop.from->patch_counters, hop.to->patch_counters});
  }
  lookups.reserve(way.lookups.size());
  for (const Way::TableLookups& l : way.lookups) lookups.push_back({l.bridge->tables, l.table, l.matched, l.missed});
}

bool Credit::operator==(const Way& way) const {
  const auto same_rule = [](const RuleRef& ours, const Rule* rule) { return ours.get() == rule; };
  const auto same_hop = [](const PatchHop& ours, const Way::PatchHop& hop) {
    return ours.from == hop.from->patch_counters && ours.to == hop.to->patch_counters;
  };
  const auto same_lookups = [](const TableLookups& ours, const Way::TableLookups& l) {
    return ours.table == l.table && ours.matched == l.matched && ours.missed == l.missed &&
           ours.tables == l.bridge->tables;
  };
  return std::ranges::equal(rules, way.rules, same_rule) && std::ranges::equal(lookups, way.lookups, same_lookups) &&
         std::ranges::equal(patch_hops, way.patch_hops, same_hop);
}

void TranslateOutput::clear() {
  actions.clear();
  drop_reason = DropReason::of_pipeline;
  rewritten_words = 0;
  used_addresses = addresses_changed = slow_path = failed = false;
  way.rules.clear(), way.patch_hops.clear(), way.lookups.clear();
  credit = {};
  learned.clear();
  recirculations.clear();
  thawed.reset();
  keys.reset();
  trace_bytes = 0;
}

void Credit::count(uint64_t packets, uint64_t bytes, Nanoseconds used) const {
  for (const RuleRef& rule : rules) rule->credit(packets, bytes, used);
  for (const PatchHop& hop : patch_hops) {
    hop.from->tx_packets.fetch_add(packets, std::memory_order_relaxed);
    hop.from->tx_bytes.fetch_add(bytes, std::memory_order_relaxed);
    hop.to->rx_packets.fetch_add(packets, std::memory_order_relaxed);
    hop.to->rx_bytes.fetch_add(bytes, std::memory_order_relaxed);
  }
  for (const TableLookups& l : lookups) {
    if (l.matched != 0) l.tables->count_lookup(l.table, true, packets * l.matched);
    if (l.missed != 0) l.tables->count_lookup(l.table, false, packets * l.missed);
  }
}

TranslateOutput translate(const TranslateInput& input) {
  TranslateOutput output;
  Translator(input, output).run();
  return output;
}

void translate(const TranslateInput& input, TranslateOutput& output) {
  output.clear();  // but for the mask, which is written whole in the end
  Translator(input, output).run();
}

Translator::Translator(const TranslateInput& input, TranslateOutput& output)
    : input_(input),
      output_(output),
      key_{input.key, kInitialPipeline},
      actions_(&output.actions),
      trace_(input.trace) {
  // Enough for nearly all.
  output.way.rules.reserve(4);
  output.way.lookups.reserve(2);
  output.actions.reserve(2);
  orig_tunnel_dst_ = input.key.tunnel.dst;
  orig_tunnel_dst6_ = input.key.tunnel.dst6;
}

FlowKey& Translator::base() {
  if (!base_.has_value()) {
    base_ = input_.key;
    // The datapath forgets where a packet was received from: tunnel metadata has to be set anew for each output.
    base_->tunnel = {};
  }
  return *base_;
}

PipelineMask& Translator::written() { return written_.has_value() ? *written_ : written_.emplace(); }

// In all that commit() looks at.
bool Translator::packet_is_as_received() const {
  constexpr size_t kHeaders = offsetof(FlowKey, eth_dst) / sizeof(KeyWord);
  constexpr size_t kHeadersEnd = offsetof(FlowKey, ct_mark) / sizeof(KeyWord);
  constexpr size_t kRare = offsetof(FlowKey, arp_sha) / sizeof(KeyWord);
  constexpr size_t kRareEnd = offsetof(FlowKey, tun_metadata_present) / sizeof(KeyWord);
  static_assert(kFlowKeyLayout == 1, "FlowKey changed: can commit_actions() write what lies between?");
  const KeyWord *now = words(key_.packet), *received = words(input_.key);
  uint64_t differences = 0;
  for (size_t i = kHeaders; i < kHeadersEnd; ++i) differences |= now[i] ^ received[i];
  for (size_t i = kRare; i < kRareEnd; ++i) differences |= now[i] ^ received[i];
  return differences == 0;
}

void Translator::run() {
  init_mask();
  if (enter()) {
    keep_initial_key();
    const TraceScope scope(*this,
                           tracing() ? report(TraceNode::Kind::bridge, "bridge(\"" + bridge_->name + "\")") : nullptr);
    if (thaw() && admit(received_by_)) run_first();
  } else {
    keep_initial_key();
  }
  finish();
}

void Translator::keep_initial_key() {
  if (trace_ == nullptr) return;
  if (output_.keys == nullptr) output_.keys = std::make_unique<TranslateOutput::TraceKeys>();
  output_.keys->initial = key_;
}

// What the packet meets first: the actions it is given, or those that were left to do, or a table.
void Translator::run_first() {
  const FrozenState* const state = output_.thawed ? &output_.thawed->state : nullptr;
  bool in_table = false;
  if (input_.actions != nullptr) {
    run_actions(*input_.actions, true);
  } else if (state != nullptr && !state->table.has_value()) {
    run_frozen_actions(state->actions);
  } else {
    depth_ = resubmits_ = -1;  // the first lookup is not a resubmit
    run_table(state != nullptr ? *state->table : 0, in_port(), true, Runner::plain);
    depth_ = 0;
    in_table = true;
  }
  // The action set ends the pipeline that the first table began, so it is told below that table.
  const TraceScope table_scope(*this, in_table && tracing() && !trace_->empty() ? &trace_->back().children : nullptr);
  end_pipeline();
}

void Translator::end_pipeline() {
  if (!failed_ && !freezing_) run_action_set();
  if (!failed_ && freezing_) finish_freezing();
}

bool Translator::enter() {
  if (input_.key.recirc_id != 0 && input_.contexts != nullptr) {
    output_.thawed = input_.contexts->thaw(input_.key.recirc_id);
  }
  if (input_.bridge != nullptr) {
    bridge_ = input_.bridge;
    key_.packet.in_port = input_.ofport_in;
    received_by_ = bridge_->port(input_.ofport_in);
    from_tunnel_port_ = received_by_ != nullptr && received_by_->tunnel.has_value();
    return true;
  }
  const PortView* port = input_.view.port_of(input_.key.in_port);
  if (port == nullptr && input_.key.in_port == 0 && output_.thawed) {  // from a controller, by no port
    const auto bridge = input_.view.bridges.find(output_.thawed->state.bridge);
    if (bridge != input_.view.bridges.end()) {
      bridge_ = bridge->second.get();
      key_.packet.in_port = kOfPortNone;
      return true;
    }
  }
  if (port == nullptr) {
    fail(DropReason::invalid_port, "no bridge has datapath port " + std::to_string(input_.key.in_port));
    return false;
  }
  received_by_ = port;
  bridge_ = port->bridge;
  key_.packet.in_port = port->ofport;
  from_tunnel_port_ = port->tunnel.has_value();
  if (!output_.thawed) {
    first_bridge_ = bridge_;
    first_port_ = port->ofport;
  }
  return true;
}

bool Translator::admit(const PortView* port) {
  if (input_.key.packet_type) {
    fail(DropReason::unsupported_packet_type, "not an Ethernet packet");
    return false;
  }
  if (port != nullptr && !may_receive(*port)) return false;
  return output_.thawed != nullptr || process_tunnel_ecn();  // once is enough
}

// "No receive" leaves out spanning tree's own messages, for which OpenFlow has a flag of its own.
bool Translator::may_receive(const PortView& port) {
  constexpr uint64_t kSpanningTree = 0x0180c2000000;
  bool refused = port.config.down || port.config.no_receive;
  if (!port.config.down && port.config.no_receive && key_.packet.eth_type == kEthTypeNone) {
    mask_.packet.eth_dst.bytes.fill(0xff);
    refused = key_.packet.eth_dst.to_u64() != kSpanningTree;
  }
  if (!refused) return true;
  warning("port " + port.name + " is configured " + (port.config.down ? "down" : "not to receive") + ", dropping");
  note_drop(port.config.down ? DropReason::port_down : DropReason::port_no_receive);
  return false;
}

// RFC 6040: congestion that the outer header reports is passed on to the inner packet, which must be able to carry it.
bool Translator::process_tunnel_ecn() {
  if (!input_.key.tunnel.has_destination() || !key_.packet.is_ip()) return true;
  if ((input_.key.tunnel.tos & kEcnMask) != kEcnCe) return true;
  if ((key_.packet.nw_tos & kEcnMask) == 0) {
    warning("tunnel packet marked congestion experienced, but the inner packet is not ECN capable, dropping");
    note_drop(DropReason::ecn_mismatch);
    return false;
  }
  key_.packet.nw_tos |= kEcnCe;
  written().packet.nw_tos |= kEcnMask;
  return true;
}

void Translator::init_mask() {
  FlowMask& m = mask_.packet;
  m.in_port = ~0u;
  m.recirc_id = ~0u;
  m.eth_type = ~be16{};
  m.packet_type = ~be32{};
  if (input_.key.is_ip()) m.nw_frag = kFragAny | kFragLater;
  const TunnelMetadata& tunnel = input_.key.tunnel;
  if (!tunnel.has_destination()) return;
  m.tunnel.id = ~be64{};
  if (tunnel.dst) {
    m.tunnel.src = m.tunnel.dst = ~be32{};
  } else {
    m.tunnel.src6.bytes.fill(0xff);
    m.tunnel.dst6.bytes.fill(0xff);
  }
  m.tunnel.flags = kTunnelDontFragment | kTunnelChecksum | kTunnelKey;
  m.tunnel.tos = 0xff;
  if (input_.key.is_ip() && (tunnel.tos & kEcnMask) == kEcnCe) m.nw_tos |= kEcnMask;
}

// Takes out bits that cannot decide anything, because of what else the mask says about the packet.
void Translator::finish_mask() {
  FlowMask& m = mask_.packet;
  const FlowKey& key = input_.key;
  const bool icmp = (key.eth_type == kEthTypeIpv4 && key.nw_proto == kProtoIcmp) ||
                    (key.eth_type == kEthTypeIpv6 && key.nw_proto == kProtoIcmpv6);
  if (icmp && m.nw_proto == 0xff) {  // type and code are 8 bits in 16-bit members
    m.tp_src &= to_be16(0xff);
    m.tp_dst &= to_be16(0xff);
  }
  if (key.is_ip() && (key.nw_frag & kFragLater) != 0) m.tp_src = m.tp_dst = be16{};  // always zero
  finish_vlan_mask();
  if (key.eth_type != kEthTypeMpls && key.eth_type != kEthTypeMplsMcast) m.mpls = {};
  // Only tunnel ports receive packets with tunnel metadata, and in_port is in the mask.
  // What a packet that was recirculated has there comes from its context, that is, from recirc_id.
  if ((!key.tunnel.has_destination() && !from_tunnel_port_) || output_.thawed) {
    m.tunnel = {};
    m.tun_metadata_present = 0;
    m.tun_metadata = {};
  }
}

void Translator::finish_vlan_mask() {
  auto& m = mask_.packet.vlan;
  const auto& tags = input_.key.vlan;
  for (size_t i = 0; i < kMaxVlanTags; ++i) {
    if (!m[i].tci && !m[i].tpid) continue;
    if (tags[i].tci & kVlanCfi) {
      m[i].tci |= kVlanCfi;
      continue;
    }
    m[i] = {be16{}, kVlanCfi};  // absent: that says it all, also about the tags within
    for (size_t inner = i + 1; inner < kMaxVlanTags; ++inner) m[inner] = {};
    return;
  }
}

void Translator::finish() {
  finish_mask();
  output_.mask = mask_.packet;
  if (output_.keys != nullptr) output_.keys->final = key_;
  output_.failed = failed_;
  output_.drop_reason = drop_reason_;
  if (failed_) {
    output_.actions.clear();
  } else if (std::all_of(output_.actions.begin(), output_.actions.end(), is_dropped_copy)) {
    output_.actions.clear();  // no other copy: the packet itself is dropped, for drop_reason_
  } else if (!is_dropped_copy(output_.actions.back())) {
    // Nothing follows a last clone that would need the packet as it was.
    if (const auto* clone = std::get_if<CloneAction>(&output_.actions.back())) {
      const std::shared_ptr<const ActionList> nested = clone->actions;
      output_.actions.pop_back();
      output_.actions.insert(output_.actions.end(), nested->begin(), nested->end());
    }
  }
  if (!input_.way_only) output_.credit = Credit(output_.way);
  if (input_.allow_side_effects && input_.credit_packets != 0) {
    output_.credit.count(input_.credit_packets, input_.credit_bytes, input_.now);
  }
}

void Translator::fail(DropReason reason, std::string text) {
  error(std::move(text));
  failed_ = true;
  drop_reason_ = reason;
}

Version Translator::version_of(const BridgeView& bridge) {
  if (first_version_.first == &bridge) return first_version_.second;
  for (const auto& [known, version] : more_versions_) {
    if (known == &bridge) return version;
  }
  const BridgeVersion now(&bridge, bridge.tables->version());
  if (first_version_.first == nullptr) {
    first_version_ = now;
  } else {
    more_versions_.push_back(now);
  }
  return now.second;
}

const Rule* Translator::lookup_rule(uint8_t table, OfPort in_port) {
  // Rules see fragments without ports (Open vSwitch's default fragment mode, "normal").
  const auto saved_src = key_.packet.tp_src, saved_dst = key_.packet.tp_dst;
  const uint32_t saved_port = std::exchange(key_.packet.in_port, in_port);
  if ((key_.packet.nw_frag & kFragAny) != 0) key_.packet.tp_src = key_.packet.tp_dst = be16{};
  note_rewritten(in_port);
  const Rule* rule = bridge_->tables->lookup(table, key_, version_of(*bridge_), &mask_);
  key_.packet.tp_src = saved_src;
  key_.packet.tp_dst = saved_dst;
  key_.packet.in_port = saved_port;
  count_lookup(table, rule != nullptr);
  return rule;
}

// Of words that actions wrote, whatever came of it: packets of the same megaflow may differ there from this one.
void Translator::note_rewritten(OfPort in_port) {
  constexpr uint8_t kPort = 1 << 0, kVlan = 1 << 3, kL4 = 1 << 5;
  uint8_t rewritten = vlan_restacked_ ? kVlan : 0;
  if (bridge_ != first_bridge_ || in_port != first_port_) rewritten |= kPort;
  if ((key_.packet.nw_frag & kFragAny) != 0) rewritten |= kL4;
  const KeyWord *now = words(key_.packet), *received = words(input_.key);
  const KeyWord* written = written_ ? words(written_->packet) : nullptr;
  uint64_t differences = 0;
  for (size_t i = 1; i < kHotWords; ++i) differences |= now[i] ^ received[i];
  if (differences != 0 || written != nullptr) {  // hardly ever: most rules look at packets as they came
    for (size_t i = 1; i < kHotWords; ++i) {
      const bool differs = now[i] != received[i] || (written != nullptr && written[i] != 0);
      rewritten |= static_cast<uint8_t>(uint8_t{differs} << i);
    }
  }
  output_.rewritten_words |= rewritten;
}

void Translator::count_lookup(uint8_t table, bool matched) {
  auto& lookups = output_.way.lookups;
  auto it = std::find_if(lookups.begin(), lookups.end(),
                         [&](const Way::TableLookups& l) { return l.table == table && l.bridge == bridge_; });
  if (it == lookups.end()) it = lookups.insert(it, {bridge_, table, 0, 0});
  ++(matched ? it->matched : it->missed);
}

bool Translator::within_limits() {
  if (depth_ >= kMaxTranslationDepth) {
    fail(DropReason::recursion_too_deep, "over max translation depth " + std::to_string(kMaxTranslationDepth));
  } else if (resubmits_ >= kMaxResubmits) {
    fail(DropReason::too_many_resubmit, "over " + std::to_string(kMaxResubmits) + " resubmit actions");
  }
  return !failed_;
}

void Translator::run_table(uint8_t table, OfPort in_port, bool is_last, Runner runner) {
  if (!within_limits()) return;
  const Rule* rule = lookup_rule(table, in_port);
  std::vector<TraceNode>* const node = report_table(table, rule);
  const TraceScope scope(*this, node);
  if (rule == nullptr) {
    report(TraceNode::Kind::action, "drop");
    note_drop(DropReason::no_rule);
    return;
  }
  output_.way.rules.push_back(rule);
  const uint8_t old_table = std::exchange(table_, table);
  // Going on to a later table is not a level deeper: tables in order are a chain.
  run_rule(*rule, table <= old_table, is_last, runner);
  table_ = old_table;
}

void Translator::run_rule(const Rule& rule, bool deepens, bool is_last, Runner runner) {
  const Rule* const old_rule = std::exchange(rule_, &rule);
  const uint64_t old_cookie = std::exchange(rule_cookie_, rule.cookie());
  ++resubmits_;
  depth_ += deepens ? 1 : 0;
  if (runner == Runner::clone) {
    run_as_clone(rule.actions(), is_last);
  } else {
    run_actions(rule.actions(), is_last);
  }
  depth_ -= deepens ? 1 : 0;
  rule_cookie_ = old_cookie;
  rule_ = old_rule;
}

}  // namespace vswitch
