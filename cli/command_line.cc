#include "cli/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>

#ifndef VSWITCH_VERSION
#define VSWITCH_VERSION "0.1.0"
#endif

namespace vswitch::cli {

namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

const Verb* find_verb(const Program& program, std::string_view name) {
  for (const Verb& verb : program.verbs) {
    if (verb.name == name) return &verb;
  }
  return nullptr;
}

Problem unknown_verb(const Program& program, std::string_view word) {
  for (const auto& [name, why] : program.unsupported) {
    if (name == word) return {std::string(why), kRefused};
  }
  std::vector<std::string_view> known;
  for (const Verb& verb : program.verbs) known.push_back(verb.name);
  std::string_view like = nearest(word, known);
  return {fmt::format("unknown verb \"{}\"{} (\"{} help\" lists them)", word,
                      like.empty() ? "" : fmt::format("; did you mean \"{}\"?", like), program.name)};
}

const OptionSpec* find_option(std::span<const OptionSpec> options, std::string_view name) {
  for (const OptionSpec& option : options) {
    if (option.name == name || (!option.short_name.empty() && option.short_name == name)) return &option;
  }
  return nullptr;
}

Problem unknown_option(const Program& program, const Verb* verb, std::string_view name) {
  std::vector<std::string_view> known;
  for (const OptionSpec& option : program.options) known.push_back(option.name);
  if (verb != nullptr) {
    for (const OptionSpec& option : verb->options) known.push_back(option.name);
  }
  std::string_view like = nearest(name, known);
  std::string where = verb != nullptr ? fmt::format("{} {}", program.name, verb->name) : std::string(program.name);
  return {fmt::format("unknown option \"{}\" of {}{} (\"{} --help\" lists them)", name, where,
                      like.empty() ? "" : fmt::format("; did you mean \"{}\"?", like), where)};
}

// Walks over the words of one command.
class Parser {
 public:
  Parser(const Program& program, std::span<const std::string> words,
         std::multimap<std::string, std::string, std::less<>>& globals, bool options_anywhere)
      : program_(program), words_(words), globals_(globals), anywhere_(options_anywhere) {
    verb_ = verb_of_words();
  }

  std::optional<Problem> run(Command& command) {
    for (; at_ < words_.size(); ++at_) {
      const std::string& word = words_[at_];
      bool may_be_option = !ended_ && word.size() > 1 && word[0] == '-' && (anywhere_ || !seen_verb_);
      if (may_be_option && word == "--") {
        ended_ = true;
      } else if (may_be_option) {
        if (std::optional<Problem> problem = option(word, command)) return problem;
      } else if (!seen_verb_ && (word == "help" || word == "completion")) {
        builtin_ = word;
        command.arguments.assign(words_.begin() + static_cast<ptrdiff_t>(at_) + 1, words_.end());
        return std::nullopt;
      } else if (!seen_verb_) {
        if (find_verb(program_, word) == nullptr) return unknown_verb(program_, word);
        command.verb = find_verb(program_, word);
        seen_verb_ = true;
      } else {
        command.arguments.push_back(word);
      }
    }
    return std::nullopt;
  }

  // "help" or "completion", which are verbs of every program; all that follows is their arguments. Else "".
  std::string_view builtin() const { return builtin_; }

 private:
  // Options in front of the verb may be the verb's, so the verb is looked for first.
  const Verb* verb_of_words() const {
    for (const std::string& word : words_) {
      if (const Verb* verb = find_verb(program_, word)) return verb;
    }
    return nullptr;
  }

  std::optional<Problem> option(const std::string& word, Command& command) {
    size_t equals = word.starts_with("--") ? word.find('=') : std::string::npos;
    std::string name = word.substr(0, equals);
    const OptionSpec* spec = verb_ != nullptr ? find_option(verb_->options, name) : nullptr;
    auto* into = &command.options;
    if (spec == nullptr) {
      spec = find_option(program_.options, name);
      into = &globals_;
    }
    if (spec == nullptr) return unknown_option(program_, verb_, name);
    if (into->contains(spec->name)) return Problem{fmt::format("option {} is given twice", spec->name)};
    std::string value;
    if (spec->value_name.empty()) {
      if (equals != std::string::npos) {
        return Problem{fmt::format("option {} takes no value, not \"{}\"", spec->name, word.substr(equals + 1))};
      }
    } else if (equals != std::string::npos) {
      value = word.substr(equals + 1);
    } else if (spec->value_name.starts_with('[')) {
      // A value that may be left out stands behind "=" only: the next word is not it.
      into->emplace(std::string(spec->name), "");
      return std::nullopt;
    } else if (at_ + 1 < words_.size()) {
      value = words_[++at_];
    } else {
      return Problem{fmt::format("option {} needs a value: {}={}", spec->name, spec->name, spec->value_name)};
    }
    if (value.empty() && !spec->value_name.empty()) {
      return Problem{fmt::format("the value of option {} is empty: {} is wanted", spec->name, spec->value_name)};
    }
    if (std::string wrong = spec->check != nullptr ? spec->check(value) : ""; !wrong.empty()) {
      return Problem{fmt::format("{}={}: {}", spec->name, value, wrong)};
    }
    into->emplace(std::string(spec->name), value);
    return std::nullopt;
  }

