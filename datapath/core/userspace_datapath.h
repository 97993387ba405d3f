// UserspaceDatapath: the datapath provider that moves packets in this process.
//
//   RxSource -> ForwardingThread (PacketProcessor: extract, FlowCache, FlowTable, execute) -> Vport::send
//                     | miss: UpcallQueue
//                     v
//               HandlerThread (UpcallHandler::miss, install flow, execute)
//
// Locks, outermost first: mutex_ (ports, threads, flows' writers), sources_mutex_ (distribution of sources). Packet
// threads take none of them. A maintenance thread reacts to what ports report (sources or state changed), so that a
// port may report while it holds locks of its own; and once per second it puts the masks that are hit most first.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "datapath/core/datapath.h"
#include "datapath/core/forwarding_thread.h"
#include "datapath/core/handler_thread.h"
#include "datapath/core/kernel_connections.h"
#include "datapath/core/port_map.h"
#include "datapath/vport/link_monitor.h"
#include "datapath/vport/tunnel_endpoints.h"

namespace vswitch {

struct UserspaceDatapathOptions {
  size_t forwarding_threads = 1;
  size_t max_flows = 1'000'000;
  LookupOptions lookup{};
};

class UserspaceDatapath final : public Datapath, private VportHost {
 public:
  // Fails when the kernel's netlink cannot be reached.
  static Result<std::unique_ptr<UserspaceDatapath>> create(const UserspaceDatapathOptions& options, const Clock& clock);
  // With a link monitor of the caller's (tests).
  UserspaceDatapath(const UserspaceDatapathOptions& options, const Clock& clock, std::unique_ptr<LinkMonitor> links);
  ~UserspaceDatapath() override;

  Result<uint32_t> add_port(const VportConfig& config, uint32_t port_no, bool must_work) override;
  Status check_port(uint32_t port_no, const VportConfig& config) override;
  void hold_new_ports() override;
  void release_new_ports() override;
  Status remove_port(uint32_t port_no, bool forget) override;
  void forget_port(const VportConfig& config) override;
  Status reconfigure_port(uint32_t port_no, const VportConfig& config) override;
  Status set_port_admin_up(uint32_t port_no, bool up) override;
  std::optional<VportState> port_state(uint32_t port_no) const override;
  std::optional<VportStats> port_stats(uint32_t port_no) const override;
  Status inject(uint32_t port_no, std::span<const std::vector<uint8_t>> frames) override;
  void observe_ports(PortObserver observer) override;

  Result<Ufid> put_flow(NewFlow flow) override;
  bool set_flow_actions(const Ufid& ufid, ActionList actions) override;
  void set_flow_actions(std::vector<FlowTable::NewActions>& flows) override;
  std::vector<std::shared_ptr<const Flow>> remove_flows(std::span<const Ufid> ufids) override;
  void visit_flows(const std::function<bool(Flow&)>& visit) const override;
  bool visit_flows(FlowCursor& cursor, size_t most, const std::function<void(Flow&)>& visit,
                   const HotWords& without) const override;
  std::vector<FlowTable::MaskInfo> masks() const override;
  void set_max_flows(size_t max_flows) override;
  void set_kernel_path(bool enabled) override;

  Status execute(std::span<const uint8_t> frame, const FlowKey& metadata, const ActionList& actions) override;

  void set_upcall_handler(UpcallHandler* handler) override;
  void quiesce() override;
  size_t forwarding_threads() const override { return forwarding_threads_.load(std::memory_order_relaxed); }

  Status set_forwarding_threads(size_t count) override;
  DatapathStats stats() const override;
  BooksSum books(uint32_t port_no) const override;
  bool healthy() const override;

 private:
  struct AttachedPort {
    std::unique_ptr<Vport> port;
    VportConfig config;
    const VportType* type = nullptr;
    bool admin_up = true;
    bool held = false;  // not received from yet
  };

  // VportHost
  void sources_changed(Vport& port) override;
  void state_changed(Vport& port) override;

  Result<uint32_t> choose_port_no(uint32_t wanted) const REQUIRES(mutex_);
  Status attach(uint32_t port_no, const VportConfig& config, bool must_work) REQUIRES(mutex_);
  Status attach_again(uint32_t port_no, const VportConfig& config, bool must_work, bool admin_up) REQUIRES(mutex_);
  std::unique_ptr<Vport> detach(uint32_t port_no) REQUIRES(mutex_);
  // `renew`: a port has said that its sources changed.
  void distribute_sources(bool renew = false) EXCLUDES(sources_mutex_) REQUIRES(mutex_);
  void hand_out(const std::vector<SourceList>& lists, bool renew) REQUIRES(mutex_, sources_mutex_);
  void start_forwarding_thread() REQUIRES(mutex_);
  void stop_forwarding_thread() REQUIRES(mutex_);
  void serve_all_queues() REQUIRES(mutex_);
  Ledger& ledger(size_t index) const { return *ledgers_[index]; }
  void maintain();
  // Before the counters of a port are read.
  void book_lookups(const LookupCounters& counters, DatapathStats& stats) const;

  const Clock& clock_;
  std::unique_ptr<LinkMonitor> links_;
  std::unique_ptr<TunnelEndpoints> tunnels_;
  std::unique_ptr<VportEnvironment> environment_;
  std::unique_ptr<PortMap> port_map_;
  const LookupOptions lookup_;
  FlowTable flows_;
  FlowSetup setup_{flows_};
  // Kept for good, so that no count is lost when a thread ends. Index 0 is the handler's, kKernelPathIndex the kernel
  // path's.
  std::array<std::unique_ptr<Ledger>, kMaxThreads> ledgers_;
  std::unique_ptr<KernelConnections> kernel_;
  LookupCounters retired_counters_;  // of threads that have ended

  mutable Mutex mutex_;
  std::map<uint32_t, AttachedPort> ports_ GUARDED_BY(mutex_);
  bool hold_ GUARDED_BY(mutex_) = false;
  std::unique_ptr<HandlerThread> handler_;
  std::vector<std::unique_ptr<ForwardingThread>> threads_ GUARDED_BY(mutex_);
  std::atomic<size_t> forwarding_threads_{1};  // threads_.size(), once started or stopped

  Mutex sources_mutex_ ACQUIRED_AFTER(mutex_);

  Mutex maintenance_mutex_;
  CondVar maintenance_wakeup_;
  bool stopping_ GUARDED_BY(maintenance_mutex_) = false;
  bool sources_dirty_ GUARDED_BY(maintenance_mutex_) = false;
  std::set<uint32_t> changed_ports_ GUARDED_BY(maintenance_mutex_);
  PortObserver observer_ GUARDED_BY(maintenance_mutex_);
  std::thread maintenance_;
};

}  // namespace vswitch
