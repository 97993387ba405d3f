// The last steps of sending that port types share: bringing packets into wire form for a way out without offloads,
// limiting them to the MTU, and keeping the books.
//
// Thread safety: as ThreadContext: each function works on the calling thread's own context and counter slot.
#pragma once

#include <utility>

#include "datapath/packet/offload.h"
#include "datapath/packet/packet_batch.h"
#include "datapath/packet/thread_context.h"
#include "datapath/vport/vport_counters.h"

namespace vswitch {

// Books one packet as sent, in the ledger under its in_port and by this port (a super-frame that goes out whole counts
// once), and frees it.
void book_sent(ThreadContext& ctx, PacketPtr packet, VportCounters::Slot& counters);
// The same for every packet of the batch, which is empty afterwards. The batch has no released slots.
void book_sent(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters);

// Drops a packet that could not be sent, under `reason`: books the ledger and this port's tx_errors (the packet's or
// the device's fault) or tx_dropped (no room, port down).
void drop_on_send(ThreadContext& ctx, PacketPtr packet, DropReason reason, VportCounters::Slot& counters);
void drop_on_send(ThreadContext& ctx, PacketBatch& batch, DropReason reason, VportCounters::Slot& counters);

// Counts `packets` frames with `bytes` bytes, `multicast` of them to a group, that a source hands to its caller (who
// books them in the ledger).
void count_received(uint64_t packets, uint64_t bytes, uint64_t multicast, VportCounters::Slot& counters);
// Books a frame that arrived but cannot be taken: received, then dropped with `reason`.
void drop_on_receive(ThreadContext& ctx, uint32_t port_no, DropReason reason, VportCounters::Slot& counters);

// True if the frame, or each segment that a super-frame will be cut into, fits an Ethernet device of this MTU: MTU
// bytes behind the Ethernet header and its VLAN tags. mtu 0 means no limit.
bool fits_mtu(const Packet& packet, uint32_t mtu);

// Ethernet header to end of L4 header of a super-frame (whose csum_start is where L4 begins; inside a tunnel, that of
// the inner packet); 0 if it does not make sense.
size_t gso_header_size(const Packet& packet);

// Completes the checksum of `packet` and cuts it if it is a super-frame, calling emit(PacketPtr) with each frame in
// wire form. What cannot be finished is dropped and booked; pieces are booked as copies.
template <typename Emit>
void finish_packet(ThreadContext& ctx, PacketPtr packet, VportCounters::Slot& counters, Emit&& emit) {
  if (packet->offload.gso == GsoType::none) {
    if (!complete_checksum(*packet)) {
      drop_on_send(ctx, std::move(packet), DropReason::tx_error, counters);
      return;
    }
    emit(std::move(packet));
    return;
  }
  const Segmenter segmenter(*packet);
  if (!segmenter.valid()) {
    drop_on_send(ctx, std::move(packet), DropReason::tx_error, counters);
    return;
  }
  PortBooks& books = ctx.ledger.port(packet->in_port);
  books.copies.add(segmenter.count() - 1);
  for (size_t i = 0; i < segmenter.count(); ++i) {
    if (PacketPtr piece = segmenter.build(i, ctx.pool)) {
      emit(std::move(piece));
    } else {
      ctx.ledger.drop(packet->in_port, DropReason::rx_no_buffer);
      counters.tx_dropped.add();
    }
  }
}

// Brings a whole batch into wire form and hands it to flush(PacketBatch&) in batches, in order; flush takes every
// packet out. `batch` is empty afterwards.
template <typename Flush>
void finish_batch(ThreadContext& ctx, PacketBatch& batch, VportCounters::Slot& counters, Flush&& flush) {
  PacketBatch ready;
  for (size_t i = 0; i < batch.size(); ++i) {
    finish_packet(ctx, batch.release(i), counters, [&](PacketPtr packet) {
      ready.add(std::move(packet));
      if (ready.full()) flush(ready);
    });
  }
  batch.reset_released();
  if (!ready.empty()) flush(ready);
}

}  // namespace vswitch
