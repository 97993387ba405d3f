#include "datapath/vport/packet_socket.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if_arp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>

#include "datapath/vport/tx_finish.h"

namespace vswitch {
namespace {

constexpr int kReceiveBuffer = 8 << 20;  // bytes: about a hundred super-frames
constexpr int kSendBuffer = 8 << 20;
constexpr size_t kMinBurst = 4;
constexpr size_t kMaxBurst = PacketBatch::kMaxPackets;

Status socket_error(const std::string& device, const char* what, int error) {
  std::string text = fmt::format("device {}: {}: {}", device, what, std::generic_category().message(error));
  if (error == EPERM || error == EACCES) text += " (needs CAP_NET_RAW and CAP_NET_ADMIN)";
  return failed_precondition(std::move(text));
}

bool set_option(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

void enlarge_buffers(int fd) {
  if (!set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, kReceiveBuffer)) {
    set_option(fd, SOL_SOCKET, SO_RCVBUF, kReceiveBuffer);
  }
  if (!set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, kSendBuffer)) set_option(fd, SOL_SOCKET, SO_SNDBUF, kSendBuffer);
}

// Binds to the device and checks that it speaks Ethernet. Returns errno, or EPFNOSUPPORT for another link type.
int bind_to_device(int fd, uint32_t ifindex) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(ifindex);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return errno;
  socklen_t length = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return errno;
  return address.sll_hatype == ARPHRD_ETHER || address.sll_hatype == ARPHRD_LOOPBACK ? 0 : EPFNOSUPPORT;
}

bool become_promiscuous(int fd, uint32_t ifindex) {
  packet_mreq membership{};
  membership.mr_ifindex = static_cast<int>(ifindex);
  membership.mr_type = PACKET_MR_PROMISC;
  return ::setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof membership) == 0;
}

struct Tag {
  uint16_t tpid = 0;  // 0: no tag was held aside
  uint16_t tci = 0;
};

Tag tag_held_aside(msghdr& message) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr; control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_PACKET || control->cmsg_type != PACKET_AUXDATA) continue;
    const auto aux = load_unaligned<tpacket_auxdata>(CMSG_DATA(control));
    if ((aux.tp_status & TP_STATUS_VLAN_VALID) == 0) return {};
    const bool tells_tpid = (aux.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0;
    return {tells_tpid ? aux.tp_vlan_tpid : uint16_t{ETH_P_8021Q}, aux.tp_vlan_tci};
  }
  return {};
}

}  // namespace

struct PacketSocket::Incoming {
  std::array<mmsghdr, kMaxBurst> messages{};
  std::array<iovec, kMaxBurst> buffers{};
  struct alignas(cmsghdr) Control {
    std::array<uint8_t, CMSG_SPACE(sizeof(tpacket_auxdata))> bytes;
  };
  std::array<Control, kMaxBurst> controls{};

  void prepare(size_t i, Packet& packet) {
    // The header goes in front of the frame: the kernel takes one buffer faster than two.
    buffers[i] = {packet.data() - sizeof(VnetHeader), sizeof(VnetHeader) + packet.tailroom()};
    msghdr& message = messages[i].msg_hdr;
    message.msg_iov = &buffers[i];
    message.msg_iovlen = 1;
    message.msg_control = &controls[i];
    message.msg_controllen = sizeof controls[i];
    message.msg_flags = 0;
  }
};

Result<std::unique_ptr<PacketSocket>> PacketSocket::open(const LinkInfo& link) {
  // Protocol 0: nothing is received before the socket is bound to its device.
  UniqueFd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return socket_error(link.name, "cannot open a packet socket", errno);
  for (const int option : {PACKET_VNET_HDR, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING}) {
    if (!set_option(fd.get(), SOL_PACKET, option, 1)) {
      return socket_error(link.name, "the kernel lacks an option of packet sockets (Linux 4.20 or later is needed)",
                          errno);
    }
  }
  enlarge_buffers(fd.get());
  if (const int error = bind_to_device(fd.get(), link.ifindex); error == EPFNOSUPPORT) {
    return failed_precondition(fmt::format("device {} is not an Ethernet device", link.name));
  } else if (error != 0) {
    return socket_error(link.name, "cannot bind a packet socket to it", error);
  }
  if (!become_promiscuous(fd.get(), link.ifindex)) {
    return socket_error(link.name, "cannot make it promiscuous", errno);
  }
  return std::make_unique<PacketSocket>(
      DeviceDescriptor{DeviceDescriptor::Kind::packet_socket, std::move(fd), link.name, link.ifindex});
}

