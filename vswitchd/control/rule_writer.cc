#include "vswitchd/control/rule_writer.h"

#include <utility>

#include "datapath/base/thread_name.h"
#include "vswitchd/openflow/rule_codec.h"

namespace vswitch {
namespace {

constexpr size_t kMostBlocks = 64;

}  // namespace

RuleWriter::~RuleWriter() {
  const bool used = thread_.joinable() || !written_.empty();
  abandon();
  if (used && !kept_) store_.discard();
}

void RuleWriter::add(const std::string& bridge, std::span<const Rule* const> rules) {
  for (const Rule* rule : rules) written_.push_back(rule->id());
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  MutexLock lock(mutex_);
  while (waiting_.size() >= kMostBlocks) changed_.wait(mutex_);
  waiting_.push_back({bridge, {rules.begin(), rules.end()}});
  changed_.notify_all();
}

Status RuleWriter::finish() {
  {
    MutexLock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  MutexLock lock(mutex_);
  return status_;
}

void RuleWriter::abandon() {
  {
    MutexLock lock(mutex_);
    waiting_.clear();
  }
  (void)finish().ok();
}

void RuleWriter::run() {
  name_this_thread("rule-writer");
  for (;;) {
    Block block;
    {
      MutexLock lock(mutex_);
      while (waiting_.empty() && !ending_) changed_.wait(mutex_);
      if (waiting_.empty()) return;
      block = std::move(waiting_.front());
      waiting_.pop_front();
      changed_.notify_all();
      if (!status_.ok()) continue;  // what comes after an error is taken and forgotten
    }
    if (Status status = write(block); !status.ok()) {
      MutexLock lock(mutex_);
      status_ = std::move(status);
    }
  }
}

Status RuleWriter::write(const Block& block) {
  for (const Rule* rule : block.rules) {
    VSWITCH_RETURN_IF_ERROR(store_.write_ahead(rule->id(), block.bridge, encode_rule(rule->spec())));
  }
  return {};
}

}  // namespace vswitch
