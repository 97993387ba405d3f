#include "datapath/core/packet_processor.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "datapath/base/rcu.h"
#include "tests/datapath/core/processor_fakes.h"
#include "tests/support/lookups.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::Keeper;
using test::PacketBuilder;
using test::Processor;

class PacketProcessorTest : public ::testing::TestWithParam<test::Lookup> {
 protected:
  PacketProcessorTest() {
    ports_->set(2, &two_);
    ports_->set(3, &three_);
    ports_->set(4, &gathering_);
  }
  ~PacketProcessorTest() override {
    flows_.clear();
    rcu::barrier();
  }

  // Marked with its UDP port.
  PacketPtr packet(uint16_t port) {
    const Bytes frame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, port).pad_to(60).build();
    PacketPtr packet = test::make_packet(pool_, frame);
    packet->in_port = 1;
    packet->skb_mark = port;
    return packet;
  }
  Flow* add_flow(uint16_t port, ActionList actions, be16 port_mask = ~be16{}, uint32_t in_port = 1) {
    FlowKey key;
    PacketPtr example = packet(port);
    example->in_port = in_port;
    EXPECT_TRUE(extract_flow_key(*example, key));
    FlowMask mask;
    mask.in_port = mask.recirc_id = ~0u;
    mask.eth_type = ~be16{};
    mask.tp_dst = port_mask;
    auto flow = flows_.insert(key, mask, std::move(actions), {}, nullptr);
    EXPECT_TRUE(flow.ok());
    return flow.ok() ? *flow : nullptr;
  }
  void process(const std::vector<uint16_t>& to) {
    PacketBatch batch;
    for (const uint16_t port : to) batch.add(packet(port));
    processor_->process(batch);
    EXPECT_TRUE(batch.empty());
    processor_->flush();
  }
  uint64_t dropped(DropReason reason) { return ledger_.port(1).dropped[static_cast<size_t>(reason)].get(); }

  const rcu::ReaderScope reader_;
  ManualClock clock_;
  HeapPacketPool pool_{HeapPacketPool::kFrameBuffer, 8192};
  Ledger ledger_;
  FlowTable flows_{clock_};
  std::unique_ptr<PortMap> ports_ = std::make_unique<PortMap>();
  // One round of a forwarding thread.
  void round(const std::vector<uint16_t>& to, bool more_wait) {
    PacketBatch batch;
    for (const uint16_t port : to) batch.add(packet(port));
    processor_->process(batch);
    processor_->flush_round(more_wait);
  }

  Keeper two_{2}, three_{3}, gathering_{4, true};
  ThreadContext ctx_{0, pool_, ledger_, clock_.now()};
  std::unique_ptr<Processor> processor_ = std::make_unique<Processor>(ctx_, flows_, *ports_, GetParam().options);
};

TEST_P(PacketProcessorTest, DropsWithTheReasonOfTheFlowAndCountsIt) {
  Flow* none = add_flow(1, {});
  Flow* expired = add_flow(2, {DropAction{DropReason::ttl_exceeded}});
  process({1, 2, 2, 1, 2});
  EXPECT_EQ(dropped(DropReason::of_pipeline), 2u);
  EXPECT_EQ(dropped(DropReason::ttl_exceeded), 3u);
  EXPECT_EQ(none->stats().packets, 2u);
  EXPECT_EQ(expired->stats().packets, 3u);
  EXPECT_EQ(expired->stats().bytes, 180u);
  EXPECT_EQ(processor_->missed, 0u);
}

