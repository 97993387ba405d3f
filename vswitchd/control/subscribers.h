// Subscribers: callbacks that come and go while events are delivered.
//
// A subscription ends when its handle is destroyed; no callback of it runs after that returns (unless destroyed from
// inside the callback itself). deliver() runs callbacks one at a time, in order of subscription. Thread-safe.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <utility>

#include "datapath/base/mutex.h"

namespace vswitch {

template <typename... Arguments>
class Subscribers {
 public:
  using Callback = std::function<void(Arguments...)>;

  std::shared_ptr<void> subscribe(Callback callback) {
    auto entry = std::make_shared<Callback>(std::move(callback));
    {
      MutexLock lock(state_->mutex);
      state_->callbacks.push_back(entry);
    }
    // The handle keeps the state alive, not the other way round: it may outlive the switch.
    return std::shared_ptr<void>(entry.get(), [state = state_, entry](void*) {
      MutexLock lock(state->mutex);
      state->callbacks.remove(entry);
    });
  }

  void deliver(Arguments... arguments) const {
    MutexLock lock(state_->mutex);
    for (const auto& callback : state_->callbacks) (*callback)(arguments...);
  }

  bool empty() const {
    MutexLock lock(state_->mutex);
    return state_->callbacks.empty();
  }

 private:
  struct State {
    mutable Mutex mutex;
    std::list<std::shared_ptr<Callback>> callbacks GUARDED_BY(mutex);
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace vswitch
