#include "datapath/vport/dpdk/vport_dpdk.h"

#include <fmt/format.h>
#include <rte_ethdev.h>
#include <rte_spinlock.h>

#include <array>
#include <atomic>
#include <cstring>

#include "datapath/base/mutex.h"
#include "datapath/vport/dpdk/dpdk_device.h"
#include "datapath/vport/dpdk/dpdk_options.h"
#include "datapath/vport/dpdk/eal.h"
#include "datapath/vport/dpdk/tx_offload.h"
#include "datapath/vport/tx_finish.h"
#include "datapath/vport/vnet_header.h"
#include "datapath/vport/vxlan_retry.h"

namespace vswitch {
namespace {

using dpdk::MbufPool;

constexpr uint32_t kEthernetHeader = 14;
constexpr uint64_t kForeignBuffer = RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL;
constexpr uint64_t kUnusual = kForeignBuffer | RTE_MBUF_F_RX_VLAN_STRIPPED;

// One receive queue.
class Queue final : public RxSource {
 public:
  Queue(uint16_t device, uint16_t queue, uint32_t port_no, std::shared_ptr<VportCounters> counters)
      : device_(device), queue_(queue), begin_(received_by(port_no)), counters_(std::move(counters)) {}

  size_t receive(ThreadContext& ctx, PacketBatch& batch) override;
  int poll_fd() const override { return -1; }
  uint32_t sole_port() const override { return begin_.in_port; }
  bool always_ready() const override { return true; }  // polled: nothing tells when a frame is there

 private:
  // A frame that needs more than its Packet set up. Null, with the frame booked as dropped, if it cannot be taken.
  [[gnu::noinline, gnu::cold]] Packet* take_unusual(ThreadContext& ctx, rte_mbuf* mbuf, VportCounters::Slot& counters);
  PacketPtr copy_out(ThreadContext& ctx, rte_mbuf* mbuf, VportCounters::Slot& counters);

  const uint16_t device_;
  const uint16_t queue_;
  const PacketMetadata begin_;  // of every packet
  const std::shared_ptr<VportCounters> counters_;
};

size_t Queue::receive(ThreadContext& ctx, PacketBatch& batch) {
  dpdk::register_thread();
  rte_mbuf* mbufs[PacketBatch::kMaxPackets];
  const auto room = static_cast<uint16_t>(PacketBatch::kMaxPackets - batch.size());
  const uint16_t count = rte_eth_rx_burst(device_, queue_, mbufs, room);
  if (count == 0) return 0;
  for (uint16_t i = 0; i < count; ++i) {
    __builtin_prefetch(MbufPool::packet_of(mbufs[i]), 1);
    __builtin_prefetch(rte_pktmbuf_mtod(mbufs[i], void*));
  }
  VportCounters::Slot& counters = counters_->slot(ctx);
  // On the stack while they are gathered: what the loop writes to packets cannot be them, and they stay in registers.
  Packet* packets[PacketBatch::kMaxPackets];
  size_t received = 0;
  uint64_t bytes = 0, multicast = 0;
  for (uint16_t i = 0; i < count; ++i) {
    rte_mbuf* const mbuf = mbufs[i];
    Packet* packet = MbufPool::packet_of(mbuf);
    if (__builtin_expect(mbuf->nb_segs == 1 && (mbuf->ol_flags & kUnusual) == 0, 1)) {
      packet->start_received(rte_pktmbuf_mtod(mbuf, uint8_t*), mbuf->data_len, begin_);
    } else if (packet = take_unusual(ctx, mbuf, counters); packet == nullptr) {
      continue;
    }
    bytes += packet->size();
    multicast += *packet->data() & 1;
    packets[received++] = packet;
  }
  batch.add(packets, received);
  count_received(received, bytes, multicast, counters);
  return received;
}

Packet* Queue::take_unusual(ThreadContext& ctx, rte_mbuf* mbuf, VportCounters::Slot& counters) {
  const bool tag_aside = (mbuf->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) != 0;
  const uint16_t tci = mbuf->vlan_tci;
  PacketPtr packet;
  if (mbuf->nb_segs == 1 && (mbuf->ol_flags & kForeignBuffer) == 0) {
    packet.reset(MbufPool::packet_of(mbuf));
    packet->start_received(rte_pktmbuf_mtod(mbuf, uint8_t*), mbuf->data_len, begin_);
  } else {
    packet = copy_out(ctx, mbuf, counters);
    if (!packet) return nullptr;
  }
  if (tag_aside && !reinsert_vlan_tag(*packet, RTE_ETHER_TYPE_VLAN, tci)) {
    drop_on_receive(ctx, begin_.in_port, DropReason::rx_invalid_packet, counters);
    return nullptr;
  }
  return packet.release();
}

// A frame in several buffers, or in one that is not its mbuf's own: into one of our packets.
PacketPtr Queue::copy_out(ThreadContext& ctx, rte_mbuf* mbuf, VportCounters::Slot& counters) {
  PacketPtr packet = ctx.pool.allocate();
  const uint32_t size = mbuf->pkt_len;
  const bool fits = packet && size <= packet->tailroom();
  if (fits) {
    const void* const frame = rte_pktmbuf_read(mbuf, 0, size, packet->data());
    if (frame != packet->data()) std::memcpy(packet->data(), frame, size);
    packet->set_size(size);
    packet->in_port = begin_.in_port;
  }
  rte_pktmbuf_free(mbuf);
  if (fits) return packet;
  drop_on_receive(ctx, begin_.in_port, packet ? DropReason::rx_invalid_packet : DropReason::rx_no_buffer, counters);
  return nullptr;
}

// A lock of its own line per transmit queue.
struct alignas(64) TxLock {
  rte_spinlock_t lock = RTE_SPINLOCK_INITIALIZER;
};

class DpdkVport final : public Vport {
 public:
  static Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no,
                                               VportEnvironment& environment, bool must_work) {
    std::unique_ptr<DpdkVport> port(new DpdkVport(config, port_no, environment));
    if (Status status = port->open(); !status.ok()) {
      if (must_work) return status;
      port->wait_in_error(status);
    }
    return std::unique_ptr<Vport>(std::move(port));
  }
  ~DpdkVport() override = default;

