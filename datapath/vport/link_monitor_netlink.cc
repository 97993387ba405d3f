// LinkMonitor on rtnetlink. Two sockets: `events_` hears notifications on the monitor's own thread; `requests_` asks.
//
// Questions (find, route_to, is_local_address) go to the kernel each time and not to a copy: an answer from a copy
// could be older than a device that somebody made a moment ago. What is kept is only each device's names, because a
// notification of a rename tells the new name and not the old one.

#include <errno.h>
#include <fmt/format.h>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <netlink/cache.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <set>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <vector>

#include "datapath/base/rcu.h"
#include "datapath/base/thread_name.h"
#include "datapath/base/unique_fd.h"
#include "datapath/vport/link_monitor.h"
#include "datapath/vport/netlink.h"

namespace vswitch {
namespace {

constexpr uint8_t kDscpMask = 0xfc;
constexpr int kEventBuffer = 4 << 20;  // bytes; about ten thousand notifications between two looks

std::string errno_text(int error) { return std::generic_category().message(error); }

// ---- decoding

// A device as a message describes it, with every name that it answers to.
struct Link {
  LinkInfo info;
  std::vector<std::string> names;  // info.name first, then alternative names
};

void append_alternative_names(nl_msg* message, std::vector<std::string>& names) {
  nlattr* properties = nlmsg_find_attr(nlmsg_hdr(message), sizeof(ifinfomsg), IFLA_PROP_LIST);
  if (properties == nullptr) return;
  nlattr* property;
  int remaining;
  nla_for_each_nested(property, properties, remaining) {
    if (nla_type(property) == IFLA_ALT_IFNAME) names.emplace_back(nla_get_string(property));
  }
}

std::string link_kind(nl_msg* message) {
  nlattr* info = nlmsg_find_attr(nlmsg_hdr(message), sizeof(ifinfomsg), IFLA_LINKINFO);
  nlattr* kind =
      info == nullptr ? nullptr : nla_find(static_cast<nlattr*>(nla_data(info)), nla_len(info), IFLA_INFO_KIND);
  return kind == nullptr ? "" : nla_get_string(kind);
}

// Null for messages of bridge ports (family AF_BRIDGE): their "deletion" is only a port leaving its bridge.
std::optional<Link> decode_link(nl_msg* message) {
  nlmsghdr* header = nlmsg_hdr(message);
  if (!nlmsg_valid_hdr(header, sizeof(ifinfomsg))) return std::nullopt;
  const auto* about = static_cast<const ifinfomsg*>(nlmsg_data(header));
  nlattr* name = nlmsg_find_attr(header, sizeof(ifinfomsg), IFLA_IFNAME);
  if (about->ifi_family != AF_UNSPEC || name == nullptr) return std::nullopt;
  Link link;
  link.info.name = nla_get_string(name);
  link.info.ifindex = static_cast<uint32_t>(about->ifi_index);
  link.info.up = (about->ifi_flags & IFF_UP) != 0;
  link.info.carrier = (about->ifi_flags & IFF_LOWER_UP) != 0;
  link.info.loopback = (about->ifi_flags & IFF_LOOPBACK) != 0;
  link.info.ethernet = about->ifi_type == ARPHRD_ETHER || about->ifi_type == ARPHRD_LOOPBACK;
  if (nlattr* mtu = nlmsg_find_attr(header, sizeof(ifinfomsg), IFLA_MTU)) link.info.mtu = nla_get_u32(mtu);
  if (nlattr* mtu = nlmsg_find_attr(header, sizeof(ifinfomsg), IFLA_MIN_MTU)) link.info.min_mtu = nla_get_u32(mtu);
  if (nlattr* mtu = nlmsg_find_attr(header, sizeof(ifinfomsg), IFLA_MAX_MTU)) link.info.max_mtu = nla_get_u32(mtu);
  nlattr* address = nlmsg_find_attr(header, sizeof(ifinfomsg), IFLA_ADDRESS);
  if (address != nullptr && nla_len(address) == static_cast<int>(link.info.mac.bytes.size())) {
    std::memcpy(link.info.mac.bytes.data(), nla_data(address), link.info.mac.bytes.size());
  }
  link.info.kind = link_kind(message);
  link.names.push_back(link.info.name);
  append_alternative_names(message, link.names);
  return link;
}

IpAddress to_ip_address(nl_addr* address) {
  if (address == nullptr) return {};
  const void* bytes = nl_addr_get_binary_addr(address);
  switch (nl_addr_get_len(address)) {
    case 4:
      return IpAddress::from_v4(load_unaligned<be32>(bytes));
    case 16:
      return IpAddress::from_v6(load_unaligned<Ipv6Address>(bytes));
    default:
      return {};
  }
}

void capture_object(nl_object* object, void* arg) {
  nl_object_get(object);
  *static_cast<nl_object**>(arg) = object;
}

// The route in an answer to RTM_GETROUTE; device name and MTU are not filled in unless the route tells them.
std::optional<RouteInfo> decode_route(nl_msg* message) {
  nl_object* object = nullptr;
  if (nl_msg_parse(message, capture_object, &object) < 0 || object == nullptr) return std::nullopt;
  auto* route = reinterpret_cast<rtnl_route*>(object);
  RouteInfo info;
  info.local = rtnl_route_get_type(route) == RTN_LOCAL;
  info.unicast = rtnl_route_get_type(route) == RTN_UNICAST;
  info.lightweight_tunnel = nlmsg_find_attr(nlmsg_hdr(message), sizeof(rtmsg), RTA_ENCAP) != nullptr;
  info.source = to_ip_address(rtnl_route_get_pref_src(route));
  if (rtnl_nexthop* hop = rtnl_route_get_nnexthops(route) > 0 ? rtnl_route_nexthop_n(route, 0) : nullptr) {
    info.ifindex = static_cast<uint32_t>(rtnl_route_nh_get_ifindex(hop));
    info.gateway = to_ip_address(rtnl_route_nh_get_gateway(hop));
    if (!info.gateway.is_set()) info.gateway = to_ip_address(rtnl_route_nh_get_via(hop));
  }
  uint32_t mtu = 0;
  if (rtnl_route_get_metric(route, RTAX_MTU, &mtu) == 0) info.mtu = mtu;
  nl_object_put(object);
  return info;
}

// ---- subscriptions

struct Watcher {
  std::string name;  // link watchers
  LinkMonitor::LinkCallback on_link;
  LinkMonitor::RouteCallback on_routes;
  // Held while the callback runs. Recursive, because a callback may end its own subscription.
  std::recursive_mutex running;
  bool ended = false;
};

// The subscriptions; outlives the monitor as long as handles exist.
class Watchers {
 public:
  std::shared_ptr<void> add(const std::shared_ptr<Watchers>& self, std::shared_ptr<Watcher> watcher) {
    {
      MutexLock lock(mutex_);
      watchers_.push_back(watcher);
    }
    return {watcher.get(), [self, watcher](void*) { self->remove(watcher); }};
  }

