// MaskPattern: a FlowMask as the list of words that count. Private to the flow table.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "datapath/base/word_hash.h"
#include "datapath/flow/flow_key.h"

namespace vswitch {

struct MaskPattern {
  struct Word {
    uint64_t mask;
    uint32_t index;  // into the key
  };
  std::vector<Word> list;

  explicit MaskPattern(const FlowMask& mask) {
    for (size_t i = 0; i < kFlowKeyWords; ++i) {
      if (words(mask)[i] != 0) list.push_back({words(mask)[i], static_cast<uint32_t>(i)});
    }
    list.shrink_to_fit();
  }

  uint32_t hash(const FlowKey& key) const {
    uint64_t h = hash_start();
    for (const Word& word : list) h = hash_word(h, words(key)[word.index] & word.mask);
    return hash_finish(h);
  }
  bool matches(const FlowKey& key, const uint64_t* values) const {
    uint64_t difference = 0;
    for (const Word& word : list) difference |= (words(key)[word.index] & word.mask) ^ *values++;
    return difference == 0;
  }
  FlowMask expand() const {
    FlowMask mask;
    for (const Word& word : list) words(mask)[word.index] = word.mask;
    return mask;
  }
};

}  // namespace vswitch
