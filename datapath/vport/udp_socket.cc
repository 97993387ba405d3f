#include "datapath/vport/udp_socket.h"

#include <errno.h>
#include <fmt/format.h>
#include <linux/filter.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <netlink/cache.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <netlink/route/link/vxlan.h>
#include <sys/socket.h>

#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <system_error>

namespace vswitch {
namespace {

constexpr int kSocketBuffer = 4 << 20;  // bytes; rides out a few milliseconds in which no thread is here

std::string errno_text(int error) { return std::generic_category().message(error); }

bool set_option(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

int to_af(IpAddress::Family family) { return family == IpAddress::Family::v6 ? AF_INET6 : AF_INET; }

const char* family_name(IpAddress::Family family) { return family == IpAddress::Family::v6 ? "IPv6" : "IPv4"; }

Status system_error(const std::string& what, int error) {
  const std::string text = fmt::format("{}: {}", what, errno_text(error));
  if (error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS) return resource_exhausted(text);
  return internal_error(text);
}

Result<UniqueFd> open_socket(IpAddress::Family family) {
  UniqueFd fd(socket(to_af(family), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP));
  if (!fd && errno == EAFNOSUPPORT) {
    return unimplemented(fmt::format("{} is not available on this host", family_name(family)));
  }
  if (!fd) return system_error("cannot open a UDP socket", errno);
  if (family == IpAddress::Family::v6 && !set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1)) {
    return system_error("cannot restrict a UDP socket to IPv6", errno);
  }
  return fd;
}

int bind_any(int fd, IpAddress::Family family, uint16_t port) {
  sockaddr_in6 v6{};
  sockaddr_in v4{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  const bool is_v6 = family == IpAddress::Family::v6;
  const auto* address = is_v6 ? reinterpret_cast<const sockaddr*>(&v6) : reinterpret_cast<const sockaddr*>(&v4);
  return bind(fd, address, is_v6 ? sizeof v6 : sizeof v4) == 0 ? 0 : errno;
}

// SO_RCVBUF is limited by a sysctl, its FORCE twin needs a privilege: whichever gives more.
void grow_buffer(int fd, int option, int force_option) {
  if (!set_option(fd, SOL_SOCKET, force_option, kSocketBuffer)) set_option(fd, SOL_SOCKET, option, kSocketBuffer);
}

bool ask_for_metadata(int fd, IpAddress::Family family) {
  if (family == IpAddress::Family::v6) {
    return set_option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) && set_option(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1) &&
           set_option(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1) && set_option(fd, IPPROTO_UDP, UDP_NO_CHECK6_RX, 1);
  }
  return set_option(fd, IPPROTO_IP, IP_PKTINFO, 1) && set_option(fd, IPPROTO_IP, IP_RECVTOS, 1) &&
         set_option(fd, IPPROTO_IP, IP_RECVTTL, 1);
}

bool throw_away_input(int fd) {
  sock_filter drop_all[] = {{BPF_RET | BPF_K, 0, 0, 0}};
  const sock_fprog program{1, drop_all};
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

bool set_fragmentation(int fd, const UdpSenderOptions& options) {
  if (options.family == IpAddress::Family::v6) {
    return set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER,
                      options.dont_fragment ? IPV6_PMTUDISC_DO : IPV6_PMTUDISC_DONT);
  }
  return set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, options.dont_fragment ? IP_PMTUDISC_DO : IP_PMTUDISC_DONT);
}

bool set_ttl(int fd, IpAddress::Family family) {
  if (family == IpAddress::Family::v6) {
    return set_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, kUdpSenderTtl) &&
           set_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, kUdpSenderTtl);
  }
  return set_option(fd, IPPROTO_IP, IP_TTL, kUdpSenderTtl) &&
         set_option(fd, IPPROTO_IP, IP_MULTICAST_TTL, kUdpSenderTtl);
}

bool set_checksum(int fd, const UdpSenderOptions& options) {
  if (options.checksum) return true;
  if (options.family == IpAddress::Family::v6) return set_option(fd, IPPROTO_UDP, UDP_NO_CHECK6_TX, 1);
  return set_option(fd, SOL_SOCKET, SO_NO_CHECK, 1);
}

// ---- who has the port

// Inodes of the sockets bound to `port`, from /proc/net/udp or udp6 of the calling thread's namespace.
void collect_inodes(const char* table, uint16_t port, std::set<std::string>& inodes) {
  std::ifstream file(table);
  std::string line;
  std::getline(file, line);  // titles
  const std::string suffix = fmt::format(":{:04X}", port);
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string field, local;
    fields >> field >> local;
    if (!local.ends_with(suffix)) continue;
    // remote, state, queues, timer, retransmits, uid, timeout, inode
    for (int i = 0; i < 8 && fields >> field; ++i) {
    }
    inodes.insert(field);
  }
}

bool holds_socket(const std::filesystem::path& process, const std::set<std::string>& inodes) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(process / "fd", error), end; !error && it != end; it.increment(error)) {
    std::error_code unreadable;
    const std::string target = std::filesystem::read_symlink(it->path(), unreadable).string();
    if (target.starts_with("socket:[") && inodes.contains(target.substr(8, target.size() - 9))) return true;
  }
  return false;
}

