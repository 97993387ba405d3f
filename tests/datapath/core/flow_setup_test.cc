#include "datapath/core/flow_setup.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "datapath/base/rcu.h"
#include "datapath/flow/extract.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

// Translates by UDP source port, to a port of that number, for flows of all destination ports. Counts in what it hangs
// on a flow.
class Translator final : public UpcallHandler {
 public:
  MissResult miss(const FlowKey& key, const Packet& packet) override {
    translated.push_back(packet.skb_mark);
    MissResult result;
    result.actions = Flow::make_actions({OutputAction{key.tp_src.host()}});
    result.mask.in_port = ~0u;
    result.mask.tp_src = ~be16{};
    result.install = install;
    result.installer_data = std::make_shared<uint32_t>(key.tp_src.host());
    if (while_translating) while_translating();
    return result;
  }
  void prepare() override { ++prepared; }
  void uncounted(const std::shared_ptr<void>& data, uint64_t packets, uint64_t bytes) override {
    ASSERT_NE(data, nullptr);
    uncounted_packets += packets;
    uncounted_bytes += bytes;
  }
  std::optional<DropReason> controller(const UserspaceAction&, const FlowKey&, const Packet&) override {
    return std::nullopt;
  }

  bool install = true;
  std::function<void()> while_translating;
  std::vector<uint32_t> translated;  // marks
  uint64_t uncounted_packets = 0, uncounted_bytes = 0;
  int prepared = 0;
};

class Sink final : public ActionSink {
 public:
  void output(ThreadContext&, uint32_t port_no, PacketPtr packet) override {
    sent.push_back({port_no, packet->skb_mark});
  }
  void userspace(ThreadContext&, const UserspaceAction&, PacketPtr) override {}
  void recirculate(ThreadContext&, PacketPtr) override {}

  struct Sent {
    uint32_t port_no, mark;
    bool operator==(const Sent&) const = default;
  };
  std::vector<Sent> sent;
};

class SetupBatchTest : public ::testing::Test {
 protected:
  SetupBatchTest() { setup_.set_handler(&translator_); }
  ~SetupBatchTest() override {
    flows_.clear();
    rcu::barrier();
  }

  // The next packet is marked with the next number, from 1 on.
  PacketPtr packet(uint16_t from, uint16_t to = 53) {
    const Bytes frame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(from, to).pad_to(60).build();
    PacketPtr packet = test::make_packet(pool_, frame);
    packet->in_port = 1;
    packet->skb_mark = ++marks_;
    return packet;
  }
  void add(PacketPtr packet) {
    FlowKey& key = keys_.emplace_back();
    ASSERT_TRUE(extract_flow_key(*packet, key));
    EXPECT_EQ(batch_.add(ctx_, key, *packet), packets_.size());
    packets_.push_back(std::move(packet));
  }
  // Those that have not been.
  void execute() {
    for (; executed_ < packets_.size(); ++executed_) {
      batch_.execute(executed_, ctx_, sink_, std::move(packets_[executed_]));
    }
  }
  void set_up(const std::vector<uint16_t>& from) {
    for (const uint16_t port : from) add(packet(port, static_cast<uint16_t>(53 + marks_)));
    batch_.install();
    execute();
  }
  // By all flows.
  uint64_t counted() {
    uint64_t packets = 0;
    flows_.for_each([&](const Flow& flow) {
      packets += flow.stats().packets;
      return true;
    });
    return packets;
  }
  // What there is now under the flow's UDP source port.
  Flow* flow_from(uint16_t from) {
    FlowKey key;
    EXPECT_TRUE(extract_flow_key(*packet(from), key));
    return flows_.lookup(key);
  }

  const rcu::ReaderScope reader_;
  ManualClock clock_;
  HeapPacketPool pool_{HeapPacketPool::kFrameBuffer, 256};
  Ledger ledger_;
  ThreadContext ctx_{0, pool_, ledger_, {}};
  FlowTable flows_{clock_, 20, 1};
  FlowSetup setup_{flows_};
  Translator translator_;
  Sink sink_;
  SetupBatch batch_{setup_};
  uint32_t marks_ = 0;
  std::deque<FlowKey> keys_;
  std::vector<PacketPtr> packets_;
  size_t executed_ = 0;
};

TEST_F(SetupBatchTest, TheHandlerPreparesAsLongAsThereIsOne) {
  setup_.prepare();
  EXPECT_EQ(translator_.prepared, 1);
  setup_.set_handler(nullptr);
  setup_.prepare();
  EXPECT_EQ(translator_.prepared, 1);
}

TEST_F(SetupBatchTest, EachFlowIsTranslatedOnceAndItsPacketsKeepTheirOrder) {
  set_up({7, 8, 7, 9, 8, 7});
  const std::vector<Sink::Sent> expected = {{7, 1}, {8, 2}, {7, 3}, {9, 4}, {8, 5}, {7, 6}};
  EXPECT_EQ(sink_.sent, expected);
  EXPECT_EQ(translator_.translated, (std::vector<uint32_t>{1, 2, 4}));
  EXPECT_EQ(flows_.counters().flows, 3u);
  EXPECT_EQ(flow_from(7)->stats().packets, 3u);
  EXPECT_EQ(flow_from(7)->stats().bytes, 180u);
  EXPECT_EQ(flow_from(8)->stats().packets, 2u);
  EXPECT_EQ(flow_from(9)->stats().packets, 1u);
  EXPECT_EQ(translator_.uncounted_packets, 0u);
}

