#include "cli/command_line.h"

#include <gtest/gtest.h>

#include "cli/dpctl.h"
#include "cli/ofctl.h"
#include "cli/vsctl.h"

namespace vswitch::cli {
namespace {

using Globals = std::multimap<std::string, std::string, std::less<>>;

ParseResult parse(const Program& program, std::vector<std::string> words, Globals* globals = nullptr) {
  Globals own;
  return parse_command(program, words, globals != nullptr ? *globals : own);
}

TEST(CommandLine, OptionsStandAnywhere) {
  for (std::vector<std::string> words : {std::vector<std::string>{"--strict", "del-flows", "br0", "tcp"},
                                         {"del-flows", "--strict", "br0", "tcp"},
                                         {"del-flows", "br0", "tcp", "--strict"}}) {
    ParseResult result = parse(kOfctl, words);
    ASSERT_TRUE(std::holds_alternative<Command>(result));
    const Command& command = std::get<Command>(result);
    EXPECT_EQ(command.verb->name, "del-flows");
    EXPECT_TRUE(command.has("--strict"));
    EXPECT_EQ(command.arguments, (std::vector<std::string>{"br0", "tcp"}));
  }
}

TEST(CommandLine, ValuesOfOptions) {
  Globals globals;
  ParseResult result = parse(kDpctl, {"-t", "5", "show", "-s", "--format=json"}, &globals);
  ASSERT_TRUE(std::holds_alternative<Command>(result));
  EXPECT_TRUE(std::get<Command>(result).has("--statistics"));
  auto settings = common_settings(globals);
  ASSERT_TRUE(std::holds_alternative<CommonSettings>(settings));
  EXPECT_EQ(std::get<CommonSettings>(settings).timeout.count(), 5000);
  EXPECT_TRUE(std::get<CommonSettings>(settings).json);
}

TEST(CommandLine, BadValuesOfOptions) {
  for (auto [name, value] : {std::pair{"--timeout", "soon"}, {"--timeout", "-1"}, {"--format", "xml"}}) {
    Globals globals{{name, value}};
    EXPECT_TRUE(std::holds_alternative<Problem>(common_settings(globals))) << name << "=" << value;
  }
  EXPECT_TRUE(std::holds_alternative<Problem>(parse(kDpctl, {"show", "--timeout"})));
  EXPECT_TRUE(std::holds_alternative<Problem>(parse(kDpctl, {"show", "--statistics=yes"})));
}

std::string problem_of(const Program& program, std::vector<std::string> words) {
  ParseResult result = parse(program, std::move(words));
  auto* problem = std::get_if<Problem>(&result);
  if (problem == nullptr) return "";
  EXPECT_EQ(problem->status, kUsage) << problem->message;
  return problem->message;
}

TEST(CommandLine, MissingArgumentsAreNamed) {
  EXPECT_EQ(problem_of(kVsctl, {"add-br"}), "add-br: BRIDGE is missing (usage: vsctl add-br BRIDGE [COLUMN=VALUE]...)");
  EXPECT_EQ(problem_of(kVsctl, {"del-port"}), "del-port: PORT is missing (usage: vsctl del-port [BRIDGE] PORT)");
  EXPECT_EQ(problem_of(kOfctl, {"fdb-add", "br0", "p1"}),
            "fdb-add: VLAN and MAC are missing (usage: ofctl fdb-add BRIDGE PORT VLAN MAC)");
  EXPECT_EQ(problem_of(kVsctl, {"get", "port", "p1"}),
            "get: COLUMN[:KEY] is missing (usage: vsctl get TABLE RECORD COLUMN[:KEY]...)");
}

// Whatever a verb's usage says must be there is asked for by name, and one argument too many is quoted.
TEST(CommandLine, EveryVerbChecksItsArguments) {
  for (const Program* program : {&kVsctl, &kOfctl, &kDpctl}) {
    for (const Verb& verb : program->verbs) {
      std::vector<std::string> words = {std::string(verb.name)};
      if (verb.min_arguments != 0) {
        EXPECT_NE(problem_of(*program, words).find(" missing (usage: "), std::string::npos) << verb.name;
        EXPECT_EQ(problem_of(*program, words).find(":  "), std::string::npos) << verb.name;
      }
      if (verb.max_arguments == kAnyNumber) continue;
      for (size_t i = 0; i < verb.max_arguments; ++i) words.push_back("x");
      EXPECT_EQ(problem_of(*program, words), "") << verb.name;
      words.push_back("one-too-many");
      EXPECT_NE(problem_of(*program, words).find("superfluous argument \"one-too-many\""), std::string::npos)
          << verb.name;
    }
  }
}

TEST(CommandLine, OptionsAreGivenOnceAndWithAValue) {
  EXPECT_EQ(problem_of(kVsctl, {"--timeout=1", "list-br", "--timeout=2"}), "option --timeout is given twice");
  EXPECT_EQ(problem_of(kVsctl, {"--timeout=", "list-br"}), "the value of option --timeout is empty: SECONDS is wanted");
  EXPECT_EQ(problem_of(kVsctl, {"list-br", "--format", ""}),
            "the value of option --format is empty: text|json is wanted");
  EXPECT_EQ(problem_of(kOfctl, {"dump-flows", "br0", "--names", "--no-names"}),
            "dump-flows: --names and --no-names exclude each other");
  ParseResult result = parse(kOfctl, {"--sort", "dump-flows", "br0"});
  ASSERT_TRUE(std::holds_alternative<Command>(result));
  EXPECT_TRUE(std::get<Command>(result).has("--sort"));
}

TEST(CommandLine, ProtocolNamesAreThoseOfOvsOfctl) {
  for (const char* good : {"OpenFlow13", "OpenFlow10,OpenFlow15", "openflow14"}) {
    EXPECT_EQ(problem_of(kOfctl, {"-O", good, "dump-flows", "br0"}), "") << good;
  }
  EXPECT_NE(problem_of(kOfctl, {"-O", "OpenFlow13,OpenFlow99", "show", "br0"})
                .find("unknown OpenFlow version \"OpenFlow99\""),
            std::string::npos);
  EXPECT_NE(problem_of(kOfctl, {"-O", ",", "show", "br0"}).find("no OpenFlow version"), std::string::npos);
  EXPECT_EQ(problem_of(kOfctl, {"-F", "NXM+table_id,OXM-OpenFlow15", "show", "br0"}), "");
  EXPECT_NE(problem_of(kOfctl, {"-F", "nxn", "show", "br0"}).find("unknown flow format \"nxn\""), std::string::npos);
}

TEST(CommandLine, ADashIsAnArgument) {
  ParseResult result = parse(kOfctl, {"add-flows", "br0", "-"});
  ASSERT_TRUE(std::holds_alternative<Command>(result));
  EXPECT_EQ(std::get<Command>(result).arguments[1], "-");
}

TEST(CommandLine, WhatOthersHaveIsNamed) {
  ParseResult result = parse(kOfctl, {"add-group", "br0", "group_id=1"});
  ASSERT_TRUE(std::holds_alternative<Problem>(result));
  EXPECT_EQ(std::get<Problem>(result).message, "groups are not supported in this version");
  EXPECT_EQ(std::get<Problem>(result).status, kRefused);
  EXPECT_EQ(std::get<Problem>(parse(kOfctl, {"frobnicate"})).status, kUsage);
}

TEST(CommandLine, NearestIsNearEnough) {
  constexpr std::string_view kWords[] = {"add-flow", "del-flows", "trace"};
  EXPECT_EQ(nearest("add-flw", kWords), "add-flow");
  EXPECT_EQ(nearest("tarce", kWords), "trace");
  EXPECT_EQ(nearest("something-else", kWords), "");
}

TEST(CommandLine, HelpAndCompletionMayStandBehindOptions) {
  const auto told = [](std::vector<std::string> words) {
    const auto result = parse(kVsctl, std::move(words));
    return std::holds_alternative<Information>(result) ? std::get<Information>(result).text : "";
  };
  EXPECT_EQ(told({"--server", "unix:/s", "help"}), told({"help"}));
  EXPECT_EQ(told({"--server=unix:/s", "help", "add-br"}), told({"help", "add-br"}));
  EXPECT_EQ(told({"--server=unix:/s", "completion", "bash"}), told({"completion", "bash"}));
  EXPECT_NE(told({"help", "add-br"}), told({"help"}));
  EXPECT_EQ(told({"--nonsense", "help"}), "");
}

TEST(CommandLine, HelpKnowsEveryVerb) {
  for (const Program* program : {&kVsctl, &kOfctl, &kDpctl}) {
    for (const Verb& verb : program->verbs) {
      EXPECT_NE(help_text(*program).find(verb.name), std::string::npos) << verb.name;
    }
    EXPECT_NE(help_text(*program).find("--server"), std::string::npos);
    EXPECT_NE(bash_completion(*program).find("__complete"), std::string::npos);
  }
}

}  // namespace
}  // namespace vswitch::cli
