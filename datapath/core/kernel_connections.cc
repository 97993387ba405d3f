#include "datapath/core/kernel_connections.h"

#include <poll.h>

#include <algorithm>

#include "datapath/base/rcu.h"
#include "datapath/base/thread_name.h"
#include "datapath/base/word_hash.h"

namespace vswitch {
namespace {

constexpr Nanoseconds kIdle = 5s;
// Together with the time for which a tunnel port takes what it knows of the host for true (vxlan_encapsulator.cc), a
// quarter of a second.
constexpr Nanoseconds kTidy = 225ms;
// Between two looks at the ways of outer packets, whatever happens to the host's routes and neighbours meanwhile.
constexpr Nanoseconds kBetweenChecks = 50ms;
// So many candidates at a time; then the others get their turn.
constexpr int kCandidates = 64;
// So long a connection that could not be encapsulated is left to the daemon.
constexpr Nanoseconds kRefusal = 5s;
// So long a forwarding thread has for a round in which it has nothing to do. If it is that busy, some packets of a
// connection may be overtaken by later ones, once.
constexpr Nanoseconds kPatience = 5ms;  // of each connection
// Beyond so many connections those that were idle longest go, down to so many.
constexpr size_t kCrowded = KernelPath::kMaxConnections - KernelPath::kMaxConnections / 16;
constexpr size_t kAfterEviction = KernelPath::kMaxConnections - KernelPath::kMaxConnections / 8;

KernelPath::Counts difference(const KernelPath::Counts& now, const KernelPath::Counts& before) {
  return {.packets = now.packets - before.packets,
          .bytes = now.bytes - before.bytes,
          .full = now.full - before.full,
          .failed = now.failed - before.failed,
          .overruled = now.overruled - before.overruled,
          .lost_bytes = now.lost_bytes - before.lost_bytes,
          .tcp_flags = now.tcp_flags};
}

// What the actions, which do nothing else but send to one port, have set by then; null: nothing.
const TunnelMetadata* tunnel_metadata(const ActionList& actions) {
  const TunnelMetadata* metadata = nullptr;
  for (const Action& action : actions) {
    if (const auto* set = std::get_if<SetTunnelAction>(&action)) metadata = set->tunnel.get();
  }
  return metadata;
}

void wait_for_kernel(const KernelPath& path) {
  const rcu::Offline offline;
  path.wait_for_running();
}

uint64_t lost_packets(const KernelPath::Counts& counts) { return counts.full + counts.failed + counts.overruled; }

}  // namespace

KernelConnections::KernelConnections(FlowTable& flows, const PortMap& ports, Ledger& ledger, const Clock& clock)
    : flows_(flows),
      ports_(ports),
      ledger_(ledger),
      clock_(clock),
      path_([this] { wakeup_.signal(); }),
      thread_([this] { run(); }) {}

KernelConnections::~KernelConnections() {
  stopping_.store(true);
  wakeup_.signal();
  thread_.join();
  set_enabled(false);
}

void KernelConnections::set_enabled(bool enabled) {
  path_.set_enabled(enabled);
  if (enabled) return;
  MutexLock lock(mutex_);
  bury_stopped();
}

KernelPathStats KernelConnections::stats() {
  KernelPathStats stats;
  stats.off_because = path_.off_because();
  stats.ports = path_.working_hooks();
  MutexLock lock(mutex_);
  collect_locked();
  stats.connections = connections_.size();
  stats.hits = hits_;
  return stats;
}

std::unique_ptr<ConnectionSampler> KernelConnections::make_sampler() {
  auto sampler = std::make_unique<ConnectionSampler>(ports_, path_, wakeup_);
  MutexLock lock(mutex_);
  samplers_.push_back(sampler.get());
  return sampler;
}

void KernelConnections::remove_sampler(ConnectionSampler* sampler) {
  MutexLock lock(mutex_);
  std::erase(samplers_, sampler);
}

// ---------------------------------------------------------------- taking in

// Nearly all that this thread does may have to wait: for the kernel, or for who waits for the kernel. So it is a reader
// only where it looks flows and ports up.
void KernelConnections::run() {
  name_this_thread("kernel-path");
  rcu::ThreadRegistration registration;
  const rcu::Offline offline;
  Nanoseconds tidied = clock_.now(), checked = tidied - kBetweenChecks;
  while (!stopping_.load()) {
    pollfd wakeup{wakeup_.fd(), POLLIN, 0};
    static_cast<void>(::poll(&wakeup, 1, time_to_sleep(tidied, checked)));
    wakeup_.clear();
    if (stopping_.load()) return;
    path_.clear_up();
    check_due_ = path_.take_ways_changed() || check_due_;
    if (const Nanoseconds now = clock_.now(); check_due_ && now - checked >= kBetweenChecks) {
      check_due_ = false;
      checked = now;
      check_ways();
    }
    more_offers_ = !take_candidates();
    if (const Nanoseconds now = clock_.now(); now - tidied >= kTidy) {
      tidied = now;
      tidy();
    }
  }
}

int KernelConnections::time_to_sleep(Nanoseconds tidied, Nanoseconds checked) {
  if (more_offers_) return 0;
  MutexLock lock(mutex_);
  if (connections_.empty()) return check_due_ ? static_cast<int>(kBetweenChecks / 1ms) : -1;
  const Nanoseconds now = clock_.now();
  Nanoseconds wait = tidied + kTidy - now;
  if (any_pending_) wait = std::min(wait, kPatience);
  if (check_due_) wait = std::min(wait, checked + kBetweenChecks - now);
  return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(std::max(wait, Nanoseconds(0))).count());
}

