#include "vswitchd/rules/rule_provision.h"

#include <system_error>

#include "datapath/base/thread_name.h"

namespace vswitch {

RuleProvision::~RuleProvision() {
  {
    MutexLock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  rule_memory::give_back_chunks(provided_);
}

void RuleProvision::provide_for(size_t rules) {
  {
    MutexLock lock(mutex_);
    wanted_ = rules * kBytesPerRule / rule_memory::kChunk;
    changed_.notify_all();
  }
  if (thread_.joinable() || no_thread_) return;
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error&) {
    no_thread_ = true;
  }
}

bool RuleProvision::wait_for_more() {
  MutexLock lock(mutex_);
  while (provided_ >= wanted_ && !ending_) changed_.wait(mutex_);
  return !ending_;
}

void RuleProvision::run() {
  name_this_thread("rule-memory");
  while (wait_for_more() && rule_memory::provide_chunk()) ++provided_;
}

}  // namespace vswitch
