#include "datapath/vport/tap_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

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
      text += " (a device of that name exists and is not a TAP with one queue, or the name is not valid)";
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

}  // namespace

Status TapDevice::check_access(const std::string& name) {
  const UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  return fd ? Status() : tap_error(name, "cannot open /dev/net/tun", errno);
}

Result<std::unique_ptr<TapDevice>> TapDevice::open(const std::string& name) {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return tap_error(name, "cannot open /dev/net/tun", errno);
  ifreq request = request_for(name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return tap_error(name, "cannot create or attach to the TAP", errno);
  const int header_size = sizeof(VnetHeader);
  if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header_size) != 0 || !set_offloads(fd.get())) {
    return tap_error(name, "cannot switch on offloads", errno);
  }
  if (::ioctl(fd.get(), TUNSETPERSIST, 1) != 0) return tap_error(name, "cannot make it persistent", errno);
  const uint32_t ifindex = ::if_nametoindex(request.ifr_name);
  return std::make_unique<TapDevice>(DeviceDescriptor{DeviceDescriptor::Kind::tap, std::move(fd), name, ifindex});
}

size_t TapDevice::receive(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch, VportCounters::Slot& counters) {
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
    const ssize_t result = ::readv(fd(), parts.data(), parts.size());
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

size_t TapDevice::transmit(Outgoing& outgoing, size_t begin, int* error) {
  const TrainMessages out(outgoing.packets, outgoing.headers, begin, sends_trains());
  size_t frames = 0;
  for (size_t next = 0; next < out.size();) {
    if (::writev(fd(), out[next].parts, out[next].part_count) < 0) {
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
