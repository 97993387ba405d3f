#include "datapath/core/forwarding_thread.h"

#include <sched.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "datapath/base/rcu.h"
#include "datapath/base/thread_heap.h"
#include "datapath/base/thread_name.h"
#include "datapath/base/thread_slice.h"
#include "datapath/base/word_hash.h"
#include "datapath/core/help_policy.h"

namespace vswitch {
namespace {

// Rounds without a packet before the thread sleeps: enough to bridge the gap between two bursts of a busy flow, little
// enough that an idle switch costs nothing.
constexpr int kIdleRoundsBeforeSleep = 8, kIdleRoundsBeforeSleepAtMost = 128;
constexpr Nanoseconds kIdleBeforeSleep = 5us;
// While some sources are hot, how often the others are asked whether they have become ready: often enough that nobody
// waits noticeably behind a busy port, seldom enough that the system call does not show.
constexpr Nanoseconds kBetweenReadyChecks = 50us;
// The same while none has packets, when a round takes some 50 ns. Rounds are counted as well, for clocks that stand
// still.
constexpr Nanoseconds kBetweenIdleReadyChecks = 10us;
constexpr int kIdleRoundsBetweenReadyChecks = 256;
// Of more sources than that, epoll knows sooner which have something.
constexpr size_t kMostLookedAt = 32;
// Who gives way and is back sooner was alone on the core; who was not gives way in every round for a while.
constexpr Nanoseconds kAloneOnCore = 3us, kSharingCore = 10ms;
// Under load the time is some microseconds old at most.
constexpr uint64_t kRoundsBetweenClockReads = 4;
// For packets that the handler has: it takes microseconds for each, unless something is wrong with it.
constexpr Nanoseconds kLongestWait = 10ms;
constexpr uint64_t kWakeupSlot = ~uint64_t{0};

static_assert(PacketBatch::kMaxPackets <= SetupBatch::kMost, "a batch may miss as a whole");

// Who sent the packet: its Ethernet and network addresses (of ARP: the sender's).
uint32_t source_of(const FlowKey& key) {
  uint64_t hash = hash_word(hash_start(), key.eth_src.to_u64() << 16);
  if (key.eth_type == kEthTypeIpv6) {
    static_assert(offsetof(FlowKey, ipv6_src) % sizeof(KeyWord) == 0);
    const KeyWord* address = words(key) + offsetof(FlowKey, ipv6_src) / sizeof(KeyWord);
    hash = hash_word(hash_word(hash, address[0]), address[1]);
  } else {
    hash = hash_word(hash, key.nw_src.host());
  }
  return hash_finish(hash);
}

// The same from the frame alone, where there is no key: its Ethernet address.
uint32_t source_of(const Packet& packet) {
  MacAddress source;
  if (packet.size() >= 2 * sizeof source) source = load_unaligned<MacAddress>(packet.data() + sizeof source);
  return hash_finish(hash_word(hash_start(), source.to_u64() << 16));
}

}  // namespace

class ForwardingThread::Processor final : public PacketProcessor {
 public:
  Processor(ThreadContext& ctx, FlowSetup& setup, const PortMap& ports, UpcallQueue& upcalls, WaitingRoom& waiting_room,
            Wakeup& handler, const Clock& clock, LookupOptions options)
      : PacketProcessor(ctx, setup.flows(), ports, options),
        clock_(clock),
        setup_(setup),
        upcalls_(upcalls),
        waiting_room_(waiting_room),
        handler_(handler),
        collected_(setup) {}

  // Once a round.
  void consider_helping() {
    help_.update(ctx_.now, counters_.hits.get(), missed_, upcalls_.waiting());
    if (help_.helping()) setup_.report_crowd();
  }

  // Once for all that were offered since the last time.
  void wake_handler() {
    if (!std::exchange(offered_, false)) return;
    handler_.signal();
  }

  void userspace(ThreadContext&, const UserspaceAction& action, PacketPtr packet) override {
    const bool ordered = action.reason == UserspaceReason::slow_path;
    if (ordered && holds()) flush();  // as for a miss
    const uint32_t bucket = ordered ? UpcallQueue::bucket_of(packet->rss_hash) : Upcall::kNoBucket;
    const uint32_t source = source_of(*packet);
    offer({std::move(packet), Upcall::Kind::action, action, bucket, source});
  }

