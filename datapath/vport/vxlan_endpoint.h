// The receiving half of VXLAN: shared UDP endpoints, and how a received packet finds its port.
//
//   VxlanEndpoints   the registry (VportEnvironment::tunnels): which port receives what, which sockets are open
//   VxlanEndpoint    one UDP socket (port number, address family): an RxSource that every port on it lists
//   VxlanReceiver    what the endpoint knows of a port: number, counters, extensions
//   VxlanAttachment  a port's place in the registry; giving it up closes the sockets that nobody else uses
//
// A place is taken in two steps: attach() makes sure that the port can have it, and from start_receiving() on the
// lookup finds the port. In between, packets that are to be the port's go where they went before it came.
//
// Port lookup: by VNI, outer source and outer destination. The most specific configuration wins, in the order of Open
// vSwitch: a given in_key before in_key=flow, then a given remote_ip before flow, then a given local_ip before any
// before flow. At most twelve hash lookups, and only for the kinds of configuration that exist.
//
// Checks, in the order of the Linux kernel (docs/tunnels.md): I flag; port; reserved bits; inner Ethernet header; ECN;
// port administratively up. What fails before the port is known is booked under port 0. A frame that is dropped here is
// booked as received and dropped; one that is returned is counted in the port's statistics, and booked as received by
// the datapath.
//
// Consecutive segments of one inner TCP connection are handed over as one super-frame (packet/gro.h).
//
// What a UDP socket cannot tell: whether the outer header had DF set or a UDP checksum. Received metadata has
// kTunnelKey only.
//
// Thread safety: the table is published by RCU, so receive() runs on a registered thread. VxlanEndpoints may be called
// from any thread; it opens and closes sockets and takes a mutex.
#pragma once

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/base/status.h"
#include "datapath/base/unique_fd.h"
#include "datapath/packet/gro.h"
#include "datapath/vport/output_policies.h"
#include "datapath/vport/tunnel_config.h"
#include "datapath/vport/tunnel_endpoints.h"
#include "datapath/vport/vport.h"
#include "datapath/vport/vport_counters.h"
#include "datapath/vport/vxlan_retry.h"
#include "datapath/vport/vxlan_senders.h"

namespace vswitch {

// Shared by a port and the endpoints; lives until the last table that names it is reclaimed.
struct VxlanReceiver {
  explicit VxlanReceiver(uint32_t number) : port_no(number) {}
  const uint32_t port_no;
  std::atomic<bool> gbp{false};
  std::atomic<bool> admin_up{true};
  VportCounters counters;
};

// The immutable table of one endpoint.
class VxlanPortTable {
 public:
  // Outer addresses as the endpoint's family has them; IPv4 in the first four bytes, the rest zero.
  struct Addresses {
    Ipv6Address remote, local;
  };
  void add(const TunnelIdentity& identity, std::shared_ptr<VxlanReceiver> receiver);
  VxlanReceiver* find(uint32_t vni, const Addresses& outer) const;

 private:
  static constexpr uint32_t kKinds = 12;
  struct Key {
    uint32_t kind = 0;  // which parts are given, in order of preference
    uint32_t vni = 0;
    Ipv6Address remote, local;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  static Key make_key(uint32_t kind, uint32_t vni, const Addresses& outer);

  uint32_t kinds_ = 0;  // bit per kind that exists
  std::unordered_map<Key, std::shared_ptr<VxlanReceiver>, KeyHash> ports_;
};

class VxlanEndpoint final : public RxSource {
 public:
  static Result<std::shared_ptr<VxlanEndpoint>> open(IpAddress::Family family, uint16_t udp_port);
  ~VxlanEndpoint() override;

  // What was read but did not fit a batch waits here for the next call; that is only after a full batch.
  size_t receive(ThreadContext& ctx, PacketBatch& batch) override;
  int poll_fd() const override { return fd_.get(); }

  // Replaces the table; the old one is reclaimed after a grace period.
  void publish(std::unique_ptr<const VxlanPortTable> table);

  // Packets dropped before their port was known.
  uint64_t unknown_vni() const { return unknown_vni_.get(); }
  uint64_t invalid_headers() const { return invalid_headers_.get(); }

 private:
  static constexpr size_t kMessages = 32;  // datagrams (or trains) per system call at most
  static constexpr size_t kMinBurst = 4;
  static constexpr size_t kMessageBuffer = 1 << 16;  // largest UDP payload, and largest train
  struct Control {
    alignas(8) std::array<char, 256> bytes;
  };
  // The datagram being taken apart: one VXLAN packet, or a train of them of piece_size bytes each (the last may be
  // shorter).
  struct Datagram {
    std::span<const uint8_t> rest;
    size_t piece_size = 0;
    uint16_t udp_gso_size = 0;  // of the inner super-frame, if it is one
    TunnelMetadata metadata;
    VxlanPortTable::Addresses outer;
    uint32_t last_vni = 0;
    VxlanReceiver* last_receiver = nullptr;  // of last_vni; valid within one receive() only
  };

