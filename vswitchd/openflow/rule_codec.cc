#include "vswitchd/openflow/rule_codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "datapath/actions/action.h"
#include "datapath/flow/field.h"

namespace vswitch {
namespace {

constexpr uint8_t kFormatVersion = 1;
constexpr int kMaxNesting = 32;

// ---- Segments: the members of PipelineKey, each with the number that stands for it in the store for ever. A member
// that goes away leaves its number unused. kFlowKeyLayout 1.
static_assert(kFlowKeyLayout == 1);

struct Segment {
  uint8_t id;
  uint16_t offset;
  uint16_t size;
  bool host_order;
};

constexpr uint8_t kExactMask = 0x80;  // with the id: the mask is all ones and left out

#define MEMBER(id, member, host) \
  Segment { id, offsetof(PipelineKey, member), sizeof(PipelineKey::member), host }
#define FLOW_MEMBER(id, member, host) \
  Segment { id, offsetof(FlowKey, member), sizeof(FlowKey::member), host }
#define TUNNEL_MEMBER(id, member, host) \
  Segment { id, offsetof(FlowKey, tunnel) + offsetof(TunnelMetadata, member), sizeof(TunnelMetadata::member), host }
#define VLAN_MEMBER(id, tag, member)                                                                                  \
  Segment {                                                                                                           \
    id, offsetof(FlowKey, vlan) + (tag) * sizeof(VlanTag) + offsetof(VlanTag, member), sizeof(VlanTag::member), false \
  }
#define NSH_MEMBER(id, member) \
  Segment { id, offsetof(FlowKey, nsh) + offsetof(NshKey, member), sizeof(NshKey::member), false }
#define REGISTER(n) \
  Segment { 100 + (n), offsetof(PipelineKey, pipeline) + offsetof(PipelineFields, reg) + 4 * (n), 4, true }
#define PIPELINE_MEMBER(id, member, host)                                                                        \
  Segment {                                                                                                      \
    id, offsetof(PipelineKey, pipeline) + offsetof(PipelineFields, member), sizeof(PipelineFields::member), host \
  }

static_assert(offsetof(PipelineKey, packet) == 0);
constexpr Segment kSegments[] = {
    FLOW_MEMBER(1, in_port, true),
    FLOW_MEMBER(2, recirc_id, true),
    FLOW_MEMBER(3, eth_dst, false),
    FLOW_MEMBER(4, eth_src, false),
    FLOW_MEMBER(5, eth_type, false),
    VLAN_MEMBER(6, 0, tpid),
    VLAN_MEMBER(7, 0, tci),
    VLAN_MEMBER(8, 1, tpid),
    VLAN_MEMBER(9, 1, tci),
    FLOW_MEMBER(10, nw_src, false),
    FLOW_MEMBER(11, nw_dst, false),
    FLOW_MEMBER(12, tp_src, false),
    FLOW_MEMBER(13, tp_dst, false),
    FLOW_MEMBER(14, tcp_flags, false),
    FLOW_MEMBER(15, nw_proto, false),
    FLOW_MEMBER(16, nw_frag, false),
    FLOW_MEMBER(17, ipv6_label, false),
    FLOW_MEMBER(18, nw_tos, false),
    FLOW_MEMBER(19, nw_ttl, false),
    FLOW_MEMBER(20, skb_mark, true),
    FLOW_MEMBER(21, ct_state, true),
    FLOW_MEMBER(22, ipv6_src, false),
    FLOW_MEMBER(23, ipv6_dst, false),
    FLOW_MEMBER(24, dp_hash, true),
    FLOW_MEMBER(25, skb_priority, true),
    FLOW_MEMBER(26, ct_mark, true),
    FLOW_MEMBER(27, ct_zone, true),
    FLOW_MEMBER(28, ct_nw_proto, false),
    Segment{29, offsetof(FlowKey, ct_label), 8, true},
    Segment{30, offsetof(FlowKey, ct_label) + 8, 8, true},
    TUNNEL_MEMBER(31, id, false),
    TUNNEL_MEMBER(32, src, false),
    TUNNEL_MEMBER(33, dst, false),
    TUNNEL_MEMBER(34, src6, false),
    TUNNEL_MEMBER(35, dst6, false),
    TUNNEL_MEMBER(36, flags, true),
    TUNNEL_MEMBER(37, tos, false),
    TUNNEL_MEMBER(38, ttl, false),
    TUNNEL_MEMBER(39, tp_src, false),
    TUNNEL_MEMBER(40, tp_dst, false),
    TUNNEL_MEMBER(41, gbp_id, false),
    TUNNEL_MEMBER(42, gbp_flags, false),
    FLOW_MEMBER(43, arp_sha, false),
    FLOW_MEMBER(44, arp_tha, false),
    FLOW_MEMBER(45, nd_target, false),
    FLOW_MEMBER(46, mpls, false),
    FLOW_MEMBER(47, igmp_group, false),
    FLOW_MEMBER(48, ct_nw_src, false),
    FLOW_MEMBER(49, ct_nw_dst, false),
    FLOW_MEMBER(50, ct_tp_src, false),
    FLOW_MEMBER(51, ct_tp_dst, false),
    FLOW_MEMBER(52, nd_reserved, false),
    FLOW_MEMBER(53, ct_ipv6_src, false),
    FLOW_MEMBER(54, ct_ipv6_dst, false),
    FLOW_MEMBER(55, packet_type, false),
    FLOW_MEMBER(56, nd_options_type, false),
    NSH_MEMBER(57, flags),
    NSH_MEMBER(58, ttl),
    NSH_MEMBER(59, mdtype),
    NSH_MEMBER(60, np),
    NSH_MEMBER(61, path_hdr),
    NSH_MEMBER(62, context),
    FLOW_MEMBER(63, tun_metadata_present, true),
    FLOW_MEMBER(64, tun_metadata, false),
    PIPELINE_MEMBER(65, metadata, false),
    PIPELINE_MEMBER(66, actset_output, true),
    PIPELINE_MEMBER(67, conj_id, true),
    REGISTER(0),
    REGISTER(1),
    REGISTER(2),
    REGISTER(3),
    REGISTER(4),
    REGISTER(5),
    REGISTER(6),
    REGISTER(7),
    REGISTER(8),
    REGISTER(9),
    REGISTER(10),
    REGISTER(11),
    REGISTER(12),
    REGISTER(13),
    REGISTER(14),
    REGISTER(15),
};
#undef MEMBER
#undef FLOW_MEMBER
#undef TUNNEL_MEMBER
#undef VLAN_MEMBER
#undef NSH_MEMBER
#undef REGISTER
#undef PIPELINE_MEMBER

// Named padding: pad_eth, pad_ip (2 each), pad_ct (1), pad_sha, pad_tha (2 each), pad_nd (3), TunnelMetadata::reserved
// (5).
constexpr size_t kPaddingBytes = 2 + 2 + 1 + 2 + 2 + 3 + 5;
constexpr size_t segment_bytes() {
  size_t bytes = 0;
  for (const Segment& s : kSegments) bytes += s.size;
  return bytes;
}
static_assert(segment_bytes() + kPaddingBytes == sizeof(PipelineKey), "a member of PipelineKey has no segment, or two");

const Segment* find_segment(uint8_t id) {
  const auto* s =
      std::find_if(std::begin(kSegments), std::end(kSegments), [id](const Segment& c) { return c.id == id; });
  return s == std::end(kSegments) ? nullptr : s;
}

// ---- Kinds of actions: numbers in the store, for ever.
enum class Kind : uint8_t {
  output = 1,
  output_field = 2,
  controller = 3,
  set_field = 4,
  load = 5,
  move = 6,
  mod_field = 7,
  mod_vlan_vid = 8,
  mod_vlan_pcp = 9,
  strip_vlan = 10,
  push_vlan = 11,
  dec_ttl = 12,
  set_tunnel = 13,
  resubmit = 14,
  push = 15,
  pop = 16,
  clone = 17,
  exit = 18,
  note = 19,
  clear_actions = 20,
  write_actions = 21,
  write_metadata = 22,
  goto_table = 23,
  debug_recirc = 24,
};

// ---- Encoding

class Encoder {
 public:
  std::string take() { return std::move(out_); }

