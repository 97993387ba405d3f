#include "cli/session.h"

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <vector>

#include "cli/completion.h"

namespace vswitch::cli {

int inform(const Information& information) {
  fmt::print("{}", information.text);
  return kDone;
}

int with_client(const Program& program, const std::multimap<std::string, std::string, std::less<>>& globals,
                const std::function<int(Client&, const CommonSettings&)>& work) {
  auto settings = common_settings(globals);
  if (auto* problem = std::get_if<Problem>(&settings)) return complain(program, problem->message, problem->status);
  const CommonSettings& common = std::get<CommonSettings>(settings);
  std::string server = server_address(common.server);
  if (!server.starts_with("unix:")) {
    return complain(program, fmt::format("cannot use the server {}: unix:PATH is wanted; one on the network needs TLS, "
                                         "which this version does not have yet",
                                         server));
  }
  // As long as the process lives: it ends when its command is done (see main), and taking gRPC down in order first
  // would cost more than the command itself, milliseconds of sleep included.
  static auto& clients = *new std::vector<std::unique_ptr<Client>>;
  Client& client = *clients.emplace_back(std::make_unique<Client>(server, common.timeout));
  return work(client, common);
}

int Job::finish_load(const Outcome& outcome, const std::string& file) const {
  if (outcome.ok) return kDone;
  bool named = false;
  for (const v1::ErrorDetail& detail : outcome.details.details()) {
    if (!detail.has_line()) continue;
    complain(program, fmt::format("{}:{}: {}", file, detail.line(), detail.message()));
    named = true;
  }
  return named ? kRefused : complain(program, outcome.message);
}

int run_program(const Program& program, const Handlers& handlers, std::span<const std::string> words) {
  if (!words.empty() && words[0] == kCompleteVerb) return inform({completion_lines(program, words.subspan(1))});
  std::multimap<std::string, std::string, std::less<>> globals;
  ParseResult parsed = parse_command(program, words, globals);
  if (auto* problem = std::get_if<Problem>(&parsed)) return complain(program, problem->message, problem->status);
  if (auto* information = std::get_if<Information>(&parsed)) return inform(*information);
  const Command& command = std::get<Command>(parsed);
  return with_client(program, globals, [&](Client& client, const CommonSettings& common) {
    Job job{program, client, command, common.json, globals};
    return handlers.at(command.verb->name)(job);
  });
}

}  // namespace vswitch::cli