// Every way that a packet of a batch can take, with its neighbours on the others.
TEST_P(PacketProcessorTest, MixedBatchesKeepTheirOrderAndLoseNothing) {
  add_flow(1, {OutputAction{2}});
  add_flow(2, {DropAction{DropReason::no_output}});
  add_flow(3, {PushVlanAction{kEthTypeVlan, to_be16(0x1005)}, OutputAction{3}});
  add_flow(4, {OutputAction{3}, OutputAction{2}});
  add_flow(5, {PushVlanAction{kEthTypeVlan, to_be16(0x1007)}, OutputAction{3}});
  std::vector<uint16_t> to;
  for (uint16_t i = 0; i < 32; ++i) to.push_back(static_cast<uint16_t>(1 + i * 7 % 6));  // 6: no flow
  for (int round = 0; round < 3; ++round) process(to);
  std::map<uint16_t, size_t> of;
  for (const uint16_t port : to) of[port] += 3;
  EXPECT_EQ(two_.frames.size(), of[1] + of[4]);
  EXPECT_EQ(three_.frames.size(), of[3] + of[4] + of[5]);
  EXPECT_EQ(dropped(DropReason::no_output), of[2]);
  EXPECT_EQ(processor_->missed, of[6]);
  for (size_t i = 0; i < three_.frames.size(); ++i) {
    const Bytes& frame = three_.frames[i];
    const bool tagged = three_.marks[i] != 4;
    ASSERT_EQ(frame.size(), tagged ? 64u : 60u);
    if (!tagged) continue;
    EXPECT_EQ(frame[15], three_.marks[i] + 2) << "the tag of its own flow";
  }
}

// Packets for a port that gathers wait while more are at hand, but not long; others do not wait.
TEST_P(PacketProcessorTest, WaitsForOthersWhereThatPays) {
  add_flow(1, {OutputAction{4}});
  add_flow(2, {OutputAction{2}});
  add_flow(3, {PushVlanAction{kEthTypeVlan, to_be16(0x1005)}, OutputAction{4}});
  using Sizes = std::vector<size_t>;
  round({1, 2, 3}, false);
  EXPECT_EQ(gathering_.together, Sizes{1}) << "nothing else is at hand";
  EXPECT_FALSE(processor_->holds());
  for (int i = 0; i < 3; ++i) round({3, 2, 1}, true);
  EXPECT_TRUE(processor_->holds());
  EXPECT_EQ(gathering_.marks.size(), 2u);
  EXPECT_EQ(two_.marks.size(), 4u) << "does not wait";
  round({2}, false);
  EXPECT_FALSE(processor_->holds());
  EXPECT_EQ(gathering_.together, (Sizes{1, 3}));
  processor_->flush_round(false);
  EXPECT_EQ(gathering_.together, (Sizes{1, 3})) << "nothing is left";

  for (int i = 0; i < 16; ++i) round(i == 0 ? std::vector<uint16_t>{1} : std::vector<uint16_t>{2}, true);
  EXPECT_EQ(gathering_.together, (Sizes{1, 3, 1})) << "no longer than sixteen rounds";
  round(std::vector<uint16_t>(20, 1), true);
  round({1}, true);
  processor_->flush();
  EXPECT_EQ(gathering_.together, (Sizes{1, 3, 1, 2})) << "a flush is a flush";
  EXPECT_EQ(gathering_.marks.size(), 2u + 6 + 1 + 21);

  for (int i = 0; i < 4; ++i) {
    round({1}, true);
    EXPECT_EQ(gathering_.together.size(), i < 3 ? 4u : 5u) << "no longer than 50 us from the next reading of the clock";
    ctx_.now += std::chrono::microseconds(25);
  }
}

TEST_P(PacketProcessorTest, WhatWaitsIsBoundedAndKeepsItsOrder) {
  Flow* const flow = add_flow(1, {OutputAction{4}}, be16{});
  std::vector<uint16_t> sent;
  for (uint16_t i = 0; i < 15; ++i) {
    std::vector<uint16_t> to;
    for (uint16_t k = 0; k < 32; ++k) to.push_back(static_cast<uint16_t>(1000 + 32 * i + k));
    sent.insert(sent.end(), to.begin(), to.end());
    round(to, true);
  }
  EXPECT_TRUE(gathering_.marks.empty());
  round({5000}, true);
  sent.push_back(5000);
  EXPECT_EQ(gathering_.together, std::vector<size_t>{16});
  EXPECT_EQ(gathering_.marks, std::vector<uint32_t>(sent.begin(), sent.end()));
  EXPECT_EQ(flow->stats().packets, sent.size());
}

