// Subscribers: callbacks that come and go while events are delivered.
//
// A subscription ends when its handle is destroyed; no callback of it runs after that returns (unless destroyed from
// inside the callback itself, which is allowed and lets that call finish). deliver() runs callbacks one at a time, in
// order of subscription; a callback may subscribe and unsubscribe, but not deliver. Thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <thread>
#include <utility>

#include "datapath/base/mutex.h"

namespace vswitch {

template <typename... Arguments>
class Subscribers {
 public:
  using Callback = std::function<void(Arguments...)>;

  std::shared_ptr<void> subscribe(Callback callback) {
    auto entry = std::make_shared<Entry>(std::move(callback));
    {
      StateLock lock(*state_);
      state_->entries.push_back(entry);
    }
    // The handle keeps the state alive, not the other way round: it may outlive the switch.
    return std::shared_ptr<void>(entry.get(), [state = state_, entry](void*) {
      StateLock lock(*state);
      entry->ended = true;
      // deliver() is going through the list above us on this thread, and tidies up when it is through.
      if (!lock.inside_callback()) state->entries.remove(entry);
    });
  }

  void deliver(Arguments... arguments) const {
    StateLock lock(*state_);
    state_->delivering = std::this_thread::get_id();
    for (const std::shared_ptr<Entry>& entry : state_->entries) {
      if (!entry->ended) entry->callback(arguments...);
    }
    state_->delivering = std::thread::id();
    state_->entries.remove_if([](const std::shared_ptr<Entry>& entry) { return entry->ended; });
  }

  bool empty() const {
    StateLock lock(*state_);
    return state_->entries.empty();
  }

 private:
  struct Entry {
    explicit Entry(Callback c) : callback(std::move(c)) {}
    const Callback callback;
    bool ended = false;  // with the lock
  };
  struct State {
    Mutex mutex;
    std::atomic<std::thread::id> delivering{};  // the thread that holds the lock and runs callbacks
    std::list<std::shared_ptr<Entry>> entries;  // with the lock
  };
  // Holds the lock; inside a callback the thread has it already. (More than the static analysis can follow.)
  class StateLock {
   public:
    explicit StateLock(State& state) NO_THREAD_SAFETY_ANALYSIS
        : state_(state),
          inside_callback_(state.delivering == std::this_thread::get_id()) {
      if (!inside_callback_) state_.mutex.lock();
    }
    ~StateLock() NO_THREAD_SAFETY_ANALYSIS {
      if (!inside_callback_) state_.mutex.unlock();
    }
    StateLock(const StateLock&) = delete;
    StateLock& operator=(const StateLock&) = delete;
    bool inside_callback() const { return inside_callback_; }

   private:
    State& state_;
    const bool inside_callback_;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace vswitch
