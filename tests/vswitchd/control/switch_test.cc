// The whole switch in this process: real devices in a namespace of the test's own, a real store, frames injected into
// dummy ports.
#include "vswitchd/control/switch.h"

#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <thread>

#include "datapath/base/unique_fd.h"
#include "tests/support/eventually.h"
#include "tests/support/netns.h"
#include "tests/support/packet_builder.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/store/store.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::eventually;
using test::PacketBuilder;

[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new test::PrivateNamespace);

constexpr const char* kHost1 = "02:00:00:00:00:01";
constexpr const char* kHost2 = "02:00:00:00:00:02";

Bytes frame(const char* from, const char* to, uint16_t port = 80) {
  return PacketBuilder().ethernet(from, to).ipv4("10.0.0.1", "10.0.0.2").udp(port, 53).pad_to(60).build();
}

CreateBridge bridge(const std::string& name, FailMode mode = FailMode::standalone) {
  CreateBridge create;
  create.config.name = name;
  create.config.fail_mode = mode;
  return create;
}
CreatePort port(const std::string& bridge_name, const std::string& name, const std::string& type = "dummy",
                std::map<std::string, std::string> options = {}) {
  CreatePort create;
  create.config.bridge = bridge_name;
  create.config.vport.name = name;
  create.config.vport.type = type;
  create.config.vport.options = std::move(options);
  return create;
}
RuleMod mod(std::string_view text, RuleCommand command = RuleCommand::add) {
  Result<RuleMod> parsed = parse_rule_mod(text, command);
  EXPECT_TRUE(parsed.ok()) << text << ": " << parsed.status().message();
  return std::move(*parsed);
}
ModifyRules rules(const std::string& bridge_name, const std::vector<std::string>& texts,
                  RuleCommand command = RuleCommand::add) {
  ModifyRules modify{bridge_name, {}};
  for (const std::string& text : texts) modify.mods.push_back(mod(text, command));
  return modify;
}

class SwitchTest : public testing::Test {
 protected:
  void SetUp() override {
    VSWITCH_REQUIRE_NETNS();
    std::string path = std::filesystem::temp_directory_path() / "vswitch-switch-XXXXXX";
    directory_ = mkdtemp(path.data());
    open();
  }
  void TearDown() override {
    if (sw_ == nullptr) return;
    for (const BridgeInfo& info : sw_->bridges()) EXPECT_EQ(refusal({DeleteBridge{info.config.name}}), "");
    sw_.reset();
    std::filesystem::remove_all(directory_);
  }

  void open() {
    SwitchOptions options;
    options.state_dir = directory_;
    options.clock = &clock_;
    Result<std::unique_ptr<Switch>> opened = Switch::open(options);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    sw_ = std::move(*opened);
  }
  void reopen() {
    sw_.reset();
    open();
  }

  void apply(std::vector<Operation> operations) { ASSERT_EQ(refusal(std::move(operations)), ""); }
  // "" if it was applied.
  std::string refusal(std::vector<Operation> operations, TransactionFailure* failure = nullptr) {
    return sw_->apply({std::move(operations), false}, failure).status().message();
  }
  void add_three_ports(FailMode mode = FailMode::standalone) {
    apply({bridge("br0", mode), port("br0", "p1"), port("br0", "p2"), port("br0", "p3")});
  }
  void inject(const std::string& name, const std::vector<Bytes>& frames) {
    const Result<size_t> taken = sw_->receive_on_dummy(name, frames);
    ASSERT_TRUE(taken.ok()) << taken.status().message();
  }
  uint64_t sent(const std::string& name) { return sw_->port(name)->stats.tx_packets; }
  testing::AssertionResult sends(const std::string& name, uint64_t count) {
    if (eventually([&] { return sent(name) == count; })) return testing::AssertionSuccess();
    return testing::AssertionFailure() << name << " sent " << sent(name) << " packets, not " << count << "; books:\n"
                                       << books();
  }
  std::string books() {
    std::string text;
    for (const PortBalance& b : sw_->balances()) {
      text += b.port + ": received " + std::to_string(b.received) + " copies " + std::to_string(b.copies) + " sent " +
              std::to_string(b.sent) + " dropped " + std::to_string(b.dropped) + " queued " + std::to_string(b.queued) +
              "\n";
    }
    return text;
  }
  // Waits until no packet is on its way and checks that every one is accounted for.
  void expect_balance() {
    const auto balanced = [&] {
      for (const PortBalance& b : sw_->balances()) {
        if (b.queued != 0 || b.received + b.injected + b.copies != b.sent + b.consumed + b.dropped) return false;
      }
      return true;
    };
    EXPECT_TRUE(eventually(balanced));
  }
  uint64_t drops(const std::string& name, DropReason reason) {
    for (const DropCount& d : sw_->drops()) {
      if (d.port == name && d.reason == reason) return d.packets;
    }
    return 0;
  }
  std::vector<RuleInfo> rule_list(const std::string& bridge_name = "br0") {
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
  uint64_t packets_of(const std::string& filter_text) {
    const Result<RuleFilter> filter = parse_rule_filter(filter_text);
    EXPECT_TRUE(filter.ok());
    return sw_->aggregate("br0", *filter)->packets;
  }
  // Everything configured, as text: equal before and after means nothing changed.
  std::string snapshot() {
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

  ManualClock clock_;
  std::string directory_;
  std::unique_ptr<Switch> sw_;
};

// ---------------------------------------------------------------- forwarding

TEST_F(SwitchTest, LearnsAddresses) {
  add_three_ports();
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 1));
  ASSERT_TRUE(sends("p3", 1)) << "an unknown destination is flooded";
  inject("p2", {frame(kHost2, kHost1)});
  ASSERT_TRUE(sends("p1", 1));
  // The flow that flooded is corrected without anybody asking.
  ASSERT_TRUE(eventually([&] {
    bool floods = false;
    sw_->visit_datapath_flows([&](const DatapathFlow& flow) {
      floods = floods || flow.actions.size() > 1;
      return true;
    });
    return !floods;
  }));
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 2));
  EXPECT_EQ(sent("p3"), 1u);
  const auto macs = sw_->mac_entries("br0");
  ASSERT_EQ(macs->size(), 2u);
  EXPECT_EQ((*macs)[1].port, sw_->port("p2")->ofport);
  expect_balance();
}

