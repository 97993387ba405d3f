#include "datapath/vport/vxlan_transmit.h"

#include <errno.h>
#include <linux/udp.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "datapath/flow/extract.h"
#include "datapath/tunnel/ecn.h"

namespace vswitch {

// ---------------------------------------------------------------- planning

namespace {

// Metadata that came with a received packet, as opposed to metadata that rules made for sending.
bool is_from_receive(const TunnelMetadata& metadata) { return bool(metadata.tp_src); }

IpAddress metadata_destination(const TunnelMetadata& metadata) {
  return metadata.is_v6() ? IpAddress::from_v6(metadata.dst6) : IpAddress::from_v4(metadata.dst);
}

// Not set when the metadata has none of that family.
IpAddress metadata_source(const TunnelMetadata& metadata, IpAddress::Family family) {
  if (family == IpAddress::Family::v6) {
    return metadata.src6.is_zero() ? IpAddress{} : IpAddress::from_v6(metadata.src6);
  }
  return metadata.src ? IpAddress::from_v4(metadata.src) : IpAddress{};
}

std::optional<DropReason> plan_addresses(const TunnelConfig& config, const TunnelMetadata* metadata, VxlanPlan& plan) {
  plan.remote = config.remote_flow ? metadata_destination(*metadata) : config.remote;
  if (plan.remote.is_unspecified()) return DropReason::tunnel_no_destination;
  plan.local = config.local;
  if (config.local_flow && !is_from_receive(*metadata)) plan.local = metadata_source(*metadata, plan.remote.family);
  if (plan.local.is_set() && plan.local.family != plan.remote.family) return DropReason::invalid_tunnel_metadata;
  return std::nullopt;
}

std::optional<DropReason> plan_header(const TunnelConfig& config, const TunnelMetadata* metadata, VxlanPlan& plan) {
  const uint64_t key = config.out_key.flow ? metadata->id.host() : config.out_key.value;
  if (key > kMaxVni) return DropReason::invalid_tunnel_metadata;
  plan.header = {.vni = static_cast<uint32_t>(key)};
  if (config.gbp && metadata != nullptr && (metadata->gbp_id || metadata->gbp_flags != 0)) {
    plan.header.gbp = true;
    plan.header.gbp_id = metadata->gbp_id;
    plan.header.gbp_flags = metadata->gbp_flags;
  }
  return std::nullopt;
}

void plan_ip_fields(const TunnelConfig& config, const TunnelMetadata* own, const InnerIp& inner, VxlanPlan& plan) {
  const uint8_t dscp = config.tos_inherit ? inner.tos : own != nullptr && own->tos != 0 ? own->tos : config.tos;
  plan.tos = ecn_encapsulate(dscp, inner.tos);
  plan.ttl = config.ttl_inherit && inner ? inner.ttl : config.ttl;
  if (own != nullptr && own->ttl != 0) plan.ttl = own->ttl;
  // An inner TTL of 0 is nonsense, but the kernel would refuse it as an argument.
  if (plan.ttl == 0) plan.ttl = config.ttl;
}

}  // namespace

std::optional<DropReason> plan_vxlan(const TunnelConfig& config, const Packet& packet, VxlanPlan& plan) {
  const TunnelMetadata* metadata = packet.has_tunnel ? &packet.tunnel : nullptr;
  const InnerIp inner = find_inner_ip(packet.bytes());
  if (const auto reason = plan_vxlan(config, metadata, inner, packet.skb_mark, plan)) return reason;
  // The kernel cuts a train of pieces only with checksums on: a super-frame gets them unless a person said no.
  if (packet.offload.gso != GsoType::none) plan.checksum = plan.checksum || config.csum.value_or(true);
  return std::nullopt;
}

std::optional<DropReason> plan_vxlan(const TunnelConfig& config, const TunnelMetadata* metadata, const InnerIp& inner,
                                     uint32_t skb_mark, VxlanPlan& plan) {
  if (config.metadata_driven() && metadata == nullptr) return DropReason::tunnel_no_metadata;
  if (const auto reason = plan_addresses(config, metadata, plan)) return reason;
  if (const auto reason = plan_header(config, metadata, plan)) return reason;
  const TunnelMetadata* own = metadata != nullptr && !is_from_receive(*metadata) ? metadata : nullptr;
  const uint16_t flags = own != nullptr ? own->flags : uint16_t{0};
  plan.df = config.df || (flags & kTunnelDontFragment) != 0;
  plan.checksum = config.csum.value_or(plan.remote.is_v6()) || (flags & kTunnelChecksum) != 0;
  plan.dst_port = own != nullptr && own->tp_dst ? own->tp_dst.host() : config.dst_port;
  plan.mark = config.mark.value_or(skb_mark);
  plan_ip_fields(config, own, inner, plan);
  return std::nullopt;
}

DropReason vxlan_send_error(int error) {
  switch (error) {
    case EMSGSIZE:
      return DropReason::tunnel_too_big;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EADDRNOTAVAIL:
    case EACCES:  // a prohibit route
    case EINVAL:  // a blackhole route, or a source address that is not ours (any more)
      return DropReason::tunnel_no_route;
    case ELOOP:
      return DropReason::tunnel_loop;
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
      return DropReason::tx_queue_full;
    case EBADF:
      return DropReason::tunnel_push_error;
    default:
      return DropReason::tx_error;
  }
}

void count_vxlan_drop(DropReason reason, VportCounters::Slot& counters) {
  switch (reason) {
    case DropReason::tunnel_no_metadata:
    case DropReason::tunnel_no_destination:
    case DropReason::invalid_tunnel_metadata:
    case DropReason::tx_queue_full:
    case DropReason::rx_no_buffer:
    case DropReason::port_down:
      counters.tx_dropped.add();
      return;
    case DropReason::tunnel_no_route:
      counters.tx_carrier_errors.add();
      break;
    case DropReason::tunnel_loop:
      counters.collisions.add();
      break;
    default:
      break;
  }
  counters.tx_errors.add();
}

// ---------------------------------------------------------------- sending

namespace {

constexpr size_t kMaxSegments = 64;  // of one train: the kernel's UDP_MAX_SEGMENTS before 6.9
constexpr size_t kMaxTrainBytes = 65535 - 40 - 8;
constexpr size_t kMinRun = 4;  // equal packets that leave as a train
constexpr size_t kMostAtOnce = 16 * PacketBatch::kMaxPackets;

// Control data of one message: source address, TOS, TTL, mark, segment size.
class ControlWriter {
 public:
  static constexpr size_t kCapacity = CMSG_SPACE(sizeof(in6_pktinfo)) + 4 * CMSG_SPACE(sizeof(int));

