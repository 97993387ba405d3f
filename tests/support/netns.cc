#include "tests/support/netns.h"

#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netlink/addr.h>
#include <netlink/route/addr.h>
#include <poll.h>
#include <sched.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>

#include "datapath/vport/netlink.h"

namespace vswitch::test {
namespace {

// IF_OPER_UP of <linux/if.h>, which does not go together with <net/if.h>.
constexpr uint8_t kOperationalUp = 6;

std::optional<std::string> namespace_failure;

std::string error_text(int error) { return std::generic_category().message(error); }

void request(nl_msg* message, const std::string& what) {
  auto requests = NetlinkRequests::open();
  ASSERT_TRUE(requests.ok()) << requests.status().message();
  const int error = (*requests)->run(message);
  ASSERT_EQ(error, 0) << what << ": " << error_text(error);
}

NetlinkMessagePtr link_message(int type, int flags, const std::string& name, unsigned on = 0, unsigned change = 0) {
  NetlinkMessagePtr message = make_netlink_message(type, NLM_F_ACK | flags);
  ifinfomsg about{};
  if (!name.empty()) about.ifi_index = static_cast<int>(::if_nametoindex(name.c_str()));
  about.ifi_flags = on;
  about.ifi_change = change;
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  return message;
}

struct AddressDeleter {
  void operator()(nl_addr* address) const { nl_addr_put(address); }
};
using AddressPtr = std::unique_ptr<nl_addr, AddressDeleter>;

AddressPtr parse_address(const std::string& text) {
  nl_addr* address = nullptr;
  EXPECT_EQ(nl_addr_parse(text.c_str(), AF_UNSPEC, &address), 0) << text;
  return AddressPtr(address);
}

void put(nl_msg* message, int attribute, const nl_addr* address) {
  nla_put(message, attribute, static_cast<int>(nl_addr_get_len(address)), nl_addr_get_binary_addr(address));
}

}  // namespace

void PrivateNamespace::SetUp() {
  if (namespace_failure) return;
  if (::unshare(CLONE_NEWNET) != 0) {
    namespace_failure = "cannot make one: " + error_text(errno) + " (run as root)";
    return;
  }
  namespace_failure = "";
  set_link_up("lo");
}

const std::string& PrivateNamespace::failure() {
  static const std::string not_asked_for = "the test program did not ask for one";
  return namespace_failure ? *namespace_failure : not_asked_for;
}

NetworkNamespace::NetworkNamespace() {
  std::thread([this] {
    if (::unshare(CLONE_NEWNET) == 0) fd_.reset(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  }).join();
  EXPECT_TRUE(fd_.valid()) << "cannot make a network namespace";
}

void NetworkNamespace::run(const std::function<void()>& body) const {
  std::thread([&] {
    ASSERT_EQ(::setns(fd_.get(), CLONE_NEWNET), 0);
    body();
  }).join();
}

void add_veth(const std::string& name, const std::string& peer) {
  const NetlinkMessagePtr message = link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "", IFF_UP, IFF_UP);
  nla_put_string(message.get(), IFLA_IFNAME, name.c_str());
  nlattr* info = nla_nest_start(message.get(), IFLA_LINKINFO);
  nla_put_string(message.get(), IFLA_INFO_KIND, "veth");
  nlattr* data = nla_nest_start(message.get(), IFLA_INFO_DATA);
  nlattr* other = nla_nest_start(message.get(), VETH_INFO_PEER);
  ifinfomsg about{};
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  nla_put_string(message.get(), IFLA_IFNAME, peer.c_str());
  nla_nest_end(message.get(), other);
  nla_nest_end(message.get(), data);
  nla_nest_end(message.get(), info);
  request(message.get(), "add veth " + name);
  set_link_up(peer);
}

void delete_link(const std::string& name) { request(link_message(RTM_DELLINK, 0, name).get(), "delete " + name); }

void set_link_up(const std::string& name, bool up) {
  request(link_message(RTM_NEWLINK, 0, name, up ? IFF_UP : 0, IFF_UP).get(), "set up or down " + name);
}

void wait_for_link(const std::string& name) {
  EXPECT_TRUE(eventually([&name] {
    auto requests = NetlinkRequests::open();
    const NetlinkMessagePtr message = link_message(RTM_GETLINK, 0, name);
    bool up = false;
    (*requests)->run(message.get(), [&up](nl_msg* answer) {
      nlattr* state = nlmsg_find_attr(nlmsg_hdr(answer), sizeof(ifinfomsg), IFLA_OPERSTATE);
      up = up || (state != nullptr && nla_get_u8(state) == kOperationalUp);
    });
    return up;
  })) << name;
}

void set_link_mtu(const std::string& name, uint32_t mtu) {
  const NetlinkMessagePtr message = link_message(RTM_NEWLINK, 0, name);
  nla_put_u32(message.get(), IFLA_MTU, mtu);
  request(message.get(), "set MTU of " + name);
}

void rename_link(const std::string& name, const std::string& new_name) {
  const NetlinkMessagePtr message = link_message(RTM_NEWLINK, 0, name);
  nla_put_string(message.get(), IFLA_IFNAME, new_name.c_str());
  request(message.get(), "rename " + name);
}

void move_link(const std::string& name, const NetworkNamespace& to) {
  const NetlinkMessagePtr message = link_message(RTM_NEWLINK, 0, name);
  nla_put_u32(message.get(), IFLA_NET_NS_FD, static_cast<uint32_t>(to.fd()));
  request(message.get(), "move " + name);
}

void add_alternative_name(const std::string& name, const std::string& alternative) {
  const NetlinkMessagePtr message = link_message(RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND, name);
  nlattr* properties = nla_nest_start(message.get(), IFLA_PROP_LIST | NLA_F_NESTED);
  nla_put_string(message.get(), IFLA_ALT_IFNAME, alternative.c_str());
  nla_nest_end(message.get(), properties);
  request(message.get(), "name " + name + " " + alternative);
}

void add_address(const std::string& name, const std::string& address_and_length) {
  const AddressPtr address = parse_address(address_and_length);
  const NetlinkMessagePtr message = make_netlink_message(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE);
  ifaddrmsg about{};
  about.ifa_family = static_cast<uint8_t>(nl_addr_get_family(address.get()));
  about.ifa_prefixlen = static_cast<uint8_t>(nl_addr_get_prefixlen(address.get()));
  about.ifa_flags = IFA_F_NODAD;
  about.ifa_index = ::if_nametoindex(name.c_str());
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  put(message.get(), IFA_LOCAL, address.get());
  put(message.get(), IFA_ADDRESS, address.get());
  request(message.get(), "add address " + address_and_length);
}

void add_route(const std::string& destination_and_length, const std::string& device, const std::string& gateway) {
  const AddressPtr destination = parse_address(destination_and_length);
  const NetlinkMessagePtr message = make_netlink_message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE);
  rtmsg about{};
  about.rtm_family = static_cast<uint8_t>(nl_addr_get_family(destination.get()));
  about.rtm_dst_len = static_cast<uint8_t>(nl_addr_get_prefixlen(destination.get()));
  about.rtm_table = RT_TABLE_MAIN;
  about.rtm_protocol = RTPROT_STATIC;
  about.rtm_scope = gateway.empty() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  about.rtm_type = RTN_UNICAST;
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  put(message.get(), RTA_DST, destination.get());
  nla_put_u32(message.get(), RTA_OIF, ::if_nametoindex(device.c_str()));
  if (!gateway.empty()) put(message.get(), RTA_GATEWAY, parse_address(gateway).get());
  request(message.get(), "add route " + destination_and_length);
}

void add_neighbour(const std::string& device, const std::string& address, const std::string& mac) {
  const AddressPtr parsed = parse_address(address);
  const NetlinkMessagePtr message = make_netlink_message(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
  ndmsg about{};
  about.ndm_family = static_cast<uint8_t>(nl_addr_get_family(parsed.get()));
  about.ndm_ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
  about.ndm_state = NUD_PERMANENT;
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  put(message.get(), NDA_DST, parsed.get());
  const MacAddress link_address = MacAddress::parse(mac).value_or(MacAddress{});
  nla_put(message.get(), NDA_LLADDR, static_cast<int>(link_address.bytes.size()), link_address.bytes.data());
  request(message.get(), "add neighbour " + address);
}

}  // namespace vswitch::test
