// RpcServer: the gRPC API of one switch, on unix sockets.
//
// Safe by default (design.md, decision 12): a socket that only its owner and group can open. TCP without TLS is
// refused. gRPC's own headers stay inside: main.cc needs none of them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/base/status.h"
#include "vswitchd/control/switch.h"

namespace vswitch {

struct RpcServerOptions {
  std::string socket;               // path of the API socket
  std::vector<std::string> listen;  // further addresses: "unix:PATH"
  std::string version;
  const Clock* clock = nullptr;  // the switch's; null: the monotonic clock
};

class RpcServer {
 public:
  // Serves when it returns. Fails if another daemon serves a socket (a dead one's socket is replaced), if the directory
  // cannot be written, or if an address would need TLS. Addresses can be checked beforehand with
  // check_listen_address().
  static Result<std::unique_ptr<RpcServer>> start(Switch& sw, const RpcServerOptions& options);
  ~RpcServer();  // shutdown(), if that was not called

  // Accepts no more calls, gives those under way a second, ends the rest, and removes the sockets.
  void shutdown();

 private:
  struct Implementation;
  explicit RpcServer(std::unique_ptr<Implementation> impl);
  std::unique_ptr<Implementation> impl_;
};

Status check_listen_address(const std::string& address);

}  // namespace vswitch
