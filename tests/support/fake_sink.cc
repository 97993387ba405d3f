#include "tests/support/fake_sink.h"

#include <algorithm>
#include <iterator>

namespace vswitch {

void FakeSink::output(ThreadContext& ctx, uint32_t port_no, PacketPtr packet) {
  remember(Kind::output, *packet).port_no = port_no;
  ctx.ledger.port(packet->in_port).sent.add();
}

void FakeSink::output_batch(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch) {
  ++batch_calls_;
  ActionSink::output_batch(ctx, port_no, batch);
}

void FakeSink::userspace(ThreadContext& ctx, const UserspaceAction& action, PacketPtr packet) {
  remember(Kind::userspace, *packet).action = action;
  ctx.ledger.port(packet->in_port).consumed.add();
}

void FakeSink::recirculate(ThreadContext&, PacketPtr packet) { remember(Kind::recirculate, *packet); }

std::vector<FakeSink::Handed> FakeSink::outputs(uint32_t port_no) const {
  std::vector<Handed> found;
  std::copy_if(handed_.begin(), handed_.end(), std::back_inserter(found),
               [port_no](const Handed& h) { return h.kind == Kind::output && h.port_no == port_no; });
  return found;
}

uint64_t FakeSink::recirculated(uint32_t in_port) const {
  return static_cast<uint64_t>(std::count_if(handed_.begin(), handed_.end(), [in_port](const Handed& h) {
    return h.kind == Kind::recirculate && h.in_port == in_port;
  }));
}

FakeSink::Handed& FakeSink::remember(Kind kind, const Packet& packet) {
  Handed h;
  h.kind = kind;
  h.bytes.assign(packet.data(), packet.data() + packet.size());
  h.offload = packet.offload;
  h.layers = packet.layers;
  h.in_port = packet.in_port;
  h.recirc_id = packet.recirc_id;
  h.dp_hash = packet.dp_hash;
  h.skb_mark = packet.skb_mark;
  h.skb_priority = packet.skb_priority;
  h.cutlen = packet.cutlen;
  h.recirc_depth = packet.recirc_depth;
  h.has_tunnel = packet.has_tunnel;
  if (packet.has_tunnel) h.tunnel = packet.tunnel;
  h.packet = &packet;
  return handed_.emplace_back(std::move(h));
}

}  // namespace vswitch
