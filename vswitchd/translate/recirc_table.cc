#include "vswitchd/translate/recirc_table.h"

#include <type_traits>
#include <utility>

#include "vswitchd/openflow/rule_codec.h"

namespace vswitch {
namespace {

static_assert(kFlowKeyLayout == 1, "FlowKey changed: is the new field metadata that a recirculation would lose?");

template <typename T>
void put(std::string& out, const T& value) {
  static_assert(std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_sized(std::string& out, std::string_view bytes) {
  put(out, bytes.size());
  out += bytes;
}

void put_actions(std::string& out, RuleActionList actions) {
  RuleSpec rule;
  rule.actions = std::make_shared<const RuleActionList>(std::move(actions));
  put_sized(out, encode_rule(rule));
}

// Held by the table alone.
bool unused(const RecircRef& context) { return context.use_count() == 1; }

}  // namespace

std::string FrozenState::content() const {
  std::string out;
  put_sized(out, bridge);
  put(out, reinterpret_cast<uintptr_t>(tables.get()));
  put(out, table.has_value() ? int32_t{*table} : int32_t{-1});
  put(out, in_port);
  put(out, tunnel);
  put(out, received_dst);
  put(out, received_dst6);
  put(out, pipeline);
  put_sized(out, {reinterpret_cast<const char*>(stack.data()), stack.size()});
  RuleActionList list;
  for (const FrozenAction& a : actions) {
    put(out, a.table);
    put(out, a.cookie);
    list.push_back(a.action);
  }
  put_actions(out, std::move(list));
  put_actions(out, action_set);
  return out;
}

RecircRef RecircTable::freeze(FrozenState state) { return freeze(std::move(state), false); }
RecircRef RecircTable::freeze_for_trace(FrozenState state) { return freeze(std::move(state), true); }

RecircRef RecircTable::freeze(FrozenState state, bool for_trace) {
  std::string content = state.content();
  MutexLock lock(mutex_);
  if (const auto known = by_content_.find(content); known != by_content_.end()) {
    Entry& entry = by_id_.at(known->second);
    entry.unused_since.reset();
    entry.trace_only = entry.trace_only && for_trace;
    return entry.context;
  }
  if (by_id_.size() >= max_contexts_ && !full_) erase_unused();
  if (by_id_.size() >= max_contexts_) {
    full_ = true;
    return nullptr;
  }
  const uint32_t id = free_id();
  Entry entry;
  entry.context = std::make_shared<const RecircContext>(RecircContext{id, std::move(state)});
  entry.content = &by_content_.emplace(std::move(content), id).first->first;
  entry.trace_only = for_trace;
  RecircRef context = entry.context;
  by_id_.emplace(id, std::move(entry));
  return context;
}

// A number is not used again soon, so that a late packet finds nothing rather than something else.
uint32_t RecircTable::free_id() {
  while (next_id_ == 0 || by_id_.contains(next_id_)) ++next_id_;
  return next_id_++;
}

RecircRef RecircTable::find(uint32_t id) const {
  MutexLock lock(mutex_);
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : it->second.context;
}

RecircTable::ById::iterator RecircTable::erase(ById::iterator it) {
  by_content_.erase(by_content_.find(*it->second.content));
  full_ = false;
  return by_id_.erase(it);
}

void RecircTable::expire(Nanoseconds now) {
  MutexLock lock(mutex_);
  full_ = false;
  for (auto it = by_id_.begin(); it != by_id_.end();) {
    Entry& entry = it->second;
    if (!unused(entry.context)) {
      entry.unused_since.reset();
    } else if (!entry.unused_since.has_value()) {
      entry.unused_since = now;
    } else if (now - *entry.unused_since >= kLinger) {
      it = erase(it);
      continue;
    }
    ++it;
  }
}

void RecircTable::erase_unused() {
  for (auto it = by_id_.begin(); it != by_id_.end();) it = unused(it->second.context) ? erase(it) : std::next(it);
}

void RecircTable::forget(RecircRef context) {
  MutexLock lock(mutex_);
  const auto it = by_id_.find(context->id);
  if (it == by_id_.end() || it->second.context != context) return;
  context.reset();
  if (!it->second.trace_only || !unused(it->second.context)) return;
  // No packet has ever had the number, so it may be given out again: the same trace prints the same.
  if (it->first + 1 == next_id_) next_id_ = it->first;
  erase(it);
}

size_t RecircTable::size() const {
  MutexLock lock(mutex_);
  return by_id_.size();
}

}  // namespace vswitch
