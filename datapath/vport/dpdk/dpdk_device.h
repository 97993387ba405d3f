// Device: an Ethernet device of DPDK, attached by its devargs, configured and started; destroying it detaches it.
//
// Control thread only, but for port_id() and the queue counts. A device must outlive all use of its queues.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "datapath/base/address.h"
#include "datapath/base/status.h"
#include "datapath/vport/dpdk/mbuf_pool.h"
#include "datapath/vport/dpdk/tx_offload.h"
#include "datapath/vport/vport.h"

namespace vswitch::dpdk {

struct DeviceConfig {
  std::string devargs;
  std::string owner;  // the port's name, for whoever wants the same device
  uint16_t n_rxq = 1;
  uint16_t n_txq = 0;          // 0: one per thread that sends, as far as the device has them
  uint16_t n_rxq_desc = 2048;  // brought into the device's limits
  uint16_t n_txq_desc = 2048;
  uint32_t mtu = 0;         // 0: the device's own
  MacAddress mac{};         // zero: the device's own
  uint32_t mbufs = 0;       // 0: as MbufPoolConfig
  uint32_t mbuf_size = 0;   // bytes of frame per buffer; 0: by MTU
  bool tx_offloads = true;  // those of use that the device has
  // Called on a thread of DPDK's when the link goes up or down, if the device tells.
  std::function<void()> on_link_change;
};

// The PCI address that devargs name ("0000:01:00.0"), or "".
std::string pci_address_of(const std::string& devargs);

class Device {
 public:
  // Nothing is left behind on failure. EAL must run. `field` of the Status is the option at fault.
  static Result<std::unique_ptr<Device>> open(const DeviceConfig& config);
  ~Device();

  uint16_t port_id() const { return port_id_; }
  uint16_t n_rxq() const { return n_rxq_; }
  uint16_t n_txq() const { return n_txq_; }
  MbufPool& pool() const { return *pool_; }
  const TxOffload& tx_offload() const { return tx_offload_; }

  uint32_t mtu() const;
  void describe(VportState& state) const;
  // What the device itself counted and the switch could not see: errors and drops.
  void add_device_counts(uint64_t unsent, VportStats& stats) const;
  Status set_mac(const MacAddress& mac);
  void set_link_up(bool up);  // as far as the device can

 private:
  Device() = default;
  Status attach(const DeviceConfig& config);
  Status configure(const DeviceConfig& config);
  Status configure_queues(const DeviceConfig& config);
  TxLimits tx_limits(const rte_eth_dev_info& info, uint64_t enabled) const;
  Status set_up_queues(const DeviceConfig& config);
  Status start(const DeviceConfig& config);

  void watch_link();
  void unwatch_link();

  std::string name_;
  std::function<void()> on_link_change_;
  bool watched_ = false;
  bool reserved_ = false;  // name_ is on the list of those in use
  bool attached_ = false;
  bool configured_ = false;
  uint16_t port_id_ = 0;
  uint16_t n_rxq_ = 0, n_txq_ = 0;
  int numa_node_ = -1;
  std::shared_ptr<MbufPool> pool_;
  TxOffload tx_offload_;
};

}  // namespace vswitch::dpdk
