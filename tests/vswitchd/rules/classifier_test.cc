#include "vswitchd/rules/classifier.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "datapath/base/rcu.h"
#include "tests/support/random_match.h"

namespace vswitch {
namespace {

using test::RandomMatches;

constexpr Version kNow = 10;

RuleSpec spec_of(const Match& match, uint16_t priority) {
  RuleSpec spec;
  spec.match = match;
  spec.priority = priority;
  spec.actions = std::make_shared<RuleActionList>();
  return spec;
}

// Owns its rules and knows the right answers the slow way.
class Rules {
 public:
  Rules() = default;
  explicit Rules(size_t large_index) : classifier(large_index) {}
  ~Rules() {
    for (Rule* rule : all_) rule->release();
  }

  Rule* add(const Match& match, uint16_t priority, Version from = 0) {
    Rule* rule = Rule::make(next_id_++, spec_of(match, priority), 1s);
    rule->show_from(from);
    classifier.insert(rule);
    all_.push_back(rule);
    present_.push_back(rule);
    return rule;
  }
  void remove(Rule* rule) {
    classifier.remove(rule);
    std::erase(present_, rule);
  }
  const std::vector<Rule*>& present() const { return present_; }

  // The highest priority that a visible matching rule has, and all such rules.
  std::vector<const Rule*> best(const PipelineKey& key, Version version) const {
    std::vector<const Rule*> best;
    for (const Rule* rule : present_) {
      const Match match = rule->match().expand();
      if (!rule->visible_at(version) || !matches(key, match.value, match.mask)) continue;
      if (!best.empty() && best[0]->priority() > rule->priority()) continue;
      if (!best.empty() && best[0]->priority() < rule->priority()) best.clear();
      best.push_back(rule);
    }
    return best;
  }
  bool is_right(const Rule* found, const PipelineKey& key, Version version) const {
    const std::vector<const Rule*> right = best(key, version);
    if (found == nullptr) return right.empty();
    return std::find(right.begin(), right.end(), found) != right.end();
  }

  Classifier classifier;

