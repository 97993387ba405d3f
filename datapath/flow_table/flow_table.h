// The megaflow table: flows with masks, no priorities. At most one flow matches any packet, as long as the installer
// keeps the promise that overlapping flows have the same actions (vswitchd's translation does: docs/architecture.md).
//
// Structure: one subtable per distinct mask; a subtable is a hash table over the masked words. FlowTable::lookup() is
// the only packet lookup; FlowCache (flow_cache.h), one per forwarding thread, stands in front of it.
//
// Bound: traffic cannot raise the cost of a lookup (CVE-2019-25076: packets crafted so that each needs a mask of its
// own). There are at most kMaxMasks masks and kOverflowMasks more that are so specific that any flow fits one of them.
// A flow that would need one mask too many is installed under a mask that is there and that looks at more: a subset of
// the packets that the flow could stand for, so always right, at the price of more flows.
//
// Thread safety: lookups are lock-free and run on registered RCU threads; the Flow they return is valid until that
// thread's next quiescent state. insert/remove/set_actions take the table's own lock. Nothing on the lookup path
// allocates.
//
// Cost: a lookup visits subtables until one has the flow (kMaxMasks + kOverflowMasks at most), so the order matters:
// rerank(), called now and then by the control thread, puts those first that were hit most. lookup_batch() overlaps the
// cache misses of several packets.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
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

class MaskPattern;  // which bits matter: shared by the flows of one mask
class FlowArena;    // where flows live

// The hot words of a key or a mask.
using HotWords = std::array<uint64_t, kHotWords>;

// Where a walk through all flows has got to: see FlowTable::visit(). Begins at the beginning.
struct FlowCursor {
  size_t size_class = 0, chunk = 0, flow = 0;
  bool at_begin() const { return (size_class | chunk | flow) == 0; }
};

// A datapath flow: masked key + mask + actions + statistics.
//
// Memory: flows are recycled, never given back while their table lives (FlowArena), so a cache may keep a pointer to a
// flow that is gone: it finds the flow dead, or another flow in its place, which then does not match, or does and is
// right. Laid out for lookups: what a packet needs is in the first two cache lines.
class alignas(64) Flow {
 public:
  Flow(const Flow&) = delete;
  Flow& operator=(const Flow&) = delete;

  const Ufid& ufid() const { return ufid_; }
  // Expanded copies of the compact key and mask (for dumps and revalidation, not for the packet path).
  FlowKey key() const;  // masked
  FlowMask mask() const;
  bool matches(const FlowKey& key) const;
  // The hot words of the masked key and of the mask, where they lie.
  const HotWords& hot_key() const { return hot_; }
  const HotWords& hot_mask() const;
  // Whether the masked key has one of these bits. Any thread, at any time: of a flow that is being made it says
  // anything.
  bool has_any_of(const HotWords& bits) const {
    uint64_t found = 0;
    for (size_t i = 0; i < kHotWords; ++i) found |= __atomic_load_n(&hot_[i], __ATOMIC_RELAXED) & bits[i];
    return found != 0;
  }
  // The hot words, a bit each, in which no packet of this flow agrees with `value` where `mask` has bits. 0: some
  // packet of the flow may (as far as the hot words tell).
  uint32_t disagreeing_words(const HotWords& value, const HotWords& mask) const;
  // Whether there are no such words: quicker to say than which they are.
  bool may_agree(const HotWords& value, const HotWords& mask) const;
  // Valid until the reader's next quiescent state. Replaced as a whole by set_actions().
  const ActionList& actions() const;
  std::shared_ptr<const ActionList> shared_actions() const;  // REQUIRES: the table's lock or a reader thread
  // An action list in the form in which it hangs on flows, with what follows from it worked out once: flows that are
  // treated alike may share one. Immutable; null: none.
  struct SharedActions;
  using ActionsRef = std::shared_ptr<const SharedActions>;
  static ActionsRef make_actions(ActionList actions);
  static const ActionList& list_of(const ActionsRef& actions);
  ActionsRef actions_ref() const;  // REQUIRES: the table's lock or a reader thread
  // Whether the flow's actions are these, or come to the same. REQUIRES: as actions().
  bool has_actions(const ActionsRef& actions) const;
  // What the actions come to, where that is so simple that nobody needs to look at them (which costs several lines of
  // memory that nothing else needs).
  class Shortcut {
   public:
    constexpr Shortcut() = default;
    explicit constexpr Shortcut(uint32_t value) : value_(value) {}
    static constexpr Shortcut output(uint32_t port_no) { return Shortcut(port_no); }
    static constexpr Shortcut drop(DropReason reason) { return Shortcut(kDrop | static_cast<uint32_t>(reason)); }
    constexpr bool none() const { return value_ == 0; }
    // The actions send the packet as it is to this port, and nothing else. 0: they do not.
    constexpr uint32_t port_no() const { return drops() ? 0 : value_; }
    // The actions drop the packet, for this reason, and nothing else.
    constexpr bool drops() const { return value_ >= kDrop; }
    constexpr DropReason reason() const { return static_cast<DropReason>(value_ & ~kDrop); }
    constexpr uint32_t value() const { return value_; }

