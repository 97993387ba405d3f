#include "vswitchd/rules/action_interner.h"

#include <algorithm>
#include <utility>

#include "datapath/base/word_hash.h"

namespace vswitch {
namespace {

// One overload per alternative whose values vary much in practice. The others share the general one, which is right but
// tells their values not apart.
struct HashAction {
  uint64_t state;

  void add(uint64_t word) { state = hash_word(state, word); }
  void add(const std::vector<uint8_t>& bytes) {
    add(bytes.size());
    for (uint8_t byte : bytes) add(uint64_t{byte});
  }
  void add(const Field* field) { add(reinterpret_cast<uintptr_t>(field)); }
  void add(const Subfield& s) { add(s.field), add(uint64_t{s.ofs} << 16 | s.n_bits); }

  template <typename Other>
  void operator()(const Other&) {}
  void operator()(const OutputToPort& a) { add(uint64_t{a.max_len} << 16 | a.port); }
  void operator()(const OutputToField& a) { add(a.source); }
  void operator()(const SetField& a) { add(a.field), add(a.value), add(a.mask); }
  void operator()(const MoveField& a) { add(a.source), add(a.destination); }
  void operator()(const ModField& a) { add(a.field), add(a.value); }
  void operator()(const ModVlanVid& a) { add(uint64_t{a.vid}); }
  void operator()(const SetTunnelId& a) { add(a.id); }
  void operator()(const Resubmit& a) { add(uint64_t{a.in_port} << 8 | a.table); }
  void operator()(const Note& a) { add(a.data); }
  void operator()(const CloneActions& a) { add(hash_actions(*a.actions)); }
  void operator()(const WriteActions& a) { add(hash_actions(*a.actions)); }
  void operator()(const WriteMetadata& a) { add(a.value), add(a.mask); }
  void operator()(const GotoTable& a) { add(uint64_t{a.table}); }
};

struct OutputsTo {
  OfPort port;

  template <typename Other>
  bool operator()(const Other&) const {
    return false;
  }
  bool operator()(const OutputToPort& a) const { return a.port == port; }
  bool operator()(const SendToController&) const { return port == kOfPortController; }
  bool operator()(const CloneActions& a) const { return outputs_to(*a.actions, port); }
  bool operator()(const WriteActions& a) const { return outputs_to(*a.actions, port); }
};

}  // namespace

uint64_t hash_actions(const RuleActionList& actions) {
  HashAction hash{hash_start()};
  for (const RuleAction& action : actions) {
    hash.add(uint64_t{action.index()});
    std::visit([&hash](const auto& a) { hash(a); }, action);
  }
  return hash.state;
}

bool outputs_to(const RuleActionList& actions, OfPort port) {
  return std::any_of(actions.begin(), actions.end(), [port](const RuleAction& action) {
    return std::visit([port](const auto& a) { return OutputsTo{port}(a); }, action);
  });
}

std::shared_ptr<const RuleActionList> ActionInterner::intern(std::shared_ptr<const RuleActionList> actions) {
  const uint64_t hash = hash_actions(*actions);
  auto [at, end] = lists_.equal_range(hash);
  for (; at != end; ++at) {
    std::shared_ptr<const RuleActionList> known = at->second.lock();
    if (known != nullptr && (known == actions || *known == *actions)) return known;
  }
  if (lists_.size() >= sweep_at_) sweep();
  lists_.emplace(hash, actions);
  return actions;
}

void ActionInterner::sweep() {
  std::erase_if(lists_, [](const auto& entry) { return entry.second.expired(); });
  sweep_at_ = std::max<size_t>(64, lists_.size() * 2);
}

}  // namespace vswitch