 protected:
  void miss(PacketPtr packet, const FlowKey& key, uint32_t flow_hash) override {
    ++missed_;
    if (__builtin_expect(help_.helping(), 0) && help(packet, key, flow_hash)) return;
    if (upcalls_.should_end(UpcallQueue::bucket_of(flow_hash)) && setup_.flows().lookup(key) != nullptr) {
      return turn_away(std::move(packet));
    }
    // What the packet made before it recirculated leaves first: the handler will not wait for our queues. So do earlier
    // packets of its flow, which may have been removed meanwhile.
    if (__builtin_expect(key.recirc_id != 0 || holds(), 0)) flush();
    offer({std::move(packet), Upcall::Kind::miss, {}, UpcallQueue::bucket_of(flow_hash), source_of(key)});
  }
  void end_of_misses() override {
    if (__builtin_expect(!collected_.empty(), 0)) answer_collected();
  }
  bool any_must_wait() const override { return !upcalls_.empty(); }
  bool must_wait(uint32_t flow_hash) const override { return upcalls_.must_wait(UpcallQueue::bucket_of(flow_hash)); }
  void prefetch_must_wait(uint32_t flow_hash) const override { upcalls_.prefetch(UpcallQueue::bucket_of(flow_hash)); }

 private:
  // Answers the packet here, now or at the end of the batch; false, and `packet` untouched, if it must wait for the
  // handler.
  bool help(PacketPtr& packet, const FlowKey& key, uint32_t flow_hash) {
    help_.helped();
    if (!must_wait(flow_hash)) {
      const size_t number = collected_.add(ctx_, key, *packet);
      collected_packets_[number] = std::move(packet);
      return true;
    }
    // Nothing is left behind while this waits, nor if the packet goes to the handler after all: those before it have
    // been sent by then.
    answer_collected();
    if (!those_before_are_through(flow_hash)) {
      flush();
      return false;
    }
    // The handler has installed its flow, most likely.
    setup_.answer_unless_known(ctx_, *this, key, std::move(packet));
    return true;
  }

  void answer_collected() {
    collected_.install();
    for (size_t i = 0; i < collected_.size(); ++i) {
      collected_.execute(i, ctx_, *this, std::move(collected_packets_[i]));
    }
    collected_.clear();
  }

  // Waits for earlier packets of the flow that wait for the handler. Were this one to queue behind them, and the next
  // behind it, a flow that comes faster than the handler works would go the slow way for ever.
  bool those_before_are_through(uint32_t flow_hash) {
    wake_handler();
    const Nanoseconds end = clock_.now() + kLongestWait;
    do {
      ::sched_yield();
      if (!must_wait(flow_hash)) return true;
    } while (clock_.now() < end);
    help_.give_up();
    return false;
  }

  void offer(Upcall upcall) {
    const uint32_t port = upcall.packet->in_port;
    // Booked first: once queued, the handler may book the other side.
    PortBooks& books = ctx_.ledger.port(port);
    books.queued.add();
    if (PacketPtr waiting = waiting_room_.admit(upcall.packet, upcalls_.in_place(), &upcall.in_place)) {
      upcall.packet = std::move(waiting);
      if (upcalls_.offer(std::move(upcall))) {
        offered_ = true;
        return;
      }
    }
    books.dequeued.add();
    turn_away(std::move(upcall.packet));
  }
  void turn_away(PacketPtr packet) {
    counters_.lost.add();
    ctx_.drop(std::move(packet), DropReason::upcall_queue_full);
  }

