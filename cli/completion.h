// Shell completion: what may stand next on a command line.
//
// The shell asks the program itself ("PROGRAM __complete WORD..."), so candidates come from the table of verbs and from
// the daemon: bridges, ports, columns, options of a port's type.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command_line.h"
#include "vswitch/v1/config_service.pb.h"

namespace vswitch::cli {

namespace v1 = ::vswitch::v1;

// The word that asks for candidates.
inline constexpr std::string_view kCompleteVerb = "__complete";
// Stands for the files of the working directory: the shell knows them better.
inline constexpr std::string_view kFileCandidates = "@files";

struct CompletionSource {
  std::function<v1::Configuration()> configuration;   // empty if the daemon does not answer
  std::function<std::vector<std::string>()> devices;  // of the host
};

// Candidates for the last word, which may be ""; words that do not begin as it does are among them. One that ends with
// "=" or ":" wants more behind it.
std::vector<std::string> complete(const Program& program, std::span<const std::string> words,
                                  const CompletionSource& source);
// The same with the daemon that the words or the environment name, printed one to a line.
std::string completion_lines(const Program& program, std::span<const std::string> words);

}  // namespace vswitch::cli
