#include "datapath/vport/vxlan_endpoint.h"

#include <errno.h>
#include <fmt/format.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "datapath/base/rcu.h"
#include "datapath/tunnel/ecn.h"
#include "datapath/tunnel/inner_frame.h"
#include "datapath/tunnel/vxlan_header.h"
#include "datapath/vport/tx_finish.h"
#include "datapath/vport/udp_socket.h"

namespace vswitch {

// ---------------------------------------------------------------- port lookup

namespace {

Ipv6Address as_bytes(const IpAddress& address) {
  if (address.is_v6()) return address.v6;
  Ipv6Address bytes;
  std::memcpy(bytes.bytes.data(), &address.v4, sizeof address.v4);
  return bytes;
}

// Kinds of configuration, the most specific first: bit order follows the order of preference.
constexpr uint32_t kKindKeyFlow = 6, kKindRemoteFlow = 3;           // added to
constexpr uint32_t kLocalGiven = 0, kLocalAny = 1, kLocalFlow = 2;  // one of these

uint32_t kind_of(const TunnelIdentity& identity) {
  const uint32_t local = identity.local.is_set() ? kLocalGiven : identity.local_flow ? kLocalFlow : kLocalAny;
  return (identity.in_key.flow ? kKindKeyFlow : 0) + (identity.remote.is_set() ? 0 : kKindRemoteFlow) + local;
}

}  // namespace

size_t VxlanPortTable::KeyHash::operator()(const Key& key) const {
  uint64_t hash = (uint64_t{key.kind} << 32 | key.vni) * 0x9e3779b97f4a7c15u;
  for (const Ipv6Address* address : {&key.remote, &key.local}) {
    for (size_t i = 0; i < 16; i += 8) {
      hash = (hash ^ (hash >> 29) ^ load_unaligned<uint64_t>(address->bytes.data() + i)) * 0xbf58476d1ce4e5b9u;
    }
  }
  return hash ^ (hash >> 32);
}

VxlanPortTable::Key VxlanPortTable::make_key(uint32_t kind, uint32_t vni, const Addresses& outer) {
  Key key;
  key.kind = kind;
  if (kind < kKindKeyFlow) key.vni = vni;
  if (kind % kKindKeyFlow < kKindRemoteFlow) key.remote = outer.remote;
  if (kind % kKindRemoteFlow == kLocalGiven) key.local = outer.local;
  return key;
}

void VxlanPortTable::add(const TunnelIdentity& identity, std::shared_ptr<VxlanReceiver> receiver) {
  const uint32_t kind = kind_of(identity);
  const Addresses outer{as_bytes(identity.remote), as_bytes(identity.local)};
  kinds_ |= 1u << kind;
  ports_.insert_or_assign(make_key(kind, static_cast<uint32_t>(identity.in_key.value), outer), std::move(receiver));
}

VxlanReceiver* VxlanPortTable::find(uint32_t vni, const Addresses& outer) const {
  for (uint32_t kind = 0; kind < kKinds; ++kind) {
    if ((kinds_ & 1u << kind) == 0) continue;
    if (const auto it = ports_.find(make_key(kind, vni, outer)); it != ports_.end()) return it->second.get();
  }
  return nullptr;
}

// ---------------------------------------------------------------- endpoint

Result<std::shared_ptr<VxlanEndpoint>> VxlanEndpoint::open(IpAddress::Family family, uint16_t udp_port) {
  Result<UniqueFd> fd = open_udp_receiver(family, udp_port);
  if (!fd.ok()) return fd.status();
  return std::shared_ptr<VxlanEndpoint>(new VxlanEndpoint(family, udp_port, std::move(fd).value()));
}

VxlanEndpoint::VxlanEndpoint(IpAddress::Family family, uint16_t udp_port, UniqueFd fd)
    : family_(family),
      udp_port_(to_be16(udp_port)),
      fd_(std::move(fd)),
      table_(new VxlanPortTable()),
      burst_(kMinBurst) {
  void* memory = mmap(nullptr, kMessages * kMessageBuffer, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  buffers_ = static_cast<uint8_t*>(memory);
}

VxlanEndpoint::~VxlanEndpoint() {
  delete table_.load(std::memory_order_relaxed);
  munmap(buffers_, kMessages * kMessageBuffer);
}

void VxlanEndpoint::publish(std::unique_ptr<const VxlanPortTable> table) {
  rcu::retire_delete(table_.exchange(table.release(), std::memory_order_acq_rel));
}

size_t VxlanEndpoint::receive(ThreadContext& ctx, PacketBatch& batch) {
  const size_t before = batch.size();
  // The table may have changed since the last call, and what it named may be gone.
  datagram_.last_receiver = nullptr;
  coalescing_ = false;
  bool has_read = false;
  while (!batch.full()) {
    if (datagram_.rest.empty()) {
      if (next_message_ == message_count_) {
        if (has_read || !read_messages(ctx)) break;
        has_read = true;
      }
      begin_datagram(next_message_);
    }
    const size_t size = std::min(datagram_.piece_size, datagram_.rest.size());
    const bool is_all = size == messages_[next_message_].msg_len;
    PacketPtr own = is_all ? std::move(packets_[next_message_]) : nullptr;
    take_piece(ctx, batch, datagram_.rest.first(size), std::move(own));
    datagram_.rest = datagram_.rest.subspan(size);
    if (datagram_.rest.empty()) packets_[next_message_++].reset();
  }
  if (coalescing_) coalescer_.finish();
  keep_unread();
  return batch.size() - before;
}

bool VxlanEndpoint::read_messages(ThreadContext& ctx) {
  const size_t headroom = Packet::kDefaultHeadroom - kVxlanHeaderSize;
  const bool fits = ctx.pool.buffer_size() >= headroom + kMessageBuffer;
  for (size_t i = 0; i < burst_; ++i) {
    if (fits) packets_[i] = ctx.pool.allocate(headroom);
    vectors_[i] = {packets_[i] ? packets_[i]->data() : buffer(i), kMessageBuffer};
    messages_[i].msg_hdr = {.msg_name = &senders_[i],
                            .msg_namelen = sizeof senders_[i],
                            .msg_iov = &vectors_[i],
                            .msg_iovlen = 1,
                            .msg_control = controls_[i].bytes.data(),
                            .msg_controllen = controls_[i].bytes.size(),
                            .msg_flags = 0};
  }
  const int count = recvmmsg(fd_.get(), messages_.data(), static_cast<unsigned>(burst_), MSG_DONTWAIT, nullptr);
  next_message_ = 0;
  message_count_ = count > 0 ? static_cast<size_t>(count) : 0;
  // Last taken, first given back, so that the pool gives the same ones again.
  for (size_t i = burst_; i > message_count_; --i) packets_[i - 1].reset();
  burst_ = message_count_ == burst_ ? kMessages : std::max(kMinBurst, message_count_);
  return message_count_ != 0;
}

// What is left waits in our own memory: the next call may come from another thread, and this one's pool may be gone.
void VxlanEndpoint::keep_unread() {
  for (size_t i = next_message_; i < message_count_; ++i) {
    if (!packets_[i]) continue;
    std::memcpy(buffer(i), packets_[i]->data(), messages_[i].msg_len);
    packets_[i].reset();
    if (i == next_message_ && !datagram_.rest.empty()) {
      datagram_.rest = {buffer(i) + messages_[i].msg_len - datagram_.rest.size(), datagram_.rest.size()};
    }
  }
}

// An empty datagram leaves a piece of no bytes, which take_piece() refuses and books as any other.
void VxlanEndpoint::begin_datagram(size_t index) {
  const size_t size = messages_[index].msg_len;
  const std::span<const uint8_t> bytes(packets_[index] ? packets_[index]->data() : buffer(index), size);
  uint16_t gso_size = 0;
  datagram_ = {};
  datagram_.rest = bytes;
  datagram_.piece_size = size;
  read_metadata(messages_[index].msg_hdr, gso_size);
  if (gso_size <= kVxlanHeaderSize || gso_size >= size) return;
  // The kernel reports a segment size for a train of datagrams, but also for one datagram that holds a UDP super-frame
  // which never was on a wire. In the latter the inner packet is longer than a segment.
  const InnerIp inner = find_inner_ip(bytes.subspan(kVxlanHeaderSize));
  if (inner && inner.end > gso_size - kVxlanHeaderSize && inner.end <= size - kVxlanHeaderSize) {
    datagram_.udp_gso_size = gso_size;
  } else {
    datagram_.piece_size = gso_size;
  }
}

void VxlanEndpoint::read_metadata(const msghdr& message, uint16_t& gso_size) {
  TunnelMetadata& metadata = datagram_.metadata;
  metadata.flags = kTunnelKey;
  // CMSG_NXTHDR wants a header that it may write to, but only reads.
  auto& header = const_cast<msghdr&>(message);
  for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr; control = CMSG_NXTHDR(&header, control)) {
    read_control(*control, gso_size);
  }
  if (family_ == IpAddress::Family::v6) {
    const auto& sender = *static_cast<const sockaddr_in6*>(message.msg_name);
    std::memcpy(metadata.src6.bytes.data(), &sender.sin6_addr, sizeof sender.sin6_addr);
    metadata.tp_src = be16::from_raw(sender.sin6_port);
    datagram_.outer = {metadata.src6, metadata.dst6};
  } else {
    const auto& sender = *static_cast<const sockaddr_in*>(message.msg_name);
    metadata.src = be32::from_raw(sender.sin_addr.s_addr);
    metadata.tp_src = be16::from_raw(sender.sin_port);
    datagram_.outer = {as_bytes(IpAddress::from_v4(metadata.src)), as_bytes(IpAddress::from_v4(metadata.dst))};
  }
}

void VxlanEndpoint::read_control(const cmsghdr& control, uint16_t& gso_size) {
  TunnelMetadata& metadata = datagram_.metadata;
  const unsigned char* data = CMSG_DATA(&control);
  if (control.cmsg_level == IPPROTO_IP && control.cmsg_type == IP_PKTINFO) {
    metadata.dst = be32::from_raw(load_unaligned<in_pktinfo>(data).ipi_addr.s_addr);
  } else if (control.cmsg_level == IPPROTO_IPV6 && control.cmsg_type == IPV6_PKTINFO) {
    const auto info = load_unaligned<in6_pktinfo>(data);
    std::memcpy(metadata.dst6.bytes.data(), &info.ipi6_addr, sizeof info.ipi6_addr);
  } else if (control.cmsg_level == IPPROTO_IP && control.cmsg_type == IP_TOS) {
    metadata.tos = *data;
  } else if (control.cmsg_level == IPPROTO_IPV6 && control.cmsg_type == IPV6_TCLASS) {
    metadata.tos = static_cast<uint8_t>(load_unaligned<int>(data));
  } else if ((control.cmsg_level == IPPROTO_IP && control.cmsg_type == IP_TTL) ||
             (control.cmsg_level == IPPROTO_IPV6 && control.cmsg_type == IPV6_HOPLIMIT)) {
    metadata.ttl = static_cast<uint8_t>(load_unaligned<int>(data));
  } else if (control.cmsg_level == IPPROTO_UDP && control.cmsg_type == UDP_GRO) {
    gso_size = static_cast<uint16_t>(load_unaligned<int>(data));
  }
}

VxlanReceiver* VxlanEndpoint::find_receiver(uint32_t vni) {
  if (datagram_.last_receiver == nullptr || datagram_.last_vni != vni) {
    datagram_.last_vni = vni;
    datagram_.last_receiver = table_.load(std::memory_order_acquire)->find(vni, datagram_.outer);
  }
  return datagram_.last_receiver;
}

namespace {

void book_drop(ThreadContext& ctx, uint32_t port_no, DropReason reason) {
  ctx.ledger.port(port_no).received.add();
  ctx.ledger.drop(port_no, reason);
}

// A frame that is the sender's fault: rx_errors, and `detail` says of which kind.
void book_error(ThreadContext& ctx, VxlanReceiver& receiver, DropReason reason, Counter& detail) {
  receiver.counters.slot(ctx).rx_errors.add();
  detail.add();
  book_drop(ctx, receiver.port_no, reason);
}

void book_dropped(ThreadContext& ctx, VxlanReceiver& receiver, DropReason reason) {
  receiver.counters.slot(ctx).rx_dropped.add();
  book_drop(ctx, receiver.port_no, reason);
}

// Null when the pool is empty, or its buffers cannot hold the frame.
PacketPtr copy_frame(PacketPool& pool, std::span<const uint8_t> frame) {
  if (frame.size() > pool.buffer_size()) return nullptr;
  PacketPtr packet = pool.allocate(std::min(Packet::kDefaultHeadroom, pool.buffer_size() - frame.size()));
  if (!packet) return nullptr;
  packet->set_size(frame.size());
  std::memcpy(packet->data(), frame.data(), frame.size());
  return packet;
}

}  // namespace

void VxlanEndpoint::take_piece(ThreadContext& ctx, PacketBatch& batch, std::span<const uint8_t> piece, PacketPtr own) {
  uint32_t vni = 0;
  if (parse_vxlan_vni(piece, vni) != VxlanError::none) {
    invalid_headers_.add();
    return book_drop(ctx, 0, DropReason::tunnel_invalid_header);
  }
  VxlanReceiver* receiver = find_receiver(vni);
  if (receiver == nullptr) {
    unknown_vni_.add();
    return book_drop(ctx, 0, DropReason::tunnel_unknown_vni);
  }
  VportCounters::Slot& counters = receiver->counters.slot(ctx);
  VxlanHeader header;
  if (parse_vxlan_header(piece, receiver->gbp.load(std::memory_order_relaxed), header) != VxlanError::none) {
    return book_error(ctx, *receiver, DropReason::tunnel_invalid_header, counters.rx_frame_errors);
  }
  if (piece.size() < kVxlanHeaderSize + kEthernetHeaderSize) {
    return book_error(ctx, *receiver, DropReason::tunnel_inner_too_short, counters.rx_length_errors);
  }
  datagram_.metadata.id = to_be64(vni);
  datagram_.metadata.gbp_id = header.gbp_id;
  datagram_.metadata.gbp_flags = header.gbp_flags;
  if (own) {
    own->set_size(piece.size());
    own->pull(kVxlanHeaderSize);
  }
  take_frame(ctx, batch, *receiver, piece.subspan(kVxlanHeaderSize), std::move(own));
}

bool VxlanEndpoint::append_to_last(ThreadContext& ctx, PacketBatch& batch, VxlanReceiver& receiver,
                                   std::span<const uint8_t> frame) {
  if (!coalescing_) return false;
  const Packet& last = batch[batch.size() - 1];
  TunnelMetadata metadata = datagram_.metadata;
  metadata.tp_dst = udp_port_;
  if (last.in_port != receiver.port_no || !(last.tunnel == metadata)) return false;
  const size_t size = last.size();
  if (!coalescer_.append(frame)) return false;
  receiver.counters.slot(ctx).rx_bytes.add(last.size() - size);
  return true;
}

void VxlanEndpoint::take_frame(ThreadContext& ctx, PacketBatch& batch, VxlanReceiver& receiver,
                               std::span<const uint8_t> frame, PacketPtr own) {
  VportCounters::Slot& counters = receiver.counters.slot(ctx);
  const InnerIp ip = find_inner_ip(frame);
  const EcnDecapsulation ecn = ip ? ecn_decapsulate(datagram_.metadata.tos, ip.tos) : EcnDecapsulation{};
  if (ecn.drop) return book_error(ctx, receiver, DropReason::ecn_mismatch, counters.rx_frame_errors);
  if (!receiver.admin_up.load(std::memory_order_relaxed)) return book_dropped(ctx, receiver, DropReason::port_down);
  if (ecn.inner_tos == ip.tos && append_to_last(ctx, batch, receiver, frame)) return;
  PacketPtr packet = own ? std::move(own) : copy_frame(ctx.pool, frame);
  if (!packet) return book_dropped(ctx, receiver, DropReason::rx_no_buffer);
  if (ip && ecn.inner_tos != ip.tos) set_inner_tos(packet->bytes(), ip, ecn.inner_tos);
  detect_inner_offload(*packet, datagram_.udp_gso_size);
  packet->in_port = receiver.port_no;
  packet->has_tunnel = true;
  packet->tunnel = datagram_.metadata;
  packet->tunnel.tp_dst = udp_port_;
  counters.rx_packets.add();
  counters.rx_bytes.add(packet->size());
  if ((packet->data()[0] & 1) != 0) counters.multicast.add();
  if (coalescing_) coalescer_.finish();
  coalescer_.begin(*packet);
  coalescing_ = true;
  batch.add(std::move(packet));
}

// ---------------------------------------------------------------- registry

VxlanAttachment::~VxlanAttachment() { registry_.detach(*this); }

void VxlanAttachment::start_receiving() { registry_.start_receiving(*this); }

Status VxlanEndpoints::check_duplicate(const std::string& port_name, const TunnelIdentity& identity) const {
  for (const VxlanAttachment* other : attachments_) {
    if (!(other->identity_ == identity) || other->port_name_ == port_name) continue;
    return duplicate_tunnel("vxlan", port_name, other->port_name_, identity);
  }
  return {};
}

Result<std::shared_ptr<VxlanEndpoint>> VxlanEndpoints::open_endpoint(const EndpointKey& key) {
  std::weak_ptr<VxlanEndpoint>& slot = endpoints_[key];
  if (auto open = slot.lock()) return open;
  auto endpoint = VxlanEndpoint::open(key.second, key.first);
  if (endpoint.ok()) slot = *endpoint;
  return endpoint;
}

Result<std::vector<std::shared_ptr<VxlanEndpoint>>> VxlanEndpoints::open_endpoints(const std::string& port_name,
                                                                                   const TunnelConfig& config) {
  const bool v4 = config.uses_family(IpAddress::Family::v4), v6 = config.uses_family(IpAddress::Family::v6);
  std::vector<std::shared_ptr<VxlanEndpoint>> endpoints;
  if (v4) {
    auto endpoint = open_endpoint({config.dst_port, IpAddress::Family::v4});
    if (!endpoint.ok()) return endpoint.status().with_prefix("port " + port_name);
    endpoints.push_back(*endpoint);
  }
  if (v6) {
    auto endpoint = open_endpoint({config.dst_port, IpAddress::Family::v6});
    const bool missing = !endpoint.ok() && endpoint.status().code() == StatusCode::unimplemented;
    if (!endpoint.ok() && !(v4 && missing)) return endpoint.status().with_prefix("port " + port_name);
    if (endpoint.ok()) endpoints.push_back(*endpoint);
  }
  return endpoints;
}

Result<std::unique_ptr<VxlanAttachment>> VxlanEndpoints::attach(const std::string& port_name,
                                                                const TunnelConfig& config,
                                                                std::shared_ptr<VxlanReceiver> receiver) {
  // Made before the lock is taken: if we fail, its destructor takes it.
  std::unique_ptr<VxlanAttachment> attachment(new VxlanAttachment(*this, TunnelIdentity::of(config)));
  attachment->port_name_ = port_name;
  attachment->receiver_ = std::move(receiver);
  MutexLock lock(mutex_);
  VSWITCH_RETURN_IF_ERROR(check_duplicate(port_name, attachment->identity_));
  auto endpoints = open_endpoints(port_name, config);
  if (!endpoints.ok()) return endpoints.status();
  attachment->endpoints_ = std::move(*endpoints);
  attachments_.push_back(attachment.get());
  return attachment;
}

Status VxlanEndpoints::check_sockets(const std::string& port_name, const TunnelConfig& config) {
  MutexLock lock(mutex_);
  return open_endpoints(port_name, config).status();
}

void VxlanEndpoints::start_receiving(VxlanAttachment& attachment) {
  MutexLock lock(mutex_);
  attachment.receiving_ = true;
  publish_tables(attachment.endpoints_);
}

void VxlanEndpoints::publish_tables(const std::vector<std::shared_ptr<VxlanEndpoint>>& changed) {
  for (const auto& endpoint : changed) {
    auto table = std::make_unique<VxlanPortTable>();
    for (const VxlanAttachment* attachment : attachments_) {
      if (!attachment->receiving_) continue;
      const auto& used = attachment->endpoints_;
      if (std::find(used.begin(), used.end(), endpoint) == used.end()) continue;
      table->add(attachment->identity_, attachment->receiver_);
    }
    endpoint->publish(std::move(table));
  }
}

void VxlanEndpoints::detach(VxlanAttachment& attachment) {
  MutexLock lock(mutex_);
  if (std::erase(attachments_, &attachment) == 0 || !attachment.receiving_) return;
  publish_tables(attachment.endpoints_);
}

std::shared_ptr<VxlanSenders> VxlanEndpoints::senders(uint16_t port_min, uint16_t port_max) {
  MutexLock lock(mutex_);
  std::weak_ptr<VxlanSenders>& slot = senders_[{port_min, port_max}];
  auto senders = slot.lock();
  if (!senders) slot = senders = std::make_shared<VxlanSenders>(port_min, port_max);
  return senders;
}

std::unique_ptr<TunnelEndpoints> make_tunnel_endpoints() { return std::make_unique<VxlanEndpoints>(); }

}  // namespace vswitch
