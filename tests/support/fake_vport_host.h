// What ports need around them in a test: a host that counts what it is told, and a thread context with pool and ledger.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "datapath/base/clock.h"
#include "datapath/base/rcu.h"
#include "datapath/packet/ledger.h"
#include "datapath/packet/packet_pool.h"
#include "datapath/packet/thread_context.h"
#include "datapath/vport/link_monitor.h"
#include "datapath/vport/tunnel_endpoints.h"
#include "datapath/vport/vport.h"

namespace vswitch::test {

class FakeVportHost final : public VportHost {
 public:
  void sources_changed(Vport&) override { ++sources_changes; }
  void state_changed(Vport&) override { ++state_changes; }
  void quiesce() override { rcu::synchronize(); }
  size_t forwarding_threads() const override { return threads; }

  size_t threads = 1;
  std::atomic<int> sources_changes{0};
  std::atomic<int> state_changes{0};
};

// A link monitor without a kernel: no device exists, nothing changes.
class NoLinks final : public LinkMonitor {
 public:
  std::optional<LinkInfo> find(std::string_view) const override { return std::nullopt; }
  std::optional<LinkInfo> find(uint32_t) const override { return std::nullopt; }
  Result<RouteInfo> route_to(const IpAddress&, const IpAddress&, uint32_t) const override {
    return not_found("no route");
  }
  bool is_local_address(const IpAddress&) const override { return false; }
  Status set_up(std::string_view, bool) override { return not_found("no device"); }
  Status set_mtu(std::string_view, uint32_t) override { return not_found("no device"); }
  Status set_mac(std::string_view, const MacAddress&) override { return not_found("no device"); }
  std::shared_ptr<void> watch_link(std::string, LinkCallback) override { return nullptr; }
  std::shared_ptr<void> watch_routes(RouteCallback) override { return nullptr; }
};

class NoTunnels final : public TunnelEndpoints {};

// Creates ports of registered types, and is the thread that drives them: an RCU reader with a context of its own.
class VportBench {
 public:
  // Without `links`, ports that need a kernel device find none; without `tunnels`, tunnel ports no sockets.
  explicit VportBench(std::unique_ptr<LinkMonitor> links = nullptr,
                      size_t buffer_size = HeapPacketPool::kSuperFrameBuffer, size_t packet_count = 512,
                      std::unique_ptr<TunnelEndpoints> tunnels = nullptr);

  Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no, bool must_work = true);

  ThreadContext& ctx() { return ctx_; }
  HeapPacketPool& pool() { return pool_; }
  FakeVportHost& host() { return host_; }
  LinkMonitor& links() { return *links_; }
  VportEnvironment& environment() { return environment_; }

  // One receive() from each source of the port, booked as a forwarding thread does; then a quiescent state.
  PacketBatch receive(Vport& port);
  // The same until a frame arrives, at most ten seconds.
  PacketBatch wait_for_frames(Vport& port);
  void send(Vport& port, PacketPtr packet);
  // Waits as test::eventually(), passing quiescent states: others may be waiting for this thread.
  bool until(const std::function<bool()>& condition);
  // Everything that arrives at `from` goes out by `to`, once; returns how many packets.
  size_t forward(Vport& from, Vport& to);

  uint64_t dropped(uint32_t port_no, DropReason reason) const;
  uint64_t sent(uint32_t port_no) const;
  // received + injected + copies - sent - consumed - dropped of one port.
  int64_t balance(uint32_t port_no) const;

 protected:
  Ledger& ledger() { return ledger_; }

 private:
  FakeVportHost host_;
  std::unique_ptr<TunnelEndpoints> tunnels_;
  ManualClock clock_;
  std::unique_ptr<LinkMonitor> links_;
  HeapPacketPool pool_;
  Ledger ledger_;
  ThreadContext ctx_{0, pool_, ledger_, {}};
  VportEnvironment environment_;
  rcu::ReaderScope reader_;  // one thread may have several benches
};

}  // namespace vswitch::test