TEST_F(SwitchTest, AnAppliedRuleDecidesTheNextPacket) {
  add_three_ports(FailMode::secure);
  for (int i = 0; i < 50; ++i) {
    const std::string to = i % 2 == 0 ? "2" : "3";
    apply({rules("br0", {"in_port=1,actions=output:" + to})});
    const uint64_t before = sent("p" + to);
    inject("p1", {frame(kHost1, kHost2)});
    ASSERT_TRUE(sends("p" + to, before + 1)) << "change " << i;
  }
  EXPECT_EQ(sent("p2") + sent("p3"), 50u);
  EXPECT_EQ(packets_of(""), 50u) << "the rule's counts outlive its changes";
  expect_balance();
}

TEST_F(SwitchTest, CountsExactly) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"table=0,udp,tp_src=7,actions=output:2", "table=0,priority=9,udp,tp_src=8,actions=resubmit(,1)",
                       "table=1,actions=output:3"})});
  for (int i = 0; i < 40; ++i) inject("p1", {frame(kHost1, kHost2, 7), frame(kHost1, kHost2, 8)});
  ASSERT_TRUE(sends("p2", 40));
  ASSERT_TRUE(sends("p3", 40));
  EXPECT_EQ(packets_of("table=0,udp,tp_src=7"), 40u);
  EXPECT_EQ(packets_of("table=0,udp,tp_src=8"), 40u);
  EXPECT_EQ(packets_of("table=1"), 40u);
  EXPECT_EQ(sw_->aggregate("br0", {})->bytes, 120u * 60);
  const auto tables = *sw_->table_stats("br0");
  EXPECT_EQ(tables[0].lookups, 80u);
  EXPECT_EQ(tables[0].matches, 80u);
  EXPECT_EQ(tables[1].matches, 40u);
  EXPECT_EQ(sw_->delete_datapath_flows(), 2u);
  EXPECT_EQ(packets_of(""), 120u);
}

TEST_F(SwitchTest, NamesItsDrops) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"udp,tp_src=1,actions=drop"})});
  inject("p1", {frame(kHost1, kHost2, 1), frame(kHost1, kHost2, 2), Bytes(10)});
  ASSERT_TRUE(eventually([&] {
    return drops("p1", DropReason::of_pipeline) == 1 && drops("p1", DropReason::no_rule) == 1 &&
           drops("p1", DropReason::rx_invalid_packet) == 1;
  }));
  expect_balance();
}

TEST_F(SwitchTest, FlowsEndWhenIdle) {
  add_three_ports();
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(eventually([&] { return sw_->datapath_counters().flows == 1; }));
  clock_.advance(9s);
  clock_.advance(2s);
  ASSERT_TRUE(eventually([&] { return sw_->datapath_counters().flows == 0; }));
  EXPECT_EQ(packets_of(""), 1u);
}

TEST_F(SwitchTest, RulesTimeOut) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"in_port=1,idle_timeout=10,actions=output:2", "in_port=2,hard_timeout=15,actions=output:1",
                       "in_port=3,actions=output:1"})});
  std::mutex mutex;
  std::vector<RemovedReason> reasons;
  const auto watch = sw_->watch([&](const ChangeEvent& event) {
    if (event.kind != ChangeEvent::Kind::rule_removed) return;
    std::lock_guard lock(mutex);
    reasons.push_back(event.removed_reason);
  });
  const auto seen = [&] {
    std::lock_guard lock(mutex);
    return reasons.size();
  };
  clock_.advance(9s);
  inject("p1", {frame(kHost1, kHost2)});  // keeps the first alive
  ASSERT_TRUE(sends("p2", 1));
  clock_.advance(7s);
  ASSERT_TRUE(eventually([&] { return seen() == 1; }));
  EXPECT_EQ(reasons[0], RemovedReason::hard_timeout);
  clock_.advance(4s);
  ASSERT_TRUE(eventually([&] { return seen() == 2; }));
  EXPECT_EQ(reasons[1], RemovedReason::idle_timeout);
  EXPECT_EQ(rule_list().size(), 1u);
  reopen();
  EXPECT_EQ(rule_list().size(), 1u) << "what timed out does not come back";
}

// Traffic that was not credited yet when the port went must not bring its addresses back.
TEST_F(SwitchTest, AddressesOfADeletedPortStayForgotten) {
  add_three_ports();
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 1));
  inject("p1", std::vector<Bytes>(5, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p2", 6));
  apply({DeletePort{"p1"}, port("br0", "p4")});
  EXPECT_EQ(sw_->port("p4")->ofport, 1) << "the same number: traffic for the old port would go there";
  EXPECT_TRUE(sw_->mac_entries("br0")->empty());
  inject("p2", {frame(kHost2, kHost1)});
  ASSERT_TRUE(sends("p3", 7)) << "flooded";
}

TEST_F(SwitchTest, OtherVlansForgetAddresses) {
  add_three_ports();
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 1));
  UpdatePort update{sw_->port("p1")->config};
  update.config.vlan.mode = VlanMode::access;
  update.config.vlan.tag = 7;
  apply({update});
  EXPECT_TRUE(sw_->mac_entries("br0")->empty());
}

