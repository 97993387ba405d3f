// RCU: how read-mostly state is read without locks (liburcu, QSBR flavour).
//
// Who reads: forwarding threads, upcall handlers, the revalidator and any thread that traces. Each such thread holds an
// rcu::ThreadRegistration for its lifetime. A registered thread is a reader all the time; pointers obtained from
// RCU-protected state stay valid until that thread next calls quiescent() or goes offline (rcu::Offline, around
// anything that blocks). Unregistered threads must not dereference RCU-protected pointers outside the writer's lock.
//
// Who writes: one thread at a time, under the lock that the protected structure names. A writer publishes with a
// release store (std::atomic) and hands what it unlinked to retire(), which frees it after every reader has passed a
// quiescent state. retire() never blocks. synchronize() waits for that point itself, and must not be called by a thread
// that is an online reader unless through this function (it takes the caller offline meanwhile).
//
// ThreadSanitizer does not see liburcu's barriers; rcu.cc tells it of the same ordering.
#pragma once

#include <functional>

namespace vswitch::rcu {

class ThreadRegistration {
 public:
  ThreadRegistration();
  ~ThreadRegistration();
  ThreadRegistration(const ThreadRegistration&) = delete;
  ThreadRegistration& operator=(const ThreadRegistration&) = delete;
};

// For code reached both from registered reader threads and from others (the trace RPC, tests): makes the calling thread
// an online reader if it is none (not registered, or inside an Offline), and undoes just that at the end of the scope.
// Cheap when already online.
class ReaderScope {
 public:
  ReaderScope();
  ~ReaderScope();
  ReaderScope(const ReaderScope&) = delete;
  ReaderScope& operator=(const ReaderScope&) = delete;

 private:
  bool registered_here_;
  bool online_here_;
};

// The calling thread (if registered) promises to hold no RCU-protected pointer while this lives: use around blocking.
class Offline {
 public:
  Offline();
  ~Offline();
  Offline(const Offline&) = delete;
  Offline& operator=(const Offline&) = delete;

 private:
  bool was_online_;
};

// The calling thread holds no RCU-protected pointer right now. Must be called often by registered, online threads.
void quiescent();

// Runs `reclaim` on a background thread after a grace period, which may begin a millisecond later: it serves all that
// is retired until then. Never blocks the caller; order of reclaim is unspecified.
void retire(std::function<void()> reclaim);
template <typename T>
void retire_delete(T* object) {
  retire([object] { delete object; });
}

// Waits until every reader has been quiescent once.
void synchronize();

// Waits until everything retired before the call has been reclaimed (for tests and orderly shutdown).
void barrier();

}  // namespace vswitch::rcu