TEST_P(PacketProcessorTest, WhatWaitsOfAllPortsIsBounded) {
  std::vector<std::unique_ptr<Keeper>> many;
  for (uint16_t i = 0; i < 40; ++i) {
    many.push_back(std::make_unique<Keeper>(10 + i, true));
    ports_->set(10 + i, many.back().get());
    add_flow(i, {OutputAction{10u + i}});
    PacketBatch batch;
    batch.add(packet(i));
    processor_->process(batch);
    processor_->flush_round(i % 5 != 4);
  }
  for (uint16_t i = 0; i < 40; ++i) {
    PacketBatch batch;
    batch.add(packet(i));
    processor_->process(batch);
    batch.add(packet(i));
    processor_->process(batch);
  }
  size_t left = 0;
  for (const auto& port : many) left += port->marks.size();
  EXPECT_EQ(left, 40u) << "what is in queues does not wait yet";
  processor_->flush_round(true);
  left = 0;
  for (const auto& port : many) left += port->marks.size();
  EXPECT_EQ(left, 40u + 2 * 32);
  processor_->flush();
  for (const auto& port : many) EXPECT_EQ(port->marks.size(), 3u);
}

TEST_P(PacketProcessorTest, PortGoesWhileItsPacketsWait) {
  add_flow(1, {OutputAction{4}});
  round({1, 1, 1}, true);
  ports_->set(4, nullptr);
  processor_->flush();
  EXPECT_EQ(dropped(DropReason::invalid_port), 3u);
  EXPECT_TRUE(gathering_.marks.empty());
}

// A miss sends what waits, so that the slow path does not overtake it. Still there must be rounds now and then that end
// with nothing waiting: a grace period ends with them only.
TEST_P(PacketProcessorTest, NoLoadKeepsPacketsWaitingRoundAfterRound) {
  add_flow(1, {OutputAction{4}});
  Keeper other{5, true};
  ports_->set(5, &other);
  add_flow(2, {OutputAction{5}});
  int waiting = 0;
  for (int i = 0; i < 100; ++i) {
    processor_->flush();  // what the forwarding thread does at a miss
    round({1, 2, 1}, true);
    waiting = processor_->holds() ? waiting + 1 : 0;
    ASSERT_LT(waiting, 16);
  }
  EXPECT_EQ(gathering_.marks.size() + other.marks.size() + (processor_->holds() ? 3u : 0u), 300u);
}

TEST_P(PacketProcessorTest, WhatWaitsLeavesRoomInASmallPool) {
  add_flow(1, {OutputAction{4}});
  HeapPacketPool small{HeapPacketPool::kFrameBuffer, 1024};
  for (int i = 0; i < 6; ++i) {
    PacketBatch batch;
    for (int k = 0; k < 32; ++k) {
      batch.add(clone_packet(*packet(1), small));
      ASSERT_EQ(batch[batch.size() - 1].in_port, 1u);
    }
    processor_->process(batch);
    processor_->flush_round(true);
  }
  EXPECT_EQ(gathering_.together.front(), 5u) << "128 of 1,024 packets wait, and no more";
  processor_->flush();
}

TEST_P(PacketProcessorTest, LargeFramesDoNotWait) {
  add_flow(1, {OutputAction{4}});
  HeapPacketPool pool{HeapPacketPool::kSuperFrameBuffer, 4};
  PacketBatch batch;
  for (int i = 0; i < 2; ++i) {
    const Bytes frame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1, 1).payload(40000).build();
    batch.add(test::make_packet(pool, frame));
    batch[batch.size() - 1].in_port = 1;
  }
  processor_->process(batch);
  processor_->flush_round(true);
  EXPECT_EQ(gathering_.marks.size(), 2u);
}

