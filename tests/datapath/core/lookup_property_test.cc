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
  uint64_t sent = 0, missed = 0, cache_hits = 0;
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
    RC_ASSERT(sent + processor_.missed == serial_);
    tally.sent += sent;
    tally.missed += processor_.missed;
    tally.cache_hits += processor_.counters().cache_hits.get();
  }

 private:
  static constexpr uint32_t kFlows = 40, kFirstPort = 10;

  struct Sent {
    FlowKey key;
    uint32_t serial;
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

  // A packet of this kind, whose last bytes tell it from others. The key is that of the frame, whatever became of the
  // kind.
  PacketPtr packet(const FlowKey& kind, std::vector<Sent>& sent) {
    Bytes frame = test::compose(kind, 8);
    for (size_t byte = 0; byte < sizeof serial_; ++byte) frame.push_back(static_cast<uint8_t>(serial_ >> 8 * byte));
    const auto make = [&] {
      PacketPtr packet = test::make_packet(pool_, frame);
      packet->in_port = kind.in_port;
      return packet;
    };
    const PacketPtr example = make();
    sent.push_back({{}, serial_++});
    RC_ASSERT(extract_flow_key(*example, sent.back().key));
    return make();
  }

  void change_flows() {
    const uint32_t slot = random_.below(kFlows);
    if (const auto at = flows_.find(slot); at != flows_.end()) {
      RC_ASSERT(table_.remove(at->second->ufid()) != nullptr);
      flows_.erase(at);
      return;
    }
    const FlowKey& key = kinds_[random_.below(static_cast<uint32_t>(kinds_.size()))];
    FlowMask mask = shallow_[key.in_port] ? FlowMask{} : random_.match().mask.packet;
    mask.tunnel = {};
    mask.in_port = mask.recirc_id = ~uint32_t{0};  // as every translation has them
    mask.eth_type = ~be16{};
    const Result<Flow*> flow = table_.insert(key, mask, {OutputAction{kFirstPort + slot}}, {}, nullptr);
    if (flow.ok()) flows_[slot] = *flow;
  }

  void send_batch() {
    std::vector<Sent> sent;
    PacketBatch batch;
    const bool alike = random_.one_in(4);
    const size_t count = 1 + random_.below(PacketBatch::kMaxPackets);
    size_t kind = random_.below(12);
    for (size_t i = 0; i < count; ++i) {
      if (!alike && random_.one_in(2)) kind = random_.below(12);
      batch.add(packet(kinds_[kind], sent));
    }
    const size_t missed_before = processor_.missed;
    processor_.process(batch);
    processor_.flush();
    size_t found = 0;
    for (const auto& [slot, flow] : flows_) found += take_from(*keepers_[slot], *flow, sent);
    for (const auto& keeper : keepers_) RC_ASSERT(keeper->frames.empty());  // nothing left by a flow that is gone
    const auto matches_none = [&](const Sent& s) {
      return std::none_of(flows_.begin(), flows_.end(), [&](const auto& at) { return at.second->matches(s.key); });
    };
    const auto strangers = static_cast<size_t>(std::count_if(sent.begin(), sent.end(), matches_none));
    RC_ASSERT(processor_.missed - missed_before == strangers);
    RC_ASSERT(found + strangers == count);
  }

  // Of what was sent, a flow's port got only what matches it, in order. Returns how much.
  size_t take_from(Keeper& keeper, const Flow& flow, const std::vector<Sent>& sent) {
    const uint32_t first = sent.front().serial;
    uint32_t next = first;
    for (const Bytes& frame : keeper.frames) {
      uint32_t serial = 0;
      for (size_t byte = 0; byte < sizeof serial; ++byte) {
        serial |= uint32_t{frame[frame.size() - sizeof serial + byte]} << 8 * byte;
      }
      RC_ASSERT(serial >= next);
      RC_ASSERT(serial < first + sent.size());
      RC_ASSERT(flow.matches(sent[serial - first].key));
      next = serial + 1;
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
  const uint64_t packets = tally.sent + tally.missed;
  EXPECT_GT(tally.sent, packets / 8);
  EXPECT_GT(tally.missed, packets / 8);
  const LookupOptions& options = GetParam().options;
  if (options.cache || options.shallow) {  // these count as hits of the cache
    EXPECT_GT(tally.cache_hits, tally.sent / 100);
  } else {
    EXPECT_EQ(tally.cache_hits, 0u);
  }
}

}  // namespace
}  // namespace vswitch
