#include <new>

#include "datapath/base/rcu.h"
#include "datapath/flow_table/flow_implementation.h"

namespace vswitch {

struct Flow::ExtraSlot {
  Slot slot;
  ExtraSlot* next;
};

Flow* FlowImplementation::make(std::shared_ptr<const MaskPattern> pattern, const FlowKey& key) {
  void* memory = ::operator new(sizeof(Flow) + pattern->list.size() * sizeof(uint64_t));
  Flow* flow = new (memory) Flow;
  auto* value = reinterpret_cast<uint64_t*>(flow + 1);
  for (const MaskPattern::Word& word : pattern->list) *value++ = words(key)[word.index] & word.mask;
  flow->pattern_ = std::move(pattern);
  return flow;
}

void FlowImplementation::destroy(Flow* flow) {
  flow->~Flow();
  ::operator delete(static_cast<void*>(flow));
}

void FlowImplementation::set_actions(Flow& flow, ActionList actions) {
  auto next = std::make_shared<Flow::SharedActions>(std::move(actions));
  flow.actions_.store(next.get(), std::memory_order_release);
  std::shared_ptr<const Flow::SharedActions> old = std::exchange(flow.actions_owner_, std::move(next));
  if (old != nullptr) rcu::retire([old = std::move(old)] {});
}

size_t FlowImplementation::memory_bytes(const Flow& flow) {
  return sizeof(Flow) + flow.pattern_->list.size() * sizeof(uint64_t);
}

Flow::~Flow() {
  for (ExtraSlot* extra = more_slots_.load(std::memory_order_acquire); extra != nullptr;) {
    delete std::exchange(extra, extra->next);
  }
}

void Flow::unref() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  rcu::retire([this] { FlowImplementation::destroy(this); });
}

FlowKey Flow::key() const {
  FlowKey key;
  const uint64_t* value = values();
  for (const MaskPattern::Word& word : pattern_->list) words(key)[word.index] = *value++;
  return key;
}

FlowMask Flow::mask() const { return pattern_->expand(); }
bool Flow::matches(const FlowKey& key) const { return pattern_->matches(key, values()); }

const ActionList& Flow::actions() const { return actions_.load(std::memory_order_acquire)->list; }

std::shared_ptr<const ActionList> Flow::shared_actions() const {
  std::shared_ptr<const SharedActions> owner = actions_.load(std::memory_order_acquire)->shared_from_this();
  return {owner, &owner->list};
}

void Flow::Slot::add(uint64_t more_packets, uint64_t more_bytes, Nanoseconds now, uint16_t flags) {
  packets.store(packets.load(std::memory_order_relaxed) + more_packets, std::memory_order_relaxed);
  bytes.store(bytes.load(std::memory_order_relaxed) + more_bytes, std::memory_order_relaxed);
  used.store(now.count(), std::memory_order_relaxed);
  const uint16_t seen = tcp_flags.load(std::memory_order_relaxed);
  if ((flags & ~seen) != 0) tcp_flags.store(static_cast<uint16_t>(seen | flags), std::memory_order_relaxed);
}

// The calling thread's slot; null if there is no memory for one.
Flow::Slot* Flow::slot_of(size_t index) {
  const auto me = static_cast<uint8_t>(index);
  uint8_t owner = first_slot_.owner.load(std::memory_order_relaxed);
  if (owner == Slot::kNobody && first_slot_.owner.compare_exchange_strong(owner, me)) return &first_slot_;
  if (owner == me) return &first_slot_;
  for (ExtraSlot* extra = more_slots_.load(std::memory_order_acquire); extra != nullptr; extra = extra->next) {
    if (extra->slot.owner.load(std::memory_order_relaxed) == me) return &extra->slot;
  }
  auto* made = new (std::nothrow) ExtraSlot{{}, more_slots_.load(std::memory_order_acquire)};
  if (made == nullptr) return nullptr;
  made->slot.owner.store(me, std::memory_order_relaxed);
  while (!more_slots_.compare_exchange_weak(made->next, made, std::memory_order_acq_rel)) {
  }
  return &made->slot;
}

void Flow::count(size_t index, uint64_t packets, uint64_t bytes, Nanoseconds now, uint16_t tcp_flags) {
  if (Slot* slot = slot_of(index)) slot->add(packets, bytes, now, tcp_flags);
}

FlowStats Flow::stats() const {
  FlowStats sum;
  const auto add = [&sum](const Slot& slot) {
    sum.packets += slot.packets.load(std::memory_order_relaxed);
    sum.bytes += slot.bytes.load(std::memory_order_relaxed);
    sum.used = std::max(sum.used, Nanoseconds(slot.used.load(std::memory_order_relaxed)));
    sum.tcp_flags = static_cast<uint16_t>(sum.tcp_flags | slot.tcp_flags.load(std::memory_order_relaxed));
  };
  add(first_slot_);
  for (const ExtraSlot* extra = more_slots_.load(std::memory_order_acquire); extra != nullptr; extra = extra->next) {
    add(extra->slot);
  }
  return sum;
}

}  // namespace vswitch
