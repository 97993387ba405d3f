// rule_changer SERVER BRIDGE: changes rules, reads port counters and counts flows over one connection to a vswitchd,
// for workloads/rules.py and workloads/setup.py. A connection that stays open is how a controller talks to a switch;
// starting a client takes longer than the change.
//
// Reads commands from standard input, one a line, words separated by tabs, and answers each with a line:
//   apply COMMAND TEXT [COMMAND TEXT]...   COMMAND is add, mod, mod-strict, del or del-strict: one transaction.
//                                          Answers the microseconds from request to reply
//   tx PORT                                Answers the packets that the port has sent
//   flows                                  Answers how many flows the datapath has
// An error ends it: message on standard error, exit status 1.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "cli/client.h"

namespace vswitch::cli {
namespace {

using Words = std::vector<std::string>;

Words split(const std::string& line) {
  Words words;
  size_t from = 0;
  for (size_t tab; (tab = line.find('\t', from)) != line.npos; from = tab + 1)
    words.push_back(line.substr(from, tab - from));
  words.push_back(line.substr(from));
  return words;
}

bool complain(const std::string& reason) {
  std::fprintf(stderr, "rule_changer: %s\n", reason.c_str());
  return false;
}

bool apply(Client& client, const std::string& bridge, const Words& words) {
  static const std::map<std::string, v1::RuleCommand> kCommands = {{"add", v1::RULE_COMMAND_ADD},
                                                                   {"mod", v1::RULE_COMMAND_MODIFY},
                                                                   {"mod-strict", v1::RULE_COMMAND_MODIFY_STRICT},
                                                                   {"del", v1::RULE_COMMAND_DELETE},
                                                                   {"del-strict", v1::RULE_COMMAND_DELETE_STRICT}};
  v1::ApplyRequest request;
  v1::RuleChanges& changes = *request.add_operations()->mutable_modify_rules();
  changes.set_bridge(bridge);
  for (size_t i = 1; i + 1 < words.size(); i += 2) {
    const auto command = kCommands.find(words[i]);
    if (command == kCommands.end()) return complain("unknown command " + words[i]);
    v1::RuleMod& mod = *changes.add_mods();
    mod.set_command(command->second);
    mod.set_text(words[i + 1]);
  }
  v1::ApplyResponse reply;
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome = client.apply(request, &reply);
  const auto end = std::chrono::steady_clock::now();
  if (!outcome.ok) return complain(outcome.message);
  std::printf("%.1f\n", std::chrono::duration<double, std::micro>(end - begin).count());
  return true;
}

bool transmitted(Client& client, const std::string& port) {
  v1::GetPortRequest request;
  request.set_name("ports/" + port);
  v1::Port reply;
  const Outcome outcome = client.get_port(request, &reply);
  if (!outcome.ok) return complain(outcome.message);
  std::printf("%llu\n", static_cast<unsigned long long>(reply.statistics().tx_packets()));
  return true;
}

bool count_flows(Client& client) {
  v1::GetDatapathRequest request;
  request.set_counters_only(true);
  v1::Datapath reply;
  const Outcome outcome = client.get_datapath(request, &reply);
  if (!outcome.ok) return complain(outcome.message);
  std::printf("%llu\n", static_cast<unsigned long long>(reply.flows()));
  return true;
}

bool run(Client& client, const std::string& bridge) {
  for (std::string line; std::getline(std::cin, line);) {
    const Words words = split(line);
    bool done = false;
    if (words[0] == "apply" && words.size() >= 3 && words.size() % 2 == 1) {
      done = apply(client, bridge, words);
    } else if (words[0] == "tx" && words.size() == 2) {
      done = transmitted(client, words[1]);
    } else if (words[0] == "flows" && words.size() == 1) {
      done = count_flows(client);
    } else {
      complain("no command: " + line);
    }
    if (!done) return false;
    std::fflush(stdout);
  }
  return true;
}

}  // namespace
}  // namespace vswitch::cli

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: rule_changer SERVER BRIDGE\n");
    return 2;
  }
  vswitch::cli::Client client(argv[1], std::chrono::milliseconds(0));
  return vswitch::cli::run(client, argv[2]) ? 0 : 1;
}
