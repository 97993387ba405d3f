#include "vswitchd/control/switch.h"

#include <fmt/format.h>
#include <malloc.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <random>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "datapath/base/rcu.h"
#include "datapath/base/thread_name.h"
#include "datapath/base/thread_slice.h"
#include "vswitchd/control/config_codec.h"
#include "vswitchd/control/switch_state.h"
#include "vswitchd/openflow/rule_codec.h"
#include "vswitchd/rules/rule_provision.h"

namespace vswitch {
namespace {

// How often statistics are pushed to rules and timeouts are looked at. Counters are at most this old, plus the push
// itself.
constexpr auto kTick = 500ms;
// A burst of learned addresses is answered by one revalidation this much later at most.
constexpr auto kLearningPause = 20ms;

// From so many rule changes on, what a transaction needed on its way is worth giving back to the system at once.
constexpr size_t kManyRules = 10'000;

constexpr char kBridgeKind[] = "bridge";
constexpr char kPortKind[] = "port";
constexpr char kSettingsKind[] = "settings";
constexpr char kSettingsName[] = "settings";

// Locally administered, unicast.
MacAddress random_mac() {
  static thread_local std::random_device device;
  std::uniform_int_distribution<uint64_t> any;
  MacAddress mac = MacAddress::from_u64(any(device) & 0xffffffffffffULL);
  mac.bytes[0] = static_cast<uint8_t>((mac.bytes[0] & 0xfc) | 0x02);
  return mac;
}

StoredPort stored_port(const Configuration& configuration, const std::string& name) {
  const auto dp_port = configuration.dp_ports.find(name);
  return {configuration.ports.at(name), configuration.ofports.at(name),
          dp_port == configuration.dp_ports.end() ? 0 : dp_port->second};
}

Status misnamed(const Store::Batch::Object& object) {
  return internal_error(fmt::format("the store holds {} \"{}\" under another name", object.kind, object.name));
}

// The operation that made or changed a port: where to point when the system refuses it.
size_t operation_of_port(const Transaction& transaction, const std::string& port) {
  for (size_t i = transaction.operations.size(); i-- > 0;) {
    const bool match =
        std::visit(Overload{[&](const CreatePort& o) { return o.config.name() == port; },
                            [&](const UpdatePort& o) { return o.config.name() == port; },
                            [&](const DeletePort& o) { return o.name == port; },
                            [&](const CreateBridge& o) { return o.config.name == port; },
                            [&](const UpdateBridge& o) { return o.config.name == port; },
                            [](const DeleteBridge&) { return false; }, [](const UpdateSettings&) { return false; },
                            [](const ModifyRules&) { return false; }},
                   transaction.operations[i]);
    if (match) return i;
  }
  return 0;
}

}  // namespace

// ---------------------------------------------------------------- opening and closing

Switch::Implementation::Implementation(const SwitchOptions& options, std::unique_ptr<Store> store)
    : clock_(options.clock != nullptr ? *options.clock : monotonic_clock_),
      lookup_(options.lookup),
      store_(std::move(store)),
      port_log_(clock_, [](std::string_view line) { spdlog::info("{}", line); }) {
  const auto crowded = [this] {
    if (crowding_told_.exchange(true, std::memory_order_acq_rel)) return;
    MutexLock lock(timer_mutex_);
    crowded_ = true;
    upkeep_wakeup_.notify_one();
  };
  slow_path_ = std::make_unique<SlowPath>(
      views_, clock_, [this] { addresses_changed(); }, crowded);
}

Switch::Implementation::~Implementation() {
  {
    MutexLock lock(timer_mutex_);
    stopping_ = true;
    tick_wakeup_.notify_all();
    upkeep_wakeup_.notify_all();
  }
  if (ageing_.thread.joinable()) ageing_.thread.join();
  if (expiry_.thread.joinable()) expiry_.thread.join();
  if (upkeep_.joinable()) upkeep_.join();
  revalidator_.reset();
  datapath_.reset();  // stops the packet threads; persistent devices stay
  rcu::barrier();
}

Result<Configuration> Switch::Implementation::load_configuration() {
  Configuration loaded;
  VSWITCH_RETURN_IF_ERROR(store_->for_each_object([&loaded](const Store::Batch::Object& object) -> Status {
    if (object.kind == kBridgeKind) {
      Result<BridgeConfig> bridge = decode_bridge(object.value);
      if (!bridge.ok()) return bridge.status().with_prefix(fmt::format("bridge \"{}\"", object.name));
      if (bridge->name != object.name) return misnamed(object);
      loaded.bridges[object.name] = std::move(*bridge);
    } else if (object.kind == kPortKind) {
      Result<StoredPort> port = decode_port(object.value);
      if (!port.ok()) return port.status().with_prefix(fmt::format("port \"{}\"", object.name));
      if (port->config.name() != object.name) return misnamed(object);
      loaded.ofports[object.name] = port->ofport;
      if (port->dp_port != 0) loaded.dp_ports[object.name] = port->dp_port;
      loaded.ports[object.name] = std::move(port->config);
    } else if (object.kind == kSettingsKind) {
      Result<Settings> settings = decode_settings(object.value);
      if (!settings.ok()) return settings.status();
      loaded.settings = *settings;
    } else {
      return internal_error(fmt::format("the store holds an object of unknown kind \"{}\"", object.kind));
    }
    return {};
  }));
  VSWITCH_RETURN_IF_ERROR(check_configuration(loaded).with_prefix("the stored configuration"));
  return loaded;
}

Status Switch::Implementation::load_rules() {
  std::map<std::string, std::vector<std::pair<uint64_t, RuleSpec>>, std::less<>> rules;
  RuleProvision provision;
  VSWITCH_RETURN_IF_ERROR(
      store_->for_each_rule([&](uint64_t id, std::string_view bridge, std::string_view value) -> Status {
        Result<RuleSpec> spec = decode_rule(value);
        if (!spec.ok()) return spec.status().with_prefix(fmt::format("stored rule {}", id));
        rules[std::string(bridge)].emplace_back(id, std::move(*spec));
        provision.expect_one();
        return {};
      }));
  for (auto& [bridge, specs] : rules) {
    auto runtime = bridges_.find(bridge);
    if (runtime == bridges_.end()) {
      return internal_error(fmt::format("the store holds rules of bridge \"{}\", which it does not hold", bridge));
    }
    Result<RuleChange> change = runtime->second.tables->restore(specs);
    if (!change.ok()) return change.status().with_prefix(fmt::format("bridge \"{}\"", bridge));
    change->publish();
  }
  return {};
}

Status Switch::Implementation::start_datapath(const Settings& settings) {
  set_dpdk_settings(settings.dpdk);
  UserspaceDatapathOptions options;
  options.forwarding_threads = settings.forwarding_threads;
  options.max_flows = settings.max_datapath_flows;
  options.lookup = lookup_;
  Result<std::unique_ptr<UserspaceDatapath>> datapath = UserspaceDatapath::create(options, clock_);
  if (!datapath.ok()) return datapath.status();
  datapath_ = std::move(*datapath);
  datapath_->set_upcall_handler(slow_path_.get());
  datapath_->set_kernel_path(settings.kernel_path);
  revalidator_ = std::make_unique<Revalidator>(*datapath_, views_, *slow_path_, right_of_way_, clock_);
  max_idle_ms_ = settings.max_idle_ms;
  return {};
}

// On a thread of the datapath's, which may be going down: so the datapath is handed in.
void Switch::Implementation::observe_port(const Datapath& datapath, uint32_t dp_port) {
  ChangeEvent event;
  event.kind = ChangeEvent::Kind::port_state;
  event.revision = revision_;
  {
    rcu::ReaderScope reader;
    const PortView* port = views_.get().port_of(dp_port);
    if (port == nullptr) return;
    event.bridge = port->bridge->name;
    event.port = port->name;
  }
  if (const std::optional<VportState> state = datapath.port_state(dp_port)) {
    port_log_.state(dp_port, event.port, *state);
  }
  watchers_.deliver(event);
}

void Switch::Implementation::log_port(const Configuration& configuration, const std::string& name) {
  const auto dp_port = configuration.dp_ports.find(name);
  if (dp_port == configuration.dp_ports.end()) return;
  if (const std::optional<VportState> state = datapath_->port_state(dp_port->second)) {
    port_log_.state(dp_port->second, name, *state);
  }
}

Status Switch::Implementation::load() {
  MutexLock changes(changes_mutex_);
  MutexLock lock(mutex_);
  Result<Configuration> loaded = load_configuration();
  if (!loaded.ok()) return loaded.status();
  configuration_ = std::make_shared<const Configuration>(std::move(*loaded));
  revision_ = store_->revision();
  for (const auto& [name, config] : configuration_->bridges) {
    BridgeRuntime runtime{std::make_shared<RuleTables>(clock_), std::make_shared<MacTable>(clock_)};
    configure_bridge(config, runtime);
    bridges_[name] = std::move(runtime);
  }
  VSWITCH_RETURN_IF_ERROR(load_rules());
  VSWITCH_RETURN_IF_ERROR(start_datapath(configuration_->settings));
  publish_view();  // before the first port: no packet sees a switch without its rules
  datapath_->observe_ports([this, &datapath = *datapath_](uint32_t dp_port) { observe_port(datapath, dp_port); });
  datapath_->hold_new_ports();  // until all are there: a rule may send what one receives to any other
  for (const auto& [name, config] : configuration_->ports) {
    const Status status = add_configured_port(*datapath_, *configuration_, name, false);
    if (!status.ok()) return status.with_prefix("restoring the stored configuration");
    log_port(*configuration_, name);
  }
  datapath_->release_new_ports();
  ageing_.thread = std::thread([this] { run_ageing(); });
  expiry_.thread = std::thread([this] { run_expiry(); });
  upkeep_ = std::thread([this] { run_upkeep(); });
  return {};
}

Result<std::unique_ptr<Switch>> Switch::open(const SwitchOptions& options) {
  std::unique_ptr<Store> store;
  if (!options.open_store && options.state_dir.empty()) {
    store = make_memory_store();
  } else {
    Result<std::unique_ptr<Store>> opened =
        options.open_store ? options.open_store() : open_sqlite_store(options.state_dir);
    if (!opened.ok()) return opened.status();
    store = std::move(*opened);
  }
  auto implementation = std::make_unique<Implementation>(options, std::move(store));
  VSWITCH_RETURN_IF_ERROR(implementation->load());
  return std::unique_ptr<Switch>(new Switch(std::move(implementation)));
}

Switch::Switch(std::unique_ptr<Implementation> impl) : impl_(std::move(impl)) {}
Switch::~Switch() = default;

// ---------------------------------------------------------------- changes

void Switch::Implementation::configure_bridge(const BridgeConfig& config, BridgeRuntime& runtime) {
  runtime.macs->configure(config.mac_table_size, std::chrono::seconds(config.mac_ageing_seconds));
}

namespace {

// The rule changes of one bridge in one list, as RuleTables wants them. Those of a single operation, the usual case of
// a bulk load, are used where they are.
class RequestedMods {
 public:
  void add_default() { own_.push_back(default_rule()); }
  void add(std::span<const ChangePlan::RuleMods> parts) {
    parts_ = parts;
    defaults_ = own_.size();
    if (parts.size() == 1 && own_.empty()) return;
    for (const ChangePlan::RuleMods& part : parts) own_.insert(own_.end(), part.mods.begin(), part.mods.end());
  }
  std::span<const RuleMod> all() const { return own_.empty() && !parts_.empty() ? parts_.front().mods : own_; }
  TransactionFailure origin_of(size_t index) const {
    index -= std::min(index, defaults_);
    for (const ChangePlan::RuleMods& part : parts_) {
      if (index < part.mods.size()) return {part.operation, index};
      index -= part.mods.size();
    }
    return {};
  }

