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
#include <chrono>
#include <cstring>
#include <system_error>
#include <utility>

#include "datapath/vport/tx_finish.h"

namespace vswitch {
namespace {

constexpr int kReceiveBuffer = 8 << 20;  // bytes: about a hundred super-frames
constexpr int kSendBuffer = 8 << 20;
constexpr int kMaxErrors = 3;  // of the socket, in one round
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

// Returns errno. Protocol 0: to send only.
int bind_to_device(int fd, uint32_t ifindex, uint16_t protocol) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(protocol);
  address.sll_ifindex = static_cast<int>(ifindex);
  return ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
}

// Whether the device that the socket is bound to speaks Ethernet. Returns errno, EPFNOSUPPORT if it does not.
int check_link_type(int fd) {
  sockaddr_ll address{};
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

// Whether recvmmsg() gave a frame of `size` bytes.
bool whole(const mmsghdr& message, size_t size) {
  return (message.msg_hdr.msg_flags & MSG_TRUNC) == 0 && message.msg_len == sizeof(VnetHeader) + size;
}

}  // namespace

// A round's frames, as recvmmsg() wants those that wait in the socket's queue.
struct PacketSocket::Incoming {
  std::array<PacketPtr, kMaxBurst> packets;  // one for each slot looked at
  std::array<PacketRing::Slot, kMaxBurst> slots;
  std::array<mmsghdr, kMaxBurst> messages{};
  std::array<iovec, kMaxBurst> buffers{};
  size_t count = 0;
  size_t queued = 0;  // messages

