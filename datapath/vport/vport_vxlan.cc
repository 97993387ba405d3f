#include "datapath/vport/vport_vxlan.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <string>

#include "datapath/base/mutex.h"
#include "datapath/base/rcu.h"
#include "datapath/vport/link_monitor.h"
#include "datapath/vport/tunnel_config.h"
#include "datapath/vport/vxlan_encapsulator.h"
#include "datapath/vport/vxlan_endpoint.h"
#include "datapath/vport/vxlan_transmit.h"

namespace vswitch {
namespace {

constexpr std::array<std::string_view, 1> kExtensions = {"gbp"};
constexpr TunnelTypeTraits kTraits = {
    .type = "vxlan", .max_key = kMaxVni, .default_port = kVxlanPort, .extensions = kExtensions};

// What encapsulation adds to an inner IP packet: outer IP, UDP, VXLAN, inner Ethernet.
constexpr uint32_t kOverheadV4 = 20 + 8 + 8 + 14;
constexpr uint32_t kOverheadV6 = 40 + 8 + 8 + 14;

// A tunnel has no device to take a MAC from. The same port of the same host always gets the same (locally administered)
// one, also after a restart.
MacAddress stable_mac(const std::string& port_name) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : std::string(host.data()) + '/' + port_name) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  }
  MacAddress mac = MacAddress::from_u64(hash ^ hash >> 48);
  mac.bytes[0] = static_cast<uint8_t>((mac.bytes[0] & 0xfc) | 0x02);
  return mac;
}

// What routing says about the peer now.
struct RouteView {
  std::string error;  // "" or why nothing can be sent
  std::string egress;
  uint32_t ifindex = 0;
  uint32_t mtu = 0;
  std::string source;
  bool operator==(const RouteView&) const = default;
};

Status check_local_address(const std::string& port, const TunnelConfig& tunnel, const LinkMonitor& links) {
  if (!tunnel.local.is_set() || links.is_local_address(tunnel.local)) return {};
  return failed_precondition(
      fmt::format("port {}: local_ip={}: not an address of this host", port, tunnel.local.to_string()),
      "options:local_ip");
}

Result<VxlanEndpoints*> endpoints_of(VportEnvironment& environment) {
  if (auto* endpoints = dynamic_cast<VxlanEndpoints*>(&environment.tunnels)) return endpoints;
  return internal_error("the environment's tunnel endpoints are of an unknown kind");
}

class VxlanVport final : public Vport {
 public:
  static Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no,
                                               VportEnvironment& environment, bool must_work);
  ~VxlanVport() override;

  std::string_view type() const override { return kTraits.type; }
  void send(ThreadContext& ctx, PacketBatch& batch) override { send_all(ctx, {&batch, 1}); }
  void send_all(ThreadContext& ctx, std::span<PacketBatch> batches) override;
  uint64_t kernel_path_way_out() const override;
  std::shared_ptr<Encapsulator> encapsulator() const override;
  void count_kernel_path(const KernelPathCounts& counts) override;
  std::vector<std::shared_ptr<RxSource>> sources() override;
  void start_receiving() override;
  VportState state() const override;
  VportStats stats() const override { return receiver_->counters.total(); }
  Status reconfigure(const VportConfig& config) override;
  Status set_admin_up(bool up) override;

 private:
  // What send() needs; null while the port does not work.
  struct Sending {
    TunnelConfig config;
    std::shared_ptr<VxlanSenders> senders;
    std::shared_ptr<VxlanEncapsulator> encapsulator;  // null while the port is down, or if there is no kernel path
  };

  VxlanVport(const VportConfig& config, uint32_t port_no, VportEnvironment& environment, VxlanEndpoints& endpoints)
      : Vport(config.name, port_no, /*gathers=*/true),
        environment_(environment),
        endpoints_(endpoints),
        receiver_(std::make_shared<VxlanReceiver>(port_no)) {}

  Status start(const VportConfig& config, const TunnelConfig& tunnel, bool must_work);
  Status attach(const TunnelConfig& tunnel) REQUIRES(mutex_);
  void publish(const TunnelConfig& tunnel) REQUIRES(mutex_);
  bool try_again() EXCLUDES(mutex_);
  RouteView look_up_route(const TunnelConfig& tunnel) const;
  bool refresh_route() EXCLUDES(mutex_);
  void on_routes_changed() {
    if (environment_.kernel_path != nullptr) environment_.kernel_path->ways_changed();
    if (refresh_route()) environment_.host.state_changed(*this);
  }
  void describe(VportState& state) const REQUIRES(mutex_);

  VportEnvironment& environment_;
  VxlanEndpoints& endpoints_;
  const std::shared_ptr<VxlanReceiver> receiver_;
  VxlanTransmitter transmitter_;
  std::atomic<const Sending*> sending_{nullptr};

  // Not held while the host or the link monitor is called.
  mutable Mutex mutex_;
  TunnelConfig tunnel_ GUARDED_BY(mutex_);
  MacAddress mac_ GUARDED_BY(mutex_);
  std::unique_ptr<VxlanAttachment> attachment_ GUARDED_BY(mutex_);
  bool receiving_ GUARDED_BY(mutex_) = false;
  std::string attach_error_ GUARDED_BY(mutex_);
  RouteView route_ GUARDED_BY(mutex_);

  std::shared_ptr<void> retry_, watch_;  // last: end first
};

