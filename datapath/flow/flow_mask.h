// Word-wise operations on FlowKey/FlowMask and PipelineKey/PipelineMask.
#pragma once

#include <cstddef>

#include "datapath/flow/flow_key.h"

namespace vswitch {

// (key & mask) == masked, for structs of 64-bit words. `masked` must already be masked.
template <typename Key>
inline bool matches(const Key& key, const Key& masked, const Key& mask) {
  const KeyWord* k = words(key);
  const KeyWord* v = words(masked);
  const KeyWord* m = words(mask);
  uint64_t difference = 0;
  for (size_t i = 0; i < sizeof(Key) / 8; ++i) difference |= (k[i] & m[i]) ^ v[i];
  return difference == 0;
}

template <typename Key>
inline Key masked(const Key& key, const Key& mask) {
  Key out;
  for (size_t i = 0; i < sizeof(Key) / 8; ++i) words(out)[i] = words(key)[i] & words(mask)[i];
  return out;
}

// into |= from
template <typename Key>
inline void mask_or(Key& into, const Key& from) {
  for (size_t i = 0; i < sizeof(Key) / 8; ++i) words(into)[i] |= words(from)[i];
}

template <typename Key>
inline bool is_empty_mask(const Key& mask) {
  uint64_t any = 0;
  for (size_t i = 0; i < sizeof(Key) / 8; ++i) any |= words(mask)[i];
  return any == 0;
}

// Every bit of both is matched by at most what `wide` matches: wide's 1 bits are a subset of narrow's.
template <typename Key>
inline bool mask_contains(const Key& narrow, const Key& wide) {
  uint64_t extra = 0;
  for (size_t i = 0; i < sizeof(Key) / 8; ++i) extra |= words(wide)[i] & ~words(narrow)[i];
  return extra == 0;
}

// All bits that extract_flow_key() may set for a packet like `key` (by its eth_type, nw_proto, tags and tunnel): an
// exact-match mask that leaves out words that cannot be non-zero, e.g. for a microflow. Defined in flow_mask.cc.
FlowMask exact_mask_for(const FlowKey& key);

}  // namespace vswitch
