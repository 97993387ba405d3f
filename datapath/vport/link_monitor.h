// LinkMonitor: what the kernel says about network devices in the daemon's namespace, and when it changes (rtnetlink
// through libnl-route). Also the few changes that ports make to devices (up/down, MTU, MAC, promiscuous).
//
// Thread safety: all functions may be called from any thread. Callbacks run on the monitor's own thread, one at a time,
// and must not block for long; they may call back into the monitor. Not for the packet path.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "datapath/base/address.h"
#include "datapath/base/status.h"

namespace vswitch {

struct LinkInfo {
  std::string name;
  uint32_t ifindex = 0;
  uint32_t mtu = 0;
  MacAddress mac{};
  bool up = false;        // IFF_UP
  bool carrier = false;   // IFF_LOWER_UP
  bool loopback = false;  // IFF_LOOPBACK
  bool ethernet = true;   // frames have Ethernet headers
  uint32_t min_mtu = 0;   // what the device lets its MTU be set to; 0: does not tell
  uint32_t max_mtu = 0;
  std::string kind;  // veth, tun, bridge, vxlan, ... "" for physical
  uint64_t speed_bps = 0;
};

struct RouteInfo {
  uint32_t ifindex = 0;
  std::string device;
  IpAddress source;                 // preferred source address
  IpAddress gateway;                // not set: on link
  uint32_t mtu = 0;                 // of the route, else of the device
  bool local = false;               // destination is one of our own addresses
  bool unicast = true;              // no local, broadcast, multicast, blackhole, ... route
  bool lightweight_tunnel = false;  // the route itself encapsulates (MPLS, IP in IP, ...)
};

// What a route is asked for. Not set or 0: not given. For the UDP ports to count (rules of policy routing, multipath),
// both have to be given.
struct RouteQuery {
  IpAddress destination, source;
  uint32_t mark = 0;
  uint8_t tos = 0;
  be16 src_port{}, dst_port{};  // UDP
  // Whether to look the device up, too, for its name, and for its MTU where the route has none of its own.
  bool device = true;
};

class LinkMonitor {
 public:
  // Called with the link's name; `link` is null when it is gone. A rename is gone + new.
  using LinkCallback = std::function<void(const std::string& name, const LinkInfo* link)>;
  // Called when addresses, routes or neighbours change: cached routes are stale.
  using RouteCallback = std::function<void()>;

  virtual ~LinkMonitor() = default;

  virtual std::optional<LinkInfo> find(std::string_view name) const = 0;
  virtual std::optional<LinkInfo> find(uint32_t ifindex) const = 0;
  // The same without speed_bps, for which the driver has to be asked.
  virtual std::optional<LinkInfo> find_without_speed(uint32_t ifindex) const { return find(ifindex); }
  virtual Result<RouteInfo> route_to(const IpAddress& destination, const IpAddress& source, uint32_t mark) const = 0;
  // The same, as a UDP socket would get it.
  virtual Result<RouteInfo> route_of(const RouteQuery& query) const {
    return route_to(query.destination, query.source, query.mark);
  }
  virtual bool is_local_address(const IpAddress& address) const = 0;

  virtual Status set_up(std::string_view name, bool up) = 0;
  virtual Status set_mtu(std::string_view name, uint32_t mtu) = 0;
  virtual Status set_mac(std::string_view name, const MacAddress& mac) = 0;

  // A subscription ends when the returned handle is destroyed; no callback runs after that returns.
  [[nodiscard]] virtual std::shared_ptr<void> watch_link(std::string name, LinkCallback callback) = 0;
  [[nodiscard]] virtual std::shared_ptr<void> watch_routes(RouteCallback callback) = 0;
};

// The real one. Fails when netlink sockets cannot be opened.
Result<std::unique_ptr<LinkMonitor>> make_link_monitor();

}  // namespace vswitch
