// Datapath flow text: how `dpctl dump-flows` and a trace's "Datapath actions:" write keys, masks and actions.
//
//   recirc_id(0),in_port(1),eth(src=..,dst=..),eth_type(0x0800),ipv4(dst=10.0.0.0/255.0.0.0,frag=no), packets:0,
//   bytes:0, used:never, actions:push_vlan(vid=10,pcp=0),2
//
// The spelling is Open vSwitch's (dpctl(8)), so that people and scripts that read one read the other. Fields that are
// not matched are left out; `verbose` prints every field of the headers that the flow has, with its mask. Port numbers
// are datapath port numbers.
//
// Thread safety: functions of their arguments only.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "datapath/actions/action.h"
#include "datapath/base/clock.h"
#include "datapath/flow/flow_key.h"

namespace vswitch {

struct DatapathTextOptions {
  bool verbose = false;  // dpctl dump-flows -m
  // Name of a datapath port, "" if it has none (its number is printed then). Empty function: numbers.
  std::function<std::string(uint32_t port_no)> port_name;
  // What stands inside userspace(pid=0,...) for an action, e.g. "controller(reason=1,...)": only whoever made the
  // cookie knows. Empty function: the reason in words.
  std::function<std::string(const UserspaceAction&)> describe_userspace;
};

// "recirc_id(0),in_port(1),eth(...),...": the key part. `mask` null: an exact match on the whole key.
std::string format_datapath_key(const FlowKey& key, const FlowMask* mask, const DatapathTextOptions& options = {});

// "set(ipv4(ttl=63)),2"; "drop" for a list that does nothing.
std::string format_datapath_actions(const ActionList& actions, const DatapathTextOptions& options = {});

struct DatapathFlowCounters {
  uint64_t packets = 0;
  uint64_t bytes = 0;
  std::optional<Nanoseconds> idle;  // since the last packet; absent: never used
  uint16_t tcp_flags = 0;           // seen so far
  bool kernel_path = false;         // the kernel forwards connections of it
};

// One line of dpctl dump-flows, without newline.
std::string format_datapath_flow(const FlowKey& key, const FlowMask& mask, const ActionList& actions,
                                 const DatapathFlowCounters& counters, const DatapathTextOptions& options = {});

}  // namespace vswitch
