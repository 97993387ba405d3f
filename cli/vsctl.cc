#include "cli/vsctl.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>

#include "cli/completion.h"
#include "cli/json_text.h"
#include "cli/record.h"
#include "cli/session.h"

namespace vswitch::cli {
namespace {

// ---------------------------------------------------------------- changes

// Sets the columns that `arguments` name. Two that write the same place are a mistake, however they are spelled
// (remote_ip=... and options:remote_ip=...).
std::string fill(const std::vector<std::string>& arguments, size_t first, const google::protobuf::FieldMask& mask,
                 const std::function<std::string(const ColumnExpression&)>& set) {
  std::set<std::string> given;
  int seen = 0;
  for (size_t i = first; i < arguments.size(); ++i) {
    ColumnExpression what = parse_column_expression(arguments[i]);
    if (what.op != "=" || what.column.empty()) {
      return fmt::format("\"{}\": COLUMN=VALUE or COLUMN:KEY=VALUE is wanted", arguments[i]);
    }
    if (what.key && what.key->empty()) {
      return fmt::format("\"{}\": no key behind the colon: {}:KEY=VALUE is wanted", arguments[i], what.spelled);
    }
    std::string problem = set(what);
    if (!problem.empty()) return problem;
    for (; seen < mask.paths_size(); ++seen) {
      if (given.insert(mask.paths(seen)).second) continue;
      return fmt::format("\"{}\": {} is given twice", arguments[i],
                         what.key ? what.column + ":" + *what.key : what.column);
    }
  }
  return "";
}

void push(const Update<v1::Bridge>& update, const std::string& name, v1::ApplyRequest& request) {
  if (update.mask.paths().empty()) return;
  v1::UpdateBridgeRequest& out = *request.add_operations()->mutable_update_bridge();
  *out.mutable_bridge() = update.message;
  out.mutable_bridge()->set_name(name);
  *out.mutable_update_mask() = update.mask;
}

void push(const Update<v1::Port>& update, const std::string& name, v1::ApplyRequest& request) {
  if (update.mask.paths().empty()) return;
  v1::UpdatePortRequest& out = *request.add_operations()->mutable_update_port();
  *out.mutable_port() = update.message;
  out.mutable_port()->set_name(name);
  *out.mutable_update_mask() = update.mask;
}

void push(const Update<v1::Settings>& update, v1::ApplyRequest& request) {
  if (update.mask.paths().empty()) return;
  *request.add_operations()->mutable_update_settings()->mutable_settings() = update.message;
  *request.mutable_operations(request.operations_size() - 1)->mutable_update_settings()->mutable_update_mask() =
      update.mask;
}

std::string add_bridge(const Command& command, v1::ApplyRequest& request) {
  const std::string& name = command.arguments[0];
  v1::CreateBridgeRequest& create = *request.add_operations()->mutable_create_bridge();
  create.mutable_bridge()->set_name(name);
  create.set_allow_existing(command.has("--may-exist"));
  Update<v1::Bridge> update;
  std::string problem = fill(command.arguments, 1, update.mask,
                             [&](const ColumnExpression& what) { return set_bridge_column(what, update); });
  if (!problem.empty()) return problem;
  if (create.allow_existing()) {
    push(update, name, request);
  } else {
    *create.mutable_bridge() = update.message;
    create.mutable_bridge()->set_name(name);
  }
  return "";
}

std::string add_port(const Command& command, v1::ApplyRequest& request) {
  const std::string& name = command.arguments[1];
  v1::CreatePortRequest& create = *request.add_operations()->mutable_create_port();
  create.mutable_port()->set_name(name);
  create.mutable_port()->set_bridge(command.arguments[0]);
  create.set_allow_existing(command.has("--may-exist"));
  Update<v1::Port> update;
  std::string problem = fill(command.arguments, 2, update.mask,
                             [&](const ColumnExpression& what) { return set_short_form(what, update); });
  if (!problem.empty()) return problem;
  push(update, name, request);  // the daemon makes creation and update one
  return "";
}

std::string delete_port(const Command& command, v1::ApplyRequest& request) {
  v1::DeletePortRequest& out = *request.add_operations()->mutable_delete_port();
  out.set_name(command.arguments.back());
  if (command.arguments.size() == 2) out.set_bridge(command.arguments[0]);
  out.set_allow_missing(command.has("--if-exists"));
  return "";
}

std::string delete_bridge(const Command& command, v1::ApplyRequest& request) {
  v1::DeleteBridgeRequest& out = *request.add_operations()->mutable_delete_bridge();
  out.set_name(command.arguments[0]);
  out.set_allow_missing(command.has("--if-exists"));
  return "";
}

std::string set_values(const std::vector<std::string>& arguments, v1::ApplyRequest& request) {
  std::string problem;
  std::optional<Table> table = find_table(arguments[0], &problem);
  if (!table) return problem;
  const std::string& name = arguments[1];
  if (*table == Table::bridge) {
    Update<v1::Bridge> update;
    problem =
        fill(arguments, 2, update.mask, [&](const ColumnExpression& what) { return set_bridge_column(what, update); });
    push(update, name, request);
  } else if (*table == Table::open_vswitch) {
    Update<v1::Settings> update;
    problem = fill(arguments, 2, update.mask,
                   [&](const ColumnExpression& what) { return set_settings_column(what, update); });
    push(update, request);
  } else {
    Update<v1::Port> update;
    problem =
        fill(arguments, 2, update.mask, [&](const ColumnExpression& what) { return set_column(*table, what, update); });
    push(update, name, request);
  }
  return problem;
}

std::string set_fail_mode(const Command& command, v1::ApplyRequest& request) {
  std::string mode = command.arguments.size() > 1 ? command.arguments[1] : "standalone";
  return set_values({"bridge", command.arguments[0], "fail_mode=" + mode}, request);
}

std::string set_external_id(const Command& command, v1::ApplyRequest& request) {
  Update<v1::Bridge> update;
  const std::string& key = command.arguments[1];
  update.mask.add_paths("external_ids." + key);
  if (command.arguments.size() == 3) (*update.message.mutable_external_ids())[key] = command.arguments[2];
  push(update, command.arguments[0], request);
  return "";
}

// clear: an empty set or map does it for every column.
std::string clear_columns(const Command& command, v1::ApplyRequest& request) {
  for (size_t i = 2; i < command.arguments.size(); ++i) {
    std::string column = parse_column_expression(command.arguments[i]).column;
    if (column.size() != command.arguments[i].size()) {
      return fmt::format("\"{}\": the name of a column is wanted; a key is removed with remove", command.arguments[i]);
    }
    bool map = column == "options" || column == "external_ids" || column == "other_config";
    std::string problem =
        set_values({command.arguments[0], command.arguments[1], column + (map ? "={}" : "=[]")}, request);
    if (!problem.empty()) return problem;
  }
  return "";
}

std::string key_alone(std::string_view key) {
  return fmt::format("\"{}\": the key alone is wanted, without a value", key);
}

// Removal of map keys is an update whose mask names keys that the message does not have.
std::string remove_keys(Table table, const Command& command, v1::ApplyRequest& request) {
  const std::string& name = command.arguments[1];
  Update<v1::Bridge> bridge;
  Update<v1::Port> port;
  auto& mask = table == Table::bridge ? bridge.mask : port.mask;
  for (size_t i = 3; i < command.arguments.size(); ++i) {
    const std::string& key = command.arguments[i];
    if (key.empty() || key.find('=') != std::string::npos) {
      return key_alone(key);
    }
    mask.add_paths(fmt::format("{}.{}", command.arguments[2], key));
  }
  if (table == Table::bridge) {
    push(bridge, name, request);
  } else {
    push(port, name, request);
  }
  return "";
}

}  // namespace

bool is_change(const Command& command) {
  static const std::set<std::string_view> kChanges = {
      "add-br", "del-br",        "add-port",      "del-port",          "set", "add", "remove",
      "clear",  "set-fail-mode", "del-fail-mode", "br-set-external-id"};
  return kChanges.contains(command.verb->name);
}

std::string add_operations(const Command& command, v1::ApplyRequest& request) {
  std::string_view verb = command.verb->name;
  if (verb == "add-br") return add_bridge(command, request);
  if (verb == "del-br") return delete_bridge(command, request);
  if (verb == "add-port") return add_port(command, request);
  if (verb == "del-port") return delete_port(command, request);
  if (verb == "set") return set_values(command.arguments, request);
  if (verb == "clear") return clear_columns(command, request);
  if (verb == "set-fail-mode" || verb == "del-fail-mode") return set_fail_mode(command, request);
  if (verb == "br-set-external-id") return set_external_id(command, request);
  std::string problem;
  std::optional<Table> table = find_table(command.arguments[0], &problem);
  if (!table) return problem;
  const std::string& column = command.arguments[2];
  if (!is_map_column(column)) {
    return fmt::format("{} works on the maps options, external_ids and other_config; set {} as a whole", verb, column);
  }
  const bool is_config = column == "other_config";
  const bool has_it = is_config             ? !other_config_keys(*table, column).empty()
                      : column == "options" ? *table == Table::interface
                                            : *table != Table::open_vswitch;
  if (!has_it) return fmt::format("table {} has no column \"{}\"", table_name(*table), column);
  if (verb == "remove" && !is_config) return remove_keys(*table, command, request);
  // A key of other_config that is removed has its default again.
  const std::string_view ending = verb == "remove" ? "=[]" : "";
  std::vector<std::string> words = {command.arguments[0], command.arguments[1]};
  for (size_t i = 3; i < command.arguments.size(); ++i) {
    if (verb == "remove" && command.arguments[i].find('=') != std::string::npos) return key_alone(command.arguments[i]);
    words.push_back(fmt::format("{}:{}{}", column, command.arguments[i], ending));
  }
  return set_values(words, request);
}

namespace {

// ---------------------------------------------------------------- reading

std::vector<std::string> port_names(const v1::Configuration& now, std::string_view bridge) {
  std::vector<std::string> out;
  for (const v1::Port& p : now.ports()) {
    if (base_name(p.bridge()) == bridge) out.emplace_back(base_name(p.name()));
  }
  return out;
}

struct Printer {
  Client& client;
  bool json;
  std::string out;
  std::string problem;
  int status = kDone;

