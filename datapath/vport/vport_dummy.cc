#include "datapath/vport/vport_dummy.h"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <array>
#include <cstring>
#include <deque>

#include "datapath/base/unique_fd.h"
#include "datapath/vport/tx_finish.h"
#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

constexpr std::array<std::string_view, 5> kOptions = {"pcap", "tx_pcap", "rx_pcap", "rxq_pcap", "link_state"};

// The value of whichever of the two spellings is given; "" if none is.
std::string either_option(const VportConfig& config, const char* one, const char* other) {
  for (const char* name : {one, other}) {
    if (const auto option = config.options.find(name); option != config.options.end()) return option->second;
  }
  return "";
}
std::string transmit_file(const VportConfig& config) { return either_option(config, "tx_pcap", "pcap"); }
std::string receive_file(const VportConfig& config) { return either_option(config, "rx_pcap", "rxq_pcap"); }

bool wants_link_up(const VportConfig& config) {
  const auto option = config.options.find("link_state");
  return option == config.options.end() || option->second == "up";
}

// Null if no file is asked for.
Result<std::shared_ptr<PcapWriter>> open_capture(const std::string& port, const std::string& path,
                                                 const std::string& field) {
  if (path.empty()) return std::shared_ptr<PcapWriter>();
  Result<std::unique_ptr<PcapWriter>> writer = PcapWriter::open(path);
  if (!writer)
    return Status(writer.status().code(), fmt::format("port {}: {}", port, writer.status().message()), field);
  return std::shared_ptr<PcapWriter>(std::move(*writer));
}

// Locally administered, the same for the same name.
MacAddress mac_for(const std::string& name) {
  uint32_t hash = 2166136261u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return MacAddress::from_u64(uint64_t{0xaa55} << 32 | hash);
}

Status check_capture(const std::string& port, const std::string& path, const std::string& field) {
  if (path.empty()) return {};
  const Status status = PcapWriter::check(path);
  return status.ok() ? status : Status(status.code(), fmt::format("port {}: {}", port, status.message()), field);
}

Status check(const VportConfig& config, const VportConfig*, VportEnvironment&) {
  VSWITCH_RETURN_IF_ERROR(check_capture(config.name, transmit_file(config), "options:tx_pcap"));
  return check_capture(config.name, receive_file(config), "options:rx_pcap");
}

Status check_either(const VportConfig& config, const char* one, const char* other) {
  if (config.options.contains(one) && config.options.contains(other)) {
    return invalid_argument(fmt::format("port {}: {} and {} mean the same; give one", config.name, one, other),
                            fmt::format("options:{}", other));
  }
  for (const char* name : {one, other}) {
    const auto option = config.options.find(name);
    if (option != config.options.end() && option->second.empty()) {
      return invalid_argument(fmt::format("port {}: {} needs a file name", config.name, name),
                              fmt::format("options:{}", name));
    }
  }
  return {};
}

Status validate(const VportConfig& config) {
  VSWITCH_RETURN_IF_ERROR(check_known_options(config, kOptions));
  VSWITCH_RETURN_IF_ERROR(check_either(config, "tx_pcap", "pcap"));
  VSWITCH_RETURN_IF_ERROR(check_either(config, "rx_pcap", "rxq_pcap"));
  const auto link_state = config.options.find("link_state");
  if (link_state != config.options.end() && link_state->second != "up" && link_state->second != "down") {
    return invalid_argument(
        fmt::format("port {}: link_state is \"{}\"; it may be up or down", config.name, link_state->second),
        "options:link_state");
  }
  return {};
}

}  // namespace

// Injected frames wait here; the eventfd is readable while there are any.
class DummyVport::Source final : public RxSource {
 public:
  explicit Source(uint32_t port_no) : port_no_(port_no), ready_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  bool valid() const { return ready_.valid(); }
  VportCounters& counters() { return counters_; }

  bool push(std::span<const std::vector<uint8_t>> frames) {
    MutexLock lock(mutex_);
    if (frames.size() > kMaxWaiting - waiting_.size()) return false;
    waiting_.insert(waiting_.end(), frames.begin(), frames.end());
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(ready_.get(), &one, sizeof one);
    return true;
  }

  void set_capture(std::shared_ptr<PcapWriter> capture) {
    MutexLock lock(mutex_);
    capture_ = std::move(capture);
  }

  size_t receive(ThreadContext& ctx, PacketBatch& batch) override {
    MutexLock lock(mutex_);
    const size_t before = batch.size();
    uint64_t bytes = 0, multicast = 0;
    while (!waiting_.empty() && !batch.full()) {
      const std::vector<uint8_t>& frame = waiting_.front();
      PacketPtr packet = ctx.pool.allocate();
      if (!packet) break;
      if (frame.empty() || frame.size() > packet->tailroom()) {
        drop_on_receive(ctx, port_no_, DropReason::rx_invalid_packet, counters_.slot(ctx));
      } else {
        std::memcpy(packet->data(), frame.data(), frame.size());
        packet->set_size(frame.size());
        packet->in_port = port_no_;
        bytes += frame.size();
        multicast += frame[0] & 1;
        batch.add(std::move(packet));
      }
      waiting_.pop_front();
    }
    if (waiting_.empty()) clear_ready();
    const size_t received = batch.size() - before;
    if (received != 0) count_received(received, bytes, multicast, counters_.slot(ctx));
    if (received != 0 && capture_) {
      const Status shown_in_state = capture_->write(batch, before);
      static_cast<void>(shown_in_state);
    }
    return received;
  }

