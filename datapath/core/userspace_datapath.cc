#include "datapath/core/userspace_datapath.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "datapath/base/rcu.h"
#include "datapath/base/thread_name.h"
#include "datapath/flow/extract.h"
#include "datapath/vport/vport_dummy.h"
#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

// Slot 0 of the per-thread statistics is the handler's, the last the kernel path's, the others are the forwarding
// threads'.
constexpr size_t kHandlerIndex = 0;
constexpr size_t kMaxForwardingThreads = kMaxThreads - 2;
static_assert(kKernelPathIndex > kMaxForwardingThreads);
constexpr auto kRerankInterval = 1s;

std::string joined_type_names() {
  std::string names;
  for (const VportType& type : vport_types()) names += (names.empty() ? "" : ", ") + std::string(type.name);
  return names;
}

Status unknown_type(const VportConfig& config) {
  return invalid_argument(
      fmt::format("port \"{}\": unknown type \"{}\"; known types: {}", config.name, config.type, joined_type_names()),
      "type");
}

}  // namespace

uint64_t BooksSum::dropped_total() const {
  uint64_t total = 0;
  for (const uint64_t n : dropped) total += n;
  return total;
}

bool BooksSum::balanced() const { return received + injected + copies == sent + consumed + queued + dropped_total(); }

Result<std::unique_ptr<UserspaceDatapath>> UserspaceDatapath::create(const UserspaceDatapathOptions& options,
                                                                     const Clock& clock) {
  Result<std::unique_ptr<LinkMonitor>> links = make_link_monitor();
  if (!links.ok()) return links.status();
  return std::make_unique<UserspaceDatapath>(options, clock, std::move(*links));
}

UserspaceDatapath::UserspaceDatapath(const UserspaceDatapathOptions& options, const Clock& clock,
                                     std::unique_ptr<LinkMonitor> links)
    : clock_(clock),
      links_(std::move(links)),
      tunnels_(make_tunnel_endpoints()),
      port_map_(std::make_unique<PortMap>()),
      lookup_(options.lookup),
      flows_(clock, options.max_flows, options.lookup.max_masks) {
  for (std::unique_ptr<Ledger>& ledger : ledgers_) ledger = std::make_unique<Ledger>();
  kernel_ = std::make_unique<KernelConnections>(flows_, *port_map_, ledger(kKernelPathIndex), clock_);
  environment_.reset(new VportEnvironment{*this, *links_, *tunnels_, clock_, &kernel_->path()});
  handler_ = std::make_unique<HandlerThread>(kHandlerIndex, ledger(kHandlerIndex), setup_, *port_map_, clock_, lookup_);
  maintenance_ = std::thread([this] { maintain(); });
  const Status status =
      set_forwarding_threads(std::clamp<size_t>(options.forwarding_threads, 1, kMaxForwardingThreads));
  assert(status.ok());
}

UserspaceDatapath::~UserspaceDatapath() {
  {
    MutexLock lock(maintenance_mutex_);
    stopping_ = true;
    observer_ = nullptr;
    maintenance_wakeup_.notify_all();
  }
  maintenance_.join();
  kernel_->set_enabled(false);
  MutexLock lock(mutex_);
  handler_->set_queues({});
  for (const std::unique_ptr<ForwardingThread>& thread : threads_) kernel_->remove_sampler(thread->sampler());
  threads_.clear();
  handler_.reset();
  for (auto& [port_no, attached] : ports_) port_map_->set(port_no, nullptr);
  ports_.clear();
  rcu::barrier();
}

// ---------------------------------------------------------------- ports

Result<uint32_t> UserspaceDatapath::choose_port_no(uint32_t wanted) const {
  if (wanted != 0) {
    if (wanted >= kMaxPorts)
      return invalid_argument(fmt::format("datapath port number {} is not below {}", wanted, kMaxPorts));
    if (ports_.contains(wanted)) return already_exists(fmt::format("datapath port number {} is taken", wanted));
    return wanted;
  }
  for (uint32_t port_no = 1; port_no < kMaxPorts; ++port_no) {
    if (!ports_.contains(port_no)) return port_no;
  }
  return resource_exhausted(fmt::format("all {} datapath port numbers are taken", kMaxPorts - 1));
}

