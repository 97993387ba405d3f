// dpctl: what the datapath holds and how it is doing.
#pragma once

#include <span>
#include <string>

#include "cli/command_line.h"

namespace vswitch::cli {

extern const Program kDpctl;
int run_dpctl(std::span<const std::string> words);

}  // namespace vswitch::cli