  void byte(uint8_t v) { out_.push_back(static_cast<char>(v)); }
  void number(uint64_t v) {
    while (v >= 0x80) {
      byte(static_cast<uint8_t>(v | 0x80));
      v >>= 7;
    }
    byte(static_cast<uint8_t>(v));
  }
  void raw(const uint8_t* bytes, size_t size) { out_.append(reinterpret_cast<const char*>(bytes), size); }
  void sized(const std::vector<uint8_t>& bytes) {
    number(bytes.size());
    raw(bytes.data(), bytes.size());
  }
  void field(const Field* f) {
    byte(static_cast<uint8_t>(f->name.size()));
    out_.append(f->name);
  }
  void subfield(const Subfield& s) {
    field(s.field);
    number(s.ofs);
    number(s.n_bits);
  }
  // A part of the key or mask, in the byte order of the store.
  void segment(const uint8_t* at, const Segment& s) {
    raw(at, s.size);
    if (std::endian::native == std::endian::big && s.host_order) std::reverse(out_.end() - s.size, out_.end());
  }

  void match(const MiniMatch& m);
  void actions(const RuleActionList& list);
  void action(const RuleAction& a);

 private:
  void kind(Kind k) { byte(static_cast<uint8_t>(k)); }
  void set_field(const SetField& a) {
    kind(a.load_syntax ? Kind::load : Kind::set_field);
    field(a.field);
    sized(a.value);
    sized(a.mask);
  }
  void controller(const SendToController& a) {
    kind(Kind::controller);
    number(a.max_len);
    number(a.controller_id);
    byte(static_cast<uint8_t>(a.reason));
    sized(a.userdata);
  }

