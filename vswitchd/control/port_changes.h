// PortChanges: carries out the port part of a ChangePlan on the datapath, and undoes it.
//
// Order: removals, updates, additions, so that what an old port held (a UDP port, a device) is free for a new one. Of
// updates, one that wants what another gives up (the key of a tunnel) waits for that. What
// outlives the daemon (persistent TAPs) is forgotten only by finish(), after the commit: until then undo() can bring
// every port back.
//
// For as long as one of these lives, new ports receive nothing: destroy it when the view that knows them is published,
// or when they are gone again. The first packets of a port would be lost otherwise.
#pragma once

#include <string>
#include <vector>

#include "datapath/base/status.h"
#include "datapath/core/datapath.h"
#include "vswitchd/control/change_plan.h"
#include "vswitchd/control/config.h"

namespace vswitch {

class PortChanges {
 public:
  // Both configurations must outlive this.
  PortChanges(Datapath& datapath, const Configuration& before, const ChangePlan& plan)
      : datapath_(datapath), before_(before), plan_(plan) {
    datapath_.hold_new_ports();
  }
  ~PortChanges() { datapath_.release_new_ports(); }
  PortChanges(const PortChanges&) = delete;
  PortChanges& operator=(const PortChanges&) = delete;

  // On error everything has been undone; *failed_port names the port.
  Status apply(std::string* failed_port);
  void undo();
  void finish();

 private:
  Status remove(const std::string& name);
  Status update(const std::string& name);
  Status update_all(std::string* failed_port);
  Status add(const std::string& name);
  void put_back(const std::string& name);
  struct Updated;
  void take_back(const Updated& updated);

  Datapath& datapath_;
  const Configuration& before_;
  const ChangePlan& plan_;
  struct Updated {
    std::string name;
    bool vport = false, flags = false;  // what was changed
    VportState before;
  };
  std::vector<std::string> removed_, added_;
  std::vector<std::string> to_make_anew_;  // removed, and added when the updates are done
  std::vector<Updated> updated_;
};

// Tells what PortChanges::apply() would refuse now, as far as that can be known without changing anything.
Status check_port_changes(Datapath& datapath, const Configuration& before, const ChangePlan& plan,
                          std::string* failed_port);

// Adds one configured port to the datapath and applies its flags. Patch ports need nothing.
Status add_configured_port(Datapath& datapath, const Configuration& configuration, const std::string& name,
                           bool must_work);

}  // namespace vswitch
