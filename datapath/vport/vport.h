// Vport: a port of the datapath, of some type. An open set: one .h/.cc pair per type and one line in vport_registry.cc.
//
// A vport sends batches of packets, and has receive sources (a netdev: one per queue; tunnel ports of one kind: one
// shared endpoint). It lives in the namespace and with the privileges of the daemon.
//
// Life: create (validated configuration; opens what it can) -> attached to the datapath -> detached -> destroyed after
// an RCU grace period. The port number never changes. When its device is missing, renamed, down or deleted, or its
// namespace is gone, the port stays, in error: state().error says why, its sources are not ready, and what is sent
// to it is dropped with port_down; it recovers by itself when the device is back.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "datapath/base/address.h"
#include "datapath/base/clock.h"
#include "datapath/base/status.h"
#include "datapath/packet/packet_batch.h"
#include "datapath/packet/thread_context.h"

namespace vswitch {

class Encapsulator;  // kernel_path/encapsulation.h

// ---------------------------------------------------------------- for users of the vport subsystem

// What a port is to be. Options are the "options:" of Open vSwitch's Interface (and our own), all as text: each type
// parses and validates its own.
struct VportConfig {
  std::string name;  // up to kMaxPortName characters
  std::string type;  // registry name: netdev, internal, vxlan, dummy, pcap, ...
  std::map<std::string, std::string> options;
  uint32_t mtu_request = 0;  // 0: leave as it is
  MacAddress mac{};          // zero: leave as it is / choose
  bool operator==(const VportConfig&) const = default;
};
inline constexpr size_t kMaxPortName = 63;

// Linux names (struct rtnl_link_stats64). From the switch's point of view: rx came into the switch by this port.
struct VportStats {
  uint64_t rx_packets = 0, rx_bytes = 0, rx_errors = 0, rx_dropped = 0;
  uint64_t rx_length_errors = 0, rx_over_errors = 0, rx_crc_errors = 0, rx_frame_errors = 0;
  uint64_t tx_packets = 0, tx_bytes = 0, tx_errors = 0, tx_dropped = 0;
  uint64_t tx_carrier_errors = 0, collisions = 0, multicast = 0;
};

struct VportState {
  bool admin_up = false;
  bool carrier = false;
  uint32_t mtu = 0;      // 0: no limit known
  uint32_t ifindex = 0;  // 0: no kernel device
  MacAddress mac{};
  uint64_t speed_bps = 0;                     // 0: unknown
  uint64_t link_resets = 0;                   // times carrier changed
  std::string error;                          // "" or why the port does not work now, for `vsctl show`
  std::map<std::string, std::string> status;  // driver_name, tunnel_egress_iface, source_ip, ...
};

// Where packets come in. Driven by one forwarding thread at a time (which one may change between calls; the datapath
// hands over with the ordering that a mutex gives).
class RxSource {
 public:
  virtual ~RxSource() = default;
  // Adds up to batch.kMaxPackets packets allocated from ctx.pool, each with in_port and offload state set. Returns how
  // many were added; 0: nothing there. Counts them in the port's statistics; the caller books them as `received` in
  // ctx.ledger. Frames that cannot be taken are booked here: as received and dropped. Never blocks.
  virtual size_t receive(ThreadContext& ctx, PacketBatch& batch) = 0;
  // What epoll watches (level-triggered EPOLLIN) while the thread sleeps; -1 while there is nothing to wait for. May
  // change only together with VportHost::sources_changed().
  virtual int poll_fd() const = 0;
  // Whether receive() has something to do, if that can be told without a system call; else nobody knows but epoll. By
  // the thread that receives.
  enum class Waiting : uint8_t { no, yes, unknown };
  virtual Waiting waiting() const { return Waiting::unknown; }
  // Not 0: every packet from here came in by this port and has no other metadata that a flow key takes (a mark, a
  // tunnel): whoever takes them need not look at each.
  virtual uint32_t sole_port() const { return 0; }
  // True: never sleep while this source exists (in-memory replay).
  virtual bool always_ready() const { return false; }
};

class Vport {
 public:
  virtual ~Vport() = default;

  const std::string& name() const { return name_; }
  uint32_t port_no() const { return port_no_; }
  virtual std::string_view type() const = 0;

  // Sends every packet of the batch; the batch is empty afterwards. What cannot be sent is dropped and booked: in
  // ctx.ledger under the packet's in_port, and in this port's statistics. What was sent is booked the same way
  // (ledger: sent). Thread-safe: forwarding and handler threads call it at once. Packets sent by one thread keep their
  // order. Offload state is honoured: a port that cannot pass it on completes checksums and cuts super-frames itself.
  virtual void send(ThreadContext& ctx, PacketBatch& batch) = 0;
  // The same for several batches, in their order, where that is cheaper than one after the other.
  virtual void send_all(ThreadContext& ctx, std::span<PacketBatch> batches) {
    for (PacketBatch& batch : batches) send(ctx, batch);
  }
  // Whether it is so much cheaper that packets should wait for each other while more of them are at hand. Constant.
  bool gathers() const { return gathers_; }

