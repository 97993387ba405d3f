// Switch: the whole of vswitchd behind one door. vswitchd/rpc calls this and nothing else; main.cc makes one.
//
// Changes go through apply(): one Transaction, validated whole, applied atomically, durable when it returns, and
// visible to the next packet (datapath flows that depended on what changed have been revalidated). On error nothing has
// changed and the Status names the object and field at fault.
//
// Thread safety: every function may be called from any thread. apply() calls are serialised. Callbacks run on threads
// of the switch, some with its lock held: they must not block or call any function of the switch (ending subscriptions
// is allowed).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "datapath/base/status.h"
#include "datapath/core/datapath.h"
#include "datapath/core/lookup_options.h"
#include "datapath/flow_table/flow_table.h"
#include "vswitchd/control/config.h"
#include "vswitchd/control/right_of_way.h"
#include "vswitchd/rules/rule_tables.h"
#include "vswitchd/translate/mac_table.h"
#include "vswitchd/translate/translate.h"

namespace vswitch {

// ---------------------------------------------------------------- changes

struct CreateBridge {
  BridgeConfig config;  // also makes the local port (internal, of the bridge's name) and the default rule
};
struct UpdateBridge {
  BridgeConfig config;  // found by name
};
struct DeleteBridge {
  std::string name;  // with its ports and rules
};
struct CreatePort {
  PortConfig config;
};
struct UpdatePort {
  PortConfig config;  // found by name; bridge may not change; another type makes the port again with the same ofport
};
struct DeletePort {
  std::string name;
};
struct UpdateSettings {
  Settings settings;
};
struct ModifyRules {
  std::string bridge;
  std::vector<RuleMod> mods;  // in order
};
using Operation = std::variant<CreateBridge, UpdateBridge, DeleteBridge, CreatePort, UpdatePort, DeletePort,
                               UpdateSettings, ModifyRules>;

struct Transaction {
  std::vector<Operation> operations;  // in order; later ones see the earlier ones
  bool validate_only = false;         // dry run: everything that can be checked is checked, nothing changes
};
struct TransactionFailure {
  size_t operation = 0;  // index of the one at fault
  size_t mod = 0;        // ModifyRules: index of the RuleMod at fault
};
struct TransactionResult {
  uint64_t revision = 0;  // of the configuration after it
  size_t rules_added = 0, rules_removed = 0;
};

// ---------------------------------------------------------------- what is there

struct PortInfo {
  PortConfig config;
  OfPort ofport = 0;
  uint32_t dp_port = 0;   // 0: patch ports have none
  bool is_local = false;  // the bridge's own internal port
  VportState state;
  VportStats stats;
};
struct BridgeInfo {
  BridgeConfig config;
  MacAddress mac{};
  uint64_t datapath_id = 0;
  size_t rules = 0;
};

struct DatapathCounters {
  uint64_t hits = 0;           // packets that found a flow
  uint64_t cache_hits = 0;     // of these, through the flow cache
  uint64_t misses = 0;         // packets that did not
  uint64_t lost = 0;           // misses that could not be queued
  uint64_t masks_visited = 0;  // subtables probed, over all lookups
  uint64_t flows = 0, masks = 0;
  uint64_t narrowed = 0;         // flows installed under another mask than they needed: there are enough masks
  uint64_t evictions = 0;        // flows that went to make room for others
  uint64_t cache_evictions = 0;  // likewise, entries of the flow caches
  KernelPathStats kernel_path{};
};
struct DatapathFlow {
  Ufid ufid;
  FlowKey key;
  FlowMask mask;
  ActionList actions;
  FlowStats stats;
  Nanoseconds age{};         // since creation
  Nanoseconds idle{};        // since last use; negative: never used
  bool kernel_path = false;  // the kernel forwards connections of it
};
struct DropCount {
  uint32_t dp_port = 0;  // 0: no port
  std::string port;      // name, "" if gone
  DropReason reason{};
  uint64_t packets = 0;
};
struct PortBalance {  // Ledger's equation for one port
  uint32_t dp_port = 0;
  std::string port;
  uint64_t received = 0, injected = 0, copies = 0, sent = 0, consumed = 0, dropped = 0, queued = 0;
};

struct RuleInfo {
  uint64_t id = 0;
  RuleSpec spec;
  RuleStats stats;
  Nanoseconds duration{};  // since creation
  Nanoseconds idle{};      // since last packet (or creation)
  Nanoseconds hard_age{};  // since last modification
};

// ---------------------------------------------------------------- trace, packets

struct TraceRequest {
  std::string bridge;
  PipelineKey key;              // in_port: OpenFlow port number
  std::vector<uint8_t> packet;  // if not empty, extracted into the key instead (metadata from `key`)
  bool allow_side_effects = false;
  bool names = false;  // of ports, in the texts of nodes and in TraceResult::names
};
// What the cookies of controller actions stand for.
using ControllerRequestMap = std::unordered_map<uint64_t, std::shared_ptr<const ControllerRequest>>;
// One pass through the rules; a recirculation starts the next.
struct TraceSection {
  std::string bridge;  // whose port numbers are in flow and final_flow
  PipelineKey flow;
  std::vector<TraceNode> nodes;
  PipelineKey final_flow;
  FlowMask megaflow_mask;
  FlowKey megaflow_key;  // masked; in_port is the datapath's
  ActionList actions;
  std::string drop_reason;  // "" unless actions is empty or only a drop
  uint32_t recirc_id = 0;
};
struct TraceResult {
  // In the order in which packets come back: first those of the first section. Bounded; an error in the nodes says
  // where a recirculation was not followed.
  std::vector<TraceSection> sections;
  ControllerRequestMap controller_requests;             // that actions name by their cookie
  std::map<std::string, FlowNames, std::less<>> names;  // by bridge; empty unless asked for
};

struct PacketOut {
  std::string bridge;
  OfPort in_port = kOfPortController;
  std::vector<uint8_t> packet;
  RuleActionList actions;
};
struct PacketIn {
  std::string bridge;
  std::vector<uint8_t> packet;  // cut to max_len
  uint32_t total_size = 0;
  PacketInReason reason{};
  uint8_t table = 0;
  uint64_t cookie = 0;
  uint16_t controller_id = 0;
  PipelineKey metadata;  // in_port: OpenFlow port number
  std::vector<uint8_t> userdata;
};

// What changed, for watchers.
struct ChangeEvent {
  enum class Kind : uint8_t {
    bridge_created,
    bridge_changed,
    bridge_deleted,
    port_created,
    port_changed,
    port_deleted,
    port_state,
    settings_changed,
    rule_added,
    rule_modified,
    rule_removed
  };
  uint64_t revision = 0;
  Kind kind{};
  std::string bridge;
  std::string port;
  uint64_t rule_id = 0;
  std::shared_ptr<const RuleInfo> rule;  // rule_*
  RemovedReason removed_reason{};        // rule_removed
};

// ---------------------------------------------------------------- the switch

class Store;  // vswitchd/store/store.h

struct SwitchOptions {
  std::string state_dir;  // the store; "" keeps nothing (tests)
  // Opens the store instead, if set; state_dir is not looked at.
  std::function<Result<std::unique_ptr<Store>>()> open_store;
  const Clock* clock = nullptr;  // null: the monotonic clock
  LookupOptions lookup{};        // how the datapath looks flows up
};

class Switch {
 public:
  // Opens the store and brings back what it holds: rules before ports. Fails, changing nothing, on a store that is
  // corrupt, newer than this program, unreadable or in use.
  static Result<std::unique_ptr<Switch>> open(const SwitchOptions& options);
  ~Switch();

