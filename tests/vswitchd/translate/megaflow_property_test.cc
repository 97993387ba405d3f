// The promise of a megaflow: every packet that agrees with the translated one on the mask gets the same actions. Random
// rules with every action, random ports and packets; what differs between two packets lies outside the mask. And what
// follows from it for the flow table, whichever masks it has room for: what a packet finds there is what it would get.

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>

#include "datapath/flow/flow_mask.h"
#include "datapath/flow_table/flow_cache.h"
#include "datapath/flow_table/flow_table.h"
#include "tests/support/lookups.h"
#include "tests/support/random_rules.h"
#include "tests/support/switch_fixture.h"
#include "vswitchd/openflow/datapath_text.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/translate/trace_text.h"
#include "vswitchd/translate/translate.h"

namespace vswitch {
namespace {

using test::RandomMatches;
using test::RandomRules;
using test::SwitchFixture;

// Cookies that depend on all that the request holds, as those of the control path do.
class FakeContexts : public TranslateContexts {
 public:
  uint64_t controller_cookie(const ControllerRequest& r) override {
    uint64_t hash = r.rule_cookie * 31 + r.table;
    const KeyWord* w = words(r.key);
    for (size_t i = 0; i < kPipelineKeyWords; ++i) hash = (hash ^ w[i]) * 0x100000001b3;
    return hash;
  }
  RecircRef freeze(FrozenState state) override {
    kept.push_back(recircs.freeze(std::move(state)));
    return kept.back();
  }
  RecircRef thaw(uint32_t recirc_id) const override { return recircs.find(recirc_id); }

  RecircTable recircs;
  std::vector<RecircRef> kept;
};

struct Scene {
  explicit Scene(uint32_t seed) : rules(seed, {1, 2, 3, 4, 5, 10, 77}) {
    for (const char* line : {"bridge br0 flood_vlans=21", "bridge br1", "port br0 br0 0xfffe"}) setup(line);
    setup("port br0 p1 1 dp=1" + vlan_options());
    setup("port br0 p2 2 dp=2" + vlan_options());
    setup("port br0 p3 3 dp=3" + std::string(one_in(4) ? " protected config=no_flood" : vlan_options()));
    setup("port br0 vx 4 dp=4 type=vxlan remote_ip=flow key=flow gbp" +
          std::string(one_in(2) ? " tos=inherit ttl=inherit" : ""));
    setup("port br0 vy 5 dp=5 type=vxlan remote_ip=172.16.0.9 local_ip=flow key=5 egress_mark=2");
    setup("port br0 pa 10 type=patch peer=pb");
    setup("port br1 pb 2 type=patch peer=pa" + vlan_options());
    setup("port br1 p6 3 dp=6" + vlan_options());
    setup("port br1 p7 1 dp=7" + vlan_options());
    EXPECT_TRUE(fixture.add_rules("br0", rules.rules(40)).ok());
    EXPECT_TRUE(fixture.add_rules("br1", rules.rules(15)).ok());
    for (uint16_t vlan : {0, 9, 10, 11}) {
      for (uint64_t mac = 1; mac <= 3; ++mac) {
        if (one_in(2)) {
          const char* bridge = one_in(2) ? "br0" : "br1";
          fixture.bridge(bridge)->macs->learn(vlan, MacAddress::from_u64(0x020000000000 + mac), 1 + below(4));
        }
      }
    }
  }

  void setup(const std::string& line) {
    const Status status = fixture.apply(line);
    EXPECT_TRUE(status.ok()) << line << ": " << status.message();
  }
  std::string vlan_options() {
    static const char* const kOptions[] = {"",
                                           "",
                                           " tag=10",
                                           " tag=10 priority_tags",
                                           " vlan_mode=native-tagged tag=10",
                                           " vlan_mode=native-untagged tag=10 trunks=10,11,20",
                                           " trunks=0,10,11"};
    return kOptions[below(7)];
  }
  uint32_t below(uint32_t n) { return rules.matches().below(n); }
  bool one_in(uint32_t n) { return rules.matches().one_in(n); }

