// Rules: lookup time by number of masks, with and without wildcard tracking; loading a million rules, and memory per
// rule.
//
//   classifier_bench --benchmark_filter=Load
//
// bytes_per_rule counts everything that malloc handed out (mallinfo2) for a 5-tuple rule: rule, match, its share of the
// classifier's tables and tries; the action list is shared, as RuleTables does it.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <memory>
#include <random>
#include <span>
#include <vector>

#include "datapath/base/rcu.h"
#include "vswitchd/rules/rule_tables.h"

namespace vswitch {
namespace {

Match five_tuple(std::mt19937_64& random, unsigned prefix) {
  Match match;
  FlowKey &value = match.value.packet, &mask = match.mask.packet;
  value.eth_type = kEthTypeIpv4;
  mask.eth_type = to_be16(0xffff);
  value.nw_proto = kProtoTcp;
  mask.nw_proto = 0xff;
  mask.nw_src = to_be32(~uint32_t{0});
  mask.nw_dst = to_be32(~uint32_t{0} << (32 - prefix));
  mask.tp_src = mask.tp_dst = to_be16(0xffff);
  value.nw_src = to_be32(static_cast<uint32_t>(random()));
  value.nw_dst = to_be32(static_cast<uint32_t>(random())) & mask.nw_dst;
  value.tp_src = to_be16(static_cast<uint16_t>(random()));
  value.tp_dst = to_be16(static_cast<uint16_t>(random()));
  return match;
}

// `masks` different masks: prefixes of nw_dst, and which of the metadata fields are matched.
Match masked_rule(std::mt19937_64& random, size_t masks) {
  const size_t which = random() % masks;
  Match match = five_tuple(random, static_cast<unsigned>(32 - which % 16));
  if ((which / 16 & 1) != 0) match.mask.packet.in_port = ~0u;
  if ((which / 16 & 2) != 0) match.mask.packet.eth_dst = MacAddress::from_u64(0xffffffffffff);
  if ((which / 16 & 4) != 0) match.mask.packet.nw_tos = 0xfc;
  return match;
}

// Made and published batch by batch, with the same random numbers.
std::vector<RuleMod> make_mods(std::mt19937_64& random, size_t rules, size_t masks) {
  const auto actions = std::make_shared<RuleActionList>(RuleActionList{OutputToPort{1, 0}});
  std::vector<RuleMod> mods(rules);
  for (RuleMod& mod : mods) {
    mod.spec.match = masked_rule(random, masks);
    mod.spec.actions = actions;
  }
  return mods;
}

void publish(RuleTables& tables, std::span<const RuleMod> mods) {
  Result<RuleChange> change = tables.prepare(mods);
  if (change.ok()) change->publish();
}

void lookup(benchmark::State& state, bool wildcards, bool hits) {
  const rcu::ReaderScope reader;
  const MonotonicClock clock;
  RuleTables tables(clock);
  std::mt19937_64 random(1);
  const std::vector<RuleMod> mods = make_mods(random, 10'000, static_cast<size_t>(state.range(0)));
  publish(tables, mods);
  std::vector<PipelineKey> keys;
  for (size_t i = 0; i < 1024; ++i) {
    keys.push_back(mods[i * 7].spec.match.expand().value);
    if (!hits) keys.back().packet.nw_src = keys.back().packet.nw_src ^ to_be32(0x5a5a5a5a);
  }
  size_t i = 0;
  for (auto _ : state) {
    PipelineMask mask;
    benchmark::DoNotOptimize(tables.lookup(0, keys[i++ % 1024], tables.version(), wildcards ? &mask : nullptr));
  }
  state.counters["rules"] = static_cast<double>(tables.rule_count());
}

void BM_LookupHit(benchmark::State& state) { lookup(state, false, true); }
void BM_LookupHitWildcards(benchmark::State& state) { lookup(state, true, true); }
void BM_LookupMissWildcards(benchmark::State& state) { lookup(state, true, false); }
BENCHMARK(BM_LookupHit)->Arg(1)->Arg(16)->Arg(128);
BENCHMARK(BM_LookupHitWildcards)->Arg(1)->Arg(16)->Arg(128);
BENCHMARK(BM_LookupMissWildcards)->Arg(1)->Arg(16)->Arg(128);

// Among a million rules with one mask.
void BM_LookupInMillion(benchmark::State& state) {
  const rcu::ReaderScope reader;
  const MonotonicClock clock;
  RuleTables tables(clock);
  std::mt19937_64 random(1);
  std::vector<PipelineKey> keys;
  for (size_t batch = 0; batch < 100; ++batch) {
    const std::vector<RuleMod> mods = make_mods(random, 10'000, 1);
    publish(tables, mods);
    for (size_t i = 0; i < mods.size(); i += 100) keys.push_back(mods[i].spec.match.expand().value);
  }
  size_t i = 0;
  for (auto _ : state) {
    i = (i + 7919) % keys.size();
    PipelineMask mask;
    benchmark::DoNotOptimize(tables.lookup(0, keys[i], tables.version(), &mask));
  }
}
BENCHMARK(BM_LookupInMillion);

// range(0) rules of range(1) masks, in batches of 10,000 as a streaming client sends them.
void BM_Load(benchmark::State& state) {
  const auto rules = static_cast<size_t>(state.range(0));
  const MonotonicClock clock;
  constexpr size_t kBatch = 10'000;
  for (auto _ : state) {
    state.PauseTiming();
    rcu::barrier();
    std::mt19937_64 random(1);
    const size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    auto tables = std::make_unique<RuleTables>(clock);
    for (size_t from = 0; from < rules; from += kBatch) {
      const std::vector<RuleMod> mods = make_mods(random, kBatch, static_cast<size_t>(state.range(1)));
      state.ResumeTiming();
      publish(*tables, mods);
      state.PauseTiming();
    }
    rcu::barrier();
    const size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
    state.counters["bytes_per_rule"] = static_cast<double>(after - before) / static_cast<double>(tables->rule_count());
    state.counters["reported_per_rule"] =
        static_cast<double>(tables->memory_bytes()) / static_cast<double>(tables->rule_count());
    tables.reset();
    for (int i = 0; i < 4; ++i) rcu::barrier();
    state.ResumeTiming();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * rules));
}
BENCHMARK(BM_Load)->Args({100'000, 1})->Args({1'000'000, 1})->Args({1'000'000, 128})->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace vswitch

BENCHMARK_MAIN();
