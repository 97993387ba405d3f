// The options of a port of type dpdk, checked. This header needs no DPDK.
#pragma once

#include <cstdint>
#include <string>

#include "datapath/base/status.h"
#include "datapath/vport/vport.h"

namespace vswitch {

struct DpdkOptions {
  std::string devargs;
  uint16_t n_rxq = 1;
  uint16_t n_txq = 0;  // 0: as many as are of use
  uint16_t n_rxq_desc = 2048;
  uint16_t n_txq_desc = 2048;
  uint32_t mbufs = 0;       // 0: default
  uint32_t mbuf_size = 0;   // 0: by MTU
  bool tx_offloads = true;  // those that the device has
};

// `field` of the Status is "options:NAME".
Result<DpdkOptions> parse_dpdk_options(const VportConfig& config);

}  // namespace vswitch
