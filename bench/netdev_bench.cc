// Two netdev ports and nothing between them: what the way in and out of the switch costs, without the switch.
//
//   netdev_bench DEVICE1 DEVICE2 SECONDS
//
// Forwards every frame that arrives at one device to the other, both ways, on one thread that never sleeps, and prints
// packets, bytes and drops, and what the thread could do if it had a core to itself: bits per second of its own
// processor time in rounds that had frames, which a busy machine does not falsify. bench/README.md tells how to put
// traffic through it (iperf3 between two namespaces).

#include <fmt/format.h>
#include <time.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstring>

#include "datapath/base/rcu.h"
#include "datapath/vport/link_monitor.h"
#include "datapath/vport/tunnel_endpoints.h"
#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

class Host final : public VportHost {
 public:
  void sources_changed(Vport&) override {}
  void state_changed(Vport&) override {}
  void quiesce() override { rcu::synchronize(); }
  size_t forwarding_threads() const override { return 1; }
};

class NoTunnels final : public TunnelEndpoints {};

double thread_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

int fail(const Status& status) {
  fmt::print(stderr, "netdev_bench: {}\n", status.message());
  return 1;
}

void print_stats(const Vport& port, double seconds) {
  const VportStats stats = port.stats();
  fmt::print(
      "{}: received {} packets, {:.2f} Gbit/s, {} dropped; sent {} packets, {:.2f} Gbit/s, {} dropped, {} errors\n",
      port.name(), stats.rx_packets, static_cast<double>(stats.rx_bytes) * 8e-9 / seconds, stats.rx_dropped,
      stats.tx_packets, static_cast<double>(stats.tx_bytes) * 8e-9 / seconds, stats.tx_dropped, stats.tx_errors);
}

int run(const std::array<std::string, 2>& devices, std::chrono::seconds duration) {
  Result<std::unique_ptr<LinkMonitor>> links = make_link_monitor();
  if (!links) return fail(links.status());
  Host host;
  NoTunnels tunnels;
  const MonotonicClock clock;
  VportEnvironment environment{host, **links, tunnels, clock};
  HeapPacketPool pool(HeapPacketPool::kSuperFrameBuffer, 1024);
  Ledger ledger;
  ThreadContext ctx{0, pool, ledger, {}};
  const rcu::ThreadRegistration registration;
  std::array<std::unique_ptr<Vport>, 2> ports;
  for (uint32_t i = 0; i < 2; ++i) {
    VportConfig config;
    config.name = devices[i];
    Result<std::unique_ptr<Vport>> port = find_vport_type("netdev")->create(config, i + 1, environment, true);
    if (!port) return fail(port.status());
    ports[i] = std::move(*port);
    ports[i]->start_receiving();
  }
  const std::array<std::shared_ptr<RxSource>, 2> sources = {ports[0]->sources().at(0), ports[1]->sources().at(0)};
  const auto end = std::chrono::steady_clock::now() + duration;
  double busy_seconds = 0;
  while (std::chrono::steady_clock::now() < end) {
    for (size_t i = 0; i < 2; ++i) {
      PacketBatch batch;
      const double start = thread_seconds();
      if (sources[i]->receive(ctx, batch) == 0) continue;
      ports[1 - i]->send(ctx, batch);
      busy_seconds += thread_seconds() - start;
    }
    rcu::quiescent();
  }
  for (const auto& port : ports) print_stats(*port, static_cast<double>(duration.count()));
  const uint64_t bytes = ports[0]->stats().tx_bytes + ports[1]->stats().tx_bytes;
  fmt::print("forwarding took {:.2f} s of processor time: {:.2f} Gbit/s on a core of its own\n", busy_seconds,
             busy_seconds > 0 ? static_cast<double>(bytes) * 8e-9 / busy_seconds : 0.0);
  return 0;
}

}  // namespace
}  // namespace vswitch

int main(int argc, char** argv) {
  int seconds = 0;
  if (argc == 4) std::from_chars(argv[3], argv[3] + std::strlen(argv[3]), seconds);
  if (seconds <= 0) {
    fmt::print(stderr, "usage: netdev_bench DEVICE1 DEVICE2 SECONDS\n");
    return 2;
  }
  return vswitch::run({argv[1], argv[2]}, std::chrono::seconds(seconds));
}
