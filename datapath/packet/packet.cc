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
  to.metadata() = from.metadata();
  if (from.has_tunnel) to.tunnel = from.tunnel;
}

}  // namespace vswitch
