// KernelConnections: which connections the kernel forwards (kernel_path/kernel_path.h), on behalf of which flows, and
// what they have counted.
//
// A connection is given to the kernel only if its flow treats all its packets alike and just sends them to one other
// port (Flow::takes_connections_whole), and only as long as that flow is there unchanged: who removes or changes a flow
// calls flow_removed() or flow_changed() before it tells anybody that it is done. If that port is a tunnel, the port's
// Encapsulator says what is put in front of the packets, and is asked again and again which way they have to leave. The
// counters of the kernel's table become those of the flow, of both ports and of the ledger with each collect(), which
// whoever reads them calls first.
//
// Threads: candidates come from the forwarding threads (connection_sampler.h), and are taken in by a thread of this
// object's own, which sleeps while there are neither candidates nor connections; with connections it looks four times a
// second after those that are idle, and whether those that are encapsulated still have their ways.
//
// Lock: mutex_, inside the datapath's, and never taken by packet threads. A waiting holder waits for the kernel only.
#pragma once

#include <array>
#include <atomic>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <unordered_map>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "datapath/core/connection_sampler.h"
#include "datapath/core/datapath.h"
#include "datapath/core/port_map.h"
#include "datapath/core/wakeup.h"
#include "datapath/flow_table/flow_table.h"
#include "datapath/kernel_path/kernel_path.h"

namespace vswitch {

class KernelConnections {
 public:
  // `ledger`: nobody else writes to it. All outlive this.
  KernelConnections(FlowTable& flows, const PortMap& ports, Ledger& ledger, const Clock& clock);
  ~KernelConnections();  // ends all connections; the ports are still there
  KernelConnections(const KernelConnections&) = delete;
  KernelConnections& operator=(const KernelConnections&) = delete;

  KernelPath& path() { return path_; }  // what ports hang their hooks on
  void set_enabled(bool enabled);
  KernelPathStats stats();

  // The sampler of a forwarding thread that starts, and the end of it. The thread does not run when it is removed.
  std::unique_ptr<ConnectionSampler> make_sampler();
  void remove_sampler(ConnectionSampler* sampler);

  // To be called when the flow is not as it was any more: the kernel forwards nothing for it from now on.
  void flow_changed(const Flow& flow);
  // The same for flows that are not in the table any more, and whose counts are final then.
  void flows_removed(std::span<const std::shared_ptr<const Flow>> flows);
  // Before the port goes: ends what comes from it or goes to it, and counts it.
  void port_goes(uint32_t port_no);

  // Brings flows, ports and ledger up to date.
  void collect();
  // The same for the connections from and to one port.
  void collect(uint32_t port_no);
  // Ends what has been idle for long, and what would leave another way now; what the thread does from time to time
  // (tests: after having turned the clock).
  void tidy();

 private:
  struct Connection;
  using Connections = std::list<Connection>;
  struct Connection {
    KernelPath::Use use{};
    Flow* flow = nullptr;  // alive, or held by who is removing it
    size_t place = 0;      // among those of its flow
    uint32_t in_port = 0, out_port = 0;
    const Vport* from = nullptr;  // to be compared only
    const Vport* to = nullptr;
    KernelPath::HookId in = 0;
    std::shared_ptr<Encapsulator> encapsulator;  // null: it goes out as it is
    OuterFlow outer{};                           // of one that is encapsulated, ...
    OuterWay way{};                              // ... and the way it was given
    bool multicast = false;
    size_t key = 0;       // hash
    bool pending = true;  // perhaps not active yet
    uint64_t burial = 0;  // stopped, and gone from the kernel's table, since this one; 0: it is there
    Nanoseconds added{}, used{};
    KernelPath::Counts counted{};
  };