  std::string_view type() const override { return "dpdk"; }
  void send(ThreadContext& ctx, PacketBatch& batch) override;
  std::vector<std::shared_ptr<RxSource>> sources() override;
  VportState state() const override;
  VportStats stats() const override;
  Status reconfigure(const VportConfig& config) override;
  Status set_admin_up(bool up) override;

 private:
  DpdkVport(const VportConfig& config, uint32_t port_no, VportEnvironment& environment)
      : Vport(config.name, port_no), host_(environment.host), config_(config) {}

  Status open();
  void wait_in_error(const Status& status);
  bool try_again();
  void publish(std::unique_ptr<dpdk::Device> device) REQUIRES(mutex_);
  // True if the packet can go as it is: in an mbuf, complete, and not too long.
  static bool is_ready(const Packet& packet, uint32_t max_frame) {
    return MbufPool::holds(packet) && packet.offload.checksum != ChecksumState::partial &&
           packet.offload.gso == GsoType::none && packet.size() <= max_frame;
  }
  [[gnu::noinline]] void send_one_by_one(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters);
  template <bool kCheck>
  bool transmit(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters);
  bool send_super_frame(ThreadContext& ctx, PacketPtr& packet, const dpdk::TxWork& work, VportCounters::Slot& counters);
  uint16_t prepare(const ThreadContext& ctx, rte_mbuf** mbufs, uint16_t count);
  void prepare_all(const ThreadContext& ctx, rte_mbuf** mbufs, uint16_t count);
  uint16_t burst(const ThreadContext& ctx, rte_mbuf** mbufs, uint16_t count);
  // Where threads share transmit queues: one at a time uses one.
  class QueueLock {
   public:
    QueueLock(DpdkVport& port, uint16_t queue)
        : lock_(port.n_txq_ < kMaxThreads ? &port.tx_locks_[queue].lock : nullptr) {
      if (lock_ != nullptr) rte_spinlock_lock(lock_);
    }
    ~QueueLock() {
      if (lock_ != nullptr) rte_spinlock_unlock(lock_);
    }
    QueueLock(const QueueLock&) = delete;
    QueueLock& operator=(const QueueLock&) = delete;

   private:
    rte_spinlock_t* const lock_;
  };
  // Without a division where each thread has a queue.
  uint16_t queue_of(const ThreadContext& ctx) const {
    return static_cast<uint16_t>(ctx.index < n_txq_ ? ctx.index : ctx.index % n_txq_);
  }

  VportHost& host_;
  const std::shared_ptr<VportCounters> counters_ = std::make_shared<VportCounters>();

