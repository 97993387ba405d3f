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

TEST(CommandLine, CompletionKnowsEveryVerb) {
  for (const Program* program : {&kVsctl, &kOfctl, &kDpctl}) {
    std::string script = bash_completion(*program);
    for (const Verb& verb : program->verbs) {
      EXPECT_NE(script.find(verb.name), std::string::npos) << verb.name;
    }
    EXPECT_NE(help_text(*program).find("--server"), std::string::npos);
  }
}

}  // namespace
}  // namespace vswitch::cli
