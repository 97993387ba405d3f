// The slow path by itself: SlowPath::miss() and FlowTable::insert() for packets of different 5-tuples, each of which
// needs a megaflow of its own, and what it costs to keep such flows true.
//
// The rules are those of the workload `setup` (rulesets.py): 5-tuple rules of 64 masks, and a second table that copies
// addresses and ports to registers, so that every bit of the 5-tuple decides.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "datapath/base/rcu.h"
#include "datapath/core/userspace_datapath.h"
#include "tests/support/fake_link_monitor.h"
#include "vswitchd/control/revalidator.h"
#include "vswitchd/control/slow_path.h"
#include "vswitchd/control/view_builder.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/translate/mac_table.h"

namespace vswitch {
namespace {

constexpr uint32_t kMasks = 64;
constexpr uint16_t kInPort = 1, kOutPort = 2;

std::string dotted(uint32_t a) { return fmt::format("{}.{}.{}.{}", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255); }

// Rules of one mask, as rulesets.AclClass.
struct AclClass {
  explicit AclClass(uint32_t n)
      : k(n),
        source_length(16 + n % 16),
        destination_length(16 + 4 * (n / 16 % 4)),
        count(std::min(8u, 1u << (source_length - 16))) {}
  uint32_t source(uint32_t r) const { return 10u << 24 | k << 16 | r << (32 - source_length); }
  uint32_t destination() const { return 172u << 24 | (16 + k % 16) << 16; }
  std::string rule(uint32_t r) const {
    return fmt::format("table=0,priority={},udp,nw_src={}/{},nw_dst={}/{},tp_dst={},actions=goto_table:1",
                       100 + source_length + destination_length, dotted(source(r)), source_length,
                       dotted(destination()), destination_length, 1000 + k);
  }
  uint32_t k, source_length, destination_length, count;
};

void add_rules(RuleTables& tables) {
  std::vector<RuleMod> mods;
  const auto add = [&mods](const std::string& text) {
    Result<RuleMod> mod = parse_rule_line(text);
    if (!mod.ok()) throw std::runtime_error(mod.status().message());
    mods.push_back(std::move(*mod));
  };
  for (uint32_t k = 0; k < kMasks; ++k) {
    const AclClass acl(k);
    for (uint32_t r = 0; r < acl.count; ++r) add(acl.rule(r));
  }
  add("table=1,udp,actions=move:NXM_OF_IP_SRC[]->NXM_NX_REG0[],move:NXM_OF_IP_DST[]->NXM_NX_REG1[],"
      "move:NXM_OF_UDP_SRC[]->NXM_NX_REG2[0..15],move:NXM_OF_UDP_DST[]->NXM_NX_REG2[16..31],output:2");
  Result<RuleChange> change = tables.prepare(mods);
  if (!change.ok()) throw std::runtime_error(change.status().message());
  change->publish();
}

// Number n of as many different flows as one likes, in turn through the masks.
FlowKey flow_key(uint64_t n) {
  const AclClass acl(static_cast<uint32_t>(n % kMasks));
  const auto r = static_cast<uint32_t>(n / kMasks) % acl.count, j = static_cast<uint32_t>(n / kMasks) / acl.count;
  FlowKey key;
  key.in_port = kInPort;
  key.eth_dst = MacAddress::from_u64(0x020000000002);
  key.eth_src = MacAddress::from_u64(0x020000000001);
  key.eth_type = kEthTypeIpv4;
  key.nw_proto = kProtoUdp;
  key.nw_ttl = 64;
  key.nw_src = to_be32(acl.source(r) | (j * 7 & ((1u << (32 - acl.source_length)) - 1)));
  key.nw_dst = to_be32(acl.destination() | (j / 60000 & 15));
  key.tp_src = to_be16(static_cast<uint16_t>(1024 + j % 60000));
  key.tp_dst = to_be16(static_cast<uint16_t>(1000 + acl.k));
  return key;
}

struct World {
  World() : runtime{std::make_shared<RuleTables>(clock), std::make_shared<MacTable>(clock)} {
    add_rules(*runtime.tables);
    Configuration configuration;
    BridgeConfig bridge;
    bridge.name = "br0";
    configuration.bridges["br0"] = bridge;
    for (const uint16_t n : {kInPort, kOutPort}) {
      PortConfig port;
      port.bridge = "br0";
      port.vport.name = fmt::format("p{}", n);
      port.vport.type = "dummy";
      configuration.ports[port.name()] = port;
      configuration.ofports[port.name()] = n;
      configuration.dp_ports[port.name()] = n;
    }
    PatchCounterMap counters;
    views.publish(build_view(configuration, {{"br0", runtime}}, counters, 1));
  }

