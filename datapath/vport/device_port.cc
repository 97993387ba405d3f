#include "datapath/vport/device_port.h"

#include <fmt/format.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

#include "datapath/base/rcu.h"
#include "datapath/vport/tx_finish.h"

namespace vswitch {
namespace {

// The name of the kernel's driver ("veth", "virtio_net", "tun"), "" if the device does not tell.
std::string driver_name(const std::string& device) {
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  ethtool_drvinfo info{};
  if (!fd || device.size() >= sizeof request.ifr_name) return "";
  std::memcpy(request.ifr_name, device.data(), device.size());
  info.cmd = ETHTOOL_GDRVINFO;
  request.ifr_data = reinterpret_cast<char*>(&info);
  if (::ioctl(fd.get(), SIOCETHTOOL, &request) != 0) return "";
  return {info.driver, ::strnlen(info.driver, sizeof info.driver)};
}

}  // namespace

Status check_device_settings(const VportConfig& config, const LinkInfo& link) {
  const uint32_t mtu = config.mtu_request;
  if (mtu == 0 || mtu == link.mtu || link.max_mtu == 0 || (mtu >= link.min_mtu && mtu <= link.max_mtu)) return {};
  return invalid_argument(
      fmt::format("device {}: MTU {} is not between {} and {}", link.name, mtu, link.min_mtu, link.max_mtu),
      "mtu_request");
}

struct DevicePort::Anchor {
  Mutex mutex;
  DevicePort* port GUARDED_BY(mutex);

  void refresh() {
    MutexLock lock(mutex);
    if (port != nullptr) port->refresh();
  }
  void closed() {
    MutexLock lock(mutex);
    if (port != nullptr) port->closed();
  }
};

struct DevicePort::Changes {
  bool sources = false;
  bool state = false;
  std::unique_ptr<DeviceIo> closed;  // out of use, but threads may still be inside it
};

// The receiving end and the published descriptor.
class DevicePort::Source final : public RxSource {
 public:
  explicit Source(uint32_t port_no) : port_no_(port_no) {
    for (std::atomic<int>& fd : fds_) fd.store(-1, std::memory_order_relaxed);
  }
  ~Source() override { delete io_.load(std::memory_order_relaxed); }

  size_t receive(ThreadContext& ctx, PacketBatch& batch) override {
    DeviceIo* io = io_.load(std::memory_order_acquire);
    if (io == nullptr) return 0;
    const size_t received = io->receive(ctx, port_no_, batch, counters_.slot(ctx));
    note_if_lost(*io);
    return received;
  }
  Waiting waiting() const override { return waiting_in(0); }
  int poll_fd() const override { return queue_fd(0); }
  uint32_t sole_port() const override { return port_no_; }

  size_t receive_queue(size_t queue, ThreadContext& ctx, PacketBatch& batch) {
    DeviceIo* io = io_.load(std::memory_order_acquire);
    if (io == nullptr || queue >= io->queue_count()) return 0;
    const size_t received = io->receive_queue(queue, ctx, port_no_, batch, counters_.slot(ctx));
    note_if_lost(*io);
    return received;
  }
  Waiting waiting_in(size_t queue) const {
    const DeviceIo* io = io_.load(std::memory_order_acquire);
    return io == nullptr || queue >= io->queue_count() ? Waiting::no : io->waiting(queue);
  }
  int queue_fd(size_t queue) const { return fds_[queue].load(std::memory_order_acquire); }

  // REQUIRES: before the source is used.
  void on_lost(std::function<void()> callback) { on_lost_ = std::move(callback); }

