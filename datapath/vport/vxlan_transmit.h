// The sending half of VXLAN: from packet, metadata and configuration to UDP messages.
//
// Two steps that can be tested apart:
//   plan_vxlan()       decides, touching no socket, what the outer headers of a packet are to be, or why it cannot go;
//   VxlanTransmitter   completes checksums, cuts super-frames, puts messages together and sends them.
//
// Routing is the kernel's: each send looks up its route, source address and neighbour as any UDP datagram does, with
// nothing lost while a neighbour resolves, and nothing cached here that could go stale. So is the path MTU: with DF the
// kernel refuses what does not fit (EMSGSIZE), on what it has learned of that path by itself and by ICMP; without DF it
// fragments.
//
// Source port: see VxlanSenders. Trains: with an outer checksum, the segments of a super-frame, and of those that
// follow it to the same place, go down as one message (UDP_SEGMENT); the kernel cannot do that for packets without a
// checksum, which go as single messages of one sendmmsg(). Either way a segment is made of headers only: its payload is
// sent from where it lies in the super-frame. Packets of one size that go to one place are a train, too, unless a
// person said that there are to be no checksums. So that there are such packets in what comes mixed from many flows,
// packets are put in the order of their source ports first, and the datapath gives several batches at once while more
// packets wait to be received (Vport::gathers()).
//
// Thread safety: send() may be called by any threads with different ThreadContext::index at once. Nothing is allocated
// once each thread has sent its first packet.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "datapath/base/drop_reason.h"
#include "datapath/packet/offload.h"
#include "datapath/packet/packet_batch.h"
#include "datapath/packet/thread_context.h"
#include "datapath/tunnel/inner_frame.h"
#include "datapath/tunnel/vxlan_header.h"
#include "datapath/vport/tunnel_config.h"
#include "datapath/vport/vport_counters.h"
#include "datapath/vport/vxlan_senders.h"

namespace vswitch {

struct VxlanPlan {
  IpAddress remote;
  IpAddress local;  // not set: routing chooses
  uint16_t dst_port = 0;
  uint8_t tos = 0;
  uint8_t ttl = 0;
  uint32_t mark = 0;
  bool df = true;
  bool checksum = false;
  VxlanHeader header;
  bool operator==(const VxlanPlan&) const = default;
};

// Fills `plan` for a packet, or says why it must be dropped: tunnel_no_metadata, tunnel_no_destination,
// invalid_tunnel_metadata (VNI over 24 bits, or a source of the wrong family).
//
// What the port fixes, the port decides; metadata decides what is `flow`. DF and checksum are on when either asks for
// them; TTL and destination port come from metadata that has them. Metadata with a tp_src came with a received packet,
// whose TTL, TOS, source, flags and ports say nothing about this one: only its id, destination and group policy count.
std::optional<DropReason> plan_vxlan(const TunnelConfig& config, const Packet& packet, VxlanPlan& plan);
// The same from what a plan looks at in a packet that is no super-frame. `metadata`: null: it has none.
std::optional<DropReason> plan_vxlan(const TunnelConfig& config, const TunnelMetadata* metadata, const InnerIp& inner,
                                     uint32_t skb_mark, VxlanPlan& plan);

// The drop reason for an errno of send.
DropReason vxlan_send_error(int error);
// Books one dropped packet in the port's statistics, as design.md section 7 has it for each reason.
void count_vxlan_drop(DropReason reason, VportCounters::Slot& counters);

class VxlanTransmitter {
 public:
  VxlanTransmitter();
  ~VxlanTransmitter();

  // The batches are empty afterwards; everything is booked in ctx.ledger and `counters` (of the calling thread).
  void send(ThreadContext& ctx, std::span<PacketBatch> batches, const TunnelConfig& config, VxlanSenders& senders,
            VportCounters::Slot& counters);
  void send(ThreadContext& ctx, PacketBatch& batch, const TunnelConfig& config, VxlanSenders& senders,
            VportCounters::Slot& counters) {
    send(ctx, {&batch, 1}, config, senders, counters);
  }

 private:
  class Sender;
  struct Scratch;
  Scratch& scratch(size_t thread);

  std::array<std::unique_ptr<Scratch>, kMaxThreads> scratch_;
};

}  // namespace vswitch
