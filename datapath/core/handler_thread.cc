#include "datapath/core/handler_thread.h"

#include <poll.h>

#include <optional>
#include <utility>

#include "datapath/base/rcu.h"
#include "datapath/flow/extract.h"

namespace vswitch {
namespace {

// Upcalls handled before the thread passes a quiescent state and looks for other work.
constexpr int kUpcallsPerRound = 32;

}  // namespace

class HandlerThread::Processor final : public PacketProcessor {
 public:
  Processor(ThreadContext& ctx, FlowTable& flows, const PortMap& ports, const std::atomic<UpcallHandler*>& handler)
      : PacketProcessor(ctx, flows, ports), table_(flows), handler_(handler) {}

  // A packet that missed: an earlier upcall may have installed its flow meanwhile.
  void handle_miss(PacketPtr packet) {
    FlowKey& key = miss_key_;
    if (!extract_flow_key(*packet, key)) {
      ctx_.drop(std::move(packet), DropReason::rx_invalid_packet);
      return;
    }
    if (Flow* flow = table_.lookup(key)) {
      execute_flow(*flow, key, std::move(packet));
    } else {
      translate(std::move(packet), key);
    }
  }

  void userspace(ThreadContext&, const UserspaceAction& action, PacketPtr packet) override {
    FlowKey key;
    if (!extract_flow_key(*packet, key)) {
      ctx_.drop(std::move(packet), DropReason::userspace_action_error);
      return;
    }
    if (action.reason == UserspaceReason::slow_path) {
      translate(std::move(packet), key);
      return;
    }
    UpcallHandler* handler = handler_.load(std::memory_order_acquire);
    const std::optional<DropReason> refused =
        handler != nullptr ? handler->controller(action, key, *packet) : DropReason::upcall_error;
    if (refused) {
      ctx_.drop(std::move(packet), *refused);
    } else {
      ctx_.ledger.port(packet->in_port).consumed.add();
    }
  }

  using PacketProcessor::process_recirculated;

 protected:
  // After recirculation on this thread: translated here and now, behind nobody.
  void miss(PacketPtr packet, const FlowKey& key, uint32_t) override {
    const FlowKey copy = key;
    translate(std::move(packet), copy);
  }
  bool any_must_wait() const override { return false; }
  bool must_wait(uint32_t) const override { return false; }

 private:
  void translate(PacketPtr packet, const FlowKey& key) {
    UpcallHandler* handler = handler_.load(std::memory_order_acquire);
    if (handler == nullptr) {
      ctx_.drop(std::move(packet), DropReason::upcall_error);
      return;
    }
    MissResult result = handler->miss(key, *packet);
    if (result.install) {
      const Result<Flow*> flow = table_.insert(key, result.mask, result.actions, {}, result.installer_data);
      if (flow.ok()) {
        execute_flow(**flow, key, std::move(packet));
        return;
      }
    }
    handler->uncounted(result.installer_data, 1, packet->size());
    execute_actions(ctx_, result.actions, std::move(packet), *this);
  }

  void execute_flow(Flow& flow, const FlowKey& key, PacketPtr packet) {
    flow.count(ctx_.index, 1, packet->size(), ctx_.now, key.tcp_flags.host());
    execute_actions(ctx_, flow.actions(), std::move(packet), *this);
  }

  FlowTable& table_;
  const std::atomic<UpcallHandler*>& handler_;
  FlowKey miss_key_;
};

HandlerThread::HandlerThread(size_t index, Ledger& ledger, FlowTable& flows, const PortMap& ports, const Clock& clock)
    : clock_(clock),
      pool_(HeapPacketPool::kSuperFrameBuffer, kPoolPackets),
      ctx_{index, pool_, ledger, clock.now()},
      processor_(std::make_unique<Processor>(ctx_, flows, ports, handler_)),
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
    Upcall upcall;
    for (int i = 0; i < kUpcallsPerRound && queue->take(upcall); ++i) {
      any = true;
      const uint32_t in_port = upcall.packet->in_port;
      const uint32_t bucket = upcall.bucket;
      ctx_.ledger.port(in_port).dequeued.add();
      handle(std::move(upcall));
      // Sent before it counts as done: later packets of the flow may take the fast path from then on.
      processor_->flush();
      queue->done(in_port, bucket);
    }
  }
  return any;
}

void HandlerThread::handle(Upcall upcall) {
  switch (upcall.kind) {
    case Upcall::Kind::miss:
      processor_->handle_miss(std::move(upcall.packet));
      break;
    case Upcall::Kind::action:
      processor_->userspace(ctx_, upcall.action, std::move(upcall.packet));
      break;
  }
  processor_->process_recirculated();
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
    processor_->process_recirculated();
    processor_->flush();
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
