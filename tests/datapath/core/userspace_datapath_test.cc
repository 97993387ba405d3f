#include "datapath/core/userspace_datapath.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <set>
#include <thread>

#include "datapath/base/unique_fd.h"
#include "datapath/flow/extract.h"
#include "datapath/tunnel/vxlan_header.h"
#include "tests/support/eventually.h"
#include "tests/support/fake_link_monitor.h"
#include "tests/support/lookups.h"
#include "tests/support/netns.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::eventually;
using test::PacketBuilder;

[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new test::PrivateNamespace);

// Translates by in_port: packets from a port go where `routes` says; the megaflow matches in_port and the UDP source
// port.
class RouteHandler final : public UpcallHandler {
 public:
  MissResult miss(const FlowKey& key, const Packet&) override {
    ++misses;
    for (int i = 0; i < work; ++i) spun.fetch_add(1, std::memory_order_relaxed);
    MissResult result;
    if (const uint32_t to = routes[key.in_port % routes.size()].load()) {
      result.actions = Flow::make_actions({OutputAction{to}});
    } else {
      result.actions = Flow::make_actions({DropAction{DropReason::of_pipeline}});
    }
    result.mask.in_port = ~uint32_t{0};
    result.mask.tp_src = to_be16(0xffff);
    result.install = install;
    return result;
  }
  void uncounted(const std::shared_ptr<void>&, uint64_t packets, uint64_t) override { uncounted_packets += packets; }
  std::optional<DropReason> controller(const UserspaceAction&, const FlowKey&, const Packet&) override {
    ++packet_ins;
    return std::nullopt;
  }

  std::array<std::atomic<uint32_t>, 256> routes{};
  std::atomic<bool> install{true};
  std::atomic<int> work{0};  // how much each translation takes, in additions
  std::atomic<uint64_t> spun{0};
  std::atomic<uint64_t> misses{0}, uncounted_packets{0}, packet_ins{0};
};

// The frames of a capture file.
std::vector<Bytes> read_capture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string data(std::istreambuf_iterator<char>(file), {});
  std::vector<Bytes> frames;
  for (size_t at = 24; at + 16 <= data.size();) {
    uint32_t size = 0;
    std::memcpy(&size, data.data() + at + 8, sizeof size);
    at += 16;
    if (at + size > data.size()) break;
    frames.emplace_back(data.begin() + static_cast<ptrdiff_t>(at), data.begin() + static_cast<ptrdiff_t>(at + size));
    at += size;
  }
  return frames;
}

class UserspaceDatapathTest : public ::testing::TestWithParam<test::Lookup> {
 protected:
  UserspaceDatapathTest()
      : datapath_({.lookup = GetParam().options}, clock_, std::make_unique<test::FakeLinkMonitor>()) {
    datapath_.set_upcall_handler(&handler_);
  }
  ~UserspaceDatapathTest() override {
    for (const uint32_t port : ports_) EXPECT_TRUE(datapath_.remove_port(port, true).ok());
  }

  uint32_t add_dummy(const std::string& name) { return add(name, "dummy", {}); }
  uint32_t add(const std::string& name, const std::string& type, std::map<std::string, std::string> options) {
    VportConfig config;
    config.name = name;
    config.type = type;
    config.options = std::move(options);
    const Result<uint32_t> port = datapath_.add_port(config, 0, true);
    EXPECT_TRUE(port.ok()) << port.status().message();
    ports_.push_back(*port);
    return *port;
  }

  static std::vector<Bytes> frames(size_t count, uint16_t first_port, uint16_t ports) {
    std::vector<Bytes> frames;
    for (size_t i = 0; i < count; ++i) {
      frames.push_back(PacketBuilder()
                           .ethernet(test::kMacA, test::kMacB)
                           .ipv4("10.0.0.1", "10.0.0.2")
                           .udp(static_cast<uint16_t>(first_port + i % ports), 53)
                           .build());
    }
    return frames;
  }

