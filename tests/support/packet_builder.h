// PacketBuilder: frames for tests, header by header, with right lengths and checksums.
//
//   auto frame = PacketBuilder().ethernet(kMacA, kMacB).vlan(10).ipv4("10.0.0.1", "10.0.0.2").udp(1000, 53).build();
//
// Headers stand in the order of the calls. Each call fills the type or next-header field of the header before it, and
// build() fills the lengths (IPv4 total length, IPv6 payload length, UDP length, 802.3 length) and checksums from what
// follows. A value that a test sets on purpose (Ipv4Options::total_length, raw(), ...) is kept: that is how malformed
// packets are made. A builder may be copied, to build variants.
//
// compose() is the inverse of extract_flow_key(): the frame that a key describes.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "datapath/base/address.h"
#include "datapath/flow/flow_key.h"
#include "datapath/packet/packet_pool.h"

namespace vswitch::test {

using Bytes = std::vector<uint8_t>;

inline constexpr std::string_view kMacA = "02:00:00:00:00:0a", kMacB = "02:00:00:00:00:0b";

// REQUIRES: valid text; these are for literals and end the program otherwise.
MacAddress mac(std::string_view text);
be32 ipv4(std::string_view text);
Ipv6Address ipv6(std::string_view text);

struct Ipv4Options {
  uint8_t tos = 0, ttl = 64;
  uint16_t id = 0;
  uint16_t fragment = 0;                 // the flags and offset field: 0x2000 more fragments, low 13 bits offset / 8
  Bytes options{};                       // padded to 4 bytes with 0
  std::optional<uint8_t> protocol{};     // else by the header that follows
  std::optional<uint8_t> version_ihl{};  // else right
  std::optional<uint16_t> total_length{};
};

struct Ipv6Options {
  uint8_t traffic_class = 0, hop_limit = 64;
  uint32_t label = 0;
  std::optional<uint8_t> next_header{};
  std::optional<uint16_t> payload_length{};
};

struct TcpOptions {
  uint16_t flags = 0x018;  // 12 bits; default ack, psh
  uint32_t seq = 1, ack = 0;
  uint16_t window = 65535;
  std::optional<uint8_t> data_offset{};  // in 4-byte words
};

class PacketBuilder {
 public:
  // Link layer. The EtherType comes from the header that follows, or from eth_type().
  PacketBuilder& ethernet(std::string_view src = kMacA, std::string_view dst = kMacB);
  PacketBuilder& ethernet(const MacAddress& src, const MacAddress& dst);
  PacketBuilder& eth_type(uint16_t type);
  PacketBuilder& vlan(uint16_t vid, uint8_t pcp = 0, uint16_t tpid = 0x8100);
  PacketBuilder& vlan_tci(uint16_t tci, uint16_t tpid);
  PacketBuilder& llc(std::initializer_list<uint8_t> header);  // 802.3: length instead of type
  PacketBuilder& snap(uint16_t type, uint32_t oui = 0);       // 802.3 + LLC + SNAP
  PacketBuilder& mpls(uint32_t label, uint8_t tc, bool bottom, uint8_t ttl, uint16_t type = 0x8847);

  // Network layer.
  PacketBuilder& ipv4(std::string_view src, std::string_view dst, const Ipv4Options& options = {});
  PacketBuilder& ipv4(be32 src, be32 dst, const Ipv4Options& options = {});
  PacketBuilder& ipv6(std::string_view src, std::string_view dst, const Ipv6Options& options = {});
  PacketBuilder& ipv6(const Ipv6Address& src, const Ipv6Address& dst, const Ipv6Options& options = {});
  // An extension header of `size` bytes (a multiple of 8; for AH of 4): hop-by-hop, routing, destination options or AH.
  PacketBuilder& extension(IpProto type, size_t size = 8);
  PacketBuilder& ipv6_fragment(uint16_t offset_and_flags, uint32_t id = 1);
  PacketBuilder& arp(uint16_t opcode, const MacAddress& sha, be32 spa, const MacAddress& tha, be32 tpa);
  PacketBuilder& rarp(uint16_t opcode, const MacAddress& sha, be32 spa, const MacAddress& tha, be32 tpa);
  PacketBuilder& nsh(const NshKey& nsh);  // MD type 1 if mdtype is 1, else without context

  // Transport layer.
  PacketBuilder& tcp(uint16_t src, uint16_t dst, const TcpOptions& options = {});
  PacketBuilder& udp(uint16_t src, uint16_t dst);
  PacketBuilder& sctp(uint16_t src, uint16_t dst);
  PacketBuilder& icmp(uint8_t type, uint8_t code);
  PacketBuilder& igmp(uint8_t type, uint8_t code, be32 group);
  PacketBuilder& icmpv6(uint8_t type, uint8_t code, be32 data = {});
  PacketBuilder& nd_target(const Ipv6Address& target);  // behind icmpv6(135 or 136, 0)
  PacketBuilder& nd_option(uint8_t type, const MacAddress& address);

  // Payload: counts in lengths and checksums of the headers before it.
  PacketBuilder& payload(std::string_view text);
  PacketBuilder& payload(size_t size);  // 0, 1, 2, ...
  PacketBuilder& raw(std::span<const uint8_t> bytes);
  PacketBuilder& raw(std::initializer_list<uint8_t> bytes) { return raw(std::span(bytes.begin(), bytes.size())); }
  // Bytes behind the frame that no length covers.
  PacketBuilder& padding(size_t size);
  PacketBuilder& pad_to(size_t frame_size) { return min_size_ = frame_size, *this; }

  Bytes build() const;
  // The frame in a packet of `pool`. Null when the pool is empty or the frame too large for it.
  PacketPtr build(PacketPool& pool) const;

 private:
  enum class Kind : uint8_t {
    ethernet,
    vlan,
    llc,
    mpls,
    ipv4,
    ipv6,
    extension,
    arp,
    nsh,
    tcp,
    udp,
    sctp,
    icmp,
    igmp,
    icmpv6,
    payload
  };
  struct Header {
    Kind kind;
    Bytes bytes;
    bool fixed_type = false;    // its type field was given
    bool fixed_length = false;  // its length field was given
  };

  PacketBuilder& add(Kind kind, Bytes bytes);
  PacketBuilder& add_arp(uint16_t type, uint16_t opcode, const MacAddress& sha, be32 spa, const MacAddress& tha,
                         be32 tpa);
  void name_next_type(uint16_t type);      // into the link layer header before
  void name_next_protocol(uint8_t proto);  // into the IP header or extension before
  PacketBuilder& add_l4(Kind kind, Bytes bytes, uint8_t proto);

  void finish_header(size_t i, const std::vector<size_t>& starts, Bytes& frame) const;

  std::vector<Header> headers_;
  size_t padding_ = 0;
  size_t min_size_ = 0;
};

// A frame whose extraction gives `key` (the packet's headers; metadata and tunnel are not part of a frame): right
// lengths and checksums, `payload_size` bytes of payload where the protocol carries any. A key that no packet can have
// gives the nearest frame.
Bytes compose(const FlowKey& key, size_t payload_size = 0);

// A copy of `frame` in a packet of `pool`, null if it does not fit.
PacketPtr make_packet(PacketPool& pool, std::span<const uint8_t> frame, size_t headroom = Packet::kDefaultHeadroom);

Bytes from_hex(std::string_view hex);  // blanks are skipped; ends the program at anything else that is not hex
std::string to_hex(std::span<const uint8_t> bytes);

}  // namespace vswitch::test
