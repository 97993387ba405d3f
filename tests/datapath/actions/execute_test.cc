#include "datapath/actions/execute.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "datapath/actions/dp_hash.h"
#include "datapath/actions/rewrite.h"
#include "datapath/flow/extract.h"
#include "datapath/packet/offload.h"
#include "tests/support/fake_sink.h"
#include "tests/support/frame_spec.h"
#include "tests/support/random_check.h"

namespace vswitch {
namespace {

using Kind = FakeSink::Kind;

std::shared_ptr<const ActionList> list(ActionList actions) {
  return std::make_shared<const ActionList>(std::move(actions));
}

SetEthernetAction set_source(uint64_t mac) {
  SetEthernetAction set;
  set.src = MacAddress::from_u64(mac);
  set.src_mask = MacAddress::from_u64(0xffffffffffff);
  return set;
}

class Execute : public testing::Test {
 protected:
  Execute() : pool_(16384, kPoolSize), ctx_{0, pool_, ledger_, Nanoseconds(0)} {}

  // Packets are `received` on their port.
  PacketPtr receive(const Bytes& frame, uint32_t in_port = 1) {
    PacketPtr packet = make_packet(pool_, frame);
    packet->in_port = in_port;
    FlowKey key;
    EXPECT_TRUE(extract_flow_key(*packet, key));
    ledger_.port(in_port).received.add();
    return packet;
  }

  void run(const ActionList& actions, const Bytes& frame = FrameSpec{}.build()) {
    execute_actions(ctx_, actions, receive(frame), sink_);
  }

  uint64_t dropped(DropReason reason, uint32_t port = 1) {
    return ledger_.port(port).dropped[static_cast<size_t>(reason)].get();
  }