  explicit ControlWriter(char* buffer) : buffer_(buffer) {}
  template <typename T>
  void add(int level, int type, const T& value) {
    auto* header = reinterpret_cast<cmsghdr*>(buffer_ + used_);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(sizeof value);
    std::memcpy(CMSG_DATA(header), &value, sizeof value);
    used_ += CMSG_SPACE(sizeof value);
  }
  size_t used() const { return used_; }

 private:
  char* buffer_;
  size_t used_ = 0;
};

// Only what differs from the socket's own.
void write_control(ControlWriter& control, const VxlanPlan& plan) {
  const int tos = plan.tos, ttl = plan.ttl;
  if (plan.remote.is_v6()) {
    if (plan.local.is_set()) {
      in6_pktinfo info{};
      std::memcpy(&info.ipi6_addr, plan.local.v6.bytes.data(), sizeof info.ipi6_addr);
      control.add(IPPROTO_IPV6, IPV6_PKTINFO, info);
    }
    if (tos != 0) control.add(IPPROTO_IPV6, IPV6_TCLASS, tos);
    if (ttl != kUdpSenderTtl) control.add(IPPROTO_IPV6, IPV6_HOPLIMIT, ttl);
  } else {
    if (plan.local.is_set()) {
      in_pktinfo info{};
      info.ipi_spec_dst.s_addr = plan.local.v4.raw();
      control.add(IPPROTO_IP, IP_PKTINFO, info);
    }
    if (tos != 0) control.add(IPPROTO_IP, IP_TOS, tos);
    if (ttl != kUdpSenderTtl) control.add(IPPROTO_IP, IP_TTL, ttl);
  }
  if (plan.mark != 0) control.add(SOL_SOCKET, SO_MARK, plan.mark);
}

socklen_t write_address(sockaddr_in6& storage, const VxlanPlan& plan) {
  if (plan.remote.is_v6()) {
    storage = {};
    storage.sin6_family = AF_INET6;
    storage.sin6_port = htons(plan.dst_port);
    std::memcpy(&storage.sin6_addr, plan.remote.v6.bytes.data(), sizeof storage.sin6_addr);
    return sizeof storage;
  }
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(plan.dst_port);
  v4.sin_addr.s_addr = plan.remote.v4.raw();
  std::memcpy(&storage, &v4, sizeof v4);
  return sizeof v4;
}

uint32_t flow_hash_of(Packet& packet) {
  if (packet.rss_hash == 0) {
    FlowKey key;
    if (!extract_flow_key(packet, key)) return 0;
  }
  return packet.rss_hash;
}

// Packets in the order of the source ports that they leave from, so that those of one socket leave by one system call,
// or even as a train. Those of one port, and so those of a flow, keep their order.
class BySourcePort {
 public:
  BySourcePort(std::span<PacketBatch> batches, const VxlanSenders& senders) {
    last_.fill(kNone);
    for (size_t b = 0; b < batches.size(); ++b) {
      for (size_t i = 0; i < batches[b].size(); ++i) {
        append(senders.place(flow_hash_of(batches[b][i])), static_cast<uint16_t>(b * PacketBatch::kMaxPackets + i));
      }
    }
  }
  // Calls visit(batch, index in it).
  template <typename Visit>
  void for_each(Visit&& visit) const {
    for (size_t place = 0; place < places_; ++place) {
      for (uint16_t i = first_[place]; i != kNone; i = next_[i]) {
        visit(i / PacketBatch::kMaxPackets, i % PacketBatch::kMaxPackets);
      }
    }
  }

