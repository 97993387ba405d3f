// Internet checksums (RFC 1071, incremental update RFC 1624) and CRC32c for SCTP (RFC 9260).
//
// Sums are 32-bit partial ones' complement sums over bytes in wire order; checksum_finish() folds and complements. A
// sum is an opaque number (its value depends on the machine's byte order): only pass it on to these functions. A piece
// of odd length may only be the last one of a sum. All functions are pure and never read past the given span.
#pragma once

#include <cstdint>
#include <span>

#include "datapath/base/address.h"
#include "datapath/base/byte_order.h"

namespace vswitch {

uint32_t checksum_partial(std::span<const uint8_t> bytes, uint32_t sum = 0);
be16 checksum_finish(uint32_t sum);
inline be16 checksum(std::span<const uint8_t> bytes) { return checksum_finish(checksum_partial(bytes)); }

// The pseudo-header's contribution; `length` is the L4 length in bytes.
uint32_t pseudo_header_sum(be32 src, be32 dst, uint8_t proto, uint32_t length);
uint32_t pseudo_header_sum(const Ipv6Address& src, const Ipv6Address& dst, uint8_t proto, uint32_t length);

// The checksum after a 16- or 32-bit or 128-bit word of what it covers changed.
be16 checksum_update(be16 checksum, be16 old_value, be16 new_value);
be16 checksum_update(be16 checksum, be32 old_value, be32 new_value);
be16 checksum_update(be16 checksum, const Ipv6Address& old_value, const Ipv6Address& new_value);

be32 crc32c(std::span<const uint8_t> bytes);  // as stored in an SCTP header

}  // namespace vswitch
