// Checkpointer: moves what SQLite's write-ahead log holds into the database file, on a thread of its own, so that no
// commit, and nobody whose change it is, waits for it.
//
// A commit is durable as soon as the log is on disk; SQLite moves the log's pages at some commit or other, in the
// thread that commits, which takes as long as writing them all and waiting twice for the disk. Here a second connection
// does it, while the first one may go on committing. What that leaves in the log goes with the next time.
//
// Both wait for the same disk and, where they are busy, for the same cores, so it is put off until there is a pause
// between requests, which come with commits, and its thread has a low priority.
//
// Thread safety: request() by any thread. The thread starts with the first request.
#pragma once

#include <chrono>
#include <string>
#include <thread>
#include <utility>

#include "datapath/base/mutex.h"

namespace vswitch {

class Checkpointer {
 public:
  // `path`: of the database, which stays open elsewhere for as long as this lives.
  // `pause`: without a request, until one is carried out.
  explicit Checkpointer(std::string path, std::chrono::milliseconds pause = kPause)
      : path_(std::move(path)), pause_(pause) {}
  ~Checkpointer();  // carries out what has been requested
  Checkpointer(const Checkpointer&) = delete;
  Checkpointer& operator=(const Checkpointer&) = delete;

  // `now` does not wait for a pause: for a log that has become long without any.
  enum class Urgency : uint8_t { in_a_pause, now };
  // Asks for a checkpoint soon. What goes wrong with it (a full disk, say) leaves the log as it is, longer but valid,
  // until it is asked for again.
  void request(Urgency urgency) EXCLUDES(mutex_);

 private:
  static constexpr std::chrono::milliseconds kPause{100};

  bool start() REQUIRES(mutex_);
  void run() EXCLUDES(mutex_);
  bool wait_for_request() EXCLUDES(mutex_);  // false: there will be no more

  const std::string path_;
  const std::chrono::milliseconds pause_;
  Mutex mutex_;
  CondVar changed_;
  bool wanted_ GUARDED_BY(mutex_) = false;
  bool urgent_ GUARDED_BY(mutex_) = false;
  bool paused_ GUARDED_BY(mutex_) = false;  // no request has come since this was set
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace vswitch
