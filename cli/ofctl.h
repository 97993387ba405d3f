// ofctl: rules, tables, ports as OpenFlow sees them, packets, trace.
#pragma once

#include <span>
#include <string>

#include "cli/command_line.h"

namespace vswitch::cli {

extern const Program kOfctl;
int run_ofctl(std::span<const std::string> words);

}  // namespace vswitch::cli