  uint64_t sent_by(uint32_t port) { return datapath_.port_stats(port)->tx_packets; }
  // Waits until nothing is queued and the books balance, and returns them.
  BooksSum settled(uint32_t port, uint64_t received) {
    EXPECT_TRUE(eventually([&] {
      const BooksSum books = datapath_.books(port);
      return books.received + books.injected == received && books.queued == 0 && books.balanced();
    }));
    return datapath_.books(port);
  }

  MonotonicClock clock_;
  RouteHandler handler_;
  UserspaceDatapath datapath_;
  std::vector<uint32_t> ports_;
};

TEST_P(UserspaceDatapathTest, NewPortsReceiveNothingWhileHeld) {
  const uint32_t in = add_dummy("in"), out = add_dummy("out");
  datapath_.hold_new_ports();
  const uint32_t held = add_dummy("held");
  handler_.routes[in] = handler_.routes[held] = out;
  ASSERT_TRUE(datapath_.inject(held, frames(10, 1000, 1)).ok());
  // Those that were there go on, by a thread that would have seen the others.
  for (uint16_t i = 0; i < 5; ++i) {
    ASSERT_TRUE(datapath_.inject(in, frames(10, 2000, 1)).ok());
    settled(in, 10u * (i + 1));
  }
  EXPECT_EQ(datapath_.books(held).received + datapath_.books(held).injected, 0u);
  EXPECT_EQ(sent_by(out), 50u);
  datapath_.release_new_ports();
  EXPECT_EQ(settled(held, 10).sent, 10u) << "what arrived meanwhile has waited";
  EXPECT_EQ(sent_by(out), 60u);
}

// A packet for VNI `vni` arrives at this host's VXLAN socket.
void arrive_by_vxlan(uint32_t vni, const Bytes& frame) {
  Bytes packet(kVxlanHeaderSize);
  write_vxlan_header({.vni = vni, .gbp = false, .gbp_id = {}, .gbp_flags = 0}, std::span<uint8_t, 8>(packet));
  packet.insert(packet.end(), frame.begin(), frame.end());
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(4789);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::sendto(fd.get(), packet.data(), packet.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to),
            static_cast<ssize_t>(packet.size()));
}

// The socket is polled for the port that was there first.
TEST_P(UserspaceDatapathTest, ANewTunnelPortOnASharedSocketReceivesNothingWhileHeld) {
  VSWITCH_REQUIRE_NETNS();
  const uint32_t out = add_dummy("out");
  const uint32_t any = add("any", "vxlan", {{"remote_ip", "flow"}, {"key", "flow"}});
  datapath_.hold_new_ports();
  const uint32_t one = add("one", "vxlan", {{"remote_ip", "flow"}, {"key", "5"}});
  handler_.routes[any] = handler_.routes[one] = out;
  const Bytes frame = frames(1, 1000, 1).front();
  arrive_by_vxlan(5, frame);
  EXPECT_EQ(settled(any, 1).sent, 1u) << "it goes where it went before the new port came";
  EXPECT_EQ(datapath_.books(one).received, 0u);
  datapath_.release_new_ports();
  arrive_by_vxlan(5, frame);
  EXPECT_EQ(settled(one, 1).sent, 1u);
  arrive_by_vxlan(6, frame);
  EXPECT_EQ(settled(any, 2).sent, 2u);
  EXPECT_EQ(sent_by(out), 3u);
}

TEST_P(UserspaceDatapathTest, ATunnelPortMadeAgainOrMovedGoesOnReceiving) {
  VSWITCH_REQUIRE_NETNS();
  const uint32_t out = add_dummy("out");
  const uint32_t one = add("one", "vxlan", {{"remote_ip", "flow"}, {"key", "5"}});
  handler_.routes[one] = out;
  VportConfig moved;
  moved.name = "one";
  moved.type = "vxlan";
  moved.options = {{"remote_ip", "flow"}, {"key", "7"}};
  datapath_.hold_new_ports();
  ASSERT_TRUE(datapath_.reconfigure_port(one, moved).ok());
  datapath_.release_new_ports();
  arrive_by_vxlan(7, frames(1, 1000, 1).front());
  EXPECT_EQ(settled(one, 1).sent, 1u);
}

