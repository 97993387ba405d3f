// Match: which packets a rule is for: a PipelineKey and a mask of the bits that count. `value` is zero outside the mask.
//
// Match is the wide form for building, parsing and comparing (1.3 kB); MiniMatch is what rules keep: the words with a
// non-zero mask only. in_port is an OpenFlow port number here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "datapath/flow/flow_key.h"
#include "datapath/flow/flow_mask.h"

namespace vswitch {

struct Match {
  PipelineKey value;
  PipelineMask mask;

  bool operator==(const Match&) const = default;
  bool is_catch_all() const { return is_empty_mask(mask); }
};

// Immutable and compact: one allocation of 16 + 16 * n bytes for n words (none for a catch-all).
class MiniMatch {
 public:
  MiniMatch() = default;
  explicit MiniMatch(const Match& match);

  size_t word_count() const;
  uint8_t word_index(size_t i) const;   // ascending, < kPipelineKeyWords
  uint64_t value_word(size_t i) const;  // masked
  uint64_t mask_word(size_t i) const;

  Match expand() const;
  bool matches(const PipelineKey& key) const;
  bool operator==(const MiniMatch& other) const;
  // True if every packet that `narrow` matches is matched by this (loose mod/del: the request's match contains the rule's).
  bool contains(const MiniMatch& narrow) const;
  bool overlaps(const MiniMatch& other) const;
  size_t hash() const;
  size_t memory_bytes() const;

 private:
  std::unique_ptr<uint64_t[]> words_;  // layout is match.cc's
};

}  // namespace vswitch
