#include "datapath/vport/dpdk/dpdk_device.h"

#include <fmt/format.h>
#include <rte_bus_pci.h>
#include <rte_dev.h>
#include <rte_ethdev.h>
#include <rte_pci.h>
#include <rte_version.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "datapath/base/mutex.h"
#include "datapath/vport/dpdk/eal.h"

namespace vswitch::dpdk {
namespace {

constexpr uint32_t kEthernetOverhead = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN + 2 * RTE_VLAN_HLEN;
constexpr uint32_t kLeastFrame = 2048;  // as much as devices ask for per buffer

// Which port has which device: DPDK does not refuse a second use.
struct Owners {
  Mutex mutex;
  std::map<std::string, std::string> by_device GUARDED_BY(mutex);
};

Owners& owners() {
  static Owners* const owners = new Owners;
  return *owners;
}

std::string without_bus(std::string devargs, std::string_view bus) {
  return devargs.starts_with(bus) ? devargs.substr(bus.size()) : devargs;
}

// What devices of DPDK are called: the first word of the devargs, without the bus.
std::string device_name(const std::string& devargs) {
  if (std::string pci = pci_address_of(devargs); !pci.empty()) return pci;
  return without_bus(devargs.substr(0, devargs.find(',')), "vdev:");
}

Status bad_devargs(const DeviceConfig& config, const std::string& what) {
  return invalid_argument(fmt::format("dpdk-devargs \"{}\": {}", config.devargs, what), "options:dpdk-devargs");
}

Status failed(const std::string& what, int error, const LogCapture& log) {
  return failed_precondition(fmt::format("{}: {}{}", what, error_text(error), log.lines()), "options:dpdk-devargs");
}

rte_eth_dev_info info_of(uint16_t port_id) {
  rte_eth_dev_info info;
  if (rte_eth_dev_info_get(port_id, &info) != 0) std::memset(&info, 0, sizeof info);
  return info;
}

// Devices that have a queue to send for each to receive from, and nothing else.
bool has_queue_pairs(const rte_eth_dev_info& info) {
  const std::string_view driver = info.driver_name == nullptr ? "" : info.driver_name;
  return driver == "net_ring" || driver == "net_tap";
}

int link_changed(uint16_t, rte_eth_event_type, void* on_change, void*) {
  (*static_cast<const std::function<void()>*>(on_change))();
  return 0;
}

uint64_t xstat(uint16_t port_id, const char* name) {
  uint64_t id = 0, value = 0;
  if (rte_eth_xstats_get_id_by_name(port_id, name, &id) != 0) return 0;
  return rte_eth_xstats_get_by_id(port_id, &id, &value, 1) == 1 ? value : 0;
}

}  // namespace

std::string pci_address_of(const std::string& devargs) {
  const std::string first = without_bus(devargs.substr(0, devargs.find(',')), "pci:");
  rte_pci_addr address;
  if (rte_pci_addr_parse(first.c_str(), &address) != 0) return "";
  char text[PCI_PRI_STR_SIZE + 1] = {};
  rte_pci_device_name(&address, text, sizeof text);
  return text;
}

Result<std::unique_ptr<Device>> Device::open(const DeviceConfig& config) {
  std::unique_ptr<Device> device(new Device);
  VSWITCH_RETURN_IF_ERROR(device->attach(config));
  VSWITCH_RETURN_IF_ERROR(device->configure(config));
  return device;
}

Status Device::attach(const DeviceConfig& config) {
  name_ = device_name(config.devargs);
  {
    MutexLock lock(owners().mutex);
    const auto [known, is_new] = owners().by_device.emplace(name_, config.owner);
    if (!is_new) {
      return already_exists(
          fmt::format("dpdk-devargs \"{}\": port {} has the device {}", config.devargs, known->second, name_),
          "options:dpdk-devargs");
    }
    reserved_ = true;
  }
  const LogCapture log;
  if (const int error = rte_dev_probe(config.devargs.c_str()); error != 0) {
    return bad_devargs(config, fmt::format("DPDK cannot make the device: {}{}", error_text(error), log.lines()));
  }
  if (rte_eth_dev_get_port_by_name(name_.c_str(), &port_id_) != 0) {
    rte_eal_hotplug_remove(pci_address_of(config.devargs).empty() ? "vdev" : "pci", name_.c_str());
    return bad_devargs(config, "it is not an Ethernet device" + log.lines());
  }
  attached_ = true;
  return {};
}

Status Device::configure(const DeviceConfig& config) {
  const rte_eth_dev_info info = info_of(port_id_);
  numa_node_ = rte_eth_dev_socket_id(port_id_);
  if (config.mtu != 0 && info.max_mtu != 0 && (config.mtu > info.max_mtu || config.mtu < info.min_mtu)) {
    return invalid_argument(
        fmt::format("mtu_request is {}; {} can have {} to {}", config.mtu, name_, info.min_mtu, info.max_mtu),
        "mtu_request");
  }
  MbufPoolConfig pool;
  pool.mbufs = config.mbufs;
  const uint32_t frame =
      config.mbuf_size != 0 ? config.mbuf_size : std::max(kLeastFrame, config.mtu + kEthernetOverhead);
  pool.data_room = static_cast<uint32_t>(MbufPool::kReceiveHeadroom) + (frame + 63) / 64 * 64;
  pool.numa_node = numa_node_;
  Result<std::shared_ptr<MbufPool>> made = MbufPool::get(pool);
  if (!made.ok()) return made.status();
  pool_ = std::move(*made);
  VSWITCH_RETURN_IF_ERROR(configure_queues(config));
  VSWITCH_RETURN_IF_ERROR(set_up_queues(config));
  return start(config);
}

Status Device::configure_queues(const DeviceConfig& config) {
  const rte_eth_dev_info info = info_of(port_id_);
  for (const auto& [option, wanted, most] :
       {std::tuple("n_rxq", config.n_rxq, info.max_rx_queues), std::tuple("n_txq", config.n_txq, info.max_tx_queues)}) {
    if (wanted > most) {
      return invalid_argument(fmt::format("{} is {}; {} has {} such queues", option, wanted, name_, most),
                              fmt::format("options:{}", option));
    }
  }
  n_rxq_ = config.n_rxq;
  n_txq_ = config.n_txq;
  if (n_txq_ == 0) {
    n_txq_ = has_queue_pairs(info) ? n_rxq_ : std::min<uint16_t>(info.max_tx_queues, kMaxThreads);
  }
  rte_eth_conf conf{};
  if (info.dev_flags != nullptr) conf.intr_conf.lsc = (*info.dev_flags & RTE_ETH_DEV_INTR_LSC) != 0;
  conf.rxmode.mtu = config.mtu;
  if (config.tx_offloads) conf.txmode.offloads = TxOffload::of_use(info.tx_offload_capa);
  if (n_rxq_ > 1 && info.flow_type_rss_offloads != 0) {
    conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf.rx_adv_conf.rss_conf.rss_hf =
        (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP) & info.flow_type_rss_offloads;
  }
  const LogCapture log;
  if (const int error = rte_eth_dev_configure(port_id_, n_rxq_, n_txq_, &conf); error != 0) {
    return failed(fmt::format("{} cannot be set up with {} receive and {} transmit queues", name_, n_rxq_, n_txq_),
                  error, log);
  }
  tx_offload_ = TxOffload(tx_limits(info, conf.txmode.offloads));
  configured_ = true;
  return {};
}

TxLimits Device::tx_limits(const rte_eth_dev_info& info, uint64_t enabled) const {
  TxLimits limits;
  limits.enabled = enabled;
  limits.room = pool_->buffer_size() - MbufPool::kReceiveHeadroom;
  limits.mbufs = info.tx_desc_lim.nb_seg_max == UINT16_MAX ? 0 : info.tx_desc_lim.nb_seg_max;
  // It cuts TCP over IPv4 only (librte_gso) and sends the rest as it is, and counts the Ethernet header as part of what
  // its MTU limits.
  if (info.driver_name != nullptr && std::string_view(info.driver_name) == "net_tap") {
    limits.cuts_ipv6 = false;
    limits.longest_piece = mtu();
  }
  return limits;
}

Status Device::set_up_queues(const DeviceConfig& config) {
  uint16_t n_rxq_desc = config.n_rxq_desc, n_txq_desc = config.n_txq_desc;
  const LogCapture log;
  if (const int error = rte_eth_dev_adjust_nb_rx_tx_desc(port_id_, &n_rxq_desc, &n_txq_desc); error != 0) {
    return failed(name_ + " does not take the number of descriptors", error, log);
  }
  const auto node = static_cast<unsigned>(numa_node_);
  for (uint16_t queue = 0; queue < n_rxq_; ++queue) {
    const int error = rte_eth_rx_queue_setup(port_id_, queue, n_rxq_desc, node, nullptr, pool_->mempool());
    if (error != 0) return failed(fmt::format("{} cannot set up receive queue {}", name_, queue), error, log);
  }
  for (uint16_t queue = 0; queue < n_txq_; ++queue) {
    const int error = rte_eth_tx_queue_setup(port_id_, queue, n_txq_desc, node, nullptr);
    if (error != 0) return failed(fmt::format("{} cannot set up transmit queue {}", name_, queue), error, log);
  }
  return {};
}

Status Device::start(const DeviceConfig& config) {
  const LogCapture log;
  if (config.mtu != 0) {
    // A device that cannot be told has no limit of its own: the port keeps to the MTU when it sends.
    const int error = rte_eth_dev_set_mtu(port_id_, static_cast<uint16_t>(config.mtu));
    if (error != 0 && error != -ENOTSUP) return failed(fmt::format("{} refuses MTU {}", name_, config.mtu), error, log);
  }
  if (!config.mac.is_zero()) VSWITCH_RETURN_IF_ERROR(set_mac(config.mac));
  if (const int error = rte_eth_dev_start(port_id_); error != 0) return failed(name_ + " does not start", error, log);
  on_link_change_ = config.on_link_change;
  watch_link();
  // Devices without a filter cannot be told to have none; those that fail otherwise forward what they let through.
  rte_eth_promiscuous_enable(port_id_);
  rte_eth_allmulticast_enable(port_id_);
  return {};
}

void Device::watch_link() {
  if (!on_link_change_) return;
  watched_ = rte_eth_dev_callback_register(port_id_, RTE_ETH_EVENT_INTR_LSC, link_changed, &on_link_change_) == 0;
}

// Returns when no call is under way any more.
void Device::unwatch_link() {
  if (!watched_) return;
  while (rte_eth_dev_callback_unregister(port_id_, RTE_ETH_EVENT_INTR_LSC, link_changed, &on_link_change_) == -EAGAIN) {
    std::this_thread::yield();
  }
}

Device::~Device() {
  unwatch_link();
  if (attached_) {
    rte_device* const device = info_of(port_id_).device;
    if (configured_) rte_eth_dev_stop(port_id_);
    rte_eth_dev_close(port_id_);
    if (device != nullptr) rte_dev_remove(device);
  }
  if (!reserved_) return;
  MutexLock lock(owners().mutex);
  owners().by_device.erase(name_);
}

uint32_t Device::mtu() const {
  uint16_t mtu = 0;
  return rte_eth_dev_get_mtu(port_id_, &mtu) == 0 ? mtu : 0;
}

void Device::describe(VportState& state) const {
  const rte_eth_dev_info info = info_of(port_id_);
  rte_eth_link link{};
  rte_eth_link_get_nowait(port_id_, &link);
  state.carrier = link.link_status == RTE_ETH_LINK_UP;
  if (link.link_speed != RTE_ETH_SPEED_NUM_UNKNOWN) state.speed_bps = uint64_t{link.link_speed} * 1'000'000;
  state.ifindex = info.if_index;
  rte_ether_addr mac{};
  if (rte_eth_macaddr_get(port_id_, &mac) == 0) std::memcpy(&state.mac, mac.addr_bytes, sizeof mac.addr_bytes);
  std::map<std::string, std::string>& status = state.status;
  const std::string driver = info.driver_name == nullptr ? "" : info.driver_name;
  status["driver_name"] = driver;
  status["if_descr"] = fmt::format("{} {}", rte_version(), driver);
  status["if_type"] = "6";  // ethernetCsmacd, RFC 2863
  status["numa_id"] = std::to_string(numa_node_);
  status["port_no"] = std::to_string(port_id_);
  status["n_rxq"] = std::to_string(n_rxq_);
  status["n_txq"] = std::to_string(n_txq_);
  status["max_rx_queues"] = std::to_string(info.max_rx_queues);
  status["max_tx_queues"] = std::to_string(info.max_tx_queues);
  status["max_rx_pktlen"] = std::to_string(info.max_rx_pktlen);
  status["max_mtu"] = std::to_string(info.max_mtu);
  status["tx_offloads"] = tx_offload_.names();
  status["mbufs"] = std::to_string(pool_->packet_count());
  status["mbuf_size"] = std::to_string(pool_->buffer_size() - MbufPool::kReceiveHeadroom);
}

void Device::add_device_counts(uint64_t unsent, VportStats& stats) const {
  rte_eth_stats counts{};
  if (rte_eth_stats_get(port_id_, &counts) != 0) return;
  stats.rx_errors += counts.ierrors;
  stats.rx_dropped += counts.imissed + counts.rx_nombuf;
  stats.rx_over_errors += counts.imissed;
  // What a device does not take it may count as an error too; the port has dropped and counted it.
  if (counts.oerrors > unsent) stats.tx_errors += counts.oerrors - unsent;
  stats.rx_crc_errors += xstat(port_id_, "rx_crc_errors");
  stats.rx_length_errors += xstat(port_id_, "rx_undersized_errors") + xstat(port_id_, "rx_oversize_errors");
  stats.collisions += xstat(port_id_, "tx_total_collisions");
}

Status Device::set_mac(const MacAddress& mac) {
  rte_ether_addr address;
  std::memcpy(address.addr_bytes, &mac, sizeof address.addr_bytes);
  const LogCapture log;
  const int error = rte_eth_dev_default_mac_addr_set(port_id_, &address);
  if (error == 0) return {};
  return Status(StatusCode::failed_precondition,
                fmt::format("{} refuses the MAC address: {}{}", name_, error_text(error), log.lines()), "mac");
}

void Device::set_link_up(bool up) {
  if (up) {
    rte_eth_dev_set_link_up(port_id_);
  } else {
    rte_eth_dev_set_link_down(port_id_);
  }
}

}  // namespace vswitch::dpdk
