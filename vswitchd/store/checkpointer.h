// Checkpointer: moves what SQLite's write-ahead log holds into the database file, on a thread of its own, so that no
// commit, and nobody whose change it is, waits for it.
//
// A commit is durable as soon as the log is on disk; SQLite moves the log's pages at some commit or other, in the
// thread that commits, which takes as long as writing them all and waiting twice for the disk. Here a second connection
// does it, while the first one may go on committing. What that leaves in the log goes with the next time.
//
// Thread safety: request() by any thread. The thread starts with the first request.
#pragma once

#include <string>
#include <thread>
#include <utility>

#include "datapath/base/mutex.h"

namespace vswitch {

class Checkpointer {
 public:
  // `path`: of the database, which stays open elsewhere for as long as this lives.
  explicit Checkpointer(std::string path) : path_(std::move(path)) {}
  ~Checkpointer();  // carries out what has been requested
  Checkpointer(const Checkpointer&) = delete;
  Checkpointer& operator=(const Checkpointer&) = delete;

  // Asks for a checkpoint soon. What goes wrong with it (a full disk, say) leaves the log as it is, longer but valid,
  // until it is asked for again.
  void request() EXCLUDES(mutex_);

 private:
  bool start() REQUIRES(mutex_);
  void run() EXCLUDES(mutex_);
  bool wait_for_request() EXCLUDES(mutex_);  // false: there will be no more

  const std::string path_;
  Mutex mutex_;
  CondVar changed_;
  bool wanted_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace vswitch
