// The fast path of one thread without input and output: extract, look up, send to a port that takes everything, in
// batches of 32 that lie in the processor's caches. Cycles of the time stamp counter per packet.
//
//   port     one flow that looks at the port only (no extraction)
//   l2       one mask, flows by destination address
//   acl      5-tuple flows under so many masks; connections in turn, each its own flow
//   attack   acl with 4 masks, while every 10th packet needs another mask than all others (bit flips of three fields)
#include <benchmark/benchmark.h>
#include <x86intrin.h>

#include <memory>
#include <random>
#include <vector>

#include "datapath/base/rcu.h"
#include "datapath/core/packet_processor.h"
#include "datapath/flow/extract.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

// Takes packets and forgets them.
class Sink final : public Vport {
 public:
  Sink() : Vport("sink", 2) {}
  std::string_view type() const override { return "sink"; }
  void send(ThreadContext&, PacketBatch& batch) override {
    sent += batch.size();
    for (size_t i = 0; i < batch.size(); ++i) batch.release(i).release();  // the bench keeps them
    batch.reset_released();
  }
  std::vector<std::shared_ptr<RxSource>> sources() override { return {}; }
  VportState state() const override { return {}; }
  VportStats stats() const override { return {}; }
  Status reconfigure(const VportConfig&) override { return {}; }
  Status set_admin_up(bool) override { return {}; }
  uint64_t sent = 0;
};

class Processor final : public PacketProcessor {
 public:
  using PacketProcessor::PacketProcessor;
  void userspace(ThreadContext&, const UserspaceAction&, PacketPtr packet) override { keep(std::move(packet)); }
  uint64_t missed = 0;

 protected:
  void miss(PacketPtr packet, const FlowKey&, uint32_t) override { keep(std::move(packet)); }
  bool any_must_wait() const override { return false; }
  bool must_wait(uint32_t) const override { return false; }

 private:
  void keep(PacketPtr packet) {
    ++missed;
    packet.release();
  }
};

struct Setting {
  MonotonicClock clock;
  HeapPacketPool pool{HeapPacketPool::kFrameBuffer, 1u << 20};
  Ledger ledger;
  FlowTable flows{clock, 2'000'000};
  std::unique_ptr<PortMap> ports = std::make_unique<PortMap>();
  Sink sink;
  ThreadContext ctx{0, pool, ledger, clock.now()};
  std::vector<Packet*> packets;

  Setting() { ports->set(2, &sink); }
  ~Setting() {
    for (Packet* packet : packets) PacketPtr{packet};
    flows.clear();
    rcu::barrier();
  }
  void add_packet(uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport, uint64_t mac = 0x020000000001) {
    Bytes frame = PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(sport, dport).pad_to(60).build();
    for (int i = 0; i < 4; ++i) {
      frame[26 + static_cast<size_t>(i)] = static_cast<uint8_t>(src >> (24 - 8 * i));
      frame[30 + static_cast<size_t>(i)] = static_cast<uint8_t>(dst >> (24 - 8 * i));
    }
    for (int i = 0; i < 6; ++i) frame[static_cast<size_t>(i)] = static_cast<uint8_t>(mac >> (40 - 8 * i));
    packets.push_back(test::make_packet(pool, frame).release());
    packets.back()->in_port = 1;
  }
  void add_flow(Packet& packet, FlowMask mask) {
    mask.in_port = mask.recirc_id = ~0u;
    mask.eth_type = ~be16{};
    mask.packet_type = ~be32{};
    mask.nw_frag = 3;
    FlowKey key;
    if (extract_flow_key(packet, key)) (void)flows.insert(key, mask, {OutputAction{2}}, {}, nullptr);
  }
};

// The packets in turn, batch after batch.
void run(benchmark::State& state, Setting& setting) {
  const rcu::ReaderScope reader;
  Processor processor(setting.ctx, setting.flows, *setting.ports, {});
  size_t next = 0;
  const auto round = [&] {
    PacketBatch batch;
    for (size_t i = 0; i < PacketBatch::kMaxPackets; ++i) {
      Packet* packet = setting.packets[next];
      packet->rss_hash = 0;
      batch.add(PacketPtr(packet));
      if (++next == setting.packets.size()) next = 0;
    }
    processor.process(batch, 1);  // as from a source with one port
    processor.flush();
    processor.before_quiescent();
  };
  for (size_t i = 0; i < 4 * setting.packets.size() / PacketBatch::kMaxPackets + 100; ++i) round();
  setting.sink.sent = processor.missed = 0;
  const uint64_t begin = __rdtsc();
  for (auto _ : state) round();
  const double packets = static_cast<double>(state.iterations()) * PacketBatch::kMaxPackets;
  state.counters["cycles_per_packet"] = static_cast<double>(__rdtsc() - begin) / packets;
  state.counters["missed"] = static_cast<double>(processor.missed) / packets;
  state.counters["masks"] = static_cast<double>(setting.flows.counters().masks);
}