TEST_P(UserspaceDatapathTest, FirstPacketIsTranslatedAndTheRestFollowTheFlow) {
  const uint32_t in = add_dummy("in"), out = add_dummy("out");
  handler_.routes[in] = out;
  ASSERT_TRUE(datapath_.inject(in, frames(100, 1000, 1)).ok());
  ASSERT_TRUE(eventually([&] { return sent_by(out) == 100; }));
  const BooksSum books = settled(in, 100);
  EXPECT_EQ(books.sent, 100u);
  EXPECT_EQ(handler_.misses, 1u);
  const DatapathStats stats = datapath_.stats();
  EXPECT_EQ(stats.flows, 1u);
  uint64_t flow_packets = 0;
  datapath_.visit_flows([&](Flow& flow) {
    flow_packets += flow.stats().packets;
    return true;
  });
  EXPECT_EQ(flow_packets, 100u) << "every packet counts once on its flow, the first included";
}

// Lists of sources follow each other faster than a sleeping thread looks at them; memory of a freed one is used again.
TEST_P(UserspaceDatapathTest, EveryNewPortIsReceivedFrom) {
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 3; ++i) add_dummy("p" + std::to_string(i));
    ASSERT_TRUE(datapath_.inject(ports_[0], frames(1, 1000, 1)).ok());
    ASSERT_TRUE(eventually([&] { return datapath_.port_stats(ports_[0])->rx_packets == 1; })) << "round " << round;
    for (const uint32_t port : ports_) ASSERT_TRUE(datapath_.remove_port(port, true).ok());
    ports_.clear();
  }
}

TEST_P(UserspaceDatapathTest, UninstalledTranslationsAreReported) {
  const uint32_t in = add_dummy("in"), out = add_dummy("out");
  handler_.routes[in] = out;
  handler_.install = false;
  ASSERT_TRUE(datapath_.inject(in, frames(20, 1000, 1)).ok());
  ASSERT_TRUE(eventually([&] { return sent_by(out) == 20; }));
  EXPECT_EQ(handler_.misses, 20u);
  EXPECT_EQ(handler_.uncounted_packets, 20u);
  EXPECT_EQ(datapath_.stats().flows, 0u);
}

TEST_P(UserspaceDatapathTest, DropsAreBookedByReason) {
  const uint32_t in = add_dummy("in");
  ASSERT_TRUE(datapath_.inject(in, frames(10, 1000, 2)).ok());
  const std::vector<Bytes> runt = {Bytes(13, 0xab)};
  ASSERT_TRUE(datapath_.inject(in, runt).ok());
  const BooksSum books = settled(in, 11);
  EXPECT_EQ(books.dropped[static_cast<size_t>(DropReason::of_pipeline)], 10u);
  EXPECT_EQ(books.dropped[static_cast<size_t>(DropReason::rx_invalid_packet)], 1u);
}

TEST_P(UserspaceDatapathTest, PacketsToARemovedPortAreDroppedByName) {
  const uint32_t in = add_dummy("in"), out = add_dummy("out");
  handler_.routes[in] = out;
  ASSERT_TRUE(datapath_.remove_port(out, true).ok());
  ports_.pop_back();
  ASSERT_TRUE(datapath_.inject(in, frames(5, 1000, 1)).ok());
  EXPECT_EQ(settled(in, 5).dropped[static_cast<size_t>(DropReason::invalid_port)], 5u);
}

TEST_P(UserspaceDatapathTest, PutAndRemoveFlows) {
  const uint32_t in = add_dummy("in"), out = add_dummy("out");
  NewFlow flow;
  flow.key.in_port = in;
  flow.mask.in_port = ~uint32_t{0};
  flow.actions = Flow::make_actions({OutputAction{out}});
  const Result<Ufid> ufid = datapath_.put_flow(flow);
  ASSERT_TRUE(ufid.ok());
  EXPECT_EQ(datapath_.put_flow(flow).status().code(), StatusCode::already_exists);
  ASSERT_TRUE(datapath_.inject(in, frames(7, 1000, 7)).ok());
  ASSERT_TRUE(eventually([&] { return sent_by(out) == 7; }));
  EXPECT_EQ(handler_.misses, 0u);
  const Ufid gone[] = {*ufid};
  const auto removed = datapath_.remove_flows(gone);
  ASSERT_EQ(removed.size(), 1u);
  EXPECT_EQ(removed[0]->stats().packets, 7u);
  EXPECT_TRUE(datapath_.remove_flows(gone).empty());
}

