// The whole switch in the test's process: real devices in a namespace of the program's own, a real store, frames
// injected into dummy ports. (switch_fixture.h has a switch without a daemon, for tests of translation.)
//
// Programs that use it link vswitchd_control after test_support; what makes the namespace comes with it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "datapath/base/clock.h"
#include "tests/support/packet_builder.h"
#include "vswitchd/control/switch.h"

namespace vswitch::test {

inline constexpr const char* kHost1 = "02:00:00:00:00:01";
inline constexpr const char* kHost2 = "02:00:00:00:00:02";

// A UDP packet of 60 bytes between two hosts that are told apart by their Ethernet addresses.
Bytes frame(const char* from, const char* to, uint16_t src_port = 80);

// Parts of transactions. A rule's text is as in `ofctl add-flow`; one that cannot be parsed fails the test.
CreateBridge bridge(const std::string& name, FailMode mode = FailMode::standalone);
CreatePort port(const std::string& bridge_name, const std::string& name, const std::string& type = "dummy",
                std::map<std::string, std::string> options = {});
RuleMod mod(std::string_view text, RuleCommand command = RuleCommand::add);
ModifyRules rules(const std::string& bridge_name, const std::vector<std::string>& texts,
                  RuleCommand command = RuleCommand::add);

class SwitchTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;  // deletes all bridges, which must succeed

  // With the store in directory_ and clock_; and the same again, as after a restart.
  void open();
  void reopen();
  void open_with(const SwitchOptions& options);

  void apply(std::vector<Operation> operations);
  // What apply() answers; "" if it was applied.
  std::string refusal(std::vector<Operation> operations, TransactionFailure* failure = nullptr);
  // br0 with the dummy ports p1, p2, p3: OpenFlow ports 1, 2, 3.
  void add_three_ports(FailMode mode = FailMode::standalone);

  void inject(const std::string& name, const std::vector<Bytes>& frames);
  uint64_t sent(const std::string& name);
  // Waits until the port has sent so many.
  testing::AssertionResult sends(const std::string& name, uint64_t count);
  std::string books();
  // Waits until no packet is on its way and checks that every one is accounted for.
  void expect_balance();
  uint64_t drops(const std::string& name, DropReason reason);

  std::vector<RuleInfo> rule_list(const std::string& bridge_name = "br0");  // in the order of their ids
  uint64_t packets_of(const std::string& filter_text);                      // of br0's rules
  // Everything configured, as text: equal before and after means nothing changed.
  std::string snapshot();

  ManualClock clock_;
  std::string directory_;
  std::unique_ptr<Switch> sw_;
};

// A switch whose store can be told to fail, and to take its time.
class FailingStoreTest : public SwitchTest {
 protected:
  void open_with_failing_store();

  const std::shared_ptr<Status> failure_ = std::make_shared<Status>();  // what commits fail with; ok: they do not
  // Called by each commit before anything else. Set it while nothing changes the switch.
  const std::shared_ptr<std::function<void()>> before_commit_ = std::make_shared<std::function<void()>>([] {});
};

}  // namespace vswitch::test
