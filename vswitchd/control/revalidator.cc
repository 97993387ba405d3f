#include "vswitchd/control/revalidator.h"

#include <vector>

#include "datapath/base/rcu.h"
#include "datapath/flow/flow_mask.h"

namespace vswitch {
namespace {

FlowOrigin& origin_of(const Flow& flow) { return *static_cast<FlowOrigin*>(flow.installer_data.get()); }

}  // namespace

void Revalidator::credit(const Flow& flow) {
  FlowOrigin& origin = origin_of(flow);
  const FlowStats stats = flow.stats();
  const uint64_t packets = stats.packets - origin.credited_packets;
  const uint64_t bytes = stats.bytes - origin.credited_bytes;
  if (packets == 0) return;
  origin.credited_packets = stats.packets;
  origin.credited_bytes = stats.bytes;
  origin.credit.count(packets, bytes, stats.used);
  const SwitchView& view = views_.get();
  for (const LearnedSource& source : origin.learned) {
    auto bridge = view.bridges.find(source.bridge);
    if (bridge != view.bridges.end()) bridge->second->macs->learn(source.vlan, source.mac, source.port);
  }
}

Revalidator::Verdict Revalidator::judge(Flow& flow, ActionList& new_actions) {
  const FlowKey key = flow.key();
  TranslateInput input{.view = views_.get(), .key = key};
  input.allow_side_effects = false;
  input.now = clock_.now();
  input.contexts = &slow_path_.controller_requests();
  TranslateOutput output = translate(input);
  if (output.slow_path || !mask_contains(flow.mask(), output.mask)) return Verdict::remove;
  if (output.actions.empty()) output.actions.push_back(DropAction{output.drop_reason});
  // What the flow counts from now on belongs to the rules it comes from now.
  FlowOrigin& origin = origin_of(flow);
  origin.credit = std::move(output.credit);
  origin.learned = std::move(output.learned);
  if (output.actions == flow.actions()) return Verdict::keep;
  new_actions = std::move(output.actions);
  return Verdict::update;
}

void Revalidator::remove(const std::vector<Ufid>& ufids) {
  if (ufids.empty()) return;
  // The last packets are counted on the way out.
  for (const std::shared_ptr<const Flow>& flow : datapath_.remove_flows(ufids)) credit(*flow);
}

void Revalidator::revalidate() {
  rcu::ReaderScope reader;
  // Upcalls that began before the caller's change may still install flows that they derived from what was before.
  datapath_.quiesce();
  MutexLock lock(mutex_);
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
  remove(doomed);
}

void Revalidator::push_statistics() {
  rcu::ReaderScope reader;
  MutexLock lock(mutex_);
  datapath_.visit_flows([&](Flow& flow) {
    mutex_.assert_held();
    credit(flow);
    return true;
  });
}

void Revalidator::expire(Nanoseconds max_idle) {
  rcu::ReaderScope reader;
  MutexLock lock(mutex_);
  const Nanoseconds now = clock_.now();
  std::vector<Ufid> idle;
  datapath_.visit_flows([&](Flow& flow) {
    const FlowStats stats = flow.stats();
    const Nanoseconds last = stats.used == Nanoseconds{} ? flow.created() : stats.used;
    if (now - last >= max_idle) idle.push_back(flow.ufid());
    return true;
  });
  remove(idle);
}

size_t Revalidator::remove_all() {
  rcu::ReaderScope reader;
  MutexLock lock(mutex_);
  std::vector<Ufid> all;
  datapath_.visit_flows([&](Flow& flow) {
    all.push_back(flow.ufid());
    return true;
  });
  remove(all);
  return all.size();
}

}  // namespace vswitch