TEST_F(SwitchTest, PatchPortsJoinBridges) {
  apply({bridge("br0"), bridge("br1"), port("br0", "p1"), port("br1", "p2"),
         port("br0", "to1", "patch", {{"peer", "to0"}}), port("br1", "to0", "patch", {{"peer", "to1"}})});
  inject("p1", std::vector<Bytes>(3, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p2", 3));
  EXPECT_EQ(sw_->port("to1")->stats.tx_packets, 3u);
  EXPECT_EQ(sw_->port("to0")->stats.rx_packets, 3u);
  EXPECT_EQ(sw_->port("to0")->state.error, "");
  apply({DeletePort{"to0"}});
  EXPECT_EQ(sw_->port("to1")->state.error, "peer \"to0\" does not exist");
  expect_balance();
}

TEST_F(SwitchTest, APatchLoopIsCutAndCounted) {
  apply({bridge("br0", FailMode::secure), bridge("br1", FailMode::secure), port("br0", "p1"), port("br0", "p2"),
         port("br0", "to1", "patch", {{"peer", "to0"}}), port("br1", "to0", "patch", {{"peer", "to1"}}),
         rules("br0", {"in_port=1,actions=output:2,output:3", "in_port=3,actions=in_port"}),
         rules("br1", {"actions=in_port"})});
  inject("p1", std::vector<Bytes>(3, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p2", 3));
  EXPECT_TRUE(eventually([&] { return drops("p1", DropReason::recursion_too_deep) == 3; })) << books();
  expect_balance();
}

// ---------------------------------------------------------------- recirculation

TEST_F(SwitchTest, RecirculatesRealPackets) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"in_port=1,actions=load:5->reg0[],mod_dl_src:02:00:00:00:00:09,debug_recirc,resubmit(,1)",
                       "table=1,reg0=5,udp,actions=debug_recirc,output:2"})});
  inject("p1", std::vector<Bytes>(5, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p2", 5));
  EXPECT_EQ(sw_->datapath_counters().flows, 3u);
  EXPECT_EQ(packets_of("table=0"), 5u);
  EXPECT_EQ(packets_of("table=1"), 5u);

  // Another rule: what was installed for the second and third pass follows.
  apply({rules("br0", {"table=1,reg0=5,udp,actions=output:3"})});
  inject("p1", std::vector<Bytes>(4, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p3", 4));
  // Another state: the packet comes back under another number.
  apply({rules("br0",
               {"in_port=1,actions=load:6->reg0[],debug_recirc,resubmit(,1)", "table=1,reg0=6,actions=output:2"})});
  inject("p1", std::vector<Bytes>(2, frame(kHost1, kHost2)));
  ASSERT_TRUE(sends("p2", 7));
  EXPECT_EQ(packets_of("table=1,reg0=6"), 2u);

  // Flows keep their contexts alive, however idle the switch is otherwise; then all goes.
  for (int i = 0; i < 12; ++i) clock_.advance(1s);
  ASSERT_TRUE(eventually([&] { return sw_->datapath_counters().flows == 0; }));
  for (int i = 0; i < 3; ++i) clock_.advance(1s);
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 8));
  expect_balance();
}

TEST_F(SwitchTest, EndlessRecirculationEnds) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"in_port=1,actions=debug_recirc,resubmit(,0)"})});
  inject("p1", {frame(kHost1, kHost2)});
  EXPECT_TRUE(eventually([&] { return drops("p1", DropReason::recirculation_limit) == 1; }));
  expect_balance();
}

TEST_F(SwitchTest, APacketOutMayRecirculate) {
  add_three_ports(FailMode::secure);
  PacketOut out;
  out.bridge = "br0";
  out.packet = frame(kHost1, kHost2);
  out.actions = *parse_actions("mod_dl_src:02:00:00:00:00:09,debug_recirc,output:2,debug_recirc,output:3");
  ASSERT_TRUE(sw_->packet_out(out).ok());
  ASSERT_TRUE(sends("p2", 1));
  ASSERT_TRUE(sends("p3", 1));
  expect_balance();
}

TEST_F(SwitchTest, TraceFollowsRecirculationAndLeavesNothing) {
  add_three_ports(FailMode::secure);
  apply({rules("br0",
               {"in_port=1,cookie=0x7,actions=mod_dl_src:02:00:00:00:00:09,debug_recirc,clone(debug_recirc,output:2),"
                "controller(id=4),output:3",
                "in_port=2,actions=debug_recirc,resubmit(,0)"})});
  TraceRequest request;
  request.bridge = "br0";
  request.packet = frame(kHost1, kHost2);
  request.key.packet.in_port = 1;
  std::vector<uint32_t> ids;
  for (int i = 0; i < 2; ++i) {
    const auto result = sw_->trace(request);
    ASSERT_TRUE(result.ok()) << result.status().message();
    ASSERT_EQ(result->sections.size(), 3u);
    EXPECT_EQ(result->sections[0].recirc_id, 0u);
    EXPECT_EQ(result->sections[1].flow.packet.eth_src.to_string(), "02:00:00:00:00:09");
    EXPECT_EQ(result->sections[1].flow.packet.in_port, 1u);
    EXPECT_EQ(result->sections[2].actions, ActionList{OutputAction{sw_->port("p2")->dp_port}});
    ASSERT_EQ(result->controller_requests.size(), 1u);
    EXPECT_EQ(result->controller_requests.begin()->second->rule_cookie, 0x7u);
    EXPECT_EQ(sw_->controller_request(result->controller_requests.begin()->first), nullptr) << "left behind";
    for (const TraceSection& section : result->sections) ids.push_back(section.recirc_id);
  }
  EXPECT_EQ(ids[1], ids[4]) << "the first trace has given its numbers back";
  request.key.packet.in_port = 2;
  const auto endless = sw_->trace(request);
  ASSERT_TRUE(endless.ok());
  EXPECT_EQ(endless->sections.size(), 9u);
  EXPECT_EQ(endless->sections.back().nodes.back().kind, TraceNode::Kind::error);
}

