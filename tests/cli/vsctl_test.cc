// What command lines of vsctl become, as data: words -> the Apply request in protobuf's text format.
#include "cli/vsctl.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <sstream>

namespace vswitch::cli {
namespace {

std::vector<std::string> split(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

// The operations of a line, or what is wrong.
std::string operations(const std::string& line) {
  std::vector<std::string> words = split(line);
  auto parsed = parse_vsctl(words);
  if (auto* problem = std::get_if<Problem>(&parsed)) return problem->message;
  if (std::holds_alternative<Information>(parsed)) return "information";
  v1::ApplyRequest request;
  for (const Command& command : std::get<VsctlLine>(parsed).commands) {
    if (!is_change(command)) continue;
    std::string problem = add_operations(command, request);
    if (!problem.empty()) return problem;
  }
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  printer.PrintToString(request, &text);
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

struct Case {
  const char* line;
  const char* expected;
};

constexpr Case kCases[] = {
    {"add-br br0", R"(operations { create_bridge { bridge { name: "br0" } } })"},
    {"add-br br0 fail_mode=secure",
     R"(operations { create_bridge { bridge { name: "br0" fail_mode: FAIL_MODE_SECURE } } })"},
    {"--may-exist add-br br0", R"(operations { create_bridge { bridge { name: "br0" } allow_existing: true } })"},
    {"add-br --may-exist br0", R"(operations { create_bridge { bridge { name: "br0" } allow_existing: true } })"},
    {"add-br br0 datapath_type=netdev", R"(operations { create_bridge { bridge { name: "br0" } } })"},
    {"--if-exists del-br br0", R"(operations { delete_bridge { name: "br0" allow_missing: true } })"},
    {"add-port br0 p1", R"(operations { create_port { port { name: "p1" bridge: "br0" } } })"},
    {"add-port br0 vx1 type=vxlan remote_ip=192.168.1.2",
     R"(operations { create_port { port { name: "vx1" bridge: "br0" } } } )"
     R"(operations { update_port { port { name: "vx1" type: "vxlan" options { key: "remote_ip" value: "192.168.1.2" } } )"
     R"(update_mask { paths: "type" paths: "options.remote_ip" } } })"},
    {"add-port br0 vx1 -- set interface vx1 type=vxlan options:key=flow ofport_request=5",
     R"(operations { create_port { port { name: "vx1" bridge: "br0" } } } )"
     R"(operations { update_port { port { name: "vx1" type: "vxlan" options { key: "key" value: "flow" } )"
     R"(ofport_request: 5 } update_mask { paths: "type" paths: "options.key" paths: "ofport_request" } } })"},
    {"-- add-port br0 p1 tag=10 -- show",
     R"(operations { create_port { port { name: "p1" bridge: "br0" } } } )"
     R"(operations { update_port { port { name: "p1" vlan { tag: 10 } } update_mask { paths: "vlan.tag" } } })"},
    {"set port p1 trunks=10,20 vlan_mode=trunk",
     R"(operations { update_port { port { name: "p1" vlan { mode: VLAN_MODE_TRUNK trunks: 10 trunks: 20 } } )"
     R"(update_mask { paths: "vlan.trunks" paths: "vlan.mode" } } })"},
    {"set Interface p1 options={a=b,c=\"d,e\"}",
     R"(operations { update_port { port { name: "p1" options { key: "a" value: "b" } options { key: "c" value: "d,e" } } )"
     R"(update_mask { paths: "options.a" paths: "options.c" } } })"},
    {"clear port p1 tag trunks",
     R"(operations { update_port { port { name: "p1" vlan { } } update_mask { paths: "vlan.tag" } } } )"
     R"(operations { update_port { port { name: "p1" vlan { } } update_mask { paths: "vlan.trunks" } } })"},
    {"remove interface vx1 options dst_port",
     R"(operations { update_port { port { name: "vx1" } update_mask { paths: "options.dst_port" } } })"},
    {"del-port br0 p1", R"(operations { delete_port { name: "p1" bridge: "br0" } })"},
    {"--if-exists del-port p1", R"(operations { delete_port { name: "p1" allow_missing: true } })"},
    {"set bridge br0 fail_mode=secure other_config:mac-aging-time=60",
     R"(operations { update_bridge { bridge { name: "br0" fail_mode: FAIL_MODE_SECURE mac_ageing_seconds: 60 } )"
     R"(update_mask { paths: "fail_mode" paths: "mac_ageing_seconds" } } })"},
    {"br-set-external-id br0 owner alice",
     R"(operations { update_bridge { bridge { name: "br0" external_ids { key: "owner" value: "alice" } } )"
     R"(update_mask { paths: "external_ids.owner" } } })"},
    {"br-set-external-id br0 owner",
     R"(operations { update_bridge { bridge { name: "br0" } update_mask { paths: "external_ids.owner" } } })"},
    {"set open_vswitch . other_config:max-idle=500",
     R"(operations { update_settings { settings { max_idle_ms: 500 } update_mask { paths: "max_idle_ms" } } })"},
    {"set open_vswitch . other_config:kernel-path=false",
     R"(operations { update_settings { settings { kernel_path: false } update_mask { paths: "kernel_path" } } })"},
    {"add open_vswitch . other_config max-idle=500",
     R"(operations { update_settings { settings { max_idle_ms: 500 } update_mask { paths: "max_idle_ms" } } })"},
    {"remove open_vswitch . other_config max-idle dpdk-extra",
     R"(operations { update_settings { settings { } update_mask { paths: "max_idle_ms" paths: "dpdk_extra" } } })"},
    {"clear open_vswitch . other_config",
     R"(operations { update_settings { settings { kernel_path: true } update_mask { paths: "dpdk_extra" )"
     R"(paths: "dpdk_hugepage_dir" paths: "dpdk_socket_mem" paths: "max_datapath_flows" paths: "forwarding_threads" )"
     R"(paths: "kernel_path" paths: "max_idle_ms" } } })"},
    {"remove bridge br0 other_config hwaddr",
     R"(operations { update_bridge { bridge { name: "br0" } update_mask { paths: "mac" } } })"},
};

TEST(Vsctl, LinesBecomeOneRequest) {
  for (const Case& c : kCases) EXPECT_EQ(operations(c.line), c.expected) << c.line;
}

TEST(Vsctl, RefusesWithWhatWouldBeAccepted) {
  const Case cases[] = {
      {"add-prt br0 p1", "did you mean \"add-port\"?"},
      {"add-port br0", "add-port: PORT is missing (usage: vsctl add-port BRIDGE PORT"},
      {"--may-exit add-br br0", "did you mean \"--may-exist\"?"},
      {"add-br br0 fail_mode=sekure", "standalone or secure"},
      {"set open_vswitch . other_config:kernel-path=perhaps", "true or false"},
      {"remove open_vswitch . other_config max-idle=5", "\"max-idle=5\": the key alone is wanted"},
      {"remove open_vswitch . other_config max-idel", "did you mean \"max-idle\"?"},
      {"remove interface p1 other_config x", "table Interface has no column \"other_config\""},
      {"add-br br0 fial_mode=secure", "did you mean \"fail_mode\"?"},
      {"set prt p1 tag=10", "unknown table"},
      {"set port p1 tag=4096", "a number from 0 to 4095"},
      {"set port p1 tag=x", "a number from 0 to 4095"},
      {"set interface vx1 key=flow", "options:key=flow"},
      {"set port p1 tag", "COLUMN=VALUE"},
      {"add-bond br0 b p1 p2", "bonds are not supported"},
      {"add-br br0 datapath_type=system", "only the userspace datapath"},
      {"add-br br0 --", "what to do?"},
  };
  for (const Case& c : cases) {
    EXPECT_NE(operations(c.line).find(c.expected), std::string::npos) << c.line << "\n  " << operations(c.line);
  }
}

TEST(Vsctl, HelpTeachesEveryVerb) {
  for (const Verb& verb : kVsctl.verbs) {
    EXPECT_NE(help_text(kVsctl, verb).find(verb.name), std::string::npos);
    EXPECT_FALSE(verb.examples.empty()) << verb.name;
  }
  EXPECT_EQ(operations("help add-port"), "information");
  EXPECT_EQ(operations("add-port --help"), "information");
  EXPECT_EQ(operations("completion bash"), "information");
}

}  // namespace
}  // namespace vswitch::cli
