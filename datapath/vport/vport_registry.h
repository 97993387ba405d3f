// The port types this build knows. One line per type in vport_registry.cc.
#pragma once

#include <span>
#include <string_view>

#include "datapath/vport/vport.h"

namespace vswitch {

std::span<const VportType> vport_types();
const VportType* find_vport_type(std::string_view name);  // null if unknown; "" and "system" mean netdev

// Helper for validate(): checks that every option is one of `known`, else names the nearest known spelling.
Status check_known_options(const VportConfig& config, std::span<const std::string_view> known);
// The spelling in `known` that differs least from `word`, or "" when none is near.
std::string_view nearest_spelling(std::string_view word, std::span<const std::string_view> known);

}  // namespace vswitch