  const Program& program_;
  std::span<const std::string> words_;
  std::multimap<std::string, std::string, std::less<>>& globals_;
  bool anywhere_;
  const Verb* verb_ = nullptr;
  size_t at_ = 0;
  bool ended_ = false;
  bool seen_verb_ = false;
  std::string_view builtin_;
};

// The arguments that must be there, by the names that the verb's usage gives them: what stands in no brackets.
std::vector<std::string> mandatory_arguments(const Verb& verb) {
  std::vector<std::string> out;
  int depth = 0;
  std::string word;
  auto flush = [&] {
    while (word.ends_with('.')) word.pop_back();
    if (!word.empty()) out.push_back(word);
    word.clear();
  };
  for (size_t i = 0; i < verb.arguments.size(); ++i) {
    const char c = verb.arguments[i];
    const bool begins_word = i == 0 || verb.arguments[i - 1] == ' ';
    if (c == '[' && (depth > 0 || begins_word)) ++depth;
    if (depth == 0 && c == ' ') flush();
    if (depth == 0 && c != ' ') word += c;
    if (c == ']' && depth > 0) --depth;
  }
  flush();
  return out;
}

std::string usage(const Program& program, const Verb& verb) {
  return fmt::format("{} {}{}{}", program.name, verb.name, verb.arguments.empty() ? "" : " ", verb.arguments);
}

// Options of which one takes back what the other says.
constexpr std::pair<std::string_view, std::string_view> kExclusive[] = {{"--names", "--no-names"},
                                                                        {"--stats", "--no-stats"}};

std::optional<Problem> check_arguments(const Program& program, const Command& command) {
  const size_t n = command.arguments.size();
  const Verb& verb = *command.verb;
  if (n < verb.min_arguments) {
    std::vector<std::string> names = mandatory_arguments(verb);
    names.erase(names.begin(), names.begin() + static_cast<ptrdiff_t>(std::min(n, names.size())));
    return Problem{fmt::format("{}: {} {} missing (usage: {})", verb.name, fmt::join(names, " and "),
                               names.size() == 1 ? "is" : "are", usage(program, verb))};
  }
  if (n > verb.max_arguments) {
    return Problem{fmt::format("{}: superfluous argument \"{}\" (usage: {})", verb.name,
                               command.arguments[verb.max_arguments], usage(program, verb))};
  }
  for (const auto& [one, other] : kExclusive) {
    if (!command.has(one) || !command.has(other)) continue;
    return Problem{fmt::format("{}: {} and {} exclude each other", verb.name, one, other)};
  }
  return std::nullopt;
}

ParseResult help_for(const Program& program, const std::vector<std::string>& arguments) {
  if (arguments.empty()) return Information{help_text(program)};
  if (arguments.size() > 1) {
    return Problem{
        fmt::format("help: superfluous argument \"{}\" (usage: {} help [VERB])", arguments[1], program.name)};
  }
  if (const Verb* verb = find_verb(program, arguments[0])) return Information{help_text(program, *verb)};
  return unknown_verb(program, arguments[0]);
}

ParseResult completion_for(const Program& program, const std::vector<std::string>& arguments) {
  if (arguments.size() == 1 && arguments[0] == "bash") return Information{bash_completion(program)};
  std::string what = "SHELL is missing";
  if (arguments.size() == 1) what = fmt::format("unknown shell \"{}\"", arguments[0]);
  if (arguments.size() > 1) what = fmt::format("superfluous argument \"{}\"", arguments[1]);
  return Problem{fmt::format("completion: {}: it is there for bash: source <({} completion bash)", what, program.name)};
}

std::string indent(std::string_view text, std::string_view by) {
  std::string out;
  while (!text.empty()) {
    size_t end = std::min(text.find('\n'), text.size());
    out += fmt::format("{}{}\n", by, text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

std::string option_lines(std::span<const OptionSpec> options) {
  std::string out;
  for (const OptionSpec& option : options) {
    std::string left(option.name);
    if (!option.value_name.empty()) left += fmt::format("={}", option.value_name);
    if (!option.short_name.empty()) left = fmt::format("{}, {}", option.short_name, left);
    out += fmt::format("  {:<22} {}\n", left, option.help);
  }
  return out;
}

}  // namespace

std::string_view nearest(std::string_view word, std::span<const std::string_view> known) {
  std::string_view best;
  size_t distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (std::string_view candidate : known) {
    size_t d = edit_distance(word, candidate);
    if (d < distance) {
      distance = d;
      best = candidate;
    }
  }
  return best;
}

ParseResult parse_command(const Program& program, std::span<const std::string> words,
                          std::multimap<std::string, std::string, std::less<>>& globals, bool options_anywhere) {
  Command command;
  Parser parser(program, words, globals, options_anywhere);
  std::optional<Problem> problem = parser.run(command);
  if (globals.contains("--help")) {
    return Information{command.verb != nullptr ? help_text(program, *command.verb) : help_text(program)};
  }
  if (problem) return *problem;
  if (parser.builtin() == "help") return help_for(program, command.arguments);
  if (parser.builtin() == "completion") return completion_for(program, command.arguments);
  if (globals.contains("--version"))
    return Information{fmt::format("{} (vswitch) {}\n", program.name, VSWITCH_VERSION)};
  if (command.verb == nullptr) return Problem{fmt::format("what to do? \"{} help\" lists the verbs", program.name)};
  if (std::optional<Problem> wrong = check_arguments(program, command)) return *wrong;
  return command;
}

std::variant<CommonSettings, Problem> common_settings(
    const std::multimap<std::string, std::string, std::less<>>& globals) {
  CommonSettings out;
  auto value = [&](std::string_view name) {
    auto it = globals.find(name);
    return it == globals.end() ? std::string() : it->second;
  };
  out.server = value("--server");
  std::string timeout = value("--timeout");
  if (!timeout.empty()) {
    double seconds = 0;
    auto [end, error] = std::from_chars(timeout.data(), timeout.data() + timeout.size(), seconds);
    if (error != std::errc() || end != timeout.data() + timeout.size() || !(seconds >= 0 && seconds <= 1e6)) {
      return Problem{fmt::format("--timeout={}: a number of seconds is wanted, e.g. 5 or 0.5", timeout)};
    }
    out.timeout = std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
  }
  std::string format = value("--format");
  if (!format.empty() && format != "text" && format != "json") {
    return Problem{fmt::format("--format={}: it is text or json", format)};
  }
  out.json = format == "json";
  return out;
}

std::string help_text(const Program& program) {
  std::string out =
      fmt::format("{}: {}\n\nUsage: {} [OPTIONS] VERB [ARGUMENTS]\n", program.name, program.summary, program.name);
  std::string_view group;
  for (const Verb& verb : program.verbs) {
    if (verb.group != group) {
      group = verb.group;
      out += fmt::format("\n{}:\n", group);
    }
    std::string left = fmt::format("{} {}", verb.name, verb.arguments);
    if (left.size() > 34) {
      out += fmt::format("  {}\n  {:<34} {}\n", left, "", verb.summary);
    } else {
      out += fmt::format("  {:<34} {}\n", left, verb.summary);
    }
  }
  out += fmt::format("\nOptions:\n{}", option_lines(program.options));
  out += fmt::format(
      "\n\"{} help VERB\" explains a verb with examples; \"source <({} completion bash)\" lets the shell "
      "complete them.\n",
      program.name, program.name);
  if (!program.footer.empty()) out += fmt::format("\n{}\n", program.footer);
  return out;
}

std::string help_text(const Program& program, const Verb& verb) {
  std::string out = fmt::format("Usage: {} {} {}\n\n{}\n", program.name, verb.name, verb.arguments, verb.summary);
  if (!verb.details.empty()) out += fmt::format("\n{}\n", verb.details);
  if (!verb.options.empty()) out += fmt::format("\nOptions:\n{}", option_lines(verb.options));
  if (!verb.examples.empty()) {
    out += fmt::format("\nExamples:\n{}", indent(verb.examples, fmt::format("  {} ", program.name)));
  }
  return out;
}

std::string bash_completion(const Program& program) {
  // The program completes its own lines: see completion.h. The shell's word begins behind the last : or =, so what is
  // in front of it is cut off the candidates.
  return fmt::format(R"sh(# bash completion for {0}: source <({0} completion bash)
_{0}() {{
  local line="${{COMP_LINE:0:COMP_POINT}}" IFS=$' \t\n' words current candidate front
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  current="${{words[-1]}}"
  front="${{current%"${{current##*[:=]}}"}}"
  COMPREPLY=()
  while IFS= read -r candidate; do
    if [[ $candidate == "@files" ]]; then
      while IFS= read -r candidate; do COMPREPLY+=("$candidate"); done < <(compgen -f -- "$current")
    elif [[ $candidate == "$current"* ]]; then
      COMPREPLY+=("${{candidate#"$front"}}")
    fi
  done < <("${{words[0]}}" __complete "${{words[@]:1}}" 2>/dev/null)
  [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *[:=] ]] && compopt -o nospace
}}
complete -F _{0} {0}
)sh",
                     program.name);
}

int complain(const Program& program, std::string_view message, int status) {
  fmt::print(stderr, "{}: {}\n", program.name, message);
  return status;
}

int finish_output(std::string_view program, int status) {
  const bool lost = std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
  if (!lost || status != kDone) return status;
  fmt::print(stderr, "{}: cannot write the output: {}\n", program, std::strerror(errno));
  return kRefused;
}

}  // namespace vswitch::cli
