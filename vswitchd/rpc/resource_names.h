// "bridges/br0" <-> "br0": resource names of the API and names of the domain. Requests may leave the collection away.
#pragma once

#include <string>
#include <string_view>

#include "datapath/base/status.h"

namespace vswitch {

std::string bridge_resource(std::string_view name);  // "" stays ""
std::string port_resource(std::string_view name);

// The name behind the collection. Refuses an empty one and the name of another collection; `field` is the request's.
Result<std::string> bridge_name(std::string_view resource, const std::string& field);
Result<std::string> port_name(std::string_view resource, const std::string& field);
// "" means all.
Result<std::string> optional_bridge_name(std::string_view resource, const std::string& field);

}  // namespace vswitch
