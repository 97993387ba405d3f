// Classifier: finds the highest-priority rule that matches a key, and says which bits of the key decided that.
//
// Why the bits: a megaflow may only match packets that the rules treat the same way, so every bit that was looked at,
// also while finding out that a rule does *not* match, must be in the megaflow's mask. The fewer bits, the fewer
// megaflows.
//
// How: rules with the same mask are a subtable, a hash table. Rule sets have hundreds of masks, so most subtables are
// ruled out without looking at them, many at a time. Those that match the same metadata and L2 fields are a group,
// which knows in which of them the packet's values occur; an index over all destination addresses, and one over all
// source addresses, says which subtables have a prefix of the packet's, and how many bits of the address decided that.
// What is in all three (a handful) is looked at in order of priority, until no higher one is left. A subtable without a
// rule for the packet stops at its first stage (metadata, L2, L3, L4) that cannot match, and marks only as many bits of
// ports as decided.
//
// Thread safety: lookup is lock-free (RCU readers); insert/remove by one thread at a time (RuleTables' lock).
// Why readers need no lock although several structures change one after another: whatever happens, a subtable's hash
// tables, stages, prefixes and place in the order cover *at least* the rules that a reader's version can see: a rule is
// entered everywhere before its first version is published, and taken out only when no reader is left that could see
// it. Extra (invisible) entries cost a few more bits in *wildcards, never a wrong answer.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "vswitchd/rules/rule.h"

namespace vswitch {

class Classifier {
 public:
  Classifier();
  // An index of addresses with so many bytes is large (prefix_index.h); for tests.
  explicit Classifier(size_t large_index);
  ~Classifier();  // frees what readers may still see after a grace period
  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  // The highest-priority rule visible at `version` that matches; null if none. Among equal priorities with overlapping
  // matches any may win, but always the same for the same rules (the one whose mask has been in the classifier for
  // longer). Ors into *wildcards (if not null) the bits looked at.
  const Rule* lookup(const PipelineKey& key, Version version, PipelineMask* wildcards) const;

  // The rule with exactly this match and priority visible at `version`, null if none. Writer only.
  const Rule* find_exact(const MiniMatch& match, uint16_t priority, Version version) const;

  // The same of published rules (see defer()). RCU reader.
  const Rule* find_published(const MiniMatch& match, uint16_t priority, Version version) const;

  // Visits the rules visible at `version` that `criterion` contains (all packets they match are matched by it), until
  // visit returns false. RCU reader or writer; visit may not change the classifier. Published rules only (see defer()).
  void for_each_contained(const MiniMatch& criterion, Version version,
                          const std::function<bool(const Rule&)>& visit) const;
  // A rule visible at `version` with this priority that some packet matches together with `match`; null if none.
  // Writer.
  const Rule* find_overlap(const MiniMatch& match, uint16_t priority, Version version) const;

  // Starts to fetch what find_exact() and insert() of a rule with this match will look at: when there are many, a few
  // of them ahead. Writer.
  void prefetch(const MiniMatch& match) const;
  // Does not own the rule. Versions decide visibility; a rule to be removed is first hidden, then removed.
  void insert(Rule* rule);
  void remove(Rule* rule);

  // Between defer() and publish(), lookups need not find what is inserted. Saves sorting the subtables for each of many
  // insertions: publish() before the version that shows them.
  void defer();
  void publish();

  size_t rule_count() const;
  size_t subtable_count() const;
  size_t memory_bytes() const;  // of the structure, rules not included

 private:
  struct Implementation;
  std::unique_ptr<Implementation> impl_;
};

}  // namespace vswitch
