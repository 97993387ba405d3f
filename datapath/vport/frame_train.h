// Frames of one flow that leave for the kernel as one super-frame: UDP datagrams (FrameTrain) and TCP segments
// (SegmentRun, packet/gro.h).
//
// A system call, a device queue, a softirq and a walk through the receiver's stack per frame cost far more than a small
// frame's bytes. Where a batch has several datagrams of one flow and one size in a row, or consecutive segments of a
// connection, the kernel is given one frame with their payloads behind each other (USO, VIRTIO_NET_HDR_GSO_UDP_L4;
// TSO), which it cuts again where it must: at the receiving socket, or in front of a device that cannot; a TCP receiver
// takes it whole. Headers are written once; payloads are gathered from where they lie.
//
// Segments that come from the kernel mostly are super-frames already. Those from AF_XDP and DPDK never are, and nothing
// merges them earlier: a way out of that kind would have to cut them again, and could not send them from where they
// lie.
//
// Nothing is lost by it: cut again, the frames come out byte for byte. So a datagram only joins if it equals the first
// one up to the end of the UDP header, but for an IPv4 id that counts up and the header checksum, which must be right;
// has neither IP options nor extension headers nor padding; is no fragment; and has a partial checksum (offload state),
// since cutting writes new ones, which must not hide that a datagram was damaged. For segments the rules are those of
// packet/gro.h. Frames of one flow are never reordered, and none waits for another.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "datapath/packet/gro.h"
#include "datapath/packet/packet_batch.h"
#include "datapath/vport/vnet_header.h"

namespace vswitch {

class FrameTrain {
 public:
  // Ethernet, two VLAN tags, IPv6, UDP.
  static constexpr size_t kMaxHeaders = 14 + 8 + 40 + 8;

  // Begins with `packet`, whose frame has to stay as it is until the train is sent. False: it can only leave alone.
  bool begin(const Packet& packet);
  // Whether `packet` was taken as the next one.
  bool append(const Packet& packet);

  size_t count() const { return count_; }
  size_t header_size() const { return header_size_; }  // of each frame, and of the super-frame
  size_t payload_size() const { return payload_size_; }

  // The super-frame's headers: header_size() bytes to `headers`, and the header in front of it.
  void write_headers(std::span<uint8_t, kMaxHeaders> headers, VnetHeader& vnet) const;

 private:
  bool same_headers(const uint8_t* frame) const;

  const uint8_t* first_ = nullptr;
  size_t l3_ = 0;
  size_t header_size_ = 0;
  size_t payload_size_ = 0;
  size_t count_ = 0;
  uint16_t next_id_ = 0;
  bool is_v6_ = false;
};

// Moves packets of one TCP or UDP flow next to each other, to where the first of them is; their order stays. Nothing is
// moved past one whose flow cannot be told: a fragment, or a packet that was cut so short that it has no ports.
void group_flows(PacketBatch& batch);
// Whether that is worth trying: frames of AF_XDP and DPDK, which have memory of their own, come as the wire has them.
// What a kernel device gives came in bursts of a flow, or was merged.
bool comes_as_on_the_wire(const PacketBatch& batch);

// What may leave as a train; the kernel may take one kind and not the other.
struct TrainKinds {
  bool datagrams = true;  // Linux 6.2
  bool segments = true;
};

// Packets of a batch as what a descriptor with vnet headers takes, in order: for each frame or train a message, which
// is a list of places to gather it from, the header first. Frames may be written to in front of their first byte.
class TrainMessages {
 public:
  struct Message {
    iovec* parts;
    uint8_t part_count;
    uint8_t frames;  // 1: not a train
    bool segments;   // a train of TCP segments
  };

  // packets[begin...], of which packet i has headers[i]; both have to stay until all is sent.
  TrainMessages(PacketBatch& packets, VnetHeader* headers, size_t begin, TrainKinds kinds);
  TrainMessages(const TrainMessages&) = delete;
  TrainMessages& operator=(const TrainMessages&) = delete;

  size_t size() const { return count_; }
  const Message& operator[](size_t i) const { return messages_[i]; }

 private:
  static constexpr size_t kMinDatagrams = 4, kMinSegments = 2;  // that are worth a super-frame
  struct Front {
    VnetHeader vnet;
    std::array<uint8_t, SegmentRun::kMaxHeaders> headers;
  };
  static_assert(SegmentRun::kMaxHeaders >= FrameTrain::kMaxHeaders);

  void add_frame(Packet& packet, VnetHeader& header);
  size_t add_datagrams(PacketBatch& packets, size_t begin);
  size_t add_segments(PacketBatch& packets, size_t begin);
  void add_train(PacketBatch& packets, size_t begin, size_t count, size_t header_size, bool segments);
  void add_part(void* data, size_t size) { parts_[used_++] = {data, size}; }
  void end_message(size_t first_part, size_t frames, bool segments);

  size_t count_ = 0, used_ = 0, trains_ = 0;
  std::array<Message, PacketBatch::kMaxPackets> messages_;
  std::array<iovec, 2 * PacketBatch::kMaxPackets> parts_;  // two per frame are enough: a train has two more than frames
  std::array<Front, PacketBatch::kMaxPackets / kMinSegments> fronts_;
};

}  // namespace vswitch