// ---------------------------------------------------------------- transactions

TEST_F(SwitchTest, ValidateOnlyChangesNothing) {
  add_three_ports();
  const std::string before = snapshot();
  Transaction transaction{{bridge("br1"), port("br1", "q1"), rules("br1", {"actions=drop"}), DeleteBridge{"br0"}},
                          true};
  const auto result = sw_->apply(transaction);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->rules_added, 2u);
  EXPECT_EQ(snapshot(), before);
  transaction.operations.push_back(DeletePort{"nonsense"});
  EXPECT_EQ(sw_->apply(transaction).status().message(), "no port named \"nonsense\"");
}

// The last operation is refused by the system; everything before it must be as if it had never been.
TEST_F(SwitchTest, AFailedTransactionChangesNothing) {
  add_three_ports();
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 1));
  const std::string before = snapshot();
  UpdatePort update{sw_->port("p2")->config};
  update.config.vport.mtu_request = 900;
  update.config.flags.down = true;
  TransactionFailure failure;
  const std::string message = refusal({rules("br0", {"priority=5,actions=drop"}), bridge("br9"), port("br9", "q1"),
                                       DeletePort{"p3"}, update, port("br0", "no-such-dev", "netdev")},
                                      &failure);
  EXPECT_NE(message.find("no-such-dev"), std::string::npos) << message;
  EXPECT_EQ(failure.operation, 5u);
  EXPECT_EQ(snapshot(), before);
  EXPECT_EQ(::if_nametoindex("br9"), 0u) << "left a device behind";
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 2));
  reopen();
  EXPECT_EQ(snapshot(), before);
}

// A store that can be told to fail.
class FailingStore final : public Store {
 public:
  explicit FailingStore(std::shared_ptr<Status> failure) : failure_(std::move(failure)) {}
  Status commit(const Batch& batch) override { return failure_->ok() ? store_->commit(batch) : *failure_; }
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
};

class FailingStoreTest : public SwitchTest {
 protected:
  void open_with_failing_store() {
    sw_.reset();
    SwitchOptions options;
    options.clock = &clock_;
    options.open_store = [this]() -> Result<std::unique_ptr<Store>> {
      return std::unique_ptr<Store>(std::make_unique<FailingStore>(failure_));
    };
    Result<std::unique_ptr<Switch>> opened = Switch::open(options);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    sw_ = std::move(*opened);
  }

  const std::shared_ptr<Status> failure_ = std::make_shared<Status>();  // what commits fail with; ok: they do not
};

// Rules as many as make their way to the store while they are still being staged: 1,000 of them twice, 500 of them
// taken out again, and the last wrong if `wrong`.
ModifyRules many_rules(bool wrong = false) {
  constexpr int kRules = 24'000;
  ModifyRules modify{"br0", {}};
  for (int i = 0; i < kRules; ++i) {
    const int host = i >= 20'000 && i < 21'000 ? i - 20'000 : i;
    modify.mods.push_back(mod("ip,nw_dst=10.0." + std::to_string(host / 256) + "." + std::to_string(host % 256) +
                              ",actions=output:" + std::to_string(1 + i % 2)));
  }
  modify.mods.push_back(mod("ip,nw_dst=10.0.0.0/24", RuleCommand::remove));
  modify.mods.push_back(mod("ip,nw_dst=10.0.1.0/25", RuleCommand::remove));
  modify.mods.push_back(mod("ip,nw_dst=10.0.0.0/16,actions=drop"));
  if (wrong) modify.mods.back().spec.table = kTableAll;
  return modify;
}