Status UserspaceDatapath::attach(uint32_t port_no, const VportConfig& config, bool must_work) {
  const VportType* type = find_vport_type(config.type);
  if (type == nullptr) return unknown_type(config);
  VSWITCH_RETURN_IF_ERROR(type->validate(config));
  Result<std::unique_ptr<Vport>> port = type->create(config, port_no, *environment_, must_work);
  if (!port.ok()) return port.status();
  Vport* raw = port->get();
  AttachedPort& attached = ports_[port_no] = AttachedPort{std::move(*port), config, type};
  attached.held = hold_;
  port_map_->set(port_no, raw);
  if (hold_) return {};
  raw->start_receiving();
  distribute_sources();
  return {};
}

// In the place of a port that was administratively up or down: the new one is too.
Status UserspaceDatapath::attach_again(uint32_t port_no, const VportConfig& config, bool must_work, bool admin_up) {
  VSWITCH_RETURN_IF_ERROR(attach(port_no, config, must_work));
  if (admin_up) return {};
  AttachedPort& attached = ports_.at(port_no);
  attached.admin_up = false;
  return attached.port->set_admin_up(false);
}

Result<uint32_t> UserspaceDatapath::add_port(const VportConfig& config, uint32_t port_no, bool must_work) {
  MutexLock lock(mutex_);
  Result<uint32_t> chosen = choose_port_no(port_no);
  if (!chosen.ok()) return chosen;
  VSWITCH_RETURN_IF_ERROR(attach(*chosen, config, must_work));
  return chosen;
}

Status UserspaceDatapath::check_port(uint32_t port_no, const VportConfig& config) {
  const VportType* type = find_vport_type(config.type);
  if (type == nullptr) return unknown_type(config);
  VSWITCH_RETURN_IF_ERROR(type->validate(config));
  if (type->check == nullptr) return {};
  MutexLock lock(mutex_);
  const auto it = ports_.find(port_no);
  return type->check(config, it == ports_.end() ? nullptr : &it->second.config, *environment_);
}

void UserspaceDatapath::hold_new_ports() {
  MutexLock lock(mutex_);
  hold_ = true;
}

void UserspaceDatapath::release_new_ports() {
  MutexLock lock(mutex_);
  hold_ = false;
  bool any = false;
  for (auto& [port_no, attached] : ports_) {
    if (!std::exchange(attached.held, false)) continue;
    attached.port->start_receiving();
    any = true;
  }
  if (any) distribute_sources();
}

// Takes the port out of every packet thread's sight; returns when none can be using it.
std::unique_ptr<Vport> UserspaceDatapath::detach(uint32_t port_no) {
  kernel_->port_goes(port_no);
  auto it = ports_.find(port_no);
  std::unique_ptr<Vport> port = std::move(it->second.port);
  ports_.erase(it);
  port_map_->set(port_no, nullptr);
  distribute_sources();
  rcu::synchronize();
  kernel_->port_goes(port_no);  // what was taken in meanwhile, too: now nobody finds the port any more
  return port;
}

Status UserspaceDatapath::remove_port(uint32_t port_no, bool forget) {
  MutexLock lock(mutex_);
  auto it = ports_.find(port_no);
  if (it == ports_.end()) return not_found(fmt::format("no datapath port {}", port_no));
  const VportConfig config = it->second.config;
  const VportType* type = it->second.type;
  detach(port_no).reset();
  if (forget && type->forget != nullptr) type->forget(config, *environment_);
  return {};
}

void UserspaceDatapath::forget_port(const VportConfig& config) {
  const VportType* type = find_vport_type(config.type);
  if (type != nullptr && type->forget != nullptr) type->forget(config, *environment_);
}

Status UserspaceDatapath::reconfigure_port(uint32_t port_no, const VportConfig& config) {
  MutexLock lock(mutex_);
  auto it = ports_.find(port_no);
  if (it == ports_.end()) return not_found(fmt::format("no datapath port {}", port_no));
  VSWITCH_RETURN_IF_ERROR(it->second.type->validate(config));
  const Status in_place = it->second.port->reconfigure(config);
  if (in_place.ok()) {
    it->second.config = config;
    distribute_sources();
    return {};
  }
  if (in_place.code() != StatusCode::unimplemented) return in_place;
  // Made again; if the new one does not come up, the old one is put back.
  const VportConfig old_config = it->second.config;
  const bool admin_up = it->second.admin_up;
  detach(port_no).reset();
  const Status status = attach_again(port_no, config, true, admin_up);
  if (status.ok()) return {};
  if (ports_.contains(port_no)) detach(port_no).reset();
  const Status restored = attach_again(port_no, old_config, false, admin_up);
  return restored.ok()
             ? status
             : internal_error(status.message() + "; and the old port did not come back: " + restored.message());
}

