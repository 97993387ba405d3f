// The field registry: one row per match field. Match, set, move, load, learn, stack, parse, format, proto and trace all
// read it; adding a field is one row in field_table.inc.
//
// Widths and places: a field's value is a big-endian number, right-aligned in FieldValue::bytes[0..n_bytes), of which
// `width` bits count. Its place is `place_bytes` bytes at `offset` in PipelineKey (and in FlowKey: the packet part
// comes first), where the value stands shifted left by `lsb` bits (a VLAN PCP is 3 bits at bit 13 of the TCI). Members
// in host order (registers, ports, marks) are converted, so that values look the same for all fields. Names, aliases
// and NXM/OXM names are those of ovs-fields(7).
//
// Fields that read and write differently from "these bits of that place", as in Open vSwitch:
//   nw_tos                the whole TOS byte, of which only the DSCP bits exist (the ECN bits read 0, writes keep them)
//   ip_dscp               the same bits as a number 0..63
//   vlan_vid              12 bits wide, but the value has a 13th bit (0x1000): the tag is present
//   dl_vlan, *vlan_pcp    writing one makes the tag present
//   in_port_oxm, actset_output
//                         32-bit OpenFlow 1.1+ port numbers, while the key holds 16-bit ones: reserved ports 0xff00 and
//                         up read as 0xffffff00 and up
//   tun_flags             only the OAM bit
//   tun_metadata<N>       has no place until a table of Geneve options maps it: has_place() is false, it reads as zero,
//   and
//                         writing or marking it does nothing; whoever accepts a rule must refuse it
//
// Thread-safe: constant data.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "datapath/flow/flow_key.h"

namespace vswitch {

// One per row of field_table.inc, in its order. kReg0..15, kXreg0..7, kXxreg0..3 and kTunMetadata0..63 are consecutive.
enum class FieldId : uint8_t {
#define VSWITCH_FIELD(id, ...) id,
#include "datapath/flow/field_table.inc"
#undef VSWITCH_FIELD
};

inline constexpr size_t kFieldCount = 0
#define VSWITCH_FIELD(id, ...) +1
#include "datapath/flow/field_table.inc"
#undef VSWITCH_FIELD
    ;

enum class FieldMaskable : uint8_t { no, fully };

// What must be matched exactly before this field may be matched (ovs-fields(7), "Prerequisites").
enum class FieldPrerequisite : uint8_t {
  none,
  ethernet,
  vlan,
  mpls,
  ip_any,
  ipv4,
  ipv6,
  arp,
  tcp,
  udp,
  sctp,
  icmpv4,
  icmpv6,
  nd,
  nd_solicit,
  nd_advert,
  nsh,
  ct
};

// How a value is written for people.
enum class FieldFormat : uint8_t {
  decimal,
  hexadecimal,
  ethernet,
  ipv4,
  ipv6,
  port,
  frag,
  tcp_flags,
  tunnel_flags,
  ct_state,
  packet_type
};

struct Field {
  FieldId id;
  std::string_view name;   // primary spelling, as Open vSwitch prints it
  std::string_view alias;  // "" if none
  uint16_t n_bytes;        // of FieldValue used
  uint16_t width;          // bits
  uint16_t offset;         // bytes from the start of PipelineKey
  uint8_t place_bytes;     // size of the member or members that hold it; 0: no place in the key
  uint8_t lsb;             // shift of the value within its place
  uint8_t host_unit;       // the place is made of native integers of this many bytes; 0: wire order
  bool host_order;         // host_unit != 0
  bool is_number;          // the place is one integer of at most 64 bits, in either byte order, as most are
  bool is_plain;           // and the value is that integer: all bits of it exist, and writing it writes nothing else
  FieldMaskable maskable;
  bool writable;  // set_field / load / move target
  FieldPrerequisite prerequisite;
  FieldFormat format;
  uint64_t value_mask;         // the value's bits that exist, for fields of up to 64 bits; see nw_tos and vlan_vid
  std::string_view oxm_name;   // preferred NXM/OXM name, "" if it has no wire code
  std::string_view oxm_alias;  // further NXM/OXM names, "" if none
  std::string_view oxm_alias2;

