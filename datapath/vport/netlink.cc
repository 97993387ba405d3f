#include "datapath/vport/netlink.h"

#include <fmt/format.h>
#include <netlink/errno.h>

#include <algorithm>
#include <cerrno>
#include <new>

#include "datapath/base/byte_order.h"

namespace vswitch {
namespace {

// What the callbacks of one request write to.
struct Answers {
  const std::function<void(nl_msg*)>& on_answer;
  uint32_t sequence = 0;  // of the request; answers with another one are left over from a request that failed half-way
  int error = 0;
  bool finished = false;
  bool interrupted = false;  // what is listed changed meanwhile

  bool are_those_of(nl_msg* message) const { return nlmsg_hdr(message)->nlmsg_seq == sequence; }
};

int on_valid(nl_msg* message, void* arg) {
  auto& answers = *static_cast<Answers*>(arg);
  if (!answers.are_those_of(message)) return NL_SKIP;
  if (answers.on_answer) answers.on_answer(message);
  // Only one of many is followed by more; a single answer ends the request unless an acknowledgement was asked for.
  if ((nlmsg_hdr(message)->nlmsg_flags & NLM_F_MULTI) == 0) answers.finished = true;
  return NL_OK;
}

int on_end(nl_msg* message, void* arg) {
  auto& answers = *static_cast<Answers*>(arg);
  if (!answers.are_those_of(message)) return NL_SKIP;
  answers.finished = true;
  return NL_STOP;
}

// A list may end early, by an error.
int on_end_of_list(nl_msg* message, void* arg) {
  auto& answers = *static_cast<Answers*>(arg);
  if (!answers.are_those_of(message)) return NL_SKIP;
  if (nlmsg_valid_hdr(nlmsg_hdr(message), sizeof(int))) {
    answers.error = std::max(0, -load_unaligned<int>(nlmsg_data(nlmsg_hdr(message))));
  }
  answers.finished = true;
  return NL_STOP;
}

// The list goes on all the same, and is read to its end, before which the kernel begins no other.
int on_interruption(nl_msg* message, void* arg) {
  auto& answers = *static_cast<Answers*>(arg);
  answers.interrupted = answers.interrupted || answers.are_those_of(message);
  return NL_OK;
}

int on_error(sockaddr_nl*, nlmsgerr* error, void* arg) {
  auto& answers = *static_cast<Answers*>(arg);
  if (error->msg.nlmsg_seq != answers.sequence) return NL_SKIP;
  answers.error = -error->error;
  answers.finished = true;
  return NL_STOP;
}

struct CallbackDeleter {
  void operator()(nl_cb* callbacks) const { nl_cb_put(callbacks); }
};

}  // namespace

NetlinkMessagePtr make_netlink_message(int type, int flags) {
  NetlinkMessagePtr message(nlmsg_alloc_simple(type, NLM_F_REQUEST | flags));
  if (!message) throw std::bad_alloc();
  return message;
}

Result<std::unique_ptr<NetlinkRequests>> NetlinkRequests::open(int protocol) {
  NetlinkSocketPtr socket(nl_socket_alloc());
  if (!socket) return resource_exhausted("no memory for a netlink socket");
  nl_socket_disable_auto_ack(socket.get());
  nl_socket_disable_seq_check(socket.get());  // done here: libnl's own expects every request to be acknowledged
  if (const int error = nl_connect(socket.get(), protocol); error < 0) {
    if (error == -NLE_PROTO_MISMATCH || error == -NLE_AF_NOSUPPORT) return unimplemented("no such netlink protocol");
    return unavailable(fmt::format("cannot open a netlink socket: {}", nl_geterror(error)));
  }
  return std::unique_ptr<NetlinkRequests>(new NetlinkRequests(std::move(socket)));
}

int NetlinkRequests::run(nl_msg* message, const std::function<void(nl_msg*)>& on_answer) {
  MutexLock lock(mutex_);
  const std::unique_ptr<nl_cb, CallbackDeleter> callbacks(nl_cb_alloc(NL_CB_DEFAULT));
  if (!callbacks) return ENOMEM;
  Answers answers{on_answer};
  nl_cb_set(callbacks.get(), NL_CB_VALID, NL_CB_CUSTOM, on_valid, &answers);
  nl_cb_set(callbacks.get(), NL_CB_FINISH, NL_CB_CUSTOM, on_end_of_list, &answers);
  nl_cb_set(callbacks.get(), NL_CB_DUMP_INTR, NL_CB_CUSTOM, on_interruption, &answers);
  nl_cb_set(callbacks.get(), NL_CB_ACK, NL_CB_CUSTOM, on_end, &answers);
  nl_cb_err(callbacks.get(), NL_CB_CUSTOM, on_error, &answers);
  if (nl_send_auto(socket_.get(), message) < 0) return EIO;
  answers.sequence = nlmsg_hdr(message)->nlmsg_seq;
  while (!answers.finished) {
    const int result = nl_recvmsgs(socket_.get(), callbacks.get());
    if (result < 0 && answers.error == 0) return EIO;
  }
  return answers.error == 0 && answers.interrupted ? EINTR : answers.error;
}

}  // namespace vswitch
