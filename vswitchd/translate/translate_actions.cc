// What each action of a rule does to the packet's key.

#include <algorithm>
#include <memory>
#include <utility>
#include <variant>

#include "datapath/flow/field.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/translate/translator.h"

namespace vswitch {
namespace {

constexpr uint16_t kVidMask = 0x0fff, kPcpMask = 0xe000, kCfi = 0x1000;

// Not a register or the like, which only rules see.
bool in_packet(const Field& f) { return f.offset < sizeof(FlowKey); }

unsigned bytes_for(unsigned bits) { return (bits + 7) / 8; }

FieldValue to_field_value(const std::vector<uint8_t>& bytes) {
  FieldValue value;
  std::copy_n(bytes.begin(), std::min(bytes.size(), value.bytes.size()), value.bytes.begin());
  return value;
}

bool is_plain_output_truncated(const RuleAction& action) {
  const auto* output = std::get_if<OutputToPort>(&action);
  return output != nullptr && output->max_len != 0;
}

// Whether translation can undo, key and datapath, what this list does, so that no datapath clone is needed. A
// truncation cannot be undone. Nested lists look after themselves.
bool is_reversible(const RuleActionList& list) {
  return std::none_of(list.begin(), list.end(), is_plain_output_truncated);
}

}  // namespace

void Translator::run_actions(const RuleActionList& list, bool is_last) {
  if (list.empty()) {
    report(TraceNode::Kind::action, "drop");
    return;
  }
  for (size_t i = 0; i < list.size() && !stopped() && !list_done_; ++i) {
    dispatch(list[i], is_last && i + 1 == list.size() && action_set_.empty());
    if (freezing_) freeze_rest(list, i + 1);
  }
  list_done_ = false;
}

void Translator::dispatch(const RuleAction& action, bool is_last) {
  const TraceScope scope(*this, tracing() ? report(TraceNode::Kind::action, format_action(action, names())) : nullptr);
  std::visit([&](const auto& alternative) { run_action(alternative, is_last); }, action);
}

// The list runs on the packet as it is, and everything is as before afterwards.
void Translator::run_as_clone(const RuleActionList& list, bool is_last) {
  const auto saved_key = std::make_unique<PipelineKey>(key_);
  const std::vector<uint8_t> saved_stack = stack_;
  RuleActionList saved_action_set = action_set_;
  if (is_last || is_reversible(list)) {
    run_actions(list, is_last);
    end_pipeline();
  } else {
    commit();
    const auto saved_base = std::make_unique<std::optional<FlowKey>>(base_);
    auto nested = std::make_shared<ActionList>();
    ActionList* const outer = std::exchange(actions_, nested.get());
    run_actions(list, true);
    end_pipeline();
    actions_ = outer;
    base_ = *saved_base;
    // After a failure, too: behind a patch port it takes back nothing of what was done.
    if (!nested->empty()) emit(CloneAction{std::move(nested)});
  }
  key_ = *saved_key;
  stack_ = saved_stack;
  action_set_ = std::move(saved_action_set);
}

// ---- Output

void Translator::run_action(const OutputToPort& a, bool is_last) {
  if (a.max_len != 0) {
    output_truncated(a.port, a.max_len);
  } else {
    output_to(a.port, is_last);
  }
}

void Translator::run_action(const OutputToField& a, bool is_last) {
  mark_subfield(*a.source.field, a.source.ofs, a.source.n_bits, mask_);
  const uint64_t port = read_subfield(*a.source.field, a.source.ofs, a.source.n_bits, key_);
  if (port > 0xffff) {
    warning("output port " + std::to_string(port) + " is out of range");
    note_drop(DropReason::invalid_port);
    return;
  }
  detail("output port is " + std::to_string(port));
  if (port == kOfPortController) {
    SendToController packet_in;
    packet_in.max_len = a.max_len;
    send_to_controller(std::move(packet_in));
  } else {
    output_to(static_cast<OfPort>(port), is_last);
  }
}

void Translator::run_action(const SendToController& a, bool /*is_last*/) { send_to_controller(a); }

// ---- Fields

void Translator::run_action(const SetField& a, bool /*is_last*/) {
  if (!check_prerequisite(*a.field, key_, mask_)) {
    warning("unmet prerequisites for " + std::string(a.field->name) + ", set_field ignored");
    return;
  }
  const FieldValue bits = to_field_value(a.mask);
  mark_written(*a.field, bits);
  set_field(*a.field, to_field_value(a.value), bits, key_);
  fix_vlan_tags(*a.field);
}

void Translator::mark_written(const Field& f, const FieldValue& bits) {
  if (!in_packet(f)) return;
  const FieldValue ones = exact_field_mask(f);
  write_field_masked(f, ones, bits, mask_);
  write_field_masked(f, ones, bits, written());
}

void Translator::mark_written(const Subfield& to) {
  if (!in_packet(*to.field)) return;
  mark_subfield(*to.field, to.ofs, to.n_bits, mask_);
  mark_subfield(*to.field, to.ofs, to.n_bits, written());
}

void Translator::run_action(const MoveField& a, bool /*is_last*/) {
  if (check_prerequisite(*a.destination.field, key_, mask_) && check_readable(*a.source.field, key_, mask_)) {
    mark_subfield(*a.source.field, a.source.ofs, a.source.n_bits, mask_);
    move_bits(a.source, a.destination);
  }
  if (tracing()) report_subfield(a.destination);
}

void Translator::run_action(const ModField& a, bool /*is_last*/) {
  if (a.field->id == FieldId::kTcpSrc || a.field->id == FieldId::kTcpDst) {
    mod_transport_port(a.field->id == FieldId::kTcpSrc, static_cast<uint16_t>(a.value));
    return;
  }
  if (!check_prerequisite(*a.field, key_, mask_)) return;
  mark_written(*a.field, exact_field_mask(*a.field));
  write_subfield(*a.field, 0, a.field->width, a.value, key_);
}

void Translator::mod_transport_port(bool source, uint16_t port) {
  FlowKey& key = key_.packet;
  if (!key.is_ip() || (key.nw_frag & kFragLater) != 0) return;
  mask_.packet.nw_proto = 0xff;
  if (key.nw_proto != kProtoTcp && key.nw_proto != kProtoUdp && key.nw_proto != kProtoSctp) return;
  (source ? mask_.packet.tp_src : mask_.packet.tp_dst) = ~be16{};
  (source ? written().packet.tp_src : written().packet.tp_dst) = ~be16{};
  (source ? key.tp_src : key.tp_dst) = to_be16(port);
}

void Translator::run_action(const WriteMetadata& a, bool /*is_last*/) {
  be64& metadata = key_.pipeline.metadata;
  metadata = to_be64((metadata.host() & ~a.mask) | (a.value & a.mask));
}

void Translator::run_action(const SetTunnelId& a, bool /*is_last*/) { key_.packet.tunnel.id = to_be64(a.id); }

void Translator::run_action(const DecTtl& a, bool /*is_last*/) {
  if (!key_.packet.is_ip()) return;
  mask_.packet.nw_ttl = 0xff;
  mask_.packet.nw_proto = 0xff;
  if (key_.packet.nw_ttl > 1) {
    --key_.packet.nw_ttl;
    written().packet.nw_ttl = 0xff;
    return;
  }
  const std::vector<uint16_t> unnamed{0};
  for (uint16_t id : a.controller_ids.empty() ? unnamed : a.controller_ids) {
    SendToController packet_in;
    packet_in.controller_id = id;
    packet_in.reason = PacketInReason::invalid_ttl;
    send_to_controller(std::move(packet_in));
  }
  warning(std::string("IPv") + (key_.packet.eth_type == kEthTypeIpv4 ? "4" : "6") + " decrement TTL exception");
  note_drop(DropReason::ttl_exceeded);
  list_done_ = true;
}

FieldValue Translator::read_bits(const Subfield& source) const {
  FieldValue value;
  copy_bits(read_field(*source.field, key_), source.field->n_bytes, source.ofs, value, bytes_for(source.n_bits), 0,
            source.n_bits);
  return value;
}

void Translator::move_bits(const Subfield& source, const Subfield& destination) {
  if (source.n_bits > 64) return write_bits(read_bits(source), destination);
  const Field& f = *destination.field;
  if (in_packet(f)) mark_written(destination);
  write_subfield(f, destination.ofs, destination.n_bits, read_subfield(*source.field, source.ofs, source.n_bits, key_),
                 key_);
  if (!f.is_plain) fix_vlan_tags(f);
}

// `value` is right-aligned in the bytes that n_bits need.
void Translator::write_bits(const FieldValue& value, const Subfield& destination) {
  const Field& f = *destination.field;
  mark_written(destination);
  FieldValue ones, bits, placed;
  ones.bytes.fill(0xff);
  copy_bits(ones, f.n_bytes, 0, bits, f.n_bytes, destination.ofs, destination.n_bits);
  copy_bits(value, bytes_for(destination.n_bits), 0, placed, f.n_bytes, destination.ofs, destination.n_bits);
  set_field(f, placed, bits, key_);
  fix_vlan_tags(f);
}

// ---- VLAN

void Translator::run_action(const ModVlanVid& a, bool /*is_last*/) { mod_vlan_tci(a.vid, kVidMask, a.push_if_needed); }

void Translator::run_action(const ModVlanPcp& a, bool /*is_last*/) {
  mod_vlan_tci(static_cast<uint16_t>(a.pcp << 13), kPcpMask, a.push_if_needed);
}

void Translator::mod_vlan_tci(uint16_t bits, uint16_t mask, bool push_if_needed) {
  mask_.packet.vlan[0].tci |= to_be16(mask | kCfi);
  if (!key_.packet.has_vlan() && !push_if_needed) return;
  output_.rewritten_words |= 1 << 3;  // also where the packet in hand happens to have this value
  VlanTag& tag = key_.packet.vlan[0];
  if (!tag.tpid) tag.tpid = kEthTypeVlan;
  tag.tci = (tag.tci & to_be16(static_cast<uint16_t>(~mask))) | to_be16((bits & mask) | kCfi);
}

void Translator::run_action(const StripVlan& /*a*/, bool /*is_last*/) {
  mark_vlan_tags();
  auto& tags = key_.packet.vlan;
  if (key_.packet.has_vlan()) {
    tags[0] = tags[1];
    tags[1] = {};
    vlan_restacked_ = true;
  }
}

void Translator::run_action(const PushVlan& a, bool /*is_last*/) {
  mark_vlan_tags();
  auto& tags = key_.packet.vlan;
  tags[1] = tags[0];  // a third tag has no place in the key: the innermost is lost
  tags[0] = {a.tpid, kVlanCfi};
  vlan_restacked_ = true;
}

// Tags that change their place must be in the mask whole: what later actions look at in one place was in another.
void Translator::mark_vlan_tags() {
  for (size_t i = 0; i < kMaxVlanTags; ++i) {
    if (!(key_.packet.vlan[i].tci & kVlanCfi)) {
      mask_.packet.vlan[i].tci |= kVlanCfi;
      return;
    }
    mask_.packet.vlan[i] = {~be16{}, ~be16{}};
  }
}

// Writing vlan_tci without the CFI bit takes all tags away.
void Translator::fix_vlan_tags(const Field& written) {
  if (written.id != FieldId::kVlanTci && written.id != FieldId::kVlanVid) return;
  if (key_.packet.has_vlan()) return;
  mask_.packet.vlan[1].tci |= kVlanCfi;
  key_.packet.vlan = {};
  vlan_restacked_ = true;
}

// ---- Stack

void Translator::run_action(const StackPush& a, bool /*is_last*/) {
  const unsigned n = bytes_for(a.source.n_bits);
  mark_subfield(*a.source.field, a.source.ofs, a.source.n_bits, mask_);
  if (stack_.size() + n + 1 > kMaxStackBytes) {
    fail(DropReason::stack_too_deep, "over 64 kB of stack");
    return;
  }
  const FieldValue value = read_bits(a.source);
  stack_.insert(stack_.end(), value.bytes.begin(), value.bytes.begin() + n);
  stack_.push_back(static_cast<uint8_t>(n));
}

void Translator::run_action(const StackPop& a, bool /*is_last*/) {
  if (stack_.empty()) {
    error("stack underflow");
    return;
  }
  const size_t n = stack_.back();
  stack_.pop_back();
  // Right-align what was pushed in what is popped: a wider value loses its upper bytes, a narrower one gets zeros.
  const size_t wanted = bytes_for(a.destination.n_bits), copied = std::min(n, wanted);
  FieldValue value;
  std::copy_n(stack_.end() - static_cast<ptrdiff_t>(copied), copied, value.bytes.begin() + (wanted - copied));
  stack_.resize(stack_.size() - n);
  write_bits(value, a.destination);
  report_subfield(a.destination);
}

// ---- Control flow

void Translator::run_action(const Resubmit& a, bool is_last) {
  run_table(a.table == kTableAll ? table_ : a.table, a.in_port == kOfPortInPort ? in_port() : a.in_port, is_last,
            Runner::plain);
}

void Translator::run_action(const GotoTable& a, bool is_last) { run_table(a.table, in_port(), is_last, Runner::plain); }

void Translator::run_action(const CloneActions& a, bool is_last) { run_as_clone(*a.actions, is_last); }

void Translator::run_action(const Exit& /*a*/, bool /*is_last*/) { exit_ = true; }

void Translator::run_action(const DebugRecirculate& /*a*/, bool /*is_last*/) { freeze(); }

void Translator::run_action(const Note& /*a*/, bool /*is_last*/) {}

void Translator::run_action(const ClearActions& /*a*/, bool /*is_last*/) {
  report_action_set("was");
  action_set_.clear();
  key_.pipeline.actset_output = kOfPortUnset;
}

void Translator::run_action(const WriteActions& a, bool /*is_last*/) {
  write_action_set(*a.actions);
  report_action_set("is");
}

}  // namespace vswitch