  // For the packet threads: constant once ready_ is true.
  std::atomic<bool> ready_{false};
  std::atomic<bool> admin_up_{true};
  uint16_t device_id_ = 0;
  uint16_t n_txq_ = 1;
  uint32_t mtu_ = 0;
  uint32_t max_frame_ = 0;
  MbufPool* pool_ = nullptr;
  dpdk::TxOffload tx_offload_;
  std::array<TxLock, kMaxThreads> tx_locks_;
  std::array<Counter, kMaxThreads> unsent_;
  std::atomic<uint64_t> link_changes_{0};

  mutable Mutex mutex_;
  VportConfig config_ GUARDED_BY(mutex_);
  std::string error_ GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<RxSource>> queues_ GUARDED_BY(mutex_);
  std::unique_ptr<dpdk::Device> device_ GUARDED_BY(mutex_);

  // Last: no attempt runs while the rest is destroyed.
  VxlanRetry retry_;
  std::shared_ptr<void> waiting_;
};

// Nobody tells when a device can be made that could not: asking again is the only way.
void DpdkVport::wait_in_error(const Status& status) {
  {
    MutexLock lock(mutex_);
    error_ = status.message();
  }
  waiting_ = retry_.add([this] { return try_again(); });
}

// True if there is nothing more to try.
bool DpdkVport::try_again() {
  const dpdk::QuietLog quiet;
  const Status status = open();
  bool changed = false;
  {
    MutexLock lock(mutex_);
    changed = error_ != status.message();
    error_ = status.message();
  }
  if (status.ok()) host_.sources_changed(*this);
  if (status.ok() || changed) host_.state_changed(*this);
  return status.ok();
}

Status DpdkVport::open() {
  MutexLock lock(mutex_);
  if (device_ != nullptr) return {};
  const Result<DpdkOptions> options = parse_dpdk_options(config_);
  if (!options.ok()) return options.status();
  VSWITCH_RETURN_IF_ERROR(dpdk::start_eal(dpdk::pci_address_of(options->devargs)).with_prefix("port " + name()));
  dpdk::DeviceConfig wanted;
  wanted.devargs = options->devargs;
  wanted.owner = name();
  wanted.n_rxq = options->n_rxq;
  wanted.n_txq = options->n_txq;
  wanted.n_rxq_desc = options->n_rxq_desc;
  wanted.n_txq_desc = options->n_txq_desc;
  wanted.mtu = config_.mtu_request;
  wanted.mac = config_.mac;
  wanted.mbufs = options->mbufs;
  wanted.mbuf_size = options->mbuf_size;
  wanted.tx_offloads = options->tx_offloads;
  wanted.on_link_change = [this] {
    link_changes_.fetch_add(1, std::memory_order_relaxed);
    host_.state_changed(*this);
  };
  Result<std::unique_ptr<dpdk::Device>> device = dpdk::Device::open(wanted);
  if (!device.ok()) return device.status().with_prefix("port " + name());
  publish(std::move(*device));
  return {};
}

void DpdkVport::publish(std::unique_ptr<dpdk::Device> device) {
  device_ = std::move(device);
  device_id_ = device_->port_id();
  n_txq_ = std::min<uint16_t>(device_->n_txq(), kMaxThreads);
  mtu_ = device_->mtu();
  max_frame_ = mtu_ == 0 ? UINT16_MAX : mtu_ + kEthernetHeader;
  pool_ = &device_->pool();
  tx_offload_ = device_->tx_offload();
  for (uint16_t queue = 0; queue < device_->n_rxq(); ++queue) {
    queues_.push_back(std::make_shared<Queue>(device_id_, queue, port_no(), counters_));
  }
  error_.clear();
  ready_.store(true, std::memory_order_release);
}

void DpdkVport::send(ThreadContext& ctx, PacketBatch& batch) {
  VportCounters::Slot& counters = counters_->slot(ctx);
  if (!ready_.load(std::memory_order_acquire) || !admin_up_.load(std::memory_order_relaxed)) {
    drop_on_send(ctx, batch, DropReason::port_down, counters);
    return;
  }
  if (batch.empty()) return;
  dpdk::register_thread();
  if (__builtin_expect(!transmit<true>(ctx, batch, counters), 0)) send_one_by_one(ctx, batch, counters);
}

// Brings packets into mbufs and into wire form, but for what the device does itself, in order.
void DpdkVport::send_one_by_one(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters) {
  // Pieces of super-frames are made in mbufs at once.
  ThreadContext in_mbufs{ctx.index, *pool_, ctx.ledger, ctx.now};
  PacketBatch out;
  const auto flush = [&] {
    if (!out.empty()) transmit<false>(ctx, out, counters);
  };
  const auto add = [&](PacketPtr packet, const dpdk::TxWork& work) {
    if (!MbufPool::holds(*packet)) {
      PacketPtr copy = clone_packet(*packet, *pool_);
      if (!copy) {
        const bool too_big = packet->size() > pool_->buffer_size();
        drop_on_send(ctx, std::move(packet), too_big ? DropReason::tx_too_big : DropReason::tx_queue_full, counters);
        return;
      }
      packet = std::move(copy);
    }
    work.tell(*MbufPool::mbuf_of(packet.get()));
    out.add(std::move(packet));
    if (out.full()) flush();
  };
  const auto finish = [&](PacketPtr packet) {
    finish_packet(in_mbufs, std::move(packet), counters, [&](PacketPtr piece) { add(std::move(piece), {}); });
  };
  for (size_t i = 0; i < batch.size(); ++i) {
    PacketPtr packet = batch.release(i);
    if (!fits_mtu(*packet, mtu_)) {
      drop_on_send(ctx, std::move(packet), DropReason::tx_too_big, counters);
    } else if (const auto work = tx_offload_.work_on(*packet); !work) {
      finish(std::move(packet));
    } else if (packet->offload.gso == GsoType::none) {
      add(std::move(packet), *work);
    } else {
      flush();
      if (!send_super_frame(ctx, packet, *work, counters)) finish(std::move(packet));
    }
  }
  batch.reset_released();
  flush();
}

// Whole, for the device to cut. False, and nothing is changed, if there are too few mbufs, or the driver will not do
// it.
bool DpdkVport::send_super_frame(ThreadContext& ctx, PacketPtr& packet, const dpdk::TxWork& work,
                                 VportCounters::Slot& counters) {
  rte_mbuf* chain = dpdk::copy_super_frame(*packet, work, *pool_);
  if (chain == nullptr) return false;
  if (prepare(ctx, &chain, 1) != 1) {
    rte_pktmbuf_free(chain);
    return false;
  }
  if (burst(ctx, &chain, 1) == 1) {
    book_sent(ctx, std::move(packet), counters);
    return true;
  }
  rte_pktmbuf_free(chain);
  unsent_[ctx.index].add();
  drop_on_send(ctx, std::move(packet), DropReason::tx_queue_full, counters);
  return true;
}

// Lets the driver look at what it is told to do. Returns how many it will do, from the first.
uint16_t DpdkVport::prepare(const ThreadContext& ctx, rte_mbuf** mbufs, uint16_t count) {
  const uint16_t queue = queue_of(ctx);
  const QueueLock lock(*this, queue);
  return rte_eth_tx_prepare(device_id_, queue, mbufs, count);
}

// What the driver will not do after all is finished in software.
void DpdkVport::prepare_all(const ThreadContext& ctx, rte_mbuf** mbufs, uint16_t count) {
  for (uint16_t at = 0; at < count; ++at) {
    at = static_cast<uint16_t>(at + prepare(ctx, mbufs + at, static_cast<uint16_t>(count - at)));
    if (at == count) return;
    dpdk::TxWork{}.tell(*mbufs[at]);
    complete_checksum(*MbufPool::packet_of(mbufs[at]));
  }
}

// Books packets as sent by the ports that they came in by: a frame that was sent is not ours any more, so the ports are
// noted before. Nearly always it is one port for all.
class InPorts {
 public:
  InPorts(const PacketBatch& batch, bool mixed) : first_(batch[0].in_port), mixed_(mixed) {
    if (!mixed_) return;
    for (size_t i = 0; i < batch.size(); ++i) each_[i] = batch[i].in_port;
  }
  // The first `sent` of the batch have left the switch.
  void book(ThreadContext& ctx, uint16_t sent) const {
    if (!mixed_) return ctx.ledger.port(first_).sent.add(sent);
    for (uint16_t i = 0; i < sent; ++i) ctx.ledger.port(each_[i]).sent.add();
  }

