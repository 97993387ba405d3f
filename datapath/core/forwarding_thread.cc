#include "datapath/core/forwarding_thread.h"

#include <sys/epoll.h>

#include <array>
#include <unordered_set>

#include "datapath/base/rcu.h"

namespace vswitch {
namespace {

// Rounds without a packet before the thread sleeps: enough to bridge the gap between two bursts of a busy flow, little
// enough that an idle switch costs nothing.
constexpr int kIdleRoundsBeforeSleep = 8;
// While some sources are hot, how often the others are asked whether they have become ready.
constexpr uint64_t kRoundsBetweenReadyChecks = 4;
constexpr uint64_t kWakeupSlot = ~uint64_t{0};

}  // namespace

class ForwardingThread::Processor final : public PacketProcessor {
 public:
  Processor(ThreadContext& ctx, const FlowTable& flows, const PortMap& ports, UpcallQueue& upcalls, Wakeup& handler)
      : PacketProcessor(ctx, flows, ports), upcalls_(upcalls), handler_(handler) {}

  void userspace(ThreadContext&, const UserspaceAction& action, PacketPtr packet) override {
    const bool ordered = action.reason == UserspaceReason::slow_path;
    const uint32_t bucket = ordered ? UpcallQueue::bucket_of(packet->rss_hash) : Upcall::kNoBucket;
    offer({std::move(packet), Upcall::Kind::action, action, bucket});
  }

 protected:
  void miss(PacketPtr packet, const FlowKey&, uint32_t flow_hash) override {
    offer({std::move(packet), Upcall::Kind::miss, {}, UpcallQueue::bucket_of(flow_hash)});
  }
  bool must_wait(uint32_t flow_hash) const override { return upcalls_.must_wait(UpcallQueue::bucket_of(flow_hash)); }

 private:
  void offer(Upcall upcall) {
    const uint32_t port = upcall.packet->in_port;
    // Booked first: once queued, the handler may book the other side.
    PortBooks& books = ctx_.ledger.port(port);
    books.queued.add();
    if (upcalls_.offer(std::move(upcall))) {
      handler_.signal();
      return;
    }
    books.dequeued.add();
    counters_.lost.add();
    ctx_.drop(std::move(upcall.packet), DropReason::upcall_queue_full);
  }

  UpcallQueue& upcalls_;
  Wakeup& handler_;
};

ForwardingThread::ForwardingThread(size_t index, Ledger& ledger, const FlowTable& flows, const PortMap& ports,
                                   const Clock& clock, Wakeup& handler_wakeup)
    : clock_(clock),
      pool_(HeapPacketPool::kSuperFrameBuffer, kPoolPackets),
      ctx_{index, pool_, ledger, clock.now()},
      sources_(new Published{1, {}}),  // not yet adopted
      processor_(std::make_unique<Processor>(ctx_, flows, ports, upcalls_, handler_wakeup)),
      thread_([this] { run(); }) {}

ForwardingThread::~ForwardingThread() {
  stop_.store(true, std::memory_order_release);
  wakeup_.signal();
  thread_.join();
  // Packets still waiting for the handler belong to this thread's pool: end them here.
  Upcall upcall;
  while (upcalls_.take(upcall)) {
    ctx_.ledger.port(upcall.packet->in_port).dequeued.add();
    ctx_.drop(std::move(upcall.packet), DropReason::upcall_error);
  }
  delete sources_.load();
}

const LookupCounters& ForwardingThread::counters() const { return processor_->counters(); }

void ForwardingThread::set_sources(SourceList sources) {
  const Published* old = sources_.load(std::memory_order_relaxed);
  sources_.store(new Published{old->generation + 1, std::move(sources)}, std::memory_order_release);
  wakeup_.signal();
  rcu::retire([old] { delete old; });
}

void ForwardingThread::run() {
  pool_.claim();
  rcu::ThreadRegistration registration;
  int idle_rounds = 0;
  while (!stop_.load(std::memory_order_acquire)) {
    const Published* published = sources_.load(std::memory_order_acquire);
    if (published->generation != adopted_) adopt_sources(*published);
    ctx_.now = clock_.now();
    const bool any = poll_round();
    progress_.round();
    idle_rounds = any ? 0 : idle_rounds + 1;
    processor_->before_quiescent();
    rcu::quiescent();
    if (idle_rounds >= kIdleRoundsBeforeSleep && always_ready_ == 0) {
      sleep_until_ready();
    } else if (!any || progress_.rounds() % kRoundsBetweenReadyChecks == 0) {
      mark_ready(0);
    }
  }
  polled_.clear();
}

void ForwardingThread::adopt_sources(const Published& published) {
  // The wakeup is not cleared here: a signal to stop, or of the next list, may have come since run() looked, and the
  // thread may go to sleep before it looks again.
  adopted_ = published.generation;
  // A source that was here and had nothing is told by epoll when it has: a new port does not cost a look at all others.
  std::unordered_set<const RxSource*> idle;
  for (const PolledSource& polled : polled_) {
    if (!polled.hot) idle.insert(polled.source.get());
  }
  polled_.clear();
  always_ready_ = 0;
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeupSlot;
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wakeup_.fd(), &event);
  for (const std::shared_ptr<RxSource>& source : published.sources) {
    event.data.u64 = polled_.size();
    const int fd = source->poll_fd();
    if (fd >= 0) epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
    if (source->always_ready()) ++always_ready_;
    polled_.push_back({source, !idle.contains(source.get())});
  }
}

// One batch from every hot source. True if any had packets.
bool ForwardingThread::poll_round() {
  bool any = false;
  for (PolledSource& polled : polled_) {
    if (!polled.hot) continue;
    PacketBatch batch;
    const size_t n = polled.source->receive(ctx_, batch);
    polled.hot = n != 0 || polled.source->always_ready();
    if (n == 0) continue;
    any = true;
    for (size_t i = 0; i < n; ++i) ctx_.ledger.port(batch[i].in_port).received.add();
    processor_->process(batch);
  }
  if (any) processor_->flush();
  return any;
}

// Asks epoll which sources have something, waiting up to timeout_ms (-1: until one has).
void ForwardingThread::mark_ready(int timeout_ms) {
  std::array<epoll_event, 64> events;
  const int n = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  for (int i = 0; i < n; ++i) {
    const uint64_t slot = events[static_cast<size_t>(i)].data.u64;
    if (slot == kWakeupSlot) {
      wakeup_.clear();
    } else if (slot < polled_.size()) {
      polled_[slot].hot = true;
    }
  }
}

void ForwardingThread::sleep_until_ready() {
  progress_.sleeping(true);
  {
    // The sources in polled_ are kept alive by their shared_ptr, not by RCU.
    rcu::Offline offline;
    mark_ready(-1);
  }
  progress_.sleeping(false);
}

}  // namespace vswitch
