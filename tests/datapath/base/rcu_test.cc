#include "datapath/base/rcu.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace vswitch {
namespace {

TEST(Rcu, BarrierRunsWhatWasRetired) {
  std::atomic<int> reclaimed{0};
  for (int i = 0; i < 10; ++i) rcu::retire([&] { ++reclaimed; });
  rcu::barrier();
  EXPECT_EQ(reclaimed, 10);
}

// A registered reader that has not been quiescent keeps what it may still hold.
TEST(Rcu, NothingIsReclaimedUnderAReader) {
  std::atomic<bool> retired{false}, reclaimed{false}, reading{false}, freed_too_early{false};
  std::thread reader([&] {
    const rcu::ThreadRegistration registration;
    reading = true;
    while (!retired) std::this_thread::yield();
    for (int i = 0; i < 1000; ++i) {
      if (reclaimed) freed_too_early = true;
      std::this_thread::yield();
    }
    rcu::quiescent();
  });
  while (!reading) std::this_thread::yield();
  rcu::retire([&] { reclaimed = true; });
  retired = true;
  rcu::barrier();
  EXPECT_TRUE(reclaimed);
  reader.join();
  EXPECT_FALSE(freed_too_early);
}

// Readers follow a pointer that a writer keeps replacing; each object says whether it is alive.
TEST(Rcu, ReadersSeeOnlyLivingObjects) {
  struct Object {
    std::atomic<int> alive{1};
    ~Object() { alive = 0; }
  };
  std::atomic<Object*> current{new Object};
  std::atomic<bool> stop{false};
  std::atomic<int> dead{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      const rcu::ThreadRegistration registration;
      while (!stop) {
        if (current.load(std::memory_order_acquire)->alive != 1) ++dead;
        rcu::quiescent();
      }
    });
  }
  for (int i = 0; i < 2000; ++i) {
    rcu::retire_delete(current.exchange(new Object, std::memory_order_acq_rel));
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  rcu::barrier();
  delete current.load();
  EXPECT_EQ(dead, 0);
}

TEST(Rcu, AnOfflineReaderHoldsUpNobody) {
  std::atomic<bool> offline{false}, stop{false};
  std::thread reader([&] {
    const rcu::ThreadRegistration registration;
    const rcu::Offline blocked;
    offline = true;
    while (!stop) std::this_thread::yield();
  });
  while (!offline) std::this_thread::yield();
  rcu::synchronize();  // would never return if the reader counted
  stop = true;
  reader.join();
}

TEST(Rcu, AScopeInsideOfflineReads) {
  std::atomic<bool> inside{false}, leave{false}, freed{false};
  std::thread reader([&] {
    const rcu::ThreadRegistration registration;
    const rcu::Offline blocked;
    const rcu::ReaderScope scope;
    inside = true;
    while (!leave) std::this_thread::yield();
    EXPECT_FALSE(freed) << "freed under a reader";
  });
  while (!inside) std::this_thread::yield();
  rcu::retire([&] { freed = true; });
  for (int i = 0; i < 100 && !freed; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  leave = true;
  reader.join();
  rcu::barrier();
  EXPECT_TRUE(freed);
}

TEST(Rcu, ScopesNest) {
  const rcu::ReaderScope outer;
  {
    const rcu::ReaderScope inner;
    rcu::quiescent();
  }
  rcu::synchronize();
}

}  // namespace
}  // namespace vswitch
