#include "vswitchd/rules/subtable_order.h"

#include <algorithm>
#include <bit>
#include <unordered_map>
#include <utility>

namespace vswitch {
namespace {

constexpr size_t kFewCandidates = 16;
constexpr size_t kAhead = 8;  // subtables whose slots are fetched before the first is looked at

void set_bit(std::vector<uint64_t>& bits, size_t number) { bits[number / 64] |= uint64_t{1} << (number % 64); }

// One lookup. Subtables are looked at by falling priority, until the rest cannot win; but whole groups of them are
// ruled out together, by what the group, the destination and the source address say. Which of the key's bits had to be
// known for that is only certain in the end: those of lower priority than the rule found did not matter.
class Search {
 public:
  Search(const SubtableOrder& order, const PrefixIndexes& prefixes, const PipelineKey& key, Version version,
         PipelineMask* wildcards)
      : order_(order),
        prefixes_(prefixes),
        key_(key),
        version_(version),
        wildcards_(wildcards),
        n_words_((order.by_number.size() + 63) / 64),
        scratch_(scratch()) {
    scratch_.clear((kPrefixFields + order.groups.size() * (1 + kPrefixFields)) * n_words_);
  }
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  const Rule* run();

 private:
  struct Candidate {
    const Subtable* subtable;
    uint32_t rank;
    uint16_t max_priority;
    OnlyRule only;  // its rule null: any of the subtable's rules may match
  };
  // Subtables that have no rule with the key's prefix in `field`: n_words_ words from `at`.
  struct RuledOut {
    size_t field;
    size_t at;
  };
  // Kept from lookup to lookup, so that none allocates.
  struct Scratch {
    std::vector<Candidate> candidates;
    std::vector<const Subtable*> missed;
    std::vector<OnlyRule> only;
    std::vector<OnlyRule> only_missed;
    std::vector<RuledOut> ruled_out;
    std::vector<uint64_t> words;
    size_t used_words = 0;
    void clear(size_t most_words) {
      candidates.clear();
      missed.clear();
      only.clear();
      only_missed.clear();
      ruled_out.clear();
      used_words = 0;
      if (words.size() < most_words) words.resize(most_words);
    }
  };
  static Scratch& scratch() {
    thread_local Scratch kept;
    return kept;
  }
  static constexpr size_t kNotAsked = ~size_t{0};

  bool cannot_win(uint16_t max_priority) const { return best_ != nullptr && best_->priority() >= max_priority; }
  bool best_is_above(uint16_t priority) const { return best_ != nullptr && best_->priority() > priority; }
  size_t add_words() {
    std::fill_n(words_at(scratch_.used_words), n_words_, uint64_t{0});
    return std::exchange(scratch_.used_words, scratch_.used_words + n_words_);
  }
  uint64_t* words_at(size_t at) { return scratch_.words.data() + at; }

  bool open_groups();
  void open(const SubtableOrder::Group& group);
  unsigned ask_prefixes(const SubtableOrder::Group& group, size_t members);
  void rule_out(const SubtableOrder::Group& group, size_t field, size_t members);
  void add_candidates(size_t members);
  static void sort_by_rank(std::span<Candidate> candidates);
  void fetch_ahead();
  // Whether a rule of the subtable could have been found instead of the best: it comes earlier or has a higher
  // priority.
  bool mattered(const SubtableOrder::Place& place) const {
    return place.rank < best_rank_ || !cannot_win(place.max_priority);
  }
  OnlyRule only_rule_of(uint32_t subtable) const;
  void look_at(const Candidate& candidate, uint32_t hash);
  void look_at_only(const Candidate& candidate);
  void mark_only_missed(const OnlyRule& only);
  void mark();
  unsigned longest_prefix(size_t field, const uint64_t* subtables, unsigned enough) const;

  const SubtableOrder& order_;
  const PrefixIndexes& prefixes_;
  const PipelineKey& key_;
  const Version version_;
  PipelineMask* const wildcards_;
  const size_t n_words_;
  Scratch& scratch_;

