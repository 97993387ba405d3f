// The megaflow table: lookup time by number of masks and flows, one by one and in batches of 32; the cache in front of
// it; insertion, and memory per flow (mallinfo2).
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <memory>
#include <random>
#include <vector>

#include "datapath/base/rcu.h"
#include "datapath/flow_table/flow_cache.h"
#include "datapath/flow_table/flow_table.h"

namespace vswitch {
namespace {

struct Workload {
  std::vector<FlowKey> keys;
  std::vector<FlowMask> masks;
};

// 5-tuple megaflows; the masks differ in how much of nw_dst and which other fields they match.
Workload make_workload(size_t flows, size_t masks) {
  std::mt19937_64 random(1);
  Workload w;
  for (size_t i = 0; i < flows; ++i) {
    const size_t which = random() % masks;
    FlowKey key;
    key.in_port = 1;
    key.eth_type = kEthTypeIpv4;
    key.nw_proto = kProtoUdp;
    key.nw_src = to_be32(static_cast<uint32_t>(random()));
    key.nw_dst = to_be32(static_cast<uint32_t>(random()));
    key.tp_src = to_be16(static_cast<uint16_t>(random()));
    key.tp_dst = to_be16(static_cast<uint16_t>(random()));
    FlowMask mask;
    mask.in_port = mask.recirc_id = ~0u;
    mask.eth_type = to_be16(0xffff);
    mask.nw_proto = 0xff;
    mask.nw_frag = 3;
    mask.nw_src = to_be32(~uint32_t{0});
    mask.nw_dst = to_be32(~uint32_t{0} << (which % 16));
    mask.tp_src = mask.tp_dst = to_be16(0xffff);
    if ((which / 16 & 1) != 0) mask.eth_dst = MacAddress::from_u64(0xffffffffffff);
    if ((which / 16 & 2) != 0) mask.nw_tos = 0xfc;
    if ((which / 16 & 4) != 0) mask.vlan[0].tci = to_be16(0x1fff);
    w.keys.push_back(key);
    w.masks.push_back(mask);
  }
  return w;
}

void fill(FlowTable& table, const Workload& w) {
  for (size_t i = 0; i < w.keys.size(); ++i) {
    if (!table.insert(w.keys[i], w.masks[i], {OutputAction{2}}, {}, nullptr).ok()) continue;
  }
}

void BM_Lookup(benchmark::State& state) {
  const rcu::ReaderScope reader;
  const MonotonicClock clock;
  FlowTable table(clock);
  const Workload w = make_workload(static_cast<size_t>(state.range(1)), static_cast<size_t>(state.range(0)));
  fill(table, w);
  size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(table.lookup(w.keys[i]));
    if (++i == w.keys.size()) i = 0;
  }
}
BENCHMARK(BM_Lookup)->ArgNames({"masks", "flows"})->ArgsProduct({{1, 16, 128}, {1'000, 100'000}});

void BM_LookupBatch(benchmark::State& state) {
  const rcu::ReaderScope reader;
  const MonotonicClock clock;
  FlowTable table(clock);
  const Workload w = make_workload(static_cast<size_t>(state.range(1)), static_cast<size_t>(state.range(0)));
  fill(table, w);
  size_t i = 0;
  const FlowKey* keys[32];
  Flow* flows[32];
  for (auto _ : state) {
    for (const FlowKey*& key : keys) {
      key = &w.keys[i];
      if (++i == w.keys.size()) i = 0;
    }
    table.lookup_batch(keys, 32, flows);
    benchmark::DoNotOptimize(flows[31]);
  }
  state.SetItemsProcessed(state.iterations() * 32);
}
BENCHMARK(BM_LookupBatch)->ArgNames({"masks", "flows"})->ArgsProduct({{1, 16, 128}, {1'000, 100'000}});

void BM_Cache(benchmark::State& state) {
  const rcu::ReaderScope reader;
  const MonotonicClock clock;
  FlowTable table(clock);
  FlowCache cache;
  const Workload w = make_workload(static_cast<size_t>(state.range(0)), 16);
  fill(table, w);
  std::mt19937_64 random(2);
  std::vector<uint64_t> hashes;
  for (const FlowKey& key : w.keys) {
    hashes.push_back(random());
    cache.insert(hashes.back(), table.lookup(key));
  }
  size_t i = 0, hits = 0;
  for (auto _ : state) {
    hits += cache.lookup(hashes[i], w.keys[i]) != nullptr;
    if (++i == w.keys.size()) i = 0;
  }
  state.counters["hit_ratio"] = static_cast<double>(hits) / static_cast<double>(state.iterations());
}
BENCHMARK(BM_Cache)->ArgName("flows")->Arg(1)->Arg(1'000)->Arg(4'000);

void BM_Count(benchmark::State& state) {
  const rcu::ReaderScope reader;
  const MonotonicClock clock;
  FlowTable table(clock);
  const Workload w = make_workload(1, 1);
  fill(table, w);
  Flow* flow = table.lookup(w.keys[0]);
  for (auto _ : state) flow->count(0, 1, 64, 1s, 0x10);
}
BENCHMARK(BM_Count);

void BM_Insert(benchmark::State& state) {
  const MonotonicClock clock;
  const Workload w = make_workload(static_cast<size_t>(state.range(0)), 16);
  for (auto _ : state) {
    state.PauseTiming();
    rcu::barrier();
    const size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    auto table = std::make_unique<FlowTable>(clock, w.keys.size());
    state.ResumeTiming();
    fill(*table, w);
    state.PauseTiming();
    rcu::barrier();
    const size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
    state.counters["bytes_per_flow"] = static_cast<double>(after - before) / static_cast<double>(w.keys.size());
    table.reset();
    for (int i = 0; i < 4; ++i) rcu::barrier();
    state.ResumeTiming();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * w.keys.size()));
}
BENCHMARK(BM_Insert)->ArgName("flows")->Arg(100'000)->Arg(1'000'000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace vswitch

BENCHMARK_MAIN();
