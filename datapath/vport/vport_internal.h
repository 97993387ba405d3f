// The "internal" port type: a device that the switch makes for the host, so that the host itself is attached to the
// bridge (the bridge's local port, and more on request). What the host sends on the device comes into the switch.
//
// The device is a persistent TAP with the port's name: it survives a restart of the daemon with its addresses, MAC and
// MTU, and goes when the port is deleted. A new one is down and has no address, as any new device of Linux. It may be
// moved to another network namespace and goes on working there, but a later process cannot find it: there it lives only
// as long as the daemon. When somebody deletes the device, the port makes it anew, with the same MAC.
//
// Options: none.
#pragma once

#include <string>

#include "datapath/vport/vport.h"

namespace vswitch {

extern const VportType kInternalVportType;

// The device's name for a port: the port's own if Linux allows it (15 characters), else its first ten characters, a
// dash and four hexadecimal digits of a hash of the whole, always the same.
std::string internal_device_name(const std::string& port_name);

}  // namespace vswitch
