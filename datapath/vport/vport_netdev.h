// The "netdev" port type (also "system" and no type at all): any Ethernet device of Linux, through a packet socket.
//
// The device keeps its place in the host's network stack: what comes in on it reaches both, so a device that is given
// to the switch should have no addresses of its own.
//
// Options:
//   device=NAME   the Linux device, by its name or one of its alternative names; default: the port's name. Port names
//   may
//                 have up to 63 characters, a device's first name at most 15.
#pragma once

#include "datapath/vport/vport.h"

namespace vswitch {

extern const VportType kNetdevVportType;

}  // namespace vswitch