  // Valid for writers under update_mutex_ and for RCU readers.
  DeviceIo* io() const { return io_.load(std::memory_order_acquire); }
  std::unique_ptr<DeviceIo> replace(std::unique_ptr<DeviceIo> io) {
    loss_noted_.store(false);
    const size_t queues = io == nullptr ? 0 : io->queue_count();
    for (size_t queue = 0; queue < fds_.size(); ++queue) {
      fds_[queue].store(queue < queues ? io->queue_fd(queue) : -1, std::memory_order_release);
    }
    std::unique_ptr<DeviceIo> old(io_.exchange(io.release(), std::memory_order_acq_rel));
    if (old != nullptr) {
      old->retire();
      count_kernel_drops(*old);
    }
    return old;
  }

  VportCounters::Slot& counters(const ThreadContext& ctx) { return counters_.slot(ctx); }
  VportCounters::Slot& kernel_path_counters() { return counters_.kernel_path_slot(); }
  VportStats stats() {
    const rcu::ReaderScope reader;
    if (DeviceIo* io = this->io()) count_kernel_drops(*io);
    VportStats stats = counters_.total();
    stats.rx_dropped += kernel_drops_.load(std::memory_order_relaxed);
    return stats;
  }

 private:
  void note_if_lost(const DeviceIo& io) {
    if (__builtin_expect(io.lost(), 0) && !loss_noted_.exchange(true)) on_lost_();
  }
  void count_kernel_drops(DeviceIo& io) { kernel_drops_.fetch_add(io.take_kernel_drops(), std::memory_order_relaxed); }

  const uint32_t port_no_;
  std::atomic<DeviceIo*> io_{nullptr};
  std::array<std::atomic<int>, DeviceIo::kMaxQueues> fds_;
  std::atomic<bool> loss_noted_{false};
  std::atomic<uint64_t> kernel_drops_{0};
  std::function<void()> on_lost_;
  VportCounters counters_;
};

// The receiving end of a queue but the first.
class DevicePort::FurtherQueue final : public RxSource {
 public:
  FurtherQueue(std::shared_ptr<Source> first, size_t number) : first_(std::move(first)), number_(number) {}
  size_t receive(ThreadContext& ctx, PacketBatch& batch) override { return first_->receive_queue(number_, ctx, batch); }
  Waiting waiting() const override { return first_->waiting_in(number_); }
  int poll_fd() const override { return first_->queue_fd(number_); }
  uint32_t sole_port() const override { return first_->sole_port(); }