std::optional<KernelConnections::Offer> KernelConnections::next_offer() {
  MutexLock lock(mutex_);
  for (ConnectionSampler* sampler : samplers_) {
    Offer offer{sampler, {}};
    if (sampler->take(offer.candidate)) return offer;
  }
  return std::nullopt;
}

// The kernel may take long, so nobody is made to wait for this.
bool KernelConnections::prepare(const ConnectionSampler::Candidate& candidate, Preparation& preparation) {
  {
    MutexLock lock(mutex_);
    const size_t key = ConnectionKeyHash()(candidate.key);
    if (refused(key).key == key && clock_.now() < refused(key).until) return false;
  }
  KernelPath::HookId in = 0;
  {
    const rcu::ReaderScope reader;
    const Vport* const from = ports_.find(candidate.in_port);
    const Vport* const to = ports_.find(candidate.out_port);
    const Flow* const flow = flows_.lookup(flow_key_of(candidate.key, candidate.in_port));
    if (from == nullptr || to == nullptr || flow == nullptr) return false;
    in = from->kernel_path_hook();
    preparation.encapsulator = to->encapsulator();
    preparation.actions = flow->shared_actions();
  }
  if (in == 0) return false;
  if (!preparation.encapsulator) return path_.prepare(in).ok();
  Result<Encapsulation> encapsulation =
      preparation.encapsulator->encapsulate(candidate.key, tunnel_metadata(*preparation.actions));
  if (!encapsulation.ok()) return false;
  preparation.encapsulation = std::move(*encapsulation);
  return path_.prepare(in).ok();
}

bool KernelConnections::take_candidates() {
  bool all = false;
  for (int taken = 0; taken < kCandidates; ++taken) {
    const std::optional<Offer> offer = next_offer();
    all = !offer;
    if (all) break;
    Preparation preparation;
    if (!prepare(offer->candidate, preparation)) continue;
    MutexLock lock(mutex_);
    const bool is_there = std::ranges::find(samplers_, offer->sampler) != samplers_.end();
    if (is_there) take_in(*offer->sampler, offer->candidate, preparation);
  }
  MutexLock lock(mutex_);
  activate_late();
  return all;
}

bool KernelConnections::may_have(const Flow& flow, uint32_t out_port, const Preparation& preparation) {
  return !flow.dead() && flow.takes_connections_whole() && flow.only_output() == out_port &&
         &flow.actions() == preparation.actions.get();
}

