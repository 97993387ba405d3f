// SubtableSet: in which subtables of a classifier some value (a prefix, a hash) occurs, and how many rules each has
// with it. Subtables are known by small numbers. Private to the classifier.
//
// Nearly all values occur in one subtable only. Such a set is one word, and its count is the number of rules that the
// owner keeps for the value anyway: hence `rules_before` below.
//
// Thread safety: one writer; or_into() by RCU readers at the same time, which see at least what was added before they
// started.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace vswitch {

class SubtableSet {
 public:
  SubtableSet() = default;
  SubtableSet(const SubtableSet&) = delete;
  SubtableSet& operator=(const SubtableSet&) = delete;

  // Counts one rule more, or one less, in subtable `number`, where the value had `rules_before` rules in all. After the
  // last rule is gone the set holds no memory.
  void add(uint32_t number, uint32_t rules_before);
  void remove(uint32_t number, uint32_t rules_before);  // REQUIRES: was added
  // Frees the set without waiting for readers. REQUIRES: none is left.
  void destroy();
  // Takes over what `other` holds, which is to be forgotten, not destroyed: an entry moves while readers still use the
  // old place.
  void take(const SubtableSet& other) { word_.store(other.word_.load(std::memory_order_relaxed)); }

  // What the set holds, for or_into(): a value that stays valid as RCU says. Starts to fetch it.
  uintptr_t load() const {
    const uintptr_t word = word_.load(std::memory_order_acquire);
    if ((word & 1) == 0) __builtin_prefetch(reinterpret_cast<const void*>(word));
    return word;
  }
  // Sets the bit of each number below 64 * bits.size().
  static void or_into(uintptr_t word, std::span<uint64_t> bits) {
    if ((word & 1) == 0) return or_many_into(word, bits);
    const size_t number = word >> 1;
    if (number / 64 < bits.size()) bits[number / 64] |= uint64_t{1} << (number % 64);
  }
  size_t memory_bytes() const;

 private:
  struct Many;
  static const Many* many(uintptr_t word) { return reinterpret_cast<const Many*>(word); }
  static void or_many_into(uintptr_t word, std::span<uint64_t> bits);
  static Many* grow(Many& old, uint32_t number);

  // number << 1 | 1, or a pointer to Many, or 0.
  std::atomic<uintptr_t> word_{0};
};

}  // namespace vswitch
