// The "afxdp" port type: any Ethernet device of Linux through AF_XDP (docs/afxdp.md): an XDP program in the device's
// driver hands frames to the switch before the kernel's stack sees them, in memory that ports of the type share. In a
// build without libxdp, the type is known and its ports cannot be opened.
#pragma once

#include "datapath/vport/vport.h"

namespace vswitch {

extern const VportType kAfxdpVportType;

}  // namespace vswitch
