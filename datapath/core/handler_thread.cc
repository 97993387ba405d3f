#include "datapath/core/handler_thread.h"

#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <span>
#include <utility>

#include "datapath/base/rcu.h"
#include "datapath/base/thread_heap.h"
#include "datapath/base/thread_name.h"
#include "datapath/core/leave_core.h"
#include "datapath/flow/extract.h"

namespace vswitch {
namespace {

// Upcalls handled together; then their packets are sent, and the thread passes a quiescent state and looks for other
// work.
constexpr size_t kTogether = SetupBatch::kMost;

}  // namespace

class HandlerThread::Processor final : public PacketProcessor {
 public:
  Processor(ThreadContext& ctx, FlowSetup& setup, const PortMap& ports, LookupOptions options)
      : PacketProcessor(ctx, setup.flows(), ports, options), setup_(setup), misses_(setup) {
    for (size_t i = 0; i < kTogether; ++i) key_pointers_[i] = &keys_[i];
  }

  // Up to kTogether upcalls, in their order, except that what is to be sent is collected until flush(). Tells `queue`,
  // which they come from.
  void handle(std::span<Upcall> batch, UpcallQueue& queue) {
    const uint32_t missed = extract(batch);
    // An earlier upcall may have installed the flow meanwhile.
    const uint32_t known = setup_.flows().find_batch(key_pointers_.data(), missed, found_.data());
    queue.handled(static_cast<size_t>(std::popcount(missed)), static_cast<size_t>(std::popcount(known)));
    for (size_t from = 0, end = 0; from < batch.size(); from = end) {
      end = end_of_run(batch, from);
      set_up(batch, from, end, missed & ~known);
      for (size_t i = from; i < end; ++i) {
        if (batch[i].packet == nullptr) continue;
        execute(batch[i], i, known);
        process_recirculated();
      }
    }
    misses_.clear();  // nothing of the translations is kept alive while the thread sleeps
  }
  void finish_job() {
    process_recirculated();
    flush();
  }
  void count_lost() { counters_.lost.add(); }

  void userspace(ThreadContext&, const UserspaceAction& action, PacketPtr packet) override {
    FlowKey key;
    if (!extract_flow_key(*packet, key)) {
      ctx_.drop(std::move(packet), DropReason::userspace_action_error);
      return;
    }
    if (action.reason == UserspaceReason::slow_path) {
      setup_.answer(ctx_, *this, key, std::move(packet));
      return;
    }
    UpcallHandler* handler = setup_.handler();
    const std::optional<DropReason> refused =
        handler != nullptr ? handler->controller(action, key, *packet) : DropReason::upcall_error;
    if (refused) {
      ctx_.drop(std::move(packet), *refused);
    } else {
      ctx_.ledger.port(packet->in_port).consumed.add();
    }
  }

 protected:
  // After recirculation on this thread: translated here and now, behind nobody.
  void miss(PacketPtr packet, const FlowKey& key, uint32_t) override {
    setup_.answer(ctx_, *this, key, std::move(packet));
  }
  bool any_must_wait() const override { return false; }
  bool must_wait(uint32_t) const override { return false; }

 private:
  // A bit for each packet that missed and has a key.
  uint32_t extract(std::span<Upcall> batch) {
    // The forwarding thread has touched them last, on another core.
    for (const Upcall& upcall : batch) __builtin_prefetch(upcall.packet->data());
    uint32_t missed = 0;
    for (size_t i = 0; i < batch.size(); ++i) {
      if (batch[i].kind != Upcall::Kind::miss) continue;
      if (extract_flow_key(*batch[i].packet, keys_[i])) {
        missed |= uint32_t{1} << i;
      } else {
        ctx_.drop(std::move(batch[i].packet), DropReason::rx_invalid_packet);
      }
    }
    return missed;
  }

  // Misses are answered together as far as the next action upcall, for which a packet may have to be translated, too:
  // translation sees them all in their order.
  static size_t end_of_run(std::span<const Upcall> batch, size_t from) {
    while (from < batch.size() && batch[from].kind == Upcall::Kind::miss) ++from;
    return std::min(from + 1, batch.size());
  }

  // `unknown`: a bit for each that has no flow yet.
  void set_up(std::span<const Upcall> batch, size_t from, size_t end, uint32_t unknown) {
    for (size_t i = from; i < end; ++i) {
      if ((unknown >> i & 1) != 0) numbers_[i] = misses_.add(ctx_, keys_[i], *batch[i].packet);
    }
    misses_.install();
  }

  void execute(Upcall& upcall, size_t i, uint32_t known) {
    if (upcall.kind == Upcall::Kind::action) {
      userspace(ctx_, upcall.action, std::move(upcall.packet));
    } else if ((known >> i & 1) != 0) {
      FlowSetup::execute(ctx_, *this, *found_[i], keys_[i], std::move(upcall.packet));
    } else {
      misses_.execute(numbers_[i], ctx_, *this, std::move(upcall.packet));
    }
  }