Status VxlanVport::attach(const TunnelConfig& tunnel) {
  auto attachment = endpoints_.attach(name(), tunnel, receiver_);
  if (!attachment.ok()) return attachment.status();
  if (receiving_) (*attachment)->start_receiving();
  // The new place is taken before the old is given up, so a socket that both use stays open.
  attachment_ = std::move(attachment).value();
  attach_error_.clear();
  return {};
}

void VxlanVport::publish(const TunnelConfig& tunnel) {
  receiver_->gbp.store(tunnel.gbp, std::memory_order_relaxed);
  auto sending = std::make_unique<Sending>();
  sending->config = tunnel;
  sending->senders = endpoints_.senders(tunnel.src_port_min, tunnel.src_port_max);
  if (environment_.kernel_path != nullptr && receiver_->admin_up.load(std::memory_order_relaxed)) {
    sending->encapsulator =
        std::make_shared<VxlanEncapsulator>(tunnel, sending->senders, environment_, endpoints_.policies());
  }
  const Sending* old = sending_.exchange(sending.release(), std::memory_order_acq_rel);
  if (old == nullptr) return;
  if (old->encapsulator) old->encapsulator->close();
  rcu::retire_delete(old);
}

Status VxlanVport::start(const VportConfig& config, const TunnelConfig& tunnel, bool must_work) {
  if (must_work) VSWITCH_RETURN_IF_ERROR(check_local_address(name(), tunnel, environment_.links));
  bool waits = false;
  {
    MutexLock lock(mutex_);
    tunnel_ = tunnel;
    mac_ = config.mac.is_zero() ? stable_mac(config.name) : config.mac;
    if (const Status status = attach(tunnel); status.ok()) {
      publish(tunnel);
    } else if (must_work) {
      return status;
    } else {
      attach_error_ = status.message();
      waits = true;
    }
  }
  if (waits) retry_ = endpoints_.retry().add([this] { return try_again(); });
  watch_ = environment_.links.watch_routes([this] { on_routes_changed(); });
  refresh_route();
  return {};
}

bool VxlanVport::try_again() {
  {
    MutexLock lock(mutex_);
    if (attachment_) return true;  // reconfigured meanwhile
    if (const Status status = attach(tunnel_); !status.ok()) {
      attach_error_ = status.message();
      return false;
    }
    publish(tunnel_);
  }
  environment_.host.sources_changed(*this);
  environment_.host.state_changed(*this);
  return true;
}

Result<std::unique_ptr<Vport>> VxlanVport::create(const VportConfig& config, uint32_t port_no,
                                                  VportEnvironment& environment, bool must_work) {
  const Result<TunnelConfig> tunnel = parse_tunnel_config(config, kTraits);
  if (!tunnel.ok()) return tunnel.status();
  const Result<VxlanEndpoints*> endpoints = endpoints_of(environment);
  if (!endpoints.ok()) return endpoints.status();
  std::unique_ptr<VxlanVport> port(new VxlanVport(config, port_no, environment, **endpoints));
  VSWITCH_RETURN_IF_ERROR(port->start(config, *tunnel, must_work));
  return std::unique_ptr<Vport>(std::move(port));
}

