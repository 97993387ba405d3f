// Datapath: the abstract flow-based switch that vswitchd drives: ports, flows, execution, upcalls, statistics.
//
// It has no intelligence of its own: a packet that matches a flow gets the flow's actions, any other is handed to the
// UpcallHandler. The userspace provider (userspace_datapath.h) moves packets in this process; a kernel provider may
// come, so nothing here assumes that packets pass through the caller's process.
//
// Thread safety: every function may be called from any thread; changes are serialised inside. None is for the packet
// path.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "datapath/base/status.h"
#include "datapath/core/upcall.h"
#include "datapath/flow_table/flow_table.h"
#include "datapath/vport/vport.h"

namespace vswitch {

// The kernel path: connections that the kernel forwards on the datapath's behalf (docs/kernel-path.md).
struct KernelPathStats {
  std::string off_because;   // "": it is on
  uint64_t ports = 0;        // that it serves
  uint64_t connections = 0;  // directions of connections that it forwards now
  uint64_t hits = 0;         // packets that it has forwarded; none of them is among DatapathStats::hits
};

struct DatapathStats {
  uint64_t hits = 0;           // packets that found a flow ...
  uint64_t cache_hits = 0;     // ... of these, in the exact-match cache
  uint64_t misses = 0;         // packets that found none; hits + misses = lookups
  uint64_t lost = 0;           // misses that no queue had room for
  uint64_t masks_visited = 0;  // subtables probed by all lookups
  uint64_t flows = 0;
  uint64_t max_flows = 0;
  uint64_t masks = 0;
  uint64_t narrowed = 0;         // flows that were installed under another mask than they needed (FlowTable::kMaxMasks)
  uint64_t cache_evictions = 0;  // entries that made room for others, in the flow caches of the threads there are
  KernelPathStats kernel_path{};
};

// The sums of all threads' books for one port (packet/ledger.h).
struct BooksSum {
  uint64_t received = 0, injected = 0, copies = 0, sent = 0, consumed = 0, queued = 0;
  std::array<uint64_t, kDropReasonCount> dropped{};
  uint64_t dropped_total() const;
  // received + injected + copies == sent + consumed + queued + dropped, exact once traffic has stopped.
  bool balanced() const;
};

struct NewFlow {
  FlowKey key;
  FlowMask mask;
  Flow::ActionsRef actions = Flow::make_actions({});  // never null
  std::shared_ptr<void> installer_data;
  uint16_t installer_bits = 0;
};

class Datapath {
 public:
  using PortObserver = std::function<void(uint32_t port_no)>;

  virtual ~Datapath() = default;

  // ---- ports. `port_no` 0: any free number. See VportType::create for must_work.
  virtual Result<uint32_t> add_port(const VportConfig& config, uint32_t port_no, bool must_work) = 0;
  // Tells, changing nothing, what add_port() with must_work (port_no 0 or without a port) or reconfigure_port() would
  // refuse now, as far as that can be known beforehand (VportType::check).
  virtual Status check_port(uint32_t port_no, const VportConfig& config) = 0;
  // While held, ports that are added or made anew receive nothing: what arrives waits at the device. So no packet comes
  // in by a port before whoever answers upcalls knows it. Ports that are there already go on. Does not nest.
  virtual void hold_new_ports() = 0;
  virtual void release_new_ports() = 0;
  // Packets in flight to the port are dropped with invalid_port. `forget`: also what outlives the daemon (a TAP).
  virtual Status remove_port(uint32_t port_no, bool forget) = 0;
  // Releases what outlives the daemon of a port that has been removed with forget=false.
  virtual void forget_port(const VportConfig& config) = 0;
  virtual Status reconfigure_port(uint32_t port_no, const VportConfig& config) = 0;
  virtual Status set_port_admin_up(uint32_t port_no, bool up) = 0;
  virtual std::optional<VportState> port_state(uint32_t port_no) const = 0;
  virtual std::optional<VportStats> port_stats(uint32_t port_no) const = 0;
  // Frames as if they had come in by a port of type dummy: all or, on error, none.
  virtual Status inject(uint32_t port_no, std::span<const std::vector<uint8_t>> frames) = 0;
  // Called, on a thread of the datapath, after a port's state (link, error) changed.
  virtual void observe_ports(PortObserver observer) = 0;

  // ---- flows
  virtual Result<Ufid> put_flow(NewFlow flow) = 0;
  virtual bool set_flow_actions(const Ufid& ufid, ActionList actions) = 0;
  // The same for many flows that visit_flows() gave, before the caller's next quiescent state. Empties the list.
  virtual void set_flow_actions(std::vector<FlowTable::NewActions>& flows) = 0;
  // The flow as it was, with final statistics: no packet counts on it after this returns.
  virtual std::vector<std::shared_ptr<const Flow>> remove_flows(std::span<const Ufid> ufids) = 0;
  virtual void visit_flows(const std::function<bool(Flow&)>& visit) const = 0;
  // The same in parts, which hold nobody up however many flows there are: see FlowTable::visit().
  virtual bool visit_flows(FlowCursor& cursor, size_t most, const std::function<void(Flow&)>& visit,
                           const HotWords& without) const = 0;
  virtual std::vector<FlowTable::MaskInfo> masks() const = 0;
  // No flow is installed beyond so many; packets that would need one are then translated one by one. Before that, the
  // handler is told by UpcallHandler::crowded(), so that it can take out flows that are of little use.
  virtual void set_max_flows(size_t max_flows) = 0;
  // Whether the kernel may forward connections on the datapath's behalf, where it can. When false returns, it does not.
  virtual void set_kernel_path(bool enabled) = 0;

  // ---- execution
  // Runs `actions` on a frame on behalf of in_port (0: none), with `key`'s metadata; returns when done.
  // resource_exhausted if no buffer holds the frame.
  virtual Status execute(std::span<const uint8_t> frame, const FlowKey& metadata, const ActionList& actions) = 0;

  // ---- upcalls: set once, before the first port. The handler must outlive the datapath.
  virtual void set_upcall_handler(UpcallHandler* handler) = 0;
  // Returns when every upcall that was being handled at the call is done: what the handler had seen of the caller's
  // state before is no longer in use, and flows that it derived from it are in the table.
  virtual void quiesce() = 0;

  // ---- threads and statistics
  virtual Status set_forwarding_threads(size_t count) = 0;
  virtual DatapathStats stats() const = 0;
  virtual BooksSum books(uint32_t port_no) const = 0;
  virtual bool healthy() const = 0;
};

}  // namespace vswitch