// Batches whose flows all send to one port, in runs and in turn: full ones leave at once, others wait for the flush.
TEST_P(PacketProcessorTest, BatchesForOnePortKeepTheirOrderAndAreCounted) {
  Flow* const flows[] = {add_flow(1, {OutputAction{2}}), add_flow(2, {OutputAction{2}}),
                         add_flow(3, {OutputAction{2}})};
  add_flow(4, {OutputAction{3}});
  add_flow(5, {DropAction{DropReason::no_output}});
  std::vector<std::vector<uint16_t>> batches;
  std::vector<uint16_t> in_turn, in_runs;
  for (uint16_t i = 0; i < 32; ++i) {
    in_turn.push_back(static_cast<uint16_t>(1 + i % 3));
    in_runs.push_back(static_cast<uint16_t>(1 + i / 11));
  }
  for (const uint32_t sole_port : {0u, 1u}) {
    for (int round = 0; round < 3; ++round) {
      batches.push_back({3, 1, 1, 2});  // waits, so that the next ones must go behind it
      batches.push_back(in_turn);
      batches.push_back(in_runs);
      batches.push_back({4, 4, 1, 5, 2});
      batches.push_back({4, 4, 4, 4});
    }
    for (const std::vector<uint16_t>& to : batches) {
      PacketBatch batch;
      for (const uint16_t port : to) {
        batch.add(packet(port));
        if (sole_port != 0) batch[batch.size() - 1].skb_mark = 0;
      }
      processor_->process(batch, sole_port);
      EXPECT_TRUE(batch.empty());
    }
    processor_->flush();
    std::map<uint16_t, uint64_t> count;
    std::vector<uint16_t> to_two;
    for (const std::vector<uint16_t>& to : batches) {
      for (const uint16_t port : to) {
        ++count[port];
        if (port <= 3) to_two.push_back(port);
      }
    }
    ASSERT_EQ(two_.frames.size(), to_two.size());
    for (size_t i = 0; i < to_two.size(); ++i) EXPECT_EQ(two_.frames[i][37], to_two[i]) << i;
    EXPECT_EQ(three_.frames.size(), count[4]);
    EXPECT_EQ(dropped(DropReason::no_output), count[5] * (sole_port + 1));
    for (uint16_t i = 0; i < 3; ++i) {
      EXPECT_EQ(flows[i]->stats().packets, count[static_cast<uint16_t>(i + 1)] * (sole_port + 1));
      EXPECT_EQ(flows[i]->stats().bytes, flows[i]->stats().packets * 60);
    }
    two_.frames.clear();
    three_.frames.clear();
    batches.clear();
  }
  EXPECT_EQ(processor_->missed, 0u);
}

// Drops anywhere among packets that all go to one port: these stay in order, and everything is booked where it belongs.
TEST_P(PacketProcessorTest, DropsAmongPacketsForOnePort) {
  const std::array<Flow*, 5> flows = {add_flow(0, {OutputAction{2}}), add_flow(1, {OutputAction{2}}), add_flow(2, {}),
                                      add_flow(3, {DropAction{DropReason::ttl_exceeded}}), nullptr};
  const Flow* const of_five = add_flow(3, {}, ~be16{}, 5);
  std::array<uint64_t, 6> count{};
  std::vector<uint16_t> to_two;
  std::minstd_rand random(7);
  for (size_t round = 0; round < 400; ++round) {
    PacketBatch batch;
    const size_t size = round % 2 == 0 ? 32 : 1 + random() % 32;
    // From batches of drops alone to batches without any; now and then a miss.
    for (size_t i = 0; i < size; ++i) {
      const size_t way = random() % 20;
      auto kind = static_cast<uint16_t>(way < round / 20 ? way % 2 : 2 + way % 2);
      if (round % 3 == 0 && random() % 16 == 0) kind = 4;  // no flow
      batch.add(packet(kind));
      const bool elsewhere = kind == 3 && random() % 4 == 0;
      if (elsewhere) batch[i].in_port = 5;
      ++count[elsewhere ? 5 : kind];
      if (kind < 2) to_two.push_back(kind);
    }
    processor_->process(batch);
    EXPECT_TRUE(batch.empty());
    if (round % 5 != 0) processor_->flush();
  }
  processor_->flush();
  EXPECT_EQ(two_.marks, std::vector<uint32_t>(to_two.begin(), to_two.end()));
  for (size_t kind = 0; kind < 4; ++kind) {
    EXPECT_GT(count[kind], 100u);
    EXPECT_EQ(flows[kind]->stats().packets, count[kind]) << kind;
    EXPECT_EQ(flows[kind]->stats().bytes, count[kind] * 60) << kind;
  }
  EXPECT_EQ(of_five->stats().packets, count[5]);
  EXPECT_EQ(processor_->missed, count[4]);
  EXPECT_EQ(dropped(DropReason::of_pipeline), count[2]);
  EXPECT_EQ(dropped(DropReason::ttl_exceeded), count[3]);
  EXPECT_EQ(ledger_.port(5).dropped[static_cast<size_t>(DropReason::of_pipeline)].get(), count[5]);
}

