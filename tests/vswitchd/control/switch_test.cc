// Transactions as a whole: what they change, what they leave alone, what comes back after a restart.
#include "vswitchd/control/switch.h"

#include <gtest/gtest.h>
#include <net/if.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/eventually.h"
#include "tests/support/netns.h"
#include "tests/support/packet_builder.h"
#include "tests/support/running_switch.h"

namespace vswitch::test {
namespace {

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

// Everything in the switch and in the system is as it was, and the reply says why.
TEST_F(FailingStoreTest, AStoreThatFailsChangesNothing) {
  ASSERT_NO_FATAL_FAILURE(open_with_failing_store());
  add_veth("dev1", "far1");
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
  delete_link("dev1");
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
                          .ethernet(MacAddress::from_u64(0x020000000000 + (i + n) % 50), mac(kHost2))
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
}  // namespace vswitch::test
