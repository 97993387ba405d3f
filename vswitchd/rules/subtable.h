// Subtable: all rules of a classifier with the same mask. SubtableGroup: all subtables whose masks agree on metadata
// and L2. Private to the classifier; see classifier.h for the ideas.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "vswitchd/rules/classifier_index.h"
#include "vswitchd/rules/prefix_index.h"
#include "vswitchd/rules/rule.h"

namespace vswitch {

// Fields are compared in this order; a lookup that fails in one stage has not looked at the later ones.
enum class Stage : uint8_t { metadata, l2, l3, l4 };
inline constexpr size_t kStages = 4;

// The part of each word of the key that belongs to a stage. Every bit belongs to exactly one.
const PipelineMask& stage_mask(Stage stage);

// An address that has a prefix index for the whole classifier.
inline constexpr size_t kPrefixFields = 4;  // nw_dst, nw_src, ipv6_dst, ipv6_src
// The length of the mask if it is a prefix of the field, 0 if it is empty or has gaps.
unsigned prefix_length(const PipelineMask& mask, size_t field);
// Whether the first n bits of the field are in `mask`.
bool prefix_is_marked(const PipelineMask& mask, size_t field, unsigned n);
// Sets the first n bits of the field in `mask`.
void mark_prefix(PipelineMask& mask, size_t field, unsigned n);

// Marks as little as proves that `match`, which the key does not match, does not match: nothing where a bit that is
// marked already shows it.
void mark_difference(const MiniMatch& match, const PipelineKey& key, PipelineMask& wildcards);

// No other rule of its subtable has the packet's prefix in this field.
struct OnlyRule {
  const Rule* rule = nullptr;
  uint32_t subtable = 0;
  uint32_t field = 0;
};

// The prefixes of all rules of a classifier, by field.
class PrefixIndexes {
 public:
  // So many bytes are a large index (prefix_index.h).
  explicit PrefixIndexes(size_t large)
      : ipv4_{PrefixIndex<uint32_t>(large), PrefixIndex<uint32_t>(large)},
        ipv6_{PrefixIndex<Uint128>(large), PrefixIndex<Uint128>(large)} {}
  void insert(size_t field, const Rule& rule, unsigned length, uint32_t subtable);
  void remove(size_t field, const MiniMatch& match, unsigned length, uint32_t subtable);
  void prefetch(size_t field, const MiniMatch& match, unsigned length) const;  // for insert()

  // For each field f whose bit is set in `fields`: sets the bit of each subtable that has a matching prefix in
  // answers[f], and the number of leading bits that decided in decisive[f]; appends to `only`.
  // While it waits for memory, which it does if an index is large, it calls `meanwhile`: once for IPv4 and once for
  // IPv6 fields. Until then it has set bits for short prefixes, those that it passed before it came to where it waits,
  // and none in the answers of fields that follow. decisive[f] is set in the end.
  using Answers = std::array<std::span<uint64_t>, kPrefixFields>;
  struct Meanwhile {
    void (*call)(void* context);
    void* context;
  };
  void lookup(unsigned fields, const PipelineKey& key, const Answers& answers,
              std::array<unsigned, kPrefixFields>& decisive, std::vector<OnlyRule>& only,
              const Meanwhile& meanwhile) const;
  size_t memory_bytes() const;

 private:
  std::array<PrefixIndex<uint32_t>, 2> ipv4_;
  std::array<PrefixIndex<Uint128>, 2> ipv6_;
};

// A word of the key and the bits of it that count.
struct MaskedWord {
  uint64_t mask;
  uint32_t index;    // into the key
  uint32_t ordinal;  // into a match's values
};

class SubtableGroup {
 public:
  explicit SubtableGroup(const MiniMatch& pattern);
  // Whether a rule with this mask belongs here.
  bool covers(const MiniMatch& match) const;
  static size_t hash(const MiniMatch& match);  // equal for all that one group covers

  // Which subtables have rules with the key's metadata and L2 fields: sets their bits. A group of one subtable without
  // L3 and L4 fields does not know and returns `unknown`: there is nothing to save.
  enum class Answer : uint8_t { unknown, none, some };
  Answer find(const PipelineKey& key, std::span<uint64_t> subtables, PipelineMask* wildcards) const;

  // Writer.
  void insert(const MiniMatch& match, uint32_t subtable);
  void remove(const MiniMatch& match, uint32_t subtable);
  size_t memory_bytes() const;
  size_t subtable_count = 0;  // kept by the classifier

