#include "vswitchd/control/revalidator.h"

#include <map>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "datapath/base/rcu.h"
#include "datapath/flow/flow_mask.h"

namespace vswitch {
namespace {

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
    for (const LearnedSource& source : origin.learned) {
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

void Revalidator::credit(const Flow& flow) {
  FlowOrigin& origin = origin_of(flow);
  const FlowStats stats = flow.stats();
  const uint64_t packets = stats.packets - origin.credited_packets;
  const uint64_t bytes = stats.bytes - origin.credited_bytes;
  if (packets == 0) return;
  origin.credited_packets = stats.packets;
  origin.credited_bytes = stats.bytes;
  origin.active = true;
  origin.credit.count(packets, bytes, stats.used);
}

void Revalidator::refresh(const Addresses& addresses) {
  if (addresses.learn_into(views_.get())) slow_path_.addresses_learned();
}

Revalidator::Verdict Revalidator::judge(Flow& flow, ActionList& new_actions) {
  const FlowKey key = flow.key();
  const SwitchView& view = views_.get();
  TranslateInput input{.view = view, .key = key};
  input.allow_side_effects = false;
  input.now = clock_.now();
  input.contexts = &slow_path_.contexts();
  TranslateOutput output = translate(input);
  if (output.slow_path || !mask_contains(flow.mask(), output.mask)) return Verdict::remove;
  if (output.actions.empty()) output.actions.push_back(DropAction{output.drop_reason});
  // What the flow counts from now on belongs to the rules it comes from now.
  FlowOrigin& origin = origin_of(flow);
  origin.take(output);
  // Packets from before a change teach nothing about ports after it.
  if (origin.view_generation != view.generation) origin.active = false;
  origin.view_generation = view.generation;
  if (output.actions == flow.actions()) return Verdict::keep;
  new_actions = std::move(output.actions);
  return Verdict::update;
}

void Revalidator::remove(const std::vector<Ufid>& ufids, Addresses& addresses) {
  if (ufids.empty()) return;
  // The last packets are counted on the way out.
  for (const std::shared_ptr<const Flow>& flow : datapath_.remove_flows(ufids)) {
    credit(*flow);
    addresses.add(origin_of(*flow), flow->stats(), views_.get());
  }
}

void Revalidator::revalidate() {
  // Upcalls that began before the caller's change may still install flows that they derived from what was before.
  datapath_.quiesce();
  OfflineLock lock(mutex_);
  rcu::ReaderScope reader;
  std::vector<Ufid> doomed;
  datapath_.visit_flows([&](Flow& flow) {
    mutex_.assert_held();
    credit(flow);
    ActionList new_actions;
    switch (judge(flow, new_actions)) {
      case Verdict::keep:
        break;
      case Verdict::update:
        datapath_.set_flow_actions(flow.ufid(), std::move(new_actions));
        break;
      case Verdict::remove:
        doomed.push_back(flow.ufid());
        break;
    }
    return true;
  });
  Addresses addresses;
  remove(doomed, addresses);
  refresh(addresses);
}

void Revalidator::push_statistics() {
  OfflineLock lock(mutex_);
  rcu::ReaderScope reader;
  const SwitchView& view = views_.get();
  Addresses addresses;
  datapath_.visit_flows([&](Flow& flow) {
    mutex_.assert_held();
    credit(flow);
    addresses.add(origin_of(flow), flow.stats(), view);
    return true;
  });
  refresh(addresses);
}

void Revalidator::expire(Nanoseconds max_idle) {
  OfflineLock lock(mutex_);
  rcu::ReaderScope reader;
  const Nanoseconds now = clock_.now();
  std::vector<Ufid> idle;
  datapath_.visit_flows([&](Flow& flow) {
    const FlowStats stats = flow.stats();
    const Nanoseconds last = stats.used == Nanoseconds{} ? flow.created() : stats.used;
    if (now - last >= max_idle) idle.push_back(flow.ufid());
    return true;
  });
  Addresses addresses;
  remove(idle, addresses);
  refresh(addresses);
  slow_path_.contexts().recircs.expire(now);
}

size_t Revalidator::remove_all() {
  OfflineLock lock(mutex_);
  rcu::ReaderScope reader;
  std::vector<Ufid> all;
  datapath_.visit_flows([&](Flow& flow) {
    all.push_back(flow.ufid());
    return true;
  });
  Addresses addresses;
  remove(all, addresses);
  refresh(addresses);
  return all.size();
}

}  // namespace vswitch
