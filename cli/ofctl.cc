#include "cli/ofctl.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>

#include "cli/json_text.h"
#include "cli/ofctl_text.h"
#include "cli/session.h"

namespace vswitch::cli {
namespace {

constexpr size_t kChunk = 64 * 1024;

bool use_names(const Command& command) {
  if (command.has("--names")) return true;
  return !command.has("--no-names") && isatty(STDOUT_FILENO) != 0;
}

// ---------------------------------------------------------------- changes

int change_rules(Job& job, v1::RuleCommand command, const std::string& text) {
  v1::ApplyRequest request;
  request.set_validate_only(job.command.has("--dry-run"));
  v1::RuleChanges& changes = *request.add_operations()->mutable_modify_rules();
  changes.set_bridge(job.argument(0));
  v1::RuleMod& mod = *changes.add_mods();
  mod.set_command(command);
  mod.set_text(text);
  v1::ApplyResponse reply;
  return job.finish(job.client.apply(request, &reply));
}

struct LoadOptions {
  std::string bridge;
  std::string file;
  bool replace = false, dry_run = false, report = false;
};

int load_file(Job& job, const LoadOptions& options, v1::LoadRulesResponse* reply) {
  bool standard_input = options.file == "-";
  std::unique_ptr<FILE, int (*)(FILE*)> file(standard_input ? stdin : std::fopen(options.file.c_str(), "r"),
                                             standard_input ? [](FILE*) { return 0; } : std::fclose);
  if (file == nullptr) return complain(job.program, fmt::format("{}: {}", options.file, std::strerror(errno)));
  bool first = true;
  int broken = 0;  // errno of a read that failed: a part of a file must not become the rules
  Outcome outcome = job.client.load_rules(
      [&](v1::LoadRulesRequest& message) {
        std::string& text = *message.mutable_text();
        text.resize(kChunk);
        text.resize(std::fread(text.data(), 1, kChunk, file.get()));
        if (std::ferror(file.get()) != 0) {
          broken = errno;
          return Client::Next::abandon;
        }
        if (text.empty() && !first) return Client::Next::end;
        if (first) {
          message.set_bridge(options.bridge);
          message.set_replace(options.replace);
          message.set_validate_only(options.dry_run);
          message.set_report_differences(options.report);
        }
        first = false;
        return Client::Next::more;
      },
      reply);
  if (broken != 0) return complain(job.program, fmt::format("{}: {}", options.file, std::strerror(broken)));
  return job.finish_load(outcome, standard_input ? "<stdin>" : options.file);
}

int add_flows(Job& job) {
  v1::LoadRulesResponse reply;
  return load_file(job, {job.argument(0), job.argument(1), false, job.command.has("--dry-run"), false}, &reply);
}

int add_flow(Job& job) {
  if (job.argument(1) == "-") return add_flows(job);
  return change_rules(job, v1::RULE_COMMAND_ADD, job.argument(1));
}

int mod_flows(Job& job) {
  bool strict = job.command.has("--strict");
  return change_rules(job, strict ? v1::RULE_COMMAND_MODIFY_STRICT : v1::RULE_COMMAND_MODIFY, job.argument(1));
}

int del_flows(Job& job) {
  bool strict = job.command.has("--strict");
  return change_rules(job, strict ? v1::RULE_COMMAND_DELETE_STRICT : v1::RULE_COMMAND_DELETE, job.argument_or(1, ""));
}

int replace_flows(Job& job) {
  v1::LoadRulesResponse reply;
  return load_file(job, {job.argument(0), job.argument(1), true, job.command.has("--dry-run"), false}, &reply);
}

bool is_file(const std::string& source) {
  return source == "-" || source.find_first_of("/.") != std::string::npos || access(source.c_str(), F_OK) == 0;
}

// The rules of a bridge as lines for a file, so that two bridges compare like a bridge and a file.
int compare_bridges(Job& job, v1::LoadRulesResponse* reply) {
  v1::ListRulesRequest list;
  list.set_bridge(job.argument(1));
  list.set_view(v1::RULE_VIEW_TEXT);
  list.set_omit_statistics(true);
  std::vector<std::string> lines;
  Outcome outcome = job.client.list_rules(list, [&](v1::ListRulesResponse& batch) {
    for (v1::Rule& rule : *batch.mutable_rules()) lines.push_back(std::move(*rule.mutable_text()));
    return true;
  });
  if (!outcome.ok) return job.finish(outcome);
  size_t at = 0;
  bool first = true;
  outcome = job.client.load_rules(
      [&](v1::LoadRulesRequest& message) {
        if (at == lines.size() && !first) return Client::Next::end;
        first = false;
        message.set_bridge(job.argument(0));
        message.set_replace(true);
        message.set_validate_only(true);
        message.set_report_differences(true);
        std::string& text = *message.mutable_text();
        while (at < lines.size() && text.size() < kChunk) text += lines[at++] + "\n";
        return Client::Next::more;
      },
      reply);
  return job.finish(outcome);
}

int diff_flows(Job& job) {
  bool first_is_file = is_file(job.argument(0));
  bool second_is_file = is_file(job.argument(1));
  if (first_is_file && second_is_file) {
    return complain(job.program, "diff-flows compares a bridge with a bridge or a file: both arguments are files",
                    kUsage);
  }
  v1::LoadRulesResponse reply;
  int status = kDone;
  if (first_is_file || second_is_file) {
    const std::string& bridge = job.argument(first_is_file ? 1 : 0);
    status = load_file(job, {bridge, job.argument(first_is_file ? 0 : 1), true, true, true}, &reply);
  } else {
    status = compare_bridges(job, &reply);
  }
  if (status != kDone) return status;
  if (job.json) {
    fmt::print("{}", to_json(reply));
  } else {
    // The stream is the second source, unless the file came first.
    for (const v1::RuleDifference& difference : reply.differences()) {
      fmt::print("{}{}\n", difference.in_stream() != first_is_file ? '+' : '-', difference.text());
    }
  }
  return reply.differences_size() == 0 ? kDone : 2;
}

// ---------------------------------------------------------------- dumps

using RuleKey = uint64_t (*)(const v1::Rule&);

std::optional<RuleKey> sort_key(const std::string& field) {
  if (field.empty() || field == "priority") return [](const v1::Rule& r) { return uint64_t{r.priority()}; };
  if (field == "table") return [](const v1::Rule& r) { return uint64_t{r.table()}; };
  if (field == "cookie") return [](const v1::Rule& r) { return r.cookie(); };
  if (field == "n_packets") return [](const v1::Rule& r) { return r.statistics().packets(); };
  if (field == "n_bytes") return [](const v1::Rule& r) { return r.statistics().bytes(); };
  if (field == "duration") return [](const v1::Rule& r) { return r.statistics().duration_ms(); };
  return std::nullopt;
}

// By table, then the rules that win first, then in the order they were added.
bool default_order(const v1::Rule& a, const v1::Rule& b) {
  if (a.table() != b.table()) return a.table() < b.table();
  if (a.priority() != b.priority()) return a.priority() > b.priority();
  return a.id() < b.id();
}

int sort_rules(Job& job, std::vector<v1::Rule>& rules) {
  std::sort(rules.begin(), rules.end(), default_order);
  for (bool descending : {false, true}) {
    std::string option = descending ? "--rsort" : "--sort";
    if (!job.command.has(option)) continue;
    std::optional<RuleKey> key = sort_key(job.command.value(option));
    if (!key) {
      return complain(job.program,
                      fmt::format("{}={}: priority, table, cookie, n_packets, n_bytes or duration is wanted", option,
                                  job.command.value(option)),
                      kUsage);
    }
    std::stable_sort(rules.begin(), rules.end(), [&](const v1::Rule& a, const v1::Rule& b) {
      return descending ? (*key)(a) > (*key)(b) : (*key)(a) < (*key)(b);
    });
  }
  return kDone;
}

void print_lines(const std::vector<v1::Rule>& rules) {
  std::string out;
  for (const v1::Rule& rule : rules) {
    out += rule.text();
    out += '\n';
    if (out.size() < kChunk) continue;
    std::fwrite(out.data(), 1, out.size(), stdout);
    out.clear();
  }
  std::fwrite(out.data(), 1, out.size(), stdout);
}

int dump_flows(Job& job) {
  v1::ListRulesRequest request;
  request.set_bridge(job.argument(0));
  request.mutable_filter()->set_text(job.argument_or(1, ""));
  bool by_cookie = job.command.value("--sort") == "cookie" || job.command.value("--rsort") == "cookie";
  request.set_view(job.json || by_cookie ? v1::RULE_VIEW_FULL : v1::RULE_VIEW_TEXT);
  request.set_names(use_names(job.command));
  request.set_omit_statistics(job.command.has("--no-stats"));
  std::vector<v1::Rule> rules;
  Outcome outcome = job.client.list_rules(request, [&](v1::ListRulesResponse& batch) {
    for (v1::Rule& rule : *batch.mutable_rules()) rules.push_back(std::move(rule));
    return true;
  });
  if (!outcome.ok) return job.finish(outcome);
  if (int status = sort_rules(job, rules); status != kDone) return status;
  if (job.json) {
    v1::ListRulesResponse all;
    for (v1::Rule& rule : rules) *all.add_rules() = std::move(rule);
    fmt::print("{}", to_json(all));
    return kDone;
  }
  bool plain =
      !request.names() && !job.command.has("--sort") && !job.command.has("--rsort") && !request.omit_statistics();
  if (plain) fmt::print("NXST_FLOW reply (xid=0x4):\n");
  print_lines(rules);
  return kDone;
}

int dump_aggregate(Job& job) {
  v1::AggregateRulesRequest request;
  request.set_bridge(job.argument(0));
  request.mutable_filter()->set_text(job.argument_or(1, ""));
  v1::AggregateRulesResponse reply;
  Outcome outcome = job.client.aggregate_rules(request, &reply);
  if (!outcome.ok) return job.finish(outcome);
  if (job.json) return inform({to_json(reply)});
  fmt::print("NXST_AGGREGATE reply (xid=0x4): packet_count={} byte_count={} flow_count={}\n", reply.packets(),
             reply.bytes(), reply.rules());
  return kDone;
}

int dump_tables(Job& job) {
  v1::ListTablesRequest request;
  request.set_bridge(job.argument(0));
  v1::ListTablesResponse reply;
  Outcome outcome = job.client.list_tables(request, &reply);
  if (!outcome.ok) return job.finish(outcome);
  return inform({job.json ? to_json(reply) : tables_text(reply)});
}

// ---------------------------------------------------------------- ports

// All ports of the bridge, or the one named or numbered by argument `which`.
int fetch_ports(Job& job, size_t which, v1::ListPortsResponse& out) {
  v1::ListPortsRequest request;
  request.set_bridge(job.argument(0));
  Outcome outcome = job.client.list_ports(request, &out);
  if (!outcome.ok) return job.finish(outcome);
  if (which >= job.command.arguments.size()) return kDone;
  const std::string& wanted = job.argument(which);
  v1::ListPortsResponse one;
  for (const v1::Port& port : out.ports()) {
    bool same = base_name(port.name()) == wanted || (port.ofport() != 0 && port.ofport() == parse_of_port(wanted));
    if (same) *one.add_ports() = port;
  }
  if (one.ports_size() == 0) {
    return complain(job.program, fmt::format("bridge {} has no port {}", job.argument(0), wanted));
  }
  out = std::move(one);
  return kDone;
}

int dump_ports(Job& job) {
  v1::ListPortsResponse ports;
  if (int status = fetch_ports(job, 1, ports); status != kDone) return status;
  return inform({job.json ? to_json(ports) : ports_text(ports, use_names(job.command))});
}

int dump_ports_desc(Job& job) {
  v1::ListPortsResponse ports;
  if (int status = fetch_ports(job, 1, ports); status != kDone) return status;
  return inform({job.json ? to_json(ports) : port_descriptions_text(ports)});
}

int show(Job& job) {
  v1::GetConfigurationRequest request;
  request.set_bridge(job.argument(0));
  v1::Configuration reply;
  Outcome outcome = job.client.get_configuration(request, &reply);
  if (!outcome.ok) return job.finish(outcome);
  if (job.json) return inform({to_json(reply)});
  if (reply.bridges_size() == 0) return complain(job.program, fmt::format("no bridge named {}", job.argument(0)));
  v1::ListPortsResponse ports;
  *ports.mutable_ports() = std::move(*reply.mutable_ports());
  return inform({show_text(reply.bridges(0), ports)});
}

int mod_port(Job& job) {
  struct Change {
    std::string_view word, path;
    void (*set)(v1::PortFlags&);
  };
  static const Change kChanges[] = {
      {"up", "flags.down", [](v1::PortFlags& f) { f.set_down(false); }},
      {"down", "flags.down", [](v1::PortFlags& f) { f.set_down(true); }},
      {"receive", "flags.no_receive", [](v1::PortFlags& f) { f.set_no_receive(false); }},
      {"no-receive", "flags.no_receive", [](v1::PortFlags& f) { f.set_no_receive(true); }},
      {"forward", "flags.no_forward", [](v1::PortFlags& f) { f.set_no_forward(false); }},
      {"no-forward", "flags.no_forward", [](v1::PortFlags& f) { f.set_no_forward(true); }},
      {"flood", "flags.no_flood", [](v1::PortFlags& f) { f.set_no_flood(false); }},
      {"no-flood", "flags.no_flood", [](v1::PortFlags& f) { f.set_no_flood(true); }},
      {"packet-in", "flags.no_packet_in", [](v1::PortFlags& f) { f.set_no_packet_in(false); }},
      {"no-packet-in", "flags.no_packet_in", [](v1::PortFlags& f) { f.set_no_packet_in(true); }},
  };
  std::vector<std::string_view> known;
  const Change* change = nullptr;
  for (const Change& candidate : kChanges) {
    known.push_back(candidate.word);
    if (candidate.word == job.argument(2)) change = &candidate;
  }
  if (change == nullptr) {
    return complain(job.program,
                    fmt::format("unknown change \"{}\" of a port: {}", job.argument(2), fmt::join(known, ", ")),
                    kUsage);
  }
  v1::ListPortsResponse ports;
  if (int status = fetch_ports(job, 1, ports); status != kDone) return status;
  v1::ApplyRequest request;
  v1::UpdatePortRequest& update = *request.add_operations()->mutable_update_port();
  update.mutable_port()->set_name(ports.ports(0).name());
  change->set(*update.mutable_port()->mutable_flags());
  update.mutable_update_mask()->add_paths(std::string(change->path));
  v1::ApplyResponse reply;
  return job.finish(job.client.apply(request, &reply));
}

// ---------------------------------------------------------------- packets

int trace(Job& job) {
  if (job.command.has("--ct-next")) {
    return complain(job.program, "--ct-next: connection tracking is not supported in this version");
  }
  v1::TraceRequest request;
  request.set_bridge(job.argument(0));
  request.mutable_flow()->set_text(job.argument(1));
  if (job.command.arguments.size() == 3 && !parse_hex(job.argument(2), *request.mutable_packet())) {
    return complain(job.program,
                    fmt::format("\"{}\" is no packet: an even number of hexadecimal digits is wanted", job.argument(2)),
                    kUsage);
  }
  request.set_names(job.command.has("--names"));
  request.set_allow_side_effects(job.command.has("--generate"));
  v1::TraceResponse reply;
  Outcome outcome = job.client.trace(request, &reply);
  if (!outcome.ok) return job.finish(outcome);
  return inform({job.json ? to_json(reply) : reply.text()});
}

int packet_out(Job& job) {
  v1::PacketOut request;
  request.set_bridge(job.argument(0));
  request.set_text(job.argument(1));
  v1::SendPacketResponse reply;
  return job.finish(job.client.send_packet(request, &reply));
}

int monitor(Job& job) {
  Outcome outcome = job.client.receive_packets(job.argument(0), [&](v1::PacketIOResponse& message) {
    if (!message.has_packet_in()) return true;
    fmt::print("{}", job.json ? to_json(message.packet_in()) : packet_in_text(message.packet_in()));
    std::fflush(stdout);
    return true;
  });
  // With --timeout the end of time is the expected end.
  if (outcome.timed_out) return kDone;
  return job.finish(outcome);
}

// ---------------------------------------------------------------- learned addresses

std::optional<uint32_t> parse_vlan(const std::string& text) {
  uint32_t vlan = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), vlan);
  if (error != std::errc() || end != text.data() + text.size() || vlan > 4095) return std::nullopt;
  return vlan;
}

