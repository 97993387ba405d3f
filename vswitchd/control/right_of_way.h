// RightOfWay: while somebody waits for a change, work in the background lets it go first.
//
//   const RightOfWay::Taken taken = right_of_way.take();  // who is waited for
//   left -= right_of_way.give(std::min(left, 3));         // the others, between two parts of their work
//
// Where all cores are busy the kernel gives each thread in turn a few milliseconds, which is longer than most changes
// of rules take. So background work that nobody waits for asks here before each of its parts, which are shorter. How
// long it may wait in all is its own affair: who changes rules all day must not keep flows from expiring.
//
// Thread safety: any thread; several may have the right of way at once. give() sleeps: no locks, not as an RCU reader.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

namespace vswitch {

class RightOfWay {
 public:
  explicit RightOfWay(std::function<void()> pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); })
      : pause_(std::move(pause)) {}

  class [[nodiscard]] Taken {
   public:
    explicit Taken(RightOfWay& owner) : owner_(owner) { owner_.taken_.fetch_add(1, std::memory_order_relaxed); }
    ~Taken() { owner_.taken_.fetch_sub(1, std::memory_order_relaxed); }
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;

   private:
    RightOfWay& owner_;
  };

  // Until what is returned goes.
  Taken take() { return Taken(*this); }
  // Waits, for `most` pauses of a millisecond at most. Returns how many there were.
  int give(int most) const {
    int pauses = 0;
    for (; pauses < most && taken_.load(std::memory_order_relaxed) != 0; ++pauses) pause_();
    return pauses;
  }

 private:
  const std::function<void()> pause_;
  std::atomic<uint32_t> taken_{0};
};

}  // namespace vswitch