  const Clock& clock_;
  FlowSetup& setup_;
  UpcallQueue& upcalls_;
  WaitingRoom& waiting_room_;
  Wakeup& handler_;
  HelpPolicy help_;
  // Misses of the batch that are answered here at its end.
  SetupBatch collected_;
  std::array<PacketPtr, SetupBatch::kMost> collected_packets_;
  uint64_t missed_ = 0;   // packets, also those of flows that are there by now but have others waiting
  bool offered_ = false;  // something, since the handler was woken last
};

WaitingRoom::WaitingRoom()
    : small_(kSmallBuffer, UpcallQueue::kTotal), frames_(HeapPacketPool::kFrameBuffer, kFrames) {}

void WaitingRoom::claim() {
  small_.claim();
  frames_.claim();
}

PacketPtr WaitingRoom::admit(PacketPtr& packet, size_t in_place, bool* is_in_place) {
  *is_in_place = in_place < std::min(kInPlace, packet->pool()->packet_count() / kInPlaceShare);
  if (*is_in_place) return std::move(packet);
  PacketPtr copy = clone_packet(*packet, small_);
  if (copy == nullptr) copy = clone_packet(*packet, frames_);
  if (copy != nullptr) packet.reset();
  return copy;
}

ForwardingThread::ForwardingThread(size_t index, Ledger& ledger, FlowSetup& setup, const PortMap& ports,
                                   const Clock& clock, Wakeup& handler_wakeup, LookupOptions options,
                                   std::unique_ptr<ConnectionSampler> sampler)
    : clock_(clock),
      pool_(HeapPacketPool::kSuperFrameBuffer, kPoolPackets),
      ctx_{index, pool_, ledger, clock.now()},
      sources_(new Published{1, 0, {}}),  // not yet adopted
      sampler_(std::move(sampler)),
      processor_(
          std::make_unique<Processor>(ctx_, setup, ports, upcalls_, waiting_room_, handler_wakeup, clock, options)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
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
uint64_t ForwardingThread::cache_evictions() const { return processor_->cache_evictions(); }

void ForwardingThread::set_sources(SourceList sources, bool renew) {
  const Published* old = sources_.load(std::memory_order_relaxed);
  const uint64_t renewals = old->renewals + (renew ? 1 : 0);
  sources_.store(new Published{old->generation + 1, renewals, std::move(sources)}, std::memory_order_release);
  wakeup_.signal();
  rcu::retire([old] { delete old; });
}

void ForwardingThread::run() {
  name_this_thread("forward-" + std::to_string(ctx_.index));
  prepare_thread_heap();
  lengthen_thread_slice();
  pool_.claim();
  waiting_room_.claim();
  processor_->show_connections(sampler_.get());
  rcu::ThreadRegistration registration;
  watch_wakeup();
  int idle_rounds = 0;
  while (!stop_.load(std::memory_order_acquire)) {
    const Published* published = sources_.load(std::memory_order_acquire);
    if (published->generation != adopted_) adopt_sources(*published);
    if (idle_rounds != 0 || progress_.rounds() % kRoundsBetweenClockReads == 0) ctx_.now = clock_.now();
    const bool any = poll_round();
    if (__builtin_expect(sampler_->ready(), 0) && !any && upcalls_.empty() && nothing_waits()) sampler_->activate();
    progress_.round();
    idle_rounds = any ? 0 : idle_rounds + 1;
    if (any) busy_at_ = ctx_.now;
    // Whoever waits for a grace period may count on it that no packet leaves by what was valid before. Packets wait for
    // a few rounds at most.
    if (!processor_->holds()) {
      processor_->before_quiescent();
      rcu::quiescent();
    }
    if (any) idle_policy_.found(ctx_.now);
    if (always_ready_ == 0 && idle_for_long(idle_rounds)) {
      wait_for_packets();
    } else if (some_cold_ && !any) {
      look_on();
    } else if (some_cold_ && ctx_.now - last_ready_check_ >= kBetweenReadyChecks) {
      last_ready_check_ = ctx_.now;
      mark_ready(0);
    }
  }
  processor_->flush();
  polled_.clear();
}

// A source that is added costs one system call: a switch may have thousands of ports.
void ForwardingThread::adopt_sources(const Published& published) {
  // The wakeup is not cleared here: a signal to stop, or of the next list, may have come since run() looked, and the
  // thread may go to sleep before it looks again.
  adopted_ = published.generation;
  const bool renew = std::exchange(adopted_renewals_, published.renewals) != published.renewals;
  for (const std::shared_ptr<RxSource>& source : published.sources) polled_[take_slot(source)].listed = adopted_;
  bool outdated = renew;
  for (size_t slot = 0; slot < polled_.size(); ++slot) {
    PolledSource& polled = polled_[slot];
    if (polled.source == nullptr) continue;
    const bool gone = polled.listed != adopted_;
    outdated = outdated || (polled.watched_fd >= 0 && (gone || polled.watched_fd != polled.source->poll_fd()));
    if (!gone) continue;
    slots_.erase(polled.source.get());
    polled = {};
    free_slots_.push_back(slot);
  }
  if (outdated) start_watching_anew();
  always_ready_ = 0;
  for (size_t slot = 0; slot < polled_.size(); ++slot) {
    PolledSource& polled = polled_[slot];
    if (polled.source == nullptr) continue;
    if (polled.watched_fd < 0) watch(slot);
    if (!polled.source->always_ready()) continue;
    ++always_ready_;
    polled.hot = true;
  }
}

// The source's place. A new one counts as hot until it had nothing; of one that was here before, epoll tells.
size_t ForwardingThread::take_slot(const std::shared_ptr<RxSource>& source) {
  if (const auto known = slots_.find(source.get()); known != slots_.end()) return known->second;
  size_t slot = polled_.size();
  if (free_slots_.empty()) {
    polled_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  polled_[slot] = {source, true, -1, 0, 0};
  slots_.emplace(source.get(), slot);
  return slot;
}

// A descriptor that is out of use cannot be taken out of an epoll set: it may be closed already, and its number be that
// of another. So the set is left behind as a whole. (Ports come one by one, and are only added; they seldom go.)
void ForwardingThread::start_watching_anew() {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (epoll.get() < 0) return;  // the old set wakes this thread now and then for nothing
  epoll_ = std::move(epoll);
  watch_wakeup();
  for (PolledSource& polled : polled_) polled.watched_fd = -1;
}

void ForwardingThread::watch_wakeup() {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeupSlot;
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wakeup_.fd(), &event);
}

void ForwardingThread::watch(size_t slot) {
  const int fd = polled_[slot].source->poll_fd();
  if (fd < 0) return;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = slot;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) polled_[slot].watched_fd = fd;
}

// Of a source that ports share, each packet may belong to another port; they are booked in runs.
void ForwardingThread::book_received(const PacketBatch& batch) {
  for (size_t i = 0; i < batch.size();) {
    const uint32_t in_port = batch[i].in_port;
    size_t end = i + 1;
    while (end < batch.size() && batch[end].in_port == in_port) ++end;
    ctx_.ledger.port(in_port).received.add(end - i);
    i = end;
  }
}

// One batch from every hot source. True if any had packets.
bool ForwardingThread::poll_round() {
  bool any = false, more_wait = false;
  some_cold_ = false;
  for (PolledSource& polled : polled_) {
    if (!polled.hot) {  // a free slot is not
      some_cold_ = some_cold_ || polled.source != nullptr;
      continue;
    }
    PacketBatch batch;
    const size_t n = polled.source->receive(ctx_, batch);
    polled.hot = n != 0 || polled.source->always_ready();
    some_cold_ = some_cold_ || !polled.hot;
    if (n == 0) continue;
    polled.awake = sleeps_;
    any = true;
    more_wait = more_wait || n == PacketBatch::kMaxPackets;
    const uint32_t sole_port = polled.source->sole_port();
    if (sole_port != 0) {
      ctx_.ledger.port(sole_port).received.add(n);
    } else {
      book_received(batch);
    }
    processor_->process(batch, sole_port);
    processor_->wake_handler();
  }
  if (any || processor_->holds()) processor_->flush_round(more_wait);
  if (any) processor_->consider_helping();
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
      polled_[slot].hot = polled_[slot].source != nullptr;
    }
  }
}

