#include "datapath/flow/field.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <unordered_map>

namespace vswitch {
namespace {

static_assert(kFlowKeyLayout == 1, "FlowKey changed: does every new member have its row in field_table.inc?");
static_assert(std::is_standard_layout_v<PipelineKey>, "field places are computed with offsetof");
static_assert(offsetof(PipelineKey, packet) == 0, "a field has the same offset in FlowKey and PipelineKey");

__extension__ using uint128 = unsigned __int128;

// Bits of conntrack state that only a tracked, valid packet has.
constexpr uint32_t kCtNew = 1, kCtEstablished = 2, kCtReply = 8;
constexpr uint32_t kCtValid = kCtNew | kCtEstablished | kCtReply;
constexpr uint64_t kCtStateBits = 0xff;

constexpr be16 kNdSolicitType = to_be16(135);
constexpr be16 kNdAdvertType = to_be16(136);

// OpenFlow 1.1+ numbers its reserved ports from here; 1.0, and the key, from kOf10ReservedPorts.
constexpr uint64_t kOf11ReservedPorts = 0xffffff00, kOf10ReservedPorts = 0xff00;

struct Place {
  size_t offset = 0, bytes = 0;
  uint8_t host_unit = 0;
};

template <typename Member>
constexpr uint8_t host_unit_of() {
  if constexpr (std::is_integral_v<Member>) return sizeof(Member);
  if constexpr (std::is_same_v<Member, std::array<uint64_t, 2>>) return sizeof(uint64_t);
  return 0;
}

constexpr uint64_t existing_bits(FieldId id, unsigned width) {
  if (id == FieldId::kNwTos) return 0xfc;
  if (id == FieldId::kVlanVid) return 0x1fff;
  if (id == FieldId::kArpOp) return 0xff;  // the key holds no more of the opcode
  return width >= 64 ? ~uint64_t{0} : (uint64_t{1} << width) - 1;
}

constexpr bool is_number(const Place& place) {
  const size_t n = place.bytes;
  return n != 0 && n <= 8 && (n & (n - 1)) == 0 && (place.host_unit == 0 || place.host_unit == n);
}

// See Field. That a VLAN tag has a TCI, too, is written as well as its TPID.
constexpr bool is_plain(FieldId id, unsigned width, const Place& place, unsigned lsb, FieldFormat format) {
  return is_number(place) && lsb == 0 && width == 8 * place.bytes &&
         existing_bits(id, width) == low_bits<uint64_t>(width) && format != FieldFormat::port &&
         id != FieldId::kVlanTci;
}

constexpr Field make_field(FieldId id, std::string_view name, std::string_view alias, unsigned n_bytes, unsigned width,
                           Place place, unsigned lsb, FieldMaskable maskable, bool writable,
                           FieldPrerequisite prerequisite, FieldFormat format, std::string_view oxm_name,
                           std::string_view oxm_alias, std::string_view oxm_alias2) {
  return Field{.id = id,
               .name = name,
               .alias = alias,
               .n_bytes = static_cast<uint16_t>(n_bytes),
               .width = static_cast<uint16_t>(width),
               .offset = static_cast<uint16_t>(place.offset),
               .place_bytes = static_cast<uint8_t>(place.bytes),
               .lsb = static_cast<uint8_t>(lsb),
               .host_unit = place.host_unit,
               .host_order = place.host_unit != 0,
               .is_number = is_number(place),
               .is_plain = is_plain(id, width, place, lsb, format),
               .maskable = maskable,
               .writable = writable,
               .prerequisite = prerequisite,
               .format = format,
               .value_mask = existing_bits(id, width),
               .oxm_name = oxm_name,
               .oxm_alias = oxm_alias,
               .oxm_alias2 = oxm_alias2};
}

#define AT(member)                                                         \
  Place {                                                                  \
    offsetof(PipelineKey, member), sizeof(PipelineKey::member),            \
        host_unit_of<std::remove_cvref_t<decltype(PipelineKey::member)>>() \
  }
#define AT_ELEMENT(array, index, type, member)                                                            \
  Place {                                                                                                 \
    offsetof(PipelineKey, array) + (index) * sizeof(type) + offsetof(type, member), sizeof(type::member), \
        host_unit_of<decltype(type::member)>()                                                            \
  }
#define AT_BE32(array, index) \
  Place { offsetof(PipelineKey, array) + (index) * sizeof(be32), sizeof(be32), 0 }
#define REGISTERS(first, count) \
  Place { offsetof(PipelineKey, pipeline.reg) + (first) * sizeof(uint32_t), (count) * sizeof(uint32_t), 4 }
#define NOWHERE \
  Place {}

constexpr std::array<Field, kFieldCount> kFields = {
#define VSWITCH_FIELD(id, name, alias, bytes, width, place, lsb, maskable, writable, prerequisite, format, ...) \
  make_field(FieldId::id, name, alias, bytes, width, place, lsb, FieldMaskable::maskable, writable,             \
             FieldPrerequisite::prerequisite, FieldFormat::format, __VA_ARGS__),
#include "datapath/flow/field_table.inc"
#undef VSWITCH_FIELD
};
#undef AT
#undef AT_ELEMENT
#undef AT_BE32
#undef REGISTERS
#undef NOWHERE

constexpr bool rows_are_sane() {
  for (size_t i = 0; i < kFields.size(); ++i) {
    const Field& f = kFields[i];
    if (static_cast<size_t>(f.id) != i) return false;
    if (f.width > 8 * f.n_bytes || f.n_bytes > sizeof(FieldValue)) return false;
    if (!f.has_place()) continue;
    if (f.place_bytes > 16 || f.offset + f.place_bytes > sizeof(PipelineKey)) return false;
    if (f.width > 64 && (f.width != 128 || f.place_bytes != 16 || f.lsb != 0)) return false;
  }
  return true;
}
static_assert(rows_are_sane(), "a row of field_table.inc contradicts itself");

// ---- Places and values as numbers

uint8_t* place_of(const Field& f, PipelineKey& key) { return reinterpret_cast<uint8_t*>(&key) + f.offset; }
const uint8_t* place_of(const Field& f, const PipelineKey& key) {
  return reinterpret_cast<const uint8_t*>(&key) + f.offset;
}

// The sizes that most fields have are one load or store each: translation reads and writes fields all the time.
uint128 load_big_endian(const uint8_t* at, size_t n) {
  switch (n) {
    case 1:
      return *at;
    case 2:
      return load_unaligned<be16>(at).host();
    case 4:
      return load_unaligned<be32>(at).host();
    case 8:
      return load_unaligned<be64>(at).host();
    case 16:
      return uint128{load_unaligned<be64>(at).host()} << 64 | load_unaligned<be64>(at + 8).host();
    default:
      break;
  }
  uint128 v = 0;
  for (size_t i = 0; i < n; ++i) v = v << 8 | at[i];
  return v;
}

void store_big_endian(uint8_t* at, size_t n, uint128 v) {
  switch (n) {
    case 1:
      *at = static_cast<uint8_t>(v);
      return;
    case 2:
      return store_unaligned(at, to_be16(static_cast<uint16_t>(v)));
    case 4:
      return store_unaligned(at, to_be32(static_cast<uint32_t>(v)));
    case 8:
      return store_unaligned(at, to_be64(static_cast<uint64_t>(v)));
    default:
      break;
  }
  for (size_t i = n; i-- > 0; v >>= 8) at[i] = static_cast<uint8_t>(v);
}

uint64_t load_native(const uint8_t* at, unsigned n) {
  switch (n) {
    case 1:
      return *at;
    case 2:
      return load_unaligned<uint16_t>(at);
    case 4:
      return load_unaligned<uint32_t>(at);
    default:
      return load_unaligned<uint64_t>(at);
  }
}

void store_native(uint8_t* at, unsigned n, uint64_t v) {
  switch (n) {
    case 1:
      *at = static_cast<uint8_t>(v);
      return;
    case 2:
      return store_unaligned(at, static_cast<uint16_t>(v));
    case 4:
      return store_unaligned(at, static_cast<uint32_t>(v));
    default:
      return store_unaligned(at, v);
  }
}

// A place is worked on as one number, whatever its byte order: of 64 bits where Field::is_number (twice as fast, and
// translation does little else), otherwise of 128.
template <typename Number>
Number load_place(const Field& f, const PipelineKey& key);

template <>
uint64_t load_place(const Field& f, const PipelineKey& key) {
  return load_number(f, key);
}

template <>
uint128 load_place(const Field& f, const PipelineKey& key) {
  const uint8_t* at = place_of(f, key);
  if (!f.host_order) return load_big_endian(at, f.place_bytes);
  uint128 v = 0;
  for (unsigned i = 0; i < f.place_bytes; i += f.host_unit) {
    v = (f.host_unit == 8 ? v << 32 << 32 : v << 8 * f.host_unit) | load_native(at + i, f.host_unit);
  }
  return v;
}

void store_place(const Field& f, PipelineKey& key, uint64_t v) { store_number(f, v, key); }

void store_place(const Field& f, PipelineKey& key, uint128 v) {
  uint8_t* at = place_of(f, key);
  if (!f.host_order) return store_big_endian(at, f.place_bytes, v);
  for (unsigned i = f.place_bytes; i > 0; v >>= 8 * f.host_unit) {
    i -= f.host_unit;
    store_native(at + i, f.host_unit, static_cast<uint64_t>(v));
  }
}

template <typename Number = uint128>
Number value_bits(const Field& f) {
  return f.width > 64 ? ~Number{0} : Number{f.value_mask};
}

bool has_of11_port(const Field& f) { return f.format == FieldFormat::port && f.width == 32; }

template <typename Number = uint128>
Number load_value(const Field& f, const PipelineKey& key) {
  const Number v = load_place<Number>(f, key) >> f.lsb & value_bits<Number>(f);
  if (has_of11_port(f) && v >= kOf10ReservedPorts && v <= 0xffff) return v | 0xffff0000;
  return v;
}

// Bits that become 1 whenever one of these fields is written: a tag whose VLAN id or priority is set is there.
uint64_t implied_bits(const Field& f) {
  switch (f.id) {
    case FieldId::kDlVlan:
    case FieldId::kDlVlanPcp:
    case FieldId::kVlanPcp:
      return kVlanCfi.host();
    default:
      return 0;
  }
}

template <typename Number = uint128>
void store_value(const Field& f, PipelineKey& key, Number v) {
  if (has_of11_port(f) && v >= kOf11ReservedPorts) v &= 0xffff;
  const Number bits = value_bits<Number>(f) << f.lsb;
  store_place(f, key, (load_place<Number>(f, key) & ~bits) | (v << f.lsb & bits) | implied_bits(f));
}

bool is_port(const Field& f) { return f.format == FieldFormat::port; }

template <typename Number = uint128>
void mark_bits(const Field& f, PipelineMask& mask, Number bits) {
  if (!f.has_place() || bits == 0) return;
  // Port numbers are matched whole or not at all, also where the datapath's are wider than OpenFlow's.
  const Number placed = is_port(f) ? ~Number{0} : (bits & value_bits<Number>(f)) << f.lsb;
  store_place(f, mask, load_place<Number>(f, mask) | placed | implied_bits(f));
}

template <typename Number>
uint64_t read_bits_of(const Field& f, unsigned ofs, unsigned n_bits, const PipelineKey& key) {
  return static_cast<uint64_t>(load_value<Number>(f, key) >> ofs & low_bits<Number>(n_bits));
}

template <typename Number>
void write_bits_of(const Field& f, unsigned ofs, unsigned n_bits, uint64_t value, PipelineKey& key) {
  const Number bits = low_bits<Number>(n_bits) << ofs;
  store_value<Number>(f, key, (load_value<Number>(f, key) & ~bits) | (Number{value} << ofs & bits));
}

void fix_vlan_tpid(const Field& f, PipelineKey& key) {
  if (f.offset != offsetof(FlowKey, vlan) + offsetof(VlanTag, tci)) return;
  VlanTag& tag = key.packet.vlan[0];
  if (!tag.tpid && tag.tci) tag.tpid = kEthTypeVlan;
}

// ---- Prerequisites

// What a prerequisite looks at. With a key it stops at the first test that fails, as a packet's translation does;
// without one it marks all that could be looked at.
class PrerequisiteCheck {
 public:
  PrerequisiteCheck(const FlowKey* key, FlowMask* mask, bool reading = false)
      : key_(key), mask_(mask), reading_(reading) {}

