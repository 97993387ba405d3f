// Flow text and the rule codec: what one rule costs on its way in (parse, check, encode) and out (decode, format).
//
// `ofctl add-flows` of 100,000 rules in a second leaves 10 us for each, of which parse and encode may take about half.
#include <benchmark/benchmark.h>

#include <string>

#include "vswitchd/openflow/flow_line.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/openflow/rule_codec.h"

namespace vswitch {
namespace {

constexpr const char* kRules[] = {
    "table=0,priority=100,ip,nw_src=10.1.2.3,nw_dst=10.4.5.6,actions=output:2",
    "table=7,priority=4000,cookie=0x1234,tcp,in_port=3,dl_vlan=10,nw_src=10.0.0.0/8,tp_dst=0x1000/0xf000,"
    "actions=set_field:5->tun_id,set_field:192.0.2.1->tun_dst,load:1->NXM_NX_REG0[0..3],dec_ttl,resubmit(,8),output:9",
};

const char* text_of(const benchmark::State& state) { return kRules[state.range(0)]; }
RuleSpec rule_of(const benchmark::State& state) { return parse_rule_mod(text_of(state), RuleCommand::add)->spec; }

void BM_Parse(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(parse_rule_mod(text_of(state), RuleCommand::add).ok());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Parse)->Arg(0)->Arg(1);

// A line whose form is known, as nearly all of a large file are.
void BM_ParseKnownForm(benchmark::State& state) {
  RuleLineParser parser;
  for (auto _ : state) benchmark::DoNotOptimize(parser.parse(text_of(state)).ok());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_ParseKnownForm)->Arg(0)->Arg(1);

void BM_Check(benchmark::State& state) {
  const RuleSpec rule = rule_of(state);
  for (auto _ : state) benchmark::DoNotOptimize(check_rule(rule).ok());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Check)->Arg(0)->Arg(1);

void BM_Encode(benchmark::State& state) {
  const RuleSpec rule = rule_of(state);
  size_t bytes = 0;
  for (auto _ : state) bytes = encode_rule(rule).size();
  state.SetItemsProcessed(state.iterations());
  state.counters["bytes"] = static_cast<double>(bytes);
}
BENCHMARK(BM_Encode)->Arg(0)->Arg(1);

void BM_Decode(benchmark::State& state) {
  const std::string bytes = encode_rule(rule_of(state));
  for (auto _ : state) benchmark::DoNotOptimize(decode_rule(bytes).ok());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Decode)->Arg(0)->Arg(1);

void BM_Format(benchmark::State& state) {
  const RuleSpec rule = rule_of(state);
  const RuleCounters counters{Nanoseconds(1'500'000'000), 10, 600, std::nullopt, std::nullopt};
  for (auto _ : state) benchmark::DoNotOptimize(format_rule(rule, &counters).size());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Format)->Arg(0)->Arg(1);

}  // namespace
}  // namespace vswitch

BENCHMARK_MAIN();
