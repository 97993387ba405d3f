// Packet: one frame in a pool buffer, with head room for encapsulation, and the metadata that travels with it.
//
//   buffer:  | Packet (this object) | head room | data ... data+size | tail room |
//
// The frame starts with an Ethernet header. A Packet is created by a PacketPool inside the pool's own buffer and is
// never moved or copied as an object; PacketPtr owns it and gives it back to its pool. One thread at a time uses a
// packet; passing the PacketPtr (or the batch that holds it) on passes the packet on.
//
// Offload state follows the Linux vnet header (struct virtio_net_hdr):
// - checksum none:     the L4 checksum in the frame is what it is; nobody has checked it.
// - checksum verified: a device or the kernel says that the L4 checksum is right.
// - checksum partial:  the L4 checksum field holds only the pseudo-header sum; whoever puts the frame on a wire must
//   complete it: ones' complement sum from csum_start to the end of the frame, stored at csum_start + csum_offset.
// - gso: the frame is a super-frame, to be cut into segments of gso_size payload bytes; implies checksum partial.
// datapath/packet/offload.h completes and cuts in software.
#pragma once

#include <array>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>

#include "datapath/packet/tunnel_metadata.h"

namespace vswitch {

class PacketPool;

// What kind of memory a packet lies in: its pool's. All but the heap have free lists of their own (packet_pool.h).
enum class PacketMemory : uint8_t { heap, umem, mbuf };

enum class ChecksumState : uint16_t { none, verified, partial };
enum class GsoType : uint8_t { none, tcp4, tcp6, udp_l4 };

struct OffloadState {
  ChecksumState checksum = ChecksumState::none;
  GsoType gso = GsoType::none;
  bool gso_ecn = false;      // TCP CWR must be set in the first segment only
  uint16_t gso_size = 0;     // payload bytes per segment
  uint16_t csum_start = 0;   // bytes from data(), valid when checksum is partial
  uint16_t csum_offset = 0;  // bytes from csum_start
};

// Byte offsets from data() of the headers that extraction found; kNoLayer when absent.
struct LayerOffsets {
  static constexpr uint16_t kNoLayer = 0xffff;
  uint16_t l2_5 = kNoLayer;  // first MPLS label
  uint16_t l3 = kNoLayer;
  uint16_t l4 = kNoLayer;
  uint16_t l3_end = kNoLayer;  // end of the L3 datagram by its own length field (padding excluded)
};

// What travels with the frame (host order); what the flow key takes from here, see flow/extract.h. All of it is set for
// every packet that is received, by copying what all packets of the source begin with (start_received()): that takes
// three wide stores, as there are no holes (so ChecksumState has 16 bits).
struct PacketMetadata {
  uint32_t in_port = 0;    // datapath port number the packet came in by (0 is never a port)
  uint32_t recirc_id = 0;  // 0: not recirculated
  uint32_t dp_hash = 0;    // set by the hash action
  uint32_t skb_priority = 0;
  uint32_t skb_mark = 0;
  uint32_t rss_hash = 0;  // hash of the flow, 0 = not computed; see flow/extract.h
  uint32_t cutlen = 0;    // bytes the next output is to leave off (trunc action); 0: none
  LayerOffsets layers;
  OffloadState offload;
  uint8_t recirc_depth = 0;  // how often this packet has been recirculated
  bool has_tunnel = false;   // Packet::tunnel is valid: received from, or to be sent into, a tunnel
};
static_assert(sizeof(PacketMetadata) == 48 && std::has_unique_object_representations_v<PacketMetadata>);

// What a packet that came in by that port begins with.
inline PacketMetadata received_by(uint32_t port_no) {
  PacketMetadata metadata;
  metadata.in_port = port_no;
  return metadata;
}

class Packet : public PacketMetadata {
  // What every packet needs on its way shares one cache line with the metadata.
  uint32_t size_;
  PacketMemory memory_;
  uint8_t* data_;
  // The second line.
  uint8_t* buffer_;
  uint32_t buffer_size_;
  PacketPool* pool_;
  Packet* next_free_ = nullptr;  // the pool's free list

