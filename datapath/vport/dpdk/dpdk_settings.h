// How DPDK's environment (EAL) is to be started: the daemon's settings, by the names that users of Open vSwitch know.
//
// DPDK is one per process and can be started once, so these are too. They count when the first port of type dpdk is
// made; later changes take effect at the next start of the daemon. This header needs no DPDK.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "datapath/base/status.h"

namespace vswitch {

struct DpdkSettings {
  std::string extra;         // dpdk-extra: further EAL arguments, separated by spaces
  std::string socket_mem;    // dpdk-socket-mem: MB per NUMA node, separated by commas; "": as much as is needed
  std::string hugepage_dir;  // dpdk-hugepage-dir: a mounted hugetlbfs; "": anonymous huge pages
  bool operator==(const DpdkSettings&) const = default;
};

// Refuses what would end the process (EAL's help) or makes no sense. `field` of the Status is dpdk_extra, ...
Status check_dpdk_settings(const DpdkSettings& settings);

// For the start that is to come. Thread-safe.
void set_dpdk_settings(const DpdkSettings& settings);
DpdkSettings dpdk_settings();

// Settings that are tried: those from before come back unless keep() is called. The control thread only.
class DpdkSettingsChange {
 public:
  explicit DpdkSettingsChange(const DpdkSettings& settings) : before_(dpdk_settings()) { set_dpdk_settings(settings); }
  ~DpdkSettingsChange() {
    if (!kept_) set_dpdk_settings(before_);
  }
  DpdkSettingsChange(const DpdkSettingsChange&) = delete;
  DpdkSettingsChange& operator=(const DpdkSettingsChange&) = delete;
  void keep() { kept_ = true; }

 private:
  const DpdkSettings before_;
  bool kept_ = false;
};

// The arguments that EAL gets, the program's name first. `pci_device`: the one PCI device that it may touch; "" for
// none. `cpus`: what the process may run on.
std::vector<std::string> eal_arguments(const DpdkSettings& settings, std::string_view pci_device,
                                       const std::vector<int>& cpus);

}  // namespace vswitch
