#include "cli/completion.h"

#include <algorithm>
#include <filesystem>

#include "cli/client.h"
#include "cli/json_text.h"
#include "cli/record.h"

namespace vswitch::cli {
namespace {

using Words = std::vector<std::string>;

// How long the shell may wait for the daemon.
constexpr std::chrono::milliseconds kPatience(1000);

const OptionSpec* option_of(const Program& program, const Verb* verb, std::string_view name) {
  auto is = [&](const OptionSpec& o) { return o.name == name || (!o.short_name.empty() && o.short_name == name); };
  if (verb != nullptr) {
    auto it = std::find_if(verb->options.begin(), verb->options.end(), is);
    if (it != verb->options.end()) return &*it;
  }
  auto it = std::find_if(program.options.begin(), program.options.end(), is);
  return it == program.options.end() ? nullptr : &*it;
}

// "[BRIDGE] PORT" -> BRIDGE, PORT; brackets and dots away.
Words argument_names(std::string_view arguments) {
  Words out;
  int depth = 0;
  for (size_t i = 0; i <= arguments.size(); ++i) {
    const char c = i < arguments.size() ? arguments[i] : ' ';
    if (c == ' ' && depth == 0) {
      out.emplace_back();
    } else if (c == '[') {
      ++depth;
    } else if (c == ']') {
      --depth;
    } else if (c != '.') {
      if (out.empty()) out.emplace_back();
      out.back() += c;
    }
  }
  std::erase_if(out, [](const std::string& word) { return word.empty(); });
  return out;
}

// The command that the cursor is in.
struct Line {
  const Verb* verb = nullptr;
  Words arguments;
  const OptionSpec* open_option = nullptr;  // whose value the cursor is at
  std::string current;
};

Line read_line(const Program& program, std::span<const std::string> words) {
  Line line;
  if (words.empty()) return line;
  line.current = words.back();
  for (const std::string& word : words.first(words.size() - 1)) {
    if (line.open_option != nullptr) {
      line.open_option = nullptr;
    } else if (word == "--") {
      line = {nullptr, {}, nullptr, line.current};
    } else if (word.size() > 1 && word[0] == '-') {
      const OptionSpec* option = option_of(program, line.verb, word.substr(0, word.find('=')));
      const bool wants_value = option != nullptr && !option->value_name.empty() && option->value_name[0] != '[';
      if (wants_value && word.find('=') == std::string::npos) line.open_option = option;
    } else if (line.verb == nullptr) {
      auto it = std::find_if(program.verbs.begin(), program.verbs.end(), [&](const Verb& v) { return v.name == word; });
      if (it != program.verbs.end()) line.verb = &*it;
      if (it == program.verbs.end()) line.arguments.push_back(word);
    } else {
      line.arguments.push_back(word);
    }
  }
  return line;
}

class Completer {
 public:
  Completer(const Program& program, Line line, const CompletionSource& source)
      : program_(program), line_(std::move(line)), source_(source) {}

  Words run() {
    if (line_.open_option != nullptr) return option_values(*line_.open_option, "");
    if (line_.current.starts_with('-') && line_.current.size() != 1) return options();
    if (line_.verb == nullptr) return first_words();
    const Words names = argument_names(line_.verb->arguments);
    const size_t at = line_.arguments.size();
    if (names.empty() || (at >= names.size() && line_.verb->max_arguments != kAnyNumber)) return {};
    return argument(names[std::min(at, names.size() - 1)]);
  }

 private:
  const v1::Configuration& now() {
    if (!now_) now_ = source_.configuration();
    return *now_;
  }

  Words options() {
    if (const size_t equals = line_.current.find('='); equals != std::string::npos) {
      const std::string name = line_.current.substr(0, equals);
      const OptionSpec* option = option_of(program_, line_.verb, name);
      return option != nullptr ? option_values(*option, name + "=") : Words();
    }
    Words out;
    auto add = [&](const OptionSpec& o) {
      const bool wants_value = !o.value_name.empty() && o.value_name[0] != '[';
      out.push_back(std::string(o.name) + (wants_value ? "=" : ""));
    };
    if (line_.verb != nullptr) std::for_each(line_.verb->options.begin(), line_.verb->options.end(), add);
    std::for_each(program_.options.begin(), program_.options.end(), add);
    if (line_.verb != nullptr) return out;
    // In front of the verb every verb's options may stand.
    for (const Verb& verb : program_.verbs) std::for_each(verb.options.begin(), verb.options.end(), add);
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
  }

