#include "datapath/core/flow_setup.h"

#include <span>
#include <utility>

#include "datapath/base/rcu.h"

namespace vswitch {

// ---- One miss

FlowSetup::Translated::Translated(UpcallHandler& by, const FlowKey& of, const Packet& packet)
    : handler(by), key(of), result(by.miss(of, packet)) {}

void FlowSetup::Translated::describe(const ThreadContext& ctx, const Packet& packet, FlowTable::Insertion& insertion) {
  insertion.key = &key;
  insertion.mask = &result.mask;
  insertion.actions = &result.actions;
  insertion.installer_data = &result.installer_data;
  insertion.installer_bits = result.installer_bits;
  insertion.stats = {1, packet.size(), ctx.now, key.tcp_flags.host()};
}

namespace {

void run(ThreadContext& ctx, ActionSink& sink, const Flow& flow, PacketPtr packet) {
  if (const uint32_t port_no = flow.shortcut().port_no()) return sink.output(ctx, port_no, std::move(packet));
  execute_actions(ctx, flow.actions(), std::move(packet), sink);
}

}  // namespace

void FlowSetup::answer(ThreadContext& ctx, ActionSink& sink, const FlowKey& key, PacketPtr packet) {
  UpcallHandler* handler = this->handler();
  if (handler == nullptr) return ctx.drop(std::move(packet), DropReason::upcall_error);
  Translated translated(*handler, key, *packet);
  if (!translated.result.install) return finish(ctx, sink, translated, nullptr, std::move(packet));
  FlowTable::Insertion insertion{};
  translated.describe(ctx, *packet, insertion);
  flows_.insert({&insertion, 1});
  finish(ctx, sink, translated, &insertion, std::move(packet));
}

void FlowSetup::answer_unless_known(ThreadContext& ctx, ActionSink& sink, const FlowKey& key, PacketPtr packet) {
  if (Flow* flow = flows_.lookup(key)) return execute(ctx, sink, *flow, key, std::move(packet));
  answer(ctx, sink, key, std::move(packet));
}

void FlowSetup::finish(ThreadContext& ctx, ActionSink& sink, const Translated& translated,
                       const FlowTable::Insertion* insertion, PacketPtr packet) {
  using Refusal = FlowTable::Insertion::Refusal;
  if (insertion != nullptr && insertion->flow != nullptr) {
    return run(ctx, sink, *insertion->flow, std::move(packet));
  }
  if (insertion != nullptr && insertion->refusal != Refusal::full) {
    if (Flow* other = flows_.lookup(translated.key)) {  // put there meanwhile
      return execute(ctx, sink, *other, translated.key, std::move(packet));
    }
  }
  translated.handler.uncounted(translated.result.installer_data, 1, packet->size());
  execute_actions(ctx, Flow::list_of(translated.result.actions), std::move(packet), sink);
}

void FlowSetup::execute(ThreadContext& ctx, ActionSink& sink, Flow& flow, const FlowKey& key, PacketPtr packet) {
  flow.count_in_passing(ctx.index, 1, packet->size(), ctx.now, key.tcp_flags.host());
  run(ctx, sink, flow, std::move(packet));
}

void FlowSetup::prepare() {
  flows_.prepare();
  const rcu::ReaderScope reader;  // who replaces the handler waits for this
  if (UpcallHandler* handler = this->handler()) handler->prepare();
}

void FlowSetup::report_crowd() {
  if (UpcallHandler* handler = this->handler(); handler != nullptr && flows_.crowded()) handler->crowded();
}

// ---- Several

namespace {

// Whether `mask` looks at nothing in which the two differ.
bool alike(const FlowKey& a, const FlowKey& b, const FlowMask& mask) {
  uint64_t difference = 0;
  for (size_t i = 0; i < kFlowKeyWords; ++i) difference |= (words(a)[i] ^ words(b)[i]) & words(mask)[i];
  return difference == 0;
}

}  // namespace

SetupBatch::SetupBatch(FlowSetup& setup) : setup_(setup) {
  translated_.reserve(kMost);
  insertions_.reserve(kMost);
}

uint8_t SetupBatch::find(const FlowKey& key) const {
  for (size_t i = 0; i < insertions_.size(); ++i) {
    uint64_t difference = 0;
    for (size_t w = 0; w < kTelling.size(); ++w) {
      difference |= (words(key)[kTelling[w]] & telling_[i].mask[w]) ^ telling_[i].value[w];
    }
    if (difference == 0 && alike(key, *insertions_[i].key, *insertions_[i].mask)) return translated_of_[i];
  }
  return kNone;
}

size_t SetupBatch::add(const ThreadContext& ctx, const FlowKey& key, const Packet& packet) {
  Miss& miss = misses_[count_];
  miss = {&key, find(key), false};
  if (miss.translated != kNone) return count_++;
  UpcallHandler* handler = setup_.handler();
  if (handler == nullptr) return count_++;
  const auto number = static_cast<uint8_t>(translated_.size());
  FlowSetup::Translated& translated = translated_.emplace_back(*handler, key, packet);
  miss.translated = number;
  miss.own = true;
  insertion_of_[number] = kNone;
  if (translated.result.install) insert_later(number, ctx, packet);
  return count_++;
}

void SetupBatch::insert_later(uint8_t number, const ThreadContext& ctx, const Packet& packet) {
  const size_t at = insertions_.size();
  FlowTable::Insertion& insertion = insertions_.emplace_back();
  translated_[number].describe(ctx, packet, insertion);
  insertion_of_[number] = static_cast<uint8_t>(at);
  translated_of_[at] = number;
  for (size_t w = 0; w < kTelling.size(); ++w) {
    const uint64_t mask = words(*insertion.mask)[kTelling[w]];
    telling_[at].mask[w] = mask;
    telling_[at].value[w] = words(*insertion.key)[kTelling[w]] & mask;
  }
}

void SetupBatch::install() {
  const std::span<FlowTable::Insertion> all(insertions_);
  setup_.flows().insert(all.subspan(std::exchange(installed_, all.size())));
}

void SetupBatch::execute(size_t number, ThreadContext& ctx, ActionSink& sink, PacketPtr packet) {
  const Miss& miss = misses_[number];
  if (miss.translated == kNone) return ctx.drop(std::move(packet), DropReason::upcall_error);
  const uint8_t at = insertion_of_[miss.translated];
  const FlowTable::Insertion* insertion = at == kNone ? nullptr : &insertions_[at];
  if (miss.own) return setup_.finish(ctx, sink, translated_[miss.translated], insertion, std::move(packet));
  // The flow may look at more than was asked for, if there are too many masks, or may be gone again.
  Flow* flow = insertion->flow;
  if (flow != nullptr && !flow->dead() && flow->matches(*miss.key)) {
    return FlowSetup::execute(ctx, sink, *flow, *miss.key, std::move(packet));
  }
  setup_.answer_unless_known(ctx, sink, *miss.key, std::move(packet));
}

void SetupBatch::clear() {
  count_ = installed_ = 0;
  insertions_.clear();
  translated_.clear();
}

}  // namespace vswitch
