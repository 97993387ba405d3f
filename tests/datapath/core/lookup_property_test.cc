// The promise of every way of lookup: a packet finds a flow that matches it, and misses only if there is none. Random
// flows come and go; packets come in batches in which kinds mix, follow each other, or are all alike.

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "datapath/base/rcu.h"
#include "tests/datapath/core/processor_fakes.h"
#include "tests/support/lookups.h"
#include "tests/support/random_match.h"
#include "tests/support/random_rules.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::Keeper;

struct Tally {
  uint64_t sent = 0, missed = 0, dropped = 0, cache_hits = 0;
};

class RandomTraffic {
 public:
  RandomTraffic(uint64_t seed, const LookupOptions& options)
      : random_(seed), table_(clock_, 1000, options.max_masks), processor_(ctx_, table_, *ports_, options) {
    for (uint32_t i = 0; i < kFlows; ++i) {
      keepers_.push_back(std::make_unique<Keeper>(kFirstPort + i));
      ports_->set(kFirstPort + i, keepers_.back().get());
    }
    for (int i = 0; i < 12; ++i) kinds_.push_back(random_packet());
    for (bool& shallow : shallow_) shallow = random_.one_in(2);
    with_drops_ = random_.one_in(2);
  }

  ~RandomTraffic() {
    table_.clear();
    rcu::barrier();
  }

  void run(Tally& tally) {
    for (int step = 0; step < 80; ++step) {
      if (random_.one_in(2)) change_flows();
      send_batch();
      if (random_.one_in(20)) table_.rerank();
    }
    uint64_t sent = 0;
    for (uint32_t port = 1; port <= 4; ++port) {
      const PortBooks& books = ledger_.port(port);
      RC_ASSERT(books.copies.get() == 0u);
      sent += books.sent.get();
    }
    RC_ASSERT(sent + processor_.missed + dropped() == serial_);
    tally.dropped += dropped();
    tally.sent += sent;
    tally.missed += processor_.missed;
    tally.cache_hits += processor_.counters().cache_hits.get();
  }

 private:
  static constexpr uint32_t kFlows = 40, kFirstPort = 10;

  struct Sent {
    FlowKey key;
    uint32_t serial;
    size_t kind;
  };

  FlowKey random_packet() {
    FlowKey key = random_.key().packet;
    key.in_port = 1 + random_.below(4);
    key.recirc_id = 0;
    key.tunnel = {};
    key.skb_mark = key.skb_priority = 0;
    test::make_extractable(key);
    return key;
  }

  // By flows that only drop; what misses is dropped for another reason.
  uint64_t dropped() {
    uint64_t sum = 0;
    for (uint32_t port = 1; port <= 4; ++port) {
      sum += ledger_.port(port).dropped[static_cast<size_t>(DropReason::of_pipeline)].get();
    }
    return sum;
  }

  // A packet of this kind, whose last bytes tell it from others. The key is that of the frame, whatever became of the
  // kind.
  PacketPtr packet(size_t number, std::vector<Sent>& sent) {
    const FlowKey& kind = kinds_[number];
    Bytes frame = test::compose(kind, 8);
    for (size_t byte = 0; byte < sizeof serial_; ++byte) frame.push_back(static_cast<uint8_t>(serial_ >> 8 * byte));
    const auto make = [&] {
      PacketPtr packet = test::make_packet(pool_, frame);
      packet->in_port = kind.in_port;
      return packet;
    };
    const PacketPtr example = make();
    sent.push_back({{}, serial_++, number});
    RC_ASSERT(extract_flow_key(*example, sent.back().key));
    return make();
  }

  void change_flows() {
    const uint32_t slot = random_.below(kFlows);
    if (const auto at = flows_.find(slot); at != flows_.end()) {
      if (with_drops_ && random_.one_in(2)) {
        const bool drops = at->second->shortcut().drops();
        RC_ASSERT(table_.set_actions(at->second->ufid(), actions(slot, !drops)));
        return;
      }
      RC_ASSERT(table_.remove(at->second->ufid()) != nullptr);
      flows_.erase(at);
      return;
    }
    const FlowKey& key = kinds_[random_.below(static_cast<uint32_t>(kinds_.size()))];
    FlowMask mask = shallow_[key.in_port] ? FlowMask{} : random_.match().mask.packet;
    mask.tunnel = {};
    mask.in_port = mask.recirc_id = ~uint32_t{0};  // as every translation has them
    mask.eth_type = ~be16{};
    const Result<Flow*> flow = table_.insert(key, mask, actions(slot, with_drops_ && random_.one_in(2)), {}, nullptr);
    if (flow.ok()) flows_[slot] = *flow;
  }

  static ActionList actions(uint32_t slot, bool drop) {
    return drop ? ActionList{} : ActionList{OutputAction{kFirstPort + slot}};
  }

