#include "vswitchd/rules/rule_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "datapath/base/rcu.h"
#include "tests/support/random_match.h"

namespace vswitch {
namespace {

using test::RandomMatches;
using testing::HasSubstr;

constexpr uint64_t kAllOnes = ~uint64_t{0};

std::shared_ptr<const RuleActionList> output(OfPort port) {
  return std::make_shared<RuleActionList>(RuleActionList{OutputToPort{port, 0}});
}

Match in_port(uint32_t port) {
  Match match;
  match.mask.packet.in_port = ~0u;
  match.value.packet.in_port = port;
  return match;
}

Match ip_in_port(uint32_t port) {
  Match match = in_port(port);
  match.mask.packet.eth_type = to_be16(0xffff);
  match.value.packet.eth_type = kEthTypeIpv4;
  return match;
}

PipelineKey packet_from(uint32_t port) {
  PipelineKey key;
  key.packet.in_port = port;
  key.packet.eth_type = kEthTypeIpv4;
  return key;
}

RuleMod mod(RuleCommand command, const Match& match, std::shared_ptr<const RuleActionList> actions, uint8_t table = 0,
            uint16_t priority = 100) {
  RuleMod m;
  m.command = command;
  m.spec.table = table;
  m.spec.priority = priority;
  m.spec.match = match;
  m.spec.actions = std::move(actions);
  return m;
}
RuleMod add(const Match& match, OfPort port, uint8_t table = 0, uint16_t priority = 100) {
  return mod(RuleCommand::add, match, output(port), table, priority);
}
RuleMod removal(const Match& match, uint8_t table = kTableAll) {
  return mod(RuleCommand::remove, match, nullptr, table);
}

class RuleTablesTest : public testing::Test {
 protected:
  Status apply(const std::vector<RuleMod>& mods) {
    Result<RuleChange> change = tables_.prepare(mods, &failed_index_);
    if (!change.ok()) return change.status();
    change->publish();
    return {};
  }
  const Rule* find(uint32_t port, uint8_t table = 0) {
    return tables_.lookup(table, packet_from(port), tables_.version(), nullptr);
  }
  OfPort output_of(const Rule* rule) { return std::get<OutputToPort>(rule->actions().at(0)).port; }
  void expire() {
    std::vector<const Rule*> rules;
    for (const auto& [rule, reason] : tables_.expired(clock_.now())) rules.push_back(rule);
    tables_.prepare_removal(rules).publish();
  }