  FlowSetup& setup_;
  // Of the batch being handled.
  std::array<FlowKey, kTogether> keys_;
  std::array<const FlowKey*, kTogether> key_pointers_;
  std::array<Flow*, kTogether> found_;
  SetupBatch misses_;
  std::array<size_t, kTogether> numbers_;  // in misses_
};

HandlerThread::HandlerThread(size_t index, Ledger& ledger, FlowSetup& setup, const PortMap& ports, const Clock& clock,
                             LookupOptions options)
    : clock_(clock),
      pool_(HeapPacketPool::kSuperFrameBuffer, kPoolPackets),
      ctx_{index, pool_, ledger, clock.now()},
      setup_(setup),
      processor_(std::make_unique<Processor>(ctx_, setup, ports, options)),
      thread_([this] { run(); }) {}

HandlerThread::~HandlerThread() {
  stop_.store(true, std::memory_order_release);
  wakeup_.signal();
  thread_.join();
}

const LookupCounters& HandlerThread::counters() const { return processor_->counters(); }

void HandlerThread::set_queues(std::vector<UpcallQueue*> queues) {
  run_job([this, queues = std::move(queues)](ThreadContext&, ActionSink&) mutable { queues_ = std::move(queues); });
}

void HandlerThread::run_job(Job job) {
  rcu::Offline offline;  // the job may itself wait for a grace period
  MutexLock lock(mutex_);
  jobs_.push_back(std::move(job));
  const uint64_t mine = ++jobs_posted_;
  wakeup_.signal();
  while (jobs_done_ < mine) job_done_.wait(mutex_);
}

void HandlerThread::run() {
  name_this_thread("handler");
  prepare_thread_heap();
  pool_.claim();
  rcu::ThreadRegistration registration;
  while (!stop_.load(std::memory_order_acquire)) {
    ctx_.now = clock_.now();
    const bool any = serve_queues();
    just_woken_ = false;
    run_jobs();
    progress_.round();
    processor_->before_quiescent();
    rcu::quiescent();
    if (any) idle_policy_.found(ctx_.now);
    if (!any) wait_for_work();
  }
  run_jobs();
}

bool HandlerThread::serve_queues() {
  bool any = false;
  for (UpcallQueue* queue : queues_) {
    any = serve(*queue) || any;
    drop_surplus(*queue);
  }
  if (any) setup_.report_crowd();
  return any;
}

bool HandlerThread::serve(UpcallQueue& queue) {
  std::array<Upcall, kTogether> batch;
  std::array<UpcallQueue::Ticket, kTogether> tickets;
  const size_t n = queue.take(batch);
  if (n == 0) return false;
  if (n == kTogether) leave_wakers_core();
  for (size_t i = 0; i < n; ++i) {
    tickets[i] = UpcallQueue::ticket_of(batch[i]);
    ctx_.ledger.port(tickets[i].in_port).dequeued.add();
  }
  processor_->handle({batch.data(), n}, queue);
  // Sent before they count as done: later packets of the flows may take the fast path from then on.
  processor_->flush();
  queue.done({tickets.data(), n});
  return true;
}

// Once after it was woken, and not again and again: where the others are busy, too, there is nothing to gain.
void HandlerThread::leave_wakers_core() {
  constexpr Nanoseconds kBetweenMoves = std::chrono::milliseconds(10);
  if (!std::exchange(just_woken_, false) || sched_getcpu() != wakeup_.waker_core()) return;
  if (moved_at_ != Nanoseconds{} && ctx_.now - moved_at_ < kBetweenMoves) return;
  moved_at_ = ctx_.now;
  leave_core(wakeup_.waker_core());
}

void HandlerThread::drop_surplus(UpcallQueue& queue) {
  Upcall upcall;
  while (queue.take_surplus(upcall)) {
    const uint32_t in_port = upcall.packet->in_port;
    ctx_.ledger.port(in_port).dequeued.add();
    processor_->count_lost();
    ctx_.drop(std::move(upcall.packet), DropReason::upcall_queue_full);
    queue.done(in_port, upcall.bucket, upcall.in_place);
  }
}

void HandlerThread::run_jobs() {
  std::deque<Job> jobs;
  {
    MutexLock lock(mutex_);
    jobs.swap(jobs_);
  }
  if (jobs.empty()) return;
  for (const Job& job : jobs) {
    job(ctx_, *processor_);
    processor_->finish_job();
  }
  MutexLock lock(mutex_);
  jobs_done_ += jobs.size();
  job_done_.notify_all();
}

bool HandlerThread::has_work() {
  for (const UpcallQueue* queue : queues_) {
    if (!queue->empty()) return true;
  }
  MutexLock lock(mutex_);
  return !jobs_.empty() || stop_.load(std::memory_order_acquire);
}

// When misses come one after another, each would otherwise be waited for asleep, and wake the thread. Looking on leaves
// the core to others who have something to do on it.
void HandlerThread::wait_for_work() {
  if (idle_policy_.look_again(ctx_.now)) {
    ::sched_yield();
    return;
  }
  if (!sleep_until_signalled()) return;
  idle_policy_.slept();
  just_woken_ = true;
}

// False: there was something to do all the same.
bool HandlerThread::sleep_until_signalled() {
  wakeup_.clear();
  if (has_work()) return false;  // came between the last look and the clear
  progress_.sleeping(true);
  {
    rcu::Offline offline;
    pollfd fd{wakeup_.fd(), POLLIN, 0};
    poll(&fd, 1, -1);
  }
  progress_.sleeping(false);
  return true;
}

}  // namespace vswitch
