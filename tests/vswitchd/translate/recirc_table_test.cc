#include "vswitchd/translate/recirc_table.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <thread>

namespace vswitch {
namespace {

using std::chrono::milliseconds;

std::shared_ptr<RuleTables> tables_of_another_bridge() {
  static const ManualClock clock;
  static const auto tables = std::make_shared<RuleTables>(clock);
  return tables;
}

FrozenState state(uint32_t in_port) {
  FrozenState s;
  s.bridge = "br0";
  s.in_port = in_port;
  s.actions = {{OutputToPort{2, 0}, 0, 0}};
  return s;
}

TEST(RecircTable, EqualStatesShareANumber) {
  RecircTable table;
  const RecircRef one = table.freeze(state(1)), same = table.freeze(state(1)), other = table.freeze(state(2));
  EXPECT_EQ(one, same);
  EXPECT_NE(one->id, 0u);
  EXPECT_NE(one->id, other->id);
  EXPECT_EQ(table.find(one->id), one);
  EXPECT_EQ(table.find(other->id + 1), nullptr);
  EXPECT_EQ(table.find(0), nullptr);
}

TEST(RecircTable, EveryMemberTellsThemApart) {
  const std::vector<std::function<void(FrozenState&)>> changes = {
      [](FrozenState&) {},
      [](FrozenState& s) { s.bridge = "br1"; },
      [](FrozenState& s) { s.tables = tables_of_another_bridge(); },
      [](FrozenState& s) { s.table = 0; },
      [](FrozenState& s) { s.table = 7; },
      [](FrozenState& s) { s.in_port = 9; },
      [](FrozenState& s) { s.tunnel.id = to_be64(9); },
      [](FrozenState& s) { s.received_dst = to_be32(9); },
      [](FrozenState& s) { s.received_dst6.bytes[15] = 9; },
      [](FrozenState& s) { s.pipeline.reg[3] = 9; },
      [](FrozenState& s) {
        s.stack = {0, 1};
      },
      [](FrozenState& s) { s.actions.clear(); },
      [](FrozenState& s) {
        s.actions[0].action = OutputToPort{3, 0};
      },
      [](FrozenState& s) { s.actions[0].table = 9; },
      [](FrozenState& s) { s.actions[0].cookie = 9; },
      [](FrozenState& s) { s.actions.push_back(s.actions[0]); },
      [](FrozenState& s) {
        s.action_set = {OutputToPort{2, 0}};
      },
  };
  RecircTable table;
  std::set<RecircRef> contexts;
  for (const auto& change : changes) {
    FrozenState s = state(1);
    change(s);
    contexts.insert(table.freeze(s));
    EXPECT_EQ(table.freeze(s), table.freeze(s));
  }
  EXPECT_EQ(contexts.size(), changes.size());
}

TEST(RecircTable, LingersAfterItsLastUser) {
  RecircTable table;
  RecircRef used = table.freeze(state(1));
  const uint32_t id = used->id;
  const Nanoseconds start = milliseconds(500);
  table.expire(start + RecircTable::kLinger * 10);
  EXPECT_NE(table.find(id), nullptr) << "in use";
  used.reset();
  table.expire(start);
  table.expire(start + RecircTable::kLinger - milliseconds(1));
  EXPECT_NE(table.find(id), nullptr) << "packets may be on their way";
  table.expire(start + RecircTable::kLinger);
  EXPECT_EQ(table.find(id), nullptr);
  EXPECT_EQ(table.size(), 0u);
  EXPECT_NE(table.freeze(state(1))->id, id) << "a late packet must not meet another state";
}

TEST(RecircTable, UsedAgainWhileItLingers) {
  RecircTable table;
  const uint32_t id = table.freeze(state(1))->id;
  table.expire(milliseconds(1));
  const RecircRef again = table.freeze(state(1));
  EXPECT_EQ(again->id, id);
  table.expire(milliseconds(1) + 2 * RecircTable::kLinger);
  EXPECT_EQ(table.find(id), again);
}

TEST(RecircTable, IsBounded) {
  RecircTable table(3);
  std::vector<RecircRef> held;
  for (uint32_t i = 0; i < 3; ++i) held.push_back(table.freeze(state(i)));
  EXPECT_EQ(table.freeze(state(3)), nullptr);
  EXPECT_EQ(table.freeze(state(1)), held[1]) << "what is there is given out still";
  held[0].reset();
  EXPECT_EQ(table.freeze(state(3)), nullptr) << "looked for in vain already";
  table.expire(Nanoseconds{});
  EXPECT_NE(table.freeze(state(3)), nullptr) << "one that nobody uses makes room";
  EXPECT_EQ(table.size(), 3u);
}

TEST(RecircTable, ATraceLeavesNothingBehind) {
  RecircTable table;
  RecircRef traced = table.freeze_for_trace(state(1));
  const uint32_t id = traced->id;
  table.forget(std::move(traced));
  EXPECT_EQ(table.find(id), nullptr);
  traced = table.freeze_for_trace(state(4));
  EXPECT_EQ(traced->id, id) << "nor is the number used up";
  table.forget(std::move(traced));

  const RecircRef real = table.freeze(state(2));
  table.forget(table.freeze_for_trace(state(2)));
  EXPECT_EQ(table.find(real->id), real) << "it was there before";

  traced = table.freeze_for_trace(state(3));
  const uint32_t shared = table.freeze(state(3))->id;  // a packet came by; it is on its way
  table.forget(std::move(traced));
  EXPECT_NE(table.find(shared), nullptr);
}

TEST(RecircTable, FromManyThreads) {
  RecircTable table;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&table, t] {
      for (uint32_t i = 0; i < 2000; ++i) {
        const RecircRef context = table.freeze(state(i % 16));
        EXPECT_EQ(context->state.in_port, i % 16);
        EXPECT_EQ(table.find(context->id), context);
        if (t == 0) table.expire(RecircTable::kLinger * i);
        if (t == 1) table.forget(table.freeze_for_trace(state(i % 8)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  table.expire(Nanoseconds::max() / 4);
  table.expire(Nanoseconds::max() / 2);
  EXPECT_EQ(table.size(), 0u);
}

}  // namespace
}  // namespace vswitch
