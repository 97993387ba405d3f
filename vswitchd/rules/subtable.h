// Subtable: all rules of a classifier with the same mask. Private to the classifier; see classifier.h for the ideas.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "vswitchd/rules/classifier_index.h"
#include "vswitchd/rules/prefix_trie.h"
#include "vswitchd/rules/rule.h"

namespace vswitch {

// Fields are compared in this order; a lookup that fails in one stage has not looked at the later ones.
enum class Stage : uint8_t { metadata, l2, l3, l4 };
inline constexpr size_t kStages = 4;

// The part of each word of the key that belongs to a stage. Every bit belongs to exactly one.
const PipelineMask& stage_mask(Stage stage);

// A field that has a prefix trie for the whole classifier.
struct TrieField {
  uint16_t offset;  // bytes from the start of PipelineKey
  uint16_t n_bits;
};
inline constexpr size_t kTrieFields = 4;
const std::array<TrieField, kTrieFields>& trie_fields();  // nw_dst, nw_src, ipv6_dst, ipv6_src

PrefixTrie::Value prefix_value(const PipelineKey& key, TrieField field);
PrefixTrie::Value prefix_value(const MiniMatch& match, TrieField field);
// The length of the mask if it is a prefix of the field, 0 if it is empty or has gaps.
unsigned prefix_length(const PipelineMask& mask, TrieField field);
// Sets the first n bits of the field in `mask`.
void mark_prefix(PipelineMask& mask, TrieField field, unsigned n);
bool prefix_is_marked(const PipelineMask& mask, TrieField field, unsigned n);

// The classifier's tries during one lookup: each is consulted when first needed, and at most once.
class TrieLookups {
 public:
  TrieLookups(const std::array<PrefixTrie, kTrieFields>& tries, const PipelineKey& key) : tries_(tries), key_(key) {}
  const PrefixTrie::Answer& answer(size_t field) {
    if (!known_[field]) {
      answers_[field] = tries_[field].lookup(prefix_value(key_, trie_fields()[field]), trie_fields()[field].n_bits);
      known_[field] = true;
    }
    return answers_[field];
  }

 private:
  const std::array<PrefixTrie, kTrieFields>& tries_;
  const PipelineKey& key_;
  std::array<bool, kTrieFields> known_{};
  std::array<PrefixTrie::Answer, kTrieFields> answers_;
};

class Subtable {
 public:
  Subtable(const MiniMatch& pattern, uint64_t sequence, TrieArena& arena);  // the arena outlives the readers
  Subtable(const Subtable&) = delete;
  Subtable& operator=(const Subtable&) = delete;

  // The highest-priority visible rule that matches. Ors the bits looked at into *wildcards unless it is null.
  const Rule* find(const PipelineKey& key, Version version) const;
  const Rule* find(const PipelineKey& key, Version version, TrieLookups& tries, PipelineMask& wildcards) const;
  // The list of rules with exactly this match (REQUIRES: same mask), highest priority first; null if none.
  Rule* find_list(const MiniMatch& match) const;
  template <typename Visit>
  bool for_each(Visit&& visit) const {
    return rules_.for_each(visit);
  }

  // Writer.
  void insert(Rule& rule);
  void remove(Rule& rule);
  bool empty() const { return priorities_.empty(); }
  uint16_t max_priority() const { return priorities_.rbegin()->first; }  // REQUIRES: !empty()
  size_t memory_bytes() const;

  const MiniMatch& pattern() const { return pattern_; }  // its mask is the subtable's mask
  uint64_t sequence() const { return sequence_; }
  unsigned trie_length(size_t field) const { return trie_lengths_[field]; }  // 0: not in that trie

 private:
  struct StageWord {
    uint8_t index;    // into the key
    uint8_t ordinal;  // into the rule's values
    uint64_t mask;
  };
  struct Word {
    uint8_t index;
    uint64_t mask;
  };
  uint64_t add_stage(uint64_t hash, size_t stage, const PipelineKey& key) const;
  uint64_t add_stage(uint64_t hash, size_t stage, const MiniMatch& match) const;
  const Rule* find_visible(uint32_t hash, const PipelineKey& key, Version version) const;
  bool tries_rule_out(size_t stage, TrieLookups& tries, PipelineMask& wildcards) const;
  void mark_stages(size_t count, PipelineMask& wildcards) const;
  void mark_missed_ports(const PipelineKey& key, PipelineMask& wildcards) const;
  uint32_t ports_of(const Rule& rule) const;

  const MiniMatch pattern_;
  const uint64_t sequence_;
  std::vector<Word> words_;
  std::vector<StageWord> stage_words_;  // stage after stage; stages without a bit do not count
  size_t stages_ = 0;                   // >= 1
  std::array<uint8_t, kStages> stage_end_{};
  std::array<uint8_t, kStages> stage_tries_{};  // bit f: trie field f lies in this stage
  std::array<unsigned, kTrieFields> trie_lengths_{};
  uint32_t ports_mask_ = 0;  // source and destination port as one number, host order
  unsigned ports_length_ = 0;
  PrefixTrie ports_;
  std::vector<std::unique_ptr<HashCounts>> stage_hashes_;  // of all stages but the last
  RuleIndex rules_;
  std::map<uint16_t, uint32_t> priorities_;  // writer only: how many rules have which
};

}  // namespace vswitch
