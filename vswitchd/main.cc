// vswitchd: opens the switch, serves the API, and waits for a signal to end.
#include <fmt/format.h>
#include <malloc.h>
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "vswitchd/control/switch.h"
#include "vswitchd/process.h"
#include "vswitchd/rpc/rpc_server.h"

namespace vswitch {
namespace {

struct Options {
  std::string run_dir = "/run/vswitch";
  std::string state_dir = "/var/lib/vswitch";
  std::vector<std::string> listen;
  bool detach = false;
  std::string pidfile;
  std::string log_level = "info";
  std::vector<std::string> lookup = {"shallow", "cache"};
  size_t max_masks = FlowTable::kMaxMasks;

  std::string socket() const { return run_dir + "/vswitchd.sock"; }
  std::string log_file() const { return run_dir + "/vswitchd.log"; }
  LookupOptions lookup_options() const {
    const auto named = [this](std::string_view way) {
      return std::find(lookup.begin(), lookup.end(), way) != lookup.end();
    };
    return {named("shallow"), named("cache"), max_masks};
  }
};

constexpr char kFooter[] = R"(
Examples:
  vswitchd                                 run in the foreground, log to standard error
  vswitchd --detach                        run in the background; returns when ready to serve, or with the error
  vswitchd --run-dir /tmp/a --state-dir /tmp/a --detach
                                           a second one beside it; reach it with
                                           vsctl --server unix:/tmp/a/vswitchd.sock show

Files:
  RUN_DIR/vswitchd.sock   the API (gRPC), for the daemon's user and group; vsctl, ofctl and dpctl look for it here
  RUN_DIR/vswitchd.pid    process id
  RUN_DIR/vswitchd.log    log, with --detach
  STATE_DIR               bridges, ports, rules and settings; they survive restarts and crashes

SIGTERM and SIGINT end it; devices it made stay, with their addresses, for the next start.
Exit status: 0 ended by a signal; 1 could not start, and says why; 2 wrong use.)";

void define_options(CLI::App& app, Options& options) {
  app.set_version_flag("--version,-V", std::string("vswitchd ") + VSWITCH_VERSION);
  app.add_option("--run-dir", options.run_dir, "Directory for the API socket and the pid file")->capture_default_str();
  app.add_option("--state-dir", options.state_dir, "Directory of the store")->capture_default_str();
  app.add_option("--listen", options.listen, "Serve the API at this address, too: unix:PATH. May be repeated");
  app.add_flag("--detach", options.detach, "Run in the background");
  app.add_option("--pidfile", options.pidfile, "Write the process id here rather than to RUN_DIR/vswitchd.pid");
  app.add_option("--log-level", options.log_level, "Say this much")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  app.add_option(
         "--lookup", options.lookup,
         "How packets may find their flows besides the flow table itself, to narrow down a fault:\n"
         "shallow (a batch at once, where no flow looks behind the Ethernet header or all headers are the same),\n"
         "cache, both, or none")
      ->delimiter(',')
      ->check(CLI::IsMember({"shallow", "cache", "none"}))
      ->default_str("shallow,cache")
      ->group("Finding faults");
  app.add_option("--max-masks", options.max_masks,
                 "Flow masks in the datapath; with fewer, more flows are installed under masks that look at more")
      ->check(CLI::Range(size_t{1}, FlowTable::kMaxMasks))
      ->capture_default_str()
      ->group("Finding faults");
  app.footer(kFooter);
}

void start_logging(const Options& options) {
  auto logger = spdlog::stderr_logger_mt("vswitchd");
  logger->set_level(spdlog::level::from_str(options.log_level));
  // Under systemd the journal adds time and name.
  bool journal = std::getenv("JOURNAL_STREAM") != nullptr;
  logger->set_pattern(journal ? "%l: %v" : "%Y-%m-%dT%H:%M:%S.%e vswitchd[%P] %l: %v");
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(logger);
}

// Every thread inherits the mask, so the signals wait for sigwait() below.
sigset_t block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return signals;
}

void wait_for_end(const sigset_t& signals) {
  int signal = 0;
  // A terminal that closes is no reason to stop forwarding when running as a daemon started from it.
  do {
    sigwait(&signals, &signal);
  } while (signal == SIGHUP);
  spdlog::info("ending on signal {}", signal);
}

Status run(const Options& options, Detach& detach) {
  sigset_t signals = block_signals();
  for (const std::string& address : options.listen) VSWITCH_RETURN_IF_ERROR(check_listen_address(address));
  VSWITCH_RETURN_IF_ERROR(make_directory(options.run_dir, 0755));
  VSWITCH_RETURN_IF_ERROR(make_directory(options.state_dir, 0750));
  Result<PidFile> pid_file =
      PidFile::create(options.pidfile.empty() ? options.run_dir + "/vswitchd.pid" : options.pidfile);
  if (!pid_file.ok()) return pid_file.status();

  SwitchOptions switch_options;
  switch_options.state_dir = options.state_dir;
  switch_options.lookup = options.lookup_options();
  Result<std::unique_ptr<Switch>> opened = Switch::open(switch_options);
  if (!opened.ok()) return opened.status();
  RpcServerOptions server_options;
  server_options.socket = options.socket();
  server_options.listen = options.listen;
  server_options.version = VSWITCH_VERSION;
  Result<std::unique_ptr<RpcServer>> server = RpcServer::start(**opened, server_options);
  if (!server.ok()) return server.status();

  VSWITCH_RETURN_IF_ERROR(detach.ready(options.log_file()));
  notify_service_manager("READY=1\nSTATUS=serving unix:" + options.socket());
  spdlog::info("vswitchd {} serves unix:{}", VSWITCH_VERSION, options.socket());
  wait_for_end(signals);
  notify_service_manager("STOPPING=1");
  (*server)->shutdown();
  return {};
}

// Loading rules takes long lists for a moment. Left alone, the library learns from that to take such lists from arenas,
// and to keep several megabytes in each when they are gone: a fifth more for each of 100,000 rules.
void give_back_large_blocks() {
  constexpr int kLarge = 512 * 1024;
  mallopt(M_MMAP_THRESHOLD, kLarge);
  mallopt(M_TRIM_THRESHOLD, kLarge);
}

// --detach changes to /, so what is relative must be made absolute first.
void make_absolute(Options& options) {
  for (std::string* path : {&options.run_dir, &options.state_dir, &options.pidfile}) {
    if (!path->empty()) *path = std::filesystem::absolute(*path).lexically_normal().string();
  }
}

}  // namespace
}  // namespace vswitch

int main(int argc, char** argv) {
  using namespace vswitch;
  Options options;
  CLI::App app(
      "vswitchd: the switch. Forwards packets between ports by rules, and serves the API that\n"
      "vsctl, ofctl, dpctl and other clients use.\n");
  define_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  make_absolute(options);
  give_back_large_blocks();
  Detach detach = options.detach ? Detach::start() : Detach::in_foreground();
  start_logging(options);
  Status status = run(options, detach);
  if (status.ok()) return 0;
  detach.fail(status.message());
  return 1;
}
