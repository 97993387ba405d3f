// Match: which packets a rule is for: a PipelineKey and a mask of the bits that count. `value` is zero outside the
// mask.
//
// Match is the wide form for building and parsing (1.3 kB); MiniMatch is what rules and requests keep: the words with a
// non-zero mask only. in_port is an OpenFlow port number here.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "datapath/flow/flow_key.h"
#include "datapath/flow/flow_mask.h"

namespace vswitch {

struct Match {
  PipelineKey value;
  PipelineMask mask;

  bool operator==(const Match&) const = default;
  bool is_catch_all() const { return is_empty_mask(mask); }
};

// Immutable and compact: one allocation of 24 + 16 * n bytes for n words (none for a catch-all), which copies share.
// Value bits outside the mask are dropped on construction. Copies may be used and destroyed by different threads.
//
// Who compares many of them may give the words a place of their own (copied_to); a copy of such a match is an ordinary
// one.
class MiniMatch {
 public:
  MiniMatch() = default;
  MiniMatch(const Match& match);  // NOLINT(google-explicit-constructor): says the same
  MiniMatch(const MiniMatch& other) : words_(other.words_) {
    if (words_ != nullptr) share();
  }
  MiniMatch(MiniMatch&& other) noexcept : words_(std::exchange(other.words_, nullptr)) {}
  // A copy with its words at `place`, which has room for memory_bytes() and lives longer than the copy. REQUIRES: the
  // copy is not moved from.
  MiniMatch copied_to(void* place) const;
  MiniMatch& operator=(MiniMatch other) noexcept {
    std::swap(words_, other.words_);
    return *this;
  }
  ~MiniMatch() {
    if (words_ != nullptr && !has_own_place() && owners_in(header().fetch_sub(1, std::memory_order_acq_rel)) == 1)
      free_words();
  }

  bool is_catch_all() const { return words_ == nullptr; }

  size_t word_count() const {
    return words_ == nullptr ? 0 : static_cast<size_t>(header().load(std::memory_order_relaxed) >> kOwnersBits);
  }
  uint8_t word_index(size_t i) const;                                    // ascending, < kPipelineKeyWords
  uint64_t value_word(size_t i) const { return words_[kMapWords + i]; }  // masked
  uint64_t mask_word(size_t i) const { return words_[kMapWords + word_count() + i]; }
  uint64_t value_at(size_t index) const;  // of that word of the key; 0 if it does not count
  // The masked value words, word_count() of them; null for a catch-all.
  const uint64_t* values() const { return words_ ? &words_[kMapWords] : nullptr; }

  // Calls visit(word index, value, mask) for each word, ascending; stops and returns false when a visit returns false.
  template <typename Visit>
  bool all_words(Visit&& visit) const {
    if (!words_) return true;
    const uint64_t* value = &words_[kMapWords];
    const uint64_t* mask = value + word_count();
    for (size_t half = 0; half < kMapWords; ++half) {
      for (uint64_t map = words_[half]; map != 0; map &= map - 1) {
        if (!visit(half * 64 + static_cast<size_t>(std::countr_zero(map)), *value++, *mask++)) return false;
      }
    }
    return true;
  }

  void add_mask_to(PipelineMask& mask) const;
  Match expand() const;
  bool matches(const PipelineKey& key) const;
  bool operator==(const MiniMatch& other) const;
  bool same_mask(const MiniMatch& other) const;
  // True if every packet that `narrow` matches is matched by this (loose mod/del: the request's match contains the
  // rule's).
  bool contains(const MiniMatch& narrow) const;
  bool overlaps(const MiniMatch& other) const;  // some packet matches both
  size_t hash() const;
  size_t mask_hash() const;
  size_t memory_bytes() const;

 private:
  static constexpr size_t kMapWords = 2;
  static_assert(kPipelineKeyWords <= kMapWords * 64);
  static constexpr unsigned kOwnersBits = 32;
  static constexpr uint32_t kOwnPlace = 0;  // instead of the number of owners
  static uint64_t make_header(size_t words, uint32_t owners) { return uint64_t{words} << kOwnersBits | owners; }
  static uint32_t owners_in(uint64_t header) { return static_cast<uint32_t>(header); }
  bool has_own_place() const { return owners_in(header().load(std::memory_order_relaxed)) == kOwnPlace; }
  void share() {
    if (has_own_place()) return copy_words();
    header().fetch_add(1, std::memory_order_relaxed);
  }
  void copy_words();
  void free_words();
  size_t total_words() const { return words_ ? kMapWords + 2 * word_count() : 0; }

  std::atomic_ref<uint64_t> header() const { return std::atomic_ref<uint64_t>(words_[-1]); }

  // A bit map of which key words count, then their values, then their masks; before them, how many words count and how
  // many MiniMatches share them. Null: no word counts.
  uint64_t* words_ = nullptr;
};

}  // namespace vswitch
