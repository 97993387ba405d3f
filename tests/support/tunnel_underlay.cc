#include "tests/support/tunnel_underlay.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/udp.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <netlink/route/link.h>
#include <netlink/route/link/vxlan.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>

#include "datapath/vport/netlink.h"
#include "datapath/vport/tunnel_endpoints.h"
#include "datapath/vport/vport_registry.h"

namespace vswitch::test {
namespace {

constexpr const char* kOurDevice = "vxu0";
constexpr const char* kPeerDevice = "vxu1";
constexpr int kDeadlineMs = 10'000;

bool ready(int fd, short events, int timeout_ms) {
  pollfd poll_fd{fd, events, 0};
  return poll(&poll_fd, 1, timeout_ms) == 1;
}
bool readable(int fd, int timeout_ms) { return ready(fd, POLLIN, timeout_ms); }

void disable_ipv6(const std::string& device) {
  std::ofstream("/proc/sys/net/ipv6/conf/" + device + "/disable_ipv6") << 1;
}

}  // namespace

TunnelUnderlay::TunnelUnderlay() {
  add_veth(kOurDevice, kPeerDevice);
  move_link(kPeerDevice, peer_);
  add_address(kOurDevice, std::string(kOurV4) + "/24");
  add_address(kOurDevice, std::string(kOurV6) + "/64");
  peer_.run([] {
    set_link_up("lo");
    set_link_up(kPeerDevice);
    add_address(kPeerDevice, std::string(kPeerV4) + "/24");
    add_address(kPeerDevice, std::string(kPeerV6) + "/64");
  });
}

TunnelUnderlay::~TunnelUnderlay() { delete_link(kOurDevice); }

void TunnelUnderlay::set_mtu(uint32_t mtu) {
  set_link_mtu(kOurDevice, mtu);
  peer_.run([mtu] { set_link_mtu(kPeerDevice, mtu); });
}

// ---------------------------------------------------------------- the peer's sockets

PeerSocket::PeerSocket(const TunnelUnderlay& underlay, bool v6, uint16_t port) : v6_(v6) {
  underlay.peer().run([&] {
    fd_.reset(socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1, buffer = 8 << 20;
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    sockaddr_in6 six{};
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(port);
    sockaddr_in four{};
    four.sin_family = AF_INET;
    four.sin_port = htons(port);
    if (v6) {
      setsockopt(fd_.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
      setsockopt(fd_.get(), IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof on);
      setsockopt(fd_.get(), IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &on, sizeof on);
      setsockopt(fd_.get(), IPPROTO_UDP, UDP_NO_CHECK6_RX, &on, sizeof on);
      EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&six), sizeof six), 0);
    } else {
      setsockopt(fd_.get(), IPPROTO_IP, IP_RECVTOS, &on, sizeof on);
      setsockopt(fd_.get(), IPPROTO_IP, IP_RECVTTL, &on, sizeof on);
      EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&four), sizeof four), 0);
    }
  });
}

std::optional<Datagram> PeerSocket::receive() {
  if (!readable(fd_.get(), kDeadlineMs)) return std::nullopt;
  return receive_now();
}

std::optional<Datagram> PeerSocket::receive_now() {
  Datagram datagram;
  datagram.payload.resize(70'000);
  sockaddr_in6 from{};
  iovec vector{datagram.payload.data(), datagram.payload.size()};
  alignas(8) char control[256];
  msghdr message{&from, sizeof from, &vector, 1, control, sizeof control, 0};
  const ssize_t size = recvmsg(fd_.get(), &message, 0);
  if (size < 0) return std::nullopt;
  datagram.payload.resize(static_cast<size_t>(size));
  datagram.src_port = ntohs(from.sin6_port);  // at the same place for IPv4
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) datagram.tos = *CMSG_DATA(c);
    if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) std::memcpy(&datagram.tos, CMSG_DATA(c), 4);
    const bool is_ttl = (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) ||
                        (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT);
    if (is_ttl) std::memcpy(&datagram.ttl, CMSG_DATA(c), 4);
  }
  return datagram;
}

void PeerSocket::set_tos(int tos) {
  EXPECT_EQ(v6_ ? setsockopt(fd_.get(), IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof tos)
                : setsockopt(fd_.get(), IPPROTO_IP, IP_TOS, &tos, sizeof tos),
            0);
}

