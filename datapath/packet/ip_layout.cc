#include "datapath/packet/ip_layout.h"

#include <cstring>

#include "datapath/base/byte_order.h"

namespace vswitch {

namespace {

constexpr size_t kEthernetSize = 14;
constexpr size_t kIpv4Size = 20;
constexpr size_t kIpv6Size = 40;
constexpr size_t kAddressSize = 16;

constexpr uint16_t kEthTypeMin = 0x0600;  // smaller: an 802.3 length
constexpr uint16_t kIpv4 = 0x0800;
constexpr uint16_t kIpv6 = 0x86dd;

enum NextHeader : uint8_t { kHopByHop = 0, kRouting = 43, kFragment = 44, kAuthentication = 51, kDestOptions = 60 };

// Routing header types whose address list ends with the final hop; a segment routing header (RFC 8754) begins with it.
enum RoutingType : uint8_t { kSourceRoute = 0, kMobility = 2, kSegmentRouting = 4 };

uint16_t load_u16(const uint8_t* from) { return load_unaligned<be16>(from).host(); }

bool is_vlan(uint16_t eth_type) { return eth_type == 0x8100 || eth_type == 0x88a8; }

// LLC and SNAP: DSAP and SSAP 0xaa, unnumbered information, OUI 0, EtherType.
std::optional<EthernetPayload> find_snap_payload(std::span<const uint8_t> frame, size_t at) {
  constexpr uint8_t kSnap[] = {0xaa, 0xaa, 0x03, 0, 0, 0};
  if (frame.size() < at + 8 || std::memcmp(frame.data() + at, kSnap, sizeof kSnap) != 0) return std::nullopt;
  const uint16_t type = load_u16(frame.data() + at + sizeof kSnap);
  if (type < kEthTypeMin) return std::nullopt;
  return EthernetPayload{type, at + 8};
}

std::optional<IpLayout> parse_ipv4(std::span<const uint8_t> frame, size_t l3) {
  if (frame.size() - l3 < kIpv4Size) return std::nullopt;
  const uint8_t* header = frame.data() + l3;
  const size_t header_size = size_t{header[0]} % 16 * 4;
  const size_t total = load_u16(header + 2);
  if (header_size < kIpv4Size || total < header_size || total > frame.size() - l3) return std::nullopt;
  const uint16_t fragment = load_u16(header + 6) & 0x3fff;  // more-fragments bit and offset
  const bool later = (fragment & 0x1fff) != 0;
  IpLayout layout;
  layout.l3 = l3;
  layout.l4 = l3 + header_size;
  layout.l3_end = l3 + total;
  layout.proto = header[9];
  layout.fragment = fragment != 0;
  layout.has_l4 = !later;
  return layout;
}

size_t final_destination(std::span<const uint8_t> frame, size_t at, size_t size) {
  const uint8_t* header = frame.data() + at;
  const size_t addresses = (size - 8) / kAddressSize;
  if (header[3] == 0 || addresses == 0) return 0;
  if (header[2] == kSourceRoute || header[2] == kMobility) return at + 8 + (addresses - 1) * kAddressSize;
  return header[2] == kSegmentRouting ? at + 8 : 0;
}

// Size of the extension header `type` at `header`, of which 8 bytes are readable; 0 if it is none that is skipped.
size_t extension_size(uint8_t type, const uint8_t* header) {
  switch (type) {
    case kHopByHop:
    case kRouting:
    case kDestOptions:
      return (size_t{header[1]} + 1) * 8;
    case kAuthentication:
      return (size_t{header[1]} + 2) * 4;
    case kFragment:
      return 8;
    default:
      return 0;
  }
}

bool is_extension(uint8_t type) {
  constexpr uint8_t kAnyLength[8] = {};
  return extension_size(type, kAnyLength) != 0;
}

// Walks the extension headers from layout.l4 on.
void skip_extensions(std::span<const uint8_t> frame, uint8_t next, IpLayout& layout) {
  while (is_extension(next)) {
    if (layout.l3_end - layout.l4 < 8) return;
    const uint8_t* header = frame.data() + layout.l4;
    const size_t size = extension_size(next, header);
    if (size > layout.l3_end - layout.l4) return;
    if (next == kRouting) layout.final_destination = final_destination(frame, layout.l4, size);
    layout.proto = header[0];
    layout.l4 += size;
    if (next == kFragment) {
      const uint16_t fragment = load_u16(header + 2);
      layout.fragment = layout.fragment || (fragment & 0xfff9) != 0;
      if ((fragment & 0xfff8) != 0) return;
    }
    next = header[0];
  }
  layout.has_l4 = true;
}

std::optional<IpLayout> parse_ipv6(std::span<const uint8_t> frame, size_t l3) {
  if (frame.size() - l3 < kIpv6Size) return std::nullopt;
  const uint8_t* header = frame.data() + l3;
  const size_t payload = load_u16(header + 4);
  if (payload > frame.size() - l3 - kIpv6Size) return std::nullopt;
  IpLayout layout;
  layout.is_v6 = true;
  layout.l3 = l3;
  layout.l4 = l3 + kIpv6Size;
  layout.l3_end = layout.l4 + payload;
  layout.proto = header[6];
  skip_extensions(frame, header[6], layout);
  return layout;
}

}  // namespace

std::optional<IpLayout> parse_ip(std::span<const uint8_t> frame, size_t l3) {
  if (l3 >= frame.size()) return std::nullopt;
  switch (frame[l3] >> 4) {
    case 4:
      return parse_ipv4(frame, l3);
    case 6:
      return parse_ipv6(frame, l3);
    default:
      return std::nullopt;
  }
}

std::optional<EthernetPayload> find_ethernet_payload(std::span<const uint8_t> frame) {
  if (frame.size() < kEthernetSize) return std::nullopt;
  size_t type_at = 12;
  uint16_t type = load_u16(frame.data() + type_at);
  for (int tags = 0; tags < 2 && is_vlan(type); ++tags) {
    type_at += 4;
    if (frame.size() < type_at + 2) return std::nullopt;
    type = load_u16(frame.data() + type_at);
  }
  if (type >= kEthTypeMin) return EthernetPayload{type, type_at + 2};
  return find_snap_payload(frame, type_at + 2);
}

std::optional<IpLayout> find_ip(std::span<const uint8_t> frame) {
  const auto payload = find_ethernet_payload(frame);
  if (!payload || (payload->eth_type != kIpv4 && payload->eth_type != kIpv6)) return std::nullopt;
  // By the type alone, as extraction does: it does not look at the version either.
  return payload->eth_type == kIpv6 ? parse_ipv6(frame, payload->offset) : parse_ipv4(frame, payload->offset);
}

}  // namespace vswitch
