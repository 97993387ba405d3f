// SubtableOrder: in which order a classifier's lookups go through its subtables, as of one moment. Immutable once
// published. search_subtables(): one lookup. Private to the classifier.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vswitchd/rules/subtable.h"

namespace vswitch {

struct SubtableOrder {
  struct Place {
    const Subtable* subtable = nullptr;  // null: no subtable has this number
    uint32_t rank = 0;                   // the highest priority has 0
    uint16_t max_priority = 0;
    std::array<uint8_t, kPrefixFields> prefix_lengths{};
  };
  struct Group {
    const SubtableGroup* group;
    uint32_t first_rank;
    uint16_t max_priority;
    std::vector<uint64_t> members;  // bit: a subtable's number
    // The members that have a prefix of the field; empty if there is none.
    std::array<std::vector<uint64_t>, kPrefixFields> with_field;
    // Those with a prefix of so many bits or more; longest first.
    struct Length {
      unsigned bits;
      std::vector<uint64_t> members;
    };
    std::array<std::vector<Length>, kPrefixFields> by_length;
  };

  // The subtables are in no order.
  explicit SubtableOrder(std::span<const Subtable* const> subtables);

  std::vector<Group> groups;     // by first_rank
  std::vector<Place> by_number;  // of the subtable
  std::vector<const Subtable*> by_rank;
};

// The rule that Classifier::lookup() promises.
const Rule* search_subtables(const SubtableOrder& order, const PrefixIndexes& prefixes, const PipelineKey& key,
                             Version version, PipelineMask* wildcards);

}  // namespace vswitch
