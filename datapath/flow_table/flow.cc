#include <new>
#include <variant>

#include "datapath/base/rcu.h"
#include "datapath/flow_table/flow_implementation.h"
#include "datapath/flow_table/shallow_key.h"

namespace vswitch {

struct Flow::ExtraSlot {
  Slot slot;
  ExtraSlot* next;
};

namespace {

Flow::Shortcut find_shortcut(const ActionList& actions) {
  if (actions.empty()) return Flow::Shortcut::drop(DropReason::of_pipeline);
  if (const auto* drop = std::get_if<DropAction>(&actions.front())) return Flow::Shortcut::drop(drop->reason);
  const auto* output = std::get_if<OutputAction>(&actions.front());
  const bool only = output != nullptr && actions.size() == 1 && output->port_no < kMaxPorts;
  return only ? Flow::Shortcut::output(output->port_no) : Flow::Shortcut();
}

uint32_t find_only_output(const ActionList& actions) {
  size_t outputs = 0;
  for (const Action& action : actions) {
    if (std::holds_alternative<OutputAction>(action)) {
      ++outputs;
    } else if (!std::holds_alternative<SetTunnelAction>(action)) {
      return 0;
    }
  }
  const auto* last = outputs == 1 ? std::get_if<OutputAction>(&actions.back()) : nullptr;
  return last != nullptr && last->port_no < kMaxPorts ? last->port_no : 0;
}

}  // namespace

Flow::SharedActions::SharedActions(ActionList actions)
    : list(std::move(actions)),
      shortcut(find_shortcut(list)),
      only_output(find_only_output(list)),
      shallow(is_shallow(list)) {}

Flow& FlowImplementation::fill_in(Flow* flow, const MaskPattern& pattern, const FlowKey& key) {
  for (size_t i = 0; i < kHotWords; ++i) {
    __atomic_store_n(&flow->hot_[i], words(key)[i] & pattern.hot()[i], __ATOMIC_RELAXED);  // Flow::has_any_of()
  }
  auto* value = reinterpret_cast<uint64_t*>(flow + 1);
  for (const MaskPattern::Word& word : pattern.rest()) *value++ = words(key)[word.index] & word.mask;
  flow->pattern_ = &pattern;
  flow->references_.store(1, std::memory_order_relaxed);
  return *flow;
}

void FlowImplementation::give_actions(Flow& flow, Flow::ActionsRef actions) {
  const bool whole = actions->only_output != 0 && flow.pattern_->whole_connections();
  flow.actions_.store(actions.get(), std::memory_order_relaxed);
  flow.shortcut_.store(actions->shortcut.value(), std::memory_order_relaxed);
  flow.kernel_path_.store(whole ? Flow::kTakesWhole : uint8_t{0}, std::memory_order_relaxed);
  flow.actions_owner_ = std::move(actions);
}

// The slot stays free for the thread that will see most of the flow's packets.
void FlowImplementation::begin_with(Flow& flow, const FlowStats& stats) {
  if (stats.packets != 0) flow.first_slot_.add(stats.packets, stats.bytes, stats.used, stats.tcp_flags);
}

void FlowImplementation::recycle(FlowArena& arena, Flow* flow) {
  flow->pattern_->unref();
  flow->pattern_ = nullptr;
  flow->actions_.store(nullptr, std::memory_order_relaxed);
  flow->shortcut_.store(0, std::memory_order_relaxed);
  flow->kernel_path_.store(0, std::memory_order_relaxed);
  flow->actions_owner_.reset();
  flow->installer_data_.reset();
  flow->clear_statistics();
  arena.give_back(flow);
}

Flow::ActionsRef FlowImplementation::set_actions(Flow& flow, Flow::ActionsRef next) {
  flow.actions_.store(next.get(), std::memory_order_release);
  flow.shortcut_.store(next->shortcut.value(), std::memory_order_release);
  if (next->only_output != 0 && flow.pattern_->whole_connections()) {
    flow.kernel_path_.fetch_or(Flow::kTakesWhole, std::memory_order_seq_cst);
  } else {
    flow.kernel_path_.fetch_and(static_cast<uint8_t>(~Flow::kTakesWhole), std::memory_order_seq_cst);
  }
  return std::exchange(flow.actions_owner_, std::move(next));
}

Flow::~Flow() {
  clear_statistics();
  if (pattern_ != nullptr) pattern_->unref();
}

void Flow::clear_statistics() {
  for (ExtraSlot* extra = more_slots_.exchange(nullptr, std::memory_order_acquire); extra != nullptr;) {
    delete std::exchange(extra, extra->next);
  }
  first_slot_.packets.store(0, std::memory_order_relaxed);
  first_slot_.bytes.store(0, std::memory_order_relaxed);
  first_slot_.used.store(0, std::memory_order_relaxed);
  first_slot_.tcp_flags.store(0, std::memory_order_relaxed);
  first_slot_.owner.store(Slot::kNobody, std::memory_order_relaxed);
}

FlowKey Flow::key() const {
  FlowKey key;
  for (size_t i = 0; i < kHotWords; ++i) words(key)[i] = hot_[i];
  const uint64_t* value = rest();
  for (const MaskPattern::Word& word : pattern_->rest()) words(key)[word.index] = *value++;
  return key;
}

FlowMask Flow::mask() const { return pattern_->expand(); }
bool Flow::matches(const FlowKey& key) const { return pattern_->matches(key, hot_.data(), rest()); }

const HotWords& Flow::hot_mask() const { return pattern_->hot(); }

uint32_t Flow::disagreeing_words(const HotWords& value, const HotWords& mask) const {
  const HotKey& own = pattern_->hot();
  uint32_t words = 0;
  for (size_t i = 0; i < kHotWords; ++i) {
    words |= static_cast<uint32_t>(((hot_[i] ^ value[i]) & mask[i] & own[i]) != 0) << i;
  }
  return words;
}

// Without a branch for each word, since walks through all flows ask it of every one.
bool Flow::may_agree(const HotWords& value, const HotWords& mask) const {
  const HotKey& own = pattern_->hot();
  uint64_t differences = 0;
  for (size_t i = 0; i < kHotWords; ++i) differences |= (hot_[i] ^ value[i]) & mask[i] & own[i];
  return differences == 0;
}

uint32_t Flow::only_output() const { return actions_.load(std::memory_order_acquire)->only_output; }

const ActionList& Flow::actions() const { return actions_.load(std::memory_order_acquire)->list; }

Flow::ActionsRef Flow::make_actions(ActionList actions) { return std::make_shared<SharedActions>(std::move(actions)); }

Flow::ActionsRef Flow::actions_ref() const { return actions_.load(std::memory_order_acquire)->shared_from_this(); }

const ActionList& Flow::list_of(const ActionsRef& actions) { return actions->list; }

// What a shortcut says is all there is to say, so nearly always the lists need not be looked at.
bool Flow::has_actions(const ActionsRef& actions) const {
  const SharedActions* own = actions_.load(std::memory_order_acquire);
  if (own == actions.get()) return true;
  const Shortcut mine = shortcut();
  if (mine.value() != actions->shortcut.value()) return false;
  return !mine.none() || own->list == actions->list;
}

std::shared_ptr<const ActionList> Flow::shared_actions() const {
  const ActionsRef owner = actions_ref();
  return {owner, &owner->list};
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

void Flow::count_elsewhere(size_t index, uint64_t packets, uint64_t bytes, Nanoseconds now, uint16_t tcp_flags) {
  if (Slot* slot = slot_of(index)) slot->add(packets, bytes, now, tcp_flags);
}

void Flow::count_in_passing(size_t index, uint64_t packets, uint64_t bytes, Nanoseconds now, uint16_t tcp_flags) {
  uint8_t owner = Slot::kNobody;
  if (!first_slot_.owner.compare_exchange_strong(owner, Slot::kBorrowed, std::memory_order_acquire)) {
    return count_elsewhere(index, packets, bytes, now, tcp_flags);
  }
  first_slot_.add(packets, bytes, now, tcp_flags);
  first_slot_.owner.store(Slot::kNobody, std::memory_order_release);
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