Status UserspaceDatapath::set_port_admin_up(uint32_t port_no, bool up) {
  MutexLock lock(mutex_);
  auto it = ports_.find(port_no);
  if (it == ports_.end()) return not_found(fmt::format("no datapath port {}", port_no));
  VSWITCH_RETURN_IF_ERROR(it->second.port->set_admin_up(up));
  it->second.admin_up = up;
  return {};
}

std::optional<VportState> UserspaceDatapath::port_state(uint32_t port_no) const {
  MutexLock lock(mutex_);
  auto it = ports_.find(port_no);
  if (it == ports_.end()) return std::nullopt;
  return it->second.port->state();
}

std::optional<VportStats> UserspaceDatapath::port_stats(uint32_t port_no) const {
  MutexLock lock(mutex_);
  auto it = ports_.find(port_no);
  if (it == ports_.end()) return std::nullopt;
  kernel_->collect(port_no);
  return it->second.port->stats();
}

Status UserspaceDatapath::inject(uint32_t port_no, std::span<const std::vector<uint8_t>> frames) {
  MutexLock lock(mutex_);
  auto it = ports_.find(port_no);
  if (it == ports_.end()) return not_found(fmt::format("no datapath port {}", port_no));
  auto* dummy = dynamic_cast<DummyVport*>(it->second.port.get());
  if (dummy == nullptr) {
    return failed_precondition(
        fmt::format("port \"{}\" is of type {}; frames can be injected into ports of type dummy only",
                    it->second.port->name(), it->second.port->type()));
  }
  return dummy->inject(frames);
}

void UserspaceDatapath::observe_ports(PortObserver observer) {
  MutexLock lock(maintenance_mutex_);
  observer_ = std::move(observer);
}

// ---------------------------------------------------------------- receive sources

// Gives every source to one thread. A source stays where it is unless its thread is gone or has more than its share;
// others go to the thread with the fewest. A source that moves leaves its old thread before the new one gets it.
void UserspaceDatapath::distribute_sources(bool renew) {
  MutexLock lock(sources_mutex_);
  SourceList wanted;
  std::set<const RxSource*> seen;
  for (auto& [port_no, attached] : ports_) {
    if (attached.held) continue;
    for (std::shared_ptr<RxSource>& source : attached.port->sources()) {
      if (seen.insert(source.get()).second) wanted.push_back(std::move(source));
    }
  }
  std::unordered_map<const RxSource*, size_t> home;
  for (size_t t = 0; t < threads_.size(); ++t) {
    for (const std::shared_ptr<RxSource>& source : threads_[t]->sources()) home[source.get()] = t;
  }
  std::vector<SourceList> lists(threads_.size());
  const size_t share = (wanted.size() + threads_.size() - 1) / threads_.size();
  SourceList homeless;
  bool moving = false;
  for (std::shared_ptr<RxSource>& source : wanted) {
    auto it = home.find(source.get());
    if (it != home.end() && lists[it->second].size() < share) {
      lists[it->second].push_back(std::move(source));
    } else {
      moving = moving || it != home.end();
      homeless.push_back(std::move(source));
    }
  }
  if (moving) {
    hand_out(lists, renew);
    rcu::synchronize();
  }
  for (std::shared_ptr<RxSource>& source : homeless) {
    auto fewest = std::min_element(lists.begin(), lists.end(),
                                   [](const SourceList& a, const SourceList& b) { return a.size() < b.size(); });
    fewest->push_back(std::move(source));
  }
  hand_out(lists, renew);
}

void UserspaceDatapath::hand_out(const std::vector<SourceList>& lists, bool renew) {
  for (size_t t = 0; t < lists.size(); ++t) threads_[t]->set_sources(lists[t], renew);
}

void UserspaceDatapath::sources_changed(Vport&) {
  MutexLock lock(maintenance_mutex_);
  sources_dirty_ = true;
  maintenance_wakeup_.notify_one();
}

void UserspaceDatapath::state_changed(Vport& port) {
  MutexLock lock(maintenance_mutex_);
  changed_ports_.insert(port.port_no());
  maintenance_wakeup_.notify_one();
}

