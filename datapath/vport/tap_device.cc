#include "datapath/vport/tap_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "datapath/vport/tx_finish.h"

namespace vswitch {
namespace {

// UDP segmentation; Linux 6.2 and later, not in Debian 12's header.
constexpr unsigned kTunUso4 = 0x20;
constexpr unsigned kTunUso6 = 0x40;
constexpr unsigned kOffloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

Status tap_error(const std::string& name, const char* what, int error) {
  std::string text = fmt::format("device {}: {}: {}", name, what, std::generic_category().message(error));
  switch (error) {
    case EPERM:
    case EACCES:
      text += " (needs CAP_NET_ADMIN and access to /dev/net/tun)";
      break;
    case EBUSY:
      text += " (another process has it open)";
      break;
    case EINVAL:
      text += " (a device of that name exists and is no TAP that can be attached to, or the name is not valid)";
      break;
    default:
      break;
  }
  return failed_precondition(std::move(text));
}

// What the host may leave to us. USO is optional: older kernels refuse flags they do not know.
bool set_offloads(int fd) {
  return ::ioctl(fd, TUNSETOFFLOAD, kOffloads | kTunUso4 | kTunUso6) == 0 || ::ioctl(fd, TUNSETOFFLOAD, kOffloads) == 0;
}

ifreq request_for(const std::string& name) {
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof request.ifr_name - 1));
  return request;
}

// Returns errno.
int attach(int fd, const std::string& name, bool multi_queue) {
  ifreq request = request_for(name);
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multi_queue ? IFF_MULTI_QUEUE : 0));
  return ::ioctl(fd, TUNSETIFF, &request) == 0 ? 0 : errno;
}

}  // namespace

Status TapDevice::check_access(const std::string& name) {
  const UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  return fd ? Status() : tap_error(name, "cannot open /dev/net/tun", errno);
}

Result<std::unique_ptr<TapDevice>> TapDevice::open(const std::string& name, size_t queues) {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return tap_error(name, "cannot open /dev/net/tun", errno);
  bool multi_queue = queues > 1;
  int error = attach(fd.get(), name, multi_queue);
  if (error == EINVAL) {
    // There is a TAP of the other kind.
    multi_queue = !multi_queue;
    error = attach(fd.get(), name, multi_queue);
  }
  if (error != 0) return tap_error(name, "cannot create or attach to the TAP", error);
  const int header_size = sizeof(VnetHeader);
  if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header_size) != 0 || !set_offloads(fd.get())) {
    return tap_error(name, "cannot switch on offloads", errno);
  }
  if (::ioctl(fd.get(), TUNSETPERSIST, 1) != 0) return tap_error(name, "cannot make it persistent", errno);
  const uint32_t ifindex = ::if_nametoindex(name.c_str());
  auto tap = std::make_unique<TapDevice>(DeviceDescriptor{DeviceDescriptor::Kind::tap, std::move(fd), name, ifindex});
  tap->multi_queue_ = multi_queue;
  if (multi_queue) tap->add_queues(queues);
  for (std::atomic<uint8_t>& receiver : tap->receivers_) receiver.store(kNobody, std::memory_order_relaxed);
  return tap;
}

// As many as the kernel gives.
void TapDevice::add_queues(size_t queues) {
  while (queue_count() < std::min(queues, kMaxQueues)) {
    UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!fd || attach(fd.get(), descriptor().device, true) != 0) return;
    // Meanwhile the device may have left, and this be a new one of its name, which ends with this descriptor.
    if (current_name() != descriptor().device || ::if_nametoindex(descriptor().device.c_str()) != ifindex()) return;
    further_.push_back(std::move(fd));
  }
}

size_t TapDevice::receive_queue(size_t queue, ThreadContext& ctx, uint32_t port_no, PacketBatch& batch,
                                VportCounters::Slot& counters) {
  receivers_[queue].store(static_cast<uint8_t>(ctx.index), std::memory_order_relaxed);
  const int fd = queue_fd(queue);
  uint64_t bytes = 0, multicast = 0;
  size_t taken = 0;
  // Bad frames count as work done, so that a flood of them cannot hold the thread here.
  for (size_t budget = PacketBatch::kMaxPackets; budget != 0 && !batch.full(); --budget) {
    PacketPtr packet = ctx.pool.allocate();
    if (!packet) break;
    VnetHeader header;
    uint8_t overflow = 0;
    // A TAP cuts what does not fit without saying so: the frame was too big if it reaches the last byte.
    const size_t room = packet->tailroom();
    const std::array<iovec, 3> parts = {{{&header, sizeof header}, {packet->data(), room}, {&overflow, 1}}};
    const ssize_t result = ::readv(fd, parts.data(), parts.size());
    if (result < 0) {
      if (errno == EINTR) continue;
      if (errno == EBADFD || errno == EFAULT) set_lost();
      break;
    }
    const auto size = static_cast<size_t>(result);
    if (size <= sizeof header || size - sizeof header > room ||
        !accept_frame(*packet, size - sizeof header, header, 0, 0)) {
      drop_on_receive(ctx, port_no, DropReason::rx_invalid_packet, counters);
      continue;
    }
    packet->in_port = port_no;
    bytes += packet->size();
    multicast += packet->data()[0] & 1;
    batch.add(std::move(packet));
    ++taken;
  }
  if (taken != 0) count_received(taken, bytes, multicast, counters);
  return taken;
}

// One that the thread receives from, if there is such; the same as long as it is, so that the flows that it sends stay
// where they are.
size_t TapDevice::queue_to_send_by(const ThreadContext& ctx) {
  if (further_.empty()) return 0;
  const auto is_own = [&](size_t queue) { return receivers_[queue].load(std::memory_order_relaxed) == ctx.index; };
  std::atomic<uint8_t>& chosen = senders_[ctx.index];
  const size_t last = chosen.load(std::memory_order_relaxed);
  if (is_own(last)) return last;
  for (size_t queue = 0; queue < queue_count(); ++queue) {
    if (!is_own(queue)) continue;
    chosen.store(static_cast<uint8_t>(queue), std::memory_order_relaxed);
    return queue;
  }
  return ctx.index % queue_count();
}

size_t TapDevice::transmit(Outgoing& outgoing, size_t begin, int* error) {
  const TrainMessages out(outgoing.packets, outgoing.headers, begin, sends_trains());
  const int fd = queue_fd(queue_to_send_by(outgoing.ctx));
  size_t frames = 0;
  for (size_t next = 0; next < out.size();) {
    if (::writev(fd, out[next].parts, out[next].part_count) < 0) {
      if (errno == EINTR) continue;
      *error = refused_message(out[next], errno);
      break;
    }
    frames += out[next++].frames;
  }
  return frames;
}

std::string TapDevice::current_name() const {
  ifreq request{};
  return ::ioctl(fd(), TUNGETIFF, &request) == 0 ? request.ifr_name : "";
}

void TapDevice::set_persistent(bool persistent) const { ::ioctl(fd(), TUNSETPERSIST, persistent ? 1 : 0); }

}  // namespace vswitch