 private:
  const std::shared_ptr<Source> first_;
  const size_t number_;
};

DevicePort::DevicePort(const VportConfig& config, uint32_t port_no, VportEnvironment& environment,
                       std::unique_ptr<DeviceDriver> driver)
    : Vport(config.name, port_no),
      device_(driver->device_name(config)),
      type_(driver->type()),
      environment_(environment),
      source_(std::make_shared<Source>(port_no)),
      anchor_(std::make_shared<Anchor>()),
      config_(config),
      driver_(std::move(driver)) {
  source_->on_lost([this] { note_lost_device(); });
  {
    MutexLock lock(state_mutex_);
    queues_.push_back(source_);
  }
  MutexLock lock(anchor_->mutex);
  anchor_->port = this;
}

DevicePort::~DevicePort() {
  watch_.reset();
  {
    const rcu::Offline offline;  // the lock may be held by one who waits for all RCU readers
    MutexLock lock(anchor_->mutex);
    anchor_->port = nullptr;
  }
  source_->replace(nullptr).reset();
}

Result<std::unique_ptr<Vport>> DevicePort::create(const VportConfig& config, uint32_t port_no,
                                                  VportEnvironment& environment, bool must_work,
                                                  std::unique_ptr<DeviceDriver> driver) {
  std::unique_ptr<DevicePort> port(new DevicePort(config, port_no, environment, std::move(driver)));
  VSWITCH_RETURN_IF_ERROR(port->start(must_work));
  return std::unique_ptr<Vport>(std::move(port));
}

Status DevicePort::start(bool must_work) {
  // Watching begins before the first look, so that no change falls between them.
  watch_ = environment_.links.watch_link(device_, [this](const std::string&, const LinkInfo*) { refresh(); });
  const Status status = reconcile();
  started_.store(true);
  if (!must_work || status.ok() || status.code() == StatusCode::unavailable) return {};
  return status.with_prefix("port " + name());
}

// Only now: of ports that are added together, the first has waited for all.
void DevicePort::start_receiving() {
  MutexLock lock(update_mutex_);
  receiving_ = true;
  DeviceIo* io = source_->io();
  if (io == nullptr) return;
  const Status shown_by_describe = io->wait_until_ready();
  static_cast<void>(shown_by_describe);
}

Status DevicePort::reconcile() {
  Changes changes;
  Status status;
  {
    MutexLock lock(update_mutex_);
    status = reconcile_locked(changes);
  }
  tell_host(std::move(changes));
  return status;
}

void DevicePort::refresh() {
  const Status shown_in_state = reconcile();
  static_cast<void>(shown_in_state);
}

void DevicePort::closed() {
  {
    MutexLock lock(update_mutex_);
    --closing_;
  }
  refresh();
}

Status DevicePort::reconcile_locked(Changes& changes) {
  std::optional<LinkInfo> link = environment_.links.find(device_);
  if (DeviceIo* io = source_->io(); io != nullptr && !driver_->still_good(*io, link)) {
    changes.closed = source_->replace(nullptr);
    changes.sources = true;
    closing_ += changes.closed != nullptr ? 1 : 0;
    // The device may have gone or changed its name since it was looked up: nothing is opened on old news.
    link = environment_.links.find(device_);
  }
  Status status;
  if (source_->io() == nullptr) status = open_device(link, changes);
  if (DeviceIo* io = source_->io(); io != nullptr && link) io->set_mtu(link->mtu);
  changes.state = update_state(link, status);
  return status;
}

Status DevicePort::open_device(std::optional<LinkInfo>& link, Changes& changes) {
  Result<std::unique_ptr<DeviceIo>> opened = driver_->open(link, closing_ != 0);
  if (!opened) return opened.status();
  if (receiving_) VSWITCH_RETURN_IF_ERROR((*opened)->wait_until_ready());
  // Opening may have made the device; and the MTU and MAC asked for come before the first frame.
  link = environment_.links.find(device_);
  if (link) {
    VSWITCH_RETURN_IF_ERROR(configure_device(config_, *link));
    link = environment_.links.find(device_);
  }
  const size_t queues = (*opened)->queue_count();
  source_->replace(std::move(*opened));
  changes.sources = true;
  MutexLock lock(state_mutex_);
  while (queues_.size() < queues) queues_.push_back(std::make_shared<FurtherQueue>(source_, queues_.size()));
  return {};
}

Status DevicePort::configure_device(const VportConfig& config, const LinkInfo& link) {
  VSWITCH_RETURN_IF_ERROR(check_device_settings(config, link));
  const bool change_mtu = config.mtu_request != 0 && config.mtu_request != link.mtu;
  if (change_mtu) VSWITCH_RETURN_IF_ERROR(environment_.links.set_mtu(device_, config.mtu_request));
  if (config.mac.is_zero() || config.mac == link.mac) return {};
  Status status = environment_.links.set_mac(device_, config.mac);
  if (!status.ok() && change_mtu) {
    const Status undone = environment_.links.set_mtu(device_, link.mtu);
    if (!undone.ok()) return undone;
  }
  return status;
}

// Returns whether anything changed.
bool DevicePort::update_state(const std::optional<LinkInfo>& link, const Status& status) {
  const bool works = source_->io() != nullptr;
  MutexLock lock(state_mutex_);
  VportState next = state_;
  next.error = status.message();
  if (link) {
    next.admin_up = link->up;
    next.carrier = link->up && link->carrier;
    next.mtu = link->mtu;
    next.ifindex = link->ifindex;
    next.mac = link->mac;
    next.speed_bps = link->speed_bps;
    if (next.ifindex != state_.ifindex) next.status["driver_name"] = driver_name(link->name);
    if (device_ != name()) next.status["device"] = device_;
    next.status.erase("location");
  } else if (works) {
    next.status["location"] = "another network namespace";  // as seen last: nobody tells us about it any more
  } else {
    next.admin_up = next.carrier = false;
    next.ifindex = 0;
    next.speed_bps = 0;
  }
  if (started_.load() && next.carrier != state_.carrier) ++next.link_resets;
  const bool changed = next.error != state_.error || next.admin_up != state_.admin_up ||
                       next.carrier != state_.carrier || next.mtu != state_.mtu || next.ifindex != state_.ifindex ||
                       next.mac != state_.mac || next.speed_bps != state_.speed_bps || next.status != state_.status;
  state_ = std::move(next);
  return changed;
}

void DevicePort::tell_host(Changes changes) {
  // Before create() returns, the host does not know the port, and no thread can be inside it.
  if (!started_.load()) {
    if (changes.closed == nullptr) return;
    changes.closed.reset();
    closed();
    return;
  }
  if (changes.sources) environment_.host.sources_changed(*this);
  if (changes.closed != nullptr) {
    // Close only when no thread waits on the descriptor or uses it: its number may be given to something else at once.
    environment_.host.quiesce();
    // Then look again: a device that can be open only once may have been ready for a new descriptor before the old one
    // was closed.
    rcu::retire([anchor = anchor_, io = changes.closed.release()] {
      delete io;
      anchor->closed();
    });
  }
  if (changes.state) environment_.host.state_changed(*this);
}

void DevicePort::note_lost_device() {
  rcu::retire([anchor = anchor_] { anchor->refresh(); });
}

void DevicePort::send(ThreadContext& ctx, PacketBatch& batch) {
  VportCounters::Slot& counters = source_->counters(ctx);
  if (DeviceIo* io = source_->io()) {
    io->send(ctx, batch, counters);
  } else {
    drop_on_send(ctx, batch, DropReason::port_down, counters);
  }
}

std::vector<std::shared_ptr<RxSource>> DevicePort::sources() {
  MutexLock lock(state_mutex_);
  return queues_;
}

VportState DevicePort::state() const {
  VportState state;
  {
    MutexLock lock(state_mutex_);
    state = state_;
  }
  const rcu::ReaderScope reader;
  if (const DeviceIo* io = source_->io()) io->describe(state.status);
  return state;
}

VportStats DevicePort::stats() const { return source_->stats(); }

uint64_t DevicePort::kernel_path_hook() const {
  const rcu::ReaderScope reader;
  const DeviceIo* io = source_->io();
  return io == nullptr ? 0 : io->kernel_path_hook();
}

void DevicePort::count_kernel_path(const KernelPathCounts& counts) {
  VportCounters::Slot& counters = source_->kernel_path_counters();
  count_received(counts.rx_packets, counts.rx_bytes, counts.rx_multicast, counters);
  counters.tx_packets.add(counts.tx_packets);
  counters.tx_bytes.add(counts.tx_bytes);
  counters.tx_dropped.add(counts.tx_dropped);
  counters.tx_errors.add(counts.tx_errors);
}

Status DevicePort::reconfigure(const VportConfig& config) {
  {
    MutexLock lock(update_mutex_);
    if (driver_->device_name(config) != device_) return unimplemented("another device needs another port");
    if (!driver_->takes_in_place(config_, config)) return unimplemented("the device has to be opened anew");
    if (const std::optional<LinkInfo> link = environment_.links.find(device_)) {
      VSWITCH_RETURN_IF_ERROR(configure_device(config, *link));
    }
    config_ = config;
  }
  refresh();
  return {};
}

Status DevicePort::set_admin_up(bool up) {
  VSWITCH_RETURN_IF_ERROR(environment_.links.set_up(device_, up));
  refresh();
  return {};
}

}  // namespace vswitch