TEST_P(UserspaceDatapathTest, ExecuteBooksTheInjectedPacket) {
  const uint32_t in = add_dummy("in"), out = add_dummy("out");
  FlowKey metadata;
  metadata.in_port = in;
  const ActionList actions = {OutputAction{out}, UserspaceAction{UserspaceReason::controller, 1, 0}};
  ASSERT_TRUE(datapath_.execute(frames(1, 1000, 1)[0], metadata, actions).ok());
  EXPECT_EQ(sent_by(out), 1u);
  EXPECT_EQ(handler_.packet_ins, 1u);
  const BooksSum books = datapath_.books(in);
  EXPECT_EQ(books.injected, 1u);
  EXPECT_EQ(books.copies, 1u);
  EXPECT_EQ(books.consumed, 1u);
  EXPECT_TRUE(books.balanced());
  EXPECT_EQ(datapath_.execute(Bytes(5), metadata, actions).code(), StatusCode::invalid_argument);
}

TEST_P(UserspaceDatapathTest, RefusesWhatDoesNotFit) {
  add_dummy("in");
  EXPECT_EQ(datapath_.set_forwarding_threads(0).code(), StatusCode::invalid_argument);
  EXPECT_EQ(datapath_.set_forwarding_threads(1000).code(), StatusCode::invalid_argument);
  VportConfig config;
  config.name = "x";
  config.type = "no-such-type";
  EXPECT_EQ(datapath_.add_port(config, 0, true).status().code(), StatusCode::invalid_argument);
  config.type = "dummy";
  EXPECT_EQ(datapath_.add_port(config, kMaxPorts, true).status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(datapath_.add_port(config, ports_[0], true).status().code(), StatusCode::already_exists);
  EXPECT_EQ(datapath_.remove_port(999, true).code(), StatusCode::not_found);
}

// Ports, threads and flows come and go while traffic passes through others: none of it is lost.
TEST_P(UserspaceDatapathTest, TrafficSurvivesChangesAroundIt) {
  const uint32_t in = add_dummy("in"), out = add_dummy("out");
  handler_.routes[in] = out;
  constexpr uint64_t kBursts = 150, kPerBurst = 32;
  std::atomic<bool> done{false};
  std::thread changes([&] {
    for (size_t i = 0; !done; ++i) {
      ASSERT_TRUE(datapath_.set_forwarding_threads(1 + i % 3).ok());
      VportConfig config;
      config.name = "extra";
      config.type = "dummy";
      const Result<uint32_t> extra = datapath_.add_port(config, 0, true);
      ASSERT_TRUE(extra.ok());
      std::vector<Ufid> all;
      datapath_.visit_flows([&](Flow& flow) {
        all.push_back(flow.ufid());
        return true;
      });
      datapath_.remove_flows(all);
      ASSERT_TRUE(datapath_.remove_port(*extra, true).ok());
    }
  });
  uint64_t injected = 0;
  for (uint64_t burst = 0; burst < kBursts; ++burst) {
    ASSERT_TRUE(datapath_.inject(in, frames(kPerBurst, static_cast<uint16_t>(burst * 16), 16)).ok());
    injected += kPerBurst;
    // At most a burst waits at a time, so that no bound is in play.
    ASSERT_TRUE(eventually([&] { return sent_by(out) == injected; })) << sent_by(out) << " of " << injected;
  }
  done = true;
  changes.join();
  EXPECT_EQ(settled(in, injected).sent, injected);
}

TEST_P(UserspaceDatapathTest, AnotherPortsMissesDoNotStarveAPort) {
  const uint32_t flood = add_dummy("flood"), victim = add_dummy("victim"), out = add_dummy("out");
  handler_.routes[victim] = out;
  // Every packet of the flood needs a flow of its own.
  std::vector<Bytes> many = frames(4000, 1, 4000);
  ASSERT_TRUE(datapath_.inject(flood, many).ok());
  ASSERT_TRUE(datapath_.inject(victim, frames(64, 1000, 64)).ok());
  ASSERT_TRUE(eventually([&] { return sent_by(out) == 64; }));
  EXPECT_EQ(settled(victim, 64).dropped_total(), 0u);
  settled(flood, 4000);
}

// More packets need the handler than may wait for it: the forwarding thread takes part, and holds up its source.
TEST_P(UserspaceDatapathTest, NothingIsLostWhenThereIsNothingButNewFlows) {
  const uint32_t in = add_dummy("in"), out = add_dummy("out");
  handler_.routes[in] = out;
  handler_.install = false;  // every packet is as good as a new flow
  handler_.work = 200;
  constexpr uint64_t kPackets = 2 * UpcallQueue::kTotal;
  for (const uint16_t flows : {uint16_t{32768}, uint16_t{8192}}) {
    const uint64_t before = handler_.misses;
    const std::vector<Bytes> all = frames(flows, 1, flows);
    const std::span<const Bytes> view(all);
    for (uint64_t i = 0; i < kPackets; i += 1024) {  // the port takes no more than it can hold
      const std::span<const Bytes> some = view.subspan(i % flows, 1024);
      ASSERT_TRUE(eventually([&] { return datapath_.inject(in, some).ok(); }));
    }
    settled(in, flows == 32768 ? kPackets : 2 * kPackets);
    EXPECT_EQ(handler_.misses - before, kPackets) << flows << " flows in turn";
  }
  EXPECT_EQ(sent_by(out), 2 * kPackets);
}

// So many new flows at once that both threads set them up, each with several packets that come together.
TEST_P(UserspaceDatapathTest, FlowsThatAreSetUpTogetherKeepTheirOrderAndCountEachPacket) {
  const std::string capture = fmt::format("{}/together-{}-{}.pcap", testing::TempDir(), ::getpid(), GetParam().name);
  const uint32_t in = add_dummy("in"), out = add("out", "dummy", {{"tx_pcap", capture}});
  handler_.routes[in] = out;
  handler_.work = 500;
  constexpr uint16_t kFlows = 8192, kOfFlow = 4, kInTurn = 8;
  constexpr uint64_t kPackets = uint64_t{kFlows} * kOfFlow;
  std::vector<Bytes> all;
  for (uint64_t i = 0; i < kPackets; ++i) {
    const auto flow = static_cast<uint16_t>(1 + i / (kInTurn * kOfFlow) * kInTurn + i % kInTurn);
    const auto number = static_cast<uint16_t>(i / kInTurn % kOfFlow);
    all.push_back(PacketBuilder()
                      .ethernet(test::kMacA, test::kMacB)
                      .ipv4("10.0.0.1", "10.0.0.2", {.id = number})
                      .udp(flow, 53)
                      .build());
  }
  for (size_t i = 0; i < kPackets; i += 1024) {
    ASSERT_TRUE(eventually([&] { return datapath_.inject(in, std::span(all).subspan(i, 1024)).ok(); }));
  }
  EXPECT_EQ(settled(in, kPackets).dropped_total(), 0u);
  std::vector<uint16_t> next(kFlows + 1);
  size_t disordered = 0;
  for (const Bytes& frame : read_capture(capture)) {
    const uint16_t flow = load_unaligned<be16>(frame.data() + 34).host();
    disordered += load_unaligned<be16>(frame.data() + 18).host() != next.at(flow)++;
  }
  EXPECT_EQ(disordered, 0u);
  std::vector<uint16_t> whole(kFlows + 1, kOfFlow);
  whole[0] = 0;
  EXPECT_EQ(next, whole);
  EXPECT_EQ(datapath_.stats().flows, kFlows);
  uint64_t counted = handler_.uncounted_packets;
  datapath_.visit_flows([&](Flow& flow) {
    counted += flow.stats().packets;
    return true;
  });
  EXPECT_EQ(counted, kPackets);
  ::unlink(capture.c_str());
}

// A whole batch that goes round twice for each packet is more than a batch that goes round.
TEST_P(UserspaceDatapathTest, APacketMayRecirculateInSeveralCopies) {
  const uint32_t in = add_dummy("in"), out = add_dummy("out"), other = add_dummy("other");
  const auto put = [&](uint32_t recirc_id, ActionList actions) {
    NewFlow flow;
    flow.key.in_port = in;
    flow.key.recirc_id = recirc_id;
    flow.mask.in_port = flow.mask.recirc_id = ~uint32_t{0};
    flow.actions = Flow::make_actions(std::move(actions));
    ASSERT_TRUE(datapath_.put_flow(flow).ok());
  };
  put(0, {RecircAction{1}, OutputAction{other}, RecircAction{2}, RecircAction{3}});
  put(1, {OutputAction{out}});
  put(2, {RecircAction{1}, RecircAction{1}});
  put(3, {DropAction{DropReason::of_pipeline}});
  constexpr uint64_t kPackets = 320;
  ASSERT_TRUE(datapath_.inject(in, frames(kPackets, 1000, 40)).ok());
  const BooksSum books = settled(in, kPackets);
  EXPECT_EQ(books.dropped_total(), kPackets);
  EXPECT_EQ(sent_by(out), 3 * kPackets);
  EXPECT_EQ(sent_by(other), kPackets);
}

// What a packet makes before it recirculates leaves before what it makes after, also when that is up to the handler.
TEST_P(UserspaceDatapathTest, ACopyDoesNotOvertakeWhatThePacketMadeBefore) {
  const std::string capture = fmt::format("{}/overtake-{}-{}.pcap", testing::TempDir(), ::getpid(), GetParam().name);
  const uint32_t in = add_dummy("in"), out = add("out", "dummy", {{"tx_pcap", capture}});
  handler_.routes[in] = out;
  NewFlow flow;
  flow.key.in_port = in;
  flow.mask.in_port = flow.mask.recirc_id = ~uint32_t{0};
  flow.actions =
      Flow::make_actions({OutputAction{out}, PushVlanAction{kEthTypeVlan, to_be16(0x1005)}, RecircAction{1}});
  ASSERT_TRUE(datapath_.put_flow(flow).ok());
  constexpr uint16_t kPackets = 4000;  // each needs the handler for its second pass
  for (uint16_t i = 0; i < kPackets; i += 8) ASSERT_TRUE(datapath_.inject(in, frames(8, 1 + i, 8)).ok());
  EXPECT_EQ(settled(in, kPackets).dropped_total(), 0u);
  std::set<uint16_t> seen;
  size_t overtaken = 0;
  for (const Bytes& frame : read_capture(capture)) {
    const bool tagged = frame[12] == 0x81;
    const auto port = load_unaligned<be16>(frame.data() + (tagged ? 38 : 34)).host();
    if (!tagged) seen.insert(port);
    overtaken += tagged && !seen.contains(port);
  }
  EXPECT_EQ(seen.size(), kPackets);
  EXPECT_EQ(overtaken, 0u);
  ::unlink(capture.c_str());
}

// Copies without end are a drop with a name.
TEST_P(UserspaceDatapathTest, RecirculationIsBounded) {
  const uint32_t in = add_dummy("in");
  NewFlow flow;
  flow.key.in_port = in;
  flow.mask.in_port = ~uint32_t{0};
  flow.actions = Flow::make_actions({RecircAction{1}, RecircAction{1}, RecircAction{1}});
  ASSERT_TRUE(datapath_.put_flow(flow).ok());
  ASSERT_TRUE(datapath_.inject(in, frames(32, 1000, 1)).ok());
  const BooksSum books = settled(in, 32);
  EXPECT_EQ(books.dropped[static_cast<size_t>(DropReason::recirculation_limit)] +
                books.dropped[static_cast<size_t>(DropReason::no_buffer_for_copy)],
            books.dropped_total());
  EXPECT_GT(books.dropped[static_cast<size_t>(DropReason::recirculation_limit)], 0u);
}

INSTANTIATE_TEST_SUITE_P(Lookups, UserspaceDatapathTest, ::testing::ValuesIn(test::kLookups), test::lookup_name);

}  // namespace
}  // namespace vswitch
