#include "vswitchd/rpc/unix_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "datapath/base/unique_fd.h"

namespace vswitch {
namespace {

std::string reason(int error) { return std::error_code(error, std::generic_category()).message(); }

// A connection is accepted, or would be if the queue were not full.
bool somebody_listens(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return true;
  return errno != ECONNREFUSED && errno != ENOENT;
}

}  // namespace

Status prepare_socket_path(const std::string& path) {
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    return invalid_argument(
        fmt::format("socket path {} is too long: {} characters at most", path, sizeof(sockaddr_un::sun_path) - 1));
  }
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return {};
    return failed_precondition(fmt::format("cannot look at {}: {}", path, reason(errno)));
  }
  if (!S_ISSOCK(info.st_mode)) {
    return failed_precondition(path + " exists and is not a socket: remove it, or choose another path");
  }
  if (somebody_listens(path)) {
    return failed_precondition("another vswitchd serves " + path + ": stop it, or give this one another --run-dir");
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return failed_precondition(fmt::format("cannot remove the dead socket {}: {}", path, reason(errno)));
  }
  return {};
}

Status restrict_socket(const std::string& path) {
  if (chmod(path.c_str(), 0660) == 0) return {};
  return failed_precondition(fmt::format("cannot set the mode of {}: {}", path, reason(errno)));
}

}  // namespace vswitch