// What the candidate's packet met is old news: all is looked up again.
void KernelConnections::take_in(ConnectionSampler& sampler, const ConnectionSampler::Candidate& candidate,
                                const Preparation& preparation) {
  const rcu::ReaderScope reader;
  const Vport* const from = ports_.find(candidate.in_port);
  const Vport* const to = ports_.find(candidate.out_port);
  if (from == nullptr || to == nullptr || from == to) return;
  const std::shared_ptr<Encapsulator>& encapsulator = preparation.encapsulator;
  const KernelPath::HookId in = from->kernel_path_hook();
  const KernelPath::HookId out = encapsulator ? encapsulator->hook() : to->kernel_path_way_out();
  if (in == 0 || out == 0) return;
  Flow* flow = flows_.lookup(flow_key_of(candidate.key, candidate.in_port));
  if (flow == nullptr || !may_have(*flow, candidate.out_port, preparation)) return;
  const Encapsulation* encapsulation = preparation.encapsulation ? &*preparation.encapsulation : nullptr;
  const Result<KernelPath::Use> use = path_.add(candidate.key, in, out, encapsulation);
  if (!use.ok()) return;
  flow->mark_in_kernel_path(true);
  // Either the mark was there for who changed the flow meanwhile to see, or the change is there to be seen now.
  if (!may_have(*flow, candidate.out_port, preparation)) {
    if (!of_flow_.contains(flow)) flow->mark_in_kernel_path(false);
    path_.stop(use->element);
    path_.erase(use->element);
    path_.free(use->element);  // at once: it has never been active
    return;
  }
  const Nanoseconds now = clock_.now();
  enter({.use = *use,
         .flow = flow,
         .in_port = candidate.in_port,
         .out_port = candidate.out_port,
         .from = from,
         .to = to,
         .in = in,
         .encapsulator = encapsulator,
         .outer = encapsulation != nullptr ? encapsulation->flow : OuterFlow{},
         .way = encapsulation != nullptr ? encapsulation->way : OuterWay{},
         .multicast = (candidate.key.eth_dst[0] & 1) != 0,
         .key = ConnectionKeyHash()(candidate.key),
         .added = now,
         .used = now});
  any_pending_ = true;
  static_cast<void>(sampler.hand_over(*use));  // if not: activate_late()
}

void KernelConnections::enter(Connection connection) {
  auto& siblings = of_flow_[connection.flow];
  connection.place = siblings.size();
  if (connection.encapsulator) ++encapsulated_;
  connections_.push_front(std::move(connection));
  siblings.push_back(connections_.begin());
}

// Those that no forwarding thread has switched over in time.
void KernelConnections::activate_late() {
  if (!std::exchange(any_pending_, false)) return;
  const Nanoseconds now = clock_.now();
  for (Connection& connection : connections_) {
    if (!connection.pending) break;  // those behind it are older
    connection.pending = now - connection.added < kPatience;
    any_pending_ = any_pending_ || connection.pending;
    if (!connection.pending) path_.activate(connection.use);
  }
}

// ---------------------------------------------------------------- counting

void KernelConnections::collect() {
  MutexLock lock(mutex_);
  collect_locked();
}

void KernelConnections::collect_locked() {
  if (connections_.empty()) return;
  const rcu::ReaderScope reader;
  const Nanoseconds now = clock_.now();
  for (Connection& connection : connections_) count(connection, now);
}

void KernelConnections::collect(uint32_t port_no) {
  MutexLock lock(mutex_);
  if (connections_.empty()) return;
  const rcu::ReaderScope reader;
  const Nanoseconds now = clock_.now();
  for (Connection& connection : connections_) {
    if (connection.in_port == port_no || connection.out_port == port_no) count(connection, now);
  }
}

// Not when it was counted: of two ports that a host was seen at, the later one is where it is.
Nanoseconds KernelConnections::last_used(const Connection& connection, Nanoseconds now) const {
  return std::clamp(path_.used(connection.use.element), std::min(connection.used, now), now);
}