  // Only tunnel ports give packets tunnel metadata, and they always do.
  void fit(FlowKey& key) {
    test::make_extractable(key);
    const bool tunnel = key.in_port == 4 || key.in_port == 5;
    if (!tunnel) {
      key.tunnel = {};
    } else if (!key.tunnel.has_destination()) {
      key.tunnel.id = to_be64(5);
      key.tunnel.src = to_be32(0xac100001);
      key.tunnel.dst = to_be32(0xac100101);
    } else if (key.tunnel.dst) {
      key.tunnel.src6 = key.tunnel.dst6 = {};
    } else {
      key.tunnel.src = be32{};
    }
    if (tunnel) std::fill(std::begin(key.tunnel.reserved), std::end(key.tunnel.reserved), uint8_t{0});
  }

  FlowKey packet() {
    FlowKey key = rules.matches().key().packet;
    fit(key);
    return key;
  }

  TranslateOutput run(const FlowKey& key, std::vector<TraceNode>* trace = nullptr) {
    return translate({.view = fixture.view(),
                      .key = key,
                      .allow_side_effects = false,
                      .now = fixture.clock().now(),
                      .trace = trace,
                      .contexts = &contexts});
  }

  std::string explain(const FlowKey& key) {
    std::vector<TraceNode> nodes;
    const TranslateOutput output = run(key, &nodes);
    PipelineMask mask;
    mask.packet = output.mask;
    return format_flow_key(output.keys->initial) + "\n" + format_trace_nodes(nodes) +
           "megaflow: " + format_megaflow(output.keys->initial, mask) +
           "\nactions: " + format_datapath_actions(output.actions) + " " +
           std::string(drop_reason_name(output.drop_reason)) + "\n";
  }

  RandomRules rules;
  SwitchFixture fixture;
  FakeContexts contexts;
};

// Another packet of the same megaflow, or nothing if the attempt made one outside it.
bool other_of_megaflow(Scene& scene, const FlowKey& key, const FlowMask& mask, FlowKey& other) {
  PipelineKey of;
  of.packet = key;
  PipelineMask bits;
  bits.packet = mask;
  other = scene.rules.matches().agreeing(of, bits).packet;
  scene.fit(other);
  other.recirc_id = key.recirc_id;
  return masked(other, mask) == masked(key, mask) && !(other == key);
}

// Everything that hangs on a flow beside its actions (vswitchd/control/flow_origin.h): flows that are treated alike
// share it.
bool same_terms(const TranslateOutput& one, const TranslateOutput& two) {
  const auto same_context = [](const Recirculation& a, const Recirculation& b) { return a.context == b.context; };
  return one.credit == two.credit && one.learned == two.learned &&
         std::ranges::equal(one.recirculations, two.recirculations, same_context) && one.thawed == two.thawed &&
         one.rewritten_words == two.rewritten_words && one.used_addresses == two.used_addresses &&
         one.slow_path == two.slow_path;
}

struct Tally {
  size_t compared = 0, with_actions = 0, recirculated = 0;
};

// `rounds`: how often it may recirculate yet.
void check_packet(Scene& scene, const FlowKey& key, int rounds, Tally& tally) {
  const TranslateOutput one = scene.run(key);
  for (const Recirculation& r : one.recirculations) {
    if (rounds > 0) check_packet(scene, r.key, rounds - 1, tally);
  }
  for (int attempt = 0; attempt < 25; ++attempt) {
    FlowKey other;
    if (!other_of_megaflow(scene, key, one.mask, other)) continue;
    const TranslateOutput two = scene.run(other);
    const bool same = one.actions == two.actions && one.drop_reason == two.drop_reason && one.failed == two.failed;
    if (!same) RC_FAIL(scene.explain(key) + "\n---- but\n" + scene.explain(other));
    if (!same_terms(one, two)) RC_FAIL("terms:\n" + scene.explain(key) + "\n---- and\n" + scene.explain(other));
    ++tally.compared;
    tally.with_actions += one.actions.empty() ? 0 : 1;
    tally.recirculated += key.recirc_id != 0 ? 1 : 0;
  }
}

TEST(MegaflowProperty, PacketsOfOneMegaflowAreTreatedAlike) {
  Tally tally;
  ASSERT_TRUE(rc::check([&](uint32_t seed) {
    Scene scene(seed);
    for (int packet = 0; packet < 15; ++packet) check_packet(scene, scene.packet(), 3, tally);
  }));
  // The property must not hold for want of cases.
  EXPECT_GT(tally.compared, 3000u);
  EXPECT_GT(tally.with_actions, tally.compared / 4);
  EXPECT_GT(tally.recirculated, 300u);
}

struct LookupTally {
  size_t found = 0, found_in_cache = 0, recirculated = 0, missed = 0, narrowed = 0;
};

// Sets up flows as packets come that find none, like the daemon.
class LearningTable {
 public:
  LearningTable(Scene& scene, const LookupOptions& options, LookupTally& tally)
      : scene_(scene), tally_(tally), table_(scene.fixture.clock(), kMaxFlows, options.max_masks) {}
  ~LearningTable() { tally_.narrowed += table_.counters().narrowed; }

