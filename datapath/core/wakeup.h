// Wakeup: lets any thread wake one that sleeps in epoll. Signals while the sleeper is awake cost one atomic exchange.
#pragma once

#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "datapath/base/unique_fd.h"

namespace vswitch {

class Wakeup {
 public:
  Wakeup() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  int fd() const { return fd_.get(); }

  void signal() {
    if (signalled_.exchange(true, std::memory_order_acq_rel)) return;
    waker_core_.store(sched_getcpu(), std::memory_order_relaxed);
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(fd_.get(), &one, sizeof one);
  }
  // Where the thread ran that woke the sleeper last; negative: unknown.
  int waker_core() const { return waker_core_.load(std::memory_order_relaxed); }
  // By the sleeper, before it looks for work: signals from here on wake it again. Reads even when nothing was
  // signalled: a signal() that was cleared between its two steps has left the descriptor readable, and the sleeper
  // would spin on it.
  void clear() {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t n = read(fd_.get(), &count, sizeof count);
    signalled_.exchange(false, std::memory_order_acq_rel);
  }

 private:
  UniqueFd fd_;
  std::atomic<bool> signalled_{false};
  std::atomic<int> waker_core_{-1};
};

}  // namespace vswitch
