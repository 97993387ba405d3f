// VxlanRetry: tries again, about once a second, what a port could not do when it was made.
//
// The kernel tells nobody when a UDP port becomes free; asking again is the only way. The thread exists from the first
// time that anything had to be tried again, and sleeps without waking while there is nothing to try.
//
// Thread safety: add() from any thread. Attempts run on the retry thread, one at a time, and must not block for long.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "datapath/base/mutex.h"

namespace vswitch {

class VxlanRetry {
 public:
  using Attempt = std::function<bool()>;  // true: done, do not try again

  explicit VxlanRetry(std::chrono::milliseconds interval = std::chrono::seconds(1)) : interval_(interval) {}
  ~VxlanRetry();
  VxlanRetry(const VxlanRetry&) = delete;
  VxlanRetry& operator=(const VxlanRetry&) = delete;

  // Ends when the handle is destroyed; no attempt runs after that returns. The handle must not outlive this object.
  [[nodiscard]] std::shared_ptr<void> add(Attempt attempt) EXCLUDES(mutex_);

 private:
  struct Entry {
    Attempt attempt;
    bool done = false;
  };
  void run() EXCLUDES(mutex_);
  void remove(const Entry* entry) EXCLUDES(mutex_, running_);

  const std::chrono::milliseconds interval_;
  Mutex running_;  // held around attempts; before mutex_
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::shared_ptr<Entry>> entries_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_ GUARDED_BY(mutex_);
};

}  // namespace vswitch
