// FlowOrigin: what vswitchd hangs on a datapath flow: where it came from, and how much of its traffic has been
// credited.
//
// Made by the slow path with the flow; afterwards read and written by the revalidator only, under its lock. What a
// translation said (FlowTerms) is immutable, and shared by the flows that it holds for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "vswitchd/translate/translate.h"

namespace vswitch {

// What a flow is to count, to refresh and to keep alive, as its translation said.
struct FlowTerms {
  // Takes from `output` what there is but for output.way. REQUIRES: the RCU reader that translated.
  explicit FlowTerms(TranslateOutput& output) : credit(output.way), learned(std::move(output.learned)) {
    for (Recirculation& r : output.recirculations) recircs.push_back(std::move(r.context));
    if (output.thawed) recircs.push_back(std::move(output.thawed));
  }

  // Whether those of `output` would be the same. REQUIRES: the RCU reader that translated.
  bool operator==(const TranslateOutput& output) const {
    const size_t thawed = output.thawed ? 1 : 0;
    const auto same_context = [](const Recirculation& r, const RecircRef& ours) { return r.context == ours; };
    return credit == output.way && learned == output.learned &&
           recircs.size() == output.recirculations.size() + thawed &&
           std::equal(output.recirculations.begin(), output.recirculations.end(), recircs.begin(), same_context) &&
           (thawed == 0 || recircs.back() == output.thawed);
  }

  Credit credit;
  std::vector<LearnedSource> learned;
  std::vector<RecircRef> recircs;  // that its actions send packets to, and the one that it matches
};

struct FlowOrigin {
  // Flow::installer_bits(): what every flow is asked when something changes, so that few have to be looked at.
  static constexpr uint16_t kRewrittenWords = 0xff;   // TranslateOutput::rewritten_words
  static constexpr uint16_t kUsesAddresses = 1 << 8;  // learned addresses decided
  // A bit for each table that a packet may be looked up in; tables share bits.
  static uint16_t table_bit(const RuleTables* tables, uint8_t table) {
    const uint64_t hash = (reinterpret_cast<uintptr_t>(tables) + table) * 0x9e3779b97f4a7c15ULL;
    return static_cast<uint16_t>(1u << (9 + (hash >> 32) % 7));
  }
  static uint16_t bits_of(const TranslateOutput& output) {
    auto bits = static_cast<uint16_t>(output.rewritten_words | (output.used_addresses ? kUsesAddresses : 0));
    for (const Way::TableLookups& l : output.way.lookups) bits |= table_bit(l.bridge->tables.get(), l.table);
    return bits;
  }

  FlowOrigin(std::shared_ptr<const FlowTerms> of, uint64_t generation)
      : terms(std::move(of)), view_generation(generation) {}

  std::shared_ptr<const FlowTerms> terms;  // never null
  uint64_t view_generation;                // of the view that `terms->learned` names ports of
  bool active = false;                     // had packets since `terms->learned` was last refreshed
  uint64_t credited_packets = 0;           // of the flow's statistics, already given to `terms->credit`
  uint64_t credited_bytes = 0;
};

}  // namespace vswitch
