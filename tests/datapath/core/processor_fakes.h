// A port and a slow path for tests of PacketProcessor.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "datapath/core/packet_processor.h"
#include "tests/support/packet_builder.h"

namespace vswitch::test {

// A port that keeps what it is sent.
class Keeper final : public Vport {
 public:
  explicit Keeper(uint32_t port_no, bool gathers = false) : Vport("keeper", port_no, gathers) {}
  std::string_view type() const override { return "keeper"; }
  void send(ThreadContext& ctx, PacketBatch& batch) override {
    for (size_t i = 0; i < batch.size(); ++i) {
      ctx.ledger.port(batch[i].in_port).sent.add();
      frames.emplace_back(batch[i].data(), batch[i].data() + batch[i].size());
      marks.push_back(batch[i].skb_mark);
    }
    batch.clear();
  }
  void send_all(ThreadContext& ctx, std::span<PacketBatch> batches) override {
    Vport::send_all(ctx, batches);
    together.push_back(batches.size());
  }
  std::vector<std::shared_ptr<RxSource>> sources() override { return {}; }
  VportState state() const override { return {}; }
  VportStats stats() const override { return {}; }
  Status reconfigure(const VportConfig&) override { return {}; }
  Status set_admin_up(bool) override { return {}; }

  std::vector<Bytes> frames;
  std::vector<uint32_t> marks;
  std::vector<size_t> together;  // batches of each send_all()
};

class Processor final : public PacketProcessor {
 public:
  using PacketProcessor::PacketProcessor;
  void userspace(ThreadContext& ctx, const UserspaceAction&, PacketPtr packet) override {
    ctx.drop(std::move(packet), DropReason::userspace_action_error);
  }
  size_t missed = 0;

 protected:
  void miss(PacketPtr packet, const FlowKey&, uint32_t) override {
    ++missed;
    ctx_.drop(std::move(packet), DropReason::upcall_error);
  }
  bool any_must_wait() const override { return false; }
  bool must_wait(uint32_t) const override { return false; }
};

}  // namespace vswitch::test
