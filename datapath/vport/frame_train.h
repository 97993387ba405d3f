// FrameTrain: neighbouring UDP datagrams of one flow that leave for the kernel as one super-frame.
//
// A system call, a device queue, a softirq and a walk through the receiver's stack per frame cost far more than a small
// frame's bytes. Where a batch has several datagrams of one flow and one size in a row, the kernel is given one frame
// with their payloads behind each other (USO, VIRTIO_NET_HDR_GSO_UDP_L4), which it cuts again where it must: at the
// receiving socket, or in front of a device that cannot. Headers are written once; payloads are gathered from where
// they lie.
//
// Nothing is lost by it: cut again, the frames come out byte for byte. So a frame only joins if it equals the first one
// up to the end of the UDP header, but for an IPv4 id that counts up and the header checksum, which must be right; has
// neither IP options nor extension headers nor padding; is no fragment; and has a partial checksum (offload state),
// since cutting writes new ones, which must not hide that a datagram was damaged. Frames are never reordered, and none
// waits for another.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

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

// Packets of a batch as what a descriptor with vnet headers takes, in order: for each frame or train a message, which
// is a list of places to gather it from, the header first. Frames may be written to in front of their first byte.
class TrainMessages {
 public:
  struct Message {
    iovec* parts;
    uint8_t part_count;
    uint8_t frames;  // 1: not a train
  };

  // packets[begin...], of which packet i has headers[i]; both have to stay until all is sent.
  TrainMessages(PacketBatch& packets, VnetHeader* headers, size_t begin, bool with_trains);
  TrainMessages(const TrainMessages&) = delete;
  TrainMessages& operator=(const TrainMessages&) = delete;

  size_t size() const { return count_; }
  const Message& operator[](size_t i) const { return messages_[i]; }

 private:
  static constexpr size_t kMinTrain = 4;  // frames that are worth a super-frame
  struct Front {
    VnetHeader vnet;
    std::array<uint8_t, FrameTrain::kMaxHeaders> headers;
  };

  void add_frame(Packet& packet, VnetHeader& header);
  void add_train(PacketBatch& packets, size_t begin, const FrameTrain& train);
  void add_part(void* data, size_t size) { parts_[used_++] = {data, size}; }
  void end_message(size_t first_part, size_t frames);

  size_t count_ = 0, used_ = 0, trains_ = 0;
  std::array<Message, PacketBatch::kMaxPackets> messages_;
  std::array<iovec, 2 * PacketBatch::kMaxPackets> parts_;  // two per frame are enough: a train has two more than frames
  std::array<Front, PacketBatch::kMaxPackets / kMinTrain> fronts_;
};

}  // namespace vswitch
