// SubtableSet: in which subtables of a classifier some value (a prefix, a hash) occurs, and how many rules each has
// with it. Subtables are known by small numbers. Private to the classifier.
//
// Nearly all values occur in one subtable only. Such a set is one word, and its count is the number of rules that the
// owner keeps for the value anyway: hence `rules_before` below. Up to three subtables with a few rules each are one
// word, too.
//
// Most of those values occur in one rule only, which the set then knows: whoever finds the value need not look for the
// rule in the subtable.
//
// Thread safety: one writer; or_into() by RCU readers at the same time, which see at least what was added before they
// started.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vswitchd/rules/rule.h"

namespace vswitch {

class SubtableSet {
 public:
  SubtableSet() = default;
  SubtableSet(const SubtableSet&) = delete;
  SubtableSet& operator=(const SubtableSet&) = delete;

  // Counts one rule more, or one less, in subtable `number`, where the value had `rules_before` rules in all. After the
  // last rule is gone the set holds no memory.
  // `rule`: the one that is counted, if it is alive for as long as readers may use what they load().
  void add(uint32_t number, uint32_t rules_before, const Rule* rule = nullptr);
  void remove(uint32_t number, uint32_t rules_before);  // REQUIRES: was added
  // Frees the set without waiting for readers. REQUIRES: none is left.
  void destroy();
  // Takes over what `other` holds, which is to be forgotten, not destroyed: an entry moves while readers still use the
  // old place.
  void take(const SubtableSet& other) { word_.store(other.word_.load(std::memory_order_relaxed)); }

  // What the set holds, for or_into(): a value that stays valid as RCU says. Starts to fetch it.
  uintptr_t load() const {
    const uintptr_t word = word_.load(std::memory_order_acquire);
    if (const Rule* rule = only_rule(word)) {
      rule->prefetch();
    } else if (kind_of(word) == kMany) {
      for (size_t i = 0; i < kFetchedLines; ++i) __builtin_prefetch(reinterpret_cast<const char*>(word) + 64 * i);
    }
    return word;
  }
  // Sets the bit of each number below 64 * bits.size().
  static void or_into(uintptr_t word, std::span<uint64_t> bits) {
    switch (kind_of(word)) {
      case kMany:
        return or_many_into(word, bits);
      case kFew:
        return or_few_into(word, bits);
      default:
        return set_bit(number_in(word), 1, bits);
    }
  }
  // The only rule with the value, null if the set does not know it. Otherwise number_in() is its subtable.
  static const Rule* only_rule(uintptr_t word) {
    if (kind_of(word) != kRule) return nullptr;
    return reinterpret_cast<const Rule*>(word << kNumberBits >> kNumberBits & ~uintptr_t{kKinds});
  }
  // REQUIRES: the set has one number.
  static uint32_t number_in(uintptr_t word) {
    return static_cast<uint32_t>(kind_of(word) == kRule ? word >> kPointerBits : word >> kKindBits);
  }
  size_t memory_bytes() const;

 private:
  // What a word is, in its lowest bits:
  enum Kind : unsigned {
    kMany = 0,  // a pointer to Many; or 0, the empty set
    kAlone,     // above: one number
    kRule,      // a pointer to the only rule; from bit 48: its number
    kFew,       // above: three times number and count of rules, the count 0 where there is none
  };
  static constexpr unsigned kKindBits = 2, kKinds = 3;
  static constexpr unsigned kPointerBits = 48, kNumberBits = 16;
  static constexpr unsigned kFewNumbers = 3, kCountBits = 4, kMaxCount = (1u << kCountBits) - 1;
  static_assert(sizeof(uintptr_t) * 8 == kPointerBits + kNumberBits);
  static_assert(kKindBits + kFewNumbers * (kNumberBits + kCountBits) <= sizeof(uintptr_t) * 8);

  static Kind kind_of(uintptr_t word) { return static_cast<Kind>(word & kKinds); }
  static bool has_one(uintptr_t word) { return kind_of(word) == kAlone || kind_of(word) == kRule; }
  static void set_bit(uint32_t number, uint64_t bit, std::span<uint64_t> bits) {
    if (number / 64 < bits.size()) bits[number / 64] |= bit << (number % 64);
  }
  static void or_few_into(uintptr_t word, std::span<uint64_t> bits) {
    for (word >>= kKindBits; word != 0; word >>= kNumberBits + kCountBits) {
      set_bit(word >> kCountBits & ((1u << kNumberBits) - 1), (word & kMaxCount) != 0, bits);
    }
  }

  static constexpr size_t kFetchedLines = 3;  // a list of 20 numbers, or which of 1,400 are there

  struct Many;
  static uintptr_t word_for(uint32_t number, const Rule* rule);
  static uintptr_t few_with(uintptr_t word, uint32_t number, int change);
  static uintptr_t few_from(uint32_t number, uint32_t rules);
  static Many* many_from(uintptr_t word, uint32_t rules);
  void add_to_many(uint32_t number);
  static const Many* many(uintptr_t word) { return reinterpret_cast<const Many*>(word); }
  static void or_many_into(uintptr_t word, std::span<uint64_t> bits);
  static Many* grow(Many& old, uint32_t number);

  std::atomic<uintptr_t> word_{0};
};

}  // namespace vswitch