   private:
    static constexpr uint32_t kDrop = 1u << 31;
    uint32_t value_ = 0;
  };
  Shortcut shortcut() const { return Shortcut(shortcut_.load(std::memory_order_relaxed)); }
  // Looking at the actions soon will be faster: first step, and second step some time after the first.
  void prefetch_actions() const { __builtin_prefetch(&actions()); }
  void prefetch_first_action() const { __builtin_prefetch(actions().data()); }

  FlowStats stats() const;  // sum over threads; any thread
  // Called by the thread `index` only, for its own slot. The first thread that counts has its slot in the flow; a
  // further one allocates a slot when it meets the flow for the first time (most flows are seen by one thread: RSS).
  void count(size_t index, uint64_t packets, uint64_t bytes, Nanoseconds now, uint16_t tcp_flags) {
    if (__builtin_expect(first_slot_.owner.load(std::memory_order_relaxed) == index, 1)) {
      first_slot_.add(packets, bytes, now, tcp_flags);
    } else {
      count_elsewhere(index, packets, bytes, now, tcp_flags);
    }
  }
  // The same for a thread that only sees the flow's first packets: it leaves the flow's own slot to the one that sees
  // the others, which then needs no further line of memory.
  void count_in_passing(size_t index, uint64_t packets, uint64_t bytes, Nanoseconds now, uint16_t tcp_flags);
  Nanoseconds created() const { return created_; }
  // Set once the flow is unlinked. Whoever found the flow other than by lookup (a cache) must ask first.
  bool dead() const { return !alive_.load(std::memory_order_seq_cst); }
  // The port that the actions send the packet to, as it is or with tunnel metadata that they set, doing nothing else.
  // 0: they do not. REQUIRES: as actions().
  uint32_t only_output() const;
  // The kernel path (core/kernel_connections.h). Whether all packets of a TCP or UDP connection over IP are the same to
  // the flow's mask (it looks at nothing that changes within one), and all are just sent to one port (only_output()).
  bool takes_connections_whole() const { return (kernel_path_.load(std::memory_order_relaxed) & kTakesWhole) != 0; }
  // Whether the kernel forwards, or did so lately, connections of this flow. Set by the kernel path before it lets the
  // kernel have the first, cleared when the last has been counted. Sequentially consistent, as is dead(): either who
  // removes or changes the flow sees the mark, or who sets the mark sees the change.
  bool in_kernel_path() const { return (kernel_path_.load(std::memory_order_seq_cst) & kInKernel) != 0; }
  void mark_in_kernel_path(bool yes) {
    if (yes) {
      kernel_path_.fetch_or(kInKernel, std::memory_order_seq_cst);
    } else {
      kernel_path_.fetch_and(static_cast<uint8_t>(~kInKernel), std::memory_order_seq_cst);
    }
  }
  void prefetch() const {
    __builtin_prefetch(&hot_);
    __builtin_prefetch(&pattern_);
  }

  // Opaque to the datapath: what the installer hangs on the flow (vswitchd: what translation depended on). Set before
  // insertion, destroyed with the flow.
  const std::shared_ptr<void>& installer_data() const { return installer_data_; }
  // Looking at the installer data's pointer soon will be faster.
  void prefetch_installer_data() const { __builtin_prefetch(&installer_data_); }
  // As opaque, but found without following a pointer: what the installer asks of every flow. Any thread.
  uint16_t installer_bits() const { return installer_bits_.load(std::memory_order_relaxed); }
  void set_installer_bits(uint16_t bits) { installer_bits_.store(bits, std::memory_order_relaxed); }

