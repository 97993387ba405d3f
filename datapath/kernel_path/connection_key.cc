#include "datapath/kernel_path/connection_key.h"

#include <cstddef>

#include "datapath/base/word_hash.h"

namespace vswitch {
namespace {

constexpr size_t kEthernetSize = 14, kAddresses = 12, kVlanTagSize = 4, kIpv4Size = 20, kIpv6Size = 40;
constexpr size_t kTcpMinSize = 20, kUdpSize = 8;
constexpr be16 kFragmentBits = to_be16(0x3fff);

struct Rest {
  const uint8_t* at;
  size_t left;
};

// Each: what follows the header within the datagram; null `at`: not for the kernel path.
Rest read_ipv4(const uint8_t* ip, size_t left, ConnectionKey& key) {
  if (left < kIpv4Size) return {};
  const size_t total = load_unaligned<be16>(ip + 2).host();
  if (ip[0] != 0x45 || total < kIpv4Size || total > left || left - total > UINT16_MAX) return {};
  if (load_unaligned<be16>(ip + 6) & kFragmentBits) return {};
  std::memcpy(key.src, ip + 12, 4);
  std::memcpy(key.dst, ip + 16, 4);
  key.proto = ip[9];
  key.tos = ip[1];
  return {ip + kIpv4Size, total - kIpv4Size};
}

Rest read_ipv6(const uint8_t* ip, size_t left, ConnectionKey& key) {
  if (left < kIpv6Size) return {};
  const uint32_t first = load_unaligned<be32>(ip).host();
  const size_t payload = load_unaligned<be16>(ip + 4).host();
  if (first >> 28 != 6 || payload > left - kIpv6Size || left - kIpv6Size - payload > UINT16_MAX) return {};
  std::memcpy(key.src, ip + 8, sizeof key.src);
  std::memcpy(key.dst, ip + 24, sizeof key.dst);
  key.proto = ip[6];
  key.tos = static_cast<uint8_t>(first >> 20);
  return {ip + kIpv6Size, payload};
}

bool read_ports(const Rest& l4, ConnectionKey& key) {
  if (key.proto == kProtoTcp) {
    if (l4.left < kTcpMinSize) return false;
    const size_t header = size_t{l4.at[12]} >> 4 << 2;
    if (header < kTcpMinSize || header > l4.left) return false;
  } else if (key.proto != kProtoUdp || l4.left < kUdpSize) {
    return false;
  }
  std::memcpy(&key.src_port, l4.at, sizeof key.src_port);
  std::memcpy(&key.dst_port, l4.at + 2, sizeof key.dst_port);
  return true;
}

be16 as_be16(const uint16_t& raw) { return load_unaligned<be16>(&raw); }

}  // namespace

size_t ConnectionKeyHash::operator()(const ConnectionKey& key) const {
  std::array<uint64_t, sizeof key / 8> words;
  std::memcpy(words.data(), &key, sizeof key);
  uint64_t hash = hash_start();
  for (const uint64_t word : words) hash = hash_word(hash, word);
  return hash_finish(hash);
}

std::optional<ConnectionKey> connection_key_of(const Packet& packet) {
  const uint8_t* frame = packet.data();
  size_t left = packet.size();
  if (left < kEthernetSize + kVlanTagSize) return std::nullopt;
  ConnectionKey key{};
  std::memcpy(key.eth_dst, frame, sizeof key.eth_dst);
  std::memcpy(key.eth_src, frame + sizeof key.eth_dst, sizeof key.eth_src);
  const uint8_t* at = frame + kAddresses;
  if (const auto type = load_unaligned<be16>(at); type == kEthTypeVlan || type == kEthTypeQinq) {
    key.vlan_tpid = type.raw();
    key.vlan_tci = (load_unaligned<be16>(at + 2) | kVlanCfi).raw();
    at += kVlanTagSize;
  }
  const auto type = load_unaligned<be16>(at);
  key.eth_type = type.raw();
  at += sizeof type;
  left -= static_cast<size_t>(at - frame);
  Rest l4{};
  if (type == kEthTypeIpv4) l4 = read_ipv4(at, left, key);
  if (type == kEthTypeIpv6) l4 = read_ipv6(at, left, key);
  if (l4.at == nullptr || !read_ports(l4, key)) return std::nullopt;
  return key;
}

FlowKey flow_key_of(const ConnectionKey& connection, uint32_t in_port) {
  FlowKey key;
  key.in_port = in_port;
  std::memcpy(&key.eth_dst, connection.eth_dst, sizeof key.eth_dst);
  std::memcpy(&key.eth_src, connection.eth_src, sizeof key.eth_src);
  key.eth_type = as_be16(connection.eth_type);
  key.vlan[0] = {as_be16(connection.vlan_tpid), as_be16(connection.vlan_tci)};
  if (key.eth_type == kEthTypeIpv4) {
    std::memcpy(&key.nw_src, connection.src, sizeof key.nw_src);
    std::memcpy(&key.nw_dst, connection.dst, sizeof key.nw_dst);
  } else {
    std::memcpy(&key.ipv6_src, connection.src, sizeof key.ipv6_src);
    std::memcpy(&key.ipv6_dst, connection.dst, sizeof key.ipv6_dst);
  }
  key.tp_src = as_be16(connection.src_port);
  key.tp_dst = as_be16(connection.dst_port);
  key.nw_proto = connection.proto;
  key.nw_tos = connection.tos;
  return key;
}

}  // namespace vswitch
