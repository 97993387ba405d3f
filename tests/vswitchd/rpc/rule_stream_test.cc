#include "vswitchd/rpc/rule_stream.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <chrono>
#include <thread>

#include "datapath/base/sanitizer.h"
#include "vswitchd/rpc/rule_difference.h"
#include "vswitchd/rules/rule_memory.h"

namespace vswitch {
namespace {

ConfigSource no_ports() {
  ConfigSource source;
  source.port_numbers = [](const std::string&) { return std::vector<std::pair<std::string, OfPort>>{}; };
  return source;
}

TEST(RuleStream, LinesCutAnywhere) {
  const std::string text =
      "# a comment\n\n  tcp,actions=output:1  # behind\r\npriority=5,udp,actions=drop\ndelete table=1\nip,actions=2";
  ASSERT_TRUE(rc::check("chunk borders do not matter", [&] {
    ConfigSource source = no_ports();
    LazyNames names(source, "br0");
    RuleStream stream(names);
    size_t at = 0;
    while (at < text.size()) {
      size_t size = *rc::gen::inRange<size_t>(1, 20);
      RC_ASSERT(stream.add_text(std::string_view(text).substr(at, size)));
      at += size;
    }
    RC_ASSERT(stream.finish());
    RC_ASSERT(stream.lines() == 6u);
    RC_ASSERT(stream.mods().size() == 4u);
    RC_ASSERT(stream.mods()[2].command == RuleCommand::remove);
    RC_ASSERT(stream.failure_of(3, invalid_argument("x")).line == 6u);
  }));
}

TEST(RuleStream, ErrorsNameTheirLines) {
  ConfigSource source = no_ports();
  LazyNames names(source, "br0");
  RuleStream stream(names);
  stream.add_text("actions=drop\nactions=fly\n# fine\ntcp_dst=80,actions=drop\n");
  EXPECT_FALSE(stream.finish());
  ASSERT_EQ(stream.failures().size(), 2u);
  EXPECT_EQ(stream.failures()[0].line, 2u);
  EXPECT_EQ(stream.failures()[1].line, 4u);
  EXPECT_TRUE(stream.mods().empty());
}

TEST(RuleStream, MemoryForManyRulesIsProvidedMeanwhile) {
  if (kSanitized) GTEST_SKIP() << "memory is the library's with a sanitizer";
  {
    ConfigSource source = no_ports();
    LazyNames names(source, "br0");
    RuleStream stream(names);
    for (int i = 0; i < 20'000; ++i) ASSERT_TRUE(stream.add_text("tcp,actions=drop\n"));
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (rule_memory::provided_chunks() == 0 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    EXPECT_GT(rule_memory::provided_chunks(), 0u);
  }
  EXPECT_EQ(rule_memory::provided_chunks(), 0u);
}

TEST(RuleStream, StopsAfterEnoughErrors) {
  ConfigSource source = no_ports();
  LazyNames names(source, "br0");
  RuleStream stream(names);
  std::string wrong;
  for (int i = 0; i < 100; ++i) wrong += "nonsense\n";
  EXPECT_FALSE(stream.add_text(wrong));
  EXPECT_EQ(stream.failures().size(), RuleStream::kMaxErrors);
  RuleStream endless(names);
  EXPECT_FALSE(endless.add_text(std::string(RuleStream::kMaxLine + 1, 'x')));
}

RuleMod rule(const std::string& text) {
  Result<RuleMod> mod = parse_rule_mod(text, RuleCommand::add);
  EXPECT_TRUE(mod.ok()) << mod.status().message();
  return *mod;
}

TEST(RuleDifference, OnlyWhatDiffersIsDone) {
  std::vector<RuleSpec> present = {rule("priority=1,tcp,actions=output:1").spec,
                                   rule("priority=2,udp,actions=drop").spec,
                                   rule("priority=3,ip,actions=output:3").spec};
  std::vector<RuleMod> wanted = {rule("priority=1,tcp,actions=output:1"), rule("priority=2,udp,actions=output:9"),
                                 rule("priority=4,arp,actions=drop")};
  RuleDifference difference = rule_difference(present, wanted);
  ASSERT_EQ(difference.mods.size(), 3u);
  EXPECT_EQ(difference.mods[0].command, RuleCommand::remove_strict);
  EXPECT_EQ(difference.mods[0].spec.priority, 3);
  EXPECT_EQ(difference.only_in_bridge.size(), 2u);
  EXPECT_EQ(difference.only_wanted.size(), 2u);
  EXPECT_TRUE(rule_difference(present, std::vector<RuleMod>{wanted[0], rule("priority=2,udp,actions=drop"),
                                                            rule("priority=3,ip,actions=output:3")})
                  .mods.empty());
}

}  // namespace
}  // namespace vswitch