 private:
  uint64_t next_id_ = 1;
  std::vector<Rule*> all_, present_;
};

Match ipv4_dst(uint32_t address, unsigned length) {
  Match match;
  match.mask.packet.eth_type = to_be16(0xffff);
  match.value.packet.eth_type = kEthTypeIpv4;
  match.mask.packet.nw_dst = to_be32(length == 0 ? 0 : ~uint32_t{0} << (32 - length));
  match.value.packet.nw_dst = to_be32(address) & match.mask.packet.nw_dst;
  return match;
}

PipelineKey ipv4_packet(uint32_t destination, uint16_t port = 0) {
  PipelineKey key;
  key.packet.eth_type = kEthTypeIpv4;
  key.packet.nw_dst = to_be32(destination);
  key.packet.nw_proto = kProtoTcp;
  key.packet.tp_dst = to_be16(port);
  return key;
}

TEST(ClassifierTest, FindsTheHighestPriority) {
  const rcu::ReaderScope reader;
  Rules rules;
  const Rule* low = rules.add(Match{}, 1);
  const Rule* high = rules.add(ipv4_dst(0x0a000000, 8), 5);
  EXPECT_EQ(rules.classifier.lookup(ipv4_packet(0x0a010203), kNow, nullptr), high);
  EXPECT_EQ(rules.classifier.lookup(ipv4_packet(0x0b010203), kNow, nullptr), low);
  EXPECT_EQ(rules.classifier.subtable_count(), 2u);
}

TEST(ClassifierTest, StopsBeforeSubtablesThatCannotWin) {
  const rcu::ReaderScope reader;
  Rules rules;
  Match on_port;
  on_port.mask.packet.in_port = ~0u;
  on_port.value.packet.in_port = 1;
  rules.add(on_port, 10);
  rules.add(ipv4_dst(0x0a000001, 32), 10);
  PipelineKey key = ipv4_packet(0x0a000001);
  key.packet.in_port = 1;
  PipelineMask looked_at;
  ASSERT_NE(rules.classifier.lookup(key, kNow, &looked_at), nullptr);
  EXPECT_EQ(looked_at, on_port.mask);
}

TEST(ClassifierTest, FailsInAnEarlyStageWithoutLookingAtLaterOnes) {
  const rcu::ReaderScope reader;
  Rules rules;
  Match match = ipv4_dst(0x0a000001, 32);
  match.mask.packet.in_port = ~0u;
  match.value.packet.in_port = 7;
  rules.add(match, 10);
  PipelineMask looked_at;
  EXPECT_EQ(rules.classifier.lookup(ipv4_packet(0x0a000001), kNow, &looked_at), nullptr);
  PipelineMask expected;
  expected.packet.in_port = ~0u;
  EXPECT_EQ(looked_at, expected);
}

TEST(ClassifierTest, TriesMarkOnlyTheBitsThatDecide) {
  const rcu::ReaderScope reader;
  Rules rules;
  rules.add(ipv4_dst(0x0a000001, 32), 10);
  rules.add(ipv4_dst(0x0a000002, 32), 10);
  PipelineMask looked_at;
  EXPECT_EQ(rules.classifier.lookup(ipv4_packet(0xc0a80001), kNow, &looked_at), nullptr);
  EXPECT_EQ(looked_at.packet.nw_dst, to_be32(0x80000000));  // 192... and 10... differ in the first bit
  EXPECT_EQ(looked_at.packet.eth_type, to_be16(0xffff));
}

TEST(ClassifierTest, PortTrieMarksOnlyTheBitsThatDecide) {
  const rcu::ReaderScope reader;
  Rules rules;
  Match match = ipv4_dst(0, 0);
  match.mask.packet.nw_proto = 0xff;
  match.value.packet.nw_proto = kProtoTcp;
  match.mask.packet.tp_dst = to_be16(0xffff);
  match.value.packet.tp_dst = to_be16(80);
  rules.add(match, 10);
  PipelineMask looked_at;
  EXPECT_EQ(rules.classifier.lookup(ipv4_packet(1, 0x8050), kNow, &looked_at), nullptr);
  EXPECT_EQ(looked_at.packet.tp_dst, to_be16(0x8000));
  EXPECT_EQ(looked_at.packet.tp_src, be16());
}

TEST(ClassifierTest, HiddenRuleDoesNotHideTheVisibleOne) {
  const rcu::ReaderScope reader;
  Rules rules;
  const Match match = ipv4_dst(0x0a000000, 8);
  Rule* old = rules.add(match, 10, 1);
  old->hide_from(5);
  Rule* next = rules.add(match, 10, 5);
  const Rule* lower = rules.add(match, 3, 1);
  const PipelineKey key = ipv4_packet(0x0a000001);
  EXPECT_EQ(rules.classifier.lookup(key, 4, nullptr), old);
  EXPECT_EQ(rules.classifier.lookup(key, 5, nullptr), next);
  EXPECT_EQ(rules.classifier.find_exact(old->match(), 10, 4), old);
  EXPECT_EQ(rules.classifier.find_exact(old->match(), 10, 5), next);
  EXPECT_EQ(rules.classifier.find_exact(old->match(), 3, 5), lower);
  EXPECT_EQ(rules.classifier.find_exact(old->match(), 4, 5), nullptr);
  rules.remove(old);
  EXPECT_EQ(rules.classifier.lookup(key, 5, nullptr), next);
  next->hide_from(6);
  EXPECT_EQ(rules.classifier.lookup(key, 6, nullptr), lower);
  EXPECT_EQ(rules.classifier.lookup(key, 0, nullptr), nullptr);
}

TEST(ClassifierTest, EmptySubtablesGo) {
  const rcu::ReaderScope reader;
  Rules rules;
  Rule* rule = rules.add(ipv4_dst(0x0a000000, 8), 10);
  rules.remove(rule);
  EXPECT_EQ(rules.classifier.subtable_count(), 0u);
  EXPECT_EQ(rules.classifier.rule_count(), 0u);
  PipelineMask looked_at;
  EXPECT_EQ(rules.classifier.lookup(ipv4_packet(0x0a000001), kNow, &looked_at), nullptr);
  EXPECT_TRUE(is_empty_mask(looked_at));
}

TEST(ClassifierTest, DeferredInsertionsAppearWhenPublished) {
  const rcu::ReaderScope reader;
  Rules rules;
  rules.classifier.defer();
  const Rule* rule = rules.add(ipv4_dst(0x0a000000, 8), 10);
  EXPECT_EQ(rules.classifier.find_exact(rule->match(), 10, kNow), rule);
  rules.classifier.publish();
  EXPECT_EQ(rules.classifier.lookup(ipv4_packet(0x0a000001), kNow, nullptr), rule);
}

// The property that megaflows rest on: the answer is right, and every key that agrees in the marked bits has the same
// answer.
void check_random_classifier(uint64_t seed) {
  const rcu::ReaderScope reader;
  RandomMatches random(seed);
  Rules rules;
  const uint32_t count = 1 + random.below(random.one_in(3) ? 60 : 12);
  const uint32_t priorities = 1 + random.below(6);
  for (uint32_t i = 0; i < count; ++i) {
    const Match match = random.match();
    const auto priority = static_cast<uint16_t>(random.below(priorities));
    if (rules.classifier.find_exact(MiniMatch(match), priority, kNow) != nullptr) continue;
    Rule* rule = rules.add(match, priority, random.one_in(6) ? kNow + 1 : kNow);
    if (random.one_in(6)) rule->hide_from(kNow);
    if (random.one_in(5)) rules.remove(rules.present()[random.below(static_cast<uint32_t>(rules.present().size()))]);
  }
  for (int i = 0; i < 20; ++i) {
    const PipelineKey key = random.key();
    PipelineMask looked_at;
    const Rule* found = rules.classifier.lookup(key, kNow, &looked_at);
    RC_ASSERT(rules.is_right(found, key, kNow));
    RC_ASSERT(rules.classifier.lookup(key, kNow, nullptr) == found);
    if (found != nullptr) RC_ASSERT(mask_contains(looked_at, found->match().expand().mask));
    for (int j = 0; j < 20; ++j) {
      const PipelineKey other = random.agreeing(key, looked_at);
      RC_ASSERT(rules.is_right(found, other, kNow));
      RC_ASSERT(rules.classifier.lookup(other, kNow, nullptr) == found);
    }
  }
}

TEST(ClassifierTest, AgreesWithLinearSearchAndMarksEveryDecidingBit) {
  ASSERT_TRUE(rc::check([] {
    const auto seed = *rc::gen::noShrink(rc::gen::arbitrary<uint64_t>());
    for (uint64_t i = 0; i < 40; ++i) check_random_classifier(seed + i);
  }));
}

// 5-tuples in the manner of an access list: hundreds of masks, crowded addresses.
uint32_t crowded_address(RandomMatches& random) {
  return 0x0a000000 | random.below(4) << 16 | random.below(8) << 8 | random.below(64);
}

Match acl_match(RandomMatches& random, uint32_t (*address_from)(RandomMatches&) = crowded_address) {
  constexpr std::array<unsigned, 8> kLengths{0, 8, 16, 20, 24, 27, 30, 32};
  const auto address = [&] { return address_from(random); };
  Match match = ipv4_dst(address(), kLengths[random.below(8)]);
  const unsigned length = kLengths[random.below(8)];
  match.mask.packet.nw_src = to_be32(length == 0 ? 0 : ~uint32_t{0} << (32 - length));
  match.value.packet.nw_src = to_be32(address()) & match.mask.packet.nw_src;
  if (random.one_in(5)) return match;
  match.mask.packet.nw_proto = 0xff;
  match.value.packet.nw_proto = random.one_in(2) ? kProtoTcp : kProtoUdp;
  if (random.one_in(2)) match.mask.packet.tp_dst = to_be16(static_cast<uint16_t>(0xffff << random.below(16)));
  match.value.packet.tp_dst = to_be16(static_cast<uint16_t>(random.below(1024))) & match.mask.packet.tp_dst;
  return match;
}

TEST(ClassifierTest, AgreesWithLinearSearchAmongHundredsOfMasks) {
  const rcu::ReaderScope reader;
  RandomMatches random(11);
  Rules rules;
  for (int round = 0; round < 8; ++round) {
    for (int i = 0; i < 400; ++i) {
      const Match match = acl_match(random);
      const auto priority = static_cast<uint16_t>(random.below(500));
      if (rules.classifier.find_exact(MiniMatch(match), priority, kNow) == nullptr) rules.add(match, priority);
    }
    for (int i = 0; i < (round == 4 ? 1200 : 100); ++i) {
      rules.remove(rules.present()[random.below(static_cast<uint32_t>(rules.present().size()))]);
    }
    for (int i = 0; i < 100; ++i) {
      const Match near = acl_match(random);
      PipelineKey key = near.value;
      key.packet.nw_proto = kProtoTcp;
      PipelineMask looked_at;
      const Rule* found = rules.classifier.lookup(key, kNow, &looked_at);
      ASSERT_TRUE(rules.is_right(found, key, kNow));
      for (int j = 0; j < 10; ++j) {
        const PipelineKey other = random.agreeing(key, looked_at);
        ASSERT_EQ(rules.classifier.lookup(other, kNow, nullptr), found);
        ASSERT_TRUE(rules.is_right(found, other, kNow));
      }
    }
  }
  EXPECT_GT(rules.classifier.subtable_count(), 300u);
  while (!rules.present().empty()) rules.remove(rules.present().back());
  EXPECT_EQ(rules.classifier.subtable_count(), 0u);
}

// With IPv6 addresses instead of or, with no EtherType to forbid it, beside those of IPv4.
Match acl_match_of_any_family(RandomMatches& random, uint32_t (*address_from)(RandomMatches&)) {
  Match match = acl_match(random, address_from);
  if (random.one_in(2)) match.mask.packet.eth_type = match.value.packet.eth_type = be16();
  if (random.one_in(2)) return match;
  const be32 mask = to_be32(~uint32_t{0} << random.below(13));
  store_unaligned(match.mask.packet.ipv6_dst.bytes.data(), mask);
  store_unaligned(match.value.packet.ipv6_dst.bytes.data(), to_be32(address_from(random)) & mask);
  return match;
}

// Where lookups wait for a large index, they begin with what short prefixes tell. Nothing else is different.
TEST(ClassifierTest, AgreesWithLinearSearchWithLargeIndexes) {
  const rcu::ReaderScope reader;
  RandomMatches random(12);
  Rules rules(0), small;
  bool had_wide_node = false;
  const auto address = [](RandomMatches& from) { return 0x0a000000 | from.below(1 << 12); };
  for (int round = 0; round < 8; ++round) {
    for (int i = 0; i < 250; ++i) {
      const Match match = acl_match_of_any_family(random, address);
      const auto priority = static_cast<uint16_t>(random.below(500));
      if (rules.classifier.find_exact(MiniMatch(match), priority, kNow) != nullptr) continue;
      rules.add(match, priority);
      small.add(match, priority);
    }
    had_wide_node |= rules.classifier.memory_bytes() > small.classifier.memory_bytes() + 2'000;
    for (int i = 0; i < 200; ++i) {
      PipelineKey key = acl_match_of_any_family(random, address).value;
      key.packet.eth_type = kEthTypeIpv4;
      key.packet.nw_proto = kProtoTcp;
      PipelineMask looked_at, same;
      const Rule* found = rules.classifier.lookup(key, kNow, &looked_at);
      ASSERT_TRUE(rules.is_right(found, key, kNow));
      (void)small.classifier.lookup(key, kNow, &same);
      ASSERT_EQ(looked_at, same);
      for (int j = 0; j < 5; ++j) {
        const PipelineKey other = random.agreeing(key, looked_at);
        ASSERT_EQ(rules.classifier.lookup(other, kNow, nullptr), found);
        ASSERT_TRUE(rules.is_right(found, other, kNow));
      }
    }
    for (int i = 0; i < (round == 4 ? 700 : 100); ++i) {
      const uint32_t at = random.below(static_cast<uint32_t>(rules.present().size()));
      rules.remove(rules.present()[at]);
      small.remove(small.present()[at]);
    }
  }
  EXPECT_TRUE(had_wide_node);
}

// A subtable may have the only rule of two prefixes. That of the first field counts, also where a short prefix of the
// other is found earlier.
TEST(ClassifierTest, LargeIndexesMarkNoMoreBits) {
  const rcu::ReaderScope reader;
  Rules rules(0), small;
  const auto add = [&](uint32_t source, unsigned source_length, uint32_t destination, unsigned length, uint8_t protocol,
                       uint16_t priority) {
    Match match = ipv4_dst(destination, length);
    match.mask.packet.nw_src = to_be32(~uint32_t{0} << (32 - source_length));
    match.value.packet.nw_src = to_be32(source) & match.mask.packet.nw_src;
    if (protocol != 0) match.mask.packet.nw_proto = 0xff, match.value.packet.nw_proto = protocol;
    rules.add(match, priority);
    small.add(match, priority);
  };
  for (uint32_t i = 0; i < 256; ++i) add(0x14000001 | i << 16, 32, 0x0a000000 | i << 16, 32, 0, 1);
  add(0x14000000, 8, 0x0a050600, 24, kProtoUdp, 10);
  PipelineKey key = ipv4_packet(0x0a050607);
  key.packet.nw_src = to_be32(0x14050607);
  PipelineMask looked_at, same;
  EXPECT_EQ(rules.classifier.lookup(key, kNow, &looked_at), nullptr);
  EXPECT_EQ(small.classifier.lookup(key, kNow, &same), nullptr);
  EXPECT_EQ(looked_at, same);
}

// Where most prefixes belong to one rule alone, that rule is found without its subtable. The same matches come and go
// in several versions, with equal priorities.
TEST(ClassifierTest, AgreesWithLinearSearchWherePrefixesAreRare) {
  const rcu::ReaderScope reader;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    RandomMatches random(seed);
    Rules rules;
    const auto change_one = [&](const Match& match) {
      const auto priority = static_cast<uint16_t>(random.below(4));
      if (rules.classifier.find_exact(MiniMatch(match), priority, kNow) != nullptr) return;
      Rule* rule = rules.add(match, priority, random.one_in(6) ? kNow + 1 : kNow);
      if (random.one_in(6)) rule->hide_from(kNow);
      if (random.one_in(3)) rules.remove(rules.present()[random.below(static_cast<uint32_t>(rules.present().size()))]);
    };
    std::vector<Match> matches;
    for (int i = 0; i < 40; ++i) {
      matches.push_back(acl_match(random));
      change_one(random.one_in(4) ? matches[random.below(static_cast<uint32_t>(matches.size()))] : matches.back());
      PipelineKey key = random.one_in(2) ? acl_match(random).value : matches.back().value;
      key.packet.nw_proto = random.one_in(2) ? kProtoTcp : kProtoUdp;
      PipelineMask looked_at;
      const Rule* found = rules.classifier.lookup(key, kNow, &looked_at);
      ASSERT_TRUE(rules.is_right(found, key, kNow));
      ASSERT_EQ(rules.classifier.lookup(key, kNow, nullptr), found);
      for (int j = 0; j < 20; ++j) {
        const PipelineKey other = random.agreeing(key, looked_at);
        ASSERT_EQ(rules.classifier.lookup(other, kNow, nullptr), found);
        ASSERT_TRUE(rules.is_right(found, other, kNow));
      }
    }
  }
}

TEST(ClassifierTest, TheOnlyRuleOfAPrefixIsRuledOutByWhatTellsItFromThePacket) {
  const rcu::ReaderScope reader;
  Rules rules;
  const auto add = [&rules](uint32_t destination, uint8_t protocol, uint16_t port, uint16_t priority) {
    Match match = ipv4_dst(destination, 24);
    match.mask.packet.nw_proto = 0xff;
    match.value.packet.nw_proto = protocol;
    match.mask.packet.tp_dst = to_be16(0xffff);
    match.value.packet.tp_dst = to_be16(port);
    return rules.add(match, priority);
  };
  add(0x0a000100, kProtoTcp, 0x0050, 10);
  add(0x0a000200, kProtoUdp, 0x0050, 10);
  const Rule* any = rules.add(ipv4_dst(0, 0), 5);
  PipelineMask by_port, by_protocol;
  EXPECT_EQ(rules.classifier.lookup(ipv4_packet(0x0a000105, 0x8050), kNow, &by_port), any);
  EXPECT_EQ(by_port.packet.nw_dst, to_be32(0xffffff00));
  EXPECT_EQ(by_port.packet.tp_dst, to_be16(0x8000));
  EXPECT_EQ(by_port.packet.nw_proto, 0);
  EXPECT_EQ(rules.classifier.lookup(ipv4_packet(0x0a000205, 0x8050), kNow, &by_protocol), any);
  EXPECT_EQ(by_protocol.packet.nw_dst, to_be32(0xffffff00));
  EXPECT_EQ(by_protocol.packet.tp_dst, be16());
  EXPECT_EQ(by_protocol.packet.nw_proto, 0xff);
}

TEST(ClassifierTest, VisitsExactlyTheContainedRules) {
  ASSERT_TRUE(rc::check([] {
    const rcu::ReaderScope reader;
    RandomMatches random(*rc::gen::noShrink(rc::gen::arbitrary<uint64_t>()));
    Rules rules;
    for (int i = 0; i < 30; ++i)
      rules.add(random.match(), static_cast<uint16_t>(i), random.one_in(5) ? kNow + 1 : kNow);
    for (int i = 0; i < 10; ++i) {
      const Match wide = random.one_in(2) ? random.match() : rules.present()[random.below(30)]->match().expand();
      std::vector<const Rule*> expected, visited;
      for (const Rule* rule : rules.present()) {
        const Match narrow = rule->match().expand();
        if (rule->visible_at(kNow) && mask_contains(narrow.mask, wide.mask) &&
            matches(narrow.value, wide.value, wide.mask)) {
          expected.push_back(rule);
        }
      }
      rules.classifier.for_each_contained(MiniMatch(wide), kNow, [&](const Rule& rule) {
        visited.push_back(&rule);
        return true;
      });
      std::sort(expected.begin(), expected.end());
      std::sort(visited.begin(), visited.end());
      RC_ASSERT(visited == expected);
    }
  }));
}

// A thousand rules that are always there, while others with the same masks and matches come and go.
void check_readers(Rules& rules) {
  RandomMatches random(7);
  std::vector<PipelineKey> keys;
  std::vector<Match> stable;
  for (int i = 0; i < 300; ++i) {
    stable.push_back(random.match());
    if (rules.classifier.find_exact(MiniMatch(stable.back()), 100, kNow) == nullptr) rules.add(stable.back(), 100);
    keys.push_back(random.key());
  }
  std::vector<std::pair<bool, uint16_t>> expected;
  for (const PipelineKey& key : keys) {
    const auto best = rules.best(key, kNow);
    expected.emplace_back(!best.empty(), best.empty() ? 0 : best[0]->priority());
  }
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0}, lookups{0};
  std::vector<std::thread> readers;
  for (int t = 0; t < 2; ++t) {
    readers.emplace_back([&] {
      const rcu::ThreadRegistration registration;
      while (!stop.load(std::memory_order_relaxed)) {
        for (size_t i = 0; i < keys.size(); ++i) {
          PipelineMask mask;
          const Rule* found = rules.classifier.lookup(keys[i], kNow, i % 2 == 0 ? &mask : nullptr);
          const bool same = expected[i].first == (found != nullptr) && (found == nullptr || found->priority() == 100);
          if (!same) wrong.fetch_add(1);
          lookups.fetch_add(1, std::memory_order_relaxed);
          rcu::quiescent();
        }
      }
    });
  }
  std::vector<Rule*> extra;  // never visible at kNow, so they must change nothing
  for (int i = 0; i < 20000 || lookups.load() < 2000; ++i) {
    if (extra.size() < 400 && !random.one_in(3)) {
      const Match match = random.one_in(2) ? random.match() : stable[random.below(300)];
      Rule* rule = Rule::make(1, spec_of(match, static_cast<uint16_t>(random.below(300))), 1s);
      rule->show_from(kNow + 1);
      rules.classifier.insert(rule);
      extra.push_back(rule);
    } else if (!extra.empty()) {
      const size_t at = random.below(static_cast<uint32_t>(extra.size()));
      rules.classifier.remove(extra[at]);
      rcu::retire([rule = extra[at]] { rule->release(); });
      extra[at] = extra.back();
      extra.pop_back();
    }
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong.load(), 0u);
  for (Rule* rule : extra) {
    rules.classifier.remove(rule);
    rcu::retire([rule] { rule->release(); });
  }
  rcu::barrier();
}

TEST(ClassifierTest, ReadersSeeStableRulesWhileOthersChange) {
  Rules rules;
  check_readers(rules);
}

TEST(ClassifierTest, ReadersSeeStableRulesWhileOthersChangeInLargeIndexes) {
  Rules rules(0);
  check_readers(rules);
}

}  // namespace
}  // namespace vswitch
