#include "vswitchd/store/checkpointer.h"

#include <sqlite3.h>
#include <sys/resource.h>

#include <memory>
#include <system_error>
#include <utility>

#include "datapath/base/thread_name.h"

namespace vswitch {
namespace {

// A niceness: a tenth of what others get, while these want the core. As long as a checkpoint goes on no other can
// begin, not even that of who commits to a log of the greatest length: it grows on meanwhile.
constexpr int kLowPriority = 10;

struct CloseDatabase {
  void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
};

// Null if it cannot be opened.
std::unique_ptr<sqlite3, CloseDatabase> open_second_connection(const std::string& path) {
  sqlite3* raw = nullptr;
  const int opened = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<sqlite3, CloseDatabase> database(raw);
  if (opened != SQLITE_OK) return nullptr;
  // The log may be overwritten once its pages are in the database, so they must be on disk by then. And this reads the
  // schema, without which the connection would not know of the log and would find nothing to move.
  if (sqlite3_exec(raw, "PRAGMA synchronous=FULL;", nullptr, nullptr, nullptr) != SQLITE_OK) return nullptr;
  return database;
}

}  // namespace

Checkpointer::~Checkpointer() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Checkpointer::request(Urgency urgency) {
  MutexLock lock(mutex_);
  if (!thread_.joinable() && !start()) return;
  const bool news = !wanted_ || (urgency == Urgency::now && !urgent_);
  wanted_ = true;
  if (urgency == Urgency::now) urgent_ = true;
  paused_ = false;
  if (news) changed_.notify_all();
}

// False if the system has no thread for it: then the log grows until who commits moves it.
bool Checkpointer::start() {
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error&) {  // must not go through SQLite, which calls us from its commit
    return false;
  }
  return true;
}

bool Checkpointer::wait_for_request() {
  MutexLock lock(mutex_);
  while (!wanted_ && !stopping_) changed_.wait(mutex_);
  while (!urgent_ && !stopping_ && !paused_) {
    paused_ = true;
    const auto end = std::chrono::steady_clock::now() + pause_;
    while (!urgent_ && !stopping_) {
      const auto left = end - std::chrono::steady_clock::now();
      if (left <= left.zero()) break;
      changed_.wait_for(mutex_, left);
    }
  }
  urgent_ = paused_ = false;
  return std::exchange(wanted_, false);
}

void Checkpointer::run() {
  name_this_thread("checkpointer");
  (void)::setpriority(PRIO_PROCESS, 0, kLowPriority);  // on Linux, of the calling thread; lowering it is allowed
  std::unique_ptr<sqlite3, CloseDatabase> database;
  while (wait_for_request()) {
    if (database == nullptr) database = open_second_connection(path_);
    if (database == nullptr) continue;
    // Passive: takes no lock that a writer would wait for.
    (void)sqlite3_wal_checkpoint_v2(database.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  }
}

}  // namespace vswitch
