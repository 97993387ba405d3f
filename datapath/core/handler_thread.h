// HandlerThread: the slow path's thread: takes upcalls from the forwarding threads' queues, has flows set up for them
// (FlowSetup), and executes the packets, keeping the order within each flow.
//
// It also runs jobs for the control path (packet-out), so that only packet threads ever touch packets.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "datapath/core/flow_setup.h"
#include "datapath/core/idle_policy.h"
#include "datapath/core/packet_processor.h"
#include "datapath/core/progress.h"
#include "datapath/core/upcall_queue.h"
#include "datapath/core/wakeup.h"

namespace vswitch {

class HandlerThread {
 public:
  static constexpr size_t kPoolPackets = 2048;
  using Job = std::function<void(ThreadContext& ctx, ActionSink& sink)>;

  // `setup` outlives the thread.
  HandlerThread(size_t index, Ledger& ledger, FlowSetup& setup, const PortMap& ports, const Clock& clock,
                LookupOptions options);
  ~HandlerThread();

  Wakeup& wakeup() { return wakeup_; }

  // The queues to serve. Returns when the thread serves these and no longer looks at others. Control thread.
  void set_queues(std::vector<UpcallQueue*> queues);
  // Runs `job` on the thread and returns when it, and the sending of what it output, is done.
  void run_job(Job job) EXCLUDES(mutex_);

  const LookupCounters& counters() const;
  // False if the thread has been in one round for a second. One caller at a time.
  bool made_progress() { return progress_.alive(clock_.now()); }

 private:
  class Processor;
  void run();
  bool serve_queues();
  void run_jobs() EXCLUDES(mutex_);
  bool serve(UpcallQueue& queue);
  void leave_wakers_core();
  void drop_surplus(UpcallQueue& queue);
  void wait_for_work();
  bool sleep_until_signalled();
  bool has_work() EXCLUDES(mutex_);

  const Clock& clock_;
  HeapPacketPool pool_;
  ThreadContext ctx_;
  FlowSetup& setup_;
  Wakeup wakeup_;
  std::atomic<bool> stop_{false};
  Progress progress_;

  Mutex mutex_;
  CondVar job_done_;
  std::deque<Job> jobs_ GUARDED_BY(mutex_);
  uint64_t jobs_posted_ GUARDED_BY(mutex_) = 0;
  uint64_t jobs_done_ GUARDED_BY(mutex_) = 0;

  // The thread's own.
  std::vector<UpcallQueue*> queues_;
  // Less patient than who forwards: misses come in crowds, and others, who answer calls, have work on its core.
  IdlePolicy idle_policy_{std::chrono::milliseconds(1)};
  bool just_woken_ = false;
  Nanoseconds moved_at_{};
  std::unique_ptr<Processor> processor_;
  std::thread thread_;
};

}  // namespace vswitch
