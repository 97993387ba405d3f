// Classifier: finds the highest-priority rule that matches a key, and says which bits of the key decided that.
//
// Why the bits: a megaflow may only match packets that the rules treat the same way, so every bit that was looked at, also
// while finding out that a rule does *not* match, must be in the megaflow's mask. The fewer bits, the fewer megaflows: hence
// subtables ordered by priority, staged comparison (metadata, L2, L3, L4) that stops at the first stage that cannot match,
// and prefix tries for addresses and ports that say how many bits of a prefix suffice.
//
// Thread safety: lookup is lock-free (RCU readers); insert/remove by one thread at a time (RuleTables' lock).
#pragma once

#include <cstddef>
#include <memory>

#include "vswitchd/rules/rule.h"

namespace vswitch {

class Classifier {
 public:
  Classifier();
  ~Classifier();
  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  // The highest-priority rule visible at `version` that matches; null if none. Among equal priorities with overlapping
  // matches any may win, but always the same for the same rules. Ors into *wildcards (if not null) the bits looked at.
  const Rule* lookup(const PipelineKey& key, Version version, PipelineMask* wildcards) const;

  // The rule with exactly this match and priority visible at `version`, null if none.
  const Rule* find_exact(const MiniMatch& match, uint16_t priority, Version version) const;

  // Does not own the rule. Versions decide visibility; a rule to be removed is first hidden, then removed.
  void insert(Rule* rule);
  void remove(Rule* rule);

  size_t rule_count() const;
  size_t subtable_count() const;
  size_t memory_bytes() const;  // of the structure, rules not included

 private:
  struct Implementation;
  std::unique_ptr<Implementation> impl_;
};

}  // namespace vswitch
