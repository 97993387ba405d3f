#include "datapath/core/forwarding_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "datapath/base/clock.h"
#include "datapath/base/rcu.h"
#include "datapath/core/connection_sampler.h"
#include "datapath/kernel_path/kernel_path.h"
#include "tests/support/eventually.h"

namespace vswitch {
namespace {

// A thread with sources of the test. Nothing that they receive is a frame, so that no packet gets further than that.
struct ForwardingThreadTest : ::testing::Test {
  ManualClock clock;  // which stands still
  Ledger ledger;
  FlowTable flows{clock};
  FlowSetup setup{flows};
  PortMap ports;
  Wakeup handler;
  KernelPath kernel_path;
  std::unique_ptr<ForwardingThread> thread =
      std::make_unique<ForwardingThread>(1, ledger, setup, ports, clock, handler, LookupOptions{},
                                         std::make_unique<ConnectionSampler>(ports, kernel_path, handler));
};

class Source : public RxSource {
 public:
  explicit Source(bool always_ready = false) : always_ready_(always_ready) {}
  size_t receive(ThreadContext& ctx, PacketBatch& batch) override {
    ++asked;
    if (!frame_waits.exchange(false)) return 0;
    PacketPtr packet = ctx.pool.allocate();
    packet->set_size(1);
    packet->in_port = 1;
    batch.add(std::move(packet));
    ++received;
    return 1;
  }
  int poll_fd() const override { return ready_.fd(); }
  bool always_ready() const override { return always_ready_; }

  void tell_epoll() { ready_.signal(); }

  std::atomic<bool> frame_waits{false};
  std::atomic<int> asked{0}, received{0};

 private:
  const bool always_ready_;
  Wakeup ready_;
};

// Tells without a system call whether it has something; epoll never hears of it.
struct Ring final : Source {
  Waiting waiting() const override {
    ++looks;
    if (during_look) during_look();
    return frame_waits ? Waiting::yes : Waiting::no;
  }
  mutable std::atomic<int> looks{0};
  std::function<void()> during_look;
};

TEST_F(ForwardingThreadTest, ARingThatHadPacketsIsLookedAtWithoutEpoll) {
  const auto busy = std::make_shared<Source>(/*always_ready=*/true);
  const auto ring = std::make_shared<Ring>();
  ring->frame_waits = true;  // a new source is asked once
  thread->set_sources({busy, ring}, false);
  for (int i = 1; i <= 100; ++i) {
    ASSERT_TRUE(test::eventually([&] { return ring->received == i; })) << i;
    ring->frame_waits = true;
  }
}

TEST_F(ForwardingThreadTest, ARingThatHadNoneIsLeftToEpoll) {
  const auto busy = std::make_shared<Source>(/*always_ready=*/true);
  const auto ring = std::make_shared<Ring>();
  thread->set_sources({busy, ring}, false);
  ASSERT_TRUE(test::eventually([&] { return busy->asked > 10'000; }));
  EXPECT_EQ(ring->looks, 0);
  ring->frame_waits = true;
  ring->tell_epoll();
  EXPECT_TRUE(test::eventually([&] { return ring->received == 1; }));
}

TEST_F(ForwardingThreadTest, EpollIsAskedThoughTheClockStandsStill) {
  const auto busy = std::make_shared<Source>(/*always_ready=*/true);
  const auto other = std::make_shared<Source>();
  thread->set_sources({busy, other}, false);
  for (int i = 1; i <= 10; ++i) {
    other->frame_waits = true;
    other->tell_epoll();
    ASSERT_TRUE(test::eventually([&] { return other->received == i; })) << i;
  }
}

// Who takes a source away waits for a grace period, and then may free what the source needs.
TEST_F(ForwardingThreadTest, ASourceThatWasTakenAwayIsNotLookedAt) {
  struct Gate final : Source {
    Gate() : Source(/*always_ready=*/true) {}
    size_t receive(ThreadContext& ctx, PacketBatch& batch) override {
      if (closed) {
        inside = true;
        while (closed) std::this_thread::yield();
      }
      return Source::receive(ctx, batch);
    }
    std::atomic<bool> closed{false}, inside{false};
  };
  const auto gate = std::make_shared<Gate>();
  const auto first = std::make_shared<Ring>(), second = std::make_shared<Ring>();
  std::atomic<bool> taken_away{false}, gone{false};
  std::atomic<int> looks_at_gone{0};
  first->during_look = [&] { EXPECT_TRUE(!taken_away || test::eventually([&] { return gone.load(); })); };
  second->during_look = [&] { looks_at_gone += gone; };
  first->frame_waits = second->frame_waits = true;
  thread->set_sources({gate, first, second}, false);
  ASSERT_TRUE(test::eventually([&] { return first->looks > 0 && second->looks > 0; }));
  gate->closed = true;
  ASSERT_TRUE(test::eventually([&] { return gate->inside.load(); }));
  thread->set_sources({gate}, false);
  taken_away = true;
  gate->closed = false;
  rcu::synchronize();
  gone = true;
  const int asked = gate->asked;
  ASSERT_TRUE(test::eventually([&] { return gate->asked > asked + 100; }));
  EXPECT_EQ(looks_at_gone, 0);
}

}  // namespace
}  // namespace vswitch
