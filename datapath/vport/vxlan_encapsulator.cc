#include "datapath/vport/vxlan_encapsulator.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <utility>

#include "datapath/flow/extract.h"
#include "datapath/tunnel/inner_frame.h"
#include "datapath/tunnel/vxlan_header.h"
#include "datapath/vport/vxlan_transmit.h"

namespace vswitch {
namespace {

constexpr size_t kIpv4Size = 20, kUdpSize = 8, kEthernetSize = 14, kTagSize = 4;
constexpr be16 kDontFragment = to_be16(0x4000);
// Connections that come one after the other share what is found out about the host for so long.
constexpr Nanoseconds kFresh = 20ms;

// The plan for all packets of a connection.
Result<VxlanPlan> plan_connection(const TunnelConfig& config, const ConnectionKey& key,
                                  const TunnelMetadata* metadata) {
  InnerIp inner;
  inner.version = key.eth_type == kEthTypeIpv4.raw() ? 4 : 6;
  inner.tos = key.tos;
  VxlanPlan plan, other;
  // What a connection's packets may differ in, of all that a plan looks at, is their TTL.
  inner.ttl = 1;
  if (const auto reason = plan_vxlan(config, metadata, inner, 0, plan)) {
    return failed_precondition("its packets are dropped");
  }
  inner.ttl = 2;
  static_cast<void>(plan_vxlan(config, metadata, inner, 0, other));
  if (!(plan == other)) return unimplemented("the outer TTL is that of each packet");
  if (plan.remote.is_v6()) return unimplemented("the outer packets are IPv6");
  if (plan.checksum) return unimplemented("the outer packets have checksums");
  if (!plan.df) return unimplemented("the outer packets may be fragmented");
  return plan;
}

Result<be16> bound_port(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  if (fd < 0 || ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return resource_exhausted("there is no UDP source port");
  }
  return be16::from_raw(address.sin_port);
}

// Writes one thing after the other.
class Writer {
 public:
  explicit Writer(uint8_t* at) : at_(at) {}
  template <typename T>
  void put(const T& value) {
    std::memcpy(at_, &value, sizeof value);
    at_ += sizeof value;
  }
  uint8_t* skip(size_t size) { return std::exchange(at_, at_ + size); }