 private:
  friend class FlowTable;
  friend class FlowArena;
  friend struct FlowImplementation;  // flow.cc

  // Statistics of one thread, written by it only.
  struct Slot {
    static constexpr uint8_t kNobody = 0xff, kBorrowed = 0xfe;
    std::atomic<uint64_t> packets{0}, bytes{0};
    std::atomic<int64_t> used{0};
    std::atomic<uint16_t> tcp_flags{0};
    std::atomic<uint8_t> owner{kNobody};
    void add(uint64_t more_packets, uint64_t more_bytes, Nanoseconds now, uint16_t flags) {
      packets.store(packets.load(std::memory_order_relaxed) + more_packets, std::memory_order_relaxed);
      bytes.store(bytes.load(std::memory_order_relaxed) + more_bytes, std::memory_order_relaxed);
      used.store(now.count(), std::memory_order_relaxed);
      const uint16_t seen = tcp_flags.load(std::memory_order_relaxed);
      if ((flags & ~seen) != 0) tcp_flags.store(static_cast<uint16_t>(seen | flags), std::memory_order_relaxed);
    }
  };
  struct ExtraSlot;

  Flow() = default;
  ~Flow();
  void count_elsewhere(size_t index, uint64_t packets, uint64_t bytes, Nanoseconds now, uint16_t tcp_flags);
  Slot* slot_of(size_t index);
  void clear_statistics();
  const uint64_t* rest() const { return reinterpret_cast<const uint64_t*>(this + 1); }

  // First line: the masked hot words of the key.
  std::array<uint64_t, kHotWords> hot_{};
  // Second line.
  const MaskPattern* pattern_ = nullptr;  // with a reference
  std::atomic<const SharedActions*> actions_{nullptr};
  std::atomic<uint32_t> shortcut_{0};
  static constexpr uint8_t kTakesWhole = 1, kInKernel = 2;
  std::atomic<bool> alive_{false};
  std::atomic<uint8_t> kernel_path_{0};
  std::atomic<uint16_t> installer_bits_{0};
  Slot first_slot_;
  std::atomic<ExtraSlot*> more_slots_{nullptr};
  // Third line.
  Ufid ufid_;
  Nanoseconds created_{};
  ActionsRef actions_owner_;  // the table's lock
  std::shared_ptr<void> installer_data_;
  // The table's, and those that remove() gave out. The last one to go recycles the flow after a grace period.
  std::atomic<uint32_t> references_{0};
  uint32_t size_class_ = 0;  // of the arena
  // Behind the object: the masked words of the key that are not hot, as many as the pattern has.
};

class FlowTable {
 public:
  static constexpr size_t kMaxMasks = 32;
  static constexpr size_t kOverflowMasks = 4;

  struct Counters {
    uint64_t flows = 0;
    uint64_t masks = 0;
    uint64_t narrowed = 0;  // flows that were installed under another mask than they needed, because of kMaxMasks
  };

  // `max_masks`: 1 to kMaxMasks; the overflow masks come in addition.
  explicit FlowTable(const Clock& clock, size_t max_flows = 1'000'000, size_t max_masks = kMaxMasks);
  ~FlowTable();
  FlowTable(const FlowTable&) = delete;
  FlowTable& operator=(const FlowTable&) = delete;

  // Null on a miss. *masks_visited (if given) is increased by the number of subtables probed. RCU readers only.
  Flow* lookup(const FlowKey& key, uint32_t* masks_visited = nullptr) const;
  // The same for up to 32 keys at once, those whose bits are set in `wanted`: returns the bits of those found, with
  // flows[i] set for each.
  uint32_t find_batch(const FlowKey* const keys[], uint32_t wanted, Flow* flows[],
                      uint32_t* masks_visited = nullptr) const;
  // For any number of keys; flows[i] is null where keys[i] is a miss.
  void lookup_batch(const FlowKey* const keys[], size_t n, Flow* flows[], uint32_t* masks_visited = nullptr) const;

