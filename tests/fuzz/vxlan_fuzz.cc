// What arrives in a VXLAN datagram: header and inner frame, cut off anywhere. Finds reads past the end (GuardedPacket),
// undefined behaviour, and promises that are not kept.
#include <array>
#include <cstdlib>

#include "datapath/packet/offload.h"
#include "datapath/tunnel/ecn.h"
#include "datapath/tunnel/inner_frame.h"
#include "datapath/tunnel/vxlan_header.h"
#include "tests/support/guarded_packet.h"

namespace {

using namespace vswitch;

void require(bool condition) {
  if (!condition) std::abort();
}

void check_header(std::span<const uint8_t> bytes, bool gbp) {
  uint32_t vni = 0;
  VxlanHeader header;
  const VxlanError of_vni = parse_vxlan_vni(bytes, vni);
  const VxlanError of_header = parse_vxlan_header(bytes, gbp, header);
  if (of_header != VxlanError::none) return;
  require(of_vni == VxlanError::none && vni == header.vni && vni <= kMaxVni);
  std::array<uint8_t, kVxlanHeaderSize> written;
  write_vxlan_header(header, written);
  VxlanHeader again;
  require(parse_vxlan_header(written, gbp, again) == VxlanError::none && again == header);
}

void check_frame(Packet& packet, uint8_t outer_tos, uint16_t gso_size) {
  if (const InnerIp ip = find_inner_ip(packet.bytes())) {
    const EcnDecapsulation ecn = ecn_decapsulate(outer_tos, ip.tos);
    set_inner_tos(packet.bytes(), ip, ecn.inner_tos);
    require(find_inner_ip(packet.bytes()).tos == ecn.inner_tos);
  }
  detect_inner_offload(packet, gso_size);
  if (packet.offload.checksum == ChecksumState::none) return;
  require(size_t{packet.offload.csum_start} + packet.offload.csum_offset + 2 <= packet.size());
  if (packet.offload.gso != GsoType::none) {
    require(packet.offload.gso_size != 0);
    require(Segmenter(packet).valid());
  }
  require(complete_checksum(packet));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static test::GuardedPacket guarded;
  constexpr size_t kSettings = 3;
  if (size < kSettings || size - kSettings > test::GuardedPacket::kMaxFrame) return 0;
  const std::span<const uint8_t> bytes(data + kSettings, size - kSettings);
  Packet& packet = guarded.place(bytes);
  check_header(packet.bytes(), (data[0] & 4) != 0);
  if (packet.size() < kVxlanHeaderSize) return 0;
  packet.pull(kVxlanHeaderSize);
  check_frame(packet, data[0], static_cast<uint16_t>(data[1] << 8 | data[2]));
  return 0;
}
