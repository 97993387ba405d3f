// Eal: DPDK's environment in this process: started when the first port asks, never stopped.
//
// Thread safety: all functions may be called from any thread.
#pragma once

#include <rte_lcore.h>

#include <string>
#include <string_view>
#include <vector>

#include "datapath/base/status.h"

namespace vswitch::dpdk {

// Starts EAL with dpdk_settings() unless it runs. `pci_device`: the PCI address that the asking port is for, "" if it
// is for a virtual device: then no PCI device is touched, now or later. What can be known to fail is found before EAL
// is tried, because a failed start cannot be repeated in the process: the same error is returned from then on.
Status start_eal(std::string_view pci_device);

// What DPDK logged on any thread since construction, for error messages: DPDK's return values seldom say more than
// "invalid argument". Nests.
class LogCapture {
 public:
  LogCapture();
  ~LogCapture();
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;

  // " (line; line)", or "" if nothing was logged. The last few lines only.
  std::string lines() const;

 private:
  size_t begin_;
};

// While it exists, what DPDK logs on this thread is kept for LogCapture but not written to the daemon's log: for
// attempts that are repeated.
class QuietLog {
 public:
  QuietLog();
  ~QuietLog();
  QuietLog(const QuietLog&) = delete;
  QuietLog& operator=(const QuietLog&) = delete;
};

// "Invalid argument (EINVAL ...)" in DPDK's words; negative or positive.
std::string error_text(int error);

void register_thread_slowly();

// Makes the calling thread known to DPDK, so that it has its own cache of free mbufs. Cheap when it is known already;
// the thread is forgotten by itself when it ends. Without a free place (128 threads) it works as before, more slowly.
inline void register_thread() {
  if (__builtin_expect(rte_lcore_id() == LCORE_ID_ANY, 0)) register_thread_slowly();
}

}  // namespace vswitch::dpdk
