#include "vswitchd/control/port_changes.h"

#include "datapath/vport/vport_registry.h"

namespace vswitch {

Status add_configured_port(Datapath& datapath, const Configuration& configuration, const std::string& name,
                           bool must_work) {
  const auto dp_port = configuration.dp_ports.find(name);
  if (dp_port == configuration.dp_ports.end()) return {};
  const PortConfig& config = configuration.ports.at(name);
  const Result<uint32_t> added = datapath.add_port(config.vport, dp_port->second, must_work);
  if (!added.ok()) return added.status();
  if (!config.flags.down) return {};
  const Status down = datapath.set_port_admin_up(dp_port->second, false);
  if (down.ok() || !must_work) return {};
  (void)datapath.remove_port(dp_port->second, false).ok();
  return down;
}

Status PortChanges::remove(const std::string& name) {
  const auto dp_port = before_.dp_ports.find(name);
  if (dp_port == before_.dp_ports.end()) return {};
  VSWITCH_RETURN_IF_ERROR(datapath_.remove_port(dp_port->second, false));
  removed_.push_back(name);
  return {};
}

Status PortChanges::update(const std::string& name) {
  const auto dp_port = plan_.next.dp_ports.find(name);
  if (dp_port == plan_.next.dp_ports.end()) return {};
  const PortConfig& old_config = before_.ports.at(name);
  const PortConfig& new_config = plan_.next.ports.at(name);
  if (!(old_config.vport == new_config.vport)) {
    VSWITCH_RETURN_IF_ERROR(datapath_.reconfigure_port(dp_port->second, new_config.vport));
    updated_.push_back(name);
  }
  if (old_config.flags.down != new_config.flags.down) {
    VSWITCH_RETURN_IF_ERROR(datapath_.set_port_admin_up(dp_port->second, !new_config.flags.down));
    if (updated_.empty() || updated_.back() != name) updated_.push_back(name);
  }
  return {};
}

Status PortChanges::add(const std::string& name) {
  const Status status = add_configured_port(datapath_, plan_.next, name, true);
  if (status.ok()) {
    if (plan_.next.dp_ports.contains(name)) added_.push_back(name);
    return {};
  }
  return status;
}

Status PortChanges::apply(std::string* failed_port) {
  const auto each = [&](const std::set<std::string>& names, Status (PortChanges::*step)(const std::string&)) -> Status {
    for (const std::string& name : names) {
      const Status status = (this->*step)(name);
      if (status.ok()) continue;
      *failed_port = name;
      undo();
      return status;
    }
    return {};
  };
  VSWITCH_RETURN_IF_ERROR(each(plan_.deleted_ports, &PortChanges::remove));
  VSWITCH_RETURN_IF_ERROR(each(plan_.updated_ports, &PortChanges::update));
  return each(plan_.created_ports, &PortChanges::add);
}

void PortChanges::put_back(const std::string& name) {
  // The system may have changed under us (a device vanished): then the port comes back in error, as after a restart.
  (void)add_configured_port(datapath_, before_, name, false).ok();
}

void PortChanges::undo() {
  for (auto name = added_.rbegin(); name != added_.rend(); ++name) {
    // A port that is in both configurations (replaced) keeps what outlives the daemon for its old self.
    const bool replaced =
        before_.ports.contains(*name) && before_.ports.at(*name).vport.type == plan_.next.ports.at(*name).vport.type;
    (void)datapath_.remove_port(plan_.next.dp_ports.at(*name), !replaced).ok();
  }
  for (auto name = updated_.rbegin(); name != updated_.rend(); ++name) {
    const uint32_t dp_port = before_.dp_ports.at(*name);
    const PortConfig& config = before_.ports.at(*name);
    (void)datapath_.reconfigure_port(dp_port, config.vport).ok();
    (void)datapath_.set_port_admin_up(dp_port, !config.flags.down).ok();
  }
  for (auto name = removed_.rbegin(); name != removed_.rend(); ++name) put_back(*name);
  added_.clear();
  updated_.clear();
  removed_.clear();
}

void PortChanges::finish() {
  for (const std::string& name : removed_) {
    const PortConfig& config = before_.ports.at(name);
    const auto now = plan_.next.ports.find(name);
    if (now != plan_.next.ports.end() && now->second.vport.type == config.vport.type) continue;
    datapath_.forget_port(config.vport);
  }
}

}  // namespace vswitch
