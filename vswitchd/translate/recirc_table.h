// Recirculation: translation that stops in the middle and goes on when the packet comes through the datapath again.
//
// Some actions need the datapath to look at the packet anew before the rules can go on (what conntrack found, what
// stood behind a popped MPLS header). Translation then *freezes*: all it knows beside the packet becomes a FrozenState,
// which the RecircTable keeps under a number; the datapath gets recirc(number). The packet comes back as a miss that
// carries the number, and translation *thaws*: it takes the state up again and goes on with the rest of the actions.
//
// Equal states share a number, so translating a flow again gives equal actions. Whoever depends on a number (a flow
// that sends packets to it, a flow that matches it) holds the RecircContext; one that nobody holds lingers for
// kLinger, because packets may still be on their way to it, and goes at the next expire().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "datapath/flow/flow_key.h"
#include "vswitchd/rules/rule_tables.h"

namespace vswitch {

// An action that is still to be run, and the rule it stands in: packet-ins tell it, and a resubmit may be relative to
// the table.
struct FrozenAction {
  RuleAction action;
  uint8_t table = 0;
  uint64_t cookie = 0;
  bool operator==(const FrozenAction&) const = default;
};

// What translation knows beside the packet itself, when it stops.
struct FrozenState {
  std::string bridge;
  std::shared_ptr<RuleTables> tables;  // tells the bridge from a later one of the same name
  // Where to look the packet up. nullopt: nowhere; `actions` run, then the action set.
  std::optional<uint8_t> table;
  uint32_t in_port = 0;   // OpenFlow's, in `bridge`
  TunnelMetadata tunnel;  // as the rules see it; fields that no rule sees are zero
  be32 received_dst{};    // where the packet had been received by a tunnel, if it had
  Ipv6Address received_dst6;
  PipelineFields pipeline;
  std::vector<uint8_t> stack;
  std::vector<FrozenAction> actions;
  RuleActionList action_set;

  // The same bytes for equal states, others for others.
  std::string content() const;
};

struct RecircContext {
  uint32_t id = 0;  // never 0
  FrozenState state;
};
using RecircRef = std::shared_ptr<const RecircContext>;

// Thread safety: all functions from any thread.
class RecircTable {
 public:
  static constexpr size_t kMaxContexts = 65536;
  static constexpr Nanoseconds kLinger = std::chrono::seconds(1);

  explicit RecircTable(size_t max_contexts = kMaxContexts) : max_contexts_(max_contexts) {}

  // The context of an equal state, else a new one. Null when there are as many as there may be, all in use.
  RecircRef freeze(FrozenState state);
  // Null: never given out, or expired.
  RecircRef find(uint32_t id) const;
  // Forgets those that nobody has held for kLinger.
  void expire(Nanoseconds now);
  size_t size() const;

  // For traces, which must leave nothing behind: as freeze(), and forget() takes back what it made, unless somebody
  // else has got it by freeze() meanwhile. `context` must be the last reference that the trace holds.
  RecircRef freeze_for_trace(FrozenState state);
  void forget(RecircRef context);

 private:
  struct Entry {
    std::shared_ptr<const RecircContext> context;
    const std::string* content = nullptr;  // the key in by_content_
    std::optional<Nanoseconds> unused_since;
    bool trace_only = false;
  };
  using ById = std::unordered_map<uint32_t, Entry>;
  RecircRef freeze(FrozenState state, bool for_trace);
  uint32_t free_id() REQUIRES(mutex_);
  ById::iterator erase(ById::iterator it) REQUIRES(mutex_);
  void erase_unused() REQUIRES(mutex_);

  const size_t max_contexts_;
  mutable Mutex mutex_;
  ById by_id_ GUARDED_BY(mutex_);
  std::unordered_map<std::string, uint32_t> by_content_ GUARDED_BY(mutex_);
  uint32_t next_id_ GUARDED_BY(mutex_) = 1;
  bool full_ GUARDED_BY(mutex_) = false;  // nothing could be erased; do not look again before expire()
};

}  // namespace vswitch
