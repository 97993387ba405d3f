// FakeSink: an ActionSink that remembers what it was handed, books it as the datapath would, and frees the packets.
//
// Not thread-safe. `recirculated` packets are not sent again: a test that wants that calls execute_actions() itself.
#pragma once

#include <cstdint>
#include <vector>

#include "datapath/actions/execute.h"

namespace vswitch {

class FakeSink final : public ActionSink {
 public:
  enum class Kind { output, userspace, recirculate };

  // A packet as it was when it was handed over.
  struct Handed {
    Kind kind;
    uint32_t port_no = 0;    // output
    UserspaceAction action;  // userspace
    std::vector<uint8_t> bytes;
    OffloadState offload;
    LayerOffsets layers;
    uint32_t in_port = 0, recirc_id = 0, dp_hash = 0, skb_mark = 0, skb_priority = 0, cutlen = 0;
    uint8_t recirc_depth = 0;
    bool has_tunnel = false;
    TunnelMetadata tunnel;
    const Packet* packet = nullptr;  // where it was; to tell a copy from the original, not to be followed
  };

  void output(ThreadContext& ctx, uint32_t port_no, PacketPtr packet) override;
  void output_batch(ThreadContext& ctx, uint32_t port_no, PacketBatch& batch) override;
  void userspace(ThreadContext& ctx, const UserspaceAction& action, PacketPtr packet) override;
  void recirculate(ThreadContext& ctx, PacketPtr packet) override;

  const std::vector<Handed>& handed() const { return handed_; }
  std::vector<Handed> outputs(uint32_t port_no) const;
  uint64_t recirculated(uint32_t in_port) const;  // number of packets of `in_port` handed to recirculate()
  size_t batch_calls() const { return batch_calls_; }
  void clear() { handed_.clear(); }

 private:
  Handed& remember(Kind kind, const Packet& packet);

  std::vector<Handed> handed_;
  size_t batch_calls_ = 0;
};

}  // namespace vswitch