  // A flow to insert. `key` is a packet's whole key, masked by the table; the flow's mask is `mask` or, when there are
  // too many masks, one with more bits. A zero ufid is filled in.
  struct Insertion {
    enum class Refusal : uint8_t { none, full, exists, ufid_exists };
    const FlowKey* key;
    const FlowMask* mask;
    // The flow takes what these hold; of a flow that is refused, they keep it. The list is not null.
    Flow::ActionsRef* actions;
    std::shared_ptr<void>* installer_data;
    uint16_t installer_bits = 0;
    Ufid ufid;
    FlowStats stats;  // that it begins with: of the packet that it is inserted for
    // What came of it. `exists`: a flow with equal masked key and mask is there; `full`: there are max_flows.
    Flow* flow = nullptr;  // null: refused
    Refusal refusal = Refusal::none;
  };
  // Inserts in their order, as if one by one, but for the price of one lock.
  void insert(std::span<Insertion> flows);
  // Inserts one: already_exists, resource_exhausted.
  Result<Flow*> insert(const FlowKey& key, const FlowMask& mask, Flow::ActionsRef actions, Ufid ufid,
                       std::shared_ptr<void> installer_data, uint16_t installer_bits = 0);
  Result<Flow*> insert(const FlowKey& key, const FlowMask& mask, ActionList actions, Ufid ufid,
                       std::shared_ptr<void> installer_data, uint16_t installer_bits = 0) {
    return insert(key, mask, Flow::make_actions(std::move(actions)), ufid, std::move(installer_data), installer_bits);
  }
  // Replaces the actions atomically; statistics go on. False if the flow is gone.
  bool set_actions(const Ufid& ufid, ActionList actions);
  // The same for many flows that the caller, an RCU reader since, has found by visit(); those that are gone by now are
  // passed over. `actions` is not null; the lists that were there before are moved into it, and stay valid there for
  // who still runs them: the caller keeps them for a grace period (rcu::retire()).
  struct NewActions {
    Flow* flow;
    Flow::ActionsRef actions;
  };
  void set_actions(std::span<NewActions> flows);
  // The limit for further insertions; flows above it stay. Any thread.
  void set_max_flows(size_t max_flows);
  size_t max_flows() const;
  // So close to the limit that flows should be evicted now. Any thread; cheap.
  bool crowded() const;
  bool full() const;
  // Unlinks; freed after a grace period. Returns the final statistics (those of packets in flight may still come: read
  // again through the returned pointer after rcu::synchronize() if exactness is needed), null if not there.
  std::shared_ptr<const Flow> remove(const Ufid& ufid);
  void clear();

  // How many masks a lookup may have to visit. RCU readers.
  size_t mask_count() const { return mask_count_.load(std::memory_order_relaxed); }
  // Every flow of this port (and every flow of no particular port) is shallow in mask and actions: see shallow_key.h.
  bool only_shallow_flows(uint32_t in_port) const;

  // Sorts the subtables by their hits since the last call, older hits counting less. Control thread, about once a
  // second.
  void rerank();
  // Makes room for some thousand flows more than there are, so that who sets them up need not wait for memory. Control
  // thread, now and then.
  void prepare();
  // Rises whenever a flow is removed.
  uint64_t generation() const;

  // Calls visit for every flow present throughout (others: maybe); stops when it returns false. Holds no lock while
  // visiting (RCU reader: visit may not pass a quiescent state).
  void for_each(const std::function<bool(Flow&)>& visit) const;
  // The same in parts: looks at the next `most` places for flows, and moves the cursor on. False: that was the last of
  // them. Between two calls the caller may pass quiescent states, so a walk through all flows holds nobody up. In the
  // order of memory: as fast as it can be read. Flows whose masked key has one of the bits `without` are passed over,
  // which takes but their first line, and nobody writes to that.
  bool visit(FlowCursor& cursor, size_t most, const std::function<void(Flow&)>& visit,
             const HotWords& without = {}) const;
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
  class Drafts;
  static constexpr size_t kInsertTogether = 32;  // so many flows are inserted under one lock
  void insert_together(std::span<Insertion> flows);
  static constexpr size_t kSetTogether = 64;  // actions of so many flows are set under one lock
  std::atomic<size_t> mask_count_{0};
  std::unique_ptr<Implementation> impl_;
};

}  // namespace vswitch
