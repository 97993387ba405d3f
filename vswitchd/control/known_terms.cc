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
  if (entry.actions == nullptr || Flow::list_of(entry.actions) != output.actions) {
    entry.actions = Flow::make_actions(output.actions);
  }
  std::shared_ptr<const FlowTerms> terms = entry.terms.lock();
  if (terms == nullptr || !(*terms == output)) {
    terms = std::make_shared<const FlowTerms>(output);
    entry.terms = terms;
  }
  return {std::move(terms), entry.actions};
}

}  // namespace vswitch
