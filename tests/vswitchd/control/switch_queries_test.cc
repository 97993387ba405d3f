// What a running switch tells: packets in and out, traces, changes to watchers, unknown names.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/eventually.h"
#include "tests/support/running_switch.h"
#include "vswitchd/openflow/flow_text.h"

namespace vswitch::test {
namespace {

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

class AgeingTest : public FailingStoreTest {
 protected:
  // br0 learns an address, and what was counted is credited, so that nobody sees it again.
  void learn_an_address() {
    inject("p1", {PacketBuilder().ethernet(kHost1, kHost2).eth_type(0x88b5).pad_to(60).build()});  // meets `normal`
    ASSERT_TRUE(eventually([&] { return packets_of("") == 1; }));
    ASSERT_EQ(sw_->mac_entries("br0")->size(), 1u);
  }
  // Lets ten minutes pass; whether br0 forgets the address. A listing leaves out what has aged even while it is there,
  // so it is asked as of before, and until then there is time for a round of ageing: one comes each half second by the
  // clock on the wall.
  bool forgets() {
    bool gone = false;
    for (int rounds = 0; !gone && rounds < 16; ++rounds) {
      clock_.advance(601s);
      (void)eventually([] { return false; }, 600ms);
      clock_.advance(-601s);
      gone = sw_->mac_entries("br0")->empty();
    }
    clock_.advance(601s);
    return gone;
  }
};

// While a change waits for the disk, whoever asks is answered with what was before it, and addresses age. Rules whose
// timeout passes meanwhile go when it is through.
TEST_F(AgeingTest, NobodyWaitsForAChangeButWhoAskedForIt) {
  ASSERT_NO_FATAL_FAILURE(open_with_failing_store());
  add_three_ports();
  apply({rules("br0", {"priority=9,udp,hard_timeout=600,actions=drop"})});
  ASSERT_NO_FATAL_FAILURE(learn_an_address());

  struct Disk {  // outlives this function, as the store does
    std::atomic<bool> asked{false};
    std::mutex mutex;
  };
  const auto disk = std::make_shared<Disk>();
  *before_commit_ = [disk] {
    disk->asked = true;
    const std::lock_guard wait(disk->mutex);
  };
  std::unique_lock busy(disk->mutex);
  std::thread changer([&] { apply({bridge("br1"), rules("br0", {"priority=8,actions=drop"}), DeletePort{"p3"}}); });
  EXPECT_TRUE(eventually([&] { return disk->asked.load(); }));
  // The port is out of the datapath, where it may be put back; what is configured is as before.
  EXPECT_EQ(sw_->bridges().size(), 1u);
  EXPECT_EQ(sw_->ports().size(), 4u);
  EXPECT_TRUE(sw_->port("p3").ok());
  EXPECT_TRUE(sw_->resolve_port("br0", "p3").ok());
  EXPECT_EQ(rule_list().size(), 2u);
  EXPECT_TRUE(sw_->table_stats("br0").ok());
  TraceRequest request;
  request.bridge = "br0";
  request.key.packet.in_port = 1;
  EXPECT_TRUE(sw_->trace(request).ok());
  EXPECT_TRUE(forgets()) << "ageing waits for the change";
  EXPECT_EQ(rule_list().size(), 2u);
  busy.unlock();
  changer.join();
  EXPECT_EQ(sw_->bridges().size(), 2u);
  EXPECT_TRUE(eventually([&] { return rule_list().size() == 2; })) << "one came, one went";
}

// Nor do addresses wait for rules that time out, and for the disk that has to be told.
TEST_F(AgeingTest, AddressesAgeWhileRulesTimeOut) {
  struct Disk {  // outlives this function, as the store does
    std::atomic<bool> blocks{false}, asked{false};
    std::mutex mutex;
  };
  const auto disk = std::make_shared<Disk>();
  *before_commit_ = [disk] {
    if (!disk->blocks) return;
    disk->asked = true;
    const std::lock_guard wait(disk->mutex);
  };
  ASSERT_NO_FATAL_FAILURE(open_with_failing_store());
  add_three_ports();
  apply({rules("br0", {"priority=9,udp,hard_timeout=1,actions=drop"})});
  ASSERT_NO_FATAL_FAILURE(learn_an_address());

  std::unique_lock busy(disk->mutex);
  disk->blocks = true;
  EXPECT_TRUE(sw_->healthy());
  clock_.advance(2s);
  EXPECT_TRUE(eventually([&] { return disk->asked.load(); }));
  EXPECT_TRUE(forgets()) << "ageing waits for the disk";
  EXPECT_FALSE(sw_->healthy()) << "rules have been timing out for ten minutes";
  EXPECT_EQ(rule_list().size(), 2u);
  busy.unlock();
  EXPECT_TRUE(eventually([&] { return rule_list().size() == 1; }));
  EXPECT_TRUE(eventually([&] { return sw_->healthy(); }));
}

// What listings with states and counters say, without asking devices and flows.
TEST_F(SwitchTest, ConfiguredPorts) {
  add_three_ports();
  apply({bridge("br1"), port("br1", "q1")});
  std::vector<std::pair<std::string, OfPort>> expected;
  for (const PortInfo& info : sw_->ports("br0")) {
    expected.emplace_back(info.config.name(), info.ofport);
    EXPECT_EQ(sw_->port_config(info.config.name())->bridge, "br0");
    EXPECT_EQ(sw_->port_config(info.config.name())->vport.type, info.config.vport.type);
  }
  EXPECT_EQ(expected.size(), 4u);
  EXPECT_EQ(sw_->port_numbers("br0"), expected);
  EXPECT_EQ(sw_->port_numbers("br1").size(), 2u);
  EXPECT_TRUE(sw_->port_numbers("x").empty());
}

TEST_F(SwitchTest, UnknownNames) {
  EXPECT_EQ(sw_->port_config("x").status().message(), "no port named \"x\"");
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

}  // namespace
}  // namespace vswitch::test
