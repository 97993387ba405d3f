#include "datapath/vport/output_policies.h"

#include <errno.h>
#include <fmt/format.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>

#include "datapath/base/byte_order.h"

namespace vswitch {
namespace {

// The kernel answers so if it has no such subsystem.
bool is_absent(int error) { return error == EPROTONOSUPPORT || error == EINVAL || error == EOPNOTSUPP; }

std::string cannot_tell(const char* what, int error) {
  return fmt::format("cannot tell whether there are {}: {}", what, std::generic_category().message(error));
}

// Null, and *error says why. A kernel without the protocol is no error.
NetlinkRequests* open(int protocol, std::unique_ptr<NetlinkRequests>& requests, int* error) {
  *error = 0;
  if (!requests) {
    Result<std::unique_ptr<NetlinkRequests>> opened = NetlinkRequests::open(protocol);
    if (opened.ok()) {
      requests = std::move(*opened);
    } else if (opened.status().code() != StatusCode::unimplemented) {
      *error = ENOBUFS;
    }
  }
  return requests.get();
}

// What a dump says is worth nothing if the tables changed meanwhile.
constexpr int kAttempts = 3;

uint32_t big_endian_attribute(nlattr* attribute) {
  return nla_len(attribute) < 4 ? 0 : load_unaligned<be32>(nla_data(attribute)).host();
}

// A base chain that IPv4 packets of this host's sockets pass: its name; else "".
std::string chain_in_the_way(nl_msg* message) {
  nlmsghdr* header = nlmsg_hdr(message);
  if (!nlmsg_valid_hdr(header, sizeof(nfgenmsg))) return "";
  const auto* about = static_cast<const nfgenmsg*>(nlmsg_data(header));
  if (about->nfgen_family != NFPROTO_IPV4 && about->nfgen_family != NFPROTO_INET) return "";
  nlattr* hook = nlmsg_find_attr(header, sizeof(nfgenmsg), NFTA_CHAIN_HOOK);
  if (hook == nullptr) return "";
  nlattr* number = nla_find(static_cast<nlattr*>(nla_data(hook)), nla_len(hook), NFTA_HOOK_HOOKNUM);
  if (number == nullptr) return "";
  const uint32_t at = big_endian_attribute(number);
  if (at != NF_INET_LOCAL_OUT && at != NF_INET_POST_ROUTING) return "";
  nlattr* table = nlmsg_find_attr(header, sizeof(nfgenmsg), NFTA_CHAIN_TABLE);
  nlattr* name = nlmsg_find_attr(header, sizeof(nfgenmsg), NFTA_CHAIN_NAME);
  return fmt::format("the nftables chain {} {}", table == nullptr ? "" : nla_get_string(table),
                     name == nullptr ? "" : nla_get_string(name));
}

// The tables of the old iptables, which nftables does not show. There is no file as long as there is no iptables.
std::string iptables() {
  const char* const kTables = "/proc/thread-self/net/ip_tables_names";
  std::ifstream file(kTables);
  if (!file) return errno == ENOENT ? "" : cannot_tell("iptables rules", errno);
  std::string table;
  return file >> table ? fmt::format("the iptables table {}", table) : "";
}

// What becomes of packets that no IPsec policy is about. Kernels before 5.14 let them pass.
bool blocks_by_default(NetlinkRequests& requests) {
  const NetlinkMessagePtr message = make_netlink_message(XFRM_MSG_GETDEFAULT, 0);
  xfrm_userpolicy_default defaults{};
  nlmsg_append(message.get(), &defaults, sizeof defaults, NLMSG_ALIGNTO);
  bool blocks = false;
  requests.run(message.get(), [&](nl_msg* answer) {
    if (!nlmsg_valid_hdr(nlmsg_hdr(answer), sizeof defaults)) return;
    blocks = load_unaligned<xfrm_userpolicy_default>(nlmsg_data(nlmsg_hdr(answer))).out == XFRM_USERPOLICY_BLOCK;
  });
  return blocks;
}

}  // namespace

std::optional<std::string> MissingModule::loaded() const {
  std::ifstream file(list_);
  // No list is an answer only where there are such files at all.
  if (!file && errno == ENOENT && ::access("/proc/self", F_OK) == 0) return "";
  if (!file) return std::nullopt;
  std::string names;
  for (std::string line; std::getline(file, line);) names += line.substr(0, line.find(' ')) + ' ';
  return names;
}

void MissingModule::note() {
  const std::optional<std::string> modules = std::exchange(modules_, loaded());
  missing_ = modules && modules == modules_;
}

std::string OutputPolicies::nftables() {
  if (no_nftables_.still()) return "";
  int error = 0;
  NetlinkRequests* requests = open(NETLINK_NETFILTER, nftables_, &error);
  for (int attempt = 0; requests != nullptr && attempt < kAttempts; ++attempt) {
    const NetlinkMessagePtr message = make_netlink_message(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, NLM_F_DUMP);
    const nfgenmsg about{NFPROTO_UNSPEC, NFNETLINK_V0, 0};
    nlmsg_append(message.get(), const_cast<nfgenmsg*>(&about), sizeof about, NLMSG_ALIGNTO);
    std::string found;
    error = requests->run(message.get(), [&](nl_msg* answer) {
      if (found.empty()) found = chain_in_the_way(answer);
    });
    if (!found.empty()) return found;
    if (error == 0) return "";
    if (is_absent(error)) break;
  }
  if (requests == nullptr ? error == 0 : is_absent(error)) {
    no_nftables_.note();
    return "";
  }
  return error == 0 ? "" : cannot_tell("nftables rules", error);
}

std::string OutputPolicies::ipsec() {
  if (no_ipsec_.still()) return "";
  int error = 0;
  NetlinkRequests* requests = open(NETLINK_XFRM, ipsec_, &error);
  if (requests == nullptr) {
    if (error == 0) no_ipsec_.note();
    return error == 0 ? "" : cannot_tell("IPsec policies", error);
  }
  const NetlinkMessagePtr message = make_netlink_message(XFRM_MSG_GETSPDINFO, 0);
  uint32_t flags = 0;
  nlmsg_append(message.get(), &flags, sizeof flags, NLMSG_ALIGNTO);
  uint32_t policies = 0;
  error = requests->run(message.get(), [&](nl_msg* answer) {
    nlattr* info = nlmsg_find_attr(nlmsg_hdr(answer), sizeof(uint32_t), XFRMA_SPD_INFO);
    if (info != nullptr && nla_len(info) >= static_cast<int>(sizeof(xfrmu_spdinfo))) {
      policies = load_unaligned<xfrmu_spdinfo>(nla_data(info)).outcnt;
    }
  });
  if (is_absent(error)) {
    no_ipsec_.note();
    return "";
  }
  if (error != 0) return cannot_tell("IPsec policies", error);
  return policies != 0 || blocks_by_default(*requests) ? "an IPsec policy" : "";
}

std::string OutputPolicies::look() {
  std::string found = iptables();
  if (found.empty()) found = nftables();
  if (found.empty()) found = ipsec();
  return found;
}

std::string OutputPolicies::in_the_way(Nanoseconds now, Nanoseconds since) {
  MutexLock lock(mutex_);
  if (!looked_ || *looked_ < since) {
    looked_ = now;
    found_ = look();
  }
  return found_;
}

}  // namespace vswitch