  MonotonicClock clock;
  BridgeRuntime runtime;
  ViewHolder views;
  RightOfWay right_of_way;
  SlowPath slow_path{views, clock, [] {}};
};

const Packet& some_packet() {
  static HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 1);
  static const PacketPtr packet = pool.allocate();
  return *packet;
}

void BM_Translate(benchmark::State& state) {
  const rcu::ReaderScope reader;
  World world;
  uint64_t n = 0;
  for (auto _ : state) {
    const FlowKey key = flow_key(n++ % 100'000);
    benchmark::DoNotOptimize(world.slow_path.miss(key, some_packet()));
    if (n % 32 == 0) rcu::quiescent();
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Translate);

// Every packet a new flow, up to range(0) of them.
void BM_Setup(benchmark::State& state) {
  const rcu::ReaderScope reader;
  World world;
  const auto most = static_cast<uint64_t>(state.range(0));
  auto table = std::make_unique<FlowTable>(world.clock, most);
  uint64_t n = 0, failed = 0;
  for (auto _ : state) {
    if (n == most) {
      state.PauseTiming();
      table = std::make_unique<FlowTable>(world.clock, most);
      rcu::quiescent();
      rcu::barrier();
      n = 0;
      state.ResumeTiming();
    }
    const FlowKey key = flow_key(n++);
    benchmark::DoNotOptimize(table->lookup(key));
    MissResult result = world.slow_path.miss(key, some_packet());
    failed += !table
                   ->insert(key, result.mask, std::move(result.actions), {}, std::move(result.installer_data),
                            result.installer_bits)
                   .ok();
    if (n % 32 == 0) rcu::quiescent();
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["failed"] = static_cast<double>(failed);
  state.counters["masks"] = static_cast<double>(table->counters().masks);
  table.reset();
  rcu::quiescent();
  rcu::barrier();
}
BENCHMARK(BM_Setup)->Arg(10'000)->Arg(100'000)->Arg(1'000'000)->Iterations(1'000'000);

// So many, each its own megaflow, as upcalls would install them.
void put_flows(World& world, Datapath& datapath, uint64_t flows) {
  for (uint64_t n = 0; n < flows; ++n) {
    const FlowKey key = flow_key(n);
    const rcu::ReaderScope reader;
    MissResult result = world.slow_path.miss(key, some_packet());
    (void)datapath
        .put_flow(
            {key, result.mask, std::move(result.actions), std::move(result.installer_data), result.installer_bits})
        .ok();
  }
}

// A datapath with so many flows, among 1,000,000 rules: those of another kind, which the flows' packets are compared
// with, too.
struct ManyFlows {
  explicit ManyFlows(uint64_t flows) {
    std::vector<RuleMod> mods;
    for (uint32_t i = 0; i < 1'000'000; ++i) {
      Match match;
      match.value.packet.eth_type = kEthTypeIpv4;
      match.mask.packet.eth_type = ~be16{};
      match.value.packet.nw_dst = to_be32(0xc0000000 + i);
      match.mask.packet.nw_dst = ~be32{};
      mods.push_back({.spec = {.priority = 50, .match = match, .actions = std::make_shared<RuleActionList>()}});
    }
    world.runtime.tables->prepare(mods)->publish();
    put_flows(world, datapath, flows);
  }

  // From the publication of a change until all flows are true to it. The store's share (one fsync) is not in it.
  void change(std::string_view text, RuleCommand command) {
    const std::vector<RuleMod> one{*parse_rule_mod(text, command)};
    Result<RuleChange> change = world.runtime.tables->prepare(one);
    RuleChanges changes;
    changes.add(*change, world.views.get().bridges.at("br0").get());
    change->publish();
    revalidator.revalidate(changes);
  }

  World world;
  UserspaceDatapath datapath{{1, 2'000'000}, world.clock, std::make_unique<test::FakeLinkMonitor>()};
  Revalidator revalidator{datapath, world.views, world.slow_path, world.right_of_way, world.clock};
};

// A rule comes, gets other actions and goes again; what it matches is 1 of 64 flows, or all. Time of the last round and
// what was left of it, crediting to rules, is not counted.
void BM_RuleChange(benchmark::State& state, const char* match, RuleCommand command) {
  const rcu::Offline offline;
  ManyFlows flows(static_cast<uint64_t>(state.range(0)));
  const auto step = [&](const char* actions, RuleCommand now) {
    const std::string rule = fmt::format("priority=1000,{}", match);
    const std::string text = now == RuleCommand::remove_strict ? rule : rule + ",actions=" + actions;
    if (now != command) state.PauseTiming();
    flows.change(text, now);
    if (now != command) state.ResumeTiming();
  };
  for (auto _ : state) {
    step("drop", RuleCommand::add);
    step("output:2", RuleCommand::modify_strict);
    step("", RuleCommand::remove_strict);
    state.PauseTiming();
    flows.revalidator.push_statistics(Revalidator::Urgency::background);
    rcu::barrier();
    state.ResumeTiming();
  }
  state.counters["flows"] = static_cast<double>(flows.datapath.stats().flows);
}
constexpr char kOneFlow[] = "udp,nw_src=10.0.0.0,nw_dst=172.16.0.0,tp_src=1024,tp_dst=1000",
               kClass[] = "udp,tp_dst=1005", kEverything[] = "in_port=1";
#define RULE_CHANGE(name, match, command)                \
  BENCHMARK_CAPTURE(BM_RuleChange, name, match, command) \
      ->Arg(100'000)                                     \
      ->Iterations(10)                                   \
      ->Unit(benchmark::kMillisecond)                    \
      ->UseRealTime()
RULE_CHANGE(flow_add, kOneFlow, RuleCommand::add);
RULE_CHANGE(flow_del, kOneFlow, RuleCommand::remove_strict);
RULE_CHANGE(class_add, kClass, RuleCommand::add);
RULE_CHANGE(class_mod, kClass, RuleCommand::modify_strict);
RULE_CHANGE(class_del, kClass, RuleCommand::remove_strict);
RULE_CHANGE(everything_add, kEverything, RuleCommand::add);
RULE_CHANGE(everything_mod, kEverything, RuleCommand::modify_strict);
RULE_CHANGE(everything_del, kEverything, RuleCommand::remove_strict);
#undef RULE_CHANGE

// The same when every flow is translated again, as for a change of ports.
void BM_RevalidateAll(benchmark::State& state) {
  World world;
  const rcu::Offline offline;
  UserspaceDatapath datapath({1, 2'000'000}, world.clock, std::make_unique<test::FakeLinkMonitor>());
  Revalidator revalidator(datapath, world.views, world.slow_path, world.right_of_way, world.clock);
  put_flows(world, datapath, static_cast<uint64_t>(state.range(0)));
  for (auto _ : state) revalidator.revalidate();
}
BENCHMARK(BM_RevalidateAll)->Arg(100'000)->Iterations(3)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace vswitch

BENCHMARK_MAIN();
