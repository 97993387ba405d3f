#include "vswitchd/translate/action_set.h"

#include <gtest/gtest.h>

#include "vswitchd/openflow/flow_text.h"

namespace vswitch {
namespace {

std::string ordered(const char* actions) {
  const auto list = parse_actions(actions);
  return list.ok() ? format_actions(execution_order(*list)) : list.status().message();
}

TEST(ActionSet, RunsInTheOrderOfOpenFlowWithTheLastOfEachKind) {
  EXPECT_EQ("strip_vlan,push_vlan:0x88a8,dec_ttl,mod_dl_src:00:00:00:00:00:01,mod_dl_src:00:00:00:00:00:02,output:3",
            ordered("output:2,mod_dl_src:00:00:00:00:00:01,push_vlan:0x8100,dec_ttl,push_vlan:0x88a8,"
                    "mod_dl_src:00:00:00:00:00:02,strip_vlan,output:3"));
}

TEST(ActionSet, OutputGoesBeforeResubmit) {
  EXPECT_EQ("output:2", ordered("output:2,resubmit(,5)"));
  EXPECT_EQ("resubmit(,6)", ordered("resubmit(,5),resubmit(,6)"));
}

TEST(ActionSet, DoesNothingWithoutAnOutput) {
  EXPECT_EQ("drop", ordered("mod_dl_src:00:00:00:00:00:01,dec_ttl"));
  EXPECT_EQ("drop", ordered("push:NXM_NX_REG0[],exit"));
}

}  // namespace
}  // namespace vswitch