  static constexpr size_t kPoolSize = 64;
  HeapPacketPool pool_;
  Ledger ledger_;
  ThreadContext ctx_;
  FakeSink sink_;
};

// received + copies = sent + consumed + recirculated + dropped, and no packet is lost or there twice.
bool books_balance(const Ledger& ledger, const FakeSink& sink, uint32_t port) {
  const PortBooks* books = ledger.find(port);
  if (books == nullptr) return true;
  uint64_t out = books->sent.get() + books->consumed.get() + sink.recirculated(port);
  for (const Counter& counter : books->dropped) out += counter.get();
  return books->received.get() + books->copies.get() == out;
}

TEST_F(Execute, AnEmptyListIsADropByTheRules) {
  run({});
  run({SetMarkAction{1, 1}, set_source(7)});
  EXPECT_EQ(dropped(DropReason::of_pipeline), 2u);
  EXPECT_TRUE(sink_.handed().empty());
  EXPECT_EQ(free_packets(pool_), kPoolSize);
}

TEST_F(Execute, OneOutputMovesTheWholeBatchInOneCall) {
  PacketBatch batch;
  for (uint32_t i = 0; i < 32; ++i) batch.add(receive(Bytes(60, static_cast<uint8_t>(i))));
  execute_actions(ctx_, {OutputAction{7}}, batch, sink_);
  EXPECT_TRUE(batch.empty());
  EXPECT_EQ(sink_.batch_calls(), 1u);
  const auto sent = sink_.outputs(7);
  ASSERT_EQ(sent.size(), 32u);
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(sent[i].bytes, Bytes(60, static_cast<uint8_t>(i))) << "order";
  EXPECT_EQ(ledger_.port(1).copies.get(), 0u);
}

TEST_F(Execute, TheLastUseGetsTheOriginal) {
  PacketPtr packet = receive(FrameSpec{}.build());
  const Packet* original = packet.get();
  execute_actions(ctx_, {OutputAction{2}, OutputAction{3}, CloneAction{list({OutputAction{4}})}, SetMarkAction{1, 1}},
                  std::move(packet), sink_);
  ASSERT_EQ(sink_.handed().size(), 3u);
  EXPECT_NE(sink_.outputs(2)[0].packet, original);
  EXPECT_NE(sink_.outputs(3)[0].packet, original);
  EXPECT_EQ(sink_.outputs(4)[0].packet, original);
  EXPECT_EQ(ledger_.port(1).copies.get(), 2u);
}

TEST_F(Execute, ChangesHoldFromWhereTheyStand) {
  run({OutputAction{2}, set_source(0x020000000009), OutputAction{3},
       CloneAction{list({PushVlanAction{kEthTypeVlan, to_be16(0x1005)}, OutputAction{4}})}, OutputAction{5}});
  const Bytes frame = FrameSpec{}.build();
  Bytes changed = frame;
  const Bytes mac = from_hex("020000000009");
  std::copy(mac.begin(), mac.end(), changed.begin() + 6);
  EXPECT_EQ(sink_.outputs(2)[0].bytes, frame);
  EXPECT_EQ(sink_.outputs(3)[0].bytes, changed);
  EXPECT_EQ(sink_.outputs(4)[0].bytes.size(), frame.size() + 4);
  EXPECT_EQ(sink_.outputs(5)[0].bytes, changed) << "the clone's tag came out with it";
}

TEST_F(Execute, MetadataIsSetUnderItsMask) {
  auto tunnel = std::make_shared<TunnelMetadata>();
  tunnel->id = to_be64(5);
  run({SetMarkAction{0xf0, 0xf0}, SetMarkAction{0x0f, 0x0f}, SetPriorityAction{3, 0xff}, SetTunnelAction{tunnel},
       OutputAction{2}});
  const auto sent = sink_.outputs(2)[0];
  EXPECT_EQ(sent.skb_mark, 0xffu);
  EXPECT_EQ(sent.skb_priority, 3u);
  EXPECT_TRUE(sent.has_tunnel);
  EXPECT_EQ(sent.tunnel, *tunnel);
}

TEST_F(Execute, ASetOfAHeaderThatIsNotThereDrops) {
  run({OutputAction{2}, SetTransportAction{6, {}, {}, {}, {}}, OutputAction{3}});
  EXPECT_EQ(sink_.outputs(2).size(), 1u) << "what stood before it is done";
  EXPECT_EQ(sink_.outputs(3).size(), 0u);
  EXPECT_EQ(dropped(DropReason::action_too_short), 1u);
  EXPECT_TRUE(books_balance(ledger_, sink_, 1));
}

TEST_F(Execute, OthersOfTheBatchGoOnWhenOneDrops) {
  FrameSpec udp;
  FrameSpec tcp;
  tcp.proto = 6;
  PacketBatch batch;
  batch.add(receive(udp.build(), 1));
  batch.add(receive(tcp.build(), 2));
  batch.add(receive(udp.build(), 3));
  execute_actions(ctx_, {SetTransportAction{17, {}, {}, {}, {}}, OutputAction{9}}, batch, sink_);
  ASSERT_EQ(sink_.outputs(9).size(), 2u);
  EXPECT_EQ(sink_.outputs(9)[0].in_port, 1u);
  EXPECT_EQ(sink_.outputs(9)[1].in_port, 3u);
  EXPECT_EQ(dropped(DropReason::action_too_short, 2), 1u);
}

TEST_F(Execute, DropEndsWithItsReason) {
  run({OutputAction{2}, DropAction{DropReason::vlan_not_admitted}});
  run({CloneAction{list({DropAction{DropReason::no_output}})}, OutputAction{3}});
  EXPECT_EQ(sink_.outputs(2).size(), 1u);
  EXPECT_EQ(sink_.outputs(3).size(), 1u);
  EXPECT_EQ(dropped(DropReason::vlan_not_admitted), 1u);
  EXPECT_EQ(dropped(DropReason::no_output), 1u);
  EXPECT_TRUE(books_balance(ledger_, sink_, 1));
}

TEST_F(Execute, NothingIsSentBehindADrop) {
  run({DropAction{DropReason::ttl_exceeded}, OutputAction{2}});
  EXPECT_TRUE(sink_.handed().empty());
  EXPECT_EQ(dropped(DropReason::ttl_exceeded), 1u);
  EXPECT_EQ(ledger_.port(1).copies.get(), 0u);
}

TEST_F(Execute, RecirculationMovesThePacketAndCounts) {
  run({RecircAction{77}});
  ASSERT_EQ(sink_.handed().size(), 1u);
  EXPECT_EQ(sink_.handed()[0].kind, Kind::recirculate);
  EXPECT_EQ(sink_.handed()[0].recirc_id, 77u);
  EXPECT_EQ(sink_.handed()[0].recirc_depth, 1);
  EXPECT_EQ(ledger_.port(1).copies.get(), 0u);

  PacketPtr packet = receive(FrameSpec{}.build());
  packet->recirc_depth = kMaxRecirculations;
  execute_actions(ctx_, {RecircAction{78}, OutputAction{2}}, std::move(packet), sink_);
  EXPECT_EQ(dropped(DropReason::recirculation_limit), 1u);
  EXPECT_EQ(sink_.outputs(2)[0].recirc_id, 0u) << "only the copy was recirculated";
  EXPECT_TRUE(books_balance(ledger_, sink_, 1));
}

TEST_F(Execute, UserspaceGetsTheWholePacketAndItsAction) {
  const UserspaceAction action{UserspaceReason::controller, 42, 20};
  run({action, OutputAction{2}});
  ASSERT_EQ(sink_.handed().size(), 2u);
  EXPECT_EQ(sink_.handed()[0].action, action);
  EXPECT_EQ(sink_.handed()[0].bytes, FrameSpec{}.build());
}

TEST_F(Execute, ACopyThatFindsThePoolEmptyIsBooked) {
  std::vector<PacketPtr> hoard;
  PacketPtr packet = receive(FrameSpec{}.build());
  while (PacketPtr taken = pool_.allocate()) hoard.push_back(std::move(taken));
  execute_actions(ctx_, {OutputAction{2}, OutputAction{3}}, std::move(packet), sink_);
  EXPECT_EQ(sink_.outputs(2).size(), 0u);
  EXPECT_EQ(sink_.outputs(3).size(), 1u);
  EXPECT_EQ(dropped(DropReason::no_buffer_for_copy), 1u);
  EXPECT_TRUE(books_balance(ledger_, sink_, 1));
}

// ---- truncate

TEST_F(Execute, TruncateHoldsForTheNextUseOnly) {
  FrameSpec spec;
  spec.payload = Bytes(100, 7);
  run({TruncateAction{60}, OutputAction{2}, OutputAction{3}, TruncateAction{64}, OutputAction{4}}, spec.build());
  EXPECT_EQ(sink_.outputs(2)[0].bytes.size(), 60u);
  EXPECT_EQ(sink_.outputs(3)[0].bytes, spec.build());
  EXPECT_EQ(sink_.outputs(4)[0].bytes.size(), 64u);
  for (const auto& handed : sink_.handed()) EXPECT_EQ(handed.cutlen, 0u);
}

TEST_F(Execute, TruncateLeavesAtLeastTheEthernetHeader) {
  run({TruncateAction{1}, OutputAction{2}, TruncateAction{20}, PopVlanAction{}, TruncateAction{100000},
       OutputAction{3}});
  EXPECT_EQ(sink_.outputs(2)[0].bytes.size(), 14u);
  EXPECT_EQ(sink_.outputs(2)[0].layers.l4, LayerOffsets::kNoLayer) << "an offset behind the end of the frame";
  EXPECT_EQ(sink_.outputs(3)[0].bytes.size(), 42u) << "the later truncation counts";
}

TEST_F(Execute, TruncateCompletesAPartialChecksumFirst) {
  FrameSpec spec;
  spec.proto = 6;
  spec.payload = Bytes(200, 7);
  PacketPtr packet = receive(spec.build());
  store_unaligned(packet->data() + 50, to_be16(spec.pseudo_sum(spec.build())));
  packet->offload.checksum = ChecksumState::partial;
  packet->offload.csum_start = 34;
  packet->offload.csum_offset = 16;
  execute_actions(ctx_, {TruncateAction{60}, OutputAction{2}, OutputAction{3}}, std::move(packet), sink_);
  Bytes cut = spec.build();
  cut.resize(60);
  EXPECT_EQ(sink_.outputs(2)[0].bytes, cut);
  EXPECT_EQ(sink_.outputs(2)[0].offload.checksum, ChecksumState::none);
  EXPECT_EQ(sink_.outputs(3)[0].offload.checksum, ChecksumState::partial) << "only the copy is finished";
}

FrameSpec super_frame() {
  FrameSpec spec;
  spec.proto = 6;
  spec.payload = Bytes(5000, 7);
  return spec;
}

void make_gso(Packet& packet) { packet.offload = {ChecksumState::partial, GsoType::tcp4, false, 1000, 34, 16}; }

TEST_F(Execute, TruncatingASuperFrameTruncatesItsSegments) {
  PacketPtr packet = receive(super_frame().build());
  make_gso(*packet);
  execute_actions(ctx_, {TruncateAction{100}, OutputAction{2}}, std::move(packet), sink_);
  ASSERT_EQ(sink_.outputs(2).size(), 5u);
  for (const auto& piece : sink_.outputs(2)) {
    EXPECT_EQ(piece.bytes.size(), 100u);
    EXPECT_EQ(piece.offload.gso, GsoType::none);
  }
  EXPECT_EQ(ledger_.port(1).copies.get(), 4u);
  EXPECT_TRUE(books_balance(ledger_, sink_, 1));
}

TEST_F(Execute, ASuperFrameWhoseSegmentsFitStaysWhole) {
  PacketPtr packet = receive(super_frame().build());
  make_gso(*packet);
  execute_actions(ctx_, {TruncateAction{1054}, OutputAction{2}}, std::move(packet), sink_);
  ASSERT_EQ(sink_.outputs(2).size(), 1u);
  EXPECT_EQ(sink_.outputs(2)[0].bytes.size(), super_frame().build().size());
  EXPECT_EQ(sink_.outputs(2)[0].offload.gso, GsoType::tcp4);
  EXPECT_EQ(sink_.outputs(2)[0].cutlen, 0u);
}

TEST_F(Execute, ASuperFrameThatCannotBeCutIsDropped) {
  PacketPtr packet = receive(super_frame().build());
  make_gso(*packet);
  packet->offload.gso = GsoType::tcp6;
  execute_actions(ctx_, {TruncateAction{100}, OutputAction{2}}, std::move(packet), sink_);
  EXPECT_EQ(dropped(DropReason::action_too_short), 1u);
  EXPECT_TRUE(books_balance(ledger_, sink_, 1));
}

// ---- hash

FlowKey key_of(const FrameSpec& spec) {
  HeapPacketPool pool(4096, 1);
  FlowKey key;
  EXPECT_TRUE(extract_flow_key(*make_packet(pool, spec.build()), key));
  return key;
}

TEST_F(Execute, HashIsOfTheConnection) {
  run({HashAction{HashAlgorithm::l4, 5}, OutputAction{2}});
  EXPECT_EQ(sink_.outputs(2)[0].dp_hash, dp_hash({HashAlgorithm::l4, 5}, key_of(FrameSpec{})));
  EXPECT_NE(sink_.outputs(2)[0].dp_hash, 0u);
}

TEST(DpHash, SymmetricHashIsTheSameBothWays) {
  check_random([](std::mt19937& rng) {
    const FlowKey key = key_of(FrameSpec::random(rng));
    FlowKey back = key;
    std::swap(back.eth_src, back.eth_dst);
    std::swap(back.nw_src, back.nw_dst);
    std::swap(back.ipv6_src, back.ipv6_dst);
    std::swap(back.tp_src, back.tp_dst);
    const HashAction symmetric{HashAlgorithm::symmetric_l4, 1};
    RC_ASSERT(dp_hash(symmetric, key) == dp_hash(symmetric, back));
    const HashAction one_way{HashAlgorithm::l4, 1};
    RC_ASSERT(dp_hash(one_way, key) != dp_hash({HashAlgorithm::l4, 2}, key));
    FlowKey routed = key;
    routed.eth_src = routed.eth_dst = MacAddress{};
    routed.nw_ttl = 1;
    RC_ASSERT(dp_hash(one_way, key) == dp_hash(one_way, routed));
  });
}

TEST(DpHash, SpreadsConnectionsEvenly) {
  FlowKey key = key_of(FrameSpec{});
  std::array<int, 16> buckets{};
  for (uint16_t port = 0; port < 16000; ++port) {
    key.tp_src = to_be16(port);
    ++buckets[dp_hash({HashAlgorithm::l4, 0}, key) % 16];
  }
  for (int n : buckets) EXPECT_NEAR(n, 1000, 200);
}

// ---- any list, any packet

struct Result {
  Kind kind;
  uint32_t port_no;
  Bytes bytes;
  uint32_t mark, recirc_id, dp_hash;
  bool operator==(const Result&) const = default;
};

// What a list means, written without thought for copies: each use gets a copy, one packet after the other.
class Reference {
 public:
  explicit Reference(PacketPool& pool) : pool_(pool) {}

