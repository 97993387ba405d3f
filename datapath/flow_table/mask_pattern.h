// MaskPattern: a FlowMask in the form that lookups work with. Private to the flow table.
//
// Nearly every mask looks at nothing but the key's hot words (Ethernet, IPv4, L4: the first kHotWords). Those are
// hashed and compared all together, without a loop and without asking which of them count: a few wide instructions,
// where a list of words costs a mispredicted branch at its end whenever masks of different lengths follow each other.
// The words behind them are a list, which is usually empty.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "datapath/base/word_hash.h"
#include "datapath/flow/flow_key.h"

namespace vswitch {

using HotKey = std::array<uint64_t, kHotWords>;

class MaskPattern {
 public:
  struct Word {
    uint64_t mask;
    uint32_t index;  // into the key
  };

  explicit MaskPattern(const FlowMask& mask);

  uint32_t hash(const FlowKey& key) const {
    const KeyWord* w = words(key);
    const HashSecret& s = kHashSecret;
    uint64_t h = hash_pair(w[0] & hot_[0], w[1] & hot_[1], s.lanes[0], s.lanes[1]) ^
                 hash_pair(w[2] & hot_[2], w[3] & hot_[3], s.lanes[2], s.lanes[3]) ^
                 hash_pair(w[4] & hot_[4], w[5] & hot_[5], s.lanes[4], s.lanes[5]) ^
                 hash_pair(w[6] & hot_[6], w[7] & hot_[7], s.lanes[6], s.lanes[7]);
    for (const Word& word : rest_) h = hash_word(h, w[word.index] & word.mask);
    return hash_finish(h);
  }
  // `hot` and `rest`: the masked words of a flow, in the order of hot words and rest(). REQUIRES: `hot` is a cache
  // line.
  bool matches(const FlowKey& key, const uint64_t* hot, const uint64_t* rest) const {
    const bool hot_matches = matches_hot(words(key), hot);
    return __builtin_expect(hot_only_, 1) ? hot_matches : hot_matches && matches_rest(words(key), rest);
  }
  FlowMask expand() const;

  const HotKey& hot() const { return hot_; }
  const std::vector<Word>& rest() const { return rest_; }
  // Looks at no more of a packet than its way in, EtherType, VLAN tags and fragment bits: see ShallowKey.
  bool shallow() const { return shallow_; }
  // Looks at nothing that differs among the packets of a TCP or UDP connection over IP: TTL, IPv6 label, TCP flags.
  bool whole_connections() const { return whole_connections_; }
  size_t memory_bytes() const { return sizeof *this + rest_.capacity() * sizeof(Word); }

  // Shared by the subtable and its flows.
  void ref(uint32_t count = 1) const { references_.fetch_add(count, std::memory_order_relaxed); }
  void unref() const {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

 private:
  bool matches_hot(const KeyWord* key, const uint64_t* hot) const {
#if defined(__SSE2__)
    // Written out: the compiler makes a loop of it, whose overhead is as much as its work.
    const auto differs = [&](size_t i) {
      const __m128i of_key = _mm_loadu_si128(reinterpret_cast<const __m128i*>(key) + i);
      const __m128i of_mask = reinterpret_cast<const __m128i*>(hot_.data())[i];
      return _mm_xor_si128(_mm_and_si128(of_key, of_mask), reinterpret_cast<const __m128i*>(hot)[i]);
    };
    static_assert(kHotWords == 8);
    const __m128i difference = _mm_or_si128(_mm_or_si128(differs(0), differs(1)), _mm_or_si128(differs(2), differs(3)));
    return _mm_movemask_epi8(_mm_cmpeq_epi8(difference, _mm_setzero_si128())) == 0xffff;
#else
    uint64_t difference = 0;
    for (size_t i = 0; i < kHotWords; ++i) difference |= (key[i] & hot_[i]) ^ hot[i];
    return difference == 0;
#endif
  }
  bool matches_rest(const KeyWord* key, const uint64_t* rest) const {
    uint64_t difference = 0;
    for (const Word& word : rest_) difference |= (key[word.index] & word.mask) ^ *rest++;
    return difference == 0;
  }

  alignas(64) HotKey hot_;
  std::vector<Word> rest_;
  bool hot_only_;  // rest_ is empty
  bool shallow_;
  bool whole_connections_;
  // On a line of its own: who inserts a flow writes to it, and lookups on other cores read the rest all the time.
  alignas(64) mutable std::atomic<uint32_t> references_{1};
};

}  // namespace vswitch
