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

KnownTerms::Shared KnownTerms::share(TranslateOutput& output) {
  Entry& entry = (*entries_)[hash_of(output.way) % kEntries];
  Flow::ActionsRef actions = entry.actions.lock();
  if (actions == nullptr || Flow::list_of(actions) != output.actions) {
    actions = Flow::make_actions(output.actions);
    entry.actions = actions;
  }
  std::shared_ptr<const FlowTerms> terms = entry.terms.lock();
  if (terms == nullptr || !(*terms == output)) {
    terms = std::make_shared<const FlowTerms>(output);
    entry.terms = terms;
  }
  return {std::move(terms), std::move(actions)};
}

}  // namespace vswitch
