// What tunnel ports need around them in a test: an underlay of two hosts, sockets at the far end that see what arrives
// and send what they like, and a bench that drives ports.
//
//   this namespace  vxu0 10.77.0.1/24 fd77::1/64  ----veth----  vxu1 10.77.0.2/24 fd77::2/64  namespace of the peer
//
// A test needs PrivateNamespace (tests/support/netns.h) around it. Nothing here waits without a deadline.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "datapath/base/rcu.h"
#include "datapath/base/unique_fd.h"
#include "datapath/vport/vport.h"
#include "tests/support/fake_link_monitor.h"
#include "tests/support/fake_vport_host.h"
#include "tests/support/netns.h"
#include "tests/support/packet_builder.h"

namespace vswitch::test {

inline constexpr const char* kOurV4 = "10.77.0.1";
inline constexpr const char* kPeerV4 = "10.77.0.2";
inline constexpr const char* kOurV6 = "fd77::1";
inline constexpr const char* kPeerV6 = "fd77::2";

class TunnelUnderlay {
 public:
  TunnelUnderlay();
  ~TunnelUnderlay();
  const NetworkNamespace& peer() const { return peer_; }
  void set_mtu(uint32_t mtu);  // of both ends

 private:
  NetworkNamespace peer_;
};

struct Datagram {
  Bytes payload;
  uint16_t src_port = 0;
  int tos = -1;
  int ttl = -1;
};

// A UDP socket of the peer, bound to any address of one family.
class PeerSocket {
 public:
  PeerSocket(const TunnelUnderlay& underlay, bool v6, uint16_t port);

  std::optional<Datagram> receive();      // waits at most ten seconds
  std::optional<Datagram> receive_now();  // does not wait
  void set_tos(int tos);
  // Sends to our end, waiting for room in the socket at most ten seconds. segment_size != 0: as a train that stays
  // whole on the way (UDP_SEGMENT).
  void send(uint16_t to_port, const Bytes& payload, uint16_t segment_size = 0);

 private:
  UniqueFd fd_;
  const bool v6_;
};

// Frames as they arrive at the peer's end of the veth.
class PeerCapture {
 public:
  explicit PeerCapture(const TunnelUnderlay& underlay);
  // The next frame of this EtherType with IP protocol UDP to `port` (or any IPv4 fragment if port is 0).
  std::optional<Bytes> receive_udp(uint16_t eth_type, uint16_t port);

 private:
  UniqueFd fd_;
};

// Creates vxlan ports and is the thread that drives them. Routes and links are the test's (FakeLinkMonitor); sockets
// are real.
class TunnelBench : public VportBench {
 public:
  using Options = std::map<std::string, std::string>;

  explicit TunnelBench(size_t packet_count = 512);

  Result<std::unique_ptr<Vport>> create(const std::string& name, uint32_t port_no, Options options,
                                        bool must_work = true);
  // The same, where failure fails the test.
  std::unique_ptr<Vport> create_good(const std::string& name, uint32_t port_no, Options options);

  // receive() until there is a packet, or something was dropped; at most ten seconds.
  PacketBatch wait_for_packets(Vport& port);
  bool wait_for_drop(Vport& port, uint32_t port_no, DropReason reason, uint64_t count = 1);
  // Books the packet as injected, too.
  void send(Vport& port, PacketPtr packet);

  PacketPtr make(const PacketBuilder& builder, uint32_t in_port = 99);
  PacketPtr make(const Bytes& frame, uint32_t in_port = 99);

  FakeLinkMonitor& links() { return static_cast<FakeLinkMonitor&>(VportBench::links()); }
};

// A Linux vxlan device in the calling thread's namespace, up, without IPv6 (which would send packets of its own).
struct VxlanDevice {
  std::string name;
  uint32_t vni = 0;
  std::string remote;
  uint16_t port = 4789;
  bool udp_checksum = true;
};
void add_vxlan_device(const VxlanDevice& device);
MacAddress mac_of_device(const std::string& device);

}  // namespace vswitch::test