 private:
  static constexpr uint16_t kNone = 0xffff;
  void append(size_t place, uint16_t packet) {
    uint16_t& last = last_[place];
    (last == kNone ? first_[places_++] : next_[last]) = packet;
    next_[packet] = kNone;
    last = packet;
  }
  std::array<uint16_t, VxlanSenders::kPortsPerWay> last_;   // by place
  std::array<uint16_t, VxlanSenders::kPortsPerWay> first_;  // of the places that have packets
  size_t places_ = 0;
  std::array<uint16_t, kMostAtOnce> next_;
};

}  // namespace

// One thread's message buffers. A frame that waits to be sent is an entry: a header part, in the scratch space, and a
// payload part, in the packet that it is or was cut from.
struct VxlanTransmitter::Scratch {
  static constexpr size_t kEntries = kMaxSegments;
  static constexpr size_t kHeaderRoom = 256;
  static_assert(kEntries >= PacketBatch::kMaxPackets);
  struct Control {
    alignas(cmsghdr) std::array<char, ControlWriter::kCapacity> bytes;
  };
  struct Entry {
    uint32_t frame_size;
    uint32_t in_port;
  };
  std::array<Entry, kEntries> entries;
  std::array<mmsghdr, kEntries> messages;
  std::array<iovec, 2 * kEntries> vectors;
  std::array<sockaddr_in6, kEntries> addresses;
  std::array<Control, kEntries> controls;
  alignas(64) std::array<std::array<uint8_t, kHeaderRoom>, kEntries> headers;
  std::array<PacketPtr, kEntries> packets;  // that entries lie in
};

VxlanTransmitter::VxlanTransmitter() = default;
VxlanTransmitter::~VxlanTransmitter() = default;

VxlanTransmitter::Scratch& VxlanTransmitter::scratch(size_t thread) {
  if (!scratch_[thread]) scratch_[thread] = std::make_unique<Scratch>();
  return *scratch_[thread];
}

// One send() call. Entries gather in the scratch space as long as they go by one socket, and leave in order: as single
// messages, or as a train if they are the pieces of super-frames for one place.
class VxlanTransmitter::Sender {
 public:
  Sender(ThreadContext& ctx, Scratch& scratch, VportCounters::Slot& counters)
      : ctx_(ctx), s_(scratch), counters_(counters) {}

