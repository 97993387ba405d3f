// Generic receive offload: neighbouring segments of one TCP connection become one super-frame, so that everything
// behind (lookup, actions, system calls, the receiver's stack) is done once for up to 64 kB.
//
// Nothing is lost by it: cut again (packet/offload.h), the super-frame gives the segments byte for byte. So a frame is
// only appended if
// - it equals the first one up to the end of the TCP header, options included, but for what segmentation changes:
//   lengths, checksums, sequence number, an IPv4 id that counts up, and FIN and PSH, which only the last may have;
// - its sequence number follows, and its payload is as long as the first one's, or shorter, which ends the super-frame;
// - its checksums are right: a super-frame gets new ones, which must not hide that a segment was damaged.
// Segments with SYN, RST, URG or CWR, fragments, frames with padding and frames with partial checksums stay alone.
// Packets are never reordered, and none waits for another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "datapath/packet/ip_layout.h"
#include "datapath/packet/packet.h"
#include "datapath/packet/packet_batch.h"
#include "datapath/packet/packet_pool.h"

namespace vswitch {

class Coalescer {
 public:
  // `packet` is the first segment, if it can be one. It stays where it is until finish(), and the caller leaves its
  // frame alone.
  void begin(Packet& packet);
  // Whether `frame` continues what there is; room is not considered.
  bool continues(std::span<const uint8_t> frame) const;
  // Appends the payload of `frame`, which does not lie in the packet's buffer. False: it does not continue what there
  // is, or there is no room; nothing has changed.
  bool append(std::span<const uint8_t> frame);
  // The packet is complete: with more than one segment it gets the headers and the offload state of a super-frame.
  // begin() comes next.
  void finish();

 private:
  bool same_headers(const uint8_t* frame) const;
  bool right_checksums(std::span<const uint8_t> frame) const;
  uint32_t pseudo_sum(const uint8_t* frame, size_t l4_size) const;

  Packet* packet_ = nullptr;  // null: nothing can be appended
  IpLayout ip_;
  size_t header_size_ = 0;   // Ethernet to end of TCP header
  size_t payload_size_ = 0;  // of every segment but the last
  size_t segments_ = 0;
  uint32_t next_sequence_ = 0;
  uint16_t next_id_ = 0;  // IPv4
  uint8_t last_flags_ = 0;
};

// Merges what can be merged among the neighbours in `batch`, in order; only packets with equal metadata and without
// offload state. Super-frames are packets of `pool`, whose buffers decide how large they get; when it is empty, packets
// stay as they are. Returns how many packets went into others.
size_t coalesce_batch(PacketBatch& batch, PacketPool& pool);

}  // namespace vswitch
