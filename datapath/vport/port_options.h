// Reading a port's options, which are text, for VportType::validate(): the kinds of values that several types have. An
// option that is not set leaves `out` as it is. `field` of a Status is "options:NAME".
#pragma once

#include <cstdint>
#include <string_view>

#include "datapath/base/status.h"
#include "datapath/vport/vport.h"

namespace vswitch {

// The error for an option that is set and not what it may be: "port P: OPTION is "TEXT"; it may be ALLOWED".
Status wrong_option(const VportConfig& config, const char* option, std::string_view allowed);

// A decimal number, `least` to `most`. REQUIRES: `most` fits `out`.
Status read_number_option(const VportConfig& config, const char* option, uint32_t least, uint32_t most, uint32_t& out);
Status read_number_option(const VportConfig& config, const char* option, uint32_t least, uint32_t most, uint16_t& out);
// "true" or "false".
Status read_flag_option(const VportConfig& config, const char* option, bool& out);

}  // namespace vswitch
