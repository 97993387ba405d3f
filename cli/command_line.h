// The grammar that vsctl, ofctl and dpctl share: one table of verbs per program, from which parsing, help and shell
// completion all come.
//
//   PROGRAM [OPTIONS] VERB [OPTIONS] [ARGUMENTS]
//
// An option is "--name", "--name=VALUE", "--name VALUE" or a one-letter "-x". Options stand before or after the verb;
// "--" ends them (vsctl: it joins commands). "-" alone is an argument (standard input).
#pragma once

#include <chrono>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace vswitch::cli {

inline constexpr int kDone = 0;
inline constexpr int kRefused = 1;
inline constexpr int kUsage = 2;

// The last thing a program does: what it printed must have arrived (a full disk, a closed pipe), or it did not do what
// `status` says. Returns the exit status.
int finish_output(std::string_view program, int status);

struct OptionSpec {
  std::string_view name;        // "--strict"
  std::string_view value_name;  // "SECONDS"; "" if it takes none; "[FIELD]" if it may be left out
  std::string_view help;
  std::string_view short_name;  // "-t" or ""
  // What is wrong with a value, "" if nothing; null: looked at later.
  std::string (*check)(std::string_view value) = nullptr;
};

struct Verb {
  std::string_view name;
  std::string_view arguments;  // "BRIDGE FLOW"
  std::string_view summary;    // one line
  std::string_view details;    // paragraphs; may be ""
  std::string_view examples;   // lines, without the program's prompt
  size_t min_arguments = 0;
  size_t max_arguments = 0;
  std::vector<OptionSpec> options;
  std::string_view group;  // heading in the list of verbs
};
inline constexpr size_t kAnyNumber = ~size_t{0};

struct Program {
  std::string_view name;
  std::string_view summary;
  std::span<const Verb> verbs;
  std::span<const OptionSpec> options;  // of the program
  // Verbs that Open vSwitch has and this version does not: name -> what to say.
  std::span<const std::pair<std::string_view, std::string_view>> unsupported;
  std::string_view footer;
};

// One verb with its arguments.
struct Command {
  const Verb* verb = nullptr;
  std::vector<std::string> arguments;
  std::multimap<std::string, std::string, std::less<>> options;  // by full name

  bool has(std::string_view option) const { return options.find(option) != options.end(); }
  std::string value(std::string_view option, std::string fallback = "") const {
    auto it = options.find(option);
    return it == options.end() ? fallback : it->second;
  }
};

struct Problem {
  std::string message;
  int status = kUsage;
};
// Text to print and leave with status 0: help, version, completion.
struct Information {
  std::string text;
};
using ParseResult = std::variant<Command, Problem, Information>;

// Parses one command. `globals` is filled with the program's own options.
ParseResult parse_command(const Program& program, std::span<const std::string> words,
                          std::multimap<std::string, std::string, std::less<>>& globals, bool options_anywhere = true);

// The options that all three programs have.
// Inline, so that it is made before the tables that are made from it.
inline const std::vector<OptionSpec> kCommonOptions = {
    {"--server", "ADDRESS", "the daemon: unix:PATH (else $VSWITCH_SERVER, else unix:/run/vswitch/vswitchd.sock)", ""},
    {"--timeout", "SECONDS", "give up after this long (default 30; loads and dumps 300)", "-t"},
    {"--format", "text|json", "json: the API's messages in protobuf's JSON mapping", "-f"},
    {"--help", "", "show help, of one verb if one is given", "-h"},
    {"--version", "", "show the version", "-V"},
};
struct CommonSettings {
  std::string server;
  std::chrono::milliseconds timeout{0};
  bool json = false;
};
std::variant<CommonSettings, Problem> common_settings(
    const std::multimap<std::string, std::string, std::less<>>& globals);

std::string help_text(const Program& program);
std::string help_text(const Program& program, const Verb& verb);
std::string bash_completion(const Program& program);

// The known word most like `word`, "" if none is like it.
std::string_view nearest(std::string_view word, std::span<const std::string_view> known);

// "PROGRAM: message" on standard error; returns `status`.
int complain(const Program& program, std::string_view message, int status = kRefused);

}  // namespace vswitch::cli
