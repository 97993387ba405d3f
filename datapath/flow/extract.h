// Key extraction: from frame and metadata to FlowKey.
//
// Follows Open vSwitch's miniflow_extract() to the letter (lib/flow.c in 3.1; all rules, and where the letter
// surprises, in docs/extraction.md):
// - frame under 14 bytes: returns false (the caller drops it with rx_invalid_packet); `key` is then unspecified.
// - 802.3 length: eth_type 0x05ff, or the inner type of a SNAP header with OUI 0.
// - up to two VLAN tags (TPID 0x8100 or 0x88a8); the CFI bit is always set in the key; a truncated tag stops.
// - IPv4/IPv6 header absent, short or with an impossible length: eth_type is kept, L3/L4 are zero; bytes behind the
//   datagram's own length are padding and never parsed. The version field is not looked at, eth_type decides.
// - L4 fields only in unfragmented packets and first fragments, and only if the header is there in full.
// - IPv6: hop-by-hop, routing, destination options, AH and fragment headers are skipped; a later fragment has nw_proto
//   44 (the fragment header's) and no L4. A chain that runs out of the packet leaves only the addresses.
// - MPLS: the first three label stack entries; nothing under MPLS is parsed.
// - ND: nd_target, and source/target link-layer option; an option given twice makes target and both addresses zero, an
//   option with an impossible length ends the parsing.
// Nothing reads past the packet. Never fails otherwise: what cannot be parsed is zero.
//
// The packet's metadata goes into the key as it is; `tunnel` only if packet.has_tunnel.
//
// Also sets packet.rss_hash and packet.layers (used by actions):
//   l2_5    the first MPLS label stack entry
//   l3      what follows the Ethernet header, the tags and the MPLS stack: always set, also when no valid header is
//   there l4      what follows the IP header and its extensions: set if, and only if, the IP header is valid l3_end set
//   with a valid IP header, except where it does not fit 16 bits (super-frames): then it is the packet's end
//
// Thread-safe: touches only its arguments.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "datapath/flow/flow_key.h"
#include "datapath/packet/packet.h"

namespace vswitch {

// Overwrites `key` whole; what it held does not matter, but it must be an object that was constructed (its members have
// initialisers) in which tun_metadata is zero wherever tun_metadata_present is: these 256 bytes are not cleared again.
[[nodiscard]] bool extract_flow_key(Packet& packet, FlowKey& key);

// A table of 2^n cache lines, of which a packet's identity names the one that will be looked at for it: fetched from
// memory as soon as the identity is known, so that it is on its way while other packets are extracted.
struct IdentityLines {
  static constexpr size_t kSize = 64;
  const void* first = nullptr;
  uint64_t mask = 0;  // 2^n - 1

  void prefetch(uint64_t identity) const {
    __builtin_prefetch(static_cast<const uint8_t*>(first) + (identity & mask) * kSize);
  }
};

// Keys of a batch that are extracted into again and again, by extract_flow_keys() only: what the last packet left clear
// need not be cleared again.
class KeySlots {
 public:
  static constexpr size_t kCount = 32;

  const FlowKey& operator[](size_t i) const { return slots_[i].key; }

 private:
  friend uint32_t extract_flow_keys(Packet* const[], size_t, KeySlots&, uint64_t[], uint32_t, IdentityLines);
  struct alignas(64) Slot {
    FlowKey key;
  };
  std::array<Slot, kCount> slots_;
  // A bit each: all words of the key behind the hot ones are zero, as after TCP and UDP over IPv4 without metadata. Not
  // in the slots, where asking would take a cache line for each.
  uint32_t cold_is_zero_ = 0;
};

// The same for up to 32 packets. Returns a bit for each packet that has a key now; the others are shorter than an
// Ethernet header. Those that have one get identities[i], too: connection_identity() of the packet. `sole_port`: not 0:
// the port that all of them came in by, with no other metadata that goes into the key.
// `wanted_next`: of each identity, what is fetched from memory as soon as it is known.
[[nodiscard]] uint32_t extract_flow_keys(Packet* const packets[], size_t count, KeySlots& slots, uint64_t identities[],
                                         uint32_t sole_port = 0, IdentityLines wanted_next = {});

// What tells connections apart wherever they are on their way through the switch: the flow's hash, the port that it
// came in by and its recirculation. All bits are good.
inline uint64_t connection_identity(uint32_t flow_hash, uint32_t in_port, uint32_t recirc_id) {
  const uint64_t place = in_port ^ uint64_t { recirc_id } * 0x9e3779b97f4a7c15ULL;
  const uint64_t h = (flow_hash ^ place << 32) * 0xc2b2ae3d27d4eb4fULL;
  return h ^ h >> 32;
}

// A hash of what makes a flow: IP addresses, protocol and ports; addresses only for fragments, since later ones have no
// ports; Ethernet addresses, type and tags of what is not IP. The same for all packets of a flow, not symmetric, never
// 0. What extract_flow_key() stores in packet.rss_hash; seeds the flow cache and the tunnels' UDP source port.
uint32_t flow_hash(const FlowKey& key);

}  // namespace vswitch
