// Port lookup, and the retry thread; what needs sockets is in vxlan_port_test.cc.
#include "datapath/vport/vxlan_endpoint.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

namespace vswitch {
namespace {

IpAddress ip(const char* text) { return *IpAddress::parse(text); }

VxlanPortTable::Addresses outer(const char* remote, const char* local) {
  VxlanPortTable::Addresses result;
  const auto copy = [](const IpAddress& from, Ipv6Address& to) {
    if (from.is_v6()) {
      to = from.v6;
    } else {
      store_unaligned(to.bytes.data(), from.v4);
    }
  };
  copy(ip(remote), result.remote);
  copy(ip(local), result.local);
  return result;
}

class VxlanPortTableTest : public ::testing::Test {
 protected:
  // "" for remote: flow; "" for local: any; "flow"; key -1: flow.
  void add(uint32_t port_no, const std::string& remote, const std::string& local, int64_t key) {
    TunnelIdentity identity;
    if (!remote.empty()) identity.remote = ip(remote.c_str());
    identity.local_flow = local == "flow";
    if (!local.empty() && !identity.local_flow) identity.local = ip(local.c_str());
    identity.in_key = key < 0 ? TunnelKeyConfig{true, 0} : TunnelKeyConfig{false, static_cast<uint64_t>(key)};
    table_.add(identity, std::make_shared<VxlanReceiver>(port_no));
  }
  uint32_t find(uint32_t vni, const char* remote = "10.0.0.2", const char* local = "10.0.0.1") const {
    const VxlanReceiver* receiver = table_.find(vni, outer(remote, local));
    return receiver == nullptr ? 0 : receiver->port_no;
  }
  VxlanPortTable table_;
};

TEST_F(VxlanPortTableTest, EmptyFindsNothing) { EXPECT_EQ(find(5), 0u); }

TEST_F(VxlanPortTableTest, EveryGivenPartMustFit) {
  add(1, "10.0.0.2", "10.0.0.1", 5);
  EXPECT_EQ(find(5), 1u);
  EXPECT_EQ(find(6), 0u);
  EXPECT_EQ(find(5, "10.0.0.3"), 0u);
  EXPECT_EQ(find(5, "10.0.0.2", "10.0.0.9"), 0u);
}

// Each added port is less specific than the one before, so removing from the front would show the next.
TEST_F(VxlanPortTableTest, OrderOfPreference) {
  struct Row {
    const char *remote, *local;
    int64_t key;
  };
  const Row rows[] = {
      {"10.0.0.2", "10.0.0.1", 5},  {"10.0.0.2", "", 5},  {"10.0.0.2", "flow", 5},
      {"", "10.0.0.1", 5},          {"", "", 5},          {"", "flow", 5},
      {"10.0.0.2", "10.0.0.1", -1}, {"10.0.0.2", "", -1}, {"10.0.0.2", "flow", -1},
      {"", "10.0.0.1", -1},         {"", "", -1},         {"", "flow", -1},
  };
  for (size_t i = std::size(rows); i-- > 0;) {
    add(static_cast<uint32_t>(i + 1), rows[i].remote, rows[i].local, rows[i].key);
    EXPECT_EQ(find(5), i + 1) << "row " << i;
  }
}

TEST_F(VxlanPortTableTest, Ipv6) {
  add(1, "fd00::2", "", 5);
  EXPECT_EQ(find(5, "fd00::2", "fd00::1"), 1u);
  EXPECT_EQ(find(5, "fd00::3", "fd00::1"), 0u);
}

TEST(VxlanRetryTest, TriesUntilItWorksAndNotAfter) {
  std::mutex mutex;
  std::condition_variable changed;
  int attempts = 0, others = 0;
  VxlanRetry retry(std::chrono::milliseconds(1));
  const auto once = retry.add([&] {
    const std::lock_guard lock(mutex);
    return ++attempts == 3;
  });
  const auto forever = retry.add([&] {
    const std::lock_guard lock(mutex);
    ++others;
    changed.notify_all();
    return false;
  });
  std::unique_lock lock(mutex);
  ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(10), [&] { return others >= 6; }));
  EXPECT_EQ(attempts, 3);
}

TEST(VxlanRetryTest, NothingRunsAfterTheHandleIsGone) {
  std::atomic<int> attempts{0};
  VxlanRetry retry(std::chrono::milliseconds(1));
  auto handle = retry.add([&] { return ++attempts, false; });
  handle.reset();
  const int before = attempts;
  std::atomic<bool> done{false};
  const auto later = retry.add([&] { return done = true, done.notify_all(), true; });
  done.wait(false);
  EXPECT_EQ(attempts, before);
}

}  // namespace
}  // namespace vswitch