  void run();
  // How long the thread sleeps if nobody wakes it, in ms as poll() takes it.
  int time_to_sleep(Nanoseconds tidied, Nanoseconds checked) EXCLUDES(mutex_);
  struct Offer {
    ConnectionSampler* sampler = nullptr;
    ConnectionSampler::Candidate candidate;
  };
  // False: there may be more.
  bool take_candidates() EXCLUDES(mutex_);
  std::optional<Offer> next_offer() EXCLUDES(mutex_);
  // What had to be found out beforehand, and may have changed since.
  struct Preparation {
    std::shared_ptr<const ActionList> actions;   // of the candidate's flow; null: it has none
    std::shared_ptr<Encapsulator> encapsulator;  // of the way out; null: it is a device
    std::optional<Encapsulation> encapsulation{};
  };
  // False: the kernel can not have it.
  bool prepare(const ConnectionSampler::Candidate& candidate, Preparation& preparation) EXCLUDES(mutex_);
  void take_in(ConnectionSampler& sampler, const ConnectionSampler::Candidate& candidate,
               const Preparation& preparation) REQUIRES(mutex_);
  static bool may_have(const Flow& flow, uint32_t out_port, const Preparation& preparation);
  // Which way the outer packets of some connections have now.
  struct WayQuestion {
    std::shared_ptr<Encapsulator> encapsulator;
    OuterFlow outer;
    bool operator==(const WayQuestion&) const = default;
  };
  struct WayQuestionHash {
    size_t operator()(const WayQuestion& question) const;
  };
  using WayAnswers = std::unordered_map<WayQuestion, std::optional<OuterWay>, WayQuestionHash>;
  static WayQuestion question_of(const Connection& connection) { return {connection.encapsulator, connection.outer}; }
  // Stops those whose packets would leave another way now.
  void check_ways() EXCLUDES(mutex_);
  bool check_due_ = false;    // the thread's: ways have changed, and were not looked at since
  bool more_offers_ = false;  // the thread's: it stopped taking candidates before it had all
  void activate_late() REQUIRES(mutex_);
  void collect_locked() REQUIRES(mutex_);
  Nanoseconds last_used(const Connection& connection, Nanoseconds now) const;
  void count(Connection& connection, Nanoseconds now) REQUIRES(mutex_);
  void count_for_ports(const Connection& connection, const KernelPath::Counts& more) REQUIRES(mutex_);
  void stop_idle(Nanoseconds now) REQUIRES(mutex_);
  void enter(Connection connection) REQUIRES(mutex_);
  bool stop_those_of(const Flow& flow) REQUIRES(mutex_);
  // Counts for the last time, and forgets, those that are stopped. Waits for the kernel if there are any.
  void bury_stopped() REQUIRES(mutex_);
  // The same for those that nobody waits for; nobody is made to wait, either.
  void bury_quietly() EXCLUDES(mutex_);
  // A burial: takes them out of the kernel's table, and after waiting for the kernel forgets those that this burial, or
  // one before it, took out. 0: there are none.
  uint64_t begin_burial() REQUIRES(mutex_);
  void end_burial(uint64_t burial) REQUIRES(mutex_);
  Connections::iterator forget(Connections::iterator connection) REQUIRES(mutex_);
  // What could not be encapsulated is not tried again for a while.
  struct Refused {
    size_t key = 0;  // hash
    Nanoseconds until{};
  };
  Refused& refused(size_t key) REQUIRES(mutex_) { return refused_[key % kRefused]; }
  void refuse(const Connection& connection, Nanoseconds now) REQUIRES(mutex_);

  FlowTable& flows_;
  const PortMap& ports_;
  Ledger& ledger_;
  const Clock& clock_;
  Wakeup wakeup_;
  KernelPath path_;
  std::atomic<bool> stopping_{false};

  Mutex mutex_;
  std::vector<ConnectionSampler*> samplers_ GUARDED_BY(mutex_);
  Connections connections_ GUARDED_BY(mutex_);
  std::unordered_map<const Flow*, std::vector<Connections::iterator>> of_flow_ GUARDED_BY(mutex_);
  bool any_pending_ GUARDED_BY(mutex_) = false;
  size_t encapsulated_ GUARDED_BY(mutex_) = 0;  // of connections_
  uint64_t burials_ GUARDED_BY(mutex_) = 0;
  // One that another takes the place of is tried earlier: no harm.
  static constexpr size_t kRefused = 1024;
  std::array<Refused, kRefused> refused_ GUARDED_BY(mutex_);
  uint64_t hits_ GUARDED_BY(mutex_) = 0;
  std::thread thread_;
};

}  // namespace vswitch
