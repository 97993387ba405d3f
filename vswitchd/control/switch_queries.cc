// The reading half of Switch: listings, statistics, trace, packets in and out.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <deque>

#include "datapath/actions/execute.h"
#include "datapath/base/rcu.h"
#include "datapath/flow/extract.h"
#include "datapath/flow/flow_mask.h"
#include "vswitchd/control/switch_state.h"

namespace vswitch {
namespace {

// Beyond these a thread counts as stuck. Ageing waits for nobody for long. A round in which a million rules time out is
// long. The parts of a walk through all flows are short, and nothing holds it up.
constexpr Nanoseconds kMaxAgeingRound = std::chrono::seconds(10);
constexpr Nanoseconds kMaxExpiryRound = std::chrono::seconds(60);
constexpr Nanoseconds kMaxUpkeepRound = std::chrono::seconds(10);

bool is_stuck(const std::atomic<int64_t>& busy_since, Nanoseconds now, Nanoseconds at_most) {
  const Nanoseconds since{busy_since.load()};
  return since != Nanoseconds::max() && now - since > at_most;
}

Status no_bridge(const std::string& name) { return not_found(fmt::format("no bridge named \"{}\"", name), "bridge"); }
Status no_port(const std::string& name) { return not_found(fmt::format("no port named \"{}\"", name), "port"); }

// A patch port has no device: it is up, and in error while its peer is not there.
void describe_patch(const Configuration& configuration, const PortConfig& config, const PatchCounters* counters,
                    PortInfo& info) {
  info.state.admin_up = !config.flags.down;
  const std::string& peer_name = config.vport.options.at("peer");
  const auto peer = configuration.ports.find(peer_name);
  if (peer == configuration.ports.end()) {
    info.state.error = fmt::format("peer \"{}\" does not exist", peer_name);
  } else if (peer->second.vport.type != "patch" || peer->second.vport.options.at("peer") != config.name()) {
    info.state.error = fmt::format("peer \"{}\" does not have this port as its peer", peer_name);
  }
  info.state.carrier = info.state.error.empty();
  info.state.status["peer"] = peer_name;
  if (counters == nullptr) return;
  info.stats.rx_packets = counters->rx_packets.load(std::memory_order_relaxed);
  info.stats.rx_bytes = counters->rx_bytes.load(std::memory_order_relaxed);
  info.stats.tx_packets = counters->tx_packets.load(std::memory_order_relaxed);
  info.stats.tx_bytes = counters->tx_bytes.load(std::memory_order_relaxed);
}

}  // namespace

// ---------------------------------------------------------------- bridges, ports, settings

std::shared_ptr<const Configuration> Switch::Implementation::configuration() const {
  MutexLock lock(mutex_);
  return configuration_;
}

Result<BridgeRuntime> Switch::Implementation::runtime_of(const std::string& bridge) const {
  MutexLock lock(mutex_);
  const auto it = bridges_.find(bridge);
  if (it == bridges_.end()) return no_bridge(bridge);
  return it->second;
}

std::vector<std::pair<std::string, BridgeRuntime>> Switch::Implementation::runtimes() const {
  MutexLock lock(mutex_);
  return {bridges_.begin(), bridges_.end()};
}

std::shared_ptr<const PatchCounters> Switch::Implementation::patch_counters_of(const std::string& port) const {
  MutexLock lock(mutex_);
  const auto it = patch_counters_.find(port);
  return it == patch_counters_.end() ? nullptr : it->second;
}

Settings Switch::settings() const { return impl_->configuration()->settings; }

std::vector<BridgeInfo> Switch::bridges() const {
  std::vector<BridgeInfo> bridges;
  MutexLock lock(impl_->mutex_);
  for (const auto& [name, config] : impl_->configuration_->bridges) {
    bridges.push_back({config, config.mac, config.mac.to_u64(), impl_->bridges_.at(name).tables->rule_count()});
  }
  return bridges;
}

Result<BridgeInfo> Switch::bridge(const std::string& name) const {
  for (BridgeInfo& info : bridges()) {
    if (info.config.name == name) return std::move(info);
  }
  return no_bridge(name);
}

PortInfo Switch::Implementation::port_info(const Configuration& configuration, const PortConfig& config) const {
  PortInfo info;
  info.config = config;
  info.ofport = configuration.ofports.at(config.name());
  info.is_local = config.name() == config.bridge;
  const auto dp_port = configuration.dp_ports.find(config.name());
  if (dp_port == configuration.dp_ports.end()) {
    describe_patch(configuration, config, patch_counters_of(config.name()).get(), info);
    return info;
  }
  info.dp_port = dp_port->second;
  if (std::optional<VportState> state = datapath_->port_state(info.dp_port)) info.state = std::move(*state);
  if (std::optional<VportStats> stats = datapath_->port_stats(info.dp_port)) info.stats = *stats;
  return info;
}

// Only patch ports count through flows; what other ports know does not wait for a walk over all flows.
void Switch::Implementation::push_patch_statistics() const {
  {
    MutexLock lock(mutex_);
    if (patch_counters_.empty()) return;
  }
  revalidator_->push_statistics(Revalidator::Urgency::background);
}

std::vector<PortInfo> Switch::ports(const std::string& bridge) const {
  impl_->push_patch_statistics();
  const std::shared_ptr<const Configuration> configuration = impl_->configuration();
  std::vector<PortInfo> ports;
  for (const auto& [name, config] : configuration->ports) {
    if (bridge.empty() || config.bridge == bridge) ports.push_back(impl_->port_info(*configuration, config));
  }
  return ports;
}

Result<PortInfo> Switch::port(const std::string& name) const {
  impl_->push_patch_statistics();
  const std::shared_ptr<const Configuration> configuration = impl_->configuration();
  const auto it = configuration->ports.find(name);
  if (it == configuration->ports.end()) return no_port(name);
  return impl_->port_info(*configuration, it->second);
}

Result<PortConfig> Switch::port_config(const std::string& name) const {
  const std::shared_ptr<const Configuration> configuration = impl_->configuration();
  const auto it = configuration->ports.find(name);
  if (it == configuration->ports.end()) return no_port(name);
  return it->second;
}

std::vector<std::pair<std::string, OfPort>> Switch::port_numbers(const std::string& bridge) const {
  const std::shared_ptr<const Configuration> configuration = impl_->configuration();
  std::vector<std::pair<std::string, OfPort>> numbers;
  for (const auto& [name, config] : configuration->ports) {
    if (config.bridge == bridge) numbers.emplace_back(name, configuration->ofports.at(name));
  }
  return numbers;
}

Result<OfPort> Switch::resolve_port(const std::string& bridge, const std::string& name) const {
  const std::shared_ptr<const Configuration> configuration = impl_->configuration();
  if (!configuration->bridges.contains(bridge)) return no_bridge(bridge);
  const auto it = configuration->ports.find(name);
  if (it == configuration->ports.end()) return no_port(name);
  if (it->second.bridge != bridge) {
    return not_found(
        fmt::format("port \"{}\" belongs to bridge \"{}\", not to \"{}\"", name, it->second.bridge, bridge), "port");
  }
  return configuration->ofports.at(name);
}

std::optional<std::string> Switch::dp_port_name(uint32_t dp_port) const {
  rcu::ReaderScope reader;
  const PortView* port = impl_->views_.get().port_of(dp_port);
  if (port == nullptr) return std::nullopt;
  return port->name;
}

// ---------------------------------------------------------------- rules

RuleInfo Switch::Implementation::rule_info(const Rule& rule) const {
  const Nanoseconds now = clock_.now();
  RuleInfo info;
  info.id = rule.id();
  info.spec = rule.spec();
  info.stats = rule.stats();
  info.duration = now - rule.created();
  info.idle = now - info.stats.used;
  info.hard_age = now - rule.modified();
  return info;
}

Status Switch::visit_rules(const std::string& bridge, const RuleFilter& filter,
                           const std::function<bool(const RuleInfo&)>& visit) const {
  const Result<BridgeRuntime> runtime = impl_->runtime_of(bridge);
  if (!runtime.ok()) return runtime.status();
  impl_->revalidator_->push_statistics(Revalidator::Urgency::background);
  // References, not copies: `visit` may take its time (a slow client) without holding up reclamation.
  std::vector<RuleRef> rules;
  {
    rcu::ReaderScope reader;
    runtime->tables->for_each(filter, [&](const Rule& rule) {
      rules.emplace_back(&rule);
      return true;
    });
  }
  for (const RuleRef& rule : rules) {
    if (!visit(impl_->rule_info(*rule))) break;
  }
  return {};
}

Result<Switch::Aggregate> Switch::aggregate(const std::string& bridge, const RuleFilter& filter) const {
  const Result<BridgeRuntime> runtime = impl_->runtime_of(bridge);
  if (!runtime.ok()) return runtime.status();
  impl_->revalidator_->push_statistics(Revalidator::Urgency::background);
  Aggregate sum;
  rcu::ReaderScope reader;
  runtime->tables->for_each(filter, [&](const Rule& rule) {
    const RuleStats stats = rule.stats();
    sum.packets += stats.packets;
    sum.bytes += stats.bytes;
    ++sum.rules;
    return true;
  });
  return sum;
}

Result<std::array<TableStats, kTableCount>> Switch::table_stats(const std::string& bridge) const {
  const Result<BridgeRuntime> runtime = impl_->runtime_of(bridge);
  if (!runtime.ok()) return runtime.status();
  impl_->revalidator_->push_statistics(Revalidator::Urgency::background);
  return runtime->tables->table_stats();
}

// ---------------------------------------------------------------- learned addresses

Result<std::vector<MacEntry>> Switch::mac_entries(const std::string& bridge) const {
  impl_->revalidator_->push_statistics(Revalidator::Urgency::background);  // refreshes addresses with traffic
  const Result<BridgeRuntime> runtime = impl_->runtime_of(bridge);
  if (!runtime.ok()) return runtime.status();
  return runtime->macs->entries();
}

Status Switch::add_static_mac(const std::string& bridge, uint16_t vlan, const MacAddress& mac,
                              const std::string& port) {
  {
    // A change that is being carried out may yet forget the port's addresses.
    MutexLock lock(impl_->changes_mutex_);
    const Result<OfPort> ofport = resolve_port(bridge, port);
    if (!ofport.ok()) return ofport.status();
    const Result<BridgeRuntime> runtime = impl_->runtime_of(bridge);
    if (!runtime.ok()) return runtime.status();
    VSWITCH_RETURN_IF_ERROR(runtime->macs->add_static(vlan, mac, *ofport));
  }
  impl_->revalidator_->revalidate_addresses(Revalidator::Urgency::awaited);
  return {};
}

Status Switch::remove_mac(const std::string& bridge, uint16_t vlan, const MacAddress& mac) {
  const Result<BridgeRuntime> runtime = impl_->runtime_of(bridge);
  if (!runtime.ok()) return runtime.status();
  if (!runtime->macs->remove(vlan, mac)) {
    return not_found(fmt::format("bridge \"{}\" has no entry for {} in VLAN {}", bridge, mac.to_string(), vlan), "mac");
  }
  impl_->revalidator_->revalidate_addresses(Revalidator::Urgency::awaited);
  return {};
}

Status Switch::flush_macs(const std::string& bridge) {
  const Result<BridgeRuntime> runtime = impl_->runtime_of(bridge);
  if (!runtime.ok()) return runtime.status();
  runtime->macs->flush();
  impl_->revalidator_->revalidate_addresses(Revalidator::Urgency::awaited);
  return {};
}

// ---------------------------------------------------------------- trace

namespace {

// The datapath key that a trace starts from: the flow as given, with the packet's headers where a packet was given.
Status trace_key(const TraceRequest& request, FlowKey& key) {
  key = request.key.packet;
  // What comes in from a tunnel always has its key: a person need not say so.
  if (key.tunnel.has_destination()) key.tunnel.flags |= kTunnelKey;
  if (request.packet.empty()) return {};
  HeapPacketPool pool(HeapPacketPool::kSuperFrameBuffer, 1);
  PacketPtr packet = pool.allocate();
  if (request.packet.size() > packet->tailroom()) {
    return invalid_argument(fmt::format("a packet of {} bytes is too large", request.packet.size()), "packet");
  }
  packet->set_size(request.packet.size());
  std::copy(request.packet.begin(), request.packet.end(), packet->data());
  packet->in_port = key.in_port;
  packet->skb_mark = key.skb_mark;
  packet->skb_priority = key.skb_priority;
  packet->has_tunnel = key.tunnel.has_destination();
  if (packet->has_tunnel) packet->tunnel = key.tunnel;
  if (!extract_flow_key(*packet, key)) {
    return invalid_argument(fmt::format("a packet of {} bytes has no Ethernet header", request.packet.size()),
                            "packet");
  }
  return {};
}

// A packet may come from no port of the bridge only if it says so: from the controller, or from nowhere.
Status check_no_port(const std::string& bridge, OfPort in_port) {
  if (in_port == kOfPortController || in_port == kOfPortNone) return {};
  if (in_port > 0 && in_port < kOfPortMax) {
    return not_found(fmt::format("in_port={}: bridge \"{}\" has no such port", in_port, bridge), "in_port");
  }
  return invalid_argument(
      fmt::format("in_port={}: a packet comes from a port of the bridge, LOCAL, CONTROLLER or NONE", in_port),
      "in_port");
}

TraceSection trace_section(const TranslateInput& input, std::vector<TraceNode> nodes, TranslateOutput output) {
  TraceSection section;
  section.bridge = output.thawed ? output.thawed->state.bridge : input.bridge->name;
  section.flow = output.keys->initial;
  section.nodes = std::move(nodes);
  section.final_flow = output.keys->final;
  section.megaflow_mask = output.mask;
  section.megaflow_key = masked(input.key, output.mask);
  if (output.actions.empty()) section.drop_reason = std::string(drop_reason_name(output.drop_reason));
  section.actions = std::move(output.actions);
  section.recirc_id = input.key.recirc_id;
  return section;
}

std::map<std::string, FlowNames, std::less<>> names_of(const SwitchView& view) {
  std::map<std::string, FlowNames, std::less<>> all;
  for (const auto& [name, bridge] : view.bridges) {
    FlowNames& names = all[name];
    for (const auto& port : bridge->ports) names.add_port(port->ofport, port->name);
  }
  return all;
}

// Follows a packet through the rules, and through the datapath as often as it recirculates.
class Tracer {
 public:
  // Sections of one trace: a packet may be copied and recirculated at every step.
  static constexpr size_t kMaxSections = 128;
  // Of nodes in all sections: the reply has them twice, as a tree and as text, and gRPC clients take 4 MB.
  static constexpr size_t kMaxBytes = 1 << 20;

