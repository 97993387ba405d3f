#include "datapath/vport/dpdk/dpdk_settings.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "datapath/base/mutex.h"

namespace vswitch {
namespace {

// Without huge pages EAL maps all its memory at the start; RAM is taken as it is used. Its own default of 64 MB would
// not hold one pool.
constexpr size_t kNoHugeMegabytes = 2048;

struct Shared {
  Mutex mutex;
  DpdkSettings settings GUARDED_BY(mutex);
};

Shared& shared() {
  static Shared* const shared = new Shared;  // threads may still ask while the process ends
  return *shared;
}

std::vector<std::string> words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(std::move(word));
  return words;
}

// `--name value`, `--name=value`, and for one letter `-nvalue`.
bool gives(const std::vector<std::string>& arguments, std::string_view name) {
  return std::any_of(arguments.begin(), arguments.end(), [name](const std::string& argument) {
    if (!argument.starts_with(name)) return false;
    return argument.size() == name.size() || argument[name.size()] == '=' || !name.starts_with("--");
  });
}

std::string join(const std::vector<int>& numbers) {
  std::string text;
  for (const int number : numbers) text += (text.empty() ? "" : ",") + std::to_string(number);
  return text;
}

void add_memory_arguments(const DpdkSettings& settings, const std::vector<std::string>& extra,
                          std::vector<std::string>& arguments) {
  if (gives(extra, "--no-huge")) {
    if (!gives(extra, "-m")) arguments.insert(arguments.end(), {"-m", std::to_string(kNoHugeMegabytes)});
    return;
  }
  if (!settings.socket_mem.empty()) arguments.push_back("--socket-mem=" + settings.socket_mem);
  if (settings.hugepage_dir.empty() && !gives(extra, "--huge-dir")) {
    arguments.emplace_back("--in-memory");
  } else if (!settings.hugepage_dir.empty()) {
    arguments.insert(arguments.end(), {"--huge-dir=" + settings.hugepage_dir, "--huge-unlink"});
  }
}

}  // namespace

Status check_dpdk_settings(const DpdkSettings& settings) {
  for (const std::string& word : words(settings.extra)) {
    if (word == "-h" || word == "--help" || word.starts_with("--proc-type")) {
      return invalid_argument(fmt::format("dpdk-extra: {} is not possible inside the switch", word), "dpdk_extra");
    }
  }
  const auto is_mem = [](char c) { return (c >= '0' && c <= '9') || c == ','; };
  if (!std::all_of(settings.socket_mem.begin(), settings.socket_mem.end(), is_mem)) {
    return invalid_argument(
        fmt::format("dpdk-socket-mem is \"{}\"; it may be megabytes per NUMA node, like 1024,0", settings.socket_mem),
        "dpdk_socket_mem");
  }
  if (!settings.hugepage_dir.empty() && !settings.hugepage_dir.starts_with('/')) {
    return invalid_argument(
        fmt::format("dpdk-hugepage-dir is \"{}\"; an absolute path is wanted", settings.hugepage_dir),
        "dpdk_hugepage_dir");
  }
  return {};
}

void set_dpdk_settings(const DpdkSettings& settings) {
  MutexLock lock(shared().mutex);
  shared().settings = settings;
}

DpdkSettings dpdk_settings() {
  MutexLock lock(shared().mutex);
  return shared().settings;
}

std::vector<std::string> eal_arguments(const DpdkSettings& settings, std::string_view pci_device,
                                       const std::vector<int>& cpus) {
  const std::vector<std::string> extra = words(settings.extra);
  std::vector<std::string> arguments = {"vswitchd", "--no-telemetry", "--no-shconf"};
  // Several daemons, and other DPDK programs, side by side: nothing of ours has a name that they could use.
  if (!gives(extra, "--file-prefix")) arguments.push_back(fmt::format("--file-prefix=vswitch-{}", getpid()));
  // One lcore, which may run anywhere and never runs anything: the forwarding threads are the switch's own.
  if (!gives(extra, "-l") && !gives(extra, "-c") && !gives(extra, "--lcores")) {
    arguments.push_back(fmt::format("--lcores=0@({})", join(cpus)));
  }
  if (pci_device.empty()) {
    if (!gives(extra, "-a") && !gives(extra, "--allow")) arguments.emplace_back("--no-pci");
    if (!gives(extra, "--iova-mode")) arguments.emplace_back("--iova-mode=va");
  } else {
    arguments.insert(arguments.end(), {"-a", std::string(pci_device)});
  }
  add_memory_arguments(settings, extra, arguments);
  arguments.insert(arguments.end(), extra.begin(), extra.end());
  return arguments;
}

}  // namespace vswitch