void PeerSocket::send(uint16_t to_port, const Bytes& payload, uint16_t segment_size) {
  const int segment = segment_size;
  setsockopt(fd_.get(), IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(to_port);
  inet_pton(AF_INET6, kOurV6, &six.sin6_addr);
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = htons(to_port);
  inet_pton(AF_INET, kOurV4, &four.sin_addr);
  const auto* to = v6_ ? reinterpret_cast<const sockaddr*>(&six) : reinterpret_cast<const sockaddr*>(&four);
  const auto send_now = [&] {
    return sendto(fd_.get(), payload.data(), payload.size(), 0, to, v6_ ? sizeof six : sizeof four);
  };
  ssize_t sent = send_now();
  // Until the neighbour is resolved, which takes a second if its first request is lost, what was sent fills the buffer.
  while (sent < 0 && errno == EAGAIN && ready(fd_.get(), POLLOUT, kDeadlineMs)) sent = send_now();
  EXPECT_EQ(sent, static_cast<ssize_t>(payload.size())) << std::strerror(errno);
}

PeerCapture::PeerCapture(const TunnelUnderlay& underlay) {
  underlay.peer().run([&] {
    fd_.reset(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(if_nametoindex(kPeerDevice));
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  });
}

std::optional<Bytes> PeerCapture::receive_udp(uint16_t eth_type, uint16_t port) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kDeadlineMs);
  while (std::chrono::steady_clock::now() < deadline && readable(fd_.get(), kDeadlineMs)) {
    Bytes frame(70'000);
    const ssize_t size = recv(fd_.get(), frame.data(), frame.size(), 0);
    frame.resize(size > 0 ? static_cast<size_t>(size) : 0);
    const size_t l4 = 14u + (eth_type == ETH_P_IPV6 ? 40u : 20u);
    if (frame.size() < l4 + 4 || load_unaligned<be16>(frame.data() + 12).host() != eth_type) continue;
    if (frame[eth_type == ETH_P_IPV6 ? 20 : 23] != IPPROTO_UDP) continue;
    const bool fragment = eth_type == ETH_P_IP && (load_unaligned<be16>(frame.data() + 20).host() & 0x3fff) != 0;
    if (port == 0 ? fragment : load_unaligned<be16>(frame.data() + l4 + 2).host() == port) return frame;
  }
  return std::nullopt;
}

// ---------------------------------------------------------------- bench

TunnelBench::TunnelBench(size_t packet_count)
    : VportBench(std::make_unique<FakeLinkMonitor>(), HeapPacketPool::kSuperFrameBuffer, packet_count,
                 make_tunnel_endpoints()) {
  LinkInfo link;
  link.name = kOurDevice;
  link.ifindex = 7;
  link.mtu = 1500;
  link.up = link.carrier = true;
  links().put_link(link);
  for (const char* address : {kOurV4, kOurV6}) links().add_local_address(address);
  RouteInfo route;
  route.ifindex = 7;
  route.device = kOurDevice;
  route.mtu = 1500;
  route.source = *IpAddress::parse(kOurV4);
  links().put_route(kPeerV4, route);
  route.source = *IpAddress::parse(kOurV6);
  links().put_route(kPeerV6, route);
}

Result<std::unique_ptr<Vport>> TunnelBench::create(const std::string& name, uint32_t port_no, Options options,
                                                   bool must_work) {
  VportConfig config;
  config.name = name;
  config.type = "vxlan";
  config.options = std::move(options);
  return VportBench::create(config, port_no, must_work);
}

std::unique_ptr<Vport> TunnelBench::create_good(const std::string& name, uint32_t port_no, Options options) {
  auto port = create(name, port_no, std::move(options));
  EXPECT_TRUE(port.ok()) << port.status().message();
  return port.ok() ? std::move(port).value() : nullptr;
}

PacketBatch TunnelBench::wait_for_packets(Vport& port) {
  PacketBatch batch = wait_for_frames(port);
  EXPECT_FALSE(batch.empty());
  return batch;
}

bool TunnelBench::wait_for_drop(Vport& port, uint32_t port_no, DropReason reason, uint64_t count) {
  return eventually([&] {
    receive(port);
    return dropped(port_no, reason) >= count;
  });
}

void TunnelBench::send(Vport& port, PacketPtr packet) {
  ledger().port(packet->in_port).injected.add();
  VportBench::send(port, std::move(packet));
}

PacketPtr TunnelBench::make(const PacketBuilder& builder, uint32_t in_port) { return make(builder.build(), in_port); }

PacketPtr TunnelBench::make(const Bytes& frame, uint32_t in_port) {
  PacketPtr packet = make_packet(pool(), frame);
  packet->in_port = in_port;
  return packet;
}

// ---------------------------------------------------------------- the kernel's own vxlan

namespace {

struct NetlinkSession {
  NetlinkSession() : socket(nl_socket_alloc()) { EXPECT_EQ(nl_connect(socket.get(), NETLINK_ROUTE), 0); }
  NetlinkSocketPtr socket;
};

nl_addr* parse(const std::string& text, int family) {
  nl_addr* address = nullptr;
  EXPECT_EQ(nl_addr_parse(text.c_str(), family, &address), 0) << text;
  return address;
}

}  // namespace

void add_vxlan_device(const VxlanDevice& device) {
  NetlinkSession session;
  rtnl_link* link = rtnl_link_vxlan_alloc();
  rtnl_link_set_name(link, device.name.c_str());
  rtnl_link_vxlan_set_id(link, device.vni);
  rtnl_link_vxlan_set_port(link, device.port);
  nl_addr* remote = parse(device.remote, AF_UNSPEC);
  rtnl_link_vxlan_set_group(link, remote);
  rtnl_link_vxlan_set_udp_csum(link, device.udp_checksum ? 1 : 0);
  const int error = rtnl_link_add(session.socket.get(), link, NLM_F_CREATE | NLM_F_EXCL);
  EXPECT_EQ(error, 0) << nl_geterror(error);
  nl_addr_put(remote);
  rtnl_link_put(link);
  disable_ipv6(device.name);
  set_link_up(device.name);
}

MacAddress mac_of_device(const std::string& device) {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, device.c_str(), sizeof request.ifr_name - 1);
  EXPECT_EQ(ioctl(fd.get(), SIOCGIFHWADDR, &request), 0);
  MacAddress address;
  std::memcpy(address.bytes.data(), request.ifr_hwaddr.sa_data, address.bytes.size());
  return address;
}

}  // namespace vswitch::test
