// Frames and offload requests as a hostile guest may hand them over, through everything that rewrites, completes or
// cuts: no read past the frame (it ends where readable memory does), no segment larger than its super-frame.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "datapath/actions/rewrite.h"
#include "datapath/packet/offload.h"
#include "tests/support/guarded_packet.h"

namespace vswitch {
namespace {

constexpr size_t kRequestSize = 8;  // what the input begins with: the offload request, and which set to try
constexpr size_t kMaxSegments = 256;

void request_offload(const uint8_t* request, Packet& packet) {
  packet.offload.checksum = static_cast<ChecksumState>(request[0] % 3);
  packet.offload.gso = static_cast<GsoType>(request[0] / 3 % 4);
  packet.offload.gso_ecn = (request[0] & 0x80) != 0;
  packet.offload.gso_size = load_unaligned<uint16_t>(request + 1);
  packet.offload.csum_start = load_unaligned<uint16_t>(request + 3);
  packet.offload.csum_offset = request[5];
}

void rewrite(uint8_t proto, Packet& packet) {
  SetIpv6Action ipv6;
  ipv6.src.bytes.fill(0xff);
  ipv6.src_mask = ipv6.dst_mask = ipv6.src;
  (void)set_ethernet(packet, {});
  (void)set_ipv4(packet, {to_be32(1), to_be32(2), to_be32(0xffffffff), to_be32(0xffffffff), 4, 0xfc, 9, 0xff});
  (void)set_ipv6(packet, ipv6);
  (void)set_transport(packet, {proto, to_be16(1), to_be16(2), to_be16(0xffff), to_be16(0xffff)});
  (void)set_icmp(packet, {proto, 1, 1, 0xff, 0xff});
  (void)set_arp(packet, {});
  (void)set_nd(packet, {ipv6.src, ipv6.src, {}, {}, MacAddress::from_u64(~0ULL), MacAddress::from_u64(~0ULL)});
  if (push_vlan(packet, {kEthTypeVlan, to_be16(0x1001)})) pop_vlan(packet);
  pop_vlan(packet);
}

void cut(const Packet& packet, PacketPool& pool) {
  if (packet.offload.gso == GsoType::none) return;
  const Segmenter segmenter(packet);
  for (size_t i = 0; i < segmenter.count() && i < kMaxSegments; ++i) {
    const PacketPtr piece = segmenter.build(i, pool);
    if (!piece || piece->size() > packet.size()) std::abort();
  }
  if (segmenter.valid() && !segmenter.build(segmenter.count() - 1, pool)) std::abort();
}

}  // namespace
}  // namespace vswitch

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vswitch;
  static test::GuardedPacket guarded;
  static HeapPacketPool pool(test::GuardedPacket::kMaxFrame, 2);
  if (size < kRequestSize || size - kRequestSize > test::GuardedPacket::kMaxFrame) return 0;
  Packet& packet = guarded.place({data + kRequestSize, size - kRequestSize});
  request_offload(data, packet);
  cut(packet, pool);
  rewrite(data[6], packet);
  cut(packet, pool);
  (void)complete_checksum(packet);
  return 0;
}
