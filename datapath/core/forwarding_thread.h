// ForwardingThread: owns receive sources; polls while there is traffic, sleeps in epoll when there is none.
//
// Its sources come as an immutable list, published by the datapath; a source is on one thread's list at a time. The
// thread looks at the list once per round, so adding or removing a port stops nobody. What missed goes to its
// UpcallQueue, or is answered here while the thread helps (help_policy.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/core/flow_setup.h"
#include "datapath/core/idle_policy.h"
#include "datapath/core/packet_processor.h"
#include "datapath/core/progress.h"
#include "datapath/core/upcall_queue.h"
#include "datapath/core/wakeup.h"
#include "datapath/vport/vport.h"

namespace vswitch {

using SourceList = std::vector<std::shared_ptr<RxSource>>;

// Where packets wait for the slow path, so that they take no buffers that receiving needs: pools of its own, with small
// buffers (nearly all packets that begin a flow are small) and a few for whole frames. Memory is touched only as it is
// used. Thread safety: as a PacketPool's.
class WaitingRoom {
 public:
  WaitingRoom();
  void claim();
  // The packet itself, as long as few wait (`in_place` of them in their own buffers), else a copy; *is_in_place tells
  // which. Null, and `packet` untouched, when there is no room.
  PacketPtr admit(PacketPtr& packet, size_t in_place, bool* is_in_place);

 private:
  // Packets that wait in the buffers that they were received into: at most so many, and such a part of their pool.
  static constexpr size_t kInPlace = 1024, kInPlaceShare = 8;
  static constexpr size_t kSmallBuffer = 512, kFrames = 8192;
  HeapPacketPool small_, frames_;
};

class ForwardingThread {
 public:
  // Frames of up to 64 kB (GSO) fit; memory is touched only as it is used.
  static constexpr size_t kPoolPackets = 8192;

  // `index`: the thread's slot in per-thread statistics; `ledger` and `setup` outlive the thread. `handler_wakeup` is
  // signalled when the upcall queue has something. `sampler`: of this thread only.
  ForwardingThread(size_t index, Ledger& ledger, FlowSetup& setup, const PortMap& ports, const Clock& clock,
                   Wakeup& handler_wakeup, LookupOptions options, std::unique_ptr<ConnectionSampler> sampler);
  ~ForwardingThread();  // stops the thread; the handler must not use upcalls() any more

  // Publishes the list of sources to poll. Control thread. The old list is freed after a grace period. `renew`: the
  // descriptor of a source that stays may be another one, even if it has the same number.
  void set_sources(SourceList sources, bool renew);
  const SourceList& sources() const { return sources_.load(std::memory_order_acquire)->sources; }  // control thread

  UpcallQueue& upcalls() { return upcalls_; }
  ConnectionSampler* sampler() { return sampler_.get(); }
  const LookupCounters& counters() const;
  uint64_t cache_evictions() const;
  // False if the thread has been in one round for a second. One caller at a time.
  bool made_progress() { return progress_.alive(clock_.now()); }

 private:
  class Processor;
  // Stays at its index of polled_, which is what epoll gives back.
  struct PolledSource {
    std::shared_ptr<RxSource> source;  // null: free
    bool hot = false;                  // had packets when last polled
    int watched_fd = -1;               // with epoll
    uint64_t listed = 0;               // generation of the last list that had it
    uint64_t awake = 0;                // sleeps_ when this last had packets
  };

  // The address of a list does not identify it: while the thread sleeps, the list it adopted may be freed and a new one
  // take its place in memory.
  struct Published {
    uint64_t generation = 0;
    uint64_t renewals = 0;  // lists so far that were published with `renew`
    SourceList sources;
  };

  void run();
  void adopt_sources(const Published& published);
  void start_watching_anew();
  void watch_wakeup();
  void watch(size_t slot);
  size_t take_slot(const std::shared_ptr<RxSource>& source);
  bool poll_round();
  void book_received(const PacketBatch& batch);
  void mark_ready(int timeout_ms);
  bool nothing_waits();
  bool idle_for_long(int rounds) const;
  void wait_for_packets();
  bool look_on();
  void give_way();
  void sleep_until_ready();

  const Clock& clock_;
  HeapPacketPool pool_;
  WaitingRoom waiting_room_;
  ThreadContext ctx_;
  UpcallQueue upcalls_;
  Wakeup wakeup_;
  std::atomic<const Published*> sources_;
  std::atomic<bool> stop_{false};
  Progress progress_;

  const std::unique_ptr<ConnectionSampler> sampler_;

  // The thread's own.
  std::unique_ptr<Processor> processor_;
  uint64_t adopted_ = 0;  // generation
  uint64_t adopted_renewals_ = 0;
  std::vector<PolledSource> polled_;
  IdlePolicy idle_policy_;
  uint64_t sleeps_ = 1;  // one more than that
  Nanoseconds busy_at_{};
  Nanoseconds last_ready_check_{}, sharing_core_until_{};
  int looks_ = 0;          // since then, while idle
  bool some_cold_ = true;  // as of the last round: some source is not hot, so epoll may have news
  std::unordered_map<const RxSource*, size_t> slots_;  // of polled_
  std::vector<size_t> free_slots_;
  UniqueFd epoll_;
  size_t always_ready_ = 0;

  std::thread thread_;
};

}  // namespace vswitch
