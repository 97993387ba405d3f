// eventually(): waits for something that another thread or the kernel does, without sleeping a fixed time.
#pragma once

#include <chrono>
#include <thread>

namespace vswitch::test {

// True as soon as `condition` holds, false if it does not within the deadline.
template <typename Condition>
bool eventually(Condition&& condition, std::chrono::milliseconds deadline = std::chrono::seconds(10)) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace vswitch::test
