#include "vswitchd/rules/subtable.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "datapath/base/word_hash.h"

namespace vswitch {
namespace {

constexpr uint16_t kPortsOffset = offsetof(FlowKey, tp_src);
static_assert(offsetof(FlowKey, tp_dst) == kPortsOffset + 2 && kPortsOffset % 8 == 0);

// Where the prefix fields are, in bytes from the start of a key.
constexpr std::array<size_t, kPrefixFields> kFieldOffset{offsetof(FlowKey, nw_dst), offsetof(FlowKey, nw_src),
                                                         offsetof(FlowKey, ipv6_dst), offsetof(FlowKey, ipv6_src)};
constexpr std::array<unsigned, kPrefixFields> kFieldBits{32, 32, 128, 128};

// Field f lies in PrefixIndexes' array for its size, at f % 2.
bool is_ipv4(size_t field) { return field < 2; }

uint32_t read_be32(const PipelineKey& key, size_t offset) {
  return load_unaligned<be32>(reinterpret_cast<const uint8_t*>(&key) + offset).host();
}

uint32_t read_be32(const MiniMatch& match, size_t offset) {
  const uint64_t word = match.value_at(offset / sizeof(KeyWord));
  return load_unaligned<be32>(reinterpret_cast<const uint8_t*>(&word) + offset % sizeof(KeyWord)).host();
}

template <typename Source>
Uint128 read_be128(const Source& source, size_t offset) {
  Uint128 value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 32 | read_be32(source, offset + 4 * i);
  return value;
}

void or_be32(PipelineMask& mask, size_t offset, uint32_t bits) {
  uint8_t* at = reinterpret_cast<uint8_t*>(&mask) + offset;
  store_unaligned(at, load_unaligned<be32>(at) | to_be32(bits));
}

template <typename T>
void fill(T& member) {
  std::memset(static_cast<void*>(&member), 0xff, sizeof member);
}

PipelineMask l2_mask() {
  PipelineMask mask;
  FlowKey& k = mask.packet;
  fill(k.eth_dst), fill(k.eth_src), fill(k.eth_type), fill(k.vlan), fill(k.mpls);
  return mask;
}

PipelineMask l3_mask() {
  PipelineMask mask;
  FlowKey& k = mask.packet;
  fill(k.nw_src), fill(k.nw_dst), fill(k.ipv6_src), fill(k.ipv6_dst), fill(k.ipv6_label);
  fill(k.ct_nw_src), fill(k.ct_nw_dst), fill(k.ct_ipv6_src), fill(k.ct_ipv6_dst);
  fill(k.nw_frag), fill(k.nw_tos), fill(k.nw_ttl), fill(k.nw_proto);
  return mask;
}

PipelineMask l4_mask() {
  PipelineMask mask;
  FlowKey& k = mask.packet;
  fill(k.tp_src), fill(k.tp_dst), fill(k.tcp_flags), fill(k.igmp_group), fill(k.nsh);
  fill(k.arp_sha), fill(k.arp_tha), fill(k.nd_target), fill(k.nd_reserved), fill(k.nd_options_type);
  fill(k.ct_tp_src), fill(k.ct_tp_dst);
  return mask;
}

// Metadata is what no later stage claims, so a field added to the key is in some stage without anybody remembering.
std::array<PipelineMask, kStages> make_stage_masks() {
  std::array<PipelineMask, kStages> masks{PipelineMask{}, l2_mask(), l3_mask(), l4_mask()};
  for (size_t i = 0; i < kPipelineKeyWords; ++i) {
    words(masks[0])[i] = ~(words(masks[1])[i] | words(masks[2])[i] | words(masks[3])[i]);
  }
  return masks;
}

uint64_t add_word(uint64_t hash, const MaskedWord& word, const PipelineKey& key) {
  return hash_word(hash, words(key)[word.index] & word.mask);
}

void mark(PipelineMask& wildcards, const MaskedWord& word) { words(wildcards)[word.index] |= word.mask; }

// Of the bits `mask` of a word in which a key and a rule differ: of the ports as many leading bits as it takes to see
// that, of others the half of the word that has the first difference.
uint64_t part_that_differs(size_t index, uint64_t difference, uint64_t mask) {
  const auto halves = std::bit_cast<std::array<be32, 2>>(difference);
  const size_t half = halves[0].host() != 0 ? 0 : 1;
  uint32_t wanted = ~uint32_t{0};
  if (index == kPortsOffset / sizeof(KeyWord) && half == 0)
    wanted <<= std::countr_zero(std::bit_floor(halves[0].host()));
  std::array<be32, 2> part{};
  part[half] = to_be32(wanted);
  return std::bit_cast<uint64_t>(part) & mask;
}

bool has_stage(const MiniMatch& match, Stage stage) {
  const KeyWord* part = words(stage_mask(stage));
  return !match.all_words([part](size_t index, uint64_t, uint64_t mask) { return (mask & part[index]) == 0; });
}

bool has_later_stages(const MiniMatch& match) { return has_stage(match, Stage::l3) || has_stage(match, Stage::l4); }

uint64_t early_bits(size_t index) {
  return words(stage_mask(Stage::metadata))[index] | words(stage_mask(Stage::l2))[index];
}

// The words of `match` that have bits in `stage`, those bits only.
void add_stage_words(std::vector<MaskedWord>& to, const MiniMatch& match, Stage stage) {
  const KeyWord* part = words(stage_mask(stage));
  uint32_t ordinal = 0;
  match.all_words([&](size_t index, uint64_t, uint64_t mask) {
    if ((mask & part[index]) != 0) to.push_back({mask & part[index], static_cast<uint32_t>(index), ordinal});
    ++ordinal;
    return true;
  });
}

// Its metadata and L2 part.
MiniMatch early_part(const MiniMatch& match) {
  Match early = match.expand();
  for (size_t i = 0; i < kPipelineKeyWords; ++i) words(early.mask)[i] &= early_bits(i);
  return MiniMatch(early);
}

}  // namespace

const PipelineMask& stage_mask(Stage stage) {
  static const std::array<PipelineMask, kStages> masks = make_stage_masks();
  return masks[static_cast<size_t>(stage)];
}

unsigned prefix_length(const PipelineMask& mask, size_t field) {
  unsigned length = 0;
  for (unsigned i = 0; i < kFieldBits[field] / 32; ++i) {
    const uint32_t bits = read_be32(mask, kFieldOffset[field] + 4 * i);
    const auto ones = static_cast<unsigned>(std::countl_one(bits));
    const bool ended = length < 32 * i;
    if (ended ? bits != 0 : ones < 32 && bits << ones != 0) return 0;
    if (!ended) length += ones;
  }
  return length;
}

void mark_prefix(PipelineMask& mask, size_t field, unsigned n) {
  for (size_t offset = kFieldOffset[field]; n > 0; offset += 4) {
    const unsigned here = std::min(n, 32u);
    or_be32(mask, offset, ~uint32_t{0} << (32 - here));
    n -= here;
  }
}

bool prefix_is_marked(const PipelineMask& mask, size_t field, unsigned n) {
  for (size_t offset = kFieldOffset[field]; n > 0; offset += 4) {
    const unsigned here = std::min(n, 32u);
    if ((~read_be32(mask, offset) & ~uint32_t{0} << (32 - here)) != 0) return false;
    n -= here;
  }
  return true;
}

void mark_difference(const MiniMatch& match, const PipelineKey& key, PipelineMask& wildcards) {
  const KeyWord* k = words(key);
  KeyWord* marked = words(wildcards);
  const auto agrees_where_marked = [&](size_t index, uint64_t value, uint64_t mask) {
    return ((k[index] ^ value) & mask & marked[index]) == 0;
  };
  if (!match.all_words(agrees_where_marked)) return;
  for (size_t stage = 0; stage < kStages; ++stage) {
    const KeyWord* part = words(stage_mask(static_cast<Stage>(stage)));
    const bool none = match.all_words([&](size_t index, uint64_t value, uint64_t mask) {
      const uint64_t difference = (k[index] ^ value) & mask & part[index];
      if (difference == 0) return true;
      marked[index] |= part_that_differs(index, difference, mask & part[index]);
      return false;
    });
    if (!none) return;
  }
}

void PrefixIndexes::insert(size_t field, const Rule& rule, unsigned length, uint32_t subtable) {
  const size_t offset = kFieldOffset[field];
  if (is_ipv4(field)) return ipv4_[field % 2].insert(read_be32(rule.match(), offset), length, subtable, &rule);
  ipv6_[field % 2].insert(read_be128(rule.match(), offset), length, subtable, &rule);
}

void PrefixIndexes::remove(size_t field, const MiniMatch& match, unsigned length, uint32_t subtable) {
  const size_t offset = kFieldOffset[field];
  if (is_ipv4(field)) return ipv4_[field % 2].remove(read_be32(match, offset), length, subtable);
  ipv6_[field % 2].remove(read_be128(match, offset), length, subtable);
}

void PrefixIndexes::prefetch(size_t field, const MiniMatch& match, unsigned length) const {
  const size_t offset = kFieldOffset[field];
  if (is_ipv4(field)) return ipv4_[field % 2].prefetch(read_be32(match, offset), length);
  ipv6_[field % 2].prefetch(read_be128(match, offset), length);
}

namespace {

// Lookups in two fields of the same size, or in one of them, at once.
template <typename Bits>
struct TwoLookups {
  using Lookup = typename PrefixIndex<Bits>::Lookup;

