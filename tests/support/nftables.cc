#include "tests/support/nftables.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>

#include <cstring>
#include <functional>

#include "datapath/base/unique_fd.h"
#include "datapath/vport/netlink.h"
#include "tests/support/packet_builder.h"

namespace vswitch::test {
namespace {

// Changes travel together, between a message that begins them and one that ends them.
class Batch {
 public:
  Batch() { bracket(NFNL_MSG_BATCH_BEGIN); }
  void add(int type, uint8_t family, int flags, const std::function<void(nl_msg*)>& fill) {
    append(NFNL_SUBSYS_NFTABLES << 8 | type, family, flags, 0, fill);
  }
  // 0, or the first error that the kernel answers.
  int run() {
    bracket(NFNL_MSG_BATCH_END);
    const UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
    if (!fd) return errno;
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    const auto* address = reinterpret_cast<const sockaddr*>(&kernel);
    if (::sendto(fd.get(), bytes_.data(), bytes_.size(), 0, address, sizeof kernel) < 0) return errno;
    for (int answers = 0; answers < acknowledged_; ++answers) {
      alignas(nlmsghdr) char buffer[4096];
      if (::recv(fd.get(), buffer, sizeof buffer, 0) < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(nlmsgerr)))) return EIO;
      nlmsgerr answer;
      std::memcpy(&answer, NLMSG_DATA(reinterpret_cast<nlmsghdr*>(buffer)), sizeof answer);
      if (answer.error != 0) return -answer.error;
    }
    return 0;
  }

 private:
  void bracket(int type) { append(type, AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES, {}); }
  void append(int type, uint8_t family, int flags, uint16_t resource, const std::function<void(nl_msg*)>& fill) {
    const NetlinkMessagePtr message = make_netlink_message(type, flags);
    nfgenmsg about{family, NFNETLINK_V0, htons(resource)};
    nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
    if (fill) fill(message.get());
    nlmsghdr* header = nlmsg_hdr(message.get());
    header->nlmsg_seq = ++sequence_;
    if ((flags & NLM_F_ACK) != 0) ++acknowledged_;
    const auto* raw = reinterpret_cast<const uint8_t*>(header);
    bytes_.insert(bytes_.end(), raw, raw + NLMSG_ALIGN(header->nlmsg_len));
  }

  Bytes bytes_;
  uint32_t sequence_ = 0;
  int acknowledged_ = 0;
};

}  // namespace

bool add_nft_chain(uint8_t family, const std::string& table, const std::string& chain, uint32_t hook) {
  Batch batch;
  batch.add(NFT_MSG_NEWTABLE, family, NLM_F_CREATE | NLM_F_ACK,
            [&](nl_msg* message) { nla_put_string(message, NFTA_TABLE_NAME, table.c_str()); });
  batch.add(NFT_MSG_NEWCHAIN, family, NLM_F_CREATE | NLM_F_ACK, [&](nl_msg* message) {
    nla_put_string(message, NFTA_CHAIN_TABLE, table.c_str());
    nla_put_string(message, NFTA_CHAIN_NAME, chain.c_str());
    nlattr* place = nla_nest_start(message, NFTA_CHAIN_HOOK | NLA_F_NESTED);
    nla_put_u32(message, NFTA_HOOK_HOOKNUM, htonl(hook));
    nla_put_u32(message, NFTA_HOOK_PRIORITY, 0);
    nla_nest_end(message, place);
    nla_put_string(message, NFTA_CHAIN_TYPE, "filter");
  });
  const int error = batch.run();
  if (error == EPROTONOSUPPORT || error == EOPNOTSUPP || error == EINVAL) return false;
  EXPECT_EQ(error, 0) << std::strerror(error);
  return error == 0;
}

void remove_nft_table(uint8_t family, const std::string& table) {
  Batch batch;
  batch.add(NFT_MSG_DELTABLE, family, NLM_F_ACK,
            [&](nl_msg* message) { nla_put_string(message, NFTA_TABLE_NAME, table.c_str()); });
  EXPECT_EQ(batch.run(), 0);
}

}  // namespace vswitch::test