int fdb_show(Job& job) {
  v1::ListMacsRequest request;
  request.set_bridge(job.argument(0));
  v1::ListMacsResponse reply;
  Outcome outcome = job.client.list_macs(request, &reply);
  if (!outcome.ok) return job.finish(outcome);
  return inform({job.json ? to_json(reply) : macs_text(reply)});
}

int fdb_add(Job& job) {
  std::optional<uint32_t> vlan = parse_vlan(job.argument(2));
  if (!vlan) return complain(job.program, fmt::format("\"{}\" is no VLAN: 0 to 4095", job.argument(2)));
  v1::ListPortsResponse ports;
  if (int status = fetch_ports(job, 1, ports); status != kDone) return status;
  v1::AddMacRequest request;
  request.set_bridge(job.argument(0));
  request.set_port(ports.ports(0).name());
  request.set_vlan(*vlan);
  request.set_mac(job.argument(3));
  v1::AddMacResponse reply;
  return job.finish(job.client.add_mac(request, &reply));
}

int fdb_del(Job& job) {
  std::optional<uint32_t> vlan = parse_vlan(job.argument(1));
  if (!vlan) return complain(job.program, fmt::format("\"{}\" is no VLAN: 0 to 4095", job.argument(1)));
  v1::DeleteMacRequest request;
  request.set_bridge(job.argument(0));
  request.set_vlan(*vlan);
  request.set_mac(job.argument(2));
  v1::DeleteMacResponse reply;
  return job.finish(job.client.delete_mac(request, &reply));
}

int fdb_flush(Job& job) {
  v1::FlushMacsRequest request;
  request.set_bridge(job.argument(0));
  v1::FlushMacsResponse reply;
  return job.finish(job.client.flush_macs(request, &reply));
}

const Handlers kHandlers = {
    {"add-flow", add_flow},
    {"add-flows", add_flows},
    {"bundle", add_flows},
    {"mod-flows", mod_flows},
    {"del-flows", del_flows},
    {"replace-flows", replace_flows},
    {"diff-flows", diff_flows},
    {"dump-flows", dump_flows},
    {"dump-aggregate", dump_aggregate},
    {"dump-tables", dump_tables},
    {"trace", trace},
    {"packet-out", packet_out},
    {"monitor", monitor},
    {"show", show},
    {"dump-ports", dump_ports},
    {"dump-ports-desc", dump_ports_desc},
    {"mod-port", mod_port},
    {"fdb-show", fdb_show},
    {"fdb-add", fdb_add},
    {"fdb-del", fdb_del},
    {"fdb-flush", fdb_flush},
};

}  // namespace

int run_ofctl(std::span<const std::string> words) { return run_program(kOfctl, kHandlers, words); }

}  // namespace vswitch::cli
