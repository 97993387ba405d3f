// The verbs of vsctl: names, arguments, help. What they do is in vsctl.cc.
#include "cli/vsctl.h"

namespace vswitch::cli {
namespace {

const OptionSpec kMayExist = {"--may-exist", "", "no error if it is there already", ""};
const OptionSpec kIfExists = {"--if-exists", "", "no error if it is not there", ""};
const OptionSpec kWithIface = {"--with-iface", "", "accepted for compatibility", ""};
const OptionSpec kColumns = {"--columns", "A,B", "only these columns", ""};

constexpr std::string_view kTables =
    "Tables: bridge, port, interface (a port and the interface of its name are one thing here), open_vswitch (the\n"
    "record is \".\"). A column that is a map takes COLUMN:KEY=VALUE.";

const std::vector<Verb> kVerbs = {
    {"show",
     "",
     "Print bridges and ports, with what is wrong with them",
     "",
     "show\nshow --format json",
     0,
     0,
     {},
     "Bridges"},
    {"add-br",
     "BRIDGE [COLUMN=VALUE]...",
     "Add a bridge",
     "A new bridge has an internal port of its own name and forwards as a learning switch does; with\n"
     "fail_mode=secure it has no rules and forwards nothing until it gets some.",
     "add-br br0\nadd-br br0 fail_mode=secure\n--may-exist add-br br0 -- set bridge br0 other_config:mac-aging-time=60",
     1,
     kAnyNumber,
     {kMayExist},
     "Bridges"},
    {"del-br",
     "BRIDGE",
     "Delete a bridge with its ports and rules",
     "",
     "del-br br0\n--if-exists del-br br0",
     1,
     1,
     {kIfExists},
     "Bridges"},
    {"list-br", "", "List the bridges", "", "list-br", 0, 0, {}, "Bridges"},
    {"br-exists",
     "BRIDGE",
     "Exit with status 2 unless the bridge exists",
     "",
     "br-exists br0 && echo there",
     1,
     1,
     {},
     "Bridges"},
    {"get-fail-mode", "BRIDGE", "Print the fail mode", "", "get-fail-mode br0", 1, 1, {}, "Bridges"},
    {"set-fail-mode",
     "BRIDGE MODE",
     "Set the fail mode: standalone or secure",
     "",
     "set-fail-mode br0 secure",
     2,
     2,
     {},
     "Bridges"},
    {"del-fail-mode",
     "BRIDGE",
     "Set the fail mode to its default, standalone",
     "",
     "del-fail-mode br0",
     1,
     1,
     {},
     "Bridges"},
    {"br-set-external-id",
     "BRIDGE KEY [VALUE]",
     "Keep a note with a bridge; without a value, drop it",
     "",
     "br-set-external-id br0 owner alice",
     2,
     3,
     {},
     "Bridges"},
    {"br-get-external-id",
     "BRIDGE [KEY]",
     "Print the notes of a bridge, or one of them",
     "",
     "br-get-external-id br0 owner",
     1,
     2,
     {},
     "Bridges"},

    {"add-port",
     "BRIDGE PORT [COLUMN[:KEY]=VALUE]...",
     "Add a port to a bridge",
     "Without a type, PORT is a network device of this host. What is no column of port or interface is an option of\n"
     "the port's type, so `remote_ip=...` and `options:remote_ip=...` mean the same, as does\n"
     "`-- set interface PORT options:remote_ip=...` behind the command.",
     "add-port br0 eth1\n"
     "add-port br0 vx0 type=vxlan remote_ip=192.168.1.2 key=flow\n"
     "add-port br0 vx0 -- set interface vx0 type=vxlan options:remote_ip=192.168.1.2 options:key=flow "
     "ofport_request=5\n"
     "add-port br0 web tag=10\n"
     "add-port br0 p0 type=patch peer=p1 -- add-port br1 p1 type=patch peer=p0\n"
     "--may-exist add-port br0 eth1",
     2,
     kAnyNumber,
     {kMayExist},
     "Ports"},
    {"del-port",
     "[BRIDGE] PORT",
     "Delete a port",
     "With BRIDGE, the port must be in it.",
     "del-port vx0\n--if-exists del-port br0 vx0",
     1,
     2,
     {kIfExists, kWithIface},
     "Ports"},
    {"list-ports", "BRIDGE", "List the ports of a bridge, but not its own", "", "list-ports br0", 1, 1, {}, "Ports"},
    {"list-all-ports", "", "List the ports of all bridges", "", "list-all-ports", 0, 0, {}, "Ports"},
    {"port-to-br", "PORT", "Print the bridge that a port is in", "", "port-to-br vx0", 1, 1, {}, "Ports"},
    {"list-ifaces",
     "BRIDGE",
     "List the interfaces of a bridge: here the same as list-ports",
     "",
     "list-ifaces br0",
     1,
     1,
     {},
     "Ports"},
    {"iface-to-br", "INTERFACE", "Print the bridge that an interface is in", "", "iface-to-br vx0", 1, 1, {}, "Ports"},

    {"list",
     "TABLE [RECORD]...",
     "Print records with all their columns",
     kTables,
     "list interface\nlist interface vx0\nlist bridge --format json",
     1,
     kAnyNumber,
     {kColumns, kIfExists},
     "Records"},
    {"find",
     "TABLE [COLUMN[:KEY]OP VALUE]...",
     "Print the records that fulfil all conditions; OP: = != < > <= >=",
     kTables,
     "find interface type=vxlan\n--columns=name,error find interface link_state!=up",
     1,
     kAnyNumber,
     {kColumns},
     "Records"},
    {"get",
     "TABLE RECORD COLUMN[:KEY]...",
     "Print values",
     kTables,
     "get interface vx0 ofport\nget interface vx0 options:remote_ip statistics:rx_packets",
     3,
     kAnyNumber,
     {kIfExists},
     "Records"},
    {"set",
     "TABLE RECORD COLUMN[:KEY]=VALUE...",
     "Change values",
     kTables,
     "set port p1 tag=10\nset port p1 trunks=10,20 vlan_mode=trunk\nset interface vx0 options:remote_ip=192.168.1.3\n"
     "set bridge br0 fail_mode=secure other_config:mac-aging-time=60\nset open_vswitch . other_config:max-idle=30000",
     3,
     kAnyNumber,
     {kIfExists},
     "Records"},
    {"add",
     "TABLE RECORD COLUMN KEY=VALUE...",
     "Add to a map: options, external_ids or other_config",
     kTables,
     "add interface vx0 options dst_port=8472",
     4,
     kAnyNumber,
     {kIfExists},
     "Records"},
    {"remove",
     "TABLE RECORD COLUMN KEY...",
     "Remove from a map: options, external_ids or other_config",
     kTables,
     "remove interface vx0 options dst_port\nremove open_vswitch . other_config max-idle",
     4,
     kAnyNumber,
     {kIfExists},
     "Records"},
    {"clear",
     "TABLE RECORD COLUMN...",
     "Empty columns",
     kTables,
     "clear port p1 trunks tag",
     3,
     kAnyNumber,
     {kIfExists},
     "Records"},
    {"wait-until",
     "TABLE RECORD [COLUMN[:KEY]OP VALUE]...",
     "Wait until a record is there and fulfils the conditions",
     kTables,
     "--timeout=10 wait-until interface eth1 link_state=up",
     2,
     kAnyNumber,
     {},
     "Records"},
    {"wait",
     "TABLE RECORD [COLUMN[:KEY]OP VALUE]...",
     "The same as wait-until",
     "",
     "--timeout=10 wait interface eth1 link_state=up",
     2,
     kAnyNumber,
     {},
     "Records"},

    {"init", "", "Do nothing: the store makes itself", "", "init", 0, 0, {}, "Other"},
    {"comment",
     "[WORD]...",
     "Do nothing",
     "",
     "comment \"for the web servers\" -- add-port br0 web1",
     0,
     kAnyNumber,
     {},
     "Other"},
};

std::vector<OptionSpec> all_options() {
  std::vector<OptionSpec> out = kCommonOptions;
  out.push_back({"--dry-run", "", "check everything, change nothing", ""});
  out.push_back({"--no-wait", "", "accepted for compatibility: a reply always means done", ""});
  out.push_back({"--oneline", "", "accepted for compatibility", ""});
  out.push_back({"--db", "SERVER", "accepted for compatibility, ignored: see --server", ""});
  return out;
}
const std::vector<OptionSpec> kOptions = all_options();

constexpr std::string_view kNoController =
    "controllers that speak OpenFlow are not supported in this version: use the gRPC API (docs/grpc.md)";
constexpr std::string_view kNoBond = "bonds are not supported in this version";
constexpr std::string_view kNoCreate = "rows cannot be created by themselves here: use add-br and add-port";
constexpr std::string_view kNoDestroy = "rows cannot be destroyed by themselves here: use del-br and del-port";
constexpr std::string_view kNoFake = "fake bridges are not supported: every bridge is a whole one here";
constexpr std::string_view kNoZone = "connection tracking is not supported in this version";
constexpr std::string_view kNoSsl = "TLS is not supported in this version: the API is a unix socket";
const std::vector<std::pair<std::string_view, std::string_view>> kUnsupported = {
    {"add-bond", kNoBond},
    {"add-bond-iface", kNoBond},
    {"del-bond-iface", kNoBond},
    {"get-controller", kNoController},
    {"set-controller", kNoController},
    {"del-controller", kNoController},
    {"get-manager", kNoController},
    {"set-manager", kNoController},
    {"del-manager", kNoController},
    {"get-ssl", kNoSsl},
    {"set-ssl", kNoSsl},
    {"del-ssl", kNoSsl},
    {"create", kNoCreate},
    {"destroy", kNoDestroy},
    {"br-to-vlan", kNoFake},
    {"br-to-parent", kNoFake},
    {"add-zone-tp", kNoZone},
    {"del-zone-tp", kNoZone},
    {"list-zone-tp", kNoZone},
    {"emer-reset", "there is nothing to reset but bridges: use del-br"},
};

}  // namespace

const Program kVsctl = {"vsctl",
                        "configures bridges and ports of vswitchd",
                        kVerbs,
                        kOptions,
                        kUnsupported,
                        "Several commands joined by -- are one transaction: all or nothing.\n"
                        "Exit status: 0 done; 1 refused, with the reason; 2 wrong use (br-exists: no such bridge)."};

}  // namespace vswitch::cli
