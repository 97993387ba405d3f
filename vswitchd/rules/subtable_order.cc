#include "vswitchd/rules/subtable_order.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>
#include <utility>

namespace vswitch {
namespace {

constexpr size_t kFewCandidates = 16;
constexpr size_t kAhead = 8;  // subtables whose slots are fetched before the first is looked at

// Words of a set of subtables, which is whole blocks, at once.
constexpr size_t kBlock = 2;
using Block [[gnu::vector_size(kBlock * sizeof(uint64_t))]] = uint64_t;

Block load_block(const uint64_t* from) {
  Block block;
  std::memcpy(&block, from, sizeof block);
  return block;
}

void store_block(uint64_t* to, const Block& block) { std::memcpy(to, &block, sizeof block); }

bool any_in(const Block& block) { return (block[0] | block[1]) != 0; }

size_t words_for(size_t n_subtables) { return (n_subtables + 64 * kBlock - 1) / (64 * kBlock) * kBlock; }

void set_bit(std::vector<uint64_t>& bits, size_t number) { bits[number / 64] |= uint64_t{1} << (number % 64); }

// Those with a prefix of so many bits, made if there were none.
std::vector<uint64_t>& members_with(std::vector<SubtableOrder::Group::Length>& lengths, unsigned bits, size_t n_words) {
  const auto shorter = [bits](const SubtableOrder::Group::Length& length) { return length.bits <= bits; };
  auto at = std::find_if(lengths.begin(), lengths.end(), shorter);
  if (at == lengths.end() || at->bits != bits) at = lengths.insert(at, {bits, std::vector<uint64_t>(n_words)});
  return at->members;
}

// Adds to each length's members those of longer ones.
void include_longer(std::vector<SubtableOrder::Group::Length>& lengths) {
  for (size_t at = 1; at < lengths.size(); ++at) {
    for (size_t i = 0; i < lengths[at].members.size(); ++i) lengths[at].members[i] |= lengths[at - 1].members[i];
  }
}

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
        n_words_(words_for(order.by_number.size())),
        scratch_(scratch()) {
    scratch_.clear((kPrefixFields + order.groups.size()) * n_words_);
  }
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  const Rule* run();

