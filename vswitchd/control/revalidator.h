// Revalidator: keeps the datapath's flows true to the rules, and the rules' statistics true to the datapath.
//
// - revalidate(): translates flows again, every one or those that a change of rules or of learned addresses may concern
//   (rule_changes.h), unless a translation just made holds for them as well (outcomes.h); one whose actions changed is
//   updated, one whose mask no longer suffices (or whose packets are now to be treated one by one) is removed. When it
//   returns, no packet is forwarded any more by what was valid before the caller's change.
// - push_statistics(): credits what flows have counted since the last time to the rules, tables and patch ports they
//   came from, and refreshes the learned addresses of flows with traffic.
// - expire(): removes flows that had no packet for max_idle.
// - evict(): makes room when the datapath is nearly full of flows: the least useful go.
//
// All of them go through the flows in parts, and let go of the lock and of RCU between two parts, so that none holds up
// forwarding, upcalls or the others, however many flows there are. Those that somebody waits for go first.
//
// Thread safety: any thread; a part at a time is serialised by a lock of its own. Callers must not hold locks that
// translation takes, nor RCU-protected pointers. The lock is waited for offline, because its holder waits for grace
// periods.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "datapath/core/datapath.h"
#include "vswitchd/control/flow_origin.h"
#include "vswitchd/control/outcomes.h"
#include "vswitchd/control/right_of_way.h"
#include "vswitchd/control/rule_changes.h"
#include "vswitchd/control/slow_path.h"

namespace vswitch {

class Revalidator {
 public:
  // `changes`: of those whom unhurried work lets go first.
  Revalidator(Datapath& datapath, const ViewHolder& views, SlowPath& slow_path, const RightOfWay& changes,
              const Clock& clock)
      : datapath_(datapath), views_(views), slow_path_(slow_path), changes_(changes), clock_(clock) {}

  void revalidate() EXCLUDES(mutex_);
  void revalidate(const RuleChanges& changes) EXCLUDES(mutex_);
  // After addresses were learned, moved or forgotten.
  // awaited: others let it go first. unhurried: lets changes go first, too, for some time.
  enum class Urgency : uint8_t { unhurried, background, awaited };
  void revalidate_addresses(Urgency urgency) EXCLUDES(mutex_);
  void push_statistics(Urgency urgency) EXCLUDES(mutex_);
  // All packets before this time have been credited; 0: none have.
  Nanoseconds credited_until() const { return Nanoseconds(credited_until_.load(std::memory_order_acquire)); }
  void expire(Nanoseconds max_idle) EXCLUDES(mutex_);  // unhurried
  // Where more than 15/16 of max_flows are there: removes those of little use until there are 7/8 of them. A flow is of
  // the less use the longer it has been idle; each doubling of its packets makes up for half of that.
  void evict() EXCLUDES(mutex_);
  uint64_t evictions() const { return evictions_.load(std::memory_order_relaxed); }
  size_t remove_all() EXCLUDES(mutex_);
  // When the last part of any walk ended.
  Nanoseconds last_progress() const { return Nanoseconds(last_progress_.load(std::memory_order_relaxed)); }

 private:
  class Addresses;
  template <typename Surely>
  class Renewal;
  // Flows to be removed. Whoever removes flows of which the kernel has connections waits for the kernel: once, at the
  // end.
  struct Doomed {
    std::vector<Ufid> now, in_kernel;
    void add(const Flow& flow) { (flow.in_kernel_path() ? in_kernel : now).push_back(flow.ufid()); }
  };
  // What a flow counted when it was given other terms, for those it had.
  struct Unsettled {
    std::shared_ptr<const FlowTerms> terms;
    uint64_t packets = 0, bytes = 0;
    Nanoseconds used{};
    void settle() const {
      if (packets != 0) terms->credit.count(packets, bytes, used);
    }
  };

  // Calls visit(flow, doomed) for every flow whose key has none of the bits `without`, and end_of_part(doomed) now and
  // then, in parts, and removes those that they doom. Returns how many went.
  template <typename Visit, typename EndOfPart>
  size_t walk(Urgency urgency, const HotWords& without, const Visit& visit, const EndOfPart& end_of_part)
      EXCLUDES(mutex_);
  template <typename Visit>
  size_t walk(Urgency urgency, const Visit& visit) EXCLUDES(mutex_);
  void give_way(int& pauses) const;
  // Translates those flows again of which likely(flow) and surely(flow) are true; the first is asked of all whose key
  // has none of the bits of without() (which is called when all flows of translations that have begun are there), and
  // costs less.
  template <typename Without, typename Likely, typename Surely>
  void revalidate_if(Urgency urgency, const Without& without, const Likely& likely, const Surely& surely)
      EXCLUDES(mutex_);

  // What the flow has counted since this was last asked.
  Unsettled take_counts(const Flow& flow) REQUIRES(mutex_);
  void credit(const Flow& flow) REQUIRES(mutex_);
  void give_terms(Flow& flow, const Outcome& outcome) REQUIRES(mutex_);
  void settle(Urgency urgency) EXCLUDES(mutex_);
  const Outcome* judge(const Flow& flow, Outcomes& outcomes) REQUIRES(mutex_);
  size_t remove(const std::vector<Ufid>& ufids, Addresses& addresses) REQUIRES(mutex_);
  void refresh(const Addresses& addresses) REQUIRES(mutex_);

  Datapath& datapath_;
  const ViewHolder& views_;
  SlowPath& slow_path_;
  const RightOfWay& changes_;
  const Clock& clock_;
  mutable Mutex mutex_;
  // Waits for push_statistics(): crediting takes longer than the change that somebody waits for.
  std::vector<Unsettled> unsettled_ GUARDED_BY(mutex_);
  std::atomic<uint32_t> awaited_{0};         // walks that somebody waits for
  std::atomic<uint64_t> action_changes_{0};  // so often some flows got other actions
  std::atomic<int64_t> credited_until_{0};
  std::atomic<uint64_t> evictions_{0};
  std::atomic<int64_t> last_progress_{0};
};

}  // namespace vswitch
