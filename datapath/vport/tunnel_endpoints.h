// TunnelEndpoints: the receiving UDP sockets that tunnel ports share.
//
// One endpoint per (tunnel kind, UDP port, address family, receive flags), counted: opened when the first port that
// fits it comes, closed with the last; deleting one tunnel port never takes the socket from another. Packets find their
// port by VNI and addresses, the most specific configuration first (features.md section 6.1, "port identity").
#pragma once

#include <memory>

namespace vswitch {

struct VportEnvironment;

class TunnelEndpoints {
 public:
  virtual ~TunnelEndpoints() = default;
};

// Defined beside the VXLAN port (vport/vxlan_endpoint.h declares what tunnel ports use).
std::unique_ptr<TunnelEndpoints> make_tunnel_endpoints();

}  // namespace vswitch
