// Random flow keys of packets that exist: every member is zero or random as the packet's protocols allow, so that
// compose() can build the frame and extraction gives the key back. Values come from small sets as often as not, so that
// two keys or a key and a rule often agree in a field.
#pragma once

#include <random>

#include "datapath/flow/flow_key.h"

namespace vswitch::test {

using Random = std::mt19937_64;

inline constexpr uint32_t kRandomPorts = 8;  // in_port is 1 .. kRandomPorts

FlowKey random_key(Random& random);

}  // namespace vswitch::test
