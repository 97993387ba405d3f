#include "datapath/vport/afxdp/partial_checksum.h"

#include "datapath/packet/checksum.h"
#include "datapath/packet/ip_layout.h"

namespace vswitch::afxdp {
namespace {

constexpr uint8_t kTcp = 6, kUdp = 17, kSctp = 132;

// Where the checksum is in the L4 header, and how long that header is at least.
struct Field {
  uint16_t offset = 0;  // 0: none that is known here
  size_t header = 0;
};

Field checksum_field(uint8_t proto) {
  switch (proto) {
    case kTcp:
      return {16, 20};
    case kUdp:
      return {6, 8};
    case kSctp:
      return {8, 12};
    default:
      return {};
  }
}

uint32_t pseudo_sum(const uint8_t* frame, const IpLayout& ip) {
  const auto length = static_cast<uint32_t>(ip.l4_size());
  if (!ip.is_v6) {
    return pseudo_header_sum(load_unaligned<be32>(frame + ip.l3 + 12), load_unaligned<be32>(frame + ip.l3 + 16),
                             ip.proto, length);
  }
  const size_t destination = ip.final_destination != 0 ? ip.final_destination : ip.l3 + 24;
  return pseudo_header_sum(load_unaligned<Ipv6Address>(frame + ip.l3 + 8),
                           load_unaligned<Ipv6Address>(frame + destination), ip.proto, length);
}

bool holds_partial(const uint8_t* frame, const IpLayout& ip, const Field& field) {
  const uint8_t* const at = frame + ip.l4 + field.offset;
  if (ip.proto == kSctp) return load_unaligned<uint32_t>(at) == 0;
  // checksum_finish() complements, a partial checksum is not complemented.
  const uint16_t whole = checksum_finish(pseudo_sum(frame, ip)).host();
  return load_unaligned<be16>(at).host() == static_cast<uint16_t>(~whole);
}

}  // namespace

void mark_partial_checksum(Packet& packet) {
  const auto ip = find_ip(packet.bytes());
  if (!ip || !ip->has_l4 || ip->fragment) return;
  // Completing sums up to the end of the frame; what a wire padded is none of this host's.
  if (ip->l3_end != packet.size()) return;
  const Field field = checksum_field(ip->proto);
  if (field.offset == 0 || ip->l4_size() < field.header || !holds_partial(packet.data(), *ip, field)) return;
  packet.offload.checksum = ChecksumState::partial;
  packet.offload.csum_start = static_cast<uint16_t>(ip->l4);
  packet.offload.csum_offset = field.offset;
}

}  // namespace vswitch::afxdp
