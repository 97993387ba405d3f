#include "cli/dpctl.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "cli/json_text.h"
#include "cli/ofctl_text.h"
#include "cli/session.h"

namespace vswitch::cli {
namespace {

const OptionSpec kNames = {"--names", "", "port names in place of numbers (default on a terminal)", ""};
const OptionSpec kNoNames = {"--no-names", "", "port numbers", ""};

constexpr char kCounters[] =
    "lookups: packets that found a flow (hit), that the rules were asked about (missed), and that were dropped because "
    "too many waited for that (lost). flows: how many there are, and how many went early to make room (evicted). "
    "masks: sets of fields that flows match on (total), how many were asked in all (hit) and by one packet on average "
    "(hit/pkt), and flows that match on more than they need as there are as many masks as there may be (narrowed). "
    "cache: packets whose flow was remembered, and what it forgot to make room (evicted). kernel path: connections "
    "that the kernel passes on by itself, the ports they use, and their packets (hit).";

const std::vector<Verb> kVerbs = {
    {"show",
     "",
     "Print counters and ports of the datapath",
     kCounters,
     "show\nshow -s",
     0,
     0,
     {{"--statistics", "", "with counters of each port", "-s"}},
     "Datapath"},
    {"stats", "", "Print counters of the datapath", kCounters, "stats --format json", 0, 0, {}, "Datapath"},
    {"dump-flows",
     "",
     "Print the flows: what the rules came to for the traffic there is",
     "A flow matches packets by some of their fields and says what becomes of them.",
     "dump-flows\ndump-flows -m --names",
     0,
     0,
     {{"--more", "", "every field, matched or not, and the flow's id", "-m"}, kNames, kNoNames},
     "Datapath"},
    {"del-flows", "", "Forget all flows; traffic brings them back", "", "del-flows", 0, 0, {}, "Datapath"},
    {"masks",
     "",
     "Print which sets of fields flows match on",
     "Each costs a lookup a probe, in this order, until one has the packet's flow. hits: lookups that it answered, "
     "without "
     "those that a cache did. A field that protocols share has one name: nw_src is arp_spa, too, and tp_src icmp_type.",
     "masks",
     0,
     0,
     {},
     "Datapath"},
    {"drops",
     "",
     "Print how many packets went nowhere, by port and reason",
     "Since the daemon started, those of ports that are gone included; a new port may get the number of one that is "
     "gone, "
     "and then has its counts, too.",
     "drops\ndrops --format json",
     0,
     0,
     {},
     "Accounting"},
    {"balance",
     "",
     "Print the books of each port: every packet in must be accounted for",
     "received + injected + copies = sent + consumed + dropped + queued. Exit status 1 if the books do not balance. "
     "They "
     "begin when the daemon starts; a new port goes on with those of a port that is gone if it gets its number.",
     "balance",
     0,
     0,
     {},
     "Accounting"},
    {"receive",
     "PORT HEX...",
     "Feed frames to a dummy port, as if they came in there",
     "",
     "receive p1 ffffffffffff0a0000000001080600010800060400010a00000000010a0000010000000000000a000002",
     2,
     kAnyNumber,
     {},
     "Tests"},
};

constexpr std::string_view kCt = "connection tracking is not supported in this version";
constexpr std::string_view kOneDatapath = "there is one datapath, which bridges share: use vsctl add-br and add-port";
const std::vector<std::pair<std::string_view, std::string_view>> kUnsupported = {
    {"dump-conntrack", kCt},  {"flush-conntrack", kCt}, {"ct-stats-show", kCt},   {"ct-bkts", kCt},
    {"ct-get-nconns", kCt},   {"ct-set-maxconns", kCt}, {"ct-get-maxconns", kCt}, {"add-dp", kOneDatapath},
    {"del-dp", kOneDatapath}, {"add-if", kOneDatapath}, {"del-if", kOneDatapath},
};

// ---------------------------------------------------------------- text

double ratio(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string counters_text(const v1::Datapath& dp) {
  uint64_t lookups = dp.hits() + dp.misses();
  std::string out = fmt::format("  lookups: hit:{} missed:{} lost:{}\n  flows: {} evicted:{}\n", dp.hits(), dp.misses(),
                                dp.lost(), dp.flows(), dp.evictions());
  out += fmt::format("  masks: hit:{} total:{} hit/pkt:{:.2f} narrowed:{}\n", dp.masks_visited(), dp.masks(),
                     ratio(dp.masks_visited(), lookups), dp.narrowed());
  out += fmt::format("  cache: hit:{} hit-rate:{:.2f}% evicted:{}\n", dp.cache_hits(),
                     100 * ratio(dp.cache_hits(), lookups), dp.cache_evictions());
  out += fmt::format("  kernel path: {} ports:{} connections:{} hit:{}\n", dp.kernel_path(), dp.kernel_path_ports(),
                     dp.kernel_path_connections(), dp.kernel_path_hits());
  return out;
}

std::string port_statistics_text(const v1::PortStatistics& s) {
  std::string out = fmt::format("    RX packets:{} errors:{} dropped:{} overruns:{} frame:{}\n", s.rx_packets(),
                                s.rx_errors(), s.rx_dropped(), s.rx_over_errors(), s.rx_frame_errors());
  out += fmt::format("    TX packets:{} errors:{} dropped:{} aborted:0 carrier:{}\n", s.tx_packets(), s.tx_errors(),
                     s.tx_dropped(), s.tx_carrier_errors());
  out += fmt::format("    collisions:{}\n    RX bytes:{}  TX bytes:{}\n", s.collisions(), s.rx_bytes(), s.tx_bytes());
  return out;
}

std::string port_text(const v1::Port& port) {
  std::string details;
  for (const auto& [key, value] : std::map<std::string, std::string>{port.options().begin(), port.options().end()}) {
    details += fmt::format("{}{}={}", details.empty() ? ": " : ", ", key, value);
  }
  std::string type = port.type() == "netdev" && details.empty() ? "" : fmt::format(" ({}{})", port.type(), details);
  return fmt::format("  port {}: {}{}\n", port.datapath_port(), base_name(port.name()), type);
}

// ---------------------------------------------------------------- verbs

int show(Job& job) {
  v1::Datapath dp;
  Outcome outcome = job.client.get_datapath({}, &dp);
  if (!outcome.ok) return job.finish(outcome);
  if (job.json) return inform({to_json(dp)});
  std::string out = "userspace@vswitch:\n" + counters_text(dp);
  for (const v1::Port& port : dp.ports()) {
    out += port_text(port);
    if (job.command.has("--statistics")) out += port_statistics_text(port.statistics());
  }
  return inform({out});
}

int stats(Job& job) {
  v1::GetDatapathRequest request;
  request.set_counters_only(true);
  v1::Datapath dp;
  Outcome outcome = job.client.get_datapath(request, &dp);
  if (!outcome.ok) return job.finish(outcome);
  return inform({job.json ? to_json(dp) : "userspace@vswitch:\n" + counters_text(dp)});
}

int dump_flows(Job& job) {
  v1::ListDatapathFlowsRequest request;
  request.set_verbose(job.command.has("--more"));
  request.set_names(job.command.has("--names") || (!job.command.has("--no-names") && isatty(STDOUT_FILENO) != 0));
  request.set_typed(job.json);
  v1::ListDatapathFlowsResponse all;
  Outcome outcome = job.client.list_datapath_flows(request, [&](v1::ListDatapathFlowsResponse& batch) {
    if (job.json) {
      all.MergeFrom(batch);
      return true;
    }
    for (const v1::DatapathFlow& flow : batch.flows()) fmt::print("{}\n", flow.text());
    return true;
  });
  if (outcome.ok && job.json) fmt::print("{}", to_json(all));
  return job.finish(outcome);
}

int del_flows(Job& job) {
  v1::DeleteDatapathFlowsResponse reply;
  Outcome outcome = job.client.delete_datapath_flows({}, &reply);
  if (outcome.ok && job.json) fmt::print("{}", to_json(reply));
  return job.finish(outcome);
}

int masks(Job& job) {
  v1::ListMasksResponse reply;
  Outcome outcome = job.client.list_masks({}, &reply);
  if (!outcome.ok) return job.finish(outcome);
  if (job.json) return inform({to_json(reply)});
  std::string out = fmt::format("{:>10}  {:>14}  fields\n", "flows", "hits");
  for (const v1::DatapathMask& mask : reply.masks()) {
    out += fmt::format("{:>10}  {:>14}  {}\n", mask.flows(), mask.hits(), fmt::join(mask.fields(), ","));
  }
  return inform({out});
}

std::string port_name_text(const std::string& resource, uint32_t number) {
  if (!resource.empty()) return std::string(base_name(resource));
  return number == 0 ? "-" : fmt::format("#{} (gone)", number);
}

int drops(Job& job) {
  v1::ListDropsResponse reply;
  Outcome outcome = job.client.list_drops({}, &reply);
  if (!outcome.ok) return job.finish(outcome);
  if (job.json) return inform({to_json(reply)});
  std::string out = fmt::format("{:<16} {:<26} {:>14}  meaning\n", "port", "reason", "packets");
  for (const v1::DropCount& drop : reply.drops()) {
    out += fmt::format("{:<16} {:<26} {:>14}  {}\n", port_name_text(drop.port(), drop.datapath_port()), drop.reason(),
                       drop.packets(), drop.description());
  }
  return inform({out});
}

bool balances(const v1::PortBalance& b) {
  return b.received() + b.injected() + b.copies() == b.sent() + b.consumed() + b.dropped() + b.queued();
}

int balance(Job& job) {
  v1::ListBalancesResponse reply;
  Outcome outcome = job.client.list_balances({}, &reply);
  if (!outcome.ok) return job.finish(outcome);
  bool good = std::all_of(reply.balances().begin(), reply.balances().end(), balances);
  if (job.json) {
    fmt::print("{}", to_json(reply));
  } else {
    fmt::print("{:<16} {:>12} {:>10} {:>10} {:>12} {:>10} {:>10} {:>8}  books\n", "port", "received", "injected",
               "copies", "sent", "consumed", "dropped", "queued");
    for (const v1::PortBalance& b : reply.balances()) {
      fmt::print("{:<16} {:>12} {:>10} {:>10} {:>12} {:>10} {:>10} {:>8}  {}\n",
                 port_name_text(b.port(), b.datapath_port()), b.received(), b.injected(), b.copies(), b.sent(),
                 b.consumed(), b.dropped(), b.queued(), balances(b) ? "balance" : "DO NOT BALANCE");
    }
  }
  return good ? kDone : kRefused;
}

int receive(Job& job) {
  v1::ReceiveOnDummyRequest request;
  request.set_port(job.argument(0));
  for (size_t i = 1; i < job.command.arguments.size(); ++i) {
    if (!parse_hex(job.argument(i), *request.add_frames())) {
      return complain(
          job.program,
          fmt::format("\"{}\" is no frame: an even number of hexadecimal digits is wanted", job.argument(i)), kUsage);
    }
  }
  v1::ReceiveOnDummyResponse reply;
  return job.finish(job.client.receive_on_dummy(request, &reply));
}

const Handlers kHandlers = {
    {"show", show},   {"stats", stats}, {"dump-flows", dump_flows}, {"del-flows", del_flows},
    {"masks", masks}, {"drops", drops}, {"balance", balance},       {"receive", receive},
};

}  // namespace

const Program kDpctl = {"dpctl",      "looks inside the datapath of vswitchd",
                        kVerbs,       kCommonOptions,
                        kUnsupported, "Exit status: 0 done; 1 refused, with the reason; 2 wrong use."};

int run_dpctl(std::span<const std::string> words) { return run_program(kDpctl, kHandlers, words); }

}  // namespace vswitch::cli