  Tracer(const SwitchView& view, const BridgeView& bridge, Contexts& contexts, bool names)
      : view_(view), bridge_(bridge), contexts_(contexts) {
    if (names) result_.names = names_of(view);
  }

  TraceResult run(const FlowKey& key, OfPort ofport, bool allow_side_effects, Nanoseconds now) {
    passes_.push_back({key, nullptr, 0});
    for (; !passes_.empty(); passes_.pop_front()) pass(passes_.front(), ofport, allow_side_effects, now);
    result_.controller_requests = contexts_.requests();
    return std::move(result_);
  }

 private:
  struct Pass {
    FlowKey key;
    RecircRef context;  // keeps the state alive until its turn
    int depth;          // recirculations so far
  };

  void pass(const Pass& pass, OfPort ofport, bool allow_side_effects, Nanoseconds now) {
    std::vector<TraceNode> nodes;
    TranslateInput input{.view = view_, .key = pass.key};
    input.bridge = &bridge_;
    input.ofport_in = ofport;
    input.allow_side_effects = allow_side_effects;
    input.now = now;
    input.trace = &nodes;
    input.max_trace_bytes = kMaxBytes - std::min(bytes_, kMaxBytes);
    input.contexts = &contexts_;
    input.names = [this](const BridgeView& bridge) -> const FlowNames* {
      const auto it = result_.names.find(bridge.name);
      return it == result_.names.end() ? nullptr : &it->second;
    };
    TranslateOutput output = translate(input);
    bytes_ += output.trace_bytes;
    follow(output.recirculations, pass.depth, nodes);
    output.recirculations.clear();
    result_.sections.push_back(trace_section(input, std::move(nodes), std::move(output)));
  }

