// The options of a port of type afxdp, checked. This header needs no AF_XDP.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "datapath/base/status.h"
#include "datapath/vport/vport.h"

namespace vswitch {

// How frames get from the device into the UMEM and back, the fastest first.
enum class XdpMode : uint8_t {
  native_zero_copy,  // the device itself reads and writes UMEM frames
  native,            // the driver runs the XDP program; the kernel copies
  generic,           // the kernel's stack runs it, on any device; the kernel copies
};
std::string_view xdp_mode_name(XdpMode mode);  // as options:xdp-mode has it

struct AfxdpOptions {
  bool best_effort = true;  // of the modes, the first that the device can do from `mode` on
  XdpMode mode = XdpMode::native_zero_copy;
  bool need_wakeup = true;
  uint16_t n_rxq = 0;  // 0: as many as the device has
  uint32_t n_rxq_desc = 2048;
  uint32_t n_txq_desc = 2048;
  uint32_t umem_frames = 32768;
};

// `field` of the Status is "options:NAME".
Result<AfxdpOptions> parse_afxdp_options(const VportConfig& config);

}  // namespace vswitch
