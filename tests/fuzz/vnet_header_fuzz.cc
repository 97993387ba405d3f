// The header in front of a received frame may come from a virtual machine: whatever it says about the frame, nothing
// may be read or written outside it, on the way in, in the software stand-ins for offloads, or on the way out.
//
// Input: 10 bytes header, 2 bytes TPID, 2 bytes TCI, the frame.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "datapath/packet/ledger.h"
#include "datapath/packet/packet_pool.h"
#include "datapath/vport/tx_finish.h"
#include "datapath/vport/vnet_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vswitch;
  static HeapPacketPool pool(4096, 256);
  static Ledger ledger;
  static VportCounters counters;
  ThreadContext ctx{0, pool, ledger, {}};
  constexpr size_t kPrefix = sizeof(VnetHeader) + 4;
  PacketPtr packet = pool.allocate();
  if (size < kPrefix || size - kPrefix > packet->tailroom()) return 0;

  const auto header = load_unaligned<VnetHeader>(data);
  const auto tpid = load_unaligned<uint16_t>(data + sizeof header);
  const auto tci = load_unaligned<uint16_t>(data + sizeof header + 2);
  packet->set_size(size - kPrefix);
  std::memcpy(packet->data(), data + kPrefix, packet->size());
  if (!decode_vnet_header(header, *packet)) return 0;
  if (tpid != 0 && !reinsert_vlan_tag(*packet, tpid, tci)) return 0;

  VnetHeader sent;
  if (!encode_vnet_header(*packet, sent)) __builtin_trap();  // what came in can go out
  fits_mtu(*packet, 1500);
  finish_packet(ctx, std::move(packet), counters.slot(ctx), [](PacketPtr) {});
  return 0;
}
