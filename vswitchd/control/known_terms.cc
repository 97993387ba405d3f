#include "vswitchd/control/known_terms.h"

#include <utility>

#include "datapath/base/word_hash.h"

namespace vswitch {
namespace {

// Of the rules: nearly always they tell everything.
uint64_t hash_of(const Way& way) {
  uint64_t hash = hash_start();
  for (const Rule* rule : way.rules) hash = hash_word(hash, reinterpret_cast<uintptr_t>(rule));
  return hash;
}

}  // namespace

Flow::ActionsRef KnownTerms::actions_of(Entry& entry, const TranslateOutput& output) {
  Flow::ActionsRef actions = entry.actions.lock();
  if (actions == nullptr || Flow::list_of(actions) != output.actions) {
    actions = Flow::make_actions(output.actions);
    entry.actions = actions;
  }
  return actions;
}

KnownTerms::Shared KnownTerms::share(TranslateOutput& output) {
  Set& set = (*sets_)[hash_of(output.way) % kSets];
  for (Entry& entry : set) {
    std::shared_ptr<const FlowTerms> terms = entry.terms.lock();
    if (terms != nullptr && *terms == output) return {std::move(terms), actions_of(entry, output)};
  }
  Entry& entry = set[0].terms.expired() ? set[0] : set[1];
  auto terms = std::make_shared<const FlowTerms>(output);
  entry.terms = terms;
  return {std::move(terms), actions_of(entry, output)};
}

}  // namespace vswitch
