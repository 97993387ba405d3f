// The `normal` action: a learning VLAN switch. The order of steps is that of features.md section 9 and matters: a
// packet that a port does not admit must not teach anything.

#include <algorithm>
#include <array>
#include <utility>

#include "vswitchd/translate/translator.h"

namespace vswitch {
namespace {

constexpr uint16_t kVidMask = 0x0fff, kPcpMask = 0xe000;

// Addresses of protocols between neighbouring switches, which a switch without them must not pass on either.
constexpr std::array<uint64_t, 14> kReservedAddresses = {
    0x00e02b000000,                  // Extreme Discovery Protocol
    0x00e02b000004, 0x00e02b000006,  // Ethernet Automatic Protection Switching
    0x01000c000000,                  // Cisco Inter Switch Link
    0x01000cccccc0, 0x01000cccccc1, 0x01000cccccc2, 0x01000cccccc3,
    0x01000cccccc4, 0x01000cccccc5, 0x01000cccccc6, 0x01000cccccc7,  // Cisco CFM
    0x01000ccccccc,                                                  // CDP, VTP, DTP, PAgP, UDLD
    0x01000ccccccd,                                                  // PVST+
};
constexpr uint64_t kCiscoUplinkFast = 0x01000ccdcdcd;
constexpr uint64_t kLinkLocalMulticast =
    0x0180c2000000;  // to ...0f: STP, pause, LACP, 802.1X, LLDP (IEEE 802.1Q 8.6.3)

bool is_native(VlanMode mode) { return mode == VlanMode::native_tagged || mode == VlanMode::native_untagged; }

// A native VLAN is always trunked, and takes the place of VLAN 0.
bool trunks(const VlanConfig& config, uint16_t vid) {
  if (config.mode == VlanMode::access) return false;
  if (is_native(config.mode) && vid == config.tag) return true;
  if (is_native(config.mode) && vid == 0) return false;
  return config.trunks.none() || config.trunks.test(vid);
}

}  // namespace

void Translator::normal() {
  FlowMask& m = mask_.packet;
  m.eth_src.bytes.fill(0xff);
  m.eth_dst.bytes.fill(0xff);
  m.vlan[0].tci |= to_be16(kVidMask) | kVlanCfi;

  const PortView* in = bridge_->port(in_port());
  if (in == nullptr && in_port() != kOfPortNone && in_port() != kOfPortController) {
    error("received packet on unknown port " + std::to_string(in_port()));
    warning("no input bundle, dropping");
    note_drop(DropReason::invalid_port);
    return;
  }
  const be16 type = key_.packet.eth_type;
  if ((type == kEthTypeVlan || type == kEthTypeQinq) && !key_.packet.has_vlan()) {
    warning("partial VLAN tag, dropping");
    note_drop(DropReason::vlan_not_admitted);
    return;
  }
  const Vlans packet = packet_vlans();
  if (!vlan_admitted(in, packet.tag[0].vid)) {
    warning("disallowed VLAN VID for this input port, dropping");
    note_drop(DropReason::vlan_not_admitted);
    return;
  }
  if (in != nullptr && is_reserved_multicast()) {
    detail("packet has reserved destination MAC, dropping");
    note_drop(DropReason::reserved_multicast);
    return;
  }
  const Vlans vlans = bridge_vlans(in, packet);
  learn_source(in, vlans.tag[0].vid);
  forward(in, vlans);
}

Translator::Vlans Translator::packet_vlans() const {
  Vlans vlans;
  for (size_t i = 0; i < kMaxVlanTags; ++i) {
    const VlanTag& tag = key_.packet.vlan[i];
    if (!(tag.tci & kVlanCfi)) break;
    const uint16_t tci = tag.tci.host();
    vlans.tag[i] = {tag.tpid, static_cast<uint16_t>(tci & kVidMask), static_cast<uint16_t>(tci & kPcpMask)};
  }
  return vlans;
}

bool Translator::vlan_admitted(const PortView* in, uint16_t vid) {
  if (in == nullptr) return true;  // from a controller
  const VlanConfig& config = in->vlan;
  if (config.mode == VlanMode::access) {
    if (vid == 0) return true;
    error("dropping VLAN " + std::to_string(vid) + " tagged packet received on port " + in->name +
          " configured as VLAN " + std::to_string(config.tag) + " access port");
    return false;
  }
  if (vid == 0 && is_native(config.mode)) return true;
  if (trunks(config, vid)) return true;
  error("dropping VLAN " + std::to_string(vid) + " packet received on port " + in->name +
        " not configured for trunking VLAN " + std::to_string(vid));
  return false;
}

bool Translator::is_reserved_multicast() const {
  if (bridge_->forward_bpdu) return false;
  const uint64_t address = key_.packet.eth_dst.to_u64();
  return (address & ~uint64_t{0xf}) == kLinkLocalMulticast || address == kCiscoUplinkFast ||
         std::find(kReservedAddresses.begin(), kReservedAddresses.end(), address) != kReservedAddresses.end();
}

// The tags of the packet as the bridge thinks of it: with the VLAN that the port it came in by puts it into.
Translator::Vlans Translator::bridge_vlans(const PortView* in, const Vlans& packet) {
  Vlans vlans = packet;
  if (in == nullptr) return vlans;
  const bool untagged = packet.tag[0].vid == 0;
  if (in->vlan.mode == VlanMode::access || (untagged && is_native(in->vlan.mode))) {
    Vlans::Tag& tag = vlans.tag[0];
    if (!tag.tpid) tag.tpid = kEthTypeVlan;
    tag.vid = in->vlan.tag;
    if (in->vlan.mode == VlanMode::access) {
      mask_.packet.vlan[1].tci |= kVlanCfi;
      vlans.tag[1] = {};  // an access port has one tag to give, and none inside
    }
  }
  return vlans;
}

void Translator::learn_source(const PortView* in, uint16_t vlan) {
  if (in == nullptr || key_.packet.eth_src.is_multicast() || bridge_->flood_vlans.test(vlan)) return;
  output_.learned.push_back({bridge_->name, vlan, key_.packet.eth_src, in->ofport});
  if (!input_.allow_side_effects) return;
  if (!bridge_->macs->learn(vlan, key_.packet.eth_src, in->ofport)) return;
  output_.addresses_changed = true;
  if (tracing()) {
    detail("learned that " + key_.packet.eth_src.to_string() + " is on port " + in->name + " in VLAN " +
           std::to_string(vlan));
  }
}

void Translator::forward(const PortView* in, const Vlans& vlans) {
  const uint16_t vlan = vlans.tag[0].vid;
  output_.used_addresses = true;
  std::optional<OfPort> learned;
  if (!key_.packet.eth_dst.is_multicast() && !bridge_->flood_vlans.test(vlan)) {
    learned = bridge_->macs->lookup(vlan, key_.packet.eth_dst);
  }
  if (!learned.has_value()) {
    detail("no learned MAC for destination, flooding");
    flood_normal(in, vlans);
    return;
  }
  const PortView* out = bridge_->port(*learned);
  if (out == nullptr) {
    warning("learned port is unknown, dropping");
    note_drop(DropReason::no_output);
  } else if (out == in) {
    detail("learned port is input port, dropping");
    note_drop(DropReason::no_output);
  } else {
    detail("forwarding to learned port");
    output_normal(*out, vlans);
  }
}

void Translator::flood_normal(const PortView* in, const Vlans& vlans) {
  for (const auto& port : bridge_->ports) {
    if (stopped()) return;
    if (port.get() == in || port->config.no_flood) continue;
    if (carries(*port, vlans)) output_normal(*port, vlans);
  }
  note_drop(DropReason::no_output);
}

bool Translator::carries(const PortView& out, const Vlans& vlans) {
  if (out.vlan.mode != VlanMode::access) return trunks(out.vlan, vlans.tag[0].vid);
  if (vlans.tag[0].vid != out.vlan.tag) return false;
  mask_.packet.vlan[1].tci |= kVlanCfi;
  return !vlans.tag[1].tpid;
}

// The tags that a packet with `vlans` has when it leaves by `out`.
Translator::Vlans Translator::port_vlans(const PortView& out, const Vlans& vlans) {
  Vlans tags = vlans;
  if (out.vlan.mode == VlanMode::access) {
    mask_.packet.vlan[1].tci |= kVlanCfi;  // an inner tag goes, too
    tags = {};
  } else if (out.vlan.mode == VlanMode::native_untagged && vlans.tag[0].vid == out.vlan.tag) {
    tags = {};
    tags.tag[0] = vlans.tag[1];
    mark_vlan_tags();  // the inner tag changes its place
    vlan_restacked_ = true;
  }
  if (out.vlan.priority_tags) {
    mask_.packet.vlan[0].tci |= to_be16(kPcpMask);
    tags.tag[0].pcp = key_.packet.vlan[0].tci.host() & kPcpMask;
  }
  return tags;
}

// A tag of VLAN 0 and priority 0 says nothing and is not sent.
void Translator::put_vlans(const Vlans& vlans) {
  auto& tags = key_.packet.vlan;
  if (vlans.tag[0].tpid && vlans.tag[0].vid == 0) {
    mask_.packet.vlan[0].tci |= to_be16(kPcpMask);
    if (vlans.tag[0].pcp == 0) mark_vlan_tags();  // what is inside moves out
  }
  for (size_t i = 0; i < kMaxVlanTags; ++i) {
    const Vlans::Tag& from = vlans.tag[i];
    const auto tci = static_cast<uint16_t>(from.vid | from.pcp);
    const bool sent = tci != 0 || (i > 0 && bool(from.tpid));
    tags[i] = sent ? VlanTag{from.tpid ? from.tpid : kEthTypeVlan, to_be16(tci) | kVlanCfi} : VlanTag{};
  }
  if (!key_.packet.has_vlan() && bool(tags[1].tci)) {
    tags = {tags[1], VlanTag{}};
    vlan_restacked_ = true;
  }
}

void Translator::output_normal(const PortView& out, const Vlans& vlans) {
  const auto saved = key_.packet.vlan;
  put_vlans(port_vlans(out, vlans));
  if (out.is_patch) output_.rewritten_words |= 1 << 3;
  output_port(out.ofport, false);
  key_.packet.vlan = saved;
}

}  // namespace vswitch
