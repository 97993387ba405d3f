// The "vxlan" port type: Ethernet frames in UDP (RFC 7348), to one peer or, driven by the packets' metadata, to any.
//
// Options, wire behaviour and counters: docs/tunnels.md. How it is built:
//   tunnel_config.h    options as values           vxlan_endpoint.h   receiving, shared by ports
//   vxlan_header.h     the codec                   vxlan_transmit.h   sending, vxlan_senders.h its sockets
//
// A port works without a route to its peer (packets are dropped as tunnel_no_route until there is one) and says so in
// state().error. A port whose UDP port is taken does not work: it is refused when a person adds it, and after a restart
// of the daemon it waits in error and tries again every second.
#pragma once

#include "datapath/vport/tunnel_config.h"
#include "datapath/vport/vport.h"

namespace vswitch {

extern const VportType kVxlanVportType;
extern const TunnelTypeTraits kVxlanTraits;  // for whoever parses a vxlan port's options (translation does)

}  // namespace vswitch
