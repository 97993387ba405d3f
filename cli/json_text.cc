#include "cli/json_text.h"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cctype>

namespace vswitch::cli {

std::string to_json(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  std::string out;
  if (!google::protobuf::util::MessageToJsonString(message, &out, options).ok()) return "{}\n";
  if (!out.ends_with('\n')) out += '\n';
  return out;
}

std::string quote(std::string_view text) {
  auto is_word_char = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-' || c == '.'; };
  bool word = !text.empty() && (std::isalpha(static_cast<unsigned char>(text[0])) || text[0] == '_') &&
              std::all_of(text.begin(), text.end(), is_word_char) && text != "true" && text != "false";
  return word ? std::string(text) : quoted(text);
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

std::string format_map(const std::map<std::string, std::string>& map) {
  std::string out;
  for (const auto& [key, value] : map) {
    out += fmt::format("{}{}={}", out.empty() ? "" : ", ", quote(key), quote(value));
  }
  return "{" + out + "}";
}

std::string format_set(const std::vector<std::string>& set) {
  if (set.size() == 1) return set[0];
  return fmt::format("[{}]", fmt::join(set, ", "));
}

std::string_view base_name(std::string_view resource) {
  size_t slash = resource.find('/');
  return slash == std::string_view::npos ? resource : resource.substr(slash + 1);
}

}  // namespace vswitch::cli
