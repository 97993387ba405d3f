#include "datapath/actions/execute.h"

#include <algorithm>

#include "datapath/actions/dp_hash.h"
#include "datapath/actions/rewrite.h"
#include "datapath/flow/extract.h"
#include "datapath/packet/offload.h"

namespace vswitch {

namespace {

constexpr uint32_t kEthernetSize = 14;

// What ends a packet, or a copy of it. The others change it, which nobody sees unless one of these follows.
bool uses_packet(const Action& action) {
  return std::holds_alternative<OutputAction>(action) || std::holds_alternative<UserspaceAction>(action) ||
         std::holds_alternative<RecircAction>(action) || std::holds_alternative<CloneAction>(action) ||
         std::holds_alternative<DropAction>(action);
}

// Index behind the last action that uses the packet: the one that gets the original. 0: there is none.
size_t end_of_use(const ActionList& actions) {
  size_t end = actions.size();
  while (end != 0 && !uses_packet(actions[end - 1])) --end;
  return end;
}

void drop_batch(ThreadContext& ctx, PacketBatch& batch, DropReason reason) {
  for (size_t i = 0; i < batch.size(); ++i) ctx.ledger.drop(batch[i].in_port, reason);
  batch.clear();
}

// Applies `change` to each packet; those for which it returns false are dropped.
template <typename Change>
void change_each(ThreadContext& ctx, PacketBatch& batch, DropReason reason, Change&& change) {
  bool all = true;
  for (size_t i = 0; i < batch.size(); ++i) {
    if (change(batch[i])) continue;
    ctx.drop(batch.release(i), reason);
    all = false;
  }
  if (!all) batch.compact();
}

void clear_offsets_behind_end(Packet& packet) {
  auto check = [&packet](uint16_t& offset) {
    if (offset > packet.size()) offset = LayerOffsets::kNoLayer;
  };
  check(packet.layers.l2_5);
  check(packet.layers.l3);
  check(packet.layers.l4);
  check(packet.layers.l3_end);
}

// A checksum that cannot be completed (csum_start outside the frame) is given up: nobody further on could either.
void cut_to(Packet& packet, size_t size) {
  packet.cutlen = 0;
  if (size >= packet.size()) return;
  (void)complete_checksum(packet);
  packet.offload = {};
  packet.set_size(size);
  clear_offsets_behind_end(packet);
}

// Bytes that the trunc action leaves. Headers may have been pushed or popped since.
size_t size_after_cut(const Packet& packet) {
  const size_t cut = std::min<size_t>(packet.cutlen, packet.size());
  return std::max<size_t>(packet.size() - cut, kEthernetSize);
}

// Where there was one packet there are now as many as it has segments.
template <typename Emit>
void cut_segments(ThreadContext& ctx, PacketPtr packet, size_t size, Emit& emit) {
  PortBooks& books = ctx.ledger.port(packet->in_port);
  const uint32_t in_port = packet->in_port;
  size_t missing = 0;
  const size_t made = segment_packet(std::move(packet), ctx.pool, &missing, [&](PacketPtr piece) {
    cut_to(*piece, size);
    emit(std::move(piece));
  });
  if (made + missing == 0) return ctx.ledger.drop(in_port, DropReason::action_too_short);
  books.copies.add(made + missing - 1);
  if (missing != 0) ctx.ledger.drop(in_port, DropReason::no_buffer_for_copy, missing);
}

// A super-frame stands for its segments, so it is cut only if one of those is too large.
bool segments_fit(const Packet& packet, size_t size) {
  const Segmenter segmenter(packet);
  return segmenter.valid() && segmenter.segment_size(0) <= size;
}

// Hands the packet to `emit`, truncated if it is to be.
template <typename Emit>
void emit_cut(ThreadContext& ctx, PacketPtr packet, Emit& emit) {
  if (packet->cutlen == 0) return emit(std::move(packet));
  const size_t size = size_after_cut(*packet);
  if (packet->offload.gso == GsoType::none || size >= packet->size()) {
    cut_to(*packet, size);
  } else if (segments_fit(*packet, size)) {
    packet->cutlen = 0;
  } else {
    return cut_segments(ctx, std::move(packet), size, emit);
  }
  emit(std::move(packet));
}

// One action list on one batch. Lives on the stack; a clone's list gets an executor of its own.
class Executor {
 public:
  Executor(ThreadContext& ctx, ActionSink& sink, PacketBatch& batch, bool may_be_cut)
      : ctx_(ctx), sink_(sink), batch_(batch), may_be_cut_(may_be_cut) {}

  void run(const ActionList& actions) {
    const size_t end = end_of_use(actions);
    if (end == 0) return drop_batch(ctx_, batch_, DropReason::of_pipeline);
    for (size_t i = 0; i < end && !batch_.empty(); ++i) {
      is_last_ = i + 1 == end;
      apply(actions[i]);
    }
  }

