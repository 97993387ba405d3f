// The megaflow table: flows with masks, no priorities. At most one flow matches any packet, as long as the installer
// keeps the promise that overlapping flows have the same actions (vswitchd's translation does: docs/architecture.md).
//
// Structure: one subtable per distinct mask; a subtable is a hash table over the masked words. FlowTable::lookup() is
// the only packet lookup; FlowCache, one per forwarding thread, stands in front of it.
//
// Thread safety: lookups are lock-free and run on registered RCU threads; the Flow they return is valid until that
// thread's next quiescent state. insert/remove/set_actions take the table's own lock. Nothing on the lookup path
// allocates.
//
// Cost: a lookup visits subtables until one has the flow, so the order matters: rerank(), called now and then by the
// control thread, puts those first that were hit most. lookup_batch() overlaps the cache misses of several packets.
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

// 128-bit identifier of a datapath flow (OVS "ufid"): a hash of masked key and mask, chosen by the installer or by the
// table.
struct Ufid {
  uint64_t high = 0, low = 0;
  auto operator<=>(const Ufid&) const = default;
  bool is_zero() const { return high == 0 && low == 0; }
};

struct FlowStats {
  uint64_t packets = 0;
  uint64_t bytes = 0;
  Nanoseconds used{};      // clock time of the last packet; 0: never used
  uint16_t tcp_flags = 0;  // all seen, or'ed
};

// Which bits matter, as a list of the words of the key that have any. One per subtable, shared by its flows.
struct MaskPattern;

// A datapath flow: masked key + mask + actions + statistics.
class Flow {
 public:
  Flow(const Flow&) = delete;
  Flow& operator=(const Flow&) = delete;

  const Ufid& ufid() const { return ufid_; }
  // Expanded copies of the compact key and mask (for dumps and revalidation, not for the packet path).
  FlowKey key() const;  // masked
  FlowMask mask() const;
  bool matches(const FlowKey& key) const;
  // Valid until the reader's next quiescent state. Replaced as a whole by set_actions().
  const ActionList& actions() const;
  std::shared_ptr<const ActionList> shared_actions() const;  // REQUIRES: the table's lock or a reader thread

  FlowStats stats() const;  // sum over threads; any thread
  // Called by the thread `index` only, for its own slot. The first thread that counts has its slot in the flow; a
  // further one allocates a slot when it meets the flow for the first time (most flows are seen by one thread: RSS).
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
  friend struct FlowImplementation;  // flow.cc: allocation with the key's words behind the object

  // An action list that can give out references to itself.
  struct SharedActions;
  // Statistics of one thread, written by it only.
  struct Slot {
    static constexpr uint8_t kNobody = 0xff;
    std::atomic<uint64_t> packets{0}, bytes{0};
    std::atomic<int64_t> used{0};
    std::atomic<uint16_t> tcp_flags{0};
    std::atomic<uint8_t> owner{kNobody};
    void add(uint64_t more_packets, uint64_t more_bytes, Nanoseconds now, uint16_t flags);
  };
  struct ExtraSlot;

  Flow() = default;
  ~Flow();
  Slot* slot_of(size_t index);
  const uint64_t* values() const { return reinterpret_cast<const uint64_t*>(this + 1); }
  // The table and caches hold references. The last one to go frees the flow after a grace period.
  void ref() { references_.fetch_add(1, std::memory_order_relaxed); }
  void unref();

  Ufid ufid_;
  Nanoseconds created_{};
  std::shared_ptr<const MaskPattern> pattern_;
  std::shared_ptr<const SharedActions> actions_owner_;  // the table's lock
  std::atomic<const SharedActions*> actions_{nullptr};
  std::atomic<uint32_t> references_{1};
  std::atomic<bool> dead_{false};
  Slot first_slot_;
  std::atomic<ExtraSlot*> more_slots_{nullptr};
  // Behind the object: the masked words of the key, as many as the pattern has.
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
  // The same for n keys at once; flows[i] is null where keys[i] is a miss.
  void lookup_batch(const FlowKey* const keys[], size_t n, Flow* flows[], uint32_t* masks_visited = nullptr) const;

  // Inserts; `key` is masked by the table. already_exists if a flow with equal masked key and mask is there;
  // resource_exhausted at max_flows. A zero ufid is filled in.
  Result<Flow*> insert(const FlowKey& key, const FlowMask& mask, ActionList actions, Ufid ufid,
                       std::shared_ptr<void> installer_data);
  // Replaces the actions atomically; statistics go on. False if the flow is gone.
  bool set_actions(const Ufid& ufid, ActionList actions);
  // The limit for further insertions; flows above it stay. Any thread.
  void set_max_flows(size_t max_flows);
  // Unlinks; freed after a grace period. Returns the final statistics (those of packets in flight may still come: read
  // again through the returned pointer after rcu::synchronize() if exactness is needed), null if not there.
  std::shared_ptr<const Flow> remove(const Ufid& ufid);
  void clear();

  // Sorts the subtables by their hits since the last call, older hits counting less. Control thread, about once a
  // second.
  void rerank();
  // Rises whenever a flow is removed.
  uint64_t generation() const;

  // Calls visit for every flow present throughout (others: maybe); stops when it returns false. Holds no lock while
  // visiting (RCU reader: visit may not pass a quiescent state).
  void for_each(const std::function<bool(Flow&)>& visit) const;
  Flow* find(const Ufid& ufid) const;  // RCU readers, or while nothing is removed
  Counters counters() const;
  size_t memory_bytes() const;  // of flows and tables; actions and installer data not included
  // Per mask, in the order of lookup: the mask, its number of flows and lookups that it answered (not those that a
  // cache did; approximate under load); for `dpctl show` and to explain masks.
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
// comparison with the flow's own key, so that a collision or a stale entry costs a lookup, never a wrong flow. An entry
// keeps its flow alive, so a removed flow (skipped through Flow::dead()) may stay in memory until purge_removed() comes
// by it.
//
// 2-way set associative. Owner thread only; the owner is an RCU reader.
class FlowCache {
 public:
  static constexpr size_t kEntries = 8192;

  explicit FlowCache(const FlowTable& table);
  ~FlowCache();
  FlowCache(FlowCache&&) noexcept;
  FlowCache& operator=(FlowCache&&) noexcept;

  // `hash` is packet.rss_hash mixed with whatever else identifies the flow (in_port, recirc_id).
  Flow* lookup(uint32_t hash, const FlowKey& key) const;
  void insert(uint32_t hash, Flow* flow);
  // To be called by the owner once per loop iteration: looks through a part of the cache for removed flows, if any flow
  // was removed since the last time it got through the whole of it. Nothing to do: a comparison of two numbers.
  void purge_removed();

 private:
  struct Implementation;
  std::unique_ptr<Implementation> impl_;
};

}  // namespace vswitch
