// The "dpdk" port type: an Ethernet device of DPDK, physical or virtual (docs/dpdk.md). Packets go from one such port
// to another without a copy.
//
// A port whose device cannot be made when the daemon starts is in error and tries again about once a second.
//
// DPDK is started when the first port asks for it. In a build without DPDK the type exists, and adding a port says so.
//
// Options:
//   dpdk-devargs=ARGS     the device: NAME[,KEY=VALUE...], as DPDK writes it (net_null0,no-rx=1), or a PCI address.
//   Required n_rxq=N               queues to receive from. Default: 1 n_txq=N               queues to send to. Default:
//   one per thread that sends, as far as the device has them n_rxq_desc=N, n_txq_desc=N   descriptors per queue,
//   brought into the device's limits. Default: 2048 dpdk-mbufs=N          packet buffers. Default: 262144, or fewer if
//   there is no memory for as many dpdk-mbuf-size=N      bytes of frame per buffer. Default: 2048, or by mtu_request if
//   that is more
#pragma once

#include "datapath/vport/vport.h"

namespace vswitch {

extern const VportType kDpdkVportType;

}  // namespace vswitch