TEST_F(SwitchTest, ManyRulesComeBackAsTheyWere) {
  add_three_ports();
  apply({rules("br0", {"ip,nw_dst=10.0.9.9,actions=drop", "ip,nw_dst=10.0.0.3,actions=drop"})});
  const std::string before = snapshot();
  TransactionFailure failure;
  EXPECT_NE(refusal({many_rules(true)}, &failure), "");
  EXPECT_EQ(failure.mod, 24'002u);
  EXPECT_EQ(snapshot(), before);
  apply({many_rules()});
  const std::string after = snapshot();
  EXPECT_NE(after, before);
  EXPECT_EQ(rule_list().size(), 24'000u - 1'000 - 256 - 128 + 1 + 1);
  reopen();
  EXPECT_EQ(snapshot(), after);
  // A bridge that goes and comes in one transaction takes its old rules along, not its new ones.
  apply({DeleteBridge{"br0"}, bridge("br0", FailMode::secure), many_rules()});
  const std::string made_again = snapshot();
  reopen();
  EXPECT_EQ(snapshot(), made_again);
}

TEST_F(FailingStoreTest, AStoreThatFailsInTheMiddleOfManyRulesChangesNothing) {
  ASSERT_NO_FATAL_FAILURE(open_with_failing_store());
  add_three_ports();
  const std::string before = snapshot();
  *failure_ = resource_exhausted("the store: database or disk is full");
  EXPECT_EQ(refusal({many_rules()}), "the store: database or disk is full");
  EXPECT_EQ(snapshot(), before);
  *failure_ = Status();
  apply({many_rules()});
}

// Everything in the switch and in the system is as it was, and the reply says why.
TEST_F(FailingStoreTest, AStoreThatFailsChangesNothing) {
  ASSERT_NO_FATAL_FAILURE(open_with_failing_store());
  test::add_veth("dev1", "far1");
  add_three_ports();
  apply({port("br0", "dev1", "netdev"), port("br0", "vx5", "vxlan", {{"remote_ip", "flow"}, {"key", "5"}}),
         rules("br0", {"priority=7,in_port=1,actions=2"})});
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 1));
  const std::string before = snapshot();
  const auto macs = sw_->mac_entries("br0")->size();

  UpdatePort larger{sw_->port("dev1")->config};
  larger.config.vport.mtu_request = 1400;
  larger.config.vport.mac = MacAddress::from_u64(0x020000001234);
  larger.config.flags.down = true;
  UpdatePort moved{sw_->port("vx5")->config};
  moved.config.vport.options["key"] = "6";
  UpdateBridge bridge_update{sw_->bridge("br0")->config};
  bridge_update.config.mac = MacAddress::from_u64(0x020000005678);
  UpdateSettings settings{sw_->settings()};
  settings.settings.forwarding_threads = 2;
  settings.settings.max_idle_ms = 123;
  const std::vector<Operation> everything = {rules("br0", {"priority=9,actions=drop"}),
                                             bridge("br9"),
                                             port("br9", "tap9", "internal"),
                                             port("br9", "vx9", "vxlan", {{"remote_ip", "10.0.0.1"}}),
                                             DeletePort{"p3"},
                                             larger,
                                             moved,
                                             bridge_update,
                                             settings};
  const MacAddress dev1_mac = sw_->port("dev1")->state.mac;
  for (const Status& error : {resource_exhausted("the store: database or disk is full"),
                              failed_precondition("the store: attempt to write a readonly database"),
                              internal_error("the store: disk I/O error")}) {
    *failure_ = error;
    const auto result = sw_->apply({everything, false});
    EXPECT_EQ(result.status(), error);
    EXPECT_EQ(snapshot(), before);
    EXPECT_EQ(::if_nametoindex("br9"), 0u) << "left a device behind";
    EXPECT_EQ(::if_nametoindex("tap9"), 0u) << "left a device behind";
    EXPECT_EQ(sw_->port("dev1")->state.mac, dev1_mac);
    EXPECT_EQ(sw_->settings().forwarding_threads, 1u);
    // Hosts on the devices may be heard of meanwhile; nothing may be forgotten.
    EXPECT_GE(sw_->mac_entries("br0")->size(), macs);
  }
  // A bridge with everything in it, too.
  EXPECT_EQ(refusal({DeleteBridge{"br0"}}), "the store: disk I/O error");
  EXPECT_EQ(snapshot(), before);
  // The old rules forward on the old ports.
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 1)) << "counters of a port that was deleted and put back begin anew";
  *failure_ = Status();
  apply(everything);
  EXPECT_NE(::if_nametoindex("tap9"), 0u);
  EXPECT_EQ(sw_->port("dev1")->state.mtu, 1400u);
  for (const BridgeInfo& info : sw_->bridges()) apply({DeleteBridge{info.config.name}});
  sw_.reset();
  test::delete_link("dev1");
}

