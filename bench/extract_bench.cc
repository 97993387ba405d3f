// Key extraction: nanoseconds per packet, for batches of 32 packets that lie in the first-level cache.
//
//   tcp4, udp6, vlan_tcp4, nd6 ...   extract_flow_key() of one kind of frame
//   mixed                            all kinds in one batch: what the branch predictor makes of it
//   hash                             flow_hash() alone, of a TCP key
//
// `items_per_second` is packets per second.
#include <benchmark/benchmark.h>

#include <vector>

#include "datapath/flow/extract.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::PacketBuilder;

constexpr size_t kBatch = 32;

Bytes tcp4() { return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80).pad_to(60).build(); }
Bytes udp4() { return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").udp(1000, 53).pad_to(60).build(); }
Bytes tcp6() { return PacketBuilder().ethernet().ipv6("2001:db8::1", "2001:db8::2").tcp(1000, 80).build(); }
Bytes vlan_tcp4() {
  return PacketBuilder().ethernet().vlan(10).ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80).pad_to(60).build();
}
Bytes icmp4() { return PacketBuilder().ethernet().ipv4("10.0.0.1", "10.0.0.2").icmp(8, 0).pad_to(60).build(); }
Bytes arp() {
  return PacketBuilder()
      .ethernet()
      .arp(1, test::mac(test::kMacA), test::ipv4("10.0.0.1"), {}, test::ipv4("10.0.0.2"))
      .pad_to(60)
      .build();
}
Bytes nd6() {
  return PacketBuilder()
      .ethernet()
      .ipv6("fe80::1", "ff02::1")
      .icmpv6(135, 0)
      .nd_target(test::ipv6("fe80::2"))
      .nd_option(1, test::mac(test::kMacA))
      .build();
}

// Extracts batches that hold the frames in turn.
void extract_frames(benchmark::State& state, const std::vector<Bytes>& frames) {
  HeapPacketPool pool(HeapPacketPool::kFrameBuffer, kBatch);
  std::vector<PacketPtr> packets;
  for (size_t i = 0; i < kBatch; ++i) packets.push_back(test::make_packet(pool, frames[i % frames.size()]));
  std::vector<FlowKey> keys(kBatch);
  for (auto _ : state) {
    for (size_t i = 0; i < kBatch; ++i) {
      if (!extract_flow_key(*packets[i], keys[i])) state.SkipWithError("not a packet");
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kBatch));
  state.counters["per_packet"] = benchmark::Counter(static_cast<double>(state.iterations() * kBatch),
                                                    benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

BENCHMARK_CAPTURE(extract_frames, tcp4, {tcp4()});
BENCHMARK_CAPTURE(extract_frames, udp4, {udp4()});
BENCHMARK_CAPTURE(extract_frames, tcp6, {tcp6()});
BENCHMARK_CAPTURE(extract_frames, vlan_tcp4, {vlan_tcp4()});
BENCHMARK_CAPTURE(extract_frames, icmp4, {icmp4()});
BENCHMARK_CAPTURE(extract_frames, arp, {arp()});
BENCHMARK_CAPTURE(extract_frames, nd6, {nd6()});
BENCHMARK_CAPTURE(extract_frames, mixed, {tcp4(), udp4(), tcp6(), vlan_tcp4(), icmp4(), arp(), nd6()});

void hash(benchmark::State& state) {
  HeapPacketPool pool(HeapPacketPool::kFrameBuffer, 1);
  const PacketPtr packet = test::make_packet(pool, tcp4());
  FlowKey key;
  if (!extract_flow_key(*packet, key)) state.SkipWithError("not a packet");
  for (auto _ : state) {
    benchmark::DoNotOptimize(flow_hash(key));
    benchmark::ClobberMemory();
  }
}
BENCHMARK(hash);

}  // namespace
}  // namespace vswitch

BENCHMARK_MAIN();