  void run(const Packet& packet, const ActionList& actions) {
    PacketPtr p = clone_packet(packet, pool_);
    for (const Action& action : actions) {
      if (!apply(*p, action)) return;
    }
  }
  const std::vector<Result>& results() const { return results_; }

 private:
  void use(Packet& packet, Kind kind, uint32_t port_no, uint32_t recirc_id) {
    PacketPtr copy = clone_packet(packet, pool_);
    if (copy->cutlen != 0) {
      (void)complete_checksum(*copy);
      copy->set_size(std::max<size_t>(14, copy->size() - std::min<size_t>(copy->size(), copy->cutlen)));
    }
    packet.cutlen = 0;
    results_.push_back({kind, port_no, bytes_of(*copy), copy->skb_mark, recirc_id, copy->dp_hash});
  }

  bool apply(Packet& p, const Action& action) {
    return std::visit(Overload{
                          [&](const OutputAction& a) { return use(p, Kind::output, a.port_no, p.recirc_id), true; },
                          [&](const UserspaceAction&) { return use(p, Kind::userspace, 0, p.recirc_id), true; },
                          [&](const RecircAction& a) { return use(p, Kind::recirculate, 0, a.recirc_id), true; },
                          [&](const CloneAction& a) { return run(p, *a.actions), true; },
                          [&](const DropAction&) { return false; },
                          [&](const SetEthernetAction& a) { return set_ethernet(p, a); },
                          [&](const SetIpv4Action& a) { return set_ipv4(p, a); },
                          [&](const SetIpv6Action& a) { return set_ipv6(p, a); },
                          [&](const SetTransportAction& a) { return set_transport(p, a); },
                          [&](const SetIcmpAction& a) { return set_icmp(p, a); },
                          [&](const SetArpAction& a) { return set_arp(p, a); },
                          [&](const SetNdAction& a) { return set_nd(p, a); },
                          [&](const PushVlanAction& a) { return push_vlan(p, a); },
                          [&](const PopVlanAction&) { return pop_vlan(p), true; },
                          [&](const SetMarkAction& a) { return p.skb_mark = (p.skb_mark & ~a.mask) | a.value, true; },
                          [&](const SetPriorityAction&) { return true; },
                          [&](const SetTunnelAction&) { return true; },
                          [&](const HashAction& a) {
                            FlowKey key;
                            if (!extract_flow_key(p, key)) return false;
                            p.dp_hash = dp_hash(a, key);
                            return true;
                          },
                          [&](const TruncateAction& a) {
                            const uint32_t size = std::max(a.max_len, 14u);
                            return p.cutlen = p.size() > size ? static_cast<uint32_t>(p.size() - size) : 0, true;
                          },
                      },
                      static_cast<const Action::variant&>(action));
  }

