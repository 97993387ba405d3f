#include "vswitchd/control/port_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vswitch {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class PortLogTest : public testing::Test {
 protected:
  static VportState state(const std::string& error = "", bool up = true, bool carrier = true, uint32_t ifindex = 7) {
    VportState state;
    state.error = error;
    state.admin_up = up;
    state.carrier = carrier;
    state.ifindex = ifindex;
    return state;
  }
  std::vector<std::string> lines() { return std::exchange(lines_, {}); }

  ManualClock clock_;
  std::vector<std::string> lines_;
  PortLog log_{clock_, [this](std::string_view line) { lines_.emplace_back(line); }};
};

TEST_F(PortLogTest, EveryChangeIsOneLine) {
  log_.state(1, "p1", state());
  EXPECT_THAT(lines(), IsEmpty());
  log_.state(1, "p1", state("device p1 does not exist", false, false, 0));
  log_.state(1, "p1", state("device p1 does not exist", false, false, 0));
  EXPECT_THAT(lines(), ElementsAre("port p1: device p1 does not exist"));
  log_.state(1, "p1", state("", true, true, 9));
  EXPECT_THAT(lines(), ElementsAre("port p1: works again, link is up (device has ifindex 9)"));
  log_.state(1, "p1", state("", true, false, 9));
  log_.state(1, "p1", state("", true, true, 9));
  log_.state(1, "p1", state("", false, false, 9));
  EXPECT_THAT(lines(), ElementsAre("port p1: link has no carrier", "port p1: link is up", "port p1: link is down"));
  VportState moved = state("", false, false, 9);
  moved.status["location"] = "another network namespace";
  log_.state(1, "p1", moved);
  log_.state(1, "p1", state("", false, false, 9));
  EXPECT_THAT(lines(), ElementsAre("port p1: device is in another network namespace",
                                   "port p1: device is back in this network namespace"));
}

TEST_F(PortLogTest, WhatIsWrongFromTheStartIsSaid) {
  log_.state(1, "vx0", state("port vx0: no route to 10.0.0.9", true, false, 0));
  log_.state(2, "p2", state("", false, false));
  EXPECT_THAT(lines(), ElementsAre("port vx0: no route to 10.0.0.9"));
}

TEST_F(PortLogTest, ANumberThatIsUsedAgainIsAnotherPort) {
  log_.state(1, "p1", state("device p1 is down", false, false));
  log_.forget(1);
  log_.state(1, "q1", state());
  EXPECT_THAT(lines(), ElementsAre("port p1: device p1 is down"));
}

TEST_F(PortLogTest, APortThatFlapsFillsNoLog) {
  log_.state(1, "p1", state());
  log_.state(2, "p2", state());
  for (int i = 0; i < 1000; ++i) log_.state(1, "p1", state("", true, i % 2 != 0));
  EXPECT_EQ(lines().size(), static_cast<size_t>(PortLog::kBurst));
  log_.state(2, "p2", state("", true, false));
  EXPECT_THAT(lines(), ElementsAre("port p2: link has no carrier")) << "the others are heard";
  log_.flush();
  EXPECT_THAT(lines(), IsEmpty());
  clock_.advance(PortLog::kInterval);
  log_.flush();
  log_.flush();
  EXPECT_THAT(lines(), ElementsAre("port p1: link is up (after 990 changes)"));
  log_.state(1, "p1", state("", true, false));
  EXPECT_THAT(lines(), IsEmpty());
  clock_.advance(PortLog::kInterval * 20);
  log_.flush();
  for (int i = 0; i < 1000; ++i) log_.state(1, "p1", state("", true, i % 2 != 0));
  EXPECT_EQ(lines().size(), static_cast<size_t>(PortLog::kBurst));
}

}  // namespace
}  // namespace vswitch