 private:
  std::vector<RuleMod> own_;
  size_t defaults_ = 0;
  std::span<const ChangePlan::RuleMods> parts_;
};

}  // namespace

// Stages every rule change; new bridges get their tables here. What is staged disappears with `staged`.
Status Switch::Implementation::stage_rules(const ChangePlan& plan, StagedRules& staged, RuleWriter* writer,
                                           TransactionFailure* failure) {
  for (const std::string& name : plan.created_bridges) {
    BridgeRuntime runtime{std::make_shared<RuleTables>(clock_), std::make_shared<MacTable>(clock_)};
    configure_bridge(plan.next.bridges.at(name), runtime);
    staged.new_bridges[name] = std::move(runtime);
  }
  std::set<std::string> with_rules = plan.created_bridges;
  for (const auto& [bridge, mods] : plan.rule_mods) with_rules.insert(bridge);
  for (const std::string& bridge : with_rules) {
    const bool is_new = plan.created_bridges.contains(bridge);
    const auto requested = plan.rule_mods.find(bridge);
    RequestedMods mods;
    if (is_new && plan.next.bridges.at(bridge).fail_mode == FailMode::standalone) mods.add_default();
    if (requested != plan.rule_mods.end()) mods.add(requested->second);
    const std::shared_ptr<RuleTables> tables =
        is_new ? staged.new_bridges.at(bridge).tables : runtime_of(bridge).value().tables;
    RuleTables::StagedFunction tell;
    if (writer != nullptr) {
      tell = [&](std::span<const Rule* const> rules) {
        if (!rules.empty()) return writer->add(bridge, rules);
        writer->abandon();
      };
    }
    size_t failed = 0;
    Result<RuleChange> change = tables->prepare(mods.all(), &failed, tell);
    if (!change.ok()) {
      if (failure != nullptr) *failure = mods.origin_of(failed);
      return change.status();
    }
    staged.by_bridge.emplace(bridge, std::move(*change));
  }
  return {};
}

namespace {

// Many rules, and nothing that the store would have to do before it gets them.
bool worth_a_writer(const ChangePlan& plan) {
  size_t mods = 0;
  for (const auto& [bridge, parts] : plan.rule_mods) {
    for (const ChangePlan::RuleMods& part : parts) mods += part.mods.size();
  }
  return mods >= kManyRules && plan.deleted_bridges.empty();
}

// Of the rules written ahead those that a later change of the transaction took out again.
void delete_dropped(std::span<const uint64_t> written, const std::map<std::string, RuleChange, std::less<>>& changes,
                    Store::Batch& batch) {
  std::unordered_set<uint64_t> added;
  size_t count = 0;
  for (const auto& [bridge, change] : changes) count += change.added().size();
  if (count == written.size()) return;  // all are there
  for (const auto& [bridge, change] : changes) {
    for (const Rule* rule : change.added()) added.insert(rule->id());
  }
  for (const uint64_t id : written) {
    if (!added.contains(id)) batch.delete_rules.push_back(id);
  }
}

}  // namespace

Status Switch::Implementation::commit_to_store(const ChangePlan& plan, const StagedRules& staged, RuleWriter* writer) {
  Store::Batch batch;
  const auto put_bridge = [&](const std::string& name) {
    batch.put_objects.push_back({kBridgeKind, name, encode_bridge(plan.next.bridges.at(name))});
  };
  const auto put_port = [&](const std::string& name) {
    batch.put_objects.push_back({kPortKind, name, encode_port(stored_port(plan.next, name))});
  };
  for (const std::string& name : plan.deleted_bridges) {
    batch.delete_objects.push_back({kBridgeKind, name});
    batch.delete_rules_of_bridge.push_back(name);
  }
  for (const std::string& name : plan.deleted_ports) batch.delete_objects.push_back({kPortKind, name});
  for (const auto* names : {&plan.created_bridges, &plan.updated_bridges})
    std::for_each(names->begin(), names->end(), put_bridge);
  for (const auto* names : {&plan.created_ports, &plan.updated_ports})
    std::for_each(names->begin(), names->end(), put_port);
  if (plan.settings_changed) {
    batch.put_objects.push_back({kSettingsKind, kSettingsName, encode_settings(plan.next.settings)});
  }
  for (const auto& [bridge, change] : staged.by_bridge) {
    for (const Rule* rule : change.removed()) batch.delete_rules.push_back(rule->id());
    if (writer != nullptr) continue;
    for (const Rule* rule : change.added()) batch.put_rules.push_back({rule->id(), bridge, encode_rule(rule->spec())});
  }
  batch.revision = revision_ + 1;
  if (writer == nullptr) return store_->commit(batch);
  VSWITCH_RETURN_IF_ERROR(writer->finish());
  delete_dropped(writer->written(), staged.by_bridge, batch);
  VSWITCH_RETURN_IF_ERROR(store_->commit(batch));
  writer->keep();
  return {};
}

void Switch::Implementation::publish_view() {
  views_.publish(build_view(*configuration_, bridges_, patch_counters_, ++generation_));
}

RuleChanges Switch::Implementation::rule_changes(const StagedRules& staged) {
  RuleChanges changes;
  const SwitchView& view = views_.get();  // only replaced under changes_mutex_
  for (const auto& [name, change] : staged.by_bridge) {
    const auto bridge = view.bridges.find(name);
    changes.add(change, bridge == view.bridges.end() ? nullptr : bridge->second.get());
  }
  return changes;
}

void Switch::Implementation::publish(ChangePlan& plan, StagedRules& staged, Aftermath& aftermath) {
  // Rules alone change nothing of the view: what flows learned by it stays valid.
  const bool rules_only = plan.created_bridges.empty() && plan.updated_bridges.empty() &&
                          plan.deleted_bridges.empty() && plan.created_ports.empty() && plan.updated_ports.empty() &&
                          plan.deleted_ports.empty();
  aftermath.revalidate_all = !rules_only;
  if (rules_only) aftermath.rules = rule_changes(staged);
  for (auto& [bridge, change] : staged.by_bridge) change.publish();
  auto next = std::make_shared<const Configuration>(std::move(plan.next));
  MutexLock lock(mutex_);
  // Bridges that go away keep their tables and addresses until nobody can be looking at them.
  for (const std::string& name : plan.deleted_bridges) {
    auto it = bridges_.find(name);
    aftermath.leaving.push_back(std::move(it->second));
    bridges_.erase(it);
  }
  for (auto& [name, runtime] : staged.new_bridges) bridges_[name] = std::move(runtime);
  for (const std::string& name : plan.updated_bridges) configure_bridge(next->bridges.at(name), bridges_.at(name));
  for (const std::string& name : plan.deleted_ports) patch_counters_.erase(name);
  configuration_ = std::move(next);
  revision_ = revision_ + 1;
  if (!rules_only) publish_view();
}

// Takes the addresses out that were learned on ports which are gone, or have another number or other VLANs now.
void Switch::Implementation::forget_addresses(const ChangePlan& plan, const Configuration& before) {
  const std::shared_ptr<const Configuration> now = configuration();
  std::set<std::string> names = plan.deleted_ports;
  for (const std::string& name : plan.updated_ports) {
    if (before.ofports.at(name) != now->ofports.at(name) || !(before.ports.at(name).vlan == now->ports.at(name).vlan)) {
      names.insert(name);
    }
  }
  if (names.empty()) return;
  // Whoever still works with the view before this one would learn them again.
  datapath_->quiesce();
  for (const std::string& name : names) {
    const Result<BridgeRuntime> bridge = runtime_of(before.ports.at(name).bridge);
    if (bridge.ok()) bridge->macs->remove_port(before.ofports.at(name));
  }
}

Result<TransactionResult> Switch::Implementation::apply(const Transaction& transaction, TransactionFailure* failure) {
  const RightOfWay::Taken taken = right_of_way_.take();
  Aftermath aftermath;
  Result<TransactionResult> result = [&] {
    MutexLock lock(changes_mutex_);
    Result<TransactionResult> carried_out = carry_out(transaction, failure, aftermath);
    if (expiry_put_off_.exchange(false)) take_out_expired(aftermath.rules);
    return carried_out;
  }();
  if (aftermath.revalidate_all) {
    revalidator_->revalidate();
  } else {
    revalidator_->revalidate(aftermath.rules);
  }
  return result;
}

Result<TransactionResult> Switch::Implementation::carry_out(const Transaction& transaction, TransactionFailure* failure,
                                                            Aftermath& aftermath) {
  const std::shared_ptr<const Configuration> before = configuration();
  Result<ChangePlan> plan = plan_changes(*before, transaction, random_mac, failure);
  if (!plan.ok()) return plan.status();
  StagedRules staged;
  std::optional<RuleWriter> writer;  // ends before what it writes goes
  if (!transaction.validate_only && worth_a_writer(*plan)) writer.emplace(*store_);
  RuleWriter* const ahead = writer ? &*writer : nullptr;
  VSWITCH_RETURN_IF_ERROR(stage_rules(*plan, staged, ahead, failure));
  TransactionResult result;
  for (const auto& [bridge, change] : staged.by_bridge) {
    result.rules_added += change.added().size();
    result.rules_removed += change.removed().size();
  }
  result.revision = revision_;
  std::string failed_port;
  const auto refused = [&](const Status& status) {
    if (!status.ok() && failure != nullptr) *failure = {operation_of_port(transaction, failed_port), 0};
    return !status.ok();
  };
  if (transaction.validate_only) {
    if (Status status = check_port_changes(*datapath_, *before, *plan, &failed_port); refused(status)) {
      return status;
    }
    return result;
  }

  DpdkSettingsChange dpdk(plan->next.settings.dpdk);  // the transaction's own port may be what starts DPDK
  PortChanges ports(*datapath_, *before, *plan);
  if (Status status = ports.apply(&failed_port); refused(status)) return status;
  if (plan->settings_changed) {
    if (Status status = datapath_->set_forwarding_threads(plan->next.settings.forwarding_threads); !status.ok()) {
      ports.undo();
      return status;
    }
  }
  if (Status status = commit_to_store(*plan, staged, ahead); !status.ok()) {
    ports.undo();
    (void)datapath_->set_forwarding_threads(before->settings.forwarding_threads).ok();
    return status;
  }
  dpdk.keep();
  max_idle_ms_ = plan->next.settings.max_idle_ms;
  datapath_->set_max_flows(plan->next.settings.max_datapath_flows);
  datapath_->set_kernel_path(plan->next.settings.kernel_path);
  ports.finish();
  publish(*plan, staged, aftermath);
  // Who began to watch before that, and lists now, is told of what the listing may not have had.
  std::vector<ChangeEvent> rule_events;
  for (const auto& [bridge, change] : staged.by_bridge)
    std::ranges::move(describe_rules(bridge, change), std::back_inserter(rule_events));
  forget_addresses(*plan, *before);
  for (const std::string& name : plan->deleted_ports) {
    if (const auto port = before->dp_ports.find(name); port != before->dp_ports.end()) port_log_.forget(port->second);
  }
  const std::shared_ptr<const Configuration> after = configuration();
  for (const std::string& name : plan->created_ports) log_port(*after, name);
  announce(*plan, *before, std::move(rule_events));
  result.revision = revision_;
  return result;
}

std::vector<ChangeEvent> Switch::Implementation::describe_rules(const std::string& bridge,
                                                                const RuleChange& change) const {
  std::vector<ChangeEvent> events;
  if (watchers_.empty()) return events;
  const auto describe = [&](ChangeEvent::Kind kind, const Rule& rule) {
    ChangeEvent event;
    event.kind = kind;
    event.bridge = bridge;
    event.rule_id = rule.id();
    event.rule = std::make_shared<const RuleInfo>(rule_info(rule));
    event.removed_reason = RemovedReason::deleted;
    events.push_back(std::move(event));
  };
  // A modified rule stands in both lists, under the same table, priority and match.
  std::unordered_multimap<size_t, const Rule*> removed;
  for (const Rule* rule : change.removed()) removed.emplace(rule->match().hash(), rule);
  for (const Rule* rule : change.added()) {
    auto [it, end] = removed.equal_range(rule->match().hash());
    while (it != end && !(it->second->table() == rule->table() && it->second->priority() == rule->priority() &&
                          it->second->match() == rule->match())) {
      ++it;
    }
    describe(it == end ? ChangeEvent::Kind::rule_added : ChangeEvent::Kind::rule_modified, *rule);
    if (it != end) removed.erase(it);
  }
  for (const auto& [hash, rule] : removed) describe(ChangeEvent::Kind::rule_removed, *rule);
  return events;
}

void Switch::Implementation::announce(std::vector<ChangeEvent> events) {
  for (ChangeEvent& event : events) {
    event.revision = revision_;
    watchers_.deliver(event);
  }
}

void Switch::Implementation::announce(const ChangePlan& plan, const Configuration& before,
                                      std::vector<ChangeEvent> rule_events) {
  if (watchers_.empty()) return;
  const std::shared_ptr<const Configuration> after = configuration();
  using Kind = ChangeEvent::Kind;
  std::vector<ChangeEvent> events;
  const auto tell = [&](Kind kind, const std::string& bridge, const std::string& port) {
    ChangeEvent event;
    event.kind = kind;
    event.bridge = bridge;
    event.port = port;
    events.push_back(std::move(event));
  };
  for (const std::string& name : plan.deleted_ports) tell(Kind::port_deleted, before.ports.at(name).bridge, name);
  for (const std::string& name : plan.deleted_bridges) tell(Kind::bridge_deleted, name, "");
  for (const std::string& name : plan.created_bridges) tell(Kind::bridge_created, name, "");
  for (const std::string& name : plan.updated_bridges) tell(Kind::bridge_changed, name, "");
  for (const std::string& name : plan.created_ports) tell(Kind::port_created, after->ports.at(name).bridge, name);
  for (const std::string& name : plan.updated_ports) tell(Kind::port_changed, after->ports.at(name).bridge, name);
  if (plan.settings_changed) tell(Kind::settings_changed, "", "");
  announce(std::move(events));
  announce(std::move(rule_events));
}

Result<TransactionResult> Switch::apply(const Transaction& transaction, TransactionFailure* failure) {
  Result<TransactionResult> result = impl_->apply(transaction, failure);
  // What was freed lies between what stays, where free() alone gives nothing back.
  if (result.ok() && result->rules_added + result->rules_removed >= kManyRules) malloc_trim(0);
  return result;
}

RightOfWay::Taken Switch::take_right_of_way() { return impl_->right_of_way_.take(); }

uint64_t Switch::revision() const { return impl_->revision_; }

// ---------------------------------------------------------------- time

void Switch::Implementation::addresses_changed() {
  MutexLock lock(timer_mutex_);
  addresses_changed_ = true;
  upkeep_wakeup_.notify_one();
}

bool Switch::Implementation::wait_for_tick(TickThread& self) {
  self.busy_since = Nanoseconds::max().count();
  MutexLock lock(timer_mutex_);
  if (!stopping_) tick_wakeup_.wait_for(timer_mutex_, kTick);
  self.busy_since = clock_.now().count();
  return !stopping_;
}

void Switch::Implementation::run_ageing() {
  name_this_thread("ageing");
  while (wait_for_tick(ageing_)) {
    expire_addresses();
    port_log_.flush();
  }
}

void Switch::Implementation::run_expiry() {
  name_this_thread("expiry");
  while (wait_for_tick(expiry_)) expire_rules();
}

Switch::Implementation::UpkeepWork Switch::Implementation::wait_for_upkeep() {
  rcu::Offline offline;
  MutexLock lock(timer_mutex_);
  if (!stopping_ && !addresses_changed_ && !crowded_) upkeep_wakeup_.wait_for(timer_mutex_, kTick);
  // More addresses tend to follow: one revalidation for all of them.
  if (!stopping_ && addresses_changed_) upkeep_wakeup_.wait_for(timer_mutex_, kLearningPause);
  crowding_told_.store(false, std::memory_order_release);
  return {stopping_, std::exchange(addresses_changed_, false), std::exchange(crowded_, false)};
}

void Switch::Implementation::run_upkeep() {
  name_this_thread("upkeep");
  lengthen_thread_slice();  // so that who is woken on this core, to answer a call or to forward, goes first at once
  rcu::ThreadRegistration registration;
  Nanoseconds next_tick = clock_.now() + kTick;
  for (;;) {
    upkeep_busy_since_ = Nanoseconds::max().count();
    const UpkeepWork work = wait_for_upkeep();
    if (work.stop) return;
    upkeep_busy_since_ = clock_.now().count();
    if (work.addresses) revalidator_->revalidate_addresses(Revalidator::Urgency::background);
    if (work.crowded) revalidator_->evict();
    if (clock_.now() >= next_tick) {
      next_tick = clock_.now() + kTick;
      revalidator_->push_statistics(Revalidator::Urgency::unhurried);
      revalidator_->expire(std::chrono::milliseconds(max_idle_ms_.load()));
    }
    rcu::quiescent();
  }
}

void Switch::Implementation::take_out_expired(const std::string& bridge, RuleTables& tables, RuleChanges& changes) {
  auto expired = tables.expired(clock_.now());
  // Idle is only what is known to be: packets that datapath flows have counted since may not have been credited yet.
  const Nanoseconds known = revalidator_->credited_until();
  std::erase_if(expired, [known](const auto& item) {
    const auto& [rule, reason] = item;
    return reason == RemovedReason::idle_timeout &&
           rule->stats().used + std::chrono::seconds(rule->idle_timeout()) > known;
  });
  if (expired.empty()) return;
  std::vector<const Rule*> rules;
  std::vector<ChangeEvent> events;
  Store::Batch batch;
  for (const auto& [rule, reason] : expired) {
    rules.push_back(rule);
    batch.delete_rules.push_back(rule->id());
    ChangeEvent event;
    event.kind = ChangeEvent::Kind::rule_removed;
    event.bridge = bridge;
    event.rule_id = rule->id();
    event.rule = std::make_shared<const RuleInfo>(rule_info(*rule));
    event.removed_reason = reason;
    events.push_back(std::move(event));
  }
  RuleChange change = tables.prepare_removal(rules);
  batch.revision = revision_ + 1;
  if (Status status = store_->commit(batch); !status.ok()) {
    // They are tried again at the next tick; forwarding goes on as the store has it.
    spdlog::warn("bridge \"{}\": {} expired rules stay: {}", bridge, rules.size(), status.message());
    return;
  }
  changes.add(change, views_.get().bridges.at(bridge).get());
  change.publish();
  revision_ = revision_ + 1;  // not before: it may be older than what is listed, but not newer
  announce(std::move(events));
}

void Switch::Implementation::take_out_expired(RuleChanges& changes) {
  for (const auto& [name, runtime] : runtimes()) take_out_expired(name, *runtime.tables, changes);
}

void Switch::Implementation::expire_rules() {
  RuleChanges changes;
  if (!changes_mutex_.try_lock()) {
    expiry_put_off_ = true;
    return;
  }
  take_out_expired(changes);
  changes_mutex_.unlock();
  revalidator_->revalidate(changes);
}

void Switch::Implementation::expire_addresses() {
  bool any = false;
  for (const auto& [name, runtime] : runtimes()) any = runtime.macs->expire() || any;
  if (any) addresses_changed();
}

}  // namespace vswitch
