// RuleChanges: what a change of the rules may mean for datapath flows, in the form in which every flow can be asked
// quickly whether it is concerned.
//
// A flow need not be looked at again if it cannot have met the rule that came or went. Translation records which tables
// a flow's packets were looked up in, and which words of the key had been rewritten by then (FlowOrigin); so for a rule
// of table T that came or went, a flow stays as it is if
// - its packets were not looked up in T, or
// - packet and rule disagree in a bit that the flow's mask fixes and that nothing rewrote before, or
// - the rule went, and the flow's packets were not treated by it, or
// - the rule came, and wherever the flow's packets were looked up in T they met a rule of higher priority.
// Few rules are asked about one by one. Of many, those that a flow may have met are found by hash: for all flows of one
// form (mask, tables and rewritten words), the bits that decide are the same for all rules of one mask.
//
// What remains is translated again. A flow that is passed over is right, though translating it again might have given
// it a mask with other bits.
//
// Thread-compatible, concern() and may_concern() included.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "datapath/flow_table/flow_table.h"
#include "vswitchd/control/flow_origin.h"
#include "vswitchd/rules/rule_tables.h"
#include "vswitchd/translate/switch_view.h"

namespace vswitch {

class RuleChanges {
 public:
  // With more rules it is quicker to translate every flow again.
  static constexpr size_t kMostRules = 16'384;

  RuleChanges() = default;
  RuleChanges(RuleChanges&&) = default;
  RuleChanges& operator=(RuleChanges&&) = default;
  RuleChanges(const RuleChanges&) = delete;  // what it remembers points into itself
  RuleChanges& operator=(const RuleChanges&) = delete;

  // The change's rules, before it is published (which lets go of those that it removes). `bridge`: where they are or
  // were; null: not in the view yet, so no flow can have met them.
  void add(const RuleChange& change, const BridgeView* bridge);

  // Too many: every flow is to be looked at.
  bool too_many() const { return too_many_; }
  bool empty() const { return rules_.empty() && !too_many_; }
  // Bits that no flow which any of the rules may concern has in its masked key: the rules look at them and want 0
  // there. `rewritten_words`: the words in which a rule may have met something else than the key.
  HotWords foreign_bits(uint16_t rewritten_words) const;
  // Whether `flow` may have to change. RCU reader.
  bool concern(const Flow& flow) const;
  // The same as far as the flow itself tells, without asking what it met: quicker, and more often true.
  bool may_concern(const Flow& flow) const;

 private:
  struct Changed {
    HotWords value{}, mask{};
    const RuleTables* tables = nullptr;
    const Rule* removed = nullptr;  // null: it came. To be compared only, it may be gone
    uint16_t priority = 0;
    uint16_t table_bit = 0;
    uint8_t table = 0;
  };
  void add(const Rule& rule, bool removed, const BridgeView& bridge);
  // Whether packets of the flow may match the rule.
  static bool may_meet(const Changed& rule, const Flow& flow);
  // Whether the rule can matter after what the flow met when it was translated.
  static bool matters_to(const Changed& rule, const Flow& flow);
  template <typename Predicate>
  bool any_of(const Flow& flow, const Predicate& predicate) const;

  // Those rules of which flows of a form know the same bits, by the hash of these.
  struct Group {
    explicit Group(const HotWords& deciding);
    uint64_t hash(const HotWords& key) const;  // of the bits that decide
    // Whether the key may match one of the rules, by what is the same in all of them: quick, and false for most keys.
    bool may_match(const HotWords& key) const;
    // No more rules will follow.
    void close(const std::vector<Changed>& changed);

    HotWords bits{};
    // Those words of `bits` that are not 0. Of them, `same` are the bits in which all of the rules have `value`.
    struct Word {
      uint64_t mask, same, value;
      size_t index;
    };
    std::array<Word, kHotWords> words{};
    size_t word_count = 0;
    struct Entry {
      uint64_t hash;
      uint32_t rule;  // index of rules_
    };
    std::vector<Entry> rules;  // by hash, once closed
    // A bit for each value of some bits of the hash: most keys that are not told apart by `same` end here.
    std::vector<uint64_t> filter;
    unsigned filter_shift = 0;
    bool may_have(uint64_t hash) const {
      const uint64_t bit = hash >> filter_shift;
      return (filter[bit / 64] >> bit % 64 & 1) != 0;
    }
  };
  struct Form {
    HotWords mask{};
    uint16_t installer_bits = 0;
    bool operator==(const Form&) const = default;
  };
  struct HashForm {
    size_t operator()(const Form& form) const;
  };
  using Groups = std::vector<Group>;
  const Groups& groups_of(const Flow& flow) const;
  void fill(const Form& form, Groups& groups) const;
  void merge(Groups& groups) const;
  template <typename Predicate>
  bool any_in(const Group& group, const Flow& flow, const Predicate& predicate) const;

  std::vector<Changed> rules_;
  using KnownForms = std::unordered_map<Form, Groups, HashForm>;
  mutable KnownForms groups_;  // made when the first flow of a form asks
  // Forms that were asked for lately, by where their masks lie and by the installer's bits. A mask may be gone, and
  // another in its place: what it says is compared.
  mutable std::array<const KnownForms::value_type*, 64> recent_forms_{};
  bool too_many_ = false;
};

}  // namespace vswitch
