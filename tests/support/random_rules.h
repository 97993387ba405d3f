// Random rules: matches of RandomMatches with every kind of action, over a few tables, so that packets take long and
// different ways. Everything follows from the seed. Actions may lack their prerequisites, as those that a resubmit
// reaches do.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/support/random_match.h"
#include "vswitchd/rules/rule.h"

namespace vswitch::test {

class RandomRules {
 public:
  static constexpr uint8_t kTables = 5;  // 0 .. kTables - 1

  // `ports`: what outputs may name, beside reserved ports.
  RandomRules(uint64_t seed, std::vector<OfPort> ports) : matches_(seed), ports_(std::move(ports)) {}

  RuleSpec rule();
  std::vector<RuleSpec> rules(size_t n);
  RandomMatches& matches() { return matches_; }

 private:
  RuleActionList list(uint8_t table, int depth);
  RuleActionList instructions(uint8_t table);
  RuleAction action(uint8_t table, int depth);
  RuleAction output(int depth);
  RuleAction field_change();
  RuleAction vlan_change();
  RuleAction set_field(const Field& f);
  RuleAction move();
  RuleAction mod_field();
  Subfield subfield(const Field& f, unsigned n_bits);
  const Field& writable_field();
  uint32_t below(uint32_t n) { return matches_.below(n); }
  bool one_in(uint32_t n) { return matches_.one_in(n); }

  RandomMatches matches_;
  std::vector<OfPort> ports_;
};

// Makes of `key` one that extraction can give: zero wherever such a packet has nothing. Tunnel metadata is kept.
void make_extractable(FlowKey& key);

}  // namespace vswitch::test
