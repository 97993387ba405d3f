// Where a unix socket may be made: not over one that is alive, not over a file that is no socket.
#pragma once

#include <string>

#include "datapath/base/status.h"

namespace vswitch {

// Removes the socket of a daemon that died. failed_precondition if one answers there, or if the path is something else.
Status prepare_socket_path(const std::string& path);
// Mode 0660: owner and group.
Status restrict_socket(const std::string& path);

}  // namespace vswitch