  int fail(std::string text, int code = kRefused) {
    problem = std::move(text);
    return status = code;
  }
  int fail(const Outcome& outcome) { return fail(outcome.message); }
};

std::string port_block(const v1::Port& port) {
  std::string name = quote(base_name(port.name()));
  std::string out = fmt::format("        Port {}\n", name);
  if (port.vlan().tag() != 0) out += fmt::format("            tag: {}\n", port.vlan().tag());
  Record record = port_record(port);
  for (std::string_view column : {"trunks", "vlan_mode"}) {
    const Column* value = find_column(record, column);
    if (!value->set.empty()) out += fmt::format("            {}: [{}]\n", column, fmt::join(value->set, ", "));
  }
  out += fmt::format("            Interface {}\n", name);
  if (port.type() != "netdev") out += fmt::format("                type: {}\n", quote(port.type()));
  if (!port.options().empty()) {
    out += fmt::format("                options: {}\n", format_map({port.options().begin(), port.options().end()}));
  }
  if (!port.state().error().empty()) out += fmt::format("                error: {}\n", quoted(port.state().error()));
  return out;
}

int show(Printer& printer) {
  v1::Configuration now;
  Outcome outcome = printer.client.get_configuration({}, &now);
  if (!outcome.ok) return printer.fail(outcome);
  if (printer.json) {
    printer.out += to_json(now);
    return kDone;
  }
  printer.out += fmt::format("{}\n", printer.client.server());
  for (const v1::Bridge& bridge : now.bridges()) {
    printer.out += fmt::format("    Bridge {}\n", quote(base_name(bridge.name())));
    if (bridge.fail_mode() == v1::FAIL_MODE_SECURE) printer.out += "        fail_mode: secure\n";
    for (const v1::Port& port : now.ports()) {
      if (port.bridge() == bridge.name()) printer.out += port_block(port);
    }
  }
  printer.out += fmt::format("    vswitch_version: \"{}\"\n", now.version());
  return kDone;
}

int list_names(Printer& printer, const std::vector<std::string>& names) {
  for (const std::string& name : names) printer.out += name + "\n";
  return kDone;
}

int list_bridges(Printer& printer) {
  v1::ListBridgesResponse reply;
  Outcome outcome = printer.client.list_bridges({}, &reply);
  if (!outcome.ok) return printer.fail(outcome);
  if (printer.json) {
    printer.out += to_json(reply);
    return kDone;
  }
  std::vector<std::string> names;
  for (const v1::Bridge& bridge : reply.bridges()) names.emplace_back(base_name(bridge.name()));
  return list_names(printer, names);
}

int list_ports(Printer& printer, const std::string& bridge) {
  v1::ListPortsRequest request;
  request.set_bridge(bridge);
  v1::ListPortsResponse reply;
  Outcome outcome = printer.client.list_ports(request, &reply);
  if (!outcome.ok) return printer.fail(outcome);
  // The bridge's own port is not on the list, in either format.
  auto* ports = reply.mutable_ports();
  ports->erase(std::remove_if(ports->begin(), ports->end(), [](const v1::Port& port) { return port.is_local(); }),
               ports->end());
  if (printer.json) {
    printer.out += to_json(reply);
    return kDone;
  }
  std::vector<std::string> names;
  for (const v1::Port& port : reply.ports()) names.emplace_back(base_name(port.name()));
  return list_names(printer, names);
}

int bridge_of_port(Printer& printer, const std::string& name) {
  v1::GetPortRequest request;
  request.set_name(name);
  v1::Port port;
  Outcome outcome = printer.client.get_port(request, &port);
  if (!outcome.ok) return printer.fail(outcome);
  printer.out += printer.json ? to_json(port) : fmt::format("{}\n", base_name(port.bridge()));
  return kDone;
}

int bridge_exists(Printer& printer, const std::string& name) {
  v1::GetBridgeRequest request;
  request.set_name(name);
  v1::Bridge bridge;
  Outcome outcome = printer.client.get_bridge(request, &bridge);
  if (outcome.ok) return kDone;
  if (outcome.not_found) return printer.status = 2;
  return printer.fail(outcome);
}

int bridge_value(Printer& printer, const Command& command) {
  v1::GetBridgeRequest request;
  request.set_name(command.arguments[0]);
  v1::Bridge bridge;
  Outcome outcome = printer.client.get_bridge(request, &bridge);
  if (!outcome.ok) return printer.fail(outcome);
  if (printer.json) {
    printer.out += to_json(bridge);
  } else if (command.verb->name == "get-fail-mode") {
    printer.out += bridge.fail_mode() == v1::FAIL_MODE_SECURE ? "secure\n" : "standalone\n";
  } else if (command.arguments.size() == 2) {
    auto it = bridge.external_ids().find(command.arguments[1]);
    if (it != bridge.external_ids().end()) printer.out += it->second + "\n";
  } else {
    std::map<std::string, std::string> sorted{bridge.external_ids().begin(), bridge.external_ids().end()};
    for (const auto& [key, value] : sorted) printer.out += fmt::format("{}={}\n", key, value);
  }
  return kDone;
}

// ---- records

struct NamedRecord {
  std::string name;
  Record record;
  const google::protobuf::Message* message = nullptr;
};

struct Records {
  v1::Configuration now;
  std::vector<NamedRecord> rows;
};

void make_rows(Table table, Records& records) {
  const v1::Configuration& now = records.now;
  if (table == Table::bridge) {
    for (const v1::Bridge& bridge : now.bridges()) {
      std::string name(base_name(bridge.name()));
      records.rows.push_back({name, bridge_record(bridge, port_names(now, name)), &bridge});
    }
  } else if (table == Table::open_vswitch) {
    records.rows.push_back({".", open_vswitch_record(now.settings(), now.version()), &now.settings()});
  } else {
    for (const v1::Port& port : now.ports()) {
      Record record = table == Table::port ? port_record(port) : interface_record(port);
      records.rows.push_back({std::string(base_name(port.name())), std::move(record), &port});
    }
  }
}

Outcome load_records(Client& client, Table table, Records& out) {
  Outcome outcome = client.get_configuration({}, &out.now);
  if (outcome.ok) make_rows(table, out);
  return outcome;
}

const NamedRecord* find_record(const Records& records, std::string_view name) {
  for (const NamedRecord& row : records.rows) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

std::string record_text(const Record& record, const std::vector<std::string>& columns) {
  std::string out;
  for (const Column& column : record) {
    if (!columns.empty() && std::find(columns.begin(), columns.end(), column.name) == columns.end()) continue;
    out += fmt::format("{:<20}: {}\n", column.name, format_column(column));
  }
  return out;
}

// Rows as the message that lists their kind.
std::string rows_json(Table table, const std::vector<const NamedRecord*>& rows) {
  if (table == Table::open_vswitch) return rows.empty() ? to_json(v1::Settings()) : to_json(*rows[0]->message);
  v1::ListBridgesResponse bridges;
  v1::ListPortsResponse ports;
  for (const NamedRecord* row : rows) {
    if (table == Table::bridge) {
      bridges.add_bridges()->CopyFrom(*row->message);
    } else {
      ports.add_ports()->CopyFrom(*row->message);
    }
  }
  return table == Table::bridge ? to_json(bridges) : to_json(ports);
}

int print_rows(Printer& printer, const Command& command, Table table, const std::vector<const NamedRecord*>& rows) {
  std::vector<std::string> columns = parse_set(command.value("--columns"));
  for (std::string& column : columns) {
    if (std::string problem = check_column(table, column); !problem.empty()) return printer.fail(problem);
    column = parse_column_expression(column).column;
  }
  if (printer.json) {
    printer.out += rows_json(table, rows);
    return kDone;
  }
  bool first = true;
  for (const NamedRecord* row : rows) {
    if (!first) printer.out += "\n";
    first = false;
    printer.out += record_text(row->record, columns);
  }
  return kDone;
}

std::string no_record(Table table, std::string_view name) {
  return fmt::format("there is no {} named {}", table_name(table), name);
}

std::vector<ColumnExpression> parse_conditions(const Command& command, size_t first) {
  std::vector<ColumnExpression> out;
  for (size_t i = first; i < command.arguments.size(); ++i) {
    out.push_back(parse_column_expression(command.arguments[i]));
  }
  return out;
}

// Whether the conditions make sense for the table, whatever its rows hold.
std::string check_conditions(Table table, const Command& command, size_t first) {
  for (size_t i = first; i < command.arguments.size(); ++i) {
    std::string problem = check_condition(table, command.arguments[i]);
    if (!problem.empty()) return problem;
  }
  return "";
}

bool all_match(const Record& record, const std::vector<ColumnExpression>& conditions) {
  return std::all_of(conditions.begin(), conditions.end(),
                     [&](const ColumnExpression& condition) { return matches(record, condition); });
}

int list_or_find(Printer& printer, const Command& command, Table table) {
  if (command.verb->name == "find") {
    if (std::string problem = check_conditions(table, command, 1); !problem.empty()) return printer.fail(problem);
  }
  Records records;
  Outcome outcome = load_records(printer.client, table, records);
  if (!outcome.ok) return printer.fail(outcome);
  std::vector<const NamedRecord*> rows;
  bool find = command.verb->name == "find";
  if (!find && command.arguments.size() > 1) {
    for (size_t i = 1; i < command.arguments.size(); ++i) {
      const NamedRecord* row = find_record(records, command.arguments[i]);
      if (row != nullptr) rows.push_back(row);
      if (row == nullptr && !command.has("--if-exists")) return printer.fail(no_record(table, command.arguments[i]));
    }
    return print_rows(printer, command, table, rows);
  }
  const std::vector<ColumnExpression> conditions = parse_conditions(command, 1);
  for (const NamedRecord& row : records.rows) {
    if (!find || all_match(row.record, conditions)) rows.push_back(&row);
  }
  return print_rows(printer, command, table, rows);
}

int get_values(Printer& printer, const Command& command, Table table) {
  for (size_t i = 2; i < command.arguments.size(); ++i) {
    std::string problem = check_column(table, command.arguments[i]);
    if (!problem.empty()) return printer.fail(problem);
  }
  Records records;
  Outcome outcome = load_records(printer.client, table, records);
  if (!outcome.ok) return printer.fail(outcome);
  const NamedRecord* row = find_record(records, command.arguments[1]);
  if (row == nullptr) return command.has("--if-exists") ? kDone : printer.fail(no_record(table, command.arguments[1]));
  std::string text;
  for (size_t i = 2; i < command.arguments.size(); ++i) {
    ColumnExpression what = parse_column_expression(command.arguments[i]);
    const Column* column = find_column(row->record, what.column);
    if (!what.key) {
      text += format_column(*column) + "\n";
      continue;
    }
    auto it = column->map.find(*what.key);
    if (it == column->map.end() && !command.has("--if-exists")) {
      return printer.fail(fmt::format("no key {} in column {} of {} {}", *what.key, what.column, table_name(table),
                                      command.arguments[1]));
    }
    text += (it == column->map.end() ? "" : quote(it->second)) + "\n";
  }
  printer.out += printer.json ? to_json(*row->message) : text;
  return kDone;
}

// "" once the record is there and all conditions hold; else what is still missing.
std::string still_missing(Printer& printer, const Command& command, Table table) {
  Records records;
  Outcome outcome = load_records(printer.client, table, records);
  if (!outcome.ok) {
    printer.fail(outcome);
    return outcome.message;
  }
  const NamedRecord* row = find_record(records, command.arguments[1]);
  if (row == nullptr) return no_record(table, command.arguments[1]);
  std::string out;
  for (size_t i = 2; i < command.arguments.size(); ++i) {
    const ColumnExpression condition = parse_column_expression(command.arguments[i]);
    if (matches(row->record, condition)) continue;
    out +=
        fmt::format("{}\"{}\" does not hold: {}{} is {}", out.empty() ? "" : ", ", command.arguments[i],
                    condition.spelled, condition.key ? ":" + *condition.key : "", format_value(row->record, condition));
  }
  return out;
}

int wait_until(Printer& printer, const Command& command, Table table) {
  if (std::string problem = check_conditions(table, command, 2); !problem.empty()) return printer.fail(problem);
  std::string missing = "the daemon did not answer";
  // Every change that could matter looks again; the first message comes at once.
  Outcome outcome = printer.client.watch({}, [&](v1::WatchResponse&) {
    missing = still_missing(printer, command, table);
    return !missing.empty() && printer.status == kDone;
  });
  if (printer.status != kDone || missing.empty()) return printer.status;
  if (outcome.timed_out) {
    return printer.fail(
        fmt::format("{} {}: the time is over, and {}", table_name(table), command.arguments[1], missing));
  }
  return printer.fail(outcome.ok ? "the daemon ended before the condition was fulfilled" : outcome.message);
}

int read_command(Printer& printer, const Command& command) {
  std::string_view verb = command.verb->name;
  if (verb == "show") return show(printer);
  if (verb == "list-br") return list_bridges(printer);
  if (verb == "list-all-ports") return list_ports(printer, "");
  if (verb == "list-ports" || verb == "list-ifaces") return list_ports(printer, command.arguments[0]);
  if (verb == "port-to-br" || verb == "iface-to-br") return bridge_of_port(printer, command.arguments[0]);
  if (verb == "br-exists") return bridge_exists(printer, command.arguments[0]);
  if (verb == "get-fail-mode" || verb == "br-get-external-id") return bridge_value(printer, command);
  if (verb == "init" || verb == "comment") return kDone;
  std::string problem;
  std::optional<Table> table = find_table(command.arguments[0], &problem);
  if (!table) return printer.fail(problem);
  if (verb == "list" || verb == "find") return list_or_find(printer, command, *table);
  if (verb == "get") return get_values(printer, command, *table);
  return wait_until(printer, command, *table);
}

// `--if-exists set` leaves out the command when there is no such record.
bool is_left_out(Client& client, const Command& command) {
  std::string_view verb = command.verb->name;
  if (!command.has("--if-exists") || verb == "del-br" || verb == "del-port") return false;
  std::string problem;
  std::optional<Table> table = find_table(command.arguments[0], &problem);
  if (!table) return false;
  Records records;
  return load_records(client, *table, records).ok && find_record(records, command.arguments[1]) == nullptr;
}

int apply_changes(const VsctlLine& line, Printer& printer) {
  v1::ApplyRequest request;
  request.set_validate_only(line.globals.contains("--dry-run"));
  for (const Command& command : line.commands) {
    if (!is_change(command) || is_left_out(printer.client, command)) continue;
    std::string problem = add_operations(command, request);
    if (!problem.empty()) return printer.fail(problem);
  }
  v1::ApplyResponse reply;
  Outcome outcome = printer.client.apply(request, &reply);
  return outcome.ok ? kDone : printer.fail(outcome);
}

int run_line(const VsctlLine& line, Printer& printer) {
  size_t first_change = 0;
  while (first_change < line.commands.size() && !is_change(line.commands[first_change])) ++first_change;
  for (size_t i = 0; i < first_change; ++i) {
    if (read_command(printer, line.commands[i]) != kDone) return printer.status;
  }
  if (first_change == line.commands.size()) return kDone;
  if (apply_changes(line, printer) != kDone) return printer.status;
  for (size_t i = first_change; i < line.commands.size(); ++i) {
    if (!is_change(line.commands[i]) && read_command(printer, line.commands[i]) != kDone) return printer.status;
  }
  return kDone;
}

}  // namespace

std::variant<VsctlLine, Problem, Information> parse_vsctl(std::span<const std::string> words) {
  VsctlLine line;
  size_t begin = 0;
  for (size_t i = 0; i <= words.size(); ++i) {
    if (i < words.size() && words[i] != "--") continue;
    std::span<const std::string> part = words.subspan(begin, i - begin);
    begin = i + 1;
    if (part.empty() && i < words.size()) continue;  // `vsctl -- add-br br0`
    // Options belong in front of the verb here: what follows may begin with a minus.
    ParseResult parsed = parse_command(kVsctl, part, line.globals, true);
    if (auto* problem = std::get_if<Problem>(&parsed)) return *problem;
    if (auto* information = std::get_if<Information>(&parsed)) return *information;
    line.commands.push_back(std::get<Command>(std::move(parsed)));
  }
  return line;
}

int run_vsctl(std::span<const std::string> words) {
  if (!words.empty() && words[0] == kCompleteVerb) return inform({completion_lines(kVsctl, words.subspan(1))});
  auto parsed = parse_vsctl(words);
  if (auto* problem = std::get_if<Problem>(&parsed)) return complain(kVsctl, problem->message, problem->status);
  if (auto* information = std::get_if<Information>(&parsed)) return inform(*information);
  const VsctlLine& line = std::get<VsctlLine>(parsed);
  return with_client(kVsctl, line.globals, [&](Client& client, const CommonSettings& common) {
    Printer printer{client, common.json, {}, {}, kDone};
    run_line(line, printer);
    fmt::print("{}", printer.out);
    if (!printer.problem.empty()) return complain(kVsctl, printer.problem, printer.status);
    return printer.status;
  });
}

}  // namespace vswitch::cli
