#include "vswitchd/openflow/rule_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/vswitchd/openflow/random_rule.h"
#include "vswitchd/openflow/flow_text.h"

namespace vswitch {
namespace {

using ::testing::HasSubstr;

TEST(RuleCodec, RandomRulesSurvive) {
  ASSERT_TRUE(rc::check("decode(encode(rule)) == rule", [] {
    const RuleSpec rule = testing::random_rule();
    const Result<RuleSpec> again = decode_rule(encode_rule(rule));
    RC_ASSERT(again.ok());
    RC_ASSERT(testing::same_rule(*again, rule));
  }));
}

TEST(RuleCodec, EveryByteOfTheKeySurvives) {
  for (size_t i = 0; i < kPipelineKeyWords; ++i) {
    Match match;
    words(match.mask)[i] = ~uint64_t{0};
    words(match.value)[i] = 0x0102030405060708;
    RuleSpec rule;
    rule.match = match;
    rule.actions = std::make_shared<const RuleActionList>();
    const Match named = decode_rule(encode_rule(rule))->match.expand();
    // What is not padding comes back; padding never holds anything.
    const uint64_t mask = words(named.mask)[i];
    EXPECT_NE(mask, 0u) << "word " << i;
    EXPECT_EQ(words(named.value)[i], words(match.value)[i] & mask) << "word " << i;
    words(match.mask)[i] = mask;
    words(match.value)[i] &= mask;
    EXPECT_EQ(named, match) << "word " << i;
  }
}

TEST(RuleCodec, RefusesWhatIsNotOneRule) {
  RuleSpec rule =
      parse_rule_mod("table=3,tcp,nw_src=10.0.0.0/8,tp_dst=80,actions=load:5->NXM_NX_REG0[0..3],clone(output:2)",
                     RuleCommand::add)
          ->spec;
  const std::string bytes = encode_rule(rule);
  EXPECT_LT(bytes.size(), 80u);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decode_rule(std::string_view(bytes).substr(0, size)).ok()) << size;
  }
  EXPECT_THAT(decode_rule(bytes + "x").status().message(), HasSubstr("behind its end"));
  std::string newer = bytes;
  newer[0] = 9;
  EXPECT_EQ(decode_rule(newer).status().code(), StatusCode::failed_precondition);
  EXPECT_THAT(decode_rule(newer).status().message(), HasSubstr("version 9"));
}

TEST(RuleCodec, RefusesDeepNesting) {
  RuleActionList actions{Exit{}};
  for (int i = 0; i < 10000; ++i) actions = {CloneActions{std::make_shared<const RuleActionList>(std::move(actions))}};
  RuleSpec rule;
  // Written by hand: a chain this deep is more than encode_rule() should be asked for.
  rule.actions = std::make_shared<const RuleActionList>();
  std::string bytes = encode_rule(rule);
  bytes.pop_back();
  for (int i = 0; i < 10000; ++i) bytes += "\x01\x11";
  EXPECT_THAT(decode_rule(bytes).status().message(), HasSubstr("nested too deep"));
}

TEST(RuleCodec, SurvivesDamage) {
  ASSERT_TRUE(rc::check("any bytes are a rule or refused", [] {
    std::string bytes = encode_rule(testing::random_rule());
    for (int n = testing::any_number(1, 5); n > 0; --n) {
      bytes[testing::any_number<size_t>(0, bytes.size())] = static_cast<char>(*rc::gen::arbitrary<uint8_t>());
    }
    const Result<RuleSpec> rule = decode_rule(bytes);
    if (!rule.ok()) return;
    const std::string again = encode_rule(*rule);
    RC_ASSERT(testing::same_rule(*decode_rule(again), *rule));
    (void)check_rule(*rule);
    RC_ASSERT(!format_rule(*rule).empty());
  }));
}

}  // namespace
}  // namespace vswitch
