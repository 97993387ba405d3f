#include "datapath/flow_table/overflow_mask.h"

#include <array>

#include "datapath/flow/flow_mask.h"
#include "datapath/flow_table/flow_table.h"

namespace vswitch {
namespace {

void set_words(FlowMask& mask, size_t from, size_t to) {
  for (size_t i = from; i < to; ++i) words(mask)[i] = ~uint64_t{0};
}

using OverflowMasks = std::array<FlowMask, FlowTable::kOverflowMasks>;

OverflowMasks make_overflow_masks() {
  OverflowMasks masks;
  // What makes a connection over Ethernet and IPv4. Not what changes from packet to packet within one (TTL, TCP flags).
  FlowMask& connection = masks[0];
  set_words(connection, 0, 6);
  set_words(connection, 7, 8);
  connection.tcp_flags = be16{};
  // The same over IPv6.
  masks[1] = connection;
  connection.pad_eth = 0;
  masks[1].pad_eth = 0;
  masks[1].ipv6_src.bytes.fill(0xff);
  masks[1].ipv6_dst.bytes.fill(0xff);
  set_words(masks[2], 0, kCommonWords);
  set_words(masks[3], 0, kFlowKeyWords);
  return masks;
}

const OverflowMasks& overflow_masks() {
  static const OverflowMasks masks = make_overflow_masks();
  return masks;
}

}  // namespace

const FlowMask& overflow_mask_for(const FlowMask& mask) {
  for (const FlowMask& overflow : overflow_masks()) {
    if (mask_contains(overflow, mask)) return overflow;
  }
  return overflow_masks().back();
}

bool is_overflow_mask(const FlowMask& mask) {
  for (const FlowMask& overflow : overflow_masks()) {
    if (mask == overflow) return true;
  }
  return false;
}

}  // namespace vswitch