  bool run(FieldPrerequisite prerequisite) {
    switch (prerequisite) {
      case FieldPrerequisite::none:
        return true;
      case FieldPrerequisite::ethernet:
        return ethernet();
      case FieldPrerequisite::vlan:
        return ethernet() && vlan();
      case FieldPrerequisite::mpls:
        return eth_type(kEthTypeMpls, kEthTypeMplsMcast);
      case FieldPrerequisite::ip_any:
        return eth_type(kEthTypeIpv4, kEthTypeIpv6);
      case FieldPrerequisite::ipv4:
        return eth_type(kEthTypeIpv4, kEthTypeIpv4);
      case FieldPrerequisite::ipv6:
        return eth_type(kEthTypeIpv6, kEthTypeIpv6);
      case FieldPrerequisite::arp:
        return eth_type(kEthTypeArp, kEthTypeRarp);
      case FieldPrerequisite::tcp:
        return eth_type(kEthTypeIpv4, kEthTypeIpv6) && l4(kProtoTcp);
      case FieldPrerequisite::udp:
        return eth_type(kEthTypeIpv4, kEthTypeIpv6) && l4(kProtoUdp);
      case FieldPrerequisite::sctp:
        return eth_type(kEthTypeIpv4, kEthTypeIpv6) && l4(kProtoSctp);
      case FieldPrerequisite::icmpv4:
        return eth_type(kEthTypeIpv4, kEthTypeIpv4) && l4(kProtoIcmp, reading_);
      case FieldPrerequisite::icmpv6:
        return eth_type(kEthTypeIpv6, kEthTypeIpv6) && l4(kProtoIcmpv6);
      case FieldPrerequisite::nd:
        return nd(kNdSolicitType, kNdAdvertType);
      case FieldPrerequisite::nd_solicit:
        return nd(kNdSolicitType, kNdSolicitType);
      case FieldPrerequisite::nd_advert:
        return nd(kNdAdvertType, kNdAdvertType);
      case FieldPrerequisite::nsh:
        return eth_type(kEthTypeNsh, kEthTypeNsh);
      case FieldPrerequisite::ct:
        return look(&FlowKey::ct_state, kCtValid) && (!key_ || (key_->ct_state & kCtValid) != 0);
    }
    return false;
  }

