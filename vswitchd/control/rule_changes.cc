#include "vswitchd/control/rule_changes.h"

#include <algorithm>
#include <bit>
#include <map>

#include "datapath/base/word_hash.h"

namespace vswitch {
namespace {

// So many rules are asked about one by one.
constexpr size_t kFewRules = 32;
// Looking into so few groups costs hardly more than looking into one.
constexpr size_t kFewGroups = 8;
// A flow of a form with more groups of rules is translated again: that takes no longer than to look into all of them.
constexpr size_t kMostGroups = 256;
// Bits of a group's filter for each rule: so one flow in 16 or fewer is looked for in vain.
constexpr size_t kFilterBits = 16;

// Without the call that == is.
bool equal(const HotWords& a, const HotWords& b) {
  uint64_t differences = 0;
  for (size_t i = 0; i < kHotWords; ++i) differences |= a[i] ^ b[i];
  return differences == 0;
}

const Credit& credit_of(const Flow& flow) {
  return static_cast<const FlowOrigin*>(flow.installer_data().get())->terms->credit;
}

// The rule's in_port is the bridge's, the flow's the datapath's. A port that the view does not have may still be one
// that a packet was resubmitted as, and then the flow's first word counts as rewritten; so it may stand for any.
void translate_in_port(const BridgeView& bridge, FlowKey& value, FlowMask& mask) {
  const PortView* port = mask.in_port == ~0u ? bridge.port(static_cast<OfPort>(value.in_port)) : nullptr;
  const bool known = port != nullptr && port->dp_port != 0;
  value.in_port = known ? port->dp_port : 0;
  mask.in_port = known ? ~0u : 0;
  value.recirc_id = mask.recirc_id = 0;
}

}  // namespace

void RuleChanges::add(const RuleChange& change, const BridgeView* bridge) {
  if (bridge == nullptr || too_many_) return;
  if (rules_.size() + change.added().size() + change.removed().size() > kMostRules) {
    too_many_ = true;
    rules_.clear();
    return;
  }
  for (const Rule* rule : change.added()) add(*rule, false, *bridge);
  for (const Rule* rule : change.removed()) add(*rule, true, *bridge);
}

void RuleChanges::add(const Rule& rule, bool removed, const BridgeView& bridge) {
  Match match = rule.match().expand();
  translate_in_port(bridge, match.value.packet, match.mask.packet);
  Changed changed;
  for (size_t i = 0; i < kHotWords; ++i) {
    changed.value[i] = words(match.value.packet)[i];
    changed.mask[i] = words(match.mask.packet)[i];
  }
  changed.tables = bridge.tables.get();
  changed.removed = removed ? &rule : nullptr;
  changed.priority = rule.priority();
  changed.table = rule.table();
  changed.table_bit = FlowOrigin::table_bit(changed.tables, changed.table);
  rules_.push_back(changed);
}

HotWords RuleChanges::foreign_bits(uint16_t rewritten_words) const {
  HotWords bits{};
  if (too_many_ || rules_.empty()) return bits;
  for (size_t i = 0; i < kHotWords; ++i) {
    if ((rewritten_words & (1u << i)) != 0) continue;
    bits[i] = ~uint64_t{0};
    for (const Changed& rule : rules_) bits[i] &= rule.mask[i] & ~rule.value[i];
  }
  return bits;
}

bool RuleChanges::may_concern(const Flow& flow) const {
  return any_of(flow, [&flow](const Changed& rule) { return may_meet(rule, flow); });
}

bool RuleChanges::concern(const Flow& flow) const {
  return any_of(flow, [&flow](const Changed& rule) { return may_meet(rule, flow) && matters_to(rule, flow); });
}

template <typename Predicate>
bool RuleChanges::any_of(const Flow& flow, const Predicate& predicate) const {
  if (too_many_) return true;
  if (rules_.size() <= kFewRules) return std::any_of(rules_.begin(), rules_.end(), predicate);
  const Groups& groups = groups_of(flow);
  if (groups.size() > kMostGroups) return true;
  return std::any_of(groups.begin(), groups.end(), [&](const Group& group) { return any_in(group, flow, predicate); });
}

template <typename Predicate>
bool RuleChanges::any_in(const Group& group, const Flow& flow, const Predicate& predicate) const {
  if (!group.may_match(flow.hot_key())) return false;
  const uint64_t hash = group.hash(flow.hot_key());
  if (!group.may_have(hash)) return false;
  const auto before = [](const Group::Entry& entry, uint64_t h) { return entry.hash < h; };
  auto at = std::lower_bound(group.rules.begin(), group.rules.end(), hash, before);
  for (; at != group.rules.end() && at->hash == hash; ++at) {
    if (predicate(rules_[at->rule])) return true;
  }
  return false;
}

RuleChanges::Group::Group(const HotWords& deciding) : bits(deciding) {
  for (size_t i = 0; i < kHotWords; ++i) {
    if (bits[i] != 0) words[word_count++] = {.mask = bits[i], .same = bits[i], .value = 0, .index = i};
  }
}

// The words do not wait for each other, and each has a secret of its own.
uint64_t RuleChanges::Group::hash(const HotWords& key) const {
  uint64_t hash = 0;
  for (size_t i = 0; i < word_count; ++i) {
    hash ^= hash_word(kHashSecret.lanes[i], key[words[i].index] & words[i].mask);
  }
  return hash;
}

bool RuleChanges::Group::may_match(const HotWords& key) const {
  uint64_t differences = 0;
  for (size_t i = 0; i < word_count; ++i) differences |= (key[words[i].index] ^ words[i].value) & words[i].same;
  return differences == 0;
}

void RuleChanges::Group::close(const std::vector<Changed>& changed) {
  for (size_t i = 0; i < word_count; ++i) {
    Word& word = words[i];
    word.value = changed[rules.front().rule].value[word.index];
    for (const Entry& entry : rules) word.same &= ~(changed[entry.rule].value[word.index] ^ word.value);
  }
  std::sort(rules.begin(), rules.end(), [](const Entry& a, const Entry& b) { return a.hash < b.hash; });
  const size_t size = std::bit_ceil(std::max<size_t>(rules.size() * kFilterBits, 64));
  filter.assign(size / 64, 0);
  filter_shift = static_cast<unsigned>(64 - std::countr_zero(size));
  for (const Entry& entry : rules) {
    const uint64_t bit = entry.hash >> filter_shift;
    filter[bit / 64] |= uint64_t{1} << bit % 64;
  }
}

size_t RuleChanges::HashForm::operator()(const Form& form) const {
  uint64_t hash = hash_word(hash_start(), form.installer_bits);
  for (const uint64_t word : form.mask) hash = hash_word(hash, word);
  return hash;
}

const RuleChanges::Groups& RuleChanges::groups_of(const Flow& flow) const {
  const HotWords& mask = flow.hot_mask();
  const uint16_t installer_bits = flow.installer_bits();
  const uint64_t place = (reinterpret_cast<uintptr_t>(&mask) + installer_bits) * 0x9e3779b97f4a7c15ULL;
  static_assert(std::tuple_size_v<decltype(recent_forms_)> == 64);
  const KnownForms::value_type*& recent = recent_forms_[place >> 58];
  if (recent != nullptr && recent->first.installer_bits == installer_bits && equal(recent->first.mask, mask)) {
    return recent->second;
  }
  const auto [at, is_new] = groups_.try_emplace(Form{mask, installer_bits});
  if (is_new) fill(at->first, at->second);
  recent = &*at;
  return at->second;
}

void RuleChanges::fill(const Form& form, Groups& groups) const {
  std::map<HotWords, size_t> known;
  size_t last = 0;  // rules that follow each other tend to have the same mask
  for (size_t r = 0; r < rules_.size(); ++r) {
    const Changed& rule = rules_[r];
    if ((form.installer_bits & rule.table_bit) == 0) continue;
    HotWords bits{};
    for (size_t i = 0; i < kHotWords; ++i) {
      const bool rewritten = (form.installer_bits & FlowOrigin::kRewrittenWords & (1u << i)) != 0;
      bits[i] = rewritten ? 0 : rule.mask[i] & form.mask[i];
    }
    if (groups.empty() || groups[last].bits != bits) {
      const auto [group, added] = known.try_emplace(bits, groups.size());
      if (added) groups.emplace_back(bits);
      last = group->second;
    }
    groups[last].rules.push_back({groups[last].hash(rule.value), static_cast<uint32_t>(r)});
  }
  if (groups.size() > kFewGroups) merge(groups);
  if (groups.size() > kMostGroups) {  // too many for anybody to look into them
    for (Group& group : groups) group.rules = {};
    return;
  }
  for (Group& group : groups) group.close(rules_);
}

// Puts all rules into one group by the bits that all of them have, if these tell the rules apart so well that looking
// at those that are left takes less than looking into every group. Rule sets have hundreds of masks, but most of them
// begin alike: some bits of the destination address.
void RuleChanges::merge(Groups& groups) const {
  HotWords common = groups.front().bits;
  for (const Group& group : groups) {
    for (size_t i = 0; i < kHotWords; ++i) common[i] &= group.bits[i];
  }
  Group merged(common);
  std::unordered_map<uint64_t, size_t> counts;
  size_t met = 0;  // times the number of rules: how many a flow that meets one of them meets
  for (const Group& group : groups) {
    for (const Group::Entry& entry : group.rules) {
      const uint64_t hash = merged.hash(rules_[entry.rule].value);
      merged.rules.push_back({hash, entry.rule});
      met += 2 * counts[hash]++ + 1;
    }
  }
  if (met >= groups.size() * merged.rules.size()) return;
  groups.clear();
  groups.push_back(std::move(merged));
}

// By what lies in the flow's own two cache lines, which passes over nearly all.
bool RuleChanges::may_meet(const Changed& rule, const Flow& flow) {
  const uint16_t bits = flow.installer_bits();
  if ((bits & rule.table_bit) == 0) return false;
  if ((bits & FlowOrigin::kRewrittenWords) == 0) return flow.may_agree(rule.value, rule.mask);
  return (flow.disagreeing_words(rule.value, rule.mask) & ~(bits & FlowOrigin::kRewrittenWords)) == 0;
}

bool RuleChanges::matters_to(const Changed& rule, const Flow& flow) {
  const Credit& credit = credit_of(flow);
  const auto lookups = std::find_if(credit.lookups.begin(), credit.lookups.end(), [&](const Credit::TableLookups& l) {
    return l.table == rule.table && l.tables.get() == rule.tables;
  });
  if (lookups == credit.lookups.end()) return false;
  if (rule.removed != nullptr) {
    return std::any_of(credit.rules.begin(), credit.rules.end(),
                       [&](const RuleRef& met) { return met.get() == rule.removed; });
  }
  if (lookups->missed != 0) return true;
  // Rules do not know their bridge; one of another bridge's table makes the answer "perhaps" at worst.
  return std::any_of(credit.rules.begin(), credit.rules.end(), [&](const RuleRef& met) {
    return met->table() == rule.table && met->priority() <= rule.priority;
  });
}

}  // namespace vswitch
