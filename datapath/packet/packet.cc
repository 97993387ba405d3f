#include "datapath/packet/packet.h"

#include <algorithm>
#include <cstring>

#include "datapath/packet/packet_pool.h"

namespace vswitch {

void PacketDeleter::operator()(Packet* packet) const { packet->pool()->free(packet); }

void free_packets(Packet* const* packets, size_t count) {
  for (size_t begin = 0; begin < count;) {
    if (packets[begin] == nullptr) {
      ++begin;
      continue;
    }
    PacketPool* const pool = packets[begin]->pool();
    size_t end = begin + 1;
    while (end < count && packets[end] != nullptr && packets[end]->pool() == pool) ++end;
    pool->free(packets + begin, end - begin);
    begin = end;
  }
}

PacketPtr clone_packet(const Packet& packet, PacketPool& pool) {
  if (packet.size() > pool.buffer_size()) return nullptr;
  PacketPtr copy = pool.allocate(std::min(packet.headroom(), pool.buffer_size() - packet.size()));
  if (!copy) return nullptr;
  copy->set_size(packet.size());
  std::memcpy(copy->data(), packet.data(), packet.size());
  copy_metadata(packet, *copy);
  return copy;
}

void copy_metadata(const Packet& from, Packet& to) {
  to.in_port = from.in_port;
  to.recirc_id = from.recirc_id;
  to.dp_hash = from.dp_hash;
  to.skb_priority = from.skb_priority;
  to.skb_mark = from.skb_mark;
  to.rss_hash = from.rss_hash;
  to.has_tunnel = from.has_tunnel;
  to.recirc_depth = from.recirc_depth;
  to.cutlen = from.cutlen;
  to.layers = from.layers;
  to.offload = from.offload;
  if (from.has_tunnel) to.tunnel = from.tunnel;
}

}  // namespace vswitch
