#include "datapath/flow_table/mask_pattern.h"

#include "datapath/flow_table/shallow_key.h"

namespace vswitch {
namespace {

// Everything else is either what makes a connection (addresses, tags, TOS, ports), or zero for a packet of one that
// comes in by a device.
bool takes_connections_whole(const FlowMask& mask) {
  return mask.nw_ttl == 0 && mask.ipv6_label == be32{} && mask.tcp_flags == be16{};
}

}  // namespace

MaskPattern::MaskPattern(const FlowMask& mask)
    : shallow_(is_shallow(mask)), whole_connections_(takes_connections_whole(mask)) {
  for (size_t i = 0; i < kHotWords; ++i) hot_[i] = words(mask)[i];
  for (size_t i = kHotWords; i < kFlowKeyWords; ++i) {
    if (words(mask)[i] != 0) rest_.push_back({words(mask)[i], static_cast<uint32_t>(i)});
  }
  rest_.shrink_to_fit();
  hot_only_ = rest_.empty();
}

FlowMask MaskPattern::expand() const {
  FlowMask mask;
  for (size_t i = 0; i < kHotWords; ++i) words(mask)[i] = hot_[i];
  for (const Word& word : rest_) words(mask)[word.index] = word.mask;
  return mask;
}

}  // namespace vswitch
