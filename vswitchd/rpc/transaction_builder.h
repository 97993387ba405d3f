// TransactionBuilder: from the steps of an Apply request to a Transaction of the switch.
//
// The API speaks of updates of single fields, of "create unless it is there", of flow text with port names; a
// Transaction holds whole configurations. The builder keeps what the batch has done so far on top of what the switch
// has, so each step sees the ones before. An update of a port that the batch itself creates changes that creation, so
// that `add-port br0 vx1 -- set interface vx1 type=vxlan` makes a tunnel, not a device that is then changed into one.
//
// What it reads must not change before the Transaction is applied: callers hold ServiceContext::changes meanwhile.
// Thread-compatible.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "vswitch/v1/config_service.pb.h"
#include "vswitchd/control/switch.h"
#include "vswitchd/openflow/flow_line.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/rpc/failure.h"

namespace vswitch {

// What the builder wants to know of the switch.
struct ConfigSource {
  std::function<Result<BridgeConfig>(const std::string&)> bridge;
  std::function<Result<PortConfig>(const std::string&)> port;
  std::function<Settings()> settings;
  // Name and OpenFlow number of each port of a bridge.
  std::function<std::vector<std::pair<std::string, OfPort>>(const std::string& bridge)> port_numbers;
};

// The port names of a bridge as the steps of a batch so far leave them, made when the first text turns out to need
// them: most texts have none, and a bridge may have thousands of ports.
class LazyNames {
 public:
  LazyNames(const ConfigSource& source, std::string bridge) : source_(source), bridge_(std::move(bridge)) {}
  const FlowNames* get();
  // Reads texts with these names.
  RuleLineParser& parser() { return parser_; }

  // A step gives a port this name and number, takes a port away, or the bridge with all of them.
  void put(const std::string& name, OfPort port);
  void remove(const std::string& name);
  void remove_all();

  // parse(names) without names first, then with them.
  template <typename Parse>
  auto parse(Parse&& parse_with) {
    if (!names_) {
      auto result = parse_with(nullptr);
      if (result.ok()) return result;
    }
    return parse_with(get());
  }

 private:
  // What was made of the names, and of texts with them, holds no longer.
  void forget();

  const ConfigSource& source_;
  std::string bridge_;
  bool bridge_is_new_ = false;                            // the switch's ports are not its own
  std::map<std::string, std::optional<OfPort>> changes_;  // nullopt: taken away
  std::optional<FlowNames> names_;
  RuleLineParser parser_;
};

class TransactionBuilder {
 public:
  explicit TransactionBuilder(ConfigSource source) : source_(std::move(source)) {}

  Status add(const v1::Operation& operation, size_t* mod_at_fault);
  Status create_bridge(const v1::CreateBridgeRequest& request);
  Status update_bridge(const v1::UpdateBridgeRequest& request);
  Status delete_bridge(const v1::DeleteBridgeRequest& request);
  Status create_port(const v1::CreatePortRequest& request);
  Status update_port(const v1::UpdatePortRequest& request);
  Status delete_port(const v1::DeletePortRequest& request);
  Status update_settings(const v1::UpdateSettingsRequest& request);
  Status modify_rules(const v1::RuleChanges& request, size_t* mod_at_fault);

  // All operations of an Apply, or the first fault.
  std::optional<Failure> add_all(const v1::ApplyRequest& request);

  Transaction& transaction() { return transaction_; }
  // Which step of the request an operation of the transaction comes from.
  size_t origin(size_t operation) const { return operation < origins_.size() ? origins_[operation] : 0; }

 private:
  struct PortEntry {
    std::optional<PortConfig> config;  // nullopt: deleted
    std::optional<size_t> created_by;  // operation of the transaction that creates it
  };

  std::optional<BridgeConfig> find_bridge(const std::string& name) const;
  std::optional<PortEntry> find_port(const std::string& name) const;
  LazyNames& names(const std::string& bridge);
  void push(Operation operation);

  ConfigSource source_;
  Transaction transaction_;
  std::vector<size_t> origins_;
  size_t step_ = 0;
  std::map<std::string, std::optional<BridgeConfig>> bridges_;
  std::set<std::string> deleted_bridges_;
  std::map<std::string, PortEntry> ports_;
  std::optional<Settings> settings_;
  std::map<std::string, LazyNames> names_;
};

}  // namespace vswitch
