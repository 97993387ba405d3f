#include "datapath/vport/vnet_header.h"

#include <cstring>
#include <optional>

#include "datapath/packet/checksum.h"
#include "datapath/packet/ip_layout.h"
#include "datapath/vport/tx_finish.h"

namespace vswitch {
namespace {

constexpr uint8_t kTcp = 6;
constexpr uint8_t kUdp = 17;
constexpr size_t kMacAddresses = 12;

std::optional<GsoType> decode_gso_type(uint8_t type) {
  switch (type & ~VnetHeader::kGsoEcn) {
    case VnetHeader::kGsoNone:
      return GsoType::none;
    case VnetHeader::kGsoTcp4:
      return GsoType::tcp4;
    case VnetHeader::kGsoTcp6:
      return GsoType::tcp6;
    case VnetHeader::kGsoUdpL4:
      return GsoType::udp_l4;
    default:
      return std::nullopt;
  }
}

uint8_t encode_gso_type(const OffloadState& offload) {
  const uint8_t ecn = offload.gso_ecn ? VnetHeader::kGsoEcn : 0;
  switch (offload.gso) {
    case GsoType::none:
      return VnetHeader::kGsoNone;
    case GsoType::tcp4:
      return VnetHeader::kGsoTcp4 | ecn;
    case GsoType::tcp6:
      return VnetHeader::kGsoTcp6 | ecn;
    case GsoType::udp_l4:
      return VnetHeader::kGsoUdpL4;
  }
  return VnetHeader::kGsoNone;
}

bool checksum_field_is_inside(const Packet& packet) {
  return size_t{packet.offload.csum_start} + packet.offload.csum_offset + sizeof(be16) <= packet.size();
}

uint32_t pseudo_sum(const Packet& packet, const IpLayout& ip) {
  const auto length = static_cast<uint32_t>(ip.l4_size());
  const uint8_t* l3 = packet.data() + ip.l3;
  if (!ip.is_v6) {
    return pseudo_header_sum(load_unaligned<be32>(l3 + 12), load_unaligned<be32>(l3 + 16), ip.proto, length);
  }
  const uint8_t* destination = ip.final_destination != 0 ? packet.data() + ip.final_destination : l3 + 24;
  return pseudo_header_sum(load_unaligned<Ipv6Address>(l3 + 8), load_unaligned<Ipv6Address>(destination), ip.proto,
                           length);
}

// Replaces the complete checksum of a super-frame by the pseudo-header's part.
bool make_checksum_partial(Packet& packet) {
  const std::optional<IpLayout> ip = find_ip(packet.bytes());
  const uint8_t wanted = packet.offload.gso == GsoType::udp_l4 ? kUdp : kTcp;
  if (!ip || !ip->has_l4 || ip->proto != wanted) return false;
  packet.offload.checksum = ChecksumState::partial;
  packet.offload.csum_start = static_cast<uint16_t>(ip->l4);
  packet.offload.csum_offset = wanted == kTcp ? 16 : 6;
  if (!checksum_field_is_inside(packet)) return false;
  // The field holds the sum itself; checksum_finish() gives its complement.
  store_unaligned(packet.data() + ip->l4 + packet.offload.csum_offset, ~checksum_finish(pseudo_sum(packet, *ip)));
  return true;
}

}  // namespace

bool decode_vnet_header(const VnetHeader& header, Packet& packet) {
  const std::optional<GsoType> gso = decode_gso_type(header.gso_type);
  if (!gso) return false;
  OffloadState& offload = packet.offload;
  offload = {};
  offload.gso = *gso;
  if (*gso != GsoType::none) {
    if (header.gso_size == 0) return false;
    offload.gso_size = header.gso_size;
    offload.gso_ecn = (header.gso_type & VnetHeader::kGsoEcn) != 0;
  }
  if ((header.flags & VnetHeader::kNeedsChecksum) != 0) {
    offload.checksum = ChecksumState::partial;
    offload.csum_start = header.csum_start;
    offload.csum_offset = header.csum_offset;
    return checksum_field_is_inside(packet) && (*gso == GsoType::none || gso_header_size(packet) != 0);
  }
  if (*gso != GsoType::none) return make_checksum_partial(packet) && gso_header_size(packet) != 0;
  if ((header.flags & VnetHeader::kDataValid) != 0) offload.checksum = ChecksumState::verified;
  return true;
}

bool encode_vnet_header(const Packet& packet, VnetHeader& header) {
  const OffloadState& offload = packet.offload;
  header = {};
  // "Verified" is not passed on: the specification reserves that flag for the receiving direction.
  if (offload.checksum == ChecksumState::partial) {
    if (!checksum_field_is_inside(packet)) return false;
    header.flags = VnetHeader::kNeedsChecksum;
    header.csum_start = offload.csum_start;
    header.csum_offset = offload.csum_offset;
  }
  if (offload.gso == GsoType::none) return true;
  const size_t headers = gso_header_size(packet);
  if (headers == 0 || offload.checksum != ChecksumState::partial) return false;
  header.gso_type = encode_gso_type(offload);
  header.gso_size = offload.gso_size;
  header.hdr_len = static_cast<uint16_t>(headers);
  return true;
}

bool reinsert_vlan_tag(Packet& packet, uint16_t tpid, uint16_t tci) {
  constexpr size_t kTag = 4;
  if (packet.size() < kMacAddresses || packet.headroom() < kTag) return false;
  uint8_t* frame = packet.push(kTag);
  std::memmove(frame, frame + kTag, kMacAddresses);
  store_unaligned(frame + kMacAddresses, to_be16(tpid));
  store_unaligned(frame + kMacAddresses + 2, to_be16(tci));
  return true;
}

}  // namespace vswitch
