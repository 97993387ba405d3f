// VxlanEncapsulator: what the kernel path may know of a VXLAN port, in one configuration of it: the outer headers of a
// connection's packets, by the same rules by which the port sends packets itself (vxlan_transmit.h), and the way that
// they take.
//
// Not for the kernel path, and left to the port: IPv6 outside, outer UDP checksums, packets that may be fragmented,
// TTLs copied from inner packets, destinations on this host or behind a TAP device; and everything as long as something
// of the host's is to see outer packets (output_policies.h).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "datapath/base/mutex.h"
#include "datapath/kernel_path/encapsulation.h"
#include "datapath/kernel_path/kernel_path.h"
#include "datapath/vport/link_monitor.h"
#include "datapath/vport/output_policies.h"
#include "datapath/vport/tunnel_config.h"
#include "datapath/vport/vxlan_senders.h"

namespace vswitch {

class VxlanEncapsulator final : public Encapsulator {
 public:
  // `environment` and `policies` outlive it. REQUIRES: there is a kernel path.
  VxlanEncapsulator(const TunnelConfig& config, std::shared_ptr<VxlanSenders> senders, VportEnvironment& environment,
                    OutputPolicies& policies)
      : config_(config),
        senders_(std::move(senders)),
        environment_(environment),
        policies_(policies),
        hook_(environment.kernel_path->tunnel_hook()) {}

  // Stops all connections that go this way before it returns, and lets no other begin.
  void close() { hook_->close(); }
  // "" or why the last connection that was looked at has to stay with the port.
  std::string problem() const;

  uint64_t hook() const override { return hook_->id(); }
  Result<Encapsulation> encapsulate(const ConnectionKey& key, const TunnelMetadata* metadata) override;
  Result<OuterWay> way_of(const OuterFlow& flow, Nanoseconds since) override;

 private:
  Result<Encapsulation> try_encapsulate(const ConnectionKey& key, const TunnelMetadata* metadata);
  Result<RouteInfo> route_of(const OuterFlow& flow, Nanoseconds since);
  Result<OuterWay> try_way_of(const OuterFlow& flow, Nanoseconds since);
  std::optional<LinkInfo> device(uint32_t ifindex, Nanoseconds since) EXCLUDES(mutex_);
  void note(const Status& status) EXCLUDES(mutex_);

  const TunnelConfig config_;
  const std::shared_ptr<VxlanSenders> senders_;
  VportEnvironment& environment_;
  OutputPolicies& policies_;
  const std::unique_ptr<KernelPath::Hook> hook_;
  mutable Mutex mutex_;
  struct Device {
    Nanoseconds looked{};
    std::optional<LinkInfo> link;  // nullopt: there was none
  };
  std::map<uint32_t, Device> devices_ GUARDED_BY(mutex_);  // by ifindex
  std::string problem_ GUARDED_BY(mutex_);
};

}  // namespace vswitch