// Behind the others of a batch come packets that the cache remembers as dropped, which shows for one batch where they
// are not any more. (Without the cache everything is in its order.)
TEST_P(PacketProcessorTest, WhatIsRememberedAsDroppedComesBehindTheOthers) {
  add_flow(1, {OutputAction{2}});
  const Ufid ufid = add_flow(2, {})->ufid();
  std::vector<uint16_t> to;
  for (uint16_t i = 0; i < 30; ++i) to.push_back(static_cast<uint16_t>(1 + i % 2));
  const std::vector<uint32_t> in_order(to.begin(), to.end());
  std::vector<uint32_t> behind(15, 1);
  behind.resize(30, 2);
  for (int round = 0; round < 3; ++round) {
    process(to);  // remembered as something that drops: as a new one, or by being dropped
    ASSERT_TRUE(flows_.set_actions(ufid, {OutputAction{2}}));
    two_.marks.clear();
    process(to);
    EXPECT_EQ(two_.marks, GetParam().options.cache ? behind : in_order) << round;
    two_.marks.clear();
    process(to);
    EXPECT_EQ(two_.marks, in_order) << round;
    ASSERT_TRUE(flows_.set_actions(ufid, {DropAction{DropReason::no_output}}));
  }
  EXPECT_EQ(dropped(DropReason::of_pipeline), 15u);
  EXPECT_EQ(dropped(DropReason::no_output), 30u);
  // Whatever way they went: once each, and in the cache from the second batch on.
  EXPECT_EQ(processor_->counters().hits.get(), 9 * 30u);
  EXPECT_EQ(processor_->counters().misses.get(), 0u);
  EXPECT_EQ(processor_->counters().cache_hits.get(), GetParam().options.cache ? 8 * 30u : 0u);
}

// What was dropped once and is not any more stays in the order of its connection, neither lost nor sent twice, whether
// its flow does something else now, is gone, or another has its place.
TEST_P(PacketProcessorTest, WhatWasDroppedIsSentInItsOrder) {
  add_flow(1, {OutputAction{2}});
  const Ufid changes = add_flow(2, {})->ufid();
  const Ufid goes = add_flow(3, {})->ufid();
  std::vector<uint16_t> to;
  for (uint16_t i = 0; i < 32; ++i) to.push_back(static_cast<uint16_t>(1 + i * 5 % 3));
  const auto mark_in_turn = [&] {
    PacketBatch batch;
    for (uint16_t i = 0; i < 32; ++i) {
      batch.add(packet(to[i]));
      batch[i].skb_mark = i;
    }
    processor_->process(batch);
    EXPECT_TRUE(batch.empty());
    processor_->flush();
  };
  const auto in_turn = [&](uint16_t kind) {
    std::vector<uint32_t> marks;
    for (uint32_t i = 0; i < 32; ++i) {
      if (to[i] == kind) marks.push_back(i);
    }
    return marks;
  };
  mark_in_turn();
  mark_in_turn();
  EXPECT_EQ(dropped(DropReason::of_pipeline), 2 * (in_turn(2).size() + in_turn(3).size()));
  ASSERT_TRUE(flows_.set_actions(changes, {OutputAction{3}}));
  flows_.remove(goes);
  for (int round = 0; round < 3; ++round) {
    two_.marks.clear();
    three_.marks.clear();
    mark_in_turn();
    EXPECT_EQ(two_.marks, in_turn(1));
    EXPECT_EQ(three_.marks, in_turn(2));
  }
  EXPECT_EQ(processor_->missed, 3 * in_turn(3).size());
  rcu::barrier();
  Flow* const again = add_flow(3, {OutputAction{3}, OutputAction{2}});
  two_.marks.clear();
  three_.marks.clear();
  mark_in_turn();
  EXPECT_EQ(again->stats().packets, in_turn(3).size());
  EXPECT_EQ(two_.marks.size(), in_turn(1).size() + in_turn(3).size());
  EXPECT_EQ(three_.marks.size(), in_turn(2).size() + in_turn(3).size());
  EXPECT_EQ(dropped(DropReason::of_pipeline), 2 * (in_turn(2).size() + in_turn(3).size()));
}

