#include "datapath/vport/afxdp/xsk_queue.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "datapath/vport/afxdp/partial_checksum.h"
#include "datapath/vport/tx_finish.h"

namespace vswitch::afxdp {
namespace {

constexpr uint32_t kBurst = PacketBatch::kMaxPackets;
constexpr size_t kFewestFrames = 64;  // the smallest share of a pool
constexpr size_t kFirstFrames = 256;  // in the fill ring of a new queue
constexpr uint32_t kReapBurst = 2 * kBurst;
constexpr size_t kShortestFrame = 14;
// The kernel sends 32 frames per call; a tx ring may hold more that it could not send before.
constexpr int kMostKicks = 64;
// The driver lets go of frames only in the background after a zero-copy socket was closed.
constexpr std::chrono::milliseconds kDriverLinger{2000};
constexpr std::chrono::milliseconds kFirstWait{1}, kLastWait{256};

Status failed(const XskConfig& config, const char* what, int error) {
  std::string text =
      fmt::format("device {}: queue {}: {}: {}", config.device, config.queue, what,
                  error == EAFNOSUPPORT ? "the kernel has no AF_XDP" : std::generic_category().message(error));
  if (error == EPERM || error == EACCES) text += " (needs CAP_NET_RAW and CAP_NET_ADMIN)";
  if (error == ENOBUFS) text += " (needs CAP_IPC_LOCK, or a larger limit of locked memory)";
  return failed_precondition(std::move(text));
}

}  // namespace

Result<std::unique_ptr<XskQueue>> XskQueue::open(const XskConfig& config, std::shared_ptr<UmemPool> pool,
                                                 XskQueue* first) {
  std::unique_ptr<XskQueue> queue(new XskQueue(config, std::move(pool)));
  VSWITCH_RETURN_IF_ERROR(queue->create(first));
  VSWITCH_RETURN_IF_ERROR(queue->fill());
  return queue;
}

XskQueue::XskQueue(const XskConfig& config, std::shared_ptr<UmemPool> pool) : config_(config), pool_(std::move(pool)) {
  pool_->add_queues(1);
}

XskQueue::~XskQueue() {
  if (socket_ != nullptr) xsk_socket__delete(socket_);
  if (umem_ != nullptr) xsk_umem__delete(umem_);
  if (id_ != UmemPool::kNobody) pool_->reclaim(id_, config_.zero_copy ? kDriverLinger : std::chrono::milliseconds(0));
  pool_->add_queues(-1);
}

Status XskQueue::create(XskQueue* first) {
  id_ = pool_->new_holder();
  if (id_ == UmemPool::kNobody) return resource_exhausted(fmt::format("device {}: too many queues", config_.device));
  MutexLock lock(tx_mutex_);
  int error = bind(first);
  // The kernel takes leave of a socket that was closed a moment ago in the background.
  for (auto wait = kFirstWait; error == EBUSY && wait <= kLastWait; wait *= 2) {
    std::this_thread::sleep_for(wait);
    error = bind(first);
  }
  if (error == 0) return {};
  if (error == EBUSY) {
    return already_exists(
        fmt::format("device {}: queue {}: another AF_XDP socket has it", config_.device, config_.queue));
  }
  return failed(config_, config_.zero_copy ? "no AF_XDP socket with zero copy" : "no AF_XDP socket", error);
}

// Returns errno, or 0. Nothing is left behind on failure.
int XskQueue::bind(XskQueue* first) {
  if (first == nullptr) {
    xsk_umem_config umem{};
    umem.fill_size = config_.rx_size;
    umem.comp_size = config_.tx_size;
    umem.frame_size = UmemPool::kFrameSize;
    const int error = xsk_umem__create(&umem_, pool_->area(), pool_->area_size(), &fill_, &completion_, &umem);
    if (error != 0) return umem_ = nullptr, -error;
  }
  xsk_socket_config socket{};
  socket.rx_size = config_.rx_size;
  socket.tx_size = config_.tx_size;
  socket.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
  socket.bind_flags = static_cast<uint16_t>((config_.zero_copy ? XDP_ZEROCOPY : XDP_COPY) |
                                            (config_.need_wakeup ? XDP_USE_NEED_WAKEUP : 0));
  xsk_umem* const umem = first == nullptr ? umem_ : first->umem_;
  const int error = xsk_socket__create_shared(&socket_, config_.device.c_str(), config_.queue, umem, &rx_, &tx_, &fill_,
                                              &completion_, &socket);
  if (error == 0) return 0;
  socket_ = nullptr;
  if (umem_ != nullptr) xsk_umem__delete(std::exchange(umem_, nullptr));
  return -error;
}

Status XskQueue::fill() {
  const size_t most = std::min<size_t>(config_.rx_size, pool_->share());
  const size_t wanted = std::min(most, std::min(kFirstFrames, pool_->share() / 2));
  Packet* packets[kBurst];
  while (pool_->share() >= kFewestFrames && lent_ < wanted) {
    const size_t taken = pool_->take(packets, std::min<size_t>(kBurst, wanted - lent_));
    if (taken == 0) break;
    refill(packets, taken);
    lent_ += taken;
  }
  if (wanted != 0 && lent_ == wanted) return {};
  return resource_exhausted(
      fmt::format(
          "device {}: queue {}: {} packet buffers are too few for what uses them; ask for more with umem-frames",
          config_.device, config_.queue, pool_->packet_count()),
      "options:umem-frames");
}

// A queue has more frames waiting the more it is used, up to its share, which gets smaller with more queues. Returns
// how many of the `count` frames that came in are to be replaced.
size_t XskQueue::adapt(size_t count) {
  const size_t most = std::min<size_t>(config_.rx_size, std::max<size_t>(pool_->share(), kFewestFrames));
  if (lent_ > most) {
    const size_t surplus = std::min(count, lent_ - most);
    lent_ -= surplus;
    return count - surplus;
  }
  if (__builtin_expect(lent_ < most, 0)) {
    Packet* more[kBurst];
    const size_t taken = pool_->take(more, std::min(count, most - lent_));
    lent_ += taken;
    refill(more, taken);
  }
  return count;
}

void XskQueue::refill(Packet* const* packets, size_t count) {
  uint32_t at = 0;
  const auto n = static_cast<uint32_t>(count);
  if (n == 0) return;
  // There is room: no more frames are with the kernel than the ring holds.
  if (xsk_ring_prod__reserve(&fill_, n, &at) != n) {
    free_packets(packets, count);
    return;
  }
  for (uint32_t i = 0; i < n; ++i) {
    pool_->hand_over(*packets[i], id_);
    *xsk_ring_prod__fill_addr(&fill_, at + i) = pool_->frame_address(*packets[i]);
  }
  xsk_ring_prod__submit(&fill_, n);
}

// Drivers that ran out of frames want to be told that there are some again.
void XskQueue::wake_for_frames() {
  if (config_.need_wakeup && __builtin_expect(xsk_ring_prod__needs_wakeup(&fill_), 0)) {
    ::recvfrom(fd(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
  }
}

// receive() also calls the kernel where that waits for it.
RxSource::Waiting XskQueue::waiting() const {
  const bool frames = __atomic_load_n(rx_.producer, __ATOMIC_ACQUIRE) != rx_.cached_cons;
  const bool wants_call =
      unsent_.load(std::memory_order_relaxed) || (config_.need_wakeup && xsk_ring_prod__needs_wakeup(&fill_) != 0);
  return frames || wants_call ? RxSource::Waiting::yes : RxSource::Waiting::no;
}

size_t XskQueue::receive(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch, VportCounters::Slot& counters) {
  if (__builtin_expect(unsent_.load(std::memory_order_relaxed), 0)) kick();
  uint32_t at = 0;
  const auto room = static_cast<uint32_t>(PacketBatch::kMaxPackets - batch.size());
  const uint32_t count = xsk_ring_cons__peek(&rx_, room, &at);
  if (count == 0) {
    wake_for_frames();
    return 0;
  }
  Packet* frames[kBurst];
  Packet* packets[kBurst];
  for (uint32_t i = 0; i < count; ++i) {
    const xdp_desc* const descriptor = xsk_ring_cons__rx_desc(&rx_, at + i);
    frames[i] = pool_->packet_at(descriptor->addr);
    __builtin_prefetch(frames[i], 1);
    __builtin_prefetch(pool_->area() + descriptor->addr);
  }
  // Frames that come in are replaced as far as there are free ones; the others have to go back.
  Packet* fresh[kBurst];
  const size_t wanted = adapt(count);
  const size_t replaced = pool_->take(fresh, wanted);
  const size_t passed = count - (wanted - replaced);  // the first ones
  size_t back = replaced;
  const PacketMetadata begin = received_by(port_no);
  size_t received = 0;
  uint64_t bytes = 0, multicast = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const xdp_desc* const descriptor = xsk_ring_cons__rx_desc(&rx_, at + i);
    Packet* packet = frames[i];
    packet->start_received(pool_->area() + descriptor->addr, descriptor->len, begin);
    DropReason why_not = DropReason::rx_invalid_packet;
    bool taken = descriptor->len >= kShortestFrame;
    if (i < passed) {
      pool_->take_back(*packet);
    } else {
      fresh[back++] = packet;
      packet = taken ? clone_packet(*packet, ctx.pool).release() : nullptr;
      if (taken && packet == nullptr) why_not = DropReason::rx_no_buffer;
      taken = packet != nullptr;
    }
    if (__builtin_expect(!taken, 0)) {
      if (i < passed) pool_->free(packet);
      drop_on_receive(ctx, port_no, why_not, counters);
      continue;
    }
    mark_partial_checksum(*packet);
    bytes += packet->size();
    multicast += *packet->data() & 1;
    packets[received++] = packet;
  }
  xsk_ring_cons__release(&rx_, count);
  refill(fresh, back);
  wake_for_frames();
  for (size_t i = 0; i < received; ++i) batch.add(PacketPtr(packets[i]));
  if (received != 0) count_received(received, bytes, multicast, counters);
  return received;
}

void XskQueue::reap() {
  Packet* packets[kReapBurst];
  uint32_t at = 0;
  while (const uint32_t count = xsk_ring_cons__peek(&completion_, kReapBurst, &at)) {
    for (uint32_t i = 0; i < count; ++i) {
      packets[i] = pool_->packet_at(*xsk_ring_cons__comp_addr(&completion_, at + i));
      pool_->take_back(*packets[i]);
    }
    xsk_ring_cons__release(&completion_, count);
    pool_->free(packets, count);
    if (count < kReapBurst) break;
  }
}

size_t XskQueue::transmit(Packet* const* packets, size_t count) {
  uint32_t sent = 0;
  {
    MutexLock lock(tx_mutex_);
    reap();
    const auto wanted = static_cast<uint32_t>(count);
    if (__builtin_expect(xsk_prod_nb_free(&tx_, wanted) < wanted, 0)) {
      kick();
      reap();
    }
    sent = std::min(wanted, xsk_prod_nb_free(&tx_, wanted));
    uint32_t at = 0;
    if (sent != 0 && xsk_ring_prod__reserve(&tx_, sent, &at) != sent) sent = 0;
    for (uint32_t i = 0; i < sent; ++i) {
      xdp_desc* const descriptor = xsk_ring_prod__tx_desc(&tx_, at + i);
      descriptor->addr = pool_->data_address(*packets[i]);
      descriptor->len = static_cast<uint32_t>(packets[i]->size());
      descriptor->options = 0;
      pool_->hand_over(*packets[i], id_);
    }
    xsk_ring_prod__submit(&tx_, sent);
  }
  kick();
  return sent;
}

// Makes the kernel send what is in the tx ring, as far as it needs to be told. Only reads what the kernel writes and
// what does not change, so it needs no lock.
void XskQueue::kick() {
  if (config_.need_wakeup && !xsk_ring_prod__needs_wakeup(&tx_)) return;
  for (int tries = 0; tries < kMostKicks; ++tries) {
    const bool done = ::sendto(fd(), nullptr, 0, MSG_DONTWAIT, nullptr, 0) >= 0 ||
                      (errno != EAGAIN && errno != EBUSY && errno != ENOBUFS && errno != EINTR);
    const bool empty =
        __atomic_load_n(tx_.consumer, __ATOMIC_ACQUIRE) == __atomic_load_n(tx_.producer, __ATOMIC_ACQUIRE);
    if (done || empty) {
      unsent_.store(false, std::memory_order_relaxed);
      return;
    }
  }
  unsent_.store(true, std::memory_order_relaxed);
}

XskKernelCounts XskQueue::kernel_counts() const {
  xdp_statistics kernel{};
  socklen_t length = sizeof kernel;
  if (::getsockopt(fd(), SOL_XDP, XDP_STATISTICS, &kernel, &length) != 0) return {};
  return {kernel.rx_dropped, kernel.rx_ring_full, kernel.rx_fill_ring_empty_descs,
          kernel.rx_invalid_descs + kernel.tx_invalid_descs};
}

}  // namespace vswitch::afxdp
