#include "vswitchd/rules/match.h"

#include <algorithm>

#include "datapath/base/word_hash.h"
#include "vswitchd/rules/rule_memory.h"

namespace vswitch {

MiniMatch::MiniMatch(const Match& match) {
  const KeyWord* value = words(match.value);
  const KeyWord* mask = words(match.mask);
  uint64_t map[kMapWords] = {};
  for (size_t i = 0; i < kPipelineKeyWords; ++i) {
    if (mask[i] != 0) map[i / 64] |= uint64_t{1} << (i % 64);
  }
  const auto n = static_cast<size_t>(std::popcount(map[0]) + std::popcount(map[1]));
  if (n == 0) return;
  words_ = static_cast<uint64_t*>(rule_memory::allocate((1 + kMapWords + 2 * n) * sizeof(uint64_t))) + 1;
  words_[-1] = make_header(n, 1);
  std::copy_n(map, kMapWords, words_);
  size_t at = kMapWords;
  for (size_t i = 0; i < kPipelineKeyWords; ++i) {
    if (mask[i] == 0) continue;
    words_[at] = value[i] & mask[i];
    words_[at + n] = mask[i];
    ++at;
  }
}

MiniMatch MiniMatch::copied_to(void* place) const {
  MiniMatch copy;
  if (words_ == nullptr) return copy;
  copy.words_ = static_cast<uint64_t*>(place) + 1;
  copy.words_[-1] = make_header(word_count(), kOwnPlace);
  std::copy_n(words_, total_words(), copy.words_);
  return copy;
}

void MiniMatch::copy_words() {
  const uint64_t* from = words_;
  const size_t n = word_count(), total = total_words();
  words_ = static_cast<uint64_t*>(rule_memory::allocate((1 + total) * sizeof(uint64_t))) + 1;
  words_[-1] = make_header(n, 1);
  std::copy_n(from, total, words_);
}

void MiniMatch::free_words() { rule_memory::free(words_ - 1, (1 + total_words()) * sizeof(uint64_t)); }

uint8_t MiniMatch::word_index(size_t i) const {
  size_t left = i, found = 0;
  all_words([&](size_t index, uint64_t, uint64_t) {
    found = index;
    return left-- != 0;
  });
  return static_cast<uint8_t>(found);
}

uint64_t MiniMatch::value_at(size_t index) const {
  if (words_ == nullptr) return 0;
  const uint64_t bit = uint64_t{1} << (index % 64);
  if ((words_[index / 64] & bit) == 0) return 0;
  size_t at = static_cast<size_t>(std::popcount(words_[index / 64] & (bit - 1)));
  if (index >= 64) at += static_cast<size_t>(std::popcount(words_[0]));
  return words_[kMapWords + at];
}

void MiniMatch::add_mask_to(PipelineMask& mask) const {
  all_words([&mask](size_t index, uint64_t, uint64_t bits) {
    words(mask)[index] |= bits;
    return true;
  });
}

Match MiniMatch::expand() const {
  Match match;
  all_words([&](size_t index, uint64_t value, uint64_t mask) {
    words(match.value)[index] = value;
    words(match.mask)[index] = mask;
    return true;
  });
  return match;
}

bool MiniMatch::matches(const PipelineKey& key) const {
  const KeyWord* k = words(key);
  return all_words([k](size_t index, uint64_t value, uint64_t mask) { return (k[index] & mask) == value; });
}

bool MiniMatch::operator==(const MiniMatch& other) const {
  if (words_ == other.words_) return true;
  const size_t n = total_words();
  return n == other.total_words() && std::equal(words_, words_ + n, other.words_);
}

bool MiniMatch::same_mask(const MiniMatch& other) const {
  if (!words_ || !other.words_) return !words_ && !other.words_;
  if (words_[0] != other.words_[0] || words_[1] != other.words_[1]) return false;
  const size_t n = word_count();
  const uint64_t* masks = &words_[kMapWords + n];
  return std::equal(masks, masks + n, &other.words_[kMapWords + n]);
}

bool MiniMatch::contains(const MiniMatch& narrow) const {
  if (!words_) return true;
  if (!narrow.words_) return false;
  const uint64_t* narrow_map = narrow.words_;
  const size_t n = narrow.word_count();
  return all_words([&](size_t index, uint64_t value, uint64_t mask) {
    const uint64_t bit = uint64_t{1} << (index % 64);
    if ((narrow_map[index / 64] & bit) == 0) return false;
    size_t at = static_cast<size_t>(std::popcount(narrow_map[index / 64] & (bit - 1)));
    if (index >= 64) at += static_cast<size_t>(std::popcount(narrow_map[0]));
    const uint64_t narrow_value = narrow.words_[kMapWords + at];
    const uint64_t narrow_mask = narrow.words_[kMapWords + n + at];
    return (mask & ~narrow_mask) == 0 && (narrow_value & mask) == value;
  });
}

bool MiniMatch::overlaps(const MiniMatch& other) const {
  if (!words_ || !other.words_) return true;
  const uint64_t* map = other.words_;
  const size_t n = other.word_count();
  return all_words([&](size_t index, uint64_t value, uint64_t mask) {
    const uint64_t bit = uint64_t{1} << (index % 64);
    if ((map[index / 64] & bit) == 0) return true;
    size_t at = static_cast<size_t>(std::popcount(map[index / 64] & (bit - 1)));
    if (index >= 64) at += static_cast<size_t>(std::popcount(map[0]));
    return ((value ^ other.words_[kMapWords + at]) & mask & other.words_[kMapWords + n + at]) == 0;
  });
}

size_t MiniMatch::hash() const {
  uint64_t h = hash_start();
  for (size_t i = 0, n = total_words(); i < n; ++i) h = hash_word(h, words_[i]);
  return h;
}

size_t MiniMatch::mask_hash() const {
  uint64_t h = hash_start();
  all_words([&h](size_t index, uint64_t, uint64_t mask) {
    h = hash_word(hash_word(h, index), mask);
    return true;
  });
  return h;
}

size_t MiniMatch::memory_bytes() const { return words_ == nullptr ? 0 : (1 + total_words()) * sizeof(uint64_t); }

}  // namespace vswitch
