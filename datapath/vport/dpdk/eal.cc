#include "datapath/vport/dpdk/eal.h"

#include <fmt/format.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "datapath/base/mutex.h"
#include "datapath/vport/dpdk/dpdk_settings.h"

namespace vswitch::dpdk {
namespace {

constexpr size_t kLinesKept = 64;
constexpr size_t kLinesShown = 4;

thread_local bool quiet = false;

// What DPDK logs: the last lines, numbered from the first ever.
class Log {
 public:
  static Log& instance() {
    static Log* const log = new Log;  // DPDK's threads log until the process ends
    return *log;
  }

  // From now on DPDK logs here; every line goes to standard error too, which is the daemon's log.
  void attach() {
    const cookie_io_functions_t functions = {nullptr, write, nullptr, nullptr};
    FILE* const stream = fopencookie(this, "w", functions);
    if (stream == nullptr) return;
    setvbuf(stream, nullptr, _IOLBF, 1024);
    rte_openlog_stream(stream);
  }
  size_t end() const {
    MutexLock lock(mutex_);
    return dropped_ + lines_.size();
  }
  std::string from(size_t begin) const {
    MutexLock lock(mutex_);
    size_t first = begin > dropped_ ? std::min(begin - dropped_, lines_.size()) : 0;
    if (lines_.size() - first > kLinesShown) first = lines_.size() - kLinesShown;
    std::string text;
    for (size_t i = first; i < lines_.size(); ++i) text += (text.empty() ? "" : "; ") + lines_[i];
    return text;
  }

 private:
  static ssize_t write(void* cookie, const char* text, size_t size) {
    static_cast<Log*>(cookie)->append({text, size});
    return static_cast<ssize_t>(size);
  }
  void append(std::string_view text) {
    MutexLock lock(mutex_);
    partial_ += text;
    for (size_t end; (end = partial_.find('\n')) != std::string::npos; partial_.erase(0, end + 1)) {
      add_line(partial_.substr(0, end));
    }
  }
  void add_line(std::string line) REQUIRES(mutex_) {
    while (!line.empty() && line.back() == ' ') line.pop_back();
    if (line.empty()) return;
    if (!quiet) std::fprintf(stderr, "dpdk: %s\n", line.c_str());
    lines_.push_back(std::move(line));
    if (lines_.size() <= kLinesKept) return;
    lines_.pop_front();
    ++dropped_;
  }

  mutable Mutex mutex_;
  std::deque<std::string> lines_ GUARDED_BY(mutex_);
  size_t dropped_ GUARDED_BY(mutex_) = 0;
  std::string partial_ GUARDED_BY(mutex_);
};

struct Environment {
  Mutex mutex;
  bool tried GUARDED_BY(mutex) = false;
  bool has_pci GUARDED_BY(mutex) = false;
  Status status GUARDED_BY(mutex);
};

Environment& environment() {
  static Environment* const environment = new Environment;
  return *environment;
}

std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

// Of all sizes and NUMA nodes.
uint64_t free_hugepages() {
  uint64_t total = 0;
  std::error_code none;
  for (const auto& size : std::filesystem::directory_iterator("/sys/kernel/mm/hugepages", none)) {
    uint64_t pages = 0;
    if (std::ifstream(size.path() / "free_hugepages") >> pages) total += pages;
  }
  return total;
}

Status check_hugepages(const std::vector<std::string>& arguments) {
  if (std::find(arguments.begin(), arguments.end(), "--no-huge") != arguments.end() || free_hugepages() != 0) return {};
  return failed_precondition(
      "DPDK needs huge pages and none is free: reserve some (sysctl vm.nr_hugepages=1024), or do without: "
      "vsctl set open_vswitch . other_config:dpdk-extra=--no-huge");
}

Status run_eal_init(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  Log::instance().attach();
  const LogCapture capture;
  int result = 0, error = 0;
  // EAL pins the thread that starts it to its main lcore and keeps its number. A thread of its own, which ends, leaves
  // those of the switch as they are.
  std::thread([&] {
    result = rte_eal_init(static_cast<int>(arguments.size()), argv.data());
    error = rte_errno;
  }).join();
  // EAL makes a directory for what processes share, and puts nothing there.
  std::error_code not_empty;
  if (const char* directory = rte_eal_get_runtime_dir(); *directory != '\0') {
    std::filesystem::remove(directory, not_empty);
  }
  if (result >= 0) return {};
  std::string line;
  for (const std::string& argument : arguments) line += (line.empty() ? "" : " ") + argument;
  return failed_precondition(
      fmt::format("DPDK did not start: {}{}; arguments: {}. It can be tried again only by "
                  "starting the daemon anew",
                  error_text(error), capture.lines(), line));
}

struct ThreadRegistration {
  bool tried = false;
  bool registered = false;
  ~ThreadRegistration() {
    if (registered) rte_thread_unregister();
  }
};

}  // namespace

Status start_eal(std::string_view pci_device) {
  Environment& eal = environment();
  MutexLock lock(eal.mutex);
  if (!eal.tried) {
    const DpdkSettings settings = dpdk_settings();
    VSWITCH_RETURN_IF_ERROR(check_dpdk_settings(settings));
    std::vector<std::string> arguments = eal_arguments(settings, pci_device, usable_cpus());
    VSWITCH_RETURN_IF_ERROR(check_hugepages(arguments));
    eal.tried = true;
    eal.has_pci = std::find(arguments.begin(), arguments.end(), "--no-pci") == arguments.end();
    eal.status = run_eal_init(std::move(arguments));
  }
  if (!eal.status.ok()) return eal.status;
  if (!pci_device.empty() && !eal.has_pci) {
    return failed_precondition(
        fmt::format("DPDK was started without PCI, for a virtual device: start the daemon anew to use {}", pci_device));
  }
  return {};
}

LogCapture::LogCapture() : begin_(Log::instance().end()) {}
LogCapture::~LogCapture() = default;

QuietLog::QuietLog() { quiet = true; }
QuietLog::~QuietLog() { quiet = false; }

std::string LogCapture::lines() const {
  const std::string text = Log::instance().from(begin_);
  return text.empty() ? "" : " (" + text + ")";
}

std::string error_text(int error) { return rte_strerror(std::abs(error)); }

void register_thread_slowly() {
  static thread_local ThreadRegistration registration;
  if (registration.tried) return;
  registration.tried = true;
  registration.registered = rte_thread_register() == 0;
}

}  // namespace vswitch::dpdk
