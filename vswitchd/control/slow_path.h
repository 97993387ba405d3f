// SlowPath: answers the datapath's upcalls: translates misses, and turns controller actions into packet-ins.
//
// Runs on the datapath's packet threads, several at once (RCU readers). It reads the current SwitchView, published by
// the switch.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>

#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "datapath/core/upcall.h"
#include "vswitchd/control/flow_origin.h"
#include "vswitchd/control/subscribers.h"
#include "vswitchd/control/switch.h"

namespace vswitch {

// The current view. Readers are RCU readers; the switch replaces it and retires the old one.
class ViewHolder {
 public:
  ViewHolder() : view_(new SwitchView) {}
  ~ViewHolder() { delete view_.load(); }
  ViewHolder(const ViewHolder&) = delete;
  ViewHolder& operator=(const ViewHolder&) = delete;
  const SwitchView& get() const { return *view_.load(std::memory_order_acquire); }
  void publish(std::unique_ptr<SwitchView> view);

 private:
  std::atomic<const SwitchView*> view_;
};

// Remembers what each controller action's cookie stands for. Equal requests get equal cookies. Bounded: when full, the
// least recently used goes; a packet that carries its cookie is then dropped with userspace_action_error.
class ControllerRequests {
 public:
  static constexpr size_t kMaxRequests = 65536;

  // Not 0, and at most 32 bits but for collisions.
  uint64_t controller_cookie(const ControllerRequest& request);
  // The cookie that the request has or would get.
  uint64_t preview(const ControllerRequest& request) const;
  std::shared_ptr<const ControllerRequest> find(uint64_t cookie) const;

 private:
  struct Entry {
    std::shared_ptr<const ControllerRequest> request;
    uint64_t last_used = 0;
  };
  uint64_t cookie_of(const ControllerRequest& request) const REQUIRES(mutex_);
  void evict_oldest() REQUIRES(mutex_);
  mutable Mutex mutex_;
  mutable std::unordered_map<uint64_t, Entry> by_cookie_ GUARDED_BY(mutex_);
  mutable uint64_t uses_ GUARDED_BY(mutex_) = 0;
};

// What translation hands out for the datapath's flows. Thread safety: that of its members.
class Contexts final : public TranslateContexts {
 public:
  uint64_t controller_cookie(const ControllerRequest& request) override { return requests.controller_cookie(request); }
  RecircRef freeze(FrozenState state) override { return recircs.freeze(std::move(state)); }
  RecircRef thaw(uint32_t recirc_id) const override { return recircs.find(recirc_id); }

  ControllerRequests requests;
  RecircTable recircs;
};

// Those of a trace: the same cookies and ids that a packet would get, and nothing is left behind in `contexts` when it
// ends. For one thread; translations that used it go first.
class TraceContexts final : public TranslateContexts {
 public:
  explicit TraceContexts(Contexts& contexts) : contexts_(contexts) {}
  ~TraceContexts() override;
  uint64_t controller_cookie(const ControllerRequest& request) override;
  RecircRef freeze(FrozenState state) override;
  RecircRef thaw(uint32_t recirc_id) const override { return contexts_.recircs.find(recirc_id); }
  // What the cookies given out stand for.
  const ControllerRequestMap& requests() const { return requests_; }

 private:
  Contexts& contexts_;
  std::vector<RecircRef> recircs_;
  ControllerRequestMap requests_;
};

class SlowPath final : public UpcallHandler {
 public:
  // `learned` is called when translation learned or moved an address: flows need revalidation; `crowded` when flows
  // need to be evicted. Must not block.
  SlowPath(
      const ViewHolder& views, const Clock& clock, std::function<void()> learned, std::function<void()> crowded = [] {})
      : views_(views), clock_(clock), learned_(std::move(learned)), crowded_(std::move(crowded)) {}

  MissResult miss(const FlowKey& key, const Packet& packet) override;
  void prepare() override;
  void crowded() override { crowded_(); }
  void uncounted(const std::shared_ptr<void>& installer_data, uint64_t packets, uint64_t bytes) override;
  std::optional<DropReason> controller(const UserspaceAction& action, const FlowKey& key,
                                       const Packet& packet) override;

  Contexts& contexts() { return contexts_; }
  // The words, a bit each, that any translation so far found rewritten (FlowOrigin::kRewrittenWords). Any thread.
  uint16_t rewritten_words() const { return rewritten_words_.load(std::memory_order_acquire); }
  // For others who translate, before a flow gets these bits.
  void note_bits(uint16_t installer_bits) {
    const uint16_t words = installer_bits & FlowOrigin::kRewrittenWords;
    if ((words & ~rewritten_words()) != 0) rewritten_words_.fetch_or(words, std::memory_order_acq_rel);
  }
  // For others who translate or learn: tells the switch as miss() does.
  void addresses_learned() const { learned_(); }
  // What became of a packet-in. A callback that wants it counts itself as a listener, and says when it took it.
  struct Delivery {
    size_t listeners = 0;
    bool taken = false;
  };
  Subscribers<const PacketIn&, Delivery&>& packet_ins() { return packet_ins_; }

 private:
  const ViewHolder& views_;
  const Clock& clock_;
  const std::function<void()> learned_, crowded_;
  Contexts contexts_;
  std::atomic<uint16_t> rewritten_words_{0};
  Subscribers<const PacketIn&, Delivery&> packet_ins_;
};

}  // namespace vswitch