  void follow(std::vector<Recirculation>& recirculations, int depth, std::vector<TraceNode>& nodes) {
    for (Recirculation& r : recirculations) {
      const std::string what = fmt::format("recirc({:#x}) is not followed: ", r.context->id);
      if (depth >= kMaxRecirculations) {
        note(nodes, what + fmt::format("over {} recirculations, the datapath drops the packet", kMaxRecirculations));
      } else if (result_.sections.size() + passes_.size() >= kMaxSections) {
        note(nodes, what + fmt::format("over {} sections in one trace", kMaxSections));
      } else {
        passes_.push_back({r.key, std::move(r.context), depth + 1});
      }
    }
  }

  static void note(std::vector<TraceNode>& nodes, std::string text) {
    TraceNode& node = nodes.emplace_back();
    node.kind = TraceNode::Kind::error;
    node.text = std::move(text);
  }

  const SwitchView& view_;
  const BridgeView& bridge_;
  TraceContexts contexts_;  // outlives what refers to its states
  TraceResult result_;
  std::deque<Pass> passes_;
  size_t bytes_ = 0;
};

}  // namespace

Result<TraceResult> Switch::trace(const TraceRequest& request) {
  FlowKey key;
  VSWITCH_RETURN_IF_ERROR(trace_key(request, key));
  rcu::ReaderScope reader;
  const SwitchView& view = impl_->views_.get();
  const auto bridge = view.bridges.find(request.bridge);
  if (bridge == view.bridges.end()) return no_bridge(request.bridge);
  const auto ofport = static_cast<OfPort>(request.key.packet.in_port);
  const PortView* port = bridge->second->port(ofport);
  if (port == nullptr) VSWITCH_RETURN_IF_ERROR(check_no_port(request.bridge, ofport));
  key.in_port = port != nullptr ? port->dp_port : 0;

  Tracer tracer(view, *bridge->second, impl_->slow_path_->contexts(), request.names);
  TraceResult result = tracer.run(key, ofport, request.allow_side_effects, impl_->clock_.now());
  if (request.allow_side_effects) impl_->slow_path_->addresses_learned();
  return result;
}

std::shared_ptr<const ControllerRequest> Switch::controller_request(uint64_t cookie) const {
  return impl_->slow_path_->contexts().requests.find(cookie);
}

// ---------------------------------------------------------------- packets

Status Switch::packet_out(const PacketOut& request) {
  FlowKey key;
  key.in_port = 0;
  TraceRequest as_trace;
  as_trace.packet = request.packet;
  if (request.packet.empty()) return invalid_argument("packet-out needs a packet", "packet");
  VSWITCH_RETURN_IF_ERROR(trace_key(as_trace, key));
  ActionList actions;
  std::vector<Recirculation> recirculations;  // kept until the packet has been on its way
  {
    rcu::ReaderScope reader;
    const SwitchView& view = impl_->views_.get();
    const auto bridge = view.bridges.find(request.bridge);
    if (bridge == view.bridges.end()) return no_bridge(request.bridge);
    const PortView* port = bridge->second->port(request.in_port);
    if (port == nullptr) VSWITCH_RETURN_IF_ERROR(check_no_port(request.bridge, request.in_port));
    key.in_port = port != nullptr ? port->dp_port : 0;
    TranslateInput input{.view = view, .key = key};
    input.actions = &request.actions;
    input.bridge = bridge->second.get();
    input.ofport_in = request.in_port;
    input.credit_packets = 1;
    input.credit_bytes = request.packet.size();
    input.now = impl_->clock_.now();
    input.contexts = &impl_->slow_path_->contexts();
    TranslateOutput output = translate(input);
    if (output.addresses_changed) impl_->slow_path_->addresses_learned();
    recirculations = std::move(output.recirculations);
    actions = std::move(output.actions);
    if (actions.empty()) actions.push_back(DropAction{output.drop_reason});
  }
  return impl_->datapath_->execute(request.packet, key, actions);
}

std::shared_ptr<void> Switch::subscribe_packet_in(const std::string& bridge,
                                                  std::function<bool(const PacketIn&)> callback) {
  return impl_->slow_path_->packet_ins().subscribe(
      [bridge, callback = std::move(callback)](const PacketIn& packet_in, SlowPath::Delivery& delivery) {
        if (!bridge.empty() && packet_in.bridge != bridge) return;
        ++delivery.listeners;
        if (callback(packet_in)) delivery.taken = true;
      });
}

std::shared_ptr<void> Switch::watch(std::function<void(const ChangeEvent&)> callback) {
  return impl_->watchers_.subscribe(std::move(callback));
}

// ---------------------------------------------------------------- datapath

DatapathCounters Switch::datapath_counters() const {
  const DatapathStats stats = impl_->datapath_->stats();
  DatapathCounters counters;
  counters.hits = stats.hits;
  counters.cache_hits = stats.cache_hits;
  counters.misses = stats.misses;
  counters.lost = stats.lost;
  counters.masks_visited = stats.masks_visited;
  counters.flows = stats.flows;
  counters.masks = stats.masks;
  counters.narrowed = stats.narrowed;
  counters.evictions = impl_->revalidator_->evictions();
  counters.cache_evictions = stats.cache_evictions;
  counters.kernel_path = stats.kernel_path;
  return counters;
}

// In parts: what a caller does with the flows (it may write them to a slow client) keeps nobody from forwarding or from
// changing them.
void Switch::visit_datapath_flows(const std::function<bool(const DatapathFlow&)>& visit) const {
  constexpr size_t kPart = 1024;
  std::vector<DatapathFlow> flows;
  FlowCursor cursor;
  for (bool more = true; more;) {
    const Nanoseconds now = impl_->clock_.now();
    flows.clear();
    const auto collect = [&](Flow& flow) {
      const FlowStats stats = flow.stats();
      const Nanoseconds idle = stats.used == Nanoseconds{} ? Nanoseconds{-1} : now - stats.used;
      flows.push_back({flow.ufid(), flow.key(), flow.mask(), flow.actions(), stats, now - flow.created(), idle,
                       flow.in_kernel_path()});
    };
    more = impl_->datapath_->visit_flows(cursor, kPart, collect, {});
    for (const DatapathFlow& flow : flows) {
      if (!visit(flow)) return;
    }
  }
}

size_t Switch::delete_datapath_flows() { return impl_->revalidator_->remove_all(); }

std::vector<FlowTable::MaskInfo> Switch::datapath_masks() const { return impl_->datapath_->masks(); }

std::vector<DropCount> Switch::drops() const {
  std::vector<DropCount> drops;
  for (uint32_t dp_port = 0; dp_port < kMaxPorts; ++dp_port) {
    const BooksSum books = impl_->datapath_->books(dp_port);
    for (size_t r = 0; r < kDropReasonCount; ++r) {
      if (books.dropped[r] == 0) continue;
      drops.push_back({dp_port, dp_port_name(dp_port).value_or(""), static_cast<DropReason>(r), books.dropped[r]});
    }
  }
  return drops;
}

std::vector<PortBalance> Switch::balances() const {
  std::vector<PortBalance> balances;
  for (uint32_t dp_port = 0; dp_port < kMaxPorts; ++dp_port) {
    const BooksSum b = impl_->datapath_->books(dp_port);
    if (b.received + b.injected + b.copies + b.dropped_total() == 0) continue;
    balances.push_back({dp_port, dp_port_name(dp_port).value_or(""), b.received, b.injected, b.copies, b.sent,
                        b.consumed, b.dropped_total(), b.queued});
  }
  return balances;
}

Result<size_t> Switch::receive_on_dummy(const std::string& port, std::span<const std::vector<uint8_t>> frames) {
  const std::shared_ptr<const Configuration> configuration = impl_->configuration();
  if (!configuration->ports.contains(port)) return no_port(port);
  const auto dp_port = configuration->dp_ports.find(port);
  if (dp_port == configuration->dp_ports.end()) {
    return failed_precondition(
        fmt::format("port \"{}\" is of type patch; frames can be injected into ports of type dummy only", port),
        "port");
  }
  VSWITCH_RETURN_IF_ERROR(impl_->datapath_->inject(dp_port->second, frames));
  return frames.size();
}

bool Switch::healthy() const {
  const Nanoseconds now = impl_->clock_.now();
  if (is_stuck(impl_->ageing_.busy_since, now, kMaxAgeingRound)) return false;
  if (is_stuck(impl_->expiry_.busy_since, now, kMaxExpiryRound)) return false;
  const Nanoseconds upkeep_since{impl_->upkeep_busy_since_.load()};
  if (upkeep_since != Nanoseconds::max() &&
      now - std::max(upkeep_since, impl_->revalidator_->last_progress()) > kMaxUpkeepRound) {
    return false;
  }
  return impl_->datapath_->healthy();
}

}  // namespace vswitch