  PacketPool& pool_;
  std::vector<Result> results_;
};

Action random_action(std::mt19937& rng, int depth);

ActionList random_list(std::mt19937& rng, int depth) {
  ActionList actions;
  for (uint32_t n = rng() % 6; n > 0; --n) actions.push_back(random_action(rng, depth));
  if (rng() % 8 == 0) actions.push_back(DropAction{DropReason::no_rule});
  return actions;
}

Action random_action(std::mt19937& rng, int depth) {
  switch (rng() % 15) {
    case 0:
      return SetMarkAction{static_cast<uint32_t>(rng()) & 0xff, 0xff};
    case 1:
      return set_source(rng());
    case 2:
      return SetIpv4Action{{}, {}, {}, {}, 0, 0, 9, 0xff};
    case 3:
      return SetTransportAction{17, to_be16(9), {}, to_be16(0xffff), {}};
    case 4:
      return PushVlanAction{kEthTypeVlan, to_be16(0x1007)};
    case 5:
      return PopVlanAction{};
    case 6:
      return TruncateAction{static_cast<uint32_t>(rng() % 200)};
    case 7:
      return HashAction{HashAlgorithm::l4, static_cast<uint32_t>(rng() % 2)};
    case 8:
      return UserspaceAction{};
    case 9:
      return RecircAction{static_cast<uint32_t>(1 + rng() % 5)};
    case 10:
    case 11:
      if (depth > 0) return CloneAction{list(random_list(rng, depth - 1))};
      [[fallthrough]];
    default:
      return OutputAction{static_cast<uint32_t>(1 + rng() % 3)};
  }
}

std::map<std::pair<int, uint32_t>, std::vector<Result>> by_destination(const std::vector<Result>& results) {
  std::map<std::pair<int, uint32_t>, std::vector<Result>> sorted;
  for (const Result& r : results) sorted[{static_cast<int>(r.kind), r.port_no}].push_back(r);
  return sorted;
}

std::vector<Result> results_of(const FakeSink& sink) {
  std::vector<Result> results;
  for (const auto& h : sink.handed()) {
    RC_ASSERT(h.cutlen == 0u);
    results.push_back({h.kind, h.port_no, h.bytes, h.skb_mark, h.recirc_id, h.dp_hash});
  }
  return results;
}

struct Scene {
  Ledger ledger;
  FakeSink sink;
};

PacketPtr random_packet(std::mt19937& rng, PacketPool& pool, Ledger& ledger) {
  FrameSpec spec = FrameSpec::random(rng);
  PacketPtr packet = make_packet(pool, spec.build(), rng() % 8 == 0 ? 4 : Packet::kDefaultHeadroom);
  packet->in_port = static_cast<uint32_t>(1 + rng() % 3);
  ledger.port(packet->in_port).received.add();
  FlowKey key;
  RC_ASSERT(extract_flow_key(*packet, key));
  return packet;
}

TEST(ExecuteProperty, OnePacketEndsAsTheListSays) {
  HeapPacketPool pool(2048, 200);
  check_random([&pool](std::mt19937& rng) {
    auto scene = std::make_unique<Scene>();
    ThreadContext ctx{0, pool, scene->ledger, Nanoseconds(0)};
    PacketPtr packet = random_packet(rng, pool, scene->ledger);
    const ActionList actions = random_list(rng, 3);
    Reference reference(pool);
    reference.run(*packet, actions);
    execute_actions(ctx, actions, std::move(packet), scene->sink);
    RC_ASSERT(results_of(scene->sink) == reference.results());
    for (uint32_t port = 1; port <= 3; ++port) RC_ASSERT(books_balance(scene->ledger, scene->sink, port));
  });
  EXPECT_EQ(free_packets(pool), 200u);
}

// In a batch the order holds per destination as long as a list names each destination once; the rest is compared as a
// set.
TEST(ExecuteProperty, ABatchEndsAsItsPacketsWouldOneByOne) {
  HeapPacketPool pool(2048, 500);
  check_random([&pool](std::mt19937& rng) {
    auto scene = std::make_unique<Scene>();
    ThreadContext ctx{0, pool, scene->ledger, Nanoseconds(0)};
    const ActionList actions = random_list(rng, 2);
    Reference reference(pool);
    PacketBatch batch;
    for (uint32_t n = rng() % 5; n > 0; --n) {
      batch.add(random_packet(rng, pool, scene->ledger));
      reference.run(batch[batch.size() - 1], actions);
    }
    execute_actions(ctx, actions, batch, scene->sink);
    RC_ASSERT(batch.empty());
    auto expected = by_destination(reference.results());
    auto found = by_destination(results_of(scene->sink));
    RC_ASSERT(expected.size() == found.size());
    for (auto& [destination, results] : expected) {
      RC_ASSERT(
          std::is_permutation(results.begin(), results.end(), found[destination].begin(), found[destination].end()));
    }
    for (uint32_t port = 1; port <= 3; ++port) RC_ASSERT(books_balance(scene->ledger, scene->sink, port));
  });
  EXPECT_EQ(free_packets(pool), 500u);
}

// Super-frames, and a pool that runs dry in the middle of it.
TEST(ExecuteProperty, TheBooksBalanceWhateverHappens) {
  HeapPacketPool pool(8192, 12);
  check_random([&pool](std::mt19937& rng) {
    auto scene = std::make_unique<Scene>();
    ThreadContext ctx{0, pool, scene->ledger, Nanoseconds(0)};
    const ActionList actions = random_list(rng, 3);
    PacketBatch batch;
    for (uint32_t n = rng() % 9; n > 0; --n) {
      if (rng() % 2 == 0) {
        batch.add(random_packet(rng, pool, scene->ledger));
        continue;
      }
      batch.add(make_packet(pool, super_frame().build()));
      make_gso(batch[batch.size() - 1]);
      if (rng() % 4 == 0) batch[batch.size() - 1].offload.gso_size = static_cast<uint16_t>(rng() % 300);
      batch[batch.size() - 1].in_port = 2;
      scene->ledger.port(2).received.add();
    }
    execute_actions(ctx, actions, batch, scene->sink);
    for (uint32_t port = 1; port <= 3; ++port) RC_ASSERT(books_balance(scene->ledger, scene->sink, port));
  });
  EXPECT_EQ(free_packets(pool), 12u);
}

}  // namespace
}  // namespace vswitch
