// The switch's inside: what switch.cc (changes) and switch_queries.cc (listings, trace, packets) share. Private to this
// folder.
//
// Lock order, outermost first: Switch::Implementation::mutex_, then the datapath's and the revalidator's own.
// Translation and upcalls take none of them. A thread that is an RCU reader goes offline before it waits for one of
// them: who holds it may wait for a grace period. Datapath flows are made true to a change after the change's lock has
// been let go of, and before its caller has an answer. The timer thread wakes once per kTick for timeouts; the upkeep
// thread for learned addresses, for crowded flow tables, and once per kTick for statistics and idle datapath flows.
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
  Status load_configuration() REQUIRES(mutex_);
  Status load_rules() REQUIRES(mutex_);
  Status start_datapath() REQUIRES(mutex_);

  // ---- changes (switch.cc)
  Result<TransactionResult> apply(const Transaction& transaction, TransactionFailure* failure) EXCLUDES(mutex_);
  struct StagedRules {
    std::map<std::string, RuleChange, std::less<>> by_bridge;
    std::map<std::string, BridgeRuntime, std::less<>> new_bridges;
  };
  // With `writer`, the rules go to the store meanwhile.
  Status stage_rules(const ChangePlan& plan, StagedRules& staged, RuleWriter* writer, TransactionFailure* failure)
      REQUIRES(mutex_);
  Status commit_to_store(const ChangePlan& plan, const StagedRules& staged, RuleWriter* writer) REQUIRES(mutex_);
  // What is still to be done about datapath flows when a change is published, and what must live until then.
  struct Aftermath {
    bool revalidate_all = false;
    RuleChanges rules;
    std::vector<BridgeRuntime> leaving;
  };
  // Takes plan.next; returns what was before.
  Configuration publish(ChangePlan& plan, StagedRules& staged, Aftermath& aftermath) REQUIRES(mutex_);
  RuleChanges rule_changes(const StagedRules& staged) REQUIRES(mutex_);
  Result<TransactionResult> carry_out(const Transaction& transaction, TransactionFailure* failure, Aftermath& aftermath)
      REQUIRES(mutex_);
  void publish_view() REQUIRES(mutex_);
  void observe_port(const Datapath& datapath, uint32_t dp_port) EXCLUDES(mutex_);
  void log_port(const std::string& name) REQUIRES(mutex_);
  void forget_addresses(const ChangePlan& plan, const Configuration& before) REQUIRES(mutex_);
  void configure_bridge(const BridgeConfig& config, BridgeRuntime& runtime);
  // What watchers will hear about a rule change; taken before publish(), which lets go of removed rules.
  std::vector<ChangeEvent> describe_rules(const std::string& bridge, const RuleChange& change) const;
  void announce(const ChangePlan& plan, const Configuration& before, std::vector<ChangeEvent> rule_events)
      REQUIRES(mutex_);
  void announce(std::vector<ChangeEvent> events);

  // ---- time (switch.cc)
  // Each of two threads runs one of them: what goes through all datapath flows never keeps timeouts waiting.
  void run_timer();
  void run_upkeep();
  struct UpkeepWork {
    bool stop = false, addresses = false, crowded = false;
  };
  UpkeepWork wait_for_upkeep() EXCLUDES(timer_mutex_);
  void expire_rules() EXCLUDES(mutex_);
  bool expire_rules_of(const std::string& bridge, BridgeRuntime& runtime, RuleChanges& changes) REQUIRES(mutex_);
  void addresses_changed() EXCLUDES(timer_mutex_);

  // ---- queries (switch_queries.cc)
  PortInfo port_info(const PortConfig& config) const REQUIRES(mutex_);
  void push_patch_statistics() const EXCLUDES(mutex_);
  RuleInfo rule_info(const Rule& rule) const;
  Result<std::shared_ptr<const RuleTables>> tables_of(const std::string& bridge) const EXCLUDES(mutex_);

  MonotonicClock monotonic_clock_;
  const Clock& clock_;
  const LookupOptions lookup_;
  std::unique_ptr<Store> store_;

  mutable Mutex mutex_;
  Configuration configuration_ GUARDED_BY(mutex_);
  std::map<std::string, BridgeRuntime, std::less<>> bridges_ GUARDED_BY(mutex_);
  PatchCounterMap patch_counters_ GUARDED_BY(mutex_);
  uint64_t generation_ GUARDED_BY(mutex_) = 0;
  std::atomic<uint64_t> revision_{0};

  PortLog port_log_;
  ViewHolder views_;
  std::unique_ptr<SlowPath> slow_path_;
  std::unique_ptr<Datapath> datapath_;
  std::unique_ptr<Revalidator> revalidator_;
  Subscribers<const ChangeEvent&> watchers_;

  Mutex timer_mutex_;
  CondVar timer_wakeup_;
  bool stopping_ GUARDED_BY(timer_mutex_) = false;
  std::atomic<uint32_t> max_idle_ms_{10'000};
  Nanoseconds timer_busy_since_ GUARDED_BY(timer_mutex_) = Nanoseconds::max();  // max: sleeps
  std::thread timer_;
  CondVar upkeep_wakeup_;
  bool addresses_changed_ GUARDED_BY(timer_mutex_) = false;
  bool crowded_ GUARDED_BY(timer_mutex_) = false;
  std::atomic<bool> crowding_told_{false};  // stands for crowded_, so that who tells need not take the lock
  std::atomic<int64_t> upkeep_busy_since_{Nanoseconds::max().count()};  // max: sleeps
  std::thread upkeep_;
};

}  // namespace vswitch
