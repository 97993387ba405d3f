#include "datapath/vport/vport_pcap.h"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>

#include "datapath/base/mutex.h"
#include "datapath/vport/pcap_file.h"
#include "datapath/vport/tx_finish.h"
#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

constexpr std::array<std::string_view, 3> kOptions = {"rx_pcap", "loop", "tx_pcap"};
constexpr uint64_t kForever = std::numeric_limits<uint64_t>::max();

std::string option(const VportConfig& config, const char* name) {
  const auto found = config.options.find(name);
  return found == config.options.end() ? "" : found->second;
}

std::string transmit_file(const VportConfig& config) {
  const std::string file = option(config, "tx_pcap");
  return file == "none" ? "" : file;
}

// How often to replay; nothing if the text is not a count.
std::optional<uint64_t> parse_loop(const std::string& text) {
  if (text.empty()) return 1;
  if (text == "infinite") return kForever;
  uint64_t loops = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), loops);
  if (error != std::errc() || end != text.data() + text.size() || loops == 0) return std::nullopt;
  return loops;
}

Status validate(const VportConfig& config) {
  VSWITCH_RETURN_IF_ERROR(check_known_options(config, kOptions));
  for (const char* name : {"rx_pcap", "tx_pcap", "loop"}) {
    if (config.options.contains(name) && option(config, name).empty()) {
      return invalid_argument(fmt::format("port {}: {} needs a value", config.name, name),
                              fmt::format("options:{}", name));
    }
  }
  if (!parse_loop(option(config, "loop"))) {
    return invalid_argument(fmt::format("port {}: loop is \"{}\"; it may be a number from 1 or infinite", config.name,
                                        option(config, "loop")),
                            "options:loop");
  }
  if (config.options.contains("loop") && !config.options.contains("rx_pcap")) {
    return invalid_argument(fmt::format("port {}: loop needs rx_pcap, the file to replay", config.name),
                            "options:loop");
  }
  return {};
}

// Copies whole cache lines while both sides have them: a fixed size compiles to a few moves.
void copy_frame(const PcapFrames::Frame& frame, uint8_t* to, size_t room) {
  constexpr size_t kLine = PcapFrames::kLine;
  const size_t rounded = (frame.size + kLine - 1) / kLine * kLine;
  if (rounded > room) {
    std::memcpy(to, frame.data, frame.size);
    return;
  }
  for (size_t at = 0; at < rounded; at += kLine) std::memcpy(to + at, frame.data + at, kLine);
}

class Replay final : public RxSource {
 public:
  Replay(uint32_t port_no, std::unique_ptr<PcapFrames> frames, uint64_t loops, VportCounters& counters,
         std::shared_ptr<void> keep_alive)
      : port_no_(port_no),
        frames_(std::move(frames)),
        loops_left_(loops),
        counters_(counters),
        keep_alive_(std::move(keep_alive)) {}

  size_t receive(ThreadContext& ctx, PacketBatch& batch) override {
    if (!running()) return 0;
    const std::vector<PcapFrames::Frame>& frames = frames_->frames();
    VportCounters::Slot& counters = counters_.slot(ctx);
    const size_t before = batch.size();
    uint64_t bytes = 0, multicast = 0;
    // Frames that no buffer can hold count as work done: a file of nothing else must not hold the thread here.
    for (size_t budget = PacketBatch::kMaxPackets; budget != 0 && !batch.full(); --budget) {
      PacketPtr packet = ctx.pool.allocate();
      if (!packet) break;
      const PcapFrames::Frame& frame = frames[next_];
      if (frame.size > packet->tailroom()) {
        drop_on_receive(ctx, port_no_, DropReason::rx_invalid_packet, counters);
      } else {
        copy_frame(frame, packet->data(), packet->tailroom());
        packet->set_size(frame.size);
        packet->in_port = port_no_;
        bytes += frame.size;
        multicast += frame.data[0] & 1;
        batch.add(std::move(packet));
      }
      if (!advance()) break;
    }
    const size_t received = batch.size() - before;
    if (received != 0) count_received(received, bytes, multicast, counters);
    return received;
  }

  int poll_fd() const override { return -1; }
  uint32_t sole_port() const override { return port_no_; }
  bool always_ready() const override { return running(); }

  void pause(bool pause) { paused_.store(pause, std::memory_order_relaxed); }
  bool finished() const { return finished_.load(std::memory_order_relaxed); }

 private:
  bool running() const { return !finished() && !paused_.load(std::memory_order_relaxed); }

  // To the next frame. False: that was the last.
  bool advance() {
    if (++next_ < frames_->frames().size()) return true;
    next_ = 0;
    if (loops_left_ != kForever && --loops_left_ == 0) {
      finished_.store(true, std::memory_order_relaxed);
      return false;
    }
    return true;
  }

  const uint32_t port_no_;
  const std::unique_ptr<PcapFrames> frames_;
  size_t next_ = 0;
  uint64_t loops_left_;
  std::atomic<bool> finished_{false};
  std::atomic<bool> paused_{false};
  VportCounters& counters_;
  const std::shared_ptr<void> keep_alive_;  // owns counters_
};