 private:
  const uint32_t first_;
  const bool mixed_;
  std::array<uint32_t, PacketBatch::kMaxPackets> each_;
};

// One pass over the packets: their lines come into the cache once. With `kCheck`: false, and nothing sent, if one
// cannot go as it is. Without: REQUIRES that all are in mbufs, in wire form but for what their mbufs tell the device to
// do. REQUIRES: there are some.
template <bool kCheck>
bool DpdkVport::transmit(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters) {
  rte_mbuf* mbufs[PacketBatch::kMaxPackets];
  const auto count = static_cast<uint16_t>(batch.size());
  const uint32_t max_frame = max_frame_, in_port = batch[0].in_port;
  uint32_t difference = 0;
  uint64_t bytes = 0;
  for (uint16_t i = 0; i < count; ++i) {
    Packet& packet = batch[i];
    const auto size = static_cast<uint32_t>(packet.size());
    if (kCheck && __builtin_expect(!is_ready(packet, max_frame), 0)) return false;
    difference |= packet.in_port ^ in_port;
    bytes += size;
    rte_mbuf* const mbuf = MbufPool::mbuf_of(&packet);
    // The frame lies in the mbuf's own buffer, whose address is in the line that is written here.
    mbuf->data_off = static_cast<uint16_t>(packet.data() - static_cast<uint8_t*>(mbuf->buf_addr));
    mbuf->data_len = static_cast<uint16_t>(size);
    mbuf->pkt_len = size;
    if (kCheck) mbuf->ol_flags = 0;
    mbufs[i] = mbuf;
  }
  const InPorts in_ports(batch, difference != 0);
  if (!kCheck && tx_offload_.any()) prepare_all(ctx, mbufs, count);
  batch.reset_released();  // they are the device's now
  const uint16_t sent = burst(ctx, mbufs, count);
  for (uint16_t i = sent; i < count; ++i) {
    bytes -= mbufs[i]->pkt_len;
    drop_on_send(ctx, PacketPtr(MbufPool::packet_of(mbufs[i])), DropReason::tx_queue_full, counters);
  }
  if (sent != count) unsent_[ctx.index].add(count - sent);
  counters.tx_packets.add(sent);
  counters.tx_bytes.add(bytes);
  in_ports.book(ctx, sent);
  return true;
}

uint16_t DpdkVport::burst(const ThreadContext& ctx, rte_mbuf** mbufs, uint16_t count) {
  const uint16_t queue = queue_of(ctx);
  const QueueLock lock(*this, queue);
  uint16_t sent = rte_eth_tx_burst(device_id_, queue, mbufs, count);
  // A device may take a part and have room again at once, having freed what it sent before.
  while (sent < count) {
    const uint16_t more = rte_eth_tx_burst(device_id_, queue, mbufs + sent, static_cast<uint16_t>(count - sent));
    if (more == 0) break;
    sent = static_cast<uint16_t>(sent + more);
  }
  return sent;
}

std::vector<std::shared_ptr<RxSource>> DpdkVport::sources() {
  if (!admin_up_.load()) return {};
  MutexLock lock(mutex_);
  return queues_;
}

VportState DpdkVport::state() const {
  MutexLock lock(mutex_);
  VportState state;
  state.admin_up = admin_up_.load();
  state.error = error_;
  if (device_ == nullptr) return state;
  device_->describe(state);
  state.carrier = state.carrier && state.admin_up;
  state.mtu = mtu_;
  state.link_resets = link_changes_.load();
  return state;
}

VportStats DpdkVport::stats() const {
  VportStats stats = counters_->total();
  uint64_t unsent = 0;
  for (const Counter& counter : unsent_) unsent += counter.get();
  MutexLock lock(mutex_);
  if (device_ != nullptr) device_->add_device_counts(unsent, stats);
  return stats;
}

Status DpdkVport::reconfigure(const VportConfig& config) {
  MutexLock lock(mutex_);
  if (device_ == nullptr || config.options != config_.options || config.mtu_request != config_.mtu_request) {
    return unimplemented("the device has to be made anew");
  }
  if (config.mac != config_.mac) {
    if (config.mac.is_zero()) return unimplemented("the device has to be made anew");
    VSWITCH_RETURN_IF_ERROR(device_->set_mac(config.mac).with_prefix("port " + name()));
  }
  config_ = config;
  return {};
}

Status DpdkVport::set_admin_up(bool up) {
  admin_up_.store(up);
  {
    MutexLock lock(mutex_);
    if (device_ != nullptr) device_->set_link_up(up);
  }
  host_.sources_changed(*this);
  return {};
}

Status validate(const VportConfig& config) { return parse_dpdk_options(config).status(); }

}  // namespace

constinit const VportType kDpdkVportType = {"dpdk", validate, DpdkVport::create, nullptr};

}  // namespace vswitch
