// PortMap: datapath port number -> Vport, read by packet threads without locks.
//
// Writers publish under the datapath's lock and free a port only after an RCU grace period.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "datapath/packet/ledger.h"
#include "datapath/vport/vport.h"

namespace vswitch {

class PortMap {
 public:
  Vport* find(uint32_t port_no) const {
    return port_no < kMaxPorts ? ports_[port_no].load(std::memory_order_acquire) : nullptr;
  }
  void set(uint32_t port_no, Vport* port) { ports_[port_no].store(port, std::memory_order_release); }

 private:
  std::array<std::atomic<Vport*>, kMaxPorts> ports_{};
};

}  // namespace vswitch