  // The sources that this port needs polled now. Shared ones appear with every port that uses them.
  virtual std::vector<std::shared_ptr<RxSource>> sources() = 0;
  // Whoever is asked about this port's packets knows it now. Until this call a port takes nothing from a source that it
  // shares with others, which may be polled already: what arrives there goes where it would go without this port.
  // Control thread only, once.
  virtual void start_receiving() {}
  // VportHost::forwarding_threads() is another number now. Control thread only.
  virtual void forwarding_threads_changed() {}

  virtual VportState state() const = 0;  // any thread
  virtual VportStats stats() const = 0;  // any thread; current

  // Applies new options / mtu / mac in place. All or nothing: on error the port is as before. Control thread only.
  // StatusCode::unimplemented means "not in place": the caller re-creates the port.
  virtual Status reconfigure(const VportConfig& config) = 0;
  // Administrative state (ofctl mod-port up/down). Control thread only.
  virtual Status set_admin_up(bool up) = 0;

  // Which hook of the kernel path serves this port's device now (datapath/kernel_path); 0: none. Any thread.
  virtual uint64_t kernel_path_hook() const { return 0; }
  // The hook of what is sent to this port: the same, or that of a tunnel. Any thread.
  virtual uint64_t kernel_path_way_out() const { return kernel_path_hook(); }
  // What the kernel path needs to know of a tunnel as it is configured now; null: this is none, or it does not work.
  // Any thread.
  virtual std::shared_ptr<Encapsulator> encapsulator() const { return nullptr; }
  // Counts what the kernel path has received or sent on the port's behalf. Under the kernel path's lock only.
  struct KernelPathCounts {
    uint64_t rx_packets = 0, rx_bytes = 0, rx_multicast = 0;
    uint64_t tx_packets = 0, tx_bytes = 0, tx_dropped = 0, tx_errors = 0;
  };
  virtual void count_kernel_path(const KernelPathCounts&) {}

 protected:
  Vport(std::string name, uint32_t port_no, bool gathers = false)
      : name_(std::move(name)), port_no_(port_no), gathers_(gathers) {}

 private:
  const std::string name_;
  const uint32_t port_no_;
  const bool gathers_;
};

// ---------------------------------------------------------------- for implementers of vport types

// What a vport may ask of the datapath it is attached to. Thread-safe.
class VportHost {
 public:
  virtual ~VportHost() = default;
  // sources() of this port, or a source's poll_fd(), changed.
  virtual void sources_changed(Vport& port) = 0;
  // state() changed (link, error, MTU): someone may want to know.
  virtual void state_changed(Vport& port) = 0;
  // Waits until no forwarding thread can still be inside receive() or send() with what was visible before the call
  // (e.g. before closing a socket).
  virtual void quiesce() = 0;
  // How many threads drive sources: with so many queues, each has one of its own.
  virtual size_t forwarding_threads() const = 0;
};

class LinkMonitor;      // vport/link_monitor.h: the kernel's links, addresses and routes, and their changes
class TunnelEndpoints;  // vport/tunnel_endpoints.h: shared receiving sockets
class KernelPath;       // kernel_path/kernel_path.h: connections that the kernel forwards

// Services that port types share. Owned by the datapath, outlive every port.
struct VportEnvironment {
  VportHost& host;
  LinkMonitor& links;
  TunnelEndpoints& tunnels;
  const Clock& clock;
  KernelPath* kernel_path = nullptr;  // null: there is none
};

struct VportType {
  std::string_view name;
  // Checks options without touching the system: unknown option (names the nearest known one), bad value, missing
  // option. `field` of the Status is "options:NAME".
  Status (*validate)(const VportConfig& config);
  // Opens the port. `must_work`: a port added by a person fails with the exact reason (device missing, UDP port taken
  // by whom); false on daemon restart: comes up in error instead and recovers.
  Result<std::unique_ptr<Vport>> (*create)(const VportConfig& config, uint32_t port_no, VportEnvironment& environment,
                                           bool must_work);
  // Releases what outlives the daemon on purpose (the persistent TAP of an internal port) when a person deletes the
  // port; null: nothing does.
  void (*forget)(const VportConfig& config, VportEnvironment& environment);
  // Tells, changing nothing, what create() with must_work would refuse now (`current` null), or reconfiguring the port
  // that has the configuration `current`, as far as that can be known beforehand. The configuration is valid. Null:
  // nothing can be told.
  Status (*check)(const VportConfig& config, const VportConfig* current, VportEnvironment& environment) = nullptr;
};

}  // namespace vswitch
