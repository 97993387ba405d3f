// A packet socket on a device: sends frames by it and counts those that arrive.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <fstream>
#include <string>

#include "datapath/base/unique_fd.h"
#include "tests/support/packet_builder.h"

namespace vswitch::test {

// Devices that are made from now on in this namespace send nothing of their own (or do again).
inline void keep_quiet(bool quiet = true) {
  std::ofstream("/proc/sys/net/ipv6/conf/default/disable_ipv6") << (quiet ? 1 : 0) << std::flush;
}

class PacketEnd {
 public:
  explicit PacketEnd(const std::string& device)
      : ifindex_(::if_nametoindex(device.c_str())), fd_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)) {
    const int one = 1;
    EXPECT_EQ(::setsockopt(fd_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one), 0);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(ifindex_);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  int fd() const { return fd_.get(); }
  uint32_t ifindex() const { return ifindex_; }
  void send(const Bytes& frame) {
    EXPECT_EQ(::send(fd(), frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  }
  // Frames that arrive: a veth pair hands them over within the sender's call, or soon after.
  size_t receive(int wait_ms = 50) {
    size_t count = 0;
    pollfd poller{fd(), POLLIN, 0};
    std::array<uint8_t, 2048> buffer;
    while (::poll(&poller, 1, wait_ms) > 0 && ::recv(fd(), buffer.data(), buffer.size(), 0) > 0) {
      count += buffer[12] == 0x08 && buffer[13] == 0 ? 1 : 0;  // the kernel says things of its own
    }
    return count;
  }

 private:
  const uint32_t ifindex_;
  UniqueFd fd_;
};

}  // namespace vswitch::test
