#include "vswitchd/control/port_log.h"

#include <fmt/format.h>

#include <algorithm>

namespace vswitch {

void PortLog::state(uint32_t dp_port, const std::string& name, const VportState& state) {
  Facts facts{state.error, "", state.admin_up, state.carrier, state.ifindex};
  if (const auto location = state.status.find("location"); location != state.status.end()) {
    facts.location = location->second;
  }
  // Some errors are written to stand alone.
  if (const std::string prefix = "port " + name + ": "; facts.error.starts_with(prefix)) {
    facts.error.erase(0, prefix.size());
  }
  MutexLock lock(mutex_);
  Port& port = ports_[dp_port];
  if (port.name != name) {
    port = Port{};
    port.name = name;
    port.logged = facts;
    port.logged.error.clear();
    port.now = port.logged;
  }
  if (facts == port.now) return;
  port.now = std::move(facts);
  ++port.changes;
  if (may_write(port)) write(port);
}

void PortLog::forget(uint32_t dp_port) {
  MutexLock lock(mutex_);
  ports_.erase(dp_port);
}

void PortLog::flush() {
  MutexLock lock(mutex_);
  for (auto& [dp_port, port] : ports_) {
    if (port.changes != 0 && may_write(port)) write(port);
  }
}

// The allowance fills up again by one line per interval.
bool PortLog::may_write(Port& port) {
  const auto refilled = (clock_.now() - port.last_line) / kInterval;
  if (refilled > 0) port.lines = static_cast<int>(std::max<int64_t>(0, port.lines - refilled));
  return port.lines < kBurst;
}

void PortLog::write(Port& port) {
  std::string what = describe(port.logged, port.now);
  if (port.changes > 1) what += fmt::format(" (after {} changes)", port.changes);
  port.logged = port.now;
  port.changes = 0;
  ++port.lines;
  port.last_line = clock_.now();
  write_(fmt::format("port {}: {}", port.name, what));
}

std::string PortLog::describe(const Facts& before, const Facts& now) {
  if (!now.error.empty()) return now.error;
  if (now.location != before.location) {
    return now.location.empty() ? "device is back in this network namespace" : "device is in " + now.location;
  }
  const char* link = !now.admin_up ? "link is down" : now.carrier ? "link is up" : "link has no carrier";
  if (before.error.empty() && now.ifindex == before.ifindex) return link;
  if (now.ifindex == 0) return fmt::format("works again, {}", link);
  return fmt::format("works {}, {} (device has ifindex {})", before.error.empty() ? "with another device" : "again",
                     link, now.ifindex);
}

}  // namespace vswitch