 private:
  uint8_t* at_;
};

void write_headers(const VxlanPlan& plan, const ConnectionKey& key, Encapsulation& result) {
  Writer out(result.header.data());
  out.put(uint8_t{0x45});
  out.put(plan.tos);
  out.put(be16{});  // length
  out.put(be16{});  // identification: nobody fragments it
  out.put(kDontFragment);
  out.put(plan.ttl);
  out.put(uint8_t{IPPROTO_UDP});
  out.put(be16{});  // checksum
  out.put(result.way.source);
  out.put(result.flow.dst);
  out.put(result.flow.src_port);
  out.put(result.flow.dst_port);
  out.put(be32{});  // length, checksum
  write_vxlan_header(plan.header, std::span<uint8_t, kVxlanHeaderSize>(out.skip(kVxlanHeaderSize), kVxlanHeaderSize));
  out.put(key.eth_dst);
  out.put(key.eth_src);
  if (key.vlan_tpid != 0) {
    out.put(key.vlan_tpid);
    out.put(be16::from_raw(key.vlan_tci) & ~kVlanCfi);
  }
  out.put(key.eth_type);
  result.header_size = kIpv4Size + kUdpSize + kVxlanHeaderSize + kEthernetSize + (key.vlan_tpid != 0 ? kTagSize : 0);
}

}  // namespace

std::string VxlanEncapsulator::problem() const {
  MutexLock lock(mutex_);
  return problem_;
}

// Connections share few devices.
std::optional<LinkInfo> VxlanEncapsulator::device(uint32_t ifindex, Nanoseconds since) {
  {
    MutexLock lock(mutex_);
    std::erase_if(devices_, [since](const auto& known) { return known.second.looked < since; });
    if (const auto known = devices_.find(ifindex); known != devices_.end()) return known->second.link;
  }
  const Nanoseconds now = environment_.clock.now();
  std::optional<LinkInfo> link = environment_.links.find_without_speed(ifindex);
  MutexLock lock(mutex_);
  devices_[ifindex] = {now, link};
  return link;
}

Result<RouteInfo> VxlanEncapsulator::route_of(const OuterFlow& flow, Nanoseconds since) {
  const auto source = flow.src ? IpAddress::from_v4(flow.src) : IpAddress{};
  Result<RouteInfo> route = environment_.links.route_of({.destination = IpAddress::from_v4(flow.dst),
                                                         .source = source,
                                                         .mark = flow.mark,
                                                         .tos = flow.tos,
                                                         .src_port = flow.src_port,
                                                         .dst_port = flow.dst_port,
                                                         .device = false});
  if (!route.ok()) return route;
  if (!route->unicast || route->lightweight_tunnel) return unimplemented("the route is of an unusual kind");
  const std::optional<LinkInfo> link = device(route->ifindex, since);
  if (!link || !link->up || !link->ethernet || link->loopback) {
    return unimplemented("the route leaves by a device that is down, or no Ethernet device");
  }
  // Such a device has no UDP tunnel segmentation and a short queue: the kernel would cut super-frames into more packets
  // than it takes at a time, and it drops the rest. The daemon sends at the pace of its socket.
  if (link->kind == "tun") return unimplemented("the route leaves by an internal port or another TAP device");
  if (route->mtu == 0) route->mtu = link->mtu;
  return route;
}

Result<OuterWay> VxlanEncapsulator::way_of(const OuterFlow& flow, Nanoseconds since) {
  Result<OuterWay> way = try_way_of(flow, since);
  if (!way.ok()) note(way.status());
  return way;
}

Result<OuterWay> VxlanEncapsulator::try_way_of(const OuterFlow& flow, Nanoseconds since) {
  if (const std::string policy = policies_.in_the_way(environment_.clock.now(), since); !policy.empty()) {
    return failed_precondition(policy + " is to see outer packets");
  }
  const Result<RouteInfo> route = route_of(flow, since);
  if (!route.ok()) return route.status();
  if (!route->source.v4) return failed_precondition("the route has no source address");
  return OuterWay{.ifindex = route->ifindex,
                  .source = route->source.v4,
                  .next_hop = route->gateway.is_set() ? route->gateway : IpAddress::from_v4(flow.dst),
                  .max_packet = route->mtu};
}

Result<Encapsulation> VxlanEncapsulator::encapsulate(const ConnectionKey& key, const TunnelMetadata* metadata) {
  // This says nothing about the port.
  if (key.proto != kProtoTcp || (key.eth_dst[0] & 1) != 0) return unimplemented("only TCP to one host is encapsulated");
  Result<Encapsulation> result = try_encapsulate(key, metadata);
  note(result.status());
  return result;
}

void VxlanEncapsulator::note(const Status& status) {
  MutexLock lock(mutex_);
  problem_ = status.ok() ? "" : status.message();
}

Result<Encapsulation> VxlanEncapsulator::try_encapsulate(const ConnectionKey& key, const TunnelMetadata* metadata) {
  const Result<VxlanPlan> plan = plan_connection(config_, key, metadata);
  if (!plan.ok()) return plan.status();
  const UdpSenderOptions way{plan->remote.family, plan->df, plan->checksum};
  const Result<be16> port = bound_port(senders_->fd(way, flow_hash(flow_key_of(key, 0))));
  if (!port.ok()) return port.status();
  Encapsulation result;
  result.flow = {.src = plan->local.v4,
                 .dst = plan->remote.v4,
                 .src_port = *port,
                 .dst_port = to_be16(plan->dst_port),
                 .tos = plan->tos,
                 .mark = plan->mark};
  const Result<OuterWay> outer = try_way_of(result.flow, environment_.clock.now() - kFresh);
  if (!outer.ok()) return outer.status();
  result.way = *outer;
  write_headers(*plan, key, result);
  return result;
}

}  // namespace vswitch
