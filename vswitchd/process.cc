#include "vswitchd/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace vswitch {
namespace {

constexpr char kReady = '+';
constexpr char kFailed = '-';

std::string reason(int error) { return std::error_code(error, std::generic_category()).message(); }

std::string read_all(int fd) {
  std::string out;
  char buffer[512];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR)) {
    if (n > 0) out.append(buffer, static_cast<size_t>(n));
  }
  return out;
}

// A pipe takes messages of this size whole; short writes cannot happen.
void write_message(int fd, const std::string& text) {
  if (write(fd, text.data(), text.size()) < 0) std::perror("vswitchd");
}

// Never returns: the foreground process's end of the story.
[[noreturn]] void wait_for_background(int fd, pid_t child) {
  std::string said = read_all(fd);
  if (!said.empty() && said[0] == kReady) std::_Exit(0);
  if (!said.empty() && said[0] == kFailed) {
    fmt::print(stderr, "vswitchd: {}\n", said.substr(1));
    std::_Exit(1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) {
    fmt::print(stderr, "vswitchd: died from signal {} before it was ready\n", WTERMSIG(status));
  } else {
    fmt::print(stderr, "vswitchd: ended with status {} before it was ready\n", WEXITSTATUS(status));
  }
  std::_Exit(1);
}

}  // namespace

Detach Detach::start() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return in_foreground();
  pid_t child = fork();
  if (child < 0) {
    fmt::print(stderr, "vswitchd: cannot detach: {}\n", reason(errno));
    std::_Exit(1);
  }
  if (child > 0) {
    close(ends[1]);
    wait_for_background(ends[0], child);
  }
  close(ends[0]);
  setsid();
  return Detach(UniqueFd(ends[1]));
}

Status Detach::ready(const std::string& log_path) {
  if (pipe_.get() < 0) return {};
  UniqueFd log(open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640));
  if (log.get() < 0) return failed_precondition(fmt::format("cannot write the log {}: {}", log_path, reason(errno)));
  UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  dup2(null.get(), STDIN_FILENO);
  dup2(log.get(), STDOUT_FILENO);
  dup2(log.get(), STDERR_FILENO);
  // The working directory would keep a file system from being unmounted.
  if (chdir("/") != 0) return failed_precondition("cannot change to /: " + reason(errno));
  write_message(pipe_.get(), std::string(1, kReady));
  pipe_ = UniqueFd();
  return {};
}

void Detach::fail(const std::string& message) {
  if (pipe_.get() < 0) {
    fmt::print(stderr, "vswitchd: {}\n", message);
  } else {
    write_message(pipe_.get(), kFailed + message);
    pipe_ = UniqueFd();
  }
}

Result<PidFile> PidFile::create(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (fd.get() < 0) return failed_precondition(fmt::format("cannot write the pid file {}: {}", path, reason(errno)));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    std::string holder = read_all(fd.get());
    return failed_precondition(
        fmt::format("a vswitchd is running already (process {}, pid file {}): stop it, or give "
                    "this one another --run-dir and --state-dir",
                    holder.substr(0, holder.find('\n')), path));
  }
  std::string text = fmt::format("{}\n", getpid());
  if (ftruncate(fd.get(), 0) != 0 || pwrite(fd.get(), text.data(), text.size(), 0) < 0) {
    return failed_precondition(fmt::format("cannot write the pid file {}: {}", path, reason(errno)));
  }
  return PidFile(path, std::move(fd));
}

PidFile::~PidFile() {
  if (fd_.get() >= 0) unlink(path_.c_str());
}

Status make_directory(const std::string& path, unsigned mode) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return {};
  std::filesystem::create_directories(path, error);
  if (error) return failed_precondition(fmt::format("cannot make the directory {}: {}", path, error.message()));
  if (chmod(path.c_str(), mode) != 0) {
    return failed_precondition(fmt::format("cannot set the mode of {}: {}", path, reason(errno)));
  }
  return {};
}

void notify_service_manager(const std::string& state) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  size_t length = std::strlen(path);
  if (length >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';  // abstract namespace
  UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return;
  auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  // Nobody to tell if this fails: the service manager will notice that READY does not come.
  (void)!sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), size);
}

}  // namespace vswitch