 private:
  template <typename T>
  bool look(T FlowKey::*member, T bits) {
    if (mask_) mask_->*member = (mask_->*member) | bits;
    return true;
  }
  bool look(uint8_t FlowKey::*member, uint8_t bits) {
    if (mask_) mask_->*member = static_cast<uint8_t>(mask_->*member | bits);
    return true;
  }

  bool ethernet() {
    look(&FlowKey::packet_type, ~be32{});
    return !key_ || !key_->packet_type;
  }
  bool vlan() {
    if (mask_) mask_->vlan[0].tci |= kVlanCfi;
    return !key_ || key_->has_vlan();
  }
  bool eth_type(be16 one, be16 other) {
    look(&FlowKey::eth_type, ~be16{});
    return !key_ || key_->eth_type == one || key_->eth_type == other;
  }
  bool l4(uint8_t proto, bool in_any_fragment = false) {
    look(&FlowKey::nw_proto, uint8_t{0xff});
    if (key_ && key_->nw_proto != proto) return false;
    if (in_any_fragment) return true;
    look(&FlowKey::nw_frag, uint8_t{kFragLater});
    return !key_ || (key_->nw_frag & kFragLater) == 0;
  }
  bool nd(be16 one, be16 other) {
    if (!run(FieldPrerequisite::icmpv6)) return false;
    look(&FlowKey::tp_dst, ~be16{});
    if (key_ && key_->tp_dst) return false;
    look(&FlowKey::tp_src, ~be16{});
    return !key_ || key_->tp_src == one || key_->tp_src == other;
  }