void UserspaceDatapath::maintain() {
  name_this_thread("maintenance");
  setup_.prepare();
  Nanoseconds last_rerank = clock_.now();
  for (;;) {
    bool redistribute = false;
    std::set<uint32_t> changed;
    PortObserver observer;
    {
      MutexLock lock(maintenance_mutex_);
      if (!stopping_ && !sources_dirty_ && changed_ports_.empty()) {
        maintenance_wakeup_.wait_for(maintenance_mutex_, kRerankInterval);
      }
      if (stopping_) return;
      redistribute = std::exchange(sources_dirty_, false);
      changed.swap(changed_ports_);
      observer = observer_;
    }
    if (redistribute) {
      MutexLock lock(mutex_);
      distribute_sources(true);
    }
    if (const Nanoseconds now = clock_.now(); now - last_rerank >= kRerankInterval) {
      last_rerank = now;
      flows_.rerank();
      setup_.prepare();
    }
    if (!observer) continue;
    for (const uint32_t port_no : changed) observer(port_no);
  }
}

// ---------------------------------------------------------------- flows

Result<Ufid> UserspaceDatapath::put_flow(NewFlow flow) {
  rcu::ReaderScope reader;
  const Result<Flow*> inserted = flows_.insert(flow.key, flow.mask, std::move(flow.actions), {},
                                               std::move(flow.installer_data), flow.installer_bits);
  if (!inserted.ok()) return inserted.status();
  return (*inserted)->ufid();
}

bool UserspaceDatapath::set_flow_actions(const Ufid& ufid, ActionList actions) {
  const rcu::ReaderScope reader;
  if (!flows_.set_actions(ufid, std::move(actions))) return false;
  if (const Flow* flow = flows_.find(ufid)) kernel_->flow_changed(*flow);
  return true;
}

void UserspaceDatapath::set_flow_actions(std::vector<FlowTable::NewActions>& flows) {
  if (flows.empty()) return;
  flows_.set_actions(flows);
  for (const FlowTable::NewActions& change : flows) kernel_->flow_changed(*change.flow);
  rcu::retire([old = std::exchange(flows, {})] {});
}

std::vector<std::shared_ptr<const Flow>> UserspaceDatapath::remove_flows(std::span<const Ufid> ufids) {
  std::vector<std::shared_ptr<const Flow>> removed;
  removed.reserve(ufids.size());
  for (const Ufid& ufid : ufids) {
    if (std::shared_ptr<const Flow> flow = flows_.remove(ufid)) removed.push_back(std::move(flow));
  }
  kernel_->flows_removed(removed);
  if (!removed.empty()) rcu::synchronize();
  return removed;
}

void UserspaceDatapath::visit_flows(const std::function<bool(Flow&)>& visit) const {
  kernel_->collect();
  rcu::ReaderScope reader;
  flows_.for_each(visit);
}

bool UserspaceDatapath::visit_flows(FlowCursor& cursor, size_t most, const std::function<void(Flow&)>& visit,
                                    const HotWords& without) const {
  if (cursor.at_begin()) kernel_->collect();
  return flows_.visit(cursor, most, visit, without);
}

std::vector<FlowTable::MaskInfo> UserspaceDatapath::masks() const { return flows_.masks(); }

void UserspaceDatapath::set_max_flows(size_t max_flows) { flows_.set_max_flows(max_flows); }

void UserspaceDatapath::set_kernel_path(bool enabled) { kernel_->set_enabled(enabled); }

// ---------------------------------------------------------------- execution and upcalls

Status UserspaceDatapath::execute(std::span<const uint8_t> frame, const FlowKey& metadata, const ActionList& actions) {
  Status status;
  handler_->run_job([&](ThreadContext& ctx, ActionSink& sink) {
    PacketPtr packet = ctx.pool.allocate();
    if (!packet || frame.size() > packet->tailroom()) {
      status = resource_exhausted(fmt::format("no buffer for a packet of {} bytes", frame.size()));
      return;
    }
    packet->set_size(frame.size());
    std::copy(frame.begin(), frame.end(), packet->data());
    packet->in_port = metadata.in_port;
    packet->skb_mark = metadata.skb_mark;
    packet->skb_priority = metadata.skb_priority;
    packet->has_tunnel = metadata.tunnel.has_destination();
    if (packet->has_tunnel) packet->tunnel = metadata.tunnel;
    ctx.ledger.port(packet->in_port).injected.add();
    FlowKey key;
    if (!extract_flow_key(*packet, key)) {
      ctx.drop(std::move(packet), DropReason::rx_invalid_packet);
      status = invalid_argument(fmt::format("a packet of {} bytes has no Ethernet header", frame.size()), "packet");
      return;
    }
    execute_actions(ctx, actions, std::move(packet), sink);
  });
  return status;
}

