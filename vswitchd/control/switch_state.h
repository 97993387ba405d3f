// The switch's inside: what switch.cc (changes) and switch_queries.cc (listings, trace, packets) share. Private to this
// folder.
//
// Lock order, outermost first: Switch::Implementation::changes_mutex_, mutex_, then the datapath's and the
// revalidator's own. Who changes the switch holds the first from beginning to end, which takes seconds for a million
// rules, and the second only while it puts the result in place: listings take the second alone, so they never wait for
// a change. Translation and upcalls take none of them. A thread that is an RCU reader goes offline before it waits for
// one of them: who holds it may wait for a grace period. Datapath flows are made true to a change after its lock has
// been let go of, and before its caller has an answer. Each kind of timeout has a thread of its own, so that none waits
// for what another's round may wait for: once per kTick the ageing thread wakes for learned addresses, which needs
// nobody, and the expiry thread for rules' timeouts, which waits for the disk and until datapath flows know. The upkeep
// thread wakes for what was learned, for crowded flow tables, and once per kTick for statistics and idle datapath
// flows.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "datapath/base/mutex.h"
#include "datapath/core/userspace_datapath.h"
#include "vswitchd/control/change_plan.h"
#include "vswitchd/control/config.h"
#include "vswitchd/control/port_changes.h"
#include "vswitchd/control/port_log.h"
#include "vswitchd/control/revalidator.h"
#include "vswitchd/control/rule_writer.h"
#include "vswitchd/control/slow_path.h"
#include "vswitchd/control/subscribers.h"
#include "vswitchd/control/switch.h"
#include "vswitchd/control/view_builder.h"
#include "vswitchd/store/store.h"

namespace vswitch {

struct Switch::Implementation {
  Implementation(const SwitchOptions& options, std::unique_ptr<Store> store);
  ~Implementation();

  // ---- opening (switch.cc)
  Status load();
  Result<Configuration> load_configuration();
  Status load_rules() REQUIRES(mutex_);
  Status start_datapath(const Settings& settings);

  // ---- changes (switch.cc)
  Result<TransactionResult> apply(const Transaction& transaction, TransactionFailure* failure)
      EXCLUDES(changes_mutex_, mutex_);
  struct StagedRules {
    std::map<std::string, RuleChange, std::less<>> by_bridge;
    std::map<std::string, BridgeRuntime, std::less<>> new_bridges;
  };
  // With `writer`, the rules go to the store meanwhile.
  Status stage_rules(const ChangePlan& plan, StagedRules& staged, RuleWriter* writer, TransactionFailure* failure)
      REQUIRES(changes_mutex_);
  Status commit_to_store(const ChangePlan& plan, const StagedRules& staged, RuleWriter* writer)
      REQUIRES(changes_mutex_);
  // What is still to be done about datapath flows when a change is published, and what must live until then.
  struct Aftermath {
    bool revalidate_all = false;
    RuleChanges rules;
    std::vector<BridgeRuntime> leaving;
  };
  // Takes plan.next, which is what configuration() says from then on.
  void publish(ChangePlan& plan, StagedRules& staged, Aftermath& aftermath) REQUIRES(changes_mutex_);
  RuleChanges rule_changes(const StagedRules& staged) REQUIRES(changes_mutex_);
  Result<TransactionResult> carry_out(const Transaction& transaction, TransactionFailure* failure, Aftermath& aftermath)
      REQUIRES(changes_mutex_);
  void publish_view() REQUIRES(mutex_);
  void observe_port(const Datapath& datapath, uint32_t dp_port);
  void log_port(const Configuration& configuration, const std::string& name);
  void forget_addresses(const ChangePlan& plan, const Configuration& before) REQUIRES(changes_mutex_);
  void configure_bridge(const BridgeConfig& config, BridgeRuntime& runtime);
  // What watchers will hear about a rule change.
  std::vector<ChangeEvent> describe_rules(const std::string& bridge, const RuleChange& change) const;
  void announce(const ChangePlan& plan, const Configuration& before, std::vector<ChangeEvent> rule_events)
      REQUIRES(changes_mutex_);
  void announce(std::vector<ChangeEvent> events);

