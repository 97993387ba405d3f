// A switch without a daemon: bridges, ports, rules and learned addresses for tests of translation and what uses it.
//
// In C++ or line by line in text, for tests as data:
//   bridge NAME [secure] [forward-bpdu] [flood_vlans=1,2]
//   port BRIDGE NAME OFPORT [dp=N] [tag=N] [vlan_mode=M] [trunks=1,2] [priority_tags] [protected]
//   [config=down,no_flood,..]
//        [type=patch peer=PORT] [type=vxlan remote_ip=A|flow local_ip=A|flow key=N|flow dst_port=N tos=N|inherit
//         ttl=N|inherit df=0|1 csum=0|1 gbp egress_mark=N]
//   rule BRIDGE FLOW        as in `ofctl add-flow`
//   mac BRIDGE VLAN ADDRESS OFPORT
// Datapath port numbers are given out from 100 in the order of ports, unless given; patch ports have none.
//
// Programs that use it link vswitchd_translate after test_support. Not thread-safe; translate() may be called from many
// threads between changes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/base/rcu.h"
#include "datapath/base/status.h"
#include "vswitchd/translate/mac_table.h"
#include "vswitchd/translate/switch_view.h"

namespace vswitch::test {

class SwitchFixture {
 public:
  SwitchFixture();
  ~SwitchFixture();

  BridgeView& add_bridge(const std::string& name);
  PortView& add_port(const std::string& bridge, const std::string& name, OfPort ofport);
  PortView& add_patch(const std::string& bridge, const std::string& name, OfPort ofport, const std::string& peer);
  Status add_rule(const std::string& bridge, std::string_view text);
  Status add_rules(const std::string& bridge, const std::vector<RuleSpec>& rules);
  // One line of the text above; "" and lines that begin with # are nothing.
  Status apply(std::string_view line);

  const SwitchView& view() const { return view_; }
  BridgeView* bridge(std::string_view name);
  PortView* port(std::string_view name);
  ManualClock& clock() { return clock_; }

 private:
  Status apply_bridge(const std::vector<std::string>& words);
  Status apply_port(const std::vector<std::string>& words);
  Status apply_mac(const std::vector<std::string>& words);
  void connect_patches();

  rcu::ReaderScope reader_;
  ManualClock clock_;
  SwitchView view_;
  std::vector<std::unique_ptr<MacTable>> mac_tables_;
  std::map<std::string, PortView*, std::less<>> ports_;
  std::map<std::string, std::string> peers_;  // patch port name -> peer's name
  uint32_t next_dp_port_ = 100;
};

}  // namespace vswitch::test
