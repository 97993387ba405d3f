// rule_lookup FILE [LOOKUPS]: slow-path lookup among the rules of a file, in the switch's own rule tables; nanoseconds
// as JSON.
//
// Each packet matches a rule drawn at random; what that rule does not look at is random, too. Every lookup collects the
// fields that it depended on, as translation does, and is timed by itself. mask_bits is how many bits of the packet
// those are, on average: the fewer, the more packets a megaflow serves.
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/base/rcu.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/rules/rule_tables.h"

namespace vswitch {
namespace {

constexpr size_t kBatch = 10'000;

// Publishes what has been read so far.
bool publish(RuleTables& tables, std::vector<RuleMod>& mods) {
  Result<RuleChange> change = tables.prepare(mods);
  if (!change.ok()) {
    std::fprintf(stderr, "rule_lookup: %s\n", change.status().message().c_str());
    return false;
  }
  change->publish();
  mods.clear();
  return true;
}

// A packet that the rule matches: ports, addresses and the rest are random where the rule leaves them open.
PipelineKey matching_key(const MiniMatch& match, std::mt19937_64& random) {
  const Match full = match.expand();
  PipelineKey key = full.value;
  auto fill32 = [&](auto& value, const auto& mask) {
    value = value | (to_be32(static_cast<uint32_t>(random())) & ~mask);
  };
  auto fill16 = [&](auto& value, const auto& mask) {
    value = value | (to_be16(static_cast<uint16_t>(random())) & ~mask);
  };
  fill32(key.packet.nw_src, full.mask.packet.nw_src);
  fill32(key.packet.nw_dst, full.mask.packet.nw_dst);
  fill16(key.packet.tp_src, full.mask.packet.tp_src);
  fill16(key.packet.tp_dst, full.mask.packet.tp_dst);
  return key;
}

bool load(const char* file, RuleTables& tables, std::vector<PipelineKey>& keys, size_t lookups) {
  std::ifstream in(file);
  std::vector<RuleMod> mods;
  std::mt19937_64 random(1);
  size_t seen = 0;
  for (std::string line; std::getline(in, line);) {
    Result<RuleMod> mod = parse_rule_mod(line, RuleCommand::add);
    if (!mod.ok()) {
      std::fprintf(stderr, "rule_lookup: %s\n", mod.status().message().c_str());
      return false;
    }
    // A sample of all rules, each with the same chance, in one pass.
    ++seen;
    if (keys.size() < lookups) {
      keys.push_back(matching_key(mod->spec.match, random));
    } else if (const size_t place = random() % seen; place < lookups) {
      keys[place] = matching_key(mod->spec.match, random);
    }
    mods.push_back(std::move(*mod));
    if (mods.size() == kBatch && !publish(tables, mods)) return false;
  }
  std::shuffle(keys.begin(), keys.end(), random);
  return publish(tables, mods) && !keys.empty();
}

int measure(const char* file, size_t lookups) {
  const rcu::ReaderScope reader;
  const MonotonicClock clock;
  RuleTables tables(clock);
  std::vector<PipelineKey> keys;
  if (!load(file, tables, keys, lookups)) return 1;
  std::vector<double> times;
  size_t found = 0, bits = 0;
  for (const PipelineKey& kept : keys) {
    // As in translation, where the key has just been extracted from the packet: in the cache.
    const PipelineKey key = kept;
    PipelineMask mask;
    const auto start = std::chrono::steady_clock::now();
    found += tables.lookup(0, key, tables.version(), &mask) != nullptr;
    times.push_back(std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count());
    for (size_t i = 0; i < kPipelineKeyWords; ++i) bits += static_cast<size_t>(std::popcount(words(mask)[i]));
  }
  std::sort(times.begin(), times.end());
  auto percentile = [&](double p) { return times[static_cast<size_t>(p * static_cast<double>(times.size() - 1))]; };
  std::printf("{\"rules\": %zu, \"lookups\": %zu, \"found\": %zu, \"p50\": %.0f, \"p99\": %.0f, \"mask_bits\": %.2f}\n",
              static_cast<size_t>(tables.rule_count()), keys.size(), found, percentile(0.5), percentile(0.99),
              static_cast<double>(bits) / static_cast<double>(keys.size()));
  return 0;
}

}  // namespace
}  // namespace vswitch

int main(int argc, char** argv) {
  const long lookups = argc > 2 ? std::atol(argv[2]) : 100'000;
  if (argc < 2 || lookups <= 0) {
    std::fprintf(stderr, "usage: rule_lookup FILE [LOOKUPS]\n");
    return 2;
  }
  return vswitch::measure(argv[1], static_cast<size_t>(lookups));
}