  // ---- time (switch.cc)
  // Each is run by a thread of its own.
  void run_ageing();
  void run_expiry();
  void run_upkeep();
  // A thread whose rounds begin kTick after the last one's end.
  struct TickThread {
    std::atomic<int64_t> busy_since{Nanoseconds::max().count()};  // max: sleeps
    std::thread thread;
  };
  // Until the next round of `self`; false: there is none, as the switch is going.
  bool wait_for_tick(TickThread& self) EXCLUDES(timer_mutex_);
  struct UpkeepWork {
    bool stop = false, addresses = false, crowded = false;
  };
  UpkeepWork wait_for_upkeep() EXCLUDES(timer_mutex_);
  void expire_addresses() EXCLUDES(mutex_);
  // Does not wait for a change that is being carried out: that takes the rules out in the end.
  void expire_rules() EXCLUDES(changes_mutex_, mutex_);
  void take_out_expired(RuleChanges& changes) REQUIRES(changes_mutex_);
  void take_out_expired(const std::string& bridge, RuleTables& tables, RuleChanges& changes) REQUIRES(changes_mutex_);
  void addresses_changed() EXCLUDES(timer_mutex_);

  // ---- queries (switch_queries.cc)
  std::shared_ptr<const Configuration> configuration() const EXCLUDES(mutex_);
  PortInfo port_info(const Configuration& configuration, const PortConfig& config) const EXCLUDES(mutex_);
  std::shared_ptr<const PatchCounters> patch_counters_of(const std::string& port) const EXCLUDES(mutex_);
  void push_patch_statistics() const EXCLUDES(mutex_);
  RuleInfo rule_info(const Rule& rule) const;
  Result<BridgeRuntime> runtime_of(const std::string& bridge) const EXCLUDES(mutex_);
  std::vector<std::pair<std::string, BridgeRuntime>> runtimes() const EXCLUDES(mutex_);

  MonotonicClock monotonic_clock_;
  const Clock& clock_;
  const LookupOptions lookup_;
  std::unique_ptr<Store> store_;

  Mutex changes_mutex_;                      // of who writes what mutex_ guards
  std::atomic<bool> expiry_put_off_{false};  // rules timed out while someone had changes_mutex_
  mutable Mutex mutex_ ACQUIRED_AFTER(changes_mutex_);
  std::shared_ptr<const Configuration> configuration_ GUARDED_BY(mutex_) = std::make_shared<const Configuration>();
  std::map<std::string, BridgeRuntime, std::less<>> bridges_ GUARDED_BY(mutex_);
  PatchCounterMap patch_counters_ GUARDED_BY(mutex_);
  uint64_t generation_ GUARDED_BY(mutex_) = 0;
  std::atomic<uint64_t> revision_{0};

  PortLog port_log_;
  ViewHolder views_;
  std::unique_ptr<SlowPath> slow_path_;
  std::unique_ptr<Datapath> datapath_;
  RightOfWay right_of_way_;
  std::unique_ptr<Revalidator> revalidator_;
  Subscribers<const ChangeEvent&> watchers_;

  Mutex timer_mutex_;
  CondVar tick_wakeup_;  // told only when the switch is going
  bool stopping_ GUARDED_BY(timer_mutex_) = false;
  std::atomic<uint32_t> max_idle_ms_{10'000};
  TickThread ageing_, expiry_;
  CondVar upkeep_wakeup_;
  bool addresses_changed_ GUARDED_BY(timer_mutex_) = false;
  bool crowded_ GUARDED_BY(timer_mutex_) = false;
  std::atomic<bool> crowding_told_{false};  // stands for crowded_, so that who tells need not take the lock
  std::atomic<int64_t> upkeep_busy_since_{Nanoseconds::max().count()};  // max: sleeps
  std::thread upkeep_;
};

}  // namespace vswitch
