// Output to a tunnel port: what the port's configuration says, merged with what the rules set.

#include <memory>
#include <utility>

#include "vswitchd/translate/translator.h"

namespace vswitch {
namespace {

constexpr uint8_t kEcnMask = 3, kEcnCe = 3, kEcnEct0 = 2, kDscpMask = 0xfc;
constexpr uint8_t kDefaultTtl = 64;

}  // namespace

void Translator::output_tunnel(const PortView& port) {
  const TunnelMetadata tunnel = tunnel_metadata(*port.tunnel);
  if (!tunnel.has_destination()) {
    warning("no tunnel destination: the port leaves it to the rules, and they set none");
    note_drop(DropReason::tunnel_no_destination);
    return;
  }
  if (tunnel.dst == orig_tunnel_dst_ && tunnel.dst6 == orig_tunnel_dst6_) {
    warning("Not tunneling to our own address");
    note_drop(DropReason::tunnel_loop);
    return;
  }
  detail("output to tunnel");
  const uint32_t saved_mark = key_.packet.skb_mark;
  if (port.tunnel->egress_mark.has_value()) {
    key_.packet.skb_mark = *port.tunnel->egress_mark;
    mask_.packet.skb_mark = written().packet.skb_mark = ~0u;
  }
  if (!(base().tunnel == tunnel)) {
    base().tunnel = tunnel;
    emit(SetTunnelAction{std::make_shared<const TunnelMetadata>(tunnel)});
  }
  commit();
  emit(OutputAction{port.dp_port});
  key_.packet.skb_mark = saved_mark;
}

TunnelMetadata Translator::tunnel_metadata(const TunnelPortView& tunnel) {
  const TunnelMetadata& flow = key_.packet.tunnel;
  TunnelMetadata out;
  tunnel_addresses(tunnel, out);
  out.id = tunnel.out_key.has_value() ? to_be64(*tunnel.out_key) : flow.id;
  out.tp_dst = to_be16(tunnel.dst_port);
  tunnel_tos_and_ttl(tunnel, out);
  mask_.packet.tunnel.flags |= kTunnelOam;
  out.flags = flow.flags & kTunnelOam;
  out.flags |= kTunnelKey;
  if (tunnel.dont_fragment) out.flags |= kTunnelDontFragment;
  if (tunnel.checksum.value_or(out.is_v6())) out.flags |= kTunnelChecksum;
  if (tunnel.gbp) {
    mask_.packet.tunnel.gbp_id = ~be16{};
    mask_.packet.tunnel.gbp_flags = 0xff;
    out.gbp_id = flow.gbp_id;
    out.gbp_flags = flow.gbp_flags;
  }
  return out;
}

void Translator::tunnel_addresses(const TunnelPortView& tunnel, TunnelMetadata& out) {
  const TunnelMetadata& flow = key_.packet.tunnel;
  out.dst = tunnel.remote.has_value() ? tunnel.remote->v4 : flow.dst;
  out.dst6 = tunnel.remote.has_value() ? tunnel.remote->v6 : flow.dst6;
  out.src = tunnel.local.has_value() ? tunnel.local->v4 : flow.src;
  out.src6 = tunnel.local.has_value() ? tunnel.local->v6 : flow.src6;
}

// The inner packet's ECN bits always go out (RFC 6040: but CE as ECT(0), for the inner header keeps it); DSCP and TTL
// only where the port says `inherit`.
void Translator::tunnel_tos_and_ttl(const TunnelPortView& tunnel, TunnelMetadata& out) {
  const FlowKey& key = key_.packet;
  out.tos = tunnel.tos.value_or(0);
  out.ttl = tunnel.ttl.value_or(kDefaultTtl);
  if (!key.is_ip()) return;
  FlowMask& m = mask_.packet;
  if (!tunnel.ttl.has_value()) {
    m.nw_ttl = 0xff;
    out.ttl = key.nw_ttl;
  }
  if (!tunnel.tos.has_value()) {
    m.nw_tos |= kDscpMask;
    out.tos = key.nw_tos & kDscpMask;
  }
  m.nw_tos |= kEcnMask;
  out.tos |= (key.nw_tos & kEcnMask) == kEcnCe ? kEcnEct0 : key.nw_tos & kEcnMask;
}

}  // namespace vswitch