  void send(PacketPtr packet, const TunnelConfig& config, VxlanSenders& senders);
  void flush();

 private:
  void drop(PacketPtr packet, DropReason reason) {
    count_vxlan_drop(reason, counters_);
    ctx_.drop(std::move(packet), reason);
  }
  void book_dropped(uint32_t in_port, DropReason reason) {
    count_vxlan_drop(reason, counters_);
    ctx_.ledger.drop(in_port, reason);
  }
  void book_sent(size_t begin, size_t end);
  void gather(PacketPtr packet, const VxlanPlan& plan);
  void gather_piece(const Segmenter& segmenter, size_t index, uint32_t in_port);
  void send_super_frame(PacketPtr packet, const VxlanPlan& plan);
  void copy_super_frame(const Segmenter& segmenter, const Packet& packet, const VxlanPlan& plan);
  bool joins_train(const VxlanPlan& plan, size_t piece_size) const;
  bool fits_run(const VxlanPlan& plan, size_t size) const;
  bool send_run();
  bool send_train();
  void address_message(size_t entry, const VxlanPlan& plan);
  void send_messages();

  ThreadContext& ctx_;
  Scratch& s_;
  VportCounters::Slot& counters_;
  int fd_ = -1;
  size_t count_ = 0;    // entries gathered
  size_t packets_ = 0;  // that they lie in
  // Of the train that the entries are; piece_size_ 0: they are single messages.
  VxlanPlan train_;
  size_t piece_size_ = 0;  // VXLAN header included; of all but the last
  size_t train_bytes_ = 0;
  bool complete_ = false;  // the last one was shorter: nothing can follow
  // Single messages that could as well be a train: same plan, same size; their size, 0: they could not.
  size_t run_size_ = 0;
  int checksum_fd_ = -1;  // the socket beside fd_ that makes checksums; -1: a person said no
};

void VxlanTransmitter::Sender::send(PacketPtr packet, const TunnelConfig& config, VxlanSenders& senders) {
  VxlanPlan plan;
  if (const auto reason = plan_vxlan(config, *packet, plan)) return drop(std::move(packet), *reason);
  const UdpSenderOptions way{plan.remote.family, plan.df, plan.checksum};
  const int fd = senders.fd(way, flow_hash_of(*packet));
  if (fd < 0) return drop(std::move(packet), DropReason::tunnel_push_error);
  if (fd != fd_) {
    flush();
    fd_ = fd;
    const UdpSenderOptions with_checksum{plan.remote.family, plan.df, true};
    checksum_fd_ = config.csum.value_or(true) ? senders.fd(with_checksum, flow_hash_of(*packet)) : -1;
  }
  if (packet->offload.gso != GsoType::none) return send_super_frame(std::move(packet), plan);
  if (!complete_checksum(*packet)) return drop(std::move(packet), DropReason::tunnel_push_error);
  gather(std::move(packet), plan);
}

void VxlanTransmitter::Sender::gather(PacketPtr packet, const VxlanPlan& plan) {
  const size_t size = kVxlanHeaderSize + packet->size();
  // What leaves as a train leaves without those that cannot be part of it.
  const bool ends_run = count_ >= kMinRun && run_size_ != 0 && checksum_fd_ >= 0 && !fits_run(plan, size);
  if (piece_size_ != 0 || count_ == Scratch::kEntries || ends_run) flush();
  if (count_ == 0) {
    train_ = plan;
    run_size_ = size;
  } else if (!fits_run(plan, size)) {
    run_size_ = 0;
  }
  train_bytes_ += size;
  const size_t i = count_++;
  write_vxlan_header(plan.header, std::span(s_.headers[i]).first<kVxlanHeaderSize>());
  s_.vectors[2 * i] = {s_.headers[i].data(), kVxlanHeaderSize};
  s_.vectors[2 * i + 1] = {packet->data(), packet->size()};
  s_.entries[i] = {static_cast<uint32_t>(packet->size()), packet->in_port};
  address_message(i, plan);
  s_.packets[packets_++] = std::move(packet);
}

// Makes entry `entry` a message of its own.
void VxlanTransmitter::Sender::address_message(size_t entry, const VxlanPlan& plan) {
  ControlWriter control(s_.controls[entry].bytes.data());
  write_control(control, plan);
  msghdr& header = s_.messages[entry].msg_hdr;
  header = {};
  header.msg_name = &s_.addresses[entry];
  header.msg_namelen = write_address(s_.addresses[entry], plan);
  header.msg_iov = &s_.vectors[2 * entry];
  header.msg_iovlen = 2;
  header.msg_control = s_.controls[entry].bytes.data();
  header.msg_controllen = control.used();
}

void VxlanTransmitter::Sender::book_sent(size_t begin, size_t end) {
  uint64_t bytes = 0;
  for (size_t i = begin; i < end; ++i) {
    bytes += s_.entries[i].frame_size;
    ctx_.ledger.port(s_.entries[i].in_port).sent.add();
  }
  counters_.tx_packets.add(end - begin);
  counters_.tx_bytes.add(bytes);
}

void VxlanTransmitter::Sender::flush() {
  if (count_ == 0) return;
  const bool left_at_once = piece_size_ == 0 ? send_run() : count_ > 1 && train_.checksum && send_train();
  if (!left_at_once) {
    if (piece_size_ != 0) {
      for (size_t i = 0; i < count_; ++i) address_message(i, train_);
    }
    send_messages();
  }
  for (size_t i = 0; i < packets_; ++i) s_.packets[i].reset();
  count_ = packets_ = piece_size_ = train_bytes_ = 0;
  complete_ = false;
}

void VxlanTransmitter::Sender::send_messages() {
  for (size_t next = 0; next < count_;) {
    const int sent = sendmmsg(fd_, &s_.messages[next], static_cast<unsigned>(count_ - next), MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent > 0) {
      book_sent(next, next + static_cast<size_t>(sent));
      next += static_cast<size_t>(sent);
      continue;
    }
    // The error is that of the first message; the ones behind it get their own try, unless there is no room for any.
    const DropReason reason = vxlan_send_error(sent < 0 ? errno : EAGAIN);
    do {
      book_dropped(s_.entries[next++].in_port, reason);
    } while (reason == DropReason::tx_queue_full && next < count_);
  }
}

// One message of many packets costs the kernel a fraction of many messages, checksums included.
bool VxlanTransmitter::Sender::fits_run(const VxlanPlan& plan, size_t size) const {
  return size == run_size_ && train_bytes_ + size <= kMaxTrainBytes && plan == train_;
}

bool VxlanTransmitter::Sender::send_run() {
  if (count_ < kMinRun || run_size_ == 0 || checksum_fd_ < 0) return false;
  const int fd = std::exchange(fd_, checksum_fd_);
  piece_size_ = run_size_;
  const bool sent = send_train();
  fd_ = fd;
  piece_size_ = 0;
  return sent;
}

bool VxlanTransmitter::Sender::joins_train(const VxlanPlan& plan, size_t piece_size) const {
  if (count_ == Scratch::kEntries || complete_) return false;
  return piece_size <= piece_size_ && train_bytes_ + piece_size <= kMaxTrainBytes && plan == train_;
}

// Adds its pieces to the train so far, if that goes to the same place: what is left over of one super-frame leaves with
// the beginning of the next.
void VxlanTransmitter::Sender::send_super_frame(PacketPtr packet, const VxlanPlan& plan) {
  const Segmenter segmenter(*packet);
  if (!segmenter.valid()) return drop(std::move(packet), DropReason::tunnel_push_error);
  const uint32_t in_port = packet->in_port;
  ctx_.ledger.port(in_port).copies.add(segmenter.count() - 1);
  if (kVxlanHeaderSize + segmenter.header_size() > Scratch::kHeaderRoom) {
    return copy_super_frame(segmenter, *packet, plan);
  }
  const Packet* const frame = packet.get();
  for (size_t i = 0; i < segmenter.count(); ++i) {
    const size_t piece_size = kVxlanHeaderSize + segmenter.segment_size(i);
    if (piece_size_ == 0 || !joins_train(plan, piece_size)) {
      // The packet has to outlive the entries that lie in it, and this flush those of others only.
      const bool held = packets_ != 0 && s_.packets[packets_ - 1].get() == frame;
      PacketPtr keep = held ? std::move(s_.packets[packets_ - 1]) : nullptr;
      flush();
      if (keep) packet = std::move(keep);
      train_ = plan;
      piece_size_ = piece_size;
    }
    if (packet) s_.packets[packets_++] = std::move(packet);
    gather_piece(segmenter, i, in_port);
    complete_ = piece_size < piece_size_;
  }
}

void VxlanTransmitter::Sender::gather_piece(const Segmenter& segmenter, size_t index, uint32_t in_port) {
  const size_t i = count_++;
  uint8_t* header = s_.headers[i].data();
  write_vxlan_header(train_.header, std::span(s_.headers[i]).first<kVxlanHeaderSize>());
  segmenter.write_headers(index, header + kVxlanHeaderSize);
  const std::span<const uint8_t> payload = segmenter.payload(index);
  s_.vectors[2 * i] = {header, kVxlanHeaderSize + segmenter.header_size()};
  // sendmsg() only reads it.
  s_.vectors[2 * i + 1] = {const_cast<uint8_t*>(payload.data()), payload.size()};
  const size_t size = segmenter.segment_size(index);
  s_.entries[i] = {static_cast<uint32_t>(size), in_port};
  train_bytes_ += kVxlanHeaderSize + size;
}

// For headers of unusual length: the pieces become packets.
void VxlanTransmitter::Sender::copy_super_frame(const Segmenter& segmenter, const Packet& packet,
                                                const VxlanPlan& plan) {
  for (size_t i = 0; i < segmenter.count(); ++i) {
    if (PacketPtr piece = segmenter.build(i, ctx_.pool)) {
      gather(std::move(piece), plan);
    } else {
      book_dropped(packet.in_port, DropReason::rx_no_buffer);
    }
  }
}

// Sends everything gathered as one message, to be cut by the kernel (or the card) every piece_size_ bytes. False:
// nothing was sent or booked; the pieces are to be sent one by one, which works, or tells what is wrong.
bool VxlanTransmitter::Sender::send_train() {
  address_message(0, train_);
  ControlWriter control(s_.controls[0].bytes.data());
  write_control(control, train_);
  control.add(IPPROTO_UDP, UDP_SEGMENT, static_cast<uint16_t>(piece_size_));
  msghdr header = s_.messages[0].msg_hdr;
  header.msg_iovlen = 2 * count_;
  header.msg_controllen = control.used();
  ssize_t sent;
  do {
    sent = sendmsg(fd_, &header, MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) {
    book_sent(0, count_);
    return true;
  }
  if (errno != EMSGSIZE || !train_.df) return false;
  // Segments too big for the path: so would each be alone.
  for (size_t i = 0; i < count_; ++i) book_dropped(s_.entries[i].in_port, DropReason::tunnel_too_big);
  return true;
}

void VxlanTransmitter::send(ThreadContext& ctx, std::span<PacketBatch> batches, const TunnelConfig& config,
                            VxlanSenders& senders, VportCounters::Slot& counters) {
  constexpr size_t kBatches = kMostAtOnce / PacketBatch::kMaxPackets;
  for (; !batches.empty(); batches = batches.subspan(std::min(kBatches, batches.size()))) {
    const auto now = batches.first(std::min(kBatches, batches.size()));
    Sender sender(ctx, scratch(ctx.index), counters);
    BySourcePort(now, senders).for_each([&](size_t batch, size_t i) {  //
      sender.send(now[batch].release(i), config, senders);
    });
    sender.flush();
    for (PacketBatch& batch : now) batch.reset_released();
  }
}

}  // namespace vswitch