FlowMask prefixes(uint32_t src_bits, uint32_t dst_bits, uint32_t sport_bits, uint32_t dport_bits) {
  const auto prefix32 = [](uint32_t bits) { return bits == 0 ? 0u : ~uint32_t{0} << (32 - bits); };
  FlowMask mask;
  mask.nw_proto = 0xff;
  mask.nw_src = to_be32(prefix32(src_bits));
  mask.nw_dst = to_be32(prefix32(dst_bits));
  mask.tp_src = to_be16(static_cast<uint16_t>(prefix32(sport_bits) >> 16));
  mask.tp_dst = to_be16(static_cast<uint16_t>(prefix32(dport_bits) >> 16));
  return mask;
}

void port(benchmark::State& state) {
  Setting setting;
  for (uint32_t i = 0; i < static_cast<uint32_t>(state.range(0)); ++i) {
    setting.add_packet(0x0a010000 + i, 0x0ac80001, static_cast<uint16_t>(1024 + i % 60000), 53);
  }
  setting.add_flow(*setting.packets[0], {});
  run(state, setting);
}
BENCHMARK(port)->ArgName("connections")->Arg(32)->Arg(1024)->Arg(65536);

void l2(benchmark::State& state) {
  Setting setting;
  FlowMask mask;
  mask.eth_dst = MacAddress::from_u64(0xffffffffffff);
  for (uint32_t i = 0; i < static_cast<uint32_t>(state.range(0)); ++i) {
    setting.add_packet(0x0a010000 + i, 0x0ac80001, 1024, 53, 0x020000000000 + i % 1000);
    setting.add_flow(*setting.packets.back(), mask);
  }
  run(state, setting);
}
BENCHMARK(l2)->ArgName("connections")->Arg(32)->Arg(1024)->Arg(65536);

void add_acl(Setting& setting, uint32_t flows, uint32_t masks) {
  for (uint32_t i = 0; i < flows; ++i) {
    const uint32_t k = i % masks, j = i / masks;
    setting.add_packet(0x0a000000 | k << 16 | (j & 0xffff), 0xac100000 | k << 16 | (j >> 16 & 15) << 8,
                       static_cast<uint16_t>(1024 + j % 60000), static_cast<uint16_t>(1000 + k));
    setting.add_flow(*setting.packets.back(), prefixes(32, 16 + k % 8, 16, 16 - k / 8 % 8));
  }
}

void acl(benchmark::State& state) {
  Setting setting;
  add_acl(setting, static_cast<uint32_t>(state.range(0)), static_cast<uint32_t>(state.range(1)));
  run(state, setting);
}
BENCHMARK(acl)->ArgNames({"connections", "masks"})->ArgsProduct({{32, 1024, 16384, 131072}, {1, 4, 64}});

void attack(benchmark::State& state) {
  Setting setting;
  add_acl(setting, 16384, 4);
  std::mt19937 random(1);
  std::vector<Packet*> honest;
  honest.swap(setting.packets);
  std::vector<Packet*> mixed;
  for (size_t i = 0; i < honest.size(); ++i) {
    mixed.push_back(honest[i]);
    if (i % 9 != 0) continue;
    const uint32_t pattern = random() % 8192, a = pattern % 32, b = pattern / 32 % 16, c = pattern / 512;
    setting.add_packet(0x0b010203 ^ 1u << (31 - a), 0x0ac80001, static_cast<uint16_t>(12345 ^ 1u << (15 - b)),
                       static_cast<uint16_t>(80 ^ 1u << (15 - c)));
    setting.add_flow(*setting.packets.back(), prefixes(a + 1, 0, b + 1, c + 1));
    mixed.push_back(setting.packets.back());
  }
  setting.packets = std::move(mixed);
  run(state, setting);
}
BENCHMARK(attack);

}  // namespace
}  // namespace vswitch

BENCHMARK_MAIN();
