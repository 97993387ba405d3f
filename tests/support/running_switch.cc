#include "tests/support/running_switch.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <utility>

#include "tests/support/eventually.h"
#include "tests/support/netns.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/store/store.h"

namespace vswitch::test {
namespace {

[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new PrivateNamespace);

// A store that can be told to fail, and to take its time.
class FailingStore final : public Store {
 public:
  FailingStore(std::shared_ptr<Status> failure, std::shared_ptr<std::function<void()>> before_commit)
      : failure_(std::move(failure)), before_commit_(std::move(before_commit)) {}
  Status commit(const Batch& batch) override {
    (*before_commit_)();
    return failure_->ok() ? store_->commit(batch) : *failure_;
  }
  Status write_ahead(uint64_t id, std::string_view bridge, std::string_view value) override {
    return failure_->ok() ? store_->write_ahead(id, bridge, value) : *failure_;
  }
  void discard() override { store_->discard(); }
  uint64_t revision() const override { return store_->revision(); }
  Status for_each_object(const std::function<Status(const Batch::Object&)>& visit) const override {
    return store_->for_each_object(visit);
  }
  Status for_each_rule(
      const std::function<Status(uint64_t, std::string_view, std::string_view)>& visit) const override {
    return store_->for_each_rule(visit);
  }