  std::string out_;
};

bool all_bytes(const uint8_t* bytes, size_t size, uint8_t value) {
  return std::all_of(bytes, bytes + size, [value](uint8_t b) { return b == value; });
}

// A bit for each word of a key.
using WordMap = std::array<uint64_t, (kPipelineKeyWords + 63) / 64>;

// The words that each segment lies in.
const auto& segment_words() {
  static const auto maps = [] {
    std::array<WordMap, std::size(kSegments)> made{};
    for (size_t i = 0; i < made.size(); ++i) {
      const Segment& s = kSegments[i];
      for (size_t word = s.offset / 8; word <= (s.offset + s.size - 1u) / 8; ++word) {
        made[i][word / 64] |= uint64_t{1} << (word % 64);
      }
    }
    return made;
  }();
  return maps;
}

// With a million rules to store, the wide form of each match is not made anew: only the few words that a match has are
// set in it, and cleared afterwards.
void Encoder::match(const MiniMatch& m) {
  thread_local Match wide;
  WordMap present{};
  m.all_words([&](size_t index, uint64_t value, uint64_t mask) {
    words(wide.value)[index] = value;
    words(wide.mask)[index] = mask;
    present[index / 64] |= uint64_t{1} << (index % 64);
    return true;
  });
  const auto* value = reinterpret_cast<const uint8_t*>(&wide.value);
  const auto* mask = reinterpret_cast<const uint8_t*>(&wide.mask);
  for (size_t i = 0; i < std::size(kSegments); ++i) {
    const WordMap& its_words = segment_words()[i];
    if ((present[0] & its_words[0]) == 0 && (present[1] & its_words[1]) == 0) continue;
    const Segment& s = kSegments[i];
    if (all_bytes(mask + s.offset, s.size, 0)) continue;
    const bool exact = all_bytes(mask + s.offset, s.size, 0xff);
    byte(exact ? s.id | kExactMask : s.id);
    segment(value + s.offset, s);
    if (!exact) segment(mask + s.offset, s);
  }
  byte(0);  // no segment has this number
  m.all_words([&](size_t index, uint64_t, uint64_t) {
    words(wide.value)[index] = words(wide.mask)[index] = 0;
    return true;
  });
}

void Encoder::actions(const RuleActionList& list) {
  number(list.size());
  for (const RuleAction& a : list) action(a);
}

void Encoder::action(const RuleAction& action) {
  std::visit(Overload{
                 [&](const OutputToPort& a) { kind(Kind::output), number(a.port), number(a.max_len); },
                 [&](const OutputToField& a) { kind(Kind::output_field), subfield(a.source), number(a.max_len); },
                 [&](const SendToController& a) { controller(a); },
                 [&](const SetField& a) { set_field(a); },
                 [&](const MoveField& a) { kind(Kind::move), subfield(a.source), subfield(a.destination); },
                 [&](const ModField& a) { kind(Kind::mod_field), field(a.field), number(a.value); },
                 [&](const ModVlanVid& a) { kind(Kind::mod_vlan_vid), number(a.vid), byte(a.push_if_needed); },
                 [&](const ModVlanPcp& a) { kind(Kind::mod_vlan_pcp), byte(a.pcp), byte(a.push_if_needed); },
                 [&](const StripVlan& a) { kind(Kind::strip_vlan), byte(a.pop_syntax); },
                 [&](const PushVlan& a) { kind(Kind::push_vlan), number(a.tpid.host()); },
                 [&](const DecTtl& a) {
                   kind(Kind::dec_ttl), number(a.controller_ids.size());
                   for (uint16_t id : a.controller_ids) number(id);
                 },
                 [&](const SetTunnelId& a) { kind(Kind::set_tunnel), number(a.id), byte(a.is_64); },
                 [&](const Resubmit& a) { kind(Kind::resubmit), number(a.in_port), byte(a.table); },
                 [&](const StackPush& a) { kind(Kind::push), subfield(a.source); },
                 [&](const StackPop& a) { kind(Kind::pop), subfield(a.destination); },
                 [&](const CloneActions& a) { kind(Kind::clone), actions(*a.actions); },
                 [&](const Exit&) { kind(Kind::exit); },
                 [&](const Note& a) { kind(Kind::note), sized(a.data); },
                 [&](const ClearActions&) { kind(Kind::clear_actions); },
                 [&](const WriteActions& a) { kind(Kind::write_actions), actions(*a.actions); },
                 [&](const WriteMetadata& a) { kind(Kind::write_metadata), number(a.value), number(a.mask); },
                 [&](const GotoTable& a) { kind(Kind::goto_table), byte(a.table); },
                 [&](const DebugRecirculate&) { kind(Kind::debug_recirc); },
             },
             static_cast<const RuleAction::variant&>(action));
}

// ---- Decoding. The first thing that is wrong sets `error_` and every read after it gives zero, so that callers check
// once.

class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : bytes_(bytes) {}

