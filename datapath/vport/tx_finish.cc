#include "datapath/vport/tx_finish.h"

#include "datapath/base/byte_order.h"

namespace vswitch {
namespace {

constexpr size_t kEthernetHeader = 14;
constexpr size_t kVlanTag = 4;
constexpr size_t kTcpMinHeader = 20;
constexpr size_t kUdpHeader = 8;

bool is_vlan_tpid(const uint8_t* at) {
  const uint16_t type = load_unaligned<be16>(at).host();
  return type == 0x8100 || type == 0x88a8;
}

// Bytes of Ethernet header and all VLAN tags in front of the payload.
size_t l2_header_size(const Packet& packet) {
  size_t end = kEthernetHeader;
  while (end + kVlanTag <= packet.size() && is_vlan_tpid(packet.data() + end - 2)) end += kVlanTag;
  return end;
}

bool is_our_congestion(DropReason reason) {
  return reason == DropReason::tx_queue_full || reason == DropReason::port_down || reason == DropReason::rx_no_buffer;
}

}  // namespace

void book_sent(ThreadContext& ctx, PacketPtr packet, VportCounters::Slot& counters) {
  counters.tx_packets.add();
  counters.tx_bytes.add(packet->size());
  ctx.ledger.port(packet->in_port).sent.add();
}

void book_sent(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters) {
  // Neighbours in a batch mostly came in by the same port: one ledger access per run of them.
  uint64_t bytes = 0;
  const size_t count = batch.size();
  for (size_t begin = 0; begin < count;) {
    const uint32_t in_port = batch[begin].in_port;
    size_t end = begin;
    for (; end < count && batch[end].in_port == in_port; ++end) bytes += batch[end].size();
    ctx.ledger.port(in_port).sent.add(end - begin);
    begin = end;
  }
  counters.tx_packets.add(count);
  counters.tx_bytes.add(bytes);
  batch.clear();
}

void drop_on_send(ThreadContext& ctx, PacketPtr packet, DropReason reason, VportCounters::Slot& counters) {
  (is_our_congestion(reason) ? counters.tx_dropped : counters.tx_errors).add();
  ctx.drop(std::move(packet), reason);
}

void drop_on_send(ThreadContext& ctx, PacketBatch& batch, DropReason reason, VportCounters::Slot& counters) {
  for (size_t i = 0; i < batch.size(); ++i) drop_on_send(ctx, batch.release(i), reason, counters);
  batch.reset_released();
}

void count_received(uint64_t packets, uint64_t bytes, uint64_t multicast, VportCounters::Slot& counters) {
  counters.rx_packets.add(packets);
  counters.rx_bytes.add(bytes);
  if (multicast != 0) counters.multicast.add(multicast);
}

void drop_on_receive(ThreadContext& ctx, uint32_t port_no, DropReason reason, VportCounters::Slot& counters) {
  ctx.ledger.port(port_no).received.add();
  ctx.ledger.drop(port_no, reason);
  if (reason == DropReason::rx_invalid_packet) {
    counters.rx_errors.add();
    counters.rx_length_errors.add();
  } else {
    counters.rx_dropped.add();
  }
}

size_t gso_header_size(const Packet& packet) {
  const size_t l4 = packet.offload.csum_start;
  if (packet.offload.gso == GsoType::udp_l4) return l4 + kUdpHeader <= packet.size() ? l4 + kUdpHeader : 0;
  if (l4 + kTcpMinHeader > packet.size()) return 0;
  const size_t tcp_header = static_cast<size_t>(packet.data()[l4 + 12] >> 4) * 4;
  if (tcp_header < kTcpMinHeader || l4 + tcp_header > packet.size()) return 0;
  return l4 + tcp_header;
}

bool fits_mtu(const Packet& packet, uint32_t mtu) {
  if (mtu == 0) return true;
  size_t longest = packet.size();
  // The length that counts is that of the frame that reaches the wire.
  if (longest <= mtu + kEthernetHeader) return true;
  if (packet.offload.gso != GsoType::none) {
    const size_t segment = gso_header_size(packet) + packet.offload.gso_size;
    if (segment < longest) longest = segment;
  }
  return longest <= mtu + l2_header_size(packet);
}

}  // namespace vswitch
