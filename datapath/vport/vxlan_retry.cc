#include "datapath/vport/vxlan_retry.h"

#include <algorithm>
#include <utility>

#include "datapath/base/thread_name.h"

namespace vswitch {

VxlanRetry::~VxlanRetry() {
  std::thread thread;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    thread = std::move(thread_);
  }
  changed_.notify_all();
  if (thread.joinable()) thread.join();
}

std::shared_ptr<void> VxlanRetry::add(Attempt attempt) {
  auto entry = std::make_shared<Entry>(Entry{std::move(attempt)});
  MutexLock lock(mutex_);
  entries_.push_back(entry);
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  changed_.notify_all();
  Entry* raw = entry.get();
  return {raw, [this, entry](void*) { remove(entry.get()); }};
}

void VxlanRetry::remove(const Entry* entry) {
  MutexLock running(running_);
  MutexLock lock(mutex_);
  std::erase_if(entries_, [entry](const auto& other) { return other.get() == entry; });
}

void VxlanRetry::run() {
  name_this_thread("vxlan-retry");
  for (;;) {
    {
      MutexLock lock(mutex_);
      while (entries_.empty() && !stopping_) changed_.wait(mutex_);
      if (!stopping_) changed_.wait_for(mutex_, interval_);
      if (stopping_) return;
    }
    MutexLock running(running_);
    std::vector<std::shared_ptr<Entry>> entries;
    {
      MutexLock lock(mutex_);
      entries = entries_;
    }
    for (const auto& entry : entries) entry->done = entry->attempt();
    MutexLock lock(mutex_);
    std::erase_if(entries_, [](const auto& entry) { return entry->done; });
  }
}

}  // namespace vswitch