void KernelConnections::count(Connection& connection, Nanoseconds now) {
  const KernelPath::Counts counts = path_.counts(connection.use.element);
  if (counts == connection.counted) return;
  const KernelPath::Counts more = difference(counts, connection.counted);
  connection.counted = counts;
  connection.used = last_used(connection, now);
  hits_ += more.packets;
  connection.flow->count(kKernelPathIndex, more.packets + lost_packets(more), more.bytes + more.lost_bytes,
                         connection.used, static_cast<uint16_t>(more.tcp_flags));
  PortBooks& books = ledger_.port(connection.in_port);
  books.received.add(more.packets + lost_packets(more));
  books.sent.add(more.packets);
  if (more.full != 0) ledger_.drop(connection.in_port, DropReason::tx_queue_full, more.full);
  // A device that does not take a frame is down; what cannot be encapsulated finds no memory.
  const DropReason failure = connection.encapsulator ? DropReason::tunnel_push_error : DropReason::port_down;
  if (more.failed != 0) {
    ledger_.drop(connection.in_port, failure, more.failed);
    if (connection.encapsulator) refuse(connection, now);
  }
  if (more.overruled != 0) {
    ledger_.drop(connection.in_port, DropReason::tx_error, more.overruled);
    path_.give_up(connection.in, "another program at the device's TC ingress takes its packets");
  }
  count_for_ports(connection, more);
}

// The daemon may be able to do what the kernel is not; and if it is only memory that is short, that passes.
void KernelConnections::refuse(const Connection& connection, Nanoseconds now) {
  refused(connection.key) = {connection.key, now + kRefusal};
  path_.stop(connection.use.element);
}

void KernelConnections::count_for_ports(const Connection& connection, const KernelPath::Counts& more) {
  Vport* const from = ports_.find(connection.in_port);
  if (from != nullptr && from == connection.from) {
    Vport::KernelPathCounts counts;
    counts.rx_packets = more.packets + lost_packets(more);
    counts.rx_bytes = more.bytes + more.lost_bytes;
    counts.rx_multicast = connection.multicast ? counts.rx_packets : 0;
    from->count_kernel_path(counts);
  }
  Vport* const to = ports_.find(connection.out_port);
  if (to != nullptr && to == connection.to) {
    Vport::KernelPathCounts counts;
    counts.tx_packets = more.packets;
    counts.tx_bytes = more.bytes;
    counts.tx_dropped = more.full + (connection.encapsulator ? 0 : more.failed);
    counts.tx_errors = more.overruled + (connection.encapsulator ? more.failed : 0);
    to->count_kernel_path(counts);
  }
}

// ---------------------------------------------------------------- ending

void KernelConnections::tidy() {
  const rcu::Offline offline;  // it may take long
  check_ways();
  {
    MutexLock lock(mutex_);
    if (connections_.empty()) return;
    collect_locked();
    stop_idle(clock_.now());
  }
  bury_quietly();
}

void KernelConnections::stop_idle(Nanoseconds now) {
  Nanoseconds before = now - kIdle;
  if (connections_.size() > kCrowded) {
    std::vector<Nanoseconds> used;
    used.reserve(connections_.size());
    for (const Connection& connection : connections_) used.push_back(connection.used);
    const auto last = used.begin() + static_cast<ptrdiff_t>(used.size() - kAfterEviction);
    std::nth_element(used.begin(), last, used.end());
    before = std::max(before, *last);
  }
  for (const Connection& connection : connections_) {
    if (connection.used < before) path_.stop(connection.use.element);
  }
}

size_t KernelConnections::WayQuestionHash::operator()(const WayQuestion& question) const {
  const OuterFlow& outer = question.outer;
  uint64_t hash = hash_start();
  hash = hash_word(hash, reinterpret_cast<uintptr_t>(question.encapsulator.get()));
  hash = hash_word(hash, uint64_t{outer.src.raw()} << 32 | outer.dst.raw());
  hash = hash_word(hash, uint64_t{outer.src_port.raw()} << 48 | uint64_t{outer.dst_port.raw()} << 32 | outer.mark);
  return hash_finish(hash_word(hash, outer.tos));
}

