// Network namespaces for tests: real kernel devices that nobody else sees and that vanish with the test program.
//
// A test program enters a namespace of its own before its first test:
//
//   [[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new test::PrivateNamespace);
//
// and a test that needs devices begins with VSWITCH_REQUIRE_NETNS(), which skips it when the program may not do that.
// The whole program moves, and early, because threads inherit the namespace of the thread that starts them.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>

#include "datapath/base/address.h"
#include "datapath/base/unique_fd.h"
#include "tests/support/eventually.h"

namespace vswitch::test {

class PrivateNamespace : public testing::Environment {
 public:
  void SetUp() override;
  // "" if the program is in a namespace of its own, else why not.
  static const std::string& failure();
};

#define VSWITCH_REQUIRE_NETNS()                                                                      \
  do {                                                                                               \
    if (!::vswitch::test::PrivateNamespace::failure().empty()) {                                     \
      GTEST_SKIP() << "needs a network namespace: " << ::vswitch::test::PrivateNamespace::failure(); \
    }                                                                                                \
  } while (false)

// One more namespace; it ends, with the devices in it, when the last of descriptor, sockets and threads does.
class NetworkNamespace {
 public:
  NetworkNamespace();
  int fd() const { return fd_.get(); }
  // Runs `body` on a thread inside the namespace and waits for it.
  void run(const std::function<void()>& body) const;

 private:
  UniqueFd fd_;
};

// Devices of the calling thread's namespace. They fail the test when the kernel refuses.
void add_veth(const std::string& name, const std::string& peer);  // both up
void delete_link(const std::string& name);
void set_link_up(const std::string& name, bool up = true);
// Waits until the kernel lets frames leave by the device, which is a moment after it is up.
void wait_for_link(const std::string& name);
void set_link_mtu(const std::string& name, uint32_t mtu);
void rename_link(const std::string& name, const std::string& new_name);  // the device must be down
void move_link(const std::string& name, const NetworkNamespace& to);
void add_alternative_name(const std::string& name, const std::string& alternative);
void add_address(const std::string& name, const std::string& address_and_length);  // "10.0.0.1/24"
void add_route(const std::string& destination_and_length, const std::string& device, const std::string& gateway = "");
void add_neighbour(const std::string& device, const std::string& address, const std::string& mac);  // permanent

}  // namespace vswitch::test