  VxlanEndpoint(IpAddress::Family family, uint16_t udp_port, UniqueFd fd);
  bool read_messages(ThreadContext& ctx);
  void keep_unread();
  void begin_datagram(size_t index);
  void read_metadata(const msghdr& message, uint16_t& gso_size);
  void read_control(const cmsghdr& control, uint16_t& gso_size);
  // `own`: the packet that holds the piece and nothing else; null: it has to be copied.
  void take_piece(ThreadContext& ctx, PacketBatch& batch, std::span<const uint8_t> piece, PacketPtr own);
  VxlanReceiver* find_receiver(uint32_t vni);
  void take_frame(ThreadContext& ctx, PacketBatch& batch, VxlanReceiver& receiver, std::span<const uint8_t> frame,
                  PacketPtr own);
  bool append_to_last(ThreadContext& ctx, PacketBatch& batch, VxlanReceiver& receiver, std::span<const uint8_t> frame);
  uint8_t* buffer(size_t index) { return buffers_ + index * kMessageBuffer; }

  const IpAddress::Family family_;
  const be16 udp_port_;
  const UniqueFd fd_;
  std::atomic<const VxlanPortTable*> table_;
  Counter unknown_vni_, invalid_headers_;

  // Owned by the thread in receive(). A datagram is read into a packet, where it stays if it holds one frame; into a
  // buffer when no packet is large enough.
  uint8_t* buffers_;
  std::array<PacketPtr, kMessages> packets_;  // null outside receive(), whose thread's pool they are of
  size_t burst_;                              // how many datagrams to ask for; adapts
  Coalescer coalescer_;                       // of the last packet in the batch, if coalescing_
  bool coalescing_ = false;
  std::array<mmsghdr, kMessages> messages_{};
  std::array<iovec, kMessages> vectors_{};
  std::array<sockaddr_storage, kMessages> senders_{};
  std::array<Control, kMessages> controls_{};
  size_t message_count_ = 0, next_message_ = 0;
  Datagram datagram_;
};

class VxlanEndpoints;

class VxlanAttachment {
 public:
  ~VxlanAttachment();
  VxlanAttachment(const VxlanAttachment&) = delete;
  VxlanAttachment& operator=(const VxlanAttachment&) = delete;
  const std::vector<std::shared_ptr<VxlanEndpoint>>& endpoints() const { return endpoints_; }
  void start_receiving();

 private:
  friend class VxlanEndpoints;
  VxlanAttachment(VxlanEndpoints& registry, TunnelIdentity identity) : registry_(registry), identity_(identity) {}
  VxlanEndpoints& registry_;
  const TunnelIdentity identity_;
  std::string port_name_;
  std::shared_ptr<VxlanReceiver> receiver_;
  std::vector<std::shared_ptr<VxlanEndpoint>> endpoints_;
  bool receiving_ = false;  // guarded by the registry's mutex
};

class VxlanEndpoints final : public TunnelEndpoints {
 public:
  // Gives the port its place and opens the sockets that are not open yet. IPv6 may be missing on this host if the port
  // can do without. Errors: already_exists, naming the port that receives the same packets; those of
  // open_udp_receiver().
  Result<std::unique_ptr<VxlanAttachment>> attach(const std::string& port_name, const TunnelConfig& config,
                                                  std::shared_ptr<VxlanReceiver> receiver) EXCLUDES(mutex_);

  // Whether attach() would get its sockets; those that are not open yet are opened for the moment of the call.
  Status check_sockets(const std::string& port_name, const TunnelConfig& config) EXCLUDES(mutex_);

  // For ports that could not be attached because a socket was not to be had.
  VxlanRetry& retry() { return retry_; }

  // Of the host, for all ports.
  OutputPolicies& policies() { return policies_; }

  // The sending sockets with source ports in this range, shared by all ports that have the same.
  std::shared_ptr<VxlanSenders> senders(uint16_t port_min, uint16_t port_max) EXCLUDES(mutex_);

 private:
  friend class VxlanAttachment;
  using EndpointKey = std::pair<uint16_t, IpAddress::Family>;

  Status check_duplicate(const std::string& port_name, const TunnelIdentity& identity) const REQUIRES(mutex_);
  Result<std::shared_ptr<VxlanEndpoint>> open_endpoint(const EndpointKey& key) REQUIRES(mutex_);
  Result<std::vector<std::shared_ptr<VxlanEndpoint>>> open_endpoints(const std::string& port_name,
                                                                     const TunnelConfig& config) REQUIRES(mutex_);
  void publish_tables(const std::vector<std::shared_ptr<VxlanEndpoint>>& changed) REQUIRES(mutex_);
  void start_receiving(VxlanAttachment& attachment) EXCLUDES(mutex_);
  void detach(VxlanAttachment& attachment) EXCLUDES(mutex_);

  Mutex mutex_;
  std::vector<VxlanAttachment*> attachments_ GUARDED_BY(mutex_);
  // Weak: an endpoint lives as long as a port, or a forwarding thread that has not yet let go of it.
  std::map<EndpointKey, std::weak_ptr<VxlanEndpoint>> endpoints_ GUARDED_BY(mutex_);
  std::map<std::pair<uint16_t, uint16_t>, std::weak_ptr<VxlanSenders>> senders_ GUARDED_BY(mutex_);
  OutputPolicies policies_;
  VxlanRetry retry_;  // last: its thread ends first
};

}  // namespace vswitch