 private:
  void apply(const Action& action) {
    std::visit(Overload{
                   [this](const OutputAction& a) { output(a); },
                   [this](const UserspaceAction& a) { userspace(a); },
                   [this](const RecircAction& a) { recirculate(a); },
                   [this](const CloneAction& a) { clone(a); },
                   [this](const DropAction& a) { drop(a); },
                   [this](const SetEthernetAction& a) { rewrite(a, set_ethernet); },
                   [this](const SetIpv4Action& a) { rewrite(a, set_ipv4); },
                   [this](const SetIpv6Action& a) { rewrite(a, set_ipv6); },
                   [this](const SetTransportAction& a) { rewrite(a, set_transport); },
                   [this](const SetIcmpAction& a) { rewrite(a, set_icmp); },
                   [this](const SetArpAction& a) { rewrite(a, set_arp); },
                   [this](const SetNdAction& a) { rewrite(a, set_nd); },
                   [this](const PushVlanAction& a) { push(a); },
                   [this](const PopVlanAction&) { each(pop_vlan); },
                   [this](const SetMarkAction& a) {
                     each([&a](Packet& p) { p.skb_mark = (p.skb_mark & ~a.mask) | a.value; });
                   },
                   [this](const SetPriorityAction& a) {
                     each([&a](Packet& p) { p.skb_priority = (p.skb_priority & ~a.mask) | a.value; });
                   },
                   [this](const SetTunnelAction& a) { set_tunnel(a); },
                   [this](const HashAction& a) { hash(a); },
                   [this](const TruncateAction& a) { truncate(a); },
               },
               static_cast<const Action::variant&>(action));
  }

  template <typename Change>
  void each(Change&& change) {
    for (size_t i = 0; i < batch_.size(); ++i) change(batch_[i]);
  }

  template <typename Set>
  void rewrite(const Set& set, bool (*function)(Packet&, const Set&)) {
    change_each(ctx_, batch_, DropReason::action_too_short, [&](Packet& p) { return function(p, set); });
  }

  void push(const PushVlanAction& a) {
    change_each(ctx_, batch_, DropReason::no_headroom, [&a](Packet& p) { return push_vlan(p, a); });
  }

  void set_tunnel(const SetTunnelAction& a) {
    each([&a](Packet& p) {
      p.tunnel = *a.tunnel;
      p.has_tunnel = true;
    });
  }

  void hash(const HashAction& a) {
    FlowKey key;
    change_each(ctx_, batch_, DropReason::rx_invalid_packet, [&](Packet& p) {
      if (!extract_flow_key(p, key)) return false;
      p.dp_hash = dp_hash(a, key);
      return true;
    });
  }

  void truncate(const TruncateAction& a) {
    const size_t size = std::max(a.max_len, kEthernetSize);
    each([size](Packet& p) { p.cutlen = p.size() > size ? static_cast<uint32_t>(p.size() - size) : 0; });
    may_be_cut_ = true;
  }

  // Calls `use(batch)` with packets that it may keep: copies, or the batch itself if nobody uses it any more.
  template <typename Use>
  void with_copies(Use&& use) {
    if (is_last_) return use(batch_);
    PacketBatch copies;
    for (size_t i = 0; i < batch_.size(); ++i) copy_into(copies, batch_[i]);
    if (!copies.empty()) use(copies);
  }

  void copy_into(PacketBatch& copies, const Packet& packet) {
    ctx_.ledger.port(packet.in_port).copies.add();
    if (PacketPtr copy = ctx_.clone(packet)) {
      copies.add(std::move(copy));
    } else {
      ctx_.ledger.drop(packet.in_port, DropReason::no_buffer_for_copy);
    }
  }

  // A trunc action is for one use only: what goes on afterwards is whole.
  void forget_cut() {
    if (!may_be_cut_) return;
    each([](Packet& p) { p.cutlen = 0; });
    may_be_cut_ = false;
  }

  // One by one, truncated where wanted: `emit(PacketPtr)`.
  template <typename Emit>
  void emit_each(Emit&& emit) {
    with_copies([&](PacketBatch& batch) {
      for (size_t i = 0; i < batch.size(); ++i) emit_cut(ctx_, batch.release(i), emit);
      batch.reset_released();
    });
    forget_cut();
  }

  void output(const OutputAction& a) {
    if (may_be_cut_) return emit_each([&](PacketPtr packet) { sink_.output(ctx_, a.port_no, std::move(packet)); });
    with_copies([&](PacketBatch& batch) { sink_.output_batch(ctx_, a.port_no, batch); });
  }

  void userspace(const UserspaceAction& a) {
    emit_each([&](PacketPtr packet) { sink_.userspace(ctx_, a, std::move(packet)); });
  }

  void recirculate(const RecircAction& a) {
    emit_each([&](PacketPtr packet) {
      if (packet->recirc_depth >= kMaxRecirculations) {
        return ctx_.drop(std::move(packet), DropReason::recirculation_limit);
      }
      ++packet->recirc_depth;
      packet->recirc_id = a.recirc_id;
      sink_.recirculate(ctx_, std::move(packet));
    });
  }

  void clone(const CloneAction& a) {
    with_copies([&](PacketBatch& batch) { Executor(ctx_, sink_, batch, may_be_cut_).run(*a.actions); });
  }

  // Ends the packet whatever follows; that finds an empty batch.
  void drop(const DropAction& a) { drop_batch(ctx_, batch_, a.reason); }

  ThreadContext& ctx_;
  ActionSink& sink_;
  PacketBatch& batch_;
  bool may_be_cut_;       // some packet of batch_ may have a cutlen
  bool is_last_ = false;  // nothing behind the current action uses the packets
};

}  // namespace

void execute_actions(ThreadContext& ctx, const ActionList& actions, PacketBatch& batch, ActionSink& sink) {
  if (batch.empty()) return;
  Executor(ctx, sink, batch, false).run(actions);
}

void execute_actions(ThreadContext& ctx, const ActionList& actions, PacketPtr packet, ActionSink& sink) {
  PacketBatch batch;
  batch.add(std::move(packet));
  execute_actions(ctx, actions, batch, sink);
}

}  // namespace vswitch
