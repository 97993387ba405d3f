// Changes of ports in a running switch: what the system would refuse, keys that move, ports made again.
#include "vswitchd/control/port_changes.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "datapath/base/unique_fd.h"
#include "tests/support/netns.h"
#include "tests/support/running_switch.h"

namespace vswitch::test {
namespace {

// What the real run would be refused for, a dry run tells in the same words and changes nothing.
TEST_F(SwitchTest, ADryRunTellsWhatTheSystemWouldRefuse) {
  add_three_ports();
  add_veth("dev1", "far1");
  add_veth("dev2", "far2");
  const UniqueFd taken(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(4790);
  ASSERT_EQ(::bind(taken.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  apply({port("br0", "vx5", "vxlan", {{"remote_ip", "10.0.0.1"}, {"key", "5"}}), port("br0", "dev2", "netdev")});
  CreatePort huge = port("br0", "tap9", "internal");
  huge.config.vport.mtu_request = 65535;
  UpdatePort huger{sw_->port("br0")->config};
  huger.config.vport.mtu_request = 65535;
  UpdatePort elsewhere{sw_->port("dev2")->config};
  elsewhere.config.vport.options["device"] = "no-such-dev";
  const std::vector<std::pair<Operation, std::string>> cases = {
      {port("br0", "no-such-dev", "netdev"), "port no-such-dev: device no-such-dev does not exist"},
      {port("br0", "lo", "netdev"), "port lo: device lo is a loopback device, which cannot be a port"},
      {port("br0", "p9", "netdev", {{"device", "lo"}}),
       "port p9: device lo is a loopback device, which cannot be a port"},
      {huge, "port tap9: MTU 65535 is not between 68 and 65521"},
      {huger, "port br0: MTU 65535 is not between 68 and 65521"},
      {port("br0", "dev1", "internal"), "port dev1: device dev1 exists and is of kind veth"},
      {bridge("dev1"), "port dev1: device dev1 exists and is of kind veth"},
      {port("br0", "vx6", "vxlan", {{"remote_ip", "10.0.0.1"}, {"key", "5"}}), "port vx6: port vx5 already receives"},
      {port("br0", "vx6", "vxlan", {{"remote_ip", "10.0.0.1"}, {"dst_port", "4790"}}),
       "port vx6: UDP port 4790 (IPv4) is in use by process"},
      {port("br0", "vx6", "vxlan", {{"remote_ip", "10.0.0.1"}, {"local_ip", "10.9.9.9"}}),
       "port vx6: local_ip=10.9.9.9: not an address of this host"},
      {port("br0", "d9", "dummy", {{"tx_pcap", "/no/such/directory/x.pcap"}}),
       "port d9: /no/such/directory/x.pcap: No such file"},
      {port("br0", "pc9", "pcap", {{"rx_pcap", "/no/such/file.pcap"}}), "port pc9: /no/such/file.pcap: No such file"},
      {elsewhere, "port dev2: device no-such-dev does not exist"},
  };
  const std::string before = snapshot();
  for (const auto& [operation, message] : cases) {
    SCOPED_TRACE(message);
    TransactionFailure dry, real;
    const Transaction transaction{{rules("br0", {"actions=drop"}), operation}, true};
    const Status told = sw_->apply(transaction, &dry).status();
    const Status refused = sw_->apply({transaction.operations, false}, &real).status();
    EXPECT_EQ(told.message().substr(0, message.size()), message);
    EXPECT_EQ(told, refused);
    EXPECT_EQ(dry.operation, real.operation);
    EXPECT_EQ(snapshot(), before);
  }
  EXPECT_TRUE(sw_->apply({{DeletePort{"vx5"}, port("br0", "vx6", "vxlan", {{"remote_ip", "10.0.0.1"}, {"key", "5"}}),
                           port("br0", "dev1", "netdev")},
                          true})
                  .ok());
  EXPECT_EQ(snapshot(), before);
  apply({DeletePort{"dev2"}});
  delete_link("dev1");
  delete_link("dev2");
}

// Tunnels may pass their keys on to each other in one transaction, also in a ring; and if something else fails, all
// have what they had.
TEST_F(SwitchTest, TunnelsSwapTheirKeys) {
  apply({bridge("br0")});
  for (const char* key : {"1", "2", "3"}) {
    apply({port("br0", std::string("vx") + key, "vxlan", {{"remote_ip", "10.9.9.9"}, {"key", key}})});
  }
  const auto changes = [&](const std::map<std::string, std::string>& keys) {
    std::vector<Operation> updates;
    for (const auto& [name, key] : keys) {
      UpdatePort update{sw_->port(name)->config};
      update.config.vport.options["key"] = key;
      updates.push_back(update);
    }
    return updates;
  };
  const auto has = [&](const std::string& name, const std::string& key) {
    EXPECT_EQ(sw_->port(name)->config.vport.options.at("key"), key);
    EXPECT_EQ(sw_->port(name)->state.error, "port " + name + ": no route to 10.9.9.9") << "and no other error";
    const Operation other = port("br0", "vx9", "vxlan", {{"remote_ip", "10.9.9.9"}, {"key", key}});
    EXPECT_EQ(refusal({other}).substr(0, 23), "port vx9: port " + name + " alre");
  };
  apply(changes({{"vx1", "2"}, {"vx2", "4"}}));  // the other order
  has("vx1", "2");
  has("vx2", "4");
  apply(changes({{"vx1", "4"}, {"vx2", "2"}}));
  has("vx1", "4");
  has("vx2", "2");
  apply(changes({{"vx1", "2"}, {"vx2", "3"}, {"vx3", "4"}}));
  has("vx1", "2");
  has("vx2", "3");
  has("vx3", "4");
  std::vector<Operation> failing = changes({{"vx1", "3"}, {"vx2", "2"}});
  failing.push_back(port("br0", "no-such-dev", "netdev"));
  const std::string before = snapshot();
  EXPECT_NE(refusal(failing), "");
  EXPECT_EQ(snapshot(), before);
  has("vx1", "2");
  has("vx2", "3");
}

TEST_F(SwitchTest, APortThatIsMadeAgainStaysDown) {
  apply({bridge("br0"), port("br0", "vx", "vxlan", {{"remote_ip", "10.9.9.9"}, {"key", "1"}})});
  UpdatePort update{sw_->port("vx")->config};
  update.config.flags.down = true;
  apply({update});
  ASSERT_FALSE(sw_->port("vx")->state.admin_up);
  update.config.vport.options["dst_port"] = "5789";
  apply({update});
  EXPECT_FALSE(sw_->port("vx")->state.admin_up);
  update.config.vport.type = "dummy";
  update.config.vport.options.clear();
  const OfPort ofport = sw_->port("vx")->ofport;
  apply({update});
  EXPECT_FALSE(sw_->port("vx")->state.admin_up);
  EXPECT_EQ(sw_->port("vx")->ofport, ofport);
}

}  // namespace
}  // namespace vswitch::test