  const FlowKey* key_;
  FlowMask* mask_;
  bool reading_;
};

std::unordered_map<std::string_view, const Field*> make_name_index() {
  std::unordered_map<std::string_view, const Field*> index;
  for (const Field& f : kFields) {
    for (std::string_view name : {f.name, f.alias, f.oxm_name, f.oxm_alias, f.oxm_alias2}) {
      if (!name.empty()) index.emplace(name, &f);
    }
  }
  return index;
}

}  // namespace

std::span<const Field> all_fields() { return kFields; }

const Field& field(FieldId id) { return kFields[static_cast<size_t>(id)]; }

const Field* find_field(std::string_view name) {
  static const auto* const index = new std::unordered_map(make_name_index());
  const auto found = index->find(name);
  return found == index->end() ? nullptr : found->second;
}

FieldValue read_field(const Field& f, const PipelineKey& key) {
  FieldValue value;
  if (f.has_place()) store_big_endian(value.bytes.data(), f.n_bytes, load_value(f, key));
  return value;
}

void write_field(const Field& f, const FieldValue& value, PipelineKey& key) {
  if (f.has_place()) store_value(f, key, load_big_endian(value.bytes.data(), f.n_bytes));
}

void write_field_masked(const Field& f, const FieldValue& value, const FieldValue& mask, PipelineKey& key) {
  if (!f.has_place()) return;
  const uint128 bits = load_big_endian(mask.bytes.data(), f.n_bytes);
  const uint128 wanted = load_big_endian(value.bytes.data(), f.n_bytes);
  if (bits != 0) store_value(f, key, (load_value(f, key) & ~bits) | (wanted & bits));
}

void set_field(const Field& f, const FieldValue& value, const FieldValue& mask, PipelineKey& key) {
  write_field_masked(f, value, mask, key);
  fix_vlan_tpid(f, key);
}

FieldValue exact_field_mask(const Field& f) {
  FieldValue mask;
  if (f.width > 128) {
    std::fill_n(mask.bytes.begin(), f.n_bytes, uint8_t{0xff});
  } else {
    store_big_endian(mask.bytes.data(), f.n_bytes, value_bits(f));
  }
  return mask;
}

bool is_field_value_valid(const Field& f, const FieldValue& value) {
  if (f.width > 64) return true;
  const auto v = static_cast<uint64_t>(load_big_endian(value.bytes.data(), f.n_bytes));
  if ((v & ~f.value_mask) != 0) return false;
  if (has_of11_port(f)) return v < kOf10ReservedPorts || v >= kOf11ReservedPorts;
  switch (f.id) {
    case FieldId::kCtState:
      return (v & ~kCtStateBits) == 0;
    case FieldId::kNshTtl:
      return v <= 63;
    case FieldId::kNshMdtype:
      return v == 1 || v == 2;
    default:
      return true;
  }
}

void mark_field(const Field& f, PipelineMask& mask) { mark_bits(f, mask, ~uint128{0}); }

bool prerequisite_holds(const Field& f, const PipelineKey& key) {
  return PrerequisiteCheck(&key.packet, nullptr).run(f.prerequisite);
}

void mark_prerequisite(const Field& f, PipelineMask& mask) {
  PrerequisiteCheck(nullptr, &mask.packet).run(f.prerequisite);
}

bool check_some_prerequisite(const Field& f, const PipelineKey& key, PipelineMask& mask) {
  return PrerequisiteCheck(&key.packet, &mask.packet).run(f.prerequisite);
}

bool check_readable(const Field& f, const PipelineKey& key, PipelineMask& mask) {
  return PrerequisiteCheck(&key.packet, &mask.packet, true).run(f.prerequisite);
}

uint64_t read_any_subfield(const Field& f, unsigned ofs, unsigned n_bits, const PipelineKey& key) {
  if (!f.has_place()) return 0;
  return f.is_number ? read_bits_of<uint64_t>(f, ofs, n_bits, key) : read_bits_of<uint128>(f, ofs, n_bits, key);
}

void write_any_subfield(const Field& f, unsigned ofs, unsigned n_bits, uint64_t value, PipelineKey& key) {
  if (!f.has_place() || n_bits == 0) return;
  if (f.is_number) {
    write_bits_of<uint64_t>(f, ofs, n_bits, value, key);
  } else {
    write_bits_of<uint128>(f, ofs, n_bits, value, key);
  }
  fix_vlan_tpid(f, key);
}

void mark_any_subfield(const Field& f, unsigned ofs, unsigned n_bits, PipelineMask& mask) {
  if (f.is_number) {
    mark_bits(f, mask, low_bits<uint64_t>(n_bits) << ofs);
  } else {
    mark_bits(f, mask, low_bits<uint128>(n_bits) << ofs);
  }
}

void copy_bits(const FieldValue& src, unsigned src_bytes, unsigned src_ofs, FieldValue& dst, unsigned dst_bytes,
               unsigned dst_ofs, unsigned n_bits) {
  // Bit i of a value of n bytes stands in byte n - 1 - i / 8.
  unsigned whole = 0;
  if (src_ofs % 8 == 0 && dst_ofs % 8 == 0) {
    for (; whole + 8 <= n_bits; whole += 8) {
      dst.bytes[dst_bytes - 1 - (dst_ofs + whole) / 8] = src.bytes[src_bytes - 1 - (src_ofs + whole) / 8];
    }
  }
  for (unsigned i = whole; i < n_bits; ++i) {
    const unsigned from = src_ofs + i, to = dst_ofs + i;
    const bool bit = (src.bytes[src_bytes - 1 - from / 8] >> from % 8 & 1) != 0;
    uint8_t& byte = dst.bytes[dst_bytes - 1 - to / 8];
    const auto flag = static_cast<uint8_t>(1u << to % 8);
    byte = static_cast<uint8_t>(bit ? byte | flag : byte & ~flag);
  }
}

}  // namespace vswitch