  static Words with_prefix(const std::string& prefix, Words words) {
    for (std::string& word : words) word.insert(0, prefix);
    return words;
  }

  Words option_values(const OptionSpec& option, const std::string& prefix) {
    if (option.name == "--format") return with_prefix(prefix, {"text", "json"});
    if (option.name == "--server") return with_prefix(prefix, {"unix:"});
    if (option.name == "--protocols") {
      return with_prefix(prefix, {"OpenFlow10", "OpenFlow11", "OpenFlow12", "OpenFlow13", "OpenFlow14", "OpenFlow15"});
    }
    if (option.name == "--sort" || option.name == "--rsort") {
      return with_prefix(prefix, {"priority", "table", "cookie", "n_packets", "n_bytes", "duration"});
    }
    if (option.name == "--columns" && !line_.arguments.empty()) {
      std::string problem;
      if (auto table = find_table(line_.arguments[0], &problem)) return with_prefix(prefix, column_names(*table));
    }
    return {};
  }

  Words first_words() {
    if (!line_.arguments.empty() && line_.arguments[0] == "completion") return {"bash"};
    Words out;
    for (const Verb& verb : program_.verbs) out.emplace_back(verb.name);
    if (line_.arguments.empty()) {
      out.emplace_back("help");
      out.emplace_back("completion");
    }
    return out;
  }

  Words bridges() {
    Words out;
    for (const v1::Bridge& bridge : now().bridges()) out.emplace_back(base_name(bridge.name()));
    return out;
  }

  // `bridge` "": of all.
  Words ports(std::string_view bridge, std::string_view type = "") {
    Words out;
    for (const v1::Port& port : now().ports()) {
      if (!bridge.empty() && base_name(port.bridge()) != bridge) continue;
      if (type.empty() || port.type() == type) out.emplace_back(base_name(port.name()));
    }
    return out;
  }

  const v1::Port* port(std::string_view name) {
    for (const v1::Port& p : now().ports()) {
      if (base_name(p.name()) == name) return &p;
    }
    return nullptr;
  }

  std::optional<Table> table() const {
    std::string problem;
    return line_.arguments.empty() ? std::nullopt : find_table(line_.arguments[0], &problem);
  }

  Words argument(const std::string& name) {
    const std::string_view verb = line_.verb->name;
    if (name == "BRIDGE") {
      if (verb == "add-br") return {};
      Words out = bridges();
      if (verb == "del-port") {  // the bridge may be left out
        for (std::string& port : ports("")) out.push_back(std::move(port));
      }
      return out;
    }
    if (name == "PORT" || name == "INTERFACE") return port_argument();
    if (name == "TABLE") return {"bridge", "port", "interface", "open_vswitch"};
    if (name == "RECORD") return records();
    if (name.starts_with("COLUMN")) return columns();
    if (name.starts_with("KEY")) return keys();
    if (name == "MODE") return {"standalone", "secure"};
    if (name == "CHANGE") {
      return {"up",         "down",  "receive",  "no-receive", "forward",
              "no-forward", "flood", "no-flood", "packet-in",  "no-packet-in"};
    }
    if (name.starts_with("FILE")) return {std::string(kFileCandidates)};
    if (name == "SOURCE") {
      Words out = bridges();
      out.emplace_back(kFileCandidates);
      return out;
    }
    return {};
  }

  Words port_argument() {
    const std::string_view verb = line_.verb->name;
    if (verb == "receive") return ports("", "dummy");
    const bool has_bridge = !line_.arguments.empty();
    if (verb != "add-port") return ports(has_bridge ? line_.arguments[0] : "");
    Words out = source_.devices();
    std::erase_if(out, [&](const std::string& device) { return port(device) != nullptr; });
    return out;
  }

  Words records() {
    const std::optional<Table> of = table();
    if (!of) return {};
    if (*of == Table::bridge) return bridges();
    return *of == Table::open_vswitch ? Words{"."} : ports("");
  }

