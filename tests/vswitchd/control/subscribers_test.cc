#include "vswitchd/control/subscribers.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace vswitch {
namespace {

TEST(Subscribers, DeliversInOrderOfSubscription) {
  Subscribers<int> subscribers;
  std::vector<std::string> heard;
  EXPECT_TRUE(subscribers.empty());
  auto a = subscribers.subscribe([&](int n) { heard.push_back(n == 1 ? "a1" : "a"); });
  auto b = subscribers.subscribe([&](int n) { heard.push_back(n == 1 ? "b1" : "b"); });
  subscribers.deliver(1);
  a.reset();
  subscribers.deliver(2);
  b.reset();
  subscribers.deliver(3);
  EXPECT_EQ(heard, (std::vector<std::string>{"a1", "b1", "b"}));
  EXPECT_TRUE(subscribers.empty());
}

TEST(Subscribers, AHandleMayOutliveThem) {
  std::shared_ptr<void> handle;
  {
    Subscribers<int> subscribers;
    handle = subscribers.subscribe([](int) {});
  }
  handle.reset();
}

TEST(Subscribers, ACallbackMayEndItself) {
  Subscribers<int> subscribers;
  int calls = 0;
  std::shared_ptr<void> handle;
  handle = subscribers.subscribe([&](int) {
    ++calls;
    handle.reset();
    ++calls;  // what it captured lives as long as the call
  });
  subscribers.deliver(1);
  subscribers.deliver(2);
  EXPECT_EQ(calls, 2);
  EXPECT_TRUE(subscribers.empty());
}

TEST(Subscribers, ACallbackMayEndAndStartOthers) {
  Subscribers<int> subscribers;
  std::vector<std::string> heard;
  std::shared_ptr<void> second, third;
  const auto first = subscribers.subscribe([&](int) {
    second.reset();
    if (third == nullptr) third = subscribers.subscribe([&](int) { heard.push_back("third"); });
  });
  second = subscribers.subscribe([&](int) { heard.push_back("second"); });
  subscribers.deliver(1);
  subscribers.deliver(2);
  EXPECT_EQ(heard, (std::vector<std::string>{"third", "third"}));
}

// Ending waits for a call that is under way: afterwards nothing that the callback used is touched.
TEST(Subscribers, NoCallAfterTheEnd) {
  Subscribers<int> subscribers;
  std::atomic<bool> stop{false};
  std::thread deliverer([&] {
    while (!stop) subscribers.deliver(1);
  });
  for (int i = 0; i < 2000; ++i) {
    auto target = std::make_unique<std::atomic<int>>(0);
    auto handle = subscribers.subscribe([raw = target.get()](int n) { *raw += n; });
    handle.reset();
    target.reset();  // a late call would be seen by the address sanitizer
  }
  stop = true;
  deliverer.join();
}

}  // namespace
}  // namespace vswitch