  int poll_fd() const override { return ready_.get(); }

 private:
  void clear_ready() {
    uint64_t count;
    [[maybe_unused]] const ssize_t read = ::read(ready_.get(), &count, sizeof count);
  }

  const uint32_t port_no_;
  const UniqueFd ready_;
  VportCounters counters_;
  Mutex mutex_;
  std::deque<std::vector<uint8_t>> waiting_ GUARDED_BY(mutex_);
  std::shared_ptr<PcapWriter> capture_ GUARDED_BY(mutex_);
};

DummyVport::DummyVport(const VportConfig& config, uint32_t port_no, VportEnvironment& environment)
    : Vport(config.name, port_no), host_(environment.host), source_(std::make_shared<Source>(port_no)) {}

DummyVport::~DummyVport() = default;

Result<std::unique_ptr<Vport>> DummyVport::create(const VportConfig& config, uint32_t port_no,
                                                  VportEnvironment& environment, bool must_work) {
  std::unique_ptr<DummyVport> port(new DummyVport(config, port_no, environment));
  if (!port->source_->valid()) return resource_exhausted(fmt::format("port {}: no file descriptor left", config.name));
  if (const Status status = port->reconfigure(config); !status.ok()) {
    if (must_work) return status;
    port->apply(config);
    MutexLock lock(port->mutex_);
    port->open_error_ = status.message();
    port->open_.store(false);
  }
  port->link_resets_.store(0);
  return std::unique_ptr<Vport>(std::move(port));
}

Status DummyVport::inject(std::span<const std::vector<uint8_t>> frames) {
  if (!usable()) return failed_precondition(fmt::format("port {} is down", name()));
  if (source_->push(frames)) return {};
  return resource_exhausted(fmt::format("port {}: more than {} frames would be waiting", name(), kMaxWaiting));
}

void DummyVport::send(ThreadContext& ctx, PacketBatch& batch) {
  VportCounters::Slot& counters = source_->counters().slot(ctx);
  if (!usable()) {
    drop_on_send(ctx, batch, DropReason::port_down, counters);
    return;
  }
  const uint32_t mtu = mtu_.load(std::memory_order_relaxed);
  for (size_t i = 0; i < batch.size(); ++i) {
    if (!fits_mtu(batch[i], mtu)) drop_on_send(ctx, batch.release(i), DropReason::tx_too_big, counters);
  }
  batch.compact();
  finish_batch(ctx, batch, counters, [&](PacketBatch& frames) { deliver(ctx, frames, counters); });
}

void DummyVport::deliver(ThreadContext& ctx, PacketBatch& frames, VportCounters::Slot& counters) {
  std::shared_ptr<PcapWriter> capture;
  {
    MutexLock lock(mutex_);
    capture = capture_;
  }
  if (capture == nullptr || capture->write(frames).ok()) {
    book_sent(ctx, frames, counters);
    return;
  }
  drop_on_send(ctx, frames, DropReason::tx_error, counters);
  bool tell = false;
  {
    MutexLock lock(mutex_);
    tell = !std::exchange(write_error_told_, true);
  }
  if (tell) host_.state_changed(*this);
}

std::vector<std::shared_ptr<RxSource>> DummyVport::sources() { return {source_}; }

VportState DummyVport::state() const {
  VportState state;
  state.admin_up = admin_up_.load();
  state.carrier = usable();
  state.mtu = mtu_.load();
  state.link_resets = link_resets_.load();
  state.status["driver_name"] = "dummy";
  MutexLock lock(mutex_);
  state.mac = config_.mac.is_zero() ? mac_for(name()) : config_.mac;
  state.error = open_error_;
  if (state.error.empty() && capture_) state.error = capture_->error().message();
  return state;
}

VportStats DummyVport::stats() const { return source_->counters().total(); }

void DummyVport::apply(const VportConfig& config) {
  mtu_.store(config.mtu_request != 0 ? config.mtu_request : kDefaultMtu);
  if (link_up_.exchange(wants_link_up(config)) != wants_link_up(config)) link_resets_.fetch_add(1);
  MutexLock lock(mutex_);
  config_ = config;
}

Status DummyVport::reconfigure(const VportConfig& config) {
  Result<std::shared_ptr<PcapWriter>> transmitted = open_capture(name(), transmit_file(config), "options:tx_pcap");
  if (!transmitted) return transmitted.status();
  Result<std::shared_ptr<PcapWriter>> received = open_capture(name(), receive_file(config), "options:rx_pcap");
  if (!received) return received.status();
  source_->set_capture(std::move(*received));
  {
    MutexLock lock(mutex_);
    capture_ = std::move(*transmitted);
    write_error_told_ = false;
    open_error_.clear();
    open_.store(true);
  }
  apply(config);
  return {};
}

Status DummyVport::set_admin_up(bool up) {
  if (admin_up_.exchange(up) != up && link_up_.load()) link_resets_.fetch_add(1);
  return {};
}

constinit const VportType kDummyVportType = {"dummy", validate, DummyVport::create, nullptr, check};

}  // namespace vswitch
