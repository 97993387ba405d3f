// RuleProvision: has the kernel provide memory for rules while they are still being read, on a thread of its own. It
// clears that memory first, which takes a sixth of the time of loading a million rules.
//
// A help, never a need: where there is no thread or no memory for it, rules take what they need as they are made.
// Thread-compatible.
#pragma once

#include <cstddef>
#include <thread>

#include "datapath/base/mutex.h"
#include "vswitchd/rules/rule_memory.h"

namespace vswitch {

class RuleProvision {
 public:
  // `present`: so many of the rules that will be expected are there already, and need no memory.
  explicit RuleProvision(size_t present = 0) : present_(present) {}
  // Gives back as much as no rule has taken; of several that provide at once, any may have taken it.
  ~RuleProvision();
  RuleProvision(const RuleProvision&) = delete;
  RuleProvision& operator=(const RuleProvision&) = delete;

  // One rule more is to be added. Nothing is done for few rules.
  void expect_one() EXCLUDES(mutex_) {
    if (++rules_ % kTogether == 0 && rules_ > present_) provide_for(rules_ - present_);
  }

 private:
  // Most rules with addresses take more, with their share of tables and indexes.
  static constexpr size_t kBytesPerRule = 256;
  static constexpr size_t kTogether = rule_memory::kChunk / kBytesPerRule;
  void provide_for(size_t rules) EXCLUDES(mutex_);
  void run() EXCLUDES(mutex_);
  bool wait_for_more() EXCLUDES(mutex_);

  const size_t present_;
  size_t rules_ = 0;
  bool no_thread_ = false;  // the system has none for this
  std::thread thread_;
  size_t provided_ = 0;  // chunks; of thread_, as long as it runs
  Mutex mutex_;
  CondVar changed_;
  size_t wanted_ GUARDED_BY(mutex_) = 0;  // chunks
  bool ending_ GUARDED_BY(mutex_) = false;
};

}  // namespace vswitch
