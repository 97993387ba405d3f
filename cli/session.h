// From a parsed command line to a client that can be used, and to an exit status.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>

#include "cli/client.h"
#include "cli/command_line.h"

namespace vswitch::cli {

int inform(const Information& information);

// Checks the common options and calls `work` with a client.
int with_client(const Program& program, const std::multimap<std::string, std::string, std::less<>>& globals,
                const std::function<int(Client&, const CommonSettings&)>& work);

// The whole of a program whose command lines hold one command.
struct Job {
  const Program& program;
  Client& client;
  const Command& command;
  bool json = false;
  std::multimap<std::string, std::string, std::less<>> globals;

  const std::string& argument(size_t i) const { return command.arguments[i]; }
  std::string argument_or(size_t i, std::string fallback) const {
    return i < command.arguments.size() ? command.arguments[i] : fallback;
  }
  // Complains unless it went well.
  int finish(const Outcome& outcome) const { return outcome.ok ? kDone : complain(program, outcome.message); }
  // The same, naming file and line of each error.
  int finish_load(const Outcome& outcome, const std::string& file) const;
};
using Handlers = std::map<std::string_view, int (*)(Job&)>;
int run_program(const Program& program, const Handlers& handlers, std::span<const std::string> words);

}  // namespace vswitch::cli
