// OutputPolicies: whether something of the host's is to see the packets that its own sockets send: a firewall
// (nftables, iptables) or IPsec. The kernel path hands outer packets of tunnels to the device (docs/kernel-path.md),
// past all that; so it does so only where there is nothing.
//
// Works in the network namespace of the thread that made it. Thread-safe; asks the kernel. Needs CAP_NET_ADMIN.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "datapath/vport/netlink.h"

namespace vswitch {

// A part of the kernel that was asked for and is not there. Each time that it is asked for, the kernel starts a process
// to look for a module that has it; so it should not be asked for again before other modules have been loaded, which
// reading their list tells at no cost. That somebody loads the module is therefore seen at the next look.
class MissingModule {
 public:
  // `list`: as /proc/modules; there is no such file if the kernel has no modules.
  explicit MissingModule(std::string list) : list_(std::move(list)) {}
  // It was asked for just now, and is not there. That counts from the second time on: not before has the list been read
  // both before and after the kernel was asked.
  void note();
  // Whether it cannot have come since.
  bool still() const { return missing_ && modules_ == loaded(); }

 private:
  std::optional<std::string> loaded() const;  // names; nullopt: they cannot be read

  const std::string list_;
  std::optional<std::string> modules_;  // when it was noted
  bool missing_ = false;                // with these
};

class OutputPolicies {
 public:
  explicit OutputPolicies(std::string modules = "/proc/modules") : no_nftables_(modules), no_ipsec_(modules) {}

  // "" or what there is, or why that cannot be told. What was found out before `since` is not good enough any more.
  std::string in_the_way(Nanoseconds now, Nanoseconds since) EXCLUDES(mutex_);

 private:
  // Each "" or what there is. What the kernel does not know is not there.
  std::string look() REQUIRES(mutex_);
  std::string nftables() REQUIRES(mutex_);
  std::string ipsec() REQUIRES(mutex_);

  Mutex mutex_;
  MissingModule no_nftables_ GUARDED_BY(mutex_), no_ipsec_ GUARDED_BY(mutex_);
  std::unique_ptr<NetlinkRequests> nftables_ GUARDED_BY(mutex_), ipsec_ GUARDED_BY(mutex_);
  std::optional<Nanoseconds> looked_ GUARDED_BY(mutex_);
  std::string found_ GUARDED_BY(mutex_);
};

}  // namespace vswitch