  rcu::ReaderScope reader_;
  ManualClock clock_{100s};
  RuleTables tables_{clock_};
  size_t failed_index_ = 999;
};

TEST_F(RuleTablesTest, StagedRulesAppearWhenPublished) {
  Result<RuleChange> change = tables_.prepare(std::vector{add(in_port(1), 2)});
  ASSERT_TRUE(change.ok());
  EXPECT_EQ(change->added().size(), 1u);
  EXPECT_EQ(find(1), nullptr);
  const Version version = change->publish();
  EXPECT_EQ(version, tables_.version());
  ASSERT_NE(find(1), nullptr);
  EXPECT_EQ(output_of(find(1)), 2);
  EXPECT_EQ(tables_.lookup(0, packet_from(1), version - 1, nullptr), nullptr);
  EXPECT_EQ(tables_.rule_count(), 1u);
}

TEST_F(RuleTablesTest, UnpublishedChangeIsUndone) {
  ASSERT_TRUE(apply({add(in_port(1), 2)}).ok());
  const Rule* before = find(1);
  {
    Result<RuleChange> change =
        tables_.prepare(std::vector{add(in_port(1), 3), add(ip_in_port(2), 3), removal(Match{}), add(in_port(4), 3)});
    ASSERT_TRUE(change.ok());
    EXPECT_EQ(change->added().size(), 1u);
    EXPECT_EQ(change->removed().size(), 1u);
    EXPECT_EQ(tables_.prepare(std::vector<RuleMod>{}).status().code(), StatusCode::failed_precondition);
    EXPECT_TRUE(tables_.prepare_removal(std::vector<const Rule*>{before}).empty());
  }
  EXPECT_EQ(find(1), before);
  EXPECT_EQ(find(4), nullptr);
  EXPECT_EQ(tables_.rule_count(), 1u);
  ASSERT_TRUE(apply({add(in_port(4), 3)}).ok());
  EXPECT_EQ(find(1), before);
}

TEST_F(RuleTablesTest, ErrorStagesNothingAndNamesTheMod) {
  RuleMod backwards = add(in_port(3), 1, 5);
  backwards.spec.actions = std::make_shared<RuleActionList>(RuleActionList{GotoTable{5}});
  const Status status = apply({add(in_port(1), 1), add(in_port(2), 1), backwards});
  EXPECT_EQ(status.code(), StatusCode::invalid_argument);
  EXPECT_THAT(status.message(), HasSubstr("goto_table:5 in table 5"));
  EXPECT_EQ(failed_index_, 2u);
  EXPECT_EQ(tables_.rule_count(), 0u);
  EXPECT_EQ(find(1), nullptr);
}

TEST_F(RuleTablesTest, RefusesTablesThatAreNone) {
  EXPECT_EQ(apply({add(in_port(1), 1, kTableInternal)}).code(), StatusCode::invalid_argument);
  EXPECT_EQ(apply({add(in_port(1), 1, kTableAll)}).code(), StatusCode::invalid_argument);
  EXPECT_EQ(apply({removal(Match{}, kTableInternal)}).code(), StatusCode::invalid_argument);
  EXPECT_EQ(apply({mod(RuleCommand::add, in_port(1), nullptr)}).code(), StatusCode::invalid_argument);
}

TEST_F(RuleTablesTest, AddReplacesAndKeepsCounts) {
  ASSERT_TRUE(apply({add(in_port(1), 2)}).ok());
  const RuleRef old(find(1));
  old->credit(3, 300, 101s);
  clock_.advance(10s);
  ASSERT_TRUE(apply({add(in_port(1), 5)}).ok());
  const Rule* now = find(1);
  ASSERT_NE(now, old.get());
  EXPECT_EQ(now->stats().packets, 3u);
  EXPECT_EQ(now->created(), 110s);
  old->credit(2, 200, 111s);  // a megaflow that was translated with the old rule
  EXPECT_EQ(now->stats().packets, 5u);
  EXPECT_EQ(now->stats().bytes, 500u);
  EXPECT_EQ(now->stats().used, 111s);
  EXPECT_EQ(tables_.rule_count(), 1u);
}

TEST_F(RuleTablesTest, AddWithResetCountsStartsAtZero) {
  ASSERT_TRUE(apply({add(in_port(1), 2)}).ok());
  find(1)->credit(3, 300, 101s);
  RuleMod again = add(in_port(1), 5);
  again.spec.flags = kRuleResetCounts;
  ASSERT_TRUE(apply({again, add(in_port(1), 6)}).ok());  // also when replaced once more in the same batch
  EXPECT_EQ(output_of(find(1)), 6);
  EXPECT_EQ(find(1)->stats().packets, 0u);
}

TEST_F(RuleTablesTest, CheckOverlapNamesTheOtherRule) {
  RuleMod wide = add(in_port(1), 2);
  wide.spec.cookie = 0xabc;
  RuleMod narrow = add(ip_in_port(1), 2);
  narrow.spec.flags = kRuleCheckOverlap;
  const Status status = apply({wide, narrow});
  EXPECT_EQ(status.code(), StatusCode::failed_precondition);
  EXPECT_THAT(status.message(), HasSubstr("table=0, priority=100, cookie=0xabc"));
  RuleMod other_priority = narrow, same_match = wide, elsewhere = narrow;
  other_priority.spec.priority = 101;
  same_match.spec.flags = kRuleCheckOverlap;
  elsewhere.spec.match = ip_in_port(2);
  EXPECT_TRUE(apply({wide, other_priority, same_match, elsewhere}).ok());
}

TEST_F(RuleTablesTest, ModifyKeepsAllButActions) {
  RuleMod first = add(ip_in_port(1), 2);
  first.spec.idle_timeout = 10;
  first.spec.hard_timeout = 20;
  first.spec.flags = kRuleSendFlowRemoved;
  first.spec.cookie = 7;
  ASSERT_TRUE(apply({first, add(in_port(1), 2, 3), add(in_port(2), 2)}).ok());
  find(1)->credit(3, 300, 105s);
  clock_.advance(8s);
  RuleMod change = mod(RuleCommand::modify, in_port(1), output(9), kTableAll);
  change.spec.cookie = 99;
  ASSERT_TRUE(apply({change}).ok());
  const Rule* rule = find(1);
  EXPECT_EQ(output_of(rule), 9);
  EXPECT_EQ(output_of(find(1, 3)), 9);
  EXPECT_EQ(output_of(find(2)), 2);
  EXPECT_EQ(rule->cookie(), 7u);
  EXPECT_EQ(rule->idle_timeout(), 10);
  EXPECT_EQ(rule->flags(), kRuleSendFlowRemoved);
  EXPECT_EQ(rule->created(), 100s);
  EXPECT_EQ(rule->modified(), 108s);
  EXPECT_EQ(rule->stats().packets, 3u);
  EXPECT_EQ(rule->stats().used, 105s);
  EXPECT_EQ(tables_.rule_count(), 3u);
}

TEST_F(RuleTablesTest, ModifyStrictTakesOneRule) {
  ASSERT_TRUE(apply({add(in_port(1), 2, 0, 100), add(ip_in_port(1), 2, 0, 200)}).ok());
  RuleMod change = mod(RuleCommand::modify_strict, in_port(1), output(9));
  change.modify_cookie = true;
  change.spec.cookie = 5;
  ASSERT_TRUE(apply({change}).ok());
  EXPECT_EQ(output_of(find(1)), 2);
  RuleFilter filter;
  filter.strict = true;
  filter.match = in_port(1);
  filter.priority = 100;
  int seen = 0;
  tables_.for_each(filter, [&](const Rule& rule) {
    ++seen;
    EXPECT_EQ(output_of(&rule), 9);
    EXPECT_EQ(rule.cookie(), 5u);
    return true;
  });
  EXPECT_EQ(seen, 1);
}

TEST_F(RuleTablesTest, ModifyOfNothingAdds) {
  ASSERT_TRUE(apply({mod(RuleCommand::modify, in_port(1), output(2), kTableAll)}).ok());
  EXPECT_NE(find(1), nullptr);
  RuleMod with_cookie = mod(RuleCommand::modify, in_port(2), output(2));
  with_cookie.cookie_mask = kAllOnes;
  RuleMod no_cookie = mod(RuleCommand::modify_strict, in_port(3), output(2));
  no_cookie.spec.cookie = kAllOnes;
  ASSERT_TRUE(apply({with_cookie, no_cookie, mod(RuleCommand::modify_strict, in_port(4), output(2))}).ok());
  EXPECT_EQ(find(2), nullptr);
  EXPECT_EQ(find(3), nullptr);
  EXPECT_NE(find(4), nullptr);
}

TEST_F(RuleTablesTest, RemovesByMatchCookieAndOutPort) {
  RuleMod cookie = add(in_port(1), 2);
  cookie.spec.cookie = 0x12;
  RuleMod nested = add(in_port(2), 2);
  nested.spec.actions = std::make_shared<RuleActionList>(
      RuleActionList{WriteActions{std::make_shared<RuleActionList>(RuleActionList{CloneActions{output(44)}})}});
  RuleMod controller = add(in_port(3), 2);
  controller.spec.actions = std::make_shared<RuleActionList>(RuleActionList{SendToController{}});
  ASSERT_TRUE(apply({cookie, nested, controller, add(ip_in_port(4), 2)}).ok());

  RuleMod by_cookie = removal(Match{});
  by_cookie.cookie = 0x10;
  by_cookie.cookie_mask = 0xf0;
  RuleMod by_port = removal(Match{});
  by_port.out_port = 44;
  ASSERT_TRUE(apply({by_cookie, by_port}).ok());
  EXPECT_EQ(find(1), nullptr);
  EXPECT_EQ(find(2), nullptr);
  EXPECT_EQ(tables_.rule_count(), 2u);

  RuleMod strict = mod(RuleCommand::remove_strict, in_port(4), nullptr);
  ASSERT_TRUE(apply({strict}).ok());
  EXPECT_NE(find(4), nullptr);
  by_port.out_port = kOfPortController;
  ASSERT_TRUE(apply({by_port, removal(in_port(4))}).ok());
  EXPECT_EQ(tables_.rule_count(), 0u);
}

TEST_F(RuleTablesTest, LaterModsSeeEarlierOnes) {
  Result<RuleChange> change = tables_.prepare(std::vector{add(in_port(1), 2), add(ip_in_port(2), 2),
                                                          mod(RuleCommand::modify, in_port(2), output(5)),
                                                          removal(in_port(1)), add(in_port(3), 1), add(in_port(3), 4)});
  ASSERT_TRUE(change.ok());
  EXPECT_EQ(change->added().size(), 2u);
  EXPECT_TRUE(change->removed().empty());
  change->publish();
  EXPECT_EQ(find(1), nullptr);
  EXPECT_EQ(output_of(find(2)), 5);
  EXPECT_EQ(output_of(find(3)), 4);
}

TEST_F(RuleTablesTest, RemovedRulesLiveAsLongAsTheChange) {
  ASSERT_TRUE(apply({add(in_port(1), 2)}).ok());
  Result<RuleChange> change = tables_.prepare(std::vector{removal(Match{})});
  ASSERT_TRUE(change.ok());
  change->publish();
  rcu::barrier();
  rcu::barrier();
  ASSERT_EQ(change->removed().size(), 1u);
  EXPECT_EQ(output_of(change->removed()[0]), 2);
}

TEST_F(RuleTablesTest, EqualActionListsAreShared) {
  ASSERT_TRUE(apply({add(in_port(1), 2), add(in_port(2), 2), add(in_port(3), 3)}).ok());
  EXPECT_EQ(&find(1)->actions(), &find(2)->actions());
  EXPECT_NE(&find(1)->actions(), &find(3)->actions());
}

TEST_F(RuleTablesTest, TimeoutsExpire) {
  RuleMod idle = add(in_port(1), 2), hard = add(in_port(2), 2);
  idle.spec.idle_timeout = 5;
  hard.spec.hard_timeout = 8;
  ASSERT_TRUE(apply({idle, hard, add(in_port(3), 2)}).ok());
  clock_.advance(4s);
  EXPECT_TRUE(tables_.expired(clock_.now()).empty());
  find(1)->credit(1, 64, clock_.now());
  clock_.advance(4s);  // 8 s after creation, 4 s after the packet
  auto expired = tables_.expired(clock_.now());
  ASSERT_EQ(expired.size(), 1u);
  EXPECT_EQ(expired[0].first, find(2));
  EXPECT_EQ(expired[0].second, RemovedReason::hard_timeout);
  EXPECT_EQ(tables_.expired(clock_.now()).size(), 1u);  // until it is removed
  expire();
  EXPECT_EQ(find(2), nullptr);
  clock_.advance(1s);
  expired = tables_.expired(clock_.now());
  ASSERT_EQ(expired.size(), 1u);
  EXPECT_EQ(expired[0].second, RemovedReason::idle_timeout);
  expire();
  clock_.advance(1000s);
  EXPECT_TRUE(tables_.expired(clock_.now()).empty());
  EXPECT_EQ(tables_.rule_count(), 1u);
}

TEST_F(RuleTablesTest, ModificationRestartsTheHardTimeout) {
  RuleMod hard = add(in_port(2), 2);
  hard.spec.hard_timeout = 8;
  ASSERT_TRUE(apply({hard}).ok());
  clock_.advance(7s);
  ASSERT_TRUE(apply({mod(RuleCommand::modify, in_port(2), output(3))}).ok());
  clock_.advance(7s);
  EXPECT_TRUE(tables_.expired(clock_.now()).empty());
  clock_.advance(1s);
  EXPECT_EQ(tables_.expired(clock_.now()).size(), 1u);
}

TEST_F(RuleTablesTest, CountsLookupsPerTable) {
  ASSERT_TRUE(apply({add(in_port(1), 2, 4)}).ok());
  tables_.count_lookup(4, true, 10);
  tables_.count_lookup(4, false);
  tables_.count_lookup(kTableInternal, true);
  const auto stats = tables_.table_stats();
  EXPECT_EQ(stats[4].lookups, 11u);
  EXPECT_EQ(stats[4].matches, 10u);
  EXPECT_EQ(stats[4].rules, 1u);
  EXPECT_EQ(tables_.lookup(kTableInternal, packet_from(1), tables_.version(), nullptr), nullptr);
}

TEST_F(RuleTablesTest, RestoresWithIds) {
  RuleSpec spec = add(in_port(1), 2).spec;
  std::vector<std::pair<uint64_t, RuleSpec>> stored{{1000, spec}};
  spec.match = in_port(2);
  stored.emplace_back(2000, spec);
  Result<RuleChange> change = tables_.restore(stored);
  ASSERT_TRUE(change.ok());
  change->publish();
  EXPECT_EQ(find(1)->id(), 1000u);
  ASSERT_TRUE(apply({add(in_port(3), 2)}).ok());
  EXPECT_GT(find(3)->id(), 2000u);
  EXPECT_EQ(tables_.restore(stored).status().code(), StatusCode::already_exists);
  RuleTables other(clock_);
  stored[1].first = 1000;
  EXPECT_EQ(other.restore(stored).status().code(), StatusCode::already_exists);
}

TEST_F(RuleTablesTest, SpecMakesTheRuleAgain) {
  RuleMod m = add(ip_in_port(1), 2, 7, 9);
  m.spec.cookie = 4;
  m.spec.importance = 3;
  ASSERT_TRUE(apply({m}).ok());
  const RuleSpec spec = find(1, 7)->spec();
  EXPECT_EQ(spec.match, m.spec.match);
  EXPECT_EQ(*spec.actions, *m.spec.actions);
  EXPECT_EQ(spec.table, 7);
  EXPECT_EQ(spec.priority, 9);
  EXPECT_EQ(spec.cookie, 4u);
  EXPECT_EQ(spec.importance, 3);
}

TEST(RuleTablesDestructionTest, WithRulesAndAnOpenChange) {
  const ManualClock clock;
  std::unique_ptr<RuleChange> open;
  {
    RuleTables tables(clock);
    tables.prepare(std::vector{add(in_port(1), 2), add(in_port(2), 2)})->publish();
    open =
        std::make_unique<RuleChange>(std::move(*tables.prepare(std::vector{add(in_port(1), 3), removal(in_port(2))})));
  }
  open.reset();
  for (int i = 0; i < 4; ++i) rcu::barrier();  // the leak checker sees the rest
}

// Random batches against a map that is changed one mod at a time.
using ModelKey = std::pair<uint16_t, size_t>;  // priority and which match

void check_random_batches(uint64_t seed) {
  const rcu::ReaderScope reader;
  RandomMatches random(seed);
  const ManualClock clock;
  RuleTables tables(clock);
  std::vector<Match> matches;
  for (int i = 0; i < 8; ++i) {
    const Match match = random.match();
    if (std::find(matches.begin(), matches.end(), match) == matches.end()) matches.push_back(match);
  }
  std::map<ModelKey, OfPort> model;
  for (int batch = 0; batch < 12; ++batch) {
    std::map<ModelKey, OfPort> next = model;
    std::vector<RuleMod> mods;
    for (uint32_t i = 0, n = random.below(8); i < n; ++i) {
      const size_t which = random.below(static_cast<uint32_t>(matches.size()));
      const auto priority = static_cast<uint16_t>(random.below(3));
      const auto port = static_cast<OfPort>(1 + random.below(3));
      const auto command = static_cast<RuleCommand>(random.below(5));
      mods.push_back(mod(command, matches[which], output(port), 0, priority));
      const bool strict = command == RuleCommand::modify_strict || command == RuleCommand::remove_strict;
      const bool modify = command == RuleCommand::modify || command == RuleCommand::modify_strict;
      const auto selected = [&](const ModelKey& key) {
        if (strict) return key == ModelKey{priority, which};
        return MiniMatch(matches[which]).contains(MiniMatch(matches[key.second]));
      };
      bool any = false;
      if (command != RuleCommand::add) {
        for (auto at = next.begin(); at != next.end();) {
          if (!selected(at->first)) {
            ++at;
          } else if (modify) {
            any = true;
            (at++)->second = port;
          } else {
            at = next.erase(at);
          }
        }
      }
      if (command == RuleCommand::add || (modify && !any)) next[{priority, which}] = port;
    }
    Result<RuleChange> change = tables.prepare(mods);
    RC_ASSERT(change.ok());
    if (!random.one_in(3)) {
      change->publish();
      model = next;
    } else {
      const RuleChange dropped = std::move(*change);
    }
    std::map<ModelKey, OfPort> present;
    tables.for_each({}, [&](const Rule& rule) {
      const auto which = std::find(matches.begin(), matches.end(), rule.match().expand()) - matches.begin();
      present[{rule.priority(), static_cast<size_t>(which)}] = std::get<OutputToPort>(rule.actions().at(0)).port;
      return true;
    });
    RC_ASSERT(present == model);
    RC_ASSERT(tables.rule_count() == model.size());
  }
}

TEST(RuleTablesPropertyTest, BatchesDoWhatTheirModsDoOneByOne) {
  ASSERT_TRUE(rc::check([] {
    const auto seed = *rc::gen::noShrink(rc::gen::arbitrary<uint64_t>());
    for (uint64_t i = 0; i < 10; ++i) check_random_batches(seed + i);
  }));
}

// Each batch swaps all rules of "generation" g for those of g + 1: a reader must never see a mixture, nor no rule.
TEST(RuleTablesConcurrencyTest, ReadersSeeABatchWholeOrNotAtAll) {
  const ManualClock clock;
  RuleTables tables(clock);
  constexpr uint32_t kRules = 20;
  const auto batch = [&](OfPort generation) {
    std::vector<RuleMod> mods;
    for (uint32_t i = 0; i < kRules; ++i) {
      const Match match = i % 2 == 0 ? in_port(i) : ip_in_port(i);
      if (generation % 3 == 0) mods.push_back(removal(match));
      mods.push_back(add(match, generation));
    }
    return mods;
  };
  tables.prepare(batch(1))->publish();
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0}, rounds{0};
  const auto read = [&] {
    const rcu::ThreadRegistration registration;
    while (!stop.load(std::memory_order_relaxed)) {
      const Version version = tables.version();
      OfPort seen = 0;
      for (uint32_t i = 0; i < kRules; ++i) {
        PipelineMask mask;
        const Rule* rule = tables.lookup(0, packet_from(i), version, &mask);
        if (rule == nullptr) {
          wrong.fetch_add(1);
          continue;
        }
        rule->credit(1, 1, 1s);
        const OfPort port = std::get<OutputToPort>(rule->actions().at(0)).port;
        if (seen != 0 && seen != port) wrong.fetch_add(1);
        seen = port;
      }
      rounds.fetch_add(1, std::memory_order_relaxed);
      rcu::quiescent();
    }
  };
  std::thread one(read), two(read);
  for (uint32_t i = 2; i < 500 || rounds.load() < 50; ++i) {
    Result<RuleChange> change = tables.prepare(batch(static_cast<OfPort>(1 + i % 1000)));
    ASSERT_TRUE(change.ok());
    if (i % 5 != 0) change->publish();
  }
  stop = true;
  one.join();
  two.join();
  EXPECT_EQ(wrong.load(), 0u);
}

// A rule that is only ever replaced by add keeps every packet that was credited to any of its predecessors.
TEST(RuleTablesConcurrencyTest, NoCreditIsLost) {
  const ManualClock clock;
  RuleTables tables(clock);
  tables.prepare(std::vector{add(in_port(1), 2)})->publish();
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> credited{0};
  std::thread crediting([&] {
    const rcu::ThreadRegistration registration;
    while (!stop.load(std::memory_order_relaxed)) {
      const RuleRef rule(tables.lookup(0, packet_from(1), tables.version(), nullptr));
      for (int i = 0; i < 20; ++i) {
        rcu::quiescent();
        rule->credit(1, 100, 1s);
        credited.fetch_add(1);
      }
    }
  });
  for (int i = 0; i < 2000 || credited.load() < 1000; ++i) tables.prepare(std::vector{add(in_port(1), 2)})->publish();
  stop = true;
  crediting.join();
  for (int i = 0; i < 4; ++i) rcu::barrier();
  const rcu::ReaderScope reader;
  const Rule* rule = tables.lookup(0, packet_from(1), tables.version(), nullptr);
  EXPECT_EQ(rule->stats().packets, credited.load());
  EXPECT_EQ(rule->stats().bytes, credited.load() * 100);
}

}  // namespace
}  // namespace vswitch