// What the real run would be refused for, a dry run tells in the same words and changes nothing.
TEST_F(SwitchTest, ADryRunTellsWhatTheSystemWouldRefuse) {
  add_three_ports();
  test::add_veth("dev1", "far1");
  test::add_veth("dev2", "far2");
  const UniqueFd taken(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(4790);
  ASSERT_EQ(::bind(taken.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  apply({port("br0", "vx5", "vxlan", {{"remote_ip", "10.0.0.1"}, {"key", "5"}}), port("br0", "dev2", "netdev")});
  CreatePort huge = port("br0", "tap9", "internal");
  huge.config.vport.mtu_request = 65535;
  UpdatePort huger{sw_->port("br0")->config};
  huger.config.vport.mtu_request = 65535;
  UpdatePort elsewhere{sw_->port("dev2")->config};
  elsewhere.config.vport.options["device"] = "no-such-dev";
  const std::vector<std::pair<Operation, std::string>> cases = {
      {port("br0", "no-such-dev", "netdev"), "port no-such-dev: device no-such-dev does not exist"},
      {port("br0", "lo", "netdev"), "port lo: device lo is a loopback device, which cannot be a port"},
      {port("br0", "p9", "netdev", {{"device", "lo"}}),
       "port p9: device lo is a loopback device, which cannot be a port"},
      {huge, "port tap9: MTU 65535 is not between 68 and 65521"},
      {huger, "port br0: MTU 65535 is not between 68 and 65521"},
      {port("br0", "dev1", "internal"), "port dev1: device dev1 exists and is of kind veth"},
      {bridge("dev1"), "port dev1: device dev1 exists and is of kind veth"},
      {port("br0", "vx6", "vxlan", {{"remote_ip", "10.0.0.1"}, {"key", "5"}}), "port vx6: port vx5 already receives"},
      {port("br0", "vx6", "vxlan", {{"remote_ip", "10.0.0.1"}, {"dst_port", "4790"}}),
       "port vx6: UDP port 4790 (IPv4) is in use by process"},
      {port("br0", "vx6", "vxlan", {{"remote_ip", "10.0.0.1"}, {"local_ip", "10.9.9.9"}}),
       "port vx6: local_ip=10.9.9.9: not an address of this host"},
      {port("br0", "d9", "dummy", {{"tx_pcap", "/no/such/directory/x.pcap"}}),
       "port d9: /no/such/directory/x.pcap: No such file"},
      {port("br0", "pc9", "pcap", {{"rx_pcap", "/no/such/file.pcap"}}), "port pc9: /no/such/file.pcap: No such file"},
      {elsewhere, "port dev2: device no-such-dev does not exist"},
  };
  const std::string before = snapshot();
  for (const auto& [operation, message] : cases) {
    SCOPED_TRACE(message);
    TransactionFailure dry, real;
    const Transaction transaction{{rules("br0", {"actions=drop"}), operation}, true};
    const Status told = sw_->apply(transaction, &dry).status();
    const Status refused = sw_->apply({transaction.operations, false}, &real).status();
    EXPECT_EQ(told.message().substr(0, message.size()), message);
    EXPECT_EQ(told, refused);
    EXPECT_EQ(dry.operation, real.operation);
    EXPECT_EQ(snapshot(), before);
  }
  EXPECT_TRUE(sw_->apply({{DeletePort{"vx5"}, port("br0", "vx6", "vxlan", {{"remote_ip", "10.0.0.1"}, {"key", "5"}}),
                           port("br0", "dev1", "netdev")},
                          true})
                  .ok());
  EXPECT_EQ(snapshot(), before);
  apply({DeletePort{"dev2"}});
  test::delete_link("dev1");
  test::delete_link("dev2");
}

// Tunnels may pass their keys on to each other in one transaction, also in a ring; and if something else fails, all
// have what they had.
TEST_F(SwitchTest, TunnelsSwapTheirKeys) {
  apply({bridge("br0")});
  for (const char* key : {"1", "2", "3"}) {
    apply({port("br0", std::string("vx") + key, "vxlan", {{"remote_ip", "10.9.9.9"}, {"key", key}})});
  }
  const auto changes = [&](const std::map<std::string, std::string>& keys) {
    std::vector<Operation> updates;
    for (const auto& [name, key] : keys) {
      UpdatePort update{sw_->port(name)->config};
      update.config.vport.options["key"] = key;
      updates.push_back(update);
    }
    return updates;
  };
  const auto has = [&](const std::string& name, const std::string& key) {
    EXPECT_EQ(sw_->port(name)->config.vport.options.at("key"), key);
    EXPECT_EQ(sw_->port(name)->state.error, "port " + name + ": no route to 10.9.9.9") << "and no other error";
    const Operation other = port("br0", "vx9", "vxlan", {{"remote_ip", "10.9.9.9"}, {"key", key}});
    EXPECT_EQ(refusal({other}).substr(0, 23), "port vx9: port " + name + " alre");
  };
  apply(changes({{"vx1", "2"}, {"vx2", "4"}}));  // the other order
  has("vx1", "2");
  has("vx2", "4");
  apply(changes({{"vx1", "4"}, {"vx2", "2"}}));
  has("vx1", "4");
  has("vx2", "2");
  apply(changes({{"vx1", "2"}, {"vx2", "3"}, {"vx3", "4"}}));
  has("vx1", "2");
  has("vx2", "3");
  has("vx3", "4");
  std::vector<Operation> failing = changes({{"vx1", "3"}, {"vx2", "2"}});
  failing.push_back(port("br0", "no-such-dev", "netdev"));
  const std::string before = snapshot();
  EXPECT_NE(refusal(failing), "");
  EXPECT_EQ(snapshot(), before);
  has("vx1", "2");
  has("vx2", "3");
}

TEST_F(SwitchTest, ARefusedRuleIsNamed) {
  add_three_ports();
  const std::string before = snapshot();
  RuleMod overlap = mod("priority=7,udp,actions=drop");
  overlap.spec.flags |= kRuleCheckOverlap;
  TransactionFailure failure;
  ModifyRules second = rules("br0", {"priority=8,actions=drop"});
  second.mods.push_back(overlap);
  EXPECT_NE(refusal({port("br0", "p4"), rules("br0", {"priority=7,ip,actions=drop"}), second}, &failure), "");
  EXPECT_EQ(failure.operation, 2u);
  EXPECT_EQ(failure.mod, 1u);
  EXPECT_EQ(snapshot(), before);
}

TEST_F(SwitchTest, APortThatIsMadeAgainStaysDown) {
  apply({bridge("br0"), port("br0", "vx", "vxlan", {{"remote_ip", "10.9.9.9"}, {"key", "1"}})});
  UpdatePort update{sw_->port("vx")->config};
  update.config.flags.down = true;
  apply({update});
  ASSERT_FALSE(sw_->port("vx")->state.admin_up);
  update.config.vport.options["dst_port"] = "5789";
  apply({update});
  EXPECT_FALSE(sw_->port("vx")->state.admin_up);
  update.config.vport.type = "dummy";
  update.config.vport.options.clear();
  const OfPort ofport = sw_->port("vx")->ofport;
  apply({update});
  EXPECT_FALSE(sw_->port("vx")->state.admin_up);
  EXPECT_EQ(sw_->port("vx")->ofport, ofport);
}

TEST_F(SwitchTest, DeletedAndMadeAgainInOneTransaction) {
  add_three_ports();
  const uint32_t ifindex = ::if_nametoindex("br0");
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 1));
  apply({DeleteBridge{"br0"}, bridge("br0", FailMode::secure), port("br0", "p1"), port("br0", "p2"),
         rules("br0", {"in_port=1,actions=output:2"})});
  EXPECT_EQ(rule_list().size(), 1u);
  EXPECT_EQ(sw_->ports().size(), 3u);
  EXPECT_TRUE(sw_->mac_entries("br0")->empty());
  EXPECT_EQ(::if_nametoindex("br0"), ifindex) << "the host's device lives on";
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(sends("p2", 1));
  expect_balance();
  const std::string before = snapshot();
  reopen();
  EXPECT_EQ(snapshot(), before);
}

TEST_F(SwitchTest, SettingsTakeEffectAtOnce) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"udp,actions=move:NXM_OF_UDP_SRC[]->NXM_NX_REG0[0..15],output:2"})});
  Settings settings;
  settings.max_datapath_flows = 1000;
  settings.forwarding_threads = 3;
  apply({UpdateSettings{settings}});
  std::vector<Bytes> frames;
  for (int i = 0; i < 1200; ++i) {
    frames.push_back(frame(kHost1, kHost2, static_cast<uint16_t>(1000 + i)));
    if (frames.size() < 100) continue;
    const uint64_t before = sent("p2");
    inject("p1", frames);
    ASSERT_TRUE(sends("p2", before + 100));
    frames.clear();
  }
  EXPECT_LE(sw_->datapath_counters().flows, 1000u);
  EXPECT_EQ(packets_of(""), 1200u) << "those without a flow count too";
  expect_balance();
}

