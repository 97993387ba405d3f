// Revalidator: keeps the datapath's flows true to the rules, and the rules' statistics true to the datapath.
//
// - revalidate(): translates every flow again; one whose actions changed is updated, one whose mask no longer suffices
//   (or whose packets are now to be treated one by one) is removed. When it returns, no packet that comes in is
//   forwarded by what was valid before the caller's change.
// - push_statistics(): credits what flows have counted since the last time to the rules, tables and patch ports they
//   came from, and refreshes the learned addresses of flows with traffic.
// - expire(): removes flows that had no packet for max_idle.
//
// Thread safety: any thread; serialised by its own lock. Callers must not hold locks that translation takes. The lock
// is waited for offline, because its holder waits for grace periods.
#pragma once

#include <atomic>
#include <cstdint>

#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "datapath/core/datapath.h"
#include "vswitchd/control/flow_origin.h"
#include "vswitchd/control/slow_path.h"

namespace vswitch {

class Revalidator {
 public:
  Revalidator(Datapath& datapath, const ViewHolder& views, SlowPath& slow_path, const Clock& clock)
      : datapath_(datapath), views_(views), slow_path_(slow_path), clock_(clock) {}

  void revalidate() EXCLUDES(mutex_);
  void push_statistics() EXCLUDES(mutex_);
  void expire(Nanoseconds max_idle) EXCLUDES(mutex_);
  size_t remove_all() EXCLUDES(mutex_);

 private:
  enum class Verdict : uint8_t { keep, update, remove };
  class Addresses;

  void credit(const Flow& flow) REQUIRES(mutex_);
  Verdict judge(Flow& flow, ActionList& new_actions) REQUIRES(mutex_);
  void remove(const std::vector<Ufid>& ufids, Addresses& addresses) REQUIRES(mutex_);
  void refresh(const Addresses& addresses) REQUIRES(mutex_);

  Datapath& datapath_;
  const ViewHolder& views_;
  SlowPath& slow_path_;
  const Clock& clock_;
  Mutex mutex_;
};

}  // namespace vswitch