  const std::optional<std::string>& error() const { return error_; }
  void fail(std::string what) {
    if (!error_) error_ = std::move(what);
    bytes_ = {};
  }
  bool at_end() const { return bytes_.empty(); }

  const uint8_t* raw(size_t size) {
    if (size > bytes_.size()) {
      fail("truncated");
      return nullptr;
    }
    const auto* at = reinterpret_cast<const uint8_t*>(bytes_.data());
    bytes_.remove_prefix(size);
    return at;
  }
  uint8_t byte() {
    const uint8_t* at = raw(1);
    return at ? *at : 0;
  }
  bool boolean() {
    const uint8_t v = byte();
    if (v > 1) fail("a truth value is neither 0 nor 1");
    return v == 1;
  }
  template <typename T = uint64_t>
  T number() {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const uint8_t b = byte();
      if (shift == 63 && b > 1) break;
      v |= uint64_t{b & 0x7fu} << shift;
      if (b & 0x80) continue;
      if (v > std::numeric_limits<T>::max()) break;
      return static_cast<T>(v);
    }
    fail("a number is too large");
    return 0;
  }
  std::vector<uint8_t> sized() {
    const auto size = number<uint32_t>();
    const uint8_t* at = raw(size);
    return at ? std::vector<uint8_t>(at, at + size) : std::vector<uint8_t>();
  }
  const Field* field() {
    const uint8_t size = byte();
    const auto* at = reinterpret_cast<const char*>(raw(size));
    const std::string_view name(at, at ? size : 0);
    const Field* f = find_field(name);
    if (!error_ && (!f || f->name != name || !f->has_place())) fail("unknown field");
    return error_ ? nullptr : f;
  }
  Subfield subfield() {
    Subfield s{field(), number<uint16_t>(), number<uint16_t>()};
    if (s.field && (s.n_bits == 0 || s.ofs + s.n_bits > s.field->width)) fail("bits outside a field");
    return s;
  }
  void segment(const Segment& s, uint8_t* to) {
    const uint8_t* at = raw(s.size);
    if (!at) return;
    std::memcpy(to, at, s.size);
    if (std::endian::native == std::endian::big && s.host_order) std::reverse(to, to + s.size);
  }

  void match(Match* m);
  std::shared_ptr<const RuleActionList> actions(int nesting);
  RuleAction action(int nesting);

 private:
  RuleAction set_field(bool load_syntax) {
    SetField a{field(), sized(), sized(), load_syntax};
    if (a.field && (a.value.size() != a.field->n_bytes || a.mask.size() != a.field->n_bytes))
      fail("value of wrong size");
    return a;
  }
  RuleAction mod_field() {
    constexpr std::string_view kNames[] = {"eth_src", "eth_dst", "ip_src",  "ip_dst", "nw_tos",
                                           "nw_ecn",  "nw_ttl",  "tcp_src", "tcp_dst"};
    const ModField a{field(), number()};
    if (a.field && std::find(std::begin(kNames), std::end(kNames), a.field->name) == std::end(kNames)) {
      fail("a field that no mod_ action changes");
    }
    return a;
  }
  RuleAction controller() {
    SendToController a;
    a.max_len = number<uint16_t>();
    a.controller_id = number<uint16_t>();
    const uint8_t reason = byte();
    if (reason > static_cast<uint8_t>(PacketInReason::packet_out)) fail("unknown packet-in reason");
    a.reason = static_cast<PacketInReason>(reason);
    a.userdata = sized();
    return a;
  }
  RuleAction dec_ttl() {
    DecTtl a;
    const auto count = number<uint32_t>();
    for (uint32_t i = 0; i < count && !error_; ++i) a.controller_ids.push_back(number<uint16_t>());
    return a;
  }