VxlanVport::~VxlanVport() {
  watch_.reset();
  retry_.reset();
  const std::unique_ptr<const Sending> last(sending_.load(std::memory_order_relaxed));
  if (last && last->encapsulator) last->encapsulator->close();
}

uint64_t VxlanVport::kernel_path_way_out() const {
  const std::shared_ptr<Encapsulator> encapsulator = this->encapsulator();
  return encapsulator ? encapsulator->hook() : 0;
}

std::shared_ptr<Encapsulator> VxlanVport::encapsulator() const {
  const rcu::ReaderScope reader;
  const Sending* sending = sending_.load(std::memory_order_acquire);
  return sending == nullptr ? nullptr : sending->encapsulator;
}

void VxlanVport::count_kernel_path(const KernelPathCounts& counts) {
  VportCounters::Slot& counters = receiver_->counters.kernel_path_slot();
  counters.tx_packets.add(counts.tx_packets);
  counters.tx_bytes.add(counts.tx_bytes);
  counters.tx_dropped.add(counts.tx_dropped);
  counters.tx_errors.add(counts.tx_errors);
}

void VxlanVport::send_all(ThreadContext& ctx, std::span<PacketBatch> batches) {
  VportCounters::Slot& counters = receiver_->counters.slot(ctx);
  const Sending* sending = sending_.load(std::memory_order_acquire);
  if (sending != nullptr && receiver_->admin_up.load(std::memory_order_relaxed)) {
    transmitter_.send(ctx, batches, sending->config, *sending->senders, counters);
    return;
  }
  for (PacketBatch& batch : batches) {
    for (size_t i = 0; i < batch.size(); ++i) {
      count_vxlan_drop(DropReason::port_down, counters);
      ctx.drop(batch.release(i), DropReason::port_down);
    }
    batch.reset_released();
  }
}

std::vector<std::shared_ptr<RxSource>> VxlanVport::sources() {
  MutexLock lock(mutex_);
  if (!attachment_) return {};
  return {attachment_->endpoints().begin(), attachment_->endpoints().end()};
}

void VxlanVport::start_receiving() {
  MutexLock lock(mutex_);
  receiving_ = true;
  if (attachment_) attachment_->start_receiving();
}

RouteView VxlanVport::look_up_route(const TunnelConfig& tunnel) const {
  RouteView view;
  if (const Status status = check_local_address(name(), tunnel, environment_.links); !status.ok())
    view.error = status.message();
  if (!tunnel.remote.is_set()) return view;
  const Result<RouteInfo> route = environment_.links.route_to(tunnel.remote, tunnel.local, tunnel.mark.value_or(0));
  if (!route.ok()) {
    if (view.error.empty()) view.error = fmt::format("port {}: no route to {}", name(), tunnel.remote.to_string());
    return view;
  }
  view.egress = route->device;
  view.ifindex = route->ifindex;
  view.mtu = route->mtu;
  view.source = tunnel.local.is_set() ? tunnel.local.to_string() : route->source.to_string();
  return view;
}

// True if anything that state() shows has changed.
bool VxlanVport::refresh_route() {
  TunnelConfig tunnel;
  {
    MutexLock lock(mutex_);
    tunnel = tunnel_;
  }
  RouteView now = look_up_route(tunnel);
  MutexLock lock(mutex_);
  if (now == route_) return false;
  route_ = std::move(now);
  return true;
}

