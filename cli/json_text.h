// Messages as JSON (protobuf's mapping), and values as Open vSwitch's tools write them.
#pragma once

#include <google/protobuf/message.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace vswitch::cli {

// Indented, zero values included, so that scripts need not know defaults. Ends with a newline.
std::string to_json(const google::protobuf::Message& message);

// br0, "1.2.3.4": quoted unless it looks like a word.
std::string quote(std::string_view text);
// "br0": always quoted; what would end the quotes or the line is escaped.
std::string quoted(std::string_view text);
std::string format_map(const std::map<std::string, std::string>& map);  // {key=flow, remote_ip="1.2.3.4"}
std::string format_set(const std::vector<std::string>& set);            // [10, 20]; one element stands alone

// "ports/p1" -> "p1"
std::string_view base_name(std::string_view resource);

}  // namespace vswitch::cli