 private:
  static constexpr uint32_t kAnyRule = ~uint32_t{0};
  struct Candidate {
    const Subtable* subtable;
    uint32_t rank;
    uint32_t only;  // the place in `only` of the only rule that may match; or kAnyRule
    uint32_t hash;  // of the key, if has_hash
    uint16_t max_priority;
    bool has_hash;
  };
  // A group, and those of its subtables, n_words_ words from `members`, that the prefix indexes of `fields` are asked
  // about. Those that become candidates leave the members.
  struct Asked {
    const SubtableOrder::Group* group;
    size_t members;
    unsigned fields;
  };
  // Kept from lookup to lookup, so that none allocates.
  struct Scratch {
    std::vector<Candidate> candidates;
    std::vector<const Subtable*> missed;
    std::vector<OnlyRule> only;
    std::vector<OnlyRule> only_missed;
    std::vector<Asked> asked;
    std::vector<uint64_t> words;
    size_t used_words = 0;
    void clear(size_t most_words) {
      candidates.clear();
      missed.clear();
      only.clear();
      only_missed.clear();
      asked.clear();
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
  uint64_t* words_at(size_t at) const { return scratch_.words.data() + at; }

  bool open_groups();
  void open(const SubtableOrder::Group& group);
  unsigned fields_of(const SubtableOrder::Group& group, const uint64_t* members) const;
  void ask_prefixes(const Asked& asked);
  // What ask_prefixes() does while it waits.
  struct FirstCandidates {
    Search& search;
    const Asked& asked;
    static void add(void* self) {
      const auto& [search, asked] = *static_cast<const FirstCandidates*>(self);
      search.add_candidates(asked);
      search.fetch_slots();
    }
  };
  // What an index answered, as words: a bit stays where it is set in `matching`, or the subtable does not have the
  // field.
  struct Filter {
    const uint64_t* matching;
    const uint64_t* with_field;
  };
  class Filters {
   public:
    void add(const Filter& filter) { filters_[n_++] = filter; }
    Block apply(Block members, size_t i) const {
      for (size_t f = 0; f < n_; ++f)
        members &= load_block(filters_[f].matching + i) | ~load_block(filters_[f].with_field + i);
      return members;
    }

   private:
    std::array<Filter, kPrefixFields> filters_;
    size_t n_ = 0;
  };
  Filter filter_of(const Asked& asked, size_t field) const {
    return {words_at(matching_[field]), asked.group->with_field[field].data()};
  }
  Filters filters_of(const Asked& asked, unsigned fields) const {
    Filters filters;
    for (; fields != 0; fields &= fields - 1)
      filters.add(filter_of(asked, static_cast<size_t>(std::countr_zero(fields))));
    return filters;
  }
  void add_candidates(const Asked& asked);
  void add_candidate(size_t number);
  static void sort_by_rank(std::span<Candidate> candidates);
  void fetch_slots();
  void fetch_rules();
  // Whether a rule of the subtable could have been found instead of the best: it comes earlier or has a higher
  // priority.
  bool mattered(const SubtableOrder::Place& place) const {
    return place.rank < best_rank_ || !cannot_win(place.max_priority);
  }
  uint32_t only_rule_of(uint32_t subtable) const;
  void look_at(const Candidate& candidate);
  void look_at_only(const Candidate& candidate);
  void mark_only_missed(const OnlyRule& only);
  void mark();
  void mark_ruled_out(const Asked& asked, size_t field);
  unsigned longest_prefix(const Asked& asked, size_t field, unsigned enough) const;
  bool any_mattered(uint64_t subtables, size_t word) const;

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
  size_t fetched_ = 0;  // candidates before which all have been fetched
  // What the prefix indexes said, where asked.
  std::array<size_t, kPrefixFields> matching_{kNotAsked, kNotAsked, kNotAsked, kNotAsked};
  std::array<unsigned, kPrefixFields> decisive_{};
};

const Rule* Search::run() {
  while (open_groups() && next_ < scratch_.candidates.size()) {
    if (cannot_win(scratch_.candidates[next_].max_priority)) break;
    if (next_ == fetched_) fetch_slots();
    const Candidate& candidate = scratch_.candidates[next_];
    if (candidate.only != kAnyRule) {
      look_at_only(candidate);
    } else {
      look_at(candidate);
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
  const size_t at = add_words();
  uint64_t* const members = words_at(at);
  switch (group.group->find(key_, {members, n_words_}, wildcards_)) {
    case SubtableGroup::Answer::none:
      return;
    case SubtableGroup::Answer::unknown:
      std::copy(group.members.begin(), group.members.end(), members);
      break;
    case SubtableGroup::Answer::some:  // perhaps of subtables that are newer than this order
      for (size_t i = 0; i < n_words_; i += kBlock)
        store_block(members + i, load_block(members + i) & load_block(&group.members[i]));
      break;
  }
  const Asked asked{&group, at, fields_of(group, members)};
  ask_prefixes(asked);
  add_candidates(asked);
  if (asked.fields != 0) scratch_.asked.push_back(asked);
}

// The fields whose prefix indexes know about some of the members.
unsigned Search::fields_of(const SubtableOrder::Group& group, const uint64_t* members) const {
  unsigned fields = 0;
  for (size_t field = 0; field < kPrefixFields; ++field) {
    const std::vector<uint64_t>& with_field = group.with_field[field];
    for (size_t i = 0; i < with_field.size(); ++i) {
      if ((members[i] & with_field[i]) == 0) continue;
      fields |= 1u << field;
      break;
    }
  }
  return fields;
}

// As far as this lookup has not asked them yet. Large indexes answer in two parts, and the second one has to come from
// memory. Meanwhile the slots of subtables that are candidates after the first, and then their rules, come from there,
// too.
void Search::ask_prefixes(const Asked& asked) {
  unsigned unknown = 0;
  PrefixIndexes::Answers answers;
  for (unsigned fields = asked.fields; fields != 0; fields &= fields - 1) {
    const auto field = static_cast<size_t>(std::countr_zero(fields));
    if (matching_[field] != kNotAsked) continue;
    unknown |= 1u << field;
    matching_[field] = add_words();
    answers[field] = {words_at(matching_[field]), n_words_};
  }
  if (unknown == 0) return;
  FirstCandidates first{*this, asked};
  prefixes_.lookup(unknown, key_, answers, decisive_, scratch_.only, {FirstCandidates::add, &first});
  fetch_rules();
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

// Its place in `only`: where there are two, that of the first field, whichever was found first.
uint32_t Search::only_rule_of(uint32_t subtable) const {
  uint32_t found = kAnyRule;
  for (uint32_t i = 0; i < scratch_.only.size(); ++i) {
    const OnlyRule& only = scratch_.only[i];
    if (only.subtable == subtable && (found == kAnyRule || only.field < scratch_.only[found].field)) found = i;
  }
  return found;
}

// Those of the members that are not ruled out. They are not among the members any more.
void Search::add_candidates(const Asked& asked) {
  uint64_t* const members = words_at(asked.members);
  const Filters filters = filters_of(asked, asked.fields);
  for (size_t i = 0; i < n_words_; i += kBlock) {
    const Block all = load_block(members + i), found = filters.apply(all, i);
    if (!any_in(found)) continue;
    store_block(members + i, all & ~found);
    for (size_t j = 0; j < kBlock; ++j) {
      for (uint64_t left = found[j]; left != 0; left &= left - 1)
        add_candidate((i + j) * 64 + static_cast<size_t>(std::countr_zero(left)));
    }
  }
  fetched_ = next_;
  sort_by_rank(std::span(scratch_.candidates).subspan(next_));
}

void Search::add_candidate(size_t number) {
  const SubtableOrder::Place& place = order_.by_number[number];
  const uint32_t only = only_rule_of(static_cast<uint32_t>(number));
  if (only == kAnyRule) place.subtable->prefetch();
  scratch_.candidates.push_back({place.subtable, place.rank, only, 0, place.max_priority, false});
}

// Of the next candidates.
void Search::fetch_slots() {
  auto& candidates = scratch_.candidates;
  for (const size_t end = std::min(next_ + kAhead, candidates.size()); fetched_ < end; ++fetched_) {
    Candidate& candidate = candidates[fetched_];
    if (candidate.has_hash || candidate.only != kAnyRule) continue;
    candidate.hash = candidate.subtable->hash(key_);
    candidate.has_hash = true;
    candidate.subtable->prefetch(candidate.hash);
  }
}

// Of the candidates whose slots were fetched.
void Search::fetch_rules() {
  for (size_t i = next_; i < fetched_; ++i) {
    const Candidate& candidate = scratch_.candidates[i];
    if (candidate.has_hash) candidate.subtable->prefetch_rule(candidate.hash);
  }
}

void Search::look_at(const Candidate& candidate) {
  const Rule* rule = candidate.subtable->find(candidate.hash, key_, version_);
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
  const OnlyRule& only = scratch_.only[candidate.only];
  const Rule& rule = *only.rule;
  const bool found = !cannot_win(rule.priority()) && rule.visible_at(version_) && rule.match().matches(key_);
  if (found) {
    best_ = &rule;
    best_rank_ = candidate.rank;
  }
  if (wildcards_ == nullptr) return;
  if (found) {
    rule.match().add_mask_to(*wildcards_);
  } else {
    scratch_.only_missed.push_back(only);
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

// Of those that the field ruled out and that mattered, the length of the longest prefix: no more bits of the field than
// that were needed to rule them all out, nor more than `enough`.
unsigned Search::longest_prefix(const Asked& asked, size_t field, unsigned enough) const {
  const uint64_t* const members = words_at(asked.members);
  const Filters before = filters_of(asked, asked.fields & ((1u << field) - 1));
  const Filter own = filter_of(asked, field);
  const std::vector<SubtableOrder::Group::Length>& lengths = asked.group->by_length[field];
  for (size_t at = 0; at < lengths.size(); ++at) {
    if (at + 1 < lengths.size() && lengths[at + 1].bits >= enough) continue;  // the next includes them
    const SubtableOrder::Group::Length& length = lengths[at];
    for (size_t i = 0; i < n_words_; i += kBlock) {
      const Block of_length = load_block(&length.members[i]) & ~load_block(own.matching + i);
      if (!any_in(of_length)) continue;
      const Block ruled_out = before.apply(load_block(members + i), i) & of_length;
      for (size_t j = 0; j < kBlock; ++j) {
        if (any_mattered(ruled_out[j], i + j)) return std::min(length.bits, enough);
      }
    }
  }
  return 0;
}

// Of the subtables whose bits are set, whose numbers begin at 64 * word.
bool Search::any_mattered(uint64_t subtables, size_t word) const {
  for (; subtables != 0; subtables &= subtables - 1) {
    if (mattered(order_.by_number[word * 64 + static_cast<size_t>(std::countr_zero(subtables))])) return true;
  }
  return false;
}

void Search::mark_ruled_out(const Asked& asked, size_t field) {
  const unsigned enough = decisive_[field];
  if (prefix_is_marked(*wildcards_, field, enough)) return;
  mark_prefix(*wildcards_, field, longest_prefix(asked, field, enough));
}

// Those that had to be looked at last: a subtable that found nothing need not prove it with bits that are marked
// anyway.
void Search::mark() {
  for (const Asked& asked : scratch_.asked) {
    for (unsigned fields = asked.fields; fields != 0; fields &= fields - 1)
      mark_ruled_out(asked, static_cast<size_t>(std::countr_zero(fields)));
  }
  for (const OnlyRule& only : scratch_.only_missed) mark_only_missed(only);
  for (const Subtable* subtable : scratch_.missed) subtable->mark_miss(key_, *wildcards_);
}

// Where there is but one subtable, there is nothing to choose. Only for a rule that is found: which bits show best that
// there is none, the search finds out.
const Rule* find_in_only_subtable(const SubtableOrder& order, const PipelineKey& key, Version version,
                                  PipelineMask* wildcards) {
  if (order.by_rank.size() != 1) return nullptr;
  const Subtable& subtable = *order.by_rank.front();
  const Rule* rule = subtable.find(subtable.hash(key), key, version);
  if (rule != nullptr && wildcards != nullptr) subtable.mark_all(*wildcards);
  return rule;
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
  const size_t n_words = words_for(by_number.size());
  std::unordered_map<const SubtableGroup*, size_t> group_at;
  for (uint32_t rank = 0; rank < by_rank.size(); ++rank) {
    const Subtable* subtable = by_rank[rank];
    by_number[subtable->number()] = {subtable, rank, subtable->max_priority(), subtable->prefix_lengths()};
    const auto [at, is_new] = group_at.try_emplace(&subtable->group(), groups.size());
    if (is_new) {
      groups.push_back({&subtable->group(), rank, subtable->max_priority(), std::vector<uint64_t>(n_words), {}, {}});
    }
    Group& group = groups[at->second];
    set_bit(group.members, subtable->number());
    for (size_t field = 0; field < kPrefixFields; ++field) {
      if (subtable->prefix_length(field) == 0) continue;
      group.with_field[field].resize(n_words);
      set_bit(group.with_field[field], subtable->number());
      set_bit(members_with(group.by_length[field], subtable->prefix_length(field), n_words), subtable->number());
    }
  }
  for (Group& group : groups) std::for_each(group.by_length.begin(), group.by_length.end(), include_longer);
}

const Rule* search_subtables(const SubtableOrder& order, const PrefixIndexes& prefixes, const PipelineKey& key,
                             Version version, PipelineMask* wildcards) {
  if (const Rule* rule = find_in_only_subtable(order, key, version, wildcards)) return rule;
  return Search(order, prefixes, key, version, wildcards).run();
}

}  // namespace vswitch
