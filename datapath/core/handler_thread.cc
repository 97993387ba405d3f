#include "datapath/core/handler_thread.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <span>
#include <utility>

#include "datapath/base/rcu.h"
#include "datapath/base/thread_name.h"
#include "datapath/flow/extract.h"

namespace vswitch {
namespace {

// Upcalls handled together; then their packets are sent, and the thread passes a quiescent state and looks for other
// work.
constexpr size_t kTogether = 32;

}  // namespace

class HandlerThread::Processor final : public PacketProcessor {
 public:
  Processor(ThreadContext& ctx, FlowSetup& setup, const PortMap& ports, LookupOptions options)
      : PacketProcessor(ctx, setup.flows(), ports, options), setup_(setup) {
    for (size_t i = 0; i < kTogether; ++i) key_pointers_[i] = &keys_[i];
    fresh_.reserve(kTogether);
  }

  // Up to kTogether upcalls, in their order, except that what is to be sent is collected until flush(). Tells `queue`,
  // which they come from.
  void handle(std::span<Upcall> batch, UpcallQueue& queue) {
    const uint32_t missed = extract(batch);
    std::array<Flow*, kTogether> found;
    // An earlier upcall may have installed the flow meanwhile.
    const uint32_t known = setup_.flows().find_batch(key_pointers_.data(), missed, found.data());
    queue.handled(static_cast<size_t>(std::popcount(missed)), static_cast<size_t>(std::popcount(known)));
    fresh_.clear();
    for (size_t i = 0; i < batch.size(); ++i) {
      Upcall& upcall = batch[i];
      if (upcall.packet == nullptr) continue;
      if (upcall.kind == Upcall::Kind::action) {
        userspace(ctx_, upcall.action, std::move(upcall.packet));
      } else if ((known >> i & 1) != 0) {
        FlowSetup::execute(ctx_, *this, *found[i], keys_[i], std::move(upcall.packet));
      } else {
        handle_miss(keys_[i], std::move(upcall.packet));
      }
      process_recirculated();
    }
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

  // One earlier in the batch may have installed its flow.
  void handle_miss(const FlowKey& key, PacketPtr packet) {
    const auto flow = std::find_if(fresh_.begin(), fresh_.end(), [&key](const Flow* f) { return f->matches(key); });
    if (flow != fresh_.end() && !(*flow)->dead()) {
      FlowSetup::execute(ctx_, *this, **flow, key, std::move(packet));
    } else if (Flow* installed = setup_.answer(ctx_, *this, key, std::move(packet))) {
      fresh_.push_back(installed);
    }
  }

  FlowSetup& setup_;
  // Of the batch being handled.
  std::array<FlowKey, kTogether> keys_;
  std::array<const FlowKey*, kTogether> key_pointers_;
  std::vector<Flow*> fresh_;  // installed for it
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
  pool_.claim();
  rcu::ThreadRegistration registration;
  while (!stop_.load(std::memory_order_acquire)) {
    ctx_.now = clock_.now();
    const bool any = serve_queues();
    run_jobs();
    progress_.round();
    processor_->before_quiescent();
    rcu::quiescent();
    if (!any) sleep_until_signalled();
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
  struct Ticket {
    uint32_t in_port, bucket;
    bool in_place;
  };
  std::array<Upcall, kTogether> batch;
  std::array<Ticket, kTogether> tickets;
  size_t n = 0;
  for (; n < kTogether && queue.take(batch[n]); ++n) {
    const uint32_t in_port = batch[n].packet->in_port;
    tickets[n] = {in_port, batch[n].bucket, batch[n].in_place};
    ctx_.ledger.port(in_port).dequeued.add();
  }
  if (n == 0) return false;
  processor_->handle({batch.data(), n}, queue);
  // Sent before they count as done: later packets of the flows may take the fast path from then on.
  processor_->flush();
  for (size_t i = 0; i < n; ++i) queue.done(tickets[i].in_port, tickets[i].bucket, tickets[i].in_place);
  return true;
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

void HandlerThread::sleep_until_signalled() {
  wakeup_.clear();
  if (has_work()) return;  // came between the last look and the clear
  progress_.sleeping(true);
  {
    rcu::Offline offline;
    pollfd fd{wakeup_.fd(), POLLIN, 0};
    poll(&fd, 1, -1);
  }
  progress_.sleeping(false);
}

}  // namespace vswitch