  const Rule* best_ = nullptr;
  uint32_t best_rank_ = 0;  // of its subtable
  size_t next_group_ = 0, next_ = 0;
  size_t fetched_ = 0;  // candidates whose hash is known
  std::array<uint32_t, kAhead> hashes_;
  // What the prefix indexes said, where asked.
  std::array<size_t, kPrefixFields> matching_{kNotAsked, kNotAsked, kNotAsked, kNotAsked};
  std::array<unsigned, kPrefixFields> decisive_{};
};

const Rule* Search::run() {
  while (open_groups() && next_ < scratch_.candidates.size()) {
    if (cannot_win(scratch_.candidates[next_].max_priority)) break;
    if (next_ == fetched_) fetch_ahead();
    const Candidate& candidate = scratch_.candidates[next_];
    if (candidate.only.rule != nullptr) {
      look_at_only(candidate);
    } else {
      look_at(candidate, hashes_[next_ % kAhead]);
    }
    ++next_;
  }
  if (wildcards_ != nullptr) mark();
  return best_;
}

// Opens the groups that have a subtable before the next candidate. False if none of what is left can win.
bool Search::open_groups() {
  for (; next_group_ < order_.groups.size(); ++next_group_) {
    const SubtableOrder::Group& group = order_.groups[next_group_];
    const auto& candidates = scratch_.candidates;
    if (next_ < candidates.size() && candidates[next_].rank < group.first_rank) return true;
    if (cannot_win(group.max_priority)) return false;
    open(group);
  }
  return true;
}

void Search::open(const SubtableOrder::Group& group) {
  const size_t members = add_words();
  switch (group.group->find(key_, {words_at(members), n_words_}, wildcards_)) {
    case SubtableGroup::Answer::none:
      return;
    case SubtableGroup::Answer::unknown:
      std::copy(group.members.begin(), group.members.end(), words_at(members));
      break;
    case SubtableGroup::Answer::some:  // perhaps of subtables that are newer than this order
      for (size_t i = 0; i < n_words_; ++i) words_at(members)[i] &= group.members[i];
      break;
  }
  const unsigned fields = ask_prefixes(group, members);
  for (size_t field = 0; field < kPrefixFields; ++field) {
    if ((fields & 1u << field) != 0) rule_out(group, field, members);
  }
  add_candidates(members);
}

// Asks the prefix indexes of all fields that the members have, as far as this lookup has not asked them yet. Returns
// which fields those are.
unsigned Search::ask_prefixes(const SubtableOrder::Group& group, size_t members) {
  unsigned fields = 0, unknown = 0;
  PrefixIndexes::Answers answers;
  for (size_t field = 0; field < kPrefixFields; ++field) {
    if (group.with_field[field].empty()) continue;
    uint64_t concerned = 0;
    for (size_t i = 0; i < n_words_; ++i) concerned |= words_at(members)[i] & group.with_field[field][i];
    if (concerned == 0) continue;
    fields |= 1u << field;
    if (matching_[field] != kNotAsked) continue;
    unknown |= 1u << field;
    matching_[field] = add_words();
    answers[field] = {words_at(matching_[field]), n_words_};
  }
  if (unknown != 0) prefixes_.lookup(unknown, key_, answers, decisive_, scratch_.only);
  return fields;
}

// Takes those out of the words at `members` that the prefix index of `field` excludes.
void Search::rule_out(const SubtableOrder::Group& group, size_t field, size_t members) {
  const uint64_t* with_field = group.with_field[field].data();
  const size_t out = wildcards_ == nullptr ? kNotAsked : add_words();
  for (size_t i = 0; i < n_words_; ++i) {
    const uint64_t excluded = words_at(members)[i] & with_field[i] & ~words_at(matching_[field])[i];
    words_at(members)[i] &= ~excluded;
    if (out != kNotAsked) words_at(out)[i] = excluded;
  }
  if (out != kNotAsked) scratch_.ruled_out.push_back({field, out});
}

// By insertion where they are few, as nearly always.
void Search::sort_by_rank(std::span<Candidate> candidates) {
  const auto before = [](const Candidate& a, const Candidate& b) { return a.rank < b.rank; };
  if (candidates.size() > kFewCandidates) return std::sort(candidates.begin(), candidates.end(), before);
  for (size_t i = 1; i < candidates.size(); ++i) {
    const Candidate moving = candidates[i];
    size_t at = i;
    for (; at > 0 && before(moving, candidates[at - 1]); --at) candidates[at] = candidates[at - 1];
    candidates[at] = moving;
  }
}

OnlyRule Search::only_rule_of(uint32_t subtable) const {
  for (const OnlyRule& only : scratch_.only) {
    if (only.subtable == subtable) return only;
  }
  return {};
}

void Search::add_candidates(size_t members) {
  auto& candidates = scratch_.candidates;
  for (size_t i = 0; i < n_words_; ++i) {
    for (uint64_t left = words_at(members)[i]; left != 0; left &= left - 1) {
      const auto number = static_cast<uint32_t>(i * 64) + static_cast<uint32_t>(std::countr_zero(left));
      const SubtableOrder::Place& place = order_.by_number[number];
      const OnlyRule only = only_rule_of(number);
      if (only.rule == nullptr) place.subtable->prefetch();
      candidates.push_back({place.subtable, place.rank, place.max_priority, only});
    }
  }
  fetched_ = next_;
  sort_by_rank(std::span(candidates).subspan(next_));
}

void Search::fetch_ahead() {
  const auto& candidates = scratch_.candidates;
  const size_t end = std::min(next_ + kAhead, candidates.size());
  for (; fetched_ < end; ++fetched_) {
    if (candidates[fetched_].only.rule != nullptr) continue;
    const Subtable& subtable = *candidates[fetched_].subtable;
    hashes_[fetched_ % kAhead] = subtable.hash(key_);
    subtable.prefetch(hashes_[fetched_ % kAhead]);
  }
}

void Search::look_at(const Candidate& candidate, uint32_t hash) {
  const Rule* rule = candidate.subtable->find(hash, key_, version_);
  if (rule != nullptr && !cannot_win(rule->priority())) {
    best_ = rule;
    best_rank_ = candidate.rank;
  }
  if (wildcards_ == nullptr) return;
  if (rule != nullptr) {
    candidate.subtable->mark_all(*wildcards_);
  } else {
    candidate.subtable->prefetch_miss(key_);
    scratch_.missed.push_back(candidate.subtable);
  }
}

// The rule alone can match. It is compared by its own words: when the subtable's number is new, `candidate` may be the
// subtable that had it before, none of whose rules this version sees.
void Search::look_at_only(const Candidate& candidate) {
  const Rule& rule = *candidate.only.rule;
  const bool found = !cannot_win(rule.priority()) && rule.visible_at(version_) && rule.match().matches(key_);
  if (found) {
    best_ = &rule;
    best_rank_ = candidate.rank;
  }
  if (wildcards_ == nullptr) return;
  if (found) {
    rule.match().add_mask_to(*wildcards_);
  } else {
    scratch_.only_missed.push_back(candidate.only);
  }
}

// The prefix, with which no other rule can match, and what tells the packet from this one. That the rule is not
// visible, or would not have won if it matched, needs no bits.
void Search::mark_only_missed(const OnlyRule& only) {
  const SubtableOrder::Place& place = order_.by_number[only.subtable];
  mark_prefix(*wildcards_, only.field, place.prefix_lengths[only.field]);
  const bool would_win =
      place.rank < best_rank_ ? !best_is_above(only.rule->priority()) : !cannot_win(only.rule->priority());
  if (!would_win || !only.rule->visible_at(version_)) return;
  mark_difference(only.rule->match(), key_, *wildcards_);
}

// Of those that mattered, the length of the longest prefix: no more bits of the field than that were needed to rule
// them all out, nor more than `enough`.
unsigned Search::longest_prefix(size_t field, const uint64_t* subtables, unsigned enough) const {
  unsigned longest = 0;
  for (size_t i = 0; i < n_words_; ++i) {
    for (uint64_t left = subtables[i]; left != 0; left &= left - 1) {
      const SubtableOrder::Place& place = order_.by_number[i * 64 + static_cast<size_t>(std::countr_zero(left))];
      if (place.prefix_lengths[field] <= longest || !mattered(place)) continue;
      longest = place.prefix_lengths[field];
      if (longest >= enough) return enough;
    }
  }
  return longest;
}

// Those that had to be looked at last: a subtable that found nothing need not prove it with bits that are marked
// anyway.
void Search::mark() {
  for (const RuledOut& out : scratch_.ruled_out) {
    const unsigned enough = decisive_[out.field];
    if (prefix_is_marked(*wildcards_, out.field, enough)) continue;
    mark_prefix(*wildcards_, out.field, longest_prefix(out.field, words_at(out.at), enough));
  }
  for (const OnlyRule& only : scratch_.only_missed) mark_only_missed(only);
  for (const Subtable* subtable : scratch_.missed) subtable->mark_miss(key_, *wildcards_);
}

bool comes_first(const Subtable* a, const Subtable* b) {
  if (a->max_priority() != b->max_priority()) return a->max_priority() > b->max_priority();
  return a->sequence() < b->sequence();
}

}  // namespace

SubtableOrder::SubtableOrder(std::span<const Subtable* const> subtables) : by_rank(subtables.begin(), subtables.end()) {
  std::sort(by_rank.begin(), by_rank.end(), comes_first);
  for (const Subtable* subtable : subtables) {
    if (subtable->number() >= by_number.size()) by_number.resize(subtable->number() + 1);
  }
  const size_t n_words = (by_number.size() + 63) / 64;
  std::unordered_map<const SubtableGroup*, size_t> group_at;
  for (uint32_t rank = 0; rank < by_rank.size(); ++rank) {
    const Subtable* subtable = by_rank[rank];
    by_number[subtable->number()] = {subtable, rank, subtable->max_priority(), subtable->prefix_lengths()};
    const auto [at, is_new] = group_at.try_emplace(&subtable->group(), groups.size());
    if (is_new) {
      groups.push_back({&subtable->group(), rank, subtable->max_priority(), std::vector<uint64_t>(n_words), {}});
    }
    Group& group = groups[at->second];
    set_bit(group.members, subtable->number());
    for (size_t field = 0; field < kPrefixFields; ++field) {
      if (subtable->prefix_length(field) == 0) continue;
      group.with_field[field].resize(n_words);
      set_bit(group.with_field[field], subtable->number());
    }
  }
}

const Rule* search_subtables(const SubtableOrder& order, const PrefixIndexes& prefixes, const PipelineKey& key,
                             Version version, PipelineMask* wildcards) {
  return Search(order, prefixes, key, version, wildcards).run();
}

}  // namespace vswitch
