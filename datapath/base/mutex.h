// A mutex that clang's thread-safety analysis understands (-Wthread-safety), and its annotations.
//
//   Mutex mutex_;
//   std::deque<Upcall> queue_ GUARDED_BY(mutex_);
//
// libstdc++'s std::mutex is not annotated; these wrappers add nothing else. Never taken on the packet path.
#pragma once

#include <sched.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>

#if defined(__clang__)
#define VSWITCH_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define VSWITCH_THREAD_ANNOTATION(x)
#endif
// Abseil, which gRPC brings along, has some of these names with the same meaning: ours replace them.
#undef GUARDED_BY
#undef PT_GUARDED_BY
#undef ACQUIRED_AFTER
#undef NO_THREAD_SAFETY_ANALYSIS
#define CAPABILITY(x) VSWITCH_THREAD_ANNOTATION(capability(x))
#define SCOPED_CAPABILITY VSWITCH_THREAD_ANNOTATION(scoped_lockable)
#define GUARDED_BY(x) VSWITCH_THREAD_ANNOTATION(guarded_by(x))
#define PT_GUARDED_BY(x) VSWITCH_THREAD_ANNOTATION(pt_guarded_by(x))
#define REQUIRES(...) VSWITCH_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define REQUIRES_SHARED(...) VSWITCH_THREAD_ANNOTATION(requires_shared_capability(__VA_ARGS__))
#define ACQUIRE(...) VSWITCH_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define ACQUIRE_SHARED(...) VSWITCH_THREAD_ANNOTATION(acquire_shared_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) VSWITCH_THREAD_ANNOTATION(try_acquire_capability(__VA_ARGS__))
#define RELEASE(...) VSWITCH_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define RELEASE_SHARED(...) VSWITCH_THREAD_ANNOTATION(release_shared_capability(__VA_ARGS__))
#define RELEASE_GENERIC(...) VSWITCH_THREAD_ANNOTATION(release_generic_capability(__VA_ARGS__))
#define EXCLUDES(...) VSWITCH_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define ACQUIRED_AFTER(...) VSWITCH_THREAD_ANNOTATION(acquired_after(__VA_ARGS__))
#define ASSERT_CAPABILITY(...) VSWITCH_THREAD_ANNOTATION(assert_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS VSWITCH_THREAD_ANNOTATION(no_thread_safety_analysis)

namespace vswitch {

class CAPABILITY("mutex") Mutex {
 public:
  void lock() ACQUIRE() { mutex_.lock(); }
  bool try_lock() TRY_ACQUIRE(true) { return mutex_.try_lock(); }
  void unlock() RELEASE() { mutex_.unlock(); }
  // For lambdas that run under the lock, which the analysis cannot see.
  void assert_held() const ASSERT_CAPABILITY(this) {}
  std::mutex& native() { return mutex_; }

 private:
  std::mutex mutex_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// The same for threads that hold the lock for microseconds each, but often: to sleep and be woken takes many, and in a
// virtual machine up to a millisecond. A holder that has more to do, or was preempted, is waited for a while longer:
// if it needs this core, it gets it.
class SCOPED_CAPABILITY AwakeMutexLock {
 public:
  explicit AwakeMutexLock(Mutex& mutex) ACQUIRE(mutex) NO_THREAD_SAFETY_ANALYSIS : mutex_(mutex) {
    for (int i = 0; i < kTries; ++i) {
      if (mutex.try_lock()) return;
      pause();
    }
    for (int i = 0; i < kYieldingTries; ++i) {
      ::sched_yield();
      if (mutex.try_lock()) return;
    }
    mutex.lock();
  }
  ~AwakeMutexLock() RELEASE() { mutex_.unlock(); }
  AwakeMutexLock(const AwakeMutexLock&) = delete;
  AwakeMutexLock& operator=(const AwakeMutexLock&) = delete;

 private:
  static constexpr int kTries = 500, kYieldingTries = 500;
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  Mutex& mutex_;
};

class CAPABILITY("shared_mutex") SharedMutex {
 public:
  void lock() ACQUIRE() { mutex_.lock(); }
  void unlock() RELEASE() { mutex_.unlock(); }
  void lock_shared() ACQUIRE_SHARED() { mutex_.lock_shared(); }
  void unlock_shared() RELEASE_SHARED() { mutex_.unlock_shared(); }

 private:
  std::shared_mutex mutex_;
};

class SCOPED_CAPABILITY WriterLock {
 public:
  explicit WriterLock(SharedMutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~WriterLock() RELEASE() { mutex_.unlock(); }
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  SharedMutex& mutex_;
};

class SCOPED_CAPABILITY ReaderLock {
 public:
  explicit ReaderLock(SharedMutex& mutex) ACQUIRE_SHARED(mutex) : mutex_(mutex) { mutex_.lock_shared(); }
  ~ReaderLock() RELEASE_GENERIC() { mutex_.unlock_shared(); }
  ReaderLock(const ReaderLock&) = delete;
  ReaderLock& operator=(const ReaderLock&) = delete;

 private:
  SharedMutex& mutex_;
};

// A condition variable for Mutex. wait() releases and retakes the mutex; spurious wake-ups happen.
class CondVar {
 public:
  void wait(Mutex& mutex) REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.native(), std::adopt_lock);
    cv_.wait(lock);
    lock.release();
  }
  template <typename Rep, typename Period>
  void wait_for(Mutex& mutex, std::chrono::duration<Rep, Period> timeout) REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.native(), std::adopt_lock);
    cv_.wait_for(lock, timeout);
    lock.release();
  }
  void notify_one() { cv_.notify_one(); }
  void notify_all() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

}  // namespace vswitch