// Whether no source has packets that this thread has not seen: one that was left alone may have got some meanwhile.
bool ForwardingThread::nothing_waits() {
  mark_ready(0);
  return std::ranges::none_of(polled_,
                              [](const PolledSource& polled) { return polled.hot && !polled.source->always_ready(); });
}

bool ForwardingThread::idle_for_long(int rounds) const {
  if (rounds < kIdleRoundsBeforeSleep) return false;
  return ctx_.now - busy_at_ >= kIdleBeforeSleep || rounds >= kIdleRoundsBeforeSleepAtMost;
}

void ForwardingThread::wait_for_packets() {
  if (idle_policy_.look_again(ctx_.now)) {
    if (look_on()) give_way();
    return;
  }
  sleep_until_ready();
  idle_policy_.slept();
}

// Has an eye on the sources that had packets since the thread last slept: a system call for each look would take longer
// than most packets. For the others, and where one of them cannot be looked at without, it asks epoll now and then, and
// then returns true.
bool ForwardingThread::look_on() {
  // What is no longer ours may be another thread's, or gone.
  if (sources_.load(std::memory_order_acquire)->generation != adopted_) return false;
  size_t seen = 0;
  bool ask = ++looks_ >= kIdleRoundsBetweenReadyChecks || ctx_.now - last_ready_check_ >= kBetweenIdleReadyChecks ||
             ctx_.now < sharing_core_until_;
  for (PolledSource& polled : polled_) {
    if (polled.source == nullptr || polled.hot || polled.awake != sleeps_) continue;
    if (++seen > kMostLookedAt) {
      ask = true;
      break;
    }
    const RxSource::Waiting waiting = polled.source->waiting();
    polled.hot = waiting == RxSource::Waiting::yes;
    ask = ask || waiting == RxSource::Waiting::unknown;
  }
  if (!ask) return false;
  looks_ = 0;
  last_ready_check_ = ctx_.now;
  mark_ready(0);
  return true;
}

// Leaves the core to others who have something to do on it.
void ForwardingThread::give_way() {
  const Nanoseconds before = clock_.now();
  ::sched_yield();
  ctx_.now = clock_.now();
  if (ctx_.now - before > kAloneOnCore) sharing_core_until_ = ctx_.now + kSharingCore;
}

void ForwardingThread::sleep_until_ready() {
  ++sleeps_;
  progress_.sleeping(true);
  {
    // The sources in polled_ are kept alive by their shared_ptr, not by RCU.
    rcu::Offline offline;
    mark_ready(-1);
  }
  progress_.sleeping(false);
}

}  // namespace vswitch
