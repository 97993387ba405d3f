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
  Updated updated{name, false, false, datapath_.port_state(dp_port->second).value_or(VportState())};
  Status status;
  if (!(old_config.vport == new_config.vport)) {
    status = datapath_.reconfigure_port(dp_port->second, new_config.vport);
    updated.vport = status.ok();
  }
  if (status.ok() && old_config.flags.down != new_config.flags.down) {
    status = datapath_.set_port_admin_up(dp_port->second, !new_config.flags.down);
    updated.flags = status.ok();
  }
  if (updated.vport || updated.flags) updated_.push_back(std::move(updated));
  return status;
}

Status PortChanges::add(const std::string& name) {
  const Status status = add_configured_port(datapath_, plan_.next, name, true);
  if (status.ok()) {
    if (plan_.next.dp_ports.contains(name)) added_.push_back(name);
    return {};
  }
  return status;
}

Status PortChanges::update_all(std::string* failed_port) {
  std::vector<std::string> waiting(plan_.updated_ports.begin(), plan_.updated_ports.end());
  while (!waiting.empty()) {
    std::vector<std::string> blocked;
    Status refusal;
    for (const std::string& name : waiting) {
      const Status status = update(name);
      if (status.ok()) continue;
      *failed_port = name;
      if (status.code() != StatusCode::already_exists) return status;
      blocked.push_back(name);
      refusal = status;
    }
    if (blocked.size() == 1 && waiting.size() == 1) return refusal;  // what it wants is none of ours
    if (blocked.size() == waiting.size()) {
      // Each wants what the next one has, in a ring (two tunnels swap their keys): one lets go.
      const std::string name = blocked.back();
      blocked.pop_back();
      VSWITCH_RETURN_IF_ERROR(remove(name));
      to_make_anew_.push_back(name);
    }
    waiting = std::move(blocked);
  }
  return {};
}

Status PortChanges::apply(std::string* failed_port) {
  const auto each = [&](const auto& names, Status (PortChanges::*step)(const std::string&)) -> Status {
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
  if (const Status status = update_all(failed_port); !status.ok()) {
    undo();
    return status;
  }
  VSWITCH_RETURN_IF_ERROR(each(to_make_anew_, &PortChanges::add));
  return each(plan_.created_ports, &PortChanges::add);
}

void PortChanges::put_back(const std::string& name) {
  // The system may have changed under us (a device vanished): then the port comes back in error, as after a restart.
  (void)add_configured_port(datapath_, before_, name, false).ok();
}

void PortChanges::take_back(const Updated& updated) {
  const uint32_t dp_port = before_.dp_ports.at(updated.name);
  const PortConfig& config = before_.ports.at(updated.name);
  if (updated.vport) {
    // "Leave it as it is" does not say what it was before the change.
    VportConfig as_it_was = config.vport;
    if (as_it_was.mtu_request == 0 && plan_.next.ports.at(updated.name).vport.mtu_request != 0) {
      as_it_was.mtu_request = updated.before.mtu;
    }
    if (as_it_was.mac.is_zero() && !plan_.next.ports.at(updated.name).vport.mac.is_zero()) {
      as_it_was.mac = updated.before.mac;
    }
    if (!(as_it_was == config.vport)) (void)datapath_.reconfigure_port(dp_port, as_it_was).ok();
    (void)datapath_.reconfigure_port(dp_port, config.vport).ok();
  }
  if (updated.flags) (void)datapath_.set_port_admin_up(dp_port, !config.flags.down).ok();
}

void PortChanges::undo() {
  for (auto name = added_.rbegin(); name != added_.rend(); ++name) {
    // A port that is in both configurations (replaced) keeps what outlives the daemon for its old self.
    const bool replaced =
        before_.ports.contains(*name) && before_.ports.at(*name).vport.type == plan_.next.ports.at(*name).vport.type;
    (void)datapath_.remove_port(plan_.next.dp_ports.at(*name), !replaced).ok();
  }
  for (auto updated = updated_.rbegin(); updated != updated_.rend(); ++updated) take_back(*updated);
  for (auto name = removed_.rbegin(); name != removed_.rend(); ++name) put_back(*name);
  added_.clear();
  to_make_anew_.clear();
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

Status check_port_changes(Datapath& datapath, const Configuration& before, const ChangePlan& plan,
                          std::string* failed_port) {
  const auto check = [&](const std::string& name, uint32_t current_dp_port) {
    *failed_port = name;
    return datapath.check_port(current_dp_port, plan.next.ports.at(name).vport);
  };
  for (const std::string& name : plan.updated_ports) {
    const auto dp_port = plan.next.dp_ports.find(name);
    if (dp_port == plan.next.dp_ports.end() || before.ports.at(name).vport == plan.next.ports.at(name).vport) continue;
    VSWITCH_RETURN_IF_ERROR(check(name, dp_port->second));
  }
  for (const std::string& name : plan.created_ports) {
    if (plan.next.dp_ports.contains(name)) VSWITCH_RETURN_IF_ERROR(check(name, 0));
  }
  return {};
}

}  // namespace vswitch
