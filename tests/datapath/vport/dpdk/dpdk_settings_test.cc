#include "datapath/vport/dpdk/dpdk_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "datapath/vport/vport_registry.h"

namespace vswitch {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

TEST(DpdkSettings, AVirtualDeviceTouchesNoPciDeviceAndSharesNothing) {
  const std::vector<std::string> arguments = eal_arguments({}, "", {0, 3});
  EXPECT_THAT(arguments, Contains("--no-pci"));
  EXPECT_THAT(arguments, Contains("--in-memory"));
  EXPECT_THAT(arguments, Contains("--no-telemetry"));
  EXPECT_THAT(arguments, Contains(StartsWith("--file-prefix=vswitch-")));
  EXPECT_THAT(arguments, Contains("--lcores=0@(0,3)"));
}

TEST(DpdkSettings, OnlyThePciDeviceThatIsAskedForIsAllowed) {
  const std::vector<std::string> arguments = eal_arguments({}, "0000:01:00.0", {0});
  EXPECT_THAT(arguments, Not(Contains("--no-pci")));
  const auto allow = std::find(arguments.begin(), arguments.end(), "-a");
  ASSERT_NE(allow, arguments.end());
  EXPECT_EQ(*(allow + 1), "0000:01:00.0");
}

TEST(DpdkSettings, MemoryIsAsAsked) {
  EXPECT_THAT(eal_arguments({"", "512,0", ""}, "", {0}), Contains("--socket-mem=512,0"));
  const std::vector<std::string> mounted = eal_arguments({"", "", "/mnt/huge"}, "", {0});
  EXPECT_THAT(mounted, Contains("--huge-dir=/mnt/huge"));
  EXPECT_THAT(mounted, Contains("--huge-unlink"));
  EXPECT_THAT(mounted, Not(Contains("--in-memory")));
  EXPECT_THAT(eal_arguments({"--no-huge", "", ""}, "", {0}), Contains("-m")) << "EAL's 64 MB hold no pool";
  const std::vector<std::string> given = eal_arguments({"--no-huge -m 128 --lcores=0@1", "", ""}, "", {0});
  EXPECT_THAT(given, Not(Contains("2048")));
  EXPECT_THAT(given, Not(Contains("--lcores=0@(0)")));
}

TEST(DpdkSettings, WhatWouldEndTheProcessIsRefused) {
  EXPECT_EQ(check_dpdk_settings({"--no-huge --help", "", ""}).field(), "dpdk_extra");
  EXPECT_EQ(check_dpdk_settings({"-h", "", ""}).field(), "dpdk_extra");
  EXPECT_EQ(check_dpdk_settings({"", "1G", ""}).field(), "dpdk_socket_mem");
  EXPECT_EQ(check_dpdk_settings({"", "", "huge"}).field(), "dpdk_hugepage_dir");
  EXPECT_TRUE(check_dpdk_settings({"--no-huge -m 256", "1024,0", "/mnt/huge"}).ok());
}

TEST(DpdkSettings, ThoseThatWereTriedGoAgain) {
  set_dpdk_settings({"-m 1", "", ""});
  { DpdkSettingsChange tried({"-m 2", "", ""}); }
  EXPECT_EQ(dpdk_settings().extra, "-m 1");
  {
    DpdkSettingsChange kept({"-m 3", "", ""});
    kept.keep();
  }
  EXPECT_EQ(dpdk_settings().extra, "-m 3");
  set_dpdk_settings({});
}

TEST(DpdkOptions, AreCheckedWithoutDpdk) {
  const VportType* type = find_vport_type("dpdk");
  ASSERT_NE(type, nullptr);
  VportConfig config{"d0", "dpdk", {}, 0, {}};
  EXPECT_THAT(type->validate(config).message(), HasSubstr("needs options:dpdk-devargs"));
  config.options = {{"dpdk-devargs", "net_null0"}, {"n_rxqs", "2"}};
  EXPECT_THAT(type->validate(config).message(), HasSubstr("did you mean \"n_rxq\""));
  config.options = {{"dpdk-devargs", "net_null0"}, {"n_rxq", "0"}};
  EXPECT_EQ(type->validate(config).field(), "options:n_rxq");
  config.options = {{"dpdk-devargs", "net_null0"}, {"n_rxq", "2"}, {"dpdk-mbufs", "100000"}};
  EXPECT_TRUE(type->validate(config).ok());
}

}  // namespace
}  // namespace vswitch
