// The field registry: one row per match field. Match, set, move, load, learn, stack, parse, format, proto and trace all
// read it; adding a field is one row in field_table.inc.
//
// Widths and places: a field is `width` bits inside `n_bytes` bytes at `offset` in PipelineKey (and FlowKey: the packet
// part comes first). The value read and written through read_field()/write_field() is a big-endian number,
// right-aligned in FieldValue::bytes[0..n_bytes): for a 12-bit VLAN id in a 16-bit TCI, `lsb` says by how many bits it is
// shifted in its place. Host-order members (registers, ports, marks) are converted, so that values look the same for all
// fields. Names, aliases and NXM/OXM numbers are those of ovs-fields(7).
//
// Thread-safe: constant data.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "datapath/flow/flow_key.h"

namespace vswitch {

// Every field of features.md section 2.3 of priority 1 and 2, and those of priority 3 that the key has a place for.
// kReg0..kReg15, kXreg0..7, kXxreg0..3, kTunMetadata0..63 are consecutive.
enum class FieldId : uint8_t;

enum class FieldMaskable : uint8_t { no, fully };

// What must be matched exactly before this field may be matched (ovs-fields(7), "Prerequisites").
enum class FieldPrerequisite : uint8_t {
  none, ethernet, vlan, mpls, ip_any, ipv4, ipv6, arp, tcp, udp, sctp, icmpv4, icmpv6, nd, nd_solicit, nd_advert, nsh, ct
};

// How a value is written for people.
enum class FieldFormat : uint8_t {
  decimal, hexadecimal, ethernet, ipv4, ipv6, port, frag, tcp_flags, tunnel_flags, ct_state, packet_type
};

struct Field {
  FieldId id;
  std::string_view name;   // primary spelling, as Open vSwitch prints it
  std::string_view alias;  // "" if none
  uint16_t n_bytes;        // of FieldValue used
  uint16_t width;          // bits
  uint16_t offset;         // bytes from the start of PipelineKey
  uint8_t lsb;             // shift of the value within its n_bytes
  bool host_order;         // the member is a native integer
  FieldMaskable maskable;
  bool writable;           // set_field / load / move target
  FieldPrerequisite prerequisite;
  FieldFormat format;
  std::string_view oxm_name;  // preferred NXM/OXM name, "" if it has no wire code
};

// Up to 128 bytes (tun_metadata is 124): big-endian, right-aligned in the field's n_bytes.
struct FieldValue {
  std::array<uint8_t, 128> bytes{};
  bool operator==(const FieldValue&) const = default;
};

std::span<const Field> all_fields();
const Field& field(FieldId id);
const Field* find_field(std::string_view name);  // name, alias or OXM name; null if unknown

FieldValue read_field(const Field& field, const PipelineKey& key);
void write_field(const Field& field, const FieldValue& value, PipelineKey& key);  // other bits keep their value
void write_field_masked(const Field& field, const FieldValue& value, const FieldValue& mask, PipelineKey& key);
// Sets every bit of the field in `mask`: "this field was looked at".
void mark_field(const Field& field, PipelineMask& mask);

// Whether a packet with this key has the header that the field lives in (e.g. tcp_dst: nw_proto 6, not a later fragment).
bool prerequisite_holds(const Field& field, const PipelineKey& key);
// Marks in `mask` the fields that prerequisite_holds() looked at.
void mark_prerequisite(const Field& field, PipelineMask& mask);

// Subfield access (load, move, output:FIELD, stack): n_bits from bit `ofs` (0 = least significant). Values of up to 64
// bits as a number; wider ones through FieldValue with bit copy. REQUIRES: ofs + n_bits <= width, n_bits <= 64.
uint64_t read_subfield(const Field& field, unsigned ofs, unsigned n_bits, const PipelineKey& key);
void write_subfield(const Field& field, unsigned ofs, unsigned n_bits, uint64_t value, PipelineKey& key);
void mark_subfield(const Field& field, unsigned ofs, unsigned n_bits, PipelineMask& mask);

}  // namespace vswitch
