// Rules so many that they are on their way to the store while the rest is being staged.
#include "vswitchd/control/rule_writer.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/running_switch.h"

namespace vswitch::test {
namespace {

// Rules as many as make their way to the store while they are still being staged: 1,000 of them twice, 500 of them
// taken out again, and the last wrong if `wrong`.
ModifyRules many_rules(bool wrong = false) {
  constexpr int kRules = 24'000;
  ModifyRules modify{"br0", {}};
  for (int i = 0; i < kRules; ++i) {
    const int host = i >= 20'000 && i < 21'000 ? i - 20'000 : i;
    modify.mods.push_back(mod("ip,nw_dst=10.0." + std::to_string(host / 256) + "." + std::to_string(host % 256) +
                              ",actions=output:" + std::to_string(1 + i % 2)));
  }
  modify.mods.push_back(mod("ip,nw_dst=10.0.0.0/24", RuleCommand::remove));
  modify.mods.push_back(mod("ip,nw_dst=10.0.1.0/25", RuleCommand::remove));
  modify.mods.push_back(mod("ip,nw_dst=10.0.0.0/16,actions=drop"));
  if (wrong) modify.mods.back().spec.table = kTableAll;
  return modify;
}

TEST_F(SwitchTest, ManyRulesComeBackAsTheyWere) {
  add_three_ports();
  apply({rules("br0", {"ip,nw_dst=10.0.9.9,actions=drop", "ip,nw_dst=10.0.0.3,actions=drop"})});
  const std::string before = snapshot();
  TransactionFailure failure;
  EXPECT_NE(refusal({many_rules(true)}, &failure), "");
  EXPECT_EQ(failure.mod, 24'002u);
  EXPECT_EQ(snapshot(), before);
  apply({many_rules()});
  const std::string after = snapshot();
  EXPECT_NE(after, before);
  EXPECT_EQ(rule_list().size(), 24'000u - 1'000 - 256 - 128 + 1 + 1);
  reopen();
  EXPECT_EQ(snapshot(), after);
  // A bridge that goes and comes in one transaction takes its old rules along, not its new ones.
  apply({DeleteBridge{"br0"}, bridge("br0", FailMode::secure), many_rules()});
  const std::string made_again = snapshot();
  reopen();
  EXPECT_EQ(snapshot(), made_again);
}

TEST_F(FailingStoreTest, AStoreThatFailsInTheMiddleOfManyRulesChangesNothing) {
  ASSERT_NO_FATAL_FAILURE(open_with_failing_store());
  add_three_ports();
  const std::string before = snapshot();
  *failure_ = resource_exhausted("the store: database or disk is full");
  EXPECT_EQ(refusal({many_rules()}), "the store: database or disk is full");
  EXPECT_EQ(snapshot(), before);
  *failure_ = Status();
  apply({many_rules()});
}

}  // namespace
}  // namespace vswitch::test
