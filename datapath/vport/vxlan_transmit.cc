#include "datapath/vport/vxlan_transmit.h"

#include <errno.h>
#include <linux/udp.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "datapath/flow/extract.h"
#include "datapath/tunnel/ecn.h"
#include "datapath/tunnel/inner_frame.h"

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

void plan_ip_fields(const TunnelConfig& config, const TunnelMetadata* own, const Packet& packet, VxlanPlan& plan) {
  const InnerIp inner = find_inner_ip(packet.bytes());
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
  if (config.metadata_driven() && metadata == nullptr) return DropReason::tunnel_no_metadata;
  if (const auto reason = plan_addresses(config, metadata, plan)) return reason;
  if (const auto reason = plan_header(config, metadata, plan)) return reason;
  const TunnelMetadata* own = metadata != nullptr && !is_from_receive(*metadata) ? metadata : nullptr;
  const uint16_t flags = own != nullptr ? own->flags : uint16_t{0};
  plan.df = config.df || (flags & kTunnelDontFragment) != 0;
  // The kernel cuts a train of pieces only with checksums on: a super-frame gets them unless a person said no.
  const bool is_train = packet.offload.gso != GsoType::none;
  plan.checksum = config.csum.value_or(plan.remote.is_v6() || is_train) || (flags & kTunnelChecksum) != 0;
  plan.dst_port = own != nullptr && own->tp_dst ? own->tp_dst.host() : config.dst_port;
  plan.mark = config.mark.value_or(packet.skb_mark);
  plan_ip_fields(config, own, packet, plan);
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

void write_control(ControlWriter& control, const VxlanPlan& plan) {
  const int tos = plan.tos, ttl = plan.ttl;
  if (plan.remote.is_v6()) {
    if (plan.local.is_set()) {
      in6_pktinfo info{};
      std::memcpy(&info.ipi6_addr, plan.local.v6.bytes.data(), sizeof info.ipi6_addr);
      control.add(IPPROTO_IPV6, IPV6_PKTINFO, info);
    }
    control.add(IPPROTO_IPV6, IPV6_TCLASS, tos);
    control.add(IPPROTO_IPV6, IPV6_HOPLIMIT, ttl);
  } else {
    if (plan.local.is_set()) {
      in_pktinfo info{};
      info.ipi_spec_dst.s_addr = plan.local.v4.raw();
      control.add(IPPROTO_IP, IP_PKTINFO, info);
    }
    control.add(IPPROTO_IP, IP_TOS, tos);
    control.add(IPPROTO_IP, IP_TTL, ttl);
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

}  // namespace

// One thread's message buffers.
struct VxlanTransmitter::Scratch {
  static constexpr size_t kMessages = kMaxSegments;
  static_assert(kMessages >= PacketBatch::kMaxPackets);
  struct Control {
    alignas(cmsghdr) std::array<char, ControlWriter::kCapacity> bytes;
  };
  std::array<PacketPtr, kMessages> packets;
  std::array<mmsghdr, kMessages> messages;
  std::array<iovec, 2 * kMessages> vectors;
  std::array<sockaddr_in6, kMessages> addresses;
  std::array<Control, kMessages> controls;
  std::array<std::array<uint8_t, kVxlanHeaderSize>, kMessages> headers;
};

VxlanTransmitter::VxlanTransmitter() = default;
VxlanTransmitter::~VxlanTransmitter() = default;

VxlanTransmitter::Scratch& VxlanTransmitter::scratch(size_t thread) {
  if (!scratch_[thread]) scratch_[thread] = std::make_unique<Scratch>();
  return *scratch_[thread];
}

// One send() call. Messages gather in the scratch space as long as they go by one socket, and leave in order.
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
  void drop_gathered(size_t index, DropReason reason) { drop(std::move(s_.packets[index]), reason); }
  void book_gathered(size_t index);
  void gather(PacketPtr packet, const VxlanPlan& plan);
  void send_super_frame(PacketPtr packet, const VxlanPlan& plan);
  size_t gather_pieces(const Segmenter& segmenter, size_t first, const VxlanPlan& plan);
  bool send_train(const VxlanPlan& plan, size_t piece_size);

  ThreadContext& ctx_;
  Scratch& s_;
  VportCounters::Slot& counters_;
  int fd_ = -1;
  size_t count_ = 0;  // gathered
};

void VxlanTransmitter::Sender::send(PacketPtr packet, const TunnelConfig& config, VxlanSenders& senders) {
  VxlanPlan plan;
  if (const auto reason = plan_vxlan(config, *packet, plan)) return drop(std::move(packet), *reason);
  const UdpSenderOptions way{plan.remote.family, plan.df, plan.checksum};
  const int fd = senders.fd(way, flow_hash_of(*packet));
  if (fd < 0) return drop(std::move(packet), DropReason::tunnel_push_error);
  if (fd != fd_ || count_ == Scratch::kMessages) flush();
  fd_ = fd;
  if (packet->offload.gso != GsoType::none) return send_super_frame(std::move(packet), plan);
  if (!complete_checksum(*packet)) return drop(std::move(packet), DropReason::tunnel_push_error);
  gather(std::move(packet), plan);
}

void VxlanTransmitter::Sender::gather(PacketPtr packet, const VxlanPlan& plan) {
  const size_t i = count_++;
  write_vxlan_header(plan.header, s_.headers[i]);
  s_.vectors[2 * i] = {s_.headers[i].data(), kVxlanHeaderSize};
  s_.vectors[2 * i + 1] = {packet->data(), packet->size()};
  ControlWriter control(s_.controls[i].bytes.data());
  write_control(control, plan);
  msghdr& header = s_.messages[i].msg_hdr;
  header = {};
  header.msg_name = &s_.addresses[i];
  header.msg_namelen = write_address(s_.addresses[i], plan);
  header.msg_iov = &s_.vectors[2 * i];
  header.msg_iovlen = 2;
  header.msg_control = s_.controls[i].bytes.data();
  header.msg_controllen = control.used();
  s_.packets[i] = std::move(packet);
}

void VxlanTransmitter::Sender::book_gathered(size_t index) {
  const PacketPtr packet = std::move(s_.packets[index]);
  counters_.tx_packets.add();
  counters_.tx_bytes.add(packet->size());
  ctx_.ledger.port(packet->in_port).sent.add();
}

void VxlanTransmitter::Sender::flush() {
  for (size_t next = 0; next < count_;) {
    const int sent = sendmmsg(fd_, &s_.messages[next], static_cast<unsigned>(count_ - next), MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent > 0) {
      for (const size_t end = next + static_cast<size_t>(sent); next < end; ++next) book_gathered(next);
      continue;
    }
    // The error is that of the first message; the ones behind it get their own try, unless there is no room for any.
    const DropReason reason = vxlan_send_error(sent < 0 ? errno : EAGAIN);
    do {
      drop_gathered(next++, reason);
    } while (reason == DropReason::tx_queue_full && next < count_);
  }
  count_ = 0;
}

// Cuts the frame in rounds of as many pieces as fit one train and the pool gives, and sends each round before the next
// is cut, so that a small pool delays nothing but itself.
void VxlanTransmitter::Sender::send_super_frame(PacketPtr packet, const VxlanPlan& plan) {
  flush();
  const Segmenter segmenter(*packet);
  if (!segmenter.valid()) return drop(std::move(packet), DropReason::tunnel_push_error);
  ctx_.ledger.port(packet->in_port).copies.add(segmenter.count() - 1);
  for (size_t next = 0; next < segmenter.count();) {
    const size_t gathered = gather_pieces(segmenter, next, plan);
    if (gathered == 0) {
      for (; next < segmenter.count(); ++next) {
        count_vxlan_drop(DropReason::rx_no_buffer, counters_);
        ctx_.ledger.drop(packet->in_port, DropReason::rx_no_buffer);
      }
      return;
    }
    next += gathered;
    const size_t piece_size = kVxlanHeaderSize + s_.packets[0]->size();
    if (!plan.checksum || gathered == 1 || !send_train(plan, piece_size)) flush();
  }
}

size_t VxlanTransmitter::Sender::gather_pieces(const Segmenter& segmenter, size_t first, const VxlanPlan& plan) {
  size_t bytes = 0;
  for (size_t i = first; i < segmenter.count() && count_ < kMaxSegments; ++i) {
    const size_t size = kVxlanHeaderSize + segmenter.segment_size(i);
    if (bytes + size > kMaxTrainBytes) break;
    PacketPtr piece = segmenter.build(i, ctx_.pool);
    if (!piece) break;
    bytes += size;
    gather(std::move(piece), plan);
  }
  return count_;
}

// Sends everything gathered as one message, to be cut by the kernel (or the card) every piece_size bytes. False:
// nothing was sent or booked; the pieces are to be sent one by one, which works, or tells what is wrong.
bool VxlanTransmitter::Sender::send_train(const VxlanPlan& plan, size_t piece_size) {
  ControlWriter control(s_.controls[0].bytes.data());
  write_control(control, plan);
  control.add(IPPROTO_UDP, UDP_SEGMENT, static_cast<uint16_t>(piece_size));
  msghdr header = s_.messages[0].msg_hdr;
  header.msg_iovlen = 2 * count_;
  header.msg_controllen = control.used();
  ssize_t sent;
  do {
    sent = sendmsg(fd_, &header, MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    if (errno != EMSGSIZE || !plan.df) return false;
    // Segments too big for the path: so would each be alone.
    for (size_t i = 0; i < count_; ++i) drop_gathered(i, DropReason::tunnel_too_big);
  } else {
    for (size_t i = 0; i < count_; ++i) book_gathered(i);
  }
  count_ = 0;
  return true;
}

void VxlanTransmitter::send(ThreadContext& ctx, PacketBatch& batch, const TunnelConfig& config, VxlanSenders& senders,
                            VportCounters::Slot& counters) {
  Sender sender(ctx, scratch(ctx.index), counters);
  for (size_t i = 0; i < batch.size(); ++i) sender.send(batch.release(i), config, senders);
  sender.flush();
  batch.reset_released();
}

}  // namespace vswitch