  // The next queued frame is to be received into `packet`.
  void expect_queued(Packet& packet) {
    // The header goes in front of the frame: the kernel takes one buffer faster than two.
    iovec& buffer = buffers[queued];
    buffer = {packet.data() - sizeof(VnetHeader), sizeof(VnetHeader) + packet.tailroom()};
    msghdr& message = messages[queued].msg_hdr;
    message.msg_iov = &buffer;
    message.msg_iovlen = 1;
    message.msg_flags = 0;
    messages[queued].msg_len = 0;
    ++queued;
  }
};

Result<std::unique_ptr<PacketSocket>> PacketSocket::open(const LinkInfo& link, KernelPath* kernel_path) {
  // Protocol 0: nothing is received before the socket is bound to its device.
  UniqueFd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return socket_error(link.name, "cannot open a packet socket", errno);
  for (const int option : {PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING}) {
    if (!set_option(fd.get(), SOL_PACKET, option, 1)) {
      return socket_error(link.name, "the kernel lacks an option of packet sockets (Linux 4.20 or later is needed)",
                          errno);
    }
  }
  enlarge_buffers(fd.get());
  int error = bind_to_device(fd.get(), link.ifindex, 0);
  if (error == 0) error = check_link_type(fd.get());
  if (error == EPFNOSUPPORT) return failed_precondition(fmt::format("device {} is not an Ethernet device", link.name));
  if (error != 0) return socket_error(link.name, "cannot bind a packet socket to it", error);
  if (!become_promiscuous(fd.get(), link.ifindex)) {
    return socket_error(link.name, "cannot make it promiscuous", errno);
  }
  std::unique_ptr<PacketSocket> socket(
      new PacketSocket({DeviceDescriptor::Kind::packet_socket, std::move(fd), link.name, link.ifindex}));
  socket->set_mtu(link.mtu);
  if (kernel_path != nullptr) socket->hook_ = kernel_path->hook(socket->fd(), link.ifindex, link.mtu);
  socket->start();
  return socket;
}

PacketSocket::PacketSocket(DeviceDescriptor descriptor)
    : DeviceIo(std::move(descriptor)), incoming_(std::make_unique<Incoming>()) {}

PacketSocket::~PacketSocket() = default;

void PacketSocket::retire() {
  if (hook_ != nullptr) hook_->close();
}

void PacketSocket::mtu_changed(uint32_t mtu) {
  if (hook_ != nullptr) hook_->set_mtu(mtu);
}

void PacketSocket::start() {
  try {
    ready_ = std::async(std::launch::async, [this] { return start_receiving(); }).share();
  } catch (const std::system_error&) {  // no more threads: then now
    std::promise<Status> done;
    done.set_value(start_receiving());
    ready_ = done.get_future().share();
  }
}

Status PacketSocket::start_receiving() {
  mapped_ = PacketRing::map(fd());
  if (mapped_ == nullptr) return socket_error(descriptor().device, "cannot map a ring to receive by", errno);
  // Now frames begin to come in, by the ring from the first on.
  if (const int error = bind_to_device(fd(), ifindex(), ETH_P_ALL); error != 0) {
    return socket_error(descriptor().device, "cannot receive from it", error);
  }
  ring_.store(mapped_.get(), std::memory_order_release);
  return {};
}

void PacketSocket::describe(std::map<std::string, std::string>& status) const {
  if (hook_ != nullptr) {
    if (std::string problem = hook_->problem(); !problem.empty()) status["no_kernel_path"] = std::move(problem);
  }
  if (ready_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
  if (const Status& result = ready_.get(); !result.ok()) status["receive_error"] = result.message();
}

size_t PacketSocket::receive(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch, VportCounters::Slot& counters) {
  PacketRing* const ring = ring_.load(std::memory_order_acquire);
  if (ring == nullptr) return 0;
  look_at_slots(*ring, ctx, PacketBatch::kMaxPackets - batch.size());
  Incoming& in = *incoming_;
  if (in.count == 0) {
    found_nothing();
    return 0;
  }
  found_nothing_ = false;
  if (in.queued != 0) receive_queued();
  uint64_t bytes = 0, multicast = 0;
  size_t taken = 0, message = 0;
  for (size_t i = 0; i < in.count; ++i) {
    PacketPtr packet = std::move(in.packets[i]);
    PacketRing::Slot& slot = in.slots[i];
    bool good = true;
    switch (slot.where) {
      case PacketRing::Slot::Where::lost:
        cut_off_.fetch_add(1, std::memory_order_relaxed);
        continue;
      case PacketRing::Slot::Where::here:
        std::memcpy(packet->data(), slot.frame.data(), slot.size);
        break;
      case PacketRing::Slot::Where::queued:
        good = whole(in.messages[message++], slot.size);
        slot.header = load_unaligned<VnetHeader>(packet->data() - sizeof(VnetHeader));
    }
    if (!good || !accept_frame(*packet, slot.size, slot.header, slot.tpid, slot.tci)) {
      drop_on_receive(ctx, port_no, DropReason::rx_invalid_packet, counters);
      continue;
    }
    packet->in_port = port_no;
    bytes += packet->size();
    multicast += packet->data()[0] & 1;
    batch.add(std::move(packet));
    ++taken;
  }
  ring->give_back(in.count);
  if (taken != 0) count_received(taken, bytes, multicast, counters);
  return taken;
}

RxSource::Waiting PacketSocket::waiting(size_t) const {
  const PacketRing* const ring = ring_.load(std::memory_order_acquire);
  return ring != nullptr && ring->has_frames() ? RxSource::Waiting::yes : RxSource::Waiting::no;
}

// Finds out what has arrived, up to `wanted` frames. An empty pool leaves frames in the ring, and the kernel counts
// those that do not fit.
void PacketSocket::look_at_slots(const PacketRing& ring, ThreadContext& ctx, size_t wanted) {
  Incoming& in = *incoming_;
  in.count = in.queued = 0;
  while (in.count < wanted && ring.look(in.count, &in.slots[in.count])) {
    PacketPtr& packet = in.packets[in.count] = ctx.pool.allocate();
    if (!packet) break;
    if (in.slots[in.count].where == PacketRing::Slot::Where::queued) in.expect_queued(*packet);
    ++in.count;
  }
}

// Who is told that there is something, and finds nothing twice in a row, was woken by an error: the device was down for
// a moment. Nobody reads the socket while the ring has what comes in, so the error would wake this thread for ever.
void PacketSocket::found_nothing() {
  if (!std::exchange(found_nothing_, true)) return;
  int error = 0;
  socklen_t length = sizeof error;
  static_cast<void>(::getsockopt(fd(), SOL_SOCKET, SO_ERROR, &error, &length));  // asking clears it
}

void PacketSocket::receive_queued() {
  Incoming& in = *incoming_;
  int errors = 0;
  for (size_t next = 0; next < in.queued;) {
    const int received =
        ::recvmmsg(fd(), &in.messages[next], static_cast<unsigned>(in.queued - next), MSG_DONTWAIT, nullptr);
    if (received > 0) {
      next += static_cast<size_t>(received);
    } else if (received == 0 || errno == EAGAIN || ++errors > kMaxErrors) {
      return;  // less than the ring told
    }
    // An error is about the device (it went down): it is told once, and the queue is as it was.
  }
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
  return statistics.tp_drops + cut_off_.exchange(0, std::memory_order_relaxed);
}

}  // namespace vswitch
