// The "pcap" port type: replays a pcap file into the switch as fast as it takes them, and counts or captures what it is
// sent. Two of them measure the switch without any device.
//
// The file is read into memory once; each frame's bytes are copied once, into the packet. Its MTU is unlimited unless
// asked for. Without tx_pcap, packets are counted as they are; with it, they are brought into wire form first.
//
// Options:
//   rx_pcap=FILE          frames to replay (Ethernet); none: the port only sends
//   loop=N|infinite       how often to replay the file. Default: 1
//   tx_pcap=FILE|none     appends what the port sends. Default: none
#pragma once

#include "datapath/vport/vport.h"

namespace vswitch {

extern const VportType kPcapVportType;

}  // namespace vswitch