// A flow's actions may change while a batch is on its way: each packet is treated the one way or the other.
TEST_P(PacketProcessorTest, ActionsChangeWhileABatchIsOnItsWay) {
  add_flow(1, {OutputAction{2}});
  const Ufid ufid = add_flow(2, {})->ufid();
  std::atomic<bool> stop{false};
  std::thread changer([&] {
    const rcu::ReaderScope reader;
    for (size_t i = 0; !stop.load(); ++i) {
      flows_.set_actions(ufid, i % 3 == 0 ? ActionList{} : ActionList{OutputAction{static_cast<uint32_t>(1 + i % 3)}});
      rcu::quiescent();
    }
  });
  constexpr uint64_t kRounds = 3000;
  for (uint64_t round = 0; round < kRounds; ++round) {
    std::vector<uint16_t> to(32, 2);
    to[round % 32] = 1;
    process(to);
    rcu::quiescent();
  }
  stop = true;
  changer.join();
  EXPECT_EQ(two_.marks.size() + three_.marks.size() + dropped(DropReason::of_pipeline), kRounds * 32);
  EXPECT_EQ(dropped(DropReason::invalid_port), 0u);
}

// Batches of one connection, whose flow looks deep; and after many others, too.
TEST_P(PacketProcessorTest, BatchesWithTheSameHeaders) {
  Flow* to_two = add_flow(1, {OutputAction{2}});
  Flow* tagged = add_flow(2, {PushVlanAction{kEthTypeVlan, to_be16(0x1005)}, OutputAction{3}});
  add_flow(3, {DropAction{DropReason::no_output}});
  ASSERT_FALSE(flows_.only_shallow_flows(1));
  for (int round = 0; round < 3; ++round) {
    process(std::vector<uint16_t>(32, 1));
    process(std::vector<uint16_t>(7, 2));
    process(std::vector<uint16_t>(5, 3));
    process(std::vector<uint16_t>(4, 6));  // no flow
    for (int mixed = 0; mixed < 30; ++mixed) process({1, 2});
  }
  EXPECT_EQ(to_two->stats().packets, 3u * (32 + 30));
  EXPECT_EQ(to_two->stats().bytes, 60u * 3 * (32 + 30));
  EXPECT_EQ(tagged->stats().packets, 3u * (7 + 30));
  EXPECT_EQ(two_.frames.size(), 3u * (32 + 30));
  EXPECT_EQ(three_.frames.size(), 3u * (7 + 30));
  EXPECT_EQ(dropped(DropReason::no_output), 15u);
  EXPECT_EQ(processor_->missed, 12u);
  for (const Bytes& frame : three_.frames) EXPECT_EQ(frame.size(), 64u);
  EXPECT_EQ(processor_->counters().hits.get(), 3u * (32 + 7 + 5 + 60));
}

// All of a port alike: no keys are made.
TEST_P(PacketProcessorTest, ShallowBatchesArePushedAndPopped) {
  Flow* flow = add_flow(1, {PushVlanAction{kEthTypeVlan, to_be16(0x1005)}, OutputAction{2}}, {});
  ASSERT_TRUE(flows_.only_shallow_flows(1));
  process({1, 2, 3, 4, 5});
  ASSERT_EQ(two_.frames.size(), 5u);
  for (uint16_t i = 0; i < 5; ++i) {
    const PacketPtr before = packet(static_cast<uint16_t>(i + 1));
    Bytes expected(before->data(), before->data() + before->size());
    const Bytes tag = {0x81, 0x00, 0x00, 0x05};
    expected.insert(expected.begin() + 12, tag.begin(), tag.end());
    EXPECT_EQ(two_.frames[i], expected) << "in order, and otherwise as it was";
  }
  EXPECT_EQ(flow->stats().packets, 5u);
  ASSERT_TRUE(flows_.set_actions(flow->ufid(), {DropAction{DropReason::no_output}}));
  process({1, 2});
  EXPECT_EQ(dropped(DropReason::no_output), 2u);
}

INSTANTIATE_TEST_SUITE_P(Lookups, PacketProcessorTest, ::testing::ValuesIn(test::kLookups), test::lookup_name);

}  // namespace
}  // namespace vswitch