// Nobody waits while the kernel is asked. Connections share few ways: each is asked for once.
void KernelConnections::check_ways() {
  const Nanoseconds since = clock_.now();
  WayAnswers answers;
  {
    MutexLock lock(mutex_);
    if (encapsulated_ == 0) return;
    for (const Connection& connection : connections_) {
      if (connection.encapsulator) answers.try_emplace(question_of(connection));
    }
  }
  for (auto& [question, answer] : answers) {
    if (const Result<OuterWay> way = question.encapsulator->way_of(question.outer, since); way.ok()) answer = *way;
  }
  {
    MutexLock lock(mutex_);
    for (const Connection& connection : connections_) {
      if (!connection.encapsulator) continue;
      const auto answer = answers.find(question_of(connection));
      if (answer != answers.end() && answer->second != connection.way) path_.stop(connection.use.element);
    }
  }
  bury_quietly();
}

KernelConnections::Connections::iterator KernelConnections::forget(Connections::iterator connection) {
  const auto it = of_flow_.find(connection->flow);
  auto& siblings = it->second;
  siblings[connection->place] = siblings.back();
  siblings[connection->place]->place = connection->place;
  siblings.pop_back();
  if (siblings.empty()) {
    connection->flow->mark_in_kernel_path(false);
    of_flow_.erase(it);
  }
  if (connection->encapsulator) --encapsulated_;
  path_.free(connection->use.element);
  return connections_.erase(connection);
}

uint64_t KernelConnections::begin_burial() {
  uint64_t burial = 0;
  for (Connection& connection : connections_) {
    if (connection.burial == 0) {
      if (!path_.stopped(connection.use.element)) continue;
      path_.erase(connection.use.element);
      connection.burial = burials_ + 1;
    }
    burial = burials_ + 1;  // also of one whose burial another thread has begun, but not ended
  }
  if (burial != 0) ++burials_;
  return burial;
}

void KernelConnections::end_burial(uint64_t burial) {
  const rcu::ReaderScope reader;
  const Nanoseconds now = clock_.now();
  for (auto it = connections_.begin(); it != connections_.end();) {
    // One that was stopped since (by its hook) was not waited for.
    if (it->burial == 0 || it->burial > burial) {
      ++it;
      continue;
    }
    count(*it, now);
    it = forget(it);
  }
}

void KernelConnections::bury_stopped() {
  const uint64_t burial = begin_burial();
  if (burial == 0) return;
  wait_for_kernel(path_);
  end_burial(burial);
}

void KernelConnections::bury_quietly() {
  uint64_t burial = 0;
  {
    MutexLock lock(mutex_);
    burial = begin_burial();
  }
  if (burial == 0) return;
  wait_for_kernel(path_);
  MutexLock lock(mutex_);
  end_burial(burial);
}

bool KernelConnections::stop_those_of(const Flow& flow) {
  const auto it = of_flow_.find(&flow);
  if (it == of_flow_.end()) return false;
  for (const Connections::iterator& connection : it->second) path_.stop(connection->use.element);
  return true;
}

void KernelConnections::flow_changed(const Flow& flow) {
  if (!flow.in_kernel_path()) return;
  MutexLock lock(mutex_);
  stop_those_of(flow);
}

void KernelConnections::flows_removed(std::span<const std::shared_ptr<const Flow>> flows) {
  if (std::ranges::none_of(flows, [](const auto& flow) { return flow->in_kernel_path(); })) return;
  MutexLock lock(mutex_);
  bool any = false;
  for (const std::shared_ptr<const Flow>& flow : flows) any = stop_those_of(*flow) || any;
  if (any) bury_stopped();
}

void KernelConnections::port_goes(uint32_t port_no) {
  MutexLock lock(mutex_);
  bool any = false;
  for (const Connection& connection : connections_) {
    if (connection.in_port != port_no && connection.out_port != port_no) continue;
    path_.stop(connection.use.element);
    any = true;
  }
  if (any) bury_stopped();
}

}  // namespace vswitch
