// PortLog: says in the log what becomes of ports' devices: removed, back, renamed, up, down, without carrier.
//
// One line per change of what a person would want to know, with the port's name and the reason. A port that flaps fills
// no log: after kBurst lines it gets one per kInterval, which tells how many changes it stands for and how the port is
// now.
//
// Thread safety: every function may be called from any thread; `write` is called with a lock held.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "datapath/vport/vport.h"

namespace vswitch {

class PortLog {
 public:
  static constexpr int kBurst = 10;
  static constexpr Nanoseconds kInterval = 10s;

  // `clock` must outlive this.
  PortLog(const Clock& clock, std::function<void(std::string_view line)> write)
      : clock_(clock), write_(std::move(write)) {}

  // How the port is now. Of a port seen for the first time only an error is worth a line.
  void state(uint32_t dp_port, const std::string& name, const VportState& state) EXCLUDES(mutex_);
  void forget(uint32_t dp_port) EXCLUDES(mutex_);
  // Writes lines that were held back and may be written now. To be called every now and then.
  void flush() EXCLUDES(mutex_);

 private:
  // What of a state is logged.
  struct Facts {
    std::string error, location;
    bool admin_up = false, carrier = false;
    uint32_t ifindex = 0;
    bool operator==(const Facts&) const = default;
  };
  struct Port {
    std::string name;
    Facts logged, now;
    uint64_t changes = 0;  // since the last line
    int lines = 0;         // written of the burst
    Nanoseconds last_line{};
  };

  static std::string describe(const Facts& before, const Facts& now);
  bool may_write(Port& port) REQUIRES(mutex_);
  void write(Port& port) REQUIRES(mutex_);

  const Clock& clock_;
  const std::function<void(std::string_view)> write_;
  Mutex mutex_;
  std::map<uint32_t, Port> ports_ GUARDED_BY(mutex_);
};

}  // namespace vswitch
