// Key extraction: from frame and metadata to FlowKey.
//
// Follows Open vSwitch's miniflow_extract() to the letter (lib/flow.c in 3.1; shared rules in docs/extraction.md):
// - frame under 14 bytes: returns false (the caller drops it with rx_invalid_packet); `key` is then unspecified.
// - 802.3 length: eth_type 0x05ff, or the inner type of a SNAP header with OUI 0.
// - up to two VLAN tags (TPID 0x8100 or 0x88a8); the CFI bit is always set in the key; a truncated tag stops.
// - IPv4/IPv6 header absent, short, of wrong version or with an impossible length: eth_type is kept, L3/L4 are zero;
//   bytes behind the datagram's own length are padding and never parsed.
// - L4 fields only in unfragmented packets and first fragments, and only if the header is there in full.
// - IPv6: hop-by-hop, routing, destination options, AH and fragment headers are skipped; a later fragment keeps the
//   next header number of the fragment header and has no L4.
// - MPLS: the first three label stack entries; nothing under MPLS is parsed.
// - ND: nd_target, and the first source/target link-layer option; any duplicate, zero-length or malformed option makes
//   target and both addresses zero.
// Nothing reads past the packet. Never fails otherwise: what cannot be parsed is zero.
//
// Also sets packet.layers (used by actions) and packet.rss_hash. Thread-safe: touches only its arguments.
#pragma once

#include <cstdint>

#include "datapath/flow/flow_key.h"
#include "datapath/packet/packet.h"

namespace vswitch {

[[nodiscard]] bool extract_flow_key(Packet& packet, FlowKey& key);

// A hash of the L2-L4 addresses and ports of `key` (the same for all packets of a flow; symmetric is not promised).
// Never 0. What extract_flow_key() stores in packet.rss_hash; seeds the flow cache and the tunnels' UDP source port.
uint32_t flow_hash(const FlowKey& key);

}  // namespace vswitch
