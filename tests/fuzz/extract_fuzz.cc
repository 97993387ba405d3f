// Any bytes as a frame: extraction must not read past the end (the memory behind the frame cannot be read), must not
// depend on what the key held before, and hash, exact mask and layer offsets must fit the key.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "datapath/flow/extract.h"
#include "datapath/flow/flow_mask.h"
#include "tests/support/guarded_packet.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_layers(const vswitch::Packet& packet) {
  const vswitch::LayerOffsets& layers = packet.layers;
  for (uint16_t offset : {layers.l2_5, layers.l3, layers.l4, layers.l3_end}) {
    require(offset == vswitch::LayerOffsets::kNoLayer || offset <= packet.size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static vswitch::test::GuardedPacket guarded;
  if (size > vswitch::test::GuardedPacket::kMaxFrame) return 0;
  vswitch::Packet& packet = guarded.place({data, size});
  vswitch::FlowKey key, used;
  std::memset(static_cast<void*>(&used), 0x5a, sizeof used);
  const bool valid = extract_flow_key(packet, key);
  // The way of batches, into a slot that the last frame left as it did.
  static vswitch::KeySlots slots;
  uint64_t identity = 0;
  vswitch::Packet* const batch[] = {&packet};
  require((extract_flow_keys(batch, 1, slots, &identity) != 0) == valid);
  if (valid) require(slots[0] == key);
  require(valid == (size >= 14));
  require(extract_flow_key(packet, used) == valid);
  if (!valid) return 0;
  check_layers(packet);
  require(key == used);
  require(packet.rss_hash != 0 && packet.rss_hash == flow_hash(key));
  require(masked(key, exact_mask_for(key)) == key);
  return 0;
}
