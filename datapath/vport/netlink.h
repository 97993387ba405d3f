// A netlink socket for requests (rtnetlink and others), on libnl: one question, its answers, the kernel's error with
// its own number.
//
// Works in the network namespace of the thread that opened it. Thread-safe: requests take turns.
#pragma once

#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "datapath/base/mutex.h"
#include "datapath/base/status.h"

namespace vswitch {

struct NetlinkSocketDeleter {
  void operator()(nl_sock* socket) const { nl_socket_free(socket); }
};
using NetlinkSocketPtr = std::unique_ptr<nl_sock, NetlinkSocketDeleter>;

struct NetlinkMessageDeleter {
  void operator()(nl_msg* message) const { nlmsg_free(message); }
};
using NetlinkMessagePtr = std::unique_ptr<nl_msg, NetlinkMessageDeleter>;

// A request message of `type` (RTM_*) with NLM_F_REQUEST and `flags`. Throws std::bad_alloc when memory is short.
NetlinkMessagePtr make_netlink_message(int type, int flags);

class NetlinkRequests {
 public:
  // `protocol`: NETLINK_ROUTE, or another. unimplemented: the kernel does not have it.
  static Result<std::unique_ptr<NetlinkRequests>> open(int protocol = NETLINK_ROUTE);

  // Sends `message` and calls `on_answer` with each answer to it (under the lock: it must not send requests itself).
  // Returns 0, or the errno that the kernel answered or that the socket failed with. EINTR: all answers have been
  // there, but what they list changed meanwhile, so that something may be missing; worth another try.
  int run(nl_msg* message, const std::function<void(nl_msg*)>& on_answer = {}) EXCLUDES(mutex_);

 private:
  explicit NetlinkRequests(NetlinkSocketPtr socket) : socket_(std::move(socket)) {}

  Mutex mutex_;
  NetlinkSocketPtr socket_ GUARDED_BY(mutex_);
};

}  // namespace vswitch