  // The type that the port has or is to have.
  std::string port_type() {
    for (const std::string& word : line_.arguments) {
      if (word.starts_with("type=")) return word.substr(5);
    }
    const v1::Port* existing = line_.arguments.size() > 1 ? port(line_.arguments[1]) : nullptr;
    return existing != nullptr ? existing->type() : "netdev";
  }

  Words columns() {
    const std::string_view verb = line_.verb->name;
    if (verb == "add-br") return settable(Table::bridge);
    if (verb == "add-port") {
      Words out = settable(Table::interface);
      for (std::string& word : settable(Table::port)) out.push_back(std::move(word));
      if (line_.current.find(':') == std::string::npos) {
        for (const std::string& option : type_options(port_type())) out.push_back(option + "=");
      }
      return out;
    }
    const std::optional<Table> of = table();
    if (!of) return {};
    if (verb == "set") return settable(*of);
    if (verb == "add" || verb == "remove") {
      return *of == Table::interface ? Words{"options", "external_ids"} : Words{"external_ids"};
    }
    return verb == "clear" ? settable_columns(*of) : readable(*of);
  }

  Words readable(Table of) {
    const size_t colon = line_.current.find(':');
    if (colon == std::string::npos) return column_names(of);
    const v1::Port* row = line_.arguments.size() > 1 ? port(line_.arguments[1]) : nullptr;
    if (row == nullptr) return {};
    const Record record = of == Table::port ? port_record(*row) : interface_record(*row);
    const Column* column = find_column(record, line_.current.substr(0, colon));
    Words out;
    if (column == nullptr) return out;
    for (const auto& [key, value] : column->map) out.push_back(line_.current.substr(0, colon + 1) + key);
    return out;
  }

  // COLUMN=, and what may stand behind it once it does.
  Words settable(Table of) {
    const size_t end = line_.current.find_first_of(":=");
    const std::string column = line_.current.substr(0, end);
    if (end == std::string::npos) {
      Words out;
      for (const std::string& name : settable_columns(of)) out.push_back(name + (is_map_column(name) ? ":" : "="));
      return out;
    }
    if (line_.current[end] == '=') return with_prefix(column + "=", column_values(of, column));
    Words out;
    for (const std::string& key :
         column == "options" && of == Table::interface ? type_options(port_type()) : other_config_keys(of, column)) {
      out.push_back(column + ":" + key + "=");
    }
    return out;
  }

  Words keys() {
    const std::string_view verb = line_.verb->name;
    Words out;
    if (verb.starts_with("br-")) {
      for (const v1::Bridge& bridge : now().bridges()) {
        if (line_.arguments.empty() || base_name(bridge.name()) != line_.arguments[0]) continue;
        for (const auto& [key, value] : bridge.external_ids()) out.push_back(key);
      }
      return out;
    }
    if (line_.arguments.size() < 3 || line_.arguments[2] != "options") return out;
    if (verb == "add") {
      for (const std::string& key : type_options(port_type())) out.push_back(key + "=");
    } else if (const v1::Port* row = port(line_.arguments[1])) {
      for (const auto& [key, value] : row->options()) out.push_back(key);
    }
    return out;
  }

  const Program& program_;
  const Line line_;
  const CompletionSource& source_;
  std::optional<v1::Configuration> now_;
};

v1::Configuration ask_daemon(const std::string& server) {
  v1::Configuration now;
  Client client(server_address(server), kPatience);
  if (!client.get_configuration({}, &now).ok) now.Clear();
  return now;
}

Words host_devices() {
  Words out;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/net", error)) {
    const std::string name = entry.path().filename();
    if (name != "lo") out.push_back(name);
  }
  return out;
}

}  // namespace

std::vector<std::string> complete(const Program& program, std::span<const std::string> words,
                                  const CompletionSource& source) {
  return Completer(program, read_line(program, words), source).run();
}

std::string completion_lines(const Program& program, std::span<const std::string> words) {
  std::string server;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i].starts_with("--server=")) server = words[i].substr(9);
    if (words[i] == "--server" && i + 2 < words.size()) server = words[i + 1];
  }
  const CompletionSource source{[&] { return ask_daemon(server); }, host_devices};
  std::string out;
  for (const std::string& candidate : complete(program, words, source)) out += candidate + "\n";
  return out;
}

}  // namespace vswitch::cli
