#include "datapath/vport/afxdp/xdp_device.h"

#include <fmt/format.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "datapath/vport/tx_finish.h"

namespace vswitch::afxdp {
namespace {

constexpr uint32_t kEthernetHeader = 14;
constexpr XdpMode kModes[] = {XdpMode::native_zero_copy, XdpMode::native, XdpMode::generic};

// How many queues the device receives with, as far as it tells.
uint32_t receive_queues(const std::string& device) {
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  ethtool_channels channels{};
  if (!fd || device.size() >= sizeof request.ifr_name) return 1;
  std::memcpy(request.ifr_name, device.data(), device.size());
  channels.cmd = ETHTOOL_GCHANNELS;
  request.ifr_data = reinterpret_cast<char*>(&channels);
  if (::ioctl(fd.get(), SIOCETHTOOL, &request) != 0) return 1;
  return std::max(1u, channels.rx_count + channels.combined_count);
}

// A socket that keeps the device promiscuous while it is open, and does nothing else.
Result<UniqueFd> become_promiscuous(const LinkInfo& link) {
  UniqueFd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  packet_mreq membership{};
  membership.mr_ifindex = static_cast<int>(link.ifindex);
  membership.mr_type = PACKET_MR_PROMISC;
  if (!fd || ::setsockopt(fd.get(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof membership) != 0) {
    return failed_precondition(
        fmt::format("device {}: cannot make it promiscuous: {}", link.name, std::generic_category().message(errno)));
  }
  return fd;
}

}  // namespace

Result<std::unique_ptr<XdpDevice>> XdpDevice::open(const LinkInfo& link, const AfxdpOptions& options) {
  if (link.mtu > kLargestMtu) {
    return failed_precondition(
        fmt::format("device {} has MTU {}; AF_XDP carries frames of up to MTU {}", link.name, link.mtu, kLargestMtu));
  }
  const uint32_t device_queues = receive_queues(link.name);
  if (options.n_rxq > device_queues) {
    return failed_precondition(fmt::format("device {} receives with {} queue{}, and n_rxq is {}", link.name,
                                           device_queues, device_queues == 1 ? "" : "s", options.n_rxq),
                               "options:n_rxq");
  }
  if (!options.best_effort) return open_mode(link, options, options.mode, device_queues);
  Status why;
  for (const XdpMode mode : kModes) {
    Result<std::unique_ptr<XdpDevice>> device = open_mode(link, options, mode, device_queues);
    // Some things are no better in another mode.
    if (device.ok() || device.status().code() == StatusCode::resource_exhausted ||
        device.status().code() == StatusCode::already_exists) {
      return device;
    }
    why = device.status();
  }
  return why;
}

Result<std::unique_ptr<XdpDevice>> XdpDevice::open_mode(const LinkInfo& link, const AfxdpOptions& options, XdpMode mode,
                                                        uint32_t device_queues) {
  Result<std::shared_ptr<UmemPool>> pool = UmemPool::get(options.umem_frames);
  if (!pool.ok()) return pool.status();
  Result<UniqueFd> promiscuous = become_promiscuous(link);
  if (!promiscuous.ok()) return promiscuous.status();
  Result<XdpProgram> program = XdpProgram::load(link.name, link.ifindex, mode != XdpMode::generic, device_queues);
  if (!program.ok()) return program.status();
  std::unique_ptr<XdpDevice> device(
      new XdpDevice({DeviceDescriptor::Kind::xdp, std::move(*promiscuous), link.name, link.ifindex}, options, mode,
                    std::move(*pool), std::move(*program)));
  device->device_queues_ = device_queues;
  const uint32_t wanted = options.n_rxq != 0 ? options.n_rxq : std::min<uint32_t>(device_queues, kMaxQueues);
  VSWITCH_RETURN_IF_ERROR(device->open_queues(link, wanted));
  VSWITCH_RETURN_IF_ERROR(device->program_.attach());
  return device;
}

XdpDevice::XdpDevice(DeviceDescriptor descriptor, const AfxdpOptions& options, XdpMode mode,
                     std::shared_ptr<UmemPool> pool, XdpProgram program)
    : DeviceIo(std::move(descriptor)),
      options_(options),
      mode_(mode),
      pool_(std::move(pool)),
      program_(std::move(program)) {}

XdpDevice::~XdpDevice() {
  program_.detach();
  // The first queue's registration of the memory is used by the others.
  while (!queues_.empty()) queues_.pop_back();
}

Status XdpDevice::open_queues(const LinkInfo& link, uint32_t count) {
  XskConfig config;
  config.device = link.name;
  config.rx_size = options_.n_rxq_desc;
  config.tx_size = options_.n_txq_desc;
  config.zero_copy = mode_ == XdpMode::native_zero_copy;
  config.need_wakeup = options_.need_wakeup;
  for (config.queue = 0; config.queue < count; ++config.queue) {
    XskQueue* const first = queues_.empty() ? nullptr : queues_.front().get();
    Result<std::unique_ptr<XskQueue>> queue = XskQueue::open(config, pool_, first);
    if (!queue.ok()) return queue.status();
    queues_.push_back(std::move(*queue));
    VSWITCH_RETURN_IF_ERROR(program_.set_socket(config.queue, queues_.back()->fd()));
  }
  return {};
}

void XdpDevice::send(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters) {
  const uint32_t limit = mtu();
  const uint32_t longest = limit == 0 ? UINT32_MAX : limit + kEthernetHeader;
  for (size_t i = 0; i < batch.size(); ++i) {
    if (__builtin_expect(!is_ready(batch[i], longest), 0)) return send_one_by_one(ctx, batch, counters);
  }
  send_counts_[ctx.index].in_place.add(batch.size());
  transmit_ready(ctx, batch, counters);
}

// Brings packets into wire form and into the pool, in order.
void XdpDevice::send_one_by_one(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters) {
  // Pieces of super-frames are made in the pool at once.
  ThreadContext in_pool{ctx.index, *pool_, ctx.ledger, ctx.now};
  SendCounts& counts = send_counts_[ctx.index];
  PacketBatch out;
  const auto add = [&](PacketPtr packet) {
    if (!pool_->holds(*packet)) {
      PacketPtr copy = clone_packet(*packet, *pool_);
      if (!copy) {
        const bool too_big = packet->size() > UmemPool::kFrameSize;
        drop_on_send(ctx, std::move(packet), too_big ? DropReason::tx_too_big : DropReason::tx_queue_full, counters);
        return;
      }
      packet = std::move(copy);
      counts.copied.add();
    } else {
      counts.in_place.add();
    }
    out.add(std::move(packet));
    if (out.full()) transmit_ready(ctx, out, counters);
  };
  for (size_t i = 0; i < batch.size(); ++i) {
    PacketPtr packet = batch.release(i);
    if (!fits_mtu(*packet, mtu())) {
      drop_on_send(ctx, std::move(packet), DropReason::tx_too_big, counters);
    } else {
      finish_packet(in_pool, std::move(packet), counters, add);
    }
  }
  batch.reset_released();
  if (!out.empty()) transmit_ready(ctx, out, counters);
}

// REQUIRES: all packets are in the pool and in wire form.
void XdpDevice::transmit_ready(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters) {
  const size_t count = batch.size();
  uint32_t in_ports[PacketBatch::kMaxPackets];
  uint32_t sizes[PacketBatch::kMaxPackets];
  for (size_t i = 0; i < count; ++i) {
    in_ports[i] = batch[i].in_port;
    sizes[i] = static_cast<uint32_t>(batch[i].size());
  }
  const size_t sent = queues_[ctx.index % queues_.size()]->transmit(batch.raw(), count);
  for (size_t i = sent; i < count; ++i) drop_on_send(ctx, batch.release(i), DropReason::tx_queue_full, counters);
  batch.reset_released();  // those that were sent are the kernel's now
  // Neighbours mostly came in by the same port: one look at the books per run of them.
  uint64_t bytes = 0;
  for (size_t begin = 0; begin < sent;) {
    size_t end = begin;
    for (; end < sent && in_ports[end] == in_ports[begin]; ++end) bytes += sizes[end];
    ctx.ledger.port(in_ports[begin]).sent.add(end - begin);
    begin = end;
  }
  counters.tx_packets.add(sent);
  counters.tx_bytes.add(bytes);
}

// Frames do not go out by DeviceIo::send() here.
size_t XdpDevice::transmit(Outgoing&, size_t, int* error) {
  *error = EOPNOTSUPP;
  return 0;
}

XskKernelCounts XdpDevice::kernel_counts() const {
  XskKernelCounts sum;
  for (const auto& queue : queues_) {
    const XskKernelCounts counts = queue->kernel_counts();
    sum.dropped += counts.dropped;
    sum.rx_ring_full += counts.rx_ring_full;
    sum.fill_ring_empty += counts.fill_ring_empty;
    sum.invalid += counts.invalid;
  }
  return sum;
}

uint64_t XdpDevice::take_kernel_drops() {
  const XskKernelCounts counts = kernel_counts();
  const uint64_t total = counts.dropped + counts.rx_ring_full;
  uint64_t before = drops_taken_.load(std::memory_order_relaxed);
  while (before < total && !drops_taken_.compare_exchange_weak(before, total, std::memory_order_relaxed)) {
  }
  return before < total ? total - before : 0;
}

void XdpDevice::describe(std::map<std::string, std::string>& status) const {
  status["xdp-mode"] = xdp_mode_name(mode_);
  status["use-need-wakeup"] = options_.need_wakeup ? "true" : "false";
  status["n_rxq"] = std::to_string(queues_.size());
  status["n_txq"] = std::to_string(queues_.size());
  status["umem-frames"] = std::to_string(pool_->packet_count());
  status["umem-frames-in-use"] = std::to_string(pool_->in_use());
  uint64_t in_place = 0, copied = 0;
  for (const SendCounts& counts : send_counts_) {
    in_place += counts.in_place.get();
    copied += counts.copied.get();
  }
  status["tx-in-place"] = std::to_string(in_place);
  status["tx-copied"] = std::to_string(copied);
  const XskKernelCounts kernel = kernel_counts();
  status["rx-ring-full"] = std::to_string(kernel.rx_ring_full);
  status["rx-dropped-by-kernel"] = std::to_string(kernel.dropped);
  status["fill-ring-empty"] = std::to_string(kernel.fill_ring_empty);
  status["invalid-descriptors"] = std::to_string(kernel.invalid);
  if (queues_.size() < device_queues_) {
    status["hint-queues"] = fmt::format(
        "the device receives with {} queues; what comes in by the others goes to the "
        "host: raise n_rxq or lower the device's queues (ethtool -L)",
        device_queues_);
  }
  if (!program_.keeps_tags()) {
    status["hint-vlan"] =
        "VLAN tags that the device or a veth peer holds aside are lost: ethtool -K DEVICE rxvlan off, "
        "and txvlan off at the peer";
  }
  if (mode_ == XdpMode::generic) {
    status["hint-offload"] =
        "frames longer than the MTU are dropped: switch off gro and lro of the device, or tso and "
        "gso of a veth peer (ethtool -K)";
  }
}

}  // namespace vswitch::afxdp