  // `rounds`: how often it may recirculate yet.
  void receive(const FlowKey& key, int rounds) {
    TranslateOutput wanted = scene_.run(key);
    for (const Recirculation& r : wanted.recirculations) {
      if (rounds > 0) receive(r.key, rounds - 1);
    }
    if (wanted.actions.empty()) wanted.actions.push_back(DropAction{wanted.drop_reason});
    if (const Flow* flow = find(key)) {
      check(key, *flow, wanted.actions);
    } else {
      ++tally_.missed;
      if (!wanted.slow_path) RC_ASSERT(table_.insert(key, wanted.mask, std::move(wanted.actions), {}, nullptr).ok());
    }
    if (scene_.one_in(20)) table_.rerank();
  }

 private:
  static constexpr size_t kMaxFlows = 100'000;

  // Hashes of so few values that the cache remembers something else most of the time.
  const Flow* find(const FlowKey& key) {
    const uint64_t hash = uint64_t{scene_.below(4)} << 48;
    if (const Flow* flow = cache_.lookup(hash, key)) {
      ++tally_.found_in_cache;
      return flow;
    }
    Flow* flow = table_.lookup(key);
    if (flow != nullptr) cache_.insert(hash, flow);
    return flow;
  }

  void check(const FlowKey& key, const Flow& flow, const ActionList& wanted) {
    ++tally_.found;
    tally_.recirculated += key.recirc_id != 0 ? 1 : 0;
    if (flow.actions() == wanted) return;
    RC_FAIL(scene_.explain(key) + "\n---- but the flow of another packet does\n" +
            format_datapath_actions(flow.actions()) + "\n" + scene_.explain(flow.key()));
  }

  Scene& scene_;
  LookupTally& tally_;
  FlowTable table_;
  FlowCache cache_;
};

class MegaflowLookup : public ::testing::TestWithParam<test::Lookup> {};
INSTANTIATE_TEST_SUITE_P(MaskLimits, MegaflowLookup, ::testing::ValuesIn(test::kMaskLimits), test::lookup_name);

TEST_P(MegaflowLookup, WhatAPacketFindsIsWhatItWouldGet) {
  LookupTally tally;
  ASSERT_TRUE(rc::check([&](uint32_t seed) {
    Scene scene(seed);
    LearningTable table(scene, GetParam().options, tally);
    for (int flow = 0; flow < 15; ++flow) {
      const FlowKey key = scene.packet();
      const FlowMask mask = scene.run(key).mask;
      table.receive(key, 3);
      for (int packet = 0; packet < 10; ++packet) {
        FlowKey other;
        table.receive(other_of_megaflow(scene, key, mask, other) ? other : scene.packet(), 3);
      }
    }
  }));
  // The property must not hold for want of cases.
  EXPECT_GT(tally.found, 3000u);
  EXPECT_GT(tally.found_in_cache, tally.found / 10);
  EXPECT_GT(tally.recirculated, 300u);
  EXPECT_GT(tally.missed, 1000u);
  EXPECT_GT(tally.narrowed, GetParam().options.max_masks == 1 ? 1000u : 10u);
}

}  // namespace
}  // namespace vswitch
