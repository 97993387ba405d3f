// Software stand-ins for what a device would do: completing partial checksums and cutting GSO super-frames.
// Used where the way out cannot: a device without offloads, encapsulation with checksum, pcap files, upcalls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "datapath/packet/ip_layout.h"
#include "datapath/packet/packet.h"
#include "datapath/packet/packet_pool.h"

namespace vswitch {

// Completes a partial checksum in place (UDP: 0 becomes 0xffff; SCTP: CRC32c); the state becomes `none`. No-op
// otherwise. A csum_start/csum_offset outside the packet leaves it untouched and returns false. The GSO state is not
// touched: a super-frame that has to be finished is cut with segment_packet() instead.
bool complete_checksum(Packet& packet);

// Whether the packet is a super-frame inside a tunnel that the kernel made: what its GSO type and csum_start describe
// is not the frame's own L4 header but that of a packet in it. A vnet header can hand such a frame over but not back:
// for its receiver the type would be a lie about the outer headers. So it is cut before it leaves.
bool is_tunnel_super_frame(const Packet& packet);

// Calls `emit(PacketPtr)` with each segment of a GSO super-frame, in order: headers copied and fixed up (IPv4 id, total
// length, IPv6 payload length, TCP sequence number and flags, UDP length), checksums complete. Returns the number of
// segments; 0 and nothing emitted when the headers do not fit the GSO type or the pool runs dry before the first;
// segments that the pool could not hold are counted in *missing. The super-frame itself is freed.
template <typename Emit>
size_t segment_packet(PacketPtr packet, PacketPool& pool, size_t* missing, Emit&& emit);

// The non-template part: describes and builds segment `index` of `packet`.
//
// Of a super-frame inside a tunnel (is_tunnel_super_frame()) every segment has the tunnel's headers too, as if the
// inner frame had been cut before it was encapsulated: outer lengths and IPv4 checksum of its own, an IPv4 id that
// counts up (but for the 0 of an atomic datagram, RFC 6864), and an outer UDP checksum if the super-frame's is not 0.
// The tunnel is UDP (VXLAN, Geneve; RFC 7348, RFC 8926), GRE without checksum and sequence number (RFC 2784), or IP in
// IP; the inner IP header is the one directly in front of csum_start, and reaches as far as the outer one. Others are
// not valid.
class Segmenter {
 public:
  // REQUIRES: packet.offload.gso != none; the packet outlives the segmenter.
  explicit Segmenter(const Packet& packet);
  bool valid() const { return count_ != 0; }
  size_t count() const { return count_; }
  // Bytes of that segment's frame. REQUIRES: index < count().
  size_t segment_size(size_t index) const;
  // Null when the pool is empty or its buffers are too small. REQUIRES: index < count().
  PacketPtr build(size_t index, PacketPool& pool) const;

  // The same segment in two parts, for whoever can send from two places and needs no copy of the payload: its headers,
  // Ethernet to L4 (a tunnel's included), complete with checksums, and its payload, which lies in the super-frame.
  // REQUIRES: index < count(); `headers` has room for header_size() bytes.
  size_t header_size() const { return header_size_; }
  void write_headers(size_t index, uint8_t* headers) const;
  std::span<const uint8_t> payload(size_t index) const;

 private:
  void write_outer_headers(size_t index, uint8_t* headers) const;

  const Packet& packet_;
  IpLayout ip_;                    // what is cut
  std::optional<IpLayout> outer_;  // that of the tunnel in which it is
  size_t header_size_ = 0;         // Ethernet to end of L4 header
  size_t count_ = 0;
};

template <typename Emit>
size_t segment_packet(PacketPtr packet, PacketPool& pool, size_t* missing, Emit&& emit) {
  const Segmenter segmenter(*packet);
  size_t emitted = 0;
  for (size_t i = 0; i < segmenter.count(); ++i) {
    if (PacketPtr piece = segmenter.build(i, pool)) {
      emit(std::move(piece));
      ++emitted;
    } else {
      ++*missing;
    }
  }
  return emitted;
}

}  // namespace vswitch