TEST_F(SetupBatchTest, NoFlowIsThereBeforeItIsInstalled) {
  translator_.while_translating = [&] { EXPECT_EQ(flows_.counters().flows, 0u); };
  set_up({7, 8});
  EXPECT_EQ(flows_.counters().flows, 2u);
}

TEST_F(SetupBatchTest, WhatIsNotToBeInstalledIsTranslatedPacketByPacket) {
  translator_.install = false;
  set_up({7, 7, 8});
  EXPECT_EQ(translator_.translated.size(), 3u);
  EXPECT_EQ(sink_.sent, (std::vector<Sink::Sent>{{7, 1}, {7, 2}, {8, 3}}));
  EXPECT_EQ(flows_.counters().flows, 0u);
  EXPECT_EQ(translator_.uncounted_packets, 3u);
  EXPECT_EQ(translator_.uncounted_bytes, 180u);
}

TEST_F(SetupBatchTest, MoreIsAddedBehindWhatWasInstalled) {
  set_up({7, 8});
  set_up({8, 9, 7});
  EXPECT_EQ(translator_.translated, (std::vector<uint32_t>{1, 2, 4}));
  EXPECT_EQ(sink_.sent, (std::vector<Sink::Sent>{{7, 1}, {8, 2}, {8, 3}, {9, 4}, {7, 5}}));
  EXPECT_EQ(counted(), 5u);
}

TEST_F(SetupBatchTest, AFlowThatSomebodyElseInstalledMeanwhileCounts) {
  translator_.while_translating = [&] {
    translator_.while_translating = nullptr;
    FlowKey key = keys_.front();
    const MissResult other = translator_.miss(key, *packet(7));
    ASSERT_TRUE(flows_.insert(key, other.mask, {OutputAction{17}}, {}, nullptr).ok());
  };
  set_up({7, 7});
  EXPECT_EQ(sink_.sent.size(), 2u);
  for (const Sink::Sent& sent : sink_.sent) EXPECT_EQ(sent.port_no, 17u);
  EXPECT_EQ(flow_from(7)->stats().packets, 2u);
  EXPECT_EQ(translator_.uncounted_packets, 0u);
}

TEST_F(SetupBatchTest, OfAFullTableEachPacketIsCountedOnce) {
  flows_.set_max_flows(2);
  set_up({7, 8, 9, 9, 7});
  EXPECT_EQ(sink_.sent, (std::vector<Sink::Sent>{{7, 1}, {8, 2}, {9, 3}, {9, 4}, {7, 5}}));
  EXPECT_EQ(counted(), 3u);
  EXPECT_EQ(translator_.uncounted_packets, 2u);
}

// Between its installation and its packets.
TEST_F(SetupBatchTest, AFlowThatIsGoneAgainHasCountedItsFirstPacket) {
  add(packet(7));
  add(packet(7));
  batch_.install();
  const std::shared_ptr<const Flow> gone = flows_.remove(flow_from(7)->ufid());
  execute();
  EXPECT_EQ(sink_.sent, (std::vector<Sink::Sent>{{7, 1}, {7, 2}}));
  EXPECT_EQ(gone->stats().packets, 1u);
  EXPECT_EQ(flow_from(7)->stats().packets, 1u) << "of the flow that was set up anew for the second one";
}

TEST_F(SetupBatchTest, ActionsThatWereChangedMeanwhileCount) {
  add(packet(7));
  batch_.install();
  ASSERT_TRUE(flows_.set_actions(flow_from(7)->ufid(), {OutputAction{70}}));
  execute();
  EXPECT_EQ(sink_.sent, (std::vector<Sink::Sent>{{70, 1}}));
}

// A table that has its masks installs a flow under one that looks at more: then it is not another packet's.
TEST_F(SetupBatchTest, ANarrowedFlowIsNotTakenForAllThatWereAskedFor) {
  FlowMask mask;
  mask.in_port = ~0u;
  mask.tp_src = mask.tp_dst = ~be16{};
  ASSERT_TRUE(flows_.insert(FlowKey{}, mask, ActionList{}, {}, nullptr).ok());
  set_up({7, 7, 7});
  EXPECT_EQ(sink_.sent, (std::vector<Sink::Sent>{{7, 1}, {7, 2}, {7, 3}}));
  EXPECT_EQ(flows_.counters().flows, 4u);
  EXPECT_EQ(counted(), 3u);
}

TEST_F(SetupBatchTest, WithoutAHandlerPacketsAreDropped) {
  setup_.set_handler(nullptr);
  set_up({7, 7});
  EXPECT_EQ(ledger_.port(1).dropped[static_cast<size_t>(DropReason::upcall_error)].get(), 2u);
}

TEST_F(SetupBatchTest, TakesAsManyAsItSaysAndStartsAnew) {
  for (int round = 0; round < 3; ++round) {
    std::vector<uint16_t> from;
    for (uint16_t i = 0; i < SetupBatch::kMost; ++i) from.push_back(static_cast<uint16_t>(1 + i % 16));
    set_up(from);
    EXPECT_EQ(batch_.size(), SetupBatch::kMost);
    batch_.clear();
    EXPECT_TRUE(batch_.empty());
    packets_.clear();
    executed_ = 0;
    EXPECT_EQ(counted(), SetupBatch::kMost);
    EXPECT_EQ(translator_.translated.size(), 16u);
    flows_.clear();
    translator_.translated.clear();
  }
}

}  // namespace
}  // namespace vswitch