std::string find_process(const std::set<std::string>& inodes) {
  std::error_code error;
  for (std::filesystem::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const std::string pid = it->path().filename().string();
    if (pid.empty() || pid.find_first_not_of("0123456789") != std::string::npos) continue;
    if (!holds_socket(it->path(), inodes)) continue;
    std::string command;
    std::getline(std::ifstream(it->path() / "comm"), command);
    return fmt::format("process {} ({})", pid, command);
  }
  return {};
}

struct NetlinkCacheDeleter {
  void operator()(nl_cache* cache) const { nl_cache_free(cache); }
};
struct NetlinkCloser {
  void operator()(nl_sock* socket) const { nl_socket_free(socket); }
};

// A Linux vxlan device listens with a socket of the kernel, which no process owns.
std::string find_vxlan_device(uint16_t port) {
  const std::unique_ptr<nl_sock, NetlinkCloser> socket(nl_socket_alloc());
  if (!socket || nl_connect(socket.get(), NETLINK_ROUTE) < 0) return {};
  nl_cache* links = nullptr;
  if (rtnl_link_alloc_cache(socket.get(), AF_UNSPEC, &links) < 0) return {};
  const std::unique_ptr<nl_cache, NetlinkCacheDeleter> owner(links);
  for (nl_object* object = nl_cache_get_first(links); object != nullptr; object = nl_cache_get_next(object)) {
    auto* link = reinterpret_cast<rtnl_link*>(object);
    uint32_t used = 0;
    if (rtnl_link_is_vxlan(link) && rtnl_link_vxlan_get_port(link, &used) == 0 && used == port) {
      return fmt::format("the kernel (vxlan device {})", rtnl_link_get_name(link));
    }
  }
  return {};
}

}  // namespace

std::string udp_port_owner(uint16_t port) {
  std::set<std::string> inodes;
  collect_inodes("/proc/thread-self/net/udp", port, inodes);
  collect_inodes("/proc/thread-self/net/udp6", port, inodes);
  std::string owner = find_process(inodes);
  if (owner.empty()) owner = find_vxlan_device(port);
  return owner.empty() ? "another socket" : owner;
}

Result<UniqueFd> open_udp_receiver(IpAddress::Family family, uint16_t port) {
  Result<UniqueFd> fd = open_socket(family);
  if (!fd.ok()) return fd;
  grow_buffer(fd->get(), SO_RCVBUF, SO_RCVBUFFORCE);
  if (!ask_for_metadata(fd->get(), family)) return system_error("cannot set up a UDP socket", errno);
  set_option(fd->get(), IPPROTO_UDP, UDP_GRO, 1);  // kernels before 5.0 deliver one by one
  switch (const int error = bind_any(fd->get(), family, port)) {
    case 0:
      return fd;
    case EADDRINUSE:
      return failed_precondition(
          fmt::format("UDP port {} ({}) is in use by {}", port, family_name(family), udp_port_owner(port)));
    case EADDRNOTAVAIL:
      return unimplemented(fmt::format("{} is not available on this host", family_name(family)));
    default:
      return system_error(fmt::format("cannot listen on UDP port {} ({})", port, family_name(family)), error);
  }
}

namespace {

Result<UniqueFd> prepare_sender(const UdpSenderOptions& options) {
  Result<UniqueFd> fd = open_socket(options.family);
  if (!fd.ok()) return fd;
  grow_buffer(fd->get(), SO_SNDBUF, SO_SNDBUFFORCE);
  set_option(fd->get(), SOL_SOCKET, SO_RCVBUF, 0);
  if (!throw_away_input(fd->get()) || !set_fragmentation(fd->get(), options) || !set_ttl(fd->get(), options.family) ||
      !set_checksum(fd->get(), options)) {
    return system_error("cannot set up a UDP socket", errno);
  }
  return fd;
}

Status bind_sender(const UniqueFd& fd, const UdpSenderOptions& options, uint16_t port) {
  switch (const int error = bind_any(fd.get(), options.family, port)) {
    case 0:
      return {};
    case EADDRINUSE:
      return failed_precondition(fmt::format("UDP port {} ({}) is in use", port, family_name(options.family)));
    default:
      return system_error(fmt::format("cannot bind to UDP port {} ({})", port, family_name(options.family)), error);
  }
}

}  // namespace

Result<UniqueFd> open_udp_sender(const UdpSenderOptions& options, uint16_t port) {
  Result<UniqueFd> fd = prepare_sender(options);
  if (!fd.ok()) return fd;
  VSWITCH_RETURN_IF_ERROR(bind_sender(*fd, options, port));
  return fd;
}

Result<UniqueFd> open_udp_sender_beside(const UdpSenderOptions& options, uint16_t port, const UniqueFd& first) {
  Result<UniqueFd> fd = prepare_sender(options);
  if (!fd.ok()) return fd;
  // The port is ours already; it is opened to a second socket just for the moment of binding it.
  const int ends[] = {first.get(), fd->get()};
  for (const int end : ends) set_option(end, SOL_SOCKET, SO_REUSEPORT, 1);
  const Status bound = bind_sender(*fd, options, port);
  for (const int end : ends) set_option(end, SOL_SOCKET, SO_REUSEPORT, 0);
  if (!bound.ok()) return bound;
  return fd;
}

}  // namespace vswitch
