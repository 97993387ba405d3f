// Server streams that live as long as a client wants them: a bounded queue in front of a slow reader, and a reply again
// and again at an interval. They use gRPC's callback API, so a stream that waits holds no thread.
//
// Life: gRPC calls OnDone() once nothing more can happen, and that deletes the reactor. The source of events (Source)
// is let go of there, too; it promises that no call comes after.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "datapath/base/mutex.h"

namespace vswitch {

// Writes messages in order on a reactor that has StartWrite() and Finish(), one at a time, from any thread. `Reactor`
// is gRPC's, for a server stream or a stream in both directions.
template <typename Reactor, typename Response>
class WriteQueue : public Reactor {
 public:
  // `open` false: nothing is written before open().
  explicit WriteQueue(size_t capacity, bool open) : capacity_(capacity), open_(open) {}

  // Sends `first`, then what has been pushed so far, then what comes.
  void open(Response first) {
    Step step;
    {
      MutexLock lock(mutex_);
      queue_.push_front(std::move(first));
      open_ = true;
      step = next();
    }
    take(step);
  }

  // False: the client let `capacity` messages pile up, and this one is not sent. (After the end of the stream messages
  // are taken and forgotten.)
  bool enqueue(Response message) {
    Step step;
    {
      MutexLock lock(mutex_);
      if (ended_) return true;
      if (queue_.size() >= capacity_) return false;
      queue_.push_back(std::move(message));
      step = next();
    }
    take(step);
    return true;
  }

  // Ends the stream; what still waits is not sent. Only the first call counts.
  void finish(grpc::Status status) {
    Step step;
    {
      MutexLock lock(mutex_);
      if (ended_) return;
      ended_ = true;
      status_ = std::move(status);
      queue_.clear();
      step = next();
    }
    take(step);
  }

  void OnWriteDone(bool ok) override {
    Step step;
    {
      MutexLock lock(mutex_);
      writing_ = false;
      if (!ok) ended_ = true;
      step = next();
    }
    take(step);
  }

  void OnCancel() override { finish(grpc::Status::CANCELLED); }

 private:
  enum class Step { none, write, finish };

  // What to do now that the state changed. A write that is under way must be over before the stream may finish; it ends
  // when the client reads on or is cut off.
  Step next() REQUIRES(mutex_) {
    if (finished_ || writing_) return Step::none;
    if (ended_) {
      finished_ = true;
      return Step::finish;
    }
    if (!open_ || queue_.empty()) return Step::none;
    current_ = std::move(queue_.front());
    queue_.pop_front();
    writing_ = true;
    return Step::write;
  }

  // Outside the lock: gRPC may call back at once.
  void take(Step step) {
    switch (step) {
      case Step::none:
        return;
      case Step::write:
        this->StartWrite(&current_);
        return;
      case Step::finish:
        this->Finish(status_);
        return;
    }
  }

  const size_t capacity_;
  Mutex mutex_;
  std::deque<Response> queue_ GUARDED_BY(mutex_);
  Response current_;  // of the write under way
  grpc::Status status_;
  bool open_ GUARDED_BY(mutex_);
  bool writing_ GUARDED_BY(mutex_) = false;
  bool ended_ GUARDED_BY(mutex_) = false;
  bool finished_ GUARDED_BY(mutex_) = false;
};

// Writes what push() gives it, in order. When the client lets more than `capacity` messages pile up, the stream ends
// with RESOURCE_EXHAUSTED: a watcher must not miss a change unknowingly.
template <typename Response>
class QueueReactor final : public WriteQueue<grpc::ServerWriteReactor<Response>, Response> {
 public:
  explicit QueueReactor(size_t capacity)
      : WriteQueue<grpc::ServerWriteReactor<Response>, Response>(capacity, /*open=*/false) {}

  // Keeps what feeds push() alive until the stream ends. Call once, before anything else can end the stream.
  void set_source(std::shared_ptr<void> source) { source_ = std::move(source); }

  void push(Response message) {
    if (this->enqueue(std::move(message))) return;
    this->finish({grpc::StatusCode::RESOURCE_EXHAUSTED,
                  "the client reads more slowly than changes happen: list again, then watch again"});
  }

  void OnDone() override {
    source_.reset();
    delete this;
  }

 private:
  std::shared_ptr<void> source_;
};

// Writes make() at once and then every `interval`. make() returns false to leave one out.
template <typename Response>
class IntervalReactor : public grpc::ServerWriteReactor<Response> {
 public:
  IntervalReactor(std::chrono::milliseconds interval, std::function<bool(Response&)> make)
      : interval_(interval), make_(std::move(make)) {}

  void start() { turn(); }

  void OnWriteDone(bool ok) override {
    if (ok) {
      wait();
    } else {
      end();
    }
  }
  void OnCancel() override {
    MutexLock lock(mutex_);
    cancelled_ = true;
    if (alarm_) alarm_->Cancel();  // ends the wait at once; if there is none, the write fails
  }
  void OnDone() override { delete this; }

 private:
  void turn() {
    message_.Clear();
    if (make_(message_)) {
      this->StartWrite(&message_);
    } else {
      wait();
    }
  }
  void wait() {
    bool cancelled;
    {
      MutexLock lock(mutex_);
      cancelled = cancelled_;
      if (!cancelled) {
        alarm_ = std::make_unique<grpc::Alarm>();  // a new one: this may run in the old one's callback
        alarm_->Set(std::chrono::system_clock::now() + interval_, [this](bool expired) {
          if (expired) {
            turn();
          } else {
            end();
          }
        });
      }
    }
    if (cancelled) end();
  }
  void end() { this->Finish(grpc::Status::CANCELLED); }

  const std::chrono::milliseconds interval_;
  std::function<bool(Response&)> make_;
  Response message_;
  Mutex mutex_;
  bool cancelled_ GUARDED_BY(mutex_) = false;
  std::unique_ptr<grpc::Alarm> alarm_ GUARDED_BY(mutex_);
};

// A stream that is refused from the start.
template <typename Response>
class RefusingReactor : public grpc::ServerWriteReactor<Response> {
 public:
  explicit RefusingReactor(grpc::Status status) { this->Finish(std::move(status)); }
  void OnDone() override { delete this; }
};

}  // namespace vswitch
