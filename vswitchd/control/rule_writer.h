// RuleWriter: writes the rules of a large change to the store while the rest of it is still being staged, on a thread
// of its own that lives as long as the writer.
//
// Finding the place of a rule in the tables and putting it into the store take about as long; with a million rules this
// is what makes the wait for the second half shorter. The store keeps what it is given so to itself until the change is
// committed (Store::write_ahead()). What waits for the thread is bounded.
//
// Thread-compatible: used by the one thread that stages. While the writer lives, and until finish() has returned, the
// store belongs to its thread.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/base/status.h"
#include "vswitchd/rules/rule.h"
#include "vswitchd/store/store.h"

namespace vswitch {

class RuleWriter {
 public:
  explicit RuleWriter(Store& store) : store_(store) {}
  // Ends the thread, and makes the store forget what was written unless keep() has been called.
  ~RuleWriter();
  RuleWriter(const RuleWriter&) = delete;
  RuleWriter& operator=(const RuleWriter&) = delete;

  // Rules that have been staged in tables of `bridge`; they must live until finish(). Waits while much is to be written
  // already.
  void add(const std::string& bridge, std::span<const Rule* const> rules) EXCLUDES(mutex_);
  // All are written, or the reason why not.
  Status finish() EXCLUDES(mutex_);
  // The rules are about to go: when it returns, none is looked at any more.
  void abandon() EXCLUDES(mutex_);
  // After finish(): the ids of all that were added, in that order.
  std::span<const uint64_t> written() const { return written_; }
  // They have been committed.
  void keep() { kept_ = true; }

 private:
  struct Block {
    std::string bridge;
    std::vector<const Rule*> rules;
  };
  void run() EXCLUDES(mutex_);
  Status write(const Block& block);

  Store& store_;
  std::thread thread_;
  std::vector<uint64_t> written_;
  bool kept_ = false;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Block> waiting_ GUARDED_BY(mutex_);
  bool ending_ GUARDED_BY(mutex_) = false;
  Status status_ GUARDED_BY(mutex_);
};

}  // namespace vswitch
