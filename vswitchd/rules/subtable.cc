#include "vswitchd/rules/subtable.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "datapath/base/word_hash.h"

namespace vswitch {
namespace {

constexpr uint16_t kPortsOffset = offsetof(FlowKey, tp_src);
static_assert(offsetof(FlowKey, tp_dst) == kPortsOffset + 2 && kPortsOffset % 8 == 0);

uint32_t read_be32(const PipelineKey& key, size_t offset) {
  return load_unaligned<be32>(reinterpret_cast<const uint8_t*>(&key) + offset).host();
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

}  // namespace

const PipelineMask& stage_mask(Stage stage) {
  static const std::array<PipelineMask, kStages> masks = make_stage_masks();
  return masks[static_cast<size_t>(stage)];
}

const std::array<TrieField, kTrieFields>& trie_fields() {
  static constexpr std::array<TrieField, kTrieFields> fields{{{offsetof(FlowKey, nw_dst), 32},
                                                              {offsetof(FlowKey, nw_src), 32},
                                                              {offsetof(FlowKey, ipv6_dst), 128},
                                                              {offsetof(FlowKey, ipv6_src), 128}}};
  return fields;
}

PrefixTrie::Value prefix_value(const PipelineKey& key, TrieField field) {
  PrefixTrie::Value value{};
  for (size_t i = 0; i < field.n_bits / 32u; ++i) value[i] = read_be32(key, field.offset + 4 * i);
  return value;
}

PrefixTrie::Value prefix_value(const MiniMatch& match, TrieField field) {
  PrefixTrie::Value value{};
  for (size_t i = 0; i < field.n_bits / 32u; ++i) {
    const size_t offset = field.offset + 4 * i;
    const uint64_t word = match.value_at(offset / sizeof(KeyWord));
    value[i] = load_unaligned<be32>(reinterpret_cast<const uint8_t*>(&word) + offset % sizeof(KeyWord)).host();
  }
  return value;
}

unsigned prefix_length(const PipelineMask& mask, TrieField field) {
  const PrefixTrie::Value bits = prefix_value(mask, field);
  unsigned length = 0;
  for (size_t i = 0; i < field.n_bits / 32u; ++i) {
    const auto ones = static_cast<unsigned>(std::countl_one(bits[i]));
    const bool ended = length < 32 * i;
    if (ended ? bits[i] != 0 : ones < 32 && bits[i] << ones != 0) return 0;
    if (!ended) length += ones;
  }
  return length;
}

void mark_prefix(PipelineMask& mask, TrieField field, unsigned n) {
  for (size_t offset = field.offset; n > 0; offset += 4) {
    const unsigned here = std::min(n, 32u);
    or_be32(mask, offset, ~uint32_t{0} << (32 - here));
    n -= here;
  }
}

bool prefix_is_marked(const PipelineMask& mask, TrieField field, unsigned n) {
  for (size_t offset = field.offset; n > 0; offset += 4) {
    const unsigned here = std::min(n, 32u);
    if ((~read_be32(mask, offset) & (~uint32_t{0} << (32 - here))) != 0) return false;
    n -= here;
  }
  return true;
}

Subtable::Subtable(const MiniMatch& pattern, uint64_t sequence, TrieArena& arena)
    : pattern_(pattern), sequence_(sequence), ports_(arena) {
  const PipelineMask mask = pattern.expand().mask;
  for (size_t f = 0; f < kTrieFields; ++f) trie_lengths_[f] = prefix_length(mask, trie_fields()[f]);
  ports_mask_ = read_be32(mask, kPortsOffset);
  if (ports_mask_ != 0) ports_length_ = 32 - static_cast<unsigned>(std::countr_zero(ports_mask_));
  pattern.all_words([this](size_t index, uint64_t, uint64_t bits) {
    words_.push_back({static_cast<uint8_t>(index), bits});
    return true;
  });
  for (size_t stage = 0; stage < kStages; ++stage) {
    const KeyWord* part = words(stage_mask(static_cast<Stage>(stage)));
    const size_t before = stage_words_.size();
    for (size_t i = 0; i < words_.size(); ++i) {
      const uint64_t bits = words_[i].mask & part[words_[i].index];
      if (bits != 0) stage_words_.push_back({words_[i].index, static_cast<uint8_t>(i), bits});
    }
    if (stage_words_.size() == before) continue;
    for (size_t f = 0; f < kTrieFields; ++f) {
      if (stage == static_cast<size_t>(Stage::l3) && trie_lengths_[f] > 0) stage_tries_[stages_] |= uint8_t(1u << f);
    }
    stage_end_[stages_++] = static_cast<uint8_t>(stage_words_.size());
  }
  if (stages_ == 0) stages_ = 1;  // the catch-all: one stage without words
  for (size_t i = 0; i + 1 < stages_; ++i) stage_hashes_.push_back(std::make_unique<HashCounts>());
}

uint64_t Subtable::add_stage(uint64_t hash, size_t stage, const PipelineKey& key) const {
  const KeyWord* k = words(key);
  for (size_t i = stage == 0 ? 0 : stage_end_[stage - 1]; i < stage_end_[stage]; ++i) {
    hash = hash_word(hash, k[stage_words_[i].index] & stage_words_[i].mask);
  }
  return hash;
}

uint64_t Subtable::add_stage(uint64_t hash, size_t stage, const MiniMatch& match) const {
  const uint64_t* values = match.values();
  for (size_t i = stage == 0 ? 0 : stage_end_[stage - 1]; i < stage_end_[stage]; ++i) {
    hash = hash_word(hash, values[stage_words_[i].ordinal] & stage_words_[i].mask);
  }
  return hash;
}

const Rule* Subtable::find_visible(uint32_t hash, const PipelineKey& key, Version version) const {
  const KeyWord* k = words(key);
  const Rule* rule = rules_.find(hash, [this, k](const Rule& candidate) {
    const uint64_t* values = candidate.match().values();
    for (size_t i = 0; i < words_.size(); ++i) {
      if ((k[words_[i].index] & words_[i].mask) != values[i]) return false;
    }
    return true;
  });
  while (rule != nullptr && !rule->visible_at(version)) rule = RuleIndex::next(*rule);
  return rule;
}

const Rule* Subtable::find(const PipelineKey& key, Version version) const {
  uint64_t hash = hash_start();
  for (size_t stage = 0; stage < stages_; ++stage) hash = add_stage(hash, stage, key);
  return find_visible(hash_finish(hash), key, version);
}

const Rule* Subtable::find(const PipelineKey& key, Version version, TrieLookups& tries, PipelineMask& wildcards) const {
  uint64_t hash = hash_start();
  for (size_t stage = 0; stage < stages_; ++stage) {
    if (stage_tries_[stage] != 0 && tries_rule_out(stage, tries, wildcards)) {
      mark_stages(stage, wildcards);
      return nullptr;
    }
    hash = add_stage(hash, stage, key);
    if (stage + 1 < stages_ && !stage_hashes_[stage]->contains(hash_finish(hash))) {
      mark_stages(stage + 1, wildcards);
      return nullptr;
    }
  }
  const Rule* rule = find_visible(hash_finish(hash), key, version);
  if (rule == nullptr && ports_length_ > 0) {
    mark_missed_ports(key, wildcards);
  } else {
    mark_stages(stages_, wildcards);
  }
  return rule;
}

// Whether the address tries alone show that no rule here can match; their decisive bits are then marked. A trie covers
// the whole classifier, so it may need more bits than this subtable's own prefix: then it is not used, unless they are
// marked already.
bool Subtable::tries_rule_out(size_t stage, TrieLookups& tries, PipelineMask& wildcards) const {
  for (size_t f = 0; f < kTrieFields; ++f) {
    if ((stage_tries_[stage] & 1u << f) == 0) continue;
    const PrefixTrie::Answer& answer = tries.answer(f);
    if (answer.has_length(trie_lengths_[f])) continue;
    const TrieField field = trie_fields()[f];
    if (answer.decisive_bits <= trie_lengths_[f] || prefix_is_marked(wildcards, field, answer.decisive_bits)) {
      mark_prefix(wildcards, field, answer.decisive_bits);
      return true;
    }
  }
  return false;
}

void Subtable::mark_stages(size_t count, PipelineMask& wildcards) const {
  if (count == 0) return;
  KeyWord* w = words(wildcards);
  for (size_t i = 0; i < stage_end_[count - 1]; ++i) w[stage_words_[i].index] |= stage_words_[i].mask;
}

// All stages were looked at and no rule matched. Of the ports, only as many leading bits count as it takes to see that
// no rule has them.
void Subtable::mark_missed_ports(const PipelineKey& key, PipelineMask& wildcards) const {
  const uint32_t marked_before = read_be32(wildcards, kPortsOffset);
  mark_stages(stages_, wildcards);
  const PrefixTrie::Value value{read_be32(key, kPortsOffset) & ports_mask_};
  const unsigned bits = ports_.lookup(value, 32).decisive_bits;
  const uint32_t needed = bits == 0 ? 0 : ports_mask_ & (~uint32_t{0} << (32 - bits));
  uint8_t* at = reinterpret_cast<uint8_t*>(&wildcards) + kPortsOffset;
  store_unaligned(at, to_be32(marked_before | needed));
}

Rule* Subtable::find_list(const MiniMatch& match) const {
  uint64_t hash = hash_start();
  for (size_t stage = 0; stage < stages_; ++stage) hash = add_stage(hash, stage, match);
  return rules_.find(hash_finish(hash), [&match](const Rule& candidate) { return candidate.match() == match; });
}

uint32_t Subtable::ports_of(const Rule& rule) const {
  const size_t index = kPortsOffset / 8;
  const auto word = std::find_if(words_.begin(), words_.end(), [](const Word& w) { return w.index == index; });
  const uint64_t value = rule.match().values()[word - words_.begin()];
  return load_unaligned<be32>(&value).host() & ports_mask_;
}

// Ports and stages before the rules: a reader that finds no stage hash must be right that there is no rule.
void Subtable::insert(Rule& rule) {
  if (ports_length_ > 0) ports_.insert({ports_of(rule)}, ports_length_);
  uint64_t hash = hash_start();
  for (size_t stage = 0; stage < stages_; ++stage) {
    hash = add_stage(hash, stage, rule.match());
    if (stage + 1 < stages_) stage_hashes_[stage]->add(hash_finish(hash));
  }
  ++priorities_[rule.priority()];
  rules_.insert(hash_finish(hash), rule);
}

void Subtable::remove(Rule& rule) {
  uint64_t hash = hash_start();
  for (size_t stage = 0; stage < stages_; ++stage) hash = add_stage(hash, stage, rule.match());
  if (!rules_.remove(hash_finish(hash), rule)) return;
  hash = hash_start();
  for (size_t stage = 0; stage + 1 < stages_; ++stage) {
    hash = add_stage(hash, stage, rule.match());
    stage_hashes_[stage]->remove(hash_finish(hash));
  }
  if (ports_length_ > 0) ports_.remove({ports_of(rule)}, ports_length_);
  const auto count = priorities_.find(rule.priority());
  if (--count->second == 0) priorities_.erase(count);
}

size_t Subtable::memory_bytes() const {
  size_t bytes = sizeof(Subtable) + pattern_.memory_bytes() + rules_.memory_bytes() + priorities_.size() * 48 +
                 words_.capacity() * sizeof(Word) + stage_words_.capacity() * sizeof(StageWord);
  for (const auto& hashes : stage_hashes_) bytes += sizeof(HashCounts) + hashes->memory_bytes();
  return bytes;
}

}  // namespace vswitch
