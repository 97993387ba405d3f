// What the shell is offered, as data: the words so far -> candidates that must, or must not, be there.
#include "cli/completion.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "cli/dpctl.h"
#include "cli/ofctl.h"
#include "cli/vsctl.h"

namespace vswitch::cli {
namespace {

v1::Configuration some_configuration() {
  v1::Configuration now;
  now.add_bridges()->set_name("bridges/br0");
  now.add_bridges()->set_name("bridges/br1");
  auto add = [&](const char* name, const char* bridge, const char* type) -> v1::Port& {
    v1::Port& port = *now.add_ports();
    port.set_name(name);
    port.set_bridge(bridge);
    port.set_type(type);
    return port;
  };
  add("ports/eth1", "bridges/br0", "netdev");
  (*add("ports/vx0", "bridges/br1", "vxlan").mutable_options())["remote_ip"] = "1.2.3.4";
  add("ports/d1", "bridges/br1", "dummy");
  return now;
}

// A line that ends with a blank completes a new word.
std::vector<std::string> candidates(const Program& program, const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  if (line.empty() || line.back() == ' ') words.emplace_back();
  const CompletionSource source{some_configuration, [] { return std::vector<std::string>{"eth1", "eth2"}; }};
  return complete(program, words, source);
}

struct Case {
  const Program* program;
  const char* line;
  std::vector<std::string> offered;
  std::vector<std::string> not_offered;
};

TEST(Completion, OffersWhatMayStandNext) {
  const Case kCases[] = {
      {&kVsctl, "", {"add-br", "show", "help", "completion"}, {"br0"}},
      {&kVsctl, "del-br ", {"br0", "br1"}, {"eth1"}},
      {&kVsctl, "add-br ", {}, {"br0"}},
      {&kVsctl, "add-br br2 ", {"fail_mode=", "other_config:"}, {"tag="}},
      {&kVsctl, "add-br br2 fail_mode=", {"fail_mode=secure"}, {}},
      {&kVsctl, "add-port ", {"br0"}, {"eth1"}},
      {&kVsctl, "add-port br0 ", {"eth2"}, {"eth1", "vx0"}},
      {&kVsctl, "add-port br0 x ", {"type=", "tag=", "options:", "device="}, {"remote_ip="}},
      {&kVsctl, "add-port br0 x type=", {"type=vxlan", "type=dummy", "type=system"}, {}},
      {&kVsctl, "add-port br0 x type=vxlan ", {"remote_ip=", "key="}, {"peer="}},
      {&kVsctl, "add-port br0 x type=vxlan options:", {"options:remote_ip="}, {"remote_ip="}},
      {&kVsctl, "add-port br0 x -- set interface x ", {"type=", "options:"}, {"tag="}},
      {&kVsctl, "del-port ", {"br0", "vx0"}, {}},
      {&kVsctl, "del-port br1 ", {"vx0"}, {"eth1"}},
      {&kVsctl, "port-to-br ", {"eth1", "vx0"}, {"br0"}},
      {&kVsctl, "list ", {"bridge", "port", "interface", "open_vswitch"}, {}},
      {&kVsctl, "list bridge ", {"br0"}, {"eth1"}},
      {&kVsctl, "get interface ", {"vx0"}, {}},
      {&kVsctl, "get interface vx0 ", {"ofport", "link_state", "options"}, {"tag"}},
      {&kVsctl, "get interface vx0 options:", {"options:remote_ip"}, {}},
      {&kVsctl, "set port eth1 ", {"tag=", "trunks=", "vlan_mode="}, {"ofport"}},
      {&kVsctl, "set port eth1 vlan_mode=", {"vlan_mode=trunk"}, {}},
      {&kVsctl, "set interface vx0 options:", {"options:remote_ip=", "options:dst_port="}, {}},
      {&kVsctl, "set bridge br0 other_config:", {"other_config:mac-aging-time="}, {}},
      {&kVsctl, "set open_vswitch ", {"."}, {}},
      {&kVsctl, "remove interface vx0 options ", {"remote_ip"}, {"key"}},
      {&kVsctl, "set-fail-mode br0 ", {"secure", "standalone"}, {}},
      {&kVsctl, "wait-until interface vx0 ", {"link_state"}, {}},
      {&kVsctl, "--", {"--may-exist", "--timeout=", "--dry-run"}, {}},
      {&kVsctl, "del-br --", {"--if-exists"}, {"--may-exist"}},
      {&kVsctl, "--format ", {"text", "json"}, {"show"}},
      {&kVsctl, "show --format=", {"--format=json"}, {}},
      {&kOfctl, "dump-flows ", {"br0"}, {"vx0"}},
      {&kOfctl, "dump-flows br0 --", {"--sort", "--no-stats", "--names"}, {"--strict"}},
      {&kOfctl, "dump-flows br0 --sort=", {"--sort=n_packets"}, {}},
      {&kOfctl, "add-flows br0 ", {"@files"}, {}},
      {&kOfctl, "diff-flows ", {"br0", "@files"}, {}},
      {&kOfctl, "mod-port br1 ", {"vx0"}, {"eth1"}},
      {&kOfctl, "mod-port br1 vx0 ", {"no-flood", "up"}, {}},
      {&kOfctl, "-O ", {"OpenFlow13"}, {"show"}},
      {&kDpctl, "receive ", {"d1"}, {"vx0"}},
      {&kDpctl, "show --", {"--statistics", "--format="}, {}},
      {&kDpctl, "completion ", {"bash"}, {}},
      {&kDpctl, "help ", {"show"}, {}},
  };
  for (const Case& c : kCases) {
    const std::vector<std::string> got = candidates(*c.program, c.line);
    auto has = [&](const std::string& word) { return std::find(got.begin(), got.end(), word) != got.end(); };
    for (const std::string& word : c.offered) EXPECT_TRUE(has(word)) << "\"" << c.line << "\": " << word;
    for (const std::string& word : c.not_offered) EXPECT_FALSE(has(word)) << "\"" << c.line << "\": " << word;
  }
}

// Every argument that a verb's usage names is one that completion knows, or one that only a person knows.
TEST(Completion, EveryVerbOffersItsOptions) {
  for (const Program* program : {&kVsctl, &kOfctl, &kDpctl}) {
    for (const Verb& verb : program->verbs) {
      const std::vector<std::string> got = candidates(*program, std::string(verb.name) + " --");
      for (const OptionSpec& option : verb.options) {
        const bool offered = std::any_of(got.begin(), got.end(), [&](const std::string& word) {
          return word == option.name || word == std::string(option.name) + "=";
        });
        EXPECT_TRUE(offered) << verb.name << " " << option.name;
      }
    }
  }
}

}  // namespace
}  // namespace vswitch::cli
