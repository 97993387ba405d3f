// Client: the daemon's API as the command-line programs use it. The only file of cli/ that sees gRPC is client.cc.
//
// Every call has a deadline; a daemon that is down is noticed at once. Thread-compatible.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "vswitch/v1/config_service.pb.h"
#include "vswitch/v1/datapath_service.pb.h"
#include "vswitch/v1/error.pb.h"
#include "vswitch/v1/packet_service.pb.h"
#include "vswitch/v1/rule_service.pb.h"

namespace vswitch::cli {

namespace v1 = ::vswitch::v1;

// How a call ended. `message` is one line for a person.
struct Outcome {
  bool ok = true;
  bool not_found = false;
  bool timed_out = false;  // the time given ended first
  std::string message;
  v1::ErrorDetails details;

  static Outcome error(std::string text) { return {false, false, false, std::move(text), {}}; }
};

// "" is the default: $VSWITCH_SERVER, else the socket of the default run directory.
std::string server_address(const std::string& option);

// X(name here, service, method, request, reply)
#define VSWITCH_UNARY_CALLS(X)                                                                   \
  X(get_version, ConfigService, GetVersion, GetVersionRequest, GetVersionResponse)               \
  X(get_configuration, ConfigService, GetConfiguration, GetConfigurationRequest, Configuration)  \
  X(list_bridges, ConfigService, ListBridges, ListBridgesRequest, ListBridgesResponse)           \
  X(get_bridge, ConfigService, GetBridge, GetBridgeRequest, Bridge)                              \
  X(list_ports, ConfigService, ListPorts, ListPortsRequest, ListPortsResponse)                   \
  X(get_port, ConfigService, GetPort, GetPortRequest, Port)                                      \
  X(get_settings, ConfigService, GetSettings, GetSettingsRequest, Settings)                      \
  X(apply, ConfigService, Apply, ApplyRequest, ApplyResponse)                                    \
  X(delete_rules, RuleService, DeleteRules, DeleteRulesRequest, DeleteRulesResponse)             \
  X(aggregate_rules, RuleService, AggregateRules, AggregateRulesRequest, AggregateRulesResponse) \
  X(list_tables, RuleService, ListTables, ListTablesRequest, ListTablesResponse)                 \
  X(trace, RuleService, Trace, TraceRequest, TraceResponse)                                      \
  X(list_macs, RuleService, ListMacs, ListMacsRequest, ListMacsResponse)                         \
  X(add_mac, RuleService, AddMac, AddMacRequest, AddMacResponse)                                 \
  X(delete_mac, RuleService, DeleteMac, DeleteMacRequest, DeleteMacResponse)                     \
  X(flush_macs, RuleService, FlushMacs, FlushMacsRequest, FlushMacsResponse)                     \
  X(send_packet, PacketService, SendPacket, PacketOut, SendPacketResponse)                       \
  X(get_datapath, DatapathService, GetDatapath, GetDatapathRequest, Datapath)                    \
  X(delete_datapath_flows, DatapathService, DeleteDatapathFlows, DeleteDatapathFlowsRequest,     \
    DeleteDatapathFlowsResponse)                                                                 \
  X(list_masks, DatapathService, ListMasks, ListMasksRequest, ListMasksResponse)                 \
  X(list_drops, DatapathService, ListDrops, ListDropsRequest, ListDropsResponse)                 \
  X(list_balances, DatapathService, ListBalances, ListBalancesRequest, ListBalancesResponse)     \
  X(receive_on_dummy, DatapathService, ReceiveOnDummy, ReceiveOnDummyRequest, ReceiveOnDummyResponse)

class Client {
 public:
  // `server` is "unix:PATH". `timeout` 0: the default, 30 s, and ten times that for loads and dumps.
  Client(std::string server, std::chrono::milliseconds timeout);
  ~Client();

#define VSWITCH_DECLARE(name, service, method, request_type, reply_type) \
  Outcome name(const v1::request_type& request, v1::reply_type* reply);
  VSWITCH_UNARY_CALLS(VSWITCH_DECLARE)
#undef VSWITCH_DECLARE

  // Streams of replies; a visit that returns false ends the call, which then is ok.
  Outcome list_rules(const v1::ListRulesRequest& request, const std::function<bool(v1::ListRulesResponse&)>& visit);
  Outcome list_datapath_flows(const v1::ListDatapathFlowsRequest& request,
                              const std::function<bool(v1::ListDatapathFlowsResponse&)>& visit);
  // Without deadline unless a timeout was given.
  Outcome watch(const v1::WatchRequest& request, const std::function<bool(v1::WatchResponse&)>& visit);
  Outcome receive_packets(const std::string& bridge, const std::function<bool(v1::PacketIOResponse&)>& visit);
  // Sends what next() fills while it returns `more`. After `abandon` nothing of it takes effect; the outcome then is an
  // error.
  enum class Next { more, end, abandon };
  Outcome load_rules(const std::function<Next(v1::LoadRulesRequest&)>& next, v1::LoadRulesResponse* reply);

  const std::string& server() const { return server_; }

 private:
  struct Implementation;
  std::string server_;
  std::chrono::milliseconds timeout_;
  std::unique_ptr<Implementation> impl_;
};

}  // namespace vswitch::cli