class PcapVport final : public Vport {
 public:
  static Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no,
                                               VportEnvironment& environment, bool must_work) {
    std::unique_ptr<PcapVport> port(new PcapVport(config, port_no, environment));
    if (Status status = port->open(); !status.ok()) {
      if (must_work) return status;
      port->open_error_ = status.message();
    }
    return std::unique_ptr<Vport>(std::move(port));
  }

  std::string_view type() const override { return "pcap"; }
  void send(ThreadContext& ctx, PacketBatch& batch) override;
  std::vector<std::shared_ptr<RxSource>> sources() override;
  VportState state() const override;
  VportStats stats() const override { return counters_->total(); }
  Status reconfigure(const VportConfig& config) override;
  Status set_admin_up(bool up) override;

 private:
  PcapVport(const VportConfig& config, uint32_t port_no, VportEnvironment& environment)
      : Vport(config.name, port_no), host_(environment.host), options_(config.options), mtu_(config.mtu_request) {
    mac_ = config.mac;
  }
  Status open();
  void deliver(ThreadContext& ctx, PacketBatch& frames, VportCounters::Slot& counters);

  VportHost& host_;
  const std::map<std::string, std::string> options_;
  const std::shared_ptr<VportCounters> counters_ = std::make_shared<VportCounters>();
  std::shared_ptr<Replay> replay_;  // null: nothing to replay. Constant after create(), as are the next two
  std::unique_ptr<PcapWriter> capture_;
  std::string open_error_;
  std::atomic<bool> write_error_told_{false};
  std::atomic<bool> admin_up_{true};
  std::atomic<uint32_t> mtu_;
  mutable Mutex mutex_;
  MacAddress mac_ GUARDED_BY(mutex_);
};

Status PcapVport::open() {
  VportConfig config;
  config.options = options_;
  if (const std::string file = option(config, "rx_pcap"); !file.empty()) {
    Result<std::unique_ptr<PcapFrames>> frames = PcapFrames::load(file);
    if (!frames) {
      return Status(frames.status().code(), fmt::format("port {}: {}", name(), frames.status().message()),
                    "options:rx_pcap");
    }
    replay_ = std::make_shared<Replay>(port_no(), std::move(*frames), parse_loop(option(config, "loop")).value_or(1),
                                       *counters_, counters_);
  }
  if (const std::string file = transmit_file(config); !file.empty()) {
    Result<std::unique_ptr<PcapWriter>> writer = PcapWriter::open(file);
    if (!writer) {
      return Status(writer.status().code(), fmt::format("port {}: {}", name(), writer.status().message()),
                    "options:tx_pcap");
    }
    capture_ = std::move(*writer);
  }
  return {};
}

void PcapVport::send(ThreadContext& ctx, PacketBatch& batch) {
  VportCounters::Slot& counters = counters_->slot(ctx);
  if (!admin_up_.load(std::memory_order_relaxed) || !open_error_.empty()) {
    drop_on_send(ctx, batch, DropReason::port_down, counters);
    return;
  }
  if (const uint32_t mtu = mtu_.load(std::memory_order_relaxed); mtu != 0) {
    for (size_t i = 0; i < batch.size(); ++i) {
      if (!fits_mtu(batch[i], mtu)) drop_on_send(ctx, batch.release(i), DropReason::tx_too_big, counters);
    }
    batch.compact();
  }
  if (capture_ == nullptr) {
    book_sent(ctx, batch, counters);
    return;
  }
  finish_batch(ctx, batch, counters, [&](PacketBatch& frames) { deliver(ctx, frames, counters); });
}

void PcapVport::deliver(ThreadContext& ctx, PacketBatch& frames, VportCounters::Slot& counters) {
  if (capture_->write(frames).ok()) {
    book_sent(ctx, frames, counters);
    return;
  }
  drop_on_send(ctx, frames, DropReason::tx_error, counters);
  if (!write_error_told_.exchange(true)) host_.state_changed(*this);
}

std::vector<std::shared_ptr<RxSource>> PcapVport::sources() {
  if (replay_ == nullptr) return {};
  return {replay_};
}

VportState PcapVport::state() const {
  VportState state;
  state.admin_up = admin_up_.load();
  state.carrier = state.admin_up && open_error_.empty();
  state.mtu = mtu_.load();
  state.error = open_error_;
  if (state.error.empty() && capture_) state.error = capture_->error().message();
  state.status["driver_name"] = "pcap";
  if (replay_) state.status["replay"] = replay_->finished() ? "finished" : state.admin_up ? "running" : "paused";
  MutexLock lock(mutex_);
  state.mac = mac_;
  return state;
}

Status PcapVport::reconfigure(const VportConfig& config) {
  if (config.options != options_) return unimplemented("other files need another port");
  mtu_.store(config.mtu_request);
  MutexLock lock(mutex_);
  mac_ = config.mac;
  return {};
}

Status PcapVport::set_admin_up(bool up) {
  admin_up_.store(up);
  if (replay_) {
    replay_->pause(!up);
    host_.sources_changed(*this);  // a thread that sleeps does not look at always_ready() by itself
  }
  return {};
}

Status at_option(const VportConfig& config, const char* option, const Status& status) {
  if (status.ok()) return {};
  return Status(status.code(), fmt::format("port {}: {}", config.name, status.message()),
                fmt::format("options:{}", option));
}

Status check(const VportConfig& config, const VportConfig* current, VportEnvironment&) {
  if (current != nullptr && current->options == config.options) return {};
  if (const std::string file = option(config, "rx_pcap"); !file.empty()) {
    VSWITCH_RETURN_IF_ERROR(at_option(config, "rx_pcap", PcapFrames::load(file).status()));
  }
  const std::string file = transmit_file(config);
  return file.empty() ? Status() : at_option(config, "tx_pcap", PcapWriter::check(file));
}

}  // namespace

constinit const VportType kPcapVportType = {"pcap", validate, PcapVport::create, nullptr, check};

}  // namespace vswitch
