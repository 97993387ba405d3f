// The action executor: applies an ActionList to packets. The only code that rewrites packets on behalf of a flow.
//
// Ownership: the executor takes the packet; it ends at a port, at the slow path, in a recirculation, or in a drop that is
// booked in ctx.ledger under packet->in_port. A list that neither sends nor drops books `of_pipeline`. A copy is made only
// when something follows the use of the packet (the last output gets the original); each copy is booked.
// Checksums: IPv4 header, TCP, UDP (0 stays 0, a computed 0 becomes 0xffff), ICMP, ICMPv6 and SCTP (CRC32c) stay right
// under every set; with ChecksumState::partial the pseudo-header part is kept right instead. A packet too short for the
// header that a set names is dropped with action_too_short.
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
  // To the slow path (an action upcall).
  virtual void userspace(ThreadContext& ctx, const UserspaceAction& action, PacketPtr packet) = 0;
  // Back to the lookup; packet->recirc_id is set and recirc_depth counted up (the executor drops with
  // recirculation_limit above kMaxRecirculations).
  virtual void recirculate(ThreadContext& ctx, PacketPtr packet) = 0;
};

inline constexpr uint8_t kMaxRecirculations = 8;

// Runs `actions` on every packet of the batch; the batch is empty afterwards. Order within a port is kept.
void execute_actions(ThreadContext& ctx, const ActionList& actions, PacketBatch& batch, ActionSink& sink);
void execute_actions(ThreadContext& ctx, const ActionList& actions, PacketPtr packet, ActionSink& sink);

}  // namespace vswitch