  // Tells those who watch `name`.
  void link_changed(const std::string& name, const LinkInfo* link) {
    for (const auto& watcher : select([&](const Watcher& w) { return w.on_link && w.name == name; })) {
      const std::lock_guard lock(watcher->running);
      if (!watcher->ended) watcher->on_link(name, link);
    }
  }
  void routes_changed() {
    for (const auto& watcher : select([](const Watcher& w) { return static_cast<bool>(w.on_routes); })) {
      const std::lock_guard lock(watcher->running);
      if (!watcher->ended) watcher->on_routes();
    }
  }
  std::set<std::string> watched_names() const {
    std::set<std::string> names;
    MutexLock lock(mutex_);
    for (const auto& watcher : watchers_) {
      if (watcher->on_link) names.insert(watcher->name);
    }
    return names;
  }

 private:
  template <typename Predicate>
  std::vector<std::shared_ptr<Watcher>> select(Predicate wanted) const {
    std::vector<std::shared_ptr<Watcher>> selected;
    MutexLock lock(mutex_);
    for (const auto& watcher : watchers_) {
      if (wanted(*watcher)) selected.push_back(watcher);
    }
    return selected;
  }

  void remove(const std::shared_ptr<Watcher>& watcher) {
    {
      MutexLock lock(mutex_);
      std::erase(watchers_, watcher);
    }
    // Waits for a callback that is running; which itself may be waiting for all RCU readers, and this may be one.
    const rcu::Offline offline;
    const std::lock_guard lock(watcher->running);
    watcher->ended = true;
  }

