// The verbs of ofctl: names, arguments, help. What they do is in ofctl.cc.
#include <fmt/format.h>
#include <strings.h>

#include <algorithm>
#include <iterator>

#include "cli/ofctl.h"

namespace vswitch::cli {
namespace {

const OptionSpec kStrict = {"--strict", "", "only the rule of exactly this match and priority", ""};
const OptionSpec kNames = {"--names", "", "port names in place of numbers (default on a terminal)", ""};
const OptionSpec kPortNames = {"--names", "",
                               "port names in place of numbers, where flows and datapath actions name ports", ""};
const OptionSpec kNoNames = {"--no-names", "", "port numbers", ""};
const OptionSpec kBundle = {"--bundle", "", "all or nothing: that is always so here", ""};
const OptionSpec kDryRun = {"--dry-run", "", "check everything, change nothing", ""};
const OptionSpec kReadd = {"--readd", "", "accepted for compatibility", ""};

constexpr std::string_view kFlowSyntax =
    "A flow is written as for ovs-ofctl: match fields, then actions, separated by commas. The match fields are those "
    "of\n"
    "ovs-fields(7), the actions those of ovs-actions(7). priority (32768), table (0), cookie, idle_timeout and\n"
    "hard_timeout stand among the fields.";
constexpr std::string_view kFilter =
    "FLOW selects: match fields, table=N, cookie=VALUE/MASK, out_port=PORT. Without it, all rules.";

const std::vector<Verb> kVerbs = {
    {"add-flow",
     "BRIDGE FLOW",
     "Add a rule, or replace the one of the same match and priority",
     kFlowSyntax,
     "add-flow br0 'priority=100,tcp,tp_dst=80,actions=output:2'\n"
     "add-flow br0 'in_port=1,actions=set_field:5->tun_id,output:vx0'\n"
     "add-flow br0 'table=1,dl_dst=0a:00:00:00:00:01,actions=resubmit(,2)'\n"
     "add-flow br0 -              (many, from standard input: see add-flows)",
     2,
     2,
     {kBundle, kDryRun},
     "Rules"},
    {"add-flows",
     "BRIDGE FILE|-",
     "Load rules from a file or standard input: all or nothing",
     "One flow on a line; # begins a comment. A line may begin with add, modify, modify_strict, delete or "
     "delete_strict.\n"
     "Errors name file and line, and nothing is changed.",
     "add-flows br0 rules.txt\ngenerate | ofctl add-flows br0 -",
     2,
     2,
     {kBundle, kDryRun},
     "Rules"},
    {"mod-flows",
     "BRIDGE FLOW",
     "Give all rules within a match other actions; if there is none, add one",
     kFlowSyntax,
     "mod-flows br0 'tcp,actions=output:3'\n--strict mod-flows br0 'priority=100,tcp,tp_dst=80,actions=drop'",
     2,
     2,
     {kStrict, kBundle, kDryRun},
     "Rules"},
    {"del-flows",
     "BRIDGE [FLOW]",
     "Delete the rules within a match; without FLOW, all rules",
     kFilter,
     "del-flows br0\ndel-flows br0 'table=1,tcp'\ndel-flows br0 'cookie=0x5/-1'\n"
     "--strict del-flows br0 'priority=100,tcp,tp_dst=80'",
     1,
     2,
     {kStrict, kBundle, kDryRun},
     "Rules"},
    {"replace-flows",
     "BRIDGE FILE|-",
     "Make the rules of a file the rules of the bridge",
     "Rules that are the same stay and keep their counters; the others are changed, added and deleted in one step.",
     "replace-flows br0 rules.txt",
     2,
     2,
     {kBundle, kReadd, kDryRun},
     "Rules"},
    {"diff-flows",
     "SOURCE SOURCE",
     "Compare bridges and files; exit 2 if they differ",
     "A SOURCE that contains a / or a . or is - is a file, any other a bridge. Lines with - are in the first only, "
     "with +\n"
     "in the second only. At least one SOURCE is a bridge.",
     "diff-flows br0 rules.txt\ndiff-flows br0 br1",
     2,
     2,
     {},
     "Rules"},
    {"bundle",
     "BRIDGE FILE|-",
     "The same as add-flows",
     "",
     "bundle br0 changes.txt",
     2,
     2,
     {kBundle, kDryRun},
     "Rules"},
    {"dump-flows",
     "BRIDGE [FLOW]",
     "Print rules with their counters",
     kFilter,
     "dump-flows br0\ndump-flows br0 table=1\n--sort=n_packets dump-flows br0\n--no-stats dump-flows br0 > rules.txt",
     1,
     2,
     {kNames,
      kNoNames,
      {"--sort", "[FIELD]", "by priority (default), table, cookie, n_packets, n_bytes, duration; ascending", ""},
      {"--rsort", "[FIELD]", "the same, descending", ""},
      {"--stats", "", "with counters (default)", ""},
      {"--no-stats", "", "without counters, as add-flows takes them", ""}},
     "Rules"},
    {"dump-aggregate", "BRIDGE [FLOW]", "Print sums over rules", kFilter, "dump-aggregate br0 tcp", 1, 2, {}, "Rules"},
    {"dump-tables",
     "BRIDGE",
     "Print rules, lookups and matches of each table",
     "",
     "dump-tables br0",
     1,
     1,
     {},
     "Rules"},

    {"trace",
     "BRIDGE FLOW [HEX-PACKET]",
     "Show what the rules do to a packet, step by step",
     "The packet is described by its headers, or given as bytes; FLOW then holds what is not in it, like in_port. It "
     "runs\n"
     "the translation of real packets and changes nothing: no counters, no learning, unless --generate is given.",
     "trace br0 "
     "tcp,in_port=1,dl_src=0a:00:00:00:00:01,dl_dst=0a:00:00:00:00:02,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80\n"
     "trace --names br0 in_port=web1,arp\n"
     "trace br0 in_port=1 ffffffffffff0a000000000108060001...\n"
     "trace br0 in_port=1,icmp --format json",
     2,
     3,
     {kPortNames,
      kNoNames,
      {"--generate", "", "learn and count, as a real packet would", ""},
      {"--ct-next", "FLAGS", "not in this version: there is no connection tracking yet", ""}},
     "Packets"},
    {"packet-out",
     "BRIDGE PACKET-OUT",
     "Send a packet through a list of actions",
     "",
     "packet-out br0 'in_port=1,packet=ffffffffffff0a00000000010806...,actions=normal'",
     2,
     2,
     {},
     "Packets"},
    {"monitor",
     "BRIDGE",
     "Print the packets that the action controller sends, until interrupted",
     "",
     "monitor br0\n--timeout=10 monitor br0",
     1,
     1,
     {},
     "Packets"},

    {"show", "BRIDGE", "Print the bridge and its ports as OpenFlow sees them", "", "show br0", 1, 1, {}, "Ports"},
    {"dump-ports",
     "BRIDGE [PORT]",
     "Print counters of ports",
     "",
     "dump-ports br0\ndump-ports br0 vx0",
     1,
     2,
     {kNames, kNoNames},
     "Ports"},
    {"dump-ports-desc", "BRIDGE [PORT]", "Print ports and their state", "", "dump-ports-desc br0", 1, 2, {}, "Ports"},
    {"mod-port",
     "BRIDGE PORT CHANGE",
     "Change how a port behaves",
     "CHANGE: up, down, receive, no-receive, forward, no-forward, flood, no-flood, packet-in, no-packet-in.",
     "mod-port br0 eth1 down\nmod-port br0 2 no-flood",
     3,
     3,
     {},
     "Ports"},

    {"fdb-show",
     "BRIDGE",
     "Print the addresses that `normal` learned",
     "",
     "fdb-show br0",
     1,
     1,
     {},
     "Learned addresses"},
    {"fdb-add",
     "BRIDGE PORT VLAN MAC",
     "Add an address that does not age",
     "",
     "fdb-add br0 eth1 0 0a:00:00:00:00:01",
     4,
     4,
     {},
     "Learned addresses"},
    {"fdb-del",
     "BRIDGE VLAN MAC",
     "Forget an address",
     "",
     "fdb-del br0 0 0a:00:00:00:00:01",
     3,
     3,
     {},
     "Learned addresses"},
    {"fdb-flush", "BRIDGE", "Forget all that were learned", "", "fdb-flush br0", 1, 1, {}, "Learned addresses"},
};

// The names that ovs-ofctl(8) knows. All are spoken here, so to name one changes nothing.
constexpr std::string_view kProtocols[] = {"OpenFlow10", "OpenFlow11", "OpenFlow12",
                                           "OpenFlow13", "OpenFlow14", "OpenFlow15"};
constexpr std::string_view kFlowFormats[] = {
    "any",           "OpenFlow10",     "OpenFlow10-table_id", "OpenFlow10+table_id",
    "NXM",           "NXM-table_id",   "NXM+table_id",        "OXM",
    "OpenFlow11",    "OXM-OpenFlow12", "OXM-OpenFlow13",      "OXM-OpenFlow14",
    "OXM-OpenFlow15"};

// A list, separated by commas or blanks, of known names.
std::string check_names(std::string_view list, std::string_view kind, std::span<const std::string_view> known) {
  bool any = false;
  while (!list.empty()) {
    const std::string_view name = list.substr(0, list.find_first_of(", \t"));
    list.remove_prefix(std::min(name.size() + 1, list.size()));
    if (name.empty()) continue;
    any = true;
    const bool is_known = std::any_of(known.begin(), known.end(), [&](std::string_view k) {
      return k.size() == name.size() && strncasecmp(k.data(), name.data(), k.size()) == 0;
    });
    if (!is_known) return fmt::format("unknown {} \"{}\"; known are {}", kind, name, fmt::join(known, ", "));
  }
  return any ? "" : fmt::format("no {} in it; known are {}", kind, fmt::join(known, ", "));
}
std::string check_protocols(std::string_view list) { return check_names(list, "OpenFlow version", kProtocols); }
std::string check_flow_formats(std::string_view list) { return check_names(list, "flow format", kFlowFormats); }

std::vector<OptionSpec> all_options() {
  std::vector<OptionSpec> out = kCommonOptions;
  out.push_back({"--protocols", "VERSIONS", "accepted for compatibility", "-O", check_protocols});
  out.push_back({"--flow-format", "FORMAT", "accepted for compatibility", "-F", check_flow_formats});
  return out;
}
const std::vector<OptionSpec> kOptions = all_options();

constexpr std::string_view kGroups = "groups are not supported in this version";
constexpr std::string_view kMeters = "meters are not supported in this version";
constexpr std::string_view kCt = "connection tracking is not supported in this version";
constexpr std::string_view kWire =
    "OpenFlow on the wire is not supported in this version: use the gRPC API (docs/grpc.md)";
const std::vector<std::pair<std::string_view, std::string_view>> kUnsupported = {
    {"add-group", kGroups},
    {"add-groups", kGroups},
    {"mod-group", kGroups},
    {"del-groups", kGroups},
    {"dump-groups", kGroups},
    {"dump-group-stats", kGroups},
    {"dump-group-features", kGroups},
    {"insert-buckets", kGroups},
    {"remove-buckets", kGroups},
    {"add-meter", kMeters},
    {"mod-meter", kMeters},
    {"del-meter", kMeters},
    {"del-meters", kMeters},
    {"dump-meter", kMeters},
    {"dump-meters", kMeters},
    {"meter-stats", kMeters},
    {"meter-features", kMeters},
    {"ct-flush", kCt},
    {"ct-flush-zone", kCt},
    {"snoop", kWire},
    {"probe", kWire},
    {"ping", kWire},
    {"queue-stats", "queues are not supported in this version"},
    {"add-tlv-map", "Geneve options are not supported in this version"},
};

}  // namespace

const Program kOfctl = {
    "ofctl",      "programs the rules of a bridge and traces packets through them",
    kVerbs,       kOptions,
    kUnsupported, "Exit status: 0 done; 1 refused, with the reason; 2 wrong use (diff-flows: differ)."};

}  // namespace vswitch::cli
