// Generic receive offload: neighbouring segments of one TCP connection become one super-frame, so that everything
// behind (lookup, actions, system calls, the receiver's stack) is done once for up to 64 kB.
//
// Nothing is lost by it: cut again (packet/offload.h), the super-frame gives the segments byte for byte. So a frame is
// only appended if
// - it equals the first one up to the end of the TCP header, options included, but for what segmentation changes:
//   lengths, checksums, sequence number, an IPv4 id that counts up, and FIN and PSH, which only the last may have;
// - its sequence number follows, and its payload is as long as the first one's, or shorter, which ends the super-frame;
// - its checksums are right, or the TCP one is partial as it should be: a super-frame gets new ones, which must not
//   hide that a segment was damaged.
// Segments with SYN, RST, URG or CWR, fragments and frames with padding stay alone. Packets are never reordered, and
// none waits for another.
//
// Two ways to make a super-frame: Coalescer copies payloads behind each other, for packets that go on through the
// switch; SegmentRun only knows what belongs together, for whoever can send from several places (vport/frame_train.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "datapath/packet/ip_layout.h"
#include "datapath/packet/packet.h"

namespace vswitch {

// Segments that follow each other, by the rules above. Holds no payload.
class SegmentRun {
 public:
  // Ethernet with two VLAN tags, IPv4 with options or IPv6, TCP with options.
  static constexpr size_t kMaxHeaders = 14 + 8 + 60 + 60;

  // `first` is the first segment, of a packet with this offload state; it has to stay as it is while the run lasts.
  // False: it is no segment that others can follow, and there is no run.
  bool begin(std::span<const uint8_t> first, const OffloadState& offload);
  void end() { segments_ = 0; }
  // Whether `frame`, of a packet with this offload state, was taken as the next segment.
  bool append(std::span<const uint8_t> frame, const OffloadState& offload = {});

  size_t segments() const { return segments_; }        // 0: there is no run
  size_t header_size() const { return header_size_; }  // Ethernet to end of TCP header; at most kMaxHeaders
  size_t size() const { return size_; }                // of the super-frame
  // Makes the first segment's headers, or a copy of them, those of the super-frame, whose offload state is offload().
  void write_headers(uint8_t* headers) const;
  OffloadState offload() const;

 private:
  bool same_headers(const uint8_t* frame) const;
  bool right_checksums(std::span<const uint8_t> frame, const OffloadState& offload) const;
  uint32_t pseudo_sum(const uint8_t* frame, size_t l4_size) const;

  const uint8_t* first_ = nullptr;
  OffloadState first_offload_;
  IpLayout ip_;
  size_t header_size_ = 0;
  size_t payload_size_ = 0;  // of every segment but the last
  size_t segments_ = 0;
  size_t size_ = 0;
  uint32_t next_sequence_ = 0;
  uint16_t next_id_ = 0;  // IPv4
  uint8_t last_flags_ = 0;
};

class Coalescer {
 public:
  // `packet` is the first segment, if it can be one. It stays where it is until finish(), and the caller leaves its
  // frame alone.
  void begin(Packet& packet);
  // Appends the payload of `frame`, which does not lie in the packet's buffer. False: it does not continue what there
  // is, or there is no room; nothing has changed.
  bool append(std::span<const uint8_t> frame);
  // The packet is complete: with more than one segment it gets the headers and the offload state of a super-frame.
  // begin() comes next.
  void finish();

 private:
  Packet* packet_ = nullptr;  // of the run, if there is one
  SegmentRun run_;
};

}  // namespace vswitch