void VxlanVport::describe(VportState& state) const {
  auto& status = state.status;
  status["remote_ip"] = tunnel_.remote.is_set() ? tunnel_.remote.to_string() : "flow";
  if (tunnel_.local.is_set() || tunnel_.local_flow) {
    status["local_ip"] = tunnel_.local_flow ? "flow" : tunnel_.local.to_string();
  }
  if (!route_.source.empty()) status["source_ip"] = route_.source;
  if (!route_.egress.empty()) status["tunnel_egress_iface"] = route_.egress;
  const uint32_t overhead = tunnel_.remote.is_v6() ? kOverheadV6 : kOverheadV4;
  if (route_.mtu > overhead) status["recommended_mtu"] = std::to_string(route_.mtu - overhead);
  if (const Sending* sending = sending_.load(std::memory_order_acquire); sending != nullptr && sending->encapsulator) {
    if (std::string problem = sending->encapsulator->problem(); !problem.empty()) {
      status["no_kernel_path"] = std::move(problem);
    }
  }
  if (!attachment_) return;
  uint64_t unknown = 0, invalid = 0;
  for (const auto& endpoint : attachment_->endpoints()) {
    unknown += endpoint->unknown_vni();
    invalid += endpoint->invalid_headers();
  }
  status["endpoint_unknown_vni"] = std::to_string(unknown);
  status["endpoint_invalid_header"] = std::to_string(invalid);
}

VportState VxlanVport::state() const {
  VportState state;
  uint32_t egress = 0;
  {
    MutexLock lock(mutex_);
    state.mac = mac_;
    state.error = attach_error_.empty() ? route_.error : attach_error_;
    describe(state);
    egress = route_.ifindex;
  }
  state.admin_up = receiver_->admin_up.load(std::memory_order_relaxed);
  state.carrier = state.error.empty();
  if (egress == 0) return state;
  const std::optional<LinkInfo> link = environment_.links.find(egress);
  const bool up = link && link->carrier;
  state.status["tunnel_egress_iface_carrier"] = up ? "up" : "down";
  state.carrier = state.carrier && up;
  return state;
}

Status VxlanVport::reconfigure(const VportConfig& config) {
  const Result<TunnelConfig> tunnel = parse_tunnel_config(config, kTraits);
  if (!tunnel.ok()) return tunnel.status();
  VSWITCH_RETURN_IF_ERROR(check_local_address(name(), *tunnel, environment_.links));
  bool moved = false;
  {
    MutexLock lock(mutex_);
    moved = !attachment_ || !(TunnelIdentity::of(*tunnel) == TunnelIdentity::of(tunnel_));
    if (moved) VSWITCH_RETURN_IF_ERROR(attach(*tunnel));
    publish(*tunnel);
    tunnel_ = *tunnel;
    mac_ = config.mac.is_zero() ? stable_mac(config.name) : config.mac;
  }
  refresh_route();
  if (moved) environment_.host.sources_changed(*this);
  environment_.host.state_changed(*this);
  return {};
}

Status VxlanVport::set_admin_up(bool up) {
  if (receiver_->admin_up.exchange(up, std::memory_order_relaxed) == up) return {};
  {
    MutexLock lock(mutex_);
    if (sending_.load(std::memory_order_relaxed) != nullptr) publish(tunnel_);
  }
  environment_.host.state_changed(*this);
  return {};
}

Status validate(const VportConfig& config) {
  if (config.mtu_request != 0) {
    return invalid_argument(fmt::format("port {}: a tunnel has no MTU of its own to set; it follows the path to the "
                                        "peer (see recommended_mtu in its status)",
                                        config.name),
                            "mtu_request");
  }
  return parse_tunnel_config(config, kTraits).status();
}

// Which other port may have the place is not asked: it may be about to go in the same transaction, and whoever plans
// that compares configurations.
Status check(const VportConfig& config, const VportConfig*, VportEnvironment& environment) {
  const Result<TunnelConfig> tunnel = parse_tunnel_config(config, kTraits);
  if (!tunnel.ok()) return tunnel.status();
  VSWITCH_RETURN_IF_ERROR(check_local_address(config.name, *tunnel, environment.links));
  const Result<VxlanEndpoints*> endpoints = endpoints_of(environment);
  return endpoints.ok() ? (*endpoints)->check_sockets(config.name, *tunnel) : endpoints.status();
}

}  // namespace

constinit const TunnelTypeTraits kVxlanTraits = kTraits;

const VportType kVxlanVportType = {kTraits.type, validate, VxlanVport::create, nullptr, check};

}  // namespace vswitch