void UserspaceDatapath::set_upcall_handler(UpcallHandler* handler) {
  setup_.set_handler(handler);
  quiesce();
}

void UserspaceDatapath::quiesce() { rcu::synchronize(); }

// ---------------------------------------------------------------- threads and statistics

void UserspaceDatapath::serve_all_queues() {
  std::vector<UpcallQueue*> queues;
  for (const std::unique_ptr<ForwardingThread>& thread : threads_) queues.push_back(&thread->upcalls());
  handler_->set_queues(std::move(queues));
}

void UserspaceDatapath::start_forwarding_thread() {
  const size_t index = threads_.size() + 1;
  threads_.push_back(std::make_unique<ForwardingThread>(index, ledger(index), setup_, *port_map_, clock_,
                                                        handler_->wakeup(), lookup_, kernel_->make_sampler()));
  serve_all_queues();
}

void UserspaceDatapath::stop_forwarding_thread() {
  std::unique_ptr<ForwardingThread> last = std::move(threads_.back());
  threads_.pop_back();
  kernel_->remove_sampler(last->sampler());
  last->set_sources({}, false);
  rcu::synchronize();
  // No packet is lost: what it had queued is handled before its queue goes.
  while (!last->upcalls().empty()) handler_->run_job([](ThreadContext&, ActionSink&) {});
  serve_all_queues();
  const LookupCounters& counters = last->counters();
  retired_counters_.hits.add(counters.hits.get());
  retired_counters_.cache_hits.add(counters.cache_hits.get());
  retired_counters_.misses.add(counters.misses.get());
  retired_counters_.lost.add(counters.lost.get());
  retired_counters_.masks_visited.add(counters.masks_visited.get());
}

Status UserspaceDatapath::set_forwarding_threads(size_t count) {
  if (count < 1 || count > kMaxForwardingThreads) {
    return invalid_argument(fmt::format("{} forwarding threads; 1 to {} are possible", count, kMaxForwardingThreads),
                            "forwarding_threads");
  }
  MutexLock lock(mutex_);
  while (threads_.size() < count) start_forwarding_thread();
  while (threads_.size() > count) stop_forwarding_thread();
  distribute_sources();
  if (forwarding_threads_.exchange(count) == count) return {};
  for (auto& [port_no, attached] : ports_) attached.port->forwarding_threads_changed();
  return {};
}

void UserspaceDatapath::book_lookups(const LookupCounters& counters, DatapathStats& stats) const {
  stats.hits += counters.hits.get();
  stats.cache_hits += counters.cache_hits.get();
  stats.misses += counters.misses.get();
  stats.lost += counters.lost.get();
  stats.masks_visited += counters.masks_visited.get();
}

DatapathStats UserspaceDatapath::stats() const {
  DatapathStats stats;
  stats.kernel_path = kernel_->stats();
  MutexLock lock(mutex_);
  book_lookups(retired_counters_, stats);
  book_lookups(handler_->counters(), stats);
  for (const std::unique_ptr<ForwardingThread>& thread : threads_) {
    book_lookups(thread->counters(), stats);
    stats.cache_evictions += thread->cache_evictions();
  }
  const FlowTable::Counters counters = flows_.counters();
  stats.flows = counters.flows;
  stats.max_flows = flows_.max_flows();
  stats.masks = counters.masks;
  stats.narrowed = counters.narrowed;
  return stats;
}

BooksSum UserspaceDatapath::books(uint32_t port_no) const {
  kernel_->collect(port_no);
  BooksSum sum;
  uint64_t queued = 0, dequeued = 0;
  for (const std::unique_ptr<Ledger>& ledger : ledgers_) {
    const PortBooks* books = ledger->find(port_no);
    if (books == nullptr) continue;
    sum.received += books->received.get();
    sum.injected += books->injected.get();
    sum.copies += books->copies.get();
    sum.sent += books->sent.get();
    sum.consumed += books->consumed.get();
    dequeued += books->dequeued.get();
    queued += books->queued.get();
    for (size_t r = 0; r < kDropReasonCount; ++r) sum.dropped[r] += books->dropped[r].get();
  }
  sum.queued = queued >= dequeued ? queued - dequeued : 0;
  return sum;
}

bool UserspaceDatapath::healthy() const {
  MutexLock lock(mutex_);
  bool healthy = handler_->made_progress();
  for (const std::unique_ptr<ForwardingThread>& thread : threads_) healthy = thread->made_progress() && healthy;
  return healthy;
}

}  // namespace vswitch
