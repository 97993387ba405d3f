#include "datapath/vport/port_options.h"

#include <fmt/format.h>

#include <charconv>

namespace vswitch {

Status wrong_option(const VportConfig& config, const char* option, std::string_view allowed) {
  const auto found = config.options.find(option);
  const std::string_view text = found == config.options.end() ? std::string_view() : found->second;
  return invalid_argument(fmt::format("port {}: {} is \"{}\"; it may be {}", config.name, option, text, allowed),
                          fmt::format("options:{}", option));
}

Status read_number_option(const VportConfig& config, const char* option, uint32_t least, uint32_t most, uint32_t& out) {
  const auto found = config.options.find(option);
  if (found == config.options.end()) return {};
  const std::string& text = found->second;
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    return wrong_option(config, option, fmt::format("{} to {}", least, most));
  }
  out = value;
  return {};
}

Status read_number_option(const VportConfig& config, const char* option, uint32_t least, uint32_t most, uint16_t& out) {
  uint32_t value = out;
  VSWITCH_RETURN_IF_ERROR(read_number_option(config, option, least, most, value));
  out = static_cast<uint16_t>(value);
  return {};
}

Status read_flag_option(const VportConfig& config, const char* option, bool& out) {
  const auto found = config.options.find(option);
  if (found == config.options.end()) return {};
  if (found->second != "true" && found->second != "false") return wrong_option(config, option, "true or false");
  out = found->second == "true";
  return {};
}

}  // namespace vswitch
