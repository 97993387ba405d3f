#include "datapath/vport/device_io.h"

#include <cerrno>

#include "datapath/vport/tx_finish.h"

namespace vswitch {
namespace {

DropReason drop_reason_for(int error) {
  switch (error) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
      return DropReason::tx_queue_full;
    case ENETDOWN:
    case ENXIO:
    case ENODEV:
    case EBADFD:
    case EIO:  // a TAP that is down
      return DropReason::port_down;
    case EMSGSIZE:
      return DropReason::tx_too_big;
    default:
      return DropReason::tx_error;
  }
}

// Errors by which a device says that it does not like the form of the frame, rather than that it cannot send now.
bool refuses_form(int error) { return error == EINVAL || error == EOPNOTSUPP || error == EMSGSIZE; }

}  // namespace

bool DeviceIo::accept_frame(Packet& packet, size_t size, const VnetHeader& header, uint16_t tpid, uint16_t tci) {
  packet.set_size(size);
  // The header's offsets do not count a tag that is held aside; putting it back shifts them.
  if (!decode_vnet_header(header, packet)) return false;
  return tpid == 0 || reinsert_vlan_tag(packet, tpid, tci);
}

void DeviceIo::prepare(ThreadContext& ctx, PacketBatch& batch, PacketBatch& ready, Outgoing& outgoing,
                       VportCounters::Slot& counters) {
  const uint32_t mtu = mtu_.load(std::memory_order_relaxed);
  if (comes_as_on_the_wire(batch)) group_flows(batch);
  for (size_t i = 0; i < batch.size(); ++i) {
    PacketPtr packet = batch.release(i);
    if (!fits_mtu(*packet, mtu)) {
      drop_on_send(ctx, std::move(packet), DropReason::tx_too_big, counters);
    } else if (!encode_vnet_header(*packet, outgoing.headers[ready.size()])) {
      drop_on_send(ctx, std::move(packet), DropReason::tx_error, counters);
    } else {
      ready.add(std::move(packet));
    }
  }
  batch.reset_released();
}

void DeviceIo::send(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters) {
  for (size_t i = 0; i < batch.size(); ++i) {
    if (is_tunnel_super_frame(batch[i])) return send_with_cuts(ctx, batch, counters);
  }
  send_as_they_are(ctx, batch, counters);
}

void DeviceIo::send_with_cuts(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters) {
  PacketBatch ready;
  const auto add = [&](PacketPtr packet) {
    ready.add(std::move(packet));
    if (ready.full()) send_as_they_are(ctx, ready, counters);
  };
  for (size_t i = 0; i < batch.size(); ++i) {
    PacketPtr packet = batch.release(i);
    if (!is_tunnel_super_frame(*packet)) {
      add(std::move(packet));
    } else if (!fits_mtu(*packet, mtu())) {
      drop_on_send(ctx, std::move(packet), DropReason::tx_too_big, counters);
    } else {
      finish_packet(ctx, std::move(packet), counters, add);
    }
  }
  batch.reset_released();
  if (!ready.empty()) send_as_they_are(ctx, ready, counters);
}

void DeviceIo::send_as_they_are(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters) {
  PacketBatch ready;
  Outgoing outgoing{ctx, ready, {}};
  prepare(ctx, batch, ready, outgoing, counters);
  for (size_t next = 0; next < ready.size();) {
    int error = 0;
    next += transmit(outgoing, next, &error);
    if (error != 0) refused(ctx, ready.release(next++), error, counters);
  }
  ready.compact();
  if (!ready.empty()) book_sent(ctx, ready, counters);
}

int DeviceIo::refused_message(const TrainMessages::Message& message, int error) {
  if (message.frames == 1 || !refuses_form(error)) return error;
  (message.segments ? sends_segments_ : sends_datagrams_).store(false, std::memory_order_relaxed);
  return 0;
}

void DeviceIo::refused(ThreadContext& ctx, PacketPtr packet, int error, VportCounters::Slot& counters) {
  if (packet->offload.gso == GsoType::none || !refuses_form(error)) {
    drop_on_send(ctx, std::move(packet), drop_reason_for(error), counters);
    return;
  }
  PacketBatch pieces;
  finish_packet(ctx, std::move(packet), counters, [&](PacketPtr piece) {
    pieces.add(std::move(piece));
    if (pieces.full()) send(ctx, pieces, counters);
  });
  if (!pieces.empty()) send(ctx, pieces, counters);
}

}  // namespace vswitch
