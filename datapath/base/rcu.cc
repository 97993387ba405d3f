#include "datapath/base/rcu.h"

#include <urcu/urcu-qsbr.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/base/thread_name.h"

#if defined(__SANITIZE_THREAD__)
#define VSWITCH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define VSWITCH_TSAN 1
#endif
#endif
#ifdef VSWITCH_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace vswitch::rcu {
namespace {

using namespace std::chrono_literals;

// What is retired comes in crowds, and every reader may have to wake this thread to tell that it was quiescent: one
// grace period serves all of so long a time.
constexpr auto kGather = 1ms;

thread_local bool registered = false;
thread_local bool online = false;

// One address that stands for "a reader passed a quiescent state"; only ThreadSanitizer looks at it.
[[maybe_unused]] char quiescence_token;

void tsan_reader_quiescent() {
#ifdef VSWITCH_TSAN
  __tsan_release(&quiescence_token);
#endif
}

void tsan_grace_period_over() {
#ifdef VSWITCH_TSAN
  __tsan_acquire(&quiescence_token);
#endif
}

void register_thread() {
  urcu_qsbr_register_thread();
  registered = online = true;
}

void go_online() {
  urcu_qsbr_thread_online();
  online = true;
}

void go_offline() {
  tsan_reader_quiescent();
  urcu_qsbr_thread_offline();
  online = false;
}

void unregister_thread() {
  tsan_reader_quiescent();
  if (!online) urcu_qsbr_thread_online();
  urcu_qsbr_unregister_thread();
  registered = online = false;
}

// Owns the background thread that waits for grace periods and runs what was retired.
class Reclaimer {
 public:
  static Reclaimer& instance() {
    // Leaked on purpose: retire() may be called while other statics are destroyed.
    static Reclaimer* reclaimer = new Reclaimer;
    return *reclaimer;
  }

  void retire(std::function<void()> reclaim) {
    MutexLock lock(mutex_);
    pending_.push_back(std::move(reclaim));
    ++retired_;
    if (pending_.size() == 1) wake_.notify_one();  // else it has been woken, or is at work and will look again
  }

  void barrier() {
    Offline offline;
    MutexLock lock(mutex_);
    const uint64_t goal = retired_;
    ++in_a_hurry_;
    hurry_.notify_one();
    while (reclaimed_ < goal) done_.wait(mutex_);
    --in_a_hurry_;
  }

 private:
  Reclaimer() {
    std::thread([this] { run(); }).detach();
  }

  void run() {
    name_this_thread("reclaimer");
    for (;;) {
      std::vector<std::function<void()>> batch = wait_for_work();
      const size_t count = batch.size();
      urcu_qsbr_synchronize_rcu();
      tsan_grace_period_over();
      for (const auto& reclaim : batch) reclaim();
      batch.clear();  // with what they hold
      MutexLock lock(mutex_);
      reclaimed_ += count;
      done_.notify_all();
    }
  }

  std::vector<std::function<void()>> wait_for_work() {
    MutexLock lock(mutex_);
    while (pending_.empty()) wake_.wait(mutex_);
    if (in_a_hurry_ == 0) hurry_.wait_for(mutex_, kGather);
    return std::exchange(pending_, {});
  }

  Mutex mutex_;
  CondVar wake_;
  CondVar hurry_;
  CondVar done_;
  std::vector<std::function<void()>> pending_ GUARDED_BY(mutex_);
  size_t in_a_hurry_ GUARDED_BY(mutex_) = 0;  // who waits for what is pending
  uint64_t retired_ GUARDED_BY(mutex_) = 0;
  uint64_t reclaimed_ GUARDED_BY(mutex_) = 0;
};

}  // namespace

ThreadRegistration::ThreadRegistration() { register_thread(); }
ThreadRegistration::~ThreadRegistration() { unregister_thread(); }

ReaderScope::ReaderScope() : registered_here_(!registered), online_here_(registered && !online) {
  if (registered_here_) register_thread();
  if (online_here_) go_online();
}
ReaderScope::~ReaderScope() {
  if (registered_here_) unregister_thread();
  if (online_here_) go_offline();
}

Offline::Offline() : was_online_(online) {
  if (was_online_) go_offline();
}
Offline::~Offline() {
  if (was_online_) go_online();
}

void quiescent() {
  tsan_reader_quiescent();
  if (online) urcu_qsbr_quiescent_state();
}

void retire(std::function<void()> reclaim) { Reclaimer::instance().retire(std::move(reclaim)); }

void synchronize() {
  Offline offline;
  urcu_qsbr_synchronize_rcu();
  tsan_grace_period_over();
}

void barrier() { Reclaimer::instance().barrier(); }

}  // namespace vswitch::rcu
