// An upcall handler for tests that put their flows themselves: what meets none is dropped, and no flow comes of it.
#pragma once

#include <memory>
#include <optional>

#include "datapath/core/upcall.h"

namespace vswitch::test {

class DroppingHandler final : public UpcallHandler {
 public:
  MissResult miss(const FlowKey&, const Packet&) override {
    MissResult result;
    result.actions = Flow::make_actions({DropAction{DropReason::of_pipeline}});
    result.install = false;
    return result;
  }
  void uncounted(const std::shared_ptr<void>&, uint64_t, uint64_t) override {}
  std::optional<DropReason> controller(const UserspaceAction&, const FlowKey&, const Packet&) override {
    return std::nullopt;
  }
};

}  // namespace vswitch::test
