// The action executor: applies an ActionList to packets. The only code that rewrites packets on behalf of a flow.
//
// Ownership: the executor takes the packet; it ends at a port, at the slow path, in a recirculation, or in a drop that
// is booked in ctx.ledger under packet->in_port. A list that neither sends nor drops books `of_pipeline`. A copy is
// made only when something follows the use of the packet (the last output gets the original); each copy is booked.
// Checksums: IPv4 header, TCP, UDP (0 stays 0, a computed 0 becomes 0xffff), ICMP, ICMPv6 and SCTP (CRC32c) stay right
// under every set; with ChecksumState::partial the pseudo-header part is kept right instead. A packet too short for the
// header that a set names is dropped with action_too_short.
// Truncation: a packet with a partial checksum is completed before it is cut, a super-frame that does not fit is cut
// into its segments first (each then truncated), and at least an Ethernet header is left. What the sink gets has cutlen
// 0. A truncation ahead of a clone holds for the clone's first use and, independently, for the first one behind the
// clone.
//
// Copies: each is booked under `copies` of packet->in_port, also one that could not be made because ctx.pool was empty;
// that one is then booked as dropped with no_buffer_for_copy, and the others go on.
//
// Does not allocate, lock, log or throw.
#pragma once

#include <cstdint>
#include <span>

#include "datapath/actions/action.h"
#include "datapath/packet/packet_batch.h"
#include "datapath/packet/thread_context.h"

namespace vswitch {

// What the executor hands packets to. Implemented by the datapath (and by fakes in tests).
class ActionSink {
 public:
  virtual ~ActionSink() = default;
  // Towards port `port_no`; ownership passes; the sink books sent or dropped. May buffer until flush.
  virtual void output(ThreadContext& ctx, uint32_t port_no, PacketPtr packet) = 0;
  // The same for several packets, in their order; the batch is empty afterwards. This is how nearly all packets leave,
  // so the datapath overrides it to move them on as one.
  virtual void output_batch(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch) {
    for (size_t i = 0; i < batch.size(); ++i) output(ctx, port_no, batch.release(i));
    batch.reset_released();
  }
  // To the slow path (an action upcall). The packet is whole: cutting to action.max_len is up to the slow path, which
  // also reports the frame's full length.
  virtual void userspace(ThreadContext& ctx, const UserspaceAction& action, PacketPtr packet) = 0;
  // Back to the lookup; packet->recirc_id is set and recirc_depth counted up (the executor drops with
  // recirculation_limit above kMaxRecirculations).
  virtual void recirculate(ThreadContext& ctx, PacketPtr packet) = 0;
};

inline constexpr uint8_t kMaxRecirculations = 8;

// Runs `actions` on every packet of the batch; the batch is empty afterwards. Order within a port is kept: each action
// is applied to all packets, in order, before the next action. REQUIRES: cutlen is 0 in every packet; the calling
// thread owns ctx.pool. The sink may call back into execute_actions() (with a batch of its own).
void execute_actions(ThreadContext& ctx, const ActionList& actions, PacketBatch& batch, ActionSink& sink);
void execute_actions(ThreadContext& ctx, const ActionList& actions, PacketPtr packet, ActionSink& sink);

}  // namespace vswitch
