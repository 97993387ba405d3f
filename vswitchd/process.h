// What makes a process a daemon: detaching with the outcome reported, the pid file, telling a service manager.
//
// None of this is thread-safe: call it from main() before threads start, ready() and stopping() excepted.
#pragma once

#include <string>

#include "datapath/base/status.h"
#include "datapath/base/unique_fd.h"

namespace vswitch {

// `--detach`: the foreground process waits for the background one to be ready, and says what went wrong otherwise.
class Detach {
 public:
  // Forks. In the background process returns; the foreground process ends here, with status 0 once ready() was called,
  // or with 1 after printing what fail() said (or that the daemon died).
  static Detach start();
  static Detach in_foreground() { return Detach(UniqueFd()); }

  // Ready to serve: lets the foreground process go and turns standard output and error to `log_path`.
  Status ready(const std::string& log_path);
  // Prints `message` where a person sees it; the caller ends the process with status 1.
  void fail(const std::string& message);

 private:
  explicit Detach(UniqueFd pipe) : pipe_(std::move(pipe)) {}
  UniqueFd pipe_;  // to the foreground process; none: not detached
};

// A file with the process id in it, locked for as long as the process lives. Removed by the destructor.
class PidFile {
 public:
  // failed_precondition, naming the process, if a running daemon holds it.
  static Result<PidFile> create(const std::string& path);
  PidFile(PidFile&&) noexcept = default;
  PidFile& operator=(PidFile&&) = delete;
  ~PidFile();

 private:
  PidFile(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  std::string path_;
  UniqueFd fd_;
};

// Makes a directory and its parents, if they are not there.
Status make_directory(const std::string& path, unsigned mode);

// systemd's protocol (sd_notify(3)): a datagram like "READY=1" to the socket named in $NOTIFY_SOCKET, if there is one.
void notify_service_manager(const std::string& state);

}  // namespace vswitch
