// Builds the SwitchView that translation works on from the configuration.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "vswitchd/control/config.h"
#include "vswitchd/translate/switch_view.h"

namespace vswitch {

// What of a bridge lives longer than a view: its rules and learned addresses.
struct BridgeRuntime {
  std::shared_ptr<RuleTables> tables;
  std::shared_ptr<MacTable> macs;
};

// Kept by name so that patch ports go on counting across views.
using PatchCounterMap = std::map<std::string, std::shared_ptr<PatchCounters>, std::less<>>;

std::unique_ptr<SwitchView> build_view(const Configuration& configuration,
                                       const std::map<std::string, BridgeRuntime, std::less<>>& bridges,
                                       PatchCounterMap& patch_counters, uint64_t generation);

// The tunnel options of a port as translation needs them; nullopt for types that are no tunnels. REQUIRES: options that
// the type's validate() accepts.
std::optional<TunnelPortView> tunnel_view(const VportConfig& config);

}  // namespace vswitch
