// The megaflow table: flows with masks, no priorities. At most one flow matches any packet, as long as the installer keeps
// the promise that overlapping flows have the same actions (vswitchd's translation does: docs/architecture.md).
//
// Structure: one subtable per distinct mask; a subtable is a hash table over the masked words. FlowTable::lookup() is the
// only packet lookup; FlowCache, one per forwarding thread, stands in front of it.
//
// Thread safety: lookups are lock-free and run on registered RCU threads; the Flow they return is valid until that thread's
// next quiescent state. insert/remove/for_each take the table's own lock. Nothing on the lookup path allocates.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "datapath/actions/action.h"
#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "datapath/base/status.h"
#include "datapath/flow/flow_key.h"
#include "datapath/packet/ledger.h"
#include "datapath/packet/thread_context.h"

namespace vswitch {

// 128-bit identifier of a datapath flow (OVS "ufid"): a hash of masked key and mask, chosen by the installer or by the table.
struct Ufid {
  uint64_t high = 0, low = 0;
  auto operator<=>(const Ufid&) const = default;
  bool is_zero() const { return high == 0 && low == 0; }
};

struct FlowStats {
  uint64_t packets = 0;
  uint64_t bytes = 0;
  Nanoseconds used{};       // clock time of the last packet; 0: never used
  uint16_t tcp_flags = 0;   // all seen, or'ed
};

// A datapath flow: masked key + mask + actions + statistics.
class Flow {
 public:
  const Ufid& ufid() const { return ufid_; }
  // Expanded copies of the compact key and mask (for dumps and revalidation, not for the packet path).
  FlowKey key() const;  // masked
  FlowMask mask() const;
  // Valid until the reader's next quiescent state. Replaced as a whole by set_actions().
  const ActionList& actions() const { return *actions_.load(std::memory_order_acquire); }
  std::shared_ptr<const ActionList> shared_actions() const;  // REQUIRES: the table's lock or a reader thread

  FlowStats stats() const;  // sum over threads; any thread
  // Called by the thread `index` only, for its own slot.
  void count(size_t index, uint64_t packets, uint64_t bytes, Nanoseconds now, uint16_t tcp_flags);
  Nanoseconds created() const { return created_; }
  // Set once the flow is unlinked: caches must not use it any more.
  bool dead() const { return dead_.load(std::memory_order_acquire); }

  // Opaque to the datapath: what the installer hangs on the flow (vswitchd: what translation depended on). Set before
  // insertion, destroyed with the flow.
  std::shared_ptr<void> installer_data;

 private:
  friend class FlowTable;
  friend class FlowCache;
  friend struct FlowImplementation;  // flow_table.cc: layout of the compact key, statistics slots
  Flow() = default;
  Ufid ufid_;
  Nanoseconds created_{};
  std::atomic<const ActionList*> actions_{nullptr};
  std::atomic<bool> dead_{false};
};

class FlowTable {
 public:
  struct Counters {
    uint64_t flows = 0;
    uint64_t masks = 0;
  };

  explicit FlowTable(const Clock& clock, size_t max_flows = 1'000'000);
  ~FlowTable();
  FlowTable(const FlowTable&) = delete;
  FlowTable& operator=(const FlowTable&) = delete;

  // Null on a miss. *masks_visited (if given) is increased by the number of subtables probed. RCU readers only.
  Flow* lookup(const FlowKey& key, uint32_t* masks_visited = nullptr) const;

  // Inserts; `key` is masked by the table. already_exists if a flow with equal masked key and mask is there;
  // resource_exhausted at max_flows. A zero ufid is filled in.
  Result<Flow*> insert(const FlowKey& key, const FlowMask& mask, ActionList actions, Ufid ufid,
                       std::shared_ptr<void> installer_data);
  // Replaces the actions atomically; statistics go on. False if the flow is gone.
  bool set_actions(const Ufid& ufid, ActionList actions);
  // Unlinks; freed after a grace period. Returns the final statistics (those of packets in flight may still come: read again
  // through the returned pointer after rcu::synchronize() if exactness is needed), null if not there.
  std::shared_ptr<const Flow> remove(const Ufid& ufid);
  void clear();

  // Calls visit for every flow present throughout (others: maybe); stops when it returns false. Holds no lock while visiting
  // (RCU reader).
  void for_each(const std::function<bool(Flow&)>& visit) const;
  Flow* find(const Ufid& ufid) const;  // RCU readers, or while nothing is removed
  Counters counters() const;
  // Per mask: the mask, its number of flows and hits; for `dpctl show` and to explain masks.
  struct MaskInfo {
    FlowMask mask;
    size_t flows;
    uint64_t hits;
  };
  std::vector<MaskInfo> masks() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> impl_;
};

// The exact-match cache of one forwarding thread: remembers which flow a packet hash led to, and verifies by masked
// comparison with the flow's own key, so that a collision or a stale entry costs a lookup, never a wrong flow. Entries of
// removed flows are skipped through Flow::dead() and purged by the owner at its next quiescent state after the table's
// generation changed (they never outlive the grace period).
class FlowCache {
 public:
  static constexpr size_t kEntries = 8192;

  explicit FlowCache(const FlowTable& table);
  // `hash` is packet.rss_hash mixed with whatever else identifies the flow (in_port, recirc_id). Owner thread only.
  Flow* lookup(uint32_t hash, const FlowKey& key) const;
  void insert(uint32_t hash, Flow* flow);
  // Must be called by the owner before each rcu::quiescent(): forgets entries whose flow was removed since the last call.
  void purge_removed();

 private:
  struct Implementation;
  std::shared_ptr<Implementation> impl_;
};

}  // namespace vswitch