PacketSocket::PacketSocket(DeviceDescriptor descriptor)
    : DeviceIo(std::move(descriptor)), incoming_(std::make_unique<Incoming>()), burst_(kMinBurst) {}

PacketSocket::~PacketSocket() = default;

size_t PacketSocket::receive(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch, VportCounters::Slot& counters) {
  std::array<PacketPtr, kMaxBurst> packets;
  const size_t wanted = std::min(burst_, PacketBatch::kMaxPackets - batch.size());
  size_t room = 0;
  // An empty pool leaves frames in the socket, where the kernel counts those that do not fit.
  while (room < wanted && (packets[room] = ctx.pool.allocate())) {
    incoming_->prepare(room, *packets[room]);
    ++room;
  }
  if (room == 0) return 0;
  const int result = ::recvmmsg(fd(), incoming_->messages.data(), static_cast<unsigned>(room), MSG_DONTWAIT, nullptr);
  const size_t received = result > 0 ? static_cast<size_t>(result) : 0;
  burst_ = received == room ? kMaxBurst : std::max(kMinBurst, received);

  uint64_t bytes = 0, multicast = 0;
  size_t taken = 0;
  for (size_t i = 0; i < received; ++i) {
    mmsghdr& message = incoming_->messages[i];
    const Tag tag = tag_held_aside(message.msg_hdr);
    const bool whole = (message.msg_hdr.msg_flags & MSG_TRUNC) == 0 && message.msg_len > sizeof(VnetHeader);
    Packet& packet = *packets[i];
    const auto header = load_unaligned<VnetHeader>(packet.data() - sizeof(VnetHeader));
    if (!whole || !accept_frame(packet, message.msg_len - sizeof(VnetHeader), header, tag.tpid, tag.tci)) {
      drop_on_receive(ctx, port_no, DropReason::rx_invalid_packet, counters);
      continue;
    }
    packet.in_port = port_no;
    bytes += packet.size();
    multicast += packet.data()[0] & 1;
    batch.add(std::move(packets[i]));
    ++taken;
  }
  if (taken != 0) count_received(taken, bytes, multicast, counters);
  return taken;
}

size_t PacketSocket::transmit(Outgoing& outgoing, size_t begin, int* error) {
  const TrainMessages out(outgoing.packets, outgoing.headers, begin, sends_trains());
  std::array<mmsghdr, kMaxBurst> messages;
  for (size_t i = 0; i < out.size(); ++i) {
    messages[i] = {};
    messages[i].msg_hdr.msg_iov = out[i].parts;
    messages[i].msg_hdr.msg_iovlen = out[i].part_count;
  }
  size_t frames = 0;
  for (size_t next = 0; next < out.size();) {
    const int sent = ::sendmmsg(fd(), &messages[next], static_cast<unsigned>(out.size() - next), MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) {
      *error = refused_message(out[next], sent < 0 ? errno : EIO);
      break;
    }
    // If not all: the next call tells why.
    for (const size_t end = next + static_cast<size_t>(sent); next < end; ++next) frames += out[next].frames;
  }
  return frames;
}

uint64_t PacketSocket::take_kernel_drops() {
  tpacket_stats statistics{};
  socklen_t length = sizeof statistics;
  // The kernel starts again from zero with each call.
  if (::getsockopt(fd(), SOL_PACKET, PACKET_STATISTICS, &statistics, &length) != 0) return 0;
  return statistics.tp_drops;
}

}  // namespace vswitch