  constexpr bool has_place() const { return place_bytes != 0; }
};

// Up to 128 bytes (tun_metadata is 124): big-endian, right-aligned in the field's n_bytes.
struct FieldValue {
  std::array<uint8_t, 128> bytes{};
  bool operator==(const FieldValue&) const = default;
};

std::span<const Field> all_fields();
const Field& field(FieldId id);
const Field* find_field(std::string_view name);  // name, alias or any NXM/OXM name; null if unknown

FieldValue read_field(const Field& field, const PipelineKey& key);

// Write the field; other bits keep their value (but see dl_vlan above). Right for building matches, in a key and in a
// mask alike. What an action does to a packet's key is set_field() and write_subfield().
void write_field(const Field& field, const FieldValue& value, PipelineKey& key);
void write_field_masked(const Field& field, const FieldValue& value, const FieldValue& mask, PipelineKey& key);

// What set_field, load, move and pop do: as write_field_masked(), and a VLAN tag that this makes appear gets TPID
// 0x8100.
void set_field(const Field& field, const FieldValue& value, const FieldValue& mask, PipelineKey& key);

// The mask of a whole field: every bit of the value that exists.
FieldValue exact_field_mask(const Field& field);
// `value` has no bits where the field has none (a 21-bit MPLS label does not fit), and is a value that the field can
// take.
bool is_field_value_valid(const Field& field, const FieldValue& value);

// Sets every bit of the field in `mask`: "this field was looked at".
void mark_field(const Field& field, PipelineMask& mask);

// Whether a packet with this key has the header that the field lives in (e.g. tcp_dst: nw_proto 6, not a later
// fragment).
bool prerequisite_holds(const Field& field, const PipelineKey& key);
// Marks in `mask` every field that prerequisite_holds() may look at: what a match on `field` must match too.
void mark_prerequisite(const Field& field, PipelineMask& mask);
// prerequisite_holds(), marking only what this key made it look at (for a packet that is not IP, eth_type says it all):
// translation uses this one, to keep megaflows wide.
bool check_some_prerequisite(const Field& field, const PipelineKey& key, PipelineMask& mask);
inline bool check_prerequisite(const Field& field, const PipelineKey& key, PipelineMask& mask) {
  return field.prerequisite == FieldPrerequisite::none || check_some_prerequisite(field, key, mask);
}
// The same for a field that is only read. Type and code of ICMP can be read where they cannot be written, in a later
// fragment: a match sees zeroes there, and so does a move.
bool check_readable(const Field& field, const PipelineKey& key, PipelineMask& mask);

// Subfield access (load, move, output:FIELD, stack): n_bits from bit `ofs` (0 = least significant), as a number.
// write_subfield() has the effects of set_field(). REQUIRES: ofs + n_bits <= field.width, n_bits <= 64.
uint64_t read_subfield(const Field& field, unsigned ofs, unsigned n_bits, const PipelineKey& key);
void write_subfield(const Field& field, unsigned ofs, unsigned n_bits, uint64_t value, PipelineKey& key);
void mark_subfield(const Field& field, unsigned ofs, unsigned n_bits, PipelineMask& mask);

// Of any field; the above do the plain ones themselves, as translation does little else.
uint64_t read_any_subfield(const Field& field, unsigned ofs, unsigned n_bits, const PipelineKey& key);
void write_any_subfield(const Field& field, unsigned ofs, unsigned n_bits, uint64_t value, PipelineKey& key);
void mark_any_subfield(const Field& field, unsigned ofs, unsigned n_bits, PipelineMask& mask);

// Copies n_bits from bit src_ofs of a value of src_bytes to bit dst_ofs of a value of dst_bytes: move and stack for
// subfields of any width (read_field(), copy_bits(), set_field()).
// REQUIRES: src_ofs + n_bits <= 8 * src_bytes <= 1024, likewise for dst.
void copy_bits(const FieldValue& src, unsigned src_bytes, unsigned src_ofs, FieldValue& dst, unsigned dst_bytes,
               unsigned dst_ofs, unsigned n_bits);

// ---- Fields whose place is one integer, whatever its byte order. REQUIRES of the first two: field.is_number.

inline uint64_t load_number(const Field& field, const PipelineKey& key) {
  const uint8_t* at = reinterpret_cast<const uint8_t*>(&key) + field.offset;
  switch (field.place_bytes) {
    case 1:
      return *at;
    case 2:
      return field.host_order ? load_unaligned<uint16_t>(at) : load_unaligned<be16>(at).host();
    case 4:
      return field.host_order ? load_unaligned<uint32_t>(at) : load_unaligned<be32>(at).host();
    default:
      return field.host_order ? load_unaligned<uint64_t>(at) : load_unaligned<be64>(at).host();
  }
}

inline void store_number(const Field& field, uint64_t value, PipelineKey& key) {
  uint8_t* at = reinterpret_cast<uint8_t*>(&key) + field.offset;
  const auto two = static_cast<uint16_t>(value);
  const auto four = static_cast<uint32_t>(value);
  switch (field.place_bytes) {
    case 1:
      *at = static_cast<uint8_t>(value);
      return;
    case 2:
      return field.host_order ? store_unaligned(at, two) : store_unaligned(at, to_be16(two));
    case 4:
      return field.host_order ? store_unaligned(at, four) : store_unaligned(at, to_be32(four));
    default:
      return field.host_order ? store_unaligned(at, value) : store_unaligned(at, to_be64(value));
  }
}

template <typename Number>
constexpr Number low_bits(unsigned n) {
  return n >= 8 * sizeof(Number) ? ~Number{0} : (Number{1} << n) - 1;
}

inline uint64_t read_subfield(const Field& field, unsigned ofs, unsigned n_bits, const PipelineKey& key) {
  if (!field.is_plain) return read_any_subfield(field, ofs, n_bits, key);
  return load_number(field, key) >> ofs & low_bits<uint64_t>(n_bits);
}

inline void write_subfield(const Field& field, unsigned ofs, unsigned n_bits, uint64_t value, PipelineKey& key) {
  if (!field.is_plain) return write_any_subfield(field, ofs, n_bits, value, key);
  const uint64_t bits = low_bits<uint64_t>(n_bits) << ofs;
  store_number(field, (load_number(field, key) & ~bits) | (value << ofs & bits), key);
}

inline void mark_subfield(const Field& field, unsigned ofs, unsigned n_bits, PipelineMask& mask) {
  if (!field.is_plain) return mark_any_subfield(field, ofs, n_bits, mask);
  store_number(field, load_number(field, mask) | low_bits<uint64_t>(n_bits) << ofs, mask);
}

}  // namespace vswitch
