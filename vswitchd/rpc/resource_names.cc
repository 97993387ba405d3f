#include "vswitchd/rpc/resource_names.h"

#include <fmt/format.h>

namespace vswitch {
namespace {

constexpr std::string_view kBridges = "bridges/";
constexpr std::string_view kPorts = "ports/";

Result<std::string> strip(std::string_view resource, std::string_view collection, std::string_view kind,
                          const std::string& field) {
  std::string_view name = resource;
  if (name.starts_with(collection)) name.remove_prefix(collection.size());
  if (name.empty()) {
    return invalid_argument(
        fmt::format("a {} must be named, e.g. \"{}{}\"", kind, collection, kind == "bridge" ? "br0" : "p1"), field);
  }
  if (name.find('/') != std::string_view::npos) {
    return invalid_argument(
        fmt::format("\"{}\" is not the name of a {}: give \"NAME\" or \"{}NAME\", with no / in NAME", resource, kind,
                    collection),
        field);
  }
  return std::string(name);
}

}  // namespace

std::string bridge_resource(std::string_view name) {
  return name.empty() ? std::string() : fmt::format("{}{}", kBridges, name);
}

std::string port_resource(std::string_view name) {
  return name.empty() ? std::string() : fmt::format("{}{}", kPorts, name);
}

Result<std::string> bridge_name(std::string_view resource, const std::string& field) {
  return strip(resource, kBridges, "bridge", field);
}

Result<std::string> port_name(std::string_view resource, const std::string& field) {
  return strip(resource, kPorts, "port", field);
}

Result<std::string> optional_bridge_name(std::string_view resource, const std::string& field) {
  if (resource.empty()) return std::string();
  return bridge_name(resource, field);
}

}  // namespace vswitch