  void send_batch() {
    std::vector<Sent> sent;
    PacketBatch batch;
    const bool alike = random_.one_in(4);
    const size_t count = 1 + random_.below(PacketBatch::kMaxPackets);
    size_t kind = random_.below(12);
    for (size_t i = 0; i < count; ++i) {
      if (!alike && random_.one_in(2)) kind = random_.below(12);
      batch.add(packet(kind, sent));
    }
    const size_t missed_before = processor_.missed;
    const uint64_t dropped_before = dropped();
    processor_.process(batch);
    processor_.flush();
    size_t found = 0;
    for (const auto& [slot, flow] : flows_) {
      if (!flow->shortcut().drops()) found += take_from(*keepers_[slot], *flow, sent);
    }
    const size_t dropped_now = dropped() - dropped_before;
    // Nothing left by a flow that is gone, or that drops.
    for (const auto& keeper : keepers_) RC_ASSERT(keeper->frames.empty());
    const auto matches_none = [&](const Sent& s) {
      return std::none_of(flows_.begin(), flows_.end(), [&](const auto& at) { return at.second->matches(s.key); });
    };
    const auto strangers = static_cast<size_t>(std::count_if(sent.begin(), sent.end(), matches_none));
    RC_ASSERT(processor_.missed - missed_before == strangers);
    RC_ASSERT(found + dropped_now + strangers == count);
    const auto may_be_dropped = [&](const Sent& s) {
      return std::any_of(flows_.begin(), flows_.end(),
                         [&](const auto& at) { return at.second->shortcut().drops() && at.second->matches(s.key); });
    };
    RC_ASSERT(dropped_now <= static_cast<size_t>(std::count_if(sent.begin(), sent.end(), may_be_dropped)));
  }

  // Of what was sent, a flow's port got only what matches it, in order: that of each connection at least, where there
  // are connections that were dropped before. Returns how much.
  size_t take_from(Keeper& keeper, const Flow& flow, const std::vector<Sent>& sent) {
    const uint32_t first = sent.front().serial;
    std::map<size_t, uint32_t> next;
    for (const Bytes& frame : keeper.frames) {
      uint32_t serial = 0;
      for (size_t byte = 0; byte < sizeof serial; ++byte) {
        serial |= uint32_t{frame[frame.size() - sizeof serial + byte]} << 8 * byte;
      }
      RC_ASSERT(serial - first < sent.size());
      uint32_t& next_of_kind = next[with_drops_ ? sent[serial - first].kind : 0];
      RC_ASSERT(serial >= next_of_kind);
      RC_ASSERT(flow.matches(sent[serial - first].key));
      next_of_kind = serial + 1;
    }
    const size_t count = keeper.frames.size();
    keeper.frames.clear();
    keeper.marks.clear();
    return count;
  }

  const rcu::ReaderScope reader_;
  ManualClock clock_;
  HeapPacketPool pool_{HeapPacketPool::kFrameBuffer, 128};
  Ledger ledger_;
  test::RandomMatches random_;
  FlowTable table_;
  std::unique_ptr<PortMap> ports_ = std::make_unique<PortMap>();
  std::vector<std::unique_ptr<Keeper>> keepers_;
  ThreadContext ctx_{0, pool_, ledger_, clock_.now()};
  test::Processor processor_;
  bool shallow_[5] = {};  // by port: whether all its flows are
  bool with_drops_;       // flows that drop, and such that begin to or no longer do
  std::vector<FlowKey> kinds_;
  std::map<uint32_t, Flow*> flows_;
  uint32_t serial_ = 0;
};

class LookupProperty : public ::testing::TestWithParam<test::Lookup> {};
INSTANTIATE_TEST_SUITE_P(Lookups, LookupProperty, ::testing::ValuesIn(test::kLookups), test::lookup_name);

TEST_P(LookupProperty, PacketsFindTheFlowsThatMatchThem) {
  Tally tally;
  ASSERT_TRUE(rc::check([&](uint32_t seed) {
    RandomTraffic traffic(seed, GetParam().options);
    traffic.run(tally);
  }));
  // The property must not hold for want of cases.
  const uint64_t packets = tally.sent + tally.missed + tally.dropped;
  EXPECT_GT(tally.sent, packets / 8);
  EXPECT_GT(tally.missed, packets / 8);
  EXPECT_GT(tally.dropped, packets / 16);
  const LookupOptions& options = GetParam().options;
  if (options.cache || options.shallow) {  // these count as hits of the cache
    EXPECT_GT(tally.cache_hits, tally.sent / 100);
  } else {
    EXPECT_EQ(tally.cache_hits, 0u);
  }
}

}  // namespace
}  // namespace vswitch