 private:
  std::pair<uint32_t, uint32_t> hashes(const MiniMatch& match) const;

  MiniMatch pattern_;              // metadata and L2 only
  bool has_later_;                 // its subtables also have L3 or L4 fields
  std::vector<MaskedWord> words_;  // metadata, then L2
  size_t metadata_words_ = 0;
  std::unique_ptr<HashCounts> metadata_;  // null unless there are both metadata and L2
  std::unique_ptr<HashSets> sets_;        // null: nothing to look at
};

class alignas(64) Subtable {
 public:
  Subtable(const MiniMatch& pattern, uint64_t sequence, uint32_t number, SubtableGroup& group);
  Subtable(const Subtable&) = delete;
  Subtable& operator=(const Subtable&) = delete;

  uint32_t hash(const PipelineKey& key) const;
  void prefetch() const {
    __builtin_prefetch(this);
    __builtin_prefetch(reinterpret_cast<const char*>(this) + 64);
  }
  void prefetch(uint32_t hash) const { rules_.prefetch(hash); }
  void prefetch_rule(uint32_t hash) const { rules_.prefetch_rule(hash); }  // REQUIRES: prefetch(hash), a while ago
  // The highest-priority visible rule that matches, by the key's hash.
  const Rule* find(uint32_t hash, const PipelineKey& key, Version version) const;
  // Starts to fetch what mark_miss() is likely to need.
  void prefetch_miss(const PipelineKey& key) const {
    if (first_stages_ != nullptr) first_stages_->prefetch(first_hash(key));
  }
  // Marks what the subtable compares...
  void mark_all(PipelineMask& wildcards) const;
  // ... or, where nothing matched, as little as proves that, apart from what is marked already.
  void mark_miss(const PipelineKey& key, PipelineMask& wildcards) const;

  void prefetch(const MiniMatch& match) const { rules_.prefetch(hash(match)); }  // for find_list() and insert()
  // The list of rules with exactly this match (REQUIRES: same mask), highest priority first; null if none.
  Rule* find_list(const MiniMatch& match) const;
  template <typename Visit>
  bool for_each(Visit&& visit) const {
    return rules_.for_each(visit);
  }

  // Writer.
  void insert(Rule& rule);
  void remove(Rule& rule);
  bool empty() const { return size_ == 0; }
  // At least the highest priority of its rules; exact while only insertions happen. REQUIRES: !empty()
  uint16_t max_priority() const { return max_priority_; }
  size_t memory_bytes() const;

  const MiniMatch& pattern() const { return pattern_; }  // its mask is the subtable's mask
  uint64_t sequence() const { return sequence_; }
  uint32_t number() const { return number_; }
  SubtableGroup& group() const { return group_; }
  unsigned prefix_length(size_t field) const { return prefix_lengths_[field]; }  // 0: not in that index
  const std::array<uint8_t, kPrefixFields>& prefix_lengths() const { return prefix_lengths_; }

 private:
  uint32_t hash(const MiniMatch& match) const;
  uint32_t first_hash(const PipelineKey& key) const;
  uint32_t first_hash(const MiniMatch& match) const;
  void mark_missed_ports(const PipelineKey& key, PipelineMask& wildcards) const;
  uint32_t ports_of(const Rule& rule) const;
  void count_removed(const Rule& rule);

  // What every lookup needs comes first.
  static constexpr size_t kInlineWords = 4;
  RuleIndex rules_;
  const MaskedWord* words_;  // ascending
  size_t n_words_ = 0;
  std::array<MaskedWord, kInlineWords> inline_words_{};
  std::unique_ptr<MaskedWord[]> more_words_;

  const MiniMatch pattern_;
  const uint64_t sequence_;
  const uint32_t number_;
  SubtableGroup& group_;
  std::array<uint8_t, kPrefixFields> prefix_lengths_{};
  // All stages but the last, and whether any rule has their hash. None unless the stages that the group does not look
  // at are two.
  std::vector<MaskedWord> first_words_;
  std::unique_ptr<HashCounts> first_stages_;
  uint32_t ports_mask_ = 0;  // source and destination port as one number, host order
  unsigned ports_length_ = 0;
  PrefixIndex<uint32_t> ports_;

  // Writer only.
  size_t size_ = 0;
  size_t at_max_ = 0;         // rules with max_priority_
  size_t removed_since_ = 0;  // since max_priority_ was exact
  uint16_t max_priority_ = 0;
};

}  // namespace vswitch