  mutable Mutex mutex_;
  std::vector<std::shared_ptr<Watcher>> watchers_ GUARDED_BY(mutex_);
};

// ---- the monitor

class NetlinkLinkMonitor final : public LinkMonitor {
 public:
  static Result<std::unique_ptr<LinkMonitor>> open();
  ~NetlinkLinkMonitor() override;

  std::optional<LinkInfo> find(std::string_view name) const override;
  std::optional<LinkInfo> find(uint32_t ifindex) const override;
  std::optional<LinkInfo> find_without_speed(uint32_t ifindex) const override;
  Result<RouteInfo> route_to(const IpAddress& destination, const IpAddress& source, uint32_t mark) const override {
    return route_of({.destination = destination, .source = source, .mark = mark});
  }
  Result<RouteInfo> route_of(const RouteQuery& query) const override;
  bool is_local_address(const IpAddress& address) const override;
  Status set_up(std::string_view name, bool up) override;
  Status set_mtu(std::string_view name, uint32_t mtu) override;
  Status set_mac(std::string_view name, const MacAddress& mac) override;
  std::shared_ptr<void> watch_link(std::string name, LinkCallback callback) override;
  std::shared_ptr<void> watch_routes(RouteCallback callback) override;

 private:
  NetlinkLinkMonitor() = default;

  Status open_sockets();
  void run();
  void drain_events();
  void handle(nl_msg* message);
  void link_news(nl_msg* message);
  void link_gone(nl_msg* message);
  void resynchronize();
  void deliver();

  std::optional<LinkInfo> ask_link(nl_msg* message) const;  // all but its speed
  std::optional<LinkInfo> with_speed(std::optional<LinkInfo> link) const;
  uint64_t link_speed(const std::string& name) const;
  // Sends a RTM_NEWLINK for the device called `name` after `fill` has added what to change.
  Status change_link(std::string_view name, const std::string& what, const std::function<void(ifinfomsg&)>& flags,
                     const std::function<void(nl_msg*)>& fill);

  std::unique_ptr<NetlinkRequests> requests_;
  NetlinkSocketPtr events_;
  UniqueFd stop_;
  UniqueFd ioctls_;  // any socket will do; it pins the namespace
  const std::shared_ptr<Watchers> watchers_ = std::make_shared<Watchers>();

  // Monitor thread only.
  std::unordered_map<uint32_t, std::vector<std::string>> names_;  // by ifindex
  std::vector<std::string> changed_links_;
  bool routes_changed_ = false;

  std::thread thread_;
};

Result<std::unique_ptr<LinkMonitor>> NetlinkLinkMonitor::open() {
  std::unique_ptr<NetlinkLinkMonitor> monitor(new NetlinkLinkMonitor);
  VSWITCH_RETURN_IF_ERROR(monitor->open_sockets());
  monitor->resynchronize();
  monitor->changed_links_.clear();  // nobody watches yet
  monitor->routes_changed_ = false;
  monitor->thread_ = std::thread([raw = monitor.get()] { raw->run(); });
  return std::unique_ptr<LinkMonitor>(std::move(monitor));
}

int on_event(nl_msg* message, void* arg) {
  (*static_cast<const std::function<void(nl_msg*)>*>(arg))(message);
  return NL_OK;
}

Status NetlinkLinkMonitor::open_sockets() {
  auto requests = NetlinkRequests::open();
  if (!requests) return requests.status();
  requests_ = std::move(*requests);
  stop_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  ioctls_.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  events_.reset(nl_socket_alloc());
  if (!events_ || !stop_) return resource_exhausted("no memory or descriptors for the link monitor");
  nl_socket_disable_seq_check(events_.get());  // notifications answer no question
  if (const int error = nl_connect(events_.get(), NETLINK_ROUTE); error < 0) {
    return unavailable(fmt::format("cannot open a netlink socket: {}", nl_geterror(error)));
  }
  nl_socket_set_nonblocking(events_.get());
  const int fd = nl_socket_get_fd(events_.get());
  if (::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kEventBuffer, sizeof kEventBuffer) != 0) {
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kEventBuffer, sizeof kEventBuffer);
  }
  for (const int group : {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
                          RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_NEIGH}) {
    if (const int error = nl_socket_add_membership(events_.get(), group); error < 0) {
      return unavailable(fmt::format("cannot subscribe to netlink notifications: {}", nl_geterror(error)));
    }
  }
  return {};
}

