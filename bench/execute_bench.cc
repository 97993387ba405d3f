// What it costs to execute actions, per packet, and the pieces that it is made of. Workloads:
//
//   pool            allocate and free one packet
//   clone/N         copy a packet of N bytes
//   output          a batch of 32, one output
//   output_two      the same, two outputs: 32 copies
//   route           set both MAC addresses, TTL - 1, output: what a router does
//   nat             set IPv4 source and TCP source port, output
//   push_vlan       push a tag, output, pop it again
//   checksum/N      ones' complement sum of N bytes
//   crc32c/N        CRC32c of N bytes
//   segment/N       cut a TCP super-frame of N payload bytes into segments of 1,448
//
// Items are packets (bytes for the sums). Frames are 64 bytes where nothing else is said. Run it from a release build
// (it warns otherwise).
#include <benchmark/benchmark.h>

#include <cstdio>

#include "datapath/actions/execute.h"
#include "datapath/packet/checksum.h"
#include "datapath/packet/offload.h"
#include "tests/support/frame_spec.h"

namespace vswitch {
namespace {

// Collects what is sent, so that the same packets can be used again.
class CollectingSink final : public ActionSink {
 public:
  void output(ThreadContext&, uint32_t, PacketPtr packet) override { collected.add(std::move(packet)); }
  void output_batch(ThreadContext&, uint32_t port_no, PacketBatch& batch) override {
    if (port_no == kDiscard) {
      batch.clear();
    } else {
      collected = std::move(batch);
    }
  }
  void userspace(ThreadContext&, const UserspaceAction&, PacketPtr) override {}
  void recirculate(ThreadContext&, PacketPtr) override {}

  static constexpr uint32_t kDiscard = 99;
  PacketBatch collected;
};

struct Bench {
  HeapPacketPool pool{HeapPacketPool::kFrameBuffer, 1024};
  Ledger ledger;
  ThreadContext ctx{0, pool, ledger, Nanoseconds(0)};
  CollectingSink sink;
};

FrameSpec tcp_frame(size_t payload) {
  FrameSpec spec;
  spec.proto = 6;
  spec.payload = Bytes(payload, 1);
  return spec;
}

void run_list(benchmark::State& state, const ActionList& actions) {
  auto bench = std::make_unique<Bench>();
  const Bytes frame = tcp_frame(10).build();
  for (size_t i = 0; i < PacketBatch::kMaxPackets; ++i) bench->sink.collected.add(make_packet(bench->pool, frame));
  for (auto _ : state) {
    PacketBatch batch = std::move(bench->sink.collected);
    execute_actions(bench->ctx, actions, batch, bench->sink);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(PacketBatch::kMaxPackets));
}

void pool(benchmark::State& state) {
  HeapPacketPool packets(HeapPacketPool::kFrameBuffer, 64);
  for (auto _ : state) benchmark::DoNotOptimize(packets.allocate());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(pool);

void clone(benchmark::State& state) {
  HeapPacketPool packets(HeapPacketPool::kSuperFrameBuffer, 2);
  const PacketPtr packet = make_packet(packets, Bytes(static_cast<size_t>(state.range(0)), 1));
  for (auto _ : state) benchmark::DoNotOptimize(clone_packet(*packet, packets));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(clone)->Arg(64)->Arg(1514)->Arg(65000);

void output(benchmark::State& state) { run_list(state, {OutputAction{1}}); }
BENCHMARK(output);

void output_two(benchmark::State& state) { run_list(state, {OutputAction{CollectingSink::kDiscard}, OutputAction{1}}); }
BENCHMARK(output_two);

void route(benchmark::State& state) {
  SetEthernetAction addresses;
  addresses.src = MacAddress::from_u64(0x020000000001);
  addresses.dst = MacAddress::from_u64(0x020000000002);
  addresses.src_mask = addresses.dst_mask = MacAddress::from_u64(0xffffffffffff);
  SetIpv4Action ttl;
  ttl.ttl = 63;
  ttl.ttl_mask = 0xff;
  run_list(state, {addresses, ttl, OutputAction{1}});
}
BENCHMARK(route);

void nat(benchmark::State& state) {
  SetIpv4Action address;
  address.src = to_be32(0x0a000001);
  address.src_mask = to_be32(0xffffffff);
  run_list(state, {address, SetTransportAction{6, to_be16(1234), {}, to_be16(0xffff), {}}, OutputAction{1}});
}
BENCHMARK(nat);

void push_vlan(benchmark::State& state) {
  run_list(state, {PushVlanAction{kEthTypeVlan, to_be16(0x1001)}, PopVlanAction{}, OutputAction{1}});
}
BENCHMARK(push_vlan);

void sum(benchmark::State& state) {
  const Bytes bytes(static_cast<size_t>(state.range(0)), 0x5a);
  for (auto _ : state) benchmark::DoNotOptimize(checksum(bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(sum)->Name("checksum")->Arg(20)->Arg(64)->Arg(1500)->Arg(65536);

void crc(benchmark::State& state) {
  const Bytes bytes(static_cast<size_t>(state.range(0)), 0x5a);
  for (auto _ : state) benchmark::DoNotOptimize(crc32c(bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(crc)->Name("crc32c")->Arg(64)->Arg(1500);

void segment(benchmark::State& state) {
  HeapPacketPool packets(HeapPacketPool::kSuperFrameBuffer, 4);
  const PacketPtr packet = make_packet(packets, tcp_frame(static_cast<size_t>(state.range(0))).build());
  packet->offload.gso = GsoType::tcp4;
  packet->offload.gso_size = 1448;
  for (auto _ : state) {
    const Segmenter segmenter(*packet);
    for (size_t i = 0; i < segmenter.count(); ++i) benchmark::DoNotOptimize(segmenter.build(i, packets));
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(segment)->Arg(64000);

}  // namespace
}  // namespace vswitch

int main(int argc, char** argv) {
#if !defined(NDEBUG) || !defined(__OPTIMIZE__)
  std::fputs("warning: built with assertions or without optimisation; the numbers mean nothing\n", stderr);
#endif
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
