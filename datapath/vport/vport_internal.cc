#include "datapath/vport/vport_internal.h"

#include <fmt/format.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <algorithm>

#include "datapath/vport/device_port.h"
#include "datapath/vport/netlink.h"
#include "datapath/vport/tap_device.h"
#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

// What the kernel lets a TAP's MTU be.
constexpr uint32_t kMinTapMtu = 68, kMaxTapMtu = 65521;

bool is_tap(const LinkInfo& link) { return link.kind == "tun"; }

Status check_is_tap(const LinkInfo& link) {
  if (is_tap(link)) return {};
  return already_exists(
      fmt::format("device {} exists and is {}; an internal port needs that name for a device of its own", link.name,
                  link.kind.empty() ? "not a TAP" : "of kind " + link.kind));
}

// How many queues of a TAP are attached to, by whomever; 0 if it can have one only.
uint32_t attached_queues(uint32_t ifindex) {
  Result<std::unique_ptr<NetlinkRequests>> requests = NetlinkRequests::open();
  if (!requests) return 0;
  const NetlinkMessagePtr message = make_netlink_message(RTM_GETLINK, 0);
  ifinfomsg about{};
  about.ifi_index = static_cast<int>(ifindex);
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  uint32_t queues = 0;
  const auto find = [](nlattr* nest, int type) {
    return nest == nullptr ? nullptr : nla_find(static_cast<nlattr*>(nla_data(nest)), nla_len(nest), type);
  };
  (*requests)->run(message.get(), [&](nl_msg* answer) {
    nlattr* info = nlmsg_find_attr(nlmsg_hdr(answer), sizeof about, IFLA_LINKINFO);
    nlattr* data = find(info, IFLA_INFO_DATA);
    for (const int type : {IFLA_TUN_NUM_QUEUES, IFLA_TUN_NUM_DISABLED_QUEUES}) {
      if (nlattr* number = find(data, type)) queues += nla_get_u32(number);
    }
  });
  return queues;
}

class InternalDriver final : public DeviceDriver {
 public:
  InternalDriver(std::string device, VportEnvironment& environment)
      : device_(std::move(device)), links_(environment.links), host_(environment.host) {}

  std::string_view type() const override { return "internal"; }
  std::string device_name(const VportConfig& config) const override { return internal_device_name(config.name); }

  Result<std::unique_ptr<DeviceIo>> open(const std::optional<LinkInfo>& link, bool closing) override;
  bool still_good(DeviceIo& io, const std::optional<LinkInfo>& link) override;

 private:
  const std::string device_;
  LinkMonitor& links_;
  const VportHost& host_;
  MacAddress last_mac_{};   // what a device made anew is to have
  std::string renamed_to_;  // somebody gave our device another name
};

Result<std::unique_ptr<DeviceIo>> InternalDriver::open(const std::optional<LinkInfo>& link, bool closing) {
  if (link) VSWITCH_RETURN_IF_ERROR(check_is_tap(*link));
  if (!link && !renamed_to_.empty() && links_.find(renamed_to_)) {
    return failed_precondition(fmt::format("device {} was renamed to {}", device_, renamed_to_));
  }
  renamed_to_.clear();
  // A TAP with one queue says so itself.
  if (link && attached_queues(link->ifindex) != 0) {
    if (closing) return unavailable(fmt::format("device {} is being opened anew", device_));
    return failed_precondition(fmt::format("device {} is busy (another process has it open)", device_));
  }
  Result<std::unique_ptr<TapDevice>> tap = TapDevice::open(device_, host_.forwarding_threads());
  if (!tap) return tap.status();
  if (!link && !last_mac_.is_zero()) VSWITCH_RETURN_IF_ERROR(links_.set_mac(device_, last_mac_));
  if (const std::optional<LinkInfo> made = link ? link : links_.find(device_)) last_mac_ = made->mac;
  return std::unique_ptr<DeviceIo>(std::move(*tap));
}

bool InternalDriver::still_good(DeviceIo& io, const std::optional<LinkInfo>& link) {
  auto& tap = static_cast<TapDevice&>(io);  // open() made it
  const std::string name = tap.current_name();
  if (name.empty()) return false;  // deleted
  if (name != device_) {
    // Renamed here, or moved to another namespace and renamed there. `link` may have been looked up just before.
    if (const std::optional<LinkInfo> renamed = links_.find(name); renamed && renamed->ifindex == io.ifindex()) {
      renamed_to_ = name;
      return false;
    }
  }
  if (link) {
    if (tap.multi_queue() && tap.queue_count() != host_.forwarding_threads()) return false;
    last_mac_ = link->mac;
    tap.set_persistent(true);
    return is_tap(*link) && name == device_;
  }
  tap.set_persistent(false);  // in another namespace nobody could adopt it, and it would stay for ever
  return true;
}

Status validate(const VportConfig& config) {
  VSWITCH_RETURN_IF_ERROR(check_known_options(config, {}));
  const std::string& name = config.name;
  if (name.empty() || name == "." || name == ".." || std::any_of(name.begin(), name.end(), [](unsigned char c) {
        return c <= ' ' || c == '/' || c == ':' || c == '%' || c == 0x7f;
      })) {
    return invalid_argument(fmt::format("port {}: not a name that a Linux device can have", name), "name");
  }
  if (config.mtu_request != 0 && (config.mtu_request < kMinTapMtu || config.mtu_request > kMaxTapMtu)) {
    return invalid_argument(
        fmt::format("port {}: MTU {} is not between {} and {}", name, config.mtu_request, kMinTapMtu, kMaxTapMtu),
        "mtu_request");
  }
  return {};
}

Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no, VportEnvironment& environment,
                                      bool must_work) {
  auto driver = std::make_unique<InternalDriver>(internal_device_name(config.name), environment);
  return DevicePort::create(config, port_no, environment, must_work, std::move(driver));
}

Status check(const VportConfig& config, const VportConfig* current, VportEnvironment& environment) {
  const std::string device = internal_device_name(config.name);
  const std::optional<LinkInfo> link = environment.links.find(device);
  if (current != nullptr) return link ? check_device_settings(config, *link) : Status();
  Status status = link ? check_is_tap(*link) : TapDevice::check_access(device);
  if (status.ok() && link) status = check_device_settings(config, *link);
  return status.with_prefix("port " + config.name);
}

// The port itself is gone by now: it would make the device anew.
void forget(const VportConfig& config, VportEnvironment& environment) {
  const std::optional<LinkInfo> link = environment.links.find(internal_device_name(config.name));
  if (!link || !is_tap(*link)) return;
  Result<std::unique_ptr<NetlinkRequests>> requests = NetlinkRequests::open();
  if (!requests) return;
  const NetlinkMessagePtr message = make_netlink_message(RTM_DELLINK, NLM_F_ACK);
  ifinfomsg about{};
  about.ifi_index = static_cast<int>(link->ifindex);
  nlmsg_append(message.get(), &about, sizeof about, NLMSG_ALIGNTO);
  (*requests)->run(message.get());
}

}  // namespace

std::string internal_device_name(const std::string& port_name) {
  if (port_name.size() < IFNAMSIZ) return port_name;
  uint32_t hash = 2166136261u;  // FNV-1a: part of what users see, so it must never change
  for (const char c : port_name) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return fmt::format("{}-{:04x}", port_name.substr(0, 10), (hash ^ hash >> 16) & 0xffff);
}

constinit const VportType kInternalVportType = {"internal", validate, create, forget, check};

}  // namespace vswitch