// ---------------------------------------------------------------- restart

TEST_F(SwitchTest, ComesBackAsItWas) {
  add_three_ports();
  apply({bridge("br1", FailMode::secure), port("br1", "vx", "vxlan", {{"remote_ip", "flow"}, {"key", "flow"}}),
         rules("br1", {"table=3,priority=17,tcp,tp_dst=80,actions=dec_ttl,output:1", "cookie=0x5,actions=NORMAL"})});
  apply({DeletePort{"p2"}, rules("br1", {"actions=drop"})});
  const std::string before = snapshot();
  const uint32_t ifindex = ::if_nametoindex("br0");
  reopen();
  EXPECT_EQ(snapshot(), before);
  EXPECT_EQ(::if_nametoindex("br0"), ifindex);
  // New rules get new ids.
  apply({rules("br1", {"table=9,actions=drop"})});
  EXPECT_EQ(rule_list("br1").back().spec.table, 9);
}

TEST_F(SwitchTest, ASecondSwitchOnTheSameStoreIsRefused) {
  SwitchOptions options;
  options.state_dir = directory_;
  const auto second = Switch::open(options);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.status().message().find("in use by another vswitchd"), std::string::npos);
}

// ---------------------------------------------------------------- packets in and out, trace, watch

TEST_F(SwitchTest, PacketInAndOut) {
  add_three_ports(FailMode::secure);
  apply({rules("br0", {"cookie=0x77,in_port=1,actions=controller(max_len=20,id=3,userdata=01.02)"})});
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(eventually([&] { return drops("p1", DropReason::no_controller) == 1; })) << "nobody listens";
  std::mutex mutex;
  std::vector<PacketIn> got;
  auto subscription = sw_->subscribe_packet_in("br0", [&](const PacketIn& packet) {
    std::lock_guard lock(mutex);
    got.push_back(packet);
    return got.size() < 2;  // the second is one too many
  });
  const auto count = [&] {
    std::lock_guard lock(mutex);
    return got.size();
  };
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(eventually([&] { return count() == 1; }));
  EXPECT_EQ(got[0].bridge, "br0");
  EXPECT_EQ(got[0].packet.size(), 20u);
  EXPECT_EQ(got[0].total_size, 60u);
  EXPECT_EQ(got[0].cookie, 0x77u);
  EXPECT_EQ(got[0].controller_id, 3);
  EXPECT_EQ(got[0].userdata, (Bytes{1, 2}));
  EXPECT_EQ(got[0].metadata.packet.in_port, 1u);
  inject("p1", {frame(kHost1, kHost2)});
  ASSERT_TRUE(eventually([&] { return drops("p1", DropReason::controller_queue_full) == 1; })) << "nobody took it";
  subscription.reset();

  PacketOut out;
  out.bridge = "br0";
  out.packet = frame(kHost1, kHost2);
  out.actions = *parse_actions("output:2,output:3");
  ASSERT_TRUE(sw_->packet_out(out).ok());
  EXPECT_EQ(sent("p2"), 1u);
  EXPECT_EQ(sent("p3"), 1u);
  out.in_port = 9;
  EXPECT_EQ(sw_->packet_out(out).message(), "in_port=9: bridge \"br0\" has no such port");
  out.in_port = 1;
  out.packet.resize(5);
  EXPECT_EQ(sw_->packet_out(out).message(), "a packet of 5 bytes has no Ethernet header");
  out.packet.clear();
  EXPECT_EQ(sw_->packet_out(out).message(), "packet-out needs a packet");
  out.bridge = "br7";
  out.packet = frame(kHost1, kHost2);
  EXPECT_EQ(sw_->packet_out(out).message(), "no bridge named \"br7\"");
  expect_balance();
}

TEST_F(SwitchTest, TraceTellsAndChangesNothing) {
  add_three_ports();
  TraceRequest request;
  request.bridge = "br0";
  request.packet = frame(kHost1, kHost2);
  request.key.packet.in_port = 1;
  const auto result = sw_->trace(request);
  ASSERT_TRUE(result.ok()) << result.status().message();
  ASSERT_EQ(result->sections.size(), 1u);
  EXPECT_EQ(result->sections[0].actions.size(), 3u) << "flooded to p2, p3 and the local port";
  EXPECT_FALSE(result->sections[0].nodes.empty());
  EXPECT_EQ(result->sections[0].flow.packet.in_port, 1u);
  EXPECT_TRUE(sw_->mac_entries("br0")->empty());
  EXPECT_EQ(packets_of(""), 0u);
  request.allow_side_effects = true;
  ASSERT_TRUE(sw_->trace(request).ok());
  EXPECT_EQ(sw_->mac_entries("br0")->size(), 1u);
  request.bridge = "br7";
  EXPECT_EQ(sw_->trace(request).status().message(), "no bridge named \"br7\"");
}