 public:
  // Head room that a pool leaves in front of a received frame: room for outer Ethernet + VLAN + IPv6 + UDP + VXLAN and
  // for pushed VLAN tags, with some to spare.
  static constexpr size_t kDefaultHeadroom = 192;

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<uint8_t> bytes() { return {data_, size_}; }
  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  size_t headroom() const { return static_cast<size_t>(data_ - buffer_); }
  size_t tailroom() const { return buffer_size_ - headroom() - size_; }
  size_t capacity() const { return buffer_size_; }  // head room + data + tail room
  uint8_t* buffer() { return buffer_; }

  // Makes n more bytes in front of data(), uninitialised. REQUIRES: n <= headroom(). Layer offsets and csum_start are
  // shifted to keep pointing at the same bytes.
  uint8_t* push(size_t n) {
    assert(n <= headroom());
    data_ -= n;
    size_ += static_cast<uint32_t>(n);
    shift_offsets(static_cast<int>(n));
    return data_;
  }
  // Removes n bytes from the front. REQUIRES: n <= size(). Offsets that pointed into them become meaningless.
  void pull(size_t n) {
    assert(n <= size_);
    data_ += n;
    size_ -= static_cast<uint32_t>(n);
    shift_offsets(-static_cast<int>(n));
  }
  // Sets the size without touching bytes. REQUIRES: size <= capacity() - headroom().
  void set_size(size_t size) {
    assert(size <= buffer_size_ - headroom());
    size_ = static_cast<uint32_t>(size);
  }
  // Empties the packet and sets the head room. REQUIRES: headroom <= capacity().
  void reset(size_t headroom = kDefaultHeadroom) {
    assert(headroom <= buffer_size_);
    start_received(buffer_ + headroom, 0, {});
  }
  // A frame of `size` bytes that a device wrote to `data`, inside the buffer. `begin`: received_by() its port.
  void start_received(uint8_t* data, uint32_t size, const PacketMetadata& begin) {
    metadata() = begin;
    data_ = data;
    size_ = size;
  }

  PacketMetadata& metadata() { return *this; }
  const PacketMetadata& metadata() const { return *this; }
  TunnelMetadata tunnel;  // valid only if has_tunnel

  PacketPool* pool() const { return pool_; }
  // The pool's, known without looking at it.
  PacketMemory memory() const { return memory_; }

 private:
  friend class PacketPool;
  Packet(PacketPool* pool, PacketMemory memory, uint8_t* buffer, size_t buffer_size)
      : size_(0),
        memory_(memory),
        data_(buffer),
        buffer_(buffer),
        buffer_size_(static_cast<uint32_t>(buffer_size)),
        pool_(pool) {}
  ~Packet() = default;

  // All four layers at once, without a branch.
  void shift_offsets(int by) {
    using Offsets = std::array<uint16_t, sizeof(LayerOffsets) / sizeof(uint16_t)>;
    auto offsets = std::bit_cast<Offsets>(layers);
    for (uint16_t& offset : offsets) {
      offset = static_cast<uint16_t>(offset + (offset == LayerOffsets::kNoLayer ? 0 : by));
    }
    layers = std::bit_cast<LayerOffsets>(offsets);
    if (offload.checksum == ChecksumState::partial) {
      offload.csum_start = static_cast<uint16_t>(offload.csum_start + by);
    }
  }
};

struct PacketDeleter {
  void operator()(Packet* packet) const;  // gives the packet back to its pool
};
using PacketPtr = std::unique_ptr<Packet, PacketDeleter>;

// Gives `count` packets back, each to its pool; null entries are skipped. Cheaper than one by one.
void free_packets(Packet* const* packets, size_t count);

// Copies frame and metadata (offload state and layer offsets included) into a packet of `pool`, with the same head room
// where it fits. Null when the pool is empty or its buffers are too small.
PacketPtr clone_packet(const Packet& packet, PacketPool& pool);

// The part of the copy that is not the frame: every public member of Packet. Layer offsets and csum_start are copied as
// they are, so the frames must have the same headers at the same places.
void copy_metadata(const Packet& from, Packet& to);

}  // namespace vswitch
