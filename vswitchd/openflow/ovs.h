// libopenvswitch as vswitchd/openflow sees it: its public headers, and owners for what it allocates.
//
// Only files of this folder include this one. libopenvswitch is C and aborts when it is out of memory; its parsers and
// formatters keep no state between calls but tables that they fill once, under pthread_once, so they may run in any
// thread.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>

extern "C" {
// ofp-errors.h stands first because the other ofp-*.h use its types without including it.
// clang-format off
#include <openvswitch/ofp-errors.h>
#include <openvswitch/dynamic-string.h>
#include <openvswitch/flow.h>
#include <openvswitch/match.h>
#include <openvswitch/meta-flow.h>
#include <openvswitch/ofp-actions.h>
#include <openvswitch/ofp-flow.h>
#include <openvswitch/ofp-match.h>
#include <openvswitch/ofp-packet.h>
#include <openvswitch/ofp-parse.h>
#include <openvswitch/ofp-port.h>
#include <openvswitch/ofp-table.h>
#include <openvswitch/ofpbuf.h>
#include <openvswitch/vlog.h>
// clang-format on
}

#include "vswitchd/openflow/flow_text.h"

namespace vswitch::ovs {

// Silences libopenvswitch's own logging (to syslog and stderr): what is wrong with a request is said in its Status.
// Every entry of this folder calls it; only the first call does anything.
void initialize();

struct FreeMemory {
  void operator()(void* p) const { std::free(p); }
};
// What libopenvswitch returns from malloc: error messages (null is success), action lists.
template <typename T>
using Malloced = std::unique_ptr<T, FreeMemory>;
using ErrorText = Malloced<char>;

class DynamicString {
 public:
  DynamicString() { ds_init(&ds_); }
  ~DynamicString() { ds_destroy(&ds_); }
  DynamicString(const DynamicString&) = delete;
  DynamicString& operator=(const DynamicString&) = delete;
  ds* get() { return &ds_; }
  std::string str() const { return std::string(ds_.string ? ds_.string : "", ds_.length); }

 private:
  ds ds_;
};

// A series of ofpacts, built on the stack as long as it is short.
class Ofpacts {
 public:
  Ofpacts() { ofpbuf_use_stub(&buffer_, stub_, sizeof stub_); }
  ~Ofpacts() { ofpbuf_uninit(&buffer_); }
  Ofpacts(const Ofpacts&) = delete;
  Ofpacts& operator=(const Ofpacts&) = delete;
  ofpbuf* get() { return &buffer_; }
  ofpact* data() const { return static_cast<ofpact*>(buffer_.data); }
  size_t size() const { return buffer_.size; }

 private:
  ofpbuf buffer_;
  alignas(8) std::byte stub_[512];
};

// The flow_mod that a parse filled; frees what is inside.
struct FlowMod : ofputil_flow_mod {
  FlowMod() : ofputil_flow_mod() {}
  ~FlowMod() {
    std::free(ofpacts);
    if (has_match) minimatch_destroy(&match);
  }
  FlowMod(const FlowMod&) = delete;
  FlowMod& operator=(const FlowMod&) = delete;
  bool has_match = false;
};

}  // namespace vswitch::ovs

namespace vswitch {

struct FlowNames::Maps {
  Maps() {
    ofputil_port_map_init(&ports);
    ofputil_table_map_init(&tables);
  }
  ~Maps() {
    ofputil_port_map_destroy(&ports);
    ofputil_table_map_destroy(&tables);
  }
  Maps(const Maps&) = delete;
  Maps& operator=(const Maps&) = delete;
  ofputil_port_map ports;
  ofputil_table_map tables;
};

namespace ovs {
inline const ofputil_port_map* ports(const FlowNames* names) { return names ? &names->maps().ports : nullptr; }
inline const ofputil_table_map* tables(const FlowNames* names) { return names ? &names->maps().tables : nullptr; }
}  // namespace ovs

}  // namespace vswitch
