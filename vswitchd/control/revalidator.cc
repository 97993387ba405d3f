#include "vswitchd/control/revalidator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <optional>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "datapath/base/rcu.h"

namespace vswitch {
namespace {

// Flows in one part of a walk at most. Each part that removes flows waits for a grace period; who waits for the end
// takes fewer, larger ones.
constexpr size_t kPart = 1024, kAwaitedPart = 8192;
// A part that nobody waits for also ends when it has looked at flows for so long: a change waits for it. To look at a
// flow takes 10 ns, to credit what it counted a microsecond, to translate it some. (To remove flows takes longer.)
constexpr Nanoseconds kPartTime = 100us;
constexpr size_t kFlowsBetweenClockReads = 64, kCreditsBetweenClockReads = 16;
// So many that are to be translated are collected first.
constexpr size_t kTranslatedTogether = 32;
constexpr auto kPause = 50us;
// How often unhurried work pauses for changes: before one part, and in all.
constexpr int kPausesBeforePart = 3, kMostPauses = 100;
// From 2^7 packets on, more of them say nothing about how useful a flow is.
constexpr size_t kSteadyDoublings = 8;
// So many counts of flows that were given other terms may wait to be credited.
constexpr size_t kMostUnsettled = 262'144;

int pauses_for(Revalidator::Urgency urgency) { return urgency == Revalidator::Urgency::unhurried ? kMostPauses : 0; }

Nanoseconds last_use(const Flow& flow, const FlowStats& stats) {
  return stats.used == Nanoseconds{} ? flow.created() : stats.used;
}

FlowOrigin& origin_of(const Flow& flow) { return *static_cast<FlowOrigin*>(flow.installer_data().get()); }

// Waits for the lock offline: its holder may be waiting for a grace period, which an online reader would hold up for
// ever.
class SCOPED_CAPABILITY OfflineLock {
 public:
  explicit OfflineLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) {
    rcu::Offline offline;
    mutex_.lock();
  }
  ~OfflineLock() RELEASE() { mutex_.unlock(); }
  OfflineLock(const OfflineLock&) = delete;
  OfflineLock& operator=(const OfflineLock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace

// Source addresses of flows with traffic, each with the port of its latest packet: after a host has moved, flows from
// its old port that are credited late must not take its address back.
class Revalidator::Addresses {
 public:
  void add(FlowOrigin& origin, const FlowStats& stats, const SwitchView& view) {
    if (!std::exchange(origin.active, false)) return;
    // Translated before ports or bridges changed: what it names may be gone, or be something else by now.
    if (origin.view_generation != view.generation) return;
    for (const LearnedSource& source : origin.terms->learned) {
      Latest& latest = by_bridge_[source.bridge][uint64_t{source.vlan} << 48 | source.mac.to_u64()];
      if (stats.used >= latest.used) latest = {stats.used, source.port};
    }
  }
  // True if forwarding changed by it.
  bool learn_into(const SwitchView& view) const {
    bool changed = false;
    for (const auto& [name, addresses] : by_bridge_) {
      const auto bridge = view.bridges.find(name);
      if (bridge == view.bridges.end()) continue;
      for (const auto& [address, latest] : addresses) {
        const auto vlan = static_cast<uint16_t>(address >> 48);
        const MacAddress mac = MacAddress::from_u64(address & 0xffffffffffffULL);
        changed = bridge->second->macs->learn(vlan, mac, latest.port) || changed;
      }
    }
    return changed;
  }

 private:
  struct Latest {
    Nanoseconds used{};
    OfPort port = 0;
  };
  std::map<std::string, std::unordered_map<uint64_t, Latest>, std::less<>> by_bridge_;
};

Revalidator::Unsettled Revalidator::take_counts(const Flow& flow) {
  FlowOrigin& origin = origin_of(flow);
  const FlowStats stats = flow.stats();
  Unsettled counted{nullptr, stats.packets - origin.credited_packets, stats.bytes - origin.credited_bytes, stats.used};
  if (counted.packets == 0) return counted;
  origin.credited_packets = stats.packets;
  origin.credited_bytes = stats.bytes;
  origin.active = true;
  return counted;
}

void Revalidator::credit(const Flow& flow) {
  Unsettled counted = take_counts(flow);
  if (counted.packets == 0) return;
  counted.terms = origin_of(flow).terms;
  counted.settle();
}

// What the flow counts from now on belongs to the rules it comes from now.
void Revalidator::give_terms(Flow& flow, const Outcome& outcome) {
  FlowOrigin& origin = origin_of(flow);
  Unsettled counted = take_counts(flow);
  // Packets from before a change teach nothing about ports after it.
  if (origin.view_generation != outcome.view_generation) origin.active = false;
  origin.view_generation = outcome.view_generation;
  if (flow.installer_bits() != outcome.installer_bits) flow.set_installer_bits(outcome.installer_bits);
  if (origin.terms == outcome.terms && counted.packets == 0) return;
  counted.terms = std::exchange(origin.terms, outcome.terms);
  if (!unsettled_.empty() && unsettled_.back().terms == counted.terms) {
    Unsettled& last = unsettled_.back();
    last.packets += counted.packets;
    last.bytes += counted.bytes;
    last.used = std::max(last.used, counted.used);
  } else {
    unsettled_.push_back(std::move(counted));
  }
}

// Under the lock: who comes here while another settles returns when that has been done, too.
void Revalidator::settle(Urgency urgency) {
  int pauses = pauses_for(urgency);
  for (bool more = true; more;) {
    give_way(pauses);
    OfflineLock lock(mutex_);
    const rcu::ReaderScope reader;
    const Nanoseconds end = clock_.now() + kPartTime;
    do {
      for (size_t n = std::min(unsettled_.size(), kCreditsBetweenClockReads); n > 0; --n) {
        unsettled_.back().settle();
        unsettled_.pop_back();
      }
    } while (!unsettled_.empty() && clock_.now() < end);
    more = !unsettled_.empty();
    if (!more) unsettled_.shrink_to_fit();
  }
}

void Revalidator::refresh(const Addresses& addresses) {
  if (addresses.learn_into(views_.get())) slow_path_.addresses_learned();
}

// Null: the flow must go.
const Outcome* Revalidator::judge(const Flow& flow, Outcomes& outcomes) {
  const FlowKey key = flow.key();
  const SwitchView& view = views_.get();
  TranslateInput input{.view = view, .key = key};
  input.allow_side_effects = false;
  input.now = clock_.now();
  input.contexts = &slow_path_.contexts();
  input.way_only = true;
  TranslateOutput output = translate(input);
  if (output.slow_path || !outcomes.fixes(flow, output.mask)) return nullptr;
  if (output.actions.empty()) output.actions.push_back(DropAction{output.drop_reason});
  Outcome outcome;
  outcome.installer_bits = FlowOrigin::bits_of(output);
  slow_path_.note_bits(outcome.installer_bits);
  outcome.view_generation = view.generation;
  outcome.actions = outcomes.share(flow, std::move(output.actions));
  // Most flows of a walk keep theirs: new ones would only be more memory to touch.
  const std::shared_ptr<const FlowTerms>& old = origin_of(flow).terms;
  outcome.terms = *old == output ? old : std::make_shared<const FlowTerms>(output);
  return &outcomes.add(flow, output.mask, std::move(outcome));
}

size_t Revalidator::remove(const std::vector<Ufid>& ufids, Addresses& addresses) {
  if (ufids.empty()) return 0;
  // The last packets are counted on the way out.
  const std::vector<std::shared_ptr<const Flow>> removed = datapath_.remove_flows(ufids);
  for (const std::shared_ptr<const Flow>& flow : removed) {
    credit(*flow);
    addresses.add(origin_of(*flow), flow->stats(), views_.get());
  }
  return removed.size();
}

// A mutex is not fair: who takes it again at once would keep it from those who wait.
void Revalidator::give_way(int& pauses) const {
  const rcu::Offline offline;
  pauses -= changes_.give(std::min(pauses, kPausesBeforePart));
  while (awaited_.load(std::memory_order_acquire) != 0) std::this_thread::sleep_for(kPause);
}

template <typename Visit, typename EndOfPart>
size_t Revalidator::walk(Urgency urgency, const HotWords& without, const Visit& visit, const EndOfPart& end_of_part) {
  const bool awaited = urgency == Urgency::awaited;
  if (awaited) awaited_.fetch_add(1, std::memory_order_acq_rel);
  size_t removed = 0;
  int pauses = pauses_for(urgency);
  FlowCursor cursor;
  Doomed doomed;
  for (bool more = true; more;) {
    if (!awaited) give_way(pauses);
    OfflineLock lock(mutex_);
    const rcu::ReaderScope reader;
    const auto visit_flow = [&](Flow& flow) { visit(flow, doomed); };
    const Nanoseconds end = clock_.now() + kPartTime;
    for (size_t left = awaited ? kAwaitedPart : kPart; more && left > 0;) {
      const size_t count = awaited ? left : kFlowsBetweenClockReads;
      more = datapath_.visit_flows(cursor, count, visit_flow, without);
      left -= count;
      if (clock_.now() >= end) break;
    }
    end_of_part(doomed);
    if (!more) doomed.now.insert(doomed.now.end(), doomed.in_kernel.begin(), doomed.in_kernel.end());
    Addresses addresses;
    removed += remove(doomed.now, addresses);
    doomed.now.clear();
    refresh(addresses);
    last_progress_.store(clock_.now().count(), std::memory_order_relaxed);
  }
  if (awaited) awaited_.fetch_sub(1, std::memory_order_acq_rel);
  return removed;
}

template <typename Visit>
size_t Revalidator::walk(Urgency urgency, const Visit& visit) {
  return walk(urgency, {}, visit, [](Doomed&) {});
}

// One walk of revalidation. The flows that are likely to be concerned are collected first, so many together, so that
// what has to be read of them can be fetched ahead.
template <typename Surely>
class Revalidator::Renewal {
 public:
  Renewal(Revalidator& revalidator, size_t together, const Surely& surely)
      : revalidator_(revalidator), together_(together), surely_(surely) {}

  void add_likely(Flow& flow, Doomed& doomed) REQUIRES(revalidator_.mutex_) {
    likely_.push_back(&flow);
    if (likely_.size() >= together_) renew_likely(doomed);
  }
  void end_part(Doomed& doomed) REQUIRES(revalidator_.mutex_) {
    renew_likely(doomed);
    publish();
    // Others may revalidate now, for later changes.
    outcomes_.forget();
    if (revalidator_.unsettled_.size() > kMostUnsettled) {
      for (const Unsettled& counted : revalidator_.unsettled_) counted.settle();
      revalidator_.unsettled_.clear();
    }
  }

 private:
  static constexpr size_t kAhead = 8, kChangedTogether = 256;

  void renew_likely(Doomed& doomed) REQUIRES(revalidator_.mutex_) {
    for (size_t i = 0; i < likely_.size(); ++i) {
      if (i + kAhead < likely_.size()) __builtin_prefetch(likely_[i + kAhead]->installer_data().get());
      renew(*likely_[i], doomed);
    }
    likely_.clear();
  }
  void renew(Flow& flow, Doomed& doomed) REQUIRES(revalidator_.mutex_) {
    const Outcome* outcome = outcomes_.find(flow);
    if (outcome == nullptr) {
      if (!surely_(flow)) return;
      outcome = revalidator_.judge(flow, outcomes_);
    }
    if (outcome == nullptr) return doomed.add(flow);
    revalidator_.give_terms(flow, *outcome);
    if (flow.has_actions(outcome->actions)) return;
    changed_.push_back({&flow, outcome->actions});
    if (changed_.size() >= kChangedTogether) publish();
  }
  void publish() REQUIRES(revalidator_.mutex_) {
    if (!changed_.empty()) revalidator_.action_changes_.fetch_add(1, std::memory_order_acq_rel);
    revalidator_.datapath_.set_flow_actions(changed_);
  }

  Revalidator& revalidator_;
  const size_t together_;
  const Surely& surely_;
  Outcomes outcomes_;
  std::vector<Flow*> likely_;
  std::vector<FlowTable::NewActions> changed_;
};

template <typename Without, typename Likely, typename Surely>
void Revalidator::revalidate_if(Urgency urgency, const Without& without, const Likely& likely, const Surely& surely) {
  const uint64_t changes_before = action_changes_.load(std::memory_order_acquire);
  // Upcalls that began before the caller's change may still install flows that they derived from what was before.
  datapath_.quiesce();
  Renewal<Surely> renewal(*this, urgency == Urgency::awaited ? kAwaitedPart : kTranslatedTogether, surely);
  walk(
      urgency, without(),
      [&](Flow& flow, Doomed& doomed) {
        mutex_.assert_held();
        if (likely(flow)) renewal.add_likely(flow, doomed);
      },
      [&](Doomed& doomed) {
        mutex_.assert_held();
        renewal.end_part(doomed);
      });
  // A thread that was kept from running may still have packets in hand that it looked up before flows got other
  // actions: by this walk, or by another that came to them first.
  const bool changed = action_changes_.load(std::memory_order_acquire) != changes_before;
  if (urgency == Urgency::awaited && changed) datapath_.quiesce();
}

namespace {
HotWords no_bits() { return {}; }
}  // namespace

void Revalidator::revalidate() {
  const auto all = [](const Flow&) { return true; };
  revalidate_if(Urgency::awaited, no_bits, all, all);
}

void Revalidator::revalidate(const RuleChanges& changes) {
  if (changes.empty()) return;
  revalidate_if(
      Urgency::awaited, [&] { return changes.foreign_bits(slow_path_.rewritten_words()); },
      [&changes](const Flow& flow) { return changes.may_concern(flow); },
      [&changes](const Flow& flow) { return changes.concern(flow); });
}

void Revalidator::revalidate_addresses(Urgency urgency) {
  const auto uses = [](const Flow& flow) { return (flow.installer_bits() & FlowOrigin::kUsesAddresses) != 0; };
  revalidate_if(urgency, no_bits, uses, [](const Flow&) { return true; });
}

void Revalidator::push_statistics(Urgency urgency) {
  const Nanoseconds begin = clock_.now();
  Addresses addresses;
  std::optional<uint64_t> generation;  // of the view that the addresses belong to
  walk(urgency, [&](Flow& flow, Doomed&) {
    mutex_.assert_held();
    credit(flow);
    const SwitchView& view = views_.get();
    if (generation != view.generation) {
      // Ports are others now: those that were learned before teach nothing any more, and wait for the next time.
      addresses = {};
      generation = view.generation;
    }
    addresses.add(origin_of(flow), flow.stats(), view);
  });
  settle(urgency);  // what flows were given other terms for, those included that the walk came to later
  OfflineLock lock(mutex_);
  const rcu::ReaderScope reader;
  if (generation == views_.get().generation) refresh(addresses);
  credited_until_.store(begin.count(), std::memory_order_release);
}

void Revalidator::expire(Nanoseconds max_idle) {
  const Nanoseconds now = clock_.now();
  walk(Urgency::unhurried, [&](Flow& flow, Doomed& doomed) {
    if (now - last_use(flow, flow.stats()) >= max_idle) doomed.add(flow);
  });
  slow_path_.contexts().recircs.expire(now);
}

namespace {

// A number that is the higher the less use the flow seems to be of: the logarithm, in quarters, of the time since its
// last packet, less two quarters for each doubling of its packets (up to so many that it counts as steady).
size_t uselessness(const Flow& flow, Nanoseconds now) {
  const FlowStats stats = flow.stats();
  const auto idle = static_cast<uint64_t>(std::max<int64_t>((now - last_use(flow, stats)).count(), 1));
  const auto whole = static_cast<size_t>(std::bit_width(idle)) - 1;
  const size_t quarter = whole < 2 ? 0 : (idle >> (whole - 2)) & 3;
  const size_t bonus = 2 * std::min<size_t>(static_cast<size_t>(std::bit_width(stats.packets)), kSteadyDoublings);
  const size_t age = 4 * whole + quarter;
  return age > bonus ? age - bonus : 0;
}

}  // namespace

void Revalidator::evict() {
  // Offline: who changes the datapath waits for grace periods with the lock that this takes.
  const DatapathStats stats = [this] {
    const rcu::Offline offline;
    return datapath_.stats();
  }();
  if (stats.flows < stats.max_flows - stats.max_flows / 16) return;
  const size_t surplus = stats.flows - (stats.max_flows - stats.max_flows / 8);
  const Nanoseconds now = clock_.now();
  std::array<size_t, 4 * 64> histogram{};
  walk(Urgency::background, [&](Flow& flow, Doomed&) { ++histogram[uselessness(flow, now)]; });
  size_t threshold = histogram.size() - 1, above = 0;  // those above it go, and of those that are there some
  for (; threshold > 0 && above + histogram[threshold] < surplus; --threshold) above += histogram[threshold];
  size_t left = surplus - above;
  evictions_.fetch_add(walk(Urgency::background,
                            [&](Flow& flow, Doomed& doomed) {
                              const size_t level = uselessness(flow, now);
                              if (level < threshold || (level == threshold && left == 0)) return;
                              if (level == threshold) --left;
                              doomed.add(flow);
                            }),
                       std::memory_order_relaxed);
}

size_t Revalidator::remove_all() {
  return walk(Urgency::awaited, [](Flow& flow, Doomed& doomed) { doomed.add(flow); });
}

}  // namespace vswitch
