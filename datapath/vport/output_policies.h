// OutputPolicies: whether something of the host's is to see the packets that its own sockets send: a firewall
// (nftables, iptables) or IPsec. The kernel path hands outer packets of tunnels to the device (docs/kernel-path.md),
// past all that; so it does so only where there is nothing.
//
// Works in the network namespace of the thread that made it. Thread-safe; asks the kernel, but not more often than
// five times a second. Needs CAP_NET_ADMIN.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "datapath/vport/netlink.h"

namespace vswitch {

class OutputPolicies {
 public:
  // "" or what there is, or why that cannot be told. At most kFresh old.
  std::string in_the_way(Nanoseconds now) EXCLUDES(mutex_);

  static constexpr Nanoseconds kFresh = std::chrono::milliseconds(200);

 private:
  // Each "" or what there is. What the kernel does not know is not there.
  std::string look() REQUIRES(mutex_);
  std::string nftables() REQUIRES(mutex_);
  std::string ipsec() REQUIRES(mutex_);

  Mutex mutex_;
  std::unique_ptr<NetlinkRequests> nftables_ GUARDED_BY(mutex_), ipsec_ GUARDED_BY(mutex_);
  std::optional<Nanoseconds> looked_ GUARDED_BY(mutex_);
  std::string found_ GUARDED_BY(mutex_);
};

}  // namespace vswitch