  void walk() {
    for (unsigned walking = fields; walking != 0;) {
      for (unsigned i = 0; i < 2; ++i) {
        if ((walking & 1u << i) != 0 && !lookups[i].walk()) walking &= ~(1u << i);
      }
    }
  }
  bool wait() const { return lookups[0].waits() || lookups[1].waits(); }
  void finish(std::span<const std::span<uint64_t>> answers, std::vector<OnlyRule>& only) {
    for (uint32_t i = 0; i < 2; ++i) {
      if ((fields & 1u << i) == 0) continue;
      lookups[i].finish(answers[i], [&](uint32_t subtable, const Rule& rule) {
        only.push_back({&rule, subtable, first_field + i});
      });
    }
  }

  const unsigned fields;
  const uint32_t first_field;
  std::array<Lookup, 2> lookups;
};

// Kept out of the way of lookups in small indexes, which never wait.
template <typename Bits>
[[gnu::noinline]] void use_the_wait(TwoLookups<Bits>& two, std::span<const std::span<uint64_t>> answers,
                                    std::vector<OnlyRule>& only, const PrefixIndexes::Meanwhile& meanwhile) {
  for (auto& lookup : two.lookups) lookup.search_passed();
  two.finish(answers, only);
  meanwhile.call(meanwhile.context);
  for (auto& lookup : two.lookups) lookup.walk_on();
}

template <typename Bits>
void look_up(const std::array<PrefixIndex<Bits>, 2>& indexes, unsigned fields, const std::array<Bits, 2>& values,
             std::span<const std::span<uint64_t>> answers, std::span<unsigned> decisive, uint32_t first_field,
             std::vector<OnlyRule>& only, const PrefixIndexes::Meanwhile& meanwhile) {
  if (fields == 0) return;
  using Lookup = typename PrefixIndex<Bits>::Lookup;
  TwoLookups<Bits> two{fields, first_field, {Lookup(indexes[0], values[0]), Lookup(indexes[1], values[1])}};
  two.walk();
  if (two.wait()) use_the_wait(two, answers, only, meanwhile);
  for (size_t i = 0; i < 2; ++i) {
    if ((fields & 1u << i) != 0) decisive[i] = two.lookups[i].search();
  }
  two.finish(answers, only);
}

}  // namespace

void PrefixIndexes::lookup(unsigned fields, const PipelineKey& key, const Answers& answers,
                           std::array<unsigned, kPrefixFields>& decisive, std::vector<OnlyRule>& only,
                           const Meanwhile& meanwhile) const {
  const std::span all_answers(answers);
  const std::span all_decisive(decisive);
  if ((fields & 3) != 0) {
    look_up<uint32_t>(ipv4_, fields & 3, {read_be32(key, kFieldOffset[0]), read_be32(key, kFieldOffset[1])},
                      all_answers.first(2), all_decisive.first(2), 0, only, meanwhile);
  }
  if (fields >> 2 != 0) {
    look_up<Uint128>(ipv6_, fields >> 2, {read_be128(key, kFieldOffset[2]), read_be128(key, kFieldOffset[3])},
                     all_answers.last(2), all_decisive.last(2), 2, only, meanwhile);
  }
}

size_t PrefixIndexes::memory_bytes() const {
  size_t bytes = 0;
  for (const auto& index : ipv4_) bytes += index.memory_bytes();
  for (const auto& index : ipv6_) bytes += index.memory_bytes();
  return bytes;
}

SubtableGroup::SubtableGroup(const MiniMatch& pattern)
    : pattern_(early_part(pattern)), has_later_(has_later_stages(pattern)) {
  add_stage_words(words_, pattern_, Stage::metadata);
  metadata_words_ = words_.size();
  add_stage_words(words_, pattern_, Stage::l2);
  if (!has_later_ || words_.empty()) return;
  sets_ = std::make_unique<HashSets>();
  if (metadata_words_ > 0 && metadata_words_ < words_.size()) metadata_ = std::make_unique<HashCounts>();
}

bool SubtableGroup::covers(const MiniMatch& match) const {
  size_t seen = 0;
  const bool same = match.all_words([&](size_t index, uint64_t, uint64_t mask) {
    const uint64_t early = mask & early_bits(index);
    if (early == 0) return true;
    return seen < pattern_.word_count() && pattern_.word_index(seen) == index && pattern_.mask_word(seen++) == early;
  });
  return same && seen == pattern_.word_count() && has_later_ == has_later_stages(match);
}

size_t SubtableGroup::hash(const MiniMatch& match) {
  uint64_t h = hash_word(hash_start(), has_later_stages(match) ? 1 : 0);
  match.all_words([&h](size_t index, uint64_t, uint64_t mask) {
    const uint64_t early = mask & early_bits(index);
    if (early != 0) h = hash_word(hash_word(h, index), early);
    return true;
  });
  return h;
}

SubtableGroup::Answer SubtableGroup::find(const PipelineKey& key, std::span<uint64_t> subtables,
                                          PipelineMask* wildcards) const {
  if (sets_ == nullptr) return Answer::unknown;
  uint64_t hash = hash_start();
  const auto add = [&](size_t from, size_t to) {
    for (size_t i = from; i < to; ++i) {
      hash = add_word(hash, words_[i], key);
      if (wildcards != nullptr) mark(*wildcards, words_[i]);
    }
  };
  add(0, metadata_words_);
  if (metadata_ != nullptr && !metadata_->contains(hash_finish(hash))) return Answer::none;
  add(metadata_words_, words_.size());
  return sets_->or_into(hash_finish(hash), subtables) ? Answer::some : Answer::none;
}

// Of the metadata, and of metadata and L2.
std::pair<uint32_t, uint32_t> SubtableGroup::hashes(const MiniMatch& match) const {
  uint64_t hash = hash_start(), metadata = hash;
  for (size_t i = 0; i < words_.size(); ++i) {
    hash = hash_word(hash, match.value_at(words_[i].index) & words_[i].mask);
    if (i + 1 == metadata_words_) metadata = hash;
  }
  return {hash_finish(metadata), hash_finish(hash)};
}

void SubtableGroup::insert(const MiniMatch& match, uint32_t subtable) {
  if (sets_ == nullptr) return;
  const auto [metadata, all] = hashes(match);
  if (metadata_ != nullptr) metadata_->add(metadata);
  sets_->add(all, subtable);
}

void SubtableGroup::remove(const MiniMatch& match, uint32_t subtable) {
  if (sets_ == nullptr) return;
  const auto [metadata, all] = hashes(match);
  if (metadata_ != nullptr) metadata_->remove(metadata);
  sets_->remove(all, subtable);
}

size_t SubtableGroup::memory_bytes() const {
  return sizeof(SubtableGroup) + pattern_.memory_bytes() + words_.capacity() * sizeof(MaskedWord) +
         (metadata_ == nullptr ? 0 : metadata_->memory_bytes()) + (sets_ == nullptr ? 0 : sets_->memory_bytes());
}

Subtable::Subtable(const MiniMatch& pattern, uint64_t sequence, uint32_t number, SubtableGroup& group)
    : pattern_(pattern), sequence_(sequence), number_(number), group_(group) {
  const PipelineMask mask = pattern.expand().mask;
  for (size_t f = 0; f < kPrefixFields; ++f) {
    prefix_lengths_[f] = static_cast<uint8_t>(vswitch::prefix_length(mask, f));
  }
  ports_mask_ = read_be32(mask, kPortsOffset);
  if (ports_mask_ != 0) ports_length_ = 32 - static_cast<unsigned>(std::countr_zero(ports_mask_));

  n_words_ = pattern.word_count();
  if (n_words_ > kInlineWords) more_words_ = std::make_unique<MaskedWord[]>(n_words_);
  MaskedWord* word = more_words_ != nullptr ? more_words_.get() : inline_words_.data();
  words_ = word;
  pattern.all_words([&word, this](size_t index, uint64_t, uint64_t bits) {
    *word = {bits, static_cast<uint32_t>(index), static_cast<uint32_t>(word - words_)};
    ++word;
    return true;
  });

  const bool later = has_later_stages(pattern);
  const Stage first = later ? Stage::l3 : Stage::metadata, second = later ? Stage::l4 : Stage::l2;
  if (!has_stage(pattern, first) || !has_stage(pattern, second)) return;
  if (later) add_stage_words(first_words_, pattern, Stage::metadata), add_stage_words(first_words_, pattern, Stage::l2);
  add_stage_words(first_words_, pattern, first);
  first_stages_ = std::make_unique<HashCounts>();
}

uint32_t Subtable::hash(const PipelineKey& key) const {
  uint64_t hash = hash_start();
  for (size_t i = 0; i < n_words_; ++i) hash = add_word(hash, words_[i], key);
  return hash_finish(hash);
}

uint32_t Subtable::hash(const MiniMatch& match) const {
  uint64_t hash = hash_start();
  const uint64_t* values = match.values();
  for (size_t i = 0; i < n_words_; ++i) hash = hash_word(hash, values[i]);
  return hash_finish(hash);
}

uint32_t Subtable::first_hash(const PipelineKey& key) const {
  uint64_t hash = hash_start();
  for (const MaskedWord& word : first_words_) hash = add_word(hash, word, key);
  return hash_finish(hash);
}

uint32_t Subtable::first_hash(const MiniMatch& match) const {
  uint64_t hash = hash_start();
  for (const MaskedWord& word : first_words_) hash = hash_word(hash, match.values()[word.ordinal] & word.mask);
  return hash_finish(hash);
}

const Rule* Subtable::find(uint32_t hash, const PipelineKey& key, Version version) const {
  const KeyWord* k = words(key);
  const Rule* rule = rules_.find(hash, [this, k](const Rule& candidate) {
    const uint64_t* values = candidate.match().values();
    for (size_t i = 0; i < n_words_; ++i) {
      if ((k[words_[i].index] & words_[i].mask) != values[i]) return false;
    }
    return true;
  });
  while (rule != nullptr && !rule->visible_at(version)) rule = RuleIndex::next(*rule);
  return rule;
}

void Subtable::mark_all(PipelineMask& wildcards) const {
  for (size_t i = 0; i < n_words_; ++i) mark(wildcards, words_[i]);
}

void Subtable::mark_miss(const PipelineKey& key, PipelineMask& wildcards) const {
  uint64_t unmarked = 0;
  for (size_t i = 0; i < n_words_; ++i) unmarked |= words_[i].mask & ~words(wildcards)[words_[i].index];
  if (unmarked == 0) return;
  if (first_stages_ != nullptr && !first_stages_->contains(first_hash(key))) {
    for (const MaskedWord& word : first_words_) mark(wildcards, word);
  } else if (ports_length_ > 0) {
    mark_missed_ports(key, wildcards);
  } else {
    mark_all(wildcards);
  }
}

// All stages were looked at and no rule matched. Of the ports, only as many leading bits count as it takes to see that
// no rule has them.
void Subtable::mark_missed_ports(const PipelineKey& key, PipelineMask& wildcards) const {
  const uint32_t marked_before = read_be32(wildcards, kPortsOffset);
  mark_all(wildcards);
  if ((ports_mask_ & ~marked_before) == 0) return;
  PrefixIndex<uint32_t>::Lookup lookup(ports_, read_be32(key, kPortsOffset) & ports_mask_);
  while (lookup.walk()) {
  }
  const unsigned bits = lookup.search();
  const uint32_t needed = bits == 0 ? 0 : ports_mask_ & (~uint32_t{0} << (32 - bits));
  uint8_t* at = reinterpret_cast<uint8_t*>(&wildcards) + kPortsOffset;
  store_unaligned(at, to_be32(marked_before | needed));
}

Rule* Subtable::find_list(const MiniMatch& match) const {
  return rules_.find(hash(match), [&match](const Rule& candidate) { return candidate.match() == match; });
}

uint32_t Subtable::ports_of(const Rule& rule) const { return read_be32(rule.match(), kPortsOffset) & ports_mask_; }

// Ports and stages before the rules: a reader that finds no stage hash must be right that there is no rule.
void Subtable::insert(Rule& rule) {
  if (ports_length_ > 0) ports_.insert(ports_of(rule), ports_length_, number_);
  if (first_stages_ != nullptr) first_stages_->add(first_hash(rule.match()));
  if (size_++ == 0 || rule.priority() > max_priority_) {
    max_priority_ = rule.priority();
    at_max_ = removed_since_ = 0;
  }
  if (rule.priority() == max_priority_) ++at_max_;
  rules_.insert(hash(rule.match()), rule);
}

void Subtable::remove(Rule& rule) {
  if (!rules_.remove(hash(rule.match()), rule)) return;
  if (first_stages_ != nullptr) first_stages_->remove(first_hash(rule.match()));
  if (ports_length_ > 0) ports_.remove(ports_of(rule), ports_length_, number_);
  count_removed(rule);
}

// When the last rule with the highest priority is gone, the next lower one is found by looking at all rules: not each
// time, but after so many removals that each pays for a few rules only. Until then lookups come here too early.
void Subtable::count_removed(const Rule& rule) {
  --size_;
  ++removed_since_;
  if (rule.priority() == max_priority_ && at_max_ > 0) --at_max_;
  if (at_max_ > 0 || removed_since_ * 8 < size_) return;
  max_priority_ = 0;
  removed_since_ = 0;
  for_each([this](const Rule& left) {
    if (left.priority() > max_priority_) at_max_ = 0;
    max_priority_ = std::max(max_priority_, left.priority());
    if (left.priority() == max_priority_) ++at_max_;
    return true;
  });
}

size_t Subtable::memory_bytes() const {
  return sizeof(Subtable) + pattern_.memory_bytes() + rules_.memory_bytes() + ports_.memory_bytes() +
         (more_words_ == nullptr ? 0 : n_words_ * sizeof(MaskedWord)) + first_words_.capacity() * sizeof(MaskedWord) +
         (first_stages_ == nullptr ? 0 : sizeof(HashCounts) + first_stages_->memory_bytes());
}

}  // namespace vswitch