 private:
  const std::unique_ptr<Store> store_ = make_memory_store();
  const std::shared_ptr<Status> failure_;
  const std::shared_ptr<std::function<void()>> before_commit_;
};

}  // namespace

Bytes frame(const char* from, const char* to, uint16_t src_port) {
  return PacketBuilder().ethernet(from, to).ipv4("10.0.0.1", "10.0.0.2").udp(src_port, 53).pad_to(60).build();
}

CreateBridge bridge(const std::string& name, FailMode mode) {
  CreateBridge create;
  create.config.name = name;
  create.config.fail_mode = mode;
  return create;
}

CreatePort port(const std::string& bridge_name, const std::string& name, const std::string& type,
                std::map<std::string, std::string> options) {
  CreatePort create;
  create.config.bridge = bridge_name;
  create.config.vport.name = name;
  create.config.vport.type = type;
  create.config.vport.options = std::move(options);
  return create;
}

RuleMod mod(std::string_view text, RuleCommand command) {
  Result<RuleMod> parsed = parse_rule_mod(text, command);
  EXPECT_TRUE(parsed.ok()) << text << ": " << parsed.status().message();
  return std::move(*parsed);
}

ModifyRules rules(const std::string& bridge_name, const std::vector<std::string>& texts, RuleCommand command) {
  ModifyRules modify{bridge_name, {}};
  for (const std::string& text : texts) modify.mods.push_back(mod(text, command));
  return modify;
}

void SwitchTest::SetUp() {
  VSWITCH_REQUIRE_NETNS();
  // Devices that a test makes send nothing by themselves, which would be counted.
  std::ofstream("/proc/sys/net/ipv6/conf/default/disable_ipv6") << 1;
  std::string path = std::filesystem::temp_directory_path() / "vswitch-switch-XXXXXX";
  directory_ = mkdtemp(path.data());
  open();
}

void SwitchTest::TearDown() {
  if (sw_ != nullptr) {
    for (const BridgeInfo& info : sw_->bridges()) EXPECT_EQ(refusal({DeleteBridge{info.config.name}}), "");
    sw_.reset();
  }
  if (!directory_.empty()) std::filesystem::remove_all(directory_);
}

void SwitchTest::open() {
  SwitchOptions options;
  options.state_dir = directory_;
  options.clock = &clock_;
  open_with(options);
}

void SwitchTest::open_with(const SwitchOptions& options) {
  Result<std::unique_ptr<Switch>> opened = Switch::open(options);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  sw_ = std::move(*opened);
}

void SwitchTest::reopen() {
  sw_.reset();
  open();
}

void SwitchTest::apply(std::vector<Operation> operations) { ASSERT_EQ(refusal(std::move(operations)), ""); }

std::string SwitchTest::refusal(std::vector<Operation> operations, TransactionFailure* failure) {
  return sw_->apply({std::move(operations), false}, failure).status().message();
}

void SwitchTest::add_three_ports(FailMode mode) {
  apply({bridge("br0", mode), port("br0", "p1"), port("br0", "p2"), port("br0", "p3")});
}

void SwitchTest::inject(const std::string& name, const std::vector<Bytes>& frames) {
  const Result<size_t> taken = sw_->receive_on_dummy(name, frames);
  ASSERT_TRUE(taken.ok()) << taken.status().message();
}

uint64_t SwitchTest::sent(const std::string& name) { return sw_->port(name)->stats.tx_packets; }

testing::AssertionResult SwitchTest::sends(const std::string& name, uint64_t count) {
  if (eventually([&] { return sent(name) == count; })) return testing::AssertionSuccess();
  return testing::AssertionFailure() << name << " sent " << sent(name) << " packets, not " << count << "; books:\n"
                                     << books();
}

std::string SwitchTest::books() {
  std::string text;
  for (const PortBalance& b : sw_->balances()) {
    text += b.port + ": received " + std::to_string(b.received) + " copies " + std::to_string(b.copies) + " sent " +
            std::to_string(b.sent) + " dropped " + std::to_string(b.dropped) + " queued " + std::to_string(b.queued) +
            "\n";
  }
  return text;
}

void SwitchTest::expect_balance() {
  const auto balanced = [&] {
    for (const PortBalance& b : sw_->balances()) {
      if (b.queued != 0 || b.received + b.injected + b.copies != b.sent + b.consumed + b.dropped) return false;
    }
    return true;
  };
  EXPECT_TRUE(eventually(balanced));
}

uint64_t SwitchTest::drops(const std::string& name, DropReason reason) {
  for (const DropCount& d : sw_->drops()) {
    if (d.port == name && d.reason == reason) return d.packets;
  }
  return 0;
}

std::vector<RuleInfo> SwitchTest::rule_list(const std::string& bridge_name) {
  std::vector<RuleInfo> all;
  EXPECT_TRUE(sw_->visit_rules(bridge_name, {},
                               [&](const RuleInfo& rule) {
                                 all.push_back(rule);
                                 return true;
                               })
                  .ok());
  std::sort(all.begin(), all.end(), [](const RuleInfo& a, const RuleInfo& b) { return a.id < b.id; });
  return all;
}

uint64_t SwitchTest::packets_of(const std::string& filter_text) {
  const Result<RuleFilter> filter = parse_rule_filter(filter_text);
  EXPECT_TRUE(filter.ok());
  return sw_->aggregate("br0", *filter)->packets;
}

std::string SwitchTest::snapshot() {
  std::string text = std::to_string(sw_->revision()) + "\n";
  for (const BridgeInfo& info : sw_->bridges()) {
    text += info.config.name + " " + info.mac.to_string() + "\n";
    for (const RuleInfo& rule : rule_list(info.config.name)) {
      text += std::to_string(rule.id) + " " + format_rule(rule.spec) + "\n";
    }
  }
  for (const PortInfo& info : sw_->ports()) {
    text += info.config.bridge + " " + info.config.name() + " " + info.config.vport.type + " " +
            std::to_string(info.ofport) + " " + std::to_string(info.dp_port) + " " + info.state.error + " " +
            std::to_string(info.state.admin_up) + " " + std::to_string(info.state.mtu);
    for (const auto& [option, value] : info.config.vport.options) text += " " + option + "=" + value;
    text += "\n";
  }
  return text;
}

void FailingStoreTest::open_with_failing_store() {
  sw_.reset();
  SwitchOptions options;
  options.clock = &clock_;
  options.open_store = [this]() -> Result<std::unique_ptr<Store>> {
    return std::unique_ptr<Store>(std::make_unique<FailingStore>(failure_, before_commit_));
  };
  open_with(options);
}

}  // namespace vswitch::test