NetlinkLinkMonitor::~NetlinkLinkMonitor() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

void NetlinkLinkMonitor::run() {
  name_this_thread("link-monitor");
  std::array<pollfd, 2> wait = {{{nl_socket_get_fd(events_.get()), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
  for (;;) {
    if (::poll(wait.data(), wait.size(), -1) < 0 && errno != EINTR) return;
    if (wait[1].revents != 0) return;
    if (wait[0].revents != 0) drain_events();
    deliver();
  }
}

void NetlinkLinkMonitor::drain_events() {
  std::function<void(nl_msg*)> handler = [this](nl_msg* message) { handle(message); };
  nl_socket_modify_cb(events_.get(), NL_CB_VALID, NL_CB_CUSTOM, on_event, &handler);
  for (;;) {
    const int result = nl_recvmsgs_default(events_.get());
    if (result == -NLE_AGAIN) return;
    if (result == -NLE_NOMEM) {  // ENOBUFS: the kernel had more to tell than the socket could hold
      resynchronize();
    } else if (result < 0) {
      return;
    }
  }
}

void NetlinkLinkMonitor::handle(nl_msg* message) {
  switch (nlmsg_hdr(message)->nlmsg_type) {
    case RTM_NEWLINK:
      link_news(message);
      break;
    case RTM_DELLINK:
      link_gone(message);
      break;
    default:
      routes_changed_ = true;
  }
}

void NetlinkLinkMonitor::link_news(nl_msg* message) {
  const std::optional<Link> link = decode_link(message);
  if (!link) return;
  std::vector<std::string>& names = names_[link->info.ifindex];
  for (const std::string& name : names) {
    if (std::find(link->names.begin(), link->names.end(), name) == link->names.end()) changed_links_.push_back(name);
  }
  names = link->names;
  changed_links_.insert(changed_links_.end(), names.begin(), names.end());
  routes_changed_ = true;  // a device going up or down, or its MTU, changes what routes say
}

void NetlinkLinkMonitor::link_gone(nl_msg* message) {
  const std::optional<Link> link = decode_link(message);
  if (!link) return;
  changed_links_.insert(changed_links_.end(), link->names.begin(), link->names.end());
  if (const auto known = names_.find(link->info.ifindex); known != names_.end()) {
    changed_links_.insert(changed_links_.end(), known->second.begin(), known->second.end());
    names_.erase(known);
  }
  routes_changed_ = true;
}

// After lost notifications: reads every device again and lets all watchers look.
void NetlinkLinkMonitor::resynchronize() {
  names_.clear();
  const NetlinkMessagePtr message = make_netlink_message(RTM_GETLINK, NLM_F_DUMP);
  ifinfomsg about{};
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  requests_->run(message.get(), [this](nl_msg* answer) {
    if (std::optional<Link> link = decode_link(answer)) names_[link->info.ifindex] = std::move(link->names);
  });
  const std::set<std::string> watched = watchers_->watched_names();
  changed_links_.insert(changed_links_.end(), watched.begin(), watched.end());
  routes_changed_ = true;
}

// Tells watchers, each name once, with what the kernel says now: what happened in between does not matter.
void NetlinkLinkMonitor::deliver() {
  std::sort(changed_links_.begin(), changed_links_.end());
  changed_links_.erase(std::unique(changed_links_.begin(), changed_links_.end()), changed_links_.end());
  const std::set<std::string> watched = watchers_->watched_names();
  for (const std::string& name : std::exchange(changed_links_, {})) {
    if (!watched.contains(name)) continue;
    const std::optional<LinkInfo> link = find(name);
    watchers_->link_changed(name, link ? &*link : nullptr);
  }
  if (std::exchange(routes_changed_, false)) watchers_->routes_changed();
}

// ---- questions

std::optional<LinkInfo> NetlinkLinkMonitor::ask_link(nl_msg* message) const {
  std::optional<LinkInfo> found;
  const int error = requests_->run(message, [&](nl_msg* answer) {
    if (std::optional<Link> link = decode_link(answer)) found = std::move(link->info);
  });
  return error == 0 ? found : std::nullopt;
}

std::optional<LinkInfo> NetlinkLinkMonitor::with_speed(std::optional<LinkInfo> link) const {
  if (link) link->speed_bps = link_speed(link->name);
  return link;
}

std::optional<LinkInfo> NetlinkLinkMonitor::find(std::string_view name) const {
  if (name.empty() || name.size() >= ALTIFNAMSIZ) return std::nullopt;
  const NetlinkMessagePtr message = make_netlink_message(RTM_GETLINK, 0);
  ifinfomsg about{};
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  // The kernel finds a device by any of its names; a name that is too long for the first attribute needs the second.
  nla_put_string(message.get(), name.size() < IFNAMSIZ ? IFLA_IFNAME : IFLA_ALT_IFNAME, std::string(name).c_str());
  return with_speed(ask_link(message.get()));
}

std::optional<LinkInfo> NetlinkLinkMonitor::find(uint32_t ifindex) const {
  return with_speed(find_without_speed(ifindex));
}

std::optional<LinkInfo> NetlinkLinkMonitor::find_without_speed(uint32_t ifindex) const {
  if (ifindex == 0) return std::nullopt;
  const NetlinkMessagePtr message = make_netlink_message(RTM_GETLINK, 0);
  ifinfomsg about{};
  about.ifi_index = static_cast<int>(ifindex);
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  return ask_link(message.get());
}

// Bits per second, 0 when the device does not tell.
uint64_t NetlinkLinkMonitor::link_speed(const std::string& name) const {
  ifreq request{};
  if (name.size() >= sizeof request.ifr_name) return 0;
  std::memcpy(request.ifr_name, name.data(), name.size());
  // The settings are followed by three bitmaps, whose length the first call asks for.
  alignas(ethtool_link_settings) std::array<uint8_t, sizeof(ethtool_link_settings) + 3 * 127 * sizeof(uint32_t)>
      buffer{};
  auto* settings = reinterpret_cast<ethtool_link_settings*>(buffer.data());
  request.ifr_data = reinterpret_cast<char*>(buffer.data());
  settings->cmd = ETHTOOL_GLINKSETTINGS;
  if (::ioctl(ioctls_.get(), SIOCETHTOOL, &request) != 0 || settings->link_mode_masks_nwords >= 0) return 0;
  settings->cmd = ETHTOOL_GLINKSETTINGS;
  settings->link_mode_masks_nwords = static_cast<int8_t>(-settings->link_mode_masks_nwords);
  if (::ioctl(ioctls_.get(), SIOCETHTOOL, &request) != 0) return 0;
  const uint32_t megabits = settings->speed;
  return megabits == 0 || megabits >= 0x7fffffff ? 0 : megabits * uint64_t{1000000};
}

void put_address(nl_msg* message, int attribute, const IpAddress& address) {
  if (address.is_v6()) {
    nla_put(message, attribute, static_cast<int>(address.v6.bytes.size()), address.v6.bytes.data());
  } else {
    nla_put_u32(message, attribute, address.v4.raw());
  }
}

Result<RouteInfo> NetlinkLinkMonitor::route_of(const RouteQuery& query) const {
  const IpAddress &destination = query.destination, &source = query.source;
  if (destination.is_unspecified()) return invalid_argument("no route: the destination is not given");
  const NetlinkMessagePtr message = make_netlink_message(RTM_GETROUTE, 0);
  const auto prefix = static_cast<uint8_t>(destination.is_v6() ? 128 : 32);
  rtmsg about{};
  about.rtm_family = destination.is_v6() ? AF_INET6 : AF_INET;
  about.rtm_dst_len = prefix;
  about.rtm_tos = query.tos & kDscpMask;
  const bool use_source = source.family == destination.family && !source.is_unspecified();
  if (use_source) about.rtm_src_len = prefix;
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  put_address(message.get(), RTA_DST, destination);
  if (use_source) put_address(message.get(), RTA_SRC, source);
  if (query.mark != 0) nla_put_u32(message.get(), RTA_MARK, query.mark);
  if (query.src_port && query.dst_port) {
    nla_put_u8(message.get(), RTA_IP_PROTO, IPPROTO_UDP);
    nla_put_u16(message.get(), RTA_SPORT, query.src_port.raw());
    nla_put_u16(message.get(), RTA_DPORT, query.dst_port.raw());
  }

  std::optional<RouteInfo> route;
  const int error = requests_->run(message.get(), [&](nl_msg* answer) { route = decode_route(answer); });
  if (error == 0 && route && route->ifindex != 0) {
    if (const auto link = query.device ? find_without_speed(route->ifindex) : std::nullopt) {
      route->device = link->name;
      if (route->mtu == 0) route->mtu = link->mtu;
    }
    if (use_source && !route->source.is_set()) route->source = source;
    return *route;
  }
  return failed_precondition(
      fmt::format("no route to {}{}", destination.to_string(), error == 0 ? "" : ": " + errno_text(error)));
}

bool NetlinkLinkMonitor::is_local_address(const IpAddress& address) const {
  if (address.is_unspecified() || address.is_multicast()) return false;
  const Result<RouteInfo> route = route_to(address, {}, 0);
  return route.ok() && route->local;
}

// ---- changes

Status NetlinkLinkMonitor::change_link(std::string_view name, const std::string& what,
                                       const std::function<void(ifinfomsg&)>& flags,
                                       const std::function<void(nl_msg*)>& fill) {
  const std::optional<LinkInfo> link = find(name);
  if (!link) return not_found(fmt::format("device {} does not exist", name));
  const NetlinkMessagePtr message = make_netlink_message(RTM_NEWLINK, NLM_F_ACK);
  ifinfomsg about{};
  about.ifi_index = static_cast<int>(link->ifindex);
  if (flags) flags(about);
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  if (fill) fill(message.get());
  const int error = requests_->run(message.get());
  if (error == 0) return {};
  std::string text = fmt::format("device {}: cannot set {}: {}", name, what, errno_text(error));
  if (error == EINVAL || error == EADDRNOTAVAIL || error == ERANGE) return invalid_argument(std::move(text));
  return failed_precondition(std::move(text));
}

Status NetlinkLinkMonitor::set_up(std::string_view name, bool up) {
  return change_link(name, up ? "it up" : "it down",
                     [up](ifinfomsg& about) {
                       about.ifi_flags = up ? IFF_UP : 0;
                       about.ifi_change = IFF_UP;
                     },
                     {});
}

Status NetlinkLinkMonitor::set_mtu(std::string_view name, uint32_t mtu) {
  return change_link(name, fmt::format("MTU {}", mtu), {},
                     [mtu](nl_msg* message) { nla_put_u32(message, IFLA_MTU, mtu); });
}

Status NetlinkLinkMonitor::set_mac(std::string_view name, const MacAddress& mac) {
  return change_link(name, "MAC address " + mac.to_string(), {}, [&mac](nl_msg* message) {
    nla_put(message, IFLA_ADDRESS, static_cast<int>(mac.bytes.size()), mac.bytes.data());
  });
}

std::shared_ptr<void> NetlinkLinkMonitor::watch_link(std::string name, LinkCallback callback) {
  auto watcher = std::make_shared<Watcher>();
  watcher->name = std::move(name);
  watcher->on_link = std::move(callback);
  return watchers_->add(watchers_, std::move(watcher));
}

std::shared_ptr<void> NetlinkLinkMonitor::watch_routes(RouteCallback callback) {
  auto watcher = std::make_shared<Watcher>();
  watcher->on_routes = std::move(callback);
  return watchers_->add(watchers_, std::move(watcher));
}

}  // namespace

Result<std::unique_ptr<LinkMonitor>> make_link_monitor() { return NetlinkLinkMonitor::open(); }

}  // namespace vswitch