  Result<TransactionResult> apply(const Transaction& transaction, TransactionFailure* failure = nullptr);
  // For who prepares a transaction that somebody waits for: work that nobody waits for lets it go first, as it does
  // with apply().
  RightOfWay::Taken take_right_of_way();
  uint64_t revision() const;

  // Listings are consistent per call, and do not wait for a change that is being carried out: they say what was before
  // (but states and counters of ports are those of the moment: of a port that the change takes away there are none).
  // Unknown names give not_found.
  Settings settings() const;
  std::vector<BridgeInfo> bridges() const;
  Result<BridgeInfo> bridge(const std::string& name) const;
  std::vector<PortInfo> ports(const std::string& bridge = "") const;  // "": of all bridges
  Result<PortInfo> port(const std::string& name) const;
  // What is configured, for who needs no states and counters: these cost a question to each device, and a walk through
  // all flows where there are patch ports.
  Result<PortConfig> port_config(const std::string& name) const;
  std::vector<std::pair<std::string, OfPort>> port_numbers(const std::string& bridge) const;  // by name
  Result<OfPort> resolve_port(const std::string& bridge, const std::string& name) const;

  // Rules. Statistics are brought up to date first. `visit` is called outside any lock; false stops.
  Status visit_rules(const std::string& bridge, const RuleFilter& filter,
                     const std::function<bool(const RuleInfo&)>& visit) const;
  struct Aggregate {
    uint64_t packets = 0, bytes = 0, rules = 0;
  };
  Result<Aggregate> aggregate(const std::string& bridge, const RuleFilter& filter) const;
  Result<std::array<TableStats, kTableCount>> table_stats(const std::string& bridge) const;

  Result<std::vector<MacEntry>> mac_entries(const std::string& bridge) const;
  Status add_static_mac(const std::string& bridge, uint16_t vlan, const MacAddress& mac, const std::string& port);
  Status remove_mac(const std::string& bridge, uint16_t vlan, const MacAddress& mac);
  Status flush_macs(const std::string& bridge);

  Result<TraceResult> trace(const TraceRequest& request);
  // What the cookie of a datapath flow's controller action stands for; null if it is forgotten.
  std::shared_ptr<const ControllerRequest> controller_request(uint64_t cookie) const;
  Status packet_out(const PacketOut& request);
  // Packets that `controller` actions send. bridge "" means all. Ends when the handle is destroyed; no callback runs
  // after. The callback returns whether it took the packet-in: one that nobody took is dropped with
  // controller_queue_full, and with no_controller if there was nobody to ask.
  [[nodiscard]] std::shared_ptr<void> subscribe_packet_in(const std::string& bridge,
                                                          std::function<bool(const PacketIn&)> callback);
  // Every change from now on, in order. Ends with the handle.
  [[nodiscard]] std::shared_ptr<void> watch(std::function<void(const ChangeEvent&)> callback);

  // Datapath.
  DatapathCounters datapath_counters() const;
  void visit_datapath_flows(const std::function<bool(const DatapathFlow&)>& visit) const;
  size_t delete_datapath_flows();
  std::vector<FlowTable::MaskInfo> datapath_masks() const;
  std::vector<DropCount> drops() const;  // only non-zero rows
  std::vector<PortBalance> balances() const;
  Result<size_t> receive_on_dummy(const std::string& port, std::span<const std::vector<uint8_t>> frames);
  std::optional<std::string> dp_port_name(uint32_t dp_port) const;

  // Health: true while every forwarding and handler thread has made progress within the last second or sleeps, the
  // revalidator and the ageing of addresses have not been at one round for more than ten, and the expiry of rules,
  // which may have a million to take out, not for more than sixty.
  bool healthy() const;

 private:
  struct Implementation;
  explicit Switch(std::unique_ptr<Implementation> impl);
  std::unique_ptr<Implementation> impl_;
};

}  // namespace vswitch