TEST_F(SwitchTest, WatchersHearChangesInOrder) {
  std::vector<std::pair<uint64_t, ChangeEvent::Kind>> heard;
  std::vector<std::string> ports;
  const auto watch = sw_->watch([&](const ChangeEvent& event) {
    if (event.kind == ChangeEvent::Kind::port_state) return;
    heard.emplace_back(event.revision, event.kind);
    ports.push_back(event.bridge + "/" + event.port);
  });
  using Kind = ChangeEvent::Kind;
  apply({bridge("br0", FailMode::secure), port("br0", "p1")});
  apply({rules("br0", {"actions=drop"})});
  apply({rules("br0", {"actions=output:1"})});
  apply({rules("br0", {""}, RuleCommand::remove)});
  apply({DeletePort{"p1"}});
  EXPECT_NE(refusal({DeletePort{"p1"}}), "");
  const std::vector<std::pair<uint64_t, Kind>> expected = {
      {1, Kind::bridge_created}, {1, Kind::port_created}, {1, Kind::port_created}, {2, Kind::rule_added},
      {3, Kind::rule_modified},  {4, Kind::rule_removed}, {5, Kind::port_deleted}};
  EXPECT_EQ(heard, expected);
  EXPECT_EQ(ports.back(), "br0/p1");
  const size_t before = heard.size();
  auto second = sw_->watch([&](const ChangeEvent&) { FAIL() << "this subscription has ended"; });
  second.reset();
  apply({DeleteBridge{"br0"}});
  EXPECT_GT(heard.size(), before);
}

TEST_F(SwitchTest, UnknownNames) {
  EXPECT_EQ(sw_->bridge("x").status().message(), "no bridge named \"x\"");
  EXPECT_EQ(sw_->port("x").status().message(), "no port named \"x\"");
  EXPECT_EQ(sw_->resolve_port("x", "y").status().message(), "no bridge named \"x\"");
  EXPECT_EQ(sw_->visit_rules("x", {}, [](const RuleInfo&) { return true; }).message(), "no bridge named \"x\"");
  EXPECT_EQ(sw_->table_stats("x").status().code(), StatusCode::not_found);
  EXPECT_EQ(sw_->mac_entries("x").status().code(), StatusCode::not_found);
  EXPECT_EQ(sw_->flush_macs("x").code(), StatusCode::not_found);
  EXPECT_EQ(sw_->receive_on_dummy("x", {}).status().code(), StatusCode::not_found);
  EXPECT_TRUE(sw_->healthy());
}

// ---------------------------------------------------------------- all at once

// Everything that takes a lock or waits for a grace period, at the same time, under traffic. Fails by hanging (ctest
// has a time limit), by a sanitizer's report, or by books that do not balance.
TEST_F(SwitchTest, EverythingAtOnce) {
  add_three_ports();
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  const auto repeat = [&](std::function<void(size_t)> body) {
    threads.emplace_back([&done, body = std::move(body)] {
      for (size_t i = 0; !done; ++i) body(i);
    });
  };
  const auto watch = sw_->watch([](const ChangeEvent&) {});
  const auto packet_in = sw_->subscribe_packet_in("", [](const PacketIn&) { return true; });
  repeat([&](size_t i) {
    std::vector<Bytes> burst;
    for (size_t n = 0; n < 16; ++n) {
      burst.push_back(PacketBuilder()
                          .ethernet(MacAddress::from_u64(0x020000000000 + (i + n) % 50), test::mac(kHost2))
                          .ipv4("10.0.0.1", "10.0.0.2")
                          .udp(static_cast<uint16_t>(i % 100), 53)
                          .build());
    }
    (void)sw_->receive_on_dummy(i % 2 == 0 ? "p1" : "p2", burst).ok();
  });
  repeat([&](size_t i) {
    (void)refusal({rules("br0", {"priority=" + std::to_string(i % 7 + 1) + ",udp,tp_src=" + std::to_string(i % 100) +
                                 ",idle_timeout=1,actions=controller,output:3"})});
  });
  repeat([&](size_t) {
    (void)refusal({bridge("br1"), port("br1", "q1"), port("br1", "q2")});
    (void)sw_->receive_on_dummy("q1", std::vector<Bytes>(8, frame(kHost1, kHost2)));
    (void)refusal({DeleteBridge{"br1"}});
  });
  repeat([&](size_t) {
    (void)sw_->visit_rules("br0", {}, [](const RuleInfo&) { return true; }).ok();
    (void)sw_->ports();
    (void)sw_->drops();
    sw_->visit_datapath_flows([](const DatapathFlow&) { return true; });
  });
  repeat([&](size_t i) {
    TraceRequest request;
    request.bridge = "br0";
    request.packet = frame(kHost1, kHost2);
    request.key.packet.in_port = 1;
    request.allow_side_effects = i % 2 == 0;
    (void)sw_->trace(request).ok();
    if (i % 10 == 0) (void)sw_->delete_datapath_flows();
    if (i % 10 == 5) (void)sw_->flush_macs("br0").ok();
    clock_.advance(100ms);
  });
  repeat([&](size_t) { const auto short_lived = sw_->watch([](const ChangeEvent&) {}); });
  const uint64_t goal = sw_->revision() + 60;
  EXPECT_TRUE(eventually([&] { return sw_->revision() >= goal; }, std::chrono::minutes(2)));
  done = true;
  for (std::thread& thread : threads) thread.join();
  expect_balance();
}

}  // namespace
}  // namespace vswitch
