// vsctl: commands about bridges and ports -> one Apply, and what it prints.
//
// Several commands joined by "--" are one transaction. Those that only read run before it if they stand before the
// first change, else after it.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "cli/client.h"
#include "cli/command_line.h"

namespace vswitch::cli {

extern const Program kVsctl;

// A command line, split at "--" and parsed.
struct VsctlLine {
  std::multimap<std::string, std::string, std::less<>> globals;
  std::vector<Command> commands;
};
std::variant<VsctlLine, Problem, Information> parse_vsctl(std::span<const std::string> words);

bool is_change(const Command& command);
// Adds the operations of a changing command to `request`; "" or what is wrong.
std::string add_operations(const Command& command, v1::ApplyRequest& request);

int run_vsctl(std::span<const std::string> words);

}  // namespace vswitch::cli