  std::string_view bytes_;
  std::optional<std::string> error_;
};

void Decoder::match(Match* m) {
  auto* value = reinterpret_cast<uint8_t*>(&m->value);
  auto* mask = reinterpret_cast<uint8_t*>(&m->mask);
  while (const uint8_t id = byte()) {
    const Segment* s = find_segment(id & ~kExactMask & 0xff);
    if (!s) return fail("unknown part of a match");
    segment(*s, value + s->offset);
    if (id & kExactMask) {
      std::memset(mask + s->offset, 0xff, s->size);
    } else {
      segment(*s, mask + s->offset);
    }
  }
  m->value = masked(m->value, m->mask);
}

std::shared_ptr<const RuleActionList> Decoder::actions(int nesting) {
  if (nesting > kMaxNesting) fail("actions nested too deep");
  auto list = std::make_shared<RuleActionList>();
  const auto count = number<uint32_t>();
  // Every action takes a byte at least: a wrong count cannot make us reserve more than that.
  list->reserve(std::min<size_t>(count, bytes_.size()));
  for (uint32_t i = 0; i < count && !error_; ++i) list->push_back(action(nesting));
  return list;
}

RuleAction Decoder::action(int nesting) {
  // Members are read in the order they are written: braces evaluate from left to right.
  switch (static_cast<Kind>(byte())) {
    case Kind::output:
      return OutputToPort{number<uint16_t>(), number<uint32_t>()};
    case Kind::output_field:
      return OutputToField{subfield(), number<uint16_t>()};
    case Kind::controller:
      return controller();
    case Kind::set_field:
      return set_field(false);
    case Kind::load:
      return set_field(true);
    case Kind::move:
      return MoveField{subfield(), subfield()};
    case Kind::mod_field:
      return mod_field();
    case Kind::mod_vlan_vid:
      return ModVlanVid{number<uint16_t>(), boolean()};
    case Kind::mod_vlan_pcp:
      return ModVlanPcp{byte(), boolean()};
    case Kind::strip_vlan:
      return StripVlan{boolean()};
    case Kind::push_vlan:
      return PushVlan{to_be16(number<uint16_t>())};
    case Kind::dec_ttl:
      return dec_ttl();
    case Kind::set_tunnel:
      return SetTunnelId{number(), boolean()};
    case Kind::resubmit:
      return Resubmit{number<uint16_t>(), byte()};
    case Kind::push:
      return StackPush{subfield()};
    case Kind::pop:
      return StackPop{subfield()};
    case Kind::clone:
      return CloneActions{actions(nesting + 1)};
    case Kind::exit:
      return Exit{};
    case Kind::note:
      return Note{sized()};
    case Kind::clear_actions:
      return ClearActions{};
    case Kind::write_actions:
      return WriteActions{actions(nesting + 1)};
    case Kind::write_metadata:
      return WriteMetadata{number(), number()};
    case Kind::goto_table:
      return GotoTable{byte()};
    case Kind::debug_recirc:
      return DebugRecirculate{};
  }
  fail("unknown action");
  return Exit{};
}

}  // namespace

std::string encode_rule(const RuleSpec& rule) {
  Encoder out;
  out.byte(kFormatVersion);
  out.byte(rule.table);
  out.number(rule.priority);
  out.number(rule.cookie);
  out.number(rule.idle_timeout);
  out.number(rule.hard_timeout);
  out.number(rule.flags);
  out.number(rule.importance);
  out.match(rule.match);
  out.actions(*rule.actions);
  return out.take();
}

Result<RuleSpec> decode_rule(std::string_view bytes) {
  Decoder in(bytes);
  const uint8_t version = in.byte();
  if (version != kFormatVersion && !in.error()) {
    return failed_precondition("stored rule has format version " + std::to_string(version) + "; this program knows " +
                               std::to_string(kFormatVersion));
  }
  RuleSpec rule;
  rule.table = in.byte();
  rule.priority = in.number<uint16_t>();
  rule.cookie = in.number();
  rule.idle_timeout = in.number<uint16_t>();
  rule.hard_timeout = in.number<uint16_t>();
  rule.flags = in.number<uint16_t>();
  rule.importance = in.number<uint16_t>();
  Match match;
  in.match(&match);
  rule.match = match;
  rule.actions = in.actions(0);
  if (!in.error() && !in.at_end()) in.fail("bytes behind its end");
  if (in.error()) return invalid_argument("stored rule is damaged: " + *in.error());
  return rule;
}

}  // namespace vswitch
